//! What this crate adds to bare ureq and serde_json: both do the same work against the same stand-in, by turns, so that
//! the machine's noise falls on both. No network but this machine's own.
//!
//! ```sh
//! cargo bench              # a minute or two
//! cargo bench -- --quick   # a few seconds, rougher
//! ```
//!
//! Instruction counts need `valgrind`, the comparison of downloads `curl`, and figures of memory Linux.

use std::{
    collections::HashMap,
    env,
    fs::{self, File},
    hint::black_box,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use aimlapi_video::{Client, Generation, Polling, VideoRequest};
use serde_json::{Value, json};

const KEY: &str = "sk-bench-0123456789";
const PROMPT: &str = "A menacing evil dragon appears in a distance above the tallest mountain";
const JOBS: usize = 100;
const MIB: u64 = 1024 * 1024;
/// A size that no other mapping of the process has, to know the stacks of the threads by.
const STACK: u64 = 1088 * 1024;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve"] => serve(),
        ["repeat", side, work, count, origin] => repeat(side, work, count.parse().unwrap(), origin),
        ["wait", side, origin] => wait_together(side, origin),
        ["download", side, size, origin] => {
            let path = scratch("alone");
            side_of(side, origin).download(size.parse().unwrap(), &path, &mut || {});
            fs::remove_file(path).unwrap();
            println!("{}", status_kib("VmHWM").unwrap_or_default());
        }
        _ if words.contains(&"--quick") => report(&QUICK),
        _ if words.contains(&"--bench") => report(&FULL),
        // `cargo test` says nothing, and wants to know only that this runs.
        _ => report(&SMOKE),
    }
}

/// How often each thing is done.
struct Scale {
    polls: usize,
    jobs: usize,
    parses: usize,
    crowds: usize,
    downloads: usize,
    size: u64,
    tools: bool,
}

const FULL: Scale = Scale {
    polls: 6000,
    jobs: 2000,
    parses: 400,
    crowds: 40,
    downloads: 9,
    size: 256 * MIB,
    tools: true,
};
const QUICK: Scale = Scale {
    polls: 1000,
    jobs: 300,
    parses: 100,
    crowds: 8,
    downloads: 3,
    size: 256 * MIB,
    tools: true,
};
const SMOKE: Scale = Scale {
    polls: 2,
    jobs: 2,
    parses: 1,
    crowds: 1,
    downloads: 1,
    size: MIB,
    tools: false,
};

/// The same work done in several ways.
trait Side: Sync {
    /// Asks how a generation stands.
    fn poll(&self);
    /// Creates a generation, polls until it is completed, and takes the video's address. Tells of each answer.
    fn job(&self, interval: Duration, answered: &dyn Fn());
    fn parse(&self, answer: &str);
    /// Puts a file of `size` bytes on disk, synced, under its name. Tells when the last byte has been written.
    fn download(&self, size: u64, path: &Path, written: &mut dyn FnMut());
}

struct Sdk {
    client: Client,
    origin: String,
}

impl Side for Sdk {
    fn poll(&self) {
        black_box(self.client.get_video("live").unwrap());
    }

    fn job(&self, interval: Duration, answered: &dyn Fn()) {
        let generation = self
            .client
            .generate_video(&VideoRequest::new(PROMPT))
            .unwrap();
        let polling = Polling::default().interval(interval);
        black_box(
            self.client
                .wait_for_video(&generation.id, &polling, |_| answered())
                .unwrap(),
        );
    }

    fn parse(&self, answer: &str) {
        black_box(answer.parse::<Generation>().unwrap());
    }

    fn download(&self, size: u64, path: &Path, written: &mut dyn FnMut()) {
        let answer = json!({"id": "g", "status": "completed", "video": {"url": video_url(&self.origin, size)}});
        let video = answer
            .to_string()
            .parse::<Generation>()
            .unwrap()
            .video
            .unwrap();
        self.client
            .download_video(&video, path, |done, _| {
                if done == size {
                    written();
                }
            })
            .unwrap();
    }
}

struct Bare {
    agent: ureq::Agent,
    url: String,
    origin: String,
    has_timeouts: bool,
}

/// What a program takes from an answer: the same as `Generation` holds.
struct Answer {
    id: String,
    status: String,
    video: Option<BareVideo>,
    _error: Option<(String, String)>,
    _usage: Option<(Option<f64>, Option<f64>)>,
    _raw: Value,
}

