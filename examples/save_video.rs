//! A video file that is paid for once. Run it again, after whatever stopped it: it goes on where it stood, and with a
//! finished file it needs neither key nor network.
//!
//! ```sh
//! cargo run --example save_video -- "A paper boat on a river" boat.mp4
//! ```
//!
//! To try it without a key, start `cargo run --example simulator` in another terminal, and set what that prints.
//! Prints the generation's status at each poll, a line for the download, and what it cost. Beside the file it keeps
//! the receipt, `boat.mp4.receipt.json`.

use std::{env, io::Write, process::ExitCode};

use aimlapi_video::{Client, Error, Polling, Progress, VideoFile, VideoRequest};

fn save(prompt: &str, path: &str) -> Result<(), Error> {
    let file = VideoFile::new(path, VideoRequest::new(prompt));
    if file.is_current()? {
        println!("{path} is there already, whole and paid for.");
        return Ok(());
    }
    let mut known_id = None;
    let receipt = file.generate(&Client::from_env()?, &Polling::default(), |progress| match progress {
        Progress::Generation(generation) => {
            if known_id.as_ref() != Some(&generation.id) {
                println!("Generation {}, kept in {path}.receipt.json", generation.id);
                known_id = Some(generation.id.clone());
            }
            println!("Status: {}", generation.status);
        }
        Progress::Download { done, total } => {
            let of = total.map_or_else(String::new, |total| format!(" of {total}"));
            print!("\r{done}{of} bytes");
            let _ = std::io::stdout().flush();
        }
        _ => {}
    })?;
    println!("\n{path} is saved.");
    if let Some(usage) = receipt.usage {
        println!("It cost {usage}.");
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [prompt, path] = arguments.as_slice() else {
        eprintln!("usage: save_video PROMPT FILE");
        return ExitCode::from(2);
    };
    if let Err(error) = save(prompt, path) {
        eprintln!("\n{error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
