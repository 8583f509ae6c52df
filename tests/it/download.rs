//! A video comes whole or not at all, and an error says how to save it again.

use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::{fs, path::Path, time::Duration};

use aimlapi_video::{Client, Error, Progress, Video, VideoReader, simulator::CLIP};
use serde_json::json;

use crate::support::{Act, Folder, KEY, Request, Server, cells, http, json, refusal};

const SIZE: usize = CLIP.len();

/// The validators of two versions of the file. The other version has each byte inverted.
const VALIDATORS: [(&str, &str, &str); 4] = [
    ("one", "etag", "\"one\""),
    ("weak", "etag", "W/\"one\""),
    ("date", "last-modified", "Sat, 01 Aug 2026 12:00:00 GMT"),
    ("other", "etag", "\"other\""),
];

/// Part of each video's URL, and of no message.
const SECRET: &str = "signature=3f9c0e";

pub(crate) const FIVE: &str = "5 attempts in a row failed, the last: ";

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
    let file = file(rest.last().copied().unwrap_or("one"));
    let is_meant = |word| rest.contains(&word) || (rest.is_empty() && word == "one");
    let validators = VALIDATORS.iter().filter(|known| is_meant(known.0));
    let validators: Vec<_> = validators.map(|v| (v.1, v.2)).collect();
    let count: usize = words.get(1).map_or(0, |count| count.parse().unwrap_or(0));
    let send = |status, header: (&str, &str), bytes: &[u8]| {
        let headers = [&validators[..], &[header]].concat();
        vec![Act::Send(http(status, &headers, bytes))]
    };
    let part = |start: usize, end: usize, range: &str| {
        let range = format!("bytes {range}");
        send(206, ("content-range", &range), &file[start..end])
    };
    let then_close = |acts: Vec<Act>| [acts, vec![Act::Close]].concat();
    let range = request.header("range").map(|range| {
        let start = range.strip_prefix("bytes=").unwrap();
        start.strip_suffix('-').unwrap().parse::<usize>().unwrap()
    });
    let length = ("content-length", "90858");
    match words[0] {
        "close" => vec![Act::Close],
        "garbled" => then_close(vec![Act::Send(b"220 FTP\r\n\r\n".to_vec())]),
        "cut" => then_close(send(200, length, &file[..count])),
        "later" => then_close(send(200, length, &file[..range.unwrap_or(99) + 1])),
        "endless" => send(200, ("content-length", "9000000000000000000"), &file),
        "unframed" => then_close(send(200, ("connection", "close"), &file[..count])),
        "chunks" => send(
            200,
            ("transfer-encoding", "chunked"),
            &chunks(&file[..count]),
        ),
        "old-chunks" => {
            let head = "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            then_close(vec![Act::Send([head.as_bytes(), &file].concat())])
        }
        "transfer" => send(
            200,
            ("transfer-encoding", &words[1..].join(" ")),
            &chunks(&file),
        ),
        "redirect" => send(count as u16, ("location", words[2]), b""),
        // A header, and a body: the file, if there is no other.
        "says" => {
            let body = words.get(3).map_or(&*file, |body| body.as_bytes());
            send(200, (words[1], words[2]), body)
        }
        // The bytes from the one to the other of a total, whatever was asked for.
        "part" => {
            let (start, end) = words[1].split_once('-').unwrap();
            let end: usize = end.split_once('/').unwrap().0.parse().unwrap();
            part(start.parse().unwrap(), end + 1, words[1])
        }
        "pieces" => {
            let start = range.unwrap_or(0);
            let end = SIZE.min(start + count);
            part(start, end, &format!("{start}-{}/90858", end - 1))
        }
        // What a good server does.
        "rest" => {
            let validator = request.header("if-range");
            let is_known = |validator| validators.iter().any(|(_, value)| *value == validator);
            match range.filter(|_| validator.is_none_or(is_known)) {
                None => send(200, length, &file),
                Some(start) => part(start, SIZE, &format!("{start}-90857/90858")),
            }
        }
        status => send(status.parse().unwrap(), ("retry-after", "0"), b""),
    }
}

