//! What lesson 1 does, with the one function that waits. This is how a program should do it.
//!
//! ```sh
//! cargo run --example wait_for_video
//! ```
//!
//! Each run pays for another video. To try it without a key, run `cargo run --example simulator` in
//! another terminal, and set here what that prints. It prints:
//!
//! ```text
//! Gen_ID:  simulated-ab4c9e3d-0001:veo3
//! Status: queued
//! Status: generating
//! Status: completed
//! boat.mp4 is saved.
//! ```
//!
//! What the loop of lesson 1 would lose, a video that is paid for each time:
//!
//! - The network fails for a second, or the server responds with 503: `get_video` gives an error,
//!   and the loop ends. `wait_for_video` asks again at the next interval.
//! - The server is busy, responds with 429, and asks for a minute's pause: the loop ends.
//! - A proxy responds with a page of its own: the loop ends.
//! - The server says 404 for a moment, because it does not know the new generation yet.
//! - The server has a new word for "in progress": the loop takes it for the end.
//! - The download breaks off, or its URL expires: lesson 1 does not download at all.
//! - The program is killed: only the id on the screen is left. `save_video` keeps it in a file.

use std::fmt::Display;
use std::io::{self, Write};
use std::{env, path::Path, process};

use aimlapi_video::{ClientBuilder, Error, VideoRequest};

fn main() -> Result<(), Error> {
    if env::args_os().len() > 1 || Path::new("boat.mp4").exists() {
        say("usage: wait_for_video, where there is no boat.mp4");
        process::exit(2);
    }
    let builder = ClientBuilder::from_env()?;
    let client = builder.on_retry(|retry| say(retry)).build()?;
    let request = VideoRequest::new("A paper boat on a river");
    let id = client.generate_video(&request)?.id;
    say(format_args!("Gen_ID:  {id}"));
    let video = client.wait_for_video(&id, |generation| {
        say(format_args!("Status: {}", generation.status));
    })?;
    client.download_video(&video, "boat.mp4", |_progress| {})?;
    say("boat.mp4 is saved.");
    Ok(())
}

/// As `println!`, but does not panic if stdout is closed or full.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
