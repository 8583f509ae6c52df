//! The mock server: it responds as published, fails as told, and survives whatever clients do.

use std::collections::BTreeSet;
use std::io::ErrorKind::{ConnectionAborted, ConnectionReset};
use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};
use std::{net::TcpStream, process::Stdio, thread};

use aimlapi_video::simulator::{CLIP, Download, Log, Poll, Post, Simulator};
use aimlapi_video::{UNIVERSAL_ENDPOINT, VEO_ENDPOINT, VideoRequest};
use serde_json::{Value, json};

pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Response {
    /// Empty if there is none.
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    fn id(&self) -> String {
        self.json()["id"].as_str().unwrap().to_owned()
    }

    fn refuses(&self, path: &str, status: u16, message: &str) {
        assert_eq!((self.status, self.error(path).as_str()), (status, message));
    }

    /// The message of an error of the documented form.
    fn error(&self, path: &str) -> String {
        let body = self.json();
        let [id, message, time] = ["requestId", "message", "timestamp"].map(|name| &body[name]);
        assert_eq!(
            body,
            json!({"message": message, "path": path, "requestId": id, "statusCode": self.status, "timestamp": time})
        );
        assert_eq!(id.as_str().unwrap().len(), 36);
        message.as_str().unwrap().to_owned()
    }
}

/// A connection to the simulator, by no HTTP library.
pub(crate) struct Connection(BufReader<TcpStream>);

type Headers<'a> = &'a [(&'a str, &'a str)];

impl Connection {
    pub(crate) fn open(simulator: &Simulator) -> Self {
        Self::to(&simulator.base_url())
    }

    fn to(base_url: &str) -> Self {
        let address = base_url
            .trim_start_matches("http://")
            .trim_end_matches("/v2");
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let minute = Some(Duration::from_secs(60));
        stream.set_read_timeout(minute).unwrap();
        Connection(BufReader::new(stream))
    }

    fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// The next response, or `None` if the connection was closed instead.
    fn read(&mut self) -> Option<Response> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if !matches!(self.0.read_line(&mut line), Ok(1..)) {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines[0].strip_prefix("HTTP/1.1 ").unwrap();
        let status = status[..3].parse().unwrap();
        let header = |line: &String| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        let mut response = Response {
            status,
            headers: lines[1..].iter().map(header).collect(),
            body: Vec::new(),
        };
        let length = response.header("content-length").parse().unwrap_or(0);
        let mut body = self.0.by_ref().take(length);
        let _ = body.read_to_end(&mut response.body);
        Some(response)
    }

    fn send(&mut self, head: &str, headers: Headers<'_>, body: &[u8]) {
        let has_host = headers.iter().any(|(name, _)| *name == "Host");
        let host = ["Host: localhost\r\n", ""][usize::from(has_host)];
        let mut text = format!("{head} HTTP/1.1\r\n{host}");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        self.write([text.as_bytes(), body].concat());
    }

    fn ask(&mut self, head: &str, headers: Headers<'_>, body: &[u8]) -> Response {
        self.send(head, headers, body);
        self.read().expect("a response")
    }

    pub(crate) fn post(&mut self, endpoint: &str, body: &Value) -> Response {
        let (head, body) = (format!("POST /v2/{endpoint}"), body.to_string());
        self.ask(&head, &[BEARER], body.as_bytes())
    }

    /// Asks for a generation.
    fn fox(&mut self) -> Response {
        self.post(VEO_ENDPOINT, &fox())
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.ask(&format!("GET {path}"), &[BEARER], b"")
    }

    fn poll(&mut self, id: &str) -> Response {
        let id = id.replace(':', "%3a");
        self.get(&format!("{CREATE_PATH}?generation_id={id}"))
    }

    /// Creates a generation, and gives its id.
    fn create(&mut self) -> String {
        let response = self.fox();
        assert_eq!(response.status, 201);
        response.id()
    }

    /// The path of a finished video.
    fn video_path(&mut self, simulator: &Simulator) -> String {
        simulator.script_polls([Poll::Complete]);
        let id = self.create();
        self.finished_path(&id)
    }

    fn finished_path(&mut self, id: &str) -> String {
        let body = self.poll(id).json();
        let url = body["video"]["url"].as_str().unwrap();
        url[url.find("/files/").unwrap()..].to_owned()
    }

    fn file(&mut self, path: &str) -> Response {
        self.file_with(path, &[])
    }

    fn file_with(&mut self, path: &str, headers: Headers<'_>) -> Response {
        self.ask(&format!("GET {path}"), headers, b"")
    }

    /// Whether the server has closed the connection, gracefully or not.
    fn was_closed(mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => [ConnectionReset, ConnectionAborted].contains(&error.kind()),
        }
    }
}

