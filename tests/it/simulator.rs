//! The mock server: it responds as published, fails as told, and survives whatever clients do.

use std::collections::BTreeSet;
use std::io::ErrorKind::{ConnectionAborted, ConnectionReset};
use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};
use std::{net::TcpStream, thread};

use aimlapi_video::simulator::{CLIP, Download, Log, Poll, Post, Simulator};
use aimlapi_video::{Client, Error, UNIVERSAL_ENDPOINT, VEO_ENDPOINT, VideoRequest};
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
        let (headers, body) = (lines[1..].iter().map(header).collect(), Vec::new());
        let mut response = Response {
            status,
            headers,
            body,
        };
        let length = response.header("content-length").parse().unwrap_or(0);
        let mut body = self.0.by_ref().take(length);
        let _ = body.read_to_end(&mut response.body);
        Some(response)
    }

    fn send(&mut self, head: &str, headers: Headers<'_>, body: &[u8]) {
        let is_host = |(name, _): &(&str, &str)| *name == "Host";
        let host = if headers.iter().any(is_host) {
            ""
        } else {
            "Host: localhost\r\n"
        };
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
        connection
            .file(path)
            .refuses(path, 403, "The URL has expired");
    }
}

#[test]
fn an_id_is_of_one_simulator_and_another_says_that_it_forgets() {
    let ((simulator, mut connection), (_other, mut other)) = (start(), start());
    let ids = [connection.create(), connection.create(), other.create()];
    let [words, numbers] = [0, 1].map(|part| {
        let part = |id: &String| {
            let id = id
                .strip_prefix("simulated-")
                .unwrap()
                .strip_suffix(":veo3")
                .unwrap();
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
        assert!(
            message.contains("forgets everything when it stops"),
            "{message}"
        );
        assert!(message.contains("delete the receipt"), "{message}");
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
    assert_eq!(
        connection.fox().status,
        500,
        "none of them took the script's step"
    );
    let allowed = format!(
        "Host localhost|Host LOCALHOST:9|Host 127.0.0.1:8080|Host 127.1.2.3|Host [::1]|Host [::1]:80|\
         Origin {own}|Origin {by_name}|Sec-Fetch-Site same-origin|Sec-Fetch-Site none"
    );
    for header in allowed.split('|') {
        let headers = [BEARER, header.split_once(' ').unwrap()];
        assert_eq!(
            connection.ask(CREATE, &headers, body.as_bytes()).status,
            201,
            "{header}"
        );
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
    assert_ne!(
        connection.file("/").body,
        page.body,
        "each has a nonce of its own"
    );

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
        let received = simulator.received();
        let last = received.last().unwrap();
        assert_eq!((&*last.body, last.status), (kept, 0));
        assert_eq!(simulator.charged(), 2, "the first of these alone");
    }
    assert_eq!(Connection::open(&simulator).fox().status, 201);
}

#[test]
fn polls_go_as_their_script_says() {
    let (simulator, mut connection) = start();
    let [name, message] = ["SafetyError", "The prompt was rejected."];
    simulator.script_polls([
        Poll::status("Dreaming"),
        Poll::Reject(503),
        Poll::Stall(MILLISECOND),
        Poll::Reject(418),
        Poll::Raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]".to_owned()),
        Poll::CloseAfter(7),
        Poll::fail(name, message),
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
    let long = "a".repeat(129);
    let mut rows = Vec::new();
    // The id and the cost at the end, for each client request id, if that is valid.
    for (sent, kept, poll, status, usd) in [
        ("job-0", true, Poll::Complete, "succeeded", 0.06),
        ("job/1", false, Poll::Complete, "succeeded", 0.06),
        ("A.b_c:2", true, Poll::fail("Error", "No."), "failed", 0.0),
        (&long, false, Poll::status("queued"), "succeeded", 0.0),
        (
            &long[1..],
            true,
            Poll::fail_charged("Error", "No."),
            "failed",
            0.06,
        ),
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
        let expected = "Expected period (24h or 7d, say), limit (1 to 100) and offset only";
        response.refuses("/v2/logs", 400, expected);
    }
}

#[test]
fn the_usage_log_goes_as_its_script_says() {
    let (simulator, mut connection) = start();
    connection.create();
    let raw = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nraw".to_owned();
    simulator.script_logs([
        Log::Hide,
        Log::Reject(503),
        Log::Serve,
        Log::CloseAfter(7),
        Log::Raw(raw),
    ]);
    let mut rows = |has_key: bool| {
        let response = match has_key {
            true => connection.get("/v2/logs"),
            false => connection.file("/v2/logs"),
        };
        let rows = response.json()["data"].as_array().map(Vec::len);
        (response.status, rows)
    };
    assert_eq!(rows(true), (200, Some(0)));
    assert_eq!(rows(false), (401, None), "takes no step");
    assert_eq!(rows(true), (503, None));
    assert_eq!(rows(true), (200, Some(1)));
    assert_eq!(connection.get("/v2/logs").body.len(), 7);
    let mut connection = Connection::open(&simulator);
    assert_eq!(connection.get("/v2/logs").body, b"raw");
    let mut connection = Connection::open(&simulator);
    simulator.hide_log(usize::MAX);
    simulator.hide_log(2);
    for expected in [0, 0, 1] {
        let rows = connection.get("/v2/logs").json()["data"]
            .as_array()
            .unwrap()
            .len();
        assert_eq!(rows, expected);
    }
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
    command.args([
        "--posts",
        "drop, accept",
        "--polls",
        "queued,503,close:3",
        "--logs",
        "hide,stalled",
    ]);
    let refused = command.output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let text = crate::support::stderr(&refused);
    assert!(
        text.starts_with("\"stalled\" is no step; allowed are serve, hide, "),
        "{text}"
    );

    let mut command = crate::support::example("simulator");
    command.args("--posts drop,accept --polls queued,503,fail-charged --logs hide".split(' '));
    let mut program = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let url = lines
        .next()
        .unwrap()
        .replace("export AIMLAPI_BASE_URL=", "");
    let client = Client::builder(Simulator::KEY)
        .base_url(url)
        .build()
        .unwrap();
    let request = VideoRequest::new("A fox").client_request_id("fox-1");
    assert!(matches!(
        client.generate_video(&request),
        Err(Error::OutcomeUnknown { .. })
    ));
    assert_eq!(client.find_generation("fox-1").unwrap(), None);
    let id = client.find_generation("fox-1").unwrap().unwrap();
    assert_eq!(client.get_video(&id).unwrap().status.to_string(), "queued");
    assert!(client.get_video(&id).is_err());
    assert_eq!(client.get_video(&id).unwrap().status.to_string(), "error");
    let path = VEO_ENDPOINT;
    let expected = format!(
        "POST /v2/{path} no response;GET /v2/logs 200;GET /v2/logs 200;GET /v2/{path} 200;\
         GET /v2/{path} 503;GET /v2/{path} 200"
    );
    let printed: Vec<String> = lines.by_ref().skip(5).take(6).collect();
    assert_eq!(printed.join(";"), expected);
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