struct BareVideo {
    url: String,
    _content_type: Option<String>,
    _file_name: Option<String>,
    _file_size: Option<u64>,
    _duration: Option<f64>,
}

impl Bare {
    fn new(origin: &str, has_timeouts: bool) -> Self {
        let timeout = |seconds| has_timeouts.then(|| Duration::from_secs(seconds));
        let config = ureq::Agent::config_builder()
            .user_agent("bare-ureq/3.5")
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_resolve(timeout(10))
            .timeout_connect(timeout(20))
            .timeout_per_read(timeout(60))
            .max_idle_connections(128)
            .max_idle_connections_per_host(128)
            .input_buffer_size(16 * 1024)
            .output_buffer_size(16 * 1024)
            .proxy(None);
        Bare {
            agent: config.build().new_agent(),
            url: format!("{origin}/v2/generate/video/google/generation"),
            origin: origin.to_owned(),
            has_timeouts,
        }
    }

    fn timeout(&self, seconds: u64) -> Option<Duration> {
        self.has_timeouts.then(|| Duration::from_secs(seconds))
    }

    fn get(&self, id: &str) -> Answer {
        let mut response = self
            .agent
            .get(&self.url)
            .query("generation_id", id)
            .header("authorization", format!("Bearer {KEY}"))
            .header("content-type", "application/json")
            .config()
            .timeout_global(self.timeout(30))
            .build()
            .call()
            .unwrap();
        assert_eq!(response.status(), 200);
        take(
            &response
                .body_mut()
                .with_config()
                .limit(MIB)
                .read_to_string()
                .unwrap(),
        )
    }
}

fn take(text: &str) -> Answer {
    let raw: Value = serde_json::from_str(text).unwrap();
    let owned = |value: &Value| value.as_str().map(str::to_owned);
    Answer {
        id: owned(&raw["id"]).unwrap(),
        status: owned(&raw["status"]).unwrap(),
        video: owned(&raw["video"]["url"]).map(|url| BareVideo {
            url,
            _content_type: owned(&raw["video"]["content_type"]),
            _file_name: owned(&raw["video"]["file_name"]),
            _file_size: raw["video"]["file_size"].as_u64(),
            _duration: raw["video"]["duration"].as_f64(),
        }),
        _error: owned(&raw["error"]["message"])
            .map(|text| (owned(&raw["error"]["name"]).unwrap_or_default(), text)),
        _usage: raw["meta"]["usage"]
            .as_object()
            .map(|usage| (usage["credits_used"].as_f64(), usage["usd_spent"].as_f64())),
        _raw: raw,
    }
}

impl Side for Bare {
    fn poll(&self) {
        black_box(self.get("live"));
    }

    fn job(&self, interval: Duration, answered: &dyn Fn()) {
        let body = json!({"model": "google/veo3", "prompt": PROMPT}).to_string();
        let mut response = self
            .agent
            .post(&self.url)
            .header("authorization", format!("Bearer {KEY}"))
            .header("content-type", "application/json")
            .config()
            .max_idle_age(Duration::ZERO)
            .timeout_global(self.timeout(120))
            .build()
            .send(&body)
            .unwrap();
        assert_eq!(response.status(), 201);
        let id = take(
            &response
                .body_mut()
                .with_config()
                .limit(MIB)
                .read_to_string()
                .unwrap(),
        )
        .id;
        loop {
            let answer = self.get(&id);
            answered();
            if answer.status == "completed" {
                black_box(answer.video.unwrap().url);
                return;
            }
            thread::sleep(interval);
        }
    }

    fn parse(&self, answer: &str) {
        black_box(take(answer));
    }

    fn download(&self, size: u64, path: &Path, written: &mut dyn FnMut()) {
        let part = path.with_extension("bare");
        let mut file = File::create(&part).unwrap();
        let response = self
            .agent
            .get(video_url(&self.origin, size))
            .config()
            .timeout_per_read(self.timeout(30))
            .timeout_recv_response(self.timeout(30))
            .input_buffer_size(128 * 1024)
            .build()
            .call()
            .unwrap();
        let mut reader = response.into_body().into_reader();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match reader.read(&mut buffer).unwrap() {
                0 => break,
                count => file.write_all(&buffer[..count]).unwrap(),
            }
        }
        written();
        file.sync_all().unwrap();
        fs::rename(&part, path).unwrap();
        File::open(path.parent().unwrap())
            .unwrap()
            .sync_all()
            .unwrap();
    }
}

