//! Each example prints what its header shows, without a pause of real polling: its simulator
//! completes at the first poll, or it is killed when it starts to wait.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::{fs, net::TcpListener, path::Path};

use aimlapi_video::simulator::{CLIP, Poll, Post, Received, Simulator};
use aimlapi_video::{Client, VideoRequest};
use serde_json::{Value, json};

use crate::support::{Folder, cells, example, stderr, stdout};

const NO_KEY: &str = "no API key: set AIMLAPI_KEY (or AIML_API_KEY, or AIMLAPI_API_KEY) to your \
                      AI/ML API key; nothing was sent\n";
const ID: &str = "51a00000-0000-4000-8000-000000000000:veo3";

/// A simulator that completes at the first poll, before any pause.
fn prompt_simulator() -> Simulator {
    let simulator = Simulator::start().unwrap();
    simulator.script_polls([Poll::Complete]);
    simulator
}

/// The example, set to use this base URL.
fn example_at(name: &str, base_url: &str) -> Command {
    let mut command = example(name);
    command.env("AIMLAPI_KEY", Simulator::KEY);
    command.env("AIMLAPI_BASE_URL", base_url);
    command
}

/// What a run at this simulator ends with.
fn run_at(name: &str, simulator: &Simulator) -> (i32, String, String) {
    run(&mut example_at(name, &simulator.base_url()))
}

/// Exit code, stdout and stderr.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let code = output.status.code().unwrap();
    (code, stdout(&output), stderr(&output))
}

fn succeeded(stdout: impl Into<String>) -> (i32, String, String) {
    (0, stdout.into(), String::new())
}

fn posted(simulator: &Simulator) -> Vec<Value> {
    let received = simulator.received();
    let posts = received.iter().filter(|request| request.method == "POST");
    let body = |post: &Received| serde_json::from_str(&post.body).unwrap();
    posts.map(body).collect()
}

/// The n-th output in the header of an example, without the lines of a generation in progress, and
/// with this base URL's host.
fn header(name: &str, n: usize, base_url: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.rs"));
    let source = fs::read_to_string(path).unwrap();
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let lines = lines.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)));
    let text: String = lines.collect();
    let block = text.split("```text\n").nth(n + 1).unwrap();
    let block = block.split("```\n").next().unwrap();
    let origin = base_url.trim_end_matches("/v2");
    finished(&block.replace("http://127.0.0.1:41231", origin))
}

/// Without the lines of a generation in progress.
fn finished(text: &str) -> String {
    let waiting = "Still waiting... Checking again in 10 seconds.";
    let in_progress = ["Status: queued", "Status: generating", waiting];
    let is_other = |line: &&str| !in_progress.contains(&line.trim_end());
    text.split_inclusive('\n').filter(is_other).collect()
}

/// An example that runs until it is killed.
struct Running(Child, BufReader<ChildStdout>);

impl Running {
    fn start(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Running(child, stdout)
    }

    fn lines<const N: usize>(&mut self) -> [String; N] {
        std::array::from_fn(|_| {
            let mut line = String::new();
            self.1.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        })
    }

