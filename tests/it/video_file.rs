//! The contract of a video file: each request is paid for once, whatever happens in between.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::Duration,
};

use aimlapi_video::{
    Attempt, Client, Error, Progress, State, VideoFile, VideoRequest,
    simulator::{CLIP, Download, Poll, Post, Simulator},
};
use serde_json::{Value, json};

use crate::support::{Act, Folder, KEY, Server, child, child_task, http, json, stdout};

fn request(prompt: &str) -> VideoRequest {
    VideoRequest::new(prompt)
}

fn receipt_path(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.receipt.json", path.display()))
}

fn receipt_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(receipt_path(path)).unwrap()).unwrap()
}

fn edit_receipt(path: &Path, edit: impl Fn(&mut Value)) {
    let mut receipt = receipt_of(path);
    edit(&mut receipt);
    fs::write(receipt_path(path), receipt.to_string()).unwrap();
}

fn nowhere() -> Client {
    let builder = Client::builder(KEY).base_url("http://127.0.0.1:9/v2");
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
    prompt: &'static str,
    requests: usize,
    result: Result<Attempt, Error>,
}

impl World {
    fn new() -> Self {
        let api = Simulator::start().unwrap();
        api.script_polls([Poll::Complete]);
        World {
            folder: Folder::new(),
            api,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path("v.mp4")
    }

    fn file(&self, prompt: &str) -> VideoFile {
        VideoFile::new(self.path(), request(prompt))
    }

    fn run(&self, prompt: &'static str) -> Run<'_> {
        self.run_at(&self.api.client(), prompt)
    }

    fn run_offline(&self, prompt: &'static str) -> Run<'_> {
        self.run_at(&nowhere(), prompt)
    }

    fn run_at(&self, client: &Client, prompt: &'static str) -> Run<'_> {
        let before = self.api.received().len();
        let result = self.file(prompt).generate(client, |_| {});
        let requests = self.api.received().len() - before;
        Run {
            world: self,
            prompt,
            requests,
            result,
        }
    }

    fn posts(&self) -> usize {
        let received = self.api.received();
        received
            .iter()
            .filter(|request| request.method == "POST")
            .count()
    }

    fn is_paid(&self, times: usize) {
        assert_eq!(
            (self.api.charged(), self.posts()),
            (times, times),
            "charged, POSTs"
        );
    }

    fn states(&self, expected: &[State]) {
        let receipt = self.file("A").receipt().unwrap();
        let attempts = receipt.map_or(Vec::new(), |receipt| receipt.attempts);
        let states: Vec<State> = attempts.iter().map(|attempt| attempt.state).collect();
        assert_eq!(states, expected);
    }

    /// A person gives the newest attempt up.
    fn give_up(&self) {
        edit_receipt(&self.path(), |receipt| {
            let attempts = receipt["attempts"].as_array_mut().unwrap();
            attempts.last_mut().unwrap()["state"] = json!("failed");
        });
    }

    /// Weeks later, the server answers all polls for known generations like this.
    fn later(&self, poll: &str) -> Client {
        self.later_with(200, poll)
    }

    fn later_with(&self, status: u16, poll: &str) -> Client {
        let receipt = self.file("A").receipt().unwrap().unwrap();
        let id = receipt.attempts.last().unwrap().generation_id.clone();
        let poll = poll.replace("ID", &id.unwrap());
        let server = Box::leak(Box::new(Server::start(move |request, _| {
            assert!(!request.is_post(), "paid again");
            json(status, &poll)
        })));
        server.client()
    }
}

impl Run<'_> {
    fn saves(self) {
        let attempt = self
            .result
            .unwrap_or_else(|error| panic!("{}: {error}", self.prompt));
        assert_eq!(
            (attempt.prompt.as_deref(), attempt.state),
            (Some(self.prompt), State::Completed)
        );
        assert!(fs::read(self.world.path()).unwrap() == CLIP);
        let saved = &receipt_of(&self.world.path())["saved"];
        assert_eq!(
            saved["generation_id"].as_str(),
            attempt.generation_id.as_deref()
        );
        assert_eq!(self.world.folder.names(), ["v.mp4", "v.mp4.receipt.json"]);
        assert!(self.world.file(self.prompt).is_current().unwrap());
    }

    fn saves_without_a_request(self) {
        assert_eq!(self.requests, 0);
        self.saves();
    }

    fn error(self) -> Error {
        let error = self.result.expect_err(self.prompt);
        let names = self.world.folder.names();
        let left = names
            .iter()
            .find(|name| name.ends_with(".part") || name.ends_with(".lock"));
        assert_eq!(left, None, "left behind after {error}");
        error
    }

    /// It ended free of charge, and may be sent again.
    fn fails(self) {
        let error = self.error();
        assert!(matches!(error, Error::Failed(_)), "{error}");
    }

    fn ends_rejected(self, status: u16) {
        let error = self.error();
        assert!(
            matches!(&error, Error::Api(error) if error.status == status),
            "{error}"
        );
    }

    fn stays_unsent(self) {
        let error = self.error();
        assert!(matches!(error, Error::Network { .. }), "{error}");
    }

    fn ends_unknown(self) {
        let receipt = receipt_path(&self.world.path());
        let error = self.error();
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
        names_the_edit(&error.to_string(), &receipt);
    }

    fn times_out(self) {
        let error = self.error();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    }

    /// Asking again may not help: only a person can permit another payment.
    fn hits_a_dead_end(self) {
        let receipt = receipt_path(&self.world.path());
        let error = self.error();
        assert!(matches!(error, Error::File { .. }), "{error}");
        assert!(error.generation_id().is_some(), "{error}");
        names_the_edit(&error.to_string(), &receipt);
    }

    /// Something about the file has to be fixed first.
    fn refuses(self, reason: &str) {
        assert_eq!(self.requests, 0);
        let error = self.error();
        assert!(matches!(error, Error::File { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

fn names_the_edit(text: &str, receipt: &Path) {
    assert!(text.contains("\"state\" to \"failed\""), "{text}");
    assert!(text.contains(&receipt.display().to_string()), "{text}");
    assert!(!text.contains("delete"), "{text}");
}

const DROPPED: [Post; 1] = [Post::DropResponse];
const FAIL: Poll = Poll::Fail {
    name: "SafetyError",
    message: "Rejected.",
};

type Story = (&'static str, fn(&World));

/// The contract. Each line of a story is a run of a program, or what happens between two runs.
const STORIES: &[Story] = &[
    ("a request is paid once, and then nothing is sent", |w| {
        w.run("A").saves();
        w.run("A").saves_without_a_request();
        w.run_offline("A").saves_without_a_request();
        w.is_paid(1);
    }),
    ("A, B, A: each is paid once", |w| {
        w.run("A").saves();
        w.run("B").saves();
        w.run("A").saves();
        w.run("B").saves();
        w.is_paid(2);
        w.states(&[State::Completed, State::Completed]);
    }),
    ("A, a B that fails, A: nothing is sent for A", |w| {
        w.run("A").saves();
        w.api.script_polls([FAIL]);
        w.run("B").fails();
        w.run("A").saves_without_a_request();
        w.states(&[State::Completed, State::Failed]);
    }),
    ("A, a rejected B, A: nothing is sent for A", |w| {
        w.run("A").saves();
        w.api.script_posts([Post::Reject(403)]);
        w.run("B").ends_rejected(403);
        w.run("A").saves_without_a_request();
    }),
    ("A, a B that is not sent, A: B leaves no entry", |w| {
        w.run("A").saves();
        w.run_offline("B").stays_unsent();
        w.states(&[State::Completed]);
        w.run_offline("A").saves_without_a_request();
    }),
    ("A, a B whose response is lost, A, B: B is looked up", |w| {
        w.run("A").saves();
        w.api.script_posts(DROPPED);
        w.api.delay_log(1);
        w.run("B").ends_unknown();
        w.run("A").saves_without_a_request();
        w.run("B").saves();
        w.is_paid(2);
    }),
    ("A, a B that times out, A, B: B is waited for", |w| {
        w.run("A").saves();
        w.api.script_polls([
            Poll::Status("queued"),
            Poll::Status("queued"),
            Poll::Complete,
        ]);
        let hasty = w
            .api
            .builder()
            .poll_timeout(Duration::from_millis(1))
            .build()
            .unwrap();
        w.run_at(&hasty, "B").times_out();
        w.run("A").saves_without_a_request();
        w.run("B").saves();
        w.is_paid(2);
    }),
    ("A, a B whose download fails, A: the file of A stays", |w| {
        w.run("A").saves();
        w.api.script_downloads([Download::Reject(400)]);
        assert!(matches!(w.run("B").error(), Error::File { .. }));
        w.run("A").saves_without_a_request();
        w.run("B").saves();
        w.is_paid(2);
    }),
    ("a lost response is found in the usage log", |w| {
        w.api.script_posts(DROPPED);
        w.run("A").saves();
        w.is_paid(1);
    }),
    ("a lost response is looked up until the log has it", |w| {
        w.api.script_posts(DROPPED);
        w.api.delay_log(3);
        for _ in 0..3 {
            w.run("A").ends_unknown();
            w.states(&[State::Sending]);
        }
        w.run("A").saves();
        w.is_paid(1);
    }),
    (
        "a lost response that a person gives up is paid again",
        |w| {
            w.api.script_posts(DROPPED);
            w.api.delay_log(1);
            w.run("A").ends_unknown();
            w.give_up();
            w.run("A").saves();
            w.states(&[State::Failed, State::Completed]);
            w.is_paid(2);
        },
    ),
    (
        "a lost response of a generation that failed is paid again",
        |w| {
            w.api.script_posts(DROPPED);
            w.api.script_polls([FAIL]);
            w.api.delay_log(1);
            w.run("A").ends_unknown();
            // The log says that it failed, or a poll does.
            let mut runs = 0;
            w.api.script_polls([Poll::Complete]);
            while w.api.charged() == 0 && runs < 3 {
                let _ = w.run("A");
                runs += 1;
            }
            w.run("A").saves_without_a_request();
            assert_eq!((w.api.charged(), w.posts()), (1, 2));
        },
    ),
    ("a failed generation is sent again", |w| {
        w.api.script_polls([FAIL]);
        w.run("A").fails();
        w.api.script_polls([Poll::Complete]);
        w.run("A").saves();
        w.states(&[State::Failed, State::Completed]);
        assert_eq!((w.api.charged(), w.posts()), (1, 2));
    }),
    (
        "a rejected request is sent again, in place of the old entry",
        |w| {
            for status in [400, 401, 403, 409, 422, 429, 500, 503] {
                w.api.script_posts([Post::Reject(status)]);
                w.run("A").ends_rejected(status);
                w.states(&[State::Failed]);
            }
            w.run("A").saves();
            w.states(&[State::Completed]);
        },
    ),
    ("a request that is not sent leaves nothing", |w| {
        w.run_offline("A").stays_unsent();
        w.states(&[]);
        w.run("A").saves();
        w.is_paid(1);
    }),
    ("outages while waiting and downloading cost nothing", |w| {
        w.api.script_polls([
            Poll::Reject(503),
            Poll::CloseAfter(9),
            Poll::Reject(429),
            Poll::Complete,
        ]);
        w.api.script_downloads([
            Download::Reject(503),
            Download::CloseAfter(1000),
            Download::Expire,
            Download::CloseAfter(2000),
        ]);
        w.run("A").saves();
        w.is_paid(1);
    }),
    ("a deleted file is downloaded again", |w| {
        w.run("A").saves();
        fs::remove_file(w.path()).unwrap();
        assert!(!w.file("A").is_current().unwrap());
        w.run("A").saves();
        w.is_paid(1);
    }),
    ("a truncated file is downloaded again", |w| {
        w.run("A").saves();
        fs::write(w.path(), &CLIP[..1000]).unwrap();
        w.run("A").saves();
        w.is_paid(1);
    }),
    (
        "a file that was replaced by another size is downloaded again",
        |w| {
            w.run("A").saves();
            fs::write(w.path(), [CLIP, b"more"].concat()).unwrap();
            w.run("A").saves();
            w.is_paid(1);
        },
    ),
    ("a file and its receipt can be copied", |w| {
        w.run("A").saves();
        let copy = w.folder.path("copy.mp4");
        fs::rename(w.path(), &copy).unwrap();
        fs::rename(receipt_path(&w.path()), receipt_path(&copy)).unwrap();
        let copied = VideoFile::new(copy, request("A"));
        assert!(copied.is_current().unwrap());
        copied.generate(&nowhere(), |_| {}).unwrap();
    }),
    (
        "a receipt without its file is enough to download it again",
        |w| {
            w.run("A").saves();
            let copy = w.folder.path("copy.mp4");
            fs::rename(receipt_path(&w.path()), receipt_path(&copy)).unwrap();
            VideoFile::new(copy, request("A"))
                .generate(&w.api.client(), |_| {})
                .unwrap();
            w.is_paid(1);
        },
    ),
    ("a file without its receipt is not overwritten", |w| {
        fs::write(w.path(), "mine").unwrap();
        w.run("A").refuses("is there, and no request for it is in");
        assert_eq!(fs::read_to_string(w.path()).unwrap(), "mine");
    }),
    (
        "a file without its receipt is not overwritten after a failed run either",
        |w| {
            w.run_offline("A").stays_unsent();
            fs::write(w.path(), "mine").unwrap();
            w.run("A").refuses("is there, and no request for it is in");
        },
    ),
    ("a URL that expires is renewed", |w| {
        w.api.script_downloads([Download::Expire]);
        w.run("A").saves();
        w.is_paid(1);
    }),
    (
        "a URL that is dead after weeks is a dead end, until it is given up",
        |w| {
            w.run("A").saves();
            fs::remove_file(w.path()).unwrap();
            w.api.script_downloads(vec![Download::Reject(404); 4]);
            w.run("A").hits_a_dead_end();
            w.run("A").hits_a_dead_end();
            w.is_paid(1);
            w.give_up();
            w.run("A").saves();
            w.is_paid(2);
        },
    ),
    ("a generation that the server forgot is a dead end", |w| {
        w.run("A").saves();
        fs::remove_file(w.path()).unwrap();
        let forgetful = w.later_with(404, r#"{"message": "Not Found", "statusCode": 404}"#);
        for _ in 0..3 {
            w.run_at(&forgetful, "A").hits_a_dead_end();
        }
        // Restored from version control, the file counts.
        fs::write(w.path(), CLIP).unwrap();
        w.run_offline("A").saves_without_a_request();
    }),
    (
        "a video that was there once is never paid again, whatever the server says",
        |w| {
            w.run("A").saves();
            fs::remove_file(w.path()).unwrap();
            for status in ["expired", "error", "failed", "cancelled", "completed"] {
                let poll = format!(r#"{{"id": "ID", "status": "{status}"}}"#);
                edit_receipt(&w.path(), |receipt| {
                    receipt["attempts"][0]["usage"] = json!(null)
                });
                for _ in 0..2 {
                    w.run_at(&w.later(&poll), "A").hits_a_dead_end();
                }
            }
        },
    ),
    (
        "a final status without a video that may cost is never a reason to pay again",
        |w| {
            w.api.script_polls([Poll::Status("queued")]);
            let hasty = w
                .api
                .builder()
                .poll_timeout(Duration::from_millis(1))
                .build()
                .unwrap();
            w.run_at(&hasty, "A").times_out();
            for poll in [
                r#"{"id": "ID", "status": "expired"}"#,
                r#"{"id": "ID", "status": "completed", "video": null}"#,
                r#"{"id": "ID", "status": "failed", "meta": {"usage": {"credits_used": 7}}}"#,
                r#"{"id": "ID", "status": "generating", "error": {"message": "Slow."}}"#,
                r#"{"status": "error", "message": "Gateway timeout"}"#,
                r#"{"status": "error", "error": {"message": "Gateway timeout"}}"#,
                r#"{"status": "cancelled"}"#,
            ] {
                w.run_at(&w.later(poll), "A").hits_a_dead_end();
                w.states(&[State::Waiting]);
            }
        },
    ),
    ("a response about another generation ends nothing", |w| {
        w.api.script_polls([Poll::Raw(
            "HTTP/1.1 200 OK\r\ncontent-length: 33\r\n\r\n{\"id\": \"other\", \"status\":\"failed\"}".to_owned(),
        )]);
        let hasty = w
            .api
            .builder()
            .poll_timeout(Duration::from_millis(300))
            .poll_interval(Duration::from_millis(1));
        w.run_at(&hasty.build().unwrap(), "A").times_out();
        w.states(&[State::Waiting]);
    }),
    (
        "each status that names this generation and costs nothing ends it",
        |w| {
            for (n, status) in [
                "error",
                "failed",
                "cancelled",
                "canceled",
                "Aborted",
                "rejected",
            ]
            .iter()
            .enumerate()
            {
                w.api.script_polls([Poll::Status("queued")]);
                let hasty = w
                    .api
                    .builder()
                    .poll_timeout(Duration::from_millis(1))
                    .build()
                    .unwrap();
                w.run_at(&hasty, "A").times_out();
                assert_eq!(w.posts(), n + 1);
                w.run_at(
                    &w.later(&format!(r#"{{"id": "ID", "status": "{status}"}}"#)),
                    "A",
                )
                .fails();
            }
        },
    ),
    (
        "a changed parameter is another request, its order is not",
        |w| {
            let file = |request| VideoFile::new(w.path(), request);
            let plain = file(request("A").seed(1).duration(4));
            plain.generate(&w.api.client(), |_| {}).unwrap();
            assert!(file(request("A").duration(4).seed(1)).is_current().unwrap());
            assert!(
                file(request("A").duration(4).seed(1).model("google/veo3"))
                    .is_current()
                    .unwrap()
            );
            assert!(
                file(request("A").duration(4).seed(1).client_request_id("x"))
                    .is_current()
                    .unwrap()
            );
            assert!(!file(request("A").duration(4).seed(2)).is_current().unwrap());
            assert!(!file(request("A").duration(4)).is_current().unwrap());
            assert!(
                !file(request("A").duration(4).seed(1).model("veo2"))
                    .is_current()
                    .unwrap()
            );
        },
    ),
    ("two processes with two requests pay for each once", |w| {
        thread::scope(|scope| {
            for prompt in ["A", "B", "A", "B"] {
                scope.spawn(move || w.file(prompt).generate(&w.api.client(), |_| {}).unwrap());
            }
        });
        w.is_paid(2);
    }),
    (
        "an unreadable receipt sends nothing and stays as it is",
        |w| {
            w.run("A").saves();
            for bad in [
                "",
                "{",
                "{}",
                "[]",
                "{\"version\": 2}",
                "{\"version\": 3, \"saved\": null, \"attempts\": []}",
                "\0",
            ] {
                fs::write(receipt_path(&w.path()), bad).unwrap();
                w.run("A").refuses("is not a receipt that can be read");
                assert_eq!(fs::read_to_string(receipt_path(&w.path())).unwrap(), bad);
                assert!(w.file("A").is_current().is_err());
            }
        },
    ),
];

#[test]
fn the_contract_holds_in_every_story() {
    for (name, story) in STORIES {
        println!("{name}");
        story(&World::new());
    }
    assert!(STORIES.len() >= 30);
}

/// An API that responds to POSTs like this, and to polls with 404, unless they ask for gen:7.
fn naming_api(post: Vec<Act>) -> Server {
    Server::start(move |request, _| match request.is_post() {
        true => post.clone(),
        false => crate::support::refusal(404, "Not Found"),
    })
}

#[test]
fn an_id_that_the_server_named_once_stays_on_disk() {
    let body = |status: u16| json!({"message": "No", "statusCode": status}).to_string();
    for status in [400, 403, 409, 422, 429, 504] {
        let world = World::new();
        world.run("A").saves();
        let head = [("x-inference-id", "gen:7")];
        let server = naming_api(vec![Act::Send(http(status, &head, body(status)))]);
        let run = world.run_at(&server.client(), "B");
        assert_eq!(run.error().generation_id(), Some("gen:7"), "{status}");
        world.states(&[State::Completed, State::Waiting]);
        // The next run asks for it. The server does not know it, so the request failed.
        world.run_at(&server.client(), "B").ends_rejected(404);
        world.states(&[State::Completed, State::Failed]);
        world.run("B").saves();
        let ids = receipt_of(&world.path())["attempts"].to_string();
        assert!(ids.contains("gen:7"), "{ids}");
        assert_eq!((server.posts(), world.posts()), (1, 2));
    }
}

#[test]
fn a_rejected_request_whose_generation_exists_is_not_sent_again() {
    let folder = Folder::new();
    let polls = Mutex::new(0);
    let server = Server::start(move |request, _| {
        if request.is_post() {
            let body = r#"{"message": "Generation timeout", "statusCode": 504}"#;
            return vec![Act::Send(http(504, &[("x-inference-id", "gen:7")], body))];
        }
        *polls.lock().unwrap() += 1;
        match *polls.lock().unwrap() {
            1 => json(200, r#"{"id": "gen:7", "status": "generating"}"#),
            _ => crate::support::refusal(404, "Not Found"),
        }
    });
    let file = VideoFile::new(folder.path("v.mp4"), request("A"));
    let generate = || file.generate(&server.client(), |_| {}).unwrap_err();
    assert!(matches!(generate(), Error::Api(_)));
    for _ in 0..3 {
        let error = generate();
        assert!(matches!(error, Error::File { .. }), "{error}");
    }
    assert_eq!(server.posts(), 1);
}

#[test]
fn a_log_row_decides_what_a_lost_request_was() {
    let row = |status: &str, usd: f64, id: Option<&str>| json!({"status": status, "cost": {"usd": usd, "credits": 0}, "inference_id": id});
    // Whether the next run sends the request again.
    for (row, is_sent_again) in [
        (row("failed", 0.0, None), true),
        (row("failed", 0.0, Some("gen:7")), true),
        (row("failed", 0.06, None), false),
        (row("failed", 0.06, Some("gen:7")), false),
        (row("succeeded", 0.0, Some("gen:7")), false),
        (row("succeeded", 0.06, Some("gen:7")), false),
    ] {
        let (folder, sent) = (Folder::new(), Mutex::new(Value::Null));
        let of_the_log = row.clone();
        let server = Server::start(move |request, _| {
            if request.is_post() {
                *sent.lock().unwrap() = request.header("x-client-request-id").into();
                return vec![Act::Close];
            }
            if !request.target.contains("/logs") {
                return crate::support::refusal(404, "Not Found");
            }
            let mut row = of_the_log.clone();
            row["client_request_id"] = sent.lock().unwrap().clone();
            json(200, &json!({"data": [row]}).to_string())
        });
        let file = VideoFile::new(folder.path("v.mp4"), request("A"));
        for _ in 0..2 {
            file.generate(&server.client(), |_| {}).unwrap_err();
        }
        assert_eq!(server.posts(), 1 + usize::from(is_sent_again), "{row}");
    }
}

/// With each number of file descriptors, it works, or fails in a way that a later run recovers.
#[cfg(target_os = "linux")]
#[test]
fn no_file_descriptor_left_is_no_dead_end() {
    if let Some(path) = child_task() {
        let client = Client::from_env().unwrap();
        let done = VideoFile::new(path, request("A")).generate(&client, |_| {});
        return println!(
            "<{}>",
            done.map_or_else(|error| error.to_string(), |_| "saved".to_owned())
        );
    }
    let mut saved = 0;
    for limit in 3..20 {
        let world = World::new();
        let path = world.path();
        let test = child(
            "video_file::no_file_descriptor_left_is_no_dead_end",
            path.to_str().unwrap(),
        );
        let mut limited = std::process::Command::new("sh");
        limited
            .arg("-c")
            .arg(format!("ulimit -n {limit}; exec \"$0\" \"$@\""));
        limited.arg(test.get_program()).args(test.get_args());
        limited.envs(
            test.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        limited
            .env("AIMLAPI_BASE_URL", world.api.base_url())
            .env("AIMLAPI_KEY", Simulator::KEY);
        let output = stdout(&limited.output().unwrap());
        saved += usize::from(output.contains("<saved>"));
        world.run("A").saves();
        world.is_paid(1);
    }
    assert!((1..17).contains(&saved), "{saved}");
}

#[test]
fn a_broken_response_that_names_the_generation_is_enough() {
    let folder = Folder::new();
    let server = naming_api(vec![Act::Send(http(
        201,
        &[("x-inference-id", "gen:7")],
        "<html>",
    ))]);
    let file = VideoFile::new(folder.path("v.mp4"), request("A"));
    for _ in 0..2 {
        let error = file.generate(&server.client(), |_| {}).unwrap_err();
        assert_eq!(error.generation_id(), Some("gen:7"));
    }
    assert_eq!(server.posts(), 1);
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
    world.states(&[]);
    file.generate(&world.api.client(), |_| {}).unwrap();
    assert_eq!(world.api.charged(), 1);
    let receipt = fs::read_to_string(receipt_path(&world.path())).unwrap();
    assert!(
        receipt.len() < 2000 && !receipt.contains("base64"),
        "{receipt}"
    );
}

#[test]
fn the_receipt_is_for_people() {
    let world = World::new();
    world.api.script_polls([FAIL]);
    world.run("A paper boat on a river").fails();
    world.api.script_polls([Poll::Complete]);
    let path = world.path();
    let request = request("A paper boat on a river")
        .duration(4)
        .param("cfg_scale", 0.5);
    let request = request.param("callback", "https://example.com/?signature=secret");
    world.api.allow_model("someone/model");
    let file = VideoFile::new(
        &path,
        request.model("someone/model").client_request_id("boat-1"),
    );
    file.generate(&world.api.client(), |_| {}).unwrap();
    let receipt = receipt_of(&path);
    let attempts = receipt["attempts"].as_array().unwrap();
    let sent = attempts[1]["sent"].as_u64().unwrap();
    assert!(sent > 1_790_000_000, "{sent}");
    let client_request_id = attempts[1]["client_request_id"].as_str().unwrap();
    assert!(client_request_id.starts_with("boat-1:aimlapi-video-"));
    assert_eq!(
        attempts[1],
        json!({
            "sent": sent,
            "model": "someone/model",
            "prompt": "A paper boat on a river",
            "parameters": {"cfg_scale": 0.5, "duration": 4},
            "fingerprint": attempts[1]["fingerprint"],
            "client_request_id": client_request_id,
            "generation_id": attempts[1]["generation_id"],
            "state": "completed",
            "usage": {"credits_used": 120_000.0, "usd_spent": 0.06},
            "failure": null,
        })
    );
    assert!(
        attempts[0]["failure"]
            .as_str()
            .unwrap()
            .contains("SafetyError: Rejected")
    );
    assert_eq!(
        receipt["saved"],
        json!({"generation_id": attempts[1]["generation_id"], "bytes": CLIP.len()})
    );
    assert_eq!(receipt["version"], 2);
    let text = fs::read_to_string(receipt_path(&path)).unwrap();
    assert!(
        !text.contains(Simulator::KEY) && !text.contains("http"),
        "{text}"
    );
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
    assert_eq!(
        receipt_of(&world.path())["attempts"][0]["fingerprint"],
        "e376a02333165848"
    );
    assert!(file.is_current().unwrap());
    assert!(file.receipt().unwrap().is_some());
}

#[test]
fn the_callback_sees_each_step() {
    let world = World::new();
    world.api.script_polls([
        Poll::Status("queued"),
        Poll::Status("generating"),
        Poll::Complete,
    ]);
    let mut steps = Vec::new();
    world
        .file("A")
        .generate(&world.api.client(), |progress| match progress {
            Progress::Generation(generation) => steps.push(generation.status.to_string()),
            Progress::Download { done, total } => steps.push(format!("{done} of {total:?}")),
            _ => unreachable!(),
        })
        .unwrap();
    let (generation, download) = steps.split_at(4);
    assert_eq!(generation, ["queued", "queued", "generating", "completed"]);
    let end = format!("{0} of Some({0})", CLIP.len());
    assert_eq!(download.last(), Some(&end));
}

#[test]
fn a_missing_folder_is_made() {
    let world = World::new();
    let path = world.folder.path("assets/clips/intro.mp4");
    VideoFile::new(&path, request("A"))
        .generate(&world.api.client(), |_| {})
        .unwrap();
    assert!(fs::read(&path).unwrap() == CLIP);
}

#[test]
fn a_place_of_the_wrong_kind_is_refused_before_paying() {
    let names = [
        "v.mp4",
        "v.mp4.part",
        "v.mp4.lock",
        "v.mp4.receipt.json",
        "v.mp4.receipt.json.part",
    ];
    for name in names {
        let world = World::new();
        let there = world.folder.path(name);
        fs::create_dir(&there).unwrap();
        world.run("A").result.expect_err(name);
        fs::remove_dir(&there).unwrap();
        #[cfg(unix)]
        {
            let target = world.folder.path("target");
            fs::write(&target, "precious").unwrap();
            std::os::unix::fs::symlink(&target, &there).unwrap();
            world.run("A").result.expect_err(name);
            assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
            fs::remove_file(&there).unwrap();
            std::os::unix::fs::symlink("/dev/zero", &there).unwrap();
            world.run("A").result.expect_err(name);
            fs::remove_file(&there).unwrap();
            let made = std::process::Command::new("mkfifo")
                .arg(&there)
                .status()
                .unwrap();
            assert!(made.success());
            let error = world.run("A").result.expect_err(name);
            assert!(
                error.to_string().contains("is not a regular file"),
                "{error}"
            );
        }
        assert!(world.api.received().is_empty(), "{name}");
    }
    for path in ["", "..", "folder/"] {
        let error = VideoFile::new(path, request("A"))
            .generate(&nowhere(), |_| {})
            .unwrap_err();
        assert!(
            error.to_string().contains("is not the name of a file"),
            "{error}"
        );
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_or_a_device_under_a_finished_name_is_an_error_and_no_wait() {
    let world = World::new();
    world.run("A").saves();
    fs::remove_file(world.path()).unwrap();
    std::os::unix::fs::symlink("/dev/zero", world.path()).unwrap();
    assert!(world.file("A").is_current().is_err());
    fs::remove_file(world.path()).unwrap();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(world.path())
            .status()
            .unwrap()
            .success()
    );
    assert!(world.file("A").is_current().is_err());
}

#[test]
fn a_path_in_out_dir_is_refused_with_the_reason() {
    if let Some(path) = child_task() {
        let error = VideoFile::new(path, request("A"))
            .generate(&nowhere(), |_| {})
            .unwrap_err();
        println!("<{error}>");
        return;
    }
    let folder = Folder::new();
    let run = |path: &Path| {
        let mut command = child(
            "video_file::a_path_in_out_dir_is_refused_with_the_reason",
            path.to_str().unwrap(),
        );
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
    let world = World::new();
    let file = world.file(" ");
    for error in [
        file.is_current().unwrap_err(),
        file.generate(&world.api.client(), |_| {}).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Invalid(_)), "{error}");
    }
    let long = VideoFile::new(world.path(), request("A").client_request_id("x".repeat(82)));
    assert!(matches!(
        long.generate(&world.api.client(), |_| {}),
        Err(Error::Invalid(_))
    ));
    assert!(world.api.received().is_empty() && world.folder.names().is_empty());
}

#[test]
fn a_receipt_that_could_not_be_read_back_is_not_paid_for() {
    let world = World::new();
    world.api.allow_model("someone/model");
    let deep = (0..130).fold(json!(1), |inner, _| json!([inner]));
    let request = request("A").model("someone/model").param("deep", deep);
    let error = VideoFile::new(world.path(), request)
        .generate(&world.api.client(), |_| {})
        .unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    assert_eq!(world.api.charged(), 0);
}

#[test]
fn a_held_lock_is_waited_for_no_longer_than_poll_timeout() {
    let world = World::new();
    let hasty = world
        .api
        .builder()
        .poll_timeout(Duration::from_millis(30))
        .build()
        .unwrap();
    let mut inner = None;
    // The callback runs while the file is locked, and takes long enough for the one within.
    world
        .file("A")
        .generate(&world.api.client(), |_| {
            if inner.is_none() {
                inner = Some(
                    world
                        .file("A")
                        .generate(&hasty, |_| {})
                        .unwrap_err()
                        .to_string(),
                );
            }
        })
        .unwrap();
    let lock = format!("{}.lock", world.path().display());
    assert_eq!(
        inner.unwrap(),
        format!(
            "{}: another process or thread holds its lock, {lock}",
            world.path().display()
        )
    );
    world.is_paid(1);
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
    let client = Client::builder(KEY).base_url(format!("http://{address}/v2"));
    let client = client
        .request_timeout(Duration::from_secs(9))
        .build()
        .unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| world.file("A").generate(&client, |_| {}));
        while !lock.exists() {
            assert!(!first.is_finished());
            thread::yield_now();
        }
        fs::remove_file(&lock).unwrap();
        world.run("A").saves();

        drop(listener.accept().unwrap());
        let (mut connection, _) = listener.accept().unwrap();
        let mut sent = String::new();
        connection.read_to_string(&mut sent).unwrap();
        assert!(
            sent.starts_with("POST ") && !sent.contains("prompt"),
            "{sent}"
        );
        let error = first.join().unwrap().unwrap_err().to_string();
        assert!(
            error.ends_with("v.mp4.lock was deleted by another program"),
            "{error}"
        );
    });
    world.run_offline("A").saves_without_a_request();
    world.is_paid(1);
}

#[test]
fn two_processes_pay_once() {
    if let Some(path) = child_task() {
        let client = Client::from_env().unwrap();
        let attempt = VideoFile::new(path, request("A"))
            .generate(&client, |_| {})
            .unwrap();
        println!("<{}>", attempt.generation_id.unwrap());
        return;
    }
    let world = World::new();
    let path = world.path();
    let start = || {
        let mut command = child("video_file::two_processes_pay_once", path.to_str().unwrap());
        command
            .env("AIMLAPI_BASE_URL", world.api.base_url())
            .env("AIMLAPI_KEY", Simulator::KEY);
        command
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| start()).collect();
    let ids: Vec<String> = children
        .into_iter()
        .map(|child| {
            let output = stdout(&child.wait_with_output().unwrap());
            let (_, id) = output.split_once('<').unwrap_or_else(|| panic!("{output}"));
            id.split_once('>').unwrap().0.to_owned()
        })
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    world.run_offline("A").saves_without_a_request();
    world.is_paid(1);
}
