//! One process works at a file at a time; and what is in its way is neither followed nor waited for.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::{fs, io, thread, time::Duration};

use aimlapi_video::{ClientBuilder, Error, Progress, VideoFile, VideoRequest};

use crate::service::{Service, video};
use crate::support::{Folder, KEY, TRAPS, builder, child, child_task, once, stdout};
use crate::video_file::World;

/// This test in a process that is set to use the world's service, with the path as its task.
pub(crate) fn child_of(world: &World, test: &str) -> Command {
    let mut command = child(test, world.path().to_str().unwrap());
    command.env("AIMLAPI_BASE_URL", world.service.base_url());
    command.env("AIMLAPI_KEY", KEY);
    command
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

pub(crate) fn printed(child: Child) -> String {
    let output = stdout(&child.wait_with_output().unwrap());
    let printed = output.split(['<', '>']).nth(1);
    printed.unwrap_or_else(|| panic!("{output}")).to_owned()
}

#[test]
fn several_processes_pay_once() {
    if let Some(path) = child_task() {
        return run_child(&path);
    }
    let world = World::new();
    let start = |_| {
        let mut command = child_of(&world, "locks::several_processes_pay_once");
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let ids = [0; 4].map(start).map(printed);
    assert_eq!(ids, ["gen:1"; 4]);
    world.tell("offline A is there; sent 1");
}

#[test]
fn threads_with_two_requests_pay_once_for_each() {
    let world = World::new();
    thread::scope(|scope| {
        for prompt in ["A", "B", "A", "B"] {
            let file = world.file(prompt).allow_replace(true);
            let client = world.service.client();
            scope.spawn(move || file.generate(&client, |_| {}).unwrap());
        }
    });
    world.tell("sent 2");
}

#[test]
fn a_held_lock_is_waited_for_no_longer_than_poll_timeout_and_never_by_give_up() {
    let (world, mut errors) = (World::new(), None);
    // The callback runs while the file is locked.
    let holder = world.file("A").generate(&world.service.client(), |_| {
        errors.get_or_insert_with(|| {
            let waited = world.file("A").generate(&world.hasty(), |_| {});
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                let lock = world.folder.path("v.mp4.lock").metadata().unwrap();
                assert_eq!(lock.permissions().mode() & 0o777, 0o600);
            }
            [waited.map(drop), world.file("A").give_up()].map(Result::unwrap_err)
        });
    });
    holder.unwrap();
    let path = world.path().display().to_string();
    let text = format!("{path}: another process or thread holds its lock, {path}.lock");
    let [waited, give_up] = errors.unwrap();
    let id = ". Its generation is gen:1: trying again with that id costs nothing";
    assert_eq!(waited.to_string(), format!("{text}; nothing was sent{id}"));
    assert_eq!(give_up.to_string(), text);
    for error in [waited, give_up] {
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
    use socket2::{Domain, Socket, Type};
    use std::net::SocketAddr;

    // A listener that is full: a connection to it waits until another is accepted.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let _filling = std::net::TcpStream::connect(address).unwrap();

    let world = World::new();
    let lock = world.folder.path("v.mp4.lock");
    let client = builder(format!("http://{address}/v2")).build().unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| world.file("A").generate(&client, |_| {}));
        while !lock.exists() {
            assert!(!first.is_finished());
            thread::yield_now();
        }
        fs::remove_file(&lock).unwrap();
        world.tell("A saves");

        drop(listener.accept().unwrap());
        listener.set_nonblocking(true).unwrap();
        let mut connection = loop {
            match listener.accept() {
                Ok((connection, _)) => break connection,
                Err(_) => assert!(!first.is_finished(), "too slow to connect"),
            }
            thread::sleep(Duration::from_millis(10));
        };
        connection.set_nonblocking(false).unwrap();
        let mut sent = String::new();
        connection.read_to_string(&mut sent).unwrap();
        assert!(
            sent.starts_with("POST ") && !sent.contains("prompt"),
            "{sent}"
        );
        let error = first.join().unwrap().unwrap_err();
        let path = world.path().display().to_string();
        let text = "another process works at this file, although this one held the lock; nothing was \
                    sent here. Run this again";
        assert_eq!(error.to_string(), format!("{path}: {text}"));
        assert!(error.may_be_charged());
    });
    world.tell("offline A is there; sent 1");
}

