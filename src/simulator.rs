//! A stand-in for the API on this machine, for tests, demos and classes. Feature `simulator`.
//!
//! It imitates what the vendor documents, and no more: both endpoints, the bearer check, the published schemas of the
//! Google models, the error bodies, the usage log, a file server with ranges. It does not generate anything: each video is the same short clip, which says so.
//!
//! ```toml
//! [dev-dependencies]
//! aimlapi-video = { version = "0.1", features = ["simulator"] }
//! ```
//!
use std::{
    collections::HashMap,
    io::{self, Cursor, Write},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use serde_json::{Value, json};
use tiny_http::{HTTPVersion, Header, Method, Request, Response, Server};

use crate::{Client, UNIVERSAL_ENDPOINT, VEO_ENDPOINT, models, request::check_client_request_id};

/// The clip that stands for every video: 1280x720, eight seconds, with sound.
pub const CLIP: &[u8] = include_bytes!("../assets/simulator.mp4");

/// What the answer to one poll is. The last step of a script is the answer to all later polls too.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// This status word, without a video.
    Status(String),
    /// `completed`, with a video.
    Complete,
    /// `error`, with this error object. The generation is not charged.
    Fail {
        /// The error's name.
        name: String,
        /// The error's message.
        message: String,
    },
    /// An HTTP error with the documented body.
    Outage(u16),
    /// This body, as it is, with this HTTP status.
    Raw(u16, String),
}

impl Step {
    /// This status word, without a video.
    pub fn status(word: impl Into<String>) -> Self {
        Step::Status(word.into())
    }

    /// An HTTP error, such as 503.
    #[must_use]
    pub fn outage(status: u16) -> Self {
        Step::Outage(status)
    }

    /// `error`, with this name and message.
    pub fn fail(name: impl Into<String>, message: impl Into<String>) -> Self {
        Step::Fail {
            name: name.into(),
            message: message.into(),
        }
    }
}

/// A request that the simulator received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// The HTTP method.
    pub method: String,
    /// Path and query.
    pub url: String,
    /// The headers: names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// The body; what of it is not UTF-8 is replaced.
    pub body: String,
}

impl Received {
    /// The value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// The stand-in, running. Stops when dropped.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    server: Server,
    address: SocketAddr,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    script: Vec<Step>,
    video: Arc<[u8]>,
    tag: String,
    late_log: usize,
    generations: Vec<Generation>,
    by_id: HashMap<String, usize>,
    received: Vec<Received>,
}

struct Generation {
    id: String,
    model: String,
    client_request_id: Option<String>,
    script: Vec<Step>,
    polls: usize,
}

impl Generation {
    fn is_charged(&self) -> bool {
        !matches!(self.script.last(), Some(Step::Fail { .. }))
    }
}

impl Simulator {
    /// The key that the simulator accepts.
    pub const KEY: &str = "simulator-key";

    /// What one generation costs here, in credits and in US dollars.
    pub const PRICE: (u32, f64) = (120_000, 0.06);

