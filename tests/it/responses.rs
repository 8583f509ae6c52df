//! Whatever the server or the network does: a response or a typed error, one POST, the id kept, the
//! key in no text.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};
use std::{net::TcpListener, thread};

use aimlapi_video::{ApiError, Client, Error, Generation};
use serde_json::{Map, Value, json};

use crate::support::{Act, COMPLETED, REQUEST_ID, SAFE, Server, builder, completed, fox};
use crate::support::{fox_with_image, ok, queued, refusal, response, rows};

const SHORT: Duration = Duration::from_millis(300);
const STALL: Act = Act::Stall(Duration::from_secs(60));
const MAYBE: &str = "the generation may have been made and charged: ";

fn send(bytes: impl AsRef<[u8]>) -> Act {
    Act::Send(bytes.as_ref().to_vec())
}

/// Responses that break off, never end, are no JSON, or have nothing that is needed.
fn broken_responses() -> Vec<(&'static str, Vec<Act>)> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let cut = || send(format!("{head}content-length: 99\r\n\r\n{{\"id\": \"ge"));
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let chunk = send(chunked + "40\r\n{\"id\"");
    let long_head = send(format!("{head}x-padding: {}", "x".repeat(100_000)));
    let ssh = send("SSH-2.0-OpenSSH_9.2\r\n\r\n");
    let html = &[("content-type", "text/html")];
    let huge = json!({"id": "gen:1", "status": "queued", "x": "x".repeat(1024 * 1024)});
    vec![
        ("closed before the response", vec![Act::Close]),
        ("reset before the response", vec![Act::Reset]),
        ("half a status line", vec![send("HTTP/1."), Act::Close]),
        ("reset in the head", vec![send(head), Act::Reset]),
        ("reset in the body", vec![cut(), Act::Reset]),
        ("closed in the body", vec![cut(), Act::Close]),
        ("closed in a chunk", vec![chunk, Act::Close]),
        ("not HTTP", vec![ssh, Act::Close]),
        ("a stall", vec![STALL, Act::Close]),
        ("a stall in the body", vec![cut(), STALL, Act::Close]),
        ("a head without an end", vec![long_head, Act::Close]),
        ("HTML", response(200, html, "<html>Sign in")),
        ("an empty body", ok("")),
        ("no content", vec![send("HTTP/1.1 204 No Content\r\n\r\n")]),
        ("garbage", response(200, &[], b"\xff\xfe\x00\x80")),
        ("JSON cut short", ok(r#"{"id": "gen:1", "status""#)),
        ("over 1 MiB of JSON", ok(huge)),
        ("JSON too deep", ok("[".repeat(100_000))),
        ("an array", ok(r#"[{"id": "gen:1"}]"#)),
        ("null", ok("null")),
        ("an object without fields", ok("{}")),
    ]
}

fn post(response: Vec<Act>) -> Result<Generation, Error> {
    let server = Server::always(response);
    let result = server.client().generate_video(&fox());
    assert_eq!(server.posts(), 1);
    result
}

fn get(response: Vec<Act>) -> Result<Generation, Error> {
    Server::always(response).client().get_video("gen:1")
}

fn impatient(server: &Server) -> Client {
    server.builder().request_timeout(SHORT).build().unwrap()
}

/// The id in the error, which has to be that of an unknown outcome.
fn unknown(error: &Error) -> Option<&str> {
    let (text, id) = (error.to_string(), error.generation_id());
    let look_up = "look it up with find_generation_id(\"fox-1\"), more than once, because the usage log can be late";
    let wait = |id| format!("wait for generation {id}");
    let advice = id.map_or(look_up.to_owned(), wait);
    let end = format!(". Do not just send it again: {advice}");
    assert!(text.starts_with(MAYBE) && text.ends_with(&end), "{text}");
    let is_unknown =
        matches!(error, Error::OutcomeUnknown { client_request_id: id, .. } if id == "fox-1");
    assert!(is_unknown, "{text}");
    id
}

fn rejection(error: Error) -> ApiError {
    match error {
        Error::Api(error) => *error,
        error => panic!("{error}"),
    }
}

#[test]
fn a_post_whose_response_is_lost_may_be_charged_and_says_so() {
    for (name, acts) in broken_responses() {
        let server = Server::always(acts);
        let client = match name.starts_with("a stall") {
            true => impatient(&server),
            false => server.client(),
        };
        let error = client.generate_video(&fox()).expect_err(name);
        // The id came whole, before the body was cut.
        let is_cut = ["JSON cut short", "over 1 MiB of JSON"].contains(&name);
        let id = is_cut.then_some("gen:1");
        assert_eq!((unknown(&error), server.posts()), (id, 1), "{name}");
    }
}

#[test]
fn an_id_that_can_not_be_asked_for_is_no_id() {
    let odd = r#"[null, true, -1, 1.5, ["gen:1"], "", " \t", "\u00a0\u2003", "gen\n1", "\u001b[31mgen:1", "\u009b2J"]"#;
    let odd: Vec<Value> = serde_json::from_str(odd).unwrap();
    let long = [1001, 17_000, 70_000].map(|length| Value::from("i".repeat(length)));
    for id in odd.iter().chain(&long) {
        let error = post(ok(json!({"id": id}))).unwrap_err();
        assert_eq!(unknown(&error), None, "{id}");
        let Some(id) = id.as_str() else { continue };
        if id.is_ascii() && !id.contains(char::is_control) {
            let response = response(504, &[("x-inference-id", id)], "<html>");
            assert_eq!(unknown(&post(response).unwrap_err()), None, "{id}");
        }
        let server = Server::always(queued());
        let error = server.client().get_video(id).unwrap_err();
        let text = "the generation id is blank, longer than 1000 bytes, or has control characters; nothing was sent";
        assert_eq!((&*error.to_string(), server.connections()), (text, 0));
    }
}

#[test]
fn an_id_is_a_string_of_up_to_1000_bytes_or_an_integer() {
    let longest = ["i".repeat(1000), "é".repeat(500)];
    for (mut body, expected) in [
        (json!({"id": longest[0]}), &*longest[0]),
        (json!({"generation_id": longest[1]}), &longest[1]),
        (json!({"id": 234_954_179_076_239_u64}), "234954179076239"),
        (json!({"generation_id": u64::MAX}), "18446744073709551615"),
        (json!({"id": "a", "generation_id": "b"}), "a"),
        // An id that is none does not hide the other.
        (json!({"id": " ", "generation_id": "b"}), "b"),
    ] {
        body["status"] = "queued".into();
        let server = Server::always(ok(body));
        let id = server.client().generate_video(&fox()).unwrap().id;
        assert_eq!(id, expected);
        assert!(server.client().get_video(&id).is_ok());
    }
}

#[test]
fn a_response_that_names_the_generation_in_its_head_alone_keeps_the_id() {
    let good = response(
        201,
        &[("x-inference-id", "gen:1")],
        r#"{"status": "queued"}"#,
    );
    assert_eq!(post(good).unwrap().id, "gen:1");
    let cut = "HTTP/1.1 201 Created\r\nx-inference-id: gen:1\r\ncontent-length: 50\r\n\r\n{\"id";
    let error = post(vec![send(cut), Act::Close]).unwrap_err();
    assert_eq!(unknown(&error), Some("gen:1"));
}

#[test]
fn whole_json_counts_in_a_broken_frame_and_after_a_byte_order_mark() {
    let length = COMPLETED.len();
    for framed in [
        format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n{COMPLETED}\r\n"),
        format!("content-length: 999\r\n\r\n{COMPLETED}"),
        format!("connection: close\r\n\r\n\u{feff}{COMPLETED}"),
    ] {
        let response = format!("HTTP/1.1 201 Created\r\n{framed}");
        let acts = vec![send(response), Act::Close];
        assert_eq!(post(acts.clone()).unwrap().id, "gen:1", "{framed}");
        assert!(get(acts).unwrap().video.is_some(), "{framed}");
    }
}

#[test]
fn an_unknown_outcome_and_a_poll_that_is_no_json_say_what_came() {
    let documented =
        br#"{"message": "No", "path": "", "requestId": "", "statusCode": 504, "timestamp": ""}"#;
    let page = "(a web page: is BASE the base URL of the API?): <!DOCTYPE html>";
    let no_id = "the response can't be understood: it has no id: [{}]. Do not";
    let redirect = "status 303 is a redirect, which is not followed: (empty)";
    let timeout = "status 504 is a timeout, which does not say whether the work continues: {";
    for (status, body, text) in [
        (200, &b"\x1f\x8b\x08 \xff"[..], "ODD GZIP: "),
        (200, b"\n <!DOCTYPE html>", "ODD PAGE"),
        (200, b"busy", "ODD: busy"),
        (200, b"", "ODD: (empty)"),
        (201, b"[{}]", no_id),
        (502, b"<!DOCTYPE html>", "status 502 came from a proxy PAGE"),
        (303, b"", redirect),
        (400, b"No", "status 400 names a cost: No"),
        (504, documented, timeout),
    ] {
        let cost = match status {
            400 => "3.2",
            504 => "0",
            _ => "",
        };
        let server = Server::always(response(status, &[("x-aimlapi-usd-spent", cost)], body));
        let text = text
            .replace("ODD", "the response can't be understood: it is not JSON")
            .replace("GZIP", "(Content-Encoding: gzip, which was not asked for)")
            .replace("PAGE", page)
            .replace("BASE", &server.url("/v2"));
        let posted = server.client().generate_video(&fox()).unwrap_err();
        let start = format!("{MAYBE}{text}");
        assert!(posted.to_string().starts_with(&start), "{posted}");
        let polled = server.client().get_video("gen:1").unwrap_err().to_string();
        let start = format!("generation gen:1: {text}");
        assert!(polled.starts_with(&start) || status != 200, "{polled}");
    }
}

/// What comes of a POST, a poll and a wait that may each take this time, where a response begins and
/// the rest drips.
fn ask_what_drips(start: &str, drops: &str, time: Duration) -> [Result<(), Error>; 3] {
    let drip = [send(drops), Act::Stall(Duration::from_millis(5))];
    let drip = drip.into_iter().cycle().take(12_000);
    let server = Server::always([send(start)].into_iter().chain(drip).collect());
    let client = server.builder().request_timeout(time).build().unwrap();
    let waiting = server.builder().poll_timeout(time).build().unwrap();
    let started = Instant::now();
    let posted = client.generate_video(&fox()).map(drop);
    let polled = client.get_video("gen:1").map(drop);
    let waited = waiting.wait_for_video("gen:1", |_| {}).map(drop);
    assert!(started.elapsed() < Duration::from_secs(30), "{start}");
    [posted, polled, waited]
}

#[test]
fn no_response_outlasts_the_time_of_its_request() {
    let head = "HTTP/1.1 201 Created\r\n";
    let sized = &format!("{head}content-length: 99999\r\n\r\n");
    let chunked = &format!("{head}transfer-encoding: chunked\r\n\r\n");
    let whole = &format!("{chunked}{:x}\r\n{COMPLETED}\r\n", COMPLETED.len());
    let ended = &format!("{whole}0\r\n");
    thread::scope(|scope| {
        for (start, drops) in [
            ("", ""),
            (head, "x-padding: x\r\n"),
            (sized, "x"),
            (chunked, "0"),
            (chunked, "1\r\nx\r\n"),
        ] {
            scope.spawn(move || {
                let [posted, polled, waited] = ask_what_drips(start, drops, SHORT);
                assert_eq!(unknown(&posted.unwrap_err()), None, "{start}");
                assert!(matches!(polled, Err(Error::Network { .. })), "{polled:?}");
                assert!(matches!(waited, Err(Error::TimedOut { .. })), "{waited:?}");
            });
        }
        // The body had come: what follows it takes nothing away. On a slow computer it takes longer
        // to come.
        for (start, drops) in [(ended, "x: y\r\n"), (whole, "0")] {
            scope.spawn(move || {
                let ask = |times| ask_what_drips(start, drops, SHORT * times);
                let is_taken = |times| ask(times).iter().all(Result::is_ok);
                assert!([1, 5, 25].into_iter().any(is_taken), "{start}");
            });
        }
    });
}

#[test]
fn a_rejected_post_is_not_charged_and_a_rejected_poll_ends_the_wait_each_with_a_hint() {
    let key = "; check the API key, and that BASE is the URL it belongs to";
    let endpoint = "; check the endpoint, and the base URL, BASE";
    let id = "; check the id, that the key belongs to the account that requested it, and the base URL, BASE";
    let redirect = "; redirects are not followed: check the base URL, BASE";
    for (status, hint, poll_hint, requests) in [
        (308, redirect, redirect, 2),
        (400, "", "", 2),
        (401, key, key, 2),
        (403, "", "", 2),
        (404, endpoint, id, 3),
    ] {
        let server = Server::always(refusal(status, "No."));
        let base = server.url("/v2");
        let text = format!("BASE responded with status {status}: No (request id {REQUEST_ID})");
        let posted = server.client().generate_video(&fox()).unwrap_err();
        let expected = format!("{text}; this request was not charged{hint}");
        assert_eq!(posted.to_string(), expected.replace("BASE", &base));
        assert!(!posted.may_be_charged(), "{posted}");
        let waited = server.client().wait_for_video("gen:1", |_| {}).unwrap_err();
        let expected = format!("generation gen:1: {text}{poll_hint}");
        assert_eq!(waited.to_string(), expected.replace("BASE", &base));
        assert_eq!(server.requests().len(), requests, "{waited}");
    }
}

#[test]
fn a_post_is_rejected_or_its_outcome_is_unknown() {
    // The statuses; what the body changes in the documented one, or a page; the cost in a header.
    let table = r#"
        400 401 403 404 409 413 422 429 451 | {}                  |       | rejected
        400 401 403 404 409 413 422 429 451 | a page              |       | rejected
        301 302 307 308     | a page                              |       | rejected
        200 201             | a page                              |       | unknown
        300 303 304 305     | a page                              |       | unknown
        500 501 502 503 520 | {}                                  | 0     | rejected
        500 502 503 520 600 | a page                              |       | unknown
        500 502 503         | {"path": null, "requestId": null}   |       | unknown
        500 503             | {"timestamp": null}                 |       | unknown
        408 499 504         | {}                                  |       | unknown
        408 499 504         | a page                              |       | unknown
        400 403 503         | {"statusCode": 504}                 |       | unknown
        400 403 503         | {"statusCode": "499"}               |       | unknown
        400 503             | {"statusCode": "503"}               |       | rejected
        400 403 503 302     | {}                                  | 0.06  | unknown
        400 503             | {}                                  | a lot | unknown
        400 503             | {"meta": {"usage": {"credits_used": 7}}}   |   | unknown
        400 503             | {"meta": {"usage": {"credits_used": "0"}}} | 0 | rejected"#;
    for [statuses, changes, cost, outcome] in rows(table) {
        let mut body = json!({"message": "No", "path": "/v2", "requestId": "r", "statusCode": 0, "timestamp": "t"});
        let body = match serde_json::from_str::<Map<_, _>>(changes) {
            Ok(changes) => {
                body.as_object_mut().unwrap().extend(changes);
                body.to_string()
            }
            Err(_) => "<h1>No</h1>".to_owned(),
        };
        for status in statuses.split(' ').map(|status| status.parse().unwrap()) {
            for id in [None, Some("gen:1")] {
                let id_header = ("x-inference-id", id.unwrap_or_default());
                let headers = [("x-aimlapi-usd-spent", cost), id_header];
                let error = post(response(status, &headers, &body)).unwrap_err();
                let case = format!("{status} {changes} {cost}: {error}");
                let is_rejection = matches!(error, Error::Api(_));
                assert_eq!(is_rejection, outcome == "rejected", "{case}");
                assert_eq!(error.generation_id(), id, "{case}");
                // A rejection that names a generation is none that may be sent again.
                let is_free = is_rejection && id.is_none();
                let is_transient = is_free && matches!(status, 429 | 500..);
                let found = (error.may_be_charged(), error.is_transient());
                assert_eq!(found, (!is_free, is_transient), "{case}");
                if !is_rejection {
                    unknown(&error);
                }
            }
        }
    }
}

#[test]
fn a_rejection_keeps_its_body_and_shows_the_beginning_in_one_line_without_control_characters() {
    let long = "x".repeat(10_000);
    let dirty = "\u{1b}[2J\u{1b}]0;paid\u{7}\r\nnothing \u{9b}31mwas\u{2028}\u{202e} charged\0";
    let clean = "[2J ]0;paid   nothing  31mwas charged";
    let clean = format!("{clean} (request id {clean})");
    let documented = json!({"message": dirty, "requestId": dirty}).to_string();
    for (body, message, shown) in [
        ("{\"mess", None, "{\"mess"),
        ("<b>no\r\n</b>", None, "<b>no  </b>"),
        (&long, None, &format!("{} …", &long[..300])),
        (&documented, Some(dirty), &clean),
    ] {
        // The body is cut off.
        let cut = response(403, &[("content-length", "20000")], body);
        let error = post([cut, vec![Act::Close]].concat()).unwrap_err();
        let suffix = format!(": {shown}; this request was not charged");
        assert!(error.to_string().ends_with(&suffix), "{error}");
        let error = rejection(error);
        assert_eq!(error.message.as_deref(), message);
        assert_eq!(error.body, *body);
    }
}

#[test]
fn a_large_request_that_is_cut_off_in_its_body_was_not_charged_and_says_what_to_do() {
    // The server responds, hangs up or resets before it has read the image.
    let refused = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n";
    for (response, is_reset) in [(refused, false), ("", false), (refused, true), ("", true)] {
        let server = Server::listen("127.0.0.1:0", move |mut stream, _, _| {
            let _ = stream.read(&mut [0; 1000]);
            stream.write_all(response.as_bytes()).unwrap();
            let linger = is_reset.then_some(Duration::ZERO);
            socket2::SockRef::from(&stream).set_linger(linger).unwrap();
        });
        let large = fox_with_image(20_000_000);
        let error = server.client().generate_video(&large).unwrap_err();
        let end = ". The request has 20000084 bytes: an image in it may be too large";
        let text = error.to_string();
        let is_413 = matches!(&error, Error::Api(error) if error.status == 413);
        assert!(is_413 || text.ends_with(&format!("{end}{SAFE}")), "{text}");
        assert!(!error.may_be_charged(), "{text}");
    }
}

#[test]
fn a_large_request_that_goes_out_too_slowly_or_has_no_response_says_what_to_do() {
    let server = Server::listen("127.0.0.1:0", |mut stream, _, _| {
        let _ = stream.read(&mut [0; 1000]);
        thread::sleep(Duration::from_secs(60));
    });
    let client = server.builder().request_timeout(Duration::from_millis(500));
    let (client, large) = (client.build().unwrap(), fox_with_image(20_000_000));
    let error = client.generate_video(&large).unwrap_err();
    let text = format!(
        "no response from {}: timed out (send body). The request has 20000084 bytes: set a longer \
         `request_timeout`, or use a connection of more than 40000 kB per second{SAFE}",
        server.address()
    );
    assert_eq!(error.to_string(), text);

    let (server, large) = (Server::always(vec![Act::Reset]), fox_with_image(1_000_000));
    let error = server.client().generate_video(&large).unwrap_err();
    unknown(&error);
    let text = ". The request has 1000084 bytes: an image in it may be too large. Do not";
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn a_server_that_can_not_be_reached_is_named_and_nothing_is_charged() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = builder(format!("http://{address}/v2")).build().unwrap();
    let posted = client.generate_video(&fox()).unwrap_err().to_string();
    let start = format!("no response from {address}: ");
    let is_safe = posted.starts_with(&start) && posted.ends_with(SAFE);
    assert!(is_safe, "{posted}");
    let polled = client.get_video("gen:1").unwrap_err();
    assert_eq!(polled.to_string(), format!("generation gen:1: {posted}"));
    let Error::Network { cause, .. } = polled else {
        panic!("{polled}")
    };
    assert_eq!(cause.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_get_without_a_usable_response_keeps_the_id_and_a_wait_outlives_it() {
    let another = r#"{"id": "another", "status": "failed"}"#;
    let (no_status, number) = (r#"{"id": "gen:1"}"#, r#"{"status": 7}"#);
    let unusable = ["[]", "\"queued\"", no_status, number, another];
    let unusable = unusable.map(|body| (body, ok(body)));
    for (name, acts) in broken_responses().into_iter().chain(unusable) {
        let server = Server::always(acts.clone());
        let error = impatient(&server).get_video("gen:1").expect_err(name);
        assert_eq!(error.generation_id(), Some("gen:1"), "{name}");
        let is_network = matches!(error, Error::Network { .. });
        let is_expected = is_network || matches!(error, Error::UnexpectedResponse { .. });
        assert!(is_expected && error.is_transient(), "{name}: {error}");
        assert!(error.to_string().ends_with(SAFE), "{name}: {error}");

        let server = Server::script(vec![acts, queued(), completed()]);
        let video = impatient(&server).wait_for_video("gen:1", |_| {});
        let video = video.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(video.url, "https://cdn.example/v.mp4");
    }
}

#[test]
fn a_response_about_another_generation_is_unexpected() {
    // One of two names is enough, and so is none.
    let table = r#"
        {"id": "another", "status": "queued"}        | another
        {"generation_id": 7, "status": "queued"}     | another
        {"id": "GEN:1", "status": "queued"}          | another
        {"id": "x", "generation_id": "y"}            | another
        {"id": "x", "generation_id": "gen:1", "video": {"url": "https://v"}} | gen:1
        {"id": "gen:1", "generation_id": "x", "video": {"url": "https://v"}} | gen:1
        {"id": null, "video": {"url": "https://v"}}  | gen:1"#;
    for [body, id] in rows(table) {
        match get(ok(body)) {
            Ok(generation) => {
                let id_of_video = generation.video.unwrap().generation_id;
                assert_eq!([&*generation.id, &id_of_video], [id; 2], "{body}");
            }
            Err(error) => {
                let reason = format!("it is about {id} generation: {body}{SAFE}");
                let text = format!("generation gen:1: the response can't be understood: {reason}");
                assert_eq!(error.to_string(), text);
                assert!(error.is_transient(), "{error}");
            }
        }
    }
}

#[test]
fn a_key_that_the_server_echoes_is_shown_nowhere() {
    let key = "sk/secret+0123456789~-._";
    let escaped: String = key.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let slashes = ["\\/", "\\u002F"].map(|slash| key.replace('/', slash));
    let echo = r#"{"message": "Bearer KEY", "requestId": "KEY", "statusCode": 401}"#;
    let failed = r#"{"id": "gen:1", "status": "failed", "error": "KEY", "KEY": ["KEY"]}"#;
    let odd = r#"["Bearer KEY"]"#;
    let headers = ["x-inference-id", "x-client-request-id", "retry-after"].map(|name| (name, key));
    for spelled in [key, &slashes[0], &slashes[1], &escaped] {
        for (status, body) in [(401, echo), (200, failed), (200, odd), (502, odd)] {
            let body = body.replace("KEY", spelled);
            let server = Server::always(response(status, &headers, body));
            let builder = Client::builder(key).base_url(server.url("/v2"));
            let client = builder.poll_timeout(SHORT).build().unwrap();
            let waited = client.wait_for_video("gen:1", |_| {});
            let mut shown = format!("{client:?} {waited:?}");
            for result in [client.generate_video(&fox()), client.get_video("gen:1")] {
                shown += &format!("{result:?}");
                match result {
                    Err(Error::Api(error)) => shown += &error.body,
                    Err(error) => shown += &error.to_string(),
                    Ok(generation) => shown += &generation.raw.to_string(),
                }
            }
            assert!(shown.contains("[redacted]"), "{shown}");
            for secret in [key, spelled, "secret"] {
                assert!(!shown.contains(secret), "{spelled} in {shown}");
            }
        }
    }
    // One of under 8 characters may be part of any word.
    let server = Server::always(ok(r#"{"id": "gen:1", "status": "queued"}"#));
    let short = Client::builder("gen").base_url(server.url("/v2"));
    let generation = short.build().unwrap().get_video("gen:1").unwrap();
    assert_eq!(generation.raw["id"], "gen:1");
}

#[test]
fn retry_after_counts_in_seconds_alone() {
    for (value, expected) in [
        (" 120 ", Some(120)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", None),
        ("-5", None),
        ("1.5", None),
    ] {
        let response = response(429, &[("retry-after", value)], "slow down");
        let error = rejection(get(response).unwrap_err());
        let seconds = error.retry_after.map(|time| time.as_secs());
        assert_eq!(seconds, expected, "{value:?}");
        let shown = expected.map(|seconds| format!(" (asks to wait {seconds} s)"));
        let suffix = format!("slow down{}", shown.unwrap_or_default());
        assert!(error.to_string().ends_with(&suffix), "{error}");
    }
}

#[test]
fn the_responses_of_the_transcripts_are_understood() {
    let id = "df43b636-6b09-4b6d-bbd2-f710ac0a3cfd:veo3";
    let url = "https://cdn.aimlapi.com/eagle/files/tiger/R6LdSHLx937_output.mp4";
    let mut video = json!({"url": url, "content_type": "video/mp4", "file_name": "output.mp4",
        "file_size": 3_716_781});
    let body = json!({"id": id, "status": "completed", "video": video});
    let server = Server::always(ok(body));
    let read = server.client().get_video(id).unwrap().video;
    video["generation_id"] = id.into();
    (video["duration"], video["usage"]) = (Value::Null, Value::Null);
    assert_eq!(serde_json::to_value(read).unwrap(), video);

    let old = r#"{"id": "gen:1", "meta": {"usage": {"tokens_used": 6720000}}, "duration": 8,
        "status": "Completed", "video": {"url": "https://v", "duration": 8.0}}"#;
    let generation = get(ok(old)).unwrap();
    assert_eq!(generation.usage.unwrap().credits_used, Some(6_720_000.0));
    assert_eq!(generation.status.as_str(), "completed");
    assert_eq!(generation.raw["duration"], 8);
    assert_eq!(generation.video.unwrap().duration, Some(8.0));
}

#[test]
fn errors_of_any_shape_are_texts_and_those_that_say_nothing_are_none() {
    let table = r#"
        {"name": "Safety", "message": "No."} | Safety: No
        {"name": "Safety", "message": null}  | Safety
        {"message": "No."}                   | No
        {"code": 7, "name": " "}             | {"code":7,"name":" "}
        ["it broke", ""]                     | ["it broke",""]
        "it broke"                           | it broke
        {"name": "", "message": " "}         |
        {"name": null, "details": [{}, ""]}  |
        [null, []]                           |
        0                                    |
        false                                |"#;
    for [error, text] in rows(table) {
        let body = format!(r#"{{"status": "brand-new", "error": {error}}}"#);
        let generation = get(ok(body)).unwrap();
        assert_eq!(generation.is_finished(), !text.is_empty(), "{error}");
        let shown = generation.error.map(|error| error.to_string());
        assert_eq!(shown.unwrap_or_default(), text, "{error}");
    }
}
