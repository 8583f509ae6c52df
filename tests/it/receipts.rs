//! The receipt: for people, never written over what is there, and never a reason to pay again.

use std::time::{Duration, SystemTime};
use std::{fs, path::Path};

use aimlapi_video::{Error, State, VideoFile, VideoRequest};
use serde_json::{Map, Value, json};

use crate::service::{say, video};
use crate::support::{KEY, builder, offline, once, rows};
use crate::video_file::World;

#[test]
fn it_is_for_people_and_has_neither_the_key_nor_a_url() {
    let world = World::new();
    world.tell("polls fail; A fails; poll recovers");
    let request = VideoRequest::new("A").duration(4).param("cfg_scale", 0.5);
    let request = request.model("someone/model").client_request_id("boat-1");
    let request = request.param("callback", "https://example.com/?signature=secret");
    let image = format!("data:image/png;base64,{}", "A".repeat(100));
    let file = VideoFile::new(world.path(), request.image_url(image));
    let made = file.generate(&world.service.client(), |_| {}).unwrap();

    let receipt = world.receipt();
    let second = &receipt["attempts"][1];
    let (id, sent) = (&made.client_request_id, made.sent);
    assert!(id.starts_with("boat-1:aimlapi-video-"), "{id}");
    let age = SystemTime::now().duration_since(sent).unwrap();
    assert!(age < Duration::from_secs(600), "{age:?}");
    let since_1970 = sent.duration_since(SystemTime::UNIX_EPOCH).unwrap();
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
    assert_eq!(attempts[1], made);
    assert_eq!(
        (file.attempt().unwrap(), attempts.len()),
        (Some(made.clone()), 2)
    );
    assert_eq!(
        world.file("A").attempt().unwrap().unwrap().state,
        State::Failed
    );
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
    let first = file(request("A\nfox")).generate(&world.service.client(), |_| {});
    first.unwrap();
    let fingerprint = &world.receipt()["attempts"][0]["fingerprint"];
    assert_eq!(fingerprint, "5a702a0d91dbe019");
    // A prompt by `include_str!` ends with a line end, which a clone may write as CRLF.
    for same in ["A\r\nfox", "A\nfox\n", " A\r\nfox\t\r\n"] {
        assert!(file(request(same)).is_current().unwrap(), "{same:?}");
    }
    for other in ["A fox", "A\n fox", "A\n\nfox", "a\nfox", "A\nfox."] {
        assert!(!file(request(other)).is_current().unwrap(), "{other:?}");
    }
    assert!(
        file(request("A\nfox").client_request_id("x"))
            .is_current()
            .unwrap()
    );
    let others = [
        request("A\nfox").seed(1),
        request("A\nfox").model("other/model"),
    ];
    assert!(
        others
            .into_iter()
            .all(|other| !file(other).is_current().unwrap())
    );
    assert_eq!(file(request("A\nfox")).attempts().unwrap().len(), 1);
    // What is sent stays as it is.
    let sent: Value = serde_json::from_str(&world.service.requests()[0].body).unwrap();
    assert_eq!(sent["prompt"], "A\nfox");
}

