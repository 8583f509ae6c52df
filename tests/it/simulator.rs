//! The mock server: it responds as published, fails as told, and survives whatever clients do.

use std::io::ErrorKind::{ConnectionAborted, ConnectionReset};
use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};
use std::{net::TcpStream, thread};

use aimlapi_video::simulator::{CLIP, Download, Poll, Post, Simulator};
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
        let url = simulator.base_url();
        let address = url.trim_start_matches("http://").trim_end_matches("/v2");
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
    fn read(&mut self, has_body: bool) -> Option<Response> {
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
        let (headers, body) = (lines[1..].iter().map(header).collect(), Vec::new());
        let mut response = Response {
            status,
            headers,
            body,
        };
        let length = response.header("content-length").parse().unwrap_or(0);
        if has_body {
            let mut body = self.0.by_ref().take(length);
            let _ = body.read_to_end(&mut response.body);
        }
        Some(response)
    }

    fn send(&mut self, head: &str, headers: Headers<'_>, body: &[u8]) {
        let mut text = format!("{head} HTTP/1.1\r\nHost: simulator\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        self.write([text.as_bytes(), body].concat());
    }

    fn ask(&mut self, head: &str, headers: Headers<'_>, body: &[u8]) -> Response {
        self.send(head, headers, body);
        self.read(!head.starts_with("HEAD")).expect("a response")
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

    fn status(&mut self, id: &str) -> Value {
        self.poll(id).json()["status"].clone()
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
        self.finished_path(simulator, &id)
    }

    fn finished_path(&mut self, simulator: &Simulator, id: &str) -> String {
        let body = self.poll(id).json();
        let url = body["video"]["url"].as_str().unwrap();
        url[simulator.base_url().len() - "/v2".len()..].to_owned()
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
        let path = connection.finished_path(&simulator, &id);
        assert!(connection.file(&path).body == CLIP);
    }
    assert_eq!((simulator.connections(), simulator.charged()), (1, 2));
}

#[test]
fn a_request_without_the_key_is_refused_and_no_other_key_is_kept() {
    let (simulator, mut connection) = start();
    let wrong: [Headers<'_>; 5] = [
        &[],
        &[("Authorization", "Bearer other-secret")],
        &[("authorization", "simulator-key-secret")],
        &[("AUTHORIZATION", "Bearer simulator-key-secret")],
        &[("X-Api-Key", "simulator-key")],
    ];
    simulator.script_posts([Post::Reject(500)]);
    let path = "/v2/video/generations";
    let post = format!("POST {path}");
    let get = format!("GET {path}?generation_id=1");
    for headers in wrong {
        for head in [&*post, &get, "GET /v2/logs"] {
            let response = connection.ask(head, headers, b"{}");
            let message = response.error(head.split(['?', ' ']).nth(1).unwrap());
            assert_eq!(response.status, 401);
            let start = "This request requires a valid API key.";
            assert!(message.starts_with(start), "{message}");
        }
    }
    let received = simulator.received();
    assert!(!format!("{received:?}").contains("secret"));
    assert_eq!(received[3].header("Authorization"), Some("[redacted]"));
    // None of them took the script's step.
    assert_eq!(connection.fox().status, 500);
    let received = &simulator.received()[15];
    assert_eq!(received.header("authorization"), Some(BEARER.1));
    assert_eq!(simulator.charged(), 0);
}

#[test]
fn what_does_not_exist_is_refused_with_404() {
    let (simulator, mut connection) = start();
    let file = connection.video_path(&simulator);
    let other_file = file.replace("/0/output", "/1/output");
    let paths = "/v2 / /v1/video/generations /v2/video/generations/ /v2/billing /files \
        /v2/video/generations /v2/video/generations?generation_id= /v2/video/generations?id=1 \
        /v2/video/generations?generation_id=%zz%";
    for path in paths.split(' ') {
        let response = connection.get(path);
        let path = path.split('?').next().unwrap();
        response.refuses(path, 404, "Not Found");
    }
    let files = "/files/ /files/1/0/output.mp4 /files/0/0/a.mp4 /files/-/0/output.mp4";
    for path in files.split(' ').chain([&*other_file]) {
        let response = connection.file(path);
        response.refuses(path, 404, "Not Found");
    }
    let path = "/v2/video/generations";
    let deleted = connection.ask(&format!("DELETE {path}"), &[BEARER], b"");
    assert_eq!(deleted.status, 404);
    let (id, (_other, mut other)) = (connection.create(), start());
    assert_eq!(other.poll(&id).status, 404, "another simulator's");
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
    let (simulator, mut connection) = start();
    let raw =
        "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<h1>";
    let stall = Post::Stall(MILLISECOND);
    let posts = [
        Post::Accept,
        Post::Reject(429),
        stall,
        Post::Raw(raw.into()),
    ];
    let closes = [10, 0, usize::MAX].map(Post::CloseAfter);
    let closes = [Post::DropResponse].into_iter().chain(closes);
    simulator.script_posts(posts.into_iter().chain(closes));
    assert_eq!(connection.fox().status, 201);
    let rejected = connection.fox();
    rejected.refuses(CREATE_PATH, 429, "Too Many Requests");
    // An invalid one is refused by the steps that would accept it.
    let invalid = connection.post(VEO_ENDPOINT, &json!({"model": "google/veo3"}));
    assert_eq!((invalid.status, simulator.charged()), (400, 1));

    let page = connection.fox();
    assert_eq!((page.status, &*page.body), (502, &b"<h1>"[..]));
    assert!(connection.was_closed());
    assert_eq!(simulator.charged(), 1);

    let body = fox().to_string();
    for kept in [&*body, "{\"model\":\"", "", &body] {
        let mut closed = Connection::open(&simulator);
        closed.send(CREATE, &[BEARER], body.as_bytes());
        assert!(closed.was_closed());
        assert_eq!(simulator.received().last().unwrap().body, kept);
        assert_eq!(simulator.charged(), 2, "the first of these alone");
    }
    assert_eq!(Connection::open(&simulator).fox().status, 201);
}

#[test]
fn polls_go_as_their_script_says() {
    let (simulator, mut connection) = start();
    let [name, message] = ["SafetyError", "The prompt was rejected."];
    simulator.script_polls([
        Poll::Status("Dreaming"),
        Poll::Reject(503),
        Poll::Stall(MILLISECOND),
        Poll::Reject(418),
        Poll::Raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]".to_owned()),
        Poll::CloseAfter(7),
        Poll::Fail { name, message },
    ]);
    let failing = connection.create();
    // Scripts are for generations to come.
    simulator.script_polls([]);
    let completing = connection.create();
    simulator.script_polls([Poll::CloseAfter(usize::MAX), Poll::Stall(MILLISECOND)]);
    let stalling = connection.create();

    assert_eq!(connection.status(&failing), "Dreaming");
    assert_eq!(connection.status(&completing), "completed");
    let unknown = "Something wrong with the server. Please, try again later.";
    for (status, message) in [(503, "Service unavailable"), (418, unknown)] {
        let response = connection.poll(&failing);
        response.refuses(CREATE_PATH, status, message);
    }
    assert_eq!(connection.poll(&failing).body, b"[]");
    assert!(connection.was_closed());

    let mut connection = Connection::open(&simulator);
    let cut = connection.poll(&failing);
    assert_eq!((cut.status, cut.body.len()), (200, 7));
    assert!(connection.was_closed());

    let mut connection = Connection::open(&simulator);
    for _ in 0..2 {
        let response = connection.poll(&failing);
        let length = response.header("content-length");
        assert_eq!(cut.header("content-length"), length);
        let error = json!({"name": name, "message": message});
        let body =
            json!({"id": failing, "status": "error", "video": null, "error": error, "meta": null});
        assert_eq!((response.status, response.json()), (200, body));
    }
    assert_eq!(connection.status(&stalling), "completed");
    assert!(connection.was_closed());
    let mut connection = Connection::open(&simulator);
    for _ in 0..2 {
        assert_eq!(connection.status(&stalling), "completed");
    }
    assert_eq!(simulator.charged(), 2, "a failed generation is not charged");
}