    /// Starts on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn start() -> io::Result<Self> {
        Self::start_on(0)
    }

    /// Starts on this port of 127.0.0.1.
    ///
    /// # Errors
    /// If the port can't be had.
    pub fn start_on(port: u16) -> io::Result<Self> {
        let server = Server::http(("127.0.0.1", port)).map_err(io::Error::other)?;
        let address = server
            .server_addr()
            .to_ip()
            .ok_or_else(|| io::Error::other("not an IP address"))?;
        let script = vec![
            Step::status("queued"),
            Step::status("generating"),
            Step::Complete,
        ];
        let state = Mutex::new(State {
            script,
            video: CLIP.into(),
            tag: entity_tag(CLIP),
            ..State::default()
        });
        let shared = Arc::new(Shared {
            server,
            address,
            state,
        });
        let workers = (0..4)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve())
            })
            .collect();
        Ok(Simulator {
            address,
            shared,
            workers,
        })
    }

    /// The base address, for [`ClientBuilder::base_url`](crate::ClientBuilder::base_url) or `AIMLAPI_BASE_URL`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v2", self.address)
    }

    /// A client of this simulator, with all defaults.
    ///
    /// # Panics
    /// Never: its address and its key are good.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::builder(Self::KEY)
            .base_url(self.base_url())
            .build()
            .expect("the simulator's own address and key")
    }

    /// Sets how the polls of generations go that are requested from now on. An empty script is [`Step::Complete`].
    ///
    /// At first: queued, generating, complete.
    pub fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.shared.state().script = steps.into_iter().collect();
    }

    /// Sets the file that is served as the video. At first [`CLIP`].
    pub fn video(&self, bytes: impl Into<Arc<[u8]>>) {
        let video = bytes.into();
        let mut state = self.shared.state();
        (state.tag, state.video) = (entity_tag(&video), video);
    }

    /// Lets the next `lookups` requests to the usage log find it empty, as the real one can be late.
    pub fn late_log(&self, lookups: usize) {
        self.shared.state().late_log = lookups;
    }

    /// How many generations were charged, or will be once they complete.
    #[must_use]
    pub fn charged(&self) -> usize {
        self.shared
            .state()
            .generations
            .iter()
            .filter(|generation| generation.is_charged())
            .count()
    }

    /// All requests so far, in the order they came.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.shared.state().received.clone()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        for _ in &self.workers {
            self.shared.server.unblock();
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

type Answer = Response<Box<dyn io::Read + Send>>;

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        while let Ok(mut request) = self.server.recv() {
            let answer = self.answer(&mut request);
            let is_head = *request.method() == Method::Head;
            let mut writer = request.into_writer();
            // After an answer of HTTP/1.0, clients close. A connection that they keep would outlive the simulator,
            // and never be answered on. Whoever asked may be gone.
            let _ = answer
                .raw_print(&mut writer, HTTPVersion(1, 0), &[], is_head, None)
                .and_then(|()| writer.flush());
        }
    }

    fn answer(&self, request: &mut Request) -> Answer {
        let mut body = Vec::new();
        // A body that breaks off is no JSON.
        let _ = request.as_reader().read_to_end(&mut body);
        let header = |header: &Header| {
            (
                header.field.as_str().as_str().to_ascii_lowercase(),
                header.value.to_string(),
            )
        };
        let received = Received {
            method: request.method().to_string(),
            url: request.url().to_owned(),
            headers: request.headers().iter().map(header).collect(),
            body: String::from_utf8_lossy(&body).into_owned(),
        };
        let mut state = self.state();
        state.received.push(received.clone());
        let (path, query) = received.url.split_once('?').unwrap_or((&received.url, ""));
        if path.starts_with("/files/") {
            return file(&state, &received, path);
        }
        if received.header("authorization") != Some(&format!("Bearer {}", Simulator::KEY)) {
            let message =
                "This request requires a valid API key. The simulator's key is simulator-key.";
            return refuse(401, message, path);
        }
        if std::str::from_utf8(&body).is_err() {
            return refuse(
                400,
                "Body validation error: Expected UTF-8, received other bytes",
                path,
            );
        }
        let endpoint = path.strip_prefix("/v2/").unwrap_or_default();
        match (request.method(), endpoint) {
            (Method::Post, VEO_ENDPOINT | UNIVERSAL_ENDPOINT) => {
                create(&mut state, &received, path)
            }
            (Method::Get, VEO_ENDPOINT | UNIVERSAL_ENDPOINT) => self.tell(&mut state, query, path),
            (Method::Get, "logs") => log(&mut state, query),
            _ => refuse(404, "Not Found", path),
        }
    }

    fn tell(&self, state: &mut State, query: &str, path: &str) -> Answer {
        let id = param(query, "generation_id").unwrap_or_default();
        let Some(index) = state.by_id.get(&id).copied() else {
            return refuse(404, "Not Found", path);
        };
        let size = state.video.len();
        let generation = &mut state.generations[index];
        let at = generation
            .polls
            .min(generation.script.len().saturating_sub(1));
        generation.polls += 1;
        let (status, video, error) = match generation.script.get(at) {
            Some(Step::Outage(status)) => return refuse(*status, outage(*status), path),
            Some(Step::Raw(status, body)) => return respond(*status, body.clone()),
            Some(Step::Status(word)) => (word.as_str(), Value::Null, Value::Null),
            Some(Step::Fail { name, message }) => (
                "error",
                Value::Null,
                json!({"name": name, "message": message}),
            ),
            Some(Step::Complete) | None => {
                let url = format!("http://{}/files/{index}/output.mp4", self.address);
                let video = json!({"url": url, "content_type": "video/mp4", "file_name": "output.mp4", "file_size": size});
                ("completed", video, Value::Null)
            }
        };
        let (credits, usd) = Simulator::PRICE;
        let meta = if video.is_null() {
            Value::Null
        } else {
            json!({"usage": {"credits_used": credits, "usd_spent": usd}})
        };
        let mut answer = respond(
            200,
            json!({"id": id, "status": status, "video": video, "error": error, "meta": meta})
                .to_string(),
        );
        answer = answer.with_header(field("x-inference-id", &id));
        match &generation.client_request_id {
            Some(id) => answer.with_header(field("x-client-request-id", id)),
            None => answer,
        }
    }
}

