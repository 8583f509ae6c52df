//! The package in `examples/build_script`, really built, also in the copies of it that cargo makes.
//! The copies need packages of the registry: without it, they are skipped, and a line says so.

#[allow(dead_code)]
#[path = "it/service.rs"]
mod service;
#[allow(dead_code)]
#[path = "it/support.rs"]
mod support;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

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
        let example = this.join("examples/build_script");
        for name in [
            "Cargo.toml",
            "build.rs",
            "clip.rs",
            "src/main.rs",
            "examples/make_clip.rs",
        ] {
            let text = fs::read_to_string(example.join(name)).unwrap();
            let dependency = format!("path = '{}', version = '0.1.0'", this.display());
            folder.write(
                &format!("package/{name}"),
                &text.replace(r#"path = "../..""#, &dependency),
            );
        }
        // The versions that are downloaded already.
        fs::copy(this.join("Cargo.lock"), folder.path("package/Cargo.lock")).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join("work").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn run(
        &self,
        program: &str,
        folder: &str,
        arguments: &str,
        service: Option<&Service>,
    ) -> Output {
        let mut command = Command::new(program);
        command
            .args(arguments.split(' '))
            .current_dir(self.path(folder));
        command.env("CARGO_TARGET_DIR", self.0.join("target"));
        command.env("CARGO_TERM_COLOR", "never");
        for name in [
            "AIMLAPI_KEY",
            "AIML_API_KEY",
            "AIMLAPI_API_KEY",
            "AIMLAPI_BASE_URL",
        ] {
            command.env_remove(name);
        }
        if let Some(service) = service {
            command.env("AIMLAPI_KEY", KEY);
            command.env("AIMLAPI_BASE_URL", service.base_url());
        }
        command.output().unwrap()
    }

    fn cargo(&self, folder: &str, arguments: &str, service: Option<&Service>) -> Output {
        self.run(env!("CARGO"), folder, arguments, service)
    }

    /// Builds the package, and returns whether cargo had anything to do for it.
    fn build(&self, service: Option<&Service>) -> bool {
        let output = self.cargo("package", "build --offline --verbose", service);
        assert!(output.status.success(), "{}", stderr(&output));
        !stderr(&output).contains("Fresh build-script v0.1.0")
    }

    fn edit(&self, name: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(old));
        self.write(name, &text.replace(old, new));
    }

    fn clip(&self) -> Vec<u8> {
        fs::read(self.path("package").join(CLIP)).unwrap()
    }
}

/// What a build prints that the build script stopped.
fn stops(output: &Output, error: &str) {
    let text = format!(
        "error: build-script@0.1.0: {error}\n\
         error: build-script@0.1.0: The next build continues. It pays at most once.\n\
         error: build script logged errors\n"
    );
    assert!(stderr(output).contains(&text), "{}", stderr(output));
    assert!(!output.status.success());
}

