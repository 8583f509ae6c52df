//! A video that begins with a picture: a PNG, JPEG or WebP file, which is sent inside the request, or an address.
//!
//! ```sh
//! cargo run --example image_to_video -- cat.jpg "The cat wakes and yawns" cat.mp4
//! cargo run --example image_to_video -- https://example.com/cat.jpg "The cat wakes and yawns" cat.mp4
//! ```
//!
//! To try it without a key, start `cargo run --example simulator` in another terminal, and set what that prints.
//!
//! It prints the status at each poll, and where the video is. It pays once, as `save_video` does; another picture
//! is another request:
//!
//! ```text
//! Status: queued
//! Status: completed
//! cat.mp4 is saved.
//! ```

use std::{env, process::ExitCode};

use aimlapi_video::{Client, Error, Image, Polling, Progress, VideoFile, VideoRequest};

fn save(image: &str, prompt: &str, path: &str) -> Result<(), Error> {
    let image = if image.contains("://") {
        Image::from_url(image)
    } else {
        Image::from_file(image)?
    };
    let file = VideoFile::new(path, VideoRequest::from_image(prompt, image));
    if !file.is_current()? {
        file.generate(&Client::from_env()?, &Polling::default(), |progress| {
            if let Progress::Generation(generation) = progress {
                println!("Status: {}", generation.status);
            }
        })?;
    }
    println!("{path} is saved.");
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [image, prompt, path] = arguments.as_slice() else {
        eprintln!("usage: image_to_video IMAGE PROMPT FILE");
        return ExitCode::from(2);
    };
    if let Err(error) = save(image, prompt, path) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
