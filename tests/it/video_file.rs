//! The contract of a video file: each request is paid for once, whatever happens in between.

use std::path::{Path, PathBuf};
use std::{fs, sync::Mutex, thread, time::Duration};

use aimlapi_video::simulator::{CLIP, Download, Poll, Post, Simulator};
use aimlapi_video::{Attempt, Client, Error, Progress, State, VideoFile, VideoRequest};
use serde_json::{Value, json};

use crate::support::{Act, Folder, Server, child, child_task, http, json, refusal, stdout};

fn request(prompt: &str) -> VideoRequest {
    VideoRequest::new(prompt)
}

fn generate(client: &Client, path: impl AsRef<Path>, prompt: &str) -> Result<Attempt, Error> {
    VideoFile::new(path.as_ref(), request(prompt)).generate(client, |_| {})
}

fn receipt_path(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.receipt.json", path.display()))
}

fn receipt_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(receipt_path(path)).unwrap()).unwrap()
}

fn nowhere() -> Client {
    let builder = crate::support::builder("http://127.0.0.1:9/v2");
    builder.build().unwrap()
}

/// A folder with one video file, and a service.
struct World {
    folder: Folder,
    api: Simulator,
}

/// What a run of `generate` came to.
struct Run<'a> {
    world: &'a World,
    prompt: &'a str,
    requests: usize,
    result: Result<Attempt, Error>,
}

impl World {
    fn new() -> Self {
        let (folder, api) = (Folder::new(), Simulator::start().unwrap());
        api.script_polls([Poll::Complete]);
        World { folder, api }
    }

    fn path(&self) -> PathBuf {
        self.folder.path("v.mp4")
    }

    fn file(&self, prompt: &str) -> VideoFile {
        VideoFile::new(self.path(), request(prompt))
    }

    fn run<'a>(&'a self, prompt: &'a str) -> Run<'a> {
        self.run_at(&self.api.client(), prompt)
    }

    fn run_at<'a>(&'a self, client: &Client, prompt: &'a str) -> Run<'a> {
        let before = self.api.received().len();
        let result = generate(client, self.path(), prompt);
        let requests = self.api.received().len() - before;
        Run {
            world: self,
            prompt,
            requests,
            result,
        }
    }

    /// A client that gives up waiting after this many milliseconds.
    fn hasty(&self, millis: u64) -> Client {
        let builder = self
            .api
            .client_builder()
            .poll_interval(Duration::from_millis(1));
        let builder = builder.poll_timeout(Duration::from_millis(millis));
        builder.build().unwrap()
    }

    fn posts(&self) -> usize {
        let received = self.api.received();
        received.iter().filter(|r| r.method == "POST").count()
    }

    fn is_paid(&self, charged: usize, posts: usize) {
        let counts = (self.api.charged(), self.posts());
        assert_eq!(counts, (charged, posts), "charged, POSTs");
    }

    fn states(&self, expected: &str) {
        let receipt = self.file("A").receipt().unwrap();
        let attempts = receipt.map_or(Vec::new(), |receipt| receipt.attempts);
        let states: Vec<State> = attempts.iter().map(|attempt| attempt.state).collect();
        assert_eq!(format!("{states:?}"), expected);
    }

    fn edit_newest(&self, field: &str, value: Value) {
        let mut receipt = receipt_of(&self.path());
        let attempts = receipt["attempts"].as_array_mut().unwrap();
        attempts.last_mut().unwrap()[field] = value;
        fs::write(receipt_path(&self.path()), receipt.to_string()).unwrap();
    }

    /// Weeks later, the server responds to all polls for known generations like this.
    fn later(&self, status: u16, poll: &str) -> Client {
        let receipt = self.file("A").receipt().unwrap().unwrap();
        let id = receipt.attempts.last().unwrap().generation_id.clone();
        let poll = poll.replace("ID", &id.unwrap());
        let server = Box::leak(Box::new(Server::start(move |request, _| {
            assert!(!request.is_post(), "paid again");
            json(status, &poll)
        })));
        server.client()
    }

