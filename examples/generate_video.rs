//! The vendor's Python example for Veo 3, part by part and with its words: request a generation, poll it every 10 s,
//! print the answer.
//!
//! With your key in `AIMLAPI_KEY` it makes a video, which costs money. Without one it does the same with a simulator
//! on this machine, in 20 s: nothing is generated, and nothing is charged.
//!
//! ```sh
//! cargo run --example generate_video
//! ```
//!
//! It prints the generation's id, its status at each poll, and at the end the whole answer, which holds the address
//! of the video:
//!
//! ```text
//! Gen_ID:  51a00000-0000-4000-8000-000000000000:veo3
//! Status: queued
//! Still waiting... Checking again in 10 seconds.
//! Status: generating
//! Still waiting... Checking again in 10 seconds.
//! Status: completed
//! Processing complete:
//!  {…,"status":"completed","video":{…,"url":"http://127.0.0.1:41231/files/0/output.mp4"}}
//! ```
//!
//! On a failure the exit code is 1. What happened is told on stderr, with the id once there is one.

use std::process::ExitCode;

use aimlapi_video::{
    Client, Error, Generation, Polling, Video, VideoRequest, simulator::Simulator,
};

const PROMPT: &str = "
A menacing evil dragon appears in a distance above the tallest mountain, then rushes toward the camera with its jaws open, revealing massive fangs. We see it's coming.
";

// One POST, the only call that costs money. It is never repeated.
fn generate_video(client: &Client) -> Result<Generation, Error> {
    client.generate_video(&VideoRequest::new(PROMPT))
}

// One GET every 10 s, for at most 1000 s, until the generation is over.
fn get_video(client: &Client, generation_id: &str) -> Result<Video, Error> {
    client.wait_for_video(generation_id, &Polling::default(), |generation| {
        println!("Status: {}", generation.status);
        if generation.is_finished() {
            println!("Processing complete:\n {}", generation.raw);
        } else {
            println!("Still waiting... Checking again in 10 seconds.");
        }
    })
}

fn run() -> Result<(), Error> {
    // Out here, because the simulator ends when it is dropped.
    let simulator;
    let client = match Client::from_env() {
        Err(Error::MissingKey) => {
            eprintln!(
                "AIMLAPI_KEY is not set: talking to a simulator on this machine. No video is generated."
            );
            simulator = Simulator::start()
                .map_err(|error| Error::Invalid(format!("no simulator: {error}")))?;
            simulator.client()
        }
        client => client?,
    };

    let generation = generate_video(&client)?;
    println!("Gen_ID:  {}", generation.id);

    get_video(&client, &generation.id)?;
    Ok(())
}

fn main() -> ExitCode {
    if std::env::args().len() > 1 {
        eprintln!(
            "usage: generate_video (the prompt is in the program; for one of your own: save_video PROMPT FILE)"
        );
        return ExitCode::from(2);
    }
    let Err(error) = run() else {
        return ExitCode::SUCCESS;
    };
    match &error {
        Error::Refused(refusal) => println!("Error: {} - {}", refusal.status, refusal.body),
        Error::TimedOut(_) => println!("Timeout reached. Stopping."),
        _ => {}
    }
    eprintln!("{error}");
    ExitCode::FAILURE
}
