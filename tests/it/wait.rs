//! Waiting, and finding what was lost, over real sockets. The loop's own rules are tested beside it.

use std::time::{Duration, Instant};

use aimlapi_video::Error;
use serde_json::{Value, json};

use crate::support::{Act, REQUEST_ID, SAFE, Server, ok, refusal, response, rows};

#[test]
fn a_failed_generation_says_why_and_whether_it_was_charged() {
    let table = r#"
        {"id": "gen:1", "status": "error", "error": {"name": "SafetyError", "message": "No."}} | (status error): SafetyError: No; FREE
        {"id": "gen:1", "status": "failed", "meta": {"usage": {"credits_used": 0}}} | (status failed); FREE
        {"status": "failed"} | (status failed); UNNAMED
        {"id":"gen:1","status":"expired"} | (status expired), response: BODY; MAYBE
        {"status": "failed", "meta": {"usage": {"credits_used": "7"}}} | (status failed); CHARGED
        {"id": "gen:1", "status": "failed", "meta": {"usage": {"usd_spent": "3,2"}}} | (status failed); MAYBE
        {"id": "gen:1", "status": "brand-new", "error": "Not shown"} | (status brand-new): Not shown; MAYBE
        {"id":"gen:1","nsfw":true,"status":"completed","video":{"url":""}} | (status completed), response: BODY; MAYBE
        {"id":"gen:1","outputs":["https://cdn.example/v.mp4?sig=1"],"status":"completed"} | (status completed), response: BODY; MAYBE"#;
    let unnamed =
        "the response names no generation: wait for this id again before paying for another";
    for [body, text] in rows(table) {
        let server = Server::always(ok(body));
        let error = server.client().wait_for_video("gen:1", |_| {}).unwrap_err();
        assert!(matches!(error, Error::Failed { .. }), "{error}");
        assert_eq!(error.may_be_charged(), !text.ends_with("FREE"), "{error}");
        let text = text
            .replace("BODY", &body.replace("?sig=1", "?…"))
            .replace("FREE", "the vendor does not charge failed generations")
            .replace("CHARGED", "it was charged all the same: ASK")
            .replace("MAYBE", "it may have been charged: ASK")
            .replace("UNNAMED", unnamed)
            .replace("ASK", "ask the vendor, with this id");
        let expected = format!("generation gen:1 ended without a video {text}");
        assert_eq!(error.to_string(), expected);
    }
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
    for [usd, credits, usage, cost] in rows(table) {
        let headers = [
            ("x-aimlapi-usd-spent", usd),
            ("x-aimlapi-credits-used", credits),
            ("x-client-request-id", "c-1"),
        ];
        let body = format!(r#"{{"video": {{"url": "https://v"}}, "meta": {{"usage": {usage}}}}}"#);
        let server = Server::always(response(200, &headers, body));
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
    let slow = [vec![Act::Stall(Duration::from_millis(50))], page()].concat();
    let text =
        "the response can't be understood: the usage log has more pages than could be read in time";
    // However many pages there are, it ends soon after the time of one request.
    for (page, seconds, requests, text) in
        [(page(), 60.0, 100..=100, text), (slow, 0.2, 0..=99, "")]
    {
        let server = Server::always(page);
        let timeout = Duration::from_secs_f64(seconds);
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
    for (balance, shown) in [("12.5", "12.5 USD"), ("\"0\"", "0 USD"), ("-3", "-3 USD")] {
        let server = Server::always(ok(format!(r#"{{"current_balance": {balance}}}"#)));
        assert_eq!(server.client().get_balance().unwrap().to_string(), shown);
        assert_eq!(server.targets(), ["GET /v2/billing"]);
    }
    for body in [r#"{"current_balance":"much"}"#, "{}", "[]"] {
        let error = Server::always(ok(body)).client().get_balance().unwrap_err();
        let text = "the response can't be understood: it has no balance";
        assert_eq!(error.to_string(), format!("{text}: {body}{SAFE}"));
    }
}

#[test]
fn a_log_that_is_no_log_is_an_error() {
    let odd = "the response can't be understood: it is not a usage log";
    let page = " (a web page: is BASE the base URL of the API?): <html>";
    let busy = format!("BASE responded with status 429: Busy (request id {REQUEST_ID})");
    for (response, text) in [
        (ok("{}"), format!("{odd}: {{}}{SAFE}")),
        (ok("<html>"), format!("{odd}{page}{SAFE}")),
        (refusal(429, "Busy"), busy),
    ] {
        let server = Server::always(response);
        let error = server.client().find_generation_id("fox-1").unwrap_err();
        assert_eq!(error.to_string(), text.replace("BASE", &server.url("/v2")));
    }
}