    /// Kills it, and returns its stderr.
    fn kill(mut self) -> String {
        self.0.kill().unwrap();
        let mut stderr = String::new();
        let mut pipe = self.0.stderr.take().unwrap();
        pipe.read_to_string(&mut stderr).unwrap();
        stderr
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn generate_video_does_what_the_python_program_does() {
    let simulator = prompt_simulator();
    let output = run_at("generate_video", &simulator);
    let response = simulator.client().get_video(ID).unwrap().raw.to_string();
    let shown = header("generate_video", 0, &simulator.base_url());
    let (start, _) = shown.split_once('{').unwrap();
    assert_eq!(output, succeeded(format!("{start}{response}\n")));
    let prompt = "\nA menacing evil dragon appears in a distance above the tallest mountain, then \
                  rushes toward the camera with its jaws open, revealing massive fangs. We see \
                  it's coming.\n";
    let body = json!({"model": "google/veo3", "prompt": prompt});
    assert_eq!(posted(&simulator), [body]);
}

#[test]
fn generate_video_waits_ten_seconds_between_polls_with_a_key_and_without() {
    let simulator = Simulator::start().unwrap();
    let with_key = example_at("generate_video", &simulator.base_url());
    let is_simulator =
        "AIMLAPI_KEY is not set: this is a simulator. Nothing is generated or charged.\n";
    for (mut command, stderr) in [(with_key, ""), (example("generate_video"), is_simulator)] {
        let mut program = Running::start(&mut command);
        let [id, status, waiting] = program.lines();
        assert_eq!(id, format!("Gen_ID:  {ID}"));
        assert_eq!(status, "Status: queued");
        assert_eq!(waiting, "Still waiting... Checking again in 10 seconds.");
        assert_eq!(program.kill(), stderr);
    }
}

#[test]
fn a_failure_is_printed_once_with_the_host_and_the_likely_slip() {
    let simulator = Simulator::start().unwrap();
    let url = simulator.base_url();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let unreachable = format!("http://{}/v2", closed.local_addr().unwrap());
    drop(closed);
    let [key, another] = [Simulator::KEY, "another-key"];
    let table = "
        Error: 127.0.0.1 responded with status 404 | check the base URL, which ends in /v2, and the endpoint
        Error: 127.0.0.1 responded with status 401 | check the API key, and that the base URL is the one it belongs to
        Error: no response from 127.0.0.1          | this request charged nothing. Check the network and the base URL; calling again is safe";
    let urls = [url.replace("/v2", ""), url.clone(), unreachable];
    let settings = urls.into_iter().zip([key, another, key]);
    for ((base_url, key), row) in settings.zip(table.trim_start().lines()) {
        let [what, slip] = cells(row);
        let mut command = example_at("generate_video", &base_url);
        let (code, stdout, stderr) = run(command.env("AIMLAPI_KEY", key));
        assert_eq!((code, stdout.as_str()), (1, ""));
        let (what, slip) = (format!("{what}: "), format!("; {slip}\n"));
        assert!(stderr.starts_with(&what), "{stderr}");
        assert!(stderr.ends_with(&slip), "{stderr}");
    }
    simulator.script_polls([Poll::fail("SafetyError", "No dragons.")]);
    let (code, _, stderr) = run_at("generate_video", &simulator);
    let expected = format!(
        "Error: generation {ID} ended without a video (status error): SafetyError: No dragons; \
         the vendor does not charge failed generations\n"
    );
    assert_eq!((code, stderr), (1, expected));
}

#[test]
fn by_hand_waits_in_a_loop_of_its_own() {
    let simulator = prompt_simulator();
    let shown = header("by_hand", 0, &simulator.base_url());
    assert_eq!(run_at("by_hand", &simulator), succeeded(shown));

    simulator.script_polls([Poll::Reject(503)]);
    let mut program = Running::start(&mut example_at("by_hand", &simulator.base_url()));
    let [_id] = program.lines();
    // A transient failure: it sleeps, and asks again.
    let is_poll = |request: &&Received| request.method == "GET";
    while simulator.received().iter().filter(is_poll).count() < 2 {
        assert!(program.0.try_wait().unwrap().is_none());
    }
    assert!(program.0.try_wait().unwrap().is_none());
}

#[test]
fn save_video_pays_once_and_then_needs_neither_key_nor_network() {
    let folder = Folder::new();
    let save = |mut command: Command| {
        let command = command.args(["A paper boat", "boat.mp4"]);
        run(command.current_dir(&folder))
    };
    let no_key = (1, String::new(), NO_KEY.to_owned());
    assert_eq!(save(example("save_video")), no_key);
    assert_eq!(folder.names(), [""; 0]);

    // Killed while it waits, it continues.
    let simulator = Simulator::start().unwrap();
    let mut command = example_at("save_video", &simulator.base_url());
    let command = command.args(["A paper boat", "boat.mp4"]);
    let mut program = Running::start(command.current_dir(&folder));
    let [id, _, _] = program.lines();
    assert_eq!(id, format!("Generation {ID}"));
    program.kill();
    simulator.client().wait_for_video(ID, |_| {}).unwrap();

    let (code, stdout, stderr) = save(example_at("save_video", &simulator.base_url()));
    let expected = header("save_video", 0, &simulator.base_url());
    assert_eq!((code, stdout, stderr), succeeded(expected));
    assert_eq!(fs::read(folder.path("boat.mp4")).unwrap(), CLIP);
    assert_eq!(folder.names(), ["boat.mp4", "boat.mp4.receipt.json"]);
    let body = json!({"model": "google/veo3", "prompt": "A paper boat"});
    assert_eq!(posted(&simulator), [body]);

    let again = succeeded(header("save_video", 1, &simulator.base_url()));
    drop(simulator);
    assert_eq!(save(example("save_video")), again);
}

#[test]
fn resume_finishes_a_generation_by_its_id() {
    let folder = Folder::new();
    let simulator = prompt_simulator();
    let request = VideoRequest::new("A dragon");
    let id = simulator.client().generate_video(&request).unwrap().id;
    let resume = |arguments: &[&str]| {
        let mut command = example_at("resume", &simulator.base_url());
        run(command.args(arguments).current_dir(&folder))
    };
    let shown = header("resume", 0, &simulator.base_url());
    assert_eq!(resume(&[&id, "dragon.mp4"]), succeeded(shown.as_str()));
    assert_eq!(fs::read(folder.path("dragon.mp4")).unwrap(), CLIP);
    assert_eq!(folder.names(), ["dragon.mp4"]);
    let without_file = shown.replace("dragon.mp4 is saved.\n", "");
    assert_eq!(resume(&[&id]), succeeded(without_file));
    assert_eq!(simulator.charged(), 1);

    let (code, stdout, stderr) = resume(&["gen:2"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("generation gen:2: "), "{stderr}");
}

#[test]
fn image_to_video_takes_a_file_or_a_url() {
    let folder = Folder::new();
    let simulator = prompt_simulator();
    let make = |image: &str, file: &str| {
        let mut command = example_at("image_to_video", &simulator.base_url());
        let command = command.args([image, "The cat yawns", file]);
        let (code, stdout, stderr) = run(command.current_dir(&folder));
        (code, finished(&stdout), stderr)
    };
    fs::write(folder.path("cat"), b"\x89PNG\r\n\x1a\nand so on").unwrap();
    let url = "https://example.com/cat.jpg";
    let saved = header("image_to_video", 0, &simulator.base_url());
    assert_eq!(make("cat", "cat.mp4"), succeeded(saved.as_str()));
    let saved = saved.replace("cat.mp4", "url.mp4");
    assert_eq!(make(url, "url.mp4"), succeeded(saved));
    let again = header("image_to_video", 1, &simulator.base_url());
    assert_eq!(make("cat", "cat.mp4"), succeeded(again));
    let data = "data:image/png;base64,iVBORw0KGgphbmQgc28gb24=";
    let [model, prompt] = ["google/veo-3.0-i2v", "The cat yawns"];
    let body = |url| json!({"model": model, "prompt": prompt, "image_url": url});
    assert_eq!(posted(&simulator), [data, url].map(body));

    let (code, stdout, stderr) = make("dog.jpg", "dog.mp4");
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("image dog.jpg: "), "{stderr}");
    assert!(stderr.ends_with("; nothing was sent\n"), "{stderr}");
}

#[test]
fn batch_pays_once_for_each_prompt_however_the_others_end() {
    let folder = Folder::new();
    let simulator = prompt_simulator();
    let batch = |mut command: Command| {
        let fox = ["A fox in the snow", "A fox, in the snow"];
        command.args(["clips", "A paper boat on a river"]).args(fox);
        run(command.arg(fox[0]).current_dir(&folder))
    };
    let no_key = (1, String::new(), NO_KEY.to_owned());
    assert_eq!(batch(example("batch")), no_key);

    // One of the three, whichever comes first.
    simulator.script_posts([Post::Reject(403)]);
    let (code, stdout, stderr) = batch(example_at("batch", &simulator.base_url()));
    assert_eq!(code, 1);
    let end = "\n2 saved, 0 there already, 1 failed.\nThose saved cost 0.12 USD.\n";
    assert!(stdout.ends_with(end), "{stdout}");
    assert_eq!(stderr.lines().count(), 1);
    let reason = ".mp4: 127.0.0.1 responded with status 403: ";
    assert!(stderr.contains(reason), "{stderr}");
    let widest = stdout.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(60), "{stdout}");

    // Again: the failed one was not charged. The others are not sent again.
    let (code, stdout, stderr) = batch(example_at("batch", &simulator.base_url()));
    assert_eq!((code, stderr.as_str()), (0, ""));
    let end = "\n1 saved, 2 there already, 0 failed.\nThose saved cost 0.06 USD.\n";
    assert!(stdout.ends_with(end), "{stdout}");
    assert_eq!((posted(&simulator).len(), simulator.charged()), (4, 3));
    drop(simulator);
    let done = succeeded("0 saved, 3 there already, 0 failed.\n");
    assert_eq!(batch(example("batch")), done);

    // As the header shows them.
    let shown = header("batch", 0, "");
    for line in shown.lines().filter(|line| line.starts_with("saved")) {
        let name = line.rsplit("  ").next().unwrap();
        let clip = fs::read(folder.path("clips").join(name));
        assert_eq!(clip.unwrap(), CLIP);
    }
    assert!(shown.contains("saved  0.06 USD  a-fox-in-the-snow-6411b90e.mp4\n"));
}

#[test]
fn simulator_serves_a_program_that_sets_what_it_prints() {
    let mut program = Running::start(&mut example("simulator"));
    let lines: [String; 5] = program.lines();
    let base_url = lines[0].strip_prefix("export AIMLAPI_BASE_URL=").unwrap();
    let key = lines[1].strip_prefix("export AIMLAPI_KEY=").unwrap();
    let client = Client::builder(key).base_url(base_url).build().unwrap();
    let generation = client.generate_video(&VideoRequest::new("A fox")).unwrap();
    assert_eq!(generation.id, ID);

    let shown = header("simulator", 0, base_url);
    assert_eq!(format!("{}\n", lines.join("\n")), shown);

    let port = base_url.trim_start_matches("http://127.0.0.1:");
    let port = port.trim_end_matches("/v2");
    let (code, stdout, stderr) = run(example("simulator").arg(port));
    assert_eq!((code, stdout.as_str()), (1, ""));
    let start = format!("port {port} of 127.0.0.1: ");
    assert!(stderr.starts_with(&start), "{stderr}");
}
