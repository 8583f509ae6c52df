//! The stand-in for the API: it answers as documented, to any client.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use aimlapi_video::{
    Client, Error, Generation, Status, UNIVERSAL_ENDPOINT, VEO_ENDPOINT, VideoRequest,
    simulator::{CLIP, Simulator, Step},
};
use serde_json::{Value, json};

use crate::support::{Folder, quick};

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The message of an error of the documented shape.
    fn refusal(&self, path: &str) -> String {
        let body = self.json();
        let names: BTreeSet<&str> = body
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(
            names,
            BTreeSet::from(["message", "path", "requestId", "statusCode", "timestamp"])
        );
        assert_eq!(
            (&body["statusCode"], &body["path"]),
            (&json!(self.status), &json!(path))
        );
        assert_eq!(body["requestId"].as_str().unwrap().len(), 36);
        body["message"].as_str().unwrap().to_owned()
    }
}

/// One request, by no HTTP library, on a connection of its own.
fn ask(simulator: &Simulator, head: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let origin = simulator.base_url();
    let address = origin
        .strip_prefix("http://")
        .unwrap()
        .strip_suffix("/v2")
        .unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut text = format!("{head} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    stream.write_all(&[text.as_bytes(), body].concat()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let text = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = text.lines();
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let header = |line: &str| {
        line.split_once(": ")
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
    };
    let answer = Answer {
        status,
        headers: lines.filter_map(header).collect(),
        body: bytes[end + 4..].to_vec(),
    };
    let length: usize = answer.header("content-length").unwrap().parse().unwrap();
    assert!(head.starts_with("HEAD") || length == answer.body.len());
    answer
}

const BEARER: (&str, &str) = ("Authorization", "Bearer simulator-key");

fn post(simulator: &Simulator, endpoint: &str, body: &Value) -> Answer {
    ask(
        simulator,
        &format!("POST /v2/{endpoint}"),
        &[BEARER],
        body.to_string().as_bytes(),
    )
}

fn get(simulator: &Simulator, path: &str) -> Answer {
    ask(simulator, &format!("GET {path}"), &[BEARER], b"")
}

fn poll(simulator: &Simulator, id: &str) -> Answer {
    get(
        simulator,
        &format!(
            "/v2/{VEO_ENDPOINT}?generation_id={}",
            id.replace(':', "%3A")
        ),
    )
}

fn queue(simulator: &Simulator) -> String {
    let answer = post(
        simulator,
        VEO_ENDPOINT,
        &json!({"model": "google/veo3", "prompt": "A fox"}),
    );
    assert_eq!(answer.status, 201);
    answer.json()["id"].as_str().unwrap().to_owned()
}

#[test]
fn both_endpoints_make_a_video() {
    let simulator = Simulator::start().unwrap();
    for endpoint in [VEO_ENDPOINT, UNIVERSAL_ENDPOINT] {
        let created = post(
            &simulator,
            endpoint,
            &json!({"model": "google/veo3", "prompt": "A fox"}),
        );
        assert_eq!(created.status, 201);
        let id = created.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(created.json(), json!({"id": id, "status": "queued"}));
        assert_eq!(created.header("x-inference-id"), Some(id.as_str()));
        assert!(id.ends_with(":veo3"), "{id}");

        let path = format!("/v2/{endpoint}?generation_id={id}");
        for word in ["queued", "generating"] {
            let expected =
                json!({"id": id, "status": word, "video": null, "error": null, "meta": null});
            assert_eq!(get(&simulator, &path).json(), expected);
        }
        for _ in 0..2 {
            let answer = get(&simulator, &path);
            let (status, body) = (answer.status, answer.json());
            assert_eq!(
                (status, &body["status"], &body["error"]),
                (200, &json!("completed"), &Value::Null)
            );
            assert_eq!(
                body["meta"],
                json!({"usage": {"credits_used": 120_000, "usd_spent": 0.06}})
            );
            assert_eq!(body["video"]["file_size"], CLIP.len());
            assert_eq!(body["video"]["content_type"], "video/mp4");
            assert!(
                body["video"]["url"]
                    .as_str()
                    .unwrap()
                    .starts_with(simulator.base_url().trim_end_matches("v2"))
            );
        }
    }
}

#[test]
fn a_request_without_the_key_is_refused_with_401() {
    let simulator = Simulator::start().unwrap();
    let path = "/v2/video/generations";
    let wrong: [&[(&str, &str)]; 5] = [
        &[],
        &[("Authorization", "Bearer other")],
        &[("Authorization", "simulator-key")],
        &[("Authorization", "Bearer simulator-key2")],
        &[("X-Api-Key", "simulator-key")],
    ];
    for headers in wrong {
        for head in [
            format!("POST {path}"),
            format!("GET {path}?generation_id=1"),
            "GET /v2/logs".to_owned(),
        ] {
            let answer = ask(&simulator, &head, headers, b"{}");
            assert_eq!(answer.status, 401);
            let asked = head.split(['?', ' ']).nth(1).unwrap();
            assert!(
                answer
                    .refusal(asked)
                    .starts_with("This request requires a valid API key.")
            );
        }
    }
    assert_eq!(simulator.charged(), 0);
}

#[test]
fn what_is_not_there_is_refused_with_404() {
    let simulator = Simulator::start().unwrap();
    queue(&simulator);
    for path in [
        "/v2",
        "/",
        "/v1/video/generations",
        "/v2/video/generations/",
        "/v2/billing",
        "/files",
    ] {
        let answer = get(&simulator, path);
        assert_eq!(
            (answer.status, answer.refusal(path)),
            (404, "Not Found".to_owned())
        );
    }
    for query in ["", "?generation_id=", "?generation_id=other", "?id=1"] {
        let answer = get(&simulator, &format!("/v2/video/generations{query}"));
        assert_eq!(
            (answer.status, answer.refusal("/v2/video/generations")),
            (404, "Not Found".to_owned())
        );
    }
    assert_eq!(
        ask(&simulator, "DELETE /v2/video/generations", &[BEARER], b"").status,
        404
    );
    for path in [
        "/files/",
        "/files/1/output.mp4",
        "/files/0/other.mp4",
        "/files/output.mp4",
    ] {
        let answer = ask(&simulator, &format!("GET {path}"), &[], b"");
        assert_eq!(
            (answer.status, answer.refusal(path)),
            (404, "Not Found".to_owned()),
            "no such video"
        );
    }
}

#[test]
fn a_body_outside_of_the_schema_is_refused_with_what_was_expected_and_received() {
    let simulator = Simulator::start().unwrap();
    let hint = |body: Value| {
        let answer = post(&simulator, UNIVERSAL_ENDPOINT, &body);
        assert_eq!(answer.status, 400);
        let message = answer.refusal("/v2/video/generations");
        message
            .strip_prefix("Body validation error: ")
            .unwrap_or_else(|| panic!("{message}"))
            .to_owned()
    };
    let veo3 = |name: &str, value: Value| {
        hint(json!({"model": "google/veo3", "prompt": "A fox", name: value}))
    };
    assert_eq!(
        veo3("duration", json!(5)),
        "duration: Expected 4, 6, 8, received 5"
    );
    assert_eq!(
        veo3("duration", json!("8")),
        "duration: Expected 4, 6, 8, received \"8\""
    );
    assert_eq!(
        veo3("resolution", json!("720p")),
        "resolution: Expected \"720P\", \"1080P\", received \"720p\""
    );
    assert_eq!(
        veo3("enhance_prompt", json!(1)),
        "enhance_prompt: Expected true or false, received 1"
    );
    assert_eq!(
        veo3("image_url", json!("https://a/1.png")),
        "image_url: Expected no such parameter, only prompt, duration, aspect_ratio, resolution, negative_prompt, \
         seed, enhance_prompt, generate_audio, received \"https://a/1.png\""
    );
    assert_eq!(
        hint(json!({"model": "veo2"})),
        "prompt: Expected a text that is not empty, received undefined"
    );
    assert_eq!(
        hint(json!({"prompt": "A fox"})),
        "model: Expected string, received undefined"
    );
    assert_eq!(
        hint(json!(["model"])),
        "Expected object, received something else"
    );
    // A picture of some megabytes is not sent back.
    let long = veo3(
        "image_url",
        json!(format!(
            "data:image/png;base64,{}",
            "QUJD".repeat(1_000_000)
        )),
    );
    assert!(long.len() < 1_000, "{} bytes", long.len());

    for body in ["", "{", "{}}", "\"model\""] {
        let answer = ask(
            &simulator,
            "POST /v2/video/generations",
            &[BEARER],
            body.as_bytes(),
        );
        assert_eq!(answer.status, 400);
        answer.refusal("/v2/video/generations");
    }
    let answer = ask(
        &simulator,
        "POST /v2/video/generations",
        &[BEARER],
        b"{\"model\": \"\xff\"}",
    );
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.refusal("/v2/video/generations"),
        "Body validation error: Expected UTF-8, received other bytes"
    );
    assert_eq!((simulator.charged(), simulator.received().len()), (0, 14));
}

