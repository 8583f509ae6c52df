//! Killed at any instant, and run again: one payment, one whole file, no id lost.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use aimlapi_video::{
    Client, Error, VideoFile, VideoRequest,
    simulator::{CLIP, Simulator, Step},
};

use crate::support::{Folder, child, child_task, quick};

const KILLS: u32 = 200;
/// After so many, the file is finished in peace.
const MOST_A_FILE: u32 = 8;
/// Enough of it, on a machine that is busy with other things.
const LONGEST: Duration = Duration::from_secs(10);

/// Numbers that differ from run to run, told when a test fails.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn file(path: &Path) -> VideoFile {
    VideoFile::new(path, VideoRequest::new("A paper boat on a river"))
}

fn start(path: &Path, simulator: &Simulator) -> Child {
    let mut command = child(
        "kill::killed_at_any_instant_it_pays_once",
        path.to_str().unwrap(),
    );
    command
        .env("AIMLAPI_BASE_URL", simulator.base_url())
        .env("AIMLAPI_KEY", Simulator::KEY);
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn killed_at_any_instant_it_pays_once() {
    if let Some(path) = child_task() {
        let done = file(path.as_ref()).generate(&Client::from_env().unwrap(), &quick(), |_| {});
        std::process::exit(i32::from(done.is_err()));
    }
    let simulator = Simulator::start().unwrap();
    simulator.script([Step::status("queued"), Step::Complete]);
    let client = simulator.client();
    let seed = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    let mut dice = Dice(seed);

    let folder = Folder::new();
    let lifetime = |n: u32| {
        let begun = Instant::now();
        assert!(
            start(&folder.path(&format!("whole{n}.mp4")), &simulator)
                .wait()
                .unwrap()
                .success()
        );
        begun.elapsed()
    };
    let lifetime = (0..5).map(lifetime).min().unwrap();
    let begun = Instant::now();

    let (mut kills, mut rounds, mut unsent) = (0, 0, 0);
    while kills < KILLS && begun.elapsed() < LONGEST {
        rounds += 1;
        let (path, paid) = (folder.path(&format!("{rounds}.mp4")), simulator.charged());
        for _ in 0..MOST_A_FILE {
            let mut child = start(&path, &simulator);
            thread::sleep(Duration::from_nanos(dice.roll(lifetime.as_nanos() as u64)));
            let alive = child.try_wait().unwrap().is_none();
            child.kill().unwrap();
            child.wait().unwrap();
            // No partial file under the final name, ever.
            if path.exists() {
                assert!(fs::read(&path).unwrap() == CLIP, "seed {seed}");
            }
            if simulator.charged() > paid {
                let receipt = file(&path)
                    .receipt()
                    .unwrap()
                    .unwrap_or_else(|| panic!("paid, and forgotten, seed {seed}"));
                let id = &receipt.client_request_id;
                let known = receipt.generation_id.is_some()
                    || client.find_generation(id).unwrap().is_some();
                assert!(known, "nobody knows what was paid for, seed {seed}");
            }
            if !alive || path.exists() {
                break;
            }
            kills += 1;
        }
        let mut last = file(&path).generate(&client, &quick(), |_| {});
        if let Err(Error::OutcomeUnknown(lost)) = &last {
            // Killed when all was ready, and nothing sent. Nobody can know that but this test, which takes the way out.
            assert_eq!(simulator.charged(), paid, "seed {seed}");
            let receipt = lost.receipt.as_ref().unwrap();
            let text = fs::read_to_string(receipt)
                .unwrap()
                .replace("\"sending\"", "\"failed\"");
            fs::write(receipt, text).unwrap();
            unsent += 1;
            last = file(&path).generate(&client, &quick(), |_| {});
        }
        last.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(simulator.charged(), paid + 1, "seed {seed}");
        assert!(fs::read(&path).unwrap() == CLIP, "seed {seed}");
        assert!(
            !folder.names().iter().any(|name| name.ends_with(".part")),
            "seed {seed}"
        );
        fs::remove_file(&path).unwrap();
    }
    println!(
        "{kills} kills, {rounds} files, {:?}, {unsent} killed with nothing sent",
        begun.elapsed()
    );
    assert!(kills >= 40, "only {kills} kills in {LONGEST:?}");
}
