//! The vendor's Python program for Veo 3, in its order and with its words: send the request, ask
//! for the result every 10 seconds, print the response.
//!
//! ```sh
//! cargo run --example generate_video
//! ```
//!
//! With your key in `AIMLAPI_KEY` it makes a video, which costs money. Without a key it does the
//! same with a simulator, in 20 seconds: nothing is generated, and nothing is charged.
//!
//! ```text
//! Gen_ID:  51a00000-0000-4000-8000-000000000000:veo3
//! Status: queued
//! Still waiting... Checking again in 10 seconds.
//! Status: generating
//! Still waiting... Checking again in 10 seconds.
//! Status: completed
//! Processing complete:
//!  {…,"status":"completed","video":{…,"url":"http://127.0.0.1:41231/files/0/0/output.mp4"}}
//! ```
//!
//! The URL at the end is that of the video. After a failure, the last line on stderr says what
//! happened, and the exit code is 1.
//!
//! A copy of this file in a program of your own needs, in `Cargo.toml`:
//!
//! ```toml
//! [dependencies]
//! aimlapi-video = { path = "../aimlapi-video", features = ["simulator"] } # the folder of this crate
//! ```

use aimlapi_video::{Client, Error, Generation, Video, VideoRequest, simulator::Simulator};

// The key is in AIMLAPI_KEY. The base URL is https://api.aimlapi.com/v2, unless
// AIMLAPI_BASE_URL names another.
fn client_by_key_or_simulator() -> Result<(Client, Option<Simulator>), Box<dyn std::error::Error>> {
    match Client::from_env() {
        Err(Error::MissingKey) => {
            eprintln!(
                "AIMLAPI_KEY is not set: this is a simulator. Nothing is generated or charged."
            );
            let simulator = Simulator::start()?;
            Ok((simulator.client_builder().build()?, Some(simulator)))
        }
        client => Ok((client?, None)),
    }
}

// Creating a video generation task on the server: the one call that costs money.
// POST https://api.aimlapi.com/v2/generate/video/google/generation
fn generate_video(client: &Client) -> Result<Generation, Error> {
    let request = VideoRequest::new(
        "
A menacing evil dragon appears in a distance above the tallest mountain, then rushes toward the camera with its jaws open, revealing massive fangs. We see it's coming.
",
    )
    .model("google/veo3");
    client.generate_video(&request)
}

// Requesting the result from the server every 10 s, for at most 1000 s.
// GET https://api.aimlapi.com/v2/generate/video/google/generation?generation_id=…
fn wait_for_video(client: &Client, generation_id: &str) -> Result<Video, Error> {
    client.wait_for_video(generation_id, |generation| {
        println!("Status: {}", generation.status);
        if generation.is_finished() {
            println!("Processing complete:\n {}", generation.raw);
        } else {
            println!("Still waiting... Checking again in 10 seconds.");
        }
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(argument) = std::env::args().nth(1) {
        help(&argument);
    }
    // The simulator stops when it is dropped.
    let (client, _simulator) = client_by_key_or_simulator()?;

    // Running video generation and getting a task id
    let generation = generate_video(&client)?;
    println!("Gen_ID:  {}", generation.id);

    wait_for_video(&client, &generation.id)?;
    Ok(())
}

fn help(argument: &str) -> ! {
    const HELP: &str = "usage: generate_video

Makes the video of the vendor's Python example, and prints its URL. Without a key: with a simulator.
For a prompt of your own: save_video PROMPT FILE.";
    if argument == "--help" {
        println!("{HELP}");
        std::process::exit(0);
    }
    eprintln!("{HELP}");
    std::process::exit(2);
}
