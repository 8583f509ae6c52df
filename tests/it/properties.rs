//! Whatever comes in: an answer or a typed error, no panic, no hang, no memory out of proportion. Thousands of cases
//! each time; `PROPTEST_CASES=1000000 cargo test --release` runs a million.

use std::{
    env, fs,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use aimlapi_video::{
    Client, Error, Generation, Image, Receipt, State, VideoFile, VideoRequest,
    simulator::{CLIP, Simulator},
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    sample::select,
    test_runner::{Config, TestRunner},
};
use serde_json::{Map, Value, json};

use crate::support::{
    Act, Folder, KEY, Outcome, Server, child, child_task, http, quick, stderr, stdout,
};

/// As many cases, or as PROPTEST_CASES says: for what neither files nor sockets have a part in.
fn cases(cases: u32) -> Config {
    Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    }
}

/// Runs `test` on as many values, and on more in the proportion of PROPTEST_CASES to 2000, but not more than `most`.
fn check<S: Strategy>(
    cases: u32,
    most: u32,
    values: S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let asked = env::var("PROPTEST_CASES")
        .ok()
        .and_then(|asked| asked.parse().ok())
        .unwrap_or(2000);
    let cases = (u64::from(cases) * asked / 2000).clamp(1, most.into()) as u32;
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&values, test)
        .unwrap_or_else(|error| panic!("{error}"));
}

/// Bytes of a seed with some of them replaced, removed, repeated or added.
fn mutated(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (
        select(seeds),
        vec((0..6_u8, any::<Index>(), any::<Index>(), any::<u8>()), 0..6),
    )
        .prop_map(|(mut bytes, edits)| {
            for (kind, from, to, byte) in edits {
                if bytes.is_empty() {
                    break;
                }
                let (a, b) = (from.index(bytes.len()), to.index(bytes.len()));
                let (a, b) = (a.min(b), a.max(b));
                match kind {
                    0 => bytes[a] = byte,
                    1 => bytes.insert(a, b"0123456789\"{}[],:-.eE\\"[usize::from(byte) % 22]),
                    2 => drop(bytes.remove(a)),
                    3 => drop(bytes.drain(a..b)),
                    4 => bytes.truncate(b),
                    _ => {
                        let again = bytes[a..b].to_vec();
                        bytes.splice(a..a, again);
                    }
                }
            }
            bytes
        })
}

const ANSWERS: [&str; 6] = [
    r#"{"id": "gen:1", "status": "queued"}"#,
    r#"{"id": "gen:1", "status": "completed", "video": {"url": "https://v.example/1", "content_type": "video/mp4",
       "file_name": "output.mp4", "file_size": 3716781, "duration": 8.5}, "duration": 8}"#,
    r#"{"generation_id": "gen:1", "meta": {"usage": {"tokens_used": 6720000}}, "status": "GENERATING"}"#,
    r#"{"id": "gen:1", "status": "error", "video": null, "error": {"name": "Safety", "message": "No \ud83e\udd8a."}}"#,
    r#"{"id": "gen:1", "meta": {"usage": {"credits_used": 1.2e5, "usd_spent": 0.06}}, "error": "it broke"}"#,
    r#"{"message": "Bad", "path": "/", "requestId": "r", "statusCode": 400, "timestamp": "2026-08-01T12:00:00.000Z"}"#,
];

fn seeds(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn any_json() -> impl Strategy<Value = Value> {
    let name = || {
        select(
            "id generation_id status video error meta usage url file_size credits_used x"
                .split(' ')
                .collect::<Vec<_>>(),
        )
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        quarters().prop_map(Value::from),
        select(vec![
            "queued",
            "Completed",
            "failed",
            "",
            "gen:1",
            "https://v.example/1"
        ])
        .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((name(), inner), 0..6).prop_map(|pairs| Value::from_iter(
                pairs
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
            )),
        ]
    })
}