fn chunks(bytes: &[u8]) -> Vec<u8> {
    let chunk =
        |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let chunks = bytes.chunks(10_000).chain([&[][..]]);
    chunks.flat_map(chunk).collect()
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
    client.download_video(&video(server), path, |_| {})
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
    let reason = reason.replace("HOST", &server.address().to_string());
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
    let saved = client.download_video(&video(server), &path, |_| {});
    saved.unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(fs::read(&path).unwrap() == bytes, "{case}: other bytes");
    assert_eq!(folder.names(), ["v.mp4"], "{case}");
}

/// The rows of a table: a case, a site with the size that the API gives and the file server's script,
/// how many requests it gets or which, and for an error the reason.
fn rows(table: &'static str) -> impl Iterator<Item = (&'static str, Server, [&'static str; 2])> {
    let lines = table.lines().filter(|line| line.contains('|'));
    lines.map(|line| {
        let [case, size, steps, requests, reason] = cells(line);
        (case, script(size.parse().ok(), steps), [requests, reason])
    })
}

#[test]
fn a_broken_download_resumes_where_it_broke() {
    let table = "
        no byte                      |       | cut 0; rest                            | all, all |
        within the first bytes       |       | cut 7; rest                            | all, all |
        no response, a garbled one   |       | close; garbled; rest                   | all, all, all |
        not there yet, or busy       |       | 202; 404; 425; 429; rest               | all, all, all, all, all |
        a date                       |       | cut 8 date; rest x date                | all, 8- date |
        an ETag before a date        |       | cut 8 date one; rest x date one        | all, 8- one |
        a weak ETag                  |       | cut 8 weak; rest x weak                | all, 8- |
        a date beside a weak ETag    |       | cut 8 weak date; rest x weak date      | all, 8- date |
        a validator in a part        |       | cut 8 bare; part 8-9/90858; rest       | all, 8-, 10- one |
        smaller parts than asked for |       | pieces 40000                           | all, 40000- one, 80000- one |
        ranges ignored               |       | cut 45429; cut 90858                   | all, 45429- one |
        another offset               |       | cut 8; part 9-90857/90858; rest        | all, 8- one, all |
        a range refused              |       | cut 8; 416; rest                       | all, 8- one, all |
        Content-Range comes first    | 7     | part 0-8/90858; rest                   | all, 9- one |
        chunks                       |       | transfer identity, CHUNKED             | all |
        chunks that end too soon     | 90858 | chunks 45429; rest                     | all, all |
        chunks of another size twice | 90857 | chunks 90858                           | all, all |
        the API's size is zero       | 0     | chunks 90858                           | all |
        cut, but for the API's size  | 90858 | unframed 45429; rest                   | all, 45429- one |
    ";
    for (case, server, [requests, _]) in rows(table) {
        assert_saves(case, &server, CLIP, requests);
    }
}

#[test]
fn a_stalled_connection_is_replaced_and_a_slow_one_is_not() {
    const PAUSE: Act = Act::Stall(Duration::from_millis(10));
    const STALL: Act = Act::Stall(Duration::from_secs(60));
    let send = |text: &[u8]| Act::Send(text.to_vec());
    let head = || Act::Send(http(200, &[("content-length", "90858")], &CLIP[..1000]));
    let drops = [send(b"x: y\r\n"), PAUSE].into_iter().cycle();
    let drip = [send(b"HTTP/1.1 200 OK\r\n")]
        .into_iter()
        .chain(drops.take(12_000));
    let rest = CLIP[1000..]
        .chunks(SIZE / 60)
        .flat_map(|bytes| [PAUSE, send(bytes)]);
    let slow = [head()].into_iter().chain(rest);
    for (case, first, requests) in [
        ("within the body", vec![head(), STALL], "all, 1000-"),
        ("before the response", vec![STALL], "all, all"),
        ("headers that drip", drip.collect(), "all, all"),
        ("a slow body", slow.collect(), "all"),
    ] {
        // On a busy computer, a good response may be late as well.
        let is_expected = [500, 20_000].into_iter().any(|time| {
            let first = first.clone();
            let server = site(None, move |request, n| match n {
                0 => first.clone(),
                _ => respond("rest x bare", request),
            });
            let client = server.builder().read_timeout(Duration::from_millis(time));
            assert_saves_with(&client.build().unwrap(), case, &server, CLIP);
            ranges(&server).join(", ") == requests
        });
        assert!(is_expected, "{case}");
    }
}

#[test]
fn a_file_that_changed_midway_starts_over_and_is_an_error_in_a_reader() {
    let table = "
        noticed by the server |  | cut 45429; rest x other                  | all, 45429- one |
        another ETag          |  | cut 45429; part 45429-90857/90858 other; rest x other | all, 45429- one, all |
        changed twice         |  | cut 45429; cut 53541 other; part 53541-90857/90858; rest x other | all, 45429- one, 53541- other, all |
    ";
    for (case, server, [requests, _]) in rows(table) {
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
    let server = script(None, "cut 45429; chunks 9 other");
    assert_saves("shorter", &server, &file("other")[..9], "all, 45429- one");
}

const STARTED_OVER: &str = "the file changed on the server, or can't be resumed: open it again, or \
    use download_video. Its generation is gen:1: trying again with that id costs nothing";

#[test]
fn a_hopeless_download_ends_in_an_error_that_says_how_to_save_it_again() {
    let table = "
        cut at the same byte    |       | cut 45429               | 6 | FIVE the connection broke after 45429 bytes: Peer disconnected
        a byte later each time  |       | later                   | 21 | it started over 20 times, the last: the connection broke after 120 bytes: Peer disconnected
        no bytes                |       | 200                     | 5 | FIVE the server sent no bytes
        no bytes but an end     | 90858 | chunks 0                | 5 | FIVE the server sent no bytes
        no bytes, the API's size| 90858 | unframed 0              | 5 | FIVE only 0 of 90858 bytes came
        more than the API's size| 8     | unframed 9              | 5 | FIVE the server sent more bytes than expected
        another part each time  |       | cut 8; part 1-3/4; cut 8; part 1-3/4; cut 8; part 1-3/4 | 6 | FIVE the server sent another part than the one asked for
        always unavailable      |       | 503                     | 5 | FIVE the file server responded with status 503
        always another size     | 90858 | chunks 8; chunks 9; chunks 8; chunks 9; chunks 8; chunks 9; chunks 8 | 7 | FIVE it has 8 bytes, and another size by the API
        neither size nor end    |       | unframed 90858          | 1 | the file server gives neither the size nor the end of the file
        a word like chunked     |       | transfer xchunked       | 1 | the file server gives neither the size nor the end of the file
        chunks before HTTP/1.1  |       | old-chunks 90858        | 1 | the file server gives neither the size nor the end of the file
        a URL that is not served|       | 403                     | 5 | FIVE the file server responded with status 403, which begins: (empty). `resume ID` prints its URL, for another program
        a bad request           |       | 400                     | 1 | the file server responded with status 400, which begins: (empty)
        an endless one          | 12000 | endless                 | 1 | the file server sends 9000000000000000000 bytes or more, and the API says that it has 12000. If that is right, download it with another program: `resume ID` prints its URL
        no content              |       | 204                     | 1 | the file server responded with status 204
        a redirect to FTP       |       | redirect 302 ftp://127.0.0.1/?signature=3f9c0e | 1 | HOST redirects to an invalid URL
        an invalid redirect     |       | redirect 302 /ä?signature=3f9c0e | 5 | FIVE HOST: the response, or a redirect, is invalid
        redirects in a circle   |       | redirect 302 /1.mp4?signature=3f9c0e | 11 | HOST redirects more than 10 times
        a redirect to nowhere   |       | 302                     | 5 | FIVE HOST: the response, or a redirect, is invalid
    ";
    for (case, server, [requests, reason]) in rows(table) {
        let reason = reason.replace("FIVE ", FIVE);
        assert_fails(case, &server, &reason, requests.parse().unwrap());
    }
}

#[test]
fn what_is_no_video_is_refused_with_how_it_begins_and_a_video_is_taken_whatever_it_is_called() {
    // In the end, how it begins, and why that is no video.
    let table = "
        a page                  | 90858 | says content-type video/mp4 <html>   | <html> | a text
        a coding                | 90858 | says content-encoding BR compressed  | compressed | Content-Encoding: br
        a type of text          | 90858 | says content-type Text/Plain not-found | not-found | text/plain
        another size            | 90858 | says x y another-size                | another-size | 12 bytes where the API says 90858
        a video as a text       | 90858 | says content-type text/plain         | |
        a video in a coding     | 90858 | says content-encoding gzip           | |
    ";
    for (case, server, [start, reason]) in rows(table) {
        if reason.is_empty() {
            assert_saves(case, &server, CLIP, "all");
            continue;
        }
        let text = "the file server sent something else than the video";
        let text = format!("{text} ({reason}), which begins: {start}");
        assert_fails(case, &server, &text, 1);
    }
    // A page in the place of the rest.
    let server = script(Some(90_858), "cut 45429; says x y <html>");
    let text = "the file server sent something else than the video (a text), which begins: <html>";
    assert_fails("rest", &server, text, 2);
}

#[test]
fn a_reader_gives_no_byte_before_it_has_seen_that_they_are_no_page() {
    let mut acts = vec![Act::Send(http(200, &[("content-length", "600")], ""))];
    // A short read is no reason to decide.
    for text in [" ", "\r\n", &" ".repeat(100), "<html>"] {
        acts.extend([Act::Send(text.into()), Act::Stall(Duration::from_millis(5))]);
    }
    acts.push(Act::Send(vec![b'x'; 500]));
    let server = site(None, move |_, _| acts.clone());
    let mut bytes = Vec::new();
    let error = open(&server).read_to_end(&mut bytes).unwrap_err();
    assert!(error.to_string().contains("(a text)"), "{error}");
    assert_eq!(bytes, b"");
}

#[test]
fn retry_after_is_honoured_up_to_a_minute_and_each_retry_is_told() {
    for (status, retry_after, pause) in [
        (202, "7", "7s"),
        (503, "3600", "60s"),
        (429, "tomorrow", "0ns"),
    ] {
        let busy = http(status, &[("retry-after", retry_after)], "");
        let server = site(None, move |_, _| vec![Act::Send(busy.clone())]);
        // The first retry ends the download.
        let started = Arc::new(OnceLock::<Client>::new());
        let (cancel, retries) = (Arc::clone(&started), Arc::<Mutex<Vec<_>>>::default());
        let told = Arc::clone(&retries);
        let client = server.builder().on_retry(move |retry| {
            told.lock().unwrap().push(retry.to_string());
            assert_eq!(retry.error.generation_id(), Some("gen:1"));
            cancel.get().unwrap().shutdown();
        });
        let client = started.get_or_init(|| client.build().unwrap());
        let error = client.download_video(&video(&server), Folder::new().path("v.mp4"), |_| {});
        assert!(matches!(error, Err(Error::Shutdown { .. })), "{error:?}");
        let line =
            format!("the file server responded with status {status}; trying again in {pause}");
        assert_eq!(*retries.lock().unwrap(), [line]);
    }
}

#[test]
fn a_url_that_expires_again_and_again_is_renewed_each_time() {
    // Each URL serves one request, and the next one is refused.
    let server = site(None, move |request, n| match n % 2 {
        0 => respond("pieces 15000", request),
        _ => refusal(403, "expired"),
    });
    assert_saves_with(&server.client(), "expires", &server, CLIP);
    let files = server.requests().into_iter().map(|request| request.target);
    let files = files.filter(|target| !target.starts_with("/v2"));
    let expected = (0..13).map(|n| format!("/{}.mp4?{SECRET}", n / 2 + 1));
    assert!(files.eq(expected));
}

/// A site whose file is refused, and where the API responds to each later poll with these, the last of
/// them forever: with another URL, that is served, where there is none.
fn expired(later_polls: Vec<Option<Vec<Act>>>) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request, _| {
        if !is_poll(request) {
            let is_renewed = request.target.starts_with("/2.mp4");
            return respond(["403", "rest"][usize::from(is_renewed)], request);
        }
        let later = count.fetch_add(1, Ordering::SeqCst).checked_sub(1);
        match later.map(|n| &later_polls[n.min(later_polls.len() - 1)]) {
            None => completed(&local_url(request, "/1.mp4"), None),
            Some(None) => completed(&local_url(request, "/2.mp4"), None),
            Some(Some(poll)) => poll.clone(),
        }
    })
}

