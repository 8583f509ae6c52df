//! A video comes whole under its name or not at all, and an error says how to fetch it again.

use std::{
    fs,
    io::{self, Write},
    ops::ControlFlow,
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use aimlapi_video::{Client, Error, Video, simulator::CLIP};
use serde_json::json;

use crate::support::{Act, Folder, KEY, Request, Server, http, json, refusal};

const SIZE: usize = CLIP.len();
const HALF: usize = SIZE / 2;
/// The clip's boxes, to where each ends: ftyp, moov, free, mdat.
const BOX_ENDS: [usize; 4] = [32, 5407, 5415, SIZE];

const TAG: (&str, &str) = ("etag", "\"one\"");
const DATE: (&str, &str) = ("last-modified", "Sat, 01 Aug 2026 12:00:00 GMT");
const WEAK: (&str, &str) = ("etag", "W/\"one\"");

/// Stands in each video's address, and in no message.
const SECRET: &str = "signature=3f9c0e";

/// Longer than this file's clients wait.
const STALL: Act = Act::Stall(Duration::from_secs(3));

const PAID: &str =
    "Generation gen:1 is paid for: fetch its video again by this id, which costs nothing";

type Files = fn(&Request, usize) -> Vec<Act>;

/// The API, which gives a new address with each poll, and the file server in one. `files` answers
/// a request for a file, told how many there were before it.
fn site(
    announced: Option<u64>,
    files: impl Fn(&Request, usize) -> Vec<Act> + Send + Sync + 'static,
) -> Server {
    let (polls, asked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    Server::start(move |request, _| {
        if !is_poll(request) {
            return files(request, asked.fetch_add(1, Ordering::SeqCst));
        }
        let url = format!("/{}.mp4", polls.fetch_add(1, Ordering::SeqCst) + 1);
        finished(request, &url, announced)
    })
}

fn is_poll(request: &Request) -> bool {
    request.target.starts_with("/v2/")
}

/// The API's answer with a video at `path` of the same server.
fn finished(request: &Request, path: &str, announced: Option<u64>) -> Vec<Act> {
    let url = format!("http://{}{path}?{SECRET}", request.header("host").unwrap());
    let video = json!({"url": url, "file_size": announced});
    json(
        200,
        &json!({"id": "gen:1", "status": "completed", "video": video}).to_string(),
    )
}

fn client(server: &Server) -> Client {
    server
        .builder()
        .stall_timeout(Duration::from_millis(300))
        .build()
        .unwrap()
}

fn video(server: &Server) -> Video {
    client(server).get_video("gen:1").unwrap().video.unwrap()
}

fn save(server: &Server, path: &Path) -> Result<(), Error> {
    client(server).download_video(&video(server), path, |_, _| {})
}

/// What the file server was asked for, as `all`, or a range and the version it is meant for.
fn asked(server: &Server) -> Vec<String> {
    let files = server
        .requests()
        .into_iter()
        .filter(|request| !is_poll(request));
    files
        .map(|request| {
            assert_eq!(request.method, "GET");
            assert_eq!(request.header("accept-encoding"), Some("identity"));
            assert!(
                !format!("{request:?}").contains(KEY),
                "the key went to the file server: {request:?}"
            );
            match (request.header("range"), request.header("if-range")) {
                (None, None) => "all".to_owned(),
                (None, Some(version)) => panic!("If-Range {version} without Range"),
                (Some(range), None) => range.to_owned(),
                (Some(range), Some(version)) => format!("{range} of {version}"),
            }
        })
        .collect()
}

/// A download that fails with `reason` leaves the old file as it was, and nothing beside it.
fn assert_fails(case: &str, server: &Server, reason: &str, requests: usize) {
    let folder = Folder::new();
    let path = folder.path("v.mp4");
    fs::write(&path, "old").unwrap();
    let error = save(server, &path).expect_err(case);
    assert_eq!(
        error.to_string(),
        format!("{}: {reason}. {PAID}", path.display()),
        "{case}"
    );
    assert_eq!(error.generation_id(), Some("gen:1"), "{case}");
    assert!(!error.to_string().contains(SECRET), "{case}");
    assert_eq!(asked(server).len(), requests, "{case}");
    assert_eq!(folder.names(), ["v.mp4"], "{case}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "old", "{case}");
}

/// A download that ends well has replaced the old file.
fn assert_saves(case: &str, server: &Server, bytes: &[u8], asks: &[&str]) {
    let folder = Folder::new();
    let path = folder.path("v.mp4");
    fs::write(&path, "old").unwrap();
    save(server, &path).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(fs::read(&path).unwrap() == bytes, "{case}: other bytes");
    assert_eq!(asked(server), asks, "{case}");
    assert_eq!(folder.names(), ["v.mp4"], "{case}");
}

/// The beginning of the clip with the size of all of it, and then the end of the connection.
fn cut(at: usize, headers: &[(&str, &str)]) -> Vec<Act> {
    let mut acts = begin(at, headers);
    acts.push(Act::Close);
    acts
}

fn begin(at: usize, headers: &[(&str, &str)]) -> Vec<Act> {
    let size = SIZE.to_string();
    let headers = [headers, &[("content-length", size.as_str())]].concat();
    vec![Act::Send(http(200, &headers, &CLIP[..at]))]
}

fn whole() -> Vec<Act> {
    begin(SIZE, &[TAG])
}

/// The beginning of the clip, which ends with the connection alone.
fn unframed(at: usize) -> Vec<Act> {
    vec![
        Act::Send(http(200, &[TAG, ("connection", "close")], &CLIP[..at])),
        Act::Close,
    ]
}

fn chunked(bytes: &[u8], rest: &str) -> Vec<Act> {
    let mut body = Vec::new();
    for chunk in bytes.chunks(10_000) {
        write!(body, "{:x}\r\n", chunk.len()).unwrap();
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(rest.as_bytes());
    vec![
        Act::Send(http(200, &[TAG, ("transfer-encoding", "chunked")], body)),
        Act::Close,
    ]
}

fn offset(request: &Request) -> usize {
    let range = request.header("range").unwrap_or("bytes=0-");
    range
        .strip_prefix("bytes=")
        .and_then(|range| range.strip_suffix('-'))
        .unwrap()
        .parse()
        .unwrap()
}

/// A part with this `Content-Range`.
fn part(range: &str, headers: &[(&str, &str)], bytes: &[u8]) -> Vec<Act> {
    vec![Act::Send(http(
        206,
        &[headers, &[("content-range", range)]].concat(),
        bytes,
    ))]
}

/// What a good server says, if the file has these headers.
fn rest(request: &Request, headers: &[(&str, &str)]) -> Vec<Act> {
    let version = request.header("if-range");
    if request.header("range").is_none()
        || version.is_some_and(|known| headers.iter().all(|(_, v)| *v != known))
    {
        return begin(SIZE, headers);
    }
    let start = offset(request);
    if start >= SIZE {
        return vec![Act::Send(http(
            416,
            &[("content-range", &format!("bytes */{SIZE}"))],
            "no more",
        ))];
    }
    part(
        &format!("bytes {start}-{}/{SIZE}", SIZE - 1),
        headers,
        &CLIP[start..],
    )
}

fn status(status: u16) -> Vec<Act> {
    refusal(status, "not now")
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    let with_size = Some(SIZE as u64);
    let cases: [(&str, Option<u64>, Files, &[&str]); 35] = [
        ("whole at once", with_size, |_, _| whole(), &["all"]),
        (
            "no byte",
            None,
            |r, n| {
                if n == 0 {
                    cut(0, &[TAG])
                } else {
                    rest(r, &[TAG])
                }
            },
            &["all", "all"],
        ),
        (
            "the first byte",
            None,
            |r, n| {
                if n == 0 {
                    cut(1, &[TAG])
                } else {
                    rest(r, &[TAG])
                }
            },
            &["all", "bytes=1- of \"one\""],
        ),
        (
            "half",
            with_size,
            |r, n| {
                if n == 0 {
                    cut(HALF, &[TAG])
                } else {
                    rest(r, &[TAG])
                }
            },
            &["all", "bytes=53540- of \"one\""],
        ),
        (
            "all but the last byte",
            None,
            |r, n| {
                if n == 0 {
                    cut(SIZE - 1, &[TAG])
                } else {
                    rest(r, &[TAG])
                }
            },
            &["all", "bytes=107080- of \"one\""],
        ),
        (
            "a connection that dies unanswered",
            None,
            |_, n| if n == 0 { vec![Act::Close] } else { whole() },
            &["all", "all"],
        ),
        (
            "a reset",
            None,
            |r, n| {
                if n == 0 {
                    [begin(1000, &[TAG]), vec![Act::Reset]].concat()
                } else {
                    rest(r, &[TAG])
                }
            },
            &["all", "bytes=1000- of \"one\""],
        ),
        (
            "a stall",
            None,
            |r, n| match n {
                0 => [
                    begin(1000, &[TAG]),
                    vec![STALL, Act::Send(CLIP[1000..].to_vec())],
                ]
                .concat(),
                _ => rest(r, &[TAG]),
            },
            &["all", "bytes=1000- of \"one\""],
        ),
        (
            "a stall before the answer",
            None,
            |_, n| {
                if n == 0 {
                    [vec![STALL], whole()].concat()
                } else {
                    whole()
                }
            },
            &["all", "all"],
        ),
        (
            "an answer whose headers drip",
            None,
            |_, n| {
                let mut acts = vec![Act::Send(b"HTTP/1.1 200 OK\r\n".to_vec())];
                for _ in 0..40 {
                    acts.extend([
                        Act::Send(b"x: y\r\n".to_vec()),
                        Act::Stall(Duration::from_millis(20)),
                    ]);
                }
                acts.push(Act::Send(
                    format!("content-length: {SIZE}\r\n\r\n").into_bytes(),
                ));
                acts.push(Act::Send(CLIP.to_vec()));
                if n == 0 { acts } else { whole() }
            },
            &["all", "all"],
        ),
        (
            "a version by date",
            None,
            |r, n| {
                if n == 0 {
                    cut(7, &[DATE])
                } else {
                    rest(r, &[DATE])
                }
            },
            &["all", "bytes=7- of Sat, 01 Aug 2026 12:00:00 GMT"],
        ),
        (
            "a tag before a date",
            None,
            |r, n| {
                if n == 0 {
                    cut(7, &[DATE, TAG])
                } else {
                    rest(r, &[DATE, TAG])
                }
            },
            &["all", "bytes=7- of \"one\""],
        ),
        (
            "a weak tag",
            None,
            |r, n| {
                if n == 0 {
                    cut(7, &[WEAK])
                } else {
                    rest(r, &[WEAK])
                }
            },
            &["all", "bytes=7-"],
        ),
        (
            "a date beside a weak tag",
            None,
            |r, n| {
                if n == 0 {
                    cut(7, &[WEAK, DATE])
                } else {
                    rest(r, &[WEAK, DATE])
                }
            },
            &["all", "bytes=7- of Sat, 01 Aug 2026 12:00:00 GMT"],
        ),
        (
            "no version",
            None,
            |r, n| if n == 0 { cut(7, &[]) } else { rest(r, &[]) },
            &["all", "bytes=7-"],
        ),
        (
            // RFC 9110, 15.3.7: what the first answer said already may be left out of a part.
            "a part that names the tag alone",
            None,
            |r, n| match n {
                0 => cut(7, &[DATE]),
                _ => part(
                    &format!("bytes 7-{}/{SIZE}", SIZE - 1),
                    &[TAG],
                    &CLIP[offset(r)..],
                ),
            },
            &["all", "bytes=7- of Sat, 01 Aug 2026 12:00:00 GMT"],
        ),
        (
            "a part of an unknown whole",
            None,
            |r, n| match n {
                0 => cut(7, &[TAG]),
                _ => part(
                    &format!("Bytes 7-{}/*", SIZE - 1),
                    &[TAG],
                    &CLIP[offset(r)..],
                ),
            },
            &["all", "bytes=7- of \"one\""],
        ),
        (
            "ranges ignored",
            None,
            |_, n| if n == 0 { cut(HALF, &[TAG]) } else { whole() },
            &["all", "bytes=53540- of \"one\""],
        ),
        (
            "another offset",
            None,
            |_, n| match n {
                0 => cut(7, &[TAG]),
                1 => part(&format!("bytes 8-{}/{SIZE}", SIZE - 1), &[TAG], &CLIP[8..]),
                _ => whole(),
            },
            &["all", "bytes=7- of \"one\"", "all"],
        ),
        (
            "another size",
            None,
            |_, n| match n {
                0 => cut(7, &[TAG]),
                1 => part(
                    &format!("bytes 7-{}/{}", SIZE - 1, SIZE + 1),
                    &[TAG],
                    &CLIP[7..],
                ),
                _ => whole(),
            },
            &["all", "bytes=7- of \"one\"", "all"],
        ),
        (
            "no offset",
            None,
            |_, n| match n {
                0 => cut(7, &[TAG]),
                1 => vec![Act::Send(http(206, &[TAG], &CLIP[7..]))],
                _ => whole(),
            },
            &["all", "bytes=7- of \"one\"", "all"],
        ),
        (
            "an offset that is none",
            None,
            |_, n| match n {
                0 => cut(7, &[TAG]),
                1 => part("bytes 99999999999999999999-/7", &[TAG], &CLIP[7..]),
                _ => whole(),
            },
            &["all", "bytes=7- of \"one\"", "all"],
        ),
        (
            "nothing left to send",
            None,
            |r, n| {
                if n == 0 {
                    chunked(CLIP, "")
                } else {
                    rest(r, &[TAG])
                }
            },
            &["all", "bytes=107081- of \"one\""],
        ),
        (
            "ranges refused",
            None,
            |_, n| match n {
                0 => cut(7, &[TAG]),
                1 => vec![Act::Send(http(
                    416,
                    &[("content-range", &format!("bytes */{SIZE}"))],
                    "",
                ))],
                _ => whole(),
            },
            &["all", "bytes=7- of \"one\"", "all"],
        ),
        (
            "ranges refused without a size",
            None,
            |_, n| match n {
                0 => cut(7, &[TAG]),
                1 => vec![Act::Send(http(416, &[], "no ranges here"))],
                _ => whole(),
            },
            &["all", "bytes=7- of \"one\"", "all"],
        ),
        ("no length, whole", None, |_, _| unframed(SIZE), &["all"]),
        (
            "no length, cut within a box",
            None,
            |r, n| {
                if n == 0 {
                    unframed(HALF)
                } else {
                    rest(r, &[TAG])
                }
            },
            &["all", "bytes=53540- of \"one\""],
        ),
        (
            "no length, but a size that the API announced",
            with_size,
            |r, n| {
                if n == 0 {
                    unframed(HALF)
                } else {
                    rest(r, &[TAG])
                }
            },
            &["all", "bytes=53540- of \"one\""],
        ),
        (
            "chunks, whole",
            None,
            |_, _| chunked(CLIP, "0\r\n\r\n"),
            &["all"],
        ),
        (
            "chunks, cut",
            None,
            |r, n| {
                if n == 0 {
                    chunked(&CLIP[..20_000], "2710\r\n")
                } else {
                    rest(r, &[TAG])
                }
            },
            &["all", "bytes=20000- of \"one\""],
        ),
        (
            "chunks with an end, but of half the file",
            None,
            |r, n| {
                if n == 0 {
                    chunked(&CLIP[..HALF], "0\r\n\r\n")
                } else {
                    rest(r, &[TAG])
                }
            },
            &["all", "bytes=53540- of \"one\""],
        ),
        (
            "too many bytes at first",
            with_size,
            |_, n| {
                if n == 0 {
                    chunked(&[CLIP, b"more"].concat(), "0\r\n\r\n")
                } else {
                    whole()
                }
            },
            &["all", "all"],
        ),
        (
            "an announced size of zero",
            Some(0),
            |_, _| whole(),
            &["all"],
        ),
        (
            "statuses that pass",
            None,
            |_, n| {
                [408, 425, 429, 500].get(n).map_or_else(whole, |passing| {
                    vec![Act::Send(http(
                        *passing,
                        &[("retry-after", "0")],
                        "<html>busy</html>",
                    ))]
                })
            },
            &["all", "all", "all", "all", "all"],
        ),
        (
            "parts of 20 000 bytes",
            None,
            |r, n| match n {
                0 => cut(20_000, &[TAG]),
                _ => {
                    let (start, end) = (offset(r), SIZE.min(offset(r) + 20_000));
                    part(
                        &format!("bytes {start}-{}/{SIZE}", end - 1),
                        &[TAG],
                        &CLIP[start..end],
                    )
                }
            },
            &[
                "all",
                "bytes=20000- of \"one\"",
                "bytes=40000- of \"one\"",
                "bytes=60000- of \"one\"",
                "bytes=80000- of \"one\"",
                "bytes=100000- of \"one\"",
            ],
        ),
    ];
    for (case, announced, files, asks) in cases {
        assert_saves(case, &site(announced, files), CLIP, asks);
    }
}

/// A connection that ends is how such a body ends, so only the boxes tell a cut.
#[test]
fn a_cut_between_two_boxes_is_a_cut() {
    for end in &BOX_ENDS[..3] {
        let server = site(None, move |request, n| {
            if n == 0 {
                unframed(*end)
            } else {
                rest(request, &[TAG])
            }
        });
        assert_saves(
            "cut",
            &server,
            CLIP,
            &["all", &format!("bytes={end}- of \"one\"")],
        );
    }
}

/// Nothing but the protocol's own end of a body tells a whole file of another format from half of one.
#[test]
fn a_file_without_boxes_is_whole_when_the_protocol_says_so() {
    const WEBM: &[u8] = b"\x1aE:\0\xdf\xa3 and so on";
    let cases: [(&str, Files, &[&str]); 5] = [
        (
            "a length",
            |_, _| vec![Act::Send(http(200, &[], WEBM))],
            &["all"],
        ),
        ("chunks", |_, _| chunked(WEBM, "0\r\n\r\n"), &["all"]),
        (
            "a refused range proves nothing",
            |_, n| match n {
                0 => chunked(&WEBM[..4], ""),
                1 => vec![Act::Send(http(416, &[], ""))],
                _ => chunked(WEBM, "0\r\n\r\n"),
            },
            &["all", "bytes=4- of \"one\"", "all"],
        ),
        (
            "the end of a part is not that of the file",
            |_, n| match n {
                0 => chunked(&WEBM[..4], ""),
                1 => part(
                    "bytes 4-5/*",
                    &[TAG, ("transfer-encoding", "chunked")],
                    b"2\r\n\xdf\xa3\r\n0\r\n\r\n",
                ),
                _ => part("bytes 6-15/16", &[TAG], &WEBM[6..]),
            },
            &["all", "bytes=4- of \"one\"", "bytes=6- of \"one\""],
        ),
        (
            // HTTP/1.0 has no chunks: this body ends with the connection.
            "the end of a connection proves nothing",
            |_, n| match n {
                0 => {
                    let head = "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                    vec![
                        Act::Send([head.as_bytes(), &WEBM[..4]].concat()),
                        Act::Close,
                    ]
                }
                _ => vec![Act::Send(http(200, &[], WEBM))],
            },
            &["all", "bytes=4-"],
        ),
    ];
    for (case, files, asks) in cases {
        assert_saves(case, &site(None, files), WEBM, asks);
    }
}

#[test]
fn a_file_that_changed_midway_is_fetched_from_its_beginning() {
    const OTHER: (&str, &str) = ("etag", "\"two\"");
    const OTHER_WEAK: (&str, &str) = ("etag", "W/\"two\"");
    const LATER: (&str, &str) = ("last-modified", "Sat, 01 Aug 2026 13:00:00 GMT");
    fn changed() -> Vec<u8> {
        CLIP.iter()
            .enumerate()
            .map(|(at, byte)| if at < 6000 { *byte } else { !*byte })
            .collect()
    }
    /// The first half of one file, then a server that sends the rest of the other, whatever it was asked for.
    fn careless(n: usize, old: (&str, &str), new: (&str, &str)) -> Vec<Act> {
        match n {
            0 => cut(HALF, &[old]),
            1 => part(
                &format!("bytes {HALF}-{}/{SIZE}", SIZE - 1),
                &[new],
                &changed()[HALF..],
            ),
            _ => vec![Act::Send(http(200, &[new], changed()))],
        }
    }
    let cases: [(&str, Files, &[&str]); 5] = [
        (
            "the server noticed",
            |_, n| {
                if n == 0 {
                    cut(HALF, &[TAG])
                } else {
                    vec![Act::Send(http(200, &[OTHER], changed()))]
                }
            },
            &["all", "bytes=53540- of \"one\""],
        ),
        (
            "another tag",
            |_, n| careless(n, TAG, OTHER),
            &["all", "bytes=53540- of \"one\"", "all"],
        ),
        (
            "another weak tag",
            |_, n| careless(n, WEAK, OTHER_WEAK),
            &["all", "bytes=53540-", "all"],
        ),
        (
            "another date",
            |_, n| careless(n, DATE, LATER),
            &[
                "all",
                "bytes=53540- of Sat, 01 Aug 2026 12:00:00 GMT",
                "all",
            ],
        ),
        (
            "changed again after that",
            |_, n| match n {
                0 => cut(HALF, &[TAG]),
                1 => cut(HALF + 1, &[OTHER]),
                2 => part(
                    &format!("bytes {}-{}/{SIZE}", HALF + 1, SIZE - 1),
                    &[TAG],
                    &CLIP[HALF + 1..],
                ),
                _ => vec![Act::Send(http(200, &[OTHER], changed()))],
            },
            &[
                "all",
                "bytes=53540- of \"one\"",
                "bytes=53541- of \"two\"",
                "all",
            ],
        ),
    ];
    for (case, files, asks) in cases {
        assert_saves(case, &site(None, files), &changed(), asks);
    }
}

#[test]
fn nothing_of_a_longer_file_is_left_in_a_shorter_one() {
    let short = &CLIP[..BOX_ENDS[0]];
    let server = site(None, |_, n| match n {
        0 => cut(HALF, &[TAG]),
        _ => vec![Act::Send(http(
            200,
            &[("etag", "\"two\"")],
            &CLIP[..BOX_ENDS[0]],
        ))],
    });
    assert_saves(
        "shorter",
        &server,
        short,
        &["all", "bytes=53540- of \"one\""],
    );
}

#[test]
fn a_hopeless_download_ends_in_an_error_that_says_how_to_fetch_it_again() {
    const TEXT: &str = "the server sent a text (HTML, JSON) instead of the video";
    let cases: [(&str, Option<u64>, Files, &str, usize); 22] = [
        (
            "cut at the same byte each time, without ranges",
            None,
            |_, _| cut(HALF, &[TAG]),
            "5 attempts in a row failed, the last: the connection broke after 53540 bytes: Peer disconnected",
            6,
        ),
        (
            "no bytes",
            None,
            |_, _| vec![Act::Send(http(200, &[], ""))],
            "5 attempts in a row failed, the last: the server sent no bytes",
            5,
        ),
        (
            "no bytes and no length",
            None,
            |_, _| unframed(0),
            "5 attempts in a row failed, the last: the server sent no bytes",
            5,
        ),
        (
            "another size than announced, and not a whole video by its own account",
            Some(7),
            |_, _| vec![Act::Send(http(200, &[], b"\0\0\0\x10ftypisom"))],
            "5 attempts in a row failed, the last: the file server has 12 bytes, the API announced 7",
            6,
        ),
        (
            "more bytes than announced",
            Some(6),
            |_, _| unframed(7),
            "5 attempts in a row failed, the last: the server sent more bytes than were announced",
            5,
        ),
        (
            "fewer bytes than announced",
            Some(SIZE as u64 + 1),
            |_, _| chunked(CLIP, "0\r\n\r\n"),
            "5 attempts in a row failed, the last: only 107081 of 107082 bytes came",
            6,
        ),
        (
            "half a file in a whole answer",
            None,
            |_, _| chunked(&CLIP[..HALF], "0\r\n\r\n"),
            "5 attempts in a row failed, the last: the 53540 bytes that came are not a whole MP4 file",
            6,
        ),
        (
            "half a file each time, ended by the connection",
            None,
            |_, _| unframed(HALF),
            "5 attempts in a row failed, the last: the 53540 bytes that came are not a whole MP4 file",
            6,
        ),
        (
            "always another part",
            None,
            |_, n| {
                if n % 2 == 0 {
                    cut(7, &[TAG])
                } else {
                    part("bytes 0-1/2", &[TAG], &CLIP[..2])
                }
            },
            "5 attempts in a row failed, the last: the server sent another part than the one asked for",
            6,
        ),
        (
            "a part that nobody asked for",
            None,
            |_, _| part("bytes 7-8/9", &[], b"78"),
            "5 attempts in a row failed, the last: the server sent another part than the one asked for",
            5,
        ),
        (
            "a range refused that nobody asked for",
            None,
            |_, _| vec![Act::Send(http(416, &[], ""))],
            "5 attempts in a row failed, the last: the server sent no bytes",
            5,
        ),
        (
            "always unavailable",
            None,
            |_, _| status(503),
            "5 attempts in a row failed, the last: the file server answered with status 503",
            5,
        ),
        (
            "a bad request, twice",
            None,
            |_, _| status(400),
            "the file server answered with status 400",
            2,
        ),
        (
            "no content",
            None,
            |_, _| status(204),
            "the file server answered with status 204",
            1,
        ),
        (
            "a page by its type",
            None,
            |_, _| {
                vec![Act::Send(http(
                    200,
                    &[("content-type", "Text/HTML; charset=utf-8")],
                    CLIP,
                ))]
            },
            "the file server sent text/html; charset=utf-8 instead of the video",
            1,
        ),
        (
            "JSON by its type",
            None,
            |_, _| {
                vec![Act::Send(http(
                    200,
                    &[("content-type", "application/json")],
                    CLIP,
                ))]
            },
            "the file server sent application/json instead of the video",
            1,
        ),
        (
            "a page by its first byte",
            None,
            |_, _| vec![Act::Send(http(200, &[], "<!DOCTYPE html>"))],
            TEXT,
            1,
        ),
        (
            "XML by its first byte",
            None,
            |_, _| {
                vec![Act::Send(http(
                    200,
                    &[("content-type", "video/mp4")],
                    " \r\n<?xml?>",
                ))]
            },
            TEXT,
            1,
        ),
        (
            "an object by its first byte",
            None,
            |_, _| vec![Act::Send(http(200, &[], "{\"message\": \"no\"}"))],
            TEXT,
            1,
        ),
        (
            "a list by its first byte",
            None,
            |_, _| vec![Act::Send(http(200, &[], "\t[]"))],
            TEXT,
            1,
        ),
        (
            "a page after a cut, at a server without ranges",
            None,
            |_, n| {
                if n == 0 {
                    cut(7, &[TAG])
                } else {
                    vec![Act::Send(http(200, &[], "<html>"))]
                }
            },
            TEXT,
            2,
        ),
        (
            "compressed",
            None,
            |_, _| {
                vec![Act::Send(http(
                    200,
                    &[("content-encoding", "gzip")],
                    "\x1f",
                ))]
            },
            "the file server sent the video compressed, unasked",
            1,
        ),
    ];
    for (case, announced, files, reason, requests) in cases {
        assert_fails(case, &site(announced, files), reason, requests);
    }
}

#[test]
fn a_server_that_is_gone_is_given_up() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = Server::start(move |_, _| {
        let url = format!("http://{closed}/v.mp4?{SECRET}");
        json(
            200,
            &json!({"id": "gen:1", "status": "completed", "video": {"url": url}}).to_string(),
        )
    });
    let folder = Folder::new();
    let path = folder.path("v.mp4");
    let error = save(&server, &path).unwrap_err().to_string();
    let begin = format!("{}: 5 attempts in a row failed, the last: ", path.display());
    assert!(
        error.starts_with(&begin) && error.ends_with(PAID) && error.contains("refused"),
        "{error}"
    );
    assert!(!error.contains(SECRET), "{error}");
    assert!(folder.names().is_empty());
}

#[test]
fn failures_in_a_row_are_few_but_progress_forgives_them() {
    let server = site(None, |request, n| match n % 5 {
        4 if n < 20 => part(
            &format!("bytes {}-{}/{SIZE}", offset(request), offset(request)),
            &[TAG],
            &CLIP[offset(request)..=offset(request)],
        ),
        4 => rest(request, &[TAG]),
        _ => status(503),
    });
    let folder = Folder::new();
    save(&server, &folder.path("v.mp4")).unwrap();
    assert!(fs::read(folder.path("v.mp4")).unwrap() == CLIP);
    assert_eq!(asked(&server).len(), 25);
}

#[test]
fn a_slow_but_steady_link_finishes() {
    let server = site(None, |_, _| {
        let mut acts = begin(0, &[TAG]);
        for piece in CLIP.chunks(SIZE / 40 + 1) {
            acts.extend([
                Act::Send(piece.to_vec()),
                Act::Stall(Duration::from_millis(10)),
            ]);
        }
        acts
    });
    assert_saves(
        "a drip of 400 ms, with stalls of 300 ms allowed",
        &server,
        CLIP,
        &["all"],
    );
}

#[test]
fn an_expired_address_is_asked_for_anew_and_the_download_goes_on_with_it() {
    for expired in [401, 403, 404, 410] {
        let server = site(None, move |request, n| match n {
            0 => cut(HALF, &[TAG]),
            _ if request.target.starts_with("/1.mp4") => status(expired),
            _ => rest(request, &[TAG]),
        });
        let half = "bytes=53540- of \"one\"";
        assert_saves(
            &format!("expired with {expired}"),
            &server,
            CLIP,
            &["all", half, half],
        );
        assert_eq!(polls(&server), 2);
        let targets: Vec<String> = server
            .requests()
            .into_iter()
            .map(|request| request.target)
            .collect();
        assert_eq!(
            targets[3..],
            [targets[0].clone(), format!("/2.mp4?{SECRET}")]
        );
    }
}

fn polls(server: &Server) -> usize {
    server
        .requests()
        .iter()
        .filter(|request| is_poll(request))
        .count()
}

#[test]
fn an_address_that_expires_twice_is_an_error() {
    for (expired, requests) in [(401, 2), (403, 2), (404, 2), (410, 2)] {
        let server = site(None, move |_, _| status(expired));
        let reason = format!("the file server answered with status {expired}");
        assert_fails("expired", &server, &reason, requests);
        assert_eq!(polls(&server), 2);
    }
}

#[test]
fn a_video_that_is_whole_by_its_own_account_outweighs_a_wrong_number() {
    let server = site(Some(7), |_, _| whole());
    assert_saves("a wrong file_size", &server, CLIP, &["all"]);
}

#[test]
fn an_expired_address_without_a_fresh_one_is_an_error() {
    let cases: [(&str, Files, String); 4] = [
        (
            "no answer from the API",
            |_, _| refusal(404, "Not Found"),
            "its address has expired, and asking for another failed: status 404: Not Found".to_owned(),
        ),
        (
            "no video any more",
            |_, _| json(200, r#"{"id": "gen:1", "status": "expired"}"#),
            "its address has expired, and there is no other".to_owned(),
        ),
        (
            "an address of no use",
            |_, _| {
                json(200, r#"{"status": "completed", "video": {"url": "http://cdn.example/v.mp4?signature=3f9c0e"}}"#)
            },
            "the video's address is http to cdn.example: only https is safe, or http to this machine".to_owned(),
        ),
        (
            "an answer that is cut within the address",
            |_, _| json(200, r#"{"status": "completed", "video": {"url": "https://cdn.example/v.mp4?signature=3f9c0e"#),
            "its address has expired, and asking for another failed: generation gen:1: the answer can't be understood (it is not JSON): \
             {\"status\": \"completed\", \"video\": {\"url\": \"https://cdn.example/v.mp4?[hidden]"
                .to_owned(),
        ),
    ];
    for (case, second_poll, reason) in cases {
        let polls = AtomicUsize::new(0);
        let server = Server::start(move |request, _| match is_poll(request) {
            true if polls.fetch_add(1, Ordering::SeqCst) == 0 => finished(request, "/v.mp4", None),
            true => second_poll(request, 1),
            false => status(403),
        });
        assert_fails(case, &server, &reason, 1);
        assert_eq!(self::polls(&server), 2, "{case}");
    }
}

fn redirect(status: u16, location: &str) -> Vec<Act> {
    vec![Act::Send(http(status, &[("location", location)], "moved"))]
}

#[test]
fn redirects_are_followed_without_the_key() {
    let cases = [
        (301, "/x/file.mp4", "/x/file.mp4"),
        (302, "file.mp4", "/x/y/file.mp4"),
        (303, "?again=1", "/x/y/v.mp4?again=1"),
        (307, "./file.mp4#part", "/x/y/file.mp4"),
        (308, "../file.mp4?a=../b", "/x/file.mp4?a=../b"),
        (302, "../../../z/./file.mp4", "/z/file.mp4"),
        (302, "file.mp4#/../part", "/x/y/file.mp4"),
        (302, "//HOST/file.mp4", "/file.mp4"),
        (302, "http://HOST/file.mp4", "/file.mp4"),
        (302, "HTTP://HOST?a=b", "/?a=b"),
        (302, "/ä ö.mp4", "/%C3%A4%20%C3%B6.mp4"),
    ];
    for (status, location, target) in cases {
        let server = Server::start(move |request, _| match request.target.as_str() {
            poll if poll.starts_with("/v2/") => finished(request, "/x/y/v.mp4", None),
            first if first.starts_with("/x/y/v.mp4?sig") => redirect(
                status,
                &location.replace("HOST", request.header("host").unwrap()),
            ),
            _ => rest(request, &[TAG]),
        });
        assert_saves(location, &server, CLIP, &["all", "all"]);
        assert_eq!(server.requests()[2].target, target, "{location}");
    }
}

#[test]
fn a_redirect_to_another_host_keeps_the_range_and_not_the_key() {
    let cdn = site(None, |request, _| rest(request, &[TAG]));
    let location = cdn.url(&format!("/far.mp4?{SECRET}"));
    let server = site(None, move |_, n| {
        if n == 0 {
            cut(HALF, &[TAG])
        } else {
            redirect(302, &location)
        }
    });
    let half = "bytes=53540- of \"one\"";
    assert_saves("another host", &server, CLIP, &["all", half]);
    assert_eq!(asked(&cdn), [half]);

    // The API's own host is a file server here, and gets the key with polls alone.
    let api = site(None, |request, _| rest(request, &[TAG]));
    let back = api.url("/v2.mp4");
    let cdn = Server::start(move |_, _| redirect(302, &back));
    let mut video = video(&api);
    video.url = cdn.url("/v.mp4");
    let mut bytes = Vec::new();
    client(&api)
        .download_video_to(&video, &mut bytes, |_, _| {})
        .unwrap();
    assert!(bytes == CLIP);
    assert_eq!((asked(&cdn).len(), asked(&api).len()), (1, 1));
}

#[test]
fn redirects_that_lead_nowhere_safe_are_refused() {
    let cases: [(&str, Files, &str, usize); 7] = [
        (
            "http elsewhere",
            |_, _| redirect(302, "http://cdn.example/v.mp4?signature=3f9c0e"),
            "the redirect's target is http to cdn.example: only https is safe, or http to this machine",
            1,
        ),
        (
            "http elsewhere, by the same scheme",
            |_, _| redirect(302, "//127.0.0.1.example/v.mp4?signature=3f9c0e"),
            "the redirect's target is http to 127.0.0.1.example: only https is safe, or http to this machine",
            1,
        ),
        (
            "another scheme",
            |_, _| redirect(302, "ftp://127.0.0.1/v.mp4?signature=3f9c0e"),
            "the redirect's target is neither https nor http",
            1,
        ),
        (
            "a scheme without a host",
            |_, _| redirect(302, "file:/etc/passwd?signature=3f9c0e"),
            "the redirect's target does not begin with https://",
            1,
        ),
        (
            "a name and a password",
            |_, _| redirect(302, "https://user:signature=3f9c0e@cdn.example/"),
            "the redirect's target has a user name in it",
            1,
        ),
        (
            "in a loop",
            |request, _| redirect(302, &request.target),
            "more than 10 redirects",
            11,
        ),
        (
            "without a target",
            |_, _| vec![Act::Send(http(302, &[], ""))],
            "the redirect's target is not given",
            1,
        ),
    ];
    for (case, files, reason, requests) in cases {
        assert_fails(case, &site(None, files), reason, requests);
    }
}

#[test]
fn an_address_that_is_not_safe_is_never_asked() {
    let cases = [
        (
            "http://cdn.example/v.mp4",
            "is http to cdn.example: only https is safe, or http to this machine",
        ),
        ("ftp://127.0.0.1/v.mp4", "is neither https nor http"),
        ("v.mp4", "does not begin with https://"),
        ("https://", "has no proper host name"),
        ("https://cdn.example:x/", "has no proper port"),
    ];
    for (url, fault) in cases {
        let server = Server::start(move |_, _| {
            let url = format!("{url}?{SECRET}");
            json(
                200,
                &json!({"id": "gen:1", "status": "completed", "video": {"url": url}}).to_string(),
            )
        });
        assert_fails(url, &server, &format!("the video's address {fault}"), 0);
    }
}

#[test]
fn progress_grows_from_attempt_to_attempt_and_knows_the_whole() {
    let cases: [(&str, Option<u64>, Files, bool); 3] = [
        (
            "by the file server",
            None,
            |r, n| {
                if n == 0 {
                    cut(HALF, &[TAG])
                } else {
                    rest(r, &[TAG])
                }
            },
            true,
        ),
        ("by the API", Some(SIZE as u64), |_, _| unframed(SIZE), true),
        ("by nobody", None, |_, _| unframed(SIZE), false),
    ];
    for (case, announced, files, is_known) in cases {
        let server = site(announced, files);
        let folder = Folder::new();
        let mut told = Vec::new();
        let progress = |done, total| told.push((done, total));
        client(&server)
            .download_video(&video(&server), folder.path("v.mp4"), progress)
            .unwrap();
        let total = is_known.then_some(SIZE as u64);
        assert!(
            told.is_sorted_by(|(a, _), (b, _)| a < b),
            "{case}: {told:?}"
        );
        assert!(
            told.iter().all(|(_, told)| *told == total),
            "{case}: {told:?}"
        );
        assert_eq!(told.last(), Some(&(SIZE as u64, total)), "{case}");
    }
}

#[test]
fn a_caller_can_stop_and_come_back() {
    let server = site(None, |_, _| whole());
    let folder = Folder::new();
    let path = folder.path("v.mp4");
    let error = client(&server)
        .download_video(&video(&server), &path, |_, _| ControlFlow::Break(()))
        .unwrap_err();
    assert!(
        matches!(&error, Error::Stopped { generation_id, .. } if generation_id == "gen:1"),
        "{error}"
    );
    assert_eq!(asked(&server), ["all"]);
    assert!(folder.names().is_empty(), "{:?}", folder.names());
    save(&server, &path).unwrap();
    assert!(fs::read(&path).unwrap() == CLIP);
}

#[test]
fn a_place_that_cannot_be_written_is_noticed_before_a_byte_is_fetched() {
    let server = site(None, |_, _| whole());
    let folder = Folder::new();
    fs::write(folder.path("file"), "old").unwrap();
    fs::create_dir(folder.path("folder")).unwrap();
    let cases = [
        (folder.path("missing/v.mp4"), "can't be written: "),
        (folder.path("file/v.mp4"), "can't be written: "),
        (
            folder.path("folder"),
            "can't be written: is a directory: name a file. ",
        ),
        (
            folder.path("missing/"),
            "can't be written: is not the name of a file. ",
        ),
        (folder.path(".."), "can't be written: is "),
        ("".into(), "can't be written: is not the name of a file. "),
    ];
    for (path, reason) in cases {
        let error = save(&server, &path).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{}: {reason}", path.display())) && error.ends_with(PAID),
            "{error}"
        );
    }
    assert!(asked(&server).is_empty());
    assert_eq!(folder.names(), ["file", "folder"]);
    assert_eq!(fs::read_to_string(folder.path("file")).unwrap(), "old");
}

#[test]
fn what_a_killed_download_left_does_no_harm() {
    let server = site(None, |_, _| whole());
    let folder = Folder::new();
    fs::write(folder.path("v.mp4.part"), vec![b'x'; 2 * SIZE]).unwrap();
    save(&server, &folder.path("v.mp4")).unwrap();
    assert!(fs::read(folder.path("v.mp4")).unwrap() == CLIP);
    assert_eq!(folder.names(), ["v.mp4"]);
}

#[test]
fn two_downloads_to_one_path_both_end_in_a_whole_file() {
    let server = site(None, |request, n| {
        if n < 4 {
            cut(HALF, &[TAG])
        } else {
            rest(request, &[TAG])
        }
    });
    let folder = Folder::new();
    let path = folder.path("v.mp4");
    let (client, video, start) = (client(&server), video(&server), Barrier::new(4));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..5 {
                    client.download_video(&video, &path, |_, _| {}).unwrap();
                    assert!(fs::read(&path).unwrap() == CLIP);
                }
            });
        }
    });
    assert_eq!(folder.names(), ["v.mp4"]);
}

