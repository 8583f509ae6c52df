//! One process works at a file at a time; and what is in its way is neither followed nor waited for.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io, thread, time::Duration};

use aimlapi_video::{Attempt, ClientBuilder, Error, Progress, VideoFile, VideoRequest};

use crate::download::PAID;
use crate::service::{Service, video};
use crate::support::*;
use crate::video_file::World;

impl World {
    pub(crate) fn make(&self, file: &VideoFile) -> Result<Attempt, Error> {
        file.generate(&self.service.client(), |_| {})
    }

    /// Makes a video file, and does this in between: while its lock is held, and once its id is known.
    pub(crate) fn make_and(&self, file: &VideoFile, act: impl FnOnce()) -> Result<Attempt, Error> {
        file.generate(&self.service.client(), once(act))
    }

    /// The attempt of the request A.
    pub(crate) fn attempt(&self) -> Attempt {
        self.file("A").attempt().unwrap().expect("no attempt")
    }

    /// What an error says, with the file's path as PATH.
    pub(crate) fn text(&self, error: &Error) -> String {
        let path = self.path().display().to_string();
        error.to_string().replace(&path, "PATH")
    }

    /// This test in a process that is set to use the service, with the path as its task.
    pub(crate) fn child(&self, test: &str) -> Command {
        let mut command = child(test, self.path().to_str().unwrap());
        command.env("AIMLAPI_BASE_URL", self.service.base_url());
        command.env("AIMLAPI_KEY", KEY);
        command
    }
}

/// In such a process: makes the video, and prints its id, or the error.
pub(crate) fn run_child(path: &str) {
    let client = ClientBuilder::from_env().unwrap();
    let client = client.poll_interval(Duration::from_millis(1)).build();
    let file = VideoFile::new(path, VideoRequest::new("A"));
    let made = file.generate(&client.unwrap(), |_| {});
    let shown = made.map(|attempt| attempt.generation_id.unwrap());
    println!("<{}>", shown.unwrap_or_else(|error| error.to_string()));
}

#[test]
fn several_processes_pay_once() {
    if let Some(path) = child_task() {
        return run_child(&path);
    }
    let world = World::new();
    let run = || child_report(world.child("locks::several_processes_pay_once"));
    let ids = thread::scope(|scope| {
        let runs = [(); 4].map(|()| scope.spawn(run));
        runs.map(|run| run.join().unwrap())
    });
    assert_eq!(ids, ["gen:1"; 4]);
    world.tell("offline A is there; sent 1");
}

#[test]
fn threads_with_two_requests_pay_once_for_each() {
    let world = &World::new();
    thread::scope(|scope| {
        for prompt in ["A", "B", "A", "B"] {
            let file = world.file(prompt).allow_replace(true);
            scope.spawn(move || world.make(&file).unwrap());
        }
    });
    world.tell("sent 2");
}

#[test]
fn a_held_lock_is_waited_for_no_longer_than_poll_timeout_and_never_by_give_up() {
    let (world, mut errors) = (World::new(), None);
    let holder = world.make_and(&world.file("A"), || {
        let waited = world.file("A").generate(&world.hasty(), |_| {});
        errors = Some([waited.map(drop), world.file("A").give_up()].map(Result::unwrap_err));
        #[cfg(unix)]
        assert_eq!(mode(&world.folder.path("v.mp4.lock")), 0o600);
    });
    holder.unwrap();
    let held = "PATH: another process or thread holds its lock, PATH.lock";
    let waited = format!("{held}; nothing was sent. {PAID}");
    for (error, text) in errors.unwrap().into_iter().zip([&*waited, held]) {
        assert_eq!(world.text(&error), text);
        assert!(error.may_be_charged());
        let Error::File { cause, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(cause.kind(), io::ErrorKind::WouldBlock);
    }
    world.tell("A is there; sent 1");
}

#[cfg(target_os = "linux")]
#[test]
fn a_lock_that_is_deleted_while_its_holder_connects_stops_the_payment() {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    // A listener that is full: a connection to it waits until another is accepted.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = socket2::SockRef::from(&listener);
    socket.listen(0).unwrap();
    let longest = Some(Duration::from_secs(20));
    socket.set_read_timeout(longest).unwrap();
    let address = listener.local_addr().unwrap();
    let _filling = TcpStream::connect(address).unwrap();

    let world = World::new();
    let lock = world.folder.path("v.mp4.lock");
    let client = builder(format!("http://{address}/v2")).build().unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| world.file("A").generate(&client, |_| {}));
        // Until it has sent a SYN: the state 02.
        let connecting = format!(":{:04X} 02 ", address.port());
        while !fs::read_to_string("/proc/net/tcp")
            .unwrap()
            .contains(&connecting)
        {
            assert!(!first.is_finished());
            thread::yield_now();
        }
        fs::remove_file(&lock).unwrap();
        world.tell("A saves");

        drop(listener.accept().unwrap());
        let (mut connection, _) = listener.accept().unwrap();
        let mut sent = String::new();
        connection.read_to_string(&mut sent).unwrap();
        assert!(sent.starts_with("POST "), "{sent}");
        assert!(!sent.contains("prompt"), "{sent}");
        let error = first.join().unwrap().unwrap_err();
        let text = "PATH: another process works at this file, although this one held the lock; \
                    nothing was sent here. Run this again";
        assert_eq!(world.text(&error), text);
        assert!(error.may_be_charged());
    });
    world.tell("offline A is there; sent 1");
}