#[test]
fn downloads_go_as_their_script_says() {
    let (simulator, mut connection) = start();
    let path = connection.video_path(&simulator);
    let raw = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nraw";
    use Download::{CloseAfter, Expire, Raw, Reject, Serve, Stall};
    let whole = [Serve, Reject(503), Stall(MILLISECOND), Expire];
    let broken = [Raw(raw.to_owned()), CloseAfter(1000), CloseAfter(5)];
    simulator.script_downloads(whole.into_iter().chain(broken));
    assert!(connection.file(&path).body == CLIP);
    let rejected = connection.file(&path);
    rejected.refuses(&path, 503, "Service unavailable");
    assert!(connection.file(&path).body == CLIP);
    let next = path.replace("/0/output", "/1/output");
    assert_eq!(connection.file(&next).status, 404);
    // Once expired, it takes no step of the script.
    for _ in 0..2 {
        let expired = connection.file(&path);
        expired.refuses(&path, 403, "The URL has expired");
    }
    let poll = &simulator.received()[1].url;
    let url = connection.get(poll).json()["video"]["url"].to_string();
    assert!(url.contains(&next), "{url}");
    assert_eq!(connection.file(&next).body, b"raw");
    assert!(connection.was_closed());

    for (range, head, length, all) in [("", 200, 1000, 0), ("bytes=10-", 206, 5, 10)] {
        let mut connection = Connection::open(&simulator);
        let cut = connection.file_with(&next, &[("Range", range)]);
        assert_eq!((cut.status, cut.body.len()), (head, length));
        let expected = (CLIP.len() - all).to_string();
        assert_eq!(cut.header("content-length"), expected);
        assert!(connection.was_closed());
    }
    assert!(Connection::open(&simulator).file(&next).body == CLIP);
}

