//! A video file that is paid for once. After whatever stopped it, run it again: it continues. With
//! a finished file it needs neither key nor network.
//!
//! ```sh
//! cargo run --example save_video -- "A paper boat on a river" boat.mp4
//! cargo run --example save_video -- --set duration=4 --set aspect_ratio=9:16 "A fox" fox.mp4
//! ```
//!
//! To try it without a key, run `cargo run --example simulator` in another terminal, and set here
//! what that prints. It prints:
//!
//! ```text
//! Generation simulated-ab4c9e3d-0001:veo3
//! Status: queued
//! Status: generating
//! Status: completed
//! boat.mp4 is saved: a simulated video.
//! Simulated cost: 0.06 USD (120000 credits).
//! Keep its receipt beside it: boat.mp4.receipt.json
//! ```
//!
//! On a terminal, the status is one line that changes: `generating, 1:20`, then the bytes that are
//! there. The receipt is how the next run knows what is paid for. Run it again, and it prints:
//!
//! ```text
//! boat.mp4 is saved already. Nothing was sent.
//! ```
//!
//! Installed, this is a command for any folder: `cargo install --path . --example save_video`.

use std::{
    env,
    fmt::Display,
    fs::File,
    io::{self, IsTerminal, Read, Write},
    process,
    time::Instant,
};

use aimlapi_video::{Attempt, ClientBuilder, Error, Progress, VideoFile, VideoRequest};
use serde_json::Value;

const HELP: &str = "usage: save_video [--set NAME=VALUE]... PROMPT FILE

Makes a video of what PROMPT describes, and saves it to
FILE, whose name ends in .mp4. Pays once, however often it
is run. --set sets any parameter of the request:
    --set model=google/veo-3.1-t2v --set duration=4
The key is in AIMLAPI_KEY.";

/// The request and FILE, unless the arguments are a slip. A slip must not be paid for.
fn parse<'a>(mut arguments: &[&'a str]) -> Option<(VideoRequest, &'a str)> {
    let mut settings = Vec::new();
    while let ["--set", setting, rest @ ..] = arguments {
        let (name, value) = setting.split_once('=')?;
        if name.is_empty() || name == "prompt" {
            return None;
        }
        settings.push((name, value));
        arguments = rest;
    }
    let &[prompt, path] = arguments else {
        return None;
    };
    let is_mp4 = |text: &str| text.to_ascii_lowercase().ends_with(".mp4");
    if prompt.starts_with('-') || is_mp4(prompt) || !is_mp4(path) {
        return None;
    }
    let mut request = VideoRequest::new(prompt);
    for (name, value) in settings {
        request = match name {
            "model" => request.model(value),
            // JSON where it is JSON, as numbers are, else a string.
            _ => {
                let json: Option<Value> = serde_json::from_str(value).ok();
                request.param(name, json.unwrap_or_else(|| value.into()))
            }
        };
    }
    Some((request, path))
}

fn save(file: &VideoFile, path: &str) -> Result<(), Error> {
    if file.is_current()? {
        say(format_args!("{path} is saved already. Nothing was sent."));
        return Ok(());
    }
    let earlier = file.attempts()?;
    let builder = ClientBuilder::from_env()?;
    let client = builder.on_retry(|retry| {
        show_live("");
        let _ = writeln!(io::stderr(), "{retry}");
    });
    let (start, mut last_status) = (Instant::now(), None);
    let result = file.generate(&client.build()?, |progress| {
        let seconds = start.elapsed().as_secs();
        let time = format!("{}:{:02}", seconds / 60, seconds % 60);
        match progress {
            Progress::Generation(generation) => {
                let status = generation.status.to_string();
                if last_status.is_none() {
                    say(format_args!("Generation {}", generation.id));
                }
                if io::stdout().is_terminal() {
                    show_live(&format!("{status}, {time}"));
                } else if last_status.as_ref() != Some(&status) {
                    say(format_args!("Status: {status}"));
                }
                last_status = Some(status);
            }
            Progress::Download { done, total, .. } => {
                let total = total.map_or_else(String::new, |total| format!(" of {total}"));
                show_live(&format!("downloading, {time}, {done}{total} bytes"));
            }
            _ => {}
        }
    });
    show_live("");
    let attempt = result?;
    if last_status.is_none() {
        say(format_args!("{path} is saved already. Nothing was sent."));
        return Ok(());
    }
    let id = attempt.generation_id.unwrap_or_default();
    let (kind, cost) = match id.starts_with("simulated-") {
        true => (": a simulated video", "Simulated cost:"),
        false => ("", "It cost"),
    };
    say(format_args!("{path} is saved{kind}."));
    // What an earlier run paid for is not paid for now.
    let is_other = |other: &Attempt| other.client_request_id != attempt.client_request_id;
    if let Some(usage) = attempt.usage.filter(|_| earlier.iter().all(is_other)) {
        say(format_args!("{cost} {usage}."));
    }
    say(format_args!(
        "Keep its receipt beside it: {path}.receipt.json"
    ));
    Ok(())
}

/// On a terminal: one line of less than 60 columns, which the next one overwrites.
fn show_live(text: &str) {
    let mut stdout = io::stdout();
    if stdout.is_terminal() {
        let _ = write!(stdout, "\r{:59}\r{text:.59}", "");
        let _ = stdout.flush();
    }
}

/// As `println!`, but does not panic if stdout is closed or full: the video is paid for.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// What is in the place of a large file in a clone without Git LFS.
fn is_lfs_pointer(path: &str) -> bool {
    let start = b"version https://git-lfs.github.com/spec/";
    let mut bytes = [0; 40];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.is_ok() && bytes == *start
}

fn fail(code: i32, text: &str) -> ! {
    let _ = writeln!(io::stderr(), "{text}");
    process::exit(code)
}

fn main() -> Result<(), Error> {
    let arguments = env::args_os().skip(1).map(|text| text.into_string());
    let arguments: Vec<String> = arguments.collect::<Result<_, _>>().unwrap_or_default();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if arguments == ["--help"] {
        say(HELP);
        return Ok(());
    }
    let Some((request, path)) = parse(&arguments) else {
        fail(2, HELP)
    };
    let file = VideoFile::new(path, request);
    if is_lfs_pointer(path) {
        let bytes = file.attempt()?.and_then(|attempt| attempt.bytes);
        let bytes = bytes.map_or_else(String::new, |bytes| format!(", of {bytes} bytes,"));
        let text = "is a Git LFS pointer, where the video";
        let way_out = "should be: run `git lfs pull`. Nothing was sent.";
        fail(1, &format!("{path} {text}{bytes} {way_out}"));
    }
    save(&file, path)
}
