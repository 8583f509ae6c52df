//! What this crate adds to bare ureq and serde_json: both do the same work with the same server on
//! loopback and alternate, so that what else the machine does slows both. Figures are medians.
//!
//! ```sh
//! cargo bench              # some minutes
//! cargo bench -- --quick   # about a minute, rougher
//! ```
//!
//! Instructions need valgrind, the third column of downloads curl; what is missing is left out.
//! Memory is read from `/proc`: outside Linux it is shown as 0.

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
#[allow(dead_code, unreachable_pub)]
mod generation;

const KEY: &str = "sk-bench-0123456789";
const PROMPT: &str = "A menacing evil dragon appears in a distance above the tallest mountain";
const SIDES: [&str; 3] = ["this crate", "bare ureq", "bare ureq without timeouts"];
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
    fn parse(&self, json: &str);
    /// Polls once, and saves the video: synced, and under its name. Returns when its last byte was
    /// written.
    fn download(&self, size: usize) -> Instant;
}

impl Side for Client {
    fn poll(&self) {
        black_box(self.get_video("live").unwrap());
    }

    fn job(&self, on_response: &dyn Fn()) {
        let generation = self.generate_video(&VideoRequest::new(PROMPT)).unwrap();
        let video = self.wait_for_video(&generation.id, |_| on_response());
        black_box(video.unwrap());
    }

    fn parse(&self, json: &str) {
        let json = serde_json::from_str(json).unwrap();
        black_box(generation::Generation::new(json, None, &|_| None).unwrap());
    }

    fn download(&self, size: usize) -> Instant {
        let generation = self.get_video(&format!("video-{size}")).unwrap();
        let (video, mut written) = (generation.video.unwrap(), Instant::now());
        let saved = self.download_video(&video, VIDEO, |_, _| written = Instant::now());
        saved.map(|()| written).unwrap()
    }
}

struct Bare {
    agent: ureq::Agent,
    url: String,
    timeout: fn(u64) -> Option<Duration>,
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
        let config = request.header("content-type", JSON).config();
        let request = config.timeout_global((self.timeout)(30)).build();
        read_json(request.call().unwrap())
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
        let config = config.timeout_global((self.timeout)(120));
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

    fn parse(&self, json: &str) {
        black_box(parse_json(json));
    }

    fn download(&self, size: usize) -> Instant {
        let ([_, _, url, ..], ..) = self.get(&format!("video-{size}"));
        let part = concat!(env!("CARGO_TARGET_TMPDIR"), "/overhead.part");
        let mut file = File::create(part).unwrap();
        let config = self.agent.get(url.unwrap()).config();
        let config = config.timeout_global((self.timeout)(3600));
        let config = config.timeout_per_read((self.timeout)(30));
        let config = config.timeout_recv_response((self.timeout)(30));
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
        return Box::new(client.poll_interval(poll_interval).build().unwrap());
    }
    let some = |seconds| Some(Duration::from_secs(seconds));
    let timeout = if name == SIDES[1] { some } else { |_| None };
    let config = ureq::Agent::config_builder()
        .user_agent("bare-ureq/3.5")
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_resolve(timeout(10))
        .timeout_connect(timeout(20))
        .max_idle_connections(128)
        .max_idle_connections_per_host(128)
        .input_buffer_size(16 * 1024)
        .output_buffer_size(16 * 1024)
        .proxy(None);
    Box::new(Bare {
        agent: config.build().new_agent(),
        url: format!("{origin}/v2/generate/video/google/generation"),
        timeout,
        poll_interval,
    })
}

fn do_work(side: &dyn Side, work: &str) {
    match work {
        "poll" => side.poll(),
        "job" => side.job(&|| {}),
        "crowd" => crowd(side, |_| {}),
        "parse" => (0..1000).for_each(|_| side.parse(COMPLETED)),
        size => {
            side.download(size.parse().unwrap());
            fs::remove_file(VIDEO).unwrap();
        }
    }
}

