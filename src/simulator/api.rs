//! What each endpoint responds.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Mutex, MutexGuard};

use serde_json::{Value, json};

use super::response::Response;
use super::script::{Download, Log, Poll, Post, Received};
use super::server::{Body, lock};
use super::state::{Generation, ID_START, PRICE, State};
use super::{models, page};
use crate::settings::UNIVERSAL_ENDPOINT;

/// What the simulator expects as `Authorization`.
const BEARER: &str = "Bearer simulator-key";

/// What a program is told that polls what another simulator created.
const FORGOTTEN: &str = "Not Found. A simulator forgets everything when it stops, and this id is of \
                         another one: delete the receipt beside the video's file";

pub(super) type Observer = dyn Fn(&Received) + Send;

#[derive(Default)]
pub(super) struct Api {
    state: Mutex<State>,
    pub(super) observer: Mutex<Option<Box<Observer>>>,
}

/// The error is the status and the message of a response with the documented body.
type Result<T> = std::result::Result<T, (u16, String)>;

impl Api {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn handle(&self, mut request: Received, source: &mut Body<'_>) -> Response {
        // The script's step is taken when the head has arrived, and by a POST to the API alone.
        let is_post = request.method == "POST" && models::is_endpoint(request.path());
        let is_post = is_post && is_authorized(&request);
        let step = is_post.then(|| self.state().posts.pop_front().unwrap_or(Post::Accept));
        let limit = match step {
            Some(Post::CloseAfter(limit)) => limit as u64,
            _ => u64::MAX,
        };
        let mut body = Vec::new();
        // Takes no more memory than has arrived.
        let _ = source.by_ref().take(limit).read_to_end(&mut body);
        if limit == u64::MAX && source.limit() > 0 {
            return Response::raw("");
        }
        let response = self.respond(&request, &body, step);
        if page::is_behind(&request) {
            return response;
        }
        for (name, value) in &mut request.headers {
            if name == "authorization" && value != BEARER {
                *value = "[redacted]".to_owned();
            }
        }
        request.body = String::from_utf8_lossy(&body).into_owned();
        request.status = response.status;
        if let Some(observer) = &*lock(&self.observer) {
            observer(&request);
        }
        self.state().record(request);
        response
    }

    fn respond(&self, request: &Received, body: &[u8], step: Option<Post>) -> Response {
        let (state, path) = (&mut *self.state(), request.path());
        let result = match (&*request.method, path, step) {
            (_, _, Some(step)) => create(state, request, body, step),
            ("GET", "/", _) => Ok(page::html()),
            ("GET", "/events.json", _) => Ok(page::events(state)),
            ("GET", _, _) if path.starts_with("/files/") => file(state, request),
            _ if !is_authorized(request) => rejection(401),
            ("GET", _, _) if models::is_endpoint(path) => poll(state, request),
            ("GET", "/v2/logs", _) => log(state, request),
            ("GET", "/v2/billing", _) => Ok(billing(state)),
            _ => rejection(404),
        };
        result.unwrap_or_else(|(status, message)| Response::error(status, &message, path))
    }
}

fn is_authorized(request: &Received) -> bool {
    request.header("authorization") == Some(BEARER)
}

fn create(state: &mut State, request: &Received, body: &[u8], step: Post) -> Result<Response> {
    match step {
        Post::Reject(status) => return rejection(status),
        Post::Raw(text) => return Ok(Response::raw(text)),
        Post::CloseAfter(_) => return Ok(Response::raw("")),
        _ => {}
    }
    let invalid = |hint: String| (400, format!("Body validation error: {hint}"));
    let Ok(Value::Object(body)) = serde_json::from_slice(body) else {
        return Err(invalid("Expected object, received no object".to_owned()));
    };
    let text = |name| body.get(name).and_then(Value::as_str).unwrap_or("");
    let model = text("model");
    if !state.allowed_models.contains(model) {
        models::check(request.path(), &body).map_err(invalid)?;
    }
    let generation = Generation::new(model, text("prompt"), client_request_id(request), state);
    // The universal endpoint's schema has 200, transcripts of the other one 201.
    let is_universal = request.path().ends_with(UNIVERSAL_ENDPOINT);
    let body = json!({"id": generation.id, "status": "queued"});
    let response = generation.json(201 - u16::from(is_universal), &body);
    state.generations.push(generation);
    Ok(match step {
        Post::Stall(wait) => Response { wait, ..response },
        Post::DropResponse => Response::raw(""),
        _ => response,
    })
}