const BEARER: (&str, &str) = ("Authorization", "Bearer simulator-key");
const CREATE: &str = "POST /v2/generate/video/google/generation";
const CREATE_PATH: &str = "/v2/generate/video/google/generation";
const MILLISECOND: Duration = Duration::from_millis(1);

fn fox() -> Value {
    json!({"model": "google/veo3", "prompt": "A fox"})
}

fn start() -> (Simulator, Connection) {
    let simulator = Simulator::start().unwrap();
    let connection = Connection::open(&simulator);
    (simulator, connection)
}

/// What comes of the same request again and again, each on a connection of its own.
fn outcomes(base_url: &str, times: usize, head: &str, body: &str) -> String {
    let outcome = |_| {
        let mut connection = Connection::to(base_url);
        let key = [BEARER].into_iter().filter(|_| !head.contains("/files/"));
        connection.send(head, &key.collect::<Vec<_>>(), body.as_bytes());
        let Some(response) = connection.read() else {
            return "closed".to_owned();
        };
        let is_whole = response.header("content-length") == response.body.len().to_string();
        let json: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        let word = json["message"].as_str().or(json["status"].as_str());
        let rows = json["data"]
            .as_array()
            .map(|rows| format!("{} rows", rows.len()));
        let text = || String::from_utf8(response.body.clone()).unwrap();
        let what = match word {
            _ if !is_whole => format!("cut at {}", response.body.len()),
            _ if response.body == CLIP => "the clip".to_owned(),
            Some(word) => word.to_owned(),
            None => rows.unwrap_or_else(text),
        };
        format!("{} {what}", response.status)
    };
    (0..times).map(outcome).collect::<Vec<_>>().join("; ")
}

fn raw(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} Whatever\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[test]
fn a_job_takes_one_connection_and_responds_as_published() {
    let (simulator, mut connection) = start();
    for (endpoint, status) in [(VEO_ENDPOINT, 201), (UNIVERSAL_ENDPOINT, 200)] {
        let created = connection.post(endpoint, &fox());
        let id = created.id();
        let queued = json!({"id": id, "status": "queued"});
        assert_eq!((created.status, created.json()), (status, queued));
        assert_eq!(created.header("x-inference-id"), id);
        assert!(id.ends_with(":veo3"), "{id}");

        let path = format!("/v2/{endpoint}?generation_id={id}");
        for word in ["queued", "generating"] {
            let polled = connection.get(&path);
            let body =
                json!({"id": id, "status": word, "video": null, "error": null, "meta": null});
            assert_eq!((polled.status, polled.json()), (200, body));
            assert_eq!(polled.header("x-aimlapi-credits-used"), "");
        }
        for _ in 0..2 {
            let polled = connection.get(&path);
            let (body, (credits, usd)) = (polled.json(), Simulator::PRICE);
            assert_eq!(body["status"], "completed");
            assert_eq!(body["error"], Value::Null);
            let usage = json!({"credits_used": credits, "usd_spent": usd});
            assert_eq!(body["meta"]["usage"], usage);
            assert_eq!(polled.header("x-aimlapi-credits-used"), "120000");
            assert_eq!(polled.header("x-aimlapi-usd-spent"), "0.06");
            assert_eq!(body["video"]["file_size"], CLIP.len());
            assert_eq!(body["video"]["content_type"], "video/mp4");
        }
        let path = connection.finished_path(&id);
        assert!(connection.file(&path).body == CLIP);
    }
    assert_eq!((simulator.connections(), simulator.charged()), (1, 2));
}

#[test]
fn a_request_without_the_key_is_refused_and_no_other_key_is_kept() {
    let (simulator, mut connection) = start();
    simulator.script_posts([Post::Reject(500)]);
    let heads = [
        CREATE,
        "GET /v2/video/generations?generation_id=1",
        "GET /v2/logs",
        "GET /v2/billing",
    ];
    for key in [
        "",
        "Bearer other-secret",
        "simulator-key-secret",
        "Bearer simulator-key-secret",
    ] {
        for head in heads {
            let response = connection.ask(head, &[("AUTHORIZATION", key)], b"{}");
            let message = response.error(head.split(['?', ' ']).nth(1).unwrap());
            assert!(
                message.starts_with("This request requires a valid API key."),
                "{message}"
            );
            assert_eq!(response.status, 401);
        }
    }
    let received = simulator.received();
    assert!(!format!("{received:?}").contains("secret"));
    assert_eq!(received[5].header("Authorization"), Some("[redacted]"));
    assert_eq!(connection.fox().status, 500, "none of them took the step");
    let received = simulator.received();
    assert_eq!(received[16].header("authorization"), Some(BEARER.1));
}

