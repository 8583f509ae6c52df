//! What each endpoint responds, and what the simulator remembers.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};

use super::server::{Body, Response};
use super::{BEARER, CLIP, Download, Poll, Post, Received, Simulator, models};
use crate::{UNIVERSAL_ENDPOINT, VEO_ENDPOINT};

/// The oldest requests are forgotten if all of them are larger than this.
const MAX_RECEIVED: usize = 64 << 20;

/// The time of all that happens, so that responses are the same in each run.
const NOW: &str = "2026-08-01T12:00:00.000Z";

pub(super) struct Api {
    origin: String,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) posts: VecDeque<Post>,
    pub(super) polls: Vec<Poll>,
    pub(super) downloads: VecDeque<Download>,
    pub(super) hidden_logs: usize,
    pub(super) allowed_models: HashSet<String>,
    pub(super) received: VecDeque<Received>,
    received_size: usize,
    video: Arc<[u8]>,
    tag: String,
    generations: Vec<Generation>,
    by_id: HashMap<String, usize>,
}

struct Generation {
    id: String,
    model: String,
    client_request_id: Option<String>,
    polls: Vec<Poll>,
    /// Which of `polls` is next.
    next: usize,
    /// The version of the file that is served. Those before it have expired.
    version: usize,
}

/// Where a request goes.
#[derive(Clone, Copy)]
enum Route<'a> {
    Create(&'a str),
    Poll,
    Log,
    File(&'a str),
    Unauthorized,
    Unknown,
}

impl<'a> Route<'a> {
    fn of(request: &'a Received) -> Self {
        let (method, path) = (&*request.method, path_of(request));
        let endpoint = path.strip_prefix("/v2/").unwrap_or_default();
        let is_generation =
            [VEO_ENDPOINT, UNIVERSAL_ENDPOINT].contains(&endpoint) || models::is_special(endpoint);
        match (method, path.strip_prefix("/files/")) {
            ("GET" | "HEAD", Some(file)) => Route::File(file),
            _ if request.header("authorization") != Some(BEARER) => Route::Unauthorized,
            ("POST", _) if is_generation => Route::Create(endpoint),
            ("GET", _) if is_generation => Route::Poll,
            ("GET", _) if endpoint == "logs" => Route::Log,
            _ => Route::Unknown,
        }
    }
}

impl Api {
    pub(super) fn new(origin: String) -> Self {
        let polls = vec![
            Poll::Status("queued"),
            Poll::Status("generating"),
            Poll::Complete,
        ];
        let mut state = State {
            polls,
            ..State::default()
        };
        state.set_video(CLIP.into());
        Api {
            origin,
            state: Mutex::new(state),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The step of the script for a request whose head has arrived. Only a POST to the API takes
    /// one.
    pub(super) fn next_post(&self, request: &Received) -> Post {
        let step = match Route::of(request) {
            Route::Create(_) => self.state().posts.pop_front(),
            _ => None,
        };
        step.unwrap_or(Post::Accept)
    }

    pub(super) fn respond(&self, request: Received, body: Vec<u8>, step: Post) -> Response {
        let route = Route::of(&request);
        let json = match route {
            Route::Create(_) => serde_json::from_slice(&body).ok(),
            _ => None,
        };
        let mut state = self.state();
        let result = match route {
            Route::Create(endpoint) => state.create(endpoint, &request, json, step),
            Route::Poll => state.poll(&request, &self.origin),
            Route::Log => state.log(&request),
            Route::File(file) => state.file(&request, file),
            Route::Unauthorized => rejection(401),
            Route::Unknown => not_found(),
        };
        let response = result.unwrap_or_else(|(status, message)| {
            Response::error(status, &message, path_of(&request))
        });
        state.record(request, body);
        response
    }
}

/// The error is the status and the message of a response with the documented body.
type Result<T> = std::result::Result<T, (u16, String)>;

impl State {
    pub(super) fn set_video(&mut self, video: Arc<[u8]>) {
        let mut hasher = DefaultHasher::new();
        video.hash(&mut hasher);
        self.tag = format!("\"{:016x}\"", hasher.finish());
        self.video = video;
    }

    pub(super) fn charged(&self) -> usize {
        let fails =
            |generation: &&Generation| matches!(generation.polls.last(), Some(Poll::Fail { .. }));
        self.generations.len() - self.generations.iter().filter(fails).count()
    }

    pub(super) fn record(&mut self, mut request: Received, body: Vec<u8>) {
        let size = |request: &Received| {
            let headers = request
                .headers
                .iter()
                .map(|(name, value)| 64 + name.len() + value.len());
            256 + request.url.len() + headers.sum::<usize>() + request.body.len()
        };
        request.body = String::from_utf8(body)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        self.received_size += size(&request);
        self.received.push_back(request);
        while self.received_size > MAX_RECEIVED
            && let Some(oldest) = self.received.pop_front()
        {
            self.received_size -= size(&oldest);
        }
    }

    fn create(
        &mut self,
        endpoint: &str,
        request: &Received,
        json: Option<Value>,
        step: Post,
    ) -> Result<Response> {
        match step {
            Post::Reject(status) => return rejection(status),
            Post::Raw(text) => return Ok(Response::raw(text)),
            _ => {}
        }
        let invalid = |hint: String| (400, format!("Body validation error: {hint}"));
        let Some(Value::Object(body)) = json else {
            return Err(invalid("Expected object, received no object".to_owned()));
        };
        let is_allowed = |name: &str| self.allowed_models.contains(name);
        let model = models::check(endpoint, &body, is_allowed).map_err(invalid)?;
        let number = self.generations.len();
        let name = model.rsplit('/').next().unwrap_or(model);
        let generation = Generation {
            id: format!("51a0{number:04x}-0000-4000-8000-{number:012x}:{name}"),
            model: model.to_owned(),
            client_request_id: client_request_id(request),
            polls: self.polls.clone(),
            next: 0,
            version: 0,
        };
        // The universal endpoint's schema has 200, transcripts of the other one 201.
        let status = 201 - u16::from(endpoint == UNIVERSAL_ENDPOINT);
        let body = json!({"id": generation.id, "status": "queued"});
        let mut response = Response::json(status, &body);
        response.headers.extend(generation.headers());
        match step {
            Post::Stall(time) => response.wait = time,
            Post::DropResponse => response.raw = Some(String::new()),
            _ => {}
        }
        self.by_id.insert(generation.id.clone(), number);
        self.generations.push(generation);
        Ok(response)
    }

    fn poll(&mut self, request: &Received, origin: &str) -> Result<Response> {
        let query = query_of(request);
        let index = query.get("generation_id").and_then(|id| self.by_id.get(id));
        let Some(&index) = index else {
            return not_found();
        };
        let generation = &mut self.generations[index];
        let url = format!("{origin}/files/{index}/{}/output.mp4", generation.version);
        let (wait, step) = generation.next_step();
        let mut response = match step {
            Poll::Reject(status) => Response::error(status, documented(status), path_of(request)),
            Poll::Raw(text) => Response::raw(text),
            Poll::CloseAfter(end) => {
                let mut response = generation.response(&generation.state(), &url, self.video.len());
                response.cut = Some(end);
                response
            }
            step => generation.response(&step, &url, self.video.len()),
        };
        response.wait = wait;
        Ok(response)
    }

    fn log(&mut self, request: &Received) -> Result<Response> {
        let mut query = query_of(request);
        let invalid = |name: &str, expected: &str, received: &str| {
            let hint = format!("{name}: Expected {expected}, received {received:?}");
            (400, hint)
        };
        let period = query.remove("period").unwrap_or_else(|| "24h".to_owned());
        let count = period
            .strip_suffix(['h', 'd'])
            .and_then(|count| count.parse::<u64>().ok());
        if count.is_none_or(|count| count == 0) {
            return Err(invalid("period", "a positive integer and h or d", &period));
        }
        let mut number = |name: &str, default: usize, allowed: RangeInclusive<u64>| {
            let Some(text) = query.remove(name) else {
                return Ok(default);
            };
            let number = text.parse().ok().filter(|number| allowed.contains(number));
            let number = number.and_then(|number| number.try_into().ok());
            number.ok_or_else(|| invalid(name, &format!("an integer in {allowed:?}"), &text))
        };
        let limit = number("limit", 50, 1..=100)?;
        let offset = number("offset", 0, 0..=u64::MAX)?;
        if let Some((name, value)) = query.first_key_value() {
            return Err(invalid(name, "period, limit and offset only", value));
        }
        let is_hidden = self.hidden_logs > 0;
        self.hidden_logs = self.hidden_logs.saturating_sub(1);
        let total = if is_hidden { 0 } else { self.generations.len() };
        let rows = self.generations[..total].iter().rev();
        let rows = rows.skip(offset).take(limit).map(Generation::log_row);
        let rows: Vec<Value> = rows.collect();
        let has_more = offset.saturating_add(rows.len()) < total;
        let pagination =
            json!({"limit": limit, "offset": offset, "total": total, "has_more": has_more});
        let body = json!({"data": rows, "pagination": pagination});
        Ok(Response::json(200, &body))
    }

    /// The file server, which for the real API is another host that must not get the key.
    fn file(&mut self, request: &Received, file: &str) -> Result<Response> {
        if request.header("authorization").is_some() {
            return Err((400, "The API key was sent to the file server".to_owned()));
        }
        let parts: Vec<&str> = file.split('/').collect();
        let [index, version, "output.mp4"] = *parts else {
            return not_found();
        };
        let (Ok(index), Ok(version)) = (index.parse::<usize>(), version.parse::<usize>()) else {
            return not_found();
        };
        let Some(generation) = self.generations.get_mut(index) else {
            return not_found();
        };
        if version > generation.version {
            return not_found();
        }
        let step = if version < generation.version {
            Download::Expire
        } else {
            self.downloads.pop_front().unwrap_or(Download::Serve)
        };
        let (mut cut, mut halfway) = (None, Duration::ZERO);
        match step {
            Download::Serve => {}
            Download::CloseAfter(end) => cut = Some(end),
            Download::Stall(time) => halfway = time,
            Download::Reject(status) => return rejection(status),
            Download::Raw(text) => return Ok(Response::raw(text)),
            Download::Expire => {
                generation.version = generation.version.max(version + 1);
                return Err((403, "The URL has expired".to_owned()));
            }
        }
        let size = self.video.len() as u64;
        let is_current = request
            .header("if-range")
            .is_none_or(|known| known == self.tag);
        let range = request.header("range").filter(|_| is_current);
        let range = range.and_then(|range| parse_range(range, size));
        let (start, end) = range.unwrap_or((0, size));
        let mut headers = vec![("etag", self.tag.clone())];
        headers.push(("accept-ranges", "bytes".to_owned()));
        headers.push(("content-type", "video/mp4".to_owned()));
        let status = match range {
            None => 200,
            Some((start, _)) if start >= size => {
                let path = path_of(request);
                let mut response = Response::error(416, "Range Not Satisfiable", path);
                let range = ("content-range", format!("bytes */{size}"));
                response.headers.push(range);
                return Ok(response);
            }
            Some(_) => {
                headers.push(("content-range", format!("bytes {start}-{}/{size}", end - 1)));
                206
            }
        };
        // Both fit: they are at most the length of the slice.
        let body = Body::File(Arc::clone(&self.video), start as usize..end as usize);
        let response = Response {
            status,
            headers,
            body,
            ..Response::default()
        };
        Ok(Response {
            cut,
            halfway,
            ..response
        })
    }
}

impl Generation {
    /// What the next poll responds, and after which time.
    fn next_step(&mut self) -> (Duration, Poll) {
        let mut wait = Duration::ZERO;
        loop {
            let step = self.polls.get(self.next).cloned().unwrap_or(Poll::Complete);
            let is_last = self.next + 1 >= self.polls.len();
            self.next += usize::from(!is_last);
            match step {
                Poll::Stall(time) => wait = wait.saturating_add(time),
                step => return (wait, step),
            }
            if is_last {
                return (wait, Poll::Complete);
            }
        }
    }

    /// The step that the script has next, faults aside.
    fn state(&self) -> Poll {
        let mut steps = self.polls.iter().skip(self.next);
        let state =
            steps.find(|step| matches!(step, Poll::Status(_) | Poll::Complete | Poll::Fail { .. }));
        state.cloned().unwrap_or(Poll::Complete)
    }

    fn response(&self, state: &Poll, url: &str, file_size: usize) -> Response {
        let mut body = json!({"id": self.id, "video": null, "error": null, "meta": null});
        let (credits, usd) = Simulator::PRICE;
        let mut cost = Vec::new();
        body["status"] = match state {
            Poll::Status(word) => (*word).into(),
            Poll::Fail { name, message } => {
                body["error"] = json!({"name": name, "message": message});
                "error".into()
            }
            _ => {
                body["video"] = json!({"url": url, "content_type": "video/mp4"});
                body["video"]["file_name"] = "output.mp4".into();
                body["video"]["file_size"] = file_size.into();
                body["meta"] = json!({"usage": {"credits_used": credits, "usd_spent": usd}});
                cost.push(("x-aimlapi-credits-used", credits.to_string()));
                cost.push(("x-aimlapi-usd-spent", usd.to_string()));
                "completed".into()
            }
        };
        let mut response = Response::json(200, &body);
        response.headers.extend(self.headers().chain(cost));
        response
    }

    fn headers(&self) -> impl Iterator<Item = (&'static str, String)> + use<> {
        let id = self.client_request_id.clone();
        let id = id.map(|id| ("x-client-request-id", id));
        [("x-inference-id", self.id.clone())].into_iter().chain(id)
    }

    fn log_row(&self) -> Value {
        // Only these two states are documented; what is not finished costs nothing so far.
        let (status, (credits, usd)) = match self.state() {
            Poll::Complete => ("succeeded", Simulator::PRICE),
            Poll::Fail { .. } => ("failed", (0, 0.0)),
            _ => ("succeeded", (0, 0.0)),
        };
        json!({
            "created": NOW,
            "status": status,
            "origin": "api",
            "model": self.model,
            "cost": {"usd": usd, "credits": credits},
            "tokens": {"input": 0, "output": 0, "total": 0},
            "request_id": null,
            "inference_id": self.id,
            "client_request_id": self.client_request_id,
        })
    }
}

impl Response {
    fn json(status: u16, body: &Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        let body = Body::Bytes(body.to_string().into_bytes());
        Response {
            status,
            headers,
            body,
            ..Response::default()
        }
    }

    /// With the documented body.
    pub(super) fn error(status: u16, message: &str, path: &str) -> Self {
        let body = json!({
            "message": message,
            "path": path,
            "requestId": "00000000-0000-4000-8000-000000000000",
            "statusCode": status,
            "timestamp": NOW,
        });
        Response::json(status, &body)
    }

    fn raw(text: String) -> Self {
        Response {
            raw: Some(text),
            ..Response::default()
        }
    }
}

fn rejection(status: u16) -> Result<Response> {
    Err((status, documented(status).to_owned()))
}

fn not_found() -> Result<Response> {
    rejection(404)
}

const OUT_OF_CREDITS: &str = "You've run out of credits. Please top up your balance or update your \
                              payment method to continue.";

/// The published messages, and HTTP's own for what is not published.
pub(super) fn documented(status: u16) -> &'static str {
    match status {
        400 => "Body validation error",
        401 => "This request requires a valid API key. The simulator's is simulator-key.",
        403 => OUT_OF_CREDITS,
        404 => "Not Found",
        413 => "Payload Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal server error",
        503 => "Service unavailable",
        504 => "Generation timeout",
        _ => "Something wrong with the server. Please, try again later.",
    }
}

fn path_of(request: &Received) -> &str {
    request.url.split('?').next().unwrap_or_default()
}

/// The parameters of the URL, decoded.
fn query_of(request: &Received) -> BTreeMap<String, String> {
    let query = request.url.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let escaped = match tail {
            [a, b, ..] if *first == b'%' => digit(*a).zip(digit(*b)),
            _ => None,
        };
        rest = if escaped.is_some() { &tail[2..] } else { tail };
        bytes.push(match escaped {
            Some((a, b)) => (a * 16 + b) as u8,
            None if *first == b'+' => b' ',
            None => *first,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An id as documented. The API silently drops others.
fn client_request_id(request: &Received) -> Option<String> {
    let id = request.header("x-client-request-id")?;
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    let is_valid = (1..=128).contains(&id.len()) && id.bytes().all(is_allowed);
    is_valid.then(|| id.to_owned())
}

/// The first byte, and the one after the last. `None` for what is not understood, which means the
/// whole file.
fn parse_range(range: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = match last {
        "" => (first.parse().ok()?, u64::MAX),
        last => (first.parse().ok()?, last.parse().ok()?),
    };
    (first <= last).then(|| (first, last.saturating_add(1).min(size)))
}
