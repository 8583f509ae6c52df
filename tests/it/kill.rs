//! Killed at any moment, and run again: one payment, one whole file, no id lost.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, path::Path, thread};

use aimlapi_video::simulator::{CLIP, Poll, Simulator};
use aimlapi_video::{Error, VideoFile, VideoRequest};

use crate::support::{Folder, child, child_task};

/// Counted, not timed: a slow machine takes longer.
const KILLS: u32 = 100;
/// After so many, a file is finished in peace.
const MOST_A_FILE: u32 = 8;

/// Random numbers, from a seed that is shown when a test fails.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below.max(1)
    }
}

fn file(path: &Path) -> VideoFile {
    VideoFile::new(path, VideoRequest::new("A paper boat on a river"))
}

fn start(path: &Path, simulator: &Simulator) -> Child {
    let test = "kill::killed_at_any_moment_it_pays_once";
    let mut command = child(test, path.to_str().unwrap());
    command.env("AIMLAPI_BASE_URL", simulator.base_url());
    command.env("AIMLAPI_KEY", Simulator::KEY);
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn killed_at_any_moment_it_pays_once() {
    if let Some(path) = child_task() {
        let client = aimlapi_video::ClientBuilder::from_env().unwrap();
        let client = client.poll_interval(Duration::from_millis(1)).build();
        let done = file(path.as_ref()).generate(&client.unwrap(), |_| {});
        std::process::exit(i32::from(done.is_err()));
    }
    let simulator = Simulator::start().unwrap();
    simulator.script_polls([Poll::status("queued"), Poll::Complete]);
    let client = simulator.client();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = now.unwrap().as_nanos() as u64;
    let mut dice = Dice(seed);

    let folder = Folder::new();
    let whole_run = |n: u32| {
        let start_time = Instant::now();
        let mut child = start(&folder.path(&format!("whole{n}.mp4")), &simulator);
        assert!(child.wait().unwrap().success());
        start_time.elapsed()
    };
    let lifetime = (0..5).map(whole_run).min().unwrap();

    let (mut kills, mut files, mut unsent) = (0, 0, 0);
    while kills < KILLS {
        files += 1;
        let path = folder.path(&format!("{files}.mp4"));
        let paid = simulator.charged();
        for _ in 0..MOST_A_FILE {
            let mut child = start(&path, &simulator);
            thread::sleep(Duration::from_nanos(dice.roll(lifetime.as_nanos() as u64)));
            let was_alive = child.try_wait().unwrap().is_none();
            child.kill().unwrap();
            child.wait().unwrap();
            kills += u32::from(was_alive);
            // No partial file under the final name, ever.
            if path.exists() {
                assert!(fs::read(&path).unwrap() == CLIP, "seed {seed}");
            }
            if simulator.charged() > paid {
                let receipt = file(&path).receipt().unwrap();
                let receipt = receipt.unwrap_or_else(|| panic!("paid, no receipt, seed {seed}"));
                let attempt = receipt.attempts.last().unwrap();
                let find = || client.find_generation(&attempt.client_request_id);
                let is_known = attempt.generation_id.is_some() || find().unwrap().is_some();
                assert!(is_known, "the id is lost, seed {seed}");
            }
            if !was_alive || path.exists() {
                break;
            }
        }
        let mut last = file(&path).generate(&client, |_| {});
        if let Err(Error::OutcomeUnknown { .. }) = last {
            // Killed between the receipt and the request's body. Only this test can know that
            // nothing was sent, and takes the way out.
            assert_eq!(simulator.charged(), paid, "seed {seed}");
            let receipt = folder.path(&format!("{files}.mp4.receipt.json"));
            let text = fs::read_to_string(&receipt).unwrap();
            fs::write(&receipt, text.replace("\"sending\"", "\"failed\"")).unwrap();
            unsent += 1;
            last = file(&path).generate(&client, |_| {});
        }
        last.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(simulator.charged(), paid + 1, "seed {seed}");
        assert!(fs::read(&path).unwrap() == CLIP, "seed {seed}");
        fs::remove_file(&path).unwrap();
    }
    let names = folder.names();
    let left = names.iter().find(|name| name.ends_with(".part"));
    assert_eq!(left, None, "seed {seed}");
    println!("{kills} kills, {files} files, {unsent} killed with nothing sent");
}
