//! Picks up a generation by its id: after a timeout, a crash, or from another machine. Costs nothing.
//!
//! ```sh
//! cargo run --example resume -- GENERATION_ID dragon.mp4
//! ```
//!
//! Prints the status at each poll, then the address of the video; with a file name, downloads it too.
//! To try it without a key, start `cargo run --example simulator`, set what that prints, and take the id that
//! `cargo run --example generate_video` prints then.

use std::{env, process::ExitCode};

use aimlapi_video::{Client, Error, Polling};

fn resume(id: &str, path: Option<&str>) -> Result<(), Error> {
    let client = Client::from_env()?;
    let video = client.wait_for_video(id, &Polling::default(), |generation| {
        println!("Status: {}", generation.status);
    })?;
    println!("{}", video.url);
    if let Some(path) = path {
        client.download_video(&video, path, |_, _| {})?;
        println!("{path} is saved.");
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [id] => resume(id, None),
        [id, path] => resume(id, Some(path)),
        _ => {
            eprintln!("usage: resume GENERATION_ID [FILE]");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = result {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