/// Numbers that read back as they were written: serde_json takes some others for their neighbours.
fn quarters() -> impl Strategy<Value = f64> {
    (-4_000_000..4_000_000_i32).prop_map(|number| f64::from(number) / 4.0)
}

fn any_answer() -> impl Strategy<Value = String> {
    let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    prop_oneof![
        3 => mutated(seeds(&ANSWERS)).prop_map(lossy),
        3 => any_json().prop_map(|json| json.to_string()),
        1 => vec(any::<u8>(), 0..200).prop_map(lossy),
    ]
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn any_text_is_a_generation_or_a_typed_error(text in any_answer()) {
        match text.parse::<Generation>() {
            Ok(generation) => {
                prop_assert!(!generation.id.is_empty());
                prop_assert!(generation.is_finished() || (generation.video.is_none() && generation.error.is_none()));
                prop_assert!(generation.video.iter().all(|video| !video.url.is_empty()));
                prop_assert_eq!(&generation.raw, &serde_json::from_str::<Value>(&text).unwrap());
                let again: Generation = generation.raw.to_string().parse().unwrap();
                prop_assert_eq!((again.id, again.status, again.error), (generation.id, generation.status, generation.error));
            }
            Err(Error::UnexpectedAnswer { generation_id, body, .. }) => {
                prop_assert_eq!((generation_id, body), (None, text));
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn an_error_quotes_little_of_what_came_and_on_one_line(text in any_answer(), padding in 0..2000_usize) {
        let text = format!("{text}\x1b[2J\r\n{}", "\u{7}\u{9b}é".repeat(padding));
        let told = text.parse::<Generation>().unwrap_err().to_string();
        prop_assert!(told.chars().count() < 400, "{}", told);
        prop_assert!(!told.contains(char::is_control), "{:?}", told);
    }

    #[test]
    fn any_bytes_are_a_receipt_or_an_error(bytes in mutated(vec![RECEIPT.clone()])) {
        if let Ok(receipt) = serde_json::from_slice::<Receipt>(&bytes) {
            let again = serde_json::to_vec(&receipt).unwrap();
            let again: Receipt = serde_json::from_slice(&again).unwrap();
            prop_assert_eq!((again.state, again.generation_id), (receipt.state, receipt.generation_id));
        }
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn a_receipt_reads_back_as_it_was_written(receipt in any_receipt()) {
        let text = serde_json::to_string_pretty(&receipt).unwrap();
        prop_assert_eq!(serde_json::from_str::<Receipt>(&text).unwrap(), receipt);
    }
}

fn any_receipt() -> impl Strategy<Value = Receipt> {
    let text = || proptest::option::of(any::<String>());
    let number = || proptest::option::of(quarters());
    let state = select(vec!["sending", "waiting", "done", "failed"]);
    let file = proptest::option::of((any::<u64>(), any::<String>()));
    let replaced = vec((any::<String>(), text()), 0..3);
    (
        state,
        text(),
        any_json(),
        number(),
        number(),
        text(),
        file,
        replaced,
    )
        .prop_map(
            |(state, id, request, credits, usd, failure, file, replaced)| {
                let replaced: Vec<_> = replaced
                    .iter()
                    .map(|(sent, id)| json!({"client_request_id": sent, "generation_id": id}))
                    .collect();
                let json = json!({
                    "version": 1,
                    "state": state,
                    "generation_id": id,
                    "client_request_id": "fox-1",
                    "request": request,
                    "usage": {"credits_used": credits, "usd_spent": usd},
                    "failure": failure,
                    "file": file.map(|(bytes, fnv1a)| json!({"bytes": bytes, "fnv1a": fnv1a})),
                    "replaced": replaced,
                });
                serde_json::from_value(json).unwrap()
            },
        )
}

fn request() -> VideoRequest {
    VideoRequest::new("A paper boat on a river")
}

/// The receipt of a finished file.
static RECEIPT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let (simulator, folder) = (Simulator::start().unwrap(), Folder::new());
    let file = VideoFile::new(folder.path("boat.mp4"), request());
    file.generate(&simulator.client(), &quick(), |_| {})
        .unwrap();
    fs::read(folder.path("boat.mp4.receipt.json")).unwrap()
});

#[test]
fn a_receipt_that_was_tampered_with_is_never_lost_and_never_believed_blindly() {
    let folder = Folder::new();
    let file = VideoFile::new(folder.path("boat.mp4"), request());
    fs::write(file.path(), CLIP).unwrap();
    let place = folder.path("boat.mp4.receipt.json");
    let finished: Receipt = serde_json::from_slice(&RECEIPT).unwrap();
    check(200, u32::MAX, mutated(vec![RECEIPT.clone()]), |bytes| {
        fs::write(&place, &bytes).unwrap();
        match (file.receipt(), file.is_current()) {
            (Ok(Some(receipt)), Ok(current)) => {
                let matches = (receipt.state, &receipt.request, &receipt.file)
                    == (State::Done, &finished.request, &finished.file);
                prop_assert_eq!(current, matches);
            }
            (Err(one @ Error::File { .. }), Err(other)) => {
                prop_assert_eq!(one.to_string(), other.to_string())
            }
            other => prop_assert!(false, "{:?}", other),
        }
        prop_assert_eq!(fs::read(&place).unwrap(), bytes);
        prop_assert_eq!(folder.names(), ["boat.mp4", "boat.mp4.receipt.json"]);
        Ok(())
    });
}

#[test]
fn any_bytes_are_an_image_as_their_beginning_says_or_an_error() {
    let folder = Folder::new();
    let path = folder.path("image");
    let magic = [
        &b"\x89PNG\r\n\x1a\n"[..],
        b"\xff\xd8\xff",
        b"RIFF\0\0\0\0WEBP",
        b"GIF89a",
        b"",
    ];
    let images = (
        mutated(magic.iter().map(|magic| magic.to_vec()).collect()),
        vec(any::<u8>(), 0..200),
    );
    check(200, u32::MAX, images, |(mut bytes, rest)| {
        bytes.extend(rest);
        fs::write(&path, &bytes).unwrap();
        let kind = match &bytes[..] {
            b if b.starts_with(magic[0]) => Some("png"),
            b if b.starts_with(magic[1]) => Some("jpeg"),
            b if b.starts_with(b"RIFF") && b.get(8..12) == Some(b"WEBP") => Some("webp"),
            _ => None,
        };
        match (Image::from_file(&path), kind) {
            (Ok(image), Some(kind)) => {
                let json = VideoRequest::from_image("It moves", image)
                    .to_json()
                    .unwrap();
                let url = json["image_url"].as_str().unwrap();
                let encoded = url
                    .strip_prefix(&format!("data:image/{kind};base64,"))
                    .unwrap();
                prop_assert_eq!(decode(encoded), bytes);
            }
            (Err(Error::Invalid(text)), None) => {
                prop_assert!(text.starts_with("image "), "{}", text)
            }
            other => prop_assert!(false, "{:?}", other),
        }
        Ok(())
    });
}

/// Base64 (RFC 4648, 4), as slowly as can be.
fn decode(text: &str) -> Vec<u8> {
    let alphabet: Vec<u8> = (b'A'..=b'Z')
        .chain(b'a'..=b'z')
        .chain(b'0'..=b'9')
        .chain(*b"+/")
        .collect();
    assert_eq!(text.len() % 4, 0);
    let digits = text.trim_end_matches('=').bytes();
    let bits: Vec<u8> = digits
        .map(|byte| alphabet.iter().position(|digit| *digit == byte).unwrap())
        .flat_map(|digit| (0..6).rev().map(move |place| (digit >> place & 1) as u8))
        .collect();
    bits.chunks_exact(8)
        .map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | bit))
        .collect()
}