#[test]
fn a_url_that_is_not_served_is_an_error_that_says_how_to_get_it_otherwise() {
    let prints = ". `resume ID` prints its URL, for another program";
    let asking = format!("{FIVE}its URL is not served, and asking for another failed");
    let ended = json(200, r#"{"id": "gen:1", "status": "expired"}"#);
    let no_other = format!("{FIVE}its URL is not served, and the server has no other");
    let plain = completed("http://cdn.example/v.mp4", None);
    let only =
        "the video's URL is http to cdn.example: only https is safe, or http to a loopback host";
    for (poll, reason, polls) in [
        (
            refusal(404, "No"),
            format!("{asking}: status 404: No{prints}"),
            5,
        ),
        (
            json(200, "busy"),
            format!("{asking}: it is not JSON: busy"),
            5,
        ),
        (ended, format!("{no_other}{prints}"), 5),
        (plain, only.to_owned(), 2),
    ] {
        let server = expired(vec![Some(poll)]);
        assert_fails(&reason, &server, &reason, 1);
        assert_eq!(server.requests().len(), polls + 1, "{reason}");
    }
    // An API that is busy for a moment strands no video.
    let server = expired(vec![
        Some(refusal(503, "busy")),
        Some(vec![Act::Close]),
        None,
    ]);
    assert_saves("busy", &server, CLIP, "all, all");
}

#[test]
fn redirects_are_followed() {
    let steps = "redirect 301 x/y.mp4?again=1; redirect 302 z.mp4; redirect 303 ../u.mp4?a=../b; \
                 redirect 307 /v.mp4; redirect 308 w.mp4; rest";
    let server = script(None, steps);
    assert_saves("relative", &server, CLIP, &["all"; 6].join(", "));
    let targets = "/x/y.mp4?again=1 /x/z.mp4 /u.mp4?a=../b /v.mp4 /w.mp4";
    let targets = targets.split(' ').map(|target| format!("GET {target}"));
    assert_eq!(server.targets()[2..], targets.collect::<Vec<_>>());
    // Ten of them, and no more.
    let server = site(None, |request, n| match n {
        0..10 => respond(&format!("redirect 302 /{n}"), request),
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
        _ => respond(&format!("redirect 302 {location}"), request),
    });
    assert_saves("another host", &server, CLIP, "all, 45429- one");
    assert_eq!(ranges(&cdn), ["45429- one"]);
}

#[test]
fn an_unsafe_url_is_never_requested() {
    let long = format!("https://cdn.example/{}", "x".repeat(70_000));
    let only = "is http to cdn.example: only https is safe, or http to a loopback host";
    for (url, reason) in [
        ("http://cdn.example/v.mp4", only),
        ("v.mp4", "does not start with https://"),
        ("https://", "is invalid (invalid format)"),
        (
            "http://user@127.0.0.1:9/",
            "has an invalid port or host, or a user name",
        ),
        (&long, "is invalid (uri too long)"),
    ] {
        let signed = format!("{url}?{SECRET}");
        let server = Server::start(move |_, _| completed(&signed, None));
        assert_fails(url, &server, &format!("the video's URL {reason}"), 0);
    }
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
#[test]
fn an_api_elsewhere_can_not_name_a_url_on_this_computer() {
    let server = script(None, "rest");
    let mut video = video(&server);
    let elsewhere = crate::support::builder("https://api.example/v2")
        .build()
        .unwrap();
    for host in ["http://127.0.0.1", "https://[::ffff:127.0.0.1]"] {
        video.url = format!("{host}:{}/v.mp4", server.address().port());
        let error = elsewhere.open_video(&video).read(&mut [0; 7]).unwrap_err();
        let reason = "the video's URL leads to this computer, and the API is on another one";
        assert_eq!(error.to_string(), format!("{reason}. {PAID}"), "{host}");
    }
    assert_eq!(server.connections(), 1);
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
        reader.read_exact(&mut [0; 9]).unwrap();
        assert_eq!(server.requests()[1].target, target);
    }
}

#[test]
fn progress_grows_from_attempt_to_attempt_and_knows_the_total() {
    for (file_size, steps, total) in [
        (None, "cut 45429; rest", Some(90_858)),
        (Some(90_858), "unframed 45429; rest", Some(90_858)),
        (None, "chunks 90858", None),
    ] {
        let (server, folder) = (script(file_size, steps), Folder::new());
        let mut calls = Vec::new();
        let progress = |progress: Progress<'_>| match progress {
            Progress::Download { done, total, .. } => calls.push((done, total)),
            other => panic!("{other:?}"),
        };
        let (video, path) = (video(&server), folder.path("v.mp4"));
        let saved = server.client().download_video(&video, path, progress);
        saved.unwrap();
        assert!(calls.is_sorted_by(|(a, _), (b, _)| a < b), "{calls:?}");
        assert!(calls.iter().all(|call| call.1 == total), "{calls:?}");
        assert_eq!(calls.last(), Some(&(90_858, total)), "{steps}");
    }
}

