//! Makes `assets/intro.mp4` in the first build, and pays for it. Every later build finds it finished.

use std::{
    error::Error,
    fs::{self, File},
};

use aimlapi_video::{AspectRatio, Client, Polling, VideoFile, VideoRequest};

const CLIP: &str = "assets/intro.mp4";

fn make_clip() -> Result<(), Box<dyn Error>> {
    let request = VideoRequest::new("A paper boat sails down a rain gutter, seen from just above the water")
        .aspect_ratio(AspectRatio::Landscape)
        .duration(4);
    let clip = VideoFile::new(CLIP, request);
    if !clip.is_current()? {
        let client = Client::from_env()?;
        fs::create_dir_all("assets")?;
        clip.generate(&client, &Polling::default(), |_| {})?;
        // Cargo takes a watched file that is newer than the start of the script for changed, and would run the script
        // once more. So the clip gets the time of this file, which is older.
        let older = fs::metadata("build.rs")?.modified()?;
        File::options().write(true).open(CLIP)?.set_modified(older)?;
    }
    Ok(())
}

fn main() {
    // When the clip is missing or was altered. A change of this file, so of the request, needs no line of its own.
    println!("cargo::rerun-if-changed={CLIP}");
    if let Err(error) = make_clip() {
        println!("cargo::error={CLIP} can't be made: {error}");
        println!("cargo::error=Mend that and build again: the build goes on where it stood, and pays at most once.");
    }
}
