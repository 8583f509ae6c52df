//! Continues with a generation by its id: after a timeout, a crash, a broken download, or on
//! another computer. Costs nothing, however often.
//!
//! ```sh
//! cargo run --example resume -- GENERATION_ID dragon.mp4
//! ```
//!
//! To try it without a key, run `cargo run --example simulator` in another terminal, set here what
//! that prints, run `cargo run --example wait_for_video`, and take the id that it prints.
//!
//! It prints the status of the generation and the URL of the video. With a file name, it downloads
//! the video. It overwrites nothing: if the file is there already, that is an error.
//!
//! ```text
//! Status: generating
//! Status: completed
//! http://127.0.0.1:41231/files/simulated-ab4c9e3d-0001/0/output.mp4
//! dragon.mp4 is saved.
//! ```

use std::{
    env,
    fmt::Display,
    io::{self, Write},
    path::Path,
    process,
};

use aimlapi_video::{ClientBuilder, Error};

const HELP: &str = "usage: resume GENERATION_ID [FILE]

Waits for a generation, prints the URL of its video, and
saves it to FILE, which must not be there yet. Costs
nothing. The key is in AIMLAPI_KEY.";

fn resume(generation_id: &str, path: Option<&str>) -> Result<(), Error> {
    refuse_existing(path);
    let builder = ClientBuilder::from_env()?;
    let client = builder.on_retry(|retry| complain(retry)).build()?;
    let video = client.wait_for_video(generation_id, |generation| {
        say(format_args!("Status: {}", generation.status));
    })?;
    say(&video.url);
    if let Some(path) = path {
        refuse_existing(Some(path));
        client.download_video(&video, path, |_progress| {})?;
        say(format_args!("{path} is saved."));
    }
    Ok(())
}

fn refuse_existing(path: Option<&str>) {
    if let Some(path) = path.filter(|path| Path::new(path).symlink_metadata().is_ok()) {
        complain(format_args!("{path} is there already: name another file."));
        process::exit(1);
    }
}

fn main() -> Result<(), Error> {
    let arguments = env::args_os().skip(1).map(|text| text.into_string());
    match arguments.collect::<Result<Vec<_>, _>>().as_deref() {
        Ok([help]) if help == "--help" => {
            say(HELP);
            Ok(())
        }
        Ok([id]) if !id.starts_with('-') => resume(id, None),
        Ok([id, path]) if !id.starts_with('-') => resume(id, Some(path)),
        _ => {
            complain(HELP);
            process::exit(2)
        }
    }
}

/// As `println!`, but does not panic if stdout is closed or full.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
