//! The clip of this program, for `build.rs` and for `examples/make_clip.rs`.

use aimlapi_video::{Attempt, ClientBuilder, Error, Progress, VideoFile, VideoRequest};

/// Beside Cargo.toml. Not in `OUT_DIR`: each profile has its own, and `cargo clean` empties it, so
/// each would pay again. The folder is made if it is missing.
pub const PATH: &str = "assets/intro.mp4";

/// Makes the clip, unless it is there already. Returns how it was made, if it was now.
pub fn make() -> Result<Option<Attempt>, Error> {
    let prompt = "A paper boat sails down a rain gutter, seen from just above the water";
    let request = VideoRequest::new(prompt).aspect_ratio("16:9").duration(4);
    let clip = VideoFile::new(PATH, request);
    if clip.is_current()? {
        return Ok(None);
    }
    let builder = ClientBuilder::from_env()?;
    let client = builder.on_retry(|retry| eprintln!("{retry}")).build()?;
    // Minutes, in which cargo shows nothing. `cargo build -vv` shows these lines.
    let attempt = clip.generate(&client, |progress| {
        if let Progress::Generation(generation) = progress {
            eprintln!("{PATH}: {}", generation.status);
        }
    })?;
    Ok(Some(attempt))
}