    /// Does what the steps of a story say.
    fn tell(&self, steps: &str) {
        for step in steps.split("; ") {
            let words: Vec<&str> = step.split(' ').collect();
            let n = |at: usize| words[at].parse::<usize>().unwrap();
            let (path, rest) = (self.path(), |at: usize| words[at..].join(" "));
            match words[..] {
                ["offline", prompt, ..] => self.run_at(&nowhere(), prompt).ends(&rest(2)),
                ["hasty", prompt, ..] => self.run_at(&self.hasty(1), prompt).ends(&rest(2)),
                ["receipt", ..] => self.states(&rest(1)),
                ["paid", _] => self.is_paid(n(1), n(1)),
                ["paid", _, "of", _] => self.is_paid(n(1), n(3)),
                // A person gives the newest attempt up.
                ["given", "up"] => self.edit_newest("state", json!("failed")),
                ["post", "rejected", _] => self.api.script_posts([Post::Reject(n(2) as u16)]),
                ["response", "lost"] => self.api.script_posts([Post::DropResponse]),
                ["log", "late", _] => self.api.hide_log(n(2)),
                ["polls", "fail"] => self.api.script_polls([fail()]),
                ["polls", "wait"] => self.api.script_polls([queued(), queued(), Poll::Complete]),
                ["polls", "complete"] => self.api.script_polls([Poll::Complete]),
                ["URL", "expires"] => self.api.script_downloads([Download::Expire]),
                ["downloads", "rejected", _, _] => {
                    let rejections = vec![Download::Reject(n(2) as u16); n(3)];
                    self.api.script_downloads(rejections);
                }
                ["file", "deleted"] => fs::remove_file(path).unwrap(),
                ["file", "cut"] => fs::write(path, &CLIP[..1000]).unwrap(),
                ["file", "longer"] => fs::write(path, [CLIP, b"more"].concat()).unwrap(),
                ["file", "restored"] => fs::write(path, CLIP).unwrap(),
                ["file", "mine"] => fs::write(path, "mine").unwrap(),
                ["file", "still", "mine"] => assert!(fs::read(path).unwrap() == b"mine"),
                ["not", "current"] => assert!(!self.file("A").is_current().unwrap()),
                _ => self.run(words[0]).ends(&rest(1)),
            }
        }
    }
}

