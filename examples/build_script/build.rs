//! The first way: the first build makes `assets/intro.mp4`, and pays for it. Every later build finds
//! it finished.

mod clip;

use std::{
    fs::File,
    process::Command,
    time::{Duration, SystemTime},
};

fn main() {
    // Runs again if the clip is missing or changes, or if this script does, and so the request.
    println!("cargo::rerun-if-changed={}", clip::PATH);
    let before = SystemTime::now() - Duration::from_secs(10);
    match clip::make() {
        Ok(Some(attempt)) => {
            // A file that is newer than this run looks like a change to cargo.
            let clip = File::options().append(true).open(clip::PATH);
            let _ = clip.and_then(|clip| clip.set_modified(before));
            remind(&attempt.generation_id.unwrap_or_default());
        }
        Ok(None) => {}
        Err(error) => {
            println!("cargo::error={error}");
            println!("cargo::error=The next build continues. It pays at most once.");
        }
    }
}

/// A clone that has the clip and its receipt pays nothing.
fn remind(generation_id: &str) {
    if generation_id.starts_with("simulated-") {
        println!(
            "cargo::warning=The simulator made {}: delete it at the end",
            clip::PATH
        );
        return;
    }
    let files = [clip::PATH, &format!("{}.receipt.json", clip::PATH)];
    println!("cargo::warning=Paid for. Commit both: {}", files.join(", "));
    for file in files {
        let mut git = Command::new("git");
        let status = git.args(["check-ignore", "-q", file]).status();
        if status.is_ok_and(|status| status.success()) {
            println!("cargo::warning=git ignores {file}: correct .gitignore first");
        }
    }
}