/// Measures everything `divisor` times less often than the full report does.
fn report(divisor: usize) {
    let times = |count: usize| (count / divisor).max(1);
    let server = Process::start(&["serve"]);
    let origin = &server.first_line;
    let sides = SIDES.map(|side| side_of(side, origin, Duration::ZERO));
    let is_installed = |tool| Command::new(tool).arg("--version").output().is_ok();
    println!(
        "\n{:>88}",
        "this crate   bare ureq  ratio       third  ratio"
    );

    println!("\nOne client (third: bare ureq without timeouts)");
    for (work, what, unit, rounds, repeats) in [
        ("poll", "poll, live connection, µs", 1e6, 6000, 100),
        ("job", "job: POST, three polls, µs", 1e6, 2000, 30),
        ("crowd", "100 jobs, 100 threads, ms", 1e3, 40, 2),
        ("parse", "parsing 1,000 responses, ms", 1e3, 400, 5),
    ] {
        let [medians] = by_turns(times(rounds), sides.len(), |side| {
            let start = Instant::now();
            do_work(&*sides[side], work);
            [start.elapsed().as_secs_f64() * unit]
        });
        row(what, &medians, medians[1] * 1.10);
        if is_installed("valgrind") {
            let counts = [SIDES[0], SIDES[1]].map(|side| {
                let count = |times: usize| instructions(side, work, times, origin);
                // Not counting what only the first ones do.
                (count(repeats + 5) - count(5)) as f64 / repeats as f64
            });
            row("    instructions", &counts, counts[1] * 1.10);
        }
    }

    let size = 256 * MIB;
    println!("\n256 MiB to a file (third: curl)");
    let ways = 2 + usize::from(is_installed("curl"));
    let [written, synced] = by_turns(times(9).max(3), ways, |way| {
        let start = Instant::now();
        let written = match way {
            2 => curl(&format!("{origin}/video/{size}")),
            side => sides[side].download(size),
        };
        let times = [written - start, start.elapsed()];
        assert_eq!(fs::metadata(VIDEO).unwrap().len(), size as u64);
        fs::remove_file(VIDEO).unwrap();
        times.map(|time| time.as_secs_f64() * 1e3)
    });
    row("to the last byte, ms", &written, written[1] * 1.10);
    row("and synced to disk, ms", &synced, synced[1] * 1.10);
    let [small, large] = by_turns(times(3), 2, |side| {
        [MIB, size].map(|size| {
            let arguments = ["repeat", SIDES[side], &size.to_string(), "1", origin];
            Process::start(&arguments).first_line.parse().unwrap()
        })
    });
    row("peak memory for 1 MiB, KiB", &small, 5.0 * 1024.0);
    row("peak memory for 256 MiB, KiB", &large, small[0] + 2048.0);

    println!("\n100 jobs from 100 threads");
    let [most, made, open, memory, stack] = by_turns(times(3), 2, |side| {
        let mut server = Process::start(&["serve"]);
        let client = side_of(SIDES[side], &server.first_line, Duration::ZERO);
        (0..20).for_each(|_| do_work(&*client, "crowd"));
        let [_, most, made] = server.connections();
        let mut server = Process::start(&["serve"]);
        let origin = format!("{}/slow", server.first_line);
        let mut waiting = Process::start(&["wait", SIDES[side], &origin]);
        let [open, ..] = server.connections();
        waiting.child.kill().unwrap();
        let [kib, stacks]: [f64; 2] = serde_json::from_str(&waiting.first_line).unwrap();
        let jobs = JOBS as f64;
        [most, made / 20.0, open, kib / jobs, stacks / jobs]
    });
    row("at once: connections open, at most", &most, JOBS as f64);
    row("at once: connections made", &made, f64::MAX);
    row("between two polls: connections open", &open, JOBS as f64);
    row("memory of each beyond its stack, KiB", &memory, 64.0);
    row("its stack, KiB", &stack, f64::MAX);
}

/// Prints figures, and the ratios of the first one, which is this crate's, to the others.
fn row(what: &str, figures: &[f64], limit: f64) {
    print!("{what:38}{:12.1}", figures[0]);
    for other in &figures[1..] {
        print!("{other:12.1}  {:5.3}", figures[0] / other);
    }
    println!("{}", ["", "  MISSED"][usize::from(figures[0] > limit)]);
}

/// The medians of each figure that `measure` returns, for each way. The ways alternate.
fn by_turns<const N: usize>(
    rounds: usize,
    ways: usize,
    measure: impl Fn(usize) -> [f64; N],
) -> [Vec<f64>; N] {
    let mut figures: [Vec<Vec<f64>>; N] = array::from_fn(|_| vec![Vec::new(); ways]);
    (0..ways).for_each(|way| _ = measure(way));
    for round in 0..rounds {
        for way in (0..ways).map(|way| (round + way) % ways) {
            let measured = measure(way);
            (0..N).for_each(|n| figures[n][way].push(measured[n]));
        }
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    figures.map(|ways| ways.into_iter().map(median).collect())
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

fn curl(url: &str) -> Instant {
    let mut command = Command::new("curl");
    let status = command.args(["-s", "-f", "-o", VIDEO, url]).status();
    assert!(status.unwrap().success(), "curl failed");
    let written = Instant::now();
    File::open(VIDEO).unwrap().sync_all().unwrap();
    written
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

    /// Of a server, the connections: open now, at most at once, made in all.
    fn connections(&mut self) -> [f64; 3] {
        self.child.stdin.as_ref().unwrap().write_all(b"\n").unwrap();
        serde_json::from_str(&line(&mut self.output)).unwrap()
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
/// Open now, at most at once, made in all.
static CONNECTIONS: Mutex<[usize; 3]> = Mutex::new([0; 3]);

fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    // A line asks for the connections; the end means that the process that started this is gone.
    thread::spawn(|| {
        for _ in io::stdin().lines() {
            println!("{:?}", CONNECTIONS.lock().unwrap());
        }
        process::exit(0);
    });
    for stream in listener.incoming() {
        thread::spawn(|| {
            let stream = stream.unwrap();
            // Counted with its first request: by then, the ends of others have been seen.
            let _ = stream.peek(&mut [0]);
            let mut counts = CONNECTIONS.lock().unwrap();
            let open = counts[0] + 1;
            *counts = [open, counts[1].max(open), counts[2] + 1];
            drop(counts);
            // An error means that the client is gone.
            let _ = serve_connection(&stream);
            CONNECTIONS.lock().unwrap()[0] -= 1;
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
