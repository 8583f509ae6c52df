//! A video comes whole or not at all, and an error says how to save it again.

use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::{fs, path::Path, time::Duration};

use aimlapi_video::{Client, Error, Progress, Video, VideoReader, simulator::CLIP};
use serde_json::json;

use crate::support::{self, Act, Folder, KEY, Request, Server, json, ok, refusal, response, rows};

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
    let polls = AtomicUsize::new(0);
    Server::start(move |request, n| {
        if !is_poll(request) {
            return files(request, n - polls.load(Ordering::SeqCst));
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
    ok(generation)
}

/// One response of the file server. Its first word is what it does; `one` is its validator unless
/// others follow, or `bare` for none.
fn respond(step: &str, request: &Request) -> Vec<Act> {
    let words: Vec<&str> = step.split_whitespace().collect();
    let count: usize = words.get(1).map_or(0, |count| count.parse().unwrap_or(0));
    let named = match words.get(2..) {
        Some(named @ [_, ..]) => named,
        _ => &["one"],
    };
    let validators = VALIDATORS.iter().filter(|known| named.contains(&known.0));
    let validators: Vec<_> = validators.map(|v| (v.1, v.2)).collect();
    let file = file(named.last().unwrap());
    let send = |status, header: (&str, &str), bytes: &[u8]| {
        let headers = [&validators[..], &[header]].concat();
        response(status, &headers, bytes)
    };
    let part = |start: usize, end: usize, total: usize| {
        let range = format!("bytes {start}-{}/{total}", end - 1);
        send(206, ("content-range", &range), &file[start..end])
    };
    let then_close = |acts: Vec<Act>| [acts, vec![Act::Close]].concat();
    let raw = |text: &str| then_close(vec![Act::Send(text.into())]);
    let range = request.header("range").map(|range| {
        let start = range.strip_prefix("bytes=").unwrap();
        start.strip_suffix('-').unwrap().parse::<usize>().unwrap()
    });
    let length = ("content-length", "90858");
    let coding = |coding: &str, bytes| send(200, ("transfer-encoding", coding), &chunks(bytes));
    match words[0] {
        "close" => vec![Act::Close],
        "garbled" => raw("220 FTP\r\n\r\n"),
        "cut" => then_close(send(200, length, &file[..count])),
        "later" => then_close(send(200, length, &file[..range.unwrap_or(99) + 1])),
        "unframed" => then_close(send(200, ("connection", "close"), &file[..count])),
        "open" => {
            let unframed = send(200, ("connection", "close"), &file[..count]);
            [unframed, vec![Act::Stall(Duration::from_secs(60))]].concat()
        }
        "chunks" => coding("chunked", &file[..count]),
        "transfer" => coding(&words[1..].join(" "), &file),
        "old-chunks" => raw("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        "redirect" => send(count as u16, ("location", words[2]), b""),
        // A header, and a body: the file, if there is no other.
        "says" => {
            let body = words.get(3).map_or(&*file, |body| body.as_bytes());
            send(200, (words[1], words[2]), body)
        }
        // The bytes from the one to the other of a total, whatever was asked for.
        "part" => {
            let numbers = words[1].split(['-', '/']).map(|n| n.parse().unwrap());
            let numbers: Vec<usize> = numbers.collect();
            part(numbers[0], numbers[1] + 1, numbers[2])
        }
        "pieces" => {
            let start = range.unwrap_or(0);
            part(start, SIZE.min(start + count), SIZE)
        }
        // What a good server does.
        "rest" => {
            let validator = request.header("if-range");
            let is_known = |validator| validators.iter().any(|(_, value)| *value == validator);
            match range.filter(|_| validator.is_none_or(is_known)) {
                None => send(200, length, &file),
                Some(start) => part(start, SIZE, SIZE),
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
    let mask = if version == "other" { 255 } else { 0 };
    CLIP.iter().map(|byte| byte ^ mask).collect()
}

pub(crate) fn video(server: &Server) -> Video {
    server.client().get_video("gen:1").unwrap().video.unwrap()
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
        let range = request.header("range").unwrap_or("all");
        let range = range.replace("bytes=", "");
        let Some(value) = request.header("if-range") else {
            return range;
        };
        assert_ne!(range, "all", "If-Range {value} without Range");
        let validator = VALIDATORS.iter().find(|known| known.2 == value);
        format!("{range} {}", validator.unwrap().0)
    };
    requests.filter(|r| !is_poll(r)).map(range).collect()
}

/// Downloads over an old file, which an error leaves as it was. `requests` are those for the file, or
/// how many.
fn check(case: &str, server: &Server, expected: Result<&[u8], &str>, requests: &str) {
    let folder = Folder::new();
    let path = folder.path("v.mp4");
    fs::write(&path, "old").unwrap();
    let saved = save(server, &path).map_err(|error| {
        assert_eq!(error.generation_id(), Some("gen:1"), "{case}");
        error.to_string()
    });
    let text = |reason| format!("{}: {reason}. {PAID}", path.display());
    assert_eq!(saved, expected.map(drop).map_err(text), "{case}");
    let bytes = fs::read(&path).unwrap();
    assert!(bytes == expected.unwrap_or(b"old"), "{case}: other bytes");
    assert_eq!(folder.names(), ["v.mp4"], "{case}");
    let ranges = ranges(server);
    match requests.parse::<usize>() {
        Ok(count) => assert_eq!(ranges.len(), count, "{case}"),
        Err(_) => assert_eq!(ranges.join(", "), requests, "{case}"),
    }
}

/// The rows of a table: a case, a site with the size that the API gives and the file server's script,
/// its requests, and for an error the reason.
fn sites(table: &'static str) -> impl Iterator<Item = (&'static str, Server, [&'static str; 2])> {
    rows(table).map(|[case, size, steps, requests, reason]| {
        (case, script(size.parse().ok(), steps), [requests, reason])
    })
}

/// Each row of a table saves the clip, or fails where it has a reason.
fn check_all(table: &'static str) {
    let sent = "the file server sent something else than the video";
    for (case, server, [requests, reason]) in sites(table) {
        let host = server.address().to_string();
        let reason = reason.replace("HOST", &host).replace("FIVE ", FIVE);
        let reason = reason.replace("SENT", sent);
        let is_saved = reason.is_empty().then_some(CLIP);
        check(case, &server, is_saved.ok_or(&reason), requests);
    }
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
    check_all(table);
}

#[test]
fn a_stalled_connection_is_replaced_and_a_slow_one_is_not() {
    const PAUSE: Act = Act::Stall(Duration::from_millis(10));
    const STALL: Act = Act::Stall(Duration::from_secs(60));
    let send = |text: &[u8]| Act::Send(text.to_vec());
    let head = response(200, &[("content-length", "90858")], &CLIP[..1000]);
    let drops = vec![[send(b"x: y\r\n"), PAUSE]; 6000].concat();
    let drip = [vec![send(b"HTTP/1.1 200 OK\r\n")], drops].concat();
    let rest = CLIP[1000..].chunks(SIZE / 60);
    let slow = rest.flat_map(|bytes| [PAUSE, send(bytes)]);
    let slow = [head.clone(), slow.collect()].concat();
    let stalled = [head, vec![STALL]].concat();
    for (case, first, requests) in [
        ("within the body", stalled, "all, 1000-"),
        ("before the response", vec![STALL], "all, all"),
        ("headers that drip", drip, "all, all"),
        ("a slow body", slow, "all"),
    ] {
        // On a busy computer, a good response may be late as well.
        let is_expected = [500, 20_000].into_iter().any(|time| {
            let first = first.clone();
            let server = site(None, move |request, n| match n {
                0 => first.clone(),
                _ => respond("rest x bare", request),
            });
            let client = server.builder().read_timeout(Duration::from_millis(time));
            let (client, mut bytes) = (client.build().unwrap(), Vec::new());
            let read = client.open_video(&video(&server)).read_to_end(&mut bytes);
            assert!(read.is_ok() && bytes == CLIP, "{case}: {read:?}");
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
    for (case, server, [requests, _]) in sites(table) {
        check(case, &server, Ok(&file("other")), requests);
    }
    for (case, server, _) in sites(table) {
        let (mut reader, mut bytes) = (open(&server), Vec::new());
        for _ in 0..3 {
            let error = reader.read_to_end(&mut bytes).unwrap_err();
            assert_eq!(error.to_string(), STARTED_OVER, "{case}");
        }
        assert!(bytes == CLIP[..SIZE / 2], "{case}: bytes of another file");
    }
    // Nothing of a longer file is left in a shorter one.
    let server = script(None, "cut 45429; chunks 9 other");
    let shorter = &file("other")[..9];
    check("shorter", &server, Ok(shorter), "all, 45429- one");
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
        chunks before HTTP/1.1  |       | old-chunks              | 1 | the file server gives neither the size nor the end of the file
        a URL that is not served|       | 403                     | 5 | FIVE the file server responded with status 403, which begins: (empty). `resume ID` prints its URL, for another program
        a bad request           |       | 400                     | 1 | the file server responded with status 400, which begins: (empty)
        an endless one          | 12000 | says content-length 9000000000000000000 | 1 | the file server sends 9000000000000000000 bytes or more, and the API says that it has 12000. If that is right, download it with another program: `resume ID` prints its URL
        no content              |       | 204                     | 1 | the file server responded with status 204
        a redirect to FTP       |       | redirect 302 ftp://127.0.0.1/?signature=3f9c0e | 1 | HOST redirects to an invalid URL
        an invalid redirect     |       | redirect 302 /ä?signature=3f9c0e | 5 | FIVE HOST: the response, or a redirect, is invalid
        redirects in a circle   |       | redirect 302 /1.mp4?signature=3f9c0e | 11 | HOST redirects more than 10 times
        a redirect to nowhere   |       | 302                     | 5 | FIVE HOST: the response, or a redirect, is invalid
    ";
    check_all(table);
}

#[test]
fn what_is_no_video_is_refused_with_how_it_begins_and_a_video_is_taken_whatever_it_is_called() {
    let table = "
        a page                  | 90858 | says content-type video/mp4 <html>     | 1 | SENT (a text), which begins: <html>
        a coding                | 90858 | says content-encoding BR compressed    | 1 | SENT (Content-Encoding: br), which begins: compressed
        a type of text          | 90858 | says content-type Text/Plain not-found | 1 | SENT (text/plain), which begins: not-found
        another size            | 90858 | says x y another-size                  | 1 | SENT (12 bytes where the API says 90858), which begins: another-size
        a page for the rest     | 90858 | cut 45429; says x y <html>             | 2 | SENT (a text), which begins: <html>
        a video as a text       | 90858 | says content-type text/plain           | all |
        a video in a coding     | 90858 | says content-encoding gzip             | all |
    ";
    check_all(table);
}

#[test]
fn a_reader_gives_no_byte_before_it_has_seen_that_they_are_no_page() {
    let mut acts = response(200, &[("content-length", "600")], "");
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
        let busy = response(status, &[("retry-after", retry_after)], "");
        let server = site(None, move |_, _| busy.clone());
        // The first retry ends the download.
        let started = Arc::new(OnceLock::<Client>::new());
        let (cancel, (tell, told)) = (Arc::clone(&started), mpsc::channel());
        let client = server.builder().on_retry(move |retry| {
            assert_eq!(retry.error.generation_id(), Some("gen:1"));
            tell.send(retry.to_string()).unwrap();
            cancel.get().unwrap().shutdown();
        });
        let client = started.get_or_init(|| client.build().unwrap());
        let error = client.download_video(&video(&server), Folder::new().path("v.mp4"), |_| {});
        assert!(matches!(error, Err(Error::Shutdown { .. })), "{error:?}");
        let text = format!("the file server responded with status {status}; trying again in");
        let told: Vec<String> = told.try_iter().collect();
        assert_eq!(told, [format!("{text} {pause}")]);
    }
}

#[test]
fn all_bytes_are_the_whole_even_if_their_connection_does_not_end() {
    let (server, folder) = (script(Some(SIZE as u64), "open 90858"), Folder::new());
    let builder = server.builder().read_timeout(Duration::from_millis(100));
    let (client, path) = (builder.build().unwrap(), folder.path("v.mp4"));
    let saved = client.download_video(&video(&server), &path, |_| {});
    saved.unwrap();
    assert_eq!(fs::read(path).unwrap(), CLIP);
}

#[test]
fn the_pause_doubles_with_each_failure() {
    let server = site(None, |_, _| refusal(503, "No"));
    let (tell, told) = mpsc::channel();
    let builder = server.builder().retry_delay(Duration::from_millis(1));
    let builder = builder.on_retry(move |retry| tell.send(retry.pause.as_millis()).unwrap());
    let client = builder.build().unwrap();
    let (folder, video) = (Folder::new(), video(&server));
    let saved = client.download_video(&video, folder.path("v.mp4"), |_| {});
    assert!(saved.is_err());
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [1, 2, 4, 8]);
}

#[test]
fn a_url_that_expires_again_and_again_is_renewed_each_time() {
    // Each URL serves one request, and the next one is refused.
    let server = site(None, |request, n| match n % 2 {
        0 => respond("pieces 15000", request),
        _ => refusal(403, "expired"),
    });
    check("expires", &server, Ok(CLIP), "13");
    let files = server.requests().into_iter().map(|request| request.target);
    let files = files.filter(|target| !target.starts_with("/v2"));
    let expected = (0..13).map(|n| format!("/{}.mp4?{SECRET}", n / 2 + 1));
    assert!(files.eq(expected));
}

/// A site whose file is refused, and where the API responds with these to the next polls, and then
/// with another URL, which is served.
fn expired(polls: Vec<Vec<Act>>) -> Server {
    Server::start(move |request, n| match n {
        0 => completed(&local_url(request, "/1.mp4"), None),
        _ if request.target.starts_with("/1.mp4") => respond("403", request),
        _ if !is_poll(request) => respond("rest", request),
        _ => match polls.get(n - 2) {
            Some(poll) => poll.clone(),
            None => completed(&local_url(request, "/2.mp4"), None),
        },
    })
}

#[test]
fn a_url_that_is_not_served_is_an_error_that_says_how_to_get_it_otherwise() {
    let table = r#"
        404 | {"message": "No"}                    | 6 | FIVE asking for another failed: status 404: No PRINTS
        200 | busy                                 | 6 | FIVE asking for another failed: it is not JSON: busy
        200 | {"id": "gen:1", "status": "expired"} | 6 | FIVE the server has no other PRINTS
        200 | {"status": "completed", "video": {"url": "http://cdn.example/v.mp4"}} | 3 | the video's URL is http to cdn.example: only https is safe, or http to a loopback host"#;
    let not_served = format!("{FIVE}its URL is not served, and");
    for [status, body, requests, reason] in rows(table) {
        let reason = reason.replace("FIVE", &not_served);
        let prints = ". `resume ID` prints its URL, for another program";
        let reason = reason.replace(" PRINTS", prints);
        let server = expired(vec![json(status.parse().unwrap(), body); 4]);
        check(body, &server, Err(&reason), "1");
        assert_eq!(server.requests().len().to_string(), requests, "{body}");
    }
    // An API that is busy for a moment strands no video.
    let server = expired(vec![refusal(503, "busy"), vec![Act::Close]]);
    check("busy", &server, Ok(CLIP), "all, all");
}

#[test]
fn redirects_are_followed() {
    let steps = [
        "redirect 301 x/y.mp4?again=1",
        "redirect 302 z.mp4",
        "redirect 303 ../u.mp4?a=../b",
        "redirect 307 /v.mp4",
        "redirect 308 w.mp4",
    ];
    // Ten of them, and no more.
    let server = site(None, move |request, n| match n {
        0..10 => respond(steps[n % 5], request),
        _ => respond("rest", request),
    });
    check("ten", &server, Ok(CLIP), &["all"; 11].join(", "));
    let targets = "/x/y.mp4?again=1 /x/z.mp4 /u.mp4?a=../b /v.mp4 /w.mp4 ".repeat(2);
    let targets = targets.split_whitespace().map(|to| format!("GET {to}"));
    assert_eq!(server.targets()[2..], targets.collect::<Vec<_>>());
}

#[test]
fn a_redirect_to_another_host_keeps_the_range_and_never_has_the_key() {
    let cdn = script(None, "rest");
    let location = cdn.url(&format!("/far.mp4?{SECRET}"));
    let server = site(None, move |request, n| match n {
        0 => respond("cut 45429", request),
        _ => respond(&format!("redirect 302 {location}"), request),
    });
    check("another host", &server, Ok(CLIP), "all, 45429- one");
    assert_eq!(ranges(&cdn), ["45429- one"]);
}

#[test]
fn an_unsafe_url_is_never_requested() {
    let table = "
        http://cdn.example/v.mp4 | is http to cdn.example: only https is safe, or http to a loopback host
        v.mp4                    | does not start with https://
        https://                 | is invalid (invalid format)
        http://user@127.0.0.1:9/ | has an invalid port or host, or a user name
        https://cdn.example/LONG | is invalid (uri too long)";
    for [url, reason] in rows(table) {
        let signed = format!("{url}?{SECRET}").replace("LONG", &"x".repeat(70_000));
        let server = Server::start(move |_, _| completed(&signed, None));
        let reason = format!("the video's URL {reason}");
        check(url, &server, Err(&reason), "0");
    }
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
#[test]
fn an_api_elsewhere_can_not_name_a_url_on_this_computer() {
    let server = script(None, "rest");
    let mut video = video(&server);
    let elsewhere = support::builder("https://api.example/v2").build().unwrap();
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
        let (server, mut calls) = (script(file_size, steps), Vec::new());
        let progress = |progress: Progress<'_>| match progress {
            Progress::Download { done, total, .. } => calls.push((done, total)),
            other => panic!("{other:?}"),
        };
        let (client, folder) = (server.client(), Folder::new());
        let saved = client.download_video(&video(&server), folder.path("v.mp4"), progress);
        saved.unwrap();
        assert!(calls.is_sorted_by(|(a, _), (b, _)| a < b), "{calls:?}");
        assert!(calls.iter().all(|call| call.1 == total), "{calls:?}");
        assert_eq!(calls.last(), Some(&(90_858, total)), "{steps}");
    }
}

#[test]
fn a_reader_asks_nothing_before_its_first_byte_and_hides_broken_connections_and_its_url() {
    let server = script(None, "cut 45429; rest");
    let (mut reader, mut bytes) = (open(&server), vec![0; SIZE]);
    assert!(ranges(&server).is_empty());
    for (position, byte) in bytes.chunks_mut(1).enumerate() {
        let debug = format!("{{ generation_id: \"gen:1\", position: {position}, .. }}");
        assert_eq!(format!("{reader:?}"), format!("VideoReader {debug}"));
        reader.read_exact(byte).unwrap();
    }
    assert_eq!(reader.read(&mut [0; 9]).unwrap(), 0, "after the end");
    assert!(bytes == CLIP);
    assert_eq!(ranges(&server), ["all", "45429- one"]);
}

#[test]
fn a_readers_errors_hold_an_error_and_end_a_copy() {
    use io::ErrorKind::{ConnectionAborted, InvalidData, NotFound};
    let gone = script(None, "rest").url(&format!("/v.mp4?{SECRET}"));
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
    use crate::support::{child, child_report, child_task, in_shell, peak_memory};

    /// Does a download in a process of its own.
    const CHILD: &str = "download::linux::memory_does_not_grow_with_the_file";

    /// As far as a test without special rights can have one: a limit to the size of files.
    #[test]
    fn a_full_disk_is_an_error_and_leaves_nothing() {
        let (server, folder) = (script(None, "rest"), Folder::new());
        let path = folder.path("v.mp4");
        fs::write(&path, "old").unwrap();
        let task = format!("{} {}", server.url("/v2"), path.display());
        let limit = "trap '' XFSZ; ulimit -f 64";
        let limited = in_shell(&["sh"], limit, folder.as_ref(), &child(CHILD, &task));
        let reason = "File too large (os error 27)";
        let error = format!("{}: {reason}. {PAID}", path.display());
        assert_eq!(child_report(limited), error);
        assert_eq!(folder.names(), ["v.mp4"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }

    /// Each size in a process of its own, which prints the peak of its memory, or an error.
    #[test]
    fn memory_does_not_grow_with_the_file() {
        const MIB: usize = 1024 * 1024;
        if let Some(task) = child_task() {
            let (base_url, path) = task.split_once(' ').unwrap();
            let client = support::builder(base_url).build().unwrap();
            let video = client.get_video("gen:1").unwrap().video.unwrap();
            if path.is_empty() {
                io::copy(&mut client.open_video(&video), &mut io::sink()).unwrap();
            } else if let Err(error) = client.download_video(&video, path, |_| {}) {
                return println!("<{error}>");
            }
            return println!("<{}>", peak_memory());
        }
        let folder = Folder::new();
        let path = folder.path("v.mp4");
        let peak = |mib: usize, path: &str| -> usize {
            let size = mib * MIB;
            let server = site(Some(size as u64), move |_, _| {
                let head = response(200, &[("content-length", &size.to_string())], "");
                [head, vec![Act::Repeat(vec![0; MIB], mib)]].concat()
            });
            let task = format!("{} {path}", server.url("/v2"));
            child_report(child(CHILD, &task)).parse().unwrap()
        };
        for (path, mib) in [("", 1024), (path.to_str().unwrap(), 64)] {
            let (small, large) = (peak(1, path), peak(mib, path));
            let grows = large >= small + 2048;
            assert!(!grows, "1 MiB: {small} kB, {mib} MiB: {large} kB");
        }
    }
}
