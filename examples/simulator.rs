//! The stand-in for the API, for programs in any language. Nothing is generated, nothing is charged.
//!
//! ```sh
//! cargo run --example simulator          # a free port
//! cargo run --example simulator -- 8080  # this port
//! ```
//!
//! It prints the two variables to set in another terminal:
//!
//! ```text
//! export AIMLAPI_BASE_URL=http://127.0.0.1:41231/v2
//! export AIMLAPI_KEY=simulator-key
//! # Set these where the program runs. Control-C ends the simulator.
//! ```
//!
//! Then it serves until it is stopped: each generation is queued at the first poll, generating at the second, and
//! completed from the third on, with a real video to download.

use std::{env, process::ExitCode, thread};

use aimlapi_video::simulator::Simulator;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let port = match arguments.as_slice() {
        [] => Some(0),
        [port] => port.parse().ok(),
        _ => None,
    };
    let Some(port) = port else {
        eprintln!("usage: simulator [PORT]");
        return ExitCode::from(2);
    };
    let simulator = match Simulator::start_on(port) {
        Ok(simulator) => simulator,
        Err(error) => {
            eprintln!("port {port} of 127.0.0.1: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("export AIMLAPI_BASE_URL={}", simulator.base_url());
    println!("export AIMLAPI_KEY={}", Simulator::KEY);
    println!(
        "# What programs say of costs is made up here.\n# Set these where the program runs. Control-C ends the simulator."
    );
    loop {
        thread::park();
    }
}
