//! A video file that is paid for once. Run it again after whatever stopped it: it goes on where it stood. With a
//! finished file it needs neither key nor network.
//!
//! ```sh
//! cargo run --example save_video -- "A paper boat on a river" boat.mp4
//! ```
//!
//! To try it without a key, start `cargo run --example simulator` in another terminal, and set what that prints.
//!
//! It prints where the job stands, a line for the download (on a terminal), and what the video cost:
//!
//! ```text
//! Generation 51a00000-0000-4000-8000-000000000000:veo3, kept in boat.mp4.receipt.json
//! Status: queued
//! Status: queued
//! Status: generating
//! Status: completed
//! boat.mp4 is saved.
//! It cost 0.06 USD (120000 credits).
//! ```
//!
//! Keep the receipt beside the file: it is how the next run knows what is paid for.

use std::{
    env,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use aimlapi_video::{Client, Error, Polling, Progress, VideoFile, VideoRequest};

fn save(prompt: &str, path: &str) -> Result<(), Error> {
    let file = VideoFile::new(path, VideoRequest::new(prompt));
    if file.is_current()? {
        println!("{path} is there already, and whole: nothing to pay.");
        return Ok(());
    }
    let mut announced = false;
    let receipt =
        file.generate(
            &Client::from_env()?,
            &Polling::default(),
            |progress| match progress {
                Progress::Generation(generation) => {
                    if !announced {
                        println!("Generation {}, kept in {path}.receipt.json", generation.id);
                        announced = true;
                    }
                    println!("Status: {}", generation.status);
                }
                Progress::Download {
                    done,
                    total: Some(total),
                } => show_download(done, total),
                _ => {}
            },
        )?;
    println!("{path} is saved.");
    if let Some(usage) = receipt.usage {
        println!("It cost {usage}.");
    }
    Ok(())
}

/// One line that is written over with each piece that comes.
fn show_download(done: u64, total: u64) {
    let mut stdout = io::stdout();
    if stdout.is_terminal() {
        print!(
            "{done} of {total} bytes{}",
            if done == total { '\n' } else { '\r' }
        );
        let _ = stdout.flush();
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [prompt, path] = arguments.as_slice() else {
        eprintln!("usage: save_video PROMPT FILE");
        return ExitCode::from(2);
    };
    if let Err(error) = save(prompt, path) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
