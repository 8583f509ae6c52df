//! Each example does what its header says, without a pause of real polling: its simulators complete at once, or it is
//! stopped when it begins to wait.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    process::{Child, ChildStdout, Command, Stdio},
};

use aimlapi_video::{
    Client, VideoRequest,
    simulator::{CLIP, Simulator, Step},
};
use serde_json::{Value, json};

use crate::support::{Act, Folder, Server, example, http, json as answer, quick, stderr, stdout};

const NO_KEY: &str = "no API key: set AIMLAPI_KEY (or AIML_API_KEY, or AIMLAPI_API_KEY) to your AI/ML API key; nothing \
                      was sent\n";

/// A simulator that completes at the first poll, where there is no pause yet.
fn prompt_simulator() -> Simulator {
    let simulator = Simulator::start().unwrap();
    simulator.script([Step::Complete]);
    simulator
}

/// The example, set to talk to this address.
fn example_at(name: &str, base_url: &str) -> Command {
    let mut command = example(name);
    command
        .env("AIMLAPI_KEY", Simulator::KEY)
        .env("AIMLAPI_BASE_URL", base_url);
    command
}

/// Exit code, stdout and stderr.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    (
        output.status.code().unwrap(),
        stdout(&output),
        stderr(&output),
    )
}

fn posted(simulator: &Simulator) -> Vec<Value> {
    let posts = simulator
        .received()
        .into_iter()
        .filter(|request| request.method == "POST");
    posts
        .map(|post| serde_json::from_str(&post.body).unwrap())
        .collect()
}

/// An example that goes on until it is killed.
struct Running(Child, BufReader<ChildStdout>);

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
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

    fn kill(mut self) -> String {
        self.0.kill().unwrap();
        let mut stderr = String::new();
        self.0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
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
    let output = run(&mut example_at("generate_video", &simulator.base_url()));

    let id = "51a00000-0000-4000-8000-000000000000:veo3";
    let whole = simulator.client().get_video(id).unwrap().raw;
    let expected = format!("Gen_ID:  {id}\nStatus: completed\nProcessing complete:\n {whole}\n");
    assert_eq!(output, (0, expected, String::new()));
    let prompt = "\nA menacing evil dragon appears in a distance above the tallest mountain, then rushes toward the \
                  camera with its jaws open, revealing massive fangs. We see it's coming.\n";
    assert_eq!(
        posted(&simulator),
        [json!({"model": "google/veo3", "prompt": prompt})]
    );
}

/// What is printed before the first pause.
const FIRST_LINES: [&str; 3] = [
    "Gen_ID:  51a00000-0000-4000-8000-000000000000:veo3",
    "Status: queued",
    "Still waiting... Checking again in 10 seconds.",
];

#[test]
fn generate_video_waits_as_the_python_program_does() {
    let simulator = Simulator::start().unwrap();
    let mut program = Running::start(&mut example_at("generate_video", &simulator.base_url()));
    assert_eq!(program.lines(), FIRST_LINES);
    assert_eq!(program.kill(), "");
}

#[test]
fn generate_video_without_a_key_brings_its_own_simulator_and_says_so() {
    let mut program = Running::start(&mut example("generate_video"));
    assert_eq!(program.lines(), FIRST_LINES);
    assert_eq!(
        program.kill(),
        "AIMLAPI_KEY is not set: talking to a simulator on this machine. No video is generated.\n"
    );
}

#[test]
fn generate_video_with_a_key_alone_goes_to_a_server_over_https() {
    // A port that nobody listens at any more.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (code, stdout, stderr) = run(&mut example_at(
        "generate_video",
        &format!("https://127.0.0.1:{port}/v2"),
    ));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(
        stderr.starts_with("no answer from the server: "),
        "{stderr}"
    );
    assert!(
        stderr.ends_with("; this call charged nothing, and calling again is safe\n"),
        "{stderr}"
    );
}

#[test]
fn generate_video_prints_a_refusal_as_the_python_program_does() {
    let simulator = Simulator::start().unwrap();
    let output =
        run(example_at("generate_video", &simulator.base_url()).env("AIMLAPI_KEY", "another-key"));
    let message = "This request requires a valid API key. The simulator's key is simulator-key.";
    let body = json!({
        "message": message,
        "path": "/v2/generate/video/google/generation",
        "requestId": "00000000-0000-4000-8000-000000000000",
        "statusCode": 401,
        "timestamp": "2026-08-01T12:00:00.000Z",
    });
    let expected_stderr = format!(
        "the server refused with status 401: {message} (request id 00000000-0000-4000-8000-000000000000); this \
         request was not charged\n"
    );
    assert_eq!(
        output,
        (1, format!("Error: 401 - {body}\n"), expected_stderr)
    );
    assert_eq!(simulator.charged(), 0);
}

