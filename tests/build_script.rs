//! The package in `examples/build_script`, really built, with a simulator that completes at the
//! first poll.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use aimlapi_video::simulator::{CLIP, Poll, Simulator};

/// A copy of the package that depends on this crate.
struct Package(PathBuf);

impl Package {
    fn new(root: &Path) -> Self {
        let package = Package(root.join("package"));
        let _ = fs::remove_dir_all(&package.0);
        fs::create_dir_all(package.0.join("src")).unwrap();
        let this = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in ["Cargo.toml", "build.rs", "src/main.rs"] {
            let mut text =
                fs::read_to_string(this.join("examples/build_script").join(name)).unwrap();
            if name == "Cargo.toml" {
                let path = format!("path = '{}'", this.display());
                assert!(text.contains(r#"path = "../..""#), "{text}");
                text = text.replace(r#"path = "../..""#, &path);
            }
            fs::write(package.0.join(name), text).unwrap();
        }
        // The versions that are downloaded already.
        fs::copy(this.join("Cargo.lock"), package.0.join("Cargo.lock")).unwrap();
        package
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn cargo(&self, arguments: &[&str], simulator: Option<&Simulator>) -> Output {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(arguments)
            .arg("--offline")
            .current_dir(&self.0);
        command
            .env("CARGO_TARGET_DIR", self.0.with_file_name("target"))
            .env("CARGO_TERM_COLOR", "never");
        for name in [
            "AIMLAPI_KEY",
            "AIML_API_KEY",
            "AIMLAPI_API_KEY",
            "AIMLAPI_BASE_URL",
        ] {
            command.env_remove(name);
        }
        if let Some(simulator) = simulator {
            command
                .env("AIMLAPI_KEY", Simulator::KEY)
                .env("AIMLAPI_BASE_URL", simulator.base_url());
        }
        command.output().unwrap()
    }

    /// Builds, and returns whether Cargo had anything to do for it.
    fn build(&self, simulator: Option<&Simulator>) -> bool {
        let output = self.cargo(&["build", "--verbose"], simulator);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        !stderr.contains("Fresh build-script v0.1.0")
    }

    fn edit(&self, old: &str, new: &str) {
        let path = self.path("build.rs");
        let script = fs::read_to_string(&path).unwrap();
        assert!(script.contains(old));
        fs::write(path, script.replace(old, new)).unwrap();
    }

    fn clip(&self) -> Vec<u8> {
        fs::read(self.path("assets/intro.mp4")).unwrap()
    }
}

#[test]
fn a_build_script_pays_once() {
    let package = Package::new(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("build_script"));
    let simulator = Simulator::start().unwrap();
    simulator.script_polls([Poll::Complete]);

    // Without a key the build says what to do, and says it again.
    for _ in 0..2 {
        let output = package.cargo(&["build", "--quiet"], None);
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            "error: build-script@0.1.0: assets/intro.mp4: no API key: set AIMLAPI_KEY (or \
             AIML_API_KEY, or AIMLAPI_API_KEY) to your AI/ML API key; nothing was sent\n\
             error: build-script@0.1.0: The next build continues. It pays at most once.\n\
             error: build script logged errors\n"
        );
        assert!(!output.status.success());
    }

    // The first build pays, and the program contains the clip.
    let size = CLIP.len();
    assert!(package.build(Some(&simulator)));
    assert_eq!(simulator.charged(), 1);
    assert_eq!(package.clip(), CLIP);
    let output = package.cargo(&["run", "--quiet"], None);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("This program contains a video of {size} bytes. Name a file to write it to.\n")
    );
    let output = package.cargo(&["run", "--quiet", "--", "out.mp4"], None);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("out.mp4 is written, {size} bytes.\n")
    );
    assert_eq!(fs::read(package.path("out.mp4")).unwrap(), CLIP);

    // All later ones find it finished, without key or network.
    let sent = simulator.received().len();
    assert!(!package.build(None));
    let output = package.cargo(&["clean", "--package", "build-script"], None);
    assert!(output.status.success());
    assert!(package.build(None));
    assert!(!package.build(None));
    assert_eq!(simulator.received().len(), sent);

    // A clip that was deleted is downloaded again, and not paid again.
    fs::remove_file(package.path("assets/intro.mp4")).unwrap();
    assert!(package.build(Some(&simulator)));
    assert_eq!(package.clip(), CLIP);
    assert_eq!(simulator.charged(), 1);

    // Another prompt is another clip; the first prompt again is the first clip, which is paid.
    for (old, new) in [("A paper", "A red paper"), ("A red paper", "A paper")] {
        package.edit(old, new);
        assert!(package.build(Some(&simulator)));
        assert_eq!(simulator.charged(), 2);
    }

    // No place for it that `cargo clean` empties.
    package.edit(
        "VideoFile::new(CLIP,",
        r#"VideoFile::new(std::env::var("OUT_DIR").unwrap() + "/intro.mp4","#,
    );
    let output = package.cargo(&["build", "--quiet"], Some(&simulator));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("is in OUT_DIR"), "{stderr}");
    assert_eq!(simulator.charged(), 2);
}
