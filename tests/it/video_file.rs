//! One payment, one whole file: whatever breaks, however often it is run.

use std::{fs, ops::ControlFlow, path::Path, sync::Mutex, thread};

use aimlapi_video::{
    Client, Error, Progress, State, VideoFile, VideoRequest,
    simulator::{CLIP, Simulator, Step},
};
use serde_json::{Value, json};

use crate::support::{
    Act, Folder, KEY, Outcome, Server, child, child_task, http, json, quick, refusal, stdout,
};

fn request() -> VideoRequest {
    VideoRequest::new("A paper boat on a river")
}

fn generate(file: &VideoFile, client: &Client) -> Result<aimlapi_video::Receipt, Error> {
    file.generate(client, &quick(), |_| {})
}

fn receipt_of(path: &Path) -> Value {
    let name = format!("{}.receipt.json", path.display());
    serde_json::from_slice(&fs::read(name).unwrap()).unwrap()
}

/// An API that takes requests and never answers them, beside a usage log with these rows.
fn deaf_api(log: impl Fn(&str) -> Vec<Act> + Send + Sync + 'static) -> Server {
    let sent = Mutex::new(String::new());
    Server::start(move |request, _| {
        if request.is_post() {
            *sent.lock().unwrap() = request.header("x-client-request-id").unwrap().to_owned();
            return vec![Act::Close];
        }
        log(&sent.lock().unwrap())
    })
}

#[test]
fn a_finished_file_needs_neither_key_nor_network() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let file = VideoFile::new(folder.path("boat.mp4"), request());
    assert!(!file.is_current().unwrap());
    let receipt = generate(&file, &simulator.client()).unwrap();
    assert_eq!(fs::read(file.path()).unwrap(), CLIP);
    assert_eq!(folder.names(), ["boat.mp4", "boat.mp4.receipt.json"]);
    let requests = simulator.received().len();
    drop(simulator);

    assert!(file.is_current().unwrap());
    let nowhere = Client::builder(KEY)
        .base_url("http://127.0.0.1:9/v2")
        .build()
        .unwrap();
    assert_eq!(generate(&file, &nowhere).unwrap(), receipt);
    assert_eq!(requests, 5, "one POST, three polls, one download");
}

#[test]
fn the_receipt_is_for_people() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let file = VideoFile::new(
        folder.path("boat.mp4"),
        request().client_request_id("boat-1"),
    );
    let receipt = generate(&file, &simulator.client()).unwrap();
    assert_eq!(receipt.state, State::Done);
    assert!(
        receipt
            .client_request_id
            .starts_with("boat-1:aimlapi-video-")
    );
    assert_eq!(
        receipt_of(file.path()),
        json!({
            "about": "What aimlapi-video knows of the video beside this file. Without it, the video may be paid for twice.",
            "version": 1,
            "state": "done",
            "generation_id": "51a00000-0000-4000-8000-000000000000:veo3",
            "client_request_id": receipt.client_request_id,
            "request": {"model": "google/veo3", "prompt": "A paper boat on a river"},
            "usage": {"credits_used": 120_000.0, "usd_spent": 0.06},
            "failure": null,
            "file": {"bytes": CLIP.len(), "fnv1a": receipt.file.unwrap().fnv1a},
            "replaced": [],
        })
    );
    let text = fs::read_to_string(folder.path("boat.mp4.receipt.json")).unwrap();
    assert!(
        !text.contains(Simulator::KEY) && !text.contains("http"),
        "{text}"
    );
}

