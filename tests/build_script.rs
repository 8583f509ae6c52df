//! The package in `examples/build_script`, really built, against a simulator that completes at the first poll.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use aimlapi_video::simulator::{CLIP, Simulator, Step};

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

    fn cargo(&self, arguments: &[&str], service: Option<&Simulator>) -> Output {
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
        if let Some(simulator) = service {
            command
                .env("AIMLAPI_KEY", Simulator::KEY)
                .env("AIMLAPI_BASE_URL", simulator.base_url());
        }
        command.output().unwrap()
    }

    /// Builds, and tells whether Cargo had anything to do for it.
    fn build(&self, service: Option<&Simulator>) -> bool {
        let output = self.cargo(&["build", "--verbose"], service);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        !stderr.contains("Fresh build-script v0.1.0")
    }

    fn clip(&self) -> Vec<u8> {
        fs::read(self.path("assets/intro.mp4")).unwrap()
    }
}

#[test]
fn a_build_script_pays_once() {
    let package = Package::new(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("build_script"));
    let simulator = Simulator::start().unwrap();
    simulator.script([Step::Complete]);

    // Without a key the build says what to do, and says it again.
    for _ in 0..2 {
        let output = package.cargo(&["build", "--quiet"], None);
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            "error: build-script@0.1.0: assets/intro.mp4 can't be made: no API key: set AIMLAPI_KEY (or AIML_API_KEY, \
             or AIMLAPI_API_KEY) to your AI/ML API key; nothing was sent\n\
             error: build-script@0.1.0: Mend that and build again: the build goes on where it stood, and pays at most \
             once.\n\
             error: build script logged errors\n"
        );
        assert!(!output.status.success());
    }

    // The first build pays, and the program carries the clip.
    assert!(package.build(Some(&simulator)));
    assert_eq!(simulator.charged(), 1);
    assert_eq!(package.clip(), CLIP);
    let output = package.cargo(&["run", "--quiet"], None);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "This program carries a video of 107081 bytes. Name a file to have it written there.\n"
    );
    let output = package.cargo(&["run", "--quiet", "--", "out.mp4"], None);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "out.mp4 is written, 107081 bytes.\n"
    );
    assert_eq!(fs::read(package.path("out.mp4")).unwrap(), CLIP);

    // The second finds nothing to do; a clean one needs neither key nor network.
    let sent = simulator.received().len();
    assert!(!package.build(Some(&simulator)));
    assert!(
        package
            .cargo(&["clean", "--package", "build-script"], None)
            .status
            .success()
    );
    assert!(package.build(None));
    assert!(!package.build(None));
    assert_eq!(simulator.received().len(), sent);

    // A clip that was deleted is fetched again, and not paid again.
    fs::remove_file(package.path("assets/intro.mp4")).unwrap();
    assert!(package.build(Some(&simulator)));
    assert_eq!(package.clip(), CLIP);
    assert_eq!(simulator.charged(), 1);
    assert!(!package.build(None));

    // Another prompt is another clip.
    let script = fs::read_to_string(package.path("build.rs")).unwrap();
    fs::write(
        package.path("build.rs"),
        script.replace("A paper boat", "A red paper boat"),
    )
    .unwrap();
    assert!(package.build(Some(&simulator)));
    assert_eq!(simulator.charged(), 2);
    assert!(!package.build(None));
}
