//! Images from files: what they are is told by their bytes, and what is wrong with them before anything is sent.

use std::{
    fs::{self, File},
    path::Path,
};

use aimlapi_video::{Error, Image, VideoRequest};
use serde_json::Value;

use crate::support::{Folder, Server, queued};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\nrest";
const JPEG: &[u8] = b"\xff\xd8\xff\xe0rest";
const WEBP: &[u8] = b"RIFF\x04\0\0\0WEBPVP8 rest";

/// The address that is sent for an image.
fn url(image: Image) -> String {
    let body = VideoRequest::from_image("A fox", image).to_json().unwrap();
    body["image_url"].as_str().unwrap().to_owned()
}

fn from_base64(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(4));
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text
        .trim_end_matches('=')
        .chars()
        .map(|c| digits.find(c).unwrap() as u32);
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0, 0);
    for digit in digits {
        (bits, held) = (bits << 6 | digit, held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    assert_eq!(bits, 0);
    bytes
}

#[test]
fn an_image_is_told_by_its_bytes_not_by_its_name() {
    let folder = Folder::new();
    let cases = [
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (WEBP, "image/webp"),
    ];
    for (bytes, kind) in cases {
        for name in [
            "a.png",
            "a.jpg",
            "a.webp",
            "a.gif",
            "a.txt",
            "a",
            "🦊 a.PNG",
            "a.png.exe",
        ] {
            let path = folder.path(name);
            fs::write(&path, bytes).unwrap();
            let url = url(Image::from_file(&path).unwrap());
            let data = url
                .strip_prefix(&format!("data:{kind};base64,"))
                .unwrap_or_else(|| panic!("{name}: {url}"));
            assert_eq!(from_base64(data), bytes);
        }
    }
}

#[test]
fn a_data_url_holds_the_bytes_of_the_file() {
    let folder = Folder::new();
    let path = folder.path("a.png");
    let noise: Vec<u8> = (0..70_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for length in [0, 1, 2, 3, 1_000, noise.len()] {
        let bytes = [PNG, &noise[..length]].concat();
        fs::write(&path, &bytes).unwrap();
        let url = url(Image::from_file(&path).unwrap());
        assert_eq!(
            from_base64(url.strip_prefix("data:image/png;base64,").unwrap()),
            bytes
        );
    }
}

#[test]
fn an_image_from_a_file_arrives_whole() {
    let (server, folder) = (Server::script(vec![queued()]), Folder::new());
    let path = folder.path("large.jpg");
    let mut bytes = JPEG.to_vec();
    bytes.resize(3_000_001, 0x5a);
    fs::write(&path, &bytes).unwrap();
    server
        .client()
        .generate_video(&VideoRequest::from_image(
            "A fox",
            Image::from_file(&path).unwrap(),
        ))
        .unwrap();
    let body: Value = serde_json::from_str(&server.requests()[0].body).unwrap();
    assert_eq!(body["model"], "google/veo-3.0-i2v");
    let url = body["image_url"].as_str().unwrap();
    assert_eq!(
        from_base64(url.strip_prefix("data:image/jpeg;base64,").unwrap()),
        bytes
    );
}

/// What is wrong with a file, in a message that names it first.
fn fault(path: &Path) -> String {
    let error = Image::from_file(path).unwrap_err();
    assert!(matches!(error, Error::Invalid(_)));
    let text = error.to_string();
    let fault = text
        .strip_prefix(&format!("image {}: ", path.display()))
        .and_then(|rest| rest.strip_suffix("; nothing was sent"));
    fault.unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn a_file_of_another_format_is_refused_whatever_its_name() {
    let folder = Folder::new();
    let others: [&[u8]; 13] = [
        b"GIF89a\x01\0\x01\0\x80\0\0",
        b"BM\x3a\0\0\0",
        b"II*\0",
        b"\0\0\0\x1cftypavif",
        b"\0\0\0\x18ftypmp42",
        b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>",
        b"data:image/png;base64,iVBORw0KGgo=",
        b"a text",
        &PNG[..7],
        &JPEG[..2],
        &WEBP[..11],
        b"RIFF\x04\0\0\0WAVEfmt ",
        b" \x89PNG\r\n\x1a\n",
    ];
    for bytes in others {
        for name in ["a.png", "a.jpeg", "a.webp"] {
            let path = folder.path(name);
            fs::write(&path, bytes).unwrap();
            assert_eq!(
                fault(&path),
                "neither PNG nor JPEG nor WebP, judging by its first bytes",
                "{bytes:?}"
            );
        }
    }
}

#[test]
fn an_empty_file_is_refused() {
    let folder = Folder::new();
    let path = folder.path("empty.png");
    fs::write(&path, "").unwrap();
    assert_eq!(fault(&path), "the file is empty");
}

#[test]
fn a_file_that_is_too_large_is_refused_with_the_bound() {
    let folder = Folder::new();
    let path = folder.path("large.png");
    let file = File::create(&path).unwrap();
    fs::write(&path, PNG).unwrap();
    for size in [Image::MAX_FILE_SIZE + 1, 1 << 33] {
        file.set_len(size).unwrap();
        assert_eq!(
            fault(&path),
            "larger than 20971520 bytes: make the picture smaller, or give its address"
        );
    }
    file.set_len(Image::MAX_FILE_SIZE).unwrap();
    let url = url(Image::from_file(&path).unwrap());
    assert_eq!(
        url.len(),
        "data:image/png;base64,".len() + Image::MAX_FILE_SIZE.div_ceil(3) as usize * 4
    );
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = Folder::new();
    assert_eq!(fault(folder.as_ref()), "not a file");
    let missing = fs::metadata(folder.path("none.png"))
        .unwrap_err()
        .to_string();
    assert_eq!(fault(&folder.path("none.png")), missing);
    assert_eq!(fault(Path::new("")), missing);
    let unnameable = Path::new("a\0.png");
    assert_eq!(
        fault(unnameable),
        fs::metadata(unnameable).unwrap_err().to_string()
    );
}

#[cfg(unix)]
#[test]
fn a_link_is_followed_to_its_file() {
    let folder = Folder::new();
    fs::write(folder.path("a.webp"), WEBP).unwrap();
    std::os::unix::fs::symlink(folder.path("a.webp"), folder.path("link.png")).unwrap();
    assert!(
        url(Image::from_file(folder.path("link.png")).unwrap()).starts_with("data:image/webp;")
    );
    std::os::unix::fs::symlink(folder.path("gone.png"), folder.path("broken.png")).unwrap();
    fault(&folder.path("broken.png"));
}

#[cfg(unix)]
#[test]
fn a_pipe_or_a_device_is_refused_and_never_waited_for() {
    let folder = Folder::new();
    let pipe = folder.path("pipe.png");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for path in [&pipe, Path::new("/dev/zero"), Path::new("/dev/null")] {
            sender.send(fault(path)).unwrap();
        }
    });
    for _ in 0..3 {
        assert_eq!(
            receiver
                .recv_timeout(std::time::Duration::from_secs(10))
                .as_deref(),
            Ok("not a file")
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_can_not_be_read_is_refused_with_the_reason() {
    // The kernel calls it a file, opens it, and refuses to read it from its beginning, for root too.
    assert_eq!(
        fault(Path::new("/proc/self/mem")),
        "Input/output error (os error 5)"
    );
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_opened_is_refused_with_the_reason() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let path = folder.path("private.png");
    fs::write(&path, PNG).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    match File::open(&path) {
        Err(error) => assert_eq!(fault(&path), error.to_string()),
        // Root may open anything.
        Ok(_) => assert!(Image::from_file(&path).is_ok()),
    }
}

#[test]
fn a_path_in_place_of_an_address_is_refused_before_sending() {
    let server = Server::script(vec![queued()]);
    for text in [
        "cat.png",
        "./cat.png",
        "/home/me/cat.png",
        r"C:\cat.png",
        "file:///cat.png",
        "",
        "data:",
        "//a/b",
    ] {
        let error = server
            .client()
            .generate_video(&VideoRequest::from_image("A fox", text))
            .unwrap_err();
        let quoted = Value::from(text).to_string();
        assert_eq!(
            error.to_string(),
            format!(
                "`image_url` is {quoted}, but google/veo-3.0-i2v takes an address (https://…) or a data URL, without \
                 white space; nothing was sent"
            )
        );
    }
    assert_eq!(server.connections(), 0);
}