/// A server that gives the answers it was last told to, and counts.
struct Told {
    server: Server,
    answers: Arc<Mutex<Vec<Vec<u8>>>>,
    asked: Arc<AtomicUsize>,
}

impl Told {
    fn start() -> Self {
        let (answers, asked) = (
            Arc::<Mutex<Vec<Vec<u8>>>>::default(),
            Arc::<AtomicUsize>::default(),
        );
        let (told, count) = (Arc::clone(&answers), Arc::clone(&asked));
        let server = Server::start(move |_, _| {
            let answers = told.lock().unwrap();
            let number = count.fetch_add(1, Ordering::SeqCst);
            vec![
                Act::Send(answers[number.min(answers.len() - 1)].clone()),
                Act::Close,
            ]
        });
        Told {
            server,
            answers,
            asked,
        }
    }

    fn tell(&self, answers: Vec<Vec<u8>>) {
        *self.answers.lock().unwrap() = answers;
        self.asked.store(0, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A client with connections of its own: those before it were closed without notice.
    fn client(&self) -> Client {
        self.server.client()
    }
}

fn assert_safe(error: &Error, begun: Instant) {
    let text = error.to_string();
    assert!(
        !text.contains(KEY) && !text.contains("sig-secret"),
        "{text}"
    );
    assert!(begun.elapsed() < Duration::from_secs(10), "{text}");
}

#[test]
fn any_bytes_over_the_wire_are_an_answer_or_a_typed_error() {
    let told = Told::start();
    let responses = ANSWERS.iter().flat_map(|body| {
        let length = body.len();
        [
            http(
                200,
                &[
                    ("content-type", "application/json"),
                    ("x-inference-id", "gen:1"),
                ],
                body,
            ),
            http(
                429,
                &[("retry-after", "7"), ("x-aimlapi-usd-spent", "0.06")],
                body,
            ),
            http(
                200,
                &[("transfer-encoding", "chunked")],
                format!("{length:x}\r\n{body}\r\n0\r\n\r\n"),
            ),
        ]
    });
    let bytes = prop_oneof![8 => mutated(responses.collect()), 1 => vec(any::<u8>(), 0..100)];
    check(150, 5000, bytes, |bytes| {
        let begun = Instant::now();
        told.tell(vec![bytes]);
        match told.client().generate_video(&VideoRequest::new("A fox")) {
            Ok(generation) => prop_assert!(!generation.id.is_empty()),
            Err(error) => {
                prop_assert!(
                    matches!(error, Error::Refused(_) | Error::OutcomeUnknown(_)),
                    "{}",
                    error
                );
                assert_safe(&error, begun);
            }
        }
        prop_assert_eq!(told.asked(), 1);
        match told.client().get_video("gen:1") {
            Ok(generation) => prop_assert!(!generation.id.is_empty()),
            Err(error) => {
                prop_assert!(!error.may_have_charged());
                prop_assert_eq!(error.generation_id(), Some("gen:1"));
                assert_safe(&error, begun);
            }
        }
        prop_assert_eq!(told.asked(), 2);
        Ok(())
    });
}

/// Values that headers have, or could have.
fn any_value(likely: &[&str]) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => mutated(seeds(likely)).prop_map(|bytes| String::from_utf8_lossy(&bytes).replace(char::is_control, " ")),
        1 => select(vec!["", "0", "-1", "+1", "NaN", "inf", "1e999", "18446744073709551615", "99999999999999999999"])
            .prop_map(str::to_owned),
        1 => "[ -~]{0,20}",
    ]
}

