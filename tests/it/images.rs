//! Images from files: their format is detected from their bytes, and what is wrong with them is
//! said before anything is sent.

use std::fs::{self, File};
use std::path::Path;

use aimlapi_video::{Error, image_file};
use serde_json::Value;

use crate::support::{Folder, Server, fox, queued};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\nrest";
const JPEG: &[u8] = b"\xff\xd8\xff\xe0rest";
const WEBP: &[u8] = b"RIFF\x04\0\0\0WEBPVP8 rest";
const MIB: u64 = 1024 * 1024;

/// Base64 (RFC 4648, 4): each four digits are three bytes.
fn from_base64(text: &str) -> Vec<u8> {
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let value = |digit: &u8| digits.find(*digit as char).unwrap() as u32;
    let decode = |four: &[u8]| {
        let bits = four.iter().fold(0, |bits, digit| bits << 6 | value(digit));
        let [_, bytes @ ..] = bits.to_be_bytes();
        bytes
    };
    let zeros = text.replace('=', "A");
    let mut bytes: Vec<u8> = zeros.as_bytes().chunks(4).flat_map(decode).collect();
    let padding = bytes.split_off(bytes.len() - text.matches('=').count());
    assert!(padding.iter().all(|byte| *byte == 0));
    bytes
}

/// What is wrong with a file, in a message that names it first.
fn fault(path: &Path) -> String {
    let error = image_file(path).unwrap_err();
    assert!(matches!(error, Error::File { .. }) && !error.may_be_charged());
    let text = error.to_string();
    let shown = path.display().to_string().replace('\0', " ");
    let fault = text.strip_prefix(&format!("{shown}: "));
    fault.unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn the_format_is_detected_from_the_bytes_and_not_from_the_name() {
    let folder = Folder::new();
    for name in ["a.png", "a.webp", "a.gif", "a", "🦊 a.PNG", "a.png.exe"] {
        let path = folder.path(name);
        for (bytes, media_type) in [(PNG, "png"), (JPEG, "jpeg"), (WEBP, "webp")] {
            fs::write(&path, bytes).unwrap();
            let url = image_file(&path).unwrap();
            let data = url.strip_prefix(&format!("data:image/{media_type};base64,"));
            assert_eq!(from_base64(data.unwrap()), bytes);
        }
        let (gif, avif) = (b"GIF89a\x01\0", b"\0\0\0\x1cftypavif");
        let (wave, late) = (b"RIFF\x04\0\0\0WAVEfmt ", b" \x89PNG\r\n\x1a\n");
        let others: [&[u8]; 6] = [b"", gif, avif, b"<svg/>", late, wave];
        let short = [&PNG[..7], &JPEG[..2], &WEBP[..11]];
        for bytes in others.into_iter().chain(short) {
            fs::write(&path, bytes).unwrap();
            let reason = "neither PNG nor JPEG nor WebP, judging by its first bytes";
            assert_eq!(fault(&path), reason, "{bytes:?}");
        }
    }
}

#[test]
fn an_image_of_any_length_arrives_whole() {
    let (server, folder) = (Server::always(queued()), Folder::new());
    let path = folder.path("large.jpg");
    let noise = |n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8;
    for length in [0, 1, 2, 3, 3_000_001] {
        let bytes: Vec<u8> = JPEG.iter().copied().chain((0..length).map(noise)).collect();
        fs::write(&path, &bytes).unwrap();
        let request = fox().model("google/veo-3.0-i2v");
        let request = request.image_url(image_file(&path).unwrap());
        let _ = server.client().generate_video(&request).unwrap();
        let body: Value = serde_json::from_str(&server.requests().last().unwrap().body).unwrap();
        let url = body["image_url"].as_str().unwrap();
        let data = url.strip_prefix("data:image/jpeg;base64,").unwrap();
        assert!(from_base64(data) == bytes, "{length}");
    }
}

#[test]
fn a_file_that_is_too_large_is_refused_with_the_bound() {
    let folder = Folder::new();
    let path = folder.path("large.png");
    fs::write(&path, PNG).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    for size in [20 * MIB + 1, 8 * 1024 * MIB] {
        file.set_len(size).unwrap();
        let reason = "larger than 20 MiB: make it smaller, or give its URL";
        assert_eq!(fault(&path), reason);
    }
    file.set_len(20 * MIB).unwrap();
    let length = "data:image/png;base64,".len() + (20 * MIB).div_ceil(3) as usize * 4;
    assert_eq!(image_file(&path).unwrap().len(), length);
}

#[test]
fn what_is_no_regular_file_or_can_not_be_read_is_refused_with_the_reason() {
    let folder = Folder::new();
    assert_eq!(fault(folder.as_ref()), "not a regular file");
    let none = folder.path("none.png");
    for path in [&none, Path::new(""), Path::new("a\0.png")] {
        assert_eq!(fault(path), fs::metadata(path).unwrap_err().to_string());
    }
    if cfg!(target_os = "linux") {
        // The kernel calls it a file, opens it, and refuses to read it from its beginning.
        let reason = "Input/output error (os error 5)";
        assert_eq!(fault(Path::new("/proc/self/mem")), reason);
    }
}

#[cfg(unix)]
#[test]
fn a_link_is_followed_and_a_pipe_or_a_device_is_never_waited_for() {
    let folder = Folder::new();
    let [image, link, pipe] = ["a.webp", "link.png", "pipe.png"].map(|name| folder.path(name));
    fs::write(&image, WEBP).unwrap();
    std::os::unix::fs::symlink(&image, &link).unwrap();
    assert!(image_file(&link).unwrap().starts_with("data:image/webp;"));
    crate::support::make_pipe(&pipe);
    for path in [&pipe, Path::new("/dev/zero"), Path::new("/dev/null")] {
        assert_eq!(fault(path), "not a regular file");
    }
}
