//! A service like the vendor's, for video files: it generates what it is asked for, unless a test
//! says otherwise.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use crate::support::{self, Act, Request, Server, response};

/// A response.
#[derive(Clone)]
pub(crate) enum Say {
    /// A status and a body, where ID is the id that the request is about: that of the generation,
    /// or in the usage log the client request id of the last POST.
    Json(u16, String),
    Acts(Vec<Act>),
}

pub(crate) fn say(status: u16, body: &str) -> Say {
    Say::Json(status, body.to_owned())
}

impl Say {
    fn about(self, id: &str) -> Vec<Act> {
        match self {
            Say::Json(status, body) => support::json(status, &body.replace("ID", id)),
            Say::Acts(acts) => acts,
        }
    }
}

/// What the service says next, instead of what it says by itself.
#[derive(Default)]
pub(crate) struct Script {
    /// To the next POSTs; and whether a generation is made.
    pub(crate) posts: VecDeque<(bool, Say)>,
    pub(crate) polls: VecDeque<Say>,
    /// To all polls after these.
    pub(crate) poll: Option<Say>,
    pub(crate) logs: VecDeque<Say>,
    pub(crate) log: Option<Say>,
    pub(crate) downloads: VecDeque<Say>,
    pub(crate) download: Option<Say>,
    /// Is called when a POST has come, before the response.
    pub(crate) on_post: Option<Box<dyn FnMut() + Send>>,
    /// How ids begin, if not with `gen:`.
    pub(crate) prefix: Option<&'static str>,
    /// The id and the client request id of each generation.
    made: Vec<(String, String)>,
    last_request: String,
}

pub(crate) struct Service {
    server: Server,
    script: Arc<Mutex<Script>>,
}

impl Service {
    pub(crate) fn start() -> Self {
        let script = Arc::<Mutex<Script>>::default();
        let shared = Arc::clone(&script);
        let server = Server::start(move |request, _| shared.lock().unwrap().respond(request));
        Service { server, script }
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    pub(crate) fn base_url(&self) -> String {
        self.url("/v2")
    }

    pub(crate) fn host(&self) -> String {
        self.address().to_string()
    }

    pub(crate) fn lookups(&self) -> usize {
        let targets = self.targets().into_iter();
        targets.filter(|target| target.contains("/logs?")).count()
    }
}

impl Deref for Service {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// What is said next: once, or always; or nothing, where the service says it by itself.
fn next(once: &mut VecDeque<Say>, always: &Option<Say>) -> Option<Say> {
    once.pop_front().or_else(|| always.clone())
}

impl Script {
    fn respond(&mut self, request: &Request) -> Vec<Act> {
        let target = request.target.as_str();
        if request.is_post() {
            return self.post(request);
        }
        if target.contains("/logs?") {
            let said = next(&mut self.logs, &self.log).unwrap_or_else(|| self.rows());
            return said.about(&self.last_request);
        }
        if let Some((_, id)) = target.split_once("generation_id=") {
            let said = next(&mut self.polls, &self.poll).unwrap_or_else(|| completed(request));
            return said.about(&id.replace("%3A", ":"));
        }
        let id = target.trim_start_matches('/');
        let said = next(&mut self.downloads, &self.download);
        let video = || response(200, &[("content-type", "video/mp4")], video(id));
        said.map_or_else(video, |said| said.about(id))
    }

    fn post(&mut self, request: &Request) -> Vec<Act> {
        if let Some(on_post) = &mut self.on_post {
            on_post();
        }
        let client_request_id = request.header("x-client-request-id").unwrap();
        client_request_id.clone_into(&mut self.last_request);
        let prefix = self.prefix.unwrap_or("gen:");
        let id = format!("{prefix}{}", self.made.len() + 1);
        let by_itself = || (true, say(201, r#"{"id": "ID", "status": "queued"}"#));
        let (is_made, said) = self.posts.pop_front().unwrap_or_else(by_itself);
        if is_made {
            self.made.push((id.clone(), client_request_id.to_owned()));
        }
        said.about(&id)
    }

    fn rows(&self) -> Say {
        let row = |(id, client_request_id): &(String, String)| {
            let cost = json!({"usd": 0.06, "credits": 120_000});
            json!({"client_request_id": client_request_id, "inference_id": id, "status": "succeeded", "cost": cost})
        };
        let rows = Value::from_iter(self.made.iter().rev().map(row));
        say(200, &json!({"data": rows}).to_string())
    }
}

fn completed(request: &Request) -> Say {
    let host = request.header("host").unwrap();
    let video = json!({"url": format!("http://{host}/ID"), "file_size": video("").len()});
    let usage = json!({"usage": {"credits_used": 120_000, "usd_spent": 0.06}});
    let body = json!({"id": "ID", "status": "completed", "video": video, "meta": usage});
    say(200, &body.to_string())
}

/// The video of this generation. All have one size, so that only their bytes tell them apart.
pub(crate) fn video(id: &str) -> Vec<u8> {
    let head = b"\0\0\0\x14ftypisom".as_slice();
    [head, format!("{id:>40}").repeat(50).as_bytes()].concat()
}
