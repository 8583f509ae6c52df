//! Each lesson prints what its header shows, without a pause of real polling: its server completes at
//! the first poll, or it is killed when it starts to wait.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::{ffi::OsStr, fs, path::Path};

use aimlapi_video::simulator::{CLIP, Poll, Post, Received, Simulator};
use aimlapi_video::{Client, VideoRequest};
use serde_json::{Value, json};

use crate::service::{Service, say, video};
use crate::simulator::{Api, CREATE};
use crate::support::{Folder, Request, Server, cells, example, queued, refusal, stderr, stdout};

/// The lessons that take arguments, with some that each understands.
const COMMANDS: [(&str, &[&str]); 4] = [
    ("save_video", &BOAT),
    ("image_to_video", &CAT),
    ("batch", &["clips", "A fox in the snow"]),
    ("resume", &["gen:1", "dragon.mp4"]),
];

const CAT: [&str; 3] = ["https://example.com/cat.jpg", "The cat yawns", "cat.mp4"];
const BOAT: [&str; 2] = ["A paper boat on a river", "boat.mp4"];

/// The folder of some lessons, and a simulator that completes at the first poll, before any pause.
struct Desk {
    simulator: Simulator,
    folder: Folder,
}

impl Desk {
    fn new() -> Self {
        let (simulator, folder) = (Simulator::start().unwrap(), Folder::new());
        simulator.script_polls([Poll::Complete]);
        Desk { simulator, folder }
    }

    fn lesson(&self, name: &str) -> Command {
        lesson(name, self.simulator.base_url(), &self.folder)
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Outcome {
        let (code, stdout, stderr) = run(self.lesson(name).args(arguments));
        (code, plain(&stdout), stderr)
    }

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.path(name)).unwrap()
    }

    /// The bodies of the POSTs.
    fn posted(&self) -> Vec<Value> {
        let received = self.simulator.received().into_iter();
        let posts = received.filter(|request| request.method == "POST");
        let body = |post: Received| serde_json::from_str(&post.body).unwrap();
        posts.map(body).collect()
    }
}

/// A lesson, with a base URL.
fn lesson(name: &str, base_url: impl AsRef<OsStr>, folder: &Folder) -> Command {
    let mut command = example(name);
    command.env("AIMLAPI_KEY", Simulator::KEY);
    command.env("AIMLAPI_BASE_URL", base_url);
    command.current_dir(folder);
    command
}

/// Exit code, stdout and stderr.
type Outcome = (i32, String, String);

fn run(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    let code = output.status.code().unwrap();
    (code, stdout(&output), stderr(&output))
}

fn succeeded(stdout: impl Into<String>) -> Outcome {
    (0, stdout.into(), String::new())
}

fn failed(stderr: impl Into<String>) -> Outcome {
    (1, String::new(), stderr.into())
}

/// The n-th output in the header of a lesson.
fn header(name: &str, n: usize) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.rs"));
    let source = fs::read_to_string(path).unwrap();
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let lines = lines.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)));
    let text: String = lines.collect();
    let block = text.split("```text\n").nth(n + 1).unwrap();
    plain(block.split("```\n").next().unwrap())
}

/// Without what differs from run to run: ids, ports, and the lines of a generation in progress.
fn plain(text: &str) -> String {
    let waiting = "Still waiting... Checking again in 10 seconds.\n";
    let in_progress = ["Status: queued\n", "Status: generating\n", waiting];
    let lines = text.split_inclusive('\n');
    let lines = lines.filter(|line| !in_progress.contains(line));
    let words = lines.flat_map(|line| line.split_inclusive([' ', '\n']));
    let words = words.map(|word| match word.trim_end() {
        id if id.ends_with(":veo3") => word.replace(id, "ID"),
        url if url.starts_with("http://127.0.0.1:") => word.replace(url, "URL"),
        _ => word.to_owned(),
    });
    words.collect()
}

