//! Whatever a server sends, or a repository has as a receipt: a response or a typed error, no panic,
//! nothing well-formed lost, and texts of one line. Each run takes other inputs; a failure prints
//! the seed that repeats it.

use std::{fs, time::Duration};

use aimlapi_video::{Error, Generation, Retry};
use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;
use serde_json::{Map, Value, json};

use crate::service::{Say, Service};
use crate::support::{Act, KEY, fox, http};
use crate::video_file::World;

const FIELDS: &str = "id|generation_id|status|video|error|meta|usage|url|file_size|credits_used|message|requestId|name|statusCode|x";

/// Characters that a terminal obeys, or that can't be seen.
const HIDDEN: &str = "\n\r\t\0\u{1b}\u{85}\u{9b}\u{ad}\u{200b}\u{200e}\u{202e}\u{2028}\u{2029}\u{2066}\u{feff}\u{e0041}";

/// One of some words that are separated by `|`.
fn word<'a>(u: &mut Unstructured<'_>, words: &'a str) -> Result<&'a str> {
    let words: Vec<&str> = words.split('|').collect();
    u.choose(&words).copied()
}

fn any_text(u: &mut Unstructured<'_>) -> Result<String> {
    let words = "gen:1|cargo::warning=x|https://v.example/?sig=secret|äß| |";
    let hidden: Vec<char> = HIDDEN.chars().collect();
    let mut text = u.arbitrary::<String>()?;
    for _ in 0..u.int_in_range(1..=4)? {
        text += word(u, words)?;
        text.push(*u.choose(&hidden)?);
    }
    Ok(text)
}

/// Whether this text can be shown anywhere, in one line.
fn assert_plain(text: &str) {
    let is_hidden = |c: char| c.is_control() || HIDDEN.contains(c);
    assert!(!text.contains(is_hidden), "{text:?}");
    assert!(!text.contains("sig=secret"), "{text}");
}

fn any_json(u: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    Ok(match u.int_in_range(0..=if depth == 0 { 6 } else { 8 })? {
        0 => Value::Null,
        1 => u.arbitrary::<bool>()?.into(),
        2 => u.arbitrary::<i64>()?.into(),
        3 => u.arbitrary::<u64>()?.into(),
        4 => u.arbitrary::<f64>()?.into(),
        5 if u.arbitrary()? => KEY.into(),
        5 => word(u, "queued|Completed|failed|gen:1|https://v.example/1")?.into(),
        6 => any_text(u)?.into(),
        7 => {
            let items = (0..u.int_in_range(0..=4)?).map(|_| any_json(u, depth - 1));
            Value::Array(items.collect::<Result<_>>()?)
        }
        _ => Value::Object(any_fields(u, depth - 1)?),
    })
}

fn any_fields(u: &mut Unstructured<'_>, depth: usize) -> Result<Map<String, Value>> {
    let mut fields = Map::new();
    for _ in 0..u.int_in_range(0..=6)? {
        let name = word(u, FIELDS)?.to_owned();
        fields.insert(name, any_json(u, depth)?);
    }
    Ok(fields)
}

/// Bytes of a response with some of them replaced, inserted, removed or repeated.
fn mutated(u: &mut Unstructured<'_>, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    for _ in 0..u.int_in_range(0..=5)? {
        let start = u.choose_index(bytes.len() + 1)?;
        let end = start + u.choose_index((bytes.len() - start).min(40) + 1)?;
        let new = match u.int_in_range(0..=2)? {
            0 => u.arbitrary::<Vec<u8>>()?,
            1 => bytes[start..end].repeat(2),
            _ => vec![*u.choose(b"0123456789\"{}[],:-.eE\\\r\n")?],
        };
        bytes.splice(start..end, new);
    }
    Ok(bytes)
}

/// A POST and a GET that both get this response, on connections of their own.
fn call(service: &Service, response: Vec<u8>) -> [std::result::Result<Generation, Error>; 2] {
    let said = Say::Acts(vec![Act::Send(response), Act::Close]);
    service.script().posts = [(false, said.clone())].into();
    service.script().poll = Some(said);
    let posted = service.client().generate_video(&fox());
    let polled = service.client().get_video("gen:1");
    if let Err(error) = &polled {
        assert_eq!(error.generation_id(), Some("gen:1"), "{error}");
    }
    let results = [posted, polled];
    for result in &results {
        assert!(!format!("{result:?}").contains(KEY));
        let shown = match result {
            Err(error) => {
                assert!(!matches!(error, Error::Invalid { .. }), "{error}");
                error.to_string()
            }
            Ok(generation) => {
                let error = generation.error.as_ref().map(ToString::to_string);
                let usage = generation.usage.as_ref().map(ToString::to_string);
                let shown = [error, usage].map(Option::unwrap_or_default);
                format!("{} {}", generation.status, shown.concat())
            }
        };
        assert_plain(&shown);
        assert!(shown.chars().count() < 1500, "{shown}");
    }
    results
}

fn any_say(u: &mut Unstructured<'_>) -> Result<Say> {
    let status = *u.choose(&[200, 201, 400, 404, 502])?;
    Ok(Say::Json(status, any_json(u, 3)?.to_string()))
}