#[cfg(unix)]
#[test]
fn a_lock_that_is_deleted_while_its_holder_waits_loses_no_entry() {
    let world = World::new();
    let first = world.file("A").allow_replace(true);
    let replace = once(|| {
        fs::remove_file(world.folder.path("v.mp4.lock")).unwrap();
        world.tell("replacing B saves");
    });
    let first = first.generate(&world.service.client(), replace);
    let error = first.unwrap_err();
    let text = format!(
        "{}: {} was deleted by another program. Its generation is gen:1: trying again with that id \
         costs nothing",
        world.receipt_path().display(),
        world.folder.path("v.mp4.lock").display()
    );
    assert_eq!(error.to_string(), text);
    world.tell(
        "B is there; receipt [Completed, Completed]; replacing A saves; replacing B saves; sent 2",
    );
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

const PLACES: [&str; 5] = ["", ".part", ".lock", ".receipt.json", ".receipt.json.part"];

#[test]
fn a_place_of_the_wrong_kind_is_refused_before_paying() {
    for (trap, suffix) in TRAPS
        .iter()
        .flat_map(|trap| PLACES.map(|place| (trap, place)))
    {
        let (world, name) = (World::new(), format!("v.mp4{suffix}"));
        let (precious, place) = (world.folder.path("precious"), world.folder.path(&name));
        fs::write(&precious, r#"{"version": 3, "attempts": []}"#).unwrap();
        trap(&place);
        let error = world.generate("A").expect_err(&name);
        let is_named = error.to_string().contains(&place.display().to_string());
        assert!(is_named && matches!(error, Error::File { .. }), "{error}");
        if !place.is_symlink() {
            let is_opened = matches!(suffix, "" | ".receipt.json");
            assert_eq!(world.file("A").is_current().is_err(), is_opened, "{name}");
        }
        let precious = fs::read_to_string(precious).unwrap();
        assert_eq!(precious, r#"{"version": 3, "attempts": []}"#, "{name}");
        assert_eq!(world.folder.names(), ["precious", &name]);
        world.tell("sent 0");
    }
    for path in ["", "..", "folder/"] {
        let file = VideoFile::new(path, VideoRequest::new("A"));
        let error = file.generate(&World::new().service.client(), |_| {});
        assert_eq!(
            error.unwrap_err().to_string(),
            format!("{path}: is not the name of a file; nothing was sent")
        );
    }
}

/// Where a pipe is swapped in between a look and an opening, only the lock and the part do not wait.
#[cfg(unix)]
#[test]
fn what_is_swapped_in_while_it_works_is_not_followed_and_holds_up_nothing() {
    let (done, finished) = mpsc::channel();
    thread::spawn(move || {
        for (suffix, kinds) in [("", 1), (".lock", 2), (".part", 2)] {
            swap_while_it_works(suffix, kinds);
        }
        done.send(()).unwrap();
    });
    finished.recv_timeout(Duration::from_secs(100)).unwrap();
}

#[cfg(unix)]
fn swap_while_it_works(suffix: &str, kinds: usize) {
    let (world, baits, is_over) = (World::new(), Folder::new(), AtomicBool::new(false));
    let (link, pipe, elsewhere) = (
        baits.path("link"),
        baits.path("pipe"),
        baits.path("elsewhere"),
    );
    std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
    crate::support::make_pipe(&pipe);
    let place = world.folder.path(&format!("v.mp4{suffix}"));
    thread::scope(|scope| {
        scope.spawn(|| {
            for bait in [&link, &pipe][..kinds].iter().cycle() {
                let _ = fs::hard_link(bait, &place);
                thread::yield_now();
                let _ = fs::remove_file(&place);
                if is_over.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        let client = world
            .service
            .builder()
            .poll_timeout(Duration::from_millis(100));
        let client = client.build().unwrap();
        for _ in 0..200 {
            let _ = world.file("A").generate(&client, |_| {});
            let _ = fs::remove_file(world.path());
        }
        is_over.store(true, Ordering::SeqCst);
    });
    assert!(!elsewhere.exists(), "{suffix}");
    world.tell("A saves; sent 1");
}

#[cfg(unix)]
#[test]
fn a_path_in_a_text_is_one_line() {
    let (world, name) = (World::new(), "v\n\u{202e}cargo::warning=x");
    let file = VideoFile::new(world.folder.path(name), VideoRequest::new("A"));
    for suffix in ["", ".part", ".lock", ".receipt.json"] {
        let there = world.folder.path(&format!("{name}{suffix}"));
        fs::create_dir(&there).unwrap();
        let text = file
            .generate(&world.service.client(), |_| {})
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("v cargo::warning=x") && !text.contains(['\n', '\u{202e}']),
            "{text}"
        );
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
        let test = child_of(&world, "locks::no_file_descriptor_left_is_no_dead_end");
        let limit = format!("ulimit -n {limit}");
        let mut limited = crate::support::in_shell(&["sh"], &limit, &world.path(), &test);
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
        let (path, service) = (PathBuf::from(path), Service::start());
        let fill = path.with_file_name("fill");
        fs::create_dir(&fill).unwrap();
        let filling = fill.clone();
        service.script().on_post = Some(Box::new(move || {
            let fails = |n: u32| fs::write(filling.join(n.to_string()), [0; 4096]).is_err();
            assert!((0..1000).any(fails));
        }));
        let file = VideoFile::new(&path, VideoRequest::new("A"));
        let error = file.generate(&service.client(), |_| {}).unwrap_err();
        assert_eq!(error.generation_id(), Some("gen:1"), "{error}");
        fs::remove_dir_all(fill).unwrap();
        let again = file.generate(&service.client(), |_| {});
        again.unwrap();
        return println!("<{}; sent {}>", error, service.posts());
    }
    for (limit, reason) in [("size=64k", "os error 28"), ("nr_inodes=12", "os error 28")] {
        let folder = Folder::new();
        let mount = format!("mount -t tmpfs -o {limit} none \"$(dirname \"$0\")\" || exit 77");
        let test = child(test, folder.path("v.mp4").to_str().unwrap());
        let shell = ["unshare", "--mount", "sh"];
        let output =
            crate::support::in_shell(&shell, &mount, &folder.path("v.mp4"), &test).output();
        let output = output.unwrap();
        let text = stdout(&output);
        match output.status.code() {
            Some(0) => assert!(
                text.contains(reason) && text.contains("; sent 1>"),
                "{text}"
            ),
            _ if !text.contains("running 1 test") => {
                println!("skipped: it needs root, and unshare")
            }
            _ => panic!("{text}{}", crate::support::stderr(&output)),
        }
    }
}