#[test]
fn the_callback_is_told_of_each_step_and_can_stop_at_each() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let file = VideoFile::new(folder.path("boat.mp4"), request());
    let mut steps = Vec::new();
    let step = |progress: Progress<'_>| match progress {
        Progress::Generation(generation) => generation.status.to_string(),
        Progress::Download { done, total } => {
            format!("{} of {total:?}", if done > 0 { "some" } else { "none" })
        }
        _ => unreachable!("no other step is known"),
    };
    for stop_at in ["queued", "generating", "some"] {
        let stopped = file.generate(&simulator.client(), &quick(), |progress| {
            let step = step(progress);
            steps.push(step.clone());
            if step.starts_with(stop_at) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let error = stopped.unwrap_err();
        assert!(matches!(error, Error::Stopped { .. }), "{error}");
        assert_eq!(
            error.generation_id(),
            Some("51a00000-0000-4000-8000-000000000000:veo3")
        );
        assert_eq!(folder.names(), ["boat.mp4.receipt.json"]);
    }
    generate(&file, &simulator.client()).unwrap();
    steps.dedup();
    let some = format!("some of Some({})", CLIP.len());
    assert_eq!(
        steps,
        ["queued", "queued", "generating", "completed", some.as_str()][1..]
    );
    assert_eq!(simulator.charged(), 1);
}

#[test]
fn a_lost_answer_is_never_paid_again() {
    let folder = Folder::new();
    let empty = json(200, r#"{"data": [], "pagination": {"has_more": false}}"#);
    let server = deaf_api(move |_| empty.clone());
    let file = VideoFile::new(folder.path("boat.mp4"), request());
    let mut texts = Vec::new();
    for _ in 0..4 {
        let error = generate(&file, &server.client()).unwrap_err();
        assert!(error.may_have_charged());
        texts.push(error.to_string());
    }
    assert_eq!(server.posts(), 1);
    let receipt = file.receipt().unwrap().unwrap();
    assert_eq!(
        (receipt.state, receipt.generation_id),
        (State::Sending, None)
    );
    let id = receipt.client_request_id;
    let path = folder.path("boat.mp4");
    assert_eq!(
        texts[3],
        format!(
            "the generation may have been made and charged: an earlier request for {0} had no answer; it is not in the \
             usage log so far. Do not just send it again: run this again in some minutes, which looks it up in the usage \
             log as {id:?} and pays nothing. Only if your account shows that nothing was charged, change \"sending\" to \
             \"failed\" in {0}.receipt.json to start anew",
            path.display()
        )
    );
    // The way out.
    let receipt = fs::read_to_string(folder.path("boat.mp4.receipt.json")).unwrap();
    fs::write(
        folder.path("boat.mp4.receipt.json"),
        receipt.replace("\"sending\"", "\"failed\""),
    )
    .unwrap();
    let simulator = Simulator::start().unwrap();
    generate(&file, &simulator.client()).unwrap();
}

#[test]
fn a_lost_answer_is_recovered_through_the_log() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    simulator.late_log(2);
    let upstream = simulator
        .base_url()
        .replace("http://", "")
        .replace("/v2", "");
    // Passes all on to the simulator, and loses the answer to each POST.
    let lossy = Server::start(move |request, _| {
        let answer = crate::support::forward(&upstream, request);
        if request.is_post() {
            vec![Act::Reset]
        } else {
            vec![Act::Send(answer), Act::Close]
        }
    });
    // Each run with connections of its own: this server closes them without notice.
    let client = || {
        Client::builder(Simulator::KEY)
            .base_url(lossy.url("/v2"))
            .build()
            .unwrap()
    };
    let file = VideoFile::new(folder.path("boat.mp4"), request());
    for _ in 0..2 {
        assert!(generate(&file, &client()).unwrap_err().may_have_charged());
    }
    let receipt = generate(&file, &client()).unwrap();
    assert_eq!(receipt.state, State::Done);
    assert_eq!((lossy.posts(), simulator.charged()), (1, 1));
    assert_eq!(fs::read(file.path()).unwrap(), CLIP);
}

#[test]
fn a_broken_answer_that_names_the_generation_is_enough() {
    let folder = Folder::new();
    let server = Server::start(|request, _| {
        if request.is_post() {
            return vec![Act::Send(http(
                201,
                &[("x-inference-id", "gen:7")],
                "<html>",
            ))];
        }
        refusal(404, "Not Found")
    });
    let file = VideoFile::new(folder.path("boat.mp4"), request());
    for _ in 0..2 {
        assert_eq!(
            generate(&file, &server.client())
                .unwrap_err()
                .generation_id(),
            Some("gen:7")
        );
    }
    assert_eq!(server.posts(), 1);
    assert_eq!(
        file.receipt().unwrap().unwrap().generation_id.as_deref(),
        Some("gen:7")
    );
}

#[test]
fn a_refused_request_can_be_sent_again() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let file = VideoFile::new(folder.path("boat.mp4"), request());
    let stranger = Client::builder("wrong-key")
        .base_url(simulator.base_url())
        .build()
        .unwrap();
    let error = generate(&file, &stranger).unwrap_err();
    assert!(matches!(error, Error::Refused(_)));
    let receipt = file.receipt().unwrap().unwrap();
    assert_eq!(
        (receipt.state, receipt.failure),
        (State::Failed, Some(error.to_string()))
    );
    let receipt = generate(&file, &simulator.client()).unwrap();
    assert_eq!((receipt.replaced.len(), simulator.charged()), (0, 1));
}

