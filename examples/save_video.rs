//! A video file that is paid for once. After whatever stopped it, run it again: it continues. With
//! a finished file it needs neither key nor network.
//!
//! ```sh
//! cargo run --example save_video -- "A paper boat on a river" boat.mp4
//! ```
//!
//! To try it without a key, run `cargo run --example simulator` in another terminal, and set here
//! what that prints. Delete the file and its receipt before you do it with your key: they would
//! count as finished.
//!
//! It prints the status of the generation, the download (on a terminal), and what the video cost:
//!
//! ```text
//! Generation 51a00000-0000-4000-8000-000000000000:veo3
//! Status: queued
//! Status: queued
//! Status: generating
//! Status: completed
//! boat.mp4 is saved. It cost 0.06 USD (120000 credits).
//! Keep its receipt beside it: boat.mp4.receipt.json
//! ```
//!
//! The receipt is how the next run knows what is paid for. Run it again, and it prints:
//!
//! ```text
//! boat.mp4 is saved already. Nothing was sent.
//! ```
//!
//! Installed, this is a command for any folder: `cargo install --path . --example save_video`.

use std::{
    env,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use aimlapi_video::{Client, Error, Progress, VideoFile, VideoRequest};

const HELP: &str = "usage: save_video PROMPT FILE

Makes a video of what PROMPT describes, and saves it to FILE. Pays once, however often it is run.
The key is in AIMLAPI_KEY.";

fn save(prompt: &str, path: &str) -> Result<(), Error> {
    let file = VideoFile::new(path, VideoRequest::new(prompt));
    if file.is_current()? {
        println!("{path} is saved already. Nothing was sent.");
        return Ok(());
    }
    let mut is_first = true;
    let attempt = file.generate(&Client::from_env()?, |progress| match progress {
        Progress::Generation(generation) => {
            if is_first {
                println!("Generation {}", generation.id);
                is_first = false;
            }
            println!("Status: {}", generation.status);
        }
        Progress::Download { done, total } => show_download(done, total.unwrap_or(done)),
        _ => {}
    })?;
    match attempt.usage {
        Some(usage) => println!("{path} is saved. It cost {usage}."),
        None => println!("{path} is saved."),
    }
    println!("Keep its receipt beside it: {path}.receipt.json");
    Ok(())
}

/// One line that each piece of the download overwrites.
fn show_download(done: u64, total: u64) {
    let mut stdout = io::stdout();
    if stdout.is_terminal() {
        let end = if done == total { '\n' } else { '\r' };
        print!("{done} of {total} bytes{end}");
        let _ = stdout.flush();
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [option] if option == "--help" => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        // An option would be paid for as a prompt.
        [prompt, path] if !prompt.starts_with('-') => save(prompt, path),
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = result {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
