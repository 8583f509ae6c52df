//! Many videos at once, each paid for once: one thread for each prompt, and one client for all.
//!
//! ```sh
//! cargo run --example batch -- clips "A paper boat on a river" "A fox in the snow"
//! ```
//!
//! To try it without a key, run `cargo run --example simulator` in another terminal, and set here
//! what that prints.
//!
//! Each change is a line, and the id of a generation is below its first one:
//!
//! ```text
//! queued       a-fox-in-the-snow-6411b90e.mp4
//!   simulated-ab4c9e3d-0001:veo3
//! queued       a-paper-boat-on-a-river-3edd02d4.mp4
//!   simulated-ab4c9e3d-0002:veo3
//! …
//! saved        a-fox-in-the-snow-6411b90e.mp4
//! saved        a-paper-boat-on-a-river-3edd02d4.mp4
//! 2 saved, 0 there already, 0 failed.
//! Simulated cost: 0.12 USD.
//! ```
//!
//! A failure does not stop the others; its reason is printed at the end, and the exit code is 1.
//! Run it again: it continues what is not finished, and pays nothing for what is. To add videos,
//! add prompts.

use std::{
    collections::BTreeMap,
    env,
    fmt::Display,
    io::{self, Write},
    path::Path,
    process, thread,
};

use aimlapi_video::{
    Attempt, Client, ClientBuilder, Error, Progress, Usage, VideoFile, VideoRequest,
};

const HELP: &str = "usage: batch FOLDER PROMPT...

Makes a video of each PROMPT, all at once, and saves them
in FOLDER. Pays once for each, however often it is run.
The key is in AIMLAPI_KEY.";

/// A name that no other prompt has, and that is safe in any folder. The same in every run, unlike
/// one by std's hashes: under another name, the video would be paid for again.
fn file_name(prompt: &str) -> String {
    let words = prompt.split(|c: char| !c.is_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let mut name = words.join("-").to_lowercase();
    while name.len() > 24 {
        name.pop();
    }
    // 32-bit FNV-1a.
    let hash = prompt.bytes().fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{name}-{hash:08x}.mp4")
}

/// Makes one video, prints each change as a line, and returns the attempt. `None` stands for the
/// cost of one that was paid for before.
fn save(name: &str, file: &VideoFile, client: &Client) -> Result<(Attempt, Option<Usage>), Error> {
    let mut last = String::new();
    let mut show = |text: &str, below: &str| {
        if last != text {
            say(format_args!("{text:<11}  {name}{below}"));
            last = text.to_owned();
        }
    };
    let earlier = file.attempts()?;
    let mut is_first = true;
    let result = file.generate(client, |progress| match progress {
        Progress::Generation(generation) => {
            let id = format!("\n  {}", generation.id);
            show(generation.status.as_str(), if is_first { &id } else { "" });
            is_first = false;
        }
        Progress::Download { .. } => show("downloading", ""),
        _ => {}
    });
    show(if result.is_ok() { "saved" } else { "failed" }, "");
    let attempt = result?;
    let is_it = |other: &Attempt| other.client_request_id == attempt.client_request_id;
    let paid = attempt.usage.filter(|_| !earlier.iter().any(is_it));
    Ok((attempt, paid))
}

/// In US dollars if the server says so, else in credits.
fn sum(usages: &[Usage]) -> Option<String> {
    let sum = |cost: fn(&Usage) -> Option<f64>| {
        let sum = usages
            .iter()
            .filter_map(cost)
            .reduce(|sum, cost| sum + cost)?;
        // 0.1 + 0.2 is 0.3 here.
        Some((sum * 1e6).round() / 1e6)
    };
    let usd = sum(|usage| usage.usd_spent).map(|usd| format!("{usd} USD"));
    let credits = || sum(|usage| usage.credits_used).map(|credits| format!("{credits} credits"));
    usd.or_else(credits)
}

/// Returns the exit code.
fn run(folder: &str, prompts: &[String]) -> Result<i32, Error> {
    // A prompt that is given twice is one video.
    let mut files = BTreeMap::new();
    for prompt in prompts {
        let name = file_name(prompt);
        let path = Path::new(folder).join(&name);
        files.insert(name, VideoFile::new(path, VideoRequest::new(prompt)));
    }
    let count = files.len();
    // A receipt that can't be read is an error of its job, below.
    files.retain(|_, file| !file.is_current().unwrap_or(false));
    let there = count - files.len();

    let mut results = Vec::new();
    if !files.is_empty() {
        let client = ClientBuilder::from_env()?
            .on_retry(|retry| complain(retry))
            .build()?;
        results = thread::scope(|scope| {
            let mut threads = Vec::new();
            for (name, file) in &files {
                let client = &client;
                threads.push(scope.spawn(move || save(name, file, client)));
            }
            let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("no panic");
            threads.into_iter().map(join).collect()
        });
    }
    for (name, result) in files.keys().zip(&results) {
        if let Err(error) = result {
            complain(format_args!("{name}: {error}"));
        }
    }
    let saved: Vec<_> = results.iter().flatten().collect();
    let failed = results.len() - saved.len();
    say(format_args!(
        "{} saved, {there} there already, {failed} failed.",
        saved.len()
    ));
    let usages: Vec<Usage> = saved.iter().filter_map(|(_, paid)| *paid).collect();
    if let Some(sum) = sum(&usages) {
        let ids = saved
            .iter()
            .filter_map(|(attempt, _)| attempt.generation_id.as_deref());
        let is_simulated = ids.clone().any(|id| id.starts_with("simulated-"));
        let what = if is_simulated {
            "Simulated cost"
        } else {
            "Cost"
        };
        say(format_args!("{what}: {sum}."));
    }
    Ok(i32::from(failed > 0))
}

/// As `println!`, but does not panic if stdout is closed or full: the videos are paid for.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// The same, as `eprintln!`.
fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn main() -> Result<(), Error> {
    let arguments = env::args_os().skip(1).map(|text| text.into_string());
    let arguments: Vec<String> = arguments.collect::<Result<_, _>>().unwrap_or_default();
    if arguments == ["--help"] {
        say(HELP);
        return Ok(());
    }
    // An option would be paid for as a prompt.
    let is_option = |text: &String| text.starts_with('-');
    if arguments.len() < 2 || arguments.iter().any(is_option) {
        complain(HELP);
        process::exit(2);
    }
    process::exit(run(&arguments[0], &arguments[1..])?)
}
