//! What the mock server accepts: the published schemas and names, and nothing one step outside.

use std::collections::{BTreeMap, BTreeSet};

use aimlapi_video::{UNIVERSAL_ENDPOINT, VEO_ENDPOINT, simulator::Simulator};
use serde_json::{Value, json};

use crate::simulator::Api;
use crate::support::cells;

/// What the simulator ships, a model a line.
fn shipped() -> Vec<Value> {
    serde_json::from_str(include_str!("../../src/simulator/models.json")).unwrap()
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    let list = list.as_array().unwrap().iter();
    list.map(|text| text.as_str().unwrap())
}

/// Some values that a parameter takes: all words, the ends of a range, or one of each kind.
fn values(name: &str, schema: &Value) -> Vec<Value> {
    let url = "https://example.com/a";
    if let Some(words) = schema["enum"].as_array() {
        return words.clone();
    }
    if let (Some(least), Some(most)) = (schema.get("minimum"), schema.get("maximum")) {
        return vec![least.clone(), most.clone()];
    }
    match schema["type"].as_str().unwrap_or_default() {
        "boolean" => vec![json!(true), json!(false)],
        "integer" | "number" => vec![schema.get("minimum").cloned().unwrap_or(json!(7))],
        "array" => vec![json!([url])],
        "object" => vec![json!({"type": "any"})],
        _ if name.contains("url") => ["data:image/png;base64,QUJD", "gs://b/a", "HTTP://a/", url]
            .map(Value::from)
            .into(),
        _ => vec![json!("A fox in the snow")],
    }
}

/// A body with only what the model requires.
fn least(model: &Value) -> Value {
    let mut body = json!({"model": model["name"]});
    for name in strings(&model["required"]) {
        body[name] = values(name, &model["parameters"][name])[0].clone();
    }
    body
}

struct Mock(Simulator, Api);

impl Mock {
    fn start() -> Self {
        let simulator = Simulator::start().unwrap();
        let api = Api::of(&simulator);
        Mock(simulator, api)
    }

    /// The hint of a 400, or `None` if the body is accepted.
    fn hint(&mut self, endpoint: &str, body: &Value) -> Option<String> {
        let charged = self.0.charged();
        let response = self.1.post(endpoint, body);
        let created = [201, 200][usize::from(endpoint == UNIVERSAL_ENDPOINT)];
        let is_accepted = response.status() == created;
        assert_eq!(self.0.charged(), charged + usize::from(is_accepted));
        if is_accepted {
            return None;
        }
        assert_eq!(response.status(), 400, "{body}");
        let body = response.json();
        let message = body["message"].as_str().unwrap();
        let hint = message.strip_prefix("Body validation error: ");
        Some(hint.unwrap_or_else(|| panic!("{message}")).to_owned())
    }
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
    let (mut mock, shipped) = (Mock::start(), shipped());
    for row in FACTS.trim().lines() {
        let [name, parameter, facts] = cells::<3>(row);
        let model = shipped.iter().find(|model| model["name"] == name).unwrap();
        let (allowed, refused) = facts.split_once(" not ").unwrap();
        for (list, is_allowed) in [(allowed, true), (refused, false)] {
            for value in serde_json::Deserializer::from_str(list).into_iter::<Value>() {
                let mut body = least(model);
                body[parameter] = value.unwrap();
                let hint = mock.hint(UNIVERSAL_ENDPOINT, &body);
                assert_eq!(hint.is_none(), is_allowed, "{body}: {hint:?}");
                let received = format!(", received {}", body[parameter]);
                assert!(hint.is_none_or(|hint| hint.ends_with(&received)));
            }
        }
    }
}