#[test]
fn the_simulator_takes_what_the_published_schemas_take() {
    let simulator = Simulator::start().unwrap();
    let schemas: Value = serde_json::from_str(include_str!("google_models.json")).unwrap();
    for (model, schema) in schemas.as_object().unwrap() {
        let mut body = json!({ "model": model });
        for (name, parameter) in schema["parameters"].as_object().unwrap() {
            let example = match parameter["type"].as_str().unwrap() {
                _ if name == "provider" => json!("GOOGLE"),
                _ if parameter["enum"].is_array() => parameter["enum"]
                    .as_array()
                    .unwrap()
                    .last()
                    .unwrap()
                    .clone(),
                "boolean" => json!(false),
                "integer" => json!(-7),
                "array" => json!(["https://a/1.png"]),
                "string" => json!("https://a/1.png"),
                other => panic!("{other}"),
            };
            body[name] = example;
        }
        assert_eq!(
            post(&simulator, UNIVERSAL_ENDPOINT, &body).status,
            201,
            "{body}"
        );
    }
    let unknown = json!({"model": "someone/new-model-2", "anything": {"at": ["all"]}});
    assert_eq!(post(&simulator, UNIVERSAL_ENDPOINT, &unknown).status, 201);
    assert_eq!(simulator.charged(), 19);
}