#[test]
fn any_header_of_an_answer_is_read_or_left_out() {
    let told = Told::start();
    let date = any_value(&[
        "7",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ]);
    let number = || any_value(&["120000", "0.06", "1e5"]);
    let id = any_value(&["gen:1", "fox-1"]);
    check(
        150,
        5000,
        (date, number(), number(), id),
        |(date, credits, usd, id)| {
            let headers = [
                ("retry-after", date.as_str()),
                ("x-aimlapi-credits-used", &credits),
                ("x-aimlapi-usd-spent", &usd),
                ("x-client-request-id", &id),
                ("x-inference-id", &id),
            ];
            let begun = Instant::now();
            told.tell(vec![
                http(503, &headers, "busy"),
                http(200, &headers, ANSWERS[0]),
            ]);
            let error = told.client().get_video("gen:1").unwrap_err();
            assert_safe(&error, begun);
            prop_assert!(matches!(error, Error::Refused(_)), "{}", error);
            let generation = told.client().get_video("gen:1").unwrap();
            let numbers = generation
                .usage
                .map(|usage| [usage.credits_used, usage.usd_spent]);
            prop_assert!(
                numbers
                    .iter()
                    .flatten()
                    .flatten()
                    .all(|number| number.is_finite()),
                "{:?}",
                numbers
            );
            Ok(())
        },
    );
}