#[test]
fn generate_video_tells_a_failed_generation_by_its_id() {
    let simulator = Simulator::start().unwrap();
    simulator.script([Step::fail("SafetyError", "The prompt was refused.")]);
    let output = run(&mut example_at("generate_video", &simulator.base_url()));

    let id = "51a00000-0000-4000-8000-000000000000:veo3";
    let whole = simulator.client().get_video(id).unwrap().raw;
    let expected = format!("Gen_ID:  {id}\nStatus: error\nProcessing complete:\n {whole}\n");
    let expected_stderr = format!(
        "generation {id} is over without a video (status error): SafetyError: The prompt was refused.\n"
    );
    assert_eq!(output, (1, expected, expected_stderr));
}

#[test]
fn save_video_pays_once_and_then_needs_neither_key_nor_network() {
    let folder = Folder::new();
    let save = |mut command: Command| {
        run(command
            .args(["A paper boat", "boat.mp4"])
            .current_dir(&folder))
    };
    assert_eq!(
        save(example("save_video")),
        (1, String::new(), NO_KEY.to_owned())
    );
    assert_eq!(folder.names(), [""; 0]);

    let simulator = prompt_simulator();
    let expected = "Generation 51a00000-0000-4000-8000-000000000000:veo3, kept in boat.mp4.receipt.json\n\
                    Status: queued\n\
                    Status: completed\n\
                    boat.mp4 is saved.\n\
                    It cost 0.06 USD (120000 credits).\n";
    assert_eq!(
        save(example_at("save_video", &simulator.base_url())),
        (0, expected.to_owned(), String::new())
    );
    assert_eq!(fs::read(folder.path("boat.mp4")).unwrap(), CLIP);
    assert_eq!(folder.names(), ["boat.mp4", "boat.mp4.receipt.json"]);
    assert_eq!(
        posted(&simulator),
        [json!({"model": "google/veo3", "prompt": "A paper boat"})]
    );
    drop(simulator);

    let expected = "boat.mp4 is there already, and whole: nothing to pay.\n";
    assert_eq!(
        save(example("save_video")),
        (0, expected.to_owned(), String::new())
    );
}

#[test]
fn save_video_goes_on_with_what_it_has_paid_for() {
    let folder = Folder::new();
    let simulator = Simulator::start().unwrap();
    let command = || {
        let mut command = example_at("save_video", &simulator.base_url());
        command
            .args(["A paper boat", "boat.mp4"])
            .current_dir(&folder);
        command
    };
    let id = "Generation 51a00000-0000-4000-8000-000000000000:veo3, kept in boat.mp4.receipt.json";
    let mut program = Running::start(&mut command());
    assert_eq!(program.lines(), [id, "Status: queued", "Status: queued"]);
    program.kill();
    // What the 10 s would have brought.
    simulator
        .client()
        .get_video("51a00000-0000-4000-8000-000000000000:veo3")
        .unwrap();

    let expected = format!(
        "{id}\nStatus: completed\nboat.mp4 is saved.\nIt cost 0.06 USD (120000 credits).\n"
    );
    assert_eq!(run(&mut command()), (0, expected, String::new()));
    assert_eq!(fs::read(folder.path("boat.mp4")).unwrap(), CLIP);
    assert_eq!(simulator.charged(), 1);
}

#[test]
fn resume_finishes_a_generation_by_its_id() {
    let folder = Folder::new();
    let simulator = prompt_simulator();
    let id = simulator
        .client()
        .generate_video(&VideoRequest::new("A dragon"))
        .unwrap()
        .id;
    let url = format!(
        "{}/files/0/output.mp4",
        simulator.base_url().trim_end_matches("/v2")
    );
    let resume = |arguments: &[&str]| {
        run(example_at("resume", &simulator.base_url())
            .args(arguments)
            .current_dir(&folder))
    };

    assert_eq!(
        resume(&[&id]),
        (0, format!("Status: completed\n{url}\n"), String::new())
    );
    assert_eq!(folder.names(), [""; 0]);

    let expected = format!("Status: completed\n{url}\ndragon.mp4 is saved.\n");
    assert_eq!(resume(&[&id, "dragon.mp4"]), (0, expected, String::new()));
    assert_eq!(fs::read(folder.path("dragon.mp4")).unwrap(), CLIP);
    assert_eq!(folder.names(), ["dragon.mp4"]);
    assert_eq!(simulator.charged(), 1);

    let expected = "generation gen:2: the server refused with status 404: Not Found (request id \
                    00000000-0000-4000-8000-000000000000); is the id right, and the key that of the account that \
                    requested it? Asking again is free\n";
    assert_eq!(resume(&["gen:2"]), (1, String::new(), expected.to_owned()));
    assert_eq!(
        run(example("resume").arg(&id)),
        (1, String::new(), NO_KEY.to_owned())
    );
}