const HINTS: &str = r#"
    google/veo3        | {"prompt": 5}                | string
    google/veo3        | {"duration": 5}              | 4, 6, 8
    google/veo3        | {"resolution": "4K"}         | "720P", "1080P"
    google/veo-3.1-t2v | {"provider": "x"}            | "auto", "google", "fal"
    google/veo-3.0-i2v | {"image_url": "x"}           | a URL (https://…) or a data URL, without white space
    google/gemini-omni-flash-preview | {"prompt": ""} | string, minLength 1
    google/gemini-omni-flash-preview | {"image_urls": ["gs://1","gs://2","gs://3","gs://4","gs://5","gs://6","gs://7"]} | array of URLs or data URLs, maxItems 6
    minimax/h3         | {"duration": 16}             | integer, maximum 15, minimum 4
    luma/ray-2         | {"keyframes": 7}             | object
    veo2               | {"fps": 24}                  | no such parameter, only aspect_ratio, duration, enhance_prompt, negative_prompt, prompt, seed
"#;

#[test]
fn a_hint_says_what_was_expected_and_received() {
    let (mut mock, shipped) = (Mock::start(), shipped());
    for row in HINTS.trim().lines() {
        let [name, changed, expected] = cells::<3>(row);
        let mut body = least(shipped.iter().find(|one| one["name"] == name).unwrap());
        let changed: Value = serde_json::from_str(changed).unwrap();
        let (parameter, value) = changed.as_object().unwrap().iter().next().unwrap();
        body[parameter] = value.clone();
        let expected = format!("{parameter}: Expected {expected}, received {value}");
        assert_eq!(mock.hint(UNIVERSAL_ENDPOINT, &body), Some(expected));
    }
    let missing = mock.hint(UNIVERSAL_ENDPOINT, &json!({"model": "google/veo3"}));
    let expected = "prompt: Expected string, received undefined";
    assert_eq!(missing.as_deref(), Some(expected));
    let long = json!({"model": "klingai/avatar-pro", "prompt": "x".repeat(3000)});
    assert!(mock.hint(UNIVERSAL_ENDPOINT, &long).unwrap().len() < 500);
}

#[test]
fn all_143_models_and_nine_other_spellings_are_served_at_their_endpoints() {
    let (mut mock, shipped) = (Mock::start(), shipped());
    let mut counts = BTreeMap::<_, usize>::new();
    for model in &shipped {
        let body = least(model);
        let path = model["path"].as_str().unwrap();
        let endpoint = path.strip_prefix("/v2/").unwrap();
        assert_eq!(mock.hint(endpoint, &body), None, "{body}");
        let polled = mock.1.get(&format!("{path}?generation_id=1"));
        assert_eq!(polled.status(), 404, "the endpoint is polled as well");
        for (name, schema) in model["parameters"].as_object().unwrap() {
            for value in values(name, schema) {
                let mut body = body.clone();
                body[name] = value;
                let hint = mock.hint(endpoint, &body);
                assert_eq!(hint, None, "{body}");
            }
        }
        let is_other = model.get("other_spelling_of").is_some();
        *counts.entry((is_other, path)).or_default() += 1;
        // Those that have an endpoint of their own are served at no other, and no others there.
        let (common, own) = (
            [UNIVERSAL_ENDPOINT, VEO_ENDPOINT],
            "generate/video/kling/generation",
        );
        for other in common
            .into_iter()
            .chain([own])
            .filter(|other| *other != endpoint)
        {
            let hint = mock.hint(other, &body);
            let is_common = common.contains(&endpoint) && common.contains(&other);
            let reason = format!("not one of {path}, received");
            assert!(
                hint.map_or(is_common, |hint| hint.contains(&reason)),
                "{body}"
            );
        }
    }
    let [kling, alibaba] =
        ["kling", "alibaba"].map(|maker| format!("/v2/generate/video/{maker}/generation"));
    let universal = format!("/v2/{UNIVERSAL_ENDPOINT}");
    let expected = [
        (false, &alibaba, 1),
        (false, &kling, 5),
        (false, &universal, 137),
        (true, &universal, 9),
    ];
    let expected = expected.map(|(is_other, path, count)| ((is_other, path.as_str()), count));
    assert_eq!(counts, BTreeMap::from(expected));
}

#[test]
fn nothing_in_a_schema_goes_unread() {
    let known = "type enum format items minLength maxLength minItems maxItems minimum maximum";
    let known: BTreeSet<&str> = known.split(' ').chain(["x-case-insensitive"]).collect();
    for model in &shipped() {
        let parameters = model["parameters"].as_object().unwrap();
        let mut required = strings(&model["required"]);
        assert!(
            required.all(|name| parameters.contains_key(name)),
            "{model}"
        );
        for schema in parameters.values() {
            let items = schema.get("items").and_then(Value::as_object);
            let keywords = [schema.as_object(), items].into_iter().flatten().flatten();
            for (keyword, value) in keywords {
                assert!(known.contains(&**keyword), "{schema}");
                assert!(keyword != "format" || value == "uri", "{schema}");
            }
        }
    }
}

#[test]
fn an_image_for_a_model_that_takes_none_names_the_model_that_does() {
    let mut mock = Mock::start();
    for (name, model) in [
        ("image_url", "google/veo-3.0-i2v"),
        ("last_image_url", "google/veo-3.1-first-last-image-to-video"),
        ("image_urls", "google/veo-3.1-reference-to-video"),
        ("video_url", "google/veo3-1-extend-video"),
    ] {
        let image = format!("data:image/png;base64,{}", "QUJD".repeat(100_000));
        let body = json!({"model": "google/veo3", "prompt": "A fox", name: image});
        let hint = mock.hint(VEO_ENDPOINT, &body).unwrap();
        let expected = format!("{name}: Expected no such parameter, only ");
        assert!(hint.starts_with(&expected), "{hint}");
        let other = format!(" ({model} takes {name}), received \"data:");
        assert!(hint.contains(&other) && hint.len() < 1_000, "{hint}");
    }
}

#[test]
fn a_last_image_wants_eight_seconds_of_the_lite_preview() {
    let mut mock = Mock::start();
    let preview = "google/veo-3-1-lite-generate-preview";
    let expected = "duration: Expected 8, the only one with last_image_url, received 4";
    for (model, seconds, has_last, expected) in [
        (preview, 8, true, None),
        (preview, 4, false, None),
        ("veo-3.1-lite-generate-001", 4, true, None),
        (preview, 4, true, Some(expected)),
    ] {
        let mut body = json!({"model": model, "prompt": "A bud opens", "duration": seconds});
        if has_last {
            body["last_image_url"] = json!("https://a/2.png");
        }
        assert_eq!(mock.hint(UNIVERSAL_ENDPOINT, &body).as_deref(), expected);
    }
}

#[test]
fn a_name_that_is_not_published_is_refused_with_the_nearest_unless_it_is_allowed() {
    let mut mock = Mock::start();
    let kling = "kling-video/v1/pro/text-to-video";
    for (name, nearest) in [
        ("google/veo-3", "google/veo3"),
        ("google/veo3.0-i2v", "google/veo-3.0-i2v"),
        ("Veo2", "veo2"),
        ("sora-2-t2w", "sora-2-t2v"),
        (&format!("{kling} "), kling),
    ] {
        let body = json!({"model": name, "prompt": "A fox", "anything": {"deep": [1]}});
        let expected =
            format!("model: Expected a published model, such as {nearest:?}, received {name:?}");
        assert_eq!(mock.hint(UNIVERSAL_ENDPOINT, &body), Some(expected));
        mock.0.allow_model(name);
        for endpoint in [
            UNIVERSAL_ENDPOINT,
            VEO_ENDPOINT,
            "generate/video/kling/generation",
        ] {
            assert_eq!(mock.hint(endpoint, &body), None);
        }
    }
    let (none, five, null) = (json!({}), json!({"model": 5}), json!({"model": null}));
    for (body, received) in [(none, "undefined"), (five, "5"), (null, "null")] {
        let expected = format!("model: Expected string, received {received}");
        assert_eq!(mock.hint(UNIVERSAL_ENDPOINT, &body), Some(expected));
    }
    let long = json!({"model": "é".repeat(1_000_000)});
    assert!(mock.hint(UNIVERSAL_ENDPOINT, &long).unwrap().len() < 1_000);
}
