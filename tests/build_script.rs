//! The package in `examples/build_script`, really built, with a server that completes at the first
//! poll. It is no simulator: what that made is not taken for a paid clip.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use aimlapi_video::simulator::CLIP;

/// Counts what it is sent.
struct Server {
    address: SocketAddr,
    posts: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (posts, requests) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let server = Server {
            address,
            posts: Arc::clone(&posts),
            requests: Arc::clone(&requests),
        };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut head, mut length) = (String::new(), 0);
                while reader.read_line(&mut head).unwrap() > 2 {
                    let line = head.lines().last().unwrap().to_ascii_lowercase();
                    if let Some(value) = line.strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                }
                reader.read_exact(&mut vec![0; length]).unwrap();
                requests.fetch_add(1, Ordering::SeqCst);
                let body = if head.starts_with("POST ") {
                    let post = posts.fetch_add(1, Ordering::SeqCst);
                    format!(r#"{{"id":"gen:{post}","status":"queued"}}"#).into_bytes()
                } else if head.starts_with("GET /video.mp4 ") {
                    CLIP.to_vec()
                } else {
                    let url = format!("http://{address}/video.mp4");
                    format!(r#"{{"status":"completed","video":{{"url":"{url}"}}}}"#).into_bytes()
                };
                let length = body.len();
                let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length";
                write!(stream, "{head}: {length}\r\n\r\n").unwrap();
                stream.write_all(&body).unwrap();
            }
        });
        server
    }

    fn posts(&self) -> usize {
        self.posts.load(Ordering::SeqCst)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// A copy of the package that depends on this crate, in a repository of its own.
struct Package(PathBuf);

impl Package {
    fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("build_script");
        let package = Package(root.join(name));
        let _ = fs::remove_dir_all(&package.0);
        let this = Path::new(env!("CARGO_MANIFEST_DIR"));
        let names = ["Cargo.toml", "build.rs", "clip.rs", "examples/make_clip.rs"];
        for name in names.into_iter().chain(["src/main.rs"]) {
            let text = fs::read_to_string(this.join("examples/build_script").join(name)).unwrap();
            let path = format!("path = '{}'", this.display());
            let file = package.path(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text.replace(r#"path = "../..""#, &path)).unwrap();
        }
        // The versions that are downloaded already.
        fs::copy(this.join("Cargo.lock"), package.path("Cargo.lock")).unwrap();
        let mut git = Command::new("git");
        let git = git.args(["init", "--quiet"]).current_dir(&package.0);
        assert!(git.status().unwrap().success());
        package
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Whether it succeeded, what it printed, and its errors and warnings.
    fn cargo(&self, arguments: &[&str], server: Option<&Server>) -> (bool, String, String) {
        let mut command = Command::new(env!("CARGO"));
        command.args(arguments).arg("--offline");
        command.env("CARGO_TARGET_DIR", self.0.with_file_name("target"));
        command.env("CARGO_TERM_COLOR", "never");
        command.env_remove("AIMLAPI_BASE_URL");
        for name in ["AIMLAPI_KEY", "AIML_API_KEY", "AIMLAPI_API_KEY"] {
            command.env_remove(name);
        }
        if let Some(server) = server {
            command.env("AIMLAPI_KEY", "key");
            command.env("AIMLAPI_BASE_URL", format!("http://{}/v2", server.address));
        }
        // As an editor does it, somewhere below the package.
        command.current_dir(self.path("src"));
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let stderr = text(stderr);
        let lines = stderr.lines();
        let told = lines.filter(|line| line.starts_with("error") || line.starts_with("warning"));
        let told: String = told.map(|line| format!("{line}\n")).collect();
        assert!(status.success() || !told.is_empty(), "{stderr}");
        (status.success(), text(stdout), told)
    }

    fn run(&self, arguments: &[&str]) -> String {
        let (is_success, stdout, told) = self.cargo(arguments, None);
        assert!(is_success, "{told}");
        stdout
    }

    /// Builds, and returns the warnings, and whether cargo had nothing to do for it.
    fn build(&self, server: Option<&Server>) -> (String, bool) {
        let json = ["build", "--message-format=json"];
        let (is_success, messages, told) = self.cargo(&json, server);
        assert!(is_success, "{told}");
        let is_program = |line: &&str| line.contains(r#""kind":["bin"]"#);
        let mut programs = messages.lines().filter(is_program);
        let is_fresh = programs.all(|line| line.contains(r#""fresh":true"#));
        (told, is_fresh)
    }

    fn edit(&self, file: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.path(file)).unwrap();
        assert!(text.contains(old));
        fs::write(self.path(file), text.replace(old, new)).unwrap();
    }

    fn clip(&self) -> Vec<u8> {
        fs::read(self.path("assets/intro.mp4")).unwrap()
    }
}

const COMMIT: &str = "warning: build-script@0.1.0: Paid for. Commit both: assets/intro.mp4, \
                      assets/intro.mp4.receipt.json\n";

#[test]
fn a_build_script_pays_once() {
    let package = Package::new("first_way");
    let server = Server::start();
    let fresh = (String::new(), true);
    let not_fresh = (String::new(), false);

    // Without a key the build says what to do, and says it again.
    for _ in 0..2 {
        let (is_success, _, told) = package.cargo(&["build"], None);
        let start = "error: build-script@0.1.0: assets/intro.mp4: no API key: ";
        let end = "; nothing was sent\n\
                   error: build-script@0.1.0: The next build continues. It pays at most once.\n\
                   error: build script logged errors\n";
        assert!(told.starts_with(start) && told.ends_with(end), "{told}");
        assert!(!is_success);
    }

    // The first build pays, and the program contains the clip.
    assert_eq!(package.build(Some(&server)), (COMMIT.to_owned(), false));
    assert_eq!((server.posts(), package.clip()), (1, CLIP.to_vec()));
    let size = CLIP.len();
    let shown = "Name a file to write it to.";
    let shown = format!("This program contains a video of {size} bytes. {shown}\n");
    // The next one finds it finished: neither script nor compiler runs. Cargo warns again.
    let sent = server.requests();
    assert_eq!(package.build(None), (COMMIT.to_owned(), true));
    assert_eq!(package.run(&["run", "--quiet"]), shown);
    let out = package.path("out.mp4").display().to_string();
    let written = format!("{out} is written, {size} bytes.\n");
    assert_eq!(package.run(&["run", "--quiet", "--", &out]), written);
    assert_eq!(fs::read(out).unwrap(), CLIP);
    // So do all later ones, without key or network.
    package.run(&["clean", "--quiet", "--package", "build-script"]);
    assert_eq!(package.build(None), not_fresh);
    assert_eq!(package.build(None), fresh);
    assert_eq!(server.requests(), sent);

    // A clip that was deleted is downloaded again, and not paid again. Git ignores it here.
    fs::write(package.path(".gitignore"), "*.mp4\n").unwrap();
    fs::remove_file(package.path("assets/intro.mp4")).unwrap();
    let ignored = "warning: build-script@0.1.0: git ignores assets/intro.mp4: correct .gitignore \
                   first\n";
    let told = format!("{COMMIT}{ignored}");
    assert_eq!(package.build(Some(&server)), (told, false));
    assert_eq!((server.posts(), package.clip()), (1, CLIP.to_vec()));

    // Another prompt is another clip, which does not replace the first one unasked. Its own is
    // found again.
    package.edit("clip.rs", "A paper", "A red paper");
    let (is_success, _, told) = package.cargo(&["build"], Some(&server));
    let what = r#"there is the video of another request, "A paper boat sails down"#;
    assert!(!is_success && told.contains(what), "{told}");
    package.edit("clip.rs", "A red paper", "A paper");
    assert_eq!(package.build(None), not_fresh);
    assert_eq!(server.posts(), 1);

    // No place for it that `cargo clean` empties.
    package.edit(
        "clip.rs",
        "new(PATH,",
        r#"new(std::env::var("OUT_DIR").unwrap() + "/a.mp4","#,
    );
    let (is_success, _, told) = package.cargo(&["build"], Some(&server));
    assert!(!is_success && told.contains("is in OUT_DIR"), "{told}");
    assert_eq!(server.posts(), 1);
}

#[test]
fn the_second_way_pays_once_and_compiles_without_this_crate() {
    let package = Package::new("second_way");
    let server = Server::start();
    fs::remove_file(package.path("build.rs")).unwrap();
    let manifest = fs::read_to_string(package.path("Cargo.toml")).unwrap();
    let (start, rest) = manifest.split_once("[build-dependencies]").unwrap();
    let (_, end) = rest.split_once("[dev-dependencies]").unwrap();
    let manifest = format!("{start}[dev-dependencies]{end}");
    fs::write(package.path("Cargo.toml"), manifest).unwrap();
    for _ in 0..2 {
        let make = ["run", "--quiet", "--example", "make_clip"];
        let (is_success, stdout, told) = package.cargo(&make, Some(&server));
        let shown = "Commit assets/intro.mp4 and assets/intro.mp4.receipt.json.\n";
        assert_eq!((is_success, &*stdout, &*told), (true, shown, ""));
        assert_eq!((server.posts(), package.clip()), (1, CLIP.to_vec()));
    }
    let tree = package.run(&["tree", "--quiet", "--edges", "normal,build"]);
    assert_eq!(tree.lines().count(), 1, "{tree}");
    assert_eq!(package.build(None), (String::new(), false));
}
