//! Waiting, and finding what was lost, over real sockets. The loop's own rules are tested beside it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aimlapi_video::{Error, Generation};
use serde_json::{Value, json};

use crate::support::{Act, SAFE, Server, cells, http, json as json_response, refusal};

fn ok(body: Value) -> Vec<Act> {
    json_response(200, &body.to_string())
}

#[test]
fn a_failed_generation_says_why_and_whether_it_was_charged() {
    let free = "the vendor does not charge failed generations";
    let maybe = "it may have been charged: ask the vendor, with this id";
    let charged = "it was charged all the same: ask the vendor, with this id";
    let unnamed =
        "the response names no generation: wait for this id again before paying for another";
    let table = r#"
        {"id": "gen:1", "status": "error", "error": {"name": "SafetyError", "message": "No."}} | (status error): SafetyError: No; FREE
        {"id": "gen:1", "status": "failed", "meta": {"usage": {"credits_used": 0}}} | (status failed); FREE
        {"status": "failed"} | (status failed); UNNAMED
        {"id":"gen:1","status":"expired"} | (status expired), response: BODY; MAYBE
        {"status": "failed", "meta": {"usage": {"credits_used": "7"}}} | (status failed); CHARGED
        {"id": "gen:1", "status": "failed", "meta": {"usage": {"usd_spent": "3,2"}}} | (status failed); MAYBE
        {"id": "gen:1", "status": "brand-new", "error": "Not shown"} | (status brand-new): Not shown; MAYBE
        {"id":"gen:1","nsfw":true,"status":"completed","video":{"url":""}} | (status completed), response: BODY; MAYBE
        {"id":"gen:1","outputs":["https://cdn.example/v.mp4?sig=1"],"status":"completed"} | (status completed), response: BODY; MAYBE
    "#;
    for (body, text) in table.lines().filter_map(|line| line.split_once(" | ")) {
        let server = Server::script(vec![json_response(200, body)]);
        let error = server.client().wait_for_video("gen:1", |_| {}).unwrap_err();
        assert!(matches!(error, Error::Failed { .. }), "{error}");
        let text = text.replace("BODY", &body.trim().replace("?sig=1", "?…"));
        assert_eq!(error.may_be_charged(), !text.ends_with("FREE"), "{error}");
        let text = text.replace("FREE", free).replace("UNNAMED", unnamed);
        let text = text.replace("CHARGED", charged).replace("MAYBE", maybe);
        let expected = format!("generation gen:1 ended without a video {text}");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_wait_shows_each_status_and_each_retry_and_returns_the_video() {
    let error = json!({"name": "", "message": "SUCCEED"});
    let video = json!({"url": "https://v", "file_size": 7});
    let script = vec![
        refusal(404, "Not Found"),
        ok(json!({"id": "gen:1", "status": "generating", "error": error})),
        ok(json!({"id": "gen:1", "status": "Active", "error": "No", "video": video})),
        refusal(404, "Not Found"),
        ok(json!({"id": "gen:1", "status": "completed", "video": video})),
    ];
    let (server, retries) = (Server::script(script), Arc::<Mutex<Vec<String>>>::default());
    let told = Arc::clone(&retries);
    let client = server.builder().on_retry(move |retry| {
        assert_eq!(retry.error.generation_id(), Some("gen:1"));
        told.lock().unwrap().push(retry.to_string());
    });
    let mut seen = Vec::new();
    let callback = |generation: &Generation| seen.push(generation.status.to_string());
    let video = client.build().unwrap().wait_for_video("gen:1", callback);
    let video = video.unwrap();
    assert_eq!((&*video.generation_id, video.file_size), ("gen:1", Some(7)));
    assert_eq!(seen, ["generating", "active", "completed"]);
    let line = "status 404: Not Found; trying again in 1ms";
    assert_eq!(*retries.lock().unwrap(), [line; 2]);
}

#[test]
fn a_poll_that_hangs_is_cut_at_the_deadline() {
    let server = Server::script(vec![vec![Act::Stall(Duration::from_secs(60)), Act::Close]]);
    let client = server.builder().poll_timeout(Duration::from_millis(100));
    let start = Instant::now();
    let error = client.build().unwrap().wait_for_video("gen:1", |_| {});
    assert!(start.elapsed() < Duration::from_secs(20));
    let text = error.unwrap_err().to_string();
    let start = "generation gen:1 is not finished after ";
    assert!(text.starts_with(start), "{text}");
    let error = ": timed out (receive response). \
                 It may continue on the server, and waiting for the same id again costs nothing";
    assert!(text.ends_with(error), "{text}");
}

#[test]
fn cost_and_ids_come_from_headers_or_body() {
    // The headers' USD and credits, the body's usage, the cost that is shown.
    let table = r#"
        0.06 | 120000 | {}                  | 0.06 USD (120000 credits)
        0.06 | 120000 | {"credits_used": 7} | 0.06 USD (7 credits)
        much | NaN    | {"usd_spent": 1}    | 1 USD
        inf  |        | {"tokens_used": 9}  | 9 credits
        inf  | NaN    | null                |"#;
    for [usd, credits, usage, cost] in table.trim_start().lines().map(cells) {
        let (usd, id) = (("x-aimlapi-usd-spent", usd), ("x-client-request-id", "c-1"));
        let headers = [usd, ("x-aimlapi-credits-used", credits), id];
        let usage: Value = serde_json::from_str(usage).unwrap();
        let body = json!({"video": {"url": "https://v"}, "meta": {"usage": usage}});
        let response = http(200, &headers, body.to_string());
        let server = Server::script(vec![vec![Act::Send(response)]]);
        let generation = server.client().get_video("gen:1").unwrap();
        assert_eq!(generation.client_request_id.as_deref(), Some("c-1"));
        let shown = generation.usage.map(|usage| usage.to_string());
        assert_eq!(shown.unwrap_or_default(), cost);
        assert_eq!(generation.video.unwrap().usage, generation.usage);
    }
}

fn log_page(rows: Value, has_more: bool) -> Vec<Act> {
    ok(json!({"data": rows, "pagination": {"has_more": has_more}}))
}

/// A row of the log about the request `fox-1`.
fn row(id: Value, status: &str, credits: Value) -> Value {
    json!({"client_request_id": "fox-1", "inference_id": id, "status": status, "cost": {"credits": credits}})
}

#[test]
fn of_several_rows_one_with_an_id_that_did_not_fail_for_free_wins() {
    let good = || row(json!("gen:7"), "succeeded", json!(7));
    let older = row(json!("gen:6"), "succeeded", json!(7));
    let free = || row(json!("gen:free"), "failed", json!(0));
    let unsaid = row(json!("gen:free"), "failed", Value::Null);
    let charged = || row(json!("gen:paid"), "failed", json!("7"));
    let number = row(json!(234_954_179_076_239_u64), "succeeded", Value::Null);
    let other = json!({"client_request_id": "someone-else", "inference_id": "gen:9"});
    let no_id = || row(json!(null), "", json!(7));
    let odd_id = row(json!("\u{1b}[2J"), "", json!(7));
    for (rows, found) in [
        (vec![good(), older], Some("gen:7")),
        (vec![free(), charged(), good()], Some("gen:7")),
        (vec![free(), charged()], Some("gen:paid")),
        (vec![free(), unsaid], None),
        (vec![number], Some("234954179076239")),
        (vec![], None),
        (vec![json!(null), json!(7), no_id(), good()], Some("gen:7")),
        (vec![other, odd_id, no_id()], None),
    ] {
        // On one page, and each on a page of its own.
        let page = |(n, row)| log_page(json!([row]), n + 1 < rows.len());
        let pages = rows.iter().enumerate().map(page).collect();
        for pages in [vec![log_page(json!(rows), false)], pages] {
            let server = Server::script([pages, vec![log_page(json!([]), false)]].concat());
            let id = server.client().find_generation_id("fox-1").unwrap();
            assert_eq!(id.as_deref(), found, "{rows:?}");
            for (seen, target) in server.targets().into_iter().enumerate() {
                let expected = format!("GET /v2/logs?period=30d&limit=100&offset={seen}");
                assert_eq!(target, expected);
            }
        }
    }
}

#[test]
fn a_log_whose_end_is_not_reached_is_an_error() {
    let page = || log_page(json!([{"inference_id": "gen:8"}]), true);
    let text =
        "the response can't be understood: the usage log has more pages than could be read in time";
    // However many pages there are, it ends soon after the time of one request.
    let slow = [vec![Act::Stall(Duration::from_millis(50))], page()].concat();
    for (page, timeout, requests, text) in
        [(page(), 60_000, 100..=100, text), (slow, 200, 0..=99, "")]
    {
        let server = Server::script(vec![page]);
        let timeout = Duration::from_millis(timeout);
        let client = server.builder().request_timeout(timeout).build().unwrap();
        let start = Instant::now();
        let error = client.find_generation_id("fox-1").unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(20), "{error}");
        assert!(requests.contains(&server.requests().len()), "{error}");
        assert!(error.is_transient() && !error.may_be_charged(), "{error}");
        assert!(error.to_string().starts_with(text), "{error}");
    }
    // A page that says that there is more, and is empty itself, is the end.
    let server = Server::script(vec![page(), log_page(json!([]), true)]);
    assert_eq!(server.client().find_generation_id("fox-1").unwrap(), None);
}

#[test]
fn the_balance_is_a_number_or_a_string_that_is_one() {
    for (balance, shown) in [
        (json!(12.5), "12.5 USD"),
        (json!("0"), "0 USD"),
        (json!(-3), "-3 USD"),
    ] {
        let server = Server::script(vec![ok(json!({"current_balance": balance}))]);
        assert_eq!(server.client().get_balance().unwrap().to_string(), shown);
        assert_eq!(server.targets(), ["GET /v2/billing"]);
    }
    for body in [r#"{"current_balance":"much"}"#, "{}", "[]"] {
        let server = Server::script(vec![json_response(200, body)]);
        let error = server.client().get_balance().unwrap_err();
        let text = "the response can't be understood: it has no balance";
        assert_eq!(error.to_string(), format!("{text}: {body}{SAFE}"));
    }
}

#[test]
fn a_log_that_is_no_log_is_an_error() {
    let no_log = "the response can't be understood: it is not a usage log";
    let page = " (a web page: is BASE the base URL of the API?): <html>";
    let busy =
        "BASE responded with status 429: Busy (request id 3f0e1c1a-6f0e-4a8e-9d4a-000000000001)";
    for (response, text) in [
        (json_response(200, "{}"), format!("{no_log}: {{}}{SAFE}")),
        (
            json_response(200, "<html>"),
            format!("{no_log}{page}{SAFE}"),
        ),
        (refusal(429, "Busy"), busy.to_owned()),
    ] {
        let server = Server::script(vec![response]);
        let error = server.client().find_generation_id("fox-1").unwrap_err();
        assert_eq!(error.to_string(), text.replace("BASE", &server.url("/v2")));
    }
}
