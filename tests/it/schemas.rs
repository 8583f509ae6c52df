//! What the mock server accepts: the published schemas and names, and nothing one step outside.

use std::collections::BTreeSet;

use aimlapi_video::{UNIVERSAL_ENDPOINT, VEO_ENDPOINT, simulator::Simulator};
use serde_json::{Map, Value, json};

use crate::simulator::Connection;

/// The vendor's OpenAPI schemas of the Google models, as of August 2026, without their prose.
fn schemas() -> Map<String, Value> {
    serde_json::from_str(include_str!("google_models.json")).unwrap()
}

/// All models of the vendor's catalog, as of August 2026: endpoint, name, required parameters.
fn published() -> Map<String, Value> {
    serde_json::from_str(include_str!("published_models.json")).unwrap()
}

fn required(schema: &Value) -> Vec<&str> {
    strings(&schema["required"]).collect()
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    let list = list.as_array().unwrap().iter();
    list.map(|text| text.as_str().unwrap())
}

fn parameters(schema: &Value) -> &Map<String, Value> {
    schema["parameters"].as_object().unwrap()
}

fn number(parameter: &Value, name: &str, default: u64) -> usize {
    let number = parameter.get(name).map(|number| number.as_u64().unwrap());
    number.unwrap_or(default) as usize
}

/// Whether a value is what a parameter's published schema allows.
fn fits(parameter: &Value, value: &Value) -> bool {
    let has_type = match parameter["type"].as_str().unwrap() {
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.as_str().is_some_and(|text| {
            let is_uri = text.contains(':') && !text.contains(char::is_whitespace);
            let long_enough = text.chars().count() >= number(parameter, "minLength", 0);
            long_enough && (parameter["format"] != "uri" || is_uri)
        }),
        "array" => value.as_array().is_some_and(|values| {
            values.len() <= number(parameter, "maxItems", u64::MAX)
                && values.iter().all(|value| fits(&parameter["items"], value))
        }),
        other => panic!("a type that no schema had: {other}"),
    };
    let words = parameter.get("enum").and_then(Value::as_array);
    has_type && words.is_none_or(|words| words.contains(value))
}

/// All values of a parameter if they are few, else some of each kind.
fn allowed(name: &str, parameter: &Value) -> Vec<Value> {
    if let Some(values) = parameter.get("enum") {
        return values.as_array().unwrap().clone();
    }
    let data = "data:image/png;base64,iVBORw0KGgo=";
    let [upper, url] = ["HTTP://example.com/", "https://example.com/"];
    let urls = [data, "gs://bucket/a.png", upper, url];
    let at_most = number(parameter, "maxItems", 9);
    match (name, parameter["type"].as_str().unwrap()) {
        // The schema lists these in its prose.
        ("provider", _) => ["auto", "google", "fal", "FAL"].map(Value::from).into(),
        (_, "boolean") => vec![json!(true), json!(false)],
        (_, "integer") => [0, -1, i64::MAX, i64::MIN].map(Value::from).into(),
        (_, "array") => vec![json!(urls), json!(vec![url; at_most]), json!([url])],
        (_, "string") if parameter["format"] == "uri" => urls.map(Value::from).into(),
        ("prompt", _) => vec![json!("x"), json!("A fox in the snow")],
        _ => vec![json!(""), json!("blur, text")],
    }
}

/// Values beside the allowed ones: of other types, of other models, and one step further.
fn neighbors(name: &str, parameter: &Value, schemas: &Map<String, Value>) -> Vec<Value> {
    let url = "https://example.com/";
    let values =
        json!([null, true, 3, -8, 7.5, "x", ["x"], [[url]], {"url": url}, [], "https://a/b c"]);
    let mut values = values.as_array().unwrap().clone();
    let urls = ["", "cat.png", "/tmp/cat.png", "file:///cat.png", "https://"];
    values.extend(urls.map(Value::from));
    let words = "https://a/b\n;1:1;4:3;480p;4k;8;google;vertex";
    values.extend(words.split(';').map(Value::from));
    if let Some(at_most) = parameter.get("maxItems") {
        values.push(json!(vec![url; at_most.as_u64().unwrap() as usize + 1]));
    }
    for value in allowed(name, parameter) {
        match value {
            Value::String(text) if name == "provider" || parameter.get("enum").is_some() => {
                let cases = [text.to_uppercase(), format!("{text} "), format!(" {text}")];
                values.extend(cases.map(Value::from));
            }
            Value::Number(number) => {
                let seconds = number.as_i64().unwrap();
                values.push(json!(seconds.saturating_sub(1)));
                values.push(json!(seconds.saturating_add(1)));
                values.extend([json!(number.to_string()), json!(seconds as f64)]);
            }
            _ => {}
        }
    }
    for schema in schemas.values() {
        let other = parameters(schema).get(name);
        values.extend(other.map(|other| allowed(name, other)).unwrap_or_default());
    }
    values
}

