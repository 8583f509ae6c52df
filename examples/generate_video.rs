//! The vendor's Python program for Veo 3, function by function and line by line.
//!
//! ```sh
//! cargo run --example generate_video
//! ```
//!
//! Without a key it talks to a simulator for 20 seconds: nothing is generated, and nothing is
//! charged. With your key in `AIMLAPI_KEY` it makes a video, which costs money. It prints:
//!
//! ```text
//! Gen_ID:  simulated-ab4c9e3d-0001:veo3
//! Status: queued
//! Still waiting... Checking again in 10 seconds.
//! Status: generating
//! Still waiting... Checking again in 10 seconds.
//! Status: completed
//! Processing complete:/n {…,"status":"completed","video":{…,"url":"http://127.0.0.1:41231/files/…"}}
//! ```
//!
//! The URL at the end is that of the video. The slash is the Python program's. So is the loop,
//! which any failure ends: the next lesson, `wait_for_video`, says what that may lose.
//!
//! A copy of this file in a program of your own needs, in `Cargo.toml`:
//!
//! ```toml
//! [dependencies]
//! aimlapi-video = { path = "../aimlapi-video", features = ["simulator"] } # the folder of this crate
//! ```

use aimlapi_video::{Client, Error, Generation, VideoRequest, simulator::Simulator};
use std::{env, thread::sleep, time::Duration, time::Instant};

// Creating and sending a video generation task to the server
fn generate_video(client: &Client) -> Result<Generation, Error> {
    let data = VideoRequest::new("
A menacing evil dragon appears in a distance above the tallest mountain, then rushes toward the camera with its jaws open, revealing massive fangs. We see it's coming.
").model("google/veo3");
    client.generate_video(&data)
}

// Requesting the result of the task from the server using the generation_id
fn get_video(client: &Client, gen_id: &str) -> Result<Generation, Error> {
    client.get_video(gen_id)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (client, _simulator) = client_of_key_or_simulator()?;
    // Running video generation and getting a task id
    let gen_response = generate_video(&client)?;
    let gen_id = gen_response.id;
    println!("Gen_ID:  {gen_id}");

    // Trying to retrieve the video from the server every 10 sec
    let start_time = Instant::now();
    let timeout = Duration::from_secs(1000);
    while start_time.elapsed() < timeout {
        let response_data = get_video(&client, &gen_id)?;
        let status = &response_data.status;
        println!("Status: {status}");
        if status == "waiting" || status == "active" || status == "queued" || status == "generating"
        {
            println!("Still waiting... Checking again in 10 seconds.");
            sleep(Duration::from_secs(10));
        } else {
            println!("Processing complete:/n {}", response_data.raw);
            eprintln!("For a real video: cargo run --example resume -- {gen_id} dragon.mp4");
            return Ok(());
        }
    }
    println!("Timeout reached. Stopping.");
    eprintln!("For a real video: cargo run --example resume -- {gen_id} dragon.mp4");
    Ok(())
}

// Not in the Python program: where no key is set, a simulator, which stops when it is dropped.
fn client_of_key_or_simulator() -> Result<(Client, Option<Simulator>), Box<dyn std::error::Error>> {
    if env::args_os().len() > 1 {
        return Err("generate_video takes no arguments: save_video takes a prompt".into());
    }
    let mut names = ["AIMLAPI_KEY", "AIML_API_KEY", "AIMLAPI_API_KEY"].into_iter();
    let is_set = |name: &&str| env::var(name).is_ok_and(|key| !key.trim().is_empty());
    let Some(name) = names.find(is_set) else {
        eprintln!("No key is set, so this is a simulator: nothing is generated or charged.");
        let simulator = Simulator::start()?;
        return Ok((simulator.client(), Some(simulator)));
    };
    eprintln!("This costs money, on the key in {name}, unless AIMLAPI_BASE_URL is a simulator's.");
    Ok((Client::from_env()?, None))
}
