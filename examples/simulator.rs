//! The mock server of the API, for programs in any language. Nothing is generated, nothing is
//! charged.
//!
//! ```sh
//! cargo run --example simulator          # a free port
//! cargo run --example simulator -- 8080  # this port
//! ```
//!
//! It prints the variables to set in another terminal, for this crate and for the vendor's Python
//! SDK, and the address of a page that shows what happens:
//!
//! ```text
//! export AIMLAPI_BASE_URL=http://127.0.0.1:41231/v2
//! export AIMLAPI_KEY=simulator-key
//! export AIMLAPI_API_BASE=http://127.0.0.1:41231/v1
//! export AIML_API_KEY=simulator-key
//! # Set these where your program runs. Control-C stops the simulator.
//! # To watch, open http://127.0.0.1:41231/ in a browser.
//! ```
//!
//! Then it serves until it is stopped, with a line for each request. Each generation is queued at
//! the first poll, generating at the second, and completed from the third on, with a real video to
//! download.
//!
//! ```text
//! POST /v2/generate/video/google/generation 201
//! GET /v2/generate/video/google/generation 200
//! ```
//!
//! Scripts make it fail, to test what your program does then. The first POST here is charged, and
//! its response is lost:
//!
//! ```sh
//! cargo run --example simulator -- --posts drop,accept --polls queued,503,complete \
//!     --downloads close:1000,serve --logs hide,503
//! ```

use std::ffi::OsString;
use std::io::{self, Write};
use std::{env, process::ExitCode, thread, time::Duration};

use aimlapi_video::simulator::{Download, Log, Poll, Post, Received, Simulator};

const USAGE: &str = "usage: simulator [PORT] [--SCRIPT STEPS]...";
const HELP: &str = "
Serves a mock of the API on 127.0.0.1, on PORT or any free one. STEPS are separated by commas, and
taken one for each request, in order. Each generation takes --polls from the start, and repeats the
last.
";
const POSTS: &str = "accept, drop, close:BYTES, stall:SECONDS, or a status from 300 to 599";
const POLLS: &str = "queued, generating or any other status word, complete, fail, fail-charged, \
                     close:BYTES, stall:SECONDS, or an HTTP status from 300 to 599";
const DOWNLOADS: &str = "serve, expire, close:BYTES, stall:SECONDS, or a status from 300 to 599";
const LOGS: &str = "serve, hide, close:BYTES, or a status from 300 to 599";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
        say(format!("{USAGE}\n{HELP}\n{}", allowed()));
        return ExitCode::SUCCESS;
    }
    match start(&arguments) {
        Ok(simulator) => serve(&simulator),
        Err(Failure::Usage(text)) => {
            let _ = writeln!(io::stderr(), "{USAGE}\n{text}");
            ExitCode::from(2)
        }
        Err(Failure::Port(text)) => {
            let _ = writeln!(io::stderr(), "{text}");
            ExitCode::FAILURE
        }
    }
}

fn serve(simulator: &Simulator) -> ExitCode {
    let (url, key) = (simulator.base_url(), Simulator::KEY);
    // The SDK's base URL ends in v1; for videos, it takes only the host from it.
    let (sdk_url, page) = (url.replace("/v2", "/v1"), url.replace("/v2", "/"));
    simulator.on_response(|request| say(line(request)));
    say(format!(
        "export AIMLAPI_BASE_URL={url}\nexport AIMLAPI_KEY={key}"
    ));
    say(format!(
        "export AIMLAPI_API_BASE={sdk_url}\nexport AIML_API_KEY={key}"
    ));
    say("# Set these where your program runs. Control-C stops the simulator.");
    say(format!("# To watch, open {page} in a browser."));
    loop {
        thread::park();
    }
}

/// The reader of this may be gone. The simulator serves all the same.
fn say(text: impl AsRef<str>) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{}", text.as_ref());
    let _ = stdout.flush();
}

/// The method, the path and the status: no query, and no character that a terminal would obey.
fn line(request: &Received) -> String {
    let path = request.url.split('?').next().unwrap_or_default();
    let visible = |character: char| {
        if character.is_ascii_graphic() {
            character
        } else {
            '?'
        }
    };
    let path: String = path.chars().take(200).map(visible).collect();
    let status = match request.status {
        0 => "no response".to_owned(),
        status => status.to_string(),
    };
    format!("{} {path} {status}", request.method)
}

enum Failure {
    Usage(String),
    Port(String),
}