#[test]
fn a_request_that_never_left_can_be_sent_again() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let file = VideoFile::new(folder.path("boat.mp4"), request());
    let nowhere = Client::builder(KEY)
        .base_url("http://127.0.0.1:9/v2")
        .build()
        .unwrap();
    assert!(matches!(
        generate(&file, &nowhere),
        Err(Error::Network { .. })
    ));
    assert!(folder.names().is_empty());
    generate(&file, &simulator.client()).unwrap();
    assert_eq!(simulator.charged(), 1);
}

#[test]
fn a_new_request_that_is_refused_keeps_the_old_receipt() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let path = folder.path("boat.mp4");
    let old = generate(&VideoFile::new(&path, request()), &simulator.client()).unwrap();
    let broke = Server::script(vec![refusal(403, "You've run out of credits.")]);
    let changed = VideoFile::new(&path, request().seed(7));
    assert!(matches!(
        generate(&changed, &broke.client()),
        Err(Error::Refused(_))
    ));
    assert_eq!(changed.receipt().unwrap(), Some(old));
    assert!(VideoFile::new(&path, request()).is_current().unwrap());
}

#[test]
fn what_is_no_file_is_not_waited_at() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    for (name, make) in [
        ("boat.mp4.receipt.json", "mkfifo"),
        ("boat.mp4.receipt.json", "mkdir"),
        ("boat.mp4.receipt.json.lock", "mkfifo"),
        ("boat.mp4.receipt.json.lock", "mkdir"),
    ] {
        let there = folder.path(name);
        assert!(
            std::process::Command::new(make)
                .arg(&there)
                .status()
                .unwrap()
                .success()
        );
        let error = generate(
            &VideoFile::new(folder.path("boat.mp4"), request()),
            &simulator.client(),
        )
        .unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{error}");
        assert_eq!(folder.names(), [name], "{make}");
        std::process::Command::new("rm")
            .arg("-r")
            .arg(&there)
            .status()
            .unwrap();
    }
    assert!(simulator.received().is_empty());
}

#[test]
fn a_receipt_that_could_not_be_read_back_is_not_paid_for() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let deep = (0..130).fold(json!(1), |inner, _| json!([inner]));
    let request = request().model("someone/model").param("deep", deep);
    let error = generate(
        &VideoFile::new(folder.path("boat.mp4"), request),
        &simulator.client(),
    )
    .unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    assert_eq!(simulator.charged(), 0);
    assert!(
        folder
            .names()
            .iter()
            .all(|name| !name.ends_with(".receipt.json"))
    );
}

#[test]
fn a_folder_that_does_not_exist_is_told() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let path = folder.path("assets/intro.mp4");
    let error = generate(&VideoFile::new(&path, request()), &simulator.client()).unwrap_err();
    let receipt = format!("{}.receipt.json", path.display());
    assert_eq!(
        error.to_string(),
        format!("{receipt}: its folder does not exist: make it; nothing was sent")
    );
}

#[test]
fn an_error_of_the_service_that_names_a_generation_keeps_its_id() {
    let folder = Folder::new();
    let simulator = Simulator::start().unwrap();
    let body = r#"{"message": "Generation timeout", "statusCode": 504, "requestId": "r"}"#;
    let late = Server::script(vec![vec![Act::Send(http(
        504,
        &[("x-inference-id", "gen:7")],
        body,
    ))]]);
    let file = VideoFile::new(folder.path("boat.mp4"), request());
    assert_eq!(
        generate(&file, &late.client()).unwrap_err().generation_id(),
        Some("gen:7")
    );
    let receipt = generate(&file, &simulator.client()).unwrap();
    assert_eq!(receipt.replaced[0].generation_id.as_deref(), Some("gen:7"));
}

#[test]
fn a_video_that_was_there_once_is_never_paid_again() {
    // Long after, the service knows the generation as expired, failed, or in words with an error beside them.
    for late in ["expired", "error", "failed"] {
        let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
        let file = VideoFile::new(folder.path("boat.mp4"), request());
        let receipt = generate(&file, &simulator.client()).unwrap();
        let mut without_cost = receipt_of(file.path());
        without_cost["usage"] = Value::Null;
        fs::write(
            folder.path("boat.mp4.receipt.json"),
            without_cost.to_string(),
        )
        .unwrap();
        fs::remove_file(file.path()).unwrap();
        let answer = json!({"id": receipt.generation_id, "status": late}).to_string();
        let later = Server::script(vec![json(200, &answer)]);
        for _ in 0..3 {
            assert!(
                matches!(generate(&file, &later.client()), Err(Error::Failed(_))),
                "{late}"
            );
        }
        assert_eq!(later.posts(), 0, "{late}");
        // Brought back from version control, the file counts.
        fs::write(file.path(), CLIP).unwrap();
        assert!(file.is_current().unwrap());
    }
}

