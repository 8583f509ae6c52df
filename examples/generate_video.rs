//! The vendor's Python example for Veo 3, part by part: request a generation, poll it every ten seconds, print the
//! answer.
//!
//! Run it with your key in `AIMLAPI_KEY` to make a video, which costs money:
//!
//! ```sh
//! cargo run --example generate_video
//! ```
//!
//! Without a key it does the same with a simulator on this machine, and no video is generated. It prints the
//! generation's id, its status at each poll, and at the end the whole answer with the address of the video.

use std::process::ExitCode;

use aimlapi_video::{Client, Error, Generation, Polling, VideoRequest, simulator::Simulator};

// Creating and sending a video generation task to the server
fn generate_video(client: &Client) -> Result<Generation, Error> {
    client.generate_video(&VideoRequest::new(
        "
A menacing evil dragon appears in a distance above the tallest mountain, then rushes toward the camera with its jaws open, revealing massive fangs. We see it's coming.
",
    ))
}

// Requesting the result of the task from the server using the generation id, every 10 s, for 1000 s at most
fn get_video(client: &Client, id: &str) -> Result<(), Error> {
    let video = client.wait_for_video(id, &Polling::default(), |generation| {
        println!("Status: {}", generation.status);
        if generation.is_finished() {
            println!("Processing complete:\n {}", generation.raw);
        } else {
            println!("Still waiting... Checking again in 10 seconds.");
        }
    });
    video.map(drop)
}

fn run() -> Result<(), Error> {
    // Kept, because the simulator ends when it is dropped.
    let simulator;
    let client = match Client::from_env() {
        Err(Error::MissingKey) => {
            eprintln!("AIMLAPI_KEY is not set: talking to a simulator on this machine. No video is generated.");
            simulator = Simulator::start().map_err(|error| Error::Invalid(format!("no simulator: {error}")))?;
            simulator.client()
        }
        client => client?,
    };

    // Running video generation and getting a task id
    let generation = generate_video(&client)?;
    println!("Gen_ID:  {}", generation.id);

    get_video(&client, &generation.id)
}

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    match &error {
        Error::Refused(refusal) => println!("Error: {} - {}", refusal.status, refusal.body),
        Error::TimedOut(_) => println!("Timeout reached. Stopping."),
        _ => {}
    }
    eprintln!("{error}");
    ExitCode::FAILURE
}