fn any_response(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let status = *u.choose(&[200, 200, 201, 302, 400, 404, 503])?;
    let values = format!("7|-1|NaN|1e999|18446744073709551616|gen:1||{KEY}");
    let headers = ["retry-after", "x-aimlapi-usd-spent", "x-inference-id"];
    let headers = headers.map(|name| Ok((name, word(u, &values)?)));
    let headers: Vec<_> = headers.into_iter().collect::<Result<_>>()?;
    Ok(http(status, &headers, any_json(u, 4)?.to_string()))
}

#[test]
fn any_bytes_are_a_response_or_a_typed_error() {
    let service = Service::start();
    let good = [("x-inference-id", "gen:1"), ("x-aimlapi-usd-spent", "0.06")];
    let chunks = format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
    let responses = [
        http(200, &good, BODY),
        http(429, &[("retry-after", "7")], BODY),
        http(200, &[("transfer-encoding", "chunked")], chunks),
    ];
    arbtest(|u| {
        let response = match u.arbitrary()? {
            true => any_response(u)?,
            false => {
                let good = u.choose(&responses)?.clone();
                mutated(u, good)?
            }
        };
        for generation in call(&service, response).into_iter().flatten() {
            assert!(!generation.id.trim().is_empty());
            let costs = generation.usage.map(|u| [u.credits_used, u.usd_spent]);
            let mut costs = costs.into_iter().flatten().flatten();
            assert!(costs.all(f64::is_finite));
        }
        Ok(())
    })
    .budget_ms(1000);
}

const BODY: &str = r#"{"id": "gen:1", "status": "error", "message": "No \ud83e\udd8a.", "statusCode": 400,
    "error": {"name": "Safety", "message": "No \u001b[0m"}, "meta": {"usage": {"usd_spent": 6e-2}}}"#;

#[test]
fn no_odd_optional_field_loses_an_id_or_a_video() {
    let service = Service::start();
    arbtest(|u| {
        let mut body = any_fields(u, 3)?;
        body.insert("id".to_owned(), "gen:1".into());
        let mut video = any_fields(u, 2)?;
        video.insert("url".to_owned(), "https://v.example/1".into());
        body.insert("video".to_owned(), Value::Object(video));
        for result in call(&service, http(200, &[], json!(body).to_string())) {
            let generation = result.unwrap();
            assert_eq!(generation.id, "gen:1");
            // A pending word is pending, whatever comes beside it.
            assert!(generation.is_finished() || generation.status == "queued");
            assert_eq!(generation.video.unwrap().url, "https://v.example/1");
        }
        Ok(())
    })
    .budget_ms(500);
}

#[test]
fn no_text_about_any_receipt_or_response_has_a_second_line_or_a_hidden_character() {
    let world = World::new();
    world.tell("polls wait; hasty A times out");
    let receipt = world.receipt();
    let retry = |retry: &Retry<'_>| assert_plain(&retry.to_string());
    let builder = world.service.builder().on_retry(retry);
    let builder = builder.poll_timeout(Duration::from_millis(3));
    let client = builder.build().unwrap();
    arbtest(|u| {
        let mut receipt = receipt.clone();
        let attempt = receipt["attempts"][0].as_object_mut().unwrap();
        let names: Vec<String> = attempt.keys().cloned().collect();
        let texts = ["prompt", "failure", "host", "model", "client_request_id"];
        for _ in 0..u.int_in_range(0..=3)? {
            match u.int_in_range(0..=5)? {
                0 => attempt[u.choose(&names)?] = any_json(u, 2)?,
                1 => attempt["generation_id"] = any_text(u)?.into(),
                2 => {
                    let states = ["sending", "failed", "waiting", "completed", "given_up"];
                    attempt["state"] = (*u.choose(&states)?).into();
                    attempt["generation_id"] = Value::Null;
                }
                _ => attempt[*u.choose(&texts)?] = any_text(u)?.into(),
            }
        }
        let bytes = match u.int_in_range(0..=3)? {
            0 => mutated(u, receipt.to_string().into_bytes())?,
            _ => receipt.to_string().into_bytes(),
        };
        fs::write(world.receipt_path(), &bytes).unwrap();
        let _ = fs::remove_file(world.path());
        let sent = world.service.posts();
        if let Err(error) = world.file("A").attempts() {
            let again = world.generate("A").unwrap_err();
            assert_eq!(again.to_string(), error.to_string());
            let is_untouched = fs::read(world.receipt_path()).unwrap() == bytes;
            assert!(is_untouched && world.service.posts() == sent, "{error}");
        }
        world.service.script().posts = [(false, any_say(u)?)].into();
        world.service.script().poll = Some(any_say(u)?);
        world.service.script().log = Some(any_say(u)?);
        world.service.script().download = Some(any_say(u)?);
        for prompt in ["A", "B"] {
            let file = world.file(prompt);
            let made = file.generate(&client, |_| {}).err();
            let errors = [made, file.attempt().err(), file.give_up().err()];
            for error in errors.into_iter().flatten() {
                assert_plain(&error.to_string());
                assert_eq!(format!("{error:?}"), error.to_string());
            }
        }
        Ok(())
    })
    .budget_ms(1000);
}
