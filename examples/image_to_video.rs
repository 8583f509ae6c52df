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
//! Run it again, and it pays nothing, and prints only the last line.
//!
//! A copy of this file needs the feature `image-file`, for `image_file`.

use std::{
    env,
    fmt::Display,
    io::{self, Write},
    process,
};

use aimlapi_video::{ClientBuilder, Error, Progress, VideoFile, VideoRequest, image_file};

const HELP: &str = "usage: image_to_video IMAGE PROMPT FILE

Makes a video that starts with IMAGE, a file or a URL, and
saves it to FILE, whose name ends in .mp4. Pays once,
however often it is run. The key is in AIMLAPI_KEY.";

fn save(image: &str, prompt: &str, path: &str) -> Result<(), Error> {
    let image_url = match image.contains("://") {
        true => image.to_owned(),
        false => image_file(image)?,
    };
    // The default model takes text alone.
    let request = VideoRequest::new(prompt)
        .model("google/veo-3.0-i2v")
        .image_url(image_url);
    let file = VideoFile::new(path, request);
    if !file.is_current()? {
        let builder = ClientBuilder::from_env()?;
        let client = builder.on_retry(|retry| complain(retry)).build()?;
        file.generate(&client, |progress| {
            if let Progress::Generation(generation) = progress {
                say(format_args!("Status: {}", generation.status));
            }
        })?;
    }
    say(format_args!("{path} is saved."));
    Ok(())
}

/// As `println!`, but does not panic if stdout is closed or full.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn main() -> Result<(), Error> {
    let arguments = env::args_os().skip(1).map(|text| text.into_string());
    match arguments.collect::<Result<Vec<_>, _>>().as_deref() {
        Ok([help]) if help == "--help" => {
            say(HELP);
            Ok(())
        }
        // Arguments in another order must not be paid for.
        Ok([image, prompt, path]) if path.ends_with(".mp4") && !prompt.ends_with(".mp4") => {
            save(image, prompt, path)
        }
        _ => {
            complain(HELP);
            process::exit(2)
        }
    }
}