#[test]
fn a_rejection_has_the_published_message() {
    let (simulator, mut connection) = start();
    let table = "
        400 Body validation error
        401 This request requires a valid API key. The simulator's is simulator-key.
        403 You've run out of credits. Please top up your balance or update your payment method to continue.
        404 Not Found
        429 Too Many Requests
        500 Internal server error
        502 Something wrong with the server. Please, try again later.
        503 Service unavailable
        504 Generation timeout";
    for row in table.trim_start().lines() {
        let (status, message) = row.trim_start().split_once(' ').unwrap();
        let status = status.parse().unwrap();
        simulator.script_posts([Post::Reject(status)]);
        connection.fox().refuses(CREATE_PATH, status, message);
    }
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
    let head = connection.ask(&format!("HEAD {path}"), &[], b"");
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), size.to_string());
    let next = connection.file(&path);
    assert_eq!(next.status, 200, "no body came with the head");
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
    simulator.video([]);
    assert_eq!(connection.file(&path).body, b"");
    let none = connection.file_with(&path, &[("Range", "bytes=0-")]);
    assert_eq!(none.status, 416);
    simulator.video(CLIP);
    assert_eq!(connection.file(&path).header("etag"), first);
}

#[test]
fn the_usage_log_is_newest_first_and_has_each_row_in_its_state() {
    let (simulator, mut connection) = start();
    let empty = json!({"data": [], "pagination": {"limit": 50, "offset": 0, "total": 0, "has_more": false}});
    assert_eq!(connection.get("/v2/logs").json(), empty);
    let [name, message] = ["Error", "No."];
    let long = "a".repeat(129);
    let mut rows = Vec::new();
    // The id and the cost at the end, for each client request id, if that is valid.
    for (sent, kept, poll, status, usd) in [
        ("job-0", true, Poll::Complete, "succeeded", 0.06),
        ("job/1", false, Poll::Complete, "succeeded", 0.06),
        ("A.b_c:2", true, Poll::Fail { name, message }, "failed", 0.0),
        (&long, false, Poll::Status("queued"), "succeeded", 0.0),
        (&long[1..], true, Poll::Complete, "succeeded", 0.06),
    ] {
        simulator.script_polls([Poll::Status("queued"), poll]);
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
        ("offset=9", 5..5, false),
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
    let refused = "period= period=24 period=0h period=-1d period=1w period=d limit=0 limit=101 limit=x \
        limit=-1 offset=-1 offset=1.5 limit= start=2026-07-01T00:00:00Z status=queued";
    for query in refused.split(' ') {
        let response = connection.get(&format!("/v2/logs?{query}"));
        let message = response.error("/v2/logs");
        assert_eq!(response.status, 400, "{query}");
        let name = query.split('=').next().unwrap();
        assert!(message.starts_with(name), "{message}");
    }
}

#[test]
fn requests_are_read_as_http_defines_them() {
    let (simulator, mut connection) = start();
    let body = fox().to_string();
    let (first, second) = body.split_at(10);
    let (a, b) = (first.len(), second.len());
    let chunks = format!("{a:x}\r\n{first}\r\n{b:X};x=y\r\n{second}\r\n0\r\nTrailer: 1\r\n\r\n");
    let head = format!("{CREATE} HTTP/1.1\r\nauthorization:{}\r\n", BEARER.1);
    // Chunks, after blank lines, with another request behind.
    let chunked = format!("\r\n\r\n{head}Transfer-Encoding: chunked\r\n\r\n{chunks}");
    connection.write(chunked);
    let length = body.len();
    connection.write(format!("{head}content-length: {length}\r\n\r\n{body}"));
    for _ in 0..2 {
        assert_eq!(connection.read(true).unwrap().status, 201);
    }
    assert!(simulator.received().iter().all(|r| r.body == body));

    for (version, header) in [("1.0", ""), ("1.1", "Connection: close\r\n")] {
        let mut connection = Connection::open(&simulator);
        connection.write(format!("GET /v2/logs HTTP/{version}\r\n{header}\r\n"));
        let response = connection.read(true).unwrap();
        assert_eq!(response.status, 401);
        assert_eq!(response.header("connection"), "close");
        assert!(connection.was_closed());
    }
}

#[test]
fn garbage_and_what_is_too_large_is_refused_and_the_connection_closed() {
    let simulator = Simulator::start().unwrap();
    let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(200));
    let post = |headers: &str| format!("{CREATE} HTTP/1.1\r\n{headers}\r\n\r\n");
    let chunked = || post("Transfer-Encoding: chunked");
    let both = "Content-Length: 1\r\nTransfer-Encoding: chunked";
    let large = format!("Content-Length: {}", (32 << 20) + 1);
    for (bytes, status) in [
        ("\x16\x03\x01\x02\x00\x01".to_owned(), 400),
        ("GET\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\n: \0\r\n\r\n".to_owned(), 400),
        (post("Content-Length: -1"), 400),
        (post("Content-Length: 99999999999999999999"), 400),
        (post(both), 400),
        (post("Transfer-Encoding: gzip"), 400),
        (chunked() + "x\r\n", 400),
        (chunked() + "1\r\nab\r\n", 400),
        (long, 431),
        (many, 431),
        (post(&large), 413),
    ] {
        let mut connection = Connection::open(&simulator);
        connection.write(&bytes);
        let response = connection.read(true).unwrap();
        response.error("/");
        let shown = &bytes[..40.min(bytes.len())];
        assert_eq!(response.status, status, "{shown:?}");
        assert!(connection.was_closed());
    }
    // Chunks have no length to look at: the bound is found in the middle. The client gets to read
    // the response.
    let mut connection = Connection::open(&simulator);
    connection.write(chunked());
    let mebibyte = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    (0..40).for_each(|_| connection.write(&mebibyte));
    assert_eq!(connection.read(true).unwrap().status, 413);
    assert!(simulator.received().is_empty());
}

/// It returns, whatever clients do.
fn drop_quickly(simulator: Simulator, seconds: u64) {
    let start = Instant::now();
    drop(simulator);
    let time = start.elapsed();
    assert!(time < Duration::from_secs(seconds), "{time:?}");
}

#[test]
fn a_stall_blocks_no_other_client_and_ends_when_its_client_leaves() {
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
    drop((posting, loading));

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
                let head = format!("{CREATE} HTTP/1.1\r\nContent-Length: 33554432\r\n\r\n");
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
    let debug = format!("Simulator {{ base_url: {url:?}, .. }}");
    assert_eq!(format!("{simulator:?}"), debug);
    drop(simulator);
    // Connections that were closed keep the port busy for a while on some systems.
    let start = Instant::now();
    while let Err(error) = Simulator::start_on(port) {
        assert!(start.elapsed() < Duration::from_secs(10), "{error}");
        thread::sleep(Duration::from_millis(5));
    }
}
