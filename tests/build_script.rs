//! The package in `examples/build_script`, really built, also in the copies of it that cargo makes.
//! The copies need packages of the registry: without it, they are skipped, and a line says so.

#[allow(dead_code)]
#[path = "it/service.rs"]
mod service;
#[allow(dead_code)]
#[path = "it/support.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use service::{Service, video};
use support::{KEY, stderr, stdout};

const CLIP: &str = "assets/intro.mp4";

/// Folders of packages, with a target folder that stays from run to run.
struct Folder(PathBuf);

impl Folder {
    /// With a copy of the package, which depends on this crate by its path.
    fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(root.join("work"));
        let folder = Folder(root);
        let this = Path::new(env!("CARGO_MANIFEST_DIR"));
        let dependency = format!("path = '{}', version = '0.1.0'", this.display());
        let names = "Cargo.toml build.rs clip.rs src/main.rs examples/make_clip.rs";
        for name in names.split(' ') {
            let text = fs::read_to_string(this.join("examples/build_script").join(name)).unwrap();
            let text = text.replace(r#"path = "../..""#, &dependency);
            folder.write(&format!("package/{name}"), &text);
        }
        // The versions that are downloaded already.
        fs::copy(this.join("Cargo.lock"), folder.path("package/Cargo.lock")).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join("work").join(name)
    }

    fn clip(&self) -> PathBuf {
        self.path("package").join(CLIP)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn edit(&self, name: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(old));
        self.write(name, &text.replace(old, new));
    }

    /// Runs a program in one of the folders, with the key of a service, or without one.
    fn run(&self, folder: &str, words: &str, service: Option<&Service>) -> Output {
        let (program, arguments) = words.split_once(' ').unwrap();
        let mut command = match program {
            "cargo" => Command::new(env!("CARGO")),
            _ => Command::new(program),
        };
        command
            .args(arguments.split(' '))
            .current_dir(self.path(folder));
        command.env("CARGO_TARGET_DIR", self.0.join("target"));
        command.env("CARGO_TERM_COLOR", "never");
        for name in "AIMLAPI_KEY AIML_API_KEY AIMLAPI_API_KEY AIMLAPI_BASE_URL".split(' ') {
            command.env_remove(name);
        }
        if let Some(service) = service {
            command.env("AIMLAPI_KEY", KEY);
            command.env("AIMLAPI_BASE_URL", service.base_url());
        }
        command.output().unwrap()
    }

    fn cargo(&self, arguments: &str, service: Option<&Service>) -> Output {
        self.run("package", &format!("cargo {arguments}"), service)
    }

    /// Builds the package, and returns whether cargo had anything to do for it.
    fn build(&self, service: Option<&Service>) -> bool {
        let output = self.cargo("build --offline --verbose", service);
        assert!(output.status.success(), "{}", stderr(&output));
        !stderr(&output).contains("Fresh build-script v0.1.0")
    }
}

fn says(output: &Output, text: &str) {
    let stderr = stderr(output);
    assert!(stderr.contains(text), "{stderr}");
}

/// What a build prints that the build script stopped.
fn stops(output: &Output, error: &str) {
    let text = format!(
        "error: build-script@0.1.0: {error}\n\
         error: build-script@0.1.0: The next build continues. It pays at most once.\n\
         error: build script logged errors\n"
    );
    says(output, &text);
    assert!(!output.status.success());
}

#[test]
fn a_build_script_pays_once() {
    let (folder, service) = (Folder::new("build_script"), Service::start());
    let quiet = |service| folder.cargo("build --offline --quiet", service);
    let paid = |posts, id: &str| {
        let clip = fs::read(folder.clip()).unwrap();
        assert_eq!((service.posts(), clip), (posts, video(id)));
    };

    // Without a key the build says what to do, and says it again.
    let no_key = "no API key: set AIMLAPI_KEY (or AIML_API_KEY, or AIMLAPI_API_KEY) to your AI/ML \
        API key. To try this without a key, run `cargo run --example simulator` in the folder of \
        aimlapi-video, and set what that prints; nothing was sent";
    for _ in 0..2 {
        stops(&quiet(None), no_key);
    }

    // The first build pays, says what to commit, and the program contains the clip.
    let output = folder.cargo("build --offline", Some(&service));
    let commit = format!("Paid for. Commit both: {CLIP}, {CLIP}.receipt.json");
    says(&output, &commit);
    paid(1, "gen:1");
    let size = video("").len();
    let run = |arguments| stdout(&folder.cargo(arguments, None));
    let usage =
        format!("This program contains a video of {size} bytes. Name a file to write it to.\n");
    assert_eq!(run("run --offline --quiet"), usage);
    let written = format!("out.mp4 is written, {size} bytes.\n");
    assert_eq!(run("run --offline --quiet -- out.mp4"), written);
    let out = fs::read(folder.path("package/out.mp4"));
    assert_eq!(out.unwrap(), video("gen:1"));

    // All later ones find it finished, without key or network, and have nothing to do.
    let sent = service.requests().len();
    assert!(!folder.build(None));
    folder.cargo("clean --offline --package build-script", None);
    assert!(folder.build(None));
    assert!(!folder.build(None));
    assert_eq!(service.requests().len(), sent);

    // A clip that was deleted is downloaded again, and not paid again.
    fs::remove_file(folder.clip()).unwrap();
    assert!(folder.build(Some(&service)));
    paid(1, "gen:1");

    // Another prompt stops the build, until the clip is deleted; then it is paid once.
    folder.edit("package/clip.rs", "A paper", "A red paper");
    let other = format!(
        "{CLIP}: there is the video of another request, \"A paper boat sails down a rain gutter, \
         seen from just above the water\", which begins with \\x00\\x00\\x00\\x14ftypisom. Delete \
         it, or call allow_replace(true), and this request's video takes its place. `resume ID \
         FILE` saves a video elsewhere; nothing was sent"
    );
    stops(&quiet(Some(&service)), &other);
    paid(1, "gen:1");
    fs::remove_file(folder.clip()).unwrap();
    assert!(folder.build(Some(&service)));
    paid(2, "gen:2");

    // No place for it that `cargo clean` empties.
    let out_dir = r#"VideoFile::new(std::env::var("OUT_DIR").unwrap() + "/v.mp4","#;
    folder.edit("package/clip.rs", "VideoFile::new(PATH,", out_dir);
    says(&quiet(Some(&service)), "is in OUT_DIR");
    assert_eq!(service.posts(), 2);

    // The second way: no build script, and no dependency of those who build the program.
    folder.edit("package/clip.rs", out_dir, "VideoFile::new(PATH,");
    fs::remove_file(folder.path("package/build.rs")).unwrap();
    fs::remove_file(folder.clip()).unwrap();
    let manifest = fs::read_to_string(folder.path("package/Cargo.toml")).unwrap();
    let (start, rest) = manifest.split_once("[build-dependencies]").unwrap();
    let (_, end) = rest.split_once("[dev-dependencies]").unwrap();
    let manifest = format!("{start}[dev-dependencies]{end}");
    folder.write("package/Cargo.toml", &manifest);
    // Also from another folder.
    let make = "cargo run --offline --quiet --example make_clip";
    let output = folder.run("package/src", make, Some(&service));
    let commit = format!("Commit {CLIP} and {CLIP}.receipt.json.\n");
    assert_eq!(stdout(&output), commit, "{}", stderr(&output));
    paid(2, "gen:2");
    let tree = run("tree --offline --edges normal,build");
    assert_eq!(tree.lines().count(), 1, "{tree}");
    assert!(folder.build(None));
}

