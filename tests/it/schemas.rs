//! What the mock server accepts: the published schemas and names, and nothing one step outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use aimlapi_video::{UNIVERSAL_ENDPOINT, VEO_ENDPOINT, simulator::Simulator};
use serde_json::{Value, json};

use crate::simulator::{Api, start};
use crate::support::cells;

const KLING: &str = "generate/video/kling/generation";

/// What the simulator ships, a model a line.
static SHIPPED: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let models = include_str!("../../src/simulator/models.json");
    serde_json::from_str(models).unwrap()
});

fn shipped(name: &str) -> &'static Value {
    let mut models = SHIPPED.iter();
    models.find(|model| model["name"] == name).unwrap()
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    let list = list.as_array().unwrap().iter();
    list.map(|text| text.as_str().unwrap())
}

/// Some values that a parameter takes: all words, the ends of a range, or one of each kind.
fn values(name: &str, schema: &Value) -> Vec<Value> {
    let kind = schema["type"].as_str().unwrap_or_default();
    let url = "https://example.com/a";
    let values = match (kind, schema.get("minimum"), schema.get("maximum")) {
        _ if schema["enum"].is_array() => schema["enum"].clone(),
        (_, Some(least), Some(most)) => json!([least, most]),
        ("boolean", ..) => json!([true, false]),
        ("integer" | "number", least, _) => json!([least.unwrap_or(&json!(7))]),
        ("array", ..) => json!([[url]]),
        ("object", ..) => json!([{"type": "any"}]),
        _ if name.contains("url") => {
            json!(["data:image/png;base64,QUJD", "gs://b/a", "HTTP://a/", url])
        }
        _ => json!(["A fox in the snow"]),
    };
    values.as_array().unwrap().clone()
}

/// A body with only what the model requires.
fn least(model: &Value) -> Value {
    let mut body = json!({"model": model["name"]});
    for name in strings(&model["required"]) {
        body[name] = values(name, &model["parameters"][name])[0].clone();
    }
    body
}

/// That, with these fields.
fn changed(model: &str, fields: Value) -> Value {
    let mut body = least(shipped(model));
    let fields = fields.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(fields);
    body
}

/// The hint of a 400, or `None` if the body is accepted.
fn hint((simulator, api): &(Simulator, Api), endpoint: &str, body: &Value) -> Option<String> {
    let charged_before = simulator.charged();
    let response = api.post(endpoint, body);
    let charged = simulator.charged() - charged_before;
    let created = [201, 200][usize::from(endpoint == UNIVERSAL_ENDPOINT)];
    if response.status() == created {
        assert_eq!(charged, 1, "{body}");
        return None;
    }
    assert_eq!((response.status(), charged), (400, 0), "{body}");
    let message = response.json()["message"].as_str().unwrap().to_owned();
    let hint = message.strip_prefix("Body validation error: ");
    Some(hint.expect(&message).to_owned())
}

/// Typed from the vendor's pages, and not from what is shipped. All values are accepted, and those
/// behind "not" are refused.
const FACTS: &str = r#"
    google/veo3                        | duration        | 4 6 8 not 5 7 "8" 8.0 -4 null [8]
    google/veo3                        | resolution      | "720P" "1080P" not "720p" "1080p" "4K" "" 1080
    google/veo-3.0-fast                | aspect_ratio    | "16:9" "9:16" not "auto" "1:1" "16:9 "
    google/veo-3.0-i2v                 | seed            | 0 -1 9223372036854775807 not 1.5 "1" true
    google/veo-3.0-i2v-fast            | generate_audio  | true false not "true" 1 null
    google/veo-3.0-i2v                 | image_url       | "https://a/1" "gs://b/1" "data:image/png;base64,QUJD" not "cat.png" "/tmp/cat.png" "file:///cat.png" "https://" "https://a/b c" "" 5 ["https://a"]
    google/veo-3.1-t2v                 | resolution      | "720p" "1080p" not "720P" "1080P" "4k"
    google/veo-3.1-t2v-fast            | provider        | "auto" "google" "fal" "FAL" "Auto" not "vertex" "" 1
    google/veo-3.1-i2v                 | duration        | 4 6 8 not 5 7 3
    google/veo-3.1-reference-to-video  | duration        | 8 not 4 6
    google/veo-3.1-reference-to-video  | image_urls      | ["https://a/1"] ["data:,1","gs://b/2"] not "https://a/1" ["cat.png"] [[]] {}
    google/veo3-1-extend-video         | duration        | 7 not 8
    google/veo3-1-fast-extend-video    | aspect_ratio    | "auto" "16:9" "9:16" not "1:1"
    google/gemini-omni-flash-preview   | prompt          | "x" not "" 5
    google/gemini-omni-flash-preview   | image_urls      | ["data:,1","https://a/1"] not null
    google/gemini-omni-flash-preview   | duration        | 3 10 not 2 11
    veo-3.1-lite-generate-001          | resolution      | "720P" "1080P" not "720p"
    google/veo-3.1-lite-generate-001   | resolution      | "720P" "1080P" not "720p"
    google/veo-3-1-lite-generate-preview | resolution    | "720p" "1080p" not "720P"
    veo2                               | duration        | 5 6 7 8 not 4 9
    veo2/image-to-video                | tail_image_url  | "https://a/1" not "a"
    kling-video/v1.6/pro/text-to-video | cfg_scale       | 0 0.5 1 not -0.1 1.1 "1"
    klingai/avatar-pro                 | prompt          | "x" not 5
    minimax/h3                         | duration        | 4 15 not 3 16
    luma/ray-2                         | keyframes       | {"frame0":{}} not [] "x"
    openai/sora-2-t2v                  | prompt          | "x" "" not 5
    sora-2-t2v                         | prompt          | "x" "" not 5