#[test]
fn polls_go_as_the_script_says() {
    let simulator = Simulator::start().unwrap();
    simulator.script([
        Step::status("Dreaming"),
        Step::outage(429),
        Step::outage(503),
        Step::Raw(502, "<html>Bad Gateway</html>".to_owned()),
        Step::fail("SafetyError", "The prompt was refused."),
    ]);
    let failing = queue(&simulator);
    // Scripts are for generations to come.
    simulator.script([]);
    let completing = queue(&simulator);

    let path = "/v2/generate/video/google/generation";
    assert_eq!(poll(&simulator, &failing).json()["status"], "Dreaming");
    assert_eq!(poll(&simulator, &completing).json()["status"], "completed");
    for (status, message) in [(429, "Too Many Requests"), (503, "Service unavailable")] {
        let answer = poll(&simulator, &failing);
        assert_eq!(
            (answer.status, answer.refusal(path).as_str()),
            (status, message)
        );
    }
    let page = poll(&simulator, &failing);
    assert_eq!(
        (page.status, page.body.as_slice()),
        (502, b"<html>Bad Gateway</html>".as_slice())
    );
    for _ in 0..2 {
        let answer = poll(&simulator, &failing);
        let error = json!({"name": "SafetyError", "message": "The prompt was refused."});
        let expected =
            json!({"id": failing, "status": "error", "video": null, "error": error, "meta": null});
        assert_eq!((answer.status, answer.json()), (200, expected));
    }
    assert_eq!(simulator.charged(), 1, "a failed generation is not charged");
}

