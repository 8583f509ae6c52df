//! What this crate adds to bare ureq, without any timeout, and serde_json: both do the same work with
//! the same server on loopback and alternate, all on one core, so that what else the machine does
//! slows both. Figures are medians.
//!
//! ```sh
//! cargo bench              # some minutes
//! cargo bench -- --quick   # about a minute, rougher
//! ```
//!
//! Needs taskset to stay on one core, and valgrind to count instructions: what is missing is left
//! out. Memory is read from `/proc`: outside Linux it is shown as 0.

use std::io::{self, BufReader, prelude::*};
use std::net::{TcpListener, TcpStream};
use std::process::{self, Child, ChildStdout, Command, Stdio};
use std::sync::{Barrier, Mutex, atomic::AtomicUsize, atomic::Ordering::SeqCst};
use std::time::{Duration, Instant};
use std::{array, env, fs, fs::File, hint::black_box, thread};

use aimlapi_video::{Client, VideoRequest};
use serde_json::{Value, json};

/// The crate's reader of responses, which is not public by itself.
#[path = "../src/generation.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod generation;
#[path = "../src/reply.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod reply;

const KEY: &str = "sk-bench-0123456789";
const PROMPT: &str = "A menacing evil dragon appears in a distance above the tallest mountain";
const SIDES: [&str; 2] = ["this crate", "bare ureq"];
const JSON: &str = "application/json";
/// On whatever disk the build is.
const VIDEO: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/overhead.mp4");
const JOBS: usize = 100;
const MIB: usize = 1024 * 1024;
/// A size that no other mapping of the process has: by it, the stacks of the threads are found.
const STACK_KIB: usize = 1088;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve"] => serve(),
        ["wait", side, origin] => wait_together(side, origin),
        ["repeat", side, work, count, origin] => {
            let side = side_of(side, origin, Duration::ZERO);
            (0..count.parse().unwrap()).for_each(|_| do_work(&*side, work));
            println!("{}", memory_kib("VmHWM:"));
        }
        _ if words.contains(&"--quick") => report(6),
        _ if words.contains(&"--bench") => report(1),
        _ => println!("measures nothing in a debug build: cargo bench"),
    }
}

/// One of the ways to do the same work.
trait Side: Sync {
    fn poll(&self);
    /// One POST, and polls until the video is there. Calls `on_response` at each poll.
    fn job(&self, on_response: &dyn Fn());
    fn parse(&self, reply: &reply::Reply);
    /// Polls once, and saves the video: synced, and under its name. Returns when its last byte was
    /// written.
    fn download(&self, size: usize) -> Instant;
}

impl Side for Client {
    fn poll(&self) {
        _ = black_box(self.get_video("live").unwrap());
    }

    fn job(&self, on_response: &dyn Fn()) {
        let generation = self.generate_video(&VideoRequest::new(PROMPT)).unwrap();
        let video = self.wait_for_video(&generation.id, |_| on_response());
        _ = black_box(video.unwrap());
    }

    fn parse(&self, reply: &reply::Reply) {
        _ = black_box(generation::Generation::read(reply, None).unwrap());
    }

    fn download(&self, size: usize) -> Instant {
        let generation = self.get_video(&format!("video-{size}")).unwrap();
        let (video, mut written) = (generation.video.unwrap(), Instant::now());
        let saved = self.download_video(&video, VIDEO, |_| written = Instant::now());
        saved.map(|()| written).unwrap()
    }
}

struct Bare {
    agent: ureq::Agent,
    url: String,
    poll_interval: Duration,
}

/// What a program takes from a response, as much as `Generation` has: the id, the status, and of
/// the video URL, type and name, of the error name and message; the video's size and length,
/// credits and dollars; and everything.
type Parsed = ([Option<String>; 7], [Option<f64>; 4], Value);

impl Bare {
    fn get(&self, id: &str) -> Parsed {
        let request = self.agent.get(&self.url).query("generation_id", id);
        let request = request.header("authorization", format!("Bearer {KEY}"));
        read_json(request.header("content-type", JSON).call().unwrap())
    }
}

