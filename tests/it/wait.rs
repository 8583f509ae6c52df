//! Waiting, and finding what was lost, over real sockets. The rules themselves are pinned beside the loop.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use aimlapi_video::{
    Error, Polling, Status, VideoRequest,
    simulator::{Simulator, Step},
};
use serde_json::json;

use crate::support::{Act, Server, completed, http, json, queued, quick, refusal};

#[test]
fn a_closure_that_returns_nothing_is_enough() {
    let simulator = Simulator::start().unwrap();
    let client = simulator.client();
    let generation = client.generate_video(&VideoRequest::new("A fox")).unwrap();
    let mut seen = Vec::new();
    let video = client.wait_for_video(&generation.id, &quick(), |generation| {
        seen.push(generation.status.clone())
    });
    assert_eq!(
        seen,
        [Status::Queued, Status::Generating, Status::Completed]
    );
    assert_eq!(video.unwrap().generation_id, generation.id);
}

#[test]
fn a_callback_can_stop_the_wait_and_another_wait_goes_on() {
    let simulator = Simulator::start().unwrap();
    let client = simulator.client();
    let generation = client.generate_video(&VideoRequest::new("A fox")).unwrap();
    let error = client
        .wait_for_video(&generation.id, &quick(), |_| ControlFlow::Break(()))
        .unwrap_err();
    assert!(matches!(error, Error::Stopped { .. }));
    client
        .wait_for_video(error.generation_id().unwrap(), &quick(), |_| {})
        .unwrap();
    assert_eq!(simulator.charged(), 1);
}

#[test]
fn an_outage_in_the_middle_costs_nothing() {
    let simulator = Simulator::start().unwrap();
    simulator.script(
        [429, 500, 502, 503, 504]
            .map(Step::outage)
            .into_iter()
            .chain([Step::Complete]),
    );
    let client = simulator.client();
    let generation = client.generate_video(&VideoRequest::new("A fox")).unwrap();
    client
        .wait_for_video(&generation.id, &quick(), |_| {})
        .unwrap();
    assert_eq!(simulator.charged(), 1);
}

#[test]
fn a_failed_generation_tells_why() {
    let simulator = Simulator::start().unwrap();
    simulator.script([Step::fail("SafetyError", "The prompt was refused.")]);
    let client = simulator.client();
    let generation = client.generate_video(&VideoRequest::new("A fox")).unwrap();
    let error = client
        .wait_for_video(&generation.id, &quick(), |_| {})
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "generation {} is over without a video (status error): SafetyError: The prompt was refused.",
            generation.id
        )
    );
    assert_eq!(simulator.charged(), 0);
}

#[test]
fn a_refused_poll_ends_the_wait_with_the_id() {
    for status in [400, 401, 403, 404] {
        let hint = match status {
            404 => {
                "; is the id right, and the key that of the account that requested it? Asking again is free"
            }
            _ => "",
        };
        let server = Server::script(vec![refusal(status, "No.")]);
        let error = server
            .client()
            .wait_for_video("gen:1", &quick(), |_| {})
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "generation gen:1: the server refused with status {status}: No. (request id \
                 3f0e1c1a-6f0e-4a8e-9d4a-000000000001){hint}"
            )
        );
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn a_poll_that_hangs_is_cut_at_the_deadline() {
    let server = Server::script(vec![vec![Act::Stall(Duration::from_secs(10)), Act::Close]]);
    let polling = Polling::default().timeout(Duration::from_millis(100));
    let start = Instant::now();
    let error = server
        .client()
        .wait_for_video("gen:1", &polling, |_| {})
        .unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(5));
    let Error::TimedOut(timed_out) = &error else {
        panic!("{error}")
    };
    assert_eq!((timed_out.failed_polls, &timed_out.last_status), (1, &None));
    assert!(
        error
            .to_string()
            .starts_with("generation gen:1 is not finished after "),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains(", no poll was answered, failed polls: 1, the last: "),
        "{error}"
    );
}

