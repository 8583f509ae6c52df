//! Whatever the server or the network does: a typed error or an answer, one POST, the id kept, the key in no text.

use std::time::Duration;

use aimlapi_video::{Client, Error, Generation, Status, VideoRequest};

use crate::support::{Act, KEY, Outcome, Server, completed, http, json, queued, quick, refusal};

fn send(bytes: impl AsRef<[u8]>) -> Act {
    Act::Send(bytes.as_ref().to_vec())
}

/// Every way in which an answer can be no answer, with the same name wherever it is used.
fn broken_answers() -> Vec<(&'static str, Vec<Act>)> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let huge = format!(
        "{{\"id\": \"gen:1\", \"status\": \"queued\", \"x\": \"{}\"}}",
        "x".repeat(1024 * 1024)
    );
    vec![
        ("closed before the answer", vec![Act::Close]),
        ("reset before the answer", vec![Act::Reset]),
        ("half a status line", vec![send("HTTP/1."), Act::Close]),
        ("reset amid the head", vec![send(head), Act::Reset]),
        (
            "reset amid the body",
            vec![
                send(format!("{head}content-length: 99\r\n\r\n{{\"id\": \"ge")),
                Act::Reset,
            ],
        ),
        (
            "closed amid the body",
            vec![
                send(format!("{head}content-length: 99\r\n\r\n{{\"id\": \"ge")),
                Act::Close,
            ],
        ),
        (
            "closed amid a chunk",
            vec![
                send(format!(
                    "{head}transfer-encoding: chunked\r\n\r\n40\r\n{{\"id\""
                )),
                Act::Close,
            ],
        ),
        (
            "not HTTP",
            vec![send("SSH-2.0-OpenSSH_9.2\r\n\r\n"), Act::Close],
        ),
        (
            "a stall",
            vec![Act::Stall(Duration::from_secs(5)), Act::Close],
        ),
        ("a stall amid the body", {
            vec![
                send(format!("{head}content-length: 99\r\n\r\n{{")),
                Act::Stall(Duration::from_secs(5)),
                Act::Close,
            ]
        }),
        (
            "a head without end",
            vec![
                send(format!("{head}x-padding: {}", "x".repeat(100_000))),
                Act::Close,
            ],
        ),
        (
            "HTML",
            vec![send(http(
                200,
                &[("content-type", "text/html")],
                "<html>Sign in to the Wi-Fi</html>",
            ))],
        ),
        ("nothing", json(200, "")),
        ("no content", vec![send("HTTP/1.1 204 No Content\r\n\r\n")]),
        (
            "garbage",
            vec![send(http(200, &[], [0xff, 0xfe, 0x00, 0x80]))],
        ),
        ("JSON cut short", json(200, r#"{"id": "gen:1", "status""#)),
        ("over 1 MiB of JSON", json(200, &huge)),
        ("JSON too deep", json(200, &"[".repeat(100_000))),
    ]
}

/// JSON of another shape.
fn other_shapes() -> Vec<(&'static str, Vec<Act>)> {
    vec![
        ("an array", json(200, r#"[{"id": "gen:1"}]"#)),
        ("a text", json(200, r#""gen:1""#)),
        ("null", json(200, "null")),
        ("no id", json(200, "{}")),
        ("id null", json(200, r#"{"id": null}"#)),
        ("id empty", json(200, r#"{"id": ""}"#)),
    ]
}

fn client(server: &Server) -> Client {
    server
        .builder()
        .request_timeout(Duration::from_millis(150))
        .poll_timeout(Duration::from_millis(150))
        .build()
        .unwrap()
}

fn post(server: &Server) -> Result<Generation, Error> {
    let request = VideoRequest::new("A fox").client_request_id("fox-1");
    let result = client(server).generate_video(&request);
    assert_eq!(server.posts(), 1);
    if let Err(error) = &result {
        assert_safe(error);
    }
    result
}

fn assert_safe(error: &Error) {
    let text = format!("{error} {error:?} {:?}", std::error::Error::source(error));
    assert!(!text.contains(KEY), "{text}");
    assert!(!text.to_lowercase().contains("try again"), "{text}");
}

#[test]
fn a_post_whose_answer_is_lost_may_be_charged_and_says_so() {
    for (name, acts) in broken_answers().into_iter().chain(other_shapes()) {
        let server = Server::script(vec![acts]);
        let error = post(&server).expect_err(name);
        let Error::OutcomeUnknown(lost) = &error else {
            panic!("{name}: {error}")
        };
        assert_eq!(
            (lost.client_request_id.as_str(), &lost.generation_id),
            ("fox-1", &None),
            "{name}"
        );
        assert!(error.may_have_charged());
        let text = error.to_string();
        assert!(
            text.starts_with("the generation may have been made and charged: "),
            "{name}: {text}"
        );
        let advice = ". Do not just send it again: look it up with find_generation(\"fox-1\"), more than once, because \
                      the usage log can be late";
        assert!(text.ends_with(advice), "{name}: {text}");
    }
}

#[test]
fn a_lost_answer_that_still_names_the_generation_keeps_its_id() {
    let head = [("x-inference-id", "gen:1")];
    for acts in [
        vec![send(http(201, &head, "<html>"))],
        vec![
            send(
                "HTTP/1.1 201 Created\r\nx-inference-id: gen:1\r\ncontent-length: 50\r\n\r\n{\"id",
            ),
            Act::Close,
        ],
        vec![send(http(302, &head, ""))],
        vec![send(http(502, &head, "bad gateway"))],
    ] {
        let error = post(&Server::script(vec![acts])).unwrap_err();
        assert!(error.may_have_charged());
        assert_eq!(error.generation_id(), Some("gen:1"));
        assert!(
            error
                .to_string()
                .ends_with("Do not just send it again: wait for generation gen:1"),
            "{error}"
        );
    }
}

#[test]
fn an_id_that_is_a_number_is_no_id_and_yet_not_lost() {
    let server = Server::script(vec![json(
        201,
        r#"{"id": 234954179076239, "status": "queued"}"#,
    )]);
    let error = post(&server).unwrap_err();
    assert!(error.may_have_charged());
    assert_eq!(error.generation_id(), Some("234954179076239"));
}

#[test]
fn a_proxy_that_lost_patience_leaves_the_outcome_unknown() {
    for status in [408, 499] {
        let error = post(&Server::script(vec![vec![send(http(
            status,
            &[],
            "<html>",
        ))]]))
        .unwrap_err();
        assert!(error.may_have_charged(), "{error}");
        assert!(
            !post(&Server::script(vec![refusal(status, "Too slow")]))
                .unwrap_err()
                .may_have_charged()
        );
    }
}

#[test]
fn a_request_that_was_cut_off_in_its_body_was_not_charged() {
    // The server answers, or hangs up, before it has read the picture.
    for last in [
        Some(&b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n"[..]),
        None,
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1000]);
            if let Some(answer) = last {
                stream.write_all(answer).unwrap();
            }
        });
        let picture = format!("data:image/png;base64,{}", "A".repeat(20_000_000));
        let client = Client::builder(KEY)
            .base_url(format!("http://{address}/v2"))
            .build()
            .unwrap();
        let error = client
            .generate_video(&VideoRequest::from_image("A fox", picture))
            .unwrap_err();
        assert!(
            matches!(error, Error::Network { .. } | Error::Refused(_)),
            "{error}"
        );
        server.join().unwrap();
    }
}

#[test]
fn a_poll_is_about_what_was_asked_for() {
    let answer = r#"{"id": "another", "status": "completed", "video": {"url": "https://v"}}"#;
    let generation = client(&Server::script(vec![json(200, answer)]))
        .get_video("gen:1")
        .unwrap();
    assert_eq!(
        (
            generation.id.as_str(),
            generation.video.unwrap().generation_id.as_str()
        ),
        ("gen:1", "gen:1")
    );
    assert_eq!(generation.raw["id"], "another");
}

#[test]
fn an_answer_that_names_the_generation_in_its_head_alone_is_good() {
    let answer = vec![send(http(
        201,
        &[("x-inference-id", "gen:1")],
        r#"{"status": "queued"}"#,
    ))];
    assert_eq!(post(&Server::script(vec![answer])).unwrap().id, "gen:1");
    let bare = vec![send(http(
        201,
        &[("x-inference-id", "gen:1")],
        r#"{"id": "gen:1"}"#,
    ))];
    assert_eq!(post(&Server::script(vec![bare])).unwrap().id, "gen:1");
}

#[test]
fn an_empty_error_is_no_error() {
    for error in ["{}", "[]", "0", "\"\"", "false", "null"] {
        let generation: Generation =
            format!(r#"{{"id": "a", "status": "generating", "error": {error}}}"#)
                .parse()
                .unwrap();
        assert!(!generation.is_finished(), "{error}");
    }
}

#[test]
fn a_signed_address_in_the_servers_words_is_cut() {
    for (said, told) in [
        (
            "can't read https://h/x.png?X-Amz-Signature=SECRET today",
            "can't read https://h/x.png?[hidden] today",
        ),
        (
            "can't read https://h/x.png?SECRET",
            "can't read https://h/x.png?[hidden]",
        ),
        ("why? Ask https://h/help", "why? Ask https://h/help"),
        (
            "is it https://h/help? or not",
            "is it https://h/help? or not",
        ),
    ] {
        let failed = format!(r#"{{"status": "failed", "error": "{said}"}}"#);
        let error = client(&Server::script(vec![json(200, &failed)])).wait_for_video(
            "gen:1",
            &quick(),
            |_| {},
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            format!("generation gen:1 is over without a video (status failed): {told}")
        );
    }
}

#[test]
fn a_proxys_error_to_a_post_leaves_the_outcome_unknown() {
    for status in [500, 502, 503, 504, 520] {
        let page = format!("<html><h1>{status}</h1></html>");
        let error = post(&Server::script(vec![vec![send(http(status, &[], page))]])).unwrap_err();
        assert!(error.may_have_charged(), "{error}");
        let told = format!(
            "charged: status {status} came, not from the API itself: <html><h1>{status}</h1></html>. Do"
        );
        assert!(error.to_string().contains(&told), "{error}");
    }
}

#[test]
fn a_refused_post_is_not_charged() {
    for (status, message) in [
        (400, "Body validation error"),
        (
            401,
            "This request requires a valid API key. You can create one.",
        ),
        (
            403,
            "You've run out of credits. Please top up your balance or update your payment method to continue: x",
        ),
        (404, "Not Found"),
        (429, "Too Many Requests"),
        (500, "Internal server error"),
        (500, "Something wrong with the server. Please, retry later."),
        (500, "The model is under maintenance, please wait."),
        (502, "Bad Gateway"),
        (503, "Service unavailable"),
        (504, "Generation timeout"),
    ] {
        let error = post(&Server::script(vec![refusal(status, message)])).unwrap_err();
        assert!(!error.may_have_charged());
        let Error::Refused(refusal) = &error else {
            panic!("{error}")
        };
        assert_eq!(
            (refusal.status, refusal.message.as_deref()),
            (status, Some(message))
        );
        assert_eq!(
            refusal.request_id.as_deref(),
            Some("3f0e1c1a-6f0e-4a8e-9d4a-000000000001")
        );
        assert_eq!(
            error.to_string(),
            format!(
                "the server refused with status {status}: {message} (request id \
                 3f0e1c1a-6f0e-4a8e-9d4a-000000000001); this request was not charged"
            )
        );
    }
}

#[test]
fn a_refusal_keeps_a_body_of_another_shape() {
    let html = "<html>blocked\r\nby a firewall</html>";
    let error = post(&Server::script(vec![vec![send(http(403, &[], html))]])).unwrap_err();
    let Error::Refused(refusal) = &error else {
        panic!("{error}")
    };
    assert_eq!(
        (refusal.message.as_deref(), refusal.body.as_str()),
        (None, html)
    );
    assert_eq!(
        error.to_string(),
        "the server refused with status 403: <html>blocked  by a firewall</html>; this request was not charged"
    );
}

#[test]
fn a_status_code_written_as_text_is_still_the_documented_shape() {
    let body =
        r#"{"message": "Service unavailable", "path": "/", "requestId": "r", "statusCode": "503"}"#;
    let error = post(&Server::script(vec![json(503, body)])).unwrap_err();
    assert!(
        matches!(&error, Error::Refused(refusal) if refusal.message.as_deref() == Some("Service unavailable"))
    );
}

#[test]
fn a_refusal_that_is_cut_short_is_still_a_refusal() {
    let cut = vec![
        send("HTTP/1.1 400 Bad Request\r\ncontent-length: 500\r\n\r\n{\"mess"),
        Act::Close,
    ];
    let error = post(&Server::script(vec![cut])).unwrap_err();
    assert!(
        matches!(&error, Error::Refused(refusal) if refusal.body == "{\"mess"),
        "{error}"
    );
}

#[test]
fn long_bodies_are_short_in_messages() {
    let error = post(&Server::script(vec![vec![send(http(
        400,
        &[],
        "x".repeat(10_000),
    ))]]))
    .unwrap_err();
    assert!(error.to_string().len() < 500);
    let Error::Refused(refusal) = error else {
        panic!("{error}")
    };
    assert_eq!(refusal.body.len(), 10_000);
}

#[test]
fn a_key_that_the_server_quotes_is_hidden() {
    let message = format!("Bearer {KEY} is not known");
    let error = post(&Server::script(vec![refusal(401, &message)])).unwrap_err();
    assert!(
        error.to_string().contains("Bearer [hidden] is not known"),
        "{error}"
    );
    let error = post(&Server::script(vec![json(200, &format!("[\"{KEY}\"]"))])).unwrap_err();
    assert!(error.to_string().contains("[\"[hidden]\"]"), "{error}");
}

#[test]
fn a_key_is_hidden_however_the_server_spells_it() {
    for spelled in [r"sk-secret\u002d0123456789", r"sk\u002dsecret-0123456789"] {
        let body = format!(r#"{{"message": "Bearer {spelled} is not known", "statusCode": 401}}"#);
        let error = post(&Server::script(vec![json(401, &body)])).unwrap_err();
        assert!(
            error.to_string().contains("Bearer [hidden] is not known"),
            "{error}"
        );
    }
    let quoted = [("x-inference-id", KEY), ("x-client-request-id", KEY)];
    let error = post(&Server::script(vec![vec![send(http(
        502, &quoted, "<html>",
    ))]]))
    .unwrap_err();
    assert_eq!(error.generation_id(), Some("[hidden]"));
    let generation = post(&Server::script(vec![vec![send(http(
        201,
        &quoted,
        r#"{"id": "gen:1"}"#,
    ))]]))
    .unwrap();
    assert!(!format!("{generation:?}").contains(KEY));
}

#[test]
fn a_whole_answer_in_a_broken_frame_is_good() {
    let json = r#"{"id": "gen:1", "status": "queued"}"#;
    let chunk = format!(
        "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{json}\r\n",
        json.len()
    );
    let long = format!("HTTP/1.1 201 Created\r\ncontent-length: 99\r\n\r\n{json}");
    for answer in [
        vec![send(chunk), Act::Close],
        vec![send(long), Act::Close],
        { vec![send(http(201, &[], format!("\u{feff}{json}")))] },
    ] {
        assert_eq!(post(&Server::script(vec![answer])).unwrap().id, "gen:1");
    }
}

#[test]
fn a_post_that_never_reached_the_server_is_safe_to_repeat() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nowhere = |url: String| Client::builder(KEY).base_url(url).build().unwrap();
    let schemes = if cfg!(any(feature = "rustls", feature = "native-tls")) {
        &["http", "https"][..]
    } else {
        &["http"]
    };
    for scheme in schemes {
        let client = nowhere(format!("{scheme}://{gone}/v2"));
        let error = client
            .generate_video(&VideoRequest::new("A fox"))
            .unwrap_err();
        assert!(!error.may_have_charged());
        let Error::Network {
            generation_id: None,
            cause,
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(cause.kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(
            error.to_string(),
            format!(
                "no answer from the server: {cause}; this call charged nothing, and calling again is safe"
            )
        );
    }
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
#[test]
fn a_post_to_a_host_that_does_not_exist_is_safe_to_repeat() {
    let client = Client::builder(KEY)
        .base_url("https://no-such-host.invalid/v2")
        .build()
        .unwrap();
    let error = client
        .generate_video(&VideoRequest::new("A fox"))
        .unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error}");
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
#[test]
fn a_server_that_speaks_no_tls_got_no_request() {
    // It answers the client's TLS greeting with plain text, or hangs up on it.
    for acts in [
        vec![send("HTTP/1.1 400 Bad Request\r\n\r\n"), Act::Close],
        vec![Act::Close],
        vec![Act::Reset],
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 512]);
            for act in acts {
                if let Act::Send(bytes) = act {
                    stream.write_all(&bytes).unwrap();
                }
            }
        });
        let client = Client::builder(KEY)
            .base_url(format!("https://{address}/v2"))
            .build()
            .unwrap();
        let error = client
            .generate_video(&VideoRequest::new("A fox"))
            .unwrap_err();
        assert!(matches!(error, Error::Network { .. }), "{error}");
        server.join().unwrap();
    }
}

#[test]
fn a_get_without_a_usable_answer_keeps_the_id() {
    for (name, acts) in broken_answers() {
        let server = Server::script(vec![acts]);
        let error = client(&server).get_video("gen:1").expect_err(name);
        assert_eq!(error.generation_id(), Some("gen:1"), "{name}");
        assert!(
            matches!(
                error,
                Error::Network { .. } | Error::UnexpectedAnswer { .. }
            ),
            "{name}: {error}"
        );
        assert!(!error.may_have_charged());
        assert_safe(&error);
    }
}

#[test]
fn a_wait_outlives_every_broken_answer() {
    for (name, acts) in broken_answers() {
        let server = Server::script(vec![acts, queued(), completed()]);
        let video = client(&server).wait_for_video("gen:1", &quick(), |_| {});
        assert_eq!(
            video.unwrap_or_else(|error| panic!("{name}: {error}")).url,
            "https://cdn.example/v.mp4"
        );
        assert_eq!(server.posts(), 0);
    }
}

#[test]
fn a_wait_ends_at_json_that_is_not_a_generation() {
    for (name, acts) in [
        ("an array", json(200, "[]")),
        ("no status", json(200, r#"{"id": "gen:1"}"#)),
    ] {
        let server = Server::script(vec![acts, completed()]);
        let error = client(&server)
            .wait_for_video("gen:1", &quick(), |_| {})
            .expect_err(name);
        assert!(
            matches!(error, Error::UnexpectedAnswer { .. }),
            "{name}: {error}"
        );
        assert_eq!(
            (error.generation_id(), server.requests().len()),
            (Some("gen:1"), 1)
        );
    }
}

#[test]
fn an_answer_to_a_poll_needs_no_id() {
    let server = Server::script(vec![json(
        200,
        r#"{"status": "completed", "video": {"url": "https://v"}}"#,
    )]);
    assert_eq!(client(&server).get_video("gen:1").unwrap().id, "gen:1");
}

#[test]
fn retry_after_is_read_in_all_its_forms() {
    let far = "Fri, 31 Dec 9999 23:59:59 GMT";
    for (value, expected) in [
        ("7", Some(7)),
        (" 120 ", Some(120)),
        ("0", Some(0)),
        ("99999999999999999999999999", Some(u64::MAX)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
        (far, Some(250_000_000_000)),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:99:37 GMT", None),
        ("Sun, 06 Nov 99999999999999 08:49:37 GMT", None),
    ] {
        let server = Server::script(vec![vec![send(http(
            429,
            &[("retry-after", value)],
            "slow down",
        ))]]);
        let Err(Error::Refused(refusal)) = client(&server).get_video("gen:1") else {
            panic!("{value}")
        };
        let seconds = refusal.retry_after.map(|time| time.as_secs());
        if value == far {
            assert!(seconds > expected, "{seconds:?}");
        } else {
            assert_eq!(seconds, expected, "{value:?}");
        }
    }
}

#[test]
fn the_answers_of_the_transcripts_are_understood() {
    let generation: Generation = r#"{"id": "df43b636-6b09-4b6d-bbd2-f710ac0a3cfd:veo3", "status": "completed", "video":
        {"url": "https://cdn.aimlapi.com/eagle/files/tiger/R6LdSHLx937-O7ra31ySQ_output.mp4", "content_type":
        "video/mp4", "file_name": "output.mp4", "file_size": 3716781}}"#
        .parse()
        .unwrap();
    let video = generation.video.unwrap();
    assert_eq!(
        video.generation_id,
        "df43b636-6b09-4b6d-bbd2-f710ac0a3cfd:veo3"
    );
    assert_eq!(
        (video.file_size, video.file_name.as_deref()),
        (Some(3_716_781), Some("output.mp4"))
    );
    assert_eq!(video.content_type.as_deref(), Some("video/mp4"));

    let generation: Generation = r#"{"id": "e7c9abca-f20b-46db-b48c-2ead93494f2e:google/veo3", "meta": {"usage":
        {"tokens_used": 6720000}}, "status": "completed", "video": {"url": "https://example.com/video1.mp4"}}"#
        .parse()
        .unwrap();
    assert_eq!(generation.usage.unwrap().credits_used, Some(6_720_000.0));
    assert_eq!(generation.status, Status::Completed);
}

#[test]
fn old_new_and_odd_shapes_are_understood() {
    let parse = |text: &str| {
        text.parse::<Generation>()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    };
    assert_eq!(parse(r#"{"generation_id": "g"}"#).id, "g");
    assert_eq!(parse(r#"{"id": "a", "generation_id": "b"}"#).id, "a");
    let nulls =
        parse(r#"{"id": "a", "status": "QUEUED", "video": null, "error": null, "meta": null}"#);
    assert_eq!(
        (&nulls.status, nulls.is_finished()),
        (&Status::Queued, false)
    );
    assert_eq!(parse(r#"{"id": "a", "meta": {"usage": null}}"#).usage, None);
    let paid =
        parse(r#"{"id": "a", "meta": {"usage": {"credits_used": 120000, "usd_spent": 0.06}}}"#);
    assert_eq!(paid.usage.unwrap().to_string(), "0.06 USD (120000 credits)");
    assert_eq!(
        parse(r#"{"id": "a", "error": "it broke"}"#)
            .error
            .unwrap()
            .to_string(),
        "it broke"
    );
    assert_eq!(
        parse(r#"{"id": "a", "error": {"code": 7}}"#)
            .error
            .unwrap()
            .to_string(),
        r#"{"code":7}"#
    );
    let named = parse(r#"{"id": "a", "error": {"name": "Safety", "message": "No."}}"#)
        .error
        .unwrap();
    assert_eq!(
        (named.name.as_str(), named.message.as_str()),
        ("Safety", "No.")
    );
    let odd = parse(
        r#"{"id": "a", "status": "rendering", "video": {"url": ""}, "meta": "?", "new": [1]}"#,
    );
    assert_eq!(
        (odd.status.as_str(), odd.video, odd.usage),
        ("rendering", None, None)
    );
    assert_eq!(odd.raw["new"][0], 1);
    let old =
        parse(r#"{"id": "a", "duration": 8, "video": {"url": "https://v", "duration": 8.0}}"#);
    assert_eq!(old.video.unwrap().duration, Some(8.0));
}

#[test]
fn what_a_program_prints_when_main_returns_the_error_reads_well() {
    let error = "<html>".parse::<Generation>().unwrap_err();
    assert_eq!(
        format!("{error:?}"),
        "the answer can't be understood (it is not JSON): <html>"
    );
}