#[test]
fn a_build_script_pays_once() {
    let (folder, service) = (Folder::new("build_script"), Service::start());
    let quiet = |service| folder.cargo("package", "build --offline --quiet", service);

    // Without a key the build says what to do, and says it again.
    for _ in 0..2 {
        stops(
            &quiet(None),
            "no API key: set AIMLAPI_KEY (or AIML_API_KEY, or AIMLAPI_API_KEY) to \
            your AI/ML API key. To try this without a key, run `cargo run --example simulator` in \
            the folder of aimlapi-video, and set what that prints; nothing was sent",
        );
    }

    // The first build pays, says what to commit, and the program contains the clip.
    let output = folder.cargo("package", "build --offline", Some(&service));
    let says = format!("Paid for. Commit both: {CLIP}, {CLIP}.receipt.json");
    assert!(stderr(&output).contains(&says), "{}", stderr(&output));
    assert_eq!((service.posts(), folder.clip()), (1, video("gen:1")));
    let size = video("").len();
    let run = |arguments| stdout(&folder.cargo("package", arguments, None));
    assert_eq!(
        run("run --offline --quiet"),
        format!("This program contains a video of {size} bytes. Name a file to write it to.\n")
    );
    let written = run("run --offline --quiet -- out.mp4");
    assert_eq!(written, format!("out.mp4 is written, {size} bytes.\n"));
    assert_eq!(
        fs::read(folder.path("package/out.mp4")).unwrap(),
        video("gen:1")
    );

    // All later ones find it finished, without key or network, and have nothing to do.
    let sent = service.requests().len();
    assert!(!folder.build(None));
    folder.cargo("package", "clean --offline --package build-script", None);
    assert!(folder.build(None));
    assert!(!folder.build(None));
    assert_eq!(service.requests().len(), sent);

    // A clip that was deleted is downloaded again, and not paid again.
    fs::remove_file(folder.path("package").join(CLIP)).unwrap();
    assert!(folder.build(Some(&service)));
    assert_eq!((service.posts(), folder.clip()), (1, video("gen:1")));

    // Another prompt stops the build, until the clip is deleted; then it is paid once.
    folder.edit("package/clip.rs", "A paper", "A red paper");
    stops(
        &quiet(Some(&service)),
        &format!(
            "{CLIP}: there is the video of another request, \"A paper boat sails down \
        a rain gutter, seen from just above the water\", which begins with \\x00\\x00\\x00\\x14ftypisom. Delete it, or \
        call allow_replace(true), and this request's video takes its place. `resume ID FILE` saves a video \
        elsewhere; nothing was sent"
        ),
    );
    assert_eq!((service.posts(), folder.clip()), (1, video("gen:1")));
    fs::remove_file(folder.path("package").join(CLIP)).unwrap();
    assert!(folder.build(Some(&service)));
    assert_eq!((service.posts(), folder.clip()), (2, video("gen:2")));

    // No place for it that `cargo clean` empties.
    let out_dir = r#"VideoFile::new(std::env::var("OUT_DIR").unwrap() + "/v.mp4","#;
    folder.edit("package/clip.rs", "VideoFile::new(PATH,", out_dir);
    let output = quiet(Some(&service));
    assert!(
        stderr(&output).contains("is in OUT_DIR"),
        "{}",
        stderr(&output)
    );
    assert_eq!(service.posts(), 2);

    // The second way: no build script, and no dependency of those who build the program.
    folder.edit("package/clip.rs", out_dir, "VideoFile::new(PATH,");
    for name in ["package/build.rs", "package/assets/intro.mp4"] {
        fs::remove_file(folder.path(name)).unwrap();
    }
    let manifest = fs::read_to_string(folder.path("package/Cargo.toml")).unwrap();
    let (start, rest) = manifest.split_once("[build-dependencies]").unwrap();
    let (_, end) = rest.split_once("[dev-dependencies]").unwrap();
    folder.write(
        "package/Cargo.toml",
        &format!("{start}[dev-dependencies]{end}"),
    );
    // Also from another folder.
    let make = "run --offline --quiet --example make_clip";
    let output = folder.cargo("package/src", make, Some(&service));
    let says = format!("Commit {CLIP} and {CLIP}.receipt.json.\n");
    assert_eq!(stdout(&output), says, "{}", stderr(&output));
    assert_eq!((service.posts(), folder.clip()), (2, video("gen:2")));
    assert_eq!(
        run("tree --offline --edges normal,build").lines().count(),
        1
    );
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
        let output = folder.run("git", "package", arguments, None);
        assert!(output.status.success(), "{}", stderr(&output));
    };
    git("init --quiet");

    // A home of cargo's, so that its checkouts are not the user's.
    let home = env::home_dir().unwrap().join(".cargo");
    let home = env::var_os("CARGO_HOME").map_or(home, PathBuf::from);
    let patch = format!(
        "aimlapi-video = {{ path = '{}' }}",
        env!("CARGO_MANIFEST_DIR")
    );
    folder.write("home/config.toml", &format!("[patch.crates-io]\n{patch}\n"));
    std::os::unix::fs::symlink(home.join("registry"), folder.path("home/registry")).unwrap();
    let cargo = |name: &str, arguments: &str| {
        let home = folder.path("home").display().to_string();
        let arguments = format!("CARGO_HOME={home} {} {arguments}", env!("CARGO"));
        folder.run("env", name, &arguments, Some(&service))
    };
    let is_skipped = |output: &Output| {
        let text = stderr(output);
        if !output.status.success() {
            println!("skipped, since it needs the registry: {text}");
        }
        !output.status.success()
    };
    let package = folder.path("package").display().to_string();
    folder.write(
        "user/Cargo.toml",
        &format!(
            "[package]\nname = 'user'\nedition = '2024'\n[workspace]\n[dependencies]\n\
             build-script = {{ git = 'file://{package}' }}\n"
        ),
    );
    folder.write("user/src/main.rs", "fn main() {}");

    let output = folder.cargo("package", "build --offline", Some(&service));
    for file in [CLIP, &format!("{CLIP}.receipt.json")] {
        let says = format!("git ignores {file}: correct .gitignore first");
        assert!(stderr(&output).contains(&says), "{}", stderr(&output));
    }
    for is_committed in [false, true] {
        let ends = |output: &Output, marker: &str| {
            let text = stderr(output);
            let error = format!(
                "build-script@0.1.0: {CLIP}: is in a copy of the project that cargo made ("
            );
            let says = format!("{marker} says so), where each build would pay");
            let is_refused = text.contains(&error) && text.contains(&says);
            let ended = (output.status.success(), is_refused);
            assert_eq!(ended, (is_committed, !is_committed), "{marker}: {text}");
        };
        if is_committed {
            fs::remove_file(folder.path("package/.gitignore")).unwrap();
        }
        git("add --all");
        git("-c user.name=A -c user.email=a@example.com commit --quiet --message x");

        ends(
            &cargo("package", "package --offline --allow-dirty"),
            "/Cargo.toml.orig",
        );

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
        ends(
            &cargo("user", "build --offline"),
            "/build-script/.cargo-checksum.json",
        );
        fs::remove_dir_all(folder.path("user/.cargo")).unwrap();
        fs::remove_dir_all(folder.path("user/vendor")).unwrap();
    }
    assert_eq!(service.posts(), 1);
}