/// Whether a value is allowed by the schema and by its prose, which says which URLs can be fetched,
/// and which providers there are.
fn is_allowed(name: &str, parameter: &Value, value: &Value) -> bool {
    let words = allowed(name, parameter);
    match name {
        "provider" => value.as_str().is_some_and(|text| {
            let is_text = |word: &Value| word.as_str().unwrap().eq_ignore_ascii_case(text);
            words.iter().any(is_text)
        }),
        "prompt" => fits(parameter, value) && *value != "",
        _ if parameter["format"] == "uri" => words.contains(value),
        _ => fits(parameter, value) && *value != json!([]),
    }
}

/// What a model takes for a parameter, as a hint says it.
fn expected(name: &str, parameter: &Value) -> String {
    if let Some(values) = parameter.get("enum") {
        let values = values.as_array().unwrap().iter().map(Value::to_string);
        return values.collect::<Vec<_>>().join(", ");
    }
    match (name, parameter["type"].as_str().unwrap()) {
        ("provider", _) => r#""auto", "google", "fal""#.to_owned(),
        ("prompt", _) => "a string that is not empty".to_owned(),
        (_, "boolean") => "a boolean".to_owned(),
        (_, "integer") => "an integer".to_owned(),
        (_, "array") => match parameter.get("maxItems") {
            Some(at_most) => format!("a list of 1 to {at_most} URLs or data URLs"),
            None => "a list of one or more URLs or data URLs".to_owned(),
        },
        _ if parameter["format"] != "uri" => "a string".to_owned(),
        _ => "a URL (https://…) or a data URL, without white space".to_owned(),
    }
}

/// A body with only what the model requires.
fn least(model: &str, schema: &Value) -> Value {
    let mut body = json!({ "model": model });
    for name in required(schema) {
        body[name] = allowed(name, &parameters(schema)[name])[0].clone();
    }
    body
}

struct Mock(Simulator, Connection);

impl Mock {
    fn start() -> Self {
        let simulator = Simulator::start().unwrap();
        let connection = Connection::open(&simulator);
        Mock(simulator, connection)
    }

    /// The hint of a 400, or `None` if the body is accepted.
    fn hint(&mut self, endpoint: &str, body: &Value) -> Option<String> {
        let charged = self.0.charged();
        let response = self.1.post(endpoint, body);
        let created = [201, 200][usize::from(endpoint == UNIVERSAL_ENDPOINT)];
        let is_accepted = response.status == created;
        assert_eq!(self.0.charged(), charged + usize::from(is_accepted));
        if is_accepted {
            return None;
        }
        assert_eq!(response.status, 400, "{body}");
        let body = response.json();
        let message = body["message"].as_str().unwrap();
        let hint = message.strip_prefix("Body validation error: ");
        Some(hint.unwrap_or_else(|| panic!("{message}")).to_owned())
    }
}

#[test]
fn every_value_that_a_schema_allows_is_accepted() {
    let (mut mock, mut parameter_count, mut value_count) = (Mock::start(), 0, 0);
    let schemas = schemas();
    for (model, schema) in &schemas {
        let mut most = least(model, schema);
        for (name, parameter) in parameters(schema) {
            for value in allowed(name, parameter) {
                let fits = name == "provider" || fits(parameter, &value);
                assert!(fits, "{name}: {value}");
                let mut body = least(model, schema);
                body[name] = value.clone();
                assert_eq!(mock.hint(UNIVERSAL_ENDPOINT, &body), None, "{body}");
                // The last of the durations is the one that goes with a last image.
                most[name] = value;
                value_count += 1;
            }
            parameter_count += 1;
        }
        assert_eq!(mock.hint(VEO_ENDPOINT, &most), None, "all at once: {most}");
    }
    let counts = (schemas.len(), parameter_count, value_count);
    assert_eq!(counts, (18, 146, 388));
}