#[cfg(unix)]
#[test]
fn a_lock_that_is_deleted_while_its_holder_waits_loses_no_entry() {
    let world = World::new();
    let first = world.file("A").allow_replace(true);
    let error = world.make_and(&first, || {
        fs::remove_file(world.folder.path("v.mp4.lock")).unwrap();
        world.tell("replacing B saves");
    });
    let text = format!("PATH.receipt.json: PATH.lock was deleted by another program. {PAID}");
    assert_eq!(world.text(&error.unwrap_err()), text);
    world.tell("B is there; receipt [Completed, Completed]");
    world.tell("replacing A saves; replacing B saves; sent 2");
}

#[cfg(unix)]
#[test]
fn a_lock_that_is_deleted_once_the_entry_is_written_leaves_no_dead_end() {
    for _ in 0..30 {
        let world = World::new();
        thread::scope(|scope| {
            let run = scope.spawn(|| world.generate("A"));
            while !world.receipt_path().exists() && !run.is_finished() {
                thread::yield_now();
            }
            let _ = fs::remove_file(world.folder.path("v.mp4.lock"));
        });
        world.tell("A saves; sent 1");
    }
}

#[test]
fn a_file_that_is_being_replaced_is_not_claimed_for_the_old_request() {
    let world = World::new();
    world.tell("A saves");
    let in_the_way = world.folder.path("v.mp4.receipt.json.part");
    let file = world.file("B").allow_replace(true);
    let replaced = file.generate(&world.service.client(), |progress| {
        if matches!(progress, Progress::Download { .. }) {
            let _ = fs::create_dir(&in_the_way);
        }
    });
    assert_eq!(replaced.unwrap_err().generation_id(), Some("gen:2"));
    fs::remove_dir(&in_the_way).unwrap();
    // All videos have the same size, so that only the receipt can tell them apart.
    let is_of_a = fs::read(world.path()).unwrap() == video("gen:1");
    assert_eq!(world.file("A").is_current().unwrap(), is_of_a);
    world.tell("replacing B saves; sent 2");
}

#[test]
fn a_place_of_the_wrong_kind_is_refused_before_paying() {
    let empty = r#"{"version": 3, "attempts": []}"#;
    for suffix in ["", ".part", ".lock", ".receipt.json", ".receipt.json.part"] {
        for trap in TRAPS {
            let (world, name) = (World::new(), format!("v.mp4{suffix}"));
            let [precious, place] = ["precious", &name].map(|name| world.folder.path(name));
            fs::write(&precious, empty).unwrap();
            trap(&place);
            let error = world.generate("A").expect_err(&name);
            let is_named = error.to_string().contains(place.to_str().unwrap());
            assert!(is_named && matches!(error, Error::File { .. }), "{error}");
            if !place.is_symlink() {
                let is_opened = matches!(suffix, "" | ".receipt.json");
                assert_eq!(world.file("A").is_current().is_err(), is_opened, "{name}");
            }
            assert_eq!(fs::read_to_string(precious).unwrap(), empty, "{name}");
            assert_eq!(world.folder.names(), ["precious", &name]);
            world.tell("sent 0");
        }
    }
    for path in ["", "..", "folder/"] {
        let file = VideoFile::new(path, VideoRequest::new("A"));
        let text = format!("{path}: is not the name of a file; nothing was sent");
        assert_eq!(World::new().make(&file).unwrap_err().to_string(), text);
    }
}

/// Where a pipe is swapped in between a look and an opening, only the lock and the part do not wait.
#[cfg(unix)]
#[test]
fn what_is_swapped_in_while_it_works_is_not_followed_and_holds_up_nothing() {
    for (suffix, kinds) in [("", 1), (".lock", 2), (".part", 2)] {
        let (world, baits, is_over) = (World::new(), Folder::new(), AtomicBool::new(false));
        let [link, pipe, elsewhere] = ["link", "pipe", "elsewhere"].map(|name| baits.path(name));
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        make_pipe(&pipe);
        let place = world.folder.path(&format!("v.mp4{suffix}"));
        let swap = || {
            for bait in [&link, &pipe][..kinds].iter().cycle() {
                let _ = fs::hard_link(bait, &place);
                thread::yield_now();
                let _ = fs::remove_file(&place);
                if is_over.load(Ordering::SeqCst) {
                    break;
                }
            }
        };
        let builder = world.service.builder();
        let builder = builder.poll_timeout(Duration::from_millis(100));
        let client = builder.build().unwrap();
        thread::scope(|scope| {
            scope.spawn(swap);
            for _ in 0..200 {
                let _ = world.file("A").generate(&client, |_| {});
                let _ = fs::remove_file(world.path());
            }
            is_over.store(true, Ordering::SeqCst);
        });
        assert!(!elsewhere.exists(), "{suffix}");
        world.tell("A saves; sent 1");
    }
}