fn start(arguments: &[OsString]) -> Result<Simulator, Failure> {
    let (mut port, mut scripts) = (0, Vec::new());
    let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy());
    while let Some(argument) = arguments.next() {
        if argument.starts_with("--") {
            let steps = arguments.next();
            let steps = steps.ok_or_else(|| Failure::Usage(format!("{argument:?}: no steps")))?;
            scripts.push((argument, steps));
        } else {
            let number = argument.parse();
            port = number.map_err(|_| Failure::Usage(format!("{argument:?} is no port")))?;
        }
    }
    let simulator = Simulator::start_on(port)
        .map_err(|error| Failure::Port(format!("port {port} of 127.0.0.1: {error}")))?;
    for (name, steps) in scripts {
        script(&simulator, &name, &steps).map_err(Failure::Usage)?;
    }
    Ok(simulator)
}

fn script(simulator: &Simulator, name: &str, text: &str) -> Result<(), String> {
    match name {
        "--posts" => simulator.script_posts(steps(text, POSTS, post)?),
        "--polls" => simulator.script_polls(steps(text, POLLS, poll)?),
        "--downloads" => simulator.script_downloads(steps(text, DOWNLOADS, download)?),
        "--logs" => simulator.script_logs(steps(text, LOGS, log)?),
        _ => return Err(format!("{name:?} is no option")),
    }
    Ok(())
}

fn steps<T>(text: &str, allowed: &str, step: fn(Word<'_>) -> Option<T>) -> Result<Vec<T>, String> {
    let words = text.split(',').map(str::trim);
    let read = |word| {
        step(read(word)).ok_or_else(|| format!("{word:?} is no step; allowed are {allowed}"))
    };
    words.map(read).collect()
}

/// A step as it is written.
enum Word<'a> {
    Name(&'a str),
    Status(u16),
    Close(usize),
    Stall(Duration),
    Wrong,
}

fn read(word: &str) -> Word<'_> {
    let stall = |text: &str| Duration::try_from_secs_f64(text.parse().ok()?).ok();
    let known = match word.split_once(':') {
        Some(("close", bytes)) => bytes.parse().ok().map(Word::Close),
        Some(("stall", seconds)) => stall(seconds).map(Word::Stall),
        Some(_) => None,
        None if word.starts_with(|start: char| start.is_ascii_alphabetic()) => {
            Some(Word::Name(word))
        }
        None => word
            .parse()
            .ok()
            .filter(|status| (300..600).contains(status))
            .map(Word::Status),
    };
    known.unwrap_or(Word::Wrong)
}

fn post(word: Word<'_>) -> Option<Post> {
    match word {
        Word::Name("accept") => Some(Post::Accept),
        Word::Name("drop") => Some(Post::DropResponse),
        Word::Close(bytes) => Some(Post::CloseAfter(bytes)),
        Word::Stall(time) => Some(Post::Stall(time)),
        Word::Status(status) => Some(Post::Reject(status)),
        Word::Name(_) | Word::Wrong => None,
    }
}

fn poll(word: Word<'_>) -> Option<Poll> {
    let (name, message) = ("SimulatedError", "This failure is a step of the script.");
    match word {
        Word::Name("complete") => Some(Poll::Complete),
        Word::Name("fail") => Some(Poll::fail(name, message)),
        Word::Name("fail-charged") => Some(Poll::fail_charged(name, message)),
        Word::Name(status) => Some(Poll::status(status)),
        Word::Close(bytes) => Some(Poll::CloseAfter(bytes)),
        Word::Stall(time) => Some(Poll::Stall(time)),
        Word::Status(status) => Some(Poll::Reject(status)),
        Word::Wrong => None,
    }
}

fn download(word: Word<'_>) -> Option<Download> {
    match word {
        Word::Name("serve") => Some(Download::Serve),
        Word::Name("expire") => Some(Download::Expire),
        Word::Close(bytes) => Some(Download::CloseAfter(bytes)),
        Word::Stall(time) => Some(Download::Stall(time)),
        Word::Status(status) => Some(Download::Reject(status)),
        Word::Name(_) | Word::Wrong => None,
    }
}

fn log(word: Word<'_>) -> Option<Log> {
    match word {
        Word::Name("serve") => Some(Log::Serve),
        Word::Name("hide") => Some(Log::Hide),
        Word::Close(bytes) => Some(Log::CloseAfter(bytes)),
        Word::Status(status) => Some(Log::Reject(status)),
        Word::Name(_) | Word::Stall(_) | Word::Wrong => None,
    }
}

fn allowed() -> String {
    format!(
        "--posts      {POSTS}\n--polls      {POLLS}\n--downloads  {DOWNLOADS}\n--logs       {LOGS}"
    )
}