fn side_of(name: &str, origin: &str) -> Box<dyn Side> {
    match name {
        "sdk" => {
            let client = Client::builder(KEY)
                .base_url(format!("{origin}/v2"))
                .build()
                .unwrap();
            Box::new(Sdk {
                client,
                origin: origin.to_owned(),
            })
        }
        "bare" => Box::new(Bare::new(origin, true)),
        "bare without timeouts" => Box::new(Bare::new(origin, false)),
        other => panic!("no such side: {other}"),
    }
}

fn video_url(origin: &str, size: u64) -> String {
    format!("{origin}/video/{size}")
}

/// A file beside the build, on whatever disk that is.
fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("overhead-{}-{name}.mp4", std::process::id()))
}

fn crowd(side: &dyn Side) {
    let together = Barrier::new(JOBS);
    thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                together.wait();
                side.job(Duration::ZERO, &|| {});
            });
        }
    });
}

// ---- The report

fn report(scale: &Scale) {
    let server = Server::start();
    let sides: Vec<Box<dyn Side>> = ["sdk", "bare", "bare without timeouts"]
        .iter()
        .map(|name| side_of(name, &server.origin))
        .collect();
    println!(
        "aimlapi-video {} beside bare ureq and serde_json, medians of turns\n",
        env!("CARGO_PKG_VERSION")
    );

    println!(
        "{:<44}{:>12}{:>12}{:>8}  target",
        "", "this crate", "bare ureq", "ratio"
    );
    let polls = by_turns(scale.polls, &sides, |side| side.poll());
    line("(a) a poll on a live connection, us", &polls, 1e6, 1.10);
    let jobs = by_turns(scale.jobs, &sides, |side| side.job(Duration::ZERO, &|| {}));
    line(
        "(b) a whole job, one POST and three polls, us",
        &jobs,
        1e6,
        1.10,
    );
    let crowds = by_turns(scale.crowds, &sides[..2], |side| crowd(side));
    line(
        "(d) 100 jobs at once from 100 threads, ms",
        &crowds,
        1e3,
        1.10,
    );
    let parses = by_turns(scale.parses, &sides[..2], |side| {
        (0..1000).for_each(|_| side.parse(COMPLETED))
    });
    line("(e) parsing an answer, ns", &parses, 1e6, 1.10);
    println!(
        "\nWithout any timeout, bare ureq needs {:.1} us for (a) and {:.1} us for (b): with one, it resolves the name\n\
         on a thread of its own for each request, whoever asks it.",
        polls[2] * 1e6,
        jobs[2] * 1e6
    );
    connections(scale.crowds);
    waiting();
    downloads(scale, &server, &sides[..2]);
    if scale.tools {
        instructions(&server);
    }
}

