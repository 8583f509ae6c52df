//! Picks up a generation by its id: after a timeout, a crash, a broken download, or from another machine. Costs
//! nothing, however often.
//!
//! ```sh
//! cargo run --example resume -- GENERATION_ID dragon.mp4
//! ```
//!
//! To try it without a key, start `cargo run --example simulator` in another terminal, set what that prints, run
//! `cargo run --example generate_video`, and take the id that this prints.
//!
//! It prints the status at each poll, then the address of the video. With a file name, it downloads the video too:
//!
//! ```text
//! Status: generating
//! Status: completed
//! http://127.0.0.1:41231/files/0/output.mp4
//! dragon.mp4 is saved.
//! ```

use std::{env, process::ExitCode};

use aimlapi_video::{Client, Error, Polling};

fn resume(generation_id: &str, path: Option<&str>) -> Result<(), Error> {
    let client = Client::from_env()?;
    let video = client.wait_for_video(generation_id, &Polling::default(), |generation| {
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
        [id] if !id.starts_with('-') => resume(id, None),
        [id, path] if !id.starts_with('-') => resume(id, Some(path)),
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
