//! The mock server: it responds as published, fails as told, and survives whatever clients do.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};
use std::{sync::Arc, thread};

use aimlapi_video::simulator::{CLIP, Download, Log, Poll, Post, Simulator};
use aimlapi_video::{UNIVERSAL_ENDPOINT, VEO_ENDPOINT, VideoRequest};
use serde_json::{Value, json};

use crate::support::{self, child, child_output, child_task};

pub(crate) struct Response {
    head: String,
    body: Vec<u8>,
}

impl Response {
    /// 0 if the connection was closed without a response.
    pub(crate) fn status(&self) -> u16 {
        self.head.get(9..12).unwrap_or("0").parse().unwrap()
    }

    /// Empty if there is none.
    fn header(&self, name: &str) -> &str {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = headers.find(|header| header.0 == name);
        found.map_or("", |(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    fn id(&self) -> String {
        self.json()["id"].as_str().unwrap().to_owned()
    }

    /// The status, the path and the message of an error of the documented form.
    fn refused(&self) -> String {
        let (body, status) = (self.json(), self.status());
        let names = ["message", "path", "requestId", "timestamp"];
        let [message, path, id, time] = names.map(|name| body[name].as_str().unwrap());
        let expected = json!({"message": message, "path": path, "requestId": id, "statusCode": status, "timestamp": time});
        assert_eq!((&body, id.len()), (&expected, 36));
        format!("{status} {path}: {message}")
    }

    fn in_words(&self) -> String {
        let is_whole = self.header("content-length") == self.body.len().to_string();
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let word = json["message"].as_str().or(json["status"].as_str());
        let what = match (word, json["data"].as_array()) {
            _ if self.status() == 0 => return "closed".to_owned(),
            _ if !is_whole => format!("cut at {}", self.body.len()),
            _ if self.body == CLIP => "the clip".to_owned(),
            (Some(word), _) => word.to_owned(),
            (None, Some(rows)) => format!("{} rows", rows.len()),
            (None, None) => String::from_utf8(self.body.clone()).unwrap(),
        };
        format!("{} {what}", self.status())
    }
}

/// A client of this base URL, by no HTTP library, with a connection for each request.
pub(crate) struct Api(pub(crate) String);

impl Api {
    /// A connection on which this was sent. The server may not read it all.
    fn begin(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let address = self.0.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address.trim_end_matches("/v2")).unwrap();
        let minute = Some(Duration::from_secs(60));
        stream.set_read_timeout(minute).unwrap();
        let _ = stream.write_all(bytes.as_ref());
        stream
    }

    fn send(&self, bytes: impl AsRef<[u8]>) -> Response {
        let (mut stream, mut response) = (self.begin(bytes), Vec::new());
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut response);
        let head = response.windows(4).position(|end| end == b"\r\n\r\n");
        let body = response.split_off(head.map_or(0, |head| head + 4));
        let head = String::from_utf8(response).unwrap();
        Response { head, body }
    }

    fn ask(&self, head: &str, headers: &[&str], body: &str) -> Response {
        self.send(request(head, headers, body))
    }

    pub(crate) fn post(&self, endpoint: &str, body: &Value) -> Response {
        let (head, body) = (format!("POST /v2/{endpoint}"), body.to_string());
        self.ask(&head, &[BEARER], &body)
    }

    /// Asks for a generation.
    fn fox(&self) -> Response {
        self.post(VEO_ENDPOINT, &fox())
    }

    /// Asks with the key.
    pub(crate) fn get(&self, path: &str) -> Response {
        self.ask(&format!("GET {path}"), &[BEARER], "")
    }

    /// Asks without the key.
    fn file(&self, path: &str) -> Response {
        self.ask(&format!("GET {path}"), &[], "")
    }

    fn poll(&self, id: &str) -> Response {
        self.get(&format!("{PATH}?generation_id={}", id.replace(':', "%3a")))
    }

    /// The path of a finished video.
    fn video_path(&self, simulator: &Simulator) -> String {
        simulator.script_polls([Poll::Complete]);
        let body = self.poll(&self.fox().id()).json();
        let url = body["video"]["url"].as_str().unwrap();
        url[url.find("/files/").unwrap()..].to_owned()
    }

    /// What comes of the same request again and again.
    pub(crate) fn outcomes(&self, times: usize, head: &str) -> String {
        let outcome = |_| match head {
            CREATE => self.fox().in_words(),
            _ if head.contains("/files/") => self.ask(head, &[], "").in_words(),
            _ => self.ask(head, &[BEARER], "").in_words(),
        };
        (0..times).map(outcome).collect::<Vec<_>>().join("; ")
    }
}

fn request(head: &str, headers: &[&str], body: &str) -> String {
    let mut text = format!("{head} HTTP/1.1\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        text += "Host: localhost\r\n";
    }
    for header in headers {
        text += &format!("{header}\r\n");
    }
    text + "\r\n" + body
}

const BEARER: &str = "Authorization: Bearer simulator-key";
pub(crate) const CREATE: &str = "POST /v2/generate/video/google/generation";
const PATH: &str = "/v2/generate/video/google/generation";

fn fox() -> Value {
    json!({"model": "google/veo3", "prompt": "A fox"})
}

pub(crate) fn start() -> (Simulator, Api) {
    let simulator = Simulator::start().unwrap();
    let api = Api(simulator.base_url());
    (simulator, api)
}

fn raw(status: u16, body: &str) -> String {
    String::from_utf8(support::http(status, &[], body)).unwrap()
}

#[test]
fn a_job_takes_one_connection_and_responds_as_published() {
    let (simulator, api) = start();
    let (credits, usd) = Simulator::PRICE;
    for (endpoint, status) in [(VEO_ENDPOINT, 201), (UNIVERSAL_ENDPOINT, 200)] {
        let created = api.post(endpoint, &fox());
        let id = created.id();
        let queued = json!({"id": id, "status": "queued"});
        assert_eq!((created.status(), created.json()), (status, queued));
        assert_eq!(created.header("x-inference-id"), id);
        for word in ["queued", "generating", "completed", "completed"] {
            let polled = api.get(&format!("/v2/{endpoint}?generation_id={id}"));
            let mut expected =
                json!({"id": id, "status": word, "video": null, "error": null, "meta": null});
            let mut spent = ["", ""];
            if word == "completed" {
                expected["meta"] = json!({"usage": {"credits_used": credits, "usd_spent": usd}});
                expected["video"] = json!({"url": polled.json()["video"]["url"],
                    "content_type": "video/mp4", "file_name": "output.mp4", "file_size": CLIP.len()});
                spent = ["120000", "0.06"];
            }
            assert_eq!((polled.status(), polled.json()), (200, expected));
            let headers = ["x-aimlapi-credits-used", "x-aimlapi-usd-spent"];
            assert_eq!(headers.map(|name| polled.header(name)), spent);
        }
    }
    let (client, connections) = (simulator.client(), simulator.connections());
    let created = client.generate_video(&VideoRequest::new("A fox")).unwrap();
    let _ = client.wait_for_video(&created.id, |_| {}).unwrap();
    assert_eq!(simulator.connections(), connections + 1);
    assert_eq!(simulator.charged(), 3);
}

#[test]
fn a_request_without_the_key_is_refused_and_no_other_key_is_kept() {
    let (simulator, api) = start();
    simulator.script_posts([Post::Reject(500)]);
    let keys = "|Bearer other-secret|simulator-key-secret|Bearer simulator-key-secret";
    for key in keys.split('|') {
        for (method, path) in [("POST", PATH), ("GET", PATH), ("GET", "/v2/logs")] {
            let header = format!("AUTHORIZATION: {key}");
            let refused = api.ask(&format!("{method} {path}"), &[&header], "{}");
            let reason = "This request requires a valid API key. The simulator's is simulator-key.";
            assert_eq!(refused.refused(), format!("401 {path}: {reason}"), "{key}");
        }
    }
    assert_eq!(api.fox().status(), 500, "none of them took the step");
    let received = simulator.received();
    assert!(!format!("{received:?}").contains("secret"));
    let keys = [4, 12].map(|number| received[number].header("Authorization").unwrap());
    assert_eq!(keys, ["[redacted]", "Bearer simulator-key"]);
}

#[test]
fn an_id_is_of_one_simulator_and_another_says_that_it_forgets() {
    let ((_simulator, api), (_other, other)) = (start(), start());
    let ids = [&api, &api, &other].map(|api| api.fox().id());
    let parts = ids.iter().map(|id| {
        let id = id.strip_prefix("simulated-").unwrap();
        id.strip_suffix(":veo3").unwrap().split_once('-').unwrap()
    });
    let (words, numbers): (BTreeSet<_>, BTreeSet<_>) = parts.unzip();
    // One word for the process, and no number twice.
    assert_eq!((words.len(), numbers.len()), (1, 3), "{ids:?}");
    let word = words.first().unwrap();
    assert!(word.len() == 8 && u32::from_str_radix(word, 16).is_ok());
    let expected = format!(
        "404 {PATH}: Not Found. A simulator forgets everything when it stops, and this id is of \
         another one: delete the receipt beside the video's file"
    );
    for id in [&*ids[0], "simulated-00000000-0001:veo3"] {
        assert_eq!(other.poll(id).refused(), expected);
    }
    assert_eq!(api.poll(&ids[0]).status(), 200);
}

#[test]
fn web_pages_and_names_that_point_here_are_refused_and_not_recorded() {
    let (simulator, api) = start();
    let own = simulator.base_url().replace("/v2", "");
    let by_name = own.replace("127.0.0.1", "localhost");
    simulator.script_posts([Post::Reject(500)]);
    let refused = "Host: evil.example|Host: 127.0.0.1.evil.example|Host: localhost.evil.example:80|\
        Host: |Host: [::2]|Host: 0.0.0.0|Host: 128.0.0.1|Origin: http://evil.example|Origin: null|\
        Origin: http://localhost|Origin: http://localhost:1|Sec-Fetch-Site: cross-site|\
        Sec-Fetch-Site: same-site";
    for header in refused.split('|') {
        for head in [CREATE, "GET /files/1/0/output.mp4", "GET /events.json"] {
            let response = api.ask(head, &[BEARER, header], &fox().to_string());
            let expected = "403 /: Only programs of this computer are served";
            assert_eq!(response.refused(), expected, "{header}");
            assert_eq!(response.header("connection"), "close");
        }
    }
    let without_host = format!("{CREATE} HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(api.send(without_host).status(), 403);
    assert!(simulator.received().is_empty());
    assert_eq!(api.fox().status(), 500, "none of them took the step");
    let allowed = format!(
        "Host: localhost|Host: LOCALHOST:9|Host: 127.0.0.1:8080|Host: 127.1.2.3|Host: [::1]|\
         Host: [::1]:80|Origin: {own}|Origin: {by_name}|Sec-Fetch-Site: same-origin|\
         Sec-Fetch-Site: none"
    );
    for header in allowed.split('|') {
        let response = api.ask(CREATE, &[BEARER, header], &fox().to_string());
        assert_eq!(response.status(), 201, "{header}");
    }
    // A link to the page may be anywhere.
    let linked = api.ask("GET /", &["Sec-Fetch-Site: cross-site"], "");
    assert_eq!(linked.status(), 200);
}

#[test]
fn the_page_is_whole_in_itself() {
    let (_simulator, api) = start();
    let page = api.file("/");
    let html = String::from_utf8(page.body.clone()).unwrap();
    let policy = page.header("content-security-policy");
    let nonce = &policy.split_once("script-src 'nonce-").unwrap().1[..16];
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert_eq!(html.matches(&format!(" nonce=\"{nonce}\">")).count(), 2);
    let unsafe_words = "innerHTML outerHTML insertAdjacent document.write eval( src= @import http: NONCE simulator-key";
    for word in unsafe_words.split(' ') {
        assert!(!html.contains(word), "{word}");
    }
    assert_ne!(api.file("/").body, page.body, "a nonce of its own");
}

#[test]
fn the_events_are_bounded_and_have_no_headers_and_no_queries() {
    let (simulator, api) = start();
    api.file("/files/1?key=other-secret&generation_id=sh%6fwn+%zz%é%");
    api.fox();
    let shown = api.file("/events.json").json();
    let [posted, loaded] = [0, 1].map(|row| shown["requests"][row]["at"].clone());
    let expected = json!([
        {"number": 1, "at": posted, "method": "POST", "path": PATH, "generation": null, "status": 201, "body": fox().to_string()},
        {"number": 0, "at": loaded, "method": "GET", "path": "/files/1", "generation": "shown %zz%é%", "status": 403, "body": ""},
    ]);
    assert_eq!(shown["requests"], expected);
    for hidden in ["secret", "simulator-key", "headers", "localhost"] {
        assert!(!shown.to_string().contains(hidden), "{hidden}");
    }

    let states = (0..100).map(|number| Poll::status(format!("{number:0500}")));
    simulator.script_polls(states.chain([Poll::fail_charged("Error", "No.")]));
    let body = json!({"model": "google/veo3", "prompt": "é".repeat(100_000)});
    (0..199).for_each(|_| drop(api.post(VEO_ENDPOINT, &body)));
    let newest = api.post(VEO_ENDPOINT, &body).id();
    (0..150).for_each(|_| drop(api.poll(&newest)));
    api.post(&"x".repeat(10_000), &body);
    let shown = api.file("/events.json");
    assert!(shown.body.len() < 1 << 20, "{}", shown.body.len());
    let shown = shown.json();
    let lengths = ["requests", "generations"].map(|list| shown[list].as_array().unwrap().len());
    assert_eq!((lengths, &shown["charged"]), ([100, 100], &json!(201)));
    let newest = &shown["generations"][0];
    assert_eq!(newest["states"][0]["word"], "error");
    assert_eq!(newest["is_charged"], true);
}

/// The other steps are in the examples of the docs, and in the test of the example `simulator`.
#[test]
fn posts_downloads_and_the_usage_log_go_as_their_scripts_say() {
    let (simulator, api) = start();
    let path = api.video_path(&simulator);
    let raw_post = Post::Raw(raw(502, "<h1>"));
    simulator.script_posts([Post::Accept, raw_post, Post::CloseAfter(10)]);
    // An invalid one is refused by the steps that would accept it.
    let reason = "Body validation error: Expected object, received no object";
    let refused = api.ask(CREATE, &[BEARER], "{").refused();
    assert_eq!(refused, format!("400 {PATH}: {reason}"));
    assert_eq!(api.outcomes(3, CREATE), "502 <h1>; closed; 201 queued");
    for body in ["", "{}}", "\"model\"", "[]"] {
        let refused = api.ask(CREATE, &[BEARER], body).refused();
        assert_eq!(refused, format!("400 {PATH}: {reason}"), "{body}");
    }
    assert_eq!(simulator.charged(), 2);
    let closed = &simulator.received()[4];
    assert_eq!((&*closed.body, closed.status), ("{\"model\":\"", 0));

    let raw_file = Download::Raw(raw(200, "raw"));
    simulator.script_downloads([Download::Reject(503), raw_file, Download::Expire]);
    let expected = "503 Service unavailable; 200 raw; 403 The URL has expired";
    assert_eq!(api.outcomes(3, &format!("GET {path}")), expected);
    assert_eq!(api.file(&path).status(), 403);

    let raw_log = Log::Raw(raw(200, "raw"));
    simulator.script_logs([Log::Reject(500), Log::Serve, raw_log, Log::CloseAfter(7)]);
    assert_eq!(api.file("/v2/logs").status(), 401, "takes no step");
    let expected = "500 Internal server error; 200 2 rows; 200 raw; 200 cut at 7; 200 2 rows";
    assert_eq!(api.outcomes(5, "GET /v2/logs"), expected);
    simulator.hide_log(usize::MAX);
    simulator.hide_log(2);
    let expected = "200 0 rows; 200 0 rows; 200 2 rows";
    assert_eq!(api.outcomes(3, "GET /v2/logs"), expected);
}

#[test]
fn polls_go_as_their_script_says() {
    use Poll::{CloseAfter, Complete, Raw, Reject, Stall};
    let (simulator, api) = start();
    let fail = Poll::fail("SafetyError", "No.");
    let no_object = Raw(raw(200, "[]"));
    let broken = vec![Reject(418), no_object, CloseAfter(7), fail.clone()];
    let wrong = "418 Something wrong with the server. Please, try again later.; 200 []; \
        200 cut at 7; 200 error; 200 error";
    let cut = vec![CloseAfter(usize::MAX), Stall(Duration::ZERO)];
    let rejected = vec![Reject(500), Complete, fail];
    // Scripts are for generations to come.
    for (script, times, expected) in [
        (broken, 5, wrong),
        (vec![], 2, "200 completed; 200 completed"),
        (cut, 2, "200 completed; 200 completed"),
        (rejected, 2, "500 Internal server error; 200 completed"),
    ] {
        simulator.script_polls(script);
        let head = format!("GET {PATH}?generation_id={}", api.fox().id());
        assert_eq!(api.outcomes(times, &head), expected);
    }
    assert_eq!(simulator.charged(), 2, "what fails in the end is free");
}

#[test]
fn a_video_is_served_whole_and_in_ranges() {
    let (simulator, api) = start();
    let path = api.video_path(&simulator);
    let ask = |headers: &[&str]| api.ask(&format!("GET {path}"), headers, "");
    let whole = ask(&[]);
    assert_eq!(whole.in_words(), "200 the clip");
    assert_eq!(whole.header("content-type"), "video/mp4");
    let if_range = format!("If-Range: {}", whole.header("etag"));
    for (range, part) in [
        ("0-0", 0..=0),
        ("1000-1999", 1000..=1999),
        ("90857-", 90857..=90857),
        ("5-18446744073709551615", 5..=90857),
    ] {
        let response = ask(&[&format!("Range: bytes={range}"), &if_range]);
        let content_range = format!("bytes {}-{}/90858", part.start(), part.end());
        assert_eq!(response.header("content-range"), content_range);
        assert_eq!(response.header("etag"), whole.header("etag"));
        assert_eq!(response.status(), 206);
        assert!(response.body == CLIP[part], "{range}");
    }
    // A server may ignore ranges, and has to where they make no sense (RFC 9110, 14.2).
    for range in "bytes=9-5 bytes=-5 bytes=0-0,5-6 bytes=x- lines=1-2".split(' ') {
        let whole = ask(&[&format!("Range: {range}")]);
        assert_eq!(whole.in_words(), "200 the clip", "{range}");
    }
    for range in ["90858-", "90863-90867"] {
        let none = ask(&[&format!("Range: bytes={range}")]);
        assert_eq!(none.refused(), format!("416 {path}: Range Not Satisfiable"));
        assert_eq!(none.header("content-range"), "bytes */90858");
    }
    let expected = format!("400 {path}: The API key was sent to the file server");
    assert_eq!(api.get(&path).refused(), expected);
    // Another video has another tag.
    simulator.video(b"another".to_vec());
    let another = ask(&["Range: bytes=2-", &if_range]);
    assert_eq!(another.in_words(), "200 another");
}

#[test]
fn the_usage_log_is_newest_first_and_has_each_row_in_its_state() {
    let (simulator, api) = start();
    let empty = json!({"data": [], "pagination": {"limit": 50, "offset": 0, "total": 0, "has_more": false}});
    assert_eq!(api.get("/v2/logs").json(), empty);
    let long = "a".repeat(129);
    let charged = Poll::fail_charged("Error", "No.");
    let (price, free) = ((120_000, 0.06), (0, 0.0));
    let mut rows = Vec::new();
    // The state and the cost at the end, for each client request id, if that is valid.
    for (sent, kept, poll, status, cost) in [
        ("job-0", true, Poll::Complete, "succeeded", price),
        ("job/1", false, Poll::Complete, "succeeded", price),
        ("A.b_c:2", true, Poll::fail("Error", "No."), "failed", free),
        (&long, false, Poll::status("queued"), "succeeded", free),
        (&long[1..], true, charged, "failed", price),
    ] {
        simulator.script_polls([Poll::status("queued"), poll]);
        let header = format!("X-Client-Request-Id: {sent}");
        let created = api.ask(CREATE, &[BEARER, &header], &fox().to_string());
        let id = created.id();
        let row = |status: &str, (credits, usd): (u32, f64)| {
            json!({"created": "2026-08-01T12:00:00.000Z", "status": status, "origin": "api",
                "model": "google/veo3", "cost": {"usd": usd, "credits": credits},
                "tokens": {"input": 0, "output": 0, "total": 0}, "request_id": null,
                "inference_id": id, "client_request_id": kept.then_some(sent)})
        };
        let log = api.get("/v2/logs?period=24h&limit=1").json();
        assert_eq!(log["data"], json!([row("succeeded", free)]), "{sent}");
        let (polled, ended) = (api.poll(&id), api.poll(&id));
        for response in [&created, &polled, &ended] {
            let echo = response.header("x-client-request-id");
            assert_eq!(echo, if kept { sent } else { "" });
        }
        let error = json!({"name": "Error", "message": "No."});
        let error = json!((status == "failed").then_some(error));
        assert_eq!(ended.json()["error"], error, "{sent}");
        let spent = if cost == price { "0.06" } else { "" };
        assert_eq!(ended.header("x-aimlapi-usd-spent"), spent, "{sent}");
        rows.insert(0, row(status, cost));
    }
    let balance = simulator.client().get_balance().unwrap().to_string();
    assert_eq!((simulator.charged(), &*balance), (4, "123.21 USD"));
    for (query, range, has_more) in [
        ("", 0..5, false),
        ("period=7d&limit=2", 0..2, true),
        ("limit=2&offset=2", 2..4, true),
        ("limit=2&offset=3", 3..5, false),
        ("offset=18446744073709551615", 5..5, false),
    ] {
        let page = api.get(&format!("/v2/logs?{query}")).json();
        assert_eq!(page["data"], json!(rows[range]), "{query}");
        assert_eq!(page["pagination"]["has_more"], has_more, "{query}");
    }
    let refused = "period= period=24 period=0h period=-1d period=1w limit=0 limit=101 limit=x \
        offset=-1 offset=1.5 limit= start=2026-07-01T00:00:00Z status=queued";
    for query in refused.split(' ') {
        let refused = api.get(&format!("/v2/logs?{query}")).refused();
        let expected = "Expected period (24h or 7d, say), limit (1 to 100) and offset only";
        assert_eq!(refused, format!("400 /v2/logs: {expected}"), "{query}");
    }
}

#[test]
fn garbage_and_what_is_too_large_is_refused_and_the_connection_closed() {
    let (simulator, api) = start();
    let post = |header: &str| format!("{CREATE} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n");
    for (bytes, status) in [
        ("GET\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 400),
        (post(&"X: y\r\n".repeat(200)), 400),
        (post("Content-Length: -1"), 411),
        (post("Transfer-Encoding: chunked"), 411),
        (post("Content-Length: 33554433") + &"x".repeat(1 << 20), 413),
    ] {
        let response = api.send(&bytes);
        let refused = response.refused();
        assert_eq!(response.status(), status, "{bytes:.99}: {refused}");
        assert_eq!(response.header("connection"), "close");
    }
    assert_eq!(api.send([b'x'; 70_000]).in_words(), "closed");
    assert!(simulator.received().is_empty());
}

/// It returns, whatever clients do.
fn drop_quickly(simulator: Simulator) {
    let start = Instant::now();
    drop(simulator);
    let time = start.elapsed();
    assert!(time < Duration::from_secs(10), "{time:?}");
}

#[test]
fn a_stall_blocks_no_other_client_and_ends_with_the_simulator() {
    let (simulator, api) = start();
    let (hour, path) = (Duration::from_secs(3600), api.video_path(&simulator));
    simulator.script_polls([Poll::Stall(hour)]);
    let poll = format!("GET {PATH}?generation_id={}", api.fox().id());
    simulator.script_posts([Post::Stall(hour)]);
    simulator.script_downloads([Download::Stall(hour)]);
    let stalled = [
        request(CREATE, &[BEARER], &fox().to_string()),
        request(&poll, &[BEARER], ""),
        request(&format!("GET {path}"), &[], ""),
    ];
    let mut connections = stalled.map(|request| api.begin(request));
    let mut half = vec![0; CLIP.len() / 2];
    connections[2].read_exact(&mut half).unwrap();
    while simulator.received().len() < 6 {
        thread::yield_now();
    }
    assert!(api.file(&path).body == CLIP);
    drop_quickly(simulator);
    for mut connection in connections {
        let mut rest = Vec::new();
        let _ = connection.read_to_end(&mut rest);
        assert!(rest.len() < CLIP.len() / 2, "not ended");
    }
}

/// In a process of its own, whose memory is known.
#[test]
fn misbehaving_clients_block_no_others_exhaust_no_memory_and_drop_returns() {
    if child_task().is_none() {
        let test = "misbehaving_clients_block_no_others_exhaust_no_memory_and_drop_returns";
        child_output(child(&format!("simulator::{test}"), "measure"));
        return;
    }
    let (simulator, api) = start();
    simulator.video(std::iter::repeat_n(7, 50_000_000).collect::<Arc<[u8]>>());
    let download = request(&format!("GET {}", api.video_path(&simulator)), &[], "");
    let half = format!("{CREATE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 33554432\r\n\r\n");
    let half = half + &"x".repeat(100_000);
    // Connections that say nothing or half of something, and readers who sleep.
    let _held = ["", "GET / HT", &half, &download].map(|bytes| [0; 30].map(|_| api.begin(bytes)));
    let (client, request) = (simulator.client(), VideoRequest::new("A fox"));
    let id = client.generate_video(&request).unwrap().id;
    let video = client.wait_for_video(&id, |_| {}).unwrap();
    assert_eq!(video.file_size, Some(50_000_000));
    // The video itself is this test's.
    #[cfg(target_os = "linux")]
    let kibibytes = support::peak_memory() - 50_000_000 / 1024;
    #[cfg(target_os = "linux")]
    assert!(kibibytes < 32 << 10, "{kibibytes} KiB");
    drop_quickly(simulator);
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