#[test]
fn every_value_one_step_outside_of_a_schema_is_refused_with_what_was_expected_and_received() {
    let (mut mock, schemas, mut refused) = (Mock::start(), schemas(), 0);
    let names = schemas
        .values()
        .flat_map(|schema| parameters(schema).keys());
    let everything: BTreeSet<&String> = names.collect();
    for (model, schema) in &schemas {
        let least = least(model, schema);
        let known = parameters(schema);
        for (name, parameter) in known {
            for value in neighbors(name, parameter, &schemas) {
                let mut body = least.clone();
                body[name] = value.clone();
                let hint = mock.hint(UNIVERSAL_ENDPOINT, &body);
                let expected = expected(name, parameter);
                let expected = format!("{name}: Expected {expected}, received {value}");
                let is_allowed = is_allowed(name, parameter, &value);
                assert_eq!(hint, (!is_allowed).then_some(expected), "{model}");
                refused += usize::from(!is_allowed);
            }
        }
        for name in required(schema) {
            let mut body = least.clone();
            body.as_object_mut().unwrap().remove(name);
            let expected = expected(name, &known[name]);
            let expected = format!("{name}: Expected {expected}, received undefined");
            assert_eq!(mock.hint(UNIVERSAL_ENDPOINT, &body), Some(expected));
        }
        for name in everything.iter().filter(|name| !known.contains_key(**name)) {
            let mut body = least.clone();
            body[name.as_str()] = json!(8);
            let hint = mock.hint(UNIVERSAL_ENDPOINT, &body).unwrap();
            let rest = hint.strip_prefix(&format!("{name}: Expected no such parameter, only "));
            let words = rest.unwrap().split([' ', ',']);
            let names: BTreeSet<_> = words.filter(|word| known.contains_key(*word)).collect();
            assert_eq!(names, known.keys().map(String::as_str).collect());
            assert!(hint.ends_with(", received 8"), "{hint}");
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn an_image_for_a_model_that_takes_none_names_the_model_that_does() {
    let mut mock = Mock::start();
    for (name, model) in [
        ("image_url", "google/veo-3.0-i2v"),
        ("last_image_url", "google/veo-3.1-first-last-image-to-video"),
        ("image_urls", "google/veo-3.1-reference-to-video"),
        ("video_url", "google/veo3-1-extend-video"),
        ("tail_image_url", "veo2/image-to-video"),
    ] {
        let body = json!({"model": "google/veo3", "prompt": "A fox", name: "https://a/1"});
        let expected = format!(
            "{name}: Expected no such parameter, only prompt, duration, aspect_ratio, resolution, negative_prompt, \
             seed, enhance_prompt, generate_audio ({model} takes {name}), received \"https://a/1\""
        );
        assert_eq!(mock.hint(VEO_ENDPOINT, &body), Some(expected));
    }
    // An image of some megabytes is not sent back.
    let image = format!("data:image/png;base64,{}", "QUJD".repeat(1_000_000));
    let body = json!({"model": "google/veo3", "prompt": "A fox", "image_url": image});
    assert!(mock.hint(VEO_ENDPOINT, &body).unwrap().len() < 1_000);
}

#[test]
fn a_last_image_wants_eight_seconds_of_the_lite_preview() {
    let mut mock = Mock::start();
    let mut hint = |model: &str, seconds: u64, last: bool| {
        let mut body = json!({"model": model, "prompt": "A bud opens", "duration": seconds});
        if last {
            body["last_image_url"] = json!("https://a/2.png");
        }
        mock.hint(UNIVERSAL_ENDPOINT, &body)
    };
    let preview = "google/veo-3-1-lite-generate-preview";
    assert_eq!(hint(preview, 8, true), None);
    assert_eq!(hint(preview, 4, false), None);
    assert_eq!(hint("veo-3.1-lite-generate-001", 4, true), None);
    let expected = "duration: Expected 8, the only one with last_image_url, received 4";
    assert_eq!(hint(preview, 4, true).as_deref(), Some(expected));
}

#[test]
fn all_119_published_models_are_served_at_their_endpoints() {
    let (mut mock, published) = (Mock::start(), published());
    let mut count = 0;
    for (endpoint, models) in &published {
        for (model, required) in models.as_object().unwrap() {
            let mut body = json!({ "model": model });
            for name in strings(required) {
                body[name] = match name.ends_with("_urls") || name.ends_with("_list") {
                    true => json!(["https://a/1"]),
                    false => json!("https://a/1"),
                };
            }
            assert_eq!(mock.hint(endpoint, &body), None, "{body}");
            let path = format!("/v2/{endpoint}?generation_id={}", mock.0.charged());
            let polled = mock.1.get(&path).status;
            assert_eq!(polled, 404, "the endpoint is polled as well");
            count += 1;

            // The models that have an endpoint of their own are served at no other, and no others
            // there.
            for other in published.keys().filter(|other| *other != endpoint) {
                let hint = mock.hint(other, &body).unwrap();
                let reason = format!("not one of /v2/{endpoint}, received");
                assert!(hint.contains(&reason), "{hint}");
            }
        }
    }
    assert_eq!((count, published.len()), (119, 3));
}

#[test]
fn a_name_that_is_not_published_is_refused_with_the_nearest_unless_it_is_allowed() {
    let mut mock = Mock::start();
    let kling = "kling-video/v1/pro/text-to-video";
    for (name, nearest) in [
        ("google/veo-3", "google/veo3"),
        ("google/veo3.0-i2v", "google/veo-3.0-i2v"),
        ("Veo2", "veo2"),
        ("sora-2-t2v", "openai/sora-2-t2v"),
        (&format!("{kling} "), kling),
    ] {
        let body = json!({"model": name, "prompt": "A fox", "anything": {"deep": [1]}});
        let expected =
            format!("model: Expected a published model, such as {nearest:?}, received {name:?}");
        assert_eq!(mock.hint(UNIVERSAL_ENDPOINT, &body), Some(expected));
        mock.0.allow_model(name);
        let kling = "generate/video/kling/generation";
        for endpoint in [UNIVERSAL_ENDPOINT, VEO_ENDPOINT, kling] {
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