fn read_json(mut response: ureq::http::Response<ureq::Body>) -> Parsed {
    assert!(response.status().is_success());
    let body = response.body_mut().with_config().limit(MIB as u64);
    parse_json(&body.read_to_string().unwrap())
}

fn parse_json(text: &str) -> Parsed {
    let raw: Value = serde_json::from_str(text).unwrap();
    let [url, kind, name] = ["url", "content_type", "file_name"].map(|name| &raw["video"][name]);
    let [size, length] = ["file_size", "duration"].map(|name| &raw["video"][name]);
    let [error, message] = ["name", "message"].map(|name| &raw["error"][name]);
    let [credits, usd] = ["credits_used", "usd_spent"].map(|name| &raw["meta"]["usage"][name]);
    let strings = [&raw["id"], &raw["status"], url, kind, name, error, message];
    let strings = strings.map(|value| value.as_str().map(str::to_owned));
    let numbers = [size, length, credits, usd];
    (strings, numbers.map(Value::as_f64), raw)
}

impl Side for Bare {
    fn poll(&self) {
        black_box(self.get("live"));
    }

    fn job(&self, on_response: &dyn Fn()) {
        let body = json!({"model": "google/veo3", "prompt": PROMPT}).to_string();
        let request = self.agent.post(&self.url);
        let request = request.header("authorization", format!("Bearer {KEY}"));
        let config = request.header("content-type", JSON).config();
        let request = config.max_idle_age(Duration::ZERO).build();
        let ([id, ..], ..) = read_json(request.send(&body).unwrap());
        loop {
            let ([_, status, video, ..], ..) = self.get(id.as_ref().unwrap());
            on_response();
            if status.unwrap() == "completed" {
                return drop(black_box(video));
            }
            thread::sleep(self.poll_interval);
        }
    }

    fn parse(&self, reply: &reply::Reply) {
        black_box(parse_json(&reply.body));
    }

    fn download(&self, size: usize) -> Instant {
        let ([_, _, url, ..], ..) = self.get(&format!("video-{size}"));
        let part = concat!(env!("CARGO_TARGET_TMPDIR"), "/overhead.part");
        let mut file = File::create(part).unwrap();
        let config = self.agent.get(url.unwrap()).config();
        let response = config.input_buffer_size(128 * 1024).build().call();
        let mut reader = response.unwrap().into_body().into_reader();
        let (mut buffer, mut count) = (vec![0; 128 * 1024], 1);
        while count > 0 {
            count = reader.read(&mut buffer).unwrap();
            file.write_all(&buffer[..count]).unwrap();
        }
        let written = Instant::now();
        file.sync_all().unwrap();
        fs::rename(part, VIDEO).unwrap();
        let folder = File::open(env!("CARGO_TARGET_TMPDIR")).unwrap();
        folder.sync_all().unwrap();
        written
    }
}

fn side_of(name: &str, origin: &str, poll_interval: Duration) -> Box<dyn Side> {
    if name == SIDES[0] {
        let client = Client::builder(KEY).base_url(format!("{origin}/v2"));
        // Zero is invalid. A nanosecond takes as little time.
        let poll_interval = poll_interval.max(Duration::from_nanos(1));
        return Box::new(client.poll_interval(poll_interval).build().unwrap());
    }
    let config = ureq::Agent::config_builder()
        .user_agent("bare-ureq/3.5")
        .http_status_as_error(false)
        .max_redirects(0)
        .max_idle_connections(128)
        .max_idle_connections_per_host(128)
        .input_buffer_size(16 * 1024)
        .output_buffer_size(16 * 1024)
        .proxy(None);
    Box::new(Bare {
        agent: config.build().new_agent(),
        url: format!("{origin}/v2/generate/video/google/generation"),
        poll_interval,
    })
}