/// With a key, and a clip that git ignores; and then with one that is committed.
#[cfg(unix)]
#[test]
fn the_copies_that_cargo_makes_pay_nothing() {
    let (folder, service) = (Folder::new("copies"), Service::start());
    folder.write("package/src/lib.rs", "");
    folder.write("package/.gitignore", "/assets\n");
    let git = |arguments: &str| {
        let output = folder.run("package", &format!("git {arguments}"), None);
        assert!(output.status.success(), "{}", stderr(&output));
    };
    git("init --quiet");

    // A home of cargo's, so that its checkouts are not the user's.
    let home = env::home_dir().unwrap().join(".cargo");
    let home = env::var_os("CARGO_HOME").map_or(home, PathBuf::from);
    let this = env!("CARGO_MANIFEST_DIR");
    let patch = format!("[patch.crates-io]\naimlapi-video = {{ path = '{this}' }}\n");
    folder.write("home/config.toml", &patch);
    std::os::unix::fs::symlink(home.join("registry"), folder.path("home/registry")).unwrap();
    let home = folder.path("home");
    let cargo = format!("env CARGO_HOME={} {}", home.display(), env!("CARGO"));
    let cargo = |name: &str, arguments: &str| {
        folder.run(name, &format!("{cargo} {arguments}"), Some(&service))
    };
    let is_skipped = |output: &Output| {
        if !output.status.success() {
            println!("skipped, since it needs the registry: {}", stderr(output));
        }
        !output.status.success()
    };
    let manifest = format!(
        "[package]\nname = 'user'\nedition = '2024'\n[workspace]\n[dependencies]\n\
         build-script = {{ git = 'file://{}' }}\n",
        folder.path("package").display()
    );
    folder.write("user/Cargo.toml", &manifest);
    folder.write("user/src/main.rs", "fn main() {}");

    let output = folder.cargo("build --offline", Some(&service));
    for file in [CLIP, &format!("{CLIP}.receipt.json")] {
        let ignored = format!("git ignores {file}: correct .gitignore first");
        says(&output, &ignored);
    }
    for is_committed in [false, true] {
        let ends = |output: &Output, marker: &str| {
            let text = stderr(output);
            let copy = "is in a copy of the project that cargo made (";
            let error = format!("build-script@0.1.0: {CLIP}: {copy}");
            let reason = format!("{marker} says so), where each build would pay");
            let is_refused = text.contains(&error) && text.contains(&reason);
            let ended = (output.status.success(), is_refused);
            assert_eq!(ended, (is_committed, !is_committed), "{marker}: {text}");
        };
        if is_committed {
            fs::remove_file(folder.path("package/.gitignore")).unwrap();
        }
        git("add --all");
        git("-c user.name=A -c user.email=a@example.com commit --quiet --message x");

        let packaged = cargo("package", "package --offline --allow-dirty");
        ends(&packaged, "/Cargo.toml.orig");

        let lock = folder.path("user/Cargo.lock");
        fs::copy(folder.path("package/Cargo.lock"), &lock).unwrap();
        if is_skipped(&cargo("user", "fetch")) {
            continue;
        }
        ends(&cargo("user", "build --offline"), "/.cargo-ok");

        let vendored = cargo("user", "vendor");
        if is_skipped(&vendored) {
            continue;
        }
        folder.write("user/.cargo/config.toml", &stdout(&vendored));
        let built = cargo("user", "build --offline");
        ends(&built, "/build-script/.cargo-checksum.json");
        fs::remove_dir_all(folder.path("user/.cargo")).unwrap();
        fs::remove_dir_all(folder.path("user/vendor")).unwrap();
    }
    assert_eq!(service.posts(), 1);
}
