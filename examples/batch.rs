//! Many videos at once, each paid for once: one thread for each prompt, and one client for all.
//!
//! ```sh
//! cargo run --example batch -- clips "A paper boat on a river" "A fox in the snow"
//! ```
//!
//! To try it without a key, run `cargo run --example simulator` in another terminal, and set here
//! what that prints.
//!
//! Each change is a line, with the cost before the name, so that a narrow terminal shows both:
//!
//! ```text
//! queued           a-fox-in-the-snow-6411b90e.mp4
//! queued           a-paper-boat-on-a-river-3edd02d4.mp4
//! …
//! saved  0.06 USD  a-fox-in-the-snow-6411b90e.mp4
//! saved  0.06 USD  a-paper-boat-on-a-river-3edd02d4.mp4
//! 2 saved, 0 there already, 0 failed.
//! Those saved cost 0.12 USD.
//! ```
//!
//! A failure does not stop the others; its reason is printed at the end, and the exit code is 1.
//! Run it again: it continues what is not finished, and pays nothing for what is. To add videos,
//! add prompts.

use std::{collections::BTreeMap, env, path::Path, process::ExitCode, thread};

use aimlapi_video::{Attempt, Client, Error, Progress, Usage, VideoFile, VideoRequest};

const HELP: &str = "usage: batch FOLDER PROMPT...

Makes a video of each PROMPT, all at once, and saves them in FOLDER. Pays once for each, however
often it is run. The key is in AIMLAPI_KEY.";

/// A name that no other prompt has, and that is safe in any folder. The same in every run and with
/// every compiler, unlike std's hashes: under another name, the video would be paid for again.
fn file_name(prompt: &str) -> String {
    let words = prompt.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let mut name = words.join("-").to_ascii_lowercase();
    name.truncate(24);
    if name.is_empty() {
        name = "video".to_owned();
    }
    // 32-bit FNV-1a.
    let hash = prompt.bytes().fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{name}-{hash:08x}.mp4")
}

/// Prints each change as a line.
fn save(file: &VideoFile, name: &str, client: &Client) -> Result<Attempt, Error> {
    let mut last = String::new();
    let mut show = |text: String| {
        if last != text {
            println!("{text:<15}  {name}");
            last = text;
        }
    };
    let result = file.generate(client, |progress| match progress {
        Progress::Generation(generation) => show(generation.status.to_string()),
        Progress::Download { .. } => show("downloading".to_owned()),
        _ => {}
    });
    show(match &result {
        Ok(attempt) => format!("saved  {}", cost(&[attempt])),
        Err(_) => "failed".to_owned(),
    });
    result
}

/// What these cost in all: in US dollars if the server says so, else in credits.
fn cost(attempts: &[&Attempt]) -> String {
    let sum = |cost: fn(&Usage) -> Option<f64>| {
        let usages = attempts.iter().filter_map(|attempt| attempt.usage.as_ref());
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
    // A receipt that can't be read is an error of its job, below.
    let is_unfinished = |(_, file): &(_, &VideoFile)| !file.is_current().unwrap_or(false);
    let unfinished: Vec<_> = files.iter().filter(is_unfinished).collect();

    let mut results = Vec::new();
    if !unfinished.is_empty() {
        let client = Client::from_env()?;
        results = thread::scope(|scope| {
            let jobs: Vec<_> = (unfinished.iter())
                .map(|&(name, file)| {
                    let client = &client;
                    scope.spawn(move || save(file, name, client))
                })
                .collect();
            let join = |job: thread::ScopedJoinHandle<'_, _>| job.join().expect("no panic");
            jobs.into_iter().map(join).collect()
        });
    }

    for ((name, _), result) in unfinished.iter().zip(&results) {
        if let Err(error) = result {
            eprintln!("{name}: {error}");
        }
    }
    let saved: Vec<&Attempt> = results.iter().flatten().collect();
    let (there, failed) = (
        files.len() - unfinished.len(),
        unfinished.len() - saved.len(),
    );
    println!(
        "{} saved, {there} there already, {failed} failed.",
        saved.len()
    );
    if !cost(&saved).is_empty() {
        println!("Those saved cost {}.", cost(&saved));
    }
    Ok(failed)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [option] if option == "--help" => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        // An option would be paid for as a prompt.
        [folder, prompts @ ..]
            if !prompts.is_empty() && !arguments.iter().any(|text| text.starts_with('-')) =>
        {
            run(folder, prompts)
        }
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(0) => return ExitCode::SUCCESS,
        Ok(_) => {}
        Err(error) => eprintln!("{error}"),
    }
    ExitCode::FAILURE
}