fn do_work(side: &dyn Side, work: &str) {
    match work {
        "poll" => side.poll(),
        "job" => side.job(&|| {}),
        "crowd" => crowd(side, |_| {}),
        "parse" => {
            let body = COMPLETED.to_owned();
            let reply = reply::Reply {
                body,
                ..Default::default()
            };
            (0..1000).for_each(|_| side.parse(&reply));
        }
        size => {
            side.download(size.parse().unwrap());
            fs::remove_file(VIDEO).unwrap();
        }
    }
}

/// Measures everything `divisor` times less often than the full report does.
fn report(divisor: usize) {
    let times = |count: usize| (count / divisor).max(1);
    let of_tool = |tool, arguments: &[&str]| Command::new(tool).args(arguments).output();
    // What this process starts stays on that core too.
    let pinned = of_tool("taskset", &["-cp", "0", &process::id().to_string()]);
    match pinned.is_ok_and(|output| output.status.success()) {
        true => println!("\nAll on one core."),
        false => println!("\nOn any core: there is no taskset."),
    }
    let can_count = of_tool("valgrind", &["--version"]).is_ok();
    let server = Process::start(&["serve"]);
    let origin = &server.first_line;
    let sides = SIDES.map(|side| side_of(side, origin, Duration::ZERO));
    println!("\n{:>67}", "this crate   bare ureq  ratio");

    println!("\nOne client");
    for (work, what, unit, rounds, repeats, limit) in [
        ("poll", "poll, live connection, µs", 1e6, 6000, 100, 1.10),
        ("job", "job: POST, three polls, µs", 1e6, 2000, 30, 1.10),
        ("crowd", "100 jobs, 100 threads, ms", 1e3, 40, 10, 1.10),
        ("parse", "parsing 1,000 responses, ms", 1e3, 400, 5, 1.25),
    ] {
        let [medians] = by_turns(times(rounds), |side| {
            let start = Instant::now();
            do_work(&*sides[side], work);
            [start.elapsed().as_secs_f64() * unit]
        });
        row(what, medians, medians[1] * limit);
        if can_count {
            let counts = SIDES.map(|side| {
                let count = |times: usize| instructions(side, work, times, origin);
                // Not counting what only the first ones do.
                (count(repeats + 5) - count(5)) as f64 / repeats as f64
            });
            row("    instructions", counts, counts[1] * limit);
        }
    }

    let size = 256 * MIB;
    println!("\n256 MiB to a file");
    let [written, synced] = by_turns(times(9).max(3), |side| {
        let start = Instant::now();
        let times = [sides[side].download(size) - start, start.elapsed()];
        assert_eq!(fs::metadata(VIDEO).unwrap().len(), size as u64);
        fs::remove_file(VIDEO).unwrap();
        times.map(|time| time.as_secs_f64() * 1e3)
    });
    row("to the last byte, ms", written, written[1] * 1.10);
    row("and synced to disk, ms", synced, synced[1] * 1.10);
    let [small, large] = by_turns(times(3), |side| {
        [MIB, size].map(|size| {
            let arguments = ["repeat", SIDES[side], &size.to_string(), "1", origin];
            Process::start(&arguments).first_line.parse().unwrap()
        })
    });
    row("peak memory for 1 MiB, KiB", small, 5.0 * 1024.0);
    row("peak memory for 256 MiB, KiB", large, small[0] + 2048.0);

    println!("\n100 jobs that wait for their next poll");
    let [open, memory, stack] = by_turns(times(3), |side| {
        let mut server = Process::start(&["serve"]);
        let origin = format!("{}/slow", server.first_line);
        let mut waiting = Process::start(&["wait", SIDES[side], &origin]);
        let open = server.connections();
        waiting.child.kill().unwrap();
        let [kib, stacks]: [f64; 2] = serde_json::from_str(&waiting.first_line).unwrap();
        [open, kib / JOBS as f64, stacks / JOBS as f64]
    });
    row("connections open", open, JOBS as f64);
    row("memory of each beyond its stack, KiB", memory, 64.0);
    row("its stack, KiB", stack, f64::MAX);
}

