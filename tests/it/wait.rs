//! Waiting, and finding what was lost, over real sockets. The loop's own rules are tested beside it.

use std::time::{Duration, Instant};

use aimlapi_video::{Error, Generation};
use serde_json::{Value, json};

use crate::support::{Act, SAFE, Server, cells, http, json as json_response, refusal};

#[test]
fn a_wait_shows_each_status_and_returns_the_video() {
    let status = |word: &str| ok(json!({"id": "gen:1", "status": word}));
    let video = json!({"url": "https://cdn.example/v.mp4", "file_size": 7});
    let done = json!({"id": "gen:1", "status": "completed", "video": video});
    let (busy, generating) = (refusal(429, "Too Many Requests"), status("generating"));
    let server = Server::script(vec![status("queued"), busy, generating, ok(done)]);
    let mut seen = Vec::new();
    let callback = |generation: &Generation| seen.push(generation.status.to_string());
    let video = server.client().wait_for_video("gen:1", callback);
    assert_eq!(seen, ["queued", "generating", "completed"]);
    let video = video.unwrap();
    assert_eq!((&*video.generation_id, video.file_size), ("gen:1", Some(7)));
}

fn ok(body: Value) -> Vec<Act> {
    json_response(200, &body.to_string())
}

/// What a wait ends with.
fn wait_error(response: Vec<Act>) -> Error {
    let server = Server::script(vec![response]);
    let error = server.client().wait_for_video("gen:1", |_| {}).unwrap_err();
    assert_eq!(server.requests().len(), 1);
    error
}

#[test]
fn a_failed_generation_says_why_and_whether_it_was_charged() {
    let table = r#"
        {"id": "gen:1", "status": "error", "error": {"name": "SafetyError", "message": "No"}} | (status error): SafetyError: No; the vendor does not charge failed generations
        {"id": "gen:1", "status": "failed", "meta": {"usage": {"credits_used": 0}}} | (status failed); the vendor does not charge failed generations
        {"status": "failed"} | (status failed); the response names no generation: wait for this id again before paying for another
        {"id": "gen:1", "status": "expired"} | (status expired); it may have been charged: ask the vendor, with this id
        {"status": "failed", "meta": {"usage": {"credits_used": 7}}} | (status failed); it was charged all the same: ask the vendor, with this id
        {"status": "completed", "video": {"url": ""}} | (status completed); it may have been charged: ask the vendor, with this id
    "#;
    for (body, text) in table.lines().filter_map(|line| line.split_once(" | ")) {
        let error = wait_error(json_response(200, body));
        assert!(matches!(error, Error::Failed { .. }), "{error}");
        let expected = format!("generation gen:1 ended without a video {text}");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_rejected_poll_ends_the_wait_with_the_id_and_a_hint() {
    let key = "; check the API key, and that the base URL is the one it belongs to";
    let id = "; check the id, and that the key belongs to the account that requested it";
    for (status, hint) in [(400, ""), (401, key), (403, ""), (404, id)] {
        let text = format!(
            "generation gen:1: 127.0.0.1 responded with status {status}: No (request id \
             3f0e1c1a-6f0e-4a8e-9d4a-000000000001){hint}"
        );
        assert_eq!(wait_error(refusal(status, "No.")).to_string(), text);
    }
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
    let error = ", no poll succeeded, last error: no response from 127.0.0.1: timed out (global). \
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
    for row in table.trim_start().lines() {
        let [usd, credits, usage, cost] = cells(row);
        let (usd, id) = (("x-aimlapi-usd-spent", usd), ("x-client-request-id", "c-1"));
        let headers = [usd, ("x-aimlapi-credits-used", credits), id];
        let usage: Value = serde_json::from_str(usage).unwrap();
        let cost = Some(cost).filter(|cost| !cost.is_empty());
        let video = json!({"url": "https://v"});
        let body =
            json!({"id": "gen:1", "status": "completed", "video": video, "meta": {"usage": usage}});
        let response = http(200, &headers, body.to_string());
        let server = Server::script(vec![vec![Act::Send(response)]]);
        let generation = server.client().get_video("gen:1").unwrap();
        assert_eq!(generation.client_request_id.as_deref(), Some("c-1"));
        let usage = generation.usage.map(|usage| usage.to_string());
        assert_eq!(usage.as_deref(), cost);
        assert_eq!(generation.video.unwrap().usage, generation.usage);
    }
}

fn log_page(rows: Value, has_more: bool) -> Vec<Act> {
    ok(json!({"data": rows, "pagination": {"has_more": has_more}}))
}

#[test]
fn a_lost_generation_is_found_in_the_log_on_any_page() {
    let row = |sent: &str, id: &str| json!({"client_request_id": sent, "inference_id": id});
    let other = json!([row("someone-else", "gen:9")]);
    // Rows without an id that can be asked for are skipped.
    let odd = json!([null, 7, {"client_request_id": "fox-1"}, row("fox-1", "\u{1b}[2J")]);
    let [newest, older] = ["gen:7", "gen:6"].map(|id| row("fox-1", id));
    let good = json!([row("b", "gen:8"), newest, older]);
    let pages = [other, odd, good].map(|rows| log_page(rows, true));
    let server = Server::script(pages.into());
    let found = server.client().find_generation_id("fox-1").unwrap();
    assert_eq!(found.as_deref(), Some("gen:7"));
    let targets = [0, 1, 5].map(|seen| format!("GET /v2/logs?period=30d&limit=100&offset={seen}"));
    assert_eq!(server.targets(), targets);
}

#[test]
fn a_log_without_an_end_is_not_read_forever() {
    let row = || json!([{"client_request_id": "other", "inference_id": "gen:8"}]);
    for (page, requests) in [
        (log_page(row(), false), 1),
        (log_page(row(), true), 100),
        // A page that says that there is more, and is empty itself, is the end.
        (log_page(json!([]), true), 1),
    ] {
        let server = Server::script(vec![page]);
        assert_eq!(server.client().find_generation_id("fox-1").unwrap(), None);
        assert_eq!(server.requests().len(), requests);
    }
}

#[test]
fn a_log_that_is_no_log_is_an_error() {
    let unexpected = |body: &str| {
        let text = "the response can't be understood: it is not a usage log";
        (json_response(200, body), format!("{text}: {body}{SAFE}"))
    };
    let busy = "127.0.0.1 responded with status 429: Too Many Requests (request id \
                3f0e1c1a-6f0e-4a8e-9d4a-000000000001)";
    let busy = (refusal(429, "Too Many Requests"), busy.to_owned());
    for (response, text) in [unexpected("{}"), unexpected("<html>"), busy] {
        let server = Server::script(vec![response]);
        let error = server.client().find_generation_id("fox-1").unwrap_err();
        assert_eq!(error.to_string(), text);
    }
}
