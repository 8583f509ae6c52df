//! Waiting, and finding what was lost, over real sockets. The loop's own rules are tested beside it.

use std::time::{Duration, Instant};

use aimlapi_video::Error;
use serde_json::json;

use crate::support::{Act, Server, http, json as json_response, refusal};

#[test]
fn a_wait_shows_each_status_and_returns_the_video() {
    let status =
        |word: &str| json_response(200, &json!({"id": "gen:1", "status": word}).to_string());
    let video = json!({"url": "https://cdn.example/v.mp4", "file_size": 7});
    let done = json!({"id": "gen:1", "status": "completed", "video": video});
    let server = Server::script(vec![
        status("queued"),
        refusal(429, "Too Many Requests"),
        status("generating"),
        json_response(200, &done.to_string()),
    ]);
    let mut seen = Vec::new();
    let client = server.client();
    let video = client.wait_for_video("gen:1", |generation| {
        seen.push(generation.status.to_string())
    });
    assert_eq!(seen, ["queued", "generating", "completed"]);
    let video = video.unwrap();
    assert_eq!(
        (video.generation_id.as_str(), video.file_size),
        ("gen:1", Some(7))
    );
}

#[test]
fn a_failed_generation_says_why_and_whether_it_was_charged() {
    let free = "; the vendor does not charge failed generations";
    let charged = "; it was charged all the same: ask the vendor, with this id";
    for (body, text) in [
        (
            json!({"id": "gen:1", "status": "error", "error": {"name": "SafetyError", "message": "No"}}),
            format!("(status error): SafetyError: No{free}"),
        ),
        (
            json!({"status": "failed", "meta": {"usage": {"credits_used": 0}}}),
            format!("(status failed){free}"),
        ),
        (
            json!({"status": "failed", "meta": {"usage": {"credits_used": 7}}}),
            format!("(status failed){charged}"),
        ),
        (
            json!({"status": "completed", "video": {"url": ""}}),
            "(status completed); it may have been charged: ask the vendor, with this id".to_owned(),
        ),
    ] {
        let server = Server::script(vec![json_response(200, &body.to_string())]);
        let error = server.client().wait_for_video("gen:1", |_| {}).unwrap_err();
        assert!(matches!(error, Error::Failed(_)), "{error}");
        let expected = format!("generation gen:1 ended without a video {text}");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_rejected_poll_ends_the_wait_with_the_id_and_a_hint() {
    for (status, hint) in [
        (400, ""),
        (
            401,
            "; check the API key, and that the base URL is the one it belongs to",
        ),
        (403, ""),
        (
            404,
            "; check the id, and that the key belongs to the account that requested it",
        ),
    ] {
        let server = Server::script(vec![refusal(status, "No.")]);
        let error = server.client().wait_for_video("gen:1", |_| {}).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "generation gen:1: 127.0.0.1 responded with status {status}: No (request id \
                 3f0e1c1a-6f0e-4a8e-9d4a-000000000001){hint}"
            )
        );
        assert_eq!(server.requests().len(), 1);
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
    assert!(
        text.starts_with("generation gen:1 is not finished after "),
        "{text}"
    );
    let error = ", no poll succeeded, last error: no response from 127.0.0.1: timed out (global). \
                 It continues on the server, and waiting for the same id again costs nothing";
    assert!(text.ends_with(error), "{text}");
}

#[test]
fn cost_and_ids_come_from_headers_or_body() {
    let numbers = |usd, credits| {
        let headers = [
            ("x-aimlapi-usd-spent", usd),
            ("x-aimlapi-credits-used", credits),
        ];
        [&headers[..], &[("x-client-request-id", "c-1")]].concat()
    };
    for (headers, body, cost) in [
        (
            numbers("0.06", "120000"),
            json!({}),
            Some("0.06 USD (120000 credits)"),
        ),
        (
            numbers("0.06", "120000"),
            json!({"credits_used": 7}),
            Some("0.06 USD (7 credits)"),
        ),
        (
            numbers("much", "NaN"),
            json!({"usd_spent": 1}),
            Some("1 USD"),
        ),
        (
            numbers("inf", ""),
            json!({"tokens_used": 9}),
            Some("9 credits"),
        ),
        (numbers("inf", "NaN"), json!(null), None),
    ] {
        let video = json!({"url": "https://v"});
        let body =
            json!({"id": "gen:1", "status": "completed", "video": video, "meta": {"usage": body}});
        let response = http(200, &headers, body.to_string());
        let server = Server::script(vec![vec![Act::Send(response)]]);
        let generation = server.client().get_video("gen:1").unwrap();
        assert_eq!(generation.client_request_id.as_deref(), Some("c-1"));
        let usage = generation.usage.map(|usage| usage.to_string());
        assert_eq!(usage.as_deref(), cost);
        assert_eq!(generation.video.unwrap().usage, generation.usage);
    }
}

fn log_page(rows: serde_json::Value, has_more: bool) -> Vec<Act> {
    let page = json!({"data": rows, "pagination": {"has_more": has_more}});
    json_response(200, &page.to_string())
}

#[test]
fn a_lost_generation_is_found_in_the_log_on_any_page() {
    let row = |sent: &str, id: &str| json!({"client_request_id": sent, "inference_id": id});
    let server = Server::script(vec![
        log_page(json!([row("someone-else", "gen:9")]), true),
        // Rows without an id that can be asked for are skipped.
        log_page(
            json!([null, 7, {"client_request_id": "fox-1"}, row("fox-1", "\u{1b}[2J")]),
            true,
        ),
        log_page(
            json!([
                row("b", "gen:8"),
                row("fox-1", "gen:7"),
                row("fox-1", "gen:6")
            ]),
            true,
        ),
    ]);
    let found = server.client().find_generation("fox-1").unwrap();
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
        assert_eq!(server.client().find_generation("fox-1").unwrap(), None);
        assert_eq!(server.requests().len(), requests);
    }
}

#[test]
fn a_log_that_is_no_log_is_an_error() {
    let unexpected = |reason| {
        let safe =
            "this call charged nothing. Check the network and the base URL; calling again is safe";
        format!("the response can't be understood: {reason}; {safe}")
    };
    for (response, text) in [
        (
            json_response(200, "{}"),
            unexpected("it is not a usage log: {}"),
        ),
        (
            json_response(200, "<html>"),
            unexpected("it is not a usage log: <html>"),
        ),
        (
            refusal(429, "Too Many Requests"),
            "127.0.0.1 responded with status 429: Too Many Requests (request id \
             3f0e1c1a-6f0e-4a8e-9d4a-000000000001)"
                .to_owned(),
        ),
    ] {
        let server = Server::script(vec![response]);
        let error = server.client().find_generation("fox-1").unwrap_err();
        assert_eq!(error.to_string(), text);
    }
}
