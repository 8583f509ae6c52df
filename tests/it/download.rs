//! A video comes whole or not at all, and an error says how to save it again.

use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, path::Path, time::Duration};

use aimlapi_video::{Client, Error, Video, VideoReader, simulator::CLIP};
use serde_json::json;

use crate::support::{Act, Folder, KEY, Request, Server, cells, http, json, refusal};

const SIZE: usize = CLIP.len();

/// The validators of two versions of the file. The other version has each byte inverted.
const VALIDATORS: [(&str, &str, &str); 6] = [
    ("one", "etag", "\"one\""),
    ("weak", "etag", "W/\"one\""),
    ("date", LAST_MODIFIED, "Sat, 01 Aug 2026 12:00:00 GMT"),
    ("other", "etag", "\"other\""),
    ("other-weak", "etag", "W/\"other\""),
    ("other-date", LAST_MODIFIED, "Sat, 01 Aug 2026 13:00:00 GMT"),
];
const LAST_MODIFIED: &str = "last-modified";

/// Part of each video's URL, and of no message.
const SECRET: &str = "signature=3f9c0e";

pub(crate) const PAID: &str = "Its generation is gen:1: trying again with that id costs nothing";

/// The API, which gives a new URL with each poll, and the file server in one. `files` responds to a
/// request for a file, given the number of those before it.
fn site(
    file_size: Option<u64>,
    files: impl Fn(&Request, usize) -> Vec<Act> + Send + Sync + 'static,
) -> Server {
    let (polls, count) = (AtomicUsize::new(0), AtomicUsize::new(0));
    Server::start(move |request, _| {
        if !is_poll(request) {
            return files(request, count.fetch_add(1, Ordering::SeqCst));
        }
        let path = format!("/{}.mp4", polls.fetch_add(1, Ordering::SeqCst) + 1);
        completed(&local_url(request, &path), file_size)
    })
}

/// A site whose file server responds with these steps, separated by `;`, the last of them forever.
pub(crate) fn script(file_size: Option<u64>, steps: &'static str) -> Server {
    site(file_size, move |request, n| {
        let step = steps.split(';').nth(n).or(steps.split(';').next_back());
        respond(step.unwrap(), request)
    })
}

fn is_poll(request: &Request) -> bool {
    request.target.starts_with("/v2/")
}

fn local_url(request: &Request, path: &str) -> String {
    format!("http://{}{path}?{SECRET}", request.header("host").unwrap())
}

fn completed(url: &str, file_size: Option<u64>) -> Vec<Act> {
    let video = json!({"url": url, "file_size": file_size});
    let generation = json!({"id": "gen:1", "status": "completed", "video": video});
    json(200, &generation.to_string())
}