/// A receipt, or a change to the attempt in it; and what an error says is wrong with that.
const UNREADABLE: &str = r#"
    | EOF while parsing a value at line 1 column 0
    { | EOF while parsing an object at line 1 column 1
    [] | `version`: invalid type: null, expected u64
    <<<<<<< HEAD | expected value at line 1 column 1
    {"version": 2} | version 2 is not 3
    {"version": 4} | version 4 is not 3
    {"version": 3} | it has no list of attempts
    + {"sent": -1} | attempt 1: `sent`: invalid value: integer `-1`, expected u64
    + {"sent": 18446744073709551615} | attempt 1: `sent` is too large
    + {"client_request_id": null} | attempt 1: `client_request_id`: invalid type: null, expected a string
    + {"state": "x\ncargo::warning=y"} | attempt 1: `state`: unknown word "x\ncargo::warning=y"
    + {"cost": "free of charge"} | attempt 1: `cost`: unknown word "free of charge"
    + {"generation_id": "a\nb"} | attempt 1: `generation_id` is no id
    2 MiB | it has more than 2097152 bytes
"#;

#[test]
fn one_that_cannot_be_read_sends_nothing_and_stays_as_it_is() {
    let world = World::new();
    world.tell("A saves");
    let (path, file, good) = (world.receipt_path(), world.file("A"), world.receipt());
    for [bad, reason] in rows(UNREADABLE) {
        let mut changed = good.clone();
        let bad = match bad.strip_prefix('+') {
            Some(fields) => {
                let fields: Map<String, Value> = serde_json::from_str(fields).unwrap();
                changed["attempts"][0]
                    .as_object_mut()
                    .unwrap()
                    .extend(fields);
                changed.to_string()
            }
            None if bad == "2 MiB" => format!("{good}{}", " ".repeat(2 << 20)),
            None => bad.to_owned(),
        };
        fs::write(&path, &bad).unwrap();
        let generated = world.generate("A").map(drop);
        let others = [
            file.is_current().map(drop),
            file.attempts().map(drop),
            file.give_up(),
        ];
        for error in others
            .into_iter()
            .chain([generated])
            .map(Result::unwrap_err)
        {
            let text = format!(
                "{}: is not a receipt that can be read ({reason}). Correct or restore it: without \
                 it, the video is paid for again",
                path.display()
            );
            assert_eq!(error.to_string(), text);
            assert!(error.may_be_charged());
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        assert_eq!(world.service.posts(), 1);
    }
}

#[test]
fn a_byte_order_mark_and_times_from_1970_to_2106_are_read() {
    let world = World::new();
    world.tell("A saves");
    for sent in [0, 1, 4_294_967_295_u64] {
        world.edit(|receipt| receipt["attempts"][0]["sent"] = sent.into());
        let text = world.receipt().to_string();
        fs::write(world.receipt_path(), format!("\u{feff}{text}")).unwrap();
        let attempt = world.file("A").attempt().unwrap().unwrap();
        assert_eq!(
            attempt.sent,
            SystemTime::UNIX_EPOCH + Duration::from_secs(sent)
        );
        assert!(world.file("A").is_current().unwrap());
        world.tell("file deleted; A saves; sent 1");
        assert_eq!(world.receipt()["attempts"][0]["sent"], sent);
    }
}

/// What a person, or a version control system, does to it while a run waits.
#[test]
fn nothing_that_happens_to_it_while_a_run_waits_loses_an_entry_or_pays_again() {
    for change in [
        "an older one",
        "none",
        "half",
        "<<<<<<< HEAD",
        "version 4",
        "given up",
    ] {
        println!("{change}");
        let (world, mut new) = (World::new(), None);
        world.tell(r#"A saves; file deleted; first poll says 200 {"status": "queued"}"#);
        let (older, path) = (
            fs::read_to_string(world.receipt_path()).unwrap(),
            world.receipt_path(),
        );
        let change_it = || match change {
            "an older one" => fs::write(&path, &older).unwrap(),
            "none" => fs::remove_file(&path).unwrap(),
            "half" => fs::write(&path, &older[..300]).unwrap(),
            "given up" => world.tell("edit state given_up"),
            "version 4" => fs::write(&path, r#"{"version": 4}"#).unwrap(),
            text => fs::write(&path, format!("{text}\n{older}")).unwrap(),
        };
        let result = world.file("B").generate(&world.service.client(), |_| {
            new.get_or_insert_with(|| {
                change_it();
                fs::read(&path).unwrap_or_default()
            });
        });
        assert_eq!(world.service.posts(), 2);
        if matches!(change, "an older one" | "none") {
            result.unwrap();
            world.tell("B is there; receipt [Completed, Completed]; file deleted; B saves; sent 2");
            continue;
        }
        let error = result.unwrap_err();
        assert_eq!(error.generation_id(), Some("gen:2"), "{error}");
        assert!(
            error.may_be_charged() && matches!(error, Error::File { .. }),
            "{error}"
        );
        assert!(!error.to_string().contains("nothing was sent"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), new.unwrap());
        assert!(!world.path().exists());
    }
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_deleted_while_a_run_waits_is_made_again_and_nothing_is_paid_again() {
    let world = World::new();
    let path = world.folder.path("assets/clips/v.mp4");
    let file = VideoFile::new(&path, VideoRequest::new("A"));
    world
        .service
        .script()
        .polls
        .push_back(say(200, r#"{"status": "queued"}"#));
    let delete = once(|| fs::remove_dir_all(world.folder.path("assets")).unwrap());
    let error = file.generate(&world.service.client(), delete);
    // The lock was in there, too: another process may have made the video meanwhile.
    let error = error.unwrap_err().to_string();
    let text = format!(
        "{0}.receipt.json: {0}.lock was deleted by another program. Its generation is gen:1: trying \
         again with that id costs nothing",
        path.display()
    );
    assert_eq!(error, text);
    assert_eq!(file.attempt().unwrap().unwrap().state, State::Completed);
    file.generate(&world.service.client(), |_| {}).unwrap();
    assert_eq!(
        (world.service.posts(), fs::read(&path).unwrap()),
        (1, video("gen:1"))
    );
}

#[test]
fn entries_that_a_merge_put_side_by_side_are_one_in_either_order() {
    for is_swapped in [false, true] {
        let world = World::new();
        world.tell("polls wait; hasty A times out; poll recovers");
        world.edit(|receipt| {
            let mut older = receipt["attempts"][0].clone();
            older["generation_id"] = Value::Null;
            older["state"] = "sending".into();
            let attempts = receipt["attempts"].as_array_mut().unwrap();
            attempts.insert(usize::from(is_swapped), older);
        });
        world.tell("A saves; sent 1; receipt [Completed]");
    }
    // Of two ids, the first stays, and the other is told.
    let world = World::new();
    world.tell("polls wait; hasty A times out; poll recovers");
    world.edit(|receipt| {
        let mut other = receipt["attempts"][0].clone();
        other["generation_id"] = "gen:9".into();
        receipt["attempts"].as_array_mut().unwrap().push(other);
    });
    world.tell("A saves; sent 1; receipt [Completed]");
    let attempt = world.file("A").attempt().unwrap().unwrap();
    assert_eq!(attempt.generation_id.as_deref(), Some("gen:1"));
    assert_eq!(
        attempt.failure.as_deref(),
        Some("generation gen:9 was named, too")
    );
}

#[test]
fn one_of_over_1_mib_is_refused_before_anything_is_sent() {
    let world = World::new();
    world.tell("A saves; file deleted");
    world.edit(|receipt| receipt["attempts"][0]["failure"] = "p".repeat(1 << 20).into());
    let error = world.generate("B").unwrap_err();
    let path = world.receipt_path();
    let text = "would have more than 1048576 bytes: take parameters out of the request, or use \
                another file; nothing was sent";
    assert_eq!(error.to_string(), format!("{}: {text}", path.display()));
    assert!(!error.may_be_charged());
    // The video that is paid for is available all the same.
    world.tell("A saves; sent 1");
    // Nested too deep to be read again.
    let deep = (0..130).fold(json!(1), |inner, _| json!([inner]));
    let request = VideoRequest::new("A").param("deep", deep);
    let file = VideoFile::new(world.folder.path("deep.mp4"), request);
    let error = file.generate(&world.service.client(), |_| {}).unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    assert_eq!(world.service.posts(), 1);
}

#[test]
fn a_file_and_its_receipt_can_be_moved_together() {
    let world = World::new();
    world.tell("A saves");
    let moved = world.folder.path("moved.mp4");
    fs::rename(world.path(), &moved).unwrap();
    fs::rename(
        world.receipt_path(),
        world.folder.path("moved.mp4.receipt.json"),
    )
    .unwrap();
    let file = VideoFile::new(&moved, VideoRequest::new("A"));
    assert!(file.is_current().unwrap());
    // The receipt alone is enough to download the file again.
    fs::remove_file(&moved).unwrap();
    file.generate(&world.service.client(), |_| {}).unwrap();
    assert_eq!(fs::read(&moved).unwrap(), video("gen:1"));
    world.tell("sent 1");
}

#[cfg(unix)]
#[test]
fn its_mode_is_only_narrowed() {
    use std::os::unix::fs::PermissionsExt;
    for (mode, kept) in [(0o600, 0o600), (0o640, 0o640), (0o666, 0o644)] {
        let world = World::new();
        world.tell("polls wait; hasty A times out; poll recovers");
        let mode_of = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        let usual = mode_of(&world.receipt_path());
        fs::set_permissions(world.receipt_path(), fs::Permissions::from_mode(mode)).unwrap();
        world.tell("A saves");
        assert_eq!(mode_of(&world.receipt_path()), kept & usual);
        assert_eq!(mode_of(&world.path()), usual);
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_a_finished_file_and_its_receipt_counts_and_is_never_written_through() {
    use std::os::unix::fs::symlink;
    let world = World::new();
    world.tell("A saves");
    let store = world.folder.path("store");
    fs::create_dir(&store).unwrap();
    for name in ["v.mp4", "v.mp4.receipt.json"] {
        fs::rename(world.folder.path(name), store.join(name)).unwrap();
        symlink(store.join(name), world.folder.path(name)).unwrap();
    }
    world.file("A").generate(&offline(), |_| {}).unwrap();
    assert!(world.file("A").is_current().unwrap());
    let replaced = world.file("B").allow_replace(true);
    let error = replaced
        .generate(&world.service.client(), |_| {})
        .unwrap_err();
    let path = world.path();
    let text = format!(
        "{0}: {0} is not a regular file; nothing was sent",
        path.display()
    );
    assert_eq!(error.to_string(), text);
    let error = world.file("A").give_up().unwrap_err();
    let path = world.receipt_path();
    assert_eq!(
        error.to_string(),
        format!(
            "{0}: {0} is not a regular file. Its generation is gen:1: trying again with that id costs nothing",
            path.display()
        )
    );
    assert_eq!(fs::read(store.join("v.mp4")).unwrap(), video("gen:1"));
    world.tell("sent 1");
}

/// The ids of a simulator, and a loopback host, make an attempt a simulated one.
#[test]
fn a_video_that_a_simulator_made_is_none() {
    let world = World::new();
    world.service.script().prefix = Some("simulated-word-");
    let file = world.file("A");
    file.generate(&world.service.client(), |_| {}).unwrap();
    assert!(!file.is_current().unwrap());
    assert!(file.attempt().unwrap().is_some());
    // Clients of a simulator, this one or another, take it.
    file.generate(&world.service.client(), |_| {}).unwrap();
    let other = World::new();
    file.generate(&other.service.client(), |_| {}).unwrap();
    assert_eq!(other.service.requests().len(), 0);

    // The client of a real service does not, and replaces it if asked.
    let real = builder("https://api.invalid/v2").build().unwrap();
    let text = file.generate(&real, |_| {}).unwrap_err().to_string();
    let path = world.path();
    let begins = format!(
        "{}: there is a video that the simulator made, which",
        path.display()
    );
    assert!(text.starts_with(&begins), "{text}");
    let error = file.clone().allow_replace(true).generate(&real, |_| {});
    assert!(matches!(error, Err(Error::Network { .. })), "{error:?}");

    // Another simulator knows nothing of it, and makes its own.
    fs::remove_file(&path).unwrap();
    other.service.script().prefix = Some("simulated-other-");
    file.generate(&other.service.client(), |_| {}).unwrap();
    assert_eq!((world.service.posts(), other.service.posts()), (1, 1));
    // An attempt that is none speaks for the request, once there is one.
    let mut receipt = world.receipt();
    receipt["attempts"][0]["generation_id"] = "gen:1".into();
    fs::write(world.receipt_path(), receipt.to_string()).unwrap();
    let attempt = file.attempt().unwrap().unwrap();
    assert_eq!(attempt.generation_id.as_deref(), Some("gen:1"));
}
