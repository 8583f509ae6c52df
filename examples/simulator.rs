//! The mock server of the API, for programs in any language. Nothing is generated, nothing is
//! charged.
//!
//! ```sh
//! cargo run --example simulator          # a free port
//! cargo run --example simulator -- 8080  # this port
//! ```
//!
//! It prints the variables to set in another terminal, for this crate and for the vendor's Python
//! SDK:
//!
//! ```text
//! export AIMLAPI_BASE_URL=http://127.0.0.1:41231/v2
//! export AIMLAPI_KEY=simulator-key
//! export AIMLAPI_API_BASE=http://127.0.0.1:41231/v1
//! export AIML_API_KEY=simulator-key
//! # Set these where your program runs. Control-C stops the simulator.
//! ```
//!
//! Then it serves until it is stopped: each generation is queued at the first poll, generating at
//! the second, and completed from the third on, with a real video to download.

use std::{env, process::ExitCode, thread};

use aimlapi_video::simulator::Simulator;

const USAGE: &str = "usage: simulator [PORT]";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
        println!("{USAGE}\n\nServes a mock of the API on 127.0.0.1, on PORT or any free one.");
        return ExitCode::SUCCESS;
    }
    let port = match arguments.as_slice() {
        [] => Some(0),
        [port] => port.parse().ok(),
        _ => None,
    };
    let Some(port) = port else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let simulator = match Simulator::start_on(port) {
        Ok(simulator) => simulator,
        Err(error) => {
            eprintln!("port {port} of 127.0.0.1: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (url, key) = (simulator.base_url(), Simulator::KEY);
    println!("export AIMLAPI_BASE_URL={url}");
    println!("export AIMLAPI_KEY={key}");
    // The SDK's base URL ends in v1; for videos, it takes only the host from it.
    println!("export AIMLAPI_API_BASE={}", url.replace("/v2", "/v1"));
    println!("export AIML_API_KEY={key}");
    println!("# Set these where your program runs. Control-C stops the simulator.");
    loop {
        thread::park();
    }
}