#[test]
fn outages_have_the_documented_messages() {
    let simulator = Simulator::start().unwrap();
    let cases = [
        (
            403,
            "You've run out of credits. Please top up your balance or update your payment method to continue.",
        ),
        (429, "Too Many Requests"),
        (500, "Internal server error"),
        (
            502,
            "Something wrong with the server. Please, try again later.",
        ),
        (503, "Service unavailable"),
        (504, "Generation timeout"),
    ];
    for (status, message) in cases {
        simulator.script([Step::outage(status)]);
        match simulator
            .client()
            .get_video(&queue(&simulator))
            .unwrap_err()
        {
            Error::Refused(refusal) => {
                assert_eq!(
                    (refusal.status, refusal.message.as_deref()),
                    (status, Some(message))
                );
                assert!(refusal.request_id.is_some());
            }
            other => panic!("{other}"),
        }
    }
}

/// The address of a finished video, without the origin.
fn video_path(simulator: &Simulator) -> String {
    simulator.script([Step::Complete]);
    let url = poll(simulator, &queue(simulator)).json()["video"]["url"]
        .as_str()
        .unwrap()
        .to_owned();
    url[simulator.base_url().len() - "/v2".len()..].to_owned()
}

#[test]
fn a_video_is_served_whole_and_in_ranges() {
    let simulator = Simulator::start().unwrap();
    let path = video_path(&simulator);
    let fetch = |headers: &[(&str, &str)]| ask(&simulator, &format!("GET {path}"), headers, b"");
    let whole = fetch(&[]);
    assert_eq!(
        (whole.status, whole.header("content-type")),
        (200, Some("video/mp4"))
    );
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert!(whole.body == CLIP);
    assert_eq!(&CLIP[4..8], b"ftyp");
    let tag = whole.header("etag").unwrap().to_owned();
    assert!(
        tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'),
        "{tag}"
    );

    let size = CLIP.len();
    let last = size - 1;
    let ranges = [
        ("bytes=0-0".to_owned(), 0, 1),
        ("bytes=1000-1999".to_owned(), 1000, 2000),
        ("bytes=1000-".to_owned(), 1000, size),
        (format!("bytes={last}-"), last, size),
        (format!("bytes=5-{}", size * 2), 5, size),
        (format!("bytes=5-{}", u64::MAX), 5, size),
    ];
    for (range, start, end) in &ranges {
        for condition in [vec![], vec![("If-Range", tag.as_str())]] {
            let part = fetch(&[vec![("Range", range.as_str())], condition].concat());
            assert_eq!(part.status, 206, "{range}");
            let expected = format!("bytes {start}-{}/{size}", end - 1);
            assert_eq!(part.header("content-range"), Some(expected.as_str()));
            assert_eq!(part.header("etag"), Some(tag.as_str()));
            assert!(part.body == CLIP[*start..*end]);
        }
        let changed = fetch(&[("Range", range), ("If-Range", "\"other\"")]);
        assert_eq!(
            (changed.status, changed.header("content-range")),
            (200, None)
        );
        assert!(changed.body == CLIP);
    }
    for range in [
        format!("bytes={size}-"),
        format!("bytes={}-{}", size + 5, size + 9),
    ] {
        let none = fetch(&[("Range", &range)]);
        assert_eq!(
            (none.status, none.refusal(&path).as_str()),
            (416, "Range Not Satisfiable")
        );
        assert_eq!(
            none.header("content-range"),
            Some(format!("bytes */{size}").as_str())
        );
    }
    // A server may ignore ranges, and has to where they make no sense (RFC 9110, 14.2).
    for range in [
        "bytes=9-5",
        "bytes=-5",
        "bytes=0-0,5-6",
        "bytes=x-",
        "lines=1-2",
        "",
    ] {
        let ignored = fetch(&[("Range", range)]);
        assert!(
            ignored.status == 200 && ignored.body == CLIP,
            "{range}: {}",
            ignored.status
        );
    }
    let head = ask(&simulator, &format!("HEAD {path}"), &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(
        head.header("content-length"),
        Some(size.to_string().as_str())
    );
}

#[test]
fn another_video_has_another_tag() {
    let simulator = Simulator::start().unwrap();
    let path = video_path(&simulator);
    let tag = || {
        ask(&simulator, &format!("GET {path}"), &[], b"")
            .header("etag")
            .unwrap()
            .to_owned()
    };
    let first = tag();
    simulator.video(b"another".to_vec());
    let second = ask(
        &simulator,
        &format!("GET {path}"),
        &[("Range", "bytes=2-"), ("If-Range", &first)],
        b"",
    );
    assert_eq!(
        (second.status, second.body.as_slice()),
        (200, b"another".as_slice())
    );
    assert_ne!(tag(), first);
    simulator.video([]);
    assert_eq!(
        ask(&simulator, &format!("GET {path}"), &[], b"").body.len(),
        0
    );
    assert_eq!(
        ask(
            &simulator,
            &format!("GET {path}"),
            &[("Range", "bytes=0-")],
            b""
        )
        .status,
        416
    );
    simulator.video(CLIP);
    assert_eq!(tag(), first);
}

#[test]
fn the_file_server_refuses_a_key() {
    let simulator = Simulator::start().unwrap();
    let path = video_path(&simulator);
    let answer = ask(&simulator, &format!("GET {path}"), &[BEARER], b"");
    assert_eq!(
        (answer.status, answer.refusal(&path).as_str()),
        (400, "The API key was sent to the file server")
    );
}

#[test]
fn a_client_downloads_the_clip() {
    let (simulator, folder) = (Simulator::start().unwrap(), Folder::new());
    let client = simulator.client();
    let generation = client.generate_video(&VideoRequest::new("A fox")).unwrap();
    let video = client
        .wait_for_video(&generation.id, &quick(), |_| {})
        .unwrap();
    client
        .download_video(&video, folder.path("a.mp4"), |_, _| {})
        .unwrap();
    assert!(std::fs::read(folder.path("a.mp4")).unwrap() == CLIP);
    assert_eq!(folder.names(), ["a.mp4"]);
}

#[test]
fn the_usage_log_is_newest_first_and_in_pages() {
    let simulator = Simulator::start().unwrap();
    let empty = json!({"data": [], "pagination": {"limit": 50, "offset": 0, "total": 0, "has_more": false}});
    assert_eq!(get(&simulator, "/v2/logs?period=24h").json(), empty);
    let mut ids = Vec::new();
    for number in 0..5 {
        simulator.script([if number == 3 {
            Step::fail("Error", "No.")
        } else {
            Step::Complete
        }]);
        let job = format!("job-{number}");
        let headers = [BEARER, ("X-Client-Request-Id", job.as_str())];
        let headers = if number == 1 { &headers[..1] } else { &headers };
        let body = json!({"model": "google/veo3", "prompt": "A fox"}).to_string();
        let answer = ask(
            &simulator,
            &format!("POST /v2/{VEO_ENDPOINT}"),
            headers,
            body.as_bytes(),
        );
        let echoed = (number != 1).then_some(job.as_str());
        assert_eq!(answer.header("x-client-request-id"), echoed);
        ids.insert(0, answer.json()["id"].clone());
        let polled = poll(&simulator, ids[0].as_str().unwrap());
        assert_eq!(polled.header("x-client-request-id"), echoed);
        assert_eq!(polled.header("x-inference-id"), ids[0].as_str());
    }
    let log = get(&simulator, "/v2/logs?period=24h").json();
    let rows = log["data"].as_array().unwrap();
    assert_eq!(
        rows.iter()
            .map(|row| row["inference_id"].clone())
            .collect::<Vec<_>>(),
        ids
    );
    assert_eq!(
        rows[0],
        json!({
            "created": rows[0]["created"],
            "status": "succeeded",
            "origin": "api",
            "model": "google/veo3",
            "cost": {"usd": 0.06, "credits": 120_000},
            "tokens": {"input": 0, "output": 0, "total": 0},
            "request_id": null,
            "inference_id": ids[0],
            "client_request_id": "job-4",
        })
    );
    assert_eq!(
        (&rows[1]["status"], &rows[1]["cost"]),
        (&json!("failed"), &json!({"usd": 0.0, "credits": 0}))
    );
    assert_eq!(rows[3]["client_request_id"], Value::Null);

    for (query, range, has_more) in [
        ("limit=2", 0..2, true),
        ("limit=2&offset=2", 2..4, true),
        ("limit=2&offset=3", 3..5, false),
        ("limit=2&offset=4", 4..5, false),
        ("offset=9", 5..5, false),
        ("offset=18446744073709551615", 5..5, false),
        ("limit=100&offset=1", 1..5, false),
    ] {
        let page = get(&simulator, &format!("/v2/logs?period=30d&{query}")).json();
        let found: Vec<_> = page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["inference_id"].clone())
            .collect();
        assert_eq!(found, ids[range], "{query}");
        assert_eq!(
            (
                &page["pagination"]["has_more"],
                &page["pagination"]["total"]
            ),
            (&json!(has_more), &json!(5))
        );
    }
}

