//! The page for people, and what it reads each second.

use std::{collections::hash_map::RandomState, hash::BuildHasher};

use serde_json::{Value, json};

use super::response::{Response, cut};
use super::script::Received;
use super::state::{Generation, PRICE, State, now};

/// How many of the newest requests and generations the page shows.
const SHOWN: usize = 100;

/// Whether it is the page that asks, and no program.
pub(super) fn is_behind(request: &Received) -> bool {
    let is_file = request.path().starts_with("/files/") && request.url.ends_with("?page");
    request.method == "GET" && (is_file || ["/", "/events.json"].contains(&request.path()))
}

/// Nothing but the page's own script, style, events and videos.
const POLICY: &str = "default-src 'none'; script-src 'nonce-NONCE'; style-src 'nonce-NONCE'; \
    connect-src 'self'; media-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'";

pub(super) fn html() -> Response {
    let nonce = format!("{:016x}", RandomState::new().hash_one("nonce"));
    let texts = [include_str!("page.html"), POLICY];
    let [html, policy] = texts.map(|text| text.replace("NONCE", &nonce));
    Response::new(200, "text/html; charset=utf-8", html.into_bytes())
        .with("content-security-policy", policy)
}

/// No headers are in it, and of URLs only the path: it is shown to others.
pub(super) fn events(state: &State) -> Response {
    let requests = (0..state.count).rev().zip(state.received.iter().rev());
    let requests = requests.take(SHOWN).map(|(number, (at, request))| {
        json!({"number": number, "at": at.as_millis() as u64, "status": request.status,
            "method": cut(&request.method, 20), "path": cut(request.path(), 200),
            "generation": request.query().get("generation_id").map(|id| cut(id, 200)),
            "body": cut(&request.body, 2_000)})
    });
    let generations = state.generations.iter().rev().take(SHOWN);
    let generations = generations.map(of_generation);
    let body = json!({"now": now().as_millis() as u64, "charged": state.charged(),
        "price": {"credits": PRICE.0, "usd": PRICE.1},
        "requests": requests.collect::<Vec<_>>(),
        "generations": generations.collect::<Vec<_>>()});
    Response::json(200, &body)
}

fn of_generation(generation: &Generation) -> Value {
    let seen = generation.history.iter().filter(|(at, _)| *at <= now());
    let is_charged = seen.clone().any(|(_, step)| step.is_charged());
    // The newest twenty.
    let states = seen.rev().take(20).map(|(at, step)| {
        let (at, word) = (at.as_millis() as u64, cut(&step.word(), 40));
        json!({"at": at, "word": word})
    });
    let url = generation.file() + "?page";
    json!({"id": generation.id, "model": cut(&generation.model, 100), "prompt": generation.prompt,
        "states": states.collect::<Vec<_>>(), "is_charged": is_charged, "video": url})
}
