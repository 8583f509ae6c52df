//! What `Client::wait_for_video` does, as a loop of one's own: ask, print, sleep, ask again.
//!
//! ```sh
//! cargo run --example by_hand
//! ```
//!
//! To try it without a key, run `cargo run --example simulator` in another terminal, and set here
//! what that prints. It prints:
//!
//! ```text
//! Gen_ID:  51a00000-0000-4000-8000-000000000000:veo3
//! Status: queued
//! Status: generating
//! Status: completed
//! http://127.0.0.1:41231/files/0/0/output.mp4
//! ```

use std::{env, error::Error, process, thread::sleep, time::Duration};

use aimlapi_video::{Client, VideoRequest};

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(argument) = env::args().nth(1) {
        help(&argument);
    }
    let client = Client::from_env()?;
    let request = VideoRequest::new("A paper boat on a river");
    let id = client.generate_video(&request)?.id;
    println!("Gen_ID:  {id}");

    // 100 times 10 s, as in the vendor's example.
    for _ in 0..100 {
        match client.get_video(&id) {
            Ok(generation) => {
                println!("Status: {}", generation.status);
                if generation.is_finished() {
                    let video = generation.video.ok_or("it ended without a video")?;
                    println!("{}", video.url);
                    return Ok(());
                }
            }
            // The video is paid for: a broken connection must not end the wait.
            Err(error) if error.is_transient() => eprintln!("{error}"),
            Err(error) => return Err(error.into()),
        }
        sleep(Duration::from_secs(10));
    }
    Err(format!("{id} is not finished so far: resume {id}").into())
}

fn help(argument: &str) -> ! {
    const HELP: &str = "usage: by_hand\n\nMakes a video, and waits for it in a loop of its own.";
    if argument == "--help" {
        println!("{HELP}");
        process::exit(0);
    }
    eprintln!("{HELP}");
    process::exit(2);
}