fn poll(state: &mut State, request: &Received) -> Result<Response> {
    let id = request.query().remove("generation_id").unwrap_or_default();
    let (size, host) = (
        state.video.bytes.len(),
        request.header("host").unwrap_or_default(),
    );
    let Some(generation) = state.generations.iter_mut().find(|one| one.id == id) else {
        let is_of_another = id.starts_with(ID_START);
        let message = if is_of_another {
            FORGOTTEN
        } else {
            documented(404)
        };
        return Err((404, message.to_owned()));
    };
    let url = format!("http://{host}{}", generation.file());
    let (wait, step) = generation.next_step();
    let mut response = match &step {
        Poll::Reject(status) => Response::error(*status, documented(*status), request.path()),
        Poll::Raw(text) => Response::raw(text),
        Poll::CloseAfter(_) => generation.response(&generation.state(), &url, size),
        _ => generation.response(&step, &url, size),
    };
    if let Poll::CloseAfter(end) = step {
        response.cut = Some(end);
    }
    response.wait = wait;
    Ok(response)
}

fn log(state: &mut State, request: &Received) -> Result<Response> {
    let (mut total, mut cut) = (state.generations.len(), None);
    match state.logs.pop_front().unwrap_or(Log::Serve) {
        Log::Serve => {}
        Log::Hide => total = 0,
        Log::CloseAfter(end) => cut = Some(end),
        Log::Reject(status) => return rejection(status),
        Log::Raw(text) => return Ok(Response::raw(text)),
    }
    let expected = "Expected period (24h or 7d, say), limit (1 to 100) and offset only";
    let page = page_of_log(&request.query());
    let (limit, offset) = page.ok_or_else(|| (400, expected.to_owned()))?;
    let rows = state.generations.iter().take(total).rev();
    let rows = rows.skip(offset).take(limit);
    let rows: Vec<Value> = rows.map(Generation::log_row).collect();
    let has_more = offset.saturating_add(rows.len()) < total;
    let pagination =
        json!({"limit": limit, "offset": offset, "total": total, "has_more": has_more});
    let response = Response::json(200, &json!({"data": rows, "pagination": pagination}));
    Ok(Response { cut, ..response })
}

fn billing(state: &State) -> Response {
    let cents = 12_345.0 - (state.charged() as f64 * PRICE.1 * 100.0).round();
    Response::json(
        200,
        &json!({"current_balance": cents / 100.0, "currency": "USD"}),
    )
}

/// The limit and the offset.
fn page_of_log(query: &BTreeMap<String, String>) -> Option<(usize, usize)> {
    let get = |name| query.get(name).map(String::as_str);
    let period: u64 = (get("period").unwrap_or("24h").strip_suffix(['h', 'd'])?)
        .parse()
        .ok()?;
    let limit = get("limit").unwrap_or("50").parse().ok()?;
    let offset: u64 = get("offset").unwrap_or("0").parse().ok()?;
    let is_known = |name: &String| ["period", "limit", "offset"].contains(&&**name);
    let is_valid = period > 0 && (1..=100).contains(&limit) && query.keys().all(is_known);
    is_valid.then_some((limit, offset.min(1 << 31) as usize))
}

/// The file server, which for the real API is another host that must not get the key.
fn file(state: &mut State, request: &Received) -> Result<Response> {
    if request.header("authorization").is_some() {
        return Err((400, "The API key was sent to the file server".to_owned()));
    }
    let mut generations = state.generations.iter_mut();
    let Some(generation) = generations.find(|one| one.file() == request.path()) else {
        return Err((403, "The URL has expired".to_owned()));
    };
    // The scripts are for programs.
    let is_program = !page::is_behind(request);
    let step = is_program.then(|| state.downloads.pop_front()).flatten();
    let mut response = state.video.response(request);
    match step.unwrap_or(Download::Serve) {
        Download::Serve => {}
        Download::CloseAfter(end) => response.cut = Some(end),
        Download::Stall(time) => response.halfway = time,
        Download::Reject(status) => return rejection(status),
        Download::Raw(text) => return Ok(Response::raw(text)),
        Download::Expire => {
            generation.version += 1;
            return Err((403, "The URL has expired".to_owned()));
        }
    }
    Ok(response)
}

fn rejection(status: u16) -> Result<Response> {
    Err((status, documented(status).to_owned()))
}

const OUT_OF_CREDITS: &str = "You've run out of credits. Please top up your balance or update your \
                              payment method to continue.";

/// The published messages.
fn documented(status: u16) -> &'static str {
    match status {
        400 => "Body validation error",
        401 => "This request requires a valid API key. The simulator's is simulator-key.",
        403 => OUT_OF_CREDITS,
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal server error",
        503 => "Service unavailable",
        504 => "Generation timeout",
        _ => "Something wrong with the server. Please, try again later.",
    }
}

/// An id as documented. The API silently drops others.
fn client_request_id(request: &Received) -> Option<&str> {
    let id = request.header("x-client-request-id")?;
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    let is_valid = (1..=128).contains(&id.len()) && id.bytes().all(is_allowed);
    is_valid.then_some(id)
}
