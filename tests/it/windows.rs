//! What only Windows does.

use std::{fs::OpenOptions, os::windows::fs::OpenOptionsExt};

use aimlapi_video::{
    Error, VideoFile, VideoRequest,
    simulator::{CLIP, Poll, Simulator},
};

use crate::support::Folder;

#[test]
fn a_file_that_a_player_holds_open_is_an_error_that_keeps_the_id() {
    const FILE_SHARE_READ: u32 = 1;
    let (folder, api) = (Folder::new(), Simulator::start().unwrap());
    api.script_polls([Poll::Complete]);
    let path = folder.path("v.mp4");
    let run =
        |prompt| VideoFile::new(&path, VideoRequest::new(prompt)).generate(&api.client(), |_| {});
    run("A fox").unwrap();
    let mut options = OpenOptions::new();
    let player = options.read(true).share_mode(FILE_SHARE_READ).open(&path);
    let error = run("A boat").unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    assert!(error.generation_id().is_some(), "{error}");
    assert!(
        error.to_string().starts_with(&path.display().to_string()),
        "{error}"
    );
    assert_eq!(folder.names(), ["v.mp4", "v.mp4.receipt.json"]);
    drop(player);
    run("A boat").unwrap();
    assert_eq!(api.charged(), 2);
    assert!(std::fs::read(&path).unwrap() == CLIP);
}

#[test]
fn a_lock_can_not_be_deleted_and_is_gone_afterwards() {
    let (folder, api) = (Folder::new(), Simulator::start().unwrap());
    let file = VideoFile::new(folder.path("v.mp4"), VideoRequest::new("A fox"));
    let mut tries = 0;
    file.generate(&api.client(), |_| {
        let deleted = std::fs::remove_file(folder.path("v.mp4.lock"));
        assert!(deleted.is_err());
        tries += 1;
    })
    .unwrap();
    assert!(tries > 0);
    assert_eq!(folder.names(), ["v.mp4", "v.mp4.receipt.json"]);
}