#[test]
fn a_body_that_drips_is_cut_too() {
    let mut drip = vec![Act::Send(
        b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n".to_vec(),
    )];
    for _ in 0..400 {
        drip.extend([
            Act::Send(b"x".to_vec()),
            Act::Stall(Duration::from_millis(10)),
        ]);
    }
    let server = Server::script(vec![drip]);
    let start = Instant::now();
    let client = server
        .builder()
        .poll_timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    assert!(matches!(
        client.get_video("gen:1"),
        Err(Error::Network { .. })
    ));
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn cost_and_ids_come_from_headers_or_body() {
    let headers = [
        ("x-aimlapi-credits-used", "120000"),
        ("x-aimlapi-usd-spent", "0.06"),
        ("x-client-request-id", "c-1"),
    ];
    let answer = |body: &str| vec![Act::Send(http(200, &headers, body))];
    let server = Server::script(vec![
        answer(r#"{"id": "gen:1", "status": "completed"}"#),
        answer(r#"{"id": "gen:1", "status": "completed", "meta": {"usage": {"credits_used": 7}}}"#),
        vec![Act::Send(http(
            200,
            &[
                ("x-aimlapi-usd-spent", "much"),
                ("x-aimlapi-credits-used", "NaN"),
            ],
            r#"{"id": "gen:1", "status": "queued"}"#,
        ))],
    ]);
    let client = server.client();
    let generation = client.get_video("gen:1").unwrap();
    assert_eq!(generation.client_request_id.as_deref(), Some("c-1"));
    assert_eq!(
        generation.usage.unwrap().to_string(),
        "0.06 USD (120000 credits)"
    );
    assert_eq!(
        client
            .get_video("gen:1")
            .unwrap()
            .usage
            .unwrap()
            .to_string(),
        "0.06 USD (7 credits)"
    );
    assert_eq!(client.get_video("gen:1").unwrap().usage, None);
}

fn log_page(rows: &[(&str, &str)], has_more: bool) -> Vec<Act> {
    let rows: Vec<_> = rows
        .iter()
        .map(|(client_id, id)| {
            json!({"client_request_id": client_id, "inference_id": id, "status": "succeeded",
                   "model": "google/veo3", "cost": {"usd": 0.06, "credits": 120_000}})
        })
        .collect();
    json(
        200,
        &json!({"data": rows, "pagination": {"has_more": has_more}}).to_string(),
    )
}

#[test]
fn a_lost_generation_is_found_in_the_log() {
    let server = Server::script(vec![
        log_page(&[("someone-else", "gen:9")], true),
        log_page(
            &[("other", "gen:8"), ("fox-1", "gen:7"), ("fox-1", "gen:6")],
            true,
        ),
    ]);
    let found = server.client().find_generation("fox-1").unwrap().unwrap();
    assert_eq!(
        (found.generation_id.as_str(), found.status.as_str()),
        ("gen:7", "succeeded")
    );
    assert_eq!(
        found.usage().unwrap().to_string(),
        "0.06 USD (120000 credits)"
    );
    let targets: Vec<String> = server
        .requests()
        .into_iter()
        .map(|request| request.target)
        .collect();
    assert_eq!(
        targets,
        [
            "/v2/logs?period=30d&limit=100&offset=0",
            "/v2/logs?period=30d&limit=100&offset=1"
        ]
    );
}

#[test]
fn not_found_is_only_not_found_so_far() {
    let server = Server::script(vec![log_page(&[("other", "gen:8")], false)]);
    assert_eq!(server.client().find_generation("fox-1").unwrap(), None);
}

#[test]
fn a_log_without_end_is_not_read_for_ever() {
    let server = Server::script(vec![log_page(&[("other", "gen:8")], true)]);
    assert_eq!(server.client().find_generation("fox-1").unwrap(), None);
    assert_eq!(server.requests().len(), 100);
    // A page that says that there is more, and has nothing itself, is the end.
    let server = Server::script(vec![log_page(&[], true)]);
    assert_eq!(server.client().find_generation("fox-1").unwrap(), None);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_log_that_is_no_log_is_an_error() {
    for (answer, text) in [
        (
            json(200, "{}"),
            "the answer can't be understood (it is not a usage log): {}",
        ),
        (
            json(200, "<html>"),
            "the answer can't be understood (it is not JSON): <html>",
        ),
        (
            refusal(429, "Too Many Requests"),
            "the server refused with status 429: Too Many Requests (request id 3f0e1c1a-6f0e-4a8e-9d4a-000000000001); \
             this request was not charged",
        ),
    ] {
        let server = Server::script(vec![answer]);
        assert_eq!(
            server
                .client()
                .find_generation("fox-1")
                .unwrap_err()
                .to_string(),
            text
        );
    }
}

#[test]
fn rows_of_odd_shapes_are_passed_over() {
    let rows = json!({"data": [null, 7, {"client_request_id": "fox-1"}, {"client_request_id": "fox-1", "inference_id": "g"}]});
    let server = Server::script(vec![json(200, &rows.to_string())]);
    assert_eq!(
        server
            .client()
            .find_generation("fox-1")
            .unwrap()
            .unwrap()
            .generation_id,
        "g"
    );
}

#[test]
fn the_whole_story_of_a_job() {
    let server = Server::script(vec![
        queued(),
        queued(),
        refusal(503, "Service unavailable"),
        completed(),
    ]);
    let client = server.client();
    let generation = client.generate_video(&VideoRequest::new("A fox")).unwrap();
    let video = client
        .wait_for_video(&generation.id, &quick(), |_| {})
        .unwrap();
    assert_eq!(video.url, "https://cdn.example/v.mp4");
    assert_eq!((server.posts(), server.requests().len()), (1, 4));
}
