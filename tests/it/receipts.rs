//! The receipt: for people, never written over what is there, and never a reason to pay again.

use std::fs;
use std::time::{Duration, SystemTime};

use aimlapi_video::{Error, State, VideoFile, VideoRequest};
use serde_json::{Value, json};

use crate::download::PAID;
use crate::service::video;
use crate::support::{Folder, KEY, Server, fox, offline, refusal, rows};
use crate::video_file::World;

#[test]
fn it_is_for_people_and_has_neither_the_key_nor_a_url() {
    let world = World::new();
    world.tell("polls fail; A fails; poll recovers");
    let image = format!("data:image/png;base64,{}", "A".repeat(100));
    let request = VideoRequest::new("A").model("someone/model");
    let request = request.client_request_id("boat-1").image_url(image);
    let request = request.duration(4).param("cfg_scale", 0.5);
    let request = request.param("callback", "https://example.com/?signature=secret");
    let file = VideoFile::new(world.path(), request);
    let made = world.make(&file).unwrap();

    let (receipt, id) = (world.receipt(), &made.client_request_id);
    assert!(id.starts_with("boat-1:aimlapi-video-"), "{id}");
    let age = made.sent.elapsed().unwrap();
    assert!(age < Duration::from_secs(600), "{age:?}");
    let since_1970 = made.sent.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let second = &receipt["attempts"][1];
    let expected = json!({
        "sent": since_1970.as_secs(), "host": world.service.host(), "model": "someone/model",
        "prompt": "A", "parameters": {"cfg_scale": 0.5, "duration": 4},
        "fingerprint": second["fingerprint"], "client_request_id": id, "generation_id": "gen:2",
        "state": "completed", "cost": "charged", "bytes": video("").len(), "failure": null,
        "usage": {"credits_used": 120_000.0, "usd_spent": 0.06},
    });
    assert_eq!(*second, expected);
    // What a program gets is the same.
    assert_eq!(serde_json::to_value(&made).unwrap(), expected);
    let attempts = file.attempts().unwrap();
    assert_eq!((attempts.len(), &attempts[1]), (2, &made));
    assert_eq!(file.attempt().unwrap().as_ref(), Some(&made));
    assert_eq!(world.attempt().state, State::Failed);
    assert_eq!(world.file("B").attempt().unwrap(), None);

    let failure = &receipt["attempts"][0]["failure"];
    assert_eq!(*failure, "status error: SafetyError: Rejected");
    let about = receipt["about"].as_str().unwrap();
    assert!(about.contains("Without it, videos may be paid for again"));
    let state = [&receipt["version"], &receipt["saved"], &receipt["saving"]];
    assert_eq!(state, [&json!(3), &json!(id), &Value::Null]);
    let text = fs::read_to_string(world.receipt_path()).unwrap();
    for secret in [KEY, "http", "base64", "secret"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn what_a_server_writes_brings_no_signed_url_into_it_or_into_an_error() {
    let signed = "see https://cdn.example/v.mp4?sig=secret";
    for steps in [
        r#"post says 403 {"message": "TEXT"}; hasty A is rejected 403"#,
        "post says 403 TEXT; hasty A is rejected 403",
        "post says 502 TEXT; log empty; hasty A is unknown",
        "post says 201 TEXT; log says 503 TEXT; hasty A is unknown",
        r#"poll says 200 {"id": "ID", "status": "error", "error": {"name": "TEXT", "message": "TEXT"}}; A fails"#,
        r#"poll says 200 {"id": "ID", "status": "completed", "reason": "TEXT"}; A is stuck"#,
        "poll says 400 TEXT; A is stuck",
        r#"poll says 200 {"id": "ID", "status": "TEXT"}; hasty A times out"#,
    ] {
        let world = World::new();
        world.tell(&steps.replace("TEXT", signed));
        let receipt = fs::read_to_string(world.receipt_path()).unwrap();
        let error = world.file("A").generate(&world.hasty(), |_| {});
        let error = format!("{:?}", error.map(|attempt| attempt.state));
        assert!(!receipt.contains("secret"), "{receipt}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn the_fingerprint_is_the_same_with_every_build_and_in_every_clone() {
    // CI runs this with serde_json's `preserve_order` and `arbitrary_precision`, too.
    let params = json!({"b": [1, 2.5, -3, null, true], "a": {"z": 0.1, "y": "ä\n\"", "x": 1e21}});
    let request = |prompt: &str| {
        let request = VideoRequest::new(prompt).model("someone/model");
        let request = request.param("scale", 0.1_f32).param("big", u64::MAX);
        request.param("nested", params.clone())
    };
    let world = World::new();
    let file = |request| VideoFile::new(world.path(), request);
    let is_current = |request| file(request).is_current().unwrap();
    world.make(&file(request("A\nfox"))).unwrap();
    let fingerprint = &world.receipt()["attempts"][0]["fingerprint"];
    assert_eq!(fingerprint, "5a702a0d91dbe019");
    // A prompt by `include_str!` ends with a line end, which a clone may write as CRLF.
    for same in ["A\r\nfox", "A\nfox\n", " A\r\nfox\t\r\n"] {
        assert!(is_current(request(same)), "{same:?}");
    }
    for other in ["A fox", "A\n fox", "A\n\nfox", "a\nfox", "A\nfox."] {
        assert!(!is_current(request(other)), "{other:?}");
    }
    assert!(is_current(request("A\nfox").client_request_id("x")));
    assert!(!is_current(request("A\nfox").seed(1)));
    assert!(!is_current(request("A\nfox").model("other/model")));
    assert_eq!(file(request("A\nfox")).attempts().unwrap().len(), 1);
    // What is sent stays as it is.
    let sent: Value = serde_json::from_str(&world.service.requests()[0].body).unwrap();
    assert_eq!(sent["prompt"], "A\nfox");
}

/// A receipt, or an edit of one that was good; and what an error says is wrong with it.
const UNREADABLE: &str = r#"
                                      | EOF while parsing a value at line 1 column 0
    {                                 | EOF while parsing an object at line 1 column 1
    []                                | `version`: invalid type: null, expected u64
    <<<<<<< HEAD                      | expected value at line 1 column 1
    {"version": 2}                    | version 2 is not 3
    {"version": 4}                    | version 4 is not 3
    {"version": 3}                    | it has no list of attempts
    edit sent -1                      | attempt 1: `sent`: invalid value: integer `-1`, expected u64
    edit sent 18446744073709551615    | attempt 1: `sent` is too large
    edit client_request_id null       | attempt 1: `client_request_id`: invalid type: null, expected a string
    edit state "x\ncargo::warning=y"  | attempt 1: `state`: unknown word "x\ncargo::warning=y"
    edit cost "free of charge"        | attempt 1: `cost`: unknown word "free of charge"
    edit generation_id "a\nb"         | attempt 1: `generation_id` is no id
    2 MiB                             | it has more than 2097152 bytes
"#;

#[test]
fn one_that_cannot_be_read_sends_nothing_and_stays_as_it_is() {
    let world = World::new();
    world.tell("A saves");
    let (path, file, good) = (world.receipt_path(), world.file("A"), world.receipt());
    for [bad, reason] in rows(UNREADABLE) {
        fs::write(&path, good.to_string()).unwrap();
        match bad {
            "2 MiB" => fs::write(&path, format!("{good}{}", " ".repeat(2 << 20))).unwrap(),
            _ if bad.starts_with("edit") => world.tell(bad),
            _ => fs::write(&path, bad).unwrap(),
        }
        let before = fs::read(&path).unwrap();
        let text = format!(
            "PATH.receipt.json: is not a receipt that can be read ({reason}). Correct or restore \
             it: without it, the video is paid for again"
        );
        for result in [
            file.is_current().map(drop),
            file.attempts().map(drop),
            file.give_up(),
            world.make(&file).map(drop),
        ] {
            let error = result.unwrap_err();
            assert_eq!(world.text(&error), text);
            assert!(error.may_be_charged());
        }
        assert!(fs::read(&path).unwrap() == before, "{bad}");
        world.tell("sent 1");
    }
}

#[test]
fn a_byte_order_mark_and_times_from_1970_to_2106_are_read() {
    let world = World::new();
    world.tell("A saves");
    for sent in [0, 1, 4_294_967_295_u64] {
        world.tell(&format!("edit sent {sent}"));
        let text = world.receipt().to_string();
        fs::write(world.receipt_path(), format!("\u{feff}{text}")).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(sent);
        assert_eq!(world.attempt().sent, time);
        assert!(world.file("A").is_current().unwrap());
        world.tell("file deleted; A saves; sent 1");
        assert_eq!(world.receipt()["attempts"][0]["sent"], sent);
    }
}

/// What a person, or a version control system, does to it while a run waits.
#[test]
fn nothing_that_happens_to_it_while_a_run_waits_loses_an_entry_or_pays_again() {
    for change in "older, none, half, conflict, version 4, given up".split(", ") {
        println!("{change}");
        let (world, mut new) = (World::new(), None);
        world.tell(r#"A saves; file deleted; first poll says 200 {"status": "queued"}"#);
        let path = world.receipt_path();
        let older = fs::read_to_string(&path).unwrap();
        let result = world.make_and(&world.file("B"), || {
            match change {
                "older" => fs::write(&path, &older).unwrap(),
                "none" => fs::remove_file(&path).unwrap(),
                "half" => fs::write(&path, &older[..300]).unwrap(),
                "given up" => world.tell("edit state given_up"),
                "version 4" => fs::write(&path, r#"{"version": 4}"#).unwrap(),
                _ => fs::write(&path, format!("<<<<<<< HEAD\n{older}")).unwrap(),
            }
            new = fs::read(&path).ok();
        });
        world.tell("sent 2");
        if matches!(change, "older" | "none") {
            result.unwrap();
            world.tell("B is there; receipt [Completed, Completed]; file deleted; B saves; sent 2");
            continue;
        }
        let error = result.unwrap_err();
        assert_eq!(error.generation_id(), Some("gen:2"), "{error}");
        assert!(matches!(error, Error::File { .. }), "{error}");
        assert!(error.may_be_charged(), "{error}");
        assert!(!error.to_string().contains("nothing was sent"), "{error}");
        assert_eq!(fs::read(&path).ok(), new);
        assert!(!world.path().exists());
    }
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_deleted_while_a_run_waits_is_made_again_and_nothing_is_paid_again() {
    let world = World::new();
    let path = world.folder.path("assets/clips/v.mp4");
    let file = VideoFile::new(&path, VideoRequest::new("A"));
    world.tell(r#"first poll says 200 {"status": "queued"}"#);
    let assets = world.folder.path("assets");
    let error = world.make_and(&file, || fs::remove_dir_all(assets).unwrap());
    // The lock was in there, too: another process may have made the video meanwhile.
    let text = format!(
        "{0}.receipt.json: {0}.lock was deleted by another program",
        path.display()
    );
    assert_eq!(error.unwrap_err().to_string(), format!("{text}. {PAID}"));
    assert_eq!(file.attempt().unwrap().unwrap().state, State::Completed);
    world.make(&file).unwrap();
    assert_eq!(fs::read(&path).unwrap(), video("gen:1"));
    world.tell("sent 1");
}

#[test]
fn the_file_is_its_entrys_at_the_full_size_whatever_its_bytes_and_when_it_is_empty() {
    let world = World::new();
    world.tell("A saves");
    fs::write(world.path(), vec![0; video("gen:1").len()]).unwrap();
    assert!(world.file("A").is_current().unwrap());
    fs::write(world.path(), "").unwrap();
    world.tell("A is refused; replacing A saves; sent 1");
}

#[cfg(unix)]
#[test]
fn what_can_not_be_looked_at_is_an_error_and_not_absent() {
    // Links to themselves.
    let (world, other) = (World::new(), World::new());
    for path in [world.receipt_path(), other.path()] {
        std::os::unix::fs::symlink(&path, &path).unwrap();
    }
    let errors = [
        world.file("A").attempts().unwrap_err(),
        other.file("A").is_current().unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::File { .. }), "{error}");
    }
}

#[test]
fn a_rejection_does_not_call_another_attempt_free_that_is_open() {
    let folder = Folder::new();
    let path = folder.path("v.mp4");
    let receipt_path = folder.path("v.mp4.receipt.json");
    // While the request is sent, somebody puts an older receipt beside it.
    let server = Server::start(move |_, _| {
        let text = fs::read_to_string(&receipt_path).unwrap();
        let mut receipt: Value = serde_json::from_str(&text).unwrap();
        let mut older = receipt["attempts"][0].clone();
        older["client_request_id"] = "older".into();
        receipt["attempts"].as_array_mut().unwrap().push(older);
        fs::write(&receipt_path, receipt.to_string()).unwrap();
        refusal(403, "No credit")
    });
    let error = VideoFile::new(path, fox()).generate(&server.client(), |_| {});
    let error = error.unwrap_err();
    assert!(error.may_be_charged(), "{error}");
    assert!(
        error.to_string().contains("status 403: No credit"),
        "{error}"
    );
}

#[test]
fn entries_that_a_merge_put_side_by_side_are_one_in_either_order() {
    // Of two ids, the first stays, and the other is told.
    let other_id = "generation gen:9 was named, too";
    let cut = &*format!("cut; {other_id}");
    for (position, id, state, reason, failure) in [
        (0, Value::Null, "sending", None, None),
        (1, Value::Null, "sending", None, None),
        (1, json!("gen:9"), "waiting", None, Some(other_id)),
        (1, json!("gen:9"), "waiting", Some("cut"), Some(cut)),
        (1, json!("gen:9"), "waiting", Some(cut), Some(cut)),
    ] {
        println!("{id} at {position}, {reason:?}");
        let world = World::new();
        world.tell("polls wait; hasty A times out; poll recovers");
        world.edit(|receipt| {
            let mut other = receipt["attempts"][0].clone();
            other["generation_id"] = id;
            other["state"] = state.into();
            other["failure"] = reason.into();
            let attempts = receipt["attempts"].as_array_mut().unwrap();
            attempts.insert(position, other);
        });
        world.tell("A saves; sent 1; receipt [Completed]");
        assert_eq!(world.attempt().generation_id.as_deref(), Some("gen:1"));
        assert_eq!(world.attempt().failure.as_deref(), failure);
    }
}

#[test]
fn one_of_over_1_mib_is_refused_before_anything_is_sent() {
    let world = World::new();
    world.tell("A saves; file deleted");
    world.edit(|receipt| receipt["attempts"][0]["failure"] = "p".repeat(1 << 20).into());
    let error = world.generate("B").unwrap_err();
    let text = "PATH.receipt.json: would have more than 1048576 bytes: take parameters out of the \
                request, or use another file; nothing was sent";
    assert_eq!(world.text(&error), text);
    assert!(!error.may_be_charged());
    // The video that is paid for is available all the same.
    world.tell("A saves; sent 1");
    // Nested too deep to be read again.
    let deep = (0..130).fold(json!(1), |inner, _| json!([inner]));
    let request = VideoRequest::new("A").param("deep", deep);
    let file = VideoFile::new(world.folder.path("deep.mp4"), request);
    let error = world.make(&file).unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    world.tell("sent 1");
}

#[test]
fn a_file_and_its_receipt_can_be_moved_together() {
    let world = World::new();
    world.tell("A saves");
    let moved = world.folder.path("moved.mp4");
    let moved_receipt = world.folder.path("moved.mp4.receipt.json");
    fs::rename(world.path(), &moved).unwrap();
    fs::rename(world.receipt_path(), moved_receipt).unwrap();
    let file = VideoFile::new(&moved, VideoRequest::new("A"));
    assert!(file.is_current().unwrap());
    // The receipt alone is enough to download the file again.
    fs::remove_file(&moved).unwrap();
    world.make(&file).unwrap();
    assert_eq!(fs::read(&moved).unwrap(), video("gen:1"));
    world.tell("sent 1");
}

#[cfg(unix)]
#[test]
fn its_mode_is_only_narrowed() {
    use crate::support::mode;
    use std::os::unix::fs::PermissionsExt;
    for (narrowed, kept) in [(0o600, 0o600), (0o640, 0o640), (0o666, 0o644)] {
        let world = World::new();
        world.tell("polls wait; hasty A times out; poll recovers");
        let usual = mode(&world.receipt_path());
        let permissions = fs::Permissions::from_mode(narrowed);
        fs::set_permissions(world.receipt_path(), permissions).unwrap();
        world.tell("A saves");
        assert_eq!(mode(&world.receipt_path()), kept & usual, "{narrowed:o}");
        assert_eq!(mode(&world.path()), usual);
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_a_finished_file_and_its_receipt_counts_and_is_never_written_through() {
    let world = World::new();
    world.tell("A saves");
    let store = world.folder.path("store");
    fs::create_dir(&store).unwrap();
    for path in [world.path(), world.receipt_path()] {
        let stored = store.join(path.file_name().unwrap());
        fs::rename(&path, &stored).unwrap();
        std::os::unix::fs::symlink(&stored, &path).unwrap();
    }
    world.file("A").generate(&offline(), |_| {}).unwrap();
    assert!(world.file("A").is_current().unwrap());
    let error = world.make(&world.file("B").allow_replace(true));
    let text = "PATH: PATH is not a regular file; nothing was sent";
    assert_eq!(world.text(&error.unwrap_err()), text);
    let error = world.file("A").give_up().unwrap_err();
    let text = format!("PATH.receipt.json: PATH.receipt.json is not a regular file. {PAID}");
    assert_eq!(world.text(&error), text);
    assert_eq!(fs::read(store.join("v.mp4")).unwrap(), video("gen:1"));
    world.tell("sent 1");
}

/// The ids of a simulator, and a loopback host, make an attempt a simulated one.
#[cfg(any(feature = "rustls", feature = "native-tls"))]
#[test]
fn a_video_that_a_simulator_made_is_none() {
    let (world, other) = (World::new(), World::new());
    world.service.script().prefix = Some("simulated-word-");
    let file = world.file("A");
    world.make(&file).unwrap();
    assert!(!file.is_current().unwrap());
    assert!(file.attempt().unwrap().is_some());
    // Clients of a simulator, this one or another, take it.
    world.make(&file).unwrap();
    other.make(&file).unwrap();
    assert_eq!(other.service.requests().len(), 0);

    // The client of a real service does not, and replaces it if asked.
    let real = crate::support::builder("https://api.invalid/v2")
        .build()
        .unwrap();
    let text = world.text(&file.generate(&real, |_| {}).unwrap_err());
    let begins = "PATH: there is a video that the simulator made, which";
    assert!(text.starts_with(begins), "{text}");
    let error = file.clone().allow_replace(true).generate(&real, |_| {});
    assert!(matches!(error, Err(Error::Network { .. })), "{error:?}");

    // Another simulator knows nothing of it, and makes its own.
    world.tell("file deleted");
    other.service.script().prefix = Some("simulated-other-");
    other.make(&file).unwrap();
    world.tell("sent 1");
    other.tell("sent 1");
    // An attempt that is none speaks for the request, once there is one.
    world.edit(|receipt| receipt["attempts"][0]["generation_id"] = "gen:1".into());
    assert_eq!(world.attempt().generation_id.as_deref(), Some("gen:1"));
}