#[test]
fn a_generation_that_goes_on_is_not_paid_again_for_an_error_beside_it() {
    for poll in [
        r#"{"status": "generating", "error": {"name": "Hiccup", "message": "Slow."}}"#,
        r#"{"status": "expired"}"#,
        r#"{"status": "sulking", "error": "why"}"#,
    ] {
        let folder = Folder::new();
        let server = Server::start(move |request, _| {
            if request.is_post() {
                crate::support::queued()
            } else {
                json(200, poll)
            }
        });
        let file = VideoFile::new(folder.path("boat.mp4"), request());
        for _ in 0..3 {
            assert!(
                matches!(generate(&file, &server.client()), Err(Error::Failed(_))),
                "{poll}"
            );
        }
        assert_eq!(server.posts(), 1, "{poll}");
    }
}

#[test]
fn receipts_of_the_first_version_stay_good() {
    let folder = Folder::new();
    fs::write(folder.path("boat.mp4"), "film").unwrap();
    let receipt = r#"{
        "version": 1, "state": "done", "generation_id": "gen:1", "client_request_id": "boat-1",
        "request": {
            "model": "google/veo-3.0-i2v", "prompt": "A paper boat on a river", "resolution": "720p",
            "image_url": "https://h/a.png, 19 characters, FNV-1a 7d804a08f631595e"
        },
        "usage": {"credits_used": 120000.0, "usd_spent": 0.06}, "failure": null,
        "file": {"bytes": 4, "fnv1a": "aad01978f02a77bb"}, "replaced": []
    }"#;
    fs::write(folder.path("boat.mp4.receipt.json"), receipt).unwrap();
    let request = VideoRequest::from_image("A paper boat on a river", "https://h/a.png?x=1");
    let request = request.resolution(aimlapi_video::Resolution::P720);
    assert!(
        VideoFile::new(folder.path("boat.mp4"), request)
            .is_current()
            .unwrap()
    );
}

#[test]
fn a_new_request_that_never_left_keeps_the_old_receipt() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let path = folder.path("boat.mp4");
    let old = generate(&VideoFile::new(&path, request()), &simulator.client()).unwrap();
    let nowhere = Client::builder(KEY)
        .base_url("http://127.0.0.1:9/v2")
        .build()
        .unwrap();
    let changed = VideoFile::new(&path, request().seed(7));
    assert!(matches!(
        generate(&changed, &nowhere),
        Err(Error::Network { .. })
    ));
    assert_eq!(changed.receipt().unwrap(), Some(old));
    assert!(VideoFile::new(&path, request()).is_current().unwrap());
}

#[test]
fn a_receipt_that_cant_be_written_stops_the_request_before_its_body() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let file = VideoFile::new(folder.path("boat.mp4"), request());
    // The lock can be taken, the receipt's temporary sibling can't be made.
    fs::create_dir(folder.path("boat.mp4.receipt.json.tmp")).unwrap();
    let error = generate(&file, &simulator.client()).unwrap_err();
    let name = format!("{}.receipt.json: can't be written: ", file.path().display());
    assert!(error.to_string().starts_with(&name), "{error}");
    assert!(matches!(error, Error::File { .. }));
    assert_eq!(simulator.charged(), 0);
}

#[test]
fn a_failed_generation_is_recorded_and_may_be_requested_again() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    simulator.script([Step::fail("SafetyError", "No.")]);
    let file = VideoFile::new(folder.path("boat.mp4"), request());
    let error = generate(&file, &simulator.client()).unwrap_err();
    let receipt = file.receipt().unwrap().unwrap();
    assert_eq!(
        (receipt.state, receipt.failure),
        (State::Failed, Some(error.to_string()))
    );
    simulator.script([Step::Complete]);
    let receipt = generate(&file, &simulator.client()).unwrap();
    assert_eq!(
        receipt.replaced[0].generation_id.as_deref(),
        error.generation_id()
    );
    assert_eq!((receipt.failure, simulator.charged()), (None, 1));
}