#[test]
fn a_download_into_a_writer_resumes_too() {
    let server = site(None, |request, n| {
        if n == 0 {
            cut(HALF, &[TAG])
        } else {
            rest(request, &[TAG])
        }
    });
    let mut bytes = Vec::new();
    client(&server)
        .download_video_to(&video(&server), &mut bytes, |_, _| {})
        .unwrap();
    assert!(bytes == CLIP);
    assert_eq!(asked(&server), ["all", "bytes=53540- of \"one\""]);
}

/// Takes `space` bytes, some at a time, and fails at the end or with the flush.
struct Narrow {
    space: usize,
    flushes: bool,
}

impl Write for Narrow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(999).min(self.space);
        self.space -= count;
        if count == 0 {
            Err(io::Error::other("no space here"))
        } else {
            Ok(count)
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.flushes {
            Ok(())
        } else {
            Err(io::Error::other("no flush here"))
        }
    }
}

#[test]
fn a_writer_that_fails_ends_the_download() {
    let cases = [
        (0, true, Err("can't be written: no space here")),
        (SIZE - 1, true, Err("can't be written: no space here")),
        (SIZE, false, Err("can't be written: no flush here")),
        (SIZE, true, Ok(())),
    ];
    for (space, flushes, end) in cases {
        let server = site(None, |_, _| whole());
        let ended = client(&server).download_video_to(
            &video(&server),
            Narrow { space, flushes },
            |_, _| {},
        );
        let ended = ended.map_err(|error| error.to_string());
        assert_eq!(
            ended,
            end.map_err(|reason| format!("the download: {reason}. {PAID}"))
        );
        assert_eq!(asked(&server), ["all"]);
    }
}