#[test]
fn a_client_request_id_that_the_service_would_drop_is_dropped() {
    let simulator = Simulator::start().unwrap();
    let body = json!({"model": "google/veo3", "prompt": "A fox"}).to_string();
    for id in ["job 1", "job/1", &"a".repeat(129)] {
        let headers = [BEARER, ("X-Client-Request-Id", id)];
        let answer = ask(
            &simulator,
            &format!("POST /v2/{VEO_ENDPOINT}"),
            &headers,
            body.as_bytes(),
        );
        assert_eq!(
            (answer.status, answer.header("x-client-request-id")),
            (201, None)
        );
    }
    for row in get(&simulator, "/v2/logs").json()["data"]
        .as_array()
        .unwrap()
    {
        assert_eq!(row["client_request_id"], Value::Null);
    }
}

#[test]
fn a_late_log_shows_a_generation_in_the_end() {
    let simulator = Simulator::start().unwrap();
    let client = simulator.client();
    let request = VideoRequest::new("A fox").client_request_id("job-1");
    let id = client.generate_video(&request).unwrap().id;
    simulator.late_log(2);
    assert_eq!(client.find_generation("job-1").unwrap(), None);
    assert_eq!(client.find_generation("job-1").unwrap(), None);
    let found = client.find_generation("job-1").unwrap().unwrap();
    assert_eq!(
        (found.generation_id, found.status.as_str()),
        (id, "succeeded")
    );
    assert_eq!(client.find_generation("job-2").unwrap(), None);
}