#[test]
fn whatever_a_file_server_says_there_is_a_whole_file_or_none() {
    let (told, folder) = (Told::start(), Folder::new());
    let client = told.client();
    let response = (
        select(vec![
            200, 200, 206, 206, 204, 301, 302, 303, 307, 401, 404, 416, 500, 503,
        ]),
        any_value(&[
            "bytes 0-3/16",
            "bytes 4-15/16",
            "bytes */16",
            "bytes 0-18446744073709551615/*",
        ]),
        any_value(&[
            "/film.mp4?sig-secret",
            "//evil.example/",
            "http://evil.example/",
            "?sig-secret",
            "ftp://x",
            "https://",
        ]),
        any_value(&["\"v1\"", "W/\"v1\"", "\u{e9}"]),
        proptest::option::of(any_value(&["4", "16", "12"])),
        select(vec![
            &b""[..],
            b"\0\0\0\x10ftypisom\0\0\0\0",
            b"\0\0\0\x10ftyp",
            b"isom\0\0\0\0",
            b"{}",
            b"film",
        ]),
    )
        .prop_map(|(status, range, location, tag, length, body)| {
            let mut headers = vec![
                ("content-range", range.as_str()),
                ("location", &location),
                ("etag", &tag),
            ];
            headers.push(match &length {
                Some(length) => ("content-length", length),
                None => ("connection", "close"),
            });
            http(status, &headers, body)
        });
    let size = proptest::option::of(select(vec![0, 4, 16, u64::MAX]));
    check(
        60,
        5000,
        (vec(response, 1..4), size),
        |(responses, size)| {
            let begun = Instant::now();
            told.tell(responses);
            let url = told.server.url("/film.mp4?sig-secret");
            let answer = json!({"id": "gen:1", "status": "completed", "video": {"url": url, "file_size": size}});
            let video = answer
                .to_string()
                .parse::<Generation>()
                .unwrap()
                .video
                .unwrap();
            let path = folder.path("film.mp4");
            match client.download_video(&video, &path, |_, _| {}) {
                Ok(()) => {
                    let length = fs::metadata(&path).unwrap().len();
                    // A size of zero is one that is not known.
                    prop_assert!(
                        length > 0 && size.is_none_or(|size| size == 0 || size == length),
                        "{}",
                        length
                    );
                    fs::remove_file(&path).unwrap();
                }
                Err(error) => {
                    prop_assert!(matches!(error, Error::File { .. }), "{}", error);
                    assert_safe(&error, begun);
                }
            }
            prop_assert_eq!(folder.names(), [""; 0]);
            prop_assert!(told.asked() <= 200, "{} requests", told.asked());
            Ok(())
        },
    );
}