/// What is written is written. Starting over before that is no trouble.
#[test]
fn a_writer_cannot_start_over() {
    let cases: [(&str, Files, Result<(), &str>, usize); 4] = [
        (
            "ranges ignored",
            |_, n| if n == 0 { cut(HALF, &[TAG]) } else { whole() },
            Err(OVER),
            2,
        ),
        (
            "another part",
            |_, n| {
                if n == 0 {
                    cut(7, &[TAG])
                } else {
                    part("bytes 8-9/10", &[], b"89")
                }
            },
            Err(OVER),
            2,
        ),
        (
            "ranges refused",
            |_, n| {
                if n == 0 {
                    cut(7, &[TAG])
                } else {
                    vec![Act::Send(http(416, &[], ""))]
                }
            },
            Err("5 attempts in a row failed, the last: only 7 of 107081 bytes came"),
            6,
        ),
        (
            "nothing written so far",
            |_, n| if n == 0 { cut(0, &[TAG]) } else { whole() },
            Ok(()),
            2,
        ),
    ];
    const OVER: &str =
        "can't be written: the server started over, and a writer can't: download to a file";
    for (case, files, end, requests) in cases {
        let server = site(None, files);
        let mut bytes = Vec::new();
        let ended = client(&server).download_video_to(&video(&server), &mut bytes, |_, _| {});
        let ended = ended.map_err(|error| error.to_string());
        assert_eq!(
            ended,
            end.map_err(|reason| format!("the download: {reason}. {PAID}")),
            "{case}"
        );
        assert!(
            CLIP.starts_with(&bytes),
            "{case}: what was written is not the file's beginning"
        );
        assert_eq!(asked(&server).len(), requests, "{case}");
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::process::Command;

    use super::*;
    use crate::support::{child, child_task, stderr, stdout};

    #[test]
    fn a_full_device_ends_the_download() {
        let server = site(None, |_, _| whole());
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let error = client(&server)
            .download_video_to(&video(&server), full, |_, _| {})
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            format!(
                "the download: can't be written: No space left on device (os error 28). {PAID}"
            )
        );
        assert_eq!(asked(&server), ["all"]);
    }

    /// A full disk, as far as a test without special rights can have one: a small file system
    /// of its own where the system lets it, else a limit to the size of files.
    #[test]
    fn a_full_disk_is_an_error_and_leaves_nothing() {
        if let Some(task) = child_task() {
            let (base_url, folder) = task.split_once(' ').unwrap();
            let client = Client::builder(KEY).base_url(base_url).build().unwrap();
            let video = client.get_video("gen:1").unwrap().video.unwrap();
            let path = Path::new(folder).join("v.mp4");
            fs::write(&path, "old").unwrap();
            let error = client.download_video(&video, &path, |_, _| {}).unwrap_err();
            assert_eq!(fs::read_to_string(&path).unwrap(), "old");
            assert_eq!(fs::read_dir(folder).unwrap().count(), 1);
            println!("ends with {error}");
            return;
        }
        let server = site(None, |_, _| whole());
        let folder = Folder::new();
        let mount = "mount -t tmpfs -o size=64k none \"$0\"";
        let namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c"];
        let probe = Command::new(namespace[0])
            .args(&namespace[1..])
            .arg(mount)
            .arg(folder.as_ref())
            .output();
        let (shell, limit, reason) = if probe.is_ok_and(|output| output.status.success()) {
            (
                &namespace[..],
                mount,
                "No space left on device (os error 28)",
            )
        } else {
            (
                &namespace[3..],
                "trap '' XFSZ; ulimit -f 64",
                "File too large (os error 27)",
            )
        };
        let task = format!("{} {}", server.url("/v2"), folder.as_ref().display());
        let test = child(
            "download::linux::a_full_disk_is_an_error_and_leaves_nothing",
            &task,
        );
        let mut limited = Command::new(shell[0]);
        limited
            .args(&shell[1..])
            .arg(format!("{limit}; exec \"$@\""))
            .arg(folder.as_ref());
        limited.arg(test.get_program()).args(test.get_args());
        limited.envs(
            test.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let output = limited.output().unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            stdout(&output),
            stderr(&output)
        );
        let error = format!(
            "ends with {}: can't be written: {reason}. {PAID}",
            folder.path("v.mp4").display()
        );
        assert!(stdout(&output).contains(&error), "{}", stdout(&output));
        assert_eq!(asked(&server), ["all"]);
    }

    /// Each size in a process of its own, which says what its memory peaked at.
    #[test]
    fn memory_does_not_grow_with_the_file() {
        const MIB: usize = 1024 * 1024;
        if let Some(task) = child_task() {
            let (base_url, path) = task.split_once(' ').unwrap();
            let client = Client::builder(KEY).base_url(base_url).build().unwrap();
            let video = client.get_video("gen:1").unwrap().video.unwrap();
            if path.is_empty() {
                client
                    .download_video_to(&video, io::sink(), |_, _| {})
                    .unwrap();
            } else {
                client.download_video(&video, path, |_, _| {}).unwrap();
            }
            let status = fs::read_to_string("/proc/self/status").unwrap();
            println!(
                "{}",
                status
                    .lines()
                    .find(|line| line.starts_with("VmHWM:"))
                    .unwrap()
            );
            return;
        }
        let folder = Folder::new();
        let path = folder.path("v.mp4");
        let peak = |mib: usize, path: &str| {
            let size = mib * MIB;
            let server = site(Some(size as u64), move |_, _| {
                let head = http(200, &[TAG, ("content-length", &size.to_string())], "");
                vec![Act::Send(head), Act::Repeat(vec![0; MIB], mib)]
            });
            let task = format!("{} {path}", server.url("/v2"));
            let output = child("download::linux::memory_does_not_grow_with_the_file", &task)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}{}",
                stdout(&output),
                stderr(&output)
            );
            let stdout = stdout(&output);
            let (_, peak) = stdout.split_once("VmHWM:").unwrap();
            peak.split_whitespace()
                .next()
                .unwrap()
                .parse::<usize>()
                .unwrap()
        };
        let small = peak(1, "");
        let large = peak(1024, "");
        assert!(large < small + 2048, "1 MiB: {small} kB, 1 GiB: {large} kB");
        let small = peak(1, path.to_str().unwrap());
        let large = peak(64, path.to_str().unwrap());
        assert!(
            large < small + 2048,
            "1 MiB to a file: {small} kB, 64 MiB: {large} kB"
        );
    }
}
