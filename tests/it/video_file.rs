//! The contract of a video file: each request is paid for once, whatever happens in between.

use std::{fs, io::Read, path::PathBuf, sync::Mutex, time::Duration};

use aimlapi_video::{Attempt, Client, Error, Progress, State, VideoFile, VideoRequest};
use serde_json::Value;

use crate::service::{Say, Service, say, video};
use crate::support::{Act, Folder, Server, fox_with_image, offline, once};

/// Steps that many stories have.
#[rustfmt::skip]
const ALIASES: [(&str, &str); 10] = [
    ("log empty", r#"log says 200 {"data": []}"#),
    ("first log empty", r#"first log says 200 {"data": []}"#),
    ("polls wait", r#"poll says 200 {"status": "generating"}"#),
    ("polls fail", r#"poll says 200 {"id": "ID", "status": "error", "error": {"name": "SafetyError", "message": "Rejected."}}"#),
    ("poll says gone", r#"poll says 404 {"message": "m", "path": "p", "requestId": "r", "statusCode": 404, "timestamp": "t"}"#),
    ("post rejected", r#"post says 403 {"message": "Rejected."}"#),
    ("URL expires", "first download says 403 Expired"),
    ("A is sent again", "sent 1; receipt [Failed]; post rejected; A is rejected 403; sent 2"),
    ("A is waited for", "receipt [Waiting]; polls wait; post rejected; hasty A times out; sent 1"),
    ("A stays unknown", "receipt [Sending]; post rejected; hasty A is unknown; sent 1"),
];

/// What many texts have, and what stands for it in stories.
#[rustfmt::skip]
const PHRASES: [(&str, &str); 7] = [
    ("the generation may have been made and charged", "MAYBE"),
    ("Only to give this attempt up, call VideoFile::give_up, or change its \"state\" to \"given_up\" in RECEIPT: then the next run pays again", "GIVE UP"),
    ("Do not just send it again: run this again later, which looks it up as CRID and pays nothing", "LOOK UP"),
    ("Running this again asks again, and pays nothing", "AGAIN"),
    ("Delete it, or call allow_replace(true), and this request's video takes its place. `resume ID FILE` saves a video elsewhere", "REPLACE"),
    (". Its generation is gen:1: trying again with that id costs nothing", ", FREE gen:1"),
    ("; nothing was sent", ", UNSENT"),
];

/// A folder with one video file, and a service.
pub(crate) struct World {
    pub(crate) folder: Folder,
    pub(crate) service: Service,
    /// What each run that failed said, as stories write it.
    texts: Mutex<Vec<String>>,
}

impl World {
    pub(crate) fn new() -> Self {
        World {
            folder: Folder::new(),
            service: Service::start(),
            texts: Mutex::default(),
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
        let builder = builder.poll_timeout(Duration::from_millis(1));
        builder.build().unwrap()
    }

    /// Does what the steps of a story say.
    pub(crate) fn tell(&self, steps: &str) {
        for step in steps.split("; ") {
            match ALIASES.iter().find(|(name, _)| *name == step) {
                Some((_, steps)) => self.tell(steps),
                None => self.take(&step.split(' ').collect::<Vec<_>>()),
            }
        }
    }

    fn take(&self, step: &[&str]) {
        let path = self.path();
        match *step {
            ["response", "lost"] => {
                let lost = (true, Say::Acts(vec![Act::Close]));
                self.service.script().posts.push_back(lost);
            }
            ["log", "late", n] => {
                (0..n.parse().unwrap()).for_each(|_| self.tell("first log empty"));
            }
            ["first", which, "says", ref words @ ..] => self.script(which, true, words),
            [which, "says", ref words @ ..] => self.script(which, false, words),
            [which, "recovers"] => self.script(which, false, &[]),
            ["sent", n] => assert_eq!(self.service.posts().to_string(), n, "POSTs"),
            ["looked", "up", n] => assert_eq!(self.service.lookups().to_string(), n),
            ["receipt", ref expected @ ..] => {
                let attempts = self.file("A").attempts().unwrap();
                let states: Vec<State> = attempts.iter().map(|a| a.state).collect();
                assert_eq!(format!("{states:?}"), expected.join(" "));
            }
            ["entry", field, ref value @ ..] => {
                let value: Value = serde_json::from_str(&value.join(" ")).unwrap();
                assert_eq!(self.receipt()["attempts"][0][field], value);
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
                let at = step.iter().position(is_prompt).unwrap();
                let (options, outcome) = (&step[..at], step[at + 1..].join(" "));
                let client = match options {
                    ["hasty", ..] => self.hasty(),
                    ["offline", ..] => offline(),
                    _ => self.service.client(),
                };
                self.run(&client, options.contains(&"replacing"), step[at], &outcome);
            }
        }
    }

    /// Sets what a part of the service says, once or always: a status and a body, or nothing special.
    fn script(&self, which: &str, is_once: bool, words: &[&str]) {
        let said = words.split_first();
        let said = said.map(|(status, body)| say(status.parse().unwrap(), &body.join(" ")));
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

    /// The text of an error, with short words for what is long or differs from run to run.
    fn shorten(&self, error: &Error) -> String {
        let attempts = self.file("A").attempts().unwrap();
        let last = attempts.last();
        let crid = last.map_or("no attempt", |a| &a.client_request_id);
        let text = error
            .to_string()
            .replace(&self.receipt_path().display().to_string(), "RECEIPT")
            .replace(&self.path().display().to_string(), "PATH")
            .replace(&self.service.host(), "HOST")
            .replace(crid, "CRID");
        let shorten = |text: String, (long, short): &(&str, &str)| text.replace(long, short);
        PHRASES.iter().fold(text, shorten)
    }

    /// A run of a program, and what comes of it.
    fn run(&self, client: &Client, may_replace: bool, prompt: &str, outcome: &str) {
        let before = self.service.requests().len();
        let file = self.file(prompt).allow_replace(may_replace);
        let result = file.generate(client, |_| {});
        if matches!(outcome, "is there" | "is refused") {
            assert_eq!(self.service.requests().len(), before);
        }
        match result {
            Ok(attempt) => {
                assert!(matches!(outcome, "is there" | "saves"), "not {outcome}");
                self.check_saved(prompt, attempt);
            }
            Err(error) => self.check_failed(prompt, &error, outcome),
        }
    }

    fn check_saved(&self, prompt: &str, attempt: Attempt) {
        let ended = (attempt.prompt.as_deref(), attempt.state);
        assert_eq!(ended, (Some(prompt), State::Completed));
        let id = attempt.generation_id.unwrap();
        assert!(fs::read(self.path()).unwrap() == video(&id), "{id}");
        assert_eq!(self.receipt()["saved"], attempt.client_request_id);
        assert_eq!(self.folder.names(), ["v.mp4", "v.mp4.receipt.json"]);
        assert!(self.file(prompt).is_current().unwrap());
    }

    fn check_failed(&self, prompt: &str, error: &Error, outcome: &str) {
        let text = self.shorten(error);
        let has_way_out = text.contains("GIVE UP");
        let has_id = error.generation_id().is_some();
        self.texts.lock().unwrap().push(text);
        let is_outcome = match (outcome, error) {
            ("is refused", Error::File { .. }) => true,
            // It ended free of charge, and may be sent again.
            ("fails", Error::Failed { receipt: None, .. }) => true,
            ("is unsent", Error::Network { .. }) => true,
            ("times out", Error::TimedOut { .. }) => true,
            ("is not saved", Error::Download { .. }) => true,
            // Asking again may not help: only a person can permit another payment.
            ("is not found", Error::Download { .. }) => has_way_out,
            ("is unknown", Error::OutcomeUnknown { .. }) => has_way_out && !has_id,
            ("is stuck", Error::OutcomeUnknown { .. } | Error::Failed { .. }) => {
                has_way_out && has_id
            }
            (_, Error::Api(api)) => outcome == format!("is rejected {}", api.status),
            _ => false,
        };
        assert!(is_outcome, "not {outcome}: {error}");
        assert!(!error.to_string().contains(char::is_control), "{error}");
        // It leaves no files behind, and says in code whether this request may be charged.
        let names = self.folder.names();
        let is_left = |name: &&String| name.ends_with(".part") || name.ends_with(".lock");
        assert_eq!(names.iter().find(is_left), None, "left after {error}");
        let attempt = self.file(prompt).attempt().unwrap();
        let is_open = |a: Attempt| !matches!(a.state, State::Failed | State::GivenUp);
        let is_open = attempt.is_some_and(is_open);
        assert_eq!(error.may_be_charged(), is_open, "{error}");
    }
}

/// Tells the stories of a table, and counts them. In it, below each promise are stories that show it:
/// the runs of a program, with what comes of each, and what happens between two runs. Below a story
/// is what a person reads in it, with words in capitals for what many texts have.
fn tell_all(table: &str) -> usize {
    let (mut world, mut count) = (World::new(), 0);
    for line in table.lines() {
        println!("{}", line.trim());
        if let Some(text) = line.strip_prefix("            ") {
            let texts = world.texts.lock().unwrap();
            assert!(texts.iter().any(|said| said == text), "{texts:#?}");
        } else if let Some(story) = line.strip_prefix("        ") {
            world = World::new();
            world.tell(story);
            count += 1;
        }
    }
    count
}

const STORIES: &str = r#"
    a request is paid once, and then nothing is sent
        A saves; A is there; offline A is there; sent 1; receipt [Completed]
    a changed request replaces no paid video, and pays for none
        A saves; B is refused; offline B is refused; A is there; sent 1
            PATH: there is the video of another request, "A", which begins with \x00\x00\x00\x14ftypisom. REPLACE, UNSENT
    a video that was deleted makes room for another request's
        A saves; file deleted; B saves; A is refused; sent 2; receipt [Completed, Completed]
    with allow_replace, each request is paid once, however often they alternate
        A saves; replacing B saves; A is refused; replacing A saves; replacing B saves; sent 2
    A, a B that ends without a video, A: nothing is sent for A
        A saves; polls fail; replacing B fails; A is there; receipt [Completed, Failed]
        A saves; post rejected; replacing B is rejected 403; A is there
        A saves; offline replacing B is unsent; receipt [Completed]; offline A is there
    A, a B that may be paid for, A, B: nothing is sent for A, and B is looked up, waited for or saved
        A saves; response lost; log empty; hasty replacing B is unknown; A is there; log recovers; replacing B saves; sent 2
        A saves; polls wait; hasty replacing B times out; A is there; poll recovers; replacing B saves; sent 2
        A saves; download says 400 No; replacing B is not saved; A is there; download recovers; replacing B saves; sent 2
    a lost response is found in the usage log, which the run that lost it asks again: the log may be late
        response lost; A saves; sent 1
        response lost; log late 3; A saves; sent 1
    a run that did not lose the response itself asks the log once
        polls wait; hasty A times out; edit state sending; edit generation_id null; log empty; A is unknown; looked up 1
    the rows of a request may be on two pages, and its id a number
        response lost; first log says 200 {"data": [{"client_request_id": "ID", "status": "failed", "inference_id": "gen:8"}], "pagination": {"has_more": true}}; log says 200 {"data": [{"client_request_id": "ID", "status": "succeeded", "inference_id": 17}]}; A saves; sent 1; entry generation_id "17"
    a request that the log does not have is never sent again unasked
        response lost; log empty; hasty A is unknown; A is unknown; A is unknown; receipt [Sending]; log recovers; A saves; sent 1
            MAYBE: no response from HOST: Peer disconnected; it is not in the usage log so far (sent to HOST). LOOK UP. GIVE UP
        response lost; log empty; hasty A is unknown; edit failure null; A is unknown
            MAYBE: the run that sent it ended before it recorded a response; it is not in the usage log so far (sent to HOST). LOOK UP. GIVE UP
        response lost; log empty; hasty A is unknown; edit sent 1700000000; A is unknown
            MAYBE: no response from HOST: Peer disconnected; it is not in the usage log, which reaches back 30 days: it was sent before that (sent to HOST). LOOK UP. GIVE UP
        response lost; log says 503 Busy; hasty A is unknown; A stays unknown
            MAYBE: no response from HOST: Peer disconnected; looking it up failed: status 503: Busy (sent to HOST). LOOK UP. GIVE UP
    a lost request that a person gives up, perhaps by an edit of the receipt, is paid again
        response lost; log empty; hasty A is unknown; give up A; A saves; receipt [GivenUp, Completed]; sent 2
        response lost; log empty; hasty A is unknown; edit state given_up; A saves; receipt [GivenUp, Completed]; sent 2
    what is given up stays given up, and what has ended is nothing to give up
        polls fail; A fails; give up A; receipt [Failed]; poll recovers; A saves; give up A; give up A; receipt [Failed, GivenUp]
    a video whose attempt was given up is not replaced unasked either
        A saves; give up A; A is not current; A is refused; replacing A saves; receipt [GivenUp, Completed]; sent 2
            PATH: there is the video of an attempt that was given up, which begins with \x00\x00\x00\x14ftypisom. REPLACE, UNSENT
    a request is not sent while another one for the file is open: each half of a prompt would be paid
        polls wait; hasty A times out; B is refused; offline B is refused; sent 1; poll recovers; A saves; sent 1
            PATH: another request for this file may be paid for, and its video was never saved: "A" (gen:1). Change the request back, give that one up with VideoFile::give_up, or call allow_replace(true), UNSENT
        response lost; log empty; hasty A is unknown; B is refused; sent 1
            PATH: another request for this file may be paid for, and its video was never saved: "A" (CRID). Change the request back, give that one up with VideoFile::give_up, or call allow_replace(true), UNSENT
    it is sent once the other one is given up, and with allow_replace
        polls wait; hasty A times out; B is refused; give up A; poll recovers; B saves; sent 2; receipt [GivenUp, Completed]
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
            PATH: there is a file of another size than this video (1000 bytes instead of 2012), which begins with \x00\x00\x00\x14ftypisom. REPLACE, UNSENT, FREE gen:1
    a file of the user's own is never replaced, whatever became of the request before
        file mine; A is refused; replacing A is refused; file still mine; sent 0
            PATH: there is a file that its receipt does not explain: move it away, or restore its receipt. Nothing replaces it, UNSENT
        A saves; file mine; A is refused; replacing A is refused; replacing B is refused; file still mine; sent 1
        post rejected; A is rejected 403; file mine; A is refused; replacing A is refused; file still mine; sent 1
        polls fail; A fails; file mine; poll recovers; A is refused; replacing A is refused; file still mine; sent 1
        response lost; log empty; hasty A is unknown; file mine; A is refused; file still mine; sent 1
            PATH: there is a file that its receipt does not explain: move it away, or restore its receipt. Nothing replaces it, UNSENT
        polls wait; hasty A times out; file mine; poll recovers; A is refused; replacing A is refused; file still mine; sent 1
            PATH: there is a file that its receipt does not explain: move it away, or restore its receipt. Nothing replaces it, UNSENT, FREE gen:1
    outages while waiting and downloading cost nothing
        first poll says 503 Busy; first poll says 429 No; first poll says 404 New; download says 503 No; A is not saved; download recovers; A saves; sent 1
    a file server that refuses is no dead end
        download says 400 No; A is not saved; download recovers; A saves; sent 1
            PATH: the file server responded with status 400, which begins: No, FREE gen:1
    a response about another generation ends nothing
        first poll says 200 {"id": "other", "status": "failed"}; A saves; sent 1
    a URL that expires is renewed
        URL expires; A saves; sent 1
    a URL that is dead after weeks is a dead end, until the attempt is given up
        A saves; file deleted; download says 404 No; A is not found; A is not found; sent 1; give up A; download recovers; A saves; sent 2
            PATH: 5 attempts in a row failed, the last: the file server responded with status 404, which begins: No. `resume ID` prints its URL, for another program. GIVE UP, FREE gen:1
"#;

#[test]
fn the_contract_holds_in_every_story() {
    assert!(tell_all(STORIES) >= 30);
}

/// What the server says, and what that makes of the request: it is open, or may be sent again.
const RESPONSES: &str = r#"
    A cost is a number, or a string that is one. What is neither is never free, nor forgotten.
        poll says 200 {"id": "ID", "status": "error", "meta": {"usage": null}}; A fails; A is sent again
        poll says 200 {"id": "ID", "status": "error", "meta": {"usage": {"credits_used": 0, "usd_spent": "0.00"}}}; A fails; A is sent again
        poll says 200 {"id": "ID", "status": "error", "meta": {"usage": {"credits_used": "7"}}}; A is stuck; A is waited for
            generation gen:1 ended without a video (status error); it was charged all the same: ask the vendor, with this id. AGAIN. GIVE UP
        poll says 200 {"id": "ID", "status": "error", "meta": {"usage": {"usd_spent": "6 cents"}}}; A is stuck; A is waited for
        first poll says 200 {"status": "queued", "meta": {"usage": {"credits_used": "7"}}}; polls fail; A is stuck; A is waited for
        first poll says 200 {"status": "queued", "meta": {"usage": {"usd_spent": {}}}}; polls fail; A is stuck; A is waited for
        post says 200 {"id": "ID", "status": "queued", "meta": {"usage": {"credits_used": "7"}}}; polls fail; A is stuck; A is waited for
    Failed is what one of six words says of this generation. All else may have cost something.
        poll says 200 {"generation_id": "ID", "status": "canceled"}; A fails; A is sent again
        poll says 200 {"id": "ID", "status": "Aborted"}; A fails; A is sent again
        poll says 200 {"id": "ID", "status": "rejected", "error": "Nudity."}; A fails; A is sent again
            generation gen:1 ended without a video (status rejected): Nudity; the vendor does not charge failed generations
        poll says 200 {"id": "ID", "status": "expired"}; A is stuck; A is waited for
        poll says 200 {"id": "ID", "status": "completed", "video": null}; A is stuck; A is waited for
            generation gen:1 ended without a video (status completed), response: {"id":"gen:1","status":"completed","video":null}; it may have been charged: ask the vendor, with this id. AGAIN. GIVE UP
        poll says 200 {"status": "error", "message": "Gateway timeout"}; A is stuck; A is waited for
            generation gen:1 ended without a video (status error); the response names no generation: wait for this id again before paying for another. AGAIN. GIVE UP
        poll says gone; A is stuck; A is waited for
        poll says 401 {"message": "Key"}; A is rejected 401; A is waited for
            generation gen:1: http://HOST/v2 responded with status 401: Key; check the API key, and that http://HOST/v2 is the URL it belongs to
    A request is rejected by what says so, and names neither an id nor a cost.
        post says 500 {"message": "m", "path": "p", "requestId": "r", "statusCode": 500, "timestamp": "t"}; A is rejected 500; A is sent again
        post says 502 {"message": "m", "statusCode": 502}; log empty; hasty A is unknown; A stays unknown
        post says 502 <html>; log empty; hasty A is unknown; A is unknown; A stays unknown
            MAYBE: status 502 came from a proxy (a web page: is http://HOST/v2 the base URL of the API?): <html>; it is not in the usage log so far (sent to HOST). LOOK UP. GIVE UP
        post says 400 {"message": "m", "meta": {"usage": {"credits_used": "7"}}}; log empty; hasty A is unknown; A stays unknown
    A rejection that names a generation is one once the server does not know that generation.
        post says 400 {"id": "gen:7"}; poll says gone; A is rejected 400; A is sent again
            http://HOST/v2 responded with status 400: {"id": "gen:7"}; this request was not charged
        post says 400 {"id": "gen:7"}; poll says 404 <html>; A is stuck; A is waited for
            MAYBE: generation gen:7: http://HOST/v2 responded with status 404: <html>; check the id, that the key belongs to the account that requested it, and the base URL, http://HOST/v2 (sent to HOST). Do not just send it again: run this again later, which asks for generation gen:7 again and pays nothing. GIVE UP
        post says 400 {"id": "gen:7"}; first poll says 404 <html>; poll says gone; A is stuck; A is waited for
        post says 400 {"id": "gen:7"}; polls fail; A fails; A is sent again
    Of the rows in the usage log, one that did not fail names the generation. Others prove nothing.
        response lost; log says 200 {"data": [{"client_request_id": "ID", "status": "failed", "inference_id": "gen:8", "cost": {"usd": 0}}]}; A is unknown; A stays unknown
            MAYBE: no response from HOST: Peer disconnected; the usage log has it (1 of its rows), and names no generation that did not fail (sent to HOST). LOOK UP. GIVE UP
        response lost; log says 200 {"data": [{"client_request_id": "ID", "status": "failed", "cost": {"usd": "0.06"}}]}; A is unknown; A stays unknown
        response lost; log says 200 {"data": [{"client_request_id": "ID", "status": "failed", "cost": {"credits": 0}}, {"client_request_id": "ID", "status": "failed", "cost": {"credits": "7"}}]}; A is unknown; entry usage {"credits_used": 7.0, "usd_spent": null}
        response lost; log says 200 {"data": [{"client_request_id": "ID"}, {"client_request_id": "ID", "status": "succeeded"}]}; A is unknown; A stays unknown
            MAYBE: no response from HOST: Peer disconnected; the usage log has it (2 of its rows), and names no generation that did not fail (sent to HOST). LOOK UP. GIVE UP
        response lost; log says 200 {"data": [{"client_request_id": "ID", "status": "succeeded", "cost": "much", "inference_id": 17}]}; polls fail; A is stuck; A is waited for
        response lost; log says 200 {"data": [{"client_request_id": "ID", "inference_id": "gen:7"}]}; polls fail; A fails; A is sent again
        response lost; log says 200 {"data": [{"client_request_id": "ID", "status": "failed", "cost": {"credits": "7"}}, {"client_request_id": "ID", "inference_id": "gen:7"}]}; polls fail; A is stuck; A is waited for
"#;

#[test]
fn a_request_is_sent_again_only_where_the_server_says_that_it_cost_nothing() {
    assert!(tell_all(RESPONSES) >= 25);
}

#[test]
fn a_404_of_another_server_is_no_reason_to_pay_again() {
    let (world, other) = (World::new(), World::new());
    other.tell("poll says gone");
    // The request was rejected, and its response named a generation that nothing else knows of yet.
    world.tell(r#"post says 400 {"id": "gen:1"}; polls wait; hasty A times out"#);
    for _ in 0..2 {
        world.run(&other.service.client(), false, "A", "is stuck");
    }
    world.tell("poll recovers; A saves; sent 1");
    other.tell("sent 0");
}

#[test]
fn the_callback_sees_each_step() {
    let world = World::new();
    world.tell(r#"first poll says 200 {"status": "queued"}"#);
    world.tell(r#"first poll says 200 {"status": "generating"}"#);
    let mut steps = Vec::new();
    let callback = |progress: Progress<'_>| match progress {
        Progress::Generation(generation) => steps.push(generation.status.to_string()),
        Progress::Download { done, total, .. } => steps.push(format!("{done} of {total:?}")),
        _ => unreachable!(),
    };
    let made = world.file("A").generate(&world.service.client(), callback);
    made.unwrap();
    let (polls, download) = steps.split_at(4);
    assert_eq!(polls, ["queued", "queued", "generating", "completed"]);
    let end = format!("{0} of Some({0})", video("").len());
    assert_eq!(download.last(), Some(&end));
}

#[test]
fn a_request_that_fails_a_local_check_touches_nothing() {
    let world = World::new();
    let long = VideoRequest::new("A").client_request_id("x".repeat(82));
    let long = VideoFile::new(world.path(), long);
    let (blank, client) = (world.file(" "), world.service.client());
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
    let file = VideoFile::new(world.path(), fox_with_image(20_000_000));
    // Reads the head, and closes.
    let server = Server::listen("127.0.0.1:0", |mut stream, _, _| {
        let _ = stream.read(&mut [0; 1000]);
    });
    let error = file.generate(&server.client(), |_| {}).unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error}");
    assert!(!error.may_be_charged());
    world.tell("receipt [Failed]");
    world.make(&file).unwrap();
    world.tell("receipt [Completed]; sent 1");
    let receipt = world.receipt().to_string();
    let is_small = receipt.len() < 2000 && !receipt.contains("base64");
    assert!(is_small, "{receipt}");
}

#[test]
fn an_attempt_that_is_given_up_while_a_run_works_at_it_ends_that_run() {
    for end in ["poll recovers", "polls wait"] {
        let world = World::new();
        world.tell(end);
        let give_up = once(|| world.tell("edit state given_up"));
        let result = world.file("A").generate(&world.service.client(), give_up);
        let text = "RECEIPT: this attempt was given up while this run worked at it, FREE gen:1";
        assert_eq!(world.shorten(&result.unwrap_err()), text);
        world.tell("receipt [GivenUp]; poll recovers; A saves; sent 2");
    }
}