#[test]
fn a_generation_that_cost_something_and_gave_nothing_is_not_paid_again() {
    for answer in [
        r#"{"id": "gen:1", "status": "completed", "video": null}"#,
        r#"{"id": "gen:1", "status": "failed", "meta": {"usage": {"credits_used": 5}}}"#,
    ] {
        let folder = Folder::new();
        let server = Server::start(move |request, _| {
            if request.is_post() {
                crate::support::queued()
            } else {
                json(200, answer)
            }
        });
        let file = VideoFile::new(folder.path("boat.mp4"), request());
        for _ in 0..3 {
            assert!(matches!(
                generate(&file, &server.client()),
                Err(Error::Failed(_))
            ));
        }
        assert_eq!(server.posts(), 1);
    }
}

#[test]
fn a_changed_request_begins_anew_and_keeps_the_ids_it_replaces() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let path = folder.path("boat.mp4");
    let first = generate(&VideoFile::new(&path, request()), &simulator.client()).unwrap();
    let changed = VideoFile::new(&path, request().seed(7));
    assert!(!changed.is_current().unwrap());
    let second = generate(&changed, &simulator.client()).unwrap();
    assert_eq!(second.replaced[0].generation_id, first.generation_id);
    assert_eq!(
        second.replaced[0].client_request_id,
        first.client_request_id
    );
    let third = generate(
        &VideoFile::new(&path, request().seed(8)),
        &simulator.client(),
    )
    .unwrap();
    assert_eq!((third.replaced.len(), simulator.charged()), (2, 3));
}

#[test]
fn a_deleted_or_altered_video_is_downloaded_again_not_paid_again() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let file = VideoFile::new(folder.path("boat.mp4"), request());
    generate(&file, &simulator.client()).unwrap();
    let mut altered = CLIP.to_vec();
    altered[5000] ^= 1;
    for damage in [
        None,
        Some(altered),
        Some(CLIP[..100].to_vec()),
        Some(Vec::new()),
    ] {
        match damage {
            None => fs::remove_file(file.path()).unwrap(),
            Some(bytes) => fs::write(file.path(), bytes).unwrap(),
        }
        assert!(!file.is_current().unwrap());
        generate(&file, &simulator.client()).unwrap();
        assert_eq!(fs::read(file.path()).unwrap(), CLIP);
    }
    assert_eq!(simulator.charged(), 1);
}

#[test]
fn a_receipt_that_cant_be_read_touches_nothing() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let file = VideoFile::new(folder.path("boat.mp4"), request());
    let receipt = folder.path("boat.mp4.receipt.json");
    for (text, reason) in [
        (
            "",
            "is not a receipt; nothing was sent and nothing was changed.",
        ),
        (
            "{\"version\": 1, \"state\"",
            "is not a receipt; nothing was sent and nothing was changed.",
        ),
        (
            "[]",
            "is not a receipt; nothing was sent and nothing was changed.",
        ),
        (
            "{\"version\": 1}",
            "is not a receipt; nothing was sent and nothing was changed.",
        ),
        (
            "{\"version\": 2}",
            "written by a newer version of aimlapi-video (format 2, this one reads 1): update it",
        ),
    ] {
        fs::write(&receipt, text).unwrap();
        for error in [
            generate(&file, &simulator.client()).unwrap_err(),
            file.is_current().unwrap_err(),
        ] {
            let prefix = format!("{}: {reason}", receipt.display());
            assert!(error.to_string().starts_with(&prefix), "{error}");
        }
        assert_eq!(fs::read_to_string(&receipt).unwrap(), text);
        assert_eq!(folder.names(), ["boat.mp4.receipt.json"]);
    }
    assert!(simulator.received().is_empty());
}

#[test]
fn a_receipt_without_an_id_never_leads_to_a_payment() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let file = VideoFile::new(folder.path("boat.mp4"), request());
    generate(&file, &simulator.client()).unwrap();
    for state in ["sending", "waiting", "downloading", "done"] {
        let mut receipt = receipt_of(file.path());
        receipt["generation_id"] = Value::Null;
        receipt["state"] = json!(state);
        receipt["client_request_id"] = json!("unheard-of");
        fs::write(folder.path("boat.mp4.receipt.json"), receipt.to_string()).unwrap();
        fs::remove_file(file.path()).ok();
        assert!(
            generate(&file, &simulator.client())
                .unwrap_err()
                .may_have_charged(),
            "{state}"
        );
    }
    assert_eq!(simulator.charged(), 1);
}