#[test]
fn a_generation_is_found_on_a_later_page_of_the_log() {
    let simulator = Simulator::start().unwrap();
    let client = simulator.client();
    let first = client
        .generate_video(&VideoRequest::new("A fox").client_request_id("job-1"))
        .unwrap();
    for _ in 0..200 {
        client.generate_video(&VideoRequest::new("A fox")).unwrap();
    }
    let before = simulator.received().len();
    assert_eq!(
        client
            .find_generation("job-1")
            .unwrap()
            .unwrap()
            .generation_id,
        first.id
    );
    assert_eq!(simulator.received().len(), before + 3);
    assert_eq!(simulator.charged(), 201);
}

#[test]
fn what_was_received_is_kept_in_order() {
    let simulator = Simulator::start().unwrap();
    let client = simulator.client();
    let id = client
        .generate_video(&VideoRequest::new("A fox").client_request_id("job-1"))
        .unwrap()
        .id;
    client.get_video(&id).unwrap();
    ask(&simulator, "GET /nothing?a=b", &[], b"text");
    let received = simulator.received();
    let lines: Vec<_> = received
        .iter()
        .map(|request| (request.method.as_str(), request.url.as_str()))
        .collect();
    assert_eq!(lines[0], ("POST", "/v2/generate/video/google/generation"));
    assert_eq!(lines[1].0, "GET");
    assert!(
        lines[1]
            .1
            .starts_with("/v2/generate/video/google/generation?generation_id=51a0"),
        "{}",
        lines[1].1
    );
    assert_eq!(lines[2..], [("GET", "/nothing?a=b")]);
    assert_eq!(received[0].header("x-client-request-id"), Some("job-1"));
    assert_eq!(
        received[0].header("authorization"),
        Some("Bearer simulator-key")
    );
    assert_eq!(
        received[0].header("X-Client-Request-Id"),
        None,
        "names are in lower case"
    );
    assert_eq!(
        serde_json::from_str::<Value>(&received[0].body).unwrap()["prompt"],
        "A fox"
    );
    assert_eq!(received[2].body, "text");
}