/// One response of the file server. Its first word is what it does; `one` is its validator unless
/// others follow, or `bare` for none.
fn respond(step: &str, request: &Request) -> Vec<Act> {
    let words: Vec<&str> = step.split_whitespace().collect();
    let rest = words.get(2..).unwrap_or_default();
    let version = rest.last().copied().unwrap_or("one");
    let file = file(version);
    let is_meant = |(word, ..): &&(&str, &str, &str)| {
        rest.contains(word) || (rest.is_empty() && *word == "one")
    };
    let validators = VALIDATORS.iter().filter(is_meant);
    let validators: Vec<_> = validators.map(|v| (v.1, v.2)).collect();
    let count: usize = words.get(1).map_or(0, |count| count.parse().unwrap_or(0));
    let send = |status, header: (&str, &str), bytes: &[u8]| {
        let headers = [&validators[..], &[header]].concat();
        vec![Act::Send(http(status, &headers, bytes))]
    };
    let range = request.header("range").map(|range| {
        let start = range.strip_prefix("bytes=").unwrap();
        start.strip_suffix('-').unwrap().parse::<usize>().unwrap()
    });
    let length = ("content-length", "90858");
    let chunked = ("transfer-encoding", "chunked");
    let close = vec![Act::Close];
    match words[0] {
        "close" => close,
        "reset" => [send(200, length, b""), vec![Act::Reset]].concat(),
        "garbled" => [vec![Act::Send(b"220 FTP\r\n\r\n".to_vec())], close].concat(),
        "cut" => [send(200, length, &file[..count]), close].concat(),
        "unframed" => [send(200, ("connection", "close"), &file[..count]), close].concat(),
        "chunks" | "chunks-without-end" => {
            let mut body = Vec::new();
            for chunk in file[..count].chunks(10_000) {
                body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(&[chunk, b"\r\n"].concat());
            }
            let is_whole = words[0] == "chunks";
            let end: &[u8] = if is_whole { b"0\r\n\r\n" } else { b"2710\r\n" };
            body.extend_from_slice(end);
            [send(200, chunked, &body), close].concat()
        }
        // The bytes from the one to the other of a total, whatever was asked for.
        "part" => {
            let range = words[1].split_once('/').unwrap().0.split_once('-').unwrap();
            let (start, end): (usize, usize) = (range.0.parse().unwrap(), range.1.parse().unwrap());
            let range = format!("bytes {}", words[1]);
            send(206, ("content-range", &range), &file[start..=end])
        }
        // What a good server does.
        "rest" => {
            let validator = request.header("if-range");
            let is_known = |validator| validators.iter().any(|(_, value)| *value == validator);
            match range.filter(|_| validator.is_none_or(is_known)) {
                None => send(200, length, &file),
                Some(SIZE..) => send(416, ("content-range", "bytes */90858"), b"no more"),
                Some(start) => {
                    let range = format!("bytes {start}-90857/90858");
                    send(206, ("content-range", &range), &file[start..])
                }
            }
        }
        "pieces" => {
            let (start, end) = (range.unwrap_or(0), SIZE.min(range.unwrap_or(0) + count));
            let range = format!("bytes {start}-{}/90858", end - 1);
            send(206, ("content-range", &range), &file[start..end])
        }
        "refuse-range" => {
            let range = format!("bytes */{}", words[1]);
            send(416, ("content-range", &range), b"")
        }
        "type" => send(200, ("content-type", &words[1..].join(" ")), &file),
        "coding" => send(200, ("content-encoding", &words[1..].join(" ")), &file),
        "transfer" => {
            let body = [b"162ea\r\n", &file[..], b"\r\n0\r\n\r\n"].concat();
            send(200, ("transfer-encoding", &words[1..].join(" ")), &body)
        }
        status => send(status.parse().unwrap(), ("retry-after", "0"), b""),
    }
}

fn file(version: &str) -> Vec<u8> {
    let mask = if version.starts_with("other") { 255 } else { 0 };
    CLIP.iter().map(|byte| byte ^ mask).collect()
}

pub(crate) fn video(server: &Server) -> Video {
    let generation = server.client().get_video("gen:1").unwrap();
    generation.video.unwrap()
}

pub(crate) fn save(server: &Server, path: &Path) -> Result<(), Error> {
    let client = server.client();
    client.download_video(&video(server), path, |_, _| {})
}

fn open(server: &Server) -> VideoReader {
    server.client().open_video(&video(server))
}

/// The requests for the file: `all`, or an offset, with the validator that it depends on.
pub(crate) fn ranges(server: &Server) -> Vec<String> {
    let requests = server.requests().into_iter();
    let range = |request: Request| {
        assert_eq!(request.method, "GET");
        assert_eq!(request.header("accept-encoding"), Some("identity"));
        let text = format!("{request:?}");
        assert!(!text.contains(KEY), "the file server got the key: {text}");
        let known = |value: &str| VALIDATORS.iter().find(|v| v.2 == value).unwrap().0;
        let validator = request.header("if-range").map(known);
        match (request.header("range"), validator) {
            (None, None) => "all".to_owned(),
            (None, Some(validator)) => panic!("If-Range {validator} without Range"),
            (Some(range), None) => range.replace("bytes=", ""),
            (Some(range), Some(known)) => format!("{} {known}", range.replace("bytes=", "")),
        }
    };
    requests.filter(|r| !is_poll(r)).map(range).collect()
}

