//! The contract of a video file: each request is paid for once, whatever happens in between.

use std::path::{Path, PathBuf};
use std::{fs, io, time::Duration};

use aimlapi_video::{Attempt, Client, Error, Progress, State, VideoFile, VideoRequest};
use serde_json::Value;

use crate::service::{Say, Service, say, video};
use crate::support::{self, Act, Folder, cells};

/// Steps that many stories have.
const ALIASES: [(&str, &str); 6] = [
    ("log empty", r#"log says 200 {"data": []}"#),
    ("first log empty", r#"first log says 200 {"data": []}"#),
    ("polls wait", r#"poll says 200 {"status": "generating"}"#),
    (
        "polls fail",
        r#"poll says 200 {"id": "ID", "status": "error", "error": {"name": "SafetyError", "message": "Rejected."}}"#,
    ),
    ("post rejected", r#"post says 403 {"message": "Rejected."}"#),
    ("URL expires", "first download says 403 Expired"),
];

/// A folder with one video file, and a service.
pub(crate) struct World {
    pub(crate) folder: Folder,
    pub(crate) service: Service,
}

/// What a run of `generate` came to.
struct Run<'a> {
    world: &'a World,
    prompt: &'a str,
    requests: usize,
    result: Result<Attempt, Error>,
}

impl World {
    pub(crate) fn new() -> Self {
        World {
            folder: Folder::new(),
            service: Service::start(),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path("v.mp4")
    }

    pub(crate) fn receipt_path(&self) -> PathBuf {
        self.folder.path("v.mp4.receipt.json")
    }

    pub(crate) fn file(&self, prompt: &str) -> VideoFile {
        VideoFile::new(self.path(), VideoRequest::new(prompt))
    }

    pub(crate) fn generate(&self, prompt: &str) -> Result<Attempt, Error> {
        self.file(prompt).generate(&self.service.client(), |_| {})
    }

    pub(crate) fn receipt(&self) -> Value {
        serde_json::from_slice(&fs::read(self.receipt_path()).unwrap()).unwrap()
    }

    /// Changes the receipt as a person does.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut receipt = self.receipt();
        change(&mut receipt);
        fs::write(self.receipt_path(), receipt.to_string()).unwrap();
    }

    /// A client that gives up waiting at once.
    pub(crate) fn hasty(&self) -> Client {
        let builder = self.service.builder();
        builder
            .poll_timeout(Duration::from_millis(1))
            .build()
            .unwrap()
    }

    /// `options`: of a hasty client, an offline one, replacing what stands there.
    fn run<'a>(&'a self, options: &[&str], prompt: &'a str) -> Run<'a> {
        let client = match options {
            ["hasty", ..] => self.hasty(),
            ["offline", ..] => nowhere(),
            _ => self.service.client(),
        };
        self.run_at(&client, options.contains(&"replacing"), prompt)
    }

    fn run_at<'a>(&'a self, client: &Client, may_replace: bool, prompt: &'a str) -> Run<'a> {
        let before = self.service.requests().len();
        let file = self.file(prompt).allow_replace(may_replace);
        let result = file.generate(client, |_| {});
        Run {
            world: self,
            prompt,
            requests: self.service.requests().len() - before,
            result,
        }
    }

    /// Does what the steps of a story say.
    pub(crate) fn tell(&self, steps: &str) {
        for step in steps.split("; ") {
            let alias = ALIASES.iter().find(|(name, _)| *name == step);
            let words: Vec<&str> = alias.map_or(step, |(_, step)| step).split(' ').collect();
            match words[..] {
                ["response", "lost"] => {
                    let lost = (true, Say::Acts(vec![Act::Close]));
                    self.service.script().posts.push_back(lost);
                }
                ["log", "late", n] => {
                    (0..n.parse().unwrap()).for_each(|_| self.tell("first log empty"))
                }
                ["first", which, "says", status, ..] => {
                    self.script(
                        which,
                        true,
                        Some(say(status.parse().unwrap(), &words[4..].join(" "))),
                    );
                }
                [which, "says", status, ..] => {
                    self.script(
                        which,
                        false,
                        Some(say(status.parse().unwrap(), &words[3..].join(" "))),
                    );
                }
                [which, "recovers"] => self.script(which, false, None),
                _ => self.tell_more(&words, &self.path()),
            }
        }
    }

    /// Sets what a part of the service says: once, or always.
    fn script(&self, which: &str, is_once: bool, said: Option<Say>) {
        let mut script = self.service.script();
        let script = &mut *script;
        let (next, always) = match which {
            "post" => return script.posts.push_back((false, said.unwrap())),
            "poll" => (&mut script.polls, &mut script.poll),
            "log" => (&mut script.logs, &mut script.log),
            "download" => (&mut script.downloads, &mut script.download),
            _ => panic!("{which}"),
        };
        match is_once {
            true => next.extend(said),
            false => *always = said,
        }
    }

    fn tell_more(&self, words: &[&str], path: &Path) {
        match *words {
            ["sent", n] => assert_eq!(self.service.posts().to_string(), n, "POSTs"),
            ["receipt", ..] => {
                let attempts = self.file("A").attempts().unwrap();
                let states: Vec<State> = attempts.iter().map(|a| a.state).collect();
                assert_eq!(format!("{states:?}"), words[1..].join(" "));
            }
            ["give", "up", prompt] => self.file(prompt).give_up().unwrap(),
            ["edit", field, ref value @ ..] => self.edit(|receipt| {
                let attempts = receipt["attempts"].as_array_mut().unwrap();
                let value = value.join(" ");
                let value = serde_json::from_str(&value).unwrap_or_else(|_| value.into());
                attempts.last_mut().unwrap()[field] = value;
            }),
            ["file", "deleted"] => fs::remove_file(path).unwrap(),
            ["file", "cut"] => fs::write(path, &video("")[..1000]).unwrap(),
            ["file", "longer"] => fs::write(path, video("").repeat(2)).unwrap(),
            ["file", "mine"] => fs::write(path, "mine").unwrap(),
            ["file", "still", "mine"] => assert!(fs::read(path).unwrap() == b"mine"),
            [prompt, "is", "not", "current"] => {
                assert!(!self.file(prompt).is_current().unwrap());
            }
            _ => {
                let is_prompt = |word: &&str| matches!(*word, "A" | "B" | "C");
                let at = words.iter().position(is_prompt).unwrap();
                let run = self.run(&words[..at], words[at]);
                run.ends(&words[at + 1..].join(" "));
            }
        }
    }
}

fn nowhere() -> Client {
    let builder = support::builder("http://127.0.0.1:9/v2");
    builder.build().unwrap()
}

impl Run<'_> {
    fn ends(self, outcome: &str) {
        match outcome {
            "saves" => return self.saves(),
            "is there" => {
                assert_eq!(self.requests, 0);
                return self.saves();
            }
            "is refused" => assert_eq!(self.requests, 0),
            _ => {}
        }
        let receipt = self.world.receipt_path();
        let error = self.error();
        let text = error.to_string();
        let way_out = format!("\"given_up\" in {}", receipt.display());
        let names_way_out = text.contains(&way_out);
        match (outcome, &error) {
            ("is refused", Error::File { .. }) => {}
            // It ended free of charge, and may be sent again.
            ("fails", Error::Failed { receipt: None, .. }) => {}
            ("is unsent", Error::Network { .. }) => {}
            ("times out", Error::TimedOut { .. }) => {}
            ("is not saved", Error::Download { .. }) => {}
            // Asking again may not help: only a person can permit another payment.
            ("is not found", Error::Download { .. }) => assert!(names_way_out, "{text}"),
            ("is unknown", Error::OutcomeUnknown { generation_id, .. }) => {
                assert!(names_way_out && generation_id.is_none(), "{text}");
            }
            ("is stuck", Error::OutcomeUnknown { .. } | Error::Failed { .. }) => {
                assert!(names_way_out && error.generation_id().is_some(), "{text}");
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
        let id = attempt.generation_id.unwrap();
        assert!(fs::read(world.path()).unwrap() == video(&id), "{id}");
        assert_eq!(world.receipt()["saved"], attempt.client_request_id);
        assert_eq!(world.folder.names(), ["v.mp4", "v.mp4.receipt.json"]);
        assert!(world.file(prompt).is_current().unwrap());
    }

    /// An error leaves no files behind, and says in code whether this request may be charged.
    fn error(self) -> Error {
        let error = self.result.expect_err(self.prompt);
        let names = self.world.folder.names();
        let is_left = |name: &&String| name.ends_with(".part") || name.ends_with(".lock");
        assert_eq!(names.iter().find(is_left), None, "left after {error}");
        let attempt = self.world.file(self.prompt).attempt().unwrap();
        let is_open = |a: Attempt| !matches!(a.state, State::Failed | State::GivenUp);
        let may_be_charged = attempt.is_some_and(is_open);
        assert_eq!(error.may_be_charged(), may_be_charged, "{error}");
        assert!(!error.to_string().contains(char::is_control), "{error}");
        error
    }
}

/// The contract. Below its name, each story has the runs of a program, with what comes of each, and
/// what happens between two runs.
const STORIES: &str = r#"
    a request is paid once, and then nothing is sent
        A saves; A is there; offline A is there; sent 1; receipt [Completed]
    a changed request replaces no paid video, and pays for none
        A saves; B is refused; offline B is refused; A is there; sent 1
    a video that was deleted makes room for another request's
        A saves; file deleted; B saves; A is refused; sent 2; receipt [Completed, Completed]
    with allow_replace, each request is paid once, however often they alternate
        A saves; replacing B saves; A is refused; replacing A saves; replacing B saves; sent 2
    A, a B that fails, A: nothing is sent for A
        A saves; polls fail; replacing B fails; A is there; receipt [Completed, Failed]
    A, a rejected B, A: nothing is sent for A
        A saves; post rejected; replacing B is rejected 403; A is there
    A, a B that is not sent, A: B leaves no entry
        A saves; offline replacing B is unsent; receipt [Completed]; offline A is there
    A, a B whose response is lost, A, B: B is looked up
        A saves; response lost; log empty; hasty replacing B is unknown; A is there; log recovers; replacing B saves; sent 2
    A, a B that times out, A, B: B is waited for
        A saves; polls wait; hasty replacing B times out; A is there; poll recovers; replacing B saves; sent 2
    A, a B whose download fails, A: the video of A stays
        A saves; download says 400 No; replacing B is not saved; A is there; download recovers; replacing B saves; sent 2
    a lost response is found in the usage log
        response lost; A saves; sent 1
    the run that lost a response asks the log again, which may be late
        response lost; log late 3; A saves; sent 1
    a request that the log does not have is never sent again unasked
        response lost; log empty; hasty A is unknown; A is unknown; A is unknown; receipt [Sending]; log recovers; A saves; sent 1
    a lost request that a person gives up is paid again
        response lost; log empty; hasty A is unknown; give up A; A saves; receipt [GivenUp, Completed]; sent 2
    a person may give up by an edit of the receipt, too
        response lost; log empty; hasty A is unknown; edit state given_up; A saves; receipt [GivenUp, Completed]; sent 2
    what is given up stays given up, and what has ended is nothing to give up
        polls fail; A fails; give up A; receipt [Failed]; poll recovers; A saves; give up A; give up A; receipt [Failed, GivenUp]
    a video whose attempt was given up is not replaced unasked either
        A saves; give up A; A is not current; A is refused; replacing A saves; receipt [GivenUp, Completed]; sent 2
    a request is not sent while another one for the file is open: each half of a prompt would be paid
        polls wait; hasty A times out; B is refused; offline B is refused; sent 1; poll recovers; A saves; sent 1
    nor while the response to another one is lost
        response lost; log empty; hasty A is unknown; B is refused; sent 1
    it is sent once the other one is given up
        polls wait; hasty A times out; B is refused; give up A; poll recovers; B saves; sent 2; receipt [GivenUp, Completed]
    it is sent with allow_replace, too
        polls wait; hasty A times out; poll recovers; replacing B saves; sent 2; receipt [Waiting, Completed]
    a failed generation is sent again
        polls fail; A fails; poll recovers; A saves; receipt [Failed, Completed]; sent 2
    a rejected request is sent again, and its entry gives way
        post says 400 No; A is rejected 400; post says 429 No; A is rejected 429; receipt [Failed]; A saves; receipt [Completed]
    a request that is not sent leaves nothing
        offline A is unsent; receipt []; A saves; sent 1
    a deleted file is downloaded again
        A saves; file deleted; A is not current; A saves; sent 1
    a file of another size is replaced only if asked, and then free of charge
        A saves; file cut; A is not current; A is refused; replacing A saves; file longer; A is refused; replacing A saves; sent 1
    a file of the user's own is never replaced
        file mine; A is refused; replacing A is refused; file still mine; sent 0
    nor where a video was that is paid for
        A saves; file mine; A is refused; replacing A is refused; replacing B is refused; file still mine; sent 1
    nor after a rejected request
        post rejected; A is rejected 403; file mine; A is refused; replacing A is refused; file still mine; sent 1
    nor after a failure that had an id
        polls fail; A fails; file mine; poll recovers; A is refused; replacing A is refused; file still mine; sent 1
    nor while the video is not saved yet
        polls wait; hasty A times out; file mine; poll recovers; A is refused; replacing A is refused; file still mine; sent 1
    outages while waiting and downloading cost nothing
        first poll says 503 Busy; first poll says 429 No; first poll says 404 New; download says 503 No; A is not saved; download recovers; A saves; sent 1
    a response about another generation ends nothing
        first poll says 200 {"id": "other", "status": "failed"}; A saves; sent 1
    a URL that expires is renewed
        URL expires; A saves; sent 1
    a URL that is dead after weeks is a dead end, until the attempt is given up
        A saves; file deleted; download says 404 No; A is not found; A is not found; sent 1; give up A; download recovers; A saves; sent 2
"#;

#[test]
fn the_contract_holds_in_every_story() {
    let lines = STORIES.lines().map(str::trim);
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    for story in lines.chunks(2) {
        println!("{}", story[0]);
        World::new().tell(story[1]);
    }
    assert!(lines.len() / 2 >= 30);
}

/// Below each story, what a person reads at its end. What differs, and what is the same in many, is
/// in capitals.
const TEXTS: &str = r#"
A saves; B
    PATH: there is the video of another request, "A", which begins with \x00\x00\x00\x14ftypisom. Delete it, or call allow_replace(true), and this request's video takes its place. `resume ID FILE` saves a video elsewhere, UNSENT
A saves; file cut; A
    PATH: there is a file of another size than this video (1000 bytes instead of 2012), which begins with \x00\x00\x00\x14ftypisom. Delete it, or call allow_replace(true), and this request's video takes its place. `resume ID FILE` saves a video elsewhere, UNSENT, FREE gen:1
A saves; give up A; A
    PATH: there is the video of an attempt that was given up, which begins with \x00\x00\x00\x14ftypisom. Delete it, or call allow_replace(true), and this request's video takes its place. `resume ID FILE` saves a video elsewhere, UNSENT
file mine; replacing A
    PATH: there is a file that its receipt does not explain: move it away, or restore its receipt. Nothing replaces it, UNSENT
polls wait; hasty A times out; B
    PATH: another request for this file may be paid for, and its video was never saved: "A" (gen:1). Change the request back, give that one up with VideoFile::give_up, or call allow_replace(true), UNSENT
response lost; log empty; hasty A is unknown; B
    PATH: another request for this file may be paid for, and its video was never saved: "A" (CRID). Change the request back, give that one up with VideoFile::give_up, or call allow_replace(true), UNSENT
response lost; log empty; hasty A is unknown; file mine; A
    PATH: there is a file that its receipt does not explain: move it away, or restore its receipt. Nothing replaces it, UNSENT
response lost; log empty; hasty A
    MAYBE: no response from HOST: Peer disconnected; it is not in the usage log so far (sent to HOST). LOOK UP
response lost; log empty; hasty A is unknown; edit failure null; A
    MAYBE: the run that sent it ended before it recorded a response; it is not in the usage log so far (sent to HOST). LOOK UP
response lost; log empty; hasty A is unknown; edit sent 1700000000; A
    MAYBE: no response from HOST: Peer disconnected; it is not in the usage log, which reaches back 30 days: it was sent before that (sent to HOST). LOOK UP
response lost; log says 200 {"data": [{"client_request_id": "ID", "inference_id": "gen:1", "status": "failed"}]}; A
    MAYBE: no response from HOST: Peer disconnected; the usage log has it (1 of its rows), and names no generation that did not fail (sent to HOST). LOOK UP
response lost; log says 200 {"data": [{"client_request_id": "ID"}, {"client_request_id": "ID", "status": "succeeded"}]}; A
    MAYBE: no response from HOST: Peer disconnected; the usage log has it (2 of its rows), and names no generation that did not fail (sent to HOST). LOOK UP
response lost; log says 503 Busy; hasty A
    MAYBE: no response from HOST: Peer disconnected; looking it up failed: status 503: Busy (sent to HOST). LOOK UP
post says 502 <html>; log empty; hasty A is unknown; A
    MAYBE: status 502 came from a proxy (a web page: is http://HOST/v2 the base URL of the API?): <html>; it is not in the usage log so far (sent to HOST). LOOK UP
post says 400 {"id": "ID", "message": "No"}; poll says 404 {"message": "Not Found", "path": "/", "requestId": "r", "statusCode": 404, "timestamp": "t"}; A
    http://HOST/v2 responded with status 400: No; this request was not charged
post says 400 {"id": "ID", "message": "No"}; poll says 404 <html>; A
    MAYBE: generation gen:1: http://HOST/v2 responded with status 404: <html>; check the id, that the key belongs to the account that requested it, and the base URL, http://HOST/v2 (sent to HOST). Do not just send it again: run this again later, which asks for generation gen:1 again and pays nothing. GIVE UP
poll says 200 {"id": "ID", "status": "failed", "meta": {"usage": {"credits_used": "7"}}}; A
    generation gen:1 ended without a video (status failed); it was charged all the same: ask the vendor, with this id. Running this again asks again, and pays nothing. GIVE UP
poll says 200 {"status": "failed"}; A
    generation gen:1 ended without a video (status failed); the response names no generation: wait for this id again before paying for another. Running this again asks again, and pays nothing. GIVE UP
poll says 200 {"id": "ID", "status": "completed"}; A
    generation gen:1 ended without a video (status completed), response: {"id":"gen:1","status":"completed"}; it may have been charged: ask the vendor, with this id. Running this again asks again, and pays nothing. GIVE UP
poll says 200 {"id": "ID", "status": "rejected", "error": "Nudity."}; A
    generation gen:1 ended without a video (status rejected): Nudity; the vendor does not charge failed generations
poll says 401 {"message": "No such key."}; A
    generation gen:1: http://HOST/v2 responded with status 401: No such key; check the API key, and that http://HOST/v2 is the URL it belongs to
A saves; file deleted; download says 404 No; A
    PATH: 5 attempts in a row failed, the last: the file server responded with status 404, which begins: No. `resume ID` prints its URL, for another program. GIVE UP, FREE gen:1
"#;

#[test]
fn each_text_says_what_happened_and_one_way_out() {
    let lines: Vec<&str> = TEXTS.lines().filter(|line| !line.is_empty()).collect();
    for story in lines.chunks(2) {
        let world = World::new();
        let (steps, last) = story[0].rsplit_once("; ").unwrap_or(("sent 0", story[0]));
        world.tell(steps);
        let words: Vec<&str> = last.split(' ').collect();
        let (prompt, options) = words.split_last().unwrap();
        let mut text = world.run(options, prompt).error().to_string();
        let attempts = world.file("A").attempts().unwrap();
        let receipt = world.receipt_path().display().to_string();
        let crid = attempts.last().map_or("-", |a| &a.client_request_id);
        for (long, short) in [
            (receipt.as_str(), "RECEIPT"),
            (&world.path().display().to_string(), "PATH"),
            (&world.service.host(), "HOST"),
            (&format!(" {crid}"), " CRID"),
            (&format!("({crid})"), "(CRID)"),
            ("the generation may have been made and charged", "MAYBE"),
            (GIVE_UP, "GIVE UP"),
            (LOOK_UP, "LOOK UP"),
            (
                ". Its generation is gen:1: trying again with that id costs nothing",
                ", FREE gen:1",
            ),
            ("; nothing was sent", ", UNSENT"),
        ] {
            text = text.replace(long, short);
        }
        assert_eq!(text, story[1].trim(), "{}", story[0]);
    }
}

const GIVE_UP: &str = "Only to give this attempt up, call VideoFile::give_up, or change its \"state\" to \"given_up\" in RECEIPT: \
    then the next run pays again";
const LOOK_UP: &str = "Do not just send it again: run this again later, which looks it up as CRID and pays nothing. GIVE UP";

/// What the server says, and what that makes of the request: it is open, or may be sent again.
const RESPONSES: &str = r#"
    # A cost is a number, or a string that is one. What is neither is never free, nor forgotten.
    poll says 200 {"id": "ID", "status": "error", "meta": {"usage": null}} | fails | [Failed]
    poll says 200 {"id": "ID", "status": "error", "meta": {"usage": {"credits_used": 0, "usd_spent": "0.00"}}} | fails | [Failed]
    poll says 200 {"id": "ID", "status": "error", "meta": {"usage": {"credits_used": "7"}}} | is stuck | [Waiting]
    poll says 200 {"id": "ID", "status": "error", "meta": {"usage": {"usd_spent": "6 cents"}}} | is stuck | [Waiting]
    poll says 200 {"id": "ID", "status": "error", "meta": {"usage": {"credits_used": -7}}} | is stuck | [Waiting]
    first poll says 200 {"status": "queued", "meta": {"usage": {"credits_used": "7"}}}; polls fail | is stuck | [Waiting]
    first poll says 200 {"status": "queued", "meta": {"usage": {"usd_spent": {}}}}; polls fail | is stuck | [Waiting]
    post says 200 {"id": "ID", "status": "queued", "meta": {"usage": {"credits_used": "7"}}}; polls fail | is stuck | [Waiting]

    # Failed is what one of six words says of this generation. All else may have cost something.
    poll says 200 {"generation_id": "ID", "status": "canceled"} | fails | [Failed]
    poll says 200 {"id": "ID", "status": "Aborted"} | fails | [Failed]
    poll says 200 {"id": "ID", "status": "rejected"} | fails | [Failed]
    poll says 200 {"id": "ID", "status": "expired"} | is stuck | [Waiting]
    poll says 200 {"id": "ID", "status": "completed", "video": null} | is stuck | [Waiting]
    poll says 200 {"status": "error", "message": "Gateway timeout"} | is stuck | [Waiting]
    poll says 404 {"message": "Not Found", "path": "/", "requestId": "r", "statusCode": 404, "timestamp": "t"} | is stuck | [Waiting]
    poll says 401 {"message": "Key"} | is rejected 401 | [Waiting]

    # A request is rejected by what says so, and names neither an id nor a cost.
    post says 500 {"message": "m", "path": "p", "requestId": "r", "statusCode": 500, "timestamp": "t"} | is rejected 500 | [Failed]
    post says 500 {"message": "m", "path": "p", "requestId": "r", "statusCode": 500, "timestamp": null} | is unknown | [Sending]
    post says 502 {"message": "m", "statusCode": 502} | is unknown | [Sending]
    post says 504 {"message": "m", "path": "p", "requestId": "r", "statusCode": 504, "timestamp": "t"} | is unknown | [Sending]
    post says 400 {"message": "m", "path": "p", "requestId": "r", "statusCode": "504", "timestamp": "t"} | is unknown | [Sending]
    post says 400 {"message": "m", "meta": {"usage": {"credits_used": "7"}}} | is unknown | [Sending]

    # A rejection that names a generation is one once the server does not know that generation.
    post says 400 {"id": "gen:7"}; poll says 404 {"message": "m", "path": "p", "requestId": "r", "statusCode": 404, "timestamp": "t"} | is rejected 400 | [Failed]
    post says 400 {"id": "gen:7"}; poll says 404 <html> | is stuck | [Waiting]
    post says 400 {"id": "gen:7"}; first poll says 404 <html>; poll says 404 {"message": "m", "path": "p", "requestId": "r", "statusCode": 404, "timestamp": "t"} | is stuck | [Waiting]
    post says 400 {"id": "gen:7"}; polls fail | fails | [Failed]

    # Of the rows in the usage log, one that did not fail names the generation. Others prove nothing.
    response lost; log says 200 {"data": [{"client_request_id": "ID", "status": "failed", "inference_id": "gen:8", "cost": {"usd": 0}}]} | is unknown | [Sending]
    response lost; log says 200 {"data": [{"client_request_id": "ID", "status": "failed", "cost": {"usd": "0.06"}}]} | is unknown | [Sending]
    response lost; log says 200 {"data": [{"client_request_id": "ID", "status": "succeeded"}]} | is unknown | [Sending]
    response lost; log says 200 {"data": [{"client_request_id": "ID", "status": "succeeded", "cost": "much", "inference_id": 17}]}; polls fail | is stuck | [Waiting]
    response lost; log says 200 {"data": [{"client_request_id": "ID", "inference_id": "gen:7"}]}; polls fail | fails | [Failed]
    response lost; log says 200 {"data": [{"client_request_id": "ID", "status": "failed", "cost": {"credits": "7"}}, {"client_request_id": "ID", "inference_id": "gen:7"}]}; polls fail | is stuck | [Waiting]
"#;

#[test]
fn a_request_is_sent_again_only_where_the_server_says_that_it_cost_nothing() {
    let is_case = |line: &&str| !line.is_empty() && !line.starts_with('#');
    for case in RESPONSES.lines().map(str::trim).filter(is_case) {
        println!("{case}");
        let [says, outcome, receipt] = cells(case);
        let world = World::new();
        world.tell(says);
        if outcome == "is unknown" && !says.contains("log says") {
            world.tell("log empty; hasty A is unknown");
        } else {
            world.tell(&format!("A {outcome}"));
        }
        world.tell(&format!("receipt {receipt}; sent 1"));
        // The next run asks again, or sends the request again.
        world.tell("polls wait; post rejected");
        let sent_again = usize::from(receipt == "[Failed]");
        let _ = world.run(&["hasty"], "A").error();
        assert_eq!(world.service.posts(), 1 + sent_again);
    }
}

#[test]
fn a_run_that_did_not_lose_the_response_itself_asks_the_log_once() {
    let world = World::new();
    world.tell("response lost; log empty; hasty A is unknown");
    let before = world.service.lookups();
    world.tell("A is unknown");
    assert_eq!(world.service.lookups(), before + 1);
}

#[test]
fn the_rows_of_a_request_may_be_on_two_pages_and_its_id_a_number() {
    let world = World::new();
    let more = r#""pagination": {"has_more": true}"#;
    let failed = r#"{"client_request_id": "ID", "status": "failed", "inference_id": "gen:8"}"#;
    let found = r#"{"client_request_id": "ID", "status": "succeeded", "inference_id": 17}"#;
    world.tell("response lost");
    world.tell(&format!(
        "first log says 200 {{\"data\": [{failed}], {more}}}"
    ));
    world.tell(&format!(
        "log says 200 {{\"data\": [{found}]}}; A saves; sent 1"
    ));
    assert_eq!(world.receipt()["attempts"][0]["generation_id"], "17");
}

#[test]
fn a_404_of_another_server_is_no_reason_to_pay_again() {
    let (world, other) = (World::new(), World::new());
    let gone =
        r#"{"message": "m", "path": "p", "requestId": "r", "statusCode": 404, "timestamp": "t"}"#;
    other.tell(&format!("poll says 404 {gone}"));
    // The request was rejected, and its response named a generation that nothing else knows of yet.
    world.tell(r#"post says 400 {"id": "gen:1"}; polls wait; hasty A times out"#);
    for _ in 0..2 {
        let run = world.run_at(&other.service.client(), false, "A");
        run.ends("is stuck");
    }
    world.tell("poll recovers; A saves; sent 1");
    other.tell("sent 0");
}

#[test]
fn the_callback_sees_each_step() {
    let world = World::new();
    world.tell(
        r#"first poll says 200 {"status": "queued"}; first poll says 200 {"status": "generating"}"#,
    );
    let mut steps = Vec::new();
    let callback = |progress: Progress<'_>| match progress {
        Progress::Generation(generation) => steps.push(generation.status.to_string()),
        Progress::Download { done, total, .. } => steps.push(format!("{done} of {total:?}")),
        _ => unreachable!(),
    };
    world
        .file("A")
        .generate(&world.service.client(), callback)
        .unwrap();
    let (polls, download) = steps.split_at(4);
    assert_eq!(polls, ["queued", "queued", "generating", "completed"]);
    let end = format!("{0} of Some({0})", video("").len());
    assert_eq!(download.last(), Some(&end));
}

#[test]
fn a_request_that_fails_a_local_check_touches_nothing() {
    let (world, file) = (World::new(), |w: &World, r| VideoFile::new(w.path(), r));
    let blank = file(&world, VideoRequest::new(" "));
    let id = "x".repeat(82);
    let long = file(&world, VideoRequest::new("A").client_request_id(id));
    let client = world.service.client();
    for error in [
        blank.is_current().unwrap_err(),
        blank.give_up().unwrap_err(),
        blank.generate(&client, |_| {}).unwrap_err(),
        long.generate(&client, |_| {}).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        assert!(!error.may_be_charged());
    }
    assert!(world.service.requests().is_empty() && world.folder.names().is_empty());
}

#[test]
fn a_large_body_that_is_refused_midway_is_not_charged_and_leaves_its_reason() {
    let world = World::new();
    let image = format!("data:image/png;base64,{}", "A".repeat(20_000_000));
    let request = VideoRequest::new("A")
        .model("google/veo-3.0-i2v")
        .image_url(image);
    let file = VideoFile::new(world.path(), request);
    // Reads the head, and closes.
    let server = support::Server::listen("127.0.0.1:0", |mut stream, _, _| {
        let _ = io::Read::read(&mut stream, &mut [0; 1000]);
    });
    let error = file.generate(&server.client(), |_| {}).unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error}");
    assert!(!error.may_be_charged());
    world.tell("receipt [Failed]");
    file.generate(&world.service.client(), |_| {}).unwrap();
    world.tell("receipt [Completed]; sent 1");
    let receipt = fs::read_to_string(world.receipt_path()).unwrap();
    assert!(
        receipt.len() < 2000 && !receipt.contains("base64"),
        "{receipt}"
    );
}

#[test]
fn an_attempt_that_is_given_up_while_a_run_works_at_it_ends_that_run() {
    for end in ["poll recovers", "polls wait"] {
        let (world, mut is_given_up) = (World::new(), false);
        world.tell(end);
        let result = world.file("A").generate(&world.service.client(), |_| {
            if !is_given_up {
                is_given_up = true;
                world.tell("edit state given_up");
            }
        });
        let text = "this attempt was given up while this run worked at it. Its generation is gen:1: \
                    trying again with that id costs nothing";
        let path = world.receipt_path().display().to_string();
        assert_eq!(result.unwrap_err().to_string(), format!("{path}: {text}"));
        world.tell("receipt [GivenUp]; poll recovers; A saves; sent 2");
    }
}