#[test]
fn a_request_with_any_number_in_it_is_paid_once() {
    let server = Server::start(|request, _| match request.is_post() {
        true => vec![Act::Send(http(201, &[], ANSWERS[0]))],
        false => vec![Act::Send(http(200, &[], ANSWERS[3]))],
    });
    check(20, 200, any::<f64>(), |number| {
        let folder = Folder::new();
        let request = VideoRequest::for_model("someone/new-model").param("seed", number);
        let file = VideoFile::new(folder.path("fox.mp4"), request);
        let sent = file.generate(&server.client(), &quick(), |_| {
            std::ops::ControlFlow::Break(())
        });
        let stopped = matches!(sent, Err(Error::Stopped { .. }));
        prop_assert!(stopped);
        let paid = server.posts();
        let ended = file.generate(&server.client(), &quick(), |_| {});
        let failed = matches!(ended, Err(Error::Failed(_)));
        prop_assert!(failed, "{:?}", ended);
        prop_assert_eq!(server.posts(), paid, "{:?} was paid for again", number);
        Ok(())
    });
}

/// The most memory that this process ever had, in bytes.
#[cfg(target_os = "linux")]
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .unwrap()
        * 1024
}

/// The worst that an answer can hold are small objects: for each 7 bytes of text, serde_json's map takes one node of
/// 11 places. Answers are read to 1 MiB at most.
#[cfg(target_os = "linux")]
#[test]
fn memory_grows_with_what_comes_in_and_by_no_more_than_a_small_factor() {
    const MIB: usize = 1024 * 1024;
    let inputs = ["numbers", "arrays", "objects", "text", "receipt", "image"];
    if let Some(task) = child_task() {
        let folder = Folder::new();
        let many = |text: &str| {
            format!(
                "{{\"x\":[{}0],\"id\":\"g\"}}",
                text.repeat((MIB - 64) / text.len())
            )
        };
        let input = match task.as_str() {
            "numbers" => many("0,"),
            "arrays" => many("[],"),
            "objects" => many("{\"\":0},"),
            "text" => many("\"\\n\","),
            "receipt" => {
                let mut receipt: Map<String, Value> = serde_json::from_slice(&RECEIPT).unwrap();
                receipt.insert("request".to_owned(), Value::from(0));
                serde_json::to_string(&receipt)
                    .unwrap()
                    .replace("\"request\":0", &format!("\"request\":{}", many("0,")))
            }
            _ => "x".repeat(16 * MIB),
        };
        let path = folder.path("boat.mp4.receipt.json");
        fs::write(&path, &input).unwrap();
        if task == "image" {
            fs::write(&path, [b"\xff\xd8\xff", input.as_bytes()].concat()).unwrap();
        }
        let told = Told::start();
        told.tell(vec![http(200, &[], &input)]);
        let client = told.client();
        let before = peak();
        match task.as_str() {
            "receipt" => drop(
                VideoFile::new(folder.path("boat.mp4"), request())
                    .receipt()
                    .unwrap(),
            ),
            "image" => drop(Image::from_file(&path).unwrap()),
            // An answer in JSON, which names no status.
            _ => {
                let error = client.get_video("gen:1").unwrap_err();
                assert!(
                    error.to_string().contains("neither status nor video"),
                    "{error}"
                );
            }
        }
        println!("<{} {}>", input.len(), peak() - before);
        return;
    }
    for input in inputs {
        let test = "properties::memory_grows_with_what_comes_in_and_by_no_more_than_a_small_factor";
        let output = child(test, input).output().unwrap();
        let text = stdout(&output);
        assert!(output.status.success(), "{text}{}", stderr(&output));
        let told = &text[text.find('<').unwrap() + 1..text.rfind('>').unwrap()];
        let numbers: Vec<usize> = told
            .split(' ')
            .map(|number| number.parse().unwrap())
            .collect();
        let [size, peak] = numbers[..] else {
            panic!("{told}")
        };
        let factor = if input == "image" { 5 } else { 128 };
        println!("{input}: {:.1} times its size", peak as f64 / size as f64);
        assert!(
            peak < factor * size,
            "{input}: {peak} bytes of memory for {size} bytes"
        );
    }
}