"#;

#[test]
fn parameters_take_what_the_vendors_pages_say() {
    let mock = start();
    for row in FACTS.trim().lines() {
        let [name, parameter, facts] = cells::<3>(row);
        let (allowed, refused) = facts.split_once(" not ").unwrap();
        for (list, is_allowed) in [(allowed, true), (refused, false)] {
            for value in serde_json::Deserializer::from_str(list).into_iter::<Value>() {
                let value = value.unwrap();
                let body = changed(name, json!({parameter: value}));
                let hint = hint(&mock, UNIVERSAL_ENDPOINT, &body);
                assert_eq!(hint.is_none(), is_allowed, "{row}: {hint:?}");
                let received = format!(", received {value}");
                assert!(hint.is_none_or(|hint| hint.ends_with(&received)), "{row}");
            }
        }
    }
}

/// What is changed in the least body of a model, and the hint, if it is refused. ONLY stands for the
/// names of the model's parameters.
const HINTS: &str = r#"
    google/veo3        | {"prompt": 5}                | prompt: Expected string, received 5
    google/veo3        | {"duration": 5}              | duration: Expected 4, 6, 8, received 5
    google/veo3        | {"resolution": "4K"}         | resolution: Expected "720P", "1080P", received "4K"
    google/veo-3.1-t2v | {"provider": "x"}            | provider: Expected "auto", "google", "fal", received "x"
    google/veo-3.0-i2v | {"image_url": "x"}           | image_url: Expected a URL (https://…) or a data URL, without white space, received "x"
    google/gemini-omni-flash-preview | {"prompt": ""} | prompt: Expected string, minLength 1, received ""
    google/gemini-omni-flash-preview | {"image_urls": ["gs://1","gs://2","gs://3","gs://4","gs://5","gs://6","gs://7"]} | image_urls: Expected array of URLs or data URLs, maxItems 6, received ["gs://1","gs://2","gs://3","gs://4","gs://5","gs://6","gs://7"]
    minimax/h3         | {"duration": 16}             | duration: Expected integer, maximum 15, minimum 4, received 16
    luma/ray-2         | {"keyframes": 7}             | keyframes: Expected object, received 7
    veo2               | {"fps": 24}                  | fps: Expected no such parameter, only aspect_ratio, duration, enhance_prompt, negative_prompt, prompt, seed, received 24
    google/veo3        | {"image_url": "u"}           | image_url: Expected no such parameter, only ONLY (google/veo-3.0-i2v takes image_url), received "u"
    google/veo3        | {"last_image_url": "u"}      | last_image_url: Expected no such parameter, only ONLY (google/veo-3.1-first-last-image-to-video takes last_image_url), received "u"
    google/veo3        | {"image_urls": "u"}          | image_urls: Expected no such parameter, only ONLY (google/veo-3.1-reference-to-video takes image_urls), received "u"
    google/veo3        | {"video_url": "u"}           | video_url: Expected no such parameter, only ONLY (google/veo3-1-extend-video takes video_url), received "u"
    google/veo-3-1-lite-generate-preview | {"last_image_url": "https://a/2", "duration": 8} |
    google/veo-3-1-lite-generate-preview | {"duration": 4} |
    google/veo-3-1-lite-generate-preview | {"last_image_url": "https://a/2", "duration": 4} | duration: Expected 8, the only one with last_image_url, received 4
    veo-3.1-lite-generate-001 | {"last_image_url": "https://a/2", "duration": 4} |
    google/veo3        | {"model": null}              | model: Expected string, received null
    google/veo3        | {"model": 5}                 | model: Expected string, received 5
    google/veo3        | {"model": "google/veo-3"}    | model: Expected a published model, such as "google/veo3", received "google/veo-3"
    google/veo3        | {"model": "google/veo3.0-i2v"} | model: Expected a published model, such as "google/veo-3.0-i2v", received "google/veo3.0-i2v"
    google/veo3        | {"model": "Veo2"}            | model: Expected a published model, such as "veo2", received "Veo2"
    google/veo3        | {"model": "sora-2-t2w"}      | model: Expected a published model, such as "sora-2-t2v", received "sora-2-t2w"
    google/veo3        | {"model": "kling-video/v1/pro/text-to-video "} | model: Expected a published model, such as "kling-video/v1/pro/text-to-video", received "kling-video/v1/pro/text-to-video "
"#;

#[test]
fn a_hint_says_what_was_expected_and_received_and_names_the_nearest_model() {
    let mock = start();
    for row in HINTS.trim().lines() {
        let [name, changes, expected] = cells::<3>(row);
        let parameters = shipped(name)["parameters"].as_object().unwrap();
        let names: Vec<&str> = parameters.keys().map(String::as_str).collect();
        let expected = expected.replace("ONLY", &names.join(", "));
        let body = changed(name, serde_json::from_str(changes).unwrap());
        let hint = hint(&mock, UNIVERSAL_ENDPOINT, &body).unwrap_or_default();
        assert_eq!(hint, expected);
    }
    let long = "é".repeat(1_000_000);
    let unpublished = json!({"model": long});
    let unknown = changed("google/veo3", json!({"x": long}));
    for (body, expected) in [
        (
            json!({"model": "google/veo3"}),
            "prompt: Expected string, received undefined",
        ),
        (json!({}), "model: Expected string, received undefined"),
        (unpublished, "model: Expected a published model, "),
        (unknown, "x: Expected no such "),
    ] {
        let hint = hint(&mock, UNIVERSAL_ENDPOINT, &body).unwrap();
        assert!(hint.starts_with(expected) && hint.len() < 1_000, "{hint}");
    }
}

#[test]
fn all_143_models_and_nine_other_spellings_are_served_at_their_endpoints() {
    let mock = start();
    let mut counts = BTreeMap::<_, usize>::new();
    for model in &*SHIPPED {
        let (path, body) = (model["path"].as_str().unwrap(), least(model));
        let endpoint = path.strip_prefix("/v2/").unwrap();
        let polled = mock.1.get(&format!("{path}?generation_id=1"));
        assert_eq!(polled.status(), 404, "the endpoint is polled as well");
        for (name, schema) in model["parameters"].as_object().unwrap() {
            for value in values(name, schema) {
                let mut body = body.clone();
                body[name] = value;
                assert_eq!(hint(&mock, endpoint, &body), None, "{body}");
            }
        }
        let is_other = model.get("other_spelling_of").is_some();
        *counts.entry((endpoint, is_other)).or_default() += 1;
        // Those that have an endpoint of their own are served at no other, and no others there.
        let common = [UNIVERSAL_ENDPOINT, VEO_ENDPOINT];
        for other in [UNIVERSAL_ENDPOINT, VEO_ENDPOINT, KLING] {
            let is_common = common.contains(&endpoint) && common.contains(&other);
            let reason = format!("not one of {path}, received");
            let is_refused = hint(&mock, other, &body).is_some_and(|hint| hint.contains(&reason));
            assert_eq!(is_refused, !is_common && other != endpoint, "{body}");
        }
    }
    let expected = [
        (("generate/video/alibaba/generation", false), 1),
        ((KLING, false), 5),
        ((UNIVERSAL_ENDPOINT, false), 137),
        ((UNIVERSAL_ENDPOINT, true), 9),
    ];
    assert_eq!(counts, BTreeMap::from(expected));
}

#[test]
fn nothing_in_a_schema_goes_unread() {
    let known = "type enum format items minLength maxLength minItems maxItems minimum maximum x-case-insensitive";
    let known: BTreeSet<&str> = known.split(' ').collect();
    for model in &*SHIPPED {
        let parameters = model["parameters"].as_object().unwrap();
        let mut required = strings(&model["required"]);
        assert!(required.all(|name| parameters.contains_key(name)));
        for schema in parameters.values() {
            let keywords = [schema, &schema["items"]].into_iter();
            for (keyword, value) in keywords.filter_map(Value::as_object).flatten() {
                assert!(known.contains(&**keyword), "{schema}");
                assert!(keyword != "format" || value == "uri", "{schema}");
            }
        }
    }
}