/// The median time of each side, the sides taking turns.
fn by_turns(rounds: usize, sides: &[Box<dyn Side>], work: impl Fn(&dyn Side)) -> Vec<f64> {
    let mut times = vec![Vec::with_capacity(rounds); sides.len()];
    for side in sides {
        work(&**side);
    }
    for round in 0..rounds {
        for turn in 0..sides.len() {
            let turn = (round + turn) % sides.len();
            let start = Instant::now();
            work(&*sides[turn]);
            times[turn].push(start.elapsed().as_secs_f64());
        }
    }
    times.into_iter().map(median).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn line(what: &str, medians: &[f64], unit: f64, target: f64) {
    let (ours, theirs) = (medians[0] * unit, medians[1] * unit);
    println!(
        "{what:<44}{ours:>12.1}{theirs:>12.1}{}",
        against(ours / theirs, target)
    );
}

fn against(ratio: f64, target: f64) -> String {
    format!(
        "{ratio:>8.3}  at most {target:.2}: {}",
        if ratio <= target { "met" } else { "MISSED" }
    )
}

// ---- (d): what a hundred waiting jobs take

fn waiting() {
    println!("\n(d) 100 jobs of one client, all waiting between two polls");
    for (side, name) in [("sdk", "this crate"), ("bare", "bare ureq")] {
        let server = Server::start();
        let (mut process, figures) = child(&["wait", side, &format!("{}/slow", server.origin)]);
        let counts = server.connections();
        process.kill().unwrap();
        process.wait().unwrap();
        let connections = format!(
            "{} connections open, at most {} at once",
            counts.open, counts.most
        );
        let [total, stacks] = figures
            .split_whitespace()
            .map(|n| n.parse().unwrap())
            .collect::<Vec<f64>>()[..]
        else {
            println!("  {name}: {connections}; memory not measured on this system");
            continue;
        };
        let each = (total - stacks) / JOBS as f64;
        let verdict = if each <= 64.0 { "met" } else { "MISSED" };
        println!("  {name}: {connections}; {each:.1} KiB of memory for each");
        println!(
            "    beyond the {:.1} KiB of its stack (at most 64 KiB: {verdict})",
            stacks / JOBS as f64
        );
    }
}

fn connections(rounds: usize) {
    println!(
        "\n(d) connections, {rounds} times 100 jobs at once, each one POST and three polls; no error"
    );
    for (side, name) in [("sdk", "this crate"), ("bare", "bare ureq")] {
        let server = Server::start();
        let side = side_of(side, &server.origin);
        (0..rounds).for_each(|_| crowd(&*side));
        let counts = server.connections();
        let verdict = if counts.most <= JOBS { "met" } else { "MISSED" };
        let made = counts.made as f64 / rounds as f64;
        println!(
            "  {name}: {} open at once (at most {JOBS}: {verdict}); {made:.0} made for 100 jobs",
            counts.most
        );
    }
}

/// In a process of its own: prints by how many KiB 100 waiting jobs make it grow, and how many of these are stacks.
fn wait_together(side: &str, origin: &str) {
    let side = side_of(side, origin);
    side.job(Duration::ZERO, &|| {});
    let before = status_kib("VmRSS");
    let answers = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..JOBS {
            let job = || {
                side.job(Duration::from_secs(2), &|| {
                    answers.fetch_add(1, SeqCst);
                });
            };
            thread::Builder::new()
                .stack_size(STACK as usize)
                .spawn_scoped(scope, job)
                .unwrap();
        }
        // Two polls each: a POST closes idle connections, the second poll comes after all of them.
        while answers.load(SeqCst) < 2 * JOBS {
            thread::sleep(Duration::from_millis(5));
        }
        // The last answer's connection goes back to the pool, and the resolvers' threads end.
        thread::sleep(Duration::from_millis(300));
        match (before, status_kib("VmRSS")) {
            (Some(before), Some(after)) => println!("{} {}", after - before, stacks_kib()),
            _ => println!(),
        }
        // All still wait while the parent counts the connections, and ends this process.
    });
}

fn status_kib(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Resident memory of all stacks of size `STACK`.
fn stacks_kib() -> u64 {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let mut is_stack = false;
    let mut total = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let number = words
            .next()
            .and_then(|word| word.parse::<u64>().ok())
            .unwrap_or_default();
        match name {
            "Size:" => is_stack = (STACK / 1024..=STACK / 1024 + 16).contains(&number),
            "Rss:" if is_stack => total += number,
            _ => {}
        }
    }
    total
}

// ---- (c): downloads

