//! The final name holds a whole file or nothing, and one process works at a file at a time.

use std::path::{Path, PathBuf};
use std::sync::{Barrier, mpsc};
use std::{fs, thread, time::Duration};

use aimlapi_video::{Client, Progress, simulator::CLIP};

use crate::download::{PAID, ranges, save, script, video};
use crate::support::{Folder, Server};

/// One that does not wait for a lock.
fn impatient(server: &Server) -> Client {
    let builder = server.builder().poll_timeout(Duration::ZERO);
    builder.build().unwrap()
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap().to_str().unwrap();
    path.with_file_name(format!("{name}{suffix}"))
}

#[test]
fn a_path_that_cannot_be_written_is_an_error_before_a_byte_is_fetched() {
    let server = script(None, "rest");
    let folder = Folder::new();
    fs::write(folder.path("file"), "old").unwrap();
    fs::create_dir(folder.path("folder")).unwrap();
    let no_name = "is not the name of a file";
    for (path, reason) in [
        (folder.path("missing/v.mp4"), ""),
        (folder.path("file/v.mp4"), ""),
        (folder.path("folder"), "is not a regular file"),
        (folder.path("missing/"), no_name),
        (folder.path(".."), no_name),
        ("".into(), no_name),
    ] {
        let error = save(&server, &path).unwrap_err().to_string();
        let begins = error.starts_with(&format!("{}: ", path.display()));
        let ends = error.ends_with(&format!("{reason}. {PAID}"));
        assert!(begins && ends || reason.is_empty(), "{error}");
    }
    assert!(ranges(&server).is_empty());
    assert_eq!(folder.names(), ["file", "folder"]);
    assert_eq!(fs::read_to_string(folder.path("file")).unwrap(), "old");
}

/// Makes something at a path that is no regular file.
type Trap = fn(&Path);

const FOLDER: Trap = |path| fs::create_dir(path).unwrap();

#[cfg(not(unix))]
const TRAPS: [Trap; 1] = [FOLDER];

#[cfg(unix)]
const TRAPS: [Trap; 5] = [
    FOLDER,
    crate::support::make_pipe,
    |path| std::os::unix::fs::symlink(path.with_file_name("precious"), path).unwrap(),
    |path| std::os::unix::fs::symlink(path.with_file_name("dangling"), path).unwrap(),
    |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
];

#[test]
fn a_link_a_pipe_or_a_folder_is_never_followed_nor_waited_for() {
    for trap in TRAPS {
        for suffix in ["", ".part", ".lock"] {
            let server = script(None, "rest");
            let folder = Folder::new();
            fs::write(folder.path("precious"), "old").unwrap();
            let path = folder.path("v.mp4");
            let place = sibling(&path, suffix);
            trap(&place);
            let error = save(&server, &path).unwrap_err().to_string();
            let (path, place) = (path.display(), place.display());
            let text = format!("{path}: {place} is not a regular file. {PAID}");
            assert_eq!(error, text);
            assert!(ranges(&server).is_empty(), "{place}");
            let trap = format!("v.mp4{suffix}");
            assert_eq!(folder.names(), ["precious", &trap], "{place}");
            let precious = fs::read_to_string(folder.path("precious"));
            assert_eq!(precious.unwrap(), "old", "{place}");
        }
    }
}

#[test]
fn what_a_killed_download_left_does_no_harm() {
    let server = script(None, "rest");
    let folder = Folder::new();
    fs::write(folder.path("v.mp4.part"), vec![b'x'; 2 * CLIP.len()]).unwrap();
    fs::write(folder.path("v.mp4.lock"), "").unwrap();
    save(&server, &folder.path("v.mp4")).unwrap();
    assert!(fs::read(folder.path("v.mp4")).unwrap() == CLIP);
    assert_eq!(folder.names(), ["v.mp4"]);
}