#[test]
fn what_does_not_exist_is_refused() {
    let (simulator, mut connection) = start();
    let file = connection.video_path(&simulator);
    let paths = "/v2 /v1/video/generations /v2/video/generations/ /v2/balance /files \
        /v2/video/generations /v2/video/generations?generation_id= /v2/video/generations?id=1 \
        /v2/video/generations?generation_id=%zz% /v2/video/generations?generation_id=%é";
    for path in paths.split(' ') {
        let response = connection.get(path);
        response.refuses(path.split('?').next().unwrap(), 404, "Not Found");
    }
    let deleted = connection.ask("DELETE /v2/video/generations", &[BEARER], b"");
    assert_eq!(deleted.status, 404);
    let next = file.replace("/0/output", "/1/output");
    for path in ["/files/", "/files/1/0/output.mp4", &next] {
        let response = connection.file(path);
        response.refuses(path, 403, "The URL has expired");
    }
}

#[test]
fn an_id_is_of_one_simulator_and_another_says_that_it_forgets() {
    let ((simulator, mut connection), (_other, mut other)) = (start(), start());
    let ids = [connection.create(), connection.create(), other.create()];
    let [words, numbers] = [0, 1].map(|part| {
        let part = |id: &String| {
            let id = id.strip_prefix("simulated-").unwrap();
            let id = id.strip_suffix(":veo3").unwrap();
            id.split('-').nth(part).unwrap().to_owned()
        };
        ids.iter().map(part).collect::<BTreeSet<_>>()
    });
    // One word for the process, and no number twice.
    assert_eq!((words.len(), numbers.len()), (1, 3), "{ids:?}");
    let is_word = |word: &String| word.len() == 8 && u32::from_str_radix(word, 16).is_ok();
    assert!(words.iter().all(is_word) && numbers.iter().all(|number| number.len() >= 4));
    for id in [&*ids[0], "simulated-00000000-0001:veo3"] {
        let message = other.poll(id).error(CREATE_PATH);
        let words = ["forgets everything when it stops", "delete the receipt"];
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
    let client = simulator.client();
    assert!(client.get_video(&ids[0]).is_ok());
}

#[test]
fn the_balance_goes_down_by_what_was_charged() {
    let (simulator, mut connection) = start();
    simulator.script_polls([Poll::fail("Error", "No.")]);
    connection.create();
    for cents in [12345, 12339, 12333, 12327] {
        let expected = json!({"current_balance": f64::from(cents) / 100.0, "currency": "USD"});
        assert_eq!(connection.get("/v2/billing").json(), expected);
        simulator.script_polls([Poll::Complete]);
        connection.create();
    }
    assert_eq!(connection.file("/v2/billing").status, 401);
}

#[test]
fn web_pages_and_names_that_point_here_are_refused_and_not_recorded() {
    let (simulator, _) = start();
    let (own, body) = (simulator.base_url().replace("/v2", ""), fox().to_string());
    let by_name = own.replace("127.0.0.1", "localhost");
    simulator.script_posts([Post::Reject(500)]);
    let refused = "Host evil.example|Host 127.0.0.1.evil.example|Host localhost.evil.example:80|Host |Host [::2]|\
        Host 0.0.0.0|Host 128.0.0.1|Origin http://evil.example|Origin null|Origin http://localhost|\
        Origin http://localhost:1|Sec-Fetch-Site cross-site|Sec-Fetch-Site same-site";
    for header in refused.split('|') {
        for head in [CREATE, "GET /files/1/0/output.mp4", "GET /events.json"] {
            let header = header.split_once(' ').unwrap();
            let mut connection = Connection::open(&simulator);
            let response = connection.ask(head, &[BEARER, header], body.as_bytes());
            response.refuses("/", 403, "Only programs of this computer are served");
            assert!(connection.was_closed(), "{header:?}");
        }
    }
    let mut connection = Connection::open(&simulator);
    connection.write(format!("{CREATE} HTTP/1.1\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(connection.read().unwrap().status, 403, "no Host");
    assert!(simulator.received().is_empty());

    let mut connection = Connection::open(&simulator);
    assert_eq!(connection.fox().status, 500, "none of them took the step");
    let allowed = format!(
        "Host localhost|Host LOCALHOST:9|Host 127.0.0.1:8080|Host 127.1.2.3|Host [::1]|Host [::1]:80|\
         Origin {own}|Origin {by_name}|Sec-Fetch-Site same-origin|Sec-Fetch-Site none"
    );
    for header in allowed.split('|') {
        let headers = [BEARER, header.split_once(' ').unwrap()];
        let response = connection.ask(CREATE, &headers, body.as_bytes());
        assert_eq!(response.status, 201, "{header}");
    }
    // A link to the page may be anywhere.
    let linked = connection.ask("GET /", &[("Sec-Fetch-Site", "cross-site")], b"");
    assert_eq!(linked.status, 200);
}

#[test]
fn the_page_is_whole_in_itself_and_its_requests_are_no_programs() {
    let (simulator, mut connection) = start();
    let page = connection.file("/");
    let html = String::from_utf8(page.body.clone()).unwrap();
    let policy = page.header("content-security-policy");
    let nonce = &policy.split_once("script-src 'nonce-").unwrap().1[..16];
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert_eq!(html.matches(&format!(" nonce=\"{nonce}\">")).count(), 2);
    let unsafe_words = "innerHTML outerHTML insertAdjacent document.write eval( src= @import http: NONCE simulator-key";
    for word in unsafe_words.split(' ') {
        assert!(!html.contains(word), "{word}");
    }
    assert_ne!(connection.file("/").body, page.body, "a nonce of its own");

    let path = connection.video_path(&simulator);
    simulator.script_downloads([Download::Reject(503)]);
    let shown = connection.file("/events.json").json();
    let video = shown["generations"][0]["video"].as_str().unwrap();
    assert!(connection.file(video).body == CLIP);
    assert_eq!(simulator.received().len(), 2, "the POST and the poll");
    assert_eq!(
        connection.file(&path).status,
        503,
        "the step was left for a program"
    );
}

#[test]
fn the_events_are_bounded_and_have_no_headers_and_no_queries() {
    let (simulator, mut connection) = start();
    connection.file("/files/1?key=other-secret&generation_id=shown");
    connection.create();
    let shown = connection.file("/events.json").json();
    let fields = ["number", "method", "path", "generation", "status", "body"];
    let row = |at: usize| {
        fields
            .map(|name| shown["requests"][at][name].to_string())
            .join(" ")
    };
    let body = json!(fox().to_string());
    assert_eq!(
        row(0),
        format!("1 \"POST\" \"{CREATE_PATH}\" null 201 {body}")
    );
    assert_eq!(row(1), r#"0 "GET" "/files/1" "shown" 403 """#);
    for hidden in ["secret", "simulator-key", "headers", "localhost"] {
        assert!(!shown.to_string().contains(hidden), "{hidden}");
    }

    let states = (0..100).map(|number| Poll::status(format!("{number:0500}")));
    simulator.script_polls(states.chain([Poll::fail_charged("Error", "No.")]));
    let body = json!({"model": "google/veo3", "prompt": "é".repeat(100_000)});
    let ids: Vec<_> = (0..200)
        .map(|_| connection.post(VEO_ENDPOINT, &body).id())
        .collect();
    (0..150).for_each(|_| drop(connection.poll(&ids[199])));
    connection.post(&"x".repeat(10_000), &body);
    let shown = connection.file("/events.json");
    assert!(shown.body.len() < 1 << 20, "{}", shown.body.len());
    let shown = shown.json();
    let lengths = ["requests", "generations"].map(|list| shown[list].as_array().unwrap().len());
    assert_eq!(lengths, [100, 100]);
    let newest = &shown["generations"][0];
    assert_eq!(newest["states"][0]["word"], "error");
    assert_eq!(
        (&newest["is_charged"], &shown["charged"]),
        (&json!(true), &json!(201))
    );
}

#[test]
fn a_body_that_is_no_json_object_is_refused_with_400() {
    let (simulator, mut connection) = start();
    let model: &[u8] = b"{\"model\": \"\xff\"}";
    for body in [&b""[..], b"{", b"{}}", b"\"model\"", b"[]", model] {
        let response = connection.ask(CREATE, &[BEARER], body);
        let expected = "Body validation error: Expected object, received no object";
        response.refuses(CREATE_PATH, 400, expected);
    }
    assert_eq!((simulator.charged(), simulator.received().len()), (0, 6));
}

#[test]
fn posts_go_as_their_script_says() {
    use Post::{Accept, CloseAfter, DropResponse, Raw, Reject, Stall};
    let (simulator, mut connection) = start();
    simulator.script_posts([Accept]);
    // An invalid one is refused by the steps that would accept it.
    let invalid = connection.post(VEO_ENDPOINT, &json!({"model": "google/veo3"}));
    assert_eq!((invalid.status, simulator.charged()), (400, 0));

    let whole = [
        Accept,
        Reject(429),
        Stall(MILLISECOND),
        Raw(raw(502, "<h1>")),
    ];
    let closes = [
        DropResponse,
        CloseAfter(10),
        CloseAfter(0),
        CloseAfter(usize::MAX),
    ];
    simulator.script_posts(whole.into_iter().chain(closes));
    let body = fox().to_string();
    let expected = "201 queued; 429 Too Many Requests; 201 queued; 502 <h1>; closed; closed; closed; \
        closed; 201 queued";
    assert_eq!(outcomes(&simulator.base_url(), 9, CREATE, &body), expected);
    assert_eq!(
        simulator.charged(),
        4,
        "those that were accepted, and the first that was closed"
    );
    let received = simulator.received();
    let kept: Vec<_> = received[5..9]
        .iter()
        .map(|one| (&*one.body, one.status))
        .collect();
    assert_eq!(
        kept,
        [(&*body, 0), ("{\"model\":\"", 0), ("", 0), (&body, 0)]
    );
}

#[test]
fn polls_go_as_their_script_says() {
    use Poll::{CloseAfter, Complete, Raw, Reject, Stall};
    let (simulator, mut connection) = start();
    let fail = || Poll::fail("SafetyError", "No.");
    let whole = [
        Poll::status("Dreaming"),
        Reject(503),
        Stall(MILLISECOND),
        Reject(418),
    ];
    let broken = [Raw(raw(200, "[]")), CloseAfter(7), fail()];
    simulator.script_polls(whole.into_iter().chain(broken));
    let failing = connection.create();
    let poll = |times, id: &str| {
        outcomes(
            &simulator.base_url(),
            times,
            &format!("GET {CREATE_PATH}?generation_id={id}"),
            "",
        )
    };
    let expected = "200 Dreaming; 503 Service unavailable; \
        418 Something wrong with the server. Please, try again later.; 200 []; 200 cut at 7; \
        200 error; 200 error";
    assert_eq!(poll(7, &failing), expected);
    // Scripts are for generations to come.
    for (script, expected) in [
        (vec![], "200 completed; 200 completed"),
        (
            vec![CloseAfter(usize::MAX), Stall(MILLISECOND)],
            "200 completed; 200 completed",
        ),
        (
            vec![Reject(500), Complete, fail()],
            "500 Internal server error; 200 completed",
        ),
    ] {
        simulator.script_polls(script);
        assert_eq!(poll(2, &connection.create()), expected);
    }
    assert_eq!(
        simulator.charged(),
        2,
        "one that fails in the end is not charged"
    );
    let body = connection.poll(&failing).json();
    let error = json!({"name": "SafetyError", "message": "No."});
    let expected =
        json!({"id": failing, "status": "error", "video": null, "error": error, "meta": null});
    assert_eq!(body, expected);
}

#[test]
fn downloads_go_as_their_script_says() {
    use Download::{CloseAfter, Expire, Raw, Reject, Serve, Stall};
    let (simulator, mut connection) = start();
    let path = connection.video_path(&simulator);
    let whole = [Serve, Reject(503), Stall(MILLISECOND), Raw(raw(200, "raw"))];
    let broken = [CloseAfter(1000), Expire];
    simulator.script_downloads(whole.into_iter().chain(broken));
    let expected = "200 the clip; 503 Service unavailable; 200 the clip; 200 raw; 200 cut at 1000; \
        403 The URL has expired; 403 The URL has expired";
    assert_eq!(
        outcomes(&simulator.base_url(), 7, &format!("GET {path}"), ""),
        expected
    );
    // The next poll has a fresh URL.
    let poll = simulator.received()[1].url.clone();
    let url = connection.get(&poll).json()["video"]["url"].to_string();
    let next = path.replace("/0/output", "/1/output");
    assert!(url.contains(&next), "{url}");
    simulator.script_downloads([CloseAfter(5)]);
    let cut = connection.file_with(&next, &[("Range", "bytes=10-")]);
    let length = (CLIP.len() - 10).to_string();
    assert_eq!(
        (cut.status, cut.body.len(), cut.header("content-length")),
        (206, 5, &*length)
    );
}

#[test]
fn a_video_is_served_whole_and_in_ranges() {
    let (simulator, mut connection) = start();
    let path = connection.video_path(&simulator);
    let mut fetch = |headers: Headers<'_>| connection.file_with(&path, headers);
    let whole = fetch(&[]);
    assert_eq!(whole.status, 200);
    assert_eq!(whole.header("content-type"), "video/mp4");
    assert_eq!(whole.header("accept-ranges"), "bytes");
    assert!(whole.body == CLIP && CLIP[4..8] == *b"ftyp");
    let tag = whole.header("etag");
    let is_quoted = tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"');
    assert!(is_quoted, "{tag}");

    let (size, last) = (CLIP.len(), CLIP.len() - 1);
    for (range, start, end) in [
        ("0-0".to_owned(), 0, 1),
        ("1000-1999".to_owned(), 1000, 2000),
        ("1000-".to_owned(), 1000, size),
        (format!("{last}-"), last, size),
        (format!("5-{}", u64::MAX), 5, size),
    ] {
        let range = format!("bytes={range}");
        for condition in [&[][..], &[("If-Range", tag)]] {
            let part = fetch(&[&[("Range", &*range)], condition].concat());
            let expected = format!("bytes {start}-{}/{size}", end - 1);
            assert_eq!(
                (part.status, part.header("content-range")),
                (206, &*expected)
            );
            assert_eq!(part.header("etag"), tag);
            assert!(part.body == CLIP[start..end]);
        }
        let changed = fetch(&[("Range", &range), ("If-Range", "\"other\"")]);
        assert_eq!((changed.status, changed.header("content-range")), (200, ""));
        assert!(changed.body == CLIP);
    }
    for (start, end) in [(size, String::new()), (size + 5, (size + 9).to_string())] {
        let none = fetch(&[("Range", &format!("bytes={start}-{end}"))]);
        none.refuses(&path, 416, "Range Not Satisfiable");
        assert_eq!(none.header("content-range"), format!("bytes */{size}"));
    }
    // A server may ignore ranges, and has to where they make no sense (RFC 9110, 14.2).
    let ignored = "bytes=9-5 bytes=-5 bytes=0-0,5-6 bytes=x- lines=1-2 ";
    for range in ignored.split(' ') {
        let whole = fetch(&[("Range", range)]);
        assert_eq!(whole.status, 200, "{range}");
        assert!(whole.body == CLIP, "{range}");
    }
    let keyed = fetch(&[BEARER]);
    keyed.refuses(&path, 400, "The API key was sent to the file server");
}

#[test]
fn another_video_has_another_tag() {
    let (simulator, mut connection) = start();
    let path = connection.video_path(&simulator);
    let first = connection.file(&path).header("etag").to_owned();
    simulator.video(b"another".to_vec());
    let headers = [("Range", "bytes=2-"), ("If-Range", &first)];
    let second = connection.file_with(&path, &headers);
    assert_eq!((second.status, &*second.body), (200, &b"another"[..]));
    assert_ne!(second.header("etag"), first);
}

#[test]
fn the_usage_log_is_newest_first_and_has_each_row_in_its_state() {
    let (simulator, mut connection) = start();
    let empty = json!({"data": [], "pagination": {"limit": 50, "offset": 0, "total": 0, "has_more": false}});
    assert_eq!(connection.get("/v2/logs").json(), empty);
    let long = "a".repeat(129);
    let mut rows = Vec::new();
    // The id and the cost at the end, for each client request id, if that is valid.
    let charged = Poll::fail_charged("Error", "No.");
    for (sent, kept, poll, status, usd) in [
        ("job-0", true, Poll::Complete, "succeeded", 0.06),
        ("job/1", false, Poll::Complete, "succeeded", 0.06),
        ("A.b_c:2", true, Poll::fail("Error", "No."), "failed", 0.0),
        (&long, false, Poll::status("queued"), "succeeded", 0.0),
        (&long[1..], true, charged, "failed", 0.06),
    ] {
        simulator.script_polls([Poll::status("queued"), poll]);
        let headers = [BEARER, ("X-Client-Request-Id", sent)];
        let created = connection.ask(CREATE, &headers, fox().to_string().as_bytes());
        let id = created.id();
        let log = connection.get("/v2/logs?period=24h&limit=1").json();
        let row = json!({
            "created": log["data"][0]["created"], "status": "succeeded", "origin": "api",
            "model": "google/veo3", "cost": {"usd": 0.0, "credits": 0},
            "tokens": {"input": 0, "output": 0, "total": 0},
            "request_id": null, "inference_id": id, "client_request_id": kept.then_some(sent),
        });
        assert_eq!(log["data"], json!([row]), "not finished, so not charged");
        let echo = if kept { sent } else { "" };
        for response in [&created, &connection.poll(&id)] {
            assert_eq!(response.header("x-client-request-id"), echo);
            assert_eq!(response.header("x-inference-id"), id);
        }
        rows.insert(0, [json!(id), json!(status), json!(usd)]);
    }
    for (query, range, has_more) in [
        ("", 0..5, false),
        ("period=7d&limit=2", 0..2, true),
        ("limit=2&offset=2", 2..4, true),
        ("limit=2&offset=3", 3..5, false),
        ("offset=18446744073709551615", 5..5, false),
        ("limit=100&offset=1", 1..5, false),
    ] {
        let page = connection.get(&format!("/v2/logs?{query}")).json();
        let fields = ["/inference_id", "/status", "/cost/usd"];
        let row = |row: &Value| fields.map(|field| row.pointer(field).unwrap().clone());
        let found: Vec<_> = page["data"].as_array().unwrap().iter().map(row).collect();
        assert_eq!(found, rows[range], "{query}");
        assert_eq!(page["pagination"]["has_more"], has_more, "{query}");
        assert_eq!(page["pagination"]["total"], 5);
    }
    let refused = "period= period=24 period=0h period=-1d period=1w limit=0 limit=101 limit=x \
        offset=-1 offset=1.5 limit= start=2026-07-01T00:00:00Z status=queued";
    let expected = "400 Expected period (24h or 7d, say), limit (1 to 100) and offset only";
    for query in refused.split(' ') {
        let heard = outcomes(
            &simulator.base_url(),
            1,
            &format!("GET /v2/logs?{query}"),
            "",
        );
        assert_eq!(heard, expected, "{query}");
    }
}

#[test]
fn the_usage_log_goes_as_its_script_says() {
    let (simulator, mut connection) = start();
    connection.create();
    let ask = |times| outcomes(&simulator.base_url(), times, "GET /v2/logs", "");
    let whole = [
        Log::Hide,
        Log::Reject(503),
        Log::Serve,
        Log::Raw(raw(200, "raw")),
    ];
    simulator.script_logs(whole.into_iter().chain([Log::CloseAfter(7)]));
    assert_eq!(connection.file("/v2/logs").status, 401, "takes no step");
    let expected =
        "200 0 rows; 503 Service unavailable; 200 1 rows; 200 raw; 200 cut at 7; 200 1 rows";
    assert_eq!(ask(6), expected);
    simulator.hide_log(usize::MAX);
    simulator.hide_log(2);
    assert_eq!(ask(3), "200 0 rows; 200 0 rows; 200 1 rows");
}

#[test]
fn a_failure_that_is_charged_names_its_cost() {
    let (simulator, mut connection) = start();
    simulator.script_polls([Poll::fail_charged("Error", "No.")]);
    let id = connection.create();
    let polled = connection.poll(&id);
    let body = polled.json();
    assert_eq!(
        (&body["status"], &body["error"]["message"]),
        (&json!("error"), &json!("No."))
    );
    assert_eq!(body["meta"]["usage"]["usd_spent"], 0.06);
    assert_eq!(polled.header("x-aimlapi-usd-spent"), "0.06");
    assert_eq!((&body["video"], simulator.charged()), (&Value::Null, 1));
}

#[test]
fn garbage_and_what_is_too_large_is_refused_and_the_connection_closed() {
    let simulator = Simulator::start().unwrap();
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(200));
    let post = |header: &str| format!("{CREATE} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n");
    for (bytes, status) in [
        ("GET\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 400),
        (many, 400),
        (post("Content-Length: -1"), 411),
        (post("Transfer-Encoding: chunked"), 411),
        (post("Content-Length: 33554433") + &"x".repeat(1 << 20), 413),
    ] {
        let mut connection = Connection::open(&simulator);
        connection.write(&bytes);
        let response = connection.read().unwrap();
        response.error("/");
        assert_eq!(response.status, status, "{}", &bytes[..bytes.len().min(60)]);
        assert!(connection.was_closed());
    }
    let mut connection = Connection::open(&simulator);
    let _ = connection.0.get_mut().write_all(&[b'x'; 70_000]);
    assert!(connection.was_closed());
    assert!(simulator.received().is_empty());
}

#[test]
fn the_example_takes_scripts_and_prints_a_line_for_each_request() {
    let mut command = crate::support::example("simulator");
    let refused = command.args(["--logs", "hide, stalled"]).output().unwrap();
    let text = crate::support::stderr(&refused);
    let expected = "\n\"stalled\" is no step; allowed are serve, hide, ";
    assert!(text.contains(expected), "{text}");
    assert_eq!(refused.status.code(), Some(2));

    let mut command = crate::support::example("simulator");
    command.args("--posts drop,accept --polls queued,fail-charged --downloads 503".split(' '));
    command.args(["--logs", "hide, 429"]);
    let mut program = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let url = lines.next().unwrap().unwrap();
    let url = url.strip_prefix("export AIMLAPI_BASE_URL=").unwrap();
    let body = fox().to_string();
    assert_eq!(outcomes(url, 2, CREATE, &body), "closed; 201 queued");
    let log = "GET /v2/logs?period=24h";
    assert_eq!(
        outcomes(url, 3, log, ""),
        "200 0 rows; 429 Too Many Requests; 200 2 rows"
    );
    outcomes(url, 1, "GET /v2/x\u{9b}\u{202e}", "");
    let printed: Vec<String> = lines.skip(5).take(6).map(Result::unwrap).collect();
    let printed = printed.join("; ");
    let expected = "no response; POST 201; GET 200; GET 429; GET 200; GET /v2/x?? 404";
    let expected = expected
        .replace("POST", CREATE)
        .replace("GET 2", "GET /v2/logs 2");
    let expected = expected.replace("GET 4", "GET /v2/logs 4");
    assert_eq!(printed, format!("{CREATE} {expected}"));
    program.kill().unwrap();
    program.wait().unwrap();
}

/// It returns, whatever clients do.
fn drop_quickly(simulator: Simulator, seconds: u64) {
    let start = Instant::now();
    drop(simulator);
    let time = start.elapsed();
    assert!(time < Duration::from_secs(seconds), "{time:?}");
}

#[test]
fn a_stall_blocks_no_other_client_and_ends_with_the_simulator() {
    let (simulator, mut connection) = start();
    let hour = Duration::from_secs(3600);
    let path = connection.video_path(&simulator);
    simulator.script_posts([Post::Stall(hour)]);
    simulator.script_downloads([Download::Stall(hour)]);
    let mut posting = Connection::open(&simulator);
    posting.send(CREATE, &[BEARER], fox().to_string().as_bytes());
    let mut loading = Connection::open(&simulator);
    loading.send(&format!("GET {path}"), &[], b"");
    let mut half = vec![0; CLIP.len() / 2];
    loading.0.read_exact(&mut half).unwrap();
    while simulator.charged() < 2 {
        thread::yield_now();
    }
    assert!(connection.file(&path).body == CLIP);

    simulator.script_polls([Poll::Stall(hour)]);
    let id = connection.create();
    let poll = format!("GET {CREATE_PATH}?generation_id={id}");
    connection.send(&poll, &[BEARER], b"");
    while simulator.received().last().unwrap().method != "GET" {
        thread::yield_now();
    }
    drop_quickly(simulator, 10);
    assert!(connection.was_closed());
}

/// 100 held connections, 30 half bodies, 10 readers of 50 MB who sleep, and garbage.
fn misbehave(simulator: &Simulator) -> Vec<Connection> {
    simulator.video(std::iter::repeat_n(7, 50_000_000).collect::<std::sync::Arc<[u8]>>());
    let path = Connection::open(simulator).video_path(simulator);
    let misbehaving = |number| {
        let mut connection = Connection::open(simulator);
        match number {
            0..100 if number % 2 == 0 => connection.write("GET / HT"),
            0..100 => {}
            100..130 => {
                let head = format!(
                    "{CREATE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 33554432\r\n\r\n"
                );
                connection.write(head);
                connection.write([b'x'; 100_000]);
            }
            130..140 => {
                connection.send(&format!("GET {path}"), &[], b"");
                connection.0.read_exact(&mut [0; 100]).unwrap();
            }
            _ => {
                // The server may have closed the connection already.
                let _ = connection.0.get_mut().write_all(&[number as u8; 100_000]);
            }
        }
        connection
    };
    (0..150).map(misbehaving).collect()
}

/// In a process of its own, whose memory is known.
#[test]
fn misbehaving_clients_block_no_others_exhaust_no_memory_and_drop_returns() {
    use crate::support::{child, child_output, child_task};
    if child_task().is_none() {
        let test = "misbehaving_clients_block_no_others_exhaust_no_memory_and_drop_returns";
        child_output(child(&format!("simulator::{test}"), "measure"));
        return;
    }
    let simulator = Simulator::start().unwrap();
    let _held = misbehave(&simulator);
    // The video itself is this test's.
    #[cfg(target_os = "linux")]
    let kibibytes = crate::support::peak_memory() - 50_000_000 / 1024;
    #[cfg(target_os = "linux")]
    assert!(kibibytes < 32 << 10, "{kibibytes} KiB");
    let (client, request) = (simulator.client(), VideoRequest::new("A fox"));
    let id = client.generate_video(&request).unwrap().id;
    let video = client.wait_for_video(&id, |_| {}).unwrap();
    assert_eq!(video.file_size, Some(50_000_000));
    drop_quickly(simulator, 5);
    assert!(client.get_video(&id).is_err());
}

#[test]
fn dropping_the_simulator_frees_its_port() {
    let simulator = Simulator::start().unwrap();
    let url = simulator.base_url();
    let port = url.trim_end_matches("/v2").rsplit(':').next().unwrap();
    let port = port.parse().unwrap();
    assert!(Simulator::start_on(port).is_err(), "taken");
    assert_eq!(format!("{simulator:?}"), format!("Simulator({url})"));
    drop(simulator);
    // Connections that were closed keep the port busy for a while on some systems.
    let start = Instant::now();
    while let Err(error) = Simulator::start_on(port) {
        assert!(start.elapsed() < Duration::from_secs(10), "{error}");
        thread::sleep(Duration::from_millis(5));
    }
}
