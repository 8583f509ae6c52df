//! Many videos at once, each paid for once: one thread for each prompt, and one client for all.
//!
//! ```sh
//! cargo run --example batch -- clips "A paper boat on a river" "A fox in the snow"
//! ```
//!
//! To try it without a key, start `cargo run --example simulator` in another terminal, and set what that prints.
//!
//! On a terminal each video has a line that changes in place. Elsewhere each change is a line:
//!
//! ```text
//! a-fox-in-the-snow-bd9a41ab1212ffae.mp4: queued
//! a-paper-boat-on-a-river-93b756e9730654b4.mp4: queued
//! a-fox-in-the-snow-bd9a41ab1212ffae.mp4: downloading
//! a-fox-in-the-snow-bd9a41ab1212ffae.mp4: saved, 0.06 USD (120000 credits)
//! …
//! 2 saved, 0 there already, 0 failed.
//! Those saved cost 0.12 USD, 240000 credits.
//! ```
//!
//! A failure does not stop the others; it is told at the end, and the exit code is 1. Run it again: it goes on with
//! what is not finished, and pays nothing for what is. To add videos, add prompts.

use std::{
    collections::BTreeSet, env, error::Error, fs, path::Path, process::ExitCode, thread,
    time::Duration,
};

use aimlapi_video::{Client, Polling, Progress, Receipt, Usage, VideoFile, VideoRequest};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// A name that no other prompt has, and that is safe in any folder. The same in every run and with every compiler,
/// unlike the standard library's hashes: under another name, the video would be paid for again.
fn file_name(prompt: &str) -> String {
    let words = prompt
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let mut words = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
    words.truncate(30);
    // 64-bit FNV-1a.
    let hash = prompt.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!(
        "{}-{hash:016x}.mp4",
        if words.is_empty() { "video" } else { &words }
    )
}

fn show(line: &ProgressBar, text: String) {
    if line.is_hidden() && line.message() != text {
        println!("{}: {text}", line.prefix());
    }
    line.set_message(text);
}

fn save(
    file: &VideoFile,
    client: &Client,
    line: &ProgressBar,
) -> Result<Receipt, aimlapi_video::Error> {
    let result = file.generate(client, &Polling::default(), |progress| match progress {
        Progress::Generation(generation) => show(line, generation.status.to_string()),
        Progress::Download { done, total } => {
            show(line, "downloading".to_owned());
            line.set_length(total.unwrap_or(done));
            line.set_position(done);
        }
        _ => {}
    });
    let outcome = match &result {
        Ok(receipt) => receipt
            .usage
            .map_or_else(|| "saved".to_owned(), |usage| format!("saved, {usage}")),
        Err(_) => "failed".to_owned(),
    };
    show(line, outcome);
    line.abandon();
    result
}

/// Gives the number of failures.
fn run(folder: &Path, prompts: &BTreeSet<String>) -> Result<usize, Box<dyn Error>> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let files = prompts.iter().map(|prompt| {
        let name = file_name(prompt);
        (
            VideoFile::new(folder.join(&name), VideoRequest::new(prompt)),
            name,
        )
    });
    // A receipt that can't be read is told when its job runs.
    let unfinished: Vec<_> = files
        .filter(|(file, _)| !file.is_current().unwrap_or(false))
        .collect();

    let mut results = Vec::new();
    if !unfinished.is_empty() {
        let client = Client::from_env()?;
        let lines = MultiProgress::new();
        let width = unfinished
            .iter()
            .map(|(_, name)| name.len())
            .max()
            .unwrap_or_default();
        let style = ProgressStyle::with_template(&format!(
            "{{spinner}} {{prefix:{width}}} {{bar:10}} {{wide_msg}}"
        ))?;
        results = thread::scope(|scope| {
            let start = |(file, name): &(VideoFile, String)| {
                let line = lines
                    .add(ProgressBar::no_length())
                    .with_style(style.clone())
                    .with_prefix(name.clone());
                line.enable_steady_tick(Duration::from_millis(200));
                let (client, file) = (client.clone(), file.clone());
                scope.spawn(move || save(&file, &client, &line))
            };
            let jobs: Vec<_> = unfinished.iter().map(start).collect();
            jobs.into_iter()
                .map(|job| job.join().expect("a job that does not panic"))
                .collect()
        });
    }

    let mut saved = Vec::new();
    for ((_, name), result) in unfinished.iter().zip(results) {
        match result {
            Ok(receipt) => saved.push(receipt),
            Err(error) => eprintln!("{name}: {error}"),
        }
    }
    let failed = unfinished.len() - saved.len();
    println!(
        "{} saved, {} there already, {failed} failed.",
        saved.len(),
        prompts.len() - unfinished.len()
    );
    let sum = |cost: fn(&Usage) -> Option<f64>| {
        saved
            .iter()
            .filter_map(|receipt| cost(receipt.usage.as_ref()?))
            .reduce(|sum, cost| sum + cost)
    };
    let usd = sum(|usage| usage.usd_spent).map(|usd| format!("{usd:.2} USD"));
    let credits = sum(|usage| usage.credits_used).map(|credits| format!("{credits} credits"));
    let costs: Vec<String> = usd.into_iter().chain(credits).collect();
    if !costs.is_empty() {
        println!("Those saved cost {}.", costs.join(", "));
    }
    Ok(failed)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let Some((folder, prompts @ [_, ..])) = arguments.split_first() else {
        eprintln!("usage: batch FOLDER PROMPT...");
        return ExitCode::from(2);
    };
    // A prompt given twice is one video.
    match run(Path::new(folder), &prompts.iter().cloned().collect()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