fn create(state: &mut State, received: &Received, path: &str) -> Answer {
    let invalid = |hint: String| refuse(400, &format!("Body validation error: {hint}"), path);
    let Ok(Value::Object(body)) = serde_json::from_str(&received.body) else {
        return invalid("Expected object, received something else".to_owned());
    };
    let Some(model) = body.get("model").and_then(Value::as_str) else {
        return invalid("model: Expected string, received undefined".to_owned());
    };
    if let Some(Err(fault)) = models::find(model).map(|model| model.check(&body)) {
        return invalid(fault.hint());
    }
    let number = state.generations.len();
    let id = format!(
        "51a0{number:04x}-0000-4000-8000-{number:012x}:{}",
        model.rsplit('/').next().unwrap_or(model)
    );
    // The service drops ids of other shapes without a word.
    let client_request_id = received
        .header("x-client-request-id")
        .filter(|id| check_client_request_id(id).is_ok());
    state.by_id.insert(id.clone(), number);
    state.generations.push(Generation {
        id: id.clone(),
        model: model.to_owned(),
        client_request_id: client_request_id.map(str::to_owned),
        script: state.script.clone(),
        polls: 0,
    });
    let answer = respond(201, json!({"id": id, "status": "queued"}).to_string())
        .with_header(field("x-inference-id", &id));
    match client_request_id {
        Some(id) => answer.with_header(field("x-client-request-id", id)),
        None => answer,
    }
}

fn log(state: &mut State, query: &str) -> Answer {
    let number = |name: &str, default: usize| {
        param(query, name)
            .and_then(|number| number.parse().ok())
            .unwrap_or(default)
    };
    let (limit, offset) = (number("limit", 50).clamp(1, 100), number("offset", 0));
    let hidden = state.late_log > 0;
    state.late_log = state.late_log.saturating_sub(1);
    let total = if hidden { 0 } else { state.generations.len() };
    let row = |generation: &Generation| {
        let charged = generation.is_charged();
        let (credits, usd) = if charged { Simulator::PRICE } else { (0, 0.0) };
        json!({
            "created": "2026-08-01T12:00:00.000Z",
            "status": if charged { "succeeded" } else { "failed" },
            "origin": "api",
            "model": generation.model,
            "cost": {"usd": usd, "credits": credits},
            "tokens": {"input": 0, "output": 0, "total": 0},
            "request_id": null,
            "inference_id": generation.id,
            "client_request_id": generation.client_request_id,
        })
    };
    let rows: Vec<Value> = state.generations[..total]
        .iter()
        .rev()
        .skip(offset)
        .take(limit)
        .map(row)
        .collect();
    let has_more = offset + rows.len() < total;
    let pagination =
        json!({"limit": limit, "offset": offset, "total": total, "has_more": has_more});
    respond(
        200,
        json!({"data": rows, "pagination": pagination}).to_string(),
    )
}