#[test]
fn a_reader_hides_broken_connections() {
    // From byte to byte, in another thread.
    let server = script(None, "cut 45429; rest");
    let mut reader = open(&server);
    let bytes = std::thread::spawn(move || {
        let mut bytes = vec![0; SIZE];
        for byte in &mut bytes {
            reader.read_exact(std::slice::from_mut(byte)).unwrap();
        }
        assert_eq!(reader.read(&mut [0; 9]).unwrap(), 0, "after the end");
        bytes
    });
    assert!(bytes.join().unwrap() == CLIP);
    assert_eq!(ranges(&server), ["all", "45429- one"]);
}

#[test]
fn a_reader_asks_nothing_before_its_first_byte_and_never_shows_its_url() {
    let server = script(Some(90_858), "rest");
    let mut reader = open(&server);
    assert!(ranges(&server).is_empty());
    reader.read_exact(&mut [0; 7]).unwrap();
    let debug = "VideoReader { generation_id: \"gen:1\", position: 7, .. }";
    assert_eq!(format!("{reader:?}"), debug);
}

#[test]
fn a_readers_errors_hold_an_error_and_end_a_copy() {
    use io::ErrorKind::{ConnectionAborted, InvalidData, NotFound};
    let gone = script(None, "rest").url("/v.mp4");
    let gone = format!("{gone}?{SECRET}");
    let gone = Server::start(move |_, _| completed(&gone, None));
    for (server, kind, reason) in [
        (script(None, "503"), ConnectionAborted, "status 503"),
        (script(None, "cut 45429"), ConnectionAborted, "file changed"),
        (gone, ConnectionAborted, "no response from"),
        (script(None, "400"), InvalidData, "status 400"),
        (script(None, "404"), NotFound, "status 404"),
    ] {
        let error = io::copy(&mut open(&server), &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let held = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
        assert!(matches!(held, Error::Download { path: None, cause, .. } if cause.kind() == kind));
        assert_eq!(held.is_transient(), kind == ConnectionAborted, "{held}");
        assert_eq!(error.to_string(), held.to_string());
        let text = error.to_string();
        assert!(text.contains(reason) && !text.contains(SECRET), "{text}");
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use super::*;
    use crate::support::{child, child_output, child_task, in_shell, peak_memory};

    fn video_at(base_url: &str) -> (Client, Video) {
        let client = Client::builder(KEY).base_url(base_url).build().unwrap();
        let video = client.get_video("gen:1").unwrap().video.unwrap();
        (client, video)
    }

    /// As far as a test without special rights can have one: a limit to the size of files.
    #[test]
    fn a_full_disk_is_an_error_and_leaves_nothing() {
        if let Some(task) = child_task() {
            let (base_url, folder) = task.split_once(' ').unwrap();
            let (client, video) = video_at(base_url);
            let path = Path::new(folder).join("v.mp4");
            let error = client.download_video(&video, &path, |_| {}).unwrap_err();
            return println!("ends with {error}");
        }
        let (server, folder) = (script(None, "rest"), Folder::new());
        let path = folder.path("v.mp4");
        fs::write(&path, "old").unwrap();
        let task = format!("{} {}", server.url("/v2"), folder.as_ref().display());
        let test = "download::linux::a_full_disk_is_an_error_and_leaves_nothing";
        let limit = "trap '' XFSZ; ulimit -f 64";
        let limited = in_shell(&["sh"], limit, folder.as_ref(), &child(test, &task));
        let reason = "File too large (os error 27)";
        let error = format!("ends with {}: {reason}. {PAID}", path.display());
        let stdout = child_output(limited);
        assert!(stdout.contains(&error), "{stdout}");
        assert_eq!(folder.names(), ["v.mp4"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
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
                client.download_video(&video, path, |_| {}).unwrap();
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
