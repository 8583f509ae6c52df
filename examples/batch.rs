//! Many videos at once, each paid for once: one thread for each prompt, and one client for all.
//!
//! ```sh
//! cargo run --example batch -- clips "A paper boat on a river" "A fox in the snow"
//! ```
//!
//! To try it without a key, run `cargo run --example simulator` in another terminal, and set here
//! what that prints.
//!
//! Each change is a line, and each generation's id is below its first one:
//!
//! ```text
//! queued           a-fox-in-the-snow-6411b90e.mp4
//!   simulated-51a00000-0000-4000-8000-000000000000:veo3
//! queued           a-paper-boat-on-a-river-3edd02d4.mp4
//!   simulated-51a00000-0000-4000-8000-000000000001:veo3
//! …
//! saved  0.06 USD  a-fox-in-the-snow-6411b90e.mp4
//! saved  0.06 USD  a-paper-boat-on-a-river-3edd02d4.mp4
//! 2 saved, 0 there already, 0 failed.
//! Paid now: 0.12 USD (simulated).
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

/// A video file, and what was requested for it before this run.
struct Job {
    name: String,
    file: VideoFile,
    earlier: Vec<Attempt>,
}

/// A video that is saved now, and whether this run paid for it.
struct Saved {
    attempt: Attempt,
    is_new: bool,
}

impl Job {
    /// Prints each change as a line.
    fn save(&self, client: &Client) -> Result<Saved, Error> {
        let mut last = String::new();
        let mut show = |text: &str, id: &str| {
            let id = if last.is_empty() {
                format!("\n  {id}")
            } else {
                String::new()
            };
            if last != text {
                say(format_args!("{text:<15}  {}{id}", self.name));
                last = text.to_owned();
            }
        };
        let result = self.file.generate(client, |progress| match progress {
            Progress::Generation(generation) => show(generation.status.as_str(), &generation.id),
            Progress::Download { .. } => show("downloading", ""),
            _ => {}
        });
        let saved = result.map(|attempt| Saved {
            is_new: !self
                .earlier
                .iter()
                .any(|other| other.client_request_id == attempt.client_request_id),
            attempt,
        });
        say(format_args!(
            "{:<15}  {}",
            saved.as_ref().map_or("failed".to_owned(), |saved| format!(
                "saved  {}",
                cost(&[saved])
            )),
            self.name
        ));
        saved
    }
}

/// What these cost this run: in US dollars if the server says so, else in credits.
fn cost(saved: &[&Saved]) -> String {
    let sum = |cost: fn(&Usage) -> Option<f64>| {
        let new = saved.iter().filter(|saved| saved.is_new);
        let usages = new.filter_map(|saved| saved.attempt.usage.as_ref());
        let sum = usages.filter_map(cost).reduce(|sum, cost| sum + cost)?;
        // 0.1 + 0.2 is 0.3 here.
        Some((sum * 1e6).round() / 1e6)
    };
    let usd = sum(|usage| usage.usd_spent).map(|usd| format!("{usd} USD"));
    let credits = || sum(|usage| usage.credits_used).map(|credits| format!("{credits} credits"));
    usd.or_else(credits).unwrap_or_default()
}

/// Returns the number of failures.
fn run(folder: &str, prompts: &[String]) -> Result<usize, Error> {
    // A prompt that is given twice is one video.
    let mut files = BTreeMap::new();
    for prompt in prompts {
        let name = file_name(prompt);
        let path = Path::new(folder).join(&name);
        files.insert(name, VideoFile::new(path, VideoRequest::new(prompt)));
    }
    let mut jobs = Vec::new();
    let count = files.len();
    for (name, file) in files {
        // A receipt that can't be read is an error of its job, below.
        if !file.is_current().unwrap_or(false) {
            let earlier = file.attempts().unwrap_or_default();
            jobs.push(Job {
                name,
                file,
                earlier,
            });
        }
    }
    let mut results = Vec::new();
    if !jobs.is_empty() {
        let builder = ClientBuilder::from_env()?;
        let client = builder.on_retry(|retry| complain(retry)).build()?;
        results = thread::scope(|scope| {
            let client = &client;
            let start = |job| scope.spawn(move || Job::save(job, client));
            let threads: Vec<_> = jobs.iter().map(start).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        });
    }
    for (job, result) in jobs.iter().zip(&results) {
        if let Err(error) = result {
            complain(format_args!("{}: {error}", job.name));
        }
    }
    let saved: Vec<&Saved> = results.iter().flatten().collect();
    let (there, failed) = (count - jobs.len(), jobs.len() - saved.len());
    say(format_args!(
        "{} saved, {there} there already, {failed} failed.",
        saved.len()
    ));
    let cost = cost(&saved);
    if !cost.is_empty() {
        let is_simulated = |saved: &&Saved| {
            saved
                .attempt
                .generation_id
                .as_ref()
                .is_some_and(|id| id.starts_with("simulated-"))
        };
        let mark = if saved.iter().any(is_simulated) {
            " (simulated)"
        } else {
            ""
        };
        say(format_args!("Paid now: {cost}{mark}."));
    }
    Ok(failed)
}

/// As `println!`, but does not panic where nobody reads: the videos are paid for.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// The same, as `eprintln!`.
fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn main() -> Result<(), Error> {
    let arguments = env::args_os()
        .skip(1)
        .map(|argument| argument.into_string());
    match arguments.collect::<Result<Vec<_>, _>>().as_deref() {
        // An option would be paid for as a prompt.
        Ok([folder, prompts @ ..])
            if !prompts.is_empty()
                && !folder.starts_with('-')
                && !prompts.iter().any(|text| text.starts_with('-')) =>
        {
            process::exit(i32::from(run(folder, prompts)? > 0))
        }
        _ => {
            complain(HELP);
            process::exit(2)
        }
    }
}