/// The file server, which on the real service is another host, and has no business with the key.
fn file(state: &State, received: &Received, path: &str) -> Answer {
    if received.header("authorization").is_some() {
        return refuse(400, "The API key was sent to the file server", path);
    }
    let number = path
        .strip_prefix("/files/")
        .and_then(|rest| rest.strip_suffix("/output.mp4"));
    if number
        .and_then(|number| state.generations.get(number.parse::<usize>().ok()?))
        .is_none()
    {
        return refuse(404, "Not Found", path);
    }
    let size = state.video.len();
    let tag = &state.tag;
    let fresh = received
        .header("if-range")
        .is_none_or(|known| known == tag.as_str());
    let range = received
        .header("range")
        .filter(|_| fresh)
        .and_then(|range| parse_range(range, size));
    let (status, start, end) = match range {
        None => (200, 0, size),
        Some(Some((start, end))) => (206, start, end),
        Some(None) => {
            let none = refuse(416, "Range Not Satisfiable", path);
            return none.with_header(field("content-range", &format!("bytes */{size}")));
        }
    };
    let bytes = SharedBytes(Arc::clone(&state.video), end);
    let mut reader = Cursor::new(bytes);
    reader.set_position(start as u64);
    let headers = vec![
        field("content-type", "video/mp4"),
        field("accept-ranges", "bytes"),
        field("etag", tag),
    ];
    let answer = Response::new(
        status.into(),
        headers,
        Box::new(reader) as Box<dyn io::Read + Send>,
        Some(end - start),
        None,
    );
    if status == 206 {
        return answer.with_header(field(
            "content-range",
            &format!("bytes {start}-{}/{size}", end - 1),
        ));
    }
    answer
}

fn entity_tag(bytes: &[u8]) -> String {
    format!(
        "\"{:x}\"",
        bytes
            .iter()
            .fold(0_u64, |hash, byte| hash.wrapping_mul(31) + u64::from(*byte))
    )
}

/// The first bytes of a shared file.
struct SharedBytes(Arc<[u8]>, usize);

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

/// `None`: no range that is understood; `Some(None)`: one that can't be served.
fn parse_range(range: &str, size: usize) -> Option<Option<(usize, usize)>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first: usize = first.parse().ok()?;
    let last = if last.is_empty() {
        usize::MAX
    } else {
        last.parse().ok().filter(|last| first <= *last)?
    };
    Some((first < size).then(|| (first, last.saturating_add(1).min(size))))
}

fn respond(status: u16, body: String) -> Answer {
    Response::from_string(body)
        .with_status_code(status)
        .with_header(field("content-type", "application/json"))
        .boxed()
}

fn refuse(status: u16, message: &str, path: &str) -> Answer {
    let body = json!({
        "message": message,
        "path": path,
        "requestId": "00000000-0000-4000-8000-000000000000",
        "statusCode": status,
        "timestamp": "2026-08-01T12:00:00.000Z",
    });
    respond(status, body.to_string())
}

/// The documented messages.
fn outage(status: u16) -> &'static str {
    match status {
        403 => {
            "You've run out of credits. Please top up your balance or update your payment method to continue."
        }
        429 => "Too Many Requests",
        500 => "Internal server error",
        503 => "Service unavailable",
        504 => "Generation timeout",
        _ => "Something wrong with the server. Please, try again later.",
    }
}

fn field(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).unwrap_or_else(|()| Header {
        field: "x-unprintable".parse().expect("a header name"),
        value: Default::default(),
    })
}

/// A parameter of a query, decoded.
fn param(query: &str, name: &str) -> Option<String> {
    let value = query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}