fn downloads(scale: &Scale, server: &Server, sides: &[Box<dyn Side>]) {
    let path = scratch("video");
    let has_curl = scale.tools && Command::new("curl").arg("--version").output().is_ok();
    // Seconds to the last byte, and to the end of the sync: this crate, bare ureq, curl.
    let mut times = vec![(Vec::new(), Vec::new()); 2 + usize::from(has_curl)];
    for round in 0..scale.downloads {
        for turn in 0..times.len() {
            let turn = (round + turn) % times.len();
            let start = Instant::now();
            let mut written = Duration::ZERO;
            match sides.get(turn) {
                Some(side) => side.download(scale.size, &path, &mut || written = start.elapsed()),
                None => {
                    let url = video_url(&server.origin, scale.size);
                    let status = Command::new("curl")
                        .args(["-s", "-f", "-o"])
                        .arg(&path)
                        .arg(url)
                        .status()
                        .unwrap();
                    assert!(status.success(), "curl failed");
                    written = start.elapsed();
                    File::open(&path).unwrap().sync_all().unwrap();
                }
            }
            times[turn].0.push(written.as_secs_f64());
            times[turn].1.push(start.elapsed().as_secs_f64());
            assert_eq!(path.metadata().unwrap().len(), scale.size);
            fs::remove_file(&path).unwrap();
        }
    }
    let medians: Vec<(f64, f64)> = times
        .into_iter()
        .map(|(written, synced)| (median(written), median(synced)))
        .collect();
    println!("\n(c) a download of {} MiB to a file, ms", scale.size / MIB);
    for ((written, synced), name) in
        medians
            .iter()
            .zip(["this crate", "bare ureq", "curl, then a sync"])
    {
        let sync = (synced - written) * 1e3;
        println!(
            "  {name:<18} {:>8.1}, of these {sync:.1} for the sync to disk",
            synced * 1e3
        );
    }
    let (ours, bare) = (medians[0], medians[1]);
    println!(
        "  beside bare ureq:               {}",
        against(ours.1 / bare.1, 1.05)
    );
    match medians.get(2) {
        Some(curl) => {
            println!(
                "  beside curl and a sync:         {}",
                against(ours.1 / curl.1, 1.05)
            );
            println!(
                "  beside curl, both without sync: {}",
                against(ours.0 / curl.0, 1.05)
            );
            println!(
                "  beside curl, which has no sync: {}",
                against(ours.1 / curl.0, 1.05)
            );
            println!(
                "    (what is more there is the sync: without it a power cut could leave a file that is not whole)"
            );
        }
        None if scale.tools => println!("  curl is missing: not compared with it"),
        None => {}
    }
    let peak = |size: u64| {
        let (mut process, figure) = child(&["download", "sdk", &size.to_string(), &server.origin]);
        process.wait().unwrap();
        figure.trim().parse::<i64>().unwrap()
    };
    let (small, large) = (peak(MIB), peak(scale.size));
    match large {
        0 => println!("  peak memory: not measured on this system"),
        _ => println!(
            "  peak memory: {small} KiB for 1 MiB, {large} KiB for {} MiB (at most 2048 KiB more: {})",
            scale.size / MIB,
            if large - small <= 2048 {
                "met"
            } else {
                "MISSED"
            }
        ),
    }
}

// ---- Instruction counts

fn instructions(server: &Server) {
    println!();
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("valgrind is missing: no instruction counts");
        return;
    }
    println!(
        "{:<44}{:>12}{:>12}{:>8}  target",
        "instructions of the client", "this crate", "bare ureq", "ratio"
    );
    for (what, work, warm_up, count) in [
        ("(a) a poll on a live connection", "poll", 5, 100),
        ("(b) a whole job, one POST and three polls", "job", 2, 30),
        ("(d) 100 jobs at once from 100 threads", "crowd", 1, 2),
        ("(e) parsing an answer", "parse", 5, 500),
    ] {
        let each = |side: &str| {
            let all =
                |times: u64| callgrind(&["repeat", side, work, &times.to_string(), &server.origin]);
            (all(warm_up + count) - all(warm_up)) / count as f64
        };
        let (ours, theirs) = (each("sdk"), each("bare"));
        println!(
            "{what:<44}{ours:>12.0}{theirs:>12.0}{}",
            against(ours / theirs, 1.15)
        );
    }
}

fn repeat(side: &str, work: &str, count: usize, origin: &str) {
    let side = side_of(side, origin);
    for _ in 0..count {
        match work {
            "poll" => side.poll(),
            "job" => side.job(Duration::ZERO, &|| {}),
            "crowd" => crowd(&*side),
            _ => side.parse(COMPLETED),
        }
    }
}

fn callgrind(arguments: &[&str]) -> f64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().unwrap())
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, n)| n.trim().parse().ok());
    count.unwrap_or_else(|| panic!("no count from valgrind: {text}"))
}

/// This program with these arguments, while it may still be running, and the first line that it prints.
fn child(arguments: &[&str]) -> (Child, String) {
    let mut process = Command::new(env::current_exe().unwrap())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    (process, line)
}

// ---- The stand-in: fixed answers, a thread for each connection, in a process of its own

const COMPLETED: &str = r#"{"id": "df43b636-6b09-4b6d-bbd2-f710ac0a3cfd:veo3", "status": "completed", "video": {"url": "https://cdn.aimlapi.com/eagle/files/tiger/R6LdSHLx937-O7ra31ySQ_output.mp4", "content_type": "video/mp4", "file_name": "output.mp4", "file_size": 3716781}, "error": null, "meta": {"usage": {"credits_used": 1050000, "usd_spent": 2.1}}}"#;

struct Server {
    process: Child,
    origin: String,
}

impl Server {
    fn start() -> Self {
        let (process, origin) = child(&["serve"]);
        Server {
            process,
            origin: origin.trim().to_owned(),
        }
    }

