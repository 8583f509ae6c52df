//! A video that starts with an image: a PNG, JPEG or WebP file, sent inside the request, or a URL.
//!
//! ```sh
//! cargo run --example image_to_video -- cat.jpg "The cat wakes and yawns" cat.mp4
//! cargo run --example image_to_video -- https://example.com/cat.jpg "The cat wakes and yawns" cat.mp4
//! ```
//!
//! To try it without a key, run `cargo run --example simulator` in another terminal, and set here
//! what that prints.
//!
//! It pays once, as `save_video` does; another image is another request. It prints:
//!
//! ```text
//! Status: queued
//! Status: queued
//! Status: generating
//! Status: completed
//! cat.mp4 is saved.
//! ```
//!
//! Run it again, and it prints:
//!
//! ```text
//! cat.mp4 is saved already. Nothing was sent.
//! ```
//!
//! A copy of this file needs the feature `image-file`, for `image_file`.

use std::{env, process::ExitCode};

use aimlapi_video::{Client, Error, Progress, VideoFile, VideoRequest, image_file};

const HELP: &str = "usage: image_to_video IMAGE PROMPT FILE

Makes a video that starts with IMAGE, a file or a URL, and saves it to FILE. Pays once, however
often it is run. The key is in AIMLAPI_KEY.";

fn save(image: &str, prompt: &str, path: &str) -> Result<(), Error> {
    let image_url = if image.contains("://") {
        image.to_owned()
    } else {
        image_file(image)?
    };
    // The default model takes text alone.
    let request = VideoRequest::new(prompt)
        .model("google/veo-3.0-i2v")
        .image_url(image_url);
    let file = VideoFile::new(path, request);
    if file.is_current()? {
        println!("{path} is saved already. Nothing was sent.");
        return Ok(());
    }
    file.generate(&Client::from_env()?, |progress| {
        if let Progress::Generation(generation) = progress {
            println!("Status: {}", generation.status);
        }
    })?;
    println!("{path} is saved.");
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [option] if option == "--help" => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        [image, prompt, path] if !image.starts_with('-') => save(image, prompt, path),
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