/// Prints the figures of both sides, and the ratio of this crate's to the other.
fn row(what: &str, [ours, other]: [f64; 2], limit: f64) {
    let verdict = if ours > limit { "  MISSED" } else { "" };
    let ratio = ours / other;
    println!("{what:38}{ours:12.1}{other:12.1}  {ratio:5.3}{verdict}");
}

/// The medians of each figure that `measure` returns, for each side. The sides alternate.
fn by_turns<const N: usize>(rounds: usize, measure: impl Fn(usize) -> [f64; N]) -> [[f64; 2]; N] {
    let mut figures: [[Vec<f64>; 2]; N] = array::from_fn(|_| Default::default());
    (0..2).for_each(|side| _ = measure(side));
    for round in 0..rounds {
        for side in [round % 2, (round + 1) % 2] {
            let measured = measure(side);
            (0..N).for_each(|n| figures[n][side].push(measured[n]));
        }
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    figures.map(|sides| sides.map(median))
}

fn instructions(side: &str, work: &str, times: usize, origin: &str) -> usize {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(env::current_exe().unwrap());
    command.args(["repeat", side, work, &times.to_string(), origin]);
    let output = command.output().unwrap();
    number(&String::from_utf8_lossy(&output.stderr), "Collected :")
}

/// The number after `name`, or 0.
fn number(text: &str, name: &str) -> usize {
    let rest = text.split(name).nth(1).unwrap_or_default();
    let word = rest.split_whitespace().next().unwrap_or_default();
    word.parse().unwrap_or_default()
}

/// 100 jobs at once. Calls `meanwhile` with the number of responses to their polls.
fn crowd(side: &dyn Side, meanwhile: impl FnOnce(&AtomicUsize)) {
    let (together, responses) = (Barrier::new(JOBS), AtomicUsize::new(0));
    let job = || {
        together.wait();
        side.job(&|| _ = responses.fetch_add(1, SeqCst));
    };
    thread::scope(|scope| {
        for _ in 0..JOBS {
            let thread = thread::Builder::new().stack_size(STACK_KIB * 1024);
            thread.spawn_scoped(scope, job).unwrap();
        }
        meanwhile(&responses);
    });
}

/// In a process of its own: prints by how many KiB 100 waiting jobs make it grow, and how many of
/// these are stacks.
fn wait_together(side: &str, origin: &str) {
    side_of(side, origin, Duration::ZERO).job(&|| {});
    let before = memory_kib("VmRSS:");
    crowd(
        &*side_of(side, origin, Duration::from_secs(2)),
        |responses| {
            // Two polls each: a POST closes idle connections, the second poll comes after all of them.
            while responses.load(SeqCst) < 2 * JOBS {
                thread::sleep(Duration::from_millis(5));
            }
            // The last response's connection goes to the pool, and the threads that resolve names end.
            thread::sleep(Duration::from_millis(300));
            let (stacks, grown) = (stacks_kib(), memory_kib("VmRSS:") - before);
            println!("[{}, {stacks}]", grown - stacks);
            // All still wait while the parent counts the connections, and ends this process.
        },
    );
}

fn memory_kib(name: &str) -> usize {
    number(
        &fs::read_to_string("/proc/self/status").unwrap_or_default(),
        name,
    )
}

/// Resident memory of all stacks of size `STACK_KIB`.
fn stacks_kib() -> usize {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let maps = maps.split("\nSize").skip(1);
    let stacks = maps.filter(|map| (STACK_KIB..=STACK_KIB + 16).contains(&number(map, ":")));
    stacks.map(|map| number(map, "Rss:")).sum()
}

/// This program with other arguments. A server ends when this is dropped: that closes its input.
struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
    first_line: String,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.args(arguments).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let first_line = line(&mut output);
        Process {
            child,
            output,
            first_line,
        }
    }

    /// How many connections a server has.
    fn connections(&mut self) -> f64 {
        self.child.stdin.as_ref().unwrap().write_all(b"\n").unwrap();
        line(&mut self.output).parse().unwrap()
    }
}