/// A download that fails with `reason` leaves the old file as it was, and nothing beside it.
fn assert_fails(case: &str, server: &Server, reason: &str, requests: usize) {
    let folder = Folder::new();
    let path = folder.path("v.mp4");
    fs::write(&path, "old").unwrap();
    let error = save(server, &path).expect_err(case);
    let text = format!("{}: {reason}. {PAID}", path.display());
    assert_eq!(error.to_string(), text, "{case}");
    assert_eq!(error.generation_id(), Some("gen:1"), "{case}");
    assert!(!text.contains(SECRET), "{case}");
    assert_eq!(ranges(server).len(), requests, "{case}");
    assert_eq!(folder.names(), ["v.mp4"], "{case}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "old", "{case}");
}

/// A download that succeeds replaces the old file.
fn assert_saves(case: &str, server: &Server, bytes: &[u8], requests: &str) {
    assert_saves_with(&server.client(), case, server, bytes);
    assert_eq!(ranges(server).join(", "), requests, "{case}");
}

fn assert_saves_with(client: &Client, case: &str, server: &Server, bytes: &[u8]) {
    let folder = Folder::new();
    let path = folder.path("v.mp4");
    fs::write(&path, "old").unwrap();
    let saved = client.download_video(&video(server), &path, |_, _| {});
    saved.unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(fs::read(&path).unwrap() == bytes, "{case}: other bytes");
    assert_eq!(folder.names(), ["v.mp4"], "{case}");
}

/// The rows of a table: a case, the size that the API gives, the file server's script, the outcome.
fn rows(table: &'static str) -> impl Iterator<Item = (&'static str, Server, &'static str)> {
    let lines = table.lines().filter(|line| line.contains('|'));
    lines.map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let server = script(cells[1].parse().ok(), cells[2]);
        (cells[0], server, cells[3])
    })
}

