//! Contains the clip that `build.rs` made.

use std::{env, fs, io};

const CLIP: &[u8] = include_bytes!("../assets/intro.mp4");

fn main() -> io::Result<()> {
    let size = CLIP.len();
    let Some(path) = env::args().nth(1) else {
        println!("This program contains a video of {size} bytes. Name a file to write it to.");
        return Ok(());
    };
    fs::write(&path, CLIP)?;
    println!("{path} is written, {size} bytes.");
    Ok(())
}
