//! The final name holds a whole file or nothing, and one process works at a file at a time.

use std::sync::{Barrier, mpsc};
use std::{fs, thread, time::Duration};

use aimlapi_video::{Client, simulator::CLIP};

use crate::download::{PAID, ranges, save, script, video};
use crate::support::{Folder, Server, TRAPS, once};

/// One that does not wait for a lock.
fn impatient(server: &Server) -> Client {
    let builder = server.builder().poll_timeout(Duration::ZERO);
    builder.build().unwrap()
}

#[test]
fn a_path_that_cannot_be_written_is_an_error_before_a_byte_is_fetched() {
    let (server, folder) = (script(None, "rest"), Folder::new());
    fs::write(folder.path("file"), "old").unwrap();
    for (path, reason) in [
        (folder.path("missing/v.mp4"), ""),
        (folder.path("file/v.mp4"), ""),
        (folder.path("missing/"), "is not the name of a file"),
        (folder.path(".."), "is not the name of a file"),
        ("".into(), "is not the name of a file"),
    ] {
        let error = save(&server, &path).unwrap_err().to_string();
        let begins = error.starts_with(&format!("{}: ", path.display()));
        let ends = error.ends_with(&format!("{reason}. {PAID}"));
        assert!(begins && ends, "{error}");
    }
    assert!(ranges(&server).is_empty());
    assert_eq!(folder.names(), ["file"]);
    assert_eq!(fs::read_to_string(folder.path("file")).unwrap(), "old");
}

#[test]
fn a_link_a_pipe_or_a_folder_is_never_followed_nor_waited_for() {
    for trap in TRAPS {
        for name in ["v.mp4", "v.mp4.part", "v.mp4.lock"] {
            let (server, folder) = (script(None, "rest"), Folder::new());
            let (path, place) = (folder.path("v.mp4"), folder.path(name));
            fs::write(folder.path("precious"), "old").unwrap();
            trap(&place);
            let error = save(&server, &path).unwrap_err().to_string();
            let (path, place) = (path.display(), place.display());
            let text = format!("{path}: {place} is not a regular file. {PAID}");
            assert_eq!(error, text);
            assert!(ranges(&server).is_empty(), "{place}");
            assert_eq!(folder.names(), ["precious", name], "{place}");
            let precious = fs::read_to_string(folder.path("precious"));
            assert_eq!(precious.unwrap(), "old", "{place}");
        }
    }
}

#[test]
fn downloads_to_one_path_take_turns_and_what_a_killed_one_left_does_no_harm() {
    let server = script(None, "cut 45429; cut 60000; cut 9; cut 90858; rest");
    let folder = Folder::new();
    let path = folder.path("v.mp4");
    fs::write(folder.path("v.mp4.part"), vec![b'x'; 2 * CLIP.len()]).unwrap();
    fs::write(folder.path("v.mp4.lock"), "").unwrap();
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
    let (server, folder) = (script(None, "rest"), Folder::new());
    let path = folder.path("v.mp4");
    let (client, video) = (impatient(&server), video(&server));
    let again = || client.download_video(&video, &path, |_| {}).unwrap_err();
    let mut errors = Vec::new();
    let within = once(|| {
        let in_thread = thread::scope(|scope| scope.spawn(again).join());
        errors.extend([again(), in_thread.unwrap()]);
    });
    client.download_video(&video, &path, within).unwrap();
    let text = "another process or thread holds its lock";
    let text = format!("{0}: {text}, {0}.lock. {PAID}", path.display());
    assert_eq!(errors.len(), 2);
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
        true => &[&["v.mp4.lock"]],
        false => &[
            &["v.mp4.part", "v.mp4.lock"],
            &["v.mp4.lock"],
            &["v.mp4.part"],
        ],
    };
    for (siblings, ends_first) in cases.iter().flat_map(|s| [(s, true), (s, false)]) {
        let case = format!("{siblings:?} deleted, the first ends first: {ends_first}");
        let server = script(None, "cut 45429; cut 45429; rest");
        let (client, video, folder) = (&impatient(&server), &video(&server), Folder::new());
        let path = &folder.path("v.mp4");
        let (has_started, started) = mpsc::channel();
        let (first_ended, wait) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let mut second = None;
            let start_second = once(|| {
                for name in *siblings {
                    let removed = fs::remove_file(folder.path(name));
                    assert_eq!(removed.is_ok(), cfg!(unix), "{case}");
                }
                let mut wait = ends_first.then_some(wait);
                second = Some(scope.spawn(move || {
                    client.download_video(video, path, |_| {
                        let _ = has_started.send(());
                        wait.take().map(|wait| wait.recv());
                    })
                }));
                // The channel closes when the second ends.
                while started.recv().is_ok() && !ends_first {}
            });
            let first = client.download_video(video, path, start_second);
            let has_lock = cfg!(unix) && siblings.contains(&"v.mp4.lock");
            assert_eq!(first.is_ok(), cfg!(windows), "{case}");
            assert_eq!(path.exists(), first.is_ok() || (has_lock && !ends_first));
            drop(first_ended);
            let second = second.unwrap().join().unwrap();
            assert_eq!(second.is_ok(), has_lock, "{case}");
            match first.is_ok() || second.is_ok() {
                true => assert!(fs::read(path).unwrap() == CLIP, "{case}"),
                false => assert!(folder.names().is_empty(), "{case}"),
            }
        });
    }
}
