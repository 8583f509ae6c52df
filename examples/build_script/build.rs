//! Makes `assets/intro.mp4` in the first build, and pays for it. Every later build finds it
//! finished.

use aimlapi_video::{Client, Error, Progress, VideoFile, VideoRequest};

/// Beside Cargo.toml, not in `OUT_DIR`: each profile has its own `OUT_DIR`, and `cargo clean`
/// empties it, so each would pay again. The folder is made if it is missing.
const CLIP: &str = "assets/intro.mp4";

fn make_clip() -> Result<(), Error> {
    let prompt = "A paper boat sails down a rain gutter, seen from just above the water";
    let request = VideoRequest::new(prompt).aspect_ratio("16:9").duration(4);
    let clip = VideoFile::new(CLIP, request);
    if !clip.is_current()? {
        // Minutes, in which cargo shows nothing. `cargo build -vv` shows these lines.
        clip.generate(&Client::from_env()?, |progress| {
            if let Progress::Generation(generation) = progress {
                eprintln!("{CLIP}: {}", generation.status);
            }
        })?;
    }
    Ok(())
}

fn main() {
    // Runs again if the clip is missing or changes, or if this file does, and so the request. (And
    // once more after the build that made the clip, which is then newer than that run: no harm.)
    println!("cargo::rerun-if-changed={CLIP}");
    if let Err(error) = make_clip() {
        println!("cargo::error={CLIP}: {error}");
        println!("cargo::error=The next build continues. It pays at most once.");
    }
}
