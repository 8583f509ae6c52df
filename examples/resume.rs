//! Continues with a generation by its id: after a timeout, a crash, a broken download, or on
//! another computer. Costs nothing, however often.
//!
//! ```sh
//! cargo run --example resume -- GENERATION_ID dragon.mp4
//! ```
//!
//! To try it without a key, run `cargo run --example simulator` in another terminal, set here what
//! that prints, run `cargo run --example generate_video`, stop it, and take the id that it printed.
//!
//! It prints the status of the generation and the URL of the video. With a file name, it downloads
//! the video:
//!
//! ```text
//! Status: generating
//! Status: completed
//! http://127.0.0.1:41231/files/0/0/output.mp4
//! dragon.mp4 is saved.
//! ```

use std::{env, process::ExitCode};

use aimlapi_video::{Client, Error};

const HELP: &str = "usage: resume GENERATION_ID [FILE]

Waits for a generation, prints the URL of its video, and saves it to FILE. Costs nothing.
The key is in AIMLAPI_KEY.";

fn resume(generation_id: &str, path: Option<&str>) -> Result<(), Error> {
    let client = Client::from_env()?;
    let video = client.wait_for_video(generation_id, |generation| {
        println!("Status: {}", generation.status);
    })?;
    println!("{}", video.url);
    if let Some(path) = path {
        client.download_video(&video, path, |_done, _total| {})?;
        println!("{path} is saved.");
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [option] if option == "--help" => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        [id] if !id.starts_with('-') => resume(id, None),
        [id, path] if !id.starts_with('-') => resume(id, Some(path)),
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