#[test]
fn several_clients_are_served_at_once() {
    let simulator = Simulator::start().unwrap();
    let ids: Vec<String> = thread::scope(|scope| {
        let jobs: Vec<_> = (0..8)
            .map(|job| {
                let client = simulator.client();
                scope.spawn(move || {
                    (0..5)
                        .map(|number| {
                            let request = VideoRequest::new("A fox")
                                .client_request_id(format!("{job}-{number}"));
                            let Generation { id, status, .. } =
                                client.generate_video(&request).unwrap();
                            assert_eq!(status, Status::Queued);
                            let video = client.wait_for_video(&id, &quick(), |_| {}).unwrap();
                            let mut bytes = Vec::new();
                            client
                                .download_video_to(&video, &mut bytes, |_, _| {})
                                .unwrap();
                            assert!(bytes == CLIP);
                            id
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        jobs.into_iter()
            .flat_map(|job| job.join().unwrap())
            .collect()
    });
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 40);
    assert_eq!(simulator.charged(), 40);
}

#[test]
fn dropping_the_simulator_stops_it() {
    let simulator = Simulator::start().unwrap();
    let client = simulator.client();
    let id = client
        .generate_video(&VideoRequest::new("A fox"))
        .unwrap()
        .id;
    client.get_video(&id).unwrap();
    let start = Instant::now();
    drop(simulator);
    // The client has had a connection, and must not wait on it for an answer that will not come.
    for _ in 0..3 {
        assert!(matches!(client.get_video(&id), Err(Error::Network { .. })));
    }
    assert!(matches!(
        client.generate_video(&VideoRequest::new("A fox")),
        Err(Error::Network { .. })
    ));
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn two_simulators_do_not_know_each_other() {
    let (one, two) = (Simulator::start().unwrap(), Simulator::start().unwrap());
    assert_ne!(one.base_url(), two.base_url());
    let id = queue(&one);
    assert_eq!(poll(&two, &id).status, 404);
    assert_eq!((one.charged(), two.charged()), (1, 0));
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let simulator = Simulator::start().unwrap();
    let port = simulator
        .base_url()
        .trim_end_matches("/v2")
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(Simulator::start_on(port).is_err());
    drop(simulator);
    // The port is free again, sooner or later.
    let start = Instant::now();
    while let Err(error) = Simulator::start_on(port) {
        assert!(start.elapsed() < Duration::from_secs(10), "{error}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_ready_client_speaks_to_the_simulator_as_any_other_does() {
    let simulator = Simulator::start().unwrap();
    let client = Client::builder(Simulator::KEY)
        .base_url(simulator.base_url())
        .endpoint(UNIVERSAL_ENDPOINT)
        .build()
        .unwrap();
    let id = client
        .generate_video(&VideoRequest::new("A fox"))
        .unwrap()
        .id;
    assert_eq!(
        simulator.client().get_video(&id).unwrap().status,
        Status::Queued
    );
}