/// A lesson that runs until it is killed.
struct Running {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Running {
            child,
            stdout,
            stderr,
        }
    }

    fn lines<const N: usize>(&mut self) -> [String; N] {
        std::array::from_fn(|_| self.stdout.next().unwrap().unwrap())
    }

    fn error(&mut self) -> String {
        self.stderr.next().unwrap().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn generate_video_does_what_the_python_program_does() {
    let desk = Desk::new();
    for name in ["AIMLAPI_KEY", "AIML_API_KEY", "AIMLAPI_API_KEY"] {
        let mut command = desk.lesson("generate_video");
        command.env("AIMLAPI_KEY", " ").env(name, Simulator::KEY);
        let (code, stdout, stderr) = run(&mut command);
        let (id, rest) = stdout.split_once('\n').unwrap();
        let id = id.strip_prefix("Gen_ID:  ").unwrap();
        let response = desk.simulator.client().get_video(id).unwrap().raw;
        let complete = format!("Status: completed\nProcessing complete:/n {response}\n");
        assert_eq!((code, rest), (0, &*complete));
        let start = header("generate_video", 0);
        let (start, _) = start.split_once('{').unwrap();
        assert!(plain(&stdout).starts_with(start), "{stdout}");
        let costs = format!(
            "This costs money, on the key in {name}, unless AIMLAPI_BASE_URL is a simulator's.\n\
             For a real video: cargo run --example resume -- {id} dragon.mp4\n"
        );
        assert_eq!(stderr, costs);
    }
    let prompt = "\nA menacing evil dragon appears in a distance above the tallest mountain, then \
                  rushes toward the camera with its jaws open, revealing massive fangs. We see \
                  it's coming.\n";
    let body = json!({"model": "google/veo3", "prompt": prompt});
    assert_eq!(desk.posted(), vec![body; 3]);
    let source = include_str!("../../examples/generate_video.rs");
    let code = source.lines().skip_while(|line| line.starts_with("//!"));
    assert!(code.count() <= 61);

    // A failure is printed once, as the last line.
    let mut command = desk.lesson("generate_video");
    let (code, stdout, stderr) = run(command.env("AIMLAPI_KEY", "another"));
    assert_eq!((code, &*stdout, stderr.lines().count()), (1, "", 2));
    let slip = "; this request was not charged; check the API key, and that ";
    assert!(stderr.contains("\nError: "), "{stderr}");
    assert!(stderr.contains(slip), "{stderr}");
}

#[test]
fn generate_video_waits_ten_seconds_between_polls_with_a_key_and_without() {
    let (simulator, folder) = (Simulator::start().unwrap(), Folder::new());
    let with_key = lesson("generate_video", simulator.base_url(), &folder);
    let no_key = "No key is set, so this is a simulator: nothing is generated or charged.";
    let costs =
        "This costs money, on the key in AIMLAPI_KEY, unless AIMLAPI_BASE_URL is a simulator's.";
    for (mut command, stderr) in [(with_key, costs), (example("generate_video"), no_key)] {
        let mut program = Running::start(&mut command);
        assert_eq!(program.error(), stderr);
        let [id, status, waiting] = program.lines();
        assert_eq!(plain(&id), "Gen_ID:  ID");
        assert_eq!(status, "Status: queued");
        assert_eq!(waiting, "Still waiting... Checking again in 10 seconds.");
        assert!(program.child.try_wait().unwrap().is_none());
    }
}

#[test]
fn each_lesson_but_the_first_shows_what_it_waits_for() {
    let busy = |request: &Request, _| match request.is_post() {
        true => queued(),
        false => refusal(503, "Service unavailable"),
    };
    let (server, folder) = (Server::start(busy), Folder::new());
    for (name, arguments) in COMMANDS.into_iter().chain([("wait_for_video", &[][..])]) {
        let mut command = lesson(name, server.url("/v2"), &folder);
        let mut program = Running::start(command.args(arguments));
        let retry = "status 503: Service unavailable; trying again in 10s";
        if name == "wait_for_video" {
            assert_eq!(program.lines(), ["Gen_ID:  gen:1", retry]);
        } else {
            assert_eq!(program.error(), retry, "{name}");
        }
    }
}

#[test]
fn wait_for_video_saves_a_video_and_replaces_none() {
    let desk = Desk::new();
    let wait = || desk.run("wait_for_video", &[]);
    assert_eq!(wait(), succeeded(header("wait_for_video", 0)));
    assert_eq!(desk.file("boat.mp4"), CLIP);
    let usage = "usage: wait_for_video, where there is no boat.mp4\n";
    assert_eq!(wait(), (2, usage.to_owned(), String::new()));
    assert_eq!(desk.simulator.charged(), 1);
}

#[test]
fn save_video_pays_once_and_then_needs_neither_key_nor_network() {
    let (service, folder) = (Service::start(), Folder::new());
    let at_server = || lesson("save_video", service.base_url(), &folder);
    let save = |mut command: Command| run(command.args(BOAT).current_dir(&folder));
    let (code, stdout, stderr) = save(example("save_video"));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("Error: no API key: "), "{stderr}");
    assert_eq!(folder.names(), [""; 0]);

    let paid = "Generation gen:1\n\
                Status: queued\n\
                Status: completed\n\
                boat.mp4 is saved.\n\
                It cost 0.06 USD (120000 credits).\n\
                Keep its receipt beside it: boat.mp4.receipt.json\n";
    assert_eq!(save(at_server()), succeeded(paid));
    assert_eq!(fs::read(folder.path("boat.mp4")).unwrap(), video("gen:1"));
    assert_eq!(folder.names(), ["boat.mp4", "boat.mp4.receipt.json"]);
    let there = succeeded(header("save_video", 1));
    assert_eq!(save(example("save_video")), there);

    // What was paid for before is not shown as paid for now.
    fs::remove_file(folder.path("boat.mp4")).unwrap();
    let again = "Generation gen:1\n\
                 Status: completed\n\
                 boat.mp4 is saved.\n\
                 Keep its receipt beside it: boat.mp4.receipt.json\n";
    assert_eq!(save(at_server()), succeeded(again));
    assert_eq!(service.posts(), 1);

    // A pointer that a clone without Git LFS has in the video's place.
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 2065\n";
    fs::write(folder.path("boat.mp4"), pointer).unwrap();
    let size = video("").len();
    let stopped = failed(format!(
        "boat.mp4 is a Git LFS pointer, where the video, of {size} bytes, should be: run `git lfs \
         pull`. Nothing was sent.\n"
    ));
    assert_eq!(save(example("save_video")), stopped);
    assert_eq!(save(at_server()), stopped);
}