impl Run<'_> {
    fn ends(self, outcome: &str) {
        let receipt = receipt_path(&self.world.path());
        let free = "is there, and no video for it is in";
        match outcome {
            "saves" => return self.saves(),
            "is there" => {
                assert_eq!(self.requests, 0);
                return self.saves();
            }
            "is refused" => return self.refuses(free),
            _ => {}
        }
        let error = self.error();
        match (outcome, &error) {
            // It ended free of charge, and may be sent again.
            ("fails", Error::Failed(_)) => {}
            ("is unsent", Error::Network { .. }) => {}
            ("times out", Error::TimedOut { .. }) => {}
            ("is not saved", Error::File { .. }) => {}
            ("is unknown", Error::OutcomeUnknown { .. }) => names_the_edit(&error, &receipt),
            // Asking again may not help: only a person can permit another payment.
            ("is stuck", Error::File { .. }) => {
                assert!(error.generation_id().is_some(), "{error}");
                names_the_edit(&error, &receipt);
            }
            (_, Error::Api(api)) => assert_eq!(outcome, format!("is rejected {}", api.status)),
            _ => panic!("not {outcome}: {error}"),
        }
    }

    fn saves(self) {
        let (world, prompt) = (self.world, self.prompt);
        let attempt = self.result.unwrap_or_else(|e| panic!("{prompt}: {e}"));
        let ended = (attempt.prompt.as_deref(), attempt.state);
        assert_eq!(ended, (Some(prompt), State::Completed));
        assert!(fs::read(world.path()).unwrap() == CLIP);
        let saved = &receipt_of(&world.path())["saved"]["generation_id"];
        assert_eq!(saved.as_str(), attempt.generation_id.as_deref());
        assert_eq!(world.folder.names(), ["v.mp4", "v.mp4.receipt.json"]);
        assert!(world.file(prompt).is_current().unwrap());
    }

    fn error(self) -> Error {
        let error = self.result.expect_err(self.prompt);
        let names = self.world.folder.names();
        let is_left = |name: &&String| name.ends_with(".part") || name.ends_with(".lock");
        let left = names.iter().find(is_left);
        assert_eq!(left, None, "left behind after {error}");
        error
    }

    /// Something about the file has to be fixed first.
    fn refuses(self, reason: &str) {
        assert_eq!(self.requests, 0);
        let error = self.error();
        assert!(matches!(error, Error::File { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

fn names_the_edit(error: &Error, receipt: &Path) {
    let text = error.to_string();
    assert!(text.contains("\"state\" to \"failed\""), "{text}");
    assert!(text.contains(&receipt.display().to_string()), "{text}");
    assert!(!text.contains("delete"), "{text}");
}

fn queued() -> Poll {
    Poll::status("queued")
}

fn fail() -> Poll {
    Poll::fail("SafetyError", "Rejected.")
}

/// The contract. Below its name, each story has the runs of a program, with what comes of each, and
/// what happens between two runs.
const STORIES: &str = "
    a request is paid once, and then nothing is sent
        A saves; A is there; offline A is there; paid 1
    A, B, A: each is paid once
        A saves; B saves; A saves; B saves; paid 2; receipt [Completed, Completed]
    A, a B that fails, A: nothing is sent for A
        A saves; polls fail; B fails; A is there; receipt [Completed, Failed]
    A, a rejected B, A: nothing is sent for A
        A saves; post rejected 403; B is rejected 403; A is there
    A, a B that is not sent, A: B leaves no entry
        A saves; offline B is unsent; receipt [Completed]; offline A is there
    A, a B whose response is lost, A, B: B is looked up
        A saves; response lost; log late 1; B is unknown; A is there; B saves; paid 2
    A, a B that times out, A, B: B is waited for
        A saves; polls wait; hasty B times out; A is there; B saves; paid 2
    A, a B whose download fails, A: the file of A stays
        A saves; downloads rejected 400 1; B is not saved; A is there; B saves; paid 2
    a lost response is found in the usage log
        response lost; A saves; paid 1
    a lost response is looked up until the log has it
        response lost; log late 3; A is unknown; receipt [Sending]; A is unknown; A is unknown; receipt [Sending]; A saves; paid 1
    a lost response that a person gives up is paid again
        response lost; log late 1; A is unknown; given up; A saves; receipt [Failed, Completed]; paid 2
    a failed generation is sent again
        polls fail; A fails; polls complete; A saves; receipt [Failed, Completed]; paid 1 of 2
    a request that is not sent leaves nothing
        offline A is unsent; receipt []; A saves; paid 1
    a deleted file is downloaded again
        A saves; file deleted; not current; A saves; paid 1
    a truncated file is downloaded again
        A saves; file cut; A saves; paid 1
    a file that was replaced by another size is downloaded again
        A saves; file longer; A saves; paid 1
    a file without its receipt is not overwritten
        file mine; A is refused; file still mine
    a file without its receipt is not overwritten after a failed run either
        offline A is unsent; file mine; A is refused
    a file of the user's own is not overwritten after a rejected request either
        post rejected 403; A is rejected 403; file mine; A is refused; file still mine
    a URL that expires is renewed
        URL expires; A saves; paid 1
    a URL that is dead after weeks is a dead end, until it is given up
        A saves; file deleted; downloads rejected 404 4; A is stuck; A is stuck; paid 1; given up; A saves; paid 2
";

type Story = fn(&World);

/// The stories with more to them than steps.
const LONG_STORIES: &[(&str, Story)] = &[
    ("a slow service is waited for", |w| {
        let pause = Duration::from_millis(5);
        let busy = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_owned();
        w.api.script_posts([Post::Stall(pause)]);
        w.api
            .script_polls([Poll::Stall(pause), Poll::CloseAfter(9), Poll::Complete]);
        let downloads = [Download::Raw(busy), Download::Stall(pause)];
        w.api.script_downloads(downloads);
        w.tell("A saves; paid 1");
    }),
    (
        "a proxy's page for the POST leaves its outcome unknown",
        |w| {
            let page = "HTTP/1.1 502 Bad Gateway\r\n\r\n<html>".to_owned();
            w.api.script_posts([Post::Raw(page), Post::Accept]);
            w.tell("A is unknown; A is unknown; receipt [Sending]; given up; A saves; paid 1 of 2");
        },
    ),
    ("a lost response of a failure is paid again", |w| {
        w.tell("response lost; polls fail; log late 1; A is unknown; polls complete");
        // The log says that it failed, or a poll does.
        for _ in 0..3 {
            if w.api.charged() == 0 {
                let _ = w.run("A");
            }
        }
        w.tell("A is there; paid 1 of 2");
    }),
    (
        "a rejected request is sent again, its entry replaced",
        |w| {
            for status in [400, 401, 403, 409, 422, 429, 500, 503] {
                w.api.script_posts([Post::Reject(status)]);
                w.run("A").ends(&format!("is rejected {status}"));
                w.states("[Failed]");
            }
            w.tell("A saves; receipt [Completed]");
        },
    ),
    ("outages while waiting and downloading cost nothing", |w| {
        use Poll::{CloseAfter, Complete, Reject};
        let polls = [Reject(503), CloseAfter(9), Reject(429), Complete];
        w.api.script_polls(polls);
        use Download as D;
        let cuts = [D::CloseAfter(1000), D::Expire, D::CloseAfter(2000)];
        let downloads = [D::Reject(503)].into_iter().chain(cuts);
        w.api.script_downloads(downloads);
        w.tell("A saves; paid 1");
    }),
    ("a file and its receipt can be copied", |w| {
        w.tell("A saves");
        let copy = w.folder.path("copy.mp4");
        fs::rename(w.path(), &copy).unwrap();
        fs::rename(receipt_path(&w.path()), receipt_path(&copy)).unwrap();
        let copied = VideoFile::new(&copy, request("A"));
        assert!(copied.is_current().unwrap());
        copied.generate(&nowhere(), |_| {}).unwrap();
        // The receipt alone is enough to download the file again.
        fs::remove_file(&copy).unwrap();
        copied.generate(&w.api.client(), |_| {}).unwrap();
        w.tell("paid 1");
    }),
    ("a generation that the server forgot is a dead end", |w| {
        w.tell("A saves; file deleted");
        let forgetful = w.later(404, r#"{"message": "Not Found", "statusCode": 404}"#);
        for _ in 0..3 {
            w.run_at(&forgetful, "A").ends("is stuck");
        }
        // Restored from version control, the file counts.
        w.tell("file restored; offline A is there");
    }),
    ("a video that was there once is never paid again", |w| {
        w.tell("A saves; file deleted");
        for status in ["expired", "error", "failed", "cancelled", "completed"] {
            let poll = format!(r#"{{"id": "ID", "status": "{status}"}}"#);
            w.edit_newest("usage", Value::Null);
            for _ in 0..2 {
                w.run_at(&w.later(200, &poll), "A").ends("is stuck");
            }
        }
    }),
    ("an end without a video that may cost is a dead end", |w| {
        w.tell("polls wait; hasty A times out");
        for poll in [
            r#"{"id": "ID", "status": "expired"}"#,
            r#"{"id": "ID", "status": "completed", "video": null}"#,
            r#"{"id": "ID", "status": "failed", "meta": {"usage": {"credits_used": 7}}}"#,
            r#"{"id": "ID", "status": "generating", "error": {"message": "Slow."}}"#,
            r#"{"status": "error", "message": "Gateway timeout"}"#,
            r#"{"status": "error", "error": {"message": "Gateway timeout"}}"#,
            r#"{"status": "cancelled"}"#,
        ] {
            w.run_at(&w.later(200, poll), "A").ends("is stuck");
            w.states("[Waiting]");
        }
    }),
    ("a response about another generation ends nothing", |w| {
        let other = r#"{"id": "other", "status":"failed"}"#;
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 33\r\n\r\n";
        w.api.script_polls([Poll::Raw(format!("{head}{other}"))]);
        w.run_at(&w.hasty(300), "A").ends("times out");
        w.states("[Waiting]");
    }),
    (
        "a status that names this one, free of charge, ends it",
        |w| {
            let statuses = "error failed cancelled canceled Aborted rejected";
            for (n, status) in statuses.split(' ').enumerate() {
                w.tell("polls wait; hasty A times out");
                assert_eq!(w.posts(), n + 1);
                let poll = format!(r#"{{"id": "ID", "status": "{status}"}}"#);
                w.run_at(&w.later(200, &poll), "A").ends("fails");
            }
        },
    ),
    ("a changed parameter is another request", |w| {
        let is_current = |request| VideoFile::new(w.path(), request).is_current().unwrap();
        let plain = VideoFile::new(w.path(), request("A").seed(1).duration(4));
        plain.generate(&w.api.client(), |_| {}).unwrap();
        let same = || request("A").duration(4).seed(1);
        assert!(is_current(same()), "its order is none");
        assert!(is_current(same().model("google/veo3")));
        assert!(is_current(same().client_request_id("x")));
        assert!(!is_current(same().seed(2)));
        assert!(!is_current(request("A").duration(4)));
        assert!(!is_current(same().model("veo2")));
    }),
    ("two processes with two requests pay for each once", |w| {
        thread::scope(|scope| {
            for prompt in ["A", "B", "A", "B"] {
                scope.spawn(move || generate(&w.api.client(), w.path(), prompt).unwrap());
            }
        });
        w.tell("paid 2");
    }),
    ("an unreadable receipt sends nothing and stays", |w| {
        w.tell("A saves");
        let empty = r#"{"version": 3, "saved": null, "attempts": []}"#;
        for bad in ["", "{", "{}", "[]", "{\"version\": 2}", empty, "\0"] {
            let path = receipt_path(&w.path());
            fs::write(&path, bad).unwrap();
            w.run("A").refuses("is not a receipt that can be read");
            assert_eq!(fs::read_to_string(path).unwrap(), bad);
            assert!(w.file("A").is_current().is_err());
        }
    }),
];

#[test]
fn the_contract_holds_in_every_story() {
    let lines = STORIES
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.collect();
    for story in lines.chunks(2) {
        println!("{}", story[0]);
        World::new().tell(story[1]);
    }
    for (name, story) in LONG_STORIES {
        println!("{name}");
        story(&World::new());
    }
    assert!(lines.len() / 2 + LONG_STORIES.len() >= 30);
}

/// An API that responds to POSTs like this, and to polls with 404.
fn naming_api(post: Vec<Act>) -> Server {
    Server::start(move |request, _| match request.is_post() {
        true => post.clone(),
        false => refusal(404, "Not Found"),
    })
}

/// A response whose head names gen:7.
fn naming(status: u16, body: &str) -> Vec<Act> {
    vec![Act::Send(http(
        status,
        &[("x-inference-id", "gen:7")],
        body,
    ))]
}

#[test]
fn an_id_that_the_server_named_once_stays_on_disk() {
    for status in [400, 403, 409, 422, 429, 504] {
        let body = json!({"message": "No", "statusCode": status}).to_string();
        let world = World::new();
        world.tell("A saves");
        let server = naming_api(naming(status, &body));
        let run = world.run_at(&server.client(), "B");
        assert_eq!(run.error().generation_id(), Some("gen:7"), "{status}");
        world.states("[Completed, Waiting]");
        // The next run asks for it. The server does not know it, so the request failed.
        let run = world.run_at(&server.client(), "B");
        run.ends("is rejected 404");
        world.tell("receipt [Completed, Failed]; B saves");
        let ids = receipt_of(&world.path())["attempts"].to_string();
        assert!(ids.contains("gen:7"), "{ids}");
        assert_eq!((server.posts(), world.posts()), (1, 2));
    }
}

#[test]
fn a_rejected_or_broken_response_whose_generation_exists_is_not_sent_again() {
    let timeout = r#"{"message": "Generation timeout", "statusCode": 504}"#;
    for (first, is_rejected) in [(naming(504, timeout), true), (naming(201, "<html>"), false)] {
        let folder = Folder::new();
        let server = Server::start(move |_, before| match before {
            0 => first.clone(),
            1 => json(200, r#"{"id": "gen:7", "status": "generating"}"#),
            _ => refusal(404, "Not Found"),
        });
        let run = || generate(&server.client(), folder.path("v.mp4"), "A").unwrap_err();
        let error = run();
        assert_eq!(matches!(error, Error::Api(_)), is_rejected, "{error}");
        assert_eq!(error.generation_id(), Some("gen:7"));
        for _ in 0..3 {
            let error = run();
            assert!(matches!(error, Error::File { .. }), "{error}");
            assert_eq!(error.generation_id(), Some("gen:7"));
        }
        assert_eq!(server.posts(), 1);
    }
}

#[test]
fn a_log_row_decides_what_a_lost_request_was() {
    // Whether the next run sends the request again.
    for (status, usd, id, is_sent_again) in [
        ("failed", 0.0, None, true),
        ("failed", 0.0, Some("gen:7"), true),
        ("failed", 0.06, None, false),
        ("failed", 0.06, Some("gen:7"), false),
        ("succeeded", 0.0, Some("gen:7"), false),
        ("succeeded", 0.06, Some("gen:7"), false),
    ] {
        let (folder, sent) = (Folder::new(), Mutex::new(Value::Null));
        let server = Server::start(move |request, _| {
            if request.is_post() {
                *sent.lock().unwrap() = request.header("x-client-request-id").into();
                return vec![Act::Close];
            }
            if !request.target.contains("/logs") {
                return refusal(404, "Not Found");
            }
            let sent = sent.lock().unwrap().clone();
            let cost = json!({"usd": usd, "credits": 0});
            let row = json!({"client_request_id": sent, "status": status, "cost": cost, "inference_id": id});
            json(200, &json!({"data": [row]}).to_string())
        });
        for _ in 0..2 {
            generate(&server.client(), folder.path("v.mp4"), "A").unwrap_err();
        }
        // An id that the log named stays on disk.
        let receipt = receipt_of(&folder.path("v.mp4")).to_string();
        assert_eq!(receipt.contains("gen:7"), id.is_some(), "{receipt}");
        let posts = 1 + usize::from(is_sent_again);
        assert_eq!(server.posts(), posts, "{status} {usd} {id:?}");
    }
}

/// With each number of file descriptors, it works, or fails in a way that a later run recovers.
#[cfg(target_os = "linux")]
#[test]
fn no_file_descriptor_left_is_no_dead_end() {
    use crate::support::in_shell;
    if let Some(path) = child_task() {
        let done = generate(&Client::from_env().unwrap(), path, "A");
        let shown = done.map_or_else(|error| error.to_string(), |_| "saved".to_owned());
        return println!("<{shown}>");
    }
    let mut saved = 0;
    for limit in 3..20 {
        let world = World::new();
        let test = child_of(&world, "no_file_descriptor_left_is_no_dead_end");
        let limit = format!("ulimit -n {limit}");
        let mut limited = in_shell(&["sh"], &limit, &world.path(), &test);
        let output = stdout(&limited.output().unwrap());
        saved += usize::from(output.contains("<saved>"));
        world.tell("A saves; paid 1");
    }
    assert!((1..17).contains(&saved), "{saved}");
}

/// This test in a process that is set to use the world's service, with the path as its task.
fn child_of(world: &World, test: &str) -> std::process::Command {
    let path = world.path();
    let mut command = child(&format!("video_file::{test}"), path.to_str().unwrap());
    command.env("AIMLAPI_BASE_URL", world.api.base_url());
    command.env("AIMLAPI_KEY", Simulator::KEY);
    command
}

#[test]
fn a_large_body_that_is_refused_midway_is_not_charged_and_leaves_no_entry() {
    let world = World::new();
    world.api.script_posts([Post::CloseAfter(1000)]);
    let image = format!("data:image/png;base64,{}", "A".repeat(20_000_000));
    let request = request("A").model("google/veo-3.0-i2v").image_url(image);
    let file = VideoFile::new(world.path(), request);
    let error = file.generate(&world.api.client(), |_| {}).unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error}");
    world.states("[]");
    file.generate(&world.api.client(), |_| {}).unwrap();
    assert_eq!(world.api.charged(), 1);
    let receipt = fs::read_to_string(receipt_path(&world.path())).unwrap();
    let is_short = receipt.len() < 2000 && !receipt.contains("base64");
    assert!(is_short, "{receipt}");
}

#[test]
fn the_receipt_is_for_people() {
    let world = World::new();
    world.api.script_polls([fail()]);
    world.run("A paper boat on a river").ends("fails");
    world.api.script_polls([Poll::Complete]);
    world.api.allow_model("someone/model");
    let path = world.path();
    let request = request("A paper boat on a river").model("someone/model");
    let request = request.duration(4).param("cfg_scale", 0.5);
    let request = request.param("callback", "https://example.com/?signature=secret");
    let file = VideoFile::new(&path, request.client_request_id("boat-1"));
    file.generate(&world.api.client(), |_| {}).unwrap();
    let receipt = receipt_of(&path);
    let [first, second] = [0, 1].map(|n| &receipt["attempts"][n]);
    let sent = second["sent"].as_u64().unwrap();
    assert!(sent > 1_790_000_000, "{sent}");
    let client_request_id = second["client_request_id"].as_str().unwrap();
    assert!(client_request_id.starts_with("boat-1:aimlapi-video-"));
    let expected = json!({
        "sent": sent, "model": "someone/model", "prompt": "A paper boat on a river",
        "parameters": {"cfg_scale": 0.5, "duration": 4}, "fingerprint": second["fingerprint"],
        "client_request_id": client_request_id, "generation_id": second["generation_id"],
        "state": "completed", "usage": {"credits_used": 120_000.0, "usd_spent": 0.06},
        "failure": null,
    });
    assert_eq!(*second, expected);
    let failure = first["failure"].as_str().unwrap();
    assert!(failure.contains("SafetyError: Rejected"), "{failure}");
    let saved = json!({"generation_id": second["generation_id"], "bytes": CLIP.len()});
    assert_eq!(receipt["saved"], saved);
    assert_eq!(receipt["version"], 2);
    let text = fs::read_to_string(receipt_path(&path)).unwrap();
    for secret in [Simulator::KEY, "http"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn the_fingerprint_is_the_same_with_every_build() {
    // CI runs this with serde_json's `preserve_order` and `arbitrary_precision`, too.
    let world = World::new();
    world.api.allow_model("someone/model");
    let params = json!({"b": [1, 2.5, -3, null, true], "a": {"z": 0.1, "y": "ä\n\"", "x": 1e21}});
    let request = request("A").model("someone/model").param("nested", params);
    let request = request.param("scale", 0.1_f32).param("big", u64::MAX);
    let file = VideoFile::new(world.path(), request);
    file.generate(&world.api.client(), |_| {}).unwrap();
    let fingerprint = &receipt_of(&world.path())["attempts"][0]["fingerprint"];
    assert_eq!(fingerprint, "e376a02333165848");
    assert!(file.is_current().unwrap());
    assert!(file.receipt().unwrap().is_some());
}

#[test]
fn the_callback_sees_each_step() {
    let world = World::new();
    let generating = Poll::status("generating");
    world
        .api
        .script_polls([queued(), generating, Poll::Complete]);
    let mut steps = Vec::new();
    let callback = |progress: Progress<'_>| match progress {
        Progress::Generation(generation) => steps.push(generation.status.to_string()),
        Progress::Download { done, total } => steps.push(format!("{done} of {total:?}")),
        _ => unreachable!(),
    };
    let file = world.file("A");
    file.generate(&world.api.client(), callback).unwrap();
    let (generation, download) = steps.split_at(4);
    assert_eq!(generation, ["queued", "queued", "generating", "completed"]);
    let end = format!("{0} of Some({0})", CLIP.len());
    assert_eq!(download.last(), Some(&end));
}

#[test]
fn a_missing_folder_is_made() {
    let world = World::new();
    let path = world.folder.path("assets/clips/intro.mp4");
    generate(&world.api.client(), &path, "A").unwrap();
    assert!(fs::read(&path).unwrap() == CLIP);
}

#[test]
fn a_place_of_the_wrong_kind_is_refused_before_paying() {
    for suffix in ["", ".part", ".lock", ".receipt.json", ".receipt.json.part"] {
        let world = World::new();
        let there = world.folder.path(&format!("v.mp4{suffix}"));
        let fails = || world.run("A").result.expect_err(suffix).to_string();
        fs::create_dir(&there).unwrap();
        fails();
        fs::remove_dir(&there).unwrap();
        #[cfg(unix)]
        {
            let target = world.folder.path("target");
            fs::write(&target, "precious").unwrap();
            for link in [&target, Path::new("/dev/zero")] {
                std::os::unix::fs::symlink(link, &there).unwrap();
                fails();
                fs::remove_file(&there).unwrap();
            }
            assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
            crate::support::make_pipe(&there);
            let text = fails();
            assert!(text.contains("is not a regular file"), "{text}");
        }
        assert!(world.api.received().is_empty(), "{suffix}");
    }
    for path in ["", "..", "folder/"] {
        let text = generate(&nowhere(), path, "A").unwrap_err().to_string();
        assert!(text.contains("is not the name of a file"), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_or_a_device_under_a_finished_name_is_an_error_and_no_wait() {
    let world = World::new();
    world.tell("A saves; file deleted");
    std::os::unix::fs::symlink("/dev/zero", world.path()).unwrap();
    assert!(world.file("A").is_current().is_err());
    fs::remove_file(world.path()).unwrap();
    crate::support::make_pipe(&world.path());
    assert!(world.file("A").is_current().is_err());
}

#[test]
fn a_path_in_out_dir_is_refused_with_the_reason() {
    if let Some(path) = child_task() {
        return println!("<{}>", generate(&nowhere(), path, "A").unwrap_err());
    }
    let folder = Folder::new();
    let run = |path: &Path| {
        let test = "video_file::a_path_in_out_dir_is_refused_with_the_reason";
        let mut command = child(test, path.to_str().unwrap());
        stdout(&command.env("OUT_DIR", folder.path("out")).output().unwrap())
    };
    let inside = folder.path("out/v.mp4");
    let text = "is in OUT_DIR, of which each build profile has its own, and which `cargo clean` empties: each would \
                pay again. Use a folder beside Cargo.toml, and commit the file with its receipt; nothing was sent";
    assert!(run(&inside).contains(&format!("<{}: {text}>", inside.display())));
    assert!(folder.names().is_empty());
    // Outside, it goes as far as the network.
    assert!(run(&folder.path("v.mp4")).contains("calling again is safe"));
}

#[test]
fn a_request_that_fails_a_local_check_touches_nothing() {
    let (world, file) = (World::new(), |w: &World, r| VideoFile::new(w.path(), r));
    let blank = file(&world, request(" "));
    let long = file(&world, request("A").client_request_id("x".repeat(82)));
    let client = world.api.client();
    for error in [
        blank.is_current().unwrap_err(),
        blank.generate(&client, |_| {}).unwrap_err(),
        long.generate(&client, |_| {}).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Invalid(_)), "{error}");
    }
    assert!(world.api.received().is_empty() && world.folder.names().is_empty());
}

#[test]
fn a_receipt_that_could_not_be_read_back_is_not_paid_for() {
    let world = World::new();
    world.api.allow_model("someone/model");
    let deep = (0..130).fold(json!(1), |inner, _| json!([inner]));
    let request = request("A").model("someone/model").param("deep", deep);
    let file = VideoFile::new(world.path(), request);
    let error = file.generate(&world.api.client(), |_| {}).unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    assert_eq!(world.api.charged(), 0);
}

#[test]
fn a_held_lock_is_waited_for_no_longer_than_poll_timeout() {
    let (world, mut inner) = (World::new(), None);
    let (hasty, path) = (world.hasty(30), world.path());
    // The callback runs while the file is locked, and takes long enough for the one within.
    let callback = |_: Progress<'_>| {
        inner.get_or_insert_with(|| generate(&hasty, &path, "A").unwrap_err().to_string());
    };
    let file = world.file("A");
    file.generate(&world.api.client(), callback).unwrap();
    let path = path.display();
    let text =
        format!("{path}: another process or thread holds its lock, {path}.lock; nothing was sent");
    assert_eq!(inner, Some(text));
    world.tell("paid 1");
}

#[cfg(target_os = "linux")]
#[test]
fn a_lock_that_is_deleted_while_its_holder_connects_stops_the_payment() {
    use socket2::{Domain, Socket, Type};
    use std::{io::Read, net::SocketAddr};

    // A listener that is full: a connection to it waits until another is accepted.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let _filling = std::net::TcpStream::connect(address).unwrap();

    let world = World::new();
    let lock = world.folder.path("v.mp4.lock");
    let client = crate::support::builder(format!("http://{address}/v2"));
    let client = client.request_timeout(Duration::from_secs(9));
    let client = client.build().unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| generate(&client, world.path(), "A"));
        while !lock.exists() {
            assert!(!first.is_finished());
            thread::yield_now();
        }
        fs::remove_file(&lock).unwrap();
        world.tell("A saves");

        drop(listener.accept().unwrap());
        let (mut connection, _) = listener.accept().unwrap();
        let mut sent = String::new();
        connection.read_to_string(&mut sent).unwrap();
        assert!(sent.starts_with("POST "), "{sent}");
        assert!(!sent.contains("prompt"), "{sent}");
        let text = first.join().unwrap().unwrap_err().to_string();
        let end = "v.mp4.lock was deleted by another program; nothing was sent";
        assert!(text.ends_with(end), "{text}");
    });
    world.tell("offline A is there; paid 1");
}

#[cfg(unix)]
#[test]
fn a_lock_that_is_deleted_while_its_holder_waits_loses_no_entry() {
    let world = World::new();
    let mut has_run = false;
    let first = world.file("A").generate(&world.api.client(), |_| {
        if !has_run {
            has_run = true;
            fs::remove_file(world.folder.path("v.mp4.lock")).unwrap();
            world.run("B").saves();
        }
    });
    let error = first.unwrap_err().to_string();
    assert!(
        error.contains("v.mp4.lock was deleted by another program"),
        "{error}"
    );
    world.tell("B is there; receipt [Completed, Completed]; A saves; B saves; paid 2");
}

#[cfg(unix)]
#[test]
fn a_lock_that_is_deleted_once_the_entry_is_written_leaves_no_dead_end() {
    for _ in 0..30 {
        let world = World::new();
        let receipt = receipt_path(&world.path());
        thread::scope(|scope| {
            let run = scope.spawn(|| world.file("A").generate(&world.api.client(), |_| {}));
            while !receipt.exists() && !run.is_finished() {
                thread::yield_now();
            }
            let _ = fs::remove_file(world.folder.path("v.mp4.lock"));
        });
        world.tell("A saves; paid 1");
    }
}

#[test]
fn a_404_of_another_server_is_no_reason_to_pay_again() {
    let rejection = r#"{"message": "Generation timeout", "statusCode": 504}"#;
    let rejected = http(504, &[("x-inference-id", "gen:1")], rejection);
    let server = Server::start(move |request, _| match request.is_post() {
        true => vec![Act::Send(rejected.clone())],
        false => json(200, r#"{"id": "gen:1", "status": "failed"}"#),
    });
    let wrong = Server::script(vec![vec![Act::Send(http(404, &[], "<h1>Not found</h1>"))]]);
    let folder = Folder::new();
    for client in [server.client(), wrong.client(), wrong.client()] {
        generate(&client, folder.path("v.mp4"), "A").unwrap_err();
    }
    let error = generate(&server.client(), folder.path("v.mp4"), "A").unwrap_err();
    assert!(matches!(error, Error::Failed(_)), "{error}");
    assert_eq!((server.posts(), wrong.posts()), (1, 0));
}

#[test]
fn a_file_that_is_being_replaced_is_not_claimed_for_the_old_request() {
    let world = World::new();
    world.run("A").saves();
    // Of the same size, so that only the receipt can tell the two apart.
    let other: Vec<u8> = CLIP.iter().map(|byte| !byte).collect();
    world.api.video(other);
    let in_the_way = world.folder.path("v.mp4.receipt.json.part");
    let replaced = world.file("B").generate(&world.api.client(), |progress| {
        if matches!(progress, Progress::Download { .. }) {
            let _ = fs::create_dir(&in_the_way);
        }
    });
    assert!(replaced.is_err());
    fs::remove_dir(&in_the_way).unwrap();
    let is_of_a = fs::read(world.path()).unwrap() == CLIP;
    assert_eq!(world.file("A").is_current().unwrap(), is_of_a);
}

#[test]
fn two_processes_pay_once() {
    if let Some(path) = child_task() {
        let attempt = generate(&Client::from_env().unwrap(), path, "A").unwrap();
        return println!("<{}>", attempt.generation_id.unwrap());
    }
    let world = World::new();
    let start = |_| {
        let mut command = child_of(&world, "two_processes_pay_once");
        let command = command.stdout(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let id = |child: std::process::Child| {
        let output = stdout(&child.wait_with_output().unwrap());
        let id = output.split(['<', '>']).nth(1);
        id.unwrap_or_else(|| panic!("{output}")).to_owned()
    };
    let ids = [0; 4].map(start).map(id);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    world.tell("offline A is there; paid 1");
}
