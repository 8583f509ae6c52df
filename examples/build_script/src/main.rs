//! Carries the clip that `build.rs` made.

use std::{env, fs, io};

const CLIP: &[u8] = include_bytes!("../assets/intro.mp4");

fn main() -> io::Result<()> {
    let Some(path) = env::args().nth(1) else {
        println!("This program carries a video of {} bytes. Name a file to have it written there.", CLIP.len());
        return Ok(());
    };
    fs::write(&path, CLIP)?;
    println!("{path} is written, {} bytes.", CLIP.len());
    Ok(())
}
