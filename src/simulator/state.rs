//! What the simulator remembers: the generations, what was asked, and the scripts.

use std::collections::{HashSet, VecDeque, hash_map::RandomState};
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::files::VideoFile;
use super::response::{NOW, Response, cut};
use super::script::{Download, Log, Poll, Post, Received};

/// What one generation costs, in credits and in US dollars: the example of a published schema.
pub(super) const PRICE: (u32, f64) = (120_000, 0.06);

/// The oldest requests are forgotten if all are larger, a thousand bytes each apart from its body.
const MAX_RECEIVED: usize = 64 << 20;

/// With this and a random word of the process, each id begins, so that it is never met again.
pub(super) const ID_START: &str = "simulated-";
static PROCESS: LazyLock<u32> = LazyLock::new(|| RandomState::new().hash_one(ID_START) as u32);
static NUMBER: AtomicUsize = AtomicUsize::new(1);

#[derive(Default)]
pub(super) struct State {
    pub(super) posts: VecDeque<Post>,
    pub(super) polls: VecDeque<Poll>,
    pub(super) downloads: VecDeque<Download>,
    pub(super) logs: VecDeque<Log>,
    pub(super) allowed_models: HashSet<String>,
    pub(super) video: VideoFile,
    pub(super) generations: Vec<Generation>,
    /// The requests that are remembered, and how many there were in all.
    pub(super) received: VecDeque<(Duration, Received)>,
    pub(super) count: usize,
}

pub(super) struct Generation {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) prompt: String,
    client_request_id: Option<String>,
    /// What is left of its script. The last step stays.
    polls: VecDeque<Poll>,
    /// The version of the file that is served. Those before it have expired.
    pub(super) version: usize,
    /// What the polls responded, from when on.
    pub(super) history: Vec<(Duration, Poll)>,
}

/// The time since 1970.
pub(super) fn now() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

impl State {
    pub(super) fn charged(&self) -> usize {
        let generations = self.generations.iter();
        let is_free = |last| matches!(last, Some(&Poll::Fail { charged: false, .. }));
        generations.filter(|one| !is_free(one.polls.back())).count()
    }

    pub(super) fn record(&mut self, request: Received) {
        self.count += 1;
        self.received.push_back((now(), request));
        let size = |(_, one): &(Duration, Received)| 1000 + one.body.len();
        while self.received.iter().map(size).sum::<usize>() > MAX_RECEIVED {
            self.received.pop_front();
        }
    }
}

impl Generation {
    pub(super) fn new(model: &str, prompt: &str, request_id: Option<&str>, state: &State) -> Self {
        let name = model.rsplit('/').next().unwrap_or(model);
        let (process, number) = (*PROCESS, NUMBER.fetch_add(1, SeqCst));
        Generation {
            id: format!("{ID_START}{process:08x}-{number:04}:{name}"),
            model: model.to_owned(),
            prompt: cut(prompt, 500),
            client_request_id: request_id.map(str::to_owned),
            polls: state.polls.clone(),
            version: 0,
            history: vec![(now(), Poll::status("queued"))],
        }
    }

    /// The path of its video.
    pub(super) fn file(&self) -> String {
        let name = self.id.split(':').next().unwrap_or_default();
        format!("/files/{name}/{}/output.mp4", self.version)
    }

    /// What the next poll responds, and after which time.
    pub(super) fn next_step(&mut self) -> (Duration, Poll) {
        let mut wait = Duration::ZERO;
        let step = loop {
            let is_last = self.polls.len() < 2;
            let step = match is_last {
                true => self.polls.front().cloned(),
                false => self.polls.pop_front(),
            };
            match step {
                Some(Poll::Stall(time)) => wait = wait.saturating_add(time),
                step => break step.unwrap_or(Poll::Complete),
            }
            if is_last {
                break Poll::Complete;
            }
        };
        if self.history.last().is_none_or(|(_, last)| *last != step) {
            let at = now().saturating_add(wait);
            self.history.push((at, step.clone()));
        }
        (wait, step)
    }

    /// The step that the script has next, faults aside.
    pub(super) fn state(&self) -> Poll {
        let mut steps = self.polls.iter();
        use Poll::{Complete, Fail, Status};
        let state = steps.find(|step| matches!(step, Status(_) | Complete | Fail { .. }));
        state.cloned().unwrap_or(Complete)
    }

    pub(super) fn response(&self, state: &Poll, url: &str, file_size: usize) -> Response {
        let (credits, usd) = PRICE;
        let video = json!({"url": url, "content_type": "video/mp4", "file_name": "output.mp4",
            "file_size": file_size});
        let usage = json!({"usage": {"credits_used": credits, "usd_spent": usd}});
        let error = match state {
            Poll::Fail { name, message, .. } => json!({"name": name, "message": message}),
            _ => Value::Null,
        };
        let is_charged = state.is_charged();
        let body = json!({"id": self.id, "status": state.word(), "error": error,
            "video": (*state == Poll::Complete).then_some(video),
            "meta": is_charged.then_some(usage)});
        let if_charged = |text: String| is_charged.then_some(text);
        self.json(200, &body)
            .with("x-aimlapi-credits-used", if_charged(credits.to_string()))
            .with("x-aimlapi-usd-spent", if_charged(usd.to_string()))
    }

    /// A response about this generation.
    pub(super) fn json(&self, status: u16, body: &Value) -> Response {
        Response::json(status, body)
            .with("x-inference-id", self.id.clone())
            .with("x-client-request-id", self.client_request_id.clone())
    }

    pub(super) fn log_row(&self) -> Value {
        let state = self.state();
        // What is not finished costs nothing so far.
        let (credits, usd) = if state.is_charged() { PRICE } else { (0, 0.0) };
        // Only these two states are documented.
        let has_failed = matches!(state, Poll::Fail { .. });
        let status = if has_failed { "failed" } else { "succeeded" };
        json!({"created": NOW, "status": status, "origin": "api", "model": self.model,
            "cost": {"usd": usd, "credits": credits},
            "tokens": {"input": 0, "output": 0, "total": 0},
            "request_id": null, "inference_id": self.id,
            "client_request_id": self.client_request_id})
    }
}

impl Poll {
    pub(super) fn is_charged(&self) -> bool {
        matches!(self, Poll::Complete | Poll::Fail { charged: true, .. })
    }

    /// What the step responds, in a word.
    pub(super) fn word(&self) -> String {
        match self {
            Poll::Status(word) => word.clone(),
            Poll::Complete => "completed".to_owned(),
            Poll::Fail { .. } => "error".to_owned(),
            Poll::Reject(status) => status.to_string(),
            Poll::CloseAfter(_) | Poll::Stall(_) | Poll::Raw(_) => "broken off".to_owned(),
        }
    }
}