#[test]
fn save_video_marks_what_the_simulator_made() {
    let desk = Desk::new();
    for n in [0, 1] {
        let shown = header("save_video", n);
        assert_eq!(desk.run("save_video", &BOAT), succeeded(shown));
    }
    assert_eq!(desk.simulator.charged(), 1);

    // The README's picture shows the same.
    let picture = include_str!("../../docs/save_video.svg").lines();
    let texts = picture.filter_map(|line| line.strip_prefix("<text "));
    let text = |text: &str| {
        let text = text.split_once('>').unwrap().1.replace("</text>", "\n");
        text.replace("&quot;", "\"").replace("&amp;", "&")
    };
    let command = "$ save_video \"A paper boat on a river\" boat.mp4\n";
    let shown = format!("{command}{}", header("save_video", 0));
    assert_eq!(plain(&texts.map(text).collect::<String>()), shown);
}

#[test]
fn save_video_sets_any_parameter() {
    let desk = Desk::new();
    desk.simulator.allow_model("new/model");
    let mut command = desk.lesson("save_video");
    let sets = [
        ("model", "new/model", json!("new/model")),
        ("duration", "4", json!(4)),
        ("aspect_ratio", "16:9", json!("16:9")),
        ("generate_audio", "false", json!(false)),
        ("image_urls", r#"["a"]"#, json!(["a"])),
        ("negative_prompt", "a=b", json!("a=b")),
        ("note", "", json!("")),
    ];
    for (name, value, _) in &sets {
        command.args(["--set", &format!("{name}={value}")]);
    }
    let (code, _, stderr) = run(command.args(["A boat", "boat.MP4"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    let mut body = json!({"prompt": "A boat"});
    for (name, _, value) in sets {
        body[name] = value;
    }
    assert_eq!(desk.posted(), [body]);
}

#[test]
fn a_slip_is_not_paid_for() {
    let desk = Desk::new();
    let table = "
        save_video     | boat.mp4
        save_video     | A boat
        save_video     | A boat|boat
        save_video     | A boat|boat.mov
        save_video     | boat.mp4|A boat
        save_video     | boat.MP4|fox.mp4
        save_video     | --set|duration=4
        save_video     | --set|duration|A boat|boat.mp4
        save_video     | --set|=4|A boat|boat.mp4
        save_video     | --set|prompt=A fox|A boat|boat.mp4
        save_video     | --duration=4|boat.mp4
        save_video     | A boat|boat.mp4|--set|duration=4
        image_to_video | cat.png|cat.mp4
        image_to_video | cat.png|fox.mp4|cat.mp4
        image_to_video | cat.png|cat.mp4|The cat yawns
        image_to_video | cat.png|The cat yawns|cat
        batch          | clips
        batch          | clips|A boat|--fast
        resume         |
        resume         | gen:1|a.mp4|b.mp4
        wait_for_video | --help
        generate_video | A prompt of one's own";
    for row in table.trim().lines() {
        let (name, arguments) = row.split_once('|').unwrap();
        let (name, arguments) = (name.trim(), arguments.trim().split('|'));
        let arguments = arguments.filter(|text| !text.is_empty());
        let (code, stdout, stderr) = run(desk.lesson(name).args(arguments));
        let usage = match name {
            "generate_video" => "Error: \"generate_video takes no arguments".to_owned(),
            _ => format!("usage: {name}"),
        };
        let shown = stdout + &stderr;
        assert!(shown.starts_with(&usage) && code > 0, "{row}: {shown}");
    }
    for (name, _) in COMMANDS {
        let (code, stdout, stderr) = run(example(name).arg("--help"));
        assert!(stdout.starts_with(&format!("usage: {name} ")), "{stdout}");
        assert!(stdout.lines().all(|line| line.chars().count() <= 60));
        assert_eq!((code, stderr.as_str()), (0, ""));
    }
    // Arguments that are not UTF-8.
    #[cfg(unix)]
    for (name, arguments) in COMMANDS {
        use std::os::unix::ffi::OsStrExt;
        for position in 0..arguments.len() {
            let mut words = Vec::from_iter(arguments.iter().map(OsStr::new));
            words[position] = OsStr::from_bytes(b"\xff.mp4");
            let (code, _, stderr) = run(desk.lesson(name).args(&words));
            assert!(stderr.starts_with(&format!("usage: {name} ")), "{stderr}");
            assert_eq!(code, 2);
        }
    }
    assert_eq!(desk.simulator.received(), []);
    assert_eq!(desk.folder.names(), [""; 0]);
}

/// What a person pays for is saved even if nobody reads what is printed.
#[cfg(target_os = "linux")]
#[test]
fn a_closed_or_full_output_stops_no_lesson() {
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap());
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    let lessons = COMMANDS.into_iter().chain([("wait_for_video", &[][..])]);
    for (name, arguments) in lessons {
        for output in [full as fn() -> Stdio, closed] {
            let (service, folder) = (Service::start(), Folder::new());
            let mut command = lesson(name, service.base_url(), &folder);
            let command = command.args(arguments).stdout(output()).stderr(output());
            assert_eq!(command.status().unwrap().code(), Some(0), "{name}");
            assert!(!folder.names().is_empty());
        }
        // And where it fails, or is called in a wrong way.
        for (base_url, more, code) in [("nonsense", &[][..], 1), ("", &["-x"], 2)] {
            let folder = Folder::new();
            let mut command = lesson(name, base_url, &folder);
            let command = command.args(more).args(arguments);
            let status = command.stdout(full()).stderr(full()).status();
            assert_eq!(status.unwrap().code(), Some(code), "{name} {more:?}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn on_a_terminal_save_video_shows_one_line_that_changes() {
    let (service, folder) = (Service::start(), Folder::new());
    let status = "in-progress-".repeat(8);
    let response = json!({"id": "ID", "status": status}).to_string();
    service.script().posts = [(true, say(201, &response))].into();
    let command = lesson("save_video", service.base_url(), &folder);
    let program = command.get_program().display();
    let save = format!("'{program}' 'A paper boat' boat.mp4");
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &save, "/dev/null"]);
    let envs = command.get_envs();
    terminal.envs(envs.filter_map(|(name, value)| Some((name, value?))));
    let terminal = terminal.stdin(Stdio::null()).current_dir(&folder);
    let (code, output, _) = run(terminal);
    assert_eq!(code, 0, "{output}");
    let lines = output.split(['\r', '\n']);
    assert!(lines.clone().all(|line| line.chars().count() < 60));
    let lines = lines.filter(|line| !line.trim().is_empty());
    // Without the time.
    let mut shown: Vec<&str> = lines.filter_map(|line| line.split(", 0:").next()).collect();
    shown.dedup();
    let expected = [
        "Generation gen:1",
        &status[..59],
        "completed",
        "downloading",
        "boat.mp4 is saved.",
        "It cost 0.06 USD (120000 credits).",
        "Keep its receipt beside it: boat.mp4.receipt.json",
    ];
    assert_eq!(shown, expected);
    // The last live line is gone before the next line that stays.
    let (size, clear) = (video("").len(), format!("\r{:59}\r", ""));
    let end = format!(", {size} of {size} bytes{clear}boat.mp4 is saved.");
    assert!(output.contains(&end), "{output:?}");
}

#[test]
fn resume_finishes_a_generation_by_its_id_and_overwrites_nothing() {
    let desk = Desk::new();
    let request = VideoRequest::new("A dragon");
    let id = desk.simulator.client().generate_video(&request).unwrap().id;
    let resume = |arguments: &[&str]| desk.run("resume", arguments);
    let shown = header("resume", 0);
    assert_eq!(resume(&[&id, "dragon.mp4"]), succeeded(shown.as_str()));
    assert_eq!(desk.file("dragon.mp4"), CLIP);
    let without_file = shown.replace("dragon.mp4 is saved.\n", "");
    assert_eq!(resume(&[&id]), succeeded(without_file));
    let sent = desk.simulator.received().len();
    fs::write(desk.folder.path("dragon.mp4"), "mine").unwrap();
    let there = failed("dragon.mp4 is there already: name another file.\n");
    assert_eq!(resume(&[&id, "dragon.mp4"]), there);
    assert_eq!(desk.file("dragon.mp4"), b"mine");
    assert_eq!(desk.folder.names(), ["dragon.mp4"]);
    assert_eq!(desk.simulator.received().len(), sent);
    assert_eq!(desk.simulator.charged(), 1);
}

#[test]
fn image_to_video_takes_a_file_or_a_url() {
    let desk = Desk::new();
    let make = |image, file| desk.run("image_to_video", &[image, "The cat yawns", file]);
    fs::write(desk.folder.path("cat"), b"\x89PNG\r\n\x1a\nand so on").unwrap();
    let url = "https://example.com/cat.jpg";
    let saved = header("image_to_video", 0);
    assert_eq!(make("cat", "cat.mp4"), succeeded(saved.as_str()));
    let of_url = saved.replace("cat.mp4", "url.mp4");
    assert_eq!(make(url, "url.mp4"), succeeded(of_url));
    assert_eq!(make("cat", "cat.mp4"), succeeded("cat.mp4 is saved.\n"));
    let data = "data:image/png;base64,iVBORw0KGgphbmQgc28gb24=";
    let body =
        |url| json!({"model": "google/veo-3.0-i2v", "prompt": "The cat yawns", "image_url": url});
    assert_eq!(desk.posted(), [data, url].map(body));

    let (code, stdout, stderr) = make("dog.jpg", "dog.mp4");
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("Error: "), "{stderr}");
    assert!(stderr.contains("dog.jpg"), "{stderr}");
}

#[test]
fn batch_pays_once_for_each_prompt_however_the_others_end() {
    let desk = Desk::new();
    let (boat, fox) = ("A paper boat on a river", "A fox in the snow");
    let batch = || desk.run("batch", &["clips", boat, fox, "A fox, in the snow", fox]);
    // One of the three, whichever comes first.
    desk.simulator.script_posts([Post::Reject(403)]);
    let (code, stdout, stderr) = batch();
    let end = "\n2 saved, 0 there already, 1 failed.\nSimulated cost: 0.12 USD.\n";
    assert!(stdout.ends_with(end), "{stdout}");
    assert_eq!((code, stderr.lines().count()), (1, 1));
    assert!(stderr.contains(" responded with status 403: "), "{stderr}");
    let lines = stdout.lines();
    let ids = lines.filter(|line| line.starts_with("  ") && line.ends_with(" ID"));
    assert_eq!(ids.count(), 2, "{stdout}");

    // Again: the failed one was not charged. The others are not sent again.
    let (code, stdout, stderr) = batch();
    assert_eq!((code, stderr.as_str()), (0, ""));
    let end = "\n3 saved, 0 there already, 0 failed.\nSimulated cost: 0.06 USD.\n";
    assert!(stdout.ends_with(end), "{stdout}");
    assert_eq!((desk.posted().len(), desk.simulator.charged()), (4, 3));

    // As the header shows them.
    let shown = header("batch", 0);
    for line in shown.lines().filter(|line| line.starts_with("saved")) {
        let name = line.rsplit("  ").next().unwrap();
        let saved = format!("saved        {name}\n");
        assert!(stdout.contains(&saved), "{stdout}");
        assert_eq!(desk.file(&format!("clips/{name}")), CLIP);
    }
}

#[test]
fn batch_names_files_in_any_script_and_in_a_narrow_terminal() {
    let (service, folder) = (Service::start(), Folder::new());
    let names = "
        A paper boat on a river          | a-paper-boat-on-a-river-3edd02d4.mp4
        紙の舟が川を下る、上から見た景色 | 紙の舟が川を下る-1ab11b0d.mp4
        Бумажный кораблик                | бумажный-кор-232b17cd.mp4
        ?!                               | -10fa237d.mp4
        ../../etc/passwd                 | etc-passwd-6fadc99a.mp4";
    let names = names.trim().lines().map(cells);
    let (prompts, mut expected): (Vec<_>, Vec<_>) = names.map(|[a, b]| (a, b)).unzip();
    let mut command = lesson("batch", service.base_url(), &folder);
    let (code, stdout, stderr) = run(command.arg(".").args(&prompts));
    assert_eq!((code, stderr.as_str()), (0, ""));
    let end = "5 saved, 0 there already, 0 failed.\nCost: 0.3 USD.\n";
    assert!(stdout.ends_with(end), "{stdout}");
    let mut lines = stdout.lines();
    assert!(lines.all(|line| line.chars().count() <= 60), "{stdout}");
    let mut saved = folder.names();
    saved.retain(|name| name.ends_with(".mp4"));
    expected.sort_unstable();
    assert_eq!(saved, expected);

    // Neither key nor network for what is there.
    let mut again = example("batch");
    let there = "0 saved, 5 there already, 0 failed.\n";
    let again = run(again.arg(".").args(prompts).current_dir(&folder));
    assert_eq!(again, succeeded(there));
}

#[test]
fn simulator_serves_a_program_that_sets_what_it_prints_and_takes_scripts() {
    let (code, _, stderr) = run(example("simulator").args(["--logs", "hide, stalled"]));
    let expected = "\n\"stalled\" is no step; allowed are serve, hide, ";
    assert!(stderr.contains(expected), "{stderr}");
    assert_eq!(code, 2);

    let mut command = example("simulator");
    command.args("--posts drop,accept --polls queued,fail-charged --downloads 503".split(' '));
    let mut program = Running::start(command.args(["--logs", "hide, 429"]));
    let lines: [String; 6] = program.lines();
    let [base_url, key] = [0, 1].map(|n: usize| lines[n].split_once('=').unwrap().1);
    let port = base_url.trim_end_matches("/v2").rsplit(':').next().unwrap();
    let shown = header("simulator", 0).replace("41231", port);
    assert_eq!(plain(&(lines.join("\n") + "\n")), shown);

    // A line for each request.
    let api = Api(base_url.to_owned());
    assert_eq!(api.outcomes(2, CREATE), "closed; 201 queued");
    let logs = api.outcomes(2, "GET /v2/logs?period=24h");
    assert_eq!(logs, "200 0 rows; 429 Too Many Requests");
    api.get("/v2/x\u{9b}\u{202e}");
    let client = Client::builder(key).base_url(base_url).build().unwrap();
    assert!(client.generate_video(&VideoRequest::new("A fox")).is_ok());
    let [dropped, accepted] = ["no response", "201"].map(|end| format!("{CREATE} {end}"));
    let gets = ["GET /v2/logs 200", "GET /v2/logs 429", "GET /v2/x?? 404"];
    let printed: [String; 6] = program.lines();
    assert_eq!(printed[..2], [dropped, accepted.clone()]);
    assert_eq!(printed[2..5], gets);
    assert_eq!(printed[5], accepted);
}