    fn ask(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.origin.trim_start_matches("http://")).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// Not counting the connection that asks.
    fn connections(&self) -> Counts {
        let counts: Vec<usize> = serde_json::from_str(&self.ask("/connections")).unwrap();
        Counts {
            open: counts[0],
            most: counts[1],
            made: counts[2],
        }
    }
}

/// Connections: open now, open at once at most, made in all.
struct Counts {
    open: usize,
    most: usize,
    made: usize,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Default)]
struct State {
    ids: AtomicUsize,
    polls: Mutex<HashMap<String, usize>>,
    open: AtomicUsize,
    most: AtomicUsize,
    made: AtomicUsize,
}

fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    // Ends with the process that started it.
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let state = Arc::new(State::default());
    for stream in listener.incoming() {
        let (stream, state) = (stream.unwrap(), Arc::clone(&state));
        thread::spawn(move || {
            let mut counted = false;
            // An error means that the client is gone.
            let _ = serve_connection(stream, &state, &mut counted);
            state.open.fetch_sub(usize::from(counted), SeqCst);
        });
    }
}

fn serve_connection(mut stream: TcpStream, state: &State, counted: &mut bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let count = |number: &AtomicUsize| number.load(SeqCst);
    let mut bytes = vec![0; 16 * 1024];
    let mut filled = 0;
    loop {
        let Some((head, length)) = whole_request(&bytes[..filled]) else {
            match stream.read(&mut bytes[filled..])? {
                0 => return Ok(()),
                count => filled += count,
            }
            continue;
        };
        let target = head.split(' ').nth(1).unwrap_or_default();
        if !*counted && target != "/connections" {
            *counted = true;
            state
                .most
                .fetch_max(state.open.fetch_add(1, SeqCst) + 1, SeqCst);
            state.made.fetch_add(1, SeqCst);
        }
        // So slow that the polls of all jobs are under way at once, each on a connection of its own.
        if target.starts_with("/slow") {
            thread::sleep(Duration::from_millis(300));
        }
        let (status, body) = match target.split_once("generation_id=") {
            _ if head.starts_with("POST") => (
                201,
                format!(
                    r#"{{"id": "bench-{}", "status": "queued"}}"#,
                    state.ids.fetch_add(1, SeqCst)
                ),
            ),
            Some((_, "live")) => (200, r#"{"id": "live", "status": "generating"}"#.to_owned()),
            Some((_, id)) => (200, state.poll(id)),
            None => match target.rsplit_once('/') {
                Some(("/video", size)) => {
                    send_video(&mut stream, size.parse().unwrap())?;
                    (0, String::new())
                }
                _ => (
                    200,
                    format!(
                        "[{}, {}, {}]",
                        count(&state.open),
                        count(&state.most),
                        count(&state.made)
                    ),
                ),
            },
        };
        if status > 0 {
            let length = body.len();
            let kind = "Content-Type: application/json";
            stream.write_all(
                format!("HTTP/1.1 {status} OK\r\n{kind}\r\nContent-Length: {length}\r\n\r\n{body}")
                    .as_bytes(),
            )?;
        }
        if head.contains("Connection: close") {
            return Ok(());
        }
        bytes.copy_within(length..filled, 0);
        filled -= length;
    }
}

/// The head of the first request, and the length of all of it.
fn whole_request(bytes: &[u8]) -> Option<(String, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find_map(|(name, value)| {
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse::<usize>().ok())
                .flatten()
        });
    let end = end + length.unwrap_or(0);
    (bytes.len() >= end).then_some((head, end))
}

impl State {
    fn poll(&self, id: &str) -> String {
        let mut polls = self.polls.lock().unwrap();
        let count = polls.entry(id.to_owned()).or_default();
        *count += 1;
        match count {
            1 => format!(r#"{{"id": "{id}", "status": "queued"}}"#),
            2 => format!(r#"{{"id": "{id}", "status": "generating"}}"#),
            _ => {
                polls.remove(id);
                COMPLETED.to_owned()
            }
        }
    }
}

fn send_video(stream: &mut TcpStream, size: u64) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: {size}\r\n\r\n"
    )?;
    // One box of an MP4 file.
    let header = [&(size as u32).to_be_bytes()[..], b"ftyp"].concat();
    stream.write_all(&header)?;
    let block = vec![b'v'; 256 * 1024];
    let mut left = size as usize - header.len();
    while left > 0 {
        let count = left.min(block.len());
        stream.write_all(&block[..count])?;
        left -= count;
    }
    Ok(())
}
