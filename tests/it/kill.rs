//! Killed, stopped or shut down at any moment, and run again: one payment, one whole file, no id
//! lost.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, thread};

use aimlapi_video::Error;

use crate::locks::run_child;
use crate::service::{Say, say, video};
use crate::support::{Act, child_task, http};
use crate::video_file::World;

/// Counted, not timed: a slow machine takes longer.
const KILLS: u32 = 100;
/// After so many, a file is finished in peace.
const MOST_A_FILE: u32 = 8;

/// Random numbers, from a seed that is shown when a test fails.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Dice(now.unwrap().as_nanos() as u64)
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below.max(1)
    }

    fn sleep(&mut self, at_most: Duration) {
        thread::sleep(Duration::from_nanos(self.roll(at_most.as_nanos() as u64)));
    }
}

fn start(world: &World, test: &str) -> Child {
    let mut command = world.child(&format!("kill::{test}"));
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// How long a whole run takes.
fn lifetime(test: &str) -> Duration {
    let run = |_| {
        let (world, start_time) = (World::new(), Instant::now());
        assert!(start(&world, test).wait().unwrap().success());
        start_time.elapsed()
    };
    (0..5).map(run).min().unwrap()
}

/// One more run, after which the file is whole, and paid for once.
fn finish(world: &World, seed: u64) {
    let mut last = world.generate("A");
    if let Err(Error::OutcomeUnknown { .. }) = last
        && world.service.posts() == 0
    {
        // Killed between the receipt and the request's body. Only this test can know that nothing
        // was sent.
        world.file("A").give_up().unwrap();
        last = world.generate("A");
    }
    last.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert_eq!(world.service.posts(), 1, "seed {seed}");
    assert!(
        fs::read(world.path()).unwrap() == video("gen:1"),
        "seed {seed}"
    );
    assert!(!world.folder.names().contains(&"v.mp4.part".to_owned()));
}

#[test]
fn killed_at_any_moment_it_pays_once() {
    let test = "killed_at_any_moment_it_pays_once";
    if let Some(path) = child_task() {
        return run_child(&path);
    }
    let (mut dice, lifetime, mut kills) = (Dice::new(), lifetime(test), 0);
    let seed = dice.0;
    while kills < KILLS {
        let world = World::new();
        world
            .service
            .script()
            .polls
            .push_back(say(200, r#"{"status": "queued"}"#));
        for _ in 0..MOST_A_FILE {
            let mut child = start(&world, test);
            dice.sleep(lifetime);
            let was_alive = child.try_wait().unwrap().is_none();
            child.kill().unwrap();
            child.wait().unwrap();
            kills += u32::from(was_alive);
            // No partial file under the final name, ever.
            if let Ok(there) = fs::read(world.path()) {
                assert!(there == video("gen:1"), "seed {seed}");
            }
            if world.service.posts() > 0 {
                let attempt = world.file("A").attempt().unwrap();
                let attempt = attempt.unwrap_or_else(|| panic!("paid, no receipt, seed {seed}"));
                let client = world.service.client();
                let find = || {
                    client
                        .find_generation_id(&attempt.client_request_id)
                        .unwrap()
                };
                let id = attempt.generation_id.clone().or_else(find);
                assert_eq!(id.as_deref(), Some("gen:1"), "the id is lost, seed {seed}");
            }
            if !was_alive || world.path().exists() {
                break;
            }
        }
        finish(&world, seed);
    }
}

/// As a laptop's sleep does, or a debugger.
#[cfg(unix)]
#[test]
fn stopped_while_its_lock_is_deleted_and_another_run_pays_it_pays_nothing() {
    let test = "stopped_while_its_lock_is_deleted_and_another_run_pays_it_pays_nothing";
    if let Some(path) = child_task() {
        return run_child(&path);
    }
    let signal = |child: &Child, signal: &str| {
        let id = child.id().to_string();
        let sent = std::process::Command::new("kill")
            .args([signal, &id])
            .status();
        assert!(sent.unwrap().success());
    };
    let (mut dice, lifetime) = (Dice::new(), lifetime(test));
    let seed = dice.0;
    for _ in 0..30 {
        let world = World::new();
        let mut child = start(&world, test);
        dice.sleep(lifetime);
        signal(&child, "-STOP");
        let _ = fs::remove_file(world.folder.path("v.mp4.lock"));
        let _ = world.generate("A");
        signal(&child, "-CONT");
        child.wait().unwrap();
        assert!(world.service.posts() <= 1, "seed {seed}");
        finish(&world, seed);
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// A response that ends here, on a connection that stays.
fn silence(begin: &[u8]) -> Say {
    Say::Acts(vec![Act::Send(begin.to_owned()), Act::Stall(HOUR)])
}

/// The run of a client that is shut down once this many requests have come.
fn cut_off(world: &World, requests: usize) -> Error {
    let builder = world.service.builder().poll_interval(HOUR);
    let builder = builder.poll_timeout(HOUR).retry_delay(HOUR);
    let client = builder.build().unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| world.file("A").generate(&client, |_| {}).unwrap_err());
        while world.service.requests().len() < requests {
            assert!(!run.is_finished(), "{}", run.join().unwrap());
            thread::yield_now();
        }
        // From the request to what follows it. Too short a time changes no outcome.
        thread::sleep(Duration::from_millis(10));
        let start = Instant::now();
        client.shutdown();
        let error = run.join().unwrap();
        assert!(start.elapsed() < Duration::from_secs(1), "{error}");
        error
    })
}

#[test]
fn a_post_or_its_look_up_that_is_cut_off_leaves_what_became_of_it_unknown() {
    type Prepare = fn(&World);
    let phases: [(&str, Prepare, usize); 3] = [
        (
            "POST",
            |w| w.service.script().posts.push_back((true, silence(b""))),
            1,
        ),
        (
            "look-up",
            |w| w.service.script().logs.push_back(silence(b"")),
            2,
        ),
        ("pause", |w| w.tell("log empty"), 2),
    ];
    for (phase, prepare, requests) in phases {
        println!("{phase}");
        let world = World::new();
        prepare(&world);
        if phase != "POST" {
            world.tell("response lost");
        }
        let error = cut_off(&world, requests);
        let unknown = matches!(
            &error,
            Error::OutcomeUnknown {
                generation_id: None,
                ..
            }
        );
        assert!(unknown && error.may_be_charged(), "{error}");
        if phase == "POST" {
            let cause = format!(
                "the client was shut down while it waited for {}",
                world.service.host()
            );
            assert_eq!(world.receipt()["attempts"][0]["failure"], cause);
        }
        world.tell("receipt [Sending]; log recovers; A saves; sent 1");
    }
}

#[test]
fn a_wait_or_a_download_that_is_cut_off_names_the_generation() {
    let half = |bytes: &[u8]| http(200, &[("content-length", "9999")], bytes);
    let video = half(b"\0\0\0\x14ftypisom0123456789");
    for (phase, said, requests) in [
        ("poll", silence(b""), 2),
        ("middle of a poll", silence(&half(br#"{"status": "#)), 2),
        (
            "pause between polls",
            say(200, r#"{"status": "queued"}"#),
            2,
        ),
        ("download", silence(b""), 3),
        ("middle of a download", silence(&video), 3),
        ("pause after a failed download", say(503, ""), 3),
    ] {
        println!("{phase}");
        let world = World::new();
        match requests {
            2 => world.service.script().polls.push_back(said),
            _ => world.service.script().downloads.push_back(said),
        }
        let error = cut_off(&world, requests);
        let text = "the client was shut down. Generation gen:1 continues on the server: waiting for \
                    that id costs nothing";
        assert_eq!(error.to_string(), text);
        assert!(matches!(error, Error::Shutdown { .. }) && error.may_be_charged());
        world.tell("A saves; sent 1");
    }
}

#[test]
fn nothing_is_sent_afterwards() {
    let (world, client) = (World::new(), World::new().service.client());
    client.shutdown();
    let error = world.file("A").generate(&client, |_| {}).unwrap_err();
    assert_eq!(error.to_string(), "the client was shut down");
    assert!(!error.may_be_charged());
    world.tell("receipt []; A saves; sent 1");
    // A file that is finished needs no client.
    world.file("A").generate(&client, |_| {}).unwrap();
}

#[test]
fn the_wait_for_a_lock_ends_and_the_holder_goes_on() {
    let world = World::new();
    let mut waited = None;
    let holder = world.file("A").generate(&world.service.client(), |_| {
        waited.get_or_insert_with(|| {
            let client = world.service.client();
            thread::scope(|scope| {
                let run = scope.spawn(|| world.file("A").generate(&client, |_| {}));
                thread::sleep(Duration::from_millis(10));
                client.shutdown();
                run.join().unwrap().unwrap_err()
            })
        });
    });
    holder.unwrap();
    let error = waited.unwrap();
    assert!(matches!(error, Error::Shutdown { .. }), "{error}");
    assert_eq!(error.generation_id(), Some("gen:1"));
    world.tell("A is there; sent 1");
}

#[cfg(unix)]
#[test]
fn the_wait_for_a_lock_that_ends_forgets_no_request_whose_response_was_lost() {
    let world = World::new();
    world.tell("response lost; log empty; hasty A is unknown");
    let lock = fs::File::create(world.folder.path("v.mp4.lock")).unwrap();
    lock.lock().unwrap();
    let client = world.service.client();
    client.shutdown();
    let error = world.file("A").generate(&client, |_| {}).unwrap_err();
    let is_unknown = matches!(error, Error::OutcomeUnknown { .. });
    assert!(is_unknown && error.may_be_charged(), "{error}");
}
