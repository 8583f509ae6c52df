//! Receipts that were damaged: an error that sends nothing, and never a panic.

use std::fs;

use aimlapi_video::{
    VideoFile, VideoRequest,
    simulator::{Poll, Simulator},
};
use arbtest::arbtest;

use crate::support::Folder;

/// A file that is saved, in a folder, by a service.
fn saved() -> (Folder, Simulator, VideoFile) {
    let (folder, api) = (Folder::new(), Simulator::start().unwrap());
    api.script_polls([Poll::Complete]);
    let file = VideoFile::new(folder.path("v.mp4"), VideoRequest::new("A fox"));
    file.generate(&api.client(), |_| {}).unwrap();
    (folder, api, file)
}

#[test]
fn a_damaged_receipt_is_an_error_that_sends_nothing_or_reads_as_it_was_written() {
    let (folder, api, file) = saved();
    let path = folder.path("v.mp4.receipt.json");
    let good = fs::read(&path).unwrap();
    let requests = api.received().len();
    arbtest(|u| {
        let mut bytes = good.clone();
        for _ in 0..u.int_in_range(1..=3)? {
            let at = u.choose_index(bytes.len().max(1))?;
            match u.int_in_range(0..=3)? {
                0 => bytes.truncate(at),
                1 => bytes.insert(at.min(bytes.len()), u.arbitrary()?),
                2 if at < bytes.len() => bytes[at] = u.arbitrary()?,
                _ => bytes.extend_from_slice(&good[at.min(good.len())..]),
            }
        }
        fs::write(&path, &bytes).unwrap();
        match file.receipt() {
            Ok(receipt) => assert!(receipt.is_some()),
            Err(error) => {
                assert!(file.is_current().is_err());
                let again = file.generate(&api.client(), |_| {}).unwrap_err();
                assert_eq!(again.to_string(), error.to_string());
                assert!(error.to_string().lines().count() == 1, "{error}");
                assert_eq!(fs::read(&path).unwrap(), bytes, "it was changed");
                assert_eq!(api.received().len(), requests, "something was sent");
            }
        }
        Ok(())
    })
    .budget_ms(500);
}

#[test]
fn a_receipt_that_an_editor_saved_with_a_byte_order_mark_is_read() {
    let (folder, _api, file) = saved();
    let path = folder.path("v.mp4.receipt.json");
    let receipt = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("\u{feff}{receipt}")).unwrap();
    assert!(file.is_current().unwrap());
}