#[test]
fn a_file_of_somebody_elses_is_not_paid_over() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let file = VideoFile::new(folder.path("boat.mp4"), request());
    fs::write(file.path(), "holiday").unwrap();
    let error = generate(&file, &simulator.client()).unwrap_err();
    let path = file.path().display();
    assert_eq!(
        error.to_string(),
        format!(
            "{path}: there, without its receipt {path}.receipt.json: move it away, or bring that back; nothing was sent"
        )
    );
    assert_eq!(fs::read_to_string(file.path()).unwrap(), "holiday");
    assert!(simulator.received().is_empty());
}

#[test]
fn nothing_is_paid_for_a_place_that_cant_be_written() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    fs::write(folder.path("file"), "").unwrap();
    fs::create_dir(folder.path("folder")).unwrap();
    for path in [
        "missing/boat.mp4",
        "file/boat.mp4",
        "folder",
        "..",
        &"x".repeat(250),
    ] {
        let error = generate(
            &VideoFile::new(folder.path(path), request()),
            &simulator.client(),
        )
        .unwrap_err();
        assert!(
            matches!(&error, Error::File { path: Some(_), .. }),
            "{path}: {error}"
        );
    }
    assert!(simulator.received().is_empty());
}

#[test]
fn an_invalid_request_leaves_no_trace() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let file = VideoFile::new(folder.path("boat.mp4"), request().duration(5));
    assert!(matches!(file.is_current(), Err(Error::Invalid(_))));
    assert!(matches!(
        generate(&file, &simulator.client()),
        Err(Error::Invalid(_))
    ));
    let file = VideoFile::new(
        folder.path("boat.mp4"),
        request().client_request_id("x".repeat(128)),
    );
    assert!(matches!(
        generate(&file, &simulator.client()),
        Err(Error::Invalid(_))
    ));
    assert!(folder.names().is_empty() && simulator.received().is_empty());
}

#[test]
fn the_cost_is_on_disk_before_the_download_begins() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let file = VideoFile::new(folder.path("boat.mp4"), request());
    let stop_at_download = |progress: Progress<'_>| match progress {
        Progress::Download { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    file.generate(&simulator.client(), &quick(), stop_at_download)
        .unwrap_err();
    let receipt = file.receipt().unwrap().unwrap();
    assert_eq!(receipt.state, State::Downloading);
    assert_eq!(
        receipt.usage.unwrap().to_string(),
        "0.06 USD (120000 credits)"
    );
}

#[test]
fn two_threads_pay_once() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let (file, client) = (
        VideoFile::new(folder.path("boat.mp4"), request()),
        simulator.client(),
    );
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| generate(&file, &client).unwrap());
        }
    });
    assert_eq!(simulator.charged(), 1);
    assert_eq!(folder.names(), ["boat.mp4", "boat.mp4.receipt.json"]);
}

#[test]
fn two_processes_pay_once() {
    if let Some(path) = child_task() {
        let receipt = generate(
            &VideoFile::new(path, request()),
            &Client::from_env().unwrap(),
        )
        .unwrap();
        println!("<{}>", receipt.generation_id.unwrap());
        return;
    }
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let path = folder.path("boat.mp4");
    let start = || {
        let mut command = child("video_file::two_processes_pay_once", path.to_str().unwrap());
        command
            .env("AIMLAPI_BASE_URL", simulator.base_url())
            .env("AIMLAPI_KEY", Simulator::KEY);
        command
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| start()).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(
            stdout(&output).contains("<51a00000-0000-4000-8000-000000000000:veo3>"),
            "{output:?}"
        );
    }
    assert_eq!(simulator.charged(), 1);
    assert_eq!(fs::read(&path).unwrap(), CLIP);
}

#[test]
fn images_in_a_request_do_not_fill_the_receipt() {
    let (folder, simulator) = (Folder::new(), Simulator::start().unwrap());
    let image = |last: char| format!("data:image/png;base64,{}{last}", "A".repeat(100_000));
    let file = |last| {
        VideoFile::new(
            folder.path("cat.mp4"),
            VideoRequest::from_image("It wakes", image(last)),
        )
    };
    let receipt = generate(&file('A'), &simulator.client()).unwrap();
    let kept = receipt.request["image_url"].as_str().unwrap();
    assert!(
        kept.starts_with("data:image/png;base64, 100023 characters, FNV-1a "),
        "{kept}"
    );
    assert!(file('A').is_current().unwrap());
    assert!(!file('B').is_current().unwrap());
}
