//! The second way, for a crate that others build: its author makes the clip, and commits it.

#[path = "../clip.rs"]
mod clip;

use std::{env, error::Error};

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo run` starts a program in the folder that the person is in.
    env::set_current_dir(env!("CARGO_MANIFEST_DIR"))?;
    clip::make()?;
    println!("Commit {0} and {0}.receipt.json.", clip::PATH);
    Ok(())
}
