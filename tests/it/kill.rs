//! Killed, stopped or shut down at any moment, and run again: one payment, one whole file, no id
//! lost.

use std::hash::{BuildHasher, RandomState};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use aimlapi_video::{Attempt, Error};

use crate::locks::run_child;
use crate::service::{Say, say, video};
use crate::support::{Act, child_task, http};
use crate::video_file::World;

/// Counted, not timed: a slow machine takes longer.
const KILLS: u32 = 100;
/// After so many, a file is finished in peace.
const MOST_A_FILE: u32 = 8;

fn start(world: &World) -> Child {
    let mut command = world.child("kill::killed_at_any_moment_it_pays_once");
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// How long a whole run takes.
fn lifetime() -> Duration {
    let run = |_| {
        let (world, start_time) = (World::new(), Instant::now());
        assert!(start(&world).wait().unwrap().success());
        start_time.elapsed()
    };
    (0..5).map(run).min().unwrap()
}

/// Sleeps for a random part of this time.
fn sleep(at_most: Duration) {
    let random = RandomState::new().hash_one("") as u32;
    thread::sleep(at_most.mul_f64(f64::from(random) / f64::from(u32::MAX)));
}

/// One more run, after which the file is whole, and paid for once.
fn finish(world: &World) {
    let mut last = world.generate("A");
    if matches!(last, Err(Error::OutcomeUnknown { .. })) && world.service.posts() == 0 {
        // Killed between the receipt and the request's body. Only this test can know that nothing
        // was sent.
        world.file("A").give_up().unwrap();
        last = world.generate("A");
    }
    last.unwrap();
    world.tell("sent 1");
    assert!(fs::read(world.path()).unwrap() == video("gen:1"));
    assert!(!world.folder.path("v.mp4.part").exists());
}

#[test]
fn killed_at_any_moment_it_pays_once() {
    if let Some(path) = child_task() {
        return run_child(&path);
    }
    let (lifetime, mut kills) = (lifetime(), 0);
    while kills < KILLS {
        let world = World::new();
        world.tell(r#"first poll says 200 {"status": "queued"}"#);
        for _ in 0..MOST_A_FILE {
            let mut child = start(&world);
            sleep(lifetime);
            let was_alive = child.try_wait().unwrap().is_none();
            child.kill().unwrap();
            child.wait().unwrap();
            kills += u32::from(was_alive);
            // No partial file under the final name, ever.
            let file = fs::read(world.path()).ok();
            assert!(file.as_ref().is_none_or(|file| *file == video("gen:1")));
            if world.service.posts() > 0 {
                let attempt = world.attempt();
                let client = world.service.client();
                let find = || client.find_generation_id(&attempt.client_request_id);
                let id = attempt.generation_id.or_else(|| find().unwrap());
                assert_eq!(id.as_deref(), Some("gen:1"), "the id is lost");
            }
            if !was_alive || file.is_some() {
                break;
            }
        }
        finish(&world);
    }
}

/// As a laptop's sleep does, or a debugger.
#[cfg(unix)]
#[test]
fn stopped_while_its_lock_is_deleted_and_another_run_pays_it_pays_nothing() {
    let signal = |child: &Child, signal: &str| {
        let mut kill = std::process::Command::new("kill");
        let sent = kill.args([signal, &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    };
    let lifetime = lifetime();
    for _ in 0..30 {
        let world = World::new();
        let mut child = start(&world);
        sleep(lifetime);
        signal(&child, "-STOP");
        let _ = fs::remove_file(world.folder.path("v.mp4.lock"));
        let _ = world.generate("A");
        signal(&child, "-CONT");
        child.wait().unwrap();
        assert!(world.service.posts() <= 1);
        finish(&world);
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
        // A second is promised, and a busy computer may need more.
        assert!(start.elapsed() < Duration::from_secs(5), "{error}");
        error
    })
}

#[test]
fn a_post_or_its_look_up_that_is_cut_off_leaves_what_became_of_it_unknown() {
    for (phase, steps, requests) in [
        ("POST", "receipt []", 1),
        ("look-up", "response lost", 2),
        ("pause", "response lost; log empty", 2),
    ] {
        println!("{phase}");
        let world = World::new();
        world.tell(steps);
        match phase {
            "POST" => world.service.script().posts.push_back((true, silence(b""))),
            "look-up" => world.service.script().logs.push_back(silence(b"")),
            _ => {}
        }
        let error = cut_off(&world, requests);
        let is_unknown = matches!(error, Error::OutcomeUnknown { .. });
        assert!(is_unknown && error.may_be_charged(), "{error}");
        assert_eq!(error.generation_id(), None);
        if phase == "POST" {
            let begin = "the client was shut down while it waited for ";
            let failure = begin.to_owned() + &world.service.host();
            assert_eq!(world.attempt().failure, Some(failure));
        }
        world.tell("receipt [Sending]; log recovers; A saves; sent 1");
    }
}

#[test]
fn a_wait_or_a_download_that_is_cut_off_names_the_generation() {
    let half = |bytes: &[u8]| silence(&http(200, &[("content-length", "9999")], bytes));
    for (phase, said, requests) in [
        ("poll", silence(b""), 2),
        ("middle of a poll", half(br#"{"status": "#), 2),
        (
            "pause between polls",
            say(200, r#"{"status": "queued"}"#),
            2,
        ),
        ("download", silence(b""), 3),
        (
            "middle of a download",
            half(b"\0\0\0\x14ftypisom0123456789"),
            3,
        ),
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

/// The run of a client that was shut down before.
fn run_afterwards(world: &World) -> Result<Attempt, Error> {
    let client = world.service.client();
    client.shutdown();
    world.file("A").generate(&client, |_| {})
}

#[test]
fn nothing_is_sent_afterwards() {
    let world = World::new();
    let error = run_afterwards(&world).unwrap_err();
    assert_eq!(error.to_string(), "the client was shut down");
    assert!(!error.may_be_charged());
    world.tell("receipt []; A saves; sent 1");
    // A file that is finished needs no client.
    run_afterwards(&world).unwrap();
}

#[test]
fn the_wait_for_a_lock_ends_and_the_holder_goes_on() {
    let (world, mut waited) = (World::new(), None);
    let holder = world.make_and(&world.file("A"), || waited = Some(run_afterwards(&world)));
    holder.unwrap();
    let error = waited.unwrap().unwrap_err();
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
    let error = run_afterwards(&world).unwrap_err();
    let is_unknown = matches!(error, Error::OutcomeUnknown { .. });
    assert!(is_unknown && error.may_be_charged(), "{error}");
}