fn line(output: &mut impl BufRead) -> String {
    output.lines().next().unwrap().unwrap()
}

// A mock server with fixed responses, and a thread for each connection.

const URL: &str = "https://cdn.aimlapi.com/eagle/files/tiger/R6LdSHLx937-O7ra31ySQ_output.mp4";
const ID: &str = "df43b636-6b09-4b6d-bbd2-f710ac0a3cfd:veo3";
const COMPLETED: &str = r#"{"id": "df43b636-6b09-4b6d-bbd2-f710ac0a3cfd:veo3", "status": "completed", "video": {"url": "https://cdn.aimlapi.com/eagle/files/tiger/R6LdSHLx937-O7ra31ySQ_output.mp4", "content_type": "video/mp4", "file_name": "output.mp4", "file_size": 3716781}, "error": null, "meta": {"usage": {"credits_used": 1050000, "usd_spent": 2.1}}}"#;

static BLOCK: [u8; 256 * 1024] = [b'v'; 256 * 1024];
/// How often each job was polled. Its index is its id.
static POLLS: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    // A line asks for the connections; the end means that the process that started this is gone.
    thread::spawn(|| {
        for _ in io::stdin().lines() {
            println!("{}", CONNECTIONS.load(SeqCst));
        }
        process::exit(0);
    });
    for stream in listener.incoming() {
        thread::spawn(|| {
            CONNECTIONS.fetch_add(1, SeqCst);
            // An error means that the client is gone.
            let _ = serve_connection(&stream.unwrap());
            CONNECTIONS.fetch_sub(1, SeqCst);
        });
    }
}

fn serve_connection(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let host = stream.local_addr()?;
    let mut requests = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if requests.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let length = number(&head.to_ascii_lowercase(), "content-length:") as u64;
        io::copy(&mut requests.by_ref().take(length), &mut io::sink())?;
        let target = head.split(' ').nth(1).unwrap_or_default();
        // So slow that the polls of all jobs happen at once, each on a connection of its own.
        if target.starts_with("/slow") {
            thread::sleep(Duration::from_millis(300));
        }
        let (mut video, mut kind) = (0, JSON);
        let (status, body) = if let Some(size) = target.strip_prefix("/video/") {
            (video, kind) = (size.parse().unwrap(), "video/mp4");
            ("200 OK", String::new())
        } else if let Some((_, id)) = target.split_once("generation_id=") {
            ("200 OK", generation(id, &format!("http://{host}/video/")))
        } else {
            let mut polls = POLLS.lock().unwrap();
            polls.push(0);
            let id = polls.len() - 1;
            (
                "201 Created",
                format!(r#"{{"id": "{id}", "status": "queued"}}"#),
            )
        };
        let length = video + body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length");
        stream.write_all(format!("{head}: {length}\r\n\r\n{body}").as_bytes())?;
        for offset in (0..video).step_by(BLOCK.len()) {
            stream.write_all(&BLOCK[..BLOCK.len().min(video - offset)])?;
        }
    }
}

/// The third response about a job has its video, one about "video-N" a video of N bytes, and one
/// about "live" none.
fn generation(id: &str, videos: &str) -> String {
    if let Some(size) = id.strip_prefix("video-") {
        let completed = COMPLETED.replace(ID, id);
        let completed = completed.replace("3716781", size);
        return completed.replace(URL, &format!("{videos}{size}"));
    }
    let mut polls = POLLS.lock().unwrap();
    let job = id.parse().ok().and_then(|id: usize| polls.get_mut(id));
    match job.map_or(1, |count| std::mem::replace(count, *count + 1)) {
        0 => format!(r#"{{"id": "{id}", "status": "queued"}}"#),
        1 => format!(r#"{{"id": "{id}", "status": "generating"}}"#),
        _ => COMPLETED.replace(ID, id),
    }
}
