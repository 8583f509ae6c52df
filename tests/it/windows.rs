//! What only Windows does.

use std::{fs::OpenOptions, os::windows::fs::OpenOptionsExt};

use aimlapi_video::Error;

use crate::video_file::World;

#[test]
fn a_file_that_a_player_holds_open_is_an_error_that_keeps_the_id() {
    const FILE_SHARE_READ: u32 = 1;
    let world = World::new();
    world.tell("A saves; file longer");
    let mut options = OpenOptions::new();
    let player = options.read(true).share_mode(FILE_SHARE_READ);
    let player = player.open(world.path()).unwrap();
    let replacing = world.file("B").allow_replace(true);
    let error = replacing
        .generate(&world.service.client(), |_| {})
        .unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    assert_eq!(error.generation_id(), Some("gen:2"));
    let path = world.path().display().to_string();
    assert!(error.to_string().starts_with(&path), "{error}");
    assert_eq!(world.folder.names(), ["v.mp4", "v.mp4.receipt.json"]);
    drop(player);
    world.tell("replacing B saves; sent 2");
}

#[test]
fn a_lock_can_not_be_deleted_and_is_gone_afterwards() {
    let (world, mut tries) = (World::new(), 0);
    let made = world.file("A").generate(&world.service.client(), |_| {
        let deleted = std::fs::remove_file(world.folder.path("v.mp4.lock"));
        assert!(deleted.is_err());
        tries += 1;
    });
    made.unwrap();
    assert!(tries > 0);
    world.tell("A is there; sent 1");
}