#[cfg(unix)]
#[test]
fn a_path_in_a_text_is_one_line() {
    let (world, name) = (World::new(), "v\n\u{202e}cargo::warning=x");
    let file = VideoFile::new(world.folder.path(name), VideoRequest::new("A"));
    for suffix in ["", ".part", ".lock", ".receipt.json"] {
        let there = world.folder.path(&format!("{name}{suffix}"));
        fs::create_dir(&there).unwrap();
        let text = world.make(&file).unwrap_err().to_string();
        assert!(text.contains("v cargo::warning=x"), "{text}");
        assert!(!text.contains(['\n', '\u{202e}']), "{text}");
        fs::remove_dir(&there).unwrap();
    }
}

/// With each number of file descriptors, it works, or fails in a way that a later run recovers.
#[cfg(target_os = "linux")]
#[test]
fn no_file_descriptor_left_is_no_dead_end() {
    if let Some(path) = child_task() {
        return run_child(&path);
    }
    let mut saved = 0;
    for limit in 3..20 {
        let world = World::new();
        let test = world.child("locks::no_file_descriptor_left_is_no_dead_end");
        let limit = format!("ulimit -n {limit}");
        let mut limited = in_shell(&["sh"], &limit, &world.path(), &test);
        let output = stdout(&limited.output().unwrap());
        saved += usize::from(output.contains("<gen:1>"));
        world.tell("A saves; sent 1");
    }
    assert!((1..17).contains(&saved), "{saved}");
}

/// A small file system of this test's own, which is full from when the request has come until the
/// run has ended.
#[cfg(target_os = "linux")]
#[test]
fn no_space_and_no_inode_left_when_the_response_names_the_id_loses_nothing() {
    let test = "locks::no_space_and_no_inode_left_when_the_response_names_the_id_loses_nothing";
    if let Some(path) = child_task() {
        let service = Service::start();
        let fill = Path::new(&path).with_file_name("fill");
        fs::create_dir(&fill).unwrap();
        let filling = fill.clone();
        service.script().on_post = Some(Box::new(move || {
            let fails = |n: u32| fs::write(filling.join(n.to_string()), [0; 4096]).is_err();
            assert!((0..1000).any(fails));
        }));
        let file = VideoFile::new(path, VideoRequest::new("A"));
        let error = file.generate(&service.client(), |_| {}).unwrap_err();
        assert_eq!(error.generation_id(), Some("gen:1"), "{error}");
        fs::remove_dir_all(fill).unwrap();
        file.generate(&service.client(), |_| {}).unwrap();
        return println!("<{error}; sent {}>", service.posts());
    }
    for limit in ["size=64k", "nr_inodes=12"] {
        let folder = Folder::new();
        let path = folder.path("v.mp4");
        let mount = format!("mount -t tmpfs -o {limit} none \"$(dirname \"$0\")\" || exit 77");
        let test = child(test, path.to_str().unwrap());
        let mut limited = in_shell(&["unshare", "--mount", "sh"], &mount, &path, &test);
        let output = limited.output().unwrap();
        let text = stdout(&output) + &stderr(&output);
        if text.contains("running 1 test") {
            assert!(output.status.success(), "{text}");
            assert!(text.contains("os error 28"), "{text}");
            assert!(text.contains("; sent 1>"), "{text}");
        } else {
            println!("skipped: it needs root, and unshare");
        }
    }
}

#[cfg(windows)]
#[test]
fn a_file_that_a_player_holds_open_is_an_error_that_keeps_the_id() {
    use std::os::windows::fs::OpenOptionsExt;
    const FILE_SHARE_READ: u32 = 1;
    let world = World::new();
    world.tell("A saves; file longer");
    let mut options = fs::OpenOptions::new();
    let player = options.read(true).share_mode(FILE_SHARE_READ);
    let player = player.open(world.path()).unwrap();
    let replaced = world.make(&world.file("B").allow_replace(true));
    let error = replaced.unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    assert_eq!(error.generation_id(), Some("gen:2"));
    assert!(world.text(&error).starts_with("PATH"), "{error}");
    assert_eq!(world.folder.names(), ["v.mp4", "v.mp4.receipt.json"]);
    drop(player);
    world.tell("replacing B saves; sent 2");
}

#[cfg(windows)]
#[test]
fn a_lock_can_not_be_deleted_and_is_gone_afterwards() {
    let (world, mut tries) = (World::new(), 0);
    let made = world.file("A").generate(&world.service.client(), |_| {
        assert!(fs::remove_file(world.folder.path("v.mp4.lock")).is_err());
        tries += 1;
    });
    made.unwrap();
    assert!(tries > 0);
    world.tell("A is there; sent 1");
}