#[test]
fn a_broken_download_resumes_where_it_broke() {
    let table = "
        whole at once                |        | rest                                   | all
        no byte                      |        | cut 0; rest                            | all, all
        the first byte               |        | cut 1; rest                            | all, 1- one
        half                         | 90858 | cut 45429; rest                        | all, 45429- one
        all but the last byte        |        | cut 90857; rest                       | all, 90857- one
        no response                  |        | close; rest                            | all, all
        a garbled response           |        | garbled; rest                          | all, all
        a reset                      |        | reset; rest                            | all, all
        a date                       |        | cut 7 date; rest x date                | all, 7- date
        an ETag before a date        |        | cut 7 date one; rest x date one        | all, 7- one
        a weak ETag                  |        | cut 7 weak; rest x weak                | all, 7-
        a date beside a weak ETag    |        | cut 7 weak date; rest x weak date      | all, 7- date
        RFC 9110, 15.3.7             |        | cut 7 weak date; part 7-90857/90858 weak | all, 7- date
        no validator                 |        | cut 7 bare; rest x bare                | all, 7-
        a validator in a part        |        | cut 7 bare; part 7-8/90858; rest      | all, 7-, 9- one
        a part of an unknown total   |        | cut 7; part 7-90857/*                 | all, 7- one
        a whole part                 |        | part 0-90857/90858                   | all
        smaller parts than asked for |        | pieces 40000                           | all, 40000- one, 80000- one
        ranges ignored               |        | cut 45429; cut 90858                  | all, 45429- one
        another offset               |        | cut 7; part 8-90857/90858; rest      | all, 7- one, all
        another total                |        | cut 7; part 7-90857/90859; rest      | all, 7- one, all
        no offset                    |        | cut 7; 206; rest                       | all, 7- one, all
        nothing left to send         |        | chunks-without-end 90858; rest        | all, 90858- one
        a range refused              |        | cut 7; refuse-range 90858; rest       | all, 7- one, all
        a range refused, no total    |        | cut 7; 416; rest                       | all, 7- one, all
        cut, but for the API's size  | 90858 | unframed 45429; rest                   | all, 45429- one
        the API's size is enough     | 90858 | unframed 90858                        | all
        all bytes but no end         | 90858 | chunks-without-end 90858              | all
        the API's size is zero       | 0      | chunks 90858                          | all
        Content-Length comes first   | 7      | cut 90858                             | all
        Content-Range comes first    | 7      | part 0-6/90858; rest                  | all, 7- one
        chunks                       |        | chunks 90858                          | all
        chunks, cut                  |        | chunks-without-end 20000; rest         | all, 20000- one
        chunks of half the file      | 90858 | chunks 45429; rest                     | all, 45429- one
        more than the API's size     | 90857 | chunks 90858; rest                    | all, all
        transient statuses           |        | 408; 425; 429; 500; rest               | all, all, all, all, all
        words for no coding          |        | coding Identity, aws-chunked, utf-8    | all
        chunks in any case           |        | transfer CHUNKED                       | all
        chunks last in a list        |        | transfer identity,Chunked              | all
    ";
    for (case, server, requests) in rows(table) {
        assert_saves(case, &server, CLIP, requests);
    }
    // Two headers are a list, and Content-Length does not count beside chunks.
    let server = site(None, |_, _| {
        let coding = |name| ("transfer-encoding", name);
        let headers = [
            coding("identity"),
            coding("chunked"),
            ("content-length", "7"),
        ];
        let body = [b"162ea\r\n", CLIP, b"\r\n0\r\n\r\n"].concat();
        vec![Act::Send(http(200, &headers, body))]
    });
    assert_saves("two headers", &server, CLIP, "all");
}

#[test]
fn a_stalled_connection_is_replaced_and_a_slow_one_is_not() {
    const PAUSE: Act = Act::Stall(Duration::from_millis(10));
    const STALL: Act = Act::Stall(Duration::from_secs(60));
    let impatient = |server: &Server| {
        let builder = server.builder().read_timeout(Duration::from_millis(500));
        builder.build().unwrap()
    };
    let head = || http(200, &[("content-length", "90858")], &CLIP[..1000]);
    let mut drip = vec![Act::Send(b"HTTP/1.1 200 OK\r\n".to_vec())];
    for _ in 0..1000 {
        drip.extend([Act::Send(b"x: y\r\n".to_vec()), PAUSE]);
    }
    for (case, first, second_request) in [
        ("within the body", vec![Act::Send(head()), STALL], "1000-"),
        ("before the response", vec![STALL], "all"),
        ("headers that drip", drip, "all"),
    ] {
        let server = site(None, move |request, n| match n {
            0 => first.clone(),
            _ => respond("rest x bare", request),
        });
        assert_saves_with(&impatient(&server), case, &server, CLIP);
        // On a busy computer, a good response may be late as well.
        assert_eq!(ranges(&server)[..2], ["all", second_request], "{case}");
    }
    let server = site(None, move |_, _| {
        let mut acts = vec![Act::Send(head())];
        for bytes in CLIP[1000..].chunks(SIZE / 60) {
            acts.extend([PAUSE, Act::Send(bytes.to_vec())]);
        }
        acts
    });
    assert_saves_with(&impatient(&server), "slow", &server, CLIP);
    assert_eq!(ranges(&server), ["all"]);
}

#[test]
fn a_file_that_changed_midway_starts_over_and_is_an_error_in_a_reader() {
    let table = "
        noticed by the server |  | cut 45429; rest x other                  | all, 45429- one
        another ETag          |  | cut 45429; part 45429-90857/90858 other; rest x other | all, 45429- one, all
        another weak ETag     |  | cut 45429 weak; part 45429-90857/90858 other-weak; rest x other | all, 45429-, all
        another date          |  | cut 45429 date; part 45429-90857/90858 other-date; rest x other | all, 45429- date, all
        changed twice         |  | cut 45429; cut 53541 other; part 53541-90857/90858; rest x other | all, 45429- one, 53541- other, all
    ";
    for (case, server, requests) in rows(table) {
        assert_saves(case, &server, &file("other"), requests);
    }
    for (case, server, _) in rows(table) {
        let (mut reader, mut bytes) = (open(&server), Vec::new());
        for _ in 0..3 {
            let error = reader.read_to_end(&mut bytes).unwrap_err();
            assert_eq!(error.to_string(), STARTED_OVER, "{case}");
        }
        assert!(bytes == CLIP[..SIZE / 2], "{case}: bytes of another file");
    }
    // Nothing of a longer file is left in a shorter one.
    let server = site(None, |request, n| match n {
        0 => respond("cut 45429", request),
        _ => vec![Act::Send(http(200, &[], "short"))],
    });
    assert_saves("shorter", &server, b"short", "all, 45429- one");
}

const STARTED_OVER: &str =
    "the file changed on the server, or can't be resumed: open it again, or use download_video";

#[test]
fn a_hopeless_download_ends_in_an_error_that_says_how_to_save_it_again() {
    let table = "
        cut at the same byte    |        | cut 45429               | 6: the connection broke after 45429 bytes: Peer disconnected
        no bytes                |        | 200                     | 5: the server sent no bytes
        no bytes but an end     |        | chunks 0                | 5: the server sent no bytes
        no bytes, the API's size| 90858 | unframed 0              | 5: only 0 of 90858 bytes came
        no bytes and no size    |        | unframed 0              | the file server gives neither the size nor the end of the file
        neither size nor end    |        | unframed 90858         | the file server gives neither the size nor the end of the file
        the end of a part       |        | part 0-6/*              | the file server gives neither the size nor the end of the file
        more than the API's size| 6      | unframed 7              | 5: the server sent more bytes than expected
        less than the API's size| 90859 | chunks 90858           | 6: only 90858 of 90859 bytes came
        another part each time  |        | cut 7; part 1-3/4; cut 7; part 1-3/4; cut 7; part 1-3/4 | 6: the server sent another part than the one asked for
        more than 4 GiB         |        | part 0-6/5000000000     | 6: only 7 of 5000000000 bytes came
        a part unasked          |        | part 7-8/9              | 5: the server sent another part than the one asked for
        a range refused unasked |        | 416                     | 5: the server sent another part than the one asked for
        an empty file           |        | refuse-range 0          | 5: the server sent no bytes
        always unavailable      |        | 503                     | 5: the file server responded with status 503
        a bad request           |        | 400                     | the file server responded with status 400
        no content              |        | 204                     | the file server responded with status 204
        a page                  |        | type Text/HTML; charset | the file server sent text/html instead of the video
        JSON                    |        | type application/json   | the file server sent application/json instead of the video
        XML                     |        | type APPLICATION/XML    | the file server sent application/xml instead of the video
    ";
    for (case, server, reason) in rows(table) {
        match reason.split_once(": ") {
            Some((requests, reason)) => {
                let reason = format!("5 attempts in a row failed, the last: {reason}");
                assert_fails(case, &server, &reason, requests.parse().unwrap());
            }
            None => assert_fails(case, &server, reason, 1),
        }
    }
    // HTTP/1.0 has no chunks: this body ends with the connection.
    let server = site(None, |_, _| {
        let head = "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        vec![Act::Send([head.as_bytes(), CLIP].concat()), Act::Close]
    });
    let reason = "the file server gives neither the size nor the end of the file";
    assert_fails("chunks before HTTP/1.1", &server, reason, 1);
}

#[test]
fn failures_in_a_row_are_few_but_progress_resets_them() {
    let server = site(None, |request, n| match n % 5 {
        4 if n < 20 => respond("pieces 1", request),
        4 => respond("rest", request),
        _ => respond("503", request),
    });
    assert_saves_with(&server.client(), "four failures each", &server, CLIP);
    assert_eq!(ranges(&server).len(), 25);
}

fn polls(server: &Server) -> usize {
    server.requests().iter().filter(|r| is_poll(r)).count()
}

#[test]
fn an_expired_url_is_renewed_once() {
    for expired in [401, 403, 404, 410] {
        let server = site(None, move |request, n| match n {
            0 => respond("cut 45429", request),
            _ if request.target.starts_with("/1.mp4") => refusal(expired, "not now"),
            _ => respond("rest", request),
        });
        let case = format!("expired with {expired}");
        assert_saves(&case, &server, CLIP, "all, 45429- one, 45429- one");
        let targets = server.requests().into_iter().map(|request| request.target);
        let targets: Vec<String> = targets.collect();
        let renewed = format!("/2.mp4?{SECRET}");
        assert_eq!(targets[3..], [targets[0].clone(), renewed]);

        let server = site(None, move |_, _| refusal(expired, "not now"));
        let reason = format!("the file server responded with status {expired}");
        assert_fails(&case, &server, &reason, 2);
        assert_eq!(polls(&server), 2);
    }
}

/// A site whose file is gone (403), and where the API responds to each later poll with these, the
/// last of them forever.
fn expired(later_polls: Vec<Vec<Act>>) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request, _| match request.target.as_str() {
        target if target.starts_with("/2.mp4") => respond("rest", request),
        _ if !is_poll(request) => refusal(403, "not now"),
        _ => match count.fetch_add(1, Ordering::SeqCst) {
            0 => completed(&local_url(request, "/1.mp4"), None),
            n => match &later_polls[(n - 1).min(later_polls.len() - 1)] {
                poll if poll.is_empty() => completed(&local_url(request, "/2.mp4"), None),
                poll => poll.clone(),
            },
        },
    })
}

#[test]
fn an_expired_url_without_another_is_an_error() {
    let later_polls = [
        refusal(404, "Not Found"),
        json(200, r#"{"id": "gen:1", "status": "expired"}"#),
        completed("http://cdn.example/v.mp4?signature=3f9c0e", None),
    ];
    let reasons = [
        "its URL has expired, and asking for another failed: status 404: Not Found",
        "its URL has expired, and the server has no other",
        "the video's URL is http to cdn.example: only https is safe, or http to a loopback host",
    ];
    for (poll, reason) in later_polls.into_iter().zip(reasons) {
        let server = expired(vec![poll]);
        assert_fails(reason, &server, reason, 1);
        assert_eq!(polls(&server), 2, "{reason}");
    }
    let reason = "5 attempts in a row failed, the last: its URL has expired, and asking for \
                  another failed: it is not JSON: busy";
    let server = expired(vec![json(200, "busy")]);
    assert_fails(reason, &server, reason, 5);
    assert_eq!(polls(&server), 6);

    // An API that is busy for a moment strands no video.
    let server = expired(vec![refusal(503, "busy"), vec![Act::Close], vec![]]);
    assert_saves("busy", &server, CLIP, "all, all, all, all");
    assert_eq!(polls(&server), 4);
}

fn redirect(status: u16, location: &str) -> Vec<Act> {
    vec![Act::Send(http(status, &[("location", location)], "moved"))]
}

#[test]
fn redirects_are_followed() {
    for (status, location, target) in [
        (301, "/x/file.mp4", "/x/file.mp4"),
        (302, "file.mp4", "/x/y/file.mp4"),
        (303, "file.mp4?again=1", "/x/y/file.mp4?again=1"),
        (307, "./file.mp4#part", "/x/y/file.mp4"),
        (308, "../file.mp4?a=../b", "/x/file.mp4?a=../b"),
        (302, "//HOST/file.mp4", "/file.mp4"),
        (302, "http://HOST/file.mp4", "/file.mp4"),
    ] {
        let server = Server::start(move |request, _| match request.target.as_str() {
            poll if poll.starts_with("/v2/") => completed(&local_url(request, "/x/y/v.mp4"), None),
            signed if signed.contains(SECRET) => {
                let host = request.header("host").unwrap();
                redirect(status, &location.replace("HOST", host))
            }
            _ => respond("rest", request),
        });
        assert_saves(location, &server, CLIP, "all, all");
        assert_eq!(server.requests()[2].target, target, "{location}");
    }
    // Ten of them, and no more.
    let server = site(None, |request, n| match n {
        0..10 => redirect(302, &format!("/{n}")),
        _ => respond("rest", request),
    });
    assert_saves("ten", &server, CLIP, &["all"; 11].join(", "));
}

#[test]
fn a_redirect_to_another_host_keeps_the_range_and_never_has_the_key() {
    let cdn = script(None, "rest");
    let location = cdn.url(&format!("/far.mp4?{SECRET}"));
    let server = site(None, move |request, n| match n {
        0 => respond("cut 45429", request),
        _ => redirect(302, &location),
    });
    assert_saves("another host", &server, CLIP, "all, 45429- one");
    assert_eq!(ranges(&cdn), ["45429- one"]);

    // The API's own host is a file server here, and gets the key with polls alone.
    let api = script(None, "rest");
    let back = api.url("/v2.mp4");
    let cdn = Server::start(move |_, _| redirect(302, &back));
    let mut video = video(&api);
    video.url = cdn.url("/v.mp4");
    let mut bytes = Vec::new();
    let mut reader = api.client().open_video(&video);
    reader.read_to_end(&mut bytes).unwrap();
    assert!(bytes == CLIP);
    assert_eq!((ranges(&cdn).len(), ranges(&api).len()), (1, 1));
}

#[test]
fn redirects_that_lead_nowhere_are_refused() {
    const URL: &str = "127.0.0.1 redirects to an invalid URL";
    const RESPONSE: &str = "5 attempts in a row failed, the last: 127.0.0.1: the response, or a \
                            redirect, is invalid";
    const ENDLESS: &str = "127.0.0.1 redirects more than 10 times";
    for (location, reason, requests) in [
        ("ftp://127.0.0.1/v.mp4?signature=3f9c0e", URL, 1),
        ("/ä?signature=3f9c0e", RESPONSE, 5),
        ("/1.mp4?signature=3f9c0e", ENDLESS, 11),
    ] {
        let server = site(None, move |_, _| redirect(302, location));
        assert_fails(location, &server, reason, requests);
    }
    let server = script(None, "302");
    assert_fails("no target", &server, RESPONSE, 5);
}

#[test]
fn an_unsafe_url_is_never_requested() {
    let long = format!("https://cdn.example/{}", "x".repeat(70_000));
    let table = "
        http://cdn.example/v.mp4       | is http to cdn.example: only https is safe, or http to a loopback host
        http://127.0.0.1.example/v.mp4 | is http to 127.0.0.1.example: only https is safe, or http to a loopback host
        ftp://127.0.0.1/v.mp4          | is ftp to 127.0.0.1: only https is safe, or http to a loopback host
        v.mp4                          | does not start with https://
        /v.mp4                         | does not start with https://
        https://                       | is invalid (invalid format)
        https://cdn.example:x/         | has an invalid port or host, or a user name
        https://cdn.example:65536/     | has an invalid port or host, or a user name
        https://cdn.example:/          | has an invalid port or host, or a user name
        https://a:password@cdn.example/     | has an invalid port or host, or a user name
        https://a:password@cdn.example:443/ | has an invalid port or host, or a user name
        http://user@127.0.0.1:9/       | has an invalid port or host, or a user name";
    let rows = table.trim_start().lines().map(cells);
    for [url, reason] in rows.chain([[&*long, "is invalid (uri too long)"]]) {
        let signed = format!("{url}?{SECRET}");
        let server = Server::start(move |_, _| completed(&signed, None));
        assert_fails(url, &server, &format!("the video's URL {reason}"), 0);
    }
}

#[test]
fn a_url_is_encoded_where_it_must_be() {
    for (path, target) in [
        ("/a b^c.mp4", "/a%20b%5Ec.mp4"),
        ("/ä/%20.mp4?ö={|}", "/%C3%A4/%20.mp4?%C3%B6=%7B%7C%7D"),
        ("/v.mp4?a=1#part of it", "/v.mp4?a=1"),
        ("?a=[1]&b=\"<>\"", "/?a=[1]&b=%22%3C%3E%22"),
    ] {
        let server = script(None, "rest");
        let mut video = video(&server);
        video.url = format!("  {}\n", server.url(path));
        let mut reader = server.client().open_video(&video);
        assert_eq!(io::copy(&mut reader, &mut io::sink()).unwrap(), SIZE as u64);
        assert_eq!(server.requests()[1].target, target);
    }
}

#[test]
fn a_server_that_is_gone_is_given_up() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v.mp4?{SECRET}", socket.local_addr().unwrap());
    drop(socket);
    let server = Server::start(move |_, _| completed(&url, None));
    let folder = Folder::new();
    let path = folder.path("v.mp4");
    let error = save(&server, &path).unwrap_err().to_string();
    let text = "5 attempts in a row failed, the last: no response from 127.0.0.1: ";
    let start = format!("{}: {text}", path.display());
    assert!(error.starts_with(&start), "{error}");
    assert!(error.ends_with(PAID) && !error.contains(SECRET), "{error}");
    assert!(folder.names().is_empty());
}

#[test]
fn progress_grows_from_attempt_to_attempt_and_knows_the_total() {
    for (file_size, steps, total) in [
        (None, "cut 45429; rest", Some(90_858)),
        (Some(90_858), "unframed 45429; rest", Some(90_858)),
        (None, "chunks 90858", None),
    ] {
        let server = script(file_size, steps);
        let folder = Folder::new();
        let mut calls = Vec::new();
        let progress = |done, total| calls.push((done, total));
        let (client, video) = (server.client(), video(&server));
        let saved = client.download_video(&video, folder.path("v.mp4"), progress);
        saved.unwrap();
        let is_growing = calls.is_sorted_by(|(a, _), (b, _)| a < b);
        assert!(is_growing, "{steps}: {calls:?}");
        assert!(calls.iter().all(|call| call.1 == total), "{calls:?}");
        assert_eq!(calls.last(), Some(&(90_858, total)), "{steps}");
    }
}

#[test]
fn a_reader_hides_broken_connections() {
    let server = script(None, "cut 45429; rest");
    let mut bytes = Vec::new();
    let mut reader = open(&server);
    assert_eq!(reader.read_to_end(&mut bytes).unwrap(), SIZE);
    assert!(bytes == CLIP);
    assert_eq!(reader.read(&mut [0; 9]).unwrap(), 0, "after the end");

    // From byte to byte, in another thread.
    let server = script(None, "cut 45429; rest");
    let mut reader = open(&server);
    let bytes = std::thread::spawn(move || {
        assert_eq!(reader.read(&mut []).unwrap(), 0, "an empty buffer");
        let mut bytes = vec![0; SIZE / 2 + 9];
        for byte in &mut bytes {
            reader.read_exact(std::slice::from_mut(byte)).unwrap();
        }
        bytes
    });
    assert!(bytes.join().unwrap() == CLIP[..SIZE / 2 + 9]);
    assert_eq!(ranges(&server), ["all", "45429- one"]);
}

#[test]
fn a_reader_asks_nothing_before_its_first_byte_and_never_shows_its_url() {
    let server = script(Some(90_858), "cut 45429");
    let mut reader = open(&server);
    assert_eq!(reader.read(&mut []).unwrap(), 0);
    assert!(ranges(&server).is_empty());
    for position in [0, 7] {
        reader.read_exact(&mut vec![0; position]).unwrap();
        let debug = format!("VideoReader {{ generation_id: \"gen:1\", position: {position}, .. }}");
        assert_eq!(format!("{reader:?}"), debug);
    }

    let server = script(None, "503");
    let error = open(&server).read(&mut [0; 7]).unwrap_err().to_string();
    let text = "5 attempts in a row failed, the last: the file server responded with status 503";
    assert_eq!(error, text);
}

#[cfg(target_os = "linux")]
mod linux {
    use std::process::Command;

    use super::*;
    use crate::support::{child, child_output, child_task, in_shell, peak_memory};

    fn video_at(base_url: &str) -> (Client, Video) {
        let client = Client::builder(KEY).base_url(base_url).build().unwrap();
        let video = client.get_video("gen:1").unwrap().video.unwrap();
        (client, video)
    }

    /// A full disk, as far as a test without special rights can have one: a small file system
    /// of its own where the system permits it, else a limit to the size of files.
    #[test]
    fn a_full_disk_is_an_error_and_leaves_nothing() {
        if let Some(task) = child_task() {
            let (base_url, folder) = task.split_once(' ').unwrap();
            let (client, video) = video_at(base_url);
            let path = Path::new(folder).join("v.mp4");
            fs::write(&path, "old").unwrap();
            let error = client.download_video(&video, &path, |_, _| {}).unwrap_err();
            assert_eq!(fs::read_to_string(&path).unwrap(), "old");
            assert_eq!(fs::read_dir(folder).unwrap().count(), 1);
            return println!("ends with {error}");
        }
        let server = script(None, "rest");
        let folder = Folder::new();
        let mount = "mount -t tmpfs -o size=64k none \"$0\"";
        let namespace = ["unshare", "--map-root-user", "--mount", "sh"];
        let mut probe = Command::new(namespace[0]);
        let probe = probe.args(&namespace[1..]).args(["-c", mount]);
        probe.arg(folder.as_ref());
        let no_space = "No space left on device (os error 28)";
        let too_large = "File too large (os error 27)";
        let (shell, limit, reason) = match probe.output() {
            Ok(output) if output.status.success() => (&namespace[..], mount, no_space),
            _ => (&namespace[3..], "trap '' XFSZ; ulimit -f 64", too_large),
        };
        let task = format!("{} {}", server.url("/v2"), folder.as_ref().display());
        let test = "download::linux::a_full_disk_is_an_error_and_leaves_nothing";
        let test = child(test, &task);
        let stdout = child_output(in_shell(shell, limit, folder.as_ref(), &test));
        let path = folder.path("v.mp4");
        let error = format!("ends with {}: {reason}. {PAID}", path.display());
        assert!(stdout.contains(&error), "{stdout}");
        assert_eq!(ranges(&server), ["all"]);
    }

    /// Each size in a process of its own, which prints the peak of its memory.
    #[test]
    fn memory_does_not_grow_with_the_file() {
        const MIB: usize = 1024 * 1024;
        if let Some(task) = child_task() {
            let (base_url, path) = task.split_once(' ').unwrap();
            let (client, video) = video_at(base_url);
            if path.is_empty() {
                io::copy(&mut client.open_video(&video), &mut io::sink()).unwrap();
            } else {
                client.download_video(&video, path, |_, _| {}).unwrap();
            }
            return println!("<{}>", peak_memory());
        }
        let folder = Folder::new();
        let path = folder.path("v.mp4");
        let peak = |mib: usize, path: &str| -> usize {
            let size = mib * MIB;
            let server = site(Some(size as u64), move |_, _| {
                let head = http(200, &[("content-length", &size.to_string())], "");
                vec![Act::Send(head), Act::Repeat(vec![0; MIB], mib)]
            });
            let task = format!("{} {path}", server.url("/v2"));
            let test = "download::linux::memory_does_not_grow_with_the_file";
            let output = child_output(child(test, &task));
            output.split(['<', '>']).nth(1).unwrap().parse().unwrap()
        };
        for (path, mib) in [("", 1024), (path.to_str().unwrap(), 64)] {
            let (small, large) = (peak(1, path), peak(mib, path));
            let grows = large >= small + 2048;
            assert!(!grows, "1 MiB: {small} kB, {mib} MiB: {large} kB");
        }
    }
}