#[test]
fn downloads_to_one_path_take_turns_and_all_end_in_a_whole_file() {
    let server = script(None, "cut 45429; cut 60000; cut 9; cut 90858; rest");
    let folder = Folder::new();
    let path = folder.path("v.mp4");
    let (client, video, start) = (server.client(), video(&server), Barrier::new(4));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..25 {
                    client.download_video(&video, &path, |_| {}).unwrap();
                    assert!(fs::read(&path).unwrap() == CLIP);
                }
            });
        }
    });
    assert_eq!(folder.names(), ["v.mp4"]);
}

#[test]
fn a_held_lock_is_an_error_in_time_and_so_is_a_download_within_its_own_callback() {
    let server = script(None, "rest");
    let folder = Folder::new();
    let path = folder.path("v.mp4");
    let (client, video) = (impatient(&server), video(&server));
    let mut errors = Vec::new();
    let within = |_: Progress<'_>| {
        let within = client.download_video(&video, &path, |_| {});
        errors.push(within.unwrap_err());
        let in_thread = || client.download_video(&video, &path, |_| {});
        let in_thread = thread::scope(|scope| scope.spawn(in_thread).join().unwrap());
        errors.push(in_thread.unwrap_err());
    };
    client.download_video(&video, &path, within).unwrap();
    let text = "another process or thread holds its lock";
    let text = format!("{0}: {text}, {0}.lock. {PAID}", path.display());
    assert!(errors.len() >= 2);
    for error in errors {
        assert_eq!(error.to_string(), text);
        assert_eq!(error.generation_id(), Some("gen:1"));
    }
    assert_eq!(ranges(&server), ["all"]);
    assert!(fs::read(&path).unwrap() == CLIP);
    assert_eq!(folder.names(), ["v.mp4"]);
}

/// A second download starts in the callback of the first, once its siblings are deleted. It ends
/// before the first, or it has half the file when the first ends.
#[test]
fn a_download_whose_siblings_were_deleted_never_renames_the_half_file_of_another() {
    let cases: &[&[&str]] = match cfg!(windows) {
        // No program can delete it there; what a deleted part file comes to is the system's.
        true => &[&[".lock"]],
        false => &[&[".part", ".lock"], &[".lock"], &[".part"]],
    };
    for (siblings, ends_first) in cases.iter().flat_map(|s| [(s, true), (s, false)]) {
        let case = format!("{siblings:?} deleted, the first ends first: {ends_first}");
        let servers = [(); 2].map(|()| script(None, "cut 45429; rest"));
        let [first, second] = [0, 1].map(|n| (impatient(&servers[n]), video(&servers[n])));
        let folder = Folder::new();
        let path = folder.path("v.mp4");
        let (has_started, started) = mpsc::channel();
        let (first_ended, wait) = mpsc::channel::<()>();
        let mut run_second = Some(|| {
            let (has_started, mut wait) = (has_started, ends_first.then_some(wait));
            second.0.download_video(&second.1, &path, |_| {
                let _ = has_started.send(());
                wait.take().map(|wait| wait.recv());
            })
        });
        thread::scope(|scope| {
            let mut running = None;
            let ended = first.0.download_video(&first.1, &path, |_| {
                let Some(run_second) = run_second.take() else {
                    return;
                };
                for suffix in *siblings {
                    let removed = fs::remove_file(sibling(&path, suffix));
                    assert_eq!(removed.is_ok(), cfg!(unix), "{case}");
                }
                running = Some(scope.spawn(run_second));
                // The channel closes when the second ends.
                while started.recv().is_ok() && !ends_first {}
            });
            let has_lock = cfg!(unix) && siblings.contains(&".lock");
            assert_eq!(ended.is_ok(), cfg!(windows), "{case}");
            assert_eq!(path.exists(), ended.is_ok() || (has_lock && !ends_first));
            drop(first_ended);
            let second = running.unwrap().join().unwrap();
            assert_eq!(second.is_ok(), has_lock, "{case}");
            match ended.is_ok() || second.is_ok() {
                true => assert!(fs::read(&path).unwrap() == CLIP, "{case}"),
                false => assert!(folder.names().is_empty(), "{case}"),
            }
        });
    }
}