#[test]
fn image_to_video_takes_a_file_or_an_address() {
    let folder = Folder::new();
    let simulator = prompt_simulator();
    let make = |arguments: [&str; 3]| {
        run(example_at("image_to_video", &simulator.base_url())
            .args(arguments)
            .current_dir(&folder))
    };
    fs::write(folder.path("cat"), b"\x89PNG\r\n\x1a\nand so on").unwrap();

    let saved = |name: &str| {
        (
            0,
            format!("Status: queued\nStatus: completed\n{name} is saved.\n"),
            String::new(),
        )
    };
    assert_eq!(
        make(["cat", "The cat yawns", "file.mp4"]),
        saved("file.mp4")
    );
    assert_eq!(
        make(["https://example.com/cat.jpg", "The cat yawns", "url.mp4"]),
        saved("url.mp4")
    );
    let image_url = "data:image/png;base64,iVBORw0KGgphbmQgc28gb24=";
    assert_eq!(
        posted(&simulator),
        [image_url, "https://example.com/cat.jpg"]
            .map(|url| json!({"model": "google/veo-3.0-i2v", "prompt": "The cat yawns", "image_url": url}))
    );
    assert_eq!(fs::read(folder.path("file.mp4")).unwrap(), CLIP);
    assert_eq!(fs::read(folder.path("url.mp4")).unwrap(), CLIP);

    // Finished is finished; another picture is another request.
    assert_eq!(
        make(["cat", "The cat yawns", "file.mp4"]),
        (0, "file.mp4 is saved.\n".to_owned(), String::new())
    );
    assert_eq!(simulator.charged(), 2);
    let (code, stdout, stderr) = make(["dog.jpg", "The dog yawns", "dog.mp4"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("image dog.jpg: "), "{stderr}");
    assert!(stderr.ends_with("; nothing was sent\n"), "{stderr}");
    assert_eq!(simulator.charged(), 2);
}

/// Serves generations, of which those about a dog fail.
fn no_dogs() -> Server {
    Server::start(|request, _| {
        let host = request.header("host").unwrap();
        if request.is_post() {
            let id = if request.body.contains("dog") {
                "dog"
            } else {
                "fox"
            };
            return answer(201, &json!({"id": id, "status": "queued"}).to_string());
        }
        let usage = json!({"usage": {"credits_used": 120_000, "usd_spent": 0.06}});
        let body = match request.target.as_str() {
            "/clip.mp4" => {
                return vec![Act::Send(http(200, &[("content-type", "video/mp4")], CLIP))];
            }
            "/v2/generate/video/google/generation?generation_id=dog" => {
                json!({"id": "dog", "status": "error", "error": {"name": "SafetyError", "message": "No dogs."}})
            }
            "/v2/generate/video/google/generation?generation_id=fox" => {
                let video = json!({"url": format!("http://{host}/clip.mp4")});
                json!({"id": "fox", "status": "completed", "video": video, "meta": usage})
            }
            other => panic!("{other}"),
        };
        answer(200, &body.to_string())
    })
}

#[test]
fn batch_pays_once_for_each_prompt_whatever_becomes_of_the_others() {
    let (dog, fox, other_fox) = (
        "a-dog-f6c04143be2e0f0e.mp4",
        "a-fox-08c47a43c8951ce9.mp4",
        "a-fox-2995a991a9349c89.mp4",
    );
    let folder = Folder::new();
    let server = no_dogs();
    let batch = |mut command: Command, prompts: &[&str]| {
        let (code, stdout, stderr) = run(command.arg("clips").args(prompts).current_dir(&folder));
        let (mut lines, summary): (Vec<String>, Vec<String>) = stdout
            .lines()
            .map(str::to_owned)
            .partition(|line| line.contains(".mp4: "));
        // Jobs run side by side; each job's lines are in order.
        lines.sort_by_key(|line| line.split(':').next().unwrap().to_owned());
        (code, lines, summary, stderr)
    };
    let online = || example_at("batch", &server.url("/v2"));
    let prompts = ["../A fox?", "A fox", "A dog", "A fox"];
    assert_eq!(
        batch(example("batch"), &prompts),
        (1, vec![], vec![], NO_KEY.to_owned())
    );

    let (code, lines, summary, stderr) = batch(online(), &prompts);
    let saved = |name| {
        [
            "queued",
            "completed",
            "downloading",
            "saved, 0.06 USD (120000 credits)",
        ]
        .map(|text| format!("{name}: {text}"))
    };
    let failed = ["queued", "error", "failed"].map(|text| format!("{dog}: {text}"));
    assert_eq!(
        lines,
        [&failed[..], &saved(fox), &saved(other_fox)].concat()
    );
    assert_eq!(
        summary,
        [
            "2 saved, 0 there already, 1 failed.",
            "Those saved cost 0.12 USD, 240000 credits."
        ]
    );
    let reason = format!(
        "{dog}: generation dog is over without a video (status error): SafetyError: No dogs.\n"
    );
    assert_eq!((code, &stderr), (1, &reason));
    assert_eq!(server.posts(), 3);
    for name in [fox, other_fox] {
        assert_eq!(fs::read(folder.path("clips").join(name)).unwrap(), CLIP);
    }

    // Again: the failed one was not charged, and is requested anew.
    let again = batch(online(), &prompts);
    assert_eq!(
        again,
        (
            1,
            failed.to_vec(),
            vec!["0 saved, 2 there already, 1 failed.".to_owned()],
            reason
        )
    );
    assert_eq!(server.posts(), 4);

    // What is finished needs neither key nor network.
    drop(server);
    let finished = batch(example("batch"), &["A fox", "../A fox?"]);
    assert_eq!(
        finished,
        (
            0,
            vec![],
            vec!["0 saved, 2 there already, 0 failed.".to_owned()],
            String::new()
        )
    );
}

#[test]
fn simulator_serves_whoever_sets_what_it_prints() {
    let mut program = Running::start(&mut example("simulator"));
    let [base_url, key, costs, note] = program.lines();
    let base_url = base_url.strip_prefix("export AIMLAPI_BASE_URL=").unwrap();
    assert_eq!(
        key.strip_prefix("export AIMLAPI_KEY="),
        Some(Simulator::KEY)
    );
    assert_eq!(costs, "# What programs say of costs is made up here.");
    assert_eq!(
        note,
        "# Set these where the program runs. Control-C ends the simulator."
    );

    let mut other = Running::start(&mut example_at("generate_video", base_url));
    let [id, status] = other.lines();
    assert_eq!(status, "Status: queued");
    let id = id.strip_prefix("Gen_ID:  ").unwrap();

    let client = Client::builder(Simulator::KEY)
        .base_url(base_url)
        .build()
        .unwrap();
    let mut statuses = Vec::new();
    let video = client
        .wait_for_video(id, &quick(), |generation| {
            statuses.push(generation.status.to_string())
        })
        .unwrap();
    assert_eq!(statuses, ["generating", "completed"]);
    let mut bytes = Vec::new();
    client
        .download_video_to(&video, &mut bytes, |_, _| {})
        .unwrap();
    assert_eq!(bytes, CLIP);

    // Its port is taken now.
    let port = base_url
        .trim_start_matches("http://127.0.0.1:")
        .trim_end_matches("/v2");
    let (code, stdout, stderr) = run(example("simulator").arg(port));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(
        stderr.starts_with(&format!("port {port} of 127.0.0.1: ")),
        "{stderr}"
    );

    // Once it has ended, the port is free to be asked for.
    assert_eq!(program.kill(), "");
    let [again, _, _] = Running::start(example("simulator").arg(port)).lines();
    assert_eq!(again, format!("export AIMLAPI_BASE_URL={base_url}"));
}

#[test]
fn wrong_arguments_are_told_how_it_goes() {
    let usages: [(&str, &[&[&str]]); 6] = [
        ("batch FOLDER PROMPT...", &[&[], &["folder"]]),
        (
            "generate_video (the prompt is in the program; for one of your own: save_video PROMPT FILE)",
            &[&["--help"], &["A boat"]],
        ),
        (
            "image_to_video IMAGE PROMPT FILE",
            &[
                &[],
                &["cat.jpg", "A cat"],
                &["cat.jpg", "A cat", "cat.mp4", "more"],
            ],
        ),
        (
            "resume GENERATION_ID [FILE]",
            &[&[], &["--help"], &["id", "file", "more"]],
        ),
        (
            "save_video PROMPT FILE",
            &[&[], &["A boat"], &["A boat", "boat.mp4", "more"]],
        ),
        ("simulator [PORT]", &[&["port"], &["65536"], &["0", "1"]]),
    ];
    let folder = Folder::new();
    for (usage, wrong) in usages {
        let name = usage.split(' ').next().unwrap();
        for arguments in wrong {
            let output = run(example(name).args(*arguments).current_dir(&folder));
            assert_eq!(
                output,
                (2, String::new(), format!("usage: {usage}\n")),
                "{name} {arguments:?}"
            );
        }
    }
    assert_eq!(folder.names(), [""; 0]);
}
