//! What goes out: every published model, every parameter and value, as set, and nothing else.

use std::{collections::BTreeSet, thread};

use aimlapi_video::{
    AspectRatio, Error, Image, OmniTask, PersonGeneration, Provider, Resolution,
    UNIVERSAL_ENDPOINT, VideoRequest,
};
use serde_json::{Map, Value, json};

use crate::support::{Act, Server, http, json as answer, queued, refusal};

/// The vendor's OpenAPI schemas of the Google models, as of August 2026, without their prose.
fn schemas() -> Map<String, Value> {
    serde_json::from_str(include_str!("google_models.json")).unwrap()
}

fn required(schema: &Value) -> Vec<&str> {
    schema["required"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect()
}

fn parameters(schema: &Value) -> &Map<String, Value> {
    schema["parameters"].as_object().unwrap()
}

/// Whether a value is what a parameter's published schema allows.
fn fits(parameter: &Value, value: &Value) -> bool {
    let length = |name: &str, default: u64| {
        parameter.get(name).map_or(default, |n| n.as_u64().unwrap()) as usize
    };
    let has_type = match parameter["type"].as_str().unwrap() {
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.as_str().is_some_and(|text| {
            let is_uri = text.contains(':') && !text.contains(char::is_whitespace);
            text.chars().count() >= length("minLength", 0)
                && (parameter["format"] != "uri" || is_uri)
        }),
        "array" => value.as_array().is_some_and(|values| {
            values.len() <= length("maxItems", u64::MAX)
                && values.iter().all(|value| fits(&parameter["items"], value))
        }),
        other => panic!("a type that no schema had: {other}"),
    };
    has_type
        && parameter
            .get("enum")
            .is_none_or(|values| values.as_array().unwrap().contains(value))
}

/// Whether a body is what a model's published schema allows.
fn validates(model: &str, schema: &Value, body: &Value) -> bool {
    let Some(body) = body.as_object() else {
        return false;
    };
    let parameters = parameters(schema);
    body.get("model") == Some(&json!(model))
        && required(schema).iter().all(|name| body.contains_key(*name))
        && body
            .iter()
            .filter(|(name, _)| *name != "model")
            .all(|(name, value)| {
                parameters
                    .get(name)
                    .is_some_and(|parameter| fits(parameter, value))
            })
}

/// All values of a parameter if they are few, else some of each kind.
fn allowed(name: &str, parameter: &Value) -> Vec<Value> {
    if let Some(values) = parameter.get("enum") {
        return values.as_array().unwrap().clone();
    }
    let urls = [
        "data:image/png;base64,iVBORw0KGgo=",
        "gs://bucket/a.png",
        "http://example.com/",
        "https://example.com/",
    ];
    let at_most = parameter
        .get("maxItems")
        .map_or(9, |n| n.as_u64().unwrap() as usize);
    match (name, parameter["type"].as_str().unwrap()) {
        // The schema lists these in its prose.
        ("provider", _) => vec![json!("auto"), json!("google"), json!("fal")],
        (_, "boolean") => vec![json!(true), json!(false)],
        (_, "integer") => vec![
            json!(0),
            json!(-1),
            json!(i64::MAX),
            json!(i64::MIN),
            json!(42),
        ],
        (_, "array") => vec![json!(urls), json!(vec![urls[3]; at_most]), json!([urls[3]])],
        (_, "string") if parameter["format"] == "uri" => urls.map(Value::from).into(),
        ("prompt", _) => vec![json!("x"), json!("A fox in the snow")],
        _ => vec![json!(""), json!("blur, text")],
    }
}

/// Sets a parameter through its own method.
fn set(request: VideoRequest, name: &str, value: &Value) -> VideoRequest {
    fn word<T: Copy>(known: &[T], as_str: fn(T) -> &'static str, value: &Value) -> T {
        let value = value.as_str().unwrap();
        *known
            .iter()
            .find(|word| as_str(**word).eq_ignore_ascii_case(value))
            .unwrap()
    }
    let text = || value.as_str().unwrap();
    let flag = || value.as_bool().unwrap();
    match name {
        "prompt" => request.prompt(text()),
        "negative_prompt" => request.negative_prompt(text()),
        "image_url" => request.image(text()),
        "last_image_url" | "tail_image_url" => request.last_image(text()),
        "image_urls" => request.reference_images(
            value
                .as_array()
                .unwrap()
                .iter()
                .map(|url| url.as_str().unwrap()),
        ),
        "video_url" => request.video_url(text()),
        "audio_url" => request.audio_url(text()),
        "previous_interaction_id" => request.previous_interaction_id(text()),
        "delivery" => request.delivery(text()),
        "duration" => request.duration(value.as_u64().unwrap().try_into().unwrap()),
        "seed" => request.seed(value.as_i64().unwrap()),
        "enhance_prompt" => request.enhance_prompt(flag()),
        "generate_audio" => request.generate_audio(flag()),
        "auto_fix" => request.auto_fix(flag()),
        "aspect_ratio" => request.aspect_ratio(word(
            &[
                AspectRatio::Auto,
                AspectRatio::Landscape,
                AspectRatio::Portrait,
            ],
            AspectRatio::as_str,
            value,
        )),
        "resolution" => request.resolution(word(
            &[Resolution::P720, Resolution::P1080],
            Resolution::as_str,
            value,
        )),
        "person_generation" => request.person_generation(word(
            &[PersonGeneration::AllowAdult, PersonGeneration::DontAllow],
            PersonGeneration::as_str,
            value,
        )),
        "provider" => request.provider(word(
            &[Provider::Auto, Provider::Google, Provider::Fal],
            Provider::as_str,
            value,
        )),
        "task" => request.task(word(
            &[
                OmniTask::TextToVideo,
                OmniTask::ImageToVideo,
                OmniTask::ReferenceToVideo,
                OmniTask::Edit,
            ],
            OmniTask::as_str,
            value,
        )),
        other => panic!("no method sets {other}"),
    }
}

/// Only what the model requires.
fn least(model: &str, schema: &Value) -> VideoRequest {
    required(schema)
        .iter()
        .fold(VideoRequest::for_model(model), |request, name| {
            set(request, name, &allowed(name, &parameters(schema)[*name])[0])
        })
}

/// All that the model takes. The last of the durations is the one that goes with a last image.
fn most(model: &str, schema: &Value) -> VideoRequest {
    parameters(schema).iter().fold(
        VideoRequest::for_model(model),
        |request, (name, parameter)| set(request, name, allowed(name, parameter).last().unwrap()),
    )
}

#[test]
fn every_parameter_of_every_google_model_is_sent_as_published() {
    let (schemas, mut parameter_count, mut value_count) = (schemas(), 0, 0);
    for (model, schema) in &schemas {
        for (name, parameter) in parameters(schema) {
            for value in allowed(name, parameter) {
                let by_method = set(least(model, schema), name, &value).to_json().unwrap();
                assert!(validates(model, schema, &by_method), "{by_method}");
                let by_name = least(model, schema)
                    .param(name.as_str(), value.clone())
                    .to_json()
                    .unwrap();
                assert_eq!(by_method, by_name);

                let mut expected = json!({ "model": model });
                for name in required(schema) {
                    expected[name] = allowed(name, &parameters(schema)[name])[0].clone();
                }
                expected[name] = value;
                assert_eq!(by_method, expected, "and nothing that was not set");
                value_count += 1;
            }
            parameter_count += 1;
        }
    }
    assert_eq!(
        (schemas.len(), parameter_count, value_count),
        (18, 146, 386)
    );
}

#[test]
fn a_google_model_takes_all_of_its_parameters_at_once() {
    let server = Server::script(vec![queued()]);
    let client = server.client();
    for (model, schema) in &schemas() {
        let request = most(model, schema);
        let body = request.to_json().unwrap();
        assert!(validates(model, schema, &body), "{body}");
        let names: BTreeSet<&str> = body
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let expected = parameters(schema)
            .keys()
            .map(String::as_str)
            .chain(["model"])
            .collect();
        assert_eq!(names, expected, "{model}");

        client.generate_video(&request).unwrap();
        let sent: Value = serde_json::from_str(&server.requests().last().unwrap().body).unwrap();
        assert_eq!(sent, body);
    }
    assert_eq!(server.posts(), 18);
}

/// What a model takes for a parameter, as an error says it.
fn takes(name: &str, parameter: &Value) -> String {
    if let Some(values) = parameter.get("enum") {
        return values
            .as_array()
            .unwrap()
            .iter()
            .map(Value::to_string)
            .collect::<Vec<_>>()
            .join(", ");
    }
    match (name, parameter["type"].as_str().unwrap()) {
        ("provider", _) => r#""auto", "google", "fal""#.to_owned(),
        ("prompt", _) => "a text that is not empty".to_owned(),
        (_, "boolean") => "true or false".to_owned(),
        (_, "integer") => "a whole number".to_owned(),
        (_, "array") => match parameter.get("maxItems") {
            Some(at_most) => format!("a list of 1 to {at_most} addresses or data URLs"),
            None => "a list of one or more addresses or data URLs".to_owned(),
        },
        _ if parameter["format"] == "uri" => {
            "an address (https://…) or a data URL, without white space".to_owned()
        }
        _ => "a text".to_owned(),
    }
}

/// Values beside the allowed ones: of other types, of other models, and one step further.
fn neighbours(name: &str, parameter: &Value, schemas: &Map<String, Value>) -> Vec<Value> {
    let mut values = vec![
        Value::Null,
        json!(true),
        json!(3),
        json!(-8),
        json!(7.5),
        json!("x"),
        json!(["x"]),
        json!([["https://example.com/"]]),
        json!({"url": "https://example.com/"}),
    ];
    if parameter["format"] == "uri" {
        values.extend(
            [
                "",
                "cat.png",
                "/tmp/cat.png",
                "file:///cat.png",
                "https://",
                "https://a/b c",
                "https://a/b\n",
            ]
            .map(Value::from),
        );
    }
    if let Some(at_most) = parameter.get("maxItems") {
        values.push(json!(vec![
            "https://example.com/";
            at_most.as_u64().unwrap() as usize + 1
        ]));
    }
    for value in allowed(name, parameter) {
        match value {
            Value::String(text) if name == "provider" || parameter.get("enum").is_some() => {
                values.extend([
                    json!(text.to_uppercase()),
                    json!(format!("{text} ")),
                    json!(format!(" {text}")),
                ]);
            }
            Value::Number(number) => {
                let seconds = number.as_i64().unwrap();
                values.extend(
                    [seconds.saturating_sub(1), seconds.saturating_add(1)].map(Value::from),
                );
                values.extend([json!(number.to_string()), json!(seconds as f64)]);
            }
            _ => {}
        }
    }
    for schema in schemas.values() {
        values.extend(
            parameters(schema)
                .get(name)
                .map(|other| allowed(name, other))
                .unwrap_or_default(),
        );
    }
    values.extend(["1:1", "4:3", "480p", "4k", "8", "google"].map(Value::from));
    values
}

/// Whether a value is allowed by the schema and by its prose, which says which addresses can be fetched, and which
/// providers there are. The crate spells resolutions as the model does.
fn is_allowed(name: &str, parameter: &Value, value: &Value) -> bool {
    let words = allowed(name, parameter);
    let is_word = |word: &Value| match (word.as_str(), value.as_str()) {
        (Some(word), Some(value)) => word.eq_ignore_ascii_case(value),
        _ => false,
    };
    match name {
        "provider" | "resolution" => words.iter().any(is_word),
        _ if parameter["format"] == "uri" => words.contains(value),
        _ => fits(parameter, value),
    }
}

#[test]
fn one_step_outside_of_a_google_models_schema_is_refused_before_sending() {
    let server = Server::script(vec![queued()]);
    let client = server.client();
    let schemas = schemas();
    let everything: BTreeSet<&String> = schemas
        .values()
        .flat_map(|schema| parameters(schema).keys())
        .collect();
    let mut refused = 0;
    let mut refuse = |request: VideoRequest, text: String| {
        let error = client.generate_video(&request).expect_err(&text);
        assert!(matches!(error, Error::Invalid(_)));
        assert_eq!(error.to_string(), format!("{text}; nothing was sent"));
        refused += 1;
    };
    for (model, schema) in &schemas {
        for (name, parameter) in parameters(schema) {
            for value in neighbours(name, parameter, &schemas) {
                if is_allowed(name, parameter, &value) {
                    continue;
                }
                let request = least(model, schema).param(name.as_str(), value.clone());
                let text = match value.as_str() {
                    Some(text) if name == "prompt" && text.trim().is_empty() => {
                        "the prompt is empty: describe the scene".to_owned()
                    }
                    _ => format!(
                        "`{name}` is {value}, but {model} takes {}",
                        takes(name, parameter)
                    ),
                };
                refuse(request, text);
            }
        }
        for name in required(schema) {
            let others = required(schema).into_iter().filter(|other| *other != name);
            let request = others.fold(VideoRequest::for_model(model.as_str()), |request, other| {
                set(
                    request,
                    other,
                    &allowed(other, &parameters(schema)[other])[0],
                )
            });
            refuse(
                request,
                format!(
                    "`{name}` is missing: {model} takes {}",
                    takes(name, &parameters(schema)[name])
                ),
            );
        }
        for name in everything
            .iter()
            .filter(|name| !parameters(schema).contains_key(**name))
        {
            // The last image goes by another name there.
            if (model.as_str(), name.as_str()) == ("veo2/image-to-video", "last_image_url") {
                continue;
            }
            let error = client
                .generate_video(&least(model, schema).param(name.as_str(), 8))
                .unwrap_err()
                .to_string();
            let names = error
                .strip_prefix(&format!(
                    "`{name}` is 8, but {model} takes no such parameter, only "
                ))
                .and_then(|rest| rest.strip_suffix("; nothing was sent"))
                .unwrap_or_else(|| panic!("{error}"));
            let names: BTreeSet<&str> = names.split(", ").collect();
            assert_eq!(
                names,
                parameters(schema).keys().map(String::as_str).collect()
            );
        }
    }
    assert!(refused > 1000, "{refused}");
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_last_image_wants_eight_seconds_of_the_lite_preview() {
    let model = "google/veo-3-1-lite-generate-preview";
    let request = VideoRequest::between_images("A bud opens", "https://a/1.png", "https://a/2.png")
        .model(model);
    assert!(request.to_json().is_ok());
    assert!(request.clone().duration(8).to_json().is_ok());
    assert!(
        request
            .clone()
            .duration(4)
            .model("veo-3.1-lite-generate-001")
            .to_json()
            .is_ok()
    );
    assert!(
        VideoRequest::new("A bud opens")
            .model(model)
            .duration(4)
            .to_json()
            .is_ok()
    );
    assert_eq!(
        request.duration(4).to_json().unwrap_err().to_string(),
        "`duration` is 4, but google/veo-3-1-lite-generate-preview takes only 8 with a last image; nothing was sent"
    );
}

#[test]
fn a_resolution_is_spelled_as_the_model_does_whichever_is_set_first() {
    let spelling = |model: &str, resolution: Resolution| {
        let last = VideoRequest::new("A fox")
            .resolution(resolution)
            .model(model)
            .to_json()
            .unwrap();
        let first = VideoRequest::new("A fox")
            .model(model)
            .resolution(resolution)
            .to_json()
            .unwrap();
        let twice = VideoRequest::new("A fox")
            .resolution(resolution)
            .model("google/veo3")
            .model(model);
        assert_eq!(last, first);
        assert_eq!(twice.to_json().unwrap(), first);
        first["resolution"].as_str().unwrap().to_owned()
    };
    for model in [
        "google/veo3",
        "google/veo-3.0-fast",
        "veo-3.1-lite-generate-001",
    ] {
        assert_eq!(spelling(model, Resolution::P720), "720P");
        assert_eq!(spelling(model, Resolution::P1080), "1080P");
    }
    for model in [
        "google/veo-3.1-t2v",
        "google/veo-3-1-lite-generate-preview",
        "someone/new-model-2",
    ] {
        assert_eq!(spelling(model, Resolution::P720), "720p");
        assert_eq!(spelling(model, Resolution::P1080), "1080p");
    }
    let by_name = VideoRequest::new("A fox").param("resolution", "1080p");
    assert_eq!(by_name.to_json().unwrap()["resolution"], "1080P");
    let unknown = by_name
        .model("someone/new-model-2")
        .param("resolution", "4K");
    assert_eq!(unknown.to_json().unwrap()["resolution"], "4K");
}

#[test]
fn the_last_image_goes_by_the_name_that_the_model_has_for_it() {
    let request = VideoRequest::between_images("A bud opens", "https://a/1.png", "https://a/2.png");
    let names = |model: &str| {
        let body = request.clone().model(model).to_json().unwrap();
        (
            body.get("last_image_url").cloned(),
            body.get("tail_image_url").cloned(),
        )
    };
    let image = Some(json!("https://a/2.png"));
    assert_eq!(
        names("google/veo-3.1-first-last-image-to-video-fast"),
        (image.clone(), None)
    );
    assert_eq!(names("veo2/image-to-video"), (None, image.clone()));
    assert_eq!(names("someone/new-model-2"), (image, None));
    let first = VideoRequest::for_model("veo2/image-to-video").last_image("https://a/2.png");
    assert_eq!(
        first.image("https://a/1.png").prompt("A bud opens"),
        request.clone().model("veo2/image-to-video")
    );

    // Of two last images, none is dropped in silence.
    let both = request
        .model("veo2/image-to-video")
        .param("tail_image_url", "https://a/3.png");
    let error = both.to_json().unwrap_err().to_string();
    assert!(
        error.starts_with(
            "`last_image_url` is \"https://a/2.png\", but veo2/image-to-video takes no such"
        ),
        "{error}"
    );
}

#[test]
fn each_kind_of_video_has_its_constructor() {
    let body = |request: VideoRequest| request.to_json().unwrap();
    let (a, b) = ("https://a/1.png", "https://a/2.png");
    assert_eq!(
        body(VideoRequest::new("A fox")),
        json!({"model": "google/veo3", "prompt": "A fox"})
    );
    assert_eq!(
        body(VideoRequest::from_image("A fox", a)),
        json!({"model": "google/veo-3.0-i2v", "prompt": "A fox", "image_url": a})
    );
    assert_eq!(
        body(VideoRequest::between_images("A fox", a, String::from(b))),
        json!({
            "model": "google/veo-3.1-first-last-image-to-video",
            "prompt": "A fox",
            "image_url": a,
            "last_image_url": b,
        })
    );
    assert_eq!(
        body(VideoRequest::from_references("A fox", [a, b])),
        json!({"model": "google/veo-3.1-reference-to-video", "prompt": "A fox", "image_urls": [a, b]})
    );
    assert_eq!(
        body(VideoRequest::from_references(
            "A fox",
            vec![Image::from_url(a)]
        )),
        json!({"model": "google/veo-3.1-reference-to-video", "prompt": "A fox", "image_urls": [a]})
    );
    assert_eq!(
        body(VideoRequest::extend_video("A fox", "https://a/v.mp4")),
        json!({"model": "google/veo3-1-extend-video", "prompt": "A fox", "video_url": "https://a/v.mp4"})
    );
    assert_eq!(
        body(VideoRequest::for_model("someone/new-model-2")),
        json!({"model": "someone/new-model-2"})
    );
}

#[test]
fn a_list_of_references_has_to_hold_one() {
    let error = VideoRequest::from_references("A fox", Vec::<String>::new())
        .to_json()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "`image_urls` is [], but google/veo-3.1-reference-to-video takes a list of one or more addresses or data \
         URLs; nothing was sent"
    );
}

/// All models of the vendor's catalogue, as of August 2026: endpoint, id, required parameters.
fn published() -> Map<String, Value> {
    serde_json::from_str(include_str!("published_models.json")).unwrap()
}

#[test]
fn all_119_published_models_can_be_asked_for() {
    let server = Server::script(vec![queued()]);
    let mut count = 0;
    for (endpoint, models) in &published() {
        let client = server.builder().endpoint(endpoint).build().unwrap();
        for (model, required) in models.as_object().unwrap() {
            let mut request = VideoRequest::new("A fox in the snow").model(model);
            let mut expected = json!({ "model": model, "prompt": "A fox in the snow" });
            if !required.as_array().unwrap().contains(&json!("prompt")) {
                request = VideoRequest::for_model(model);
                expected = json!({ "model": model });
            }
            for name in required
                .as_array()
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap())
            {
                let value = match name {
                    "prompt" => continue,
                    "effect_scene" => json!("hug"),
                    "image_urls" | "image_list" | "video_urls" => {
                        json!(["https://a/1", "https://a/2"])
                    }
                    url => {
                        assert!(url.ends_with("_url"), "{url}");
                        json!(format!("https://a/{url}"))
                    }
                };
                request = request.param(name, value.clone());
                expected[name] = value;
            }
            assert_eq!(client.generate_video(&request).unwrap().id, "gen:1");
            let sent = server.requests().pop().unwrap();
            assert_eq!(
                (sent.method.as_str(), sent.target),
                ("POST", format!("/v2/{endpoint}"))
            );
            assert_eq!(serde_json::from_str::<Value>(&sent.body).unwrap(), expected);
            count += 1;
        }
    }
    assert_eq!((count, server.posts()), (119, 119));
}

#[test]
fn a_model_that_the_crate_does_not_know_gets_all_as_given() {
    let server = Server::script(vec![queued()]);
    let client = server
        .builder()
        .endpoint(UNIVERSAL_ENDPOINT)
        .build()
        .unwrap();
    let given = json!({
        "prompt": "A fox",
        "aspect_ratio": "21:9",
        "duration": 2.5,
        "resolution": "4K",
        "last_image_url": "not an address",
        "seed": u64::MAX,
        "nothing": null,
        "camera_control": {"type": "zoom", "steps": [1, -1, {"deep": [[]]}]},
        "image_urls": [],
        "": false,
    });
    let mut request = VideoRequest::for_model("someone/new-model-2");
    for (name, value) in given.as_object().unwrap() {
        request = request.param(name, value.clone());
    }
    client.generate_video(&request).unwrap();
    let mut expected = given;
    expected["model"] = json!("someone/new-model-2");
    let sent = server.requests().pop().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&sent.body).unwrap(), expected);
    assert_eq!(sent.target, "/v2/video/generations");
}

#[test]
fn a_request_without_a_model_or_a_prompt_is_refused() {
    let text = |request: VideoRequest| request.to_json().unwrap_err().to_string();
    assert_eq!(
        text(VideoRequest::new(" \n")),
        "the prompt is empty: describe the scene; nothing was sent"
    );
    assert_eq!(
        text(VideoRequest::new("A fox").model(" ")),
        "the model is empty: name one, such as google/veo3; nothing was sent"
    );
    assert_eq!(
        text(VideoRequest::new("A fox").param("model", "veo2")),
        "`model` is set as a parameter: use VideoRequest::model; nothing was sent"
    );
}

#[test]
fn a_prompt_arrives_unchanged_whatever_its_characters() {
    let long: String = "🦊雪é\u{301}".chars().cycle().take(10_000).collect();
    let everything: String = ('\0'..=char::MAX).step_by(97).collect();
    let prompts = [
        "🦊👩‍👩‍👧‍👦🏳️‍🌈 in the snow",
        "ثعلب في الثلج — שועל בשלג \u{202e}reversed\u{202c}",
        "first line\nsecond\r\nthird\u{2028}fourth\u{85}\ttab",
        "NUL \0 inside, and \u{1}\u{1b}[31m\u{7f}",
        "\u{301} a lone mark, \u{200d}\u{feff}\u{fffd}\u{fffe}\u{10ffff}",
        r#""quotes" \backslash\ </script> {"json": [1]} %00 &amp; ${HOME}"#,
        "  spaces around  ",
        &long,
        &everything,
    ];
    let server = Server::script(vec![queued()]);
    let client = server.client();
    for prompt in prompts {
        client
            .generate_video(&VideoRequest::new(prompt).negative_prompt(prompt))
            .unwrap();
        let sent: Value = serde_json::from_str(&server.requests().pop().unwrap().body).unwrap();
        assert_eq!(sent["prompt"], prompt);
        assert_eq!(sent["negative_prompt"], prompt);
    }
    assert_eq!(long.chars().count(), 10_000);
    assert_eq!(server.posts(), prompts.len());
}

#[test]
fn a_client_request_id_that_the_server_would_drop_is_refused_before_sending() {
    let server = Server::script(vec![queued()]);
    let client = server.client();
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    let mut bad = vec![
        String::new(),
        "a".repeat(129),
        "ä".to_owned(),
        "a\u{3000}".to_owned(),
        "ａ".to_owned(),
    ];
    bad.extend(
        (0..=127u8)
            .map(char::from)
            .filter(|c| !is_allowed(*c))
            .map(|c| format!("job{c}1")),
    );
    for id in bad {
        let request = VideoRequest::new("A fox").client_request_id(&id);
        let expected = format!(
            "the client request id {id:?} would be dropped by the server: use 1 to 128 of A-Z a-z 0-9 . _ : -; \
             nothing was sent"
        );
        assert_eq!(
            client.generate_video(&request).unwrap_err().to_string(),
            expected
        );
        assert_eq!(request.to_json().unwrap_err().to_string(), expected);
        assert_eq!(
            client.find_generation(&id).unwrap_err().to_string(),
            expected
        );
    }
    assert_eq!(server.connections(), 0);

    let every: String = (0..=127u8)
        .map(char::from)
        .filter(|c| is_allowed(*c))
        .collect();
    for id in ["a", ":", &every, &"z".repeat(128)] {
        client
            .generate_video(&VideoRequest::new("A fox").client_request_id(id))
            .unwrap();
        let sent = server.requests().pop().unwrap();
        assert_eq!(sent.header("x-client-request-id"), Some(id));
        assert!(!sent.body.contains("client_request_id"), "{}", sent.body);
    }
}

#[test]
fn each_call_gets_a_fresh_client_request_id() {
    let server = Server::script(vec![queued()]);
    let client = server.client();
    let request = VideoRequest::new("A fox");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10).for_each(|_| drop(client.generate_video(&request).unwrap())));
        }
    });
    let requests = server.requests();
    let ids: BTreeSet<&str> = requests
        .iter()
        .map(|sent| sent.header("x-client-request-id").unwrap())
        .collect();
    assert_eq!(ids.len(), 40);
    for id in ids {
        let fits = |c: char| c.is_ascii_hexdigit() && !c.is_ascii_uppercase();
        let random = id.strip_prefix("aimlapi-video-").unwrap();
        assert!(random.len() == 32 && random.chars().all(fits), "{id}");
    }
}

#[test]
fn the_debug_text_of_a_request_abridges_its_pictures() {
    let picture = format!("data:image/png;base64,{}", "QUJD".repeat(500));
    let request = VideoRequest::from_image("A \"fox\"", picture.as_str())
        .seed(7)
        .param(
            "list",
            json!([picture, {"deep": picture}, "data:,short", "x".repeat(300)]),
        )
        .param("loud", picture.replacen("data:", "DATA:", 1))
        .client_request_id("job-1");
    let abridged = "data:image/png;base64, 2022 characters, FNV-1a 211702574ba20b60";
    assert_eq!(
        format!("{request:?}"),
        format!(
            concat!(
                r#"VideoRequest {{ body: {{"image_url":"{0}","#,
                r#""list":["{0}",{{"deep":"{0}"}},"data:,short","{1}"],"#,
                r#""loud":"DATA:image/png;base64, 2022 characters, FNV-1a 77b059f5c63ab760","#,
                r#""model":"google/veo-3.0-i2v","prompt":"A \"fox\"","seed":7}}, client_request_id: Some("job-1") }}"#
            ),
            abridged,
            "x".repeat(300),
        )
    );
    let other = VideoRequest::from_image("A \"fox\"", picture.replacen("QUJD", "QUJE", 1));
    assert!(
        !format!("{other:?}").contains(abridged),
        "another picture is another text"
    );
    assert_eq!(
        format!("{:?}", VideoRequest::new("A fox")),
        r#"VideoRequest { body: {"model":"google/veo3","prompt":"A fox"}, client_request_id: None }"#
    );
    let signed =
        VideoRequest::extend_video("On", "https://cdn.example/v.mp4?X-Amz-Signature=SECRET");
    assert_eq!(
        format!("{signed:?}"),
        r#"VideoRequest { body: {"model":"google/veo3-1-extend-video","prompt":"On","video_url":"https://cdn.example/v.mp4, 48 characters, FNV-1a b4e23a284448f5d3"}, client_request_id: None }"#
    );
    assert_eq!(
        format!("{:?}", Image::from_url("https://a/1.png")),
        "Image(https://a/1.png)"
    );
    assert_eq!(
        format!("{:?}", Image::from_url(picture)).chars().count(),
        "Image( …)".chars().count() + 300
    );
}

/// An answer with these headers.
fn with_headers(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<Act> {
    vec![Act::Send(http(status, headers, body))]
}

#[test]
fn what_a_generation_cost_is_told_by_the_body_or_else_by_the_headers() {
    let credits = ("X-AIMLAPI-Credits-Used", "120000");
    let usd = ("x-aimlapi-usd-spent", "0.06");
    let body =
        |usage: &str| format!(r#"{{"id": "gen:1", "status": "completed", "meta": {usage}}}"#);
    type Case<'a> = (
        &'a [(&'a str, &'a str)],
        &'a str,
        Option<(Option<f64>, Option<f64>)>,
    );
    let cases: [Case<'_>; 11] = [
        (&[], "null", None),
        (&[], r#"{"usage": null}"#, None),
        (&[], r#"{"usage": {}}"#, None),
        (&[credits], "null", Some((Some(120_000.0), None))),
        (&[usd], "null", Some((None, Some(0.06)))),
        (&[credits, usd], "null", Some((Some(120_000.0), Some(0.06)))),
        (
            &[],
            r#"{"usage": {"credits_used": 5, "usd_spent": 0.5}}"#,
            Some((Some(5.0), Some(0.5))),
        ),
        (
            &[credits, usd],
            r#"{"usage": {"credits_used": 5, "usd_spent": 0.5}}"#,
            Some((Some(5.0), Some(0.5))),
        ),
        (
            &[credits, usd],
            r#"{"usage": {"credits_used": 5}}"#,
            Some((Some(5.0), Some(0.06))),
        ),
        (
            &[],
            r#"{"usage": {"tokens_used": 6720000}}"#,
            Some((Some(6_720_000.0), None)),
        ),
        (
            &[("x-aimlapi-credits-used", "many"), usd],
            "null",
            Some((None, Some(0.06))),
        ),
    ];
    for (headers, usage, expected) in cases {
        let server = Server::script(vec![with_headers(200, headers, &body(usage))]);
        let client = server.client();
        let created = client.generate_video(&VideoRequest::new("A fox")).unwrap();
        let polled = client.get_video("gen:1").unwrap();
        for generation in [created, polled] {
            let usage_found = generation
                .usage
                .map(|usage| (usage.credits_used, usage.usd_spent));
            assert_eq!(usage_found, expected, "{headers:?} {usage}");
        }
    }
}

#[test]
fn the_ids_that_trace_a_generation_reach_it() {
    let server = Server::start(|request, _| {
        let id = request
            .header("x-client-request-id")
            .unwrap_or("from-the-log");
        with_headers(
            200,
            &[("X-Client-Request-Id", id)],
            r#"{"id": "gen:1", "status": "queued"}"#,
        )
    });
    let client = server.client();
    let request = VideoRequest::new("A fox").client_request_id("job-1");
    assert_eq!(
        client
            .generate_video(&request)
            .unwrap()
            .client_request_id
            .as_deref(),
        Some("job-1")
    );
    assert_eq!(
        client
            .get_video("gen:1")
            .unwrap()
            .client_request_id
            .as_deref(),
        Some("from-the-log")
    );
}

#[test]
fn the_inference_id_stands_for_an_id_that_the_body_has_not() {
    let id = [("X-Inference-Id", "gen:header")];
    let server = Server::script(vec![
        with_headers(201, &id, r#"{"status": "queued"}"#),
        with_headers(201, &id, r#"{"id": "gen:body", "status": "queued"}"#),
        with_headers(
            201,
            &id,
            r#"{"generation_id": "gen:body", "status": "queued"}"#,
        ),
    ]);
    let client = server.client();
    let generate = || {
        client
            .generate_video(&VideoRequest::new("A fox"))
            .unwrap()
            .id
    };
    assert_eq!(
        [generate(), generate(), generate()],
        ["gen:header", "gen:body", "gen:body"]
    );
}

#[test]
fn the_servers_request_id_is_in_its_refusals() {
    let server = Server::script(vec![
        refusal(400, "Body validation error"),
        refusal(404, "Not Found"),
        answer(
            400,
            r#"{"message": "No", "requestId": 17, "statusCode": "400"}"#,
        ),
        answer(400, r#"{"message": "No", "statusCode": 400}"#),
    ]);
    let client = server.client();
    let request_id = |error: Error| match error {
        Error::Refused(refusal) => {
            let text = refusal.to_string();
            assert_eq!(
                refusal.request_id.is_some(),
                text.contains("(request id "),
                "{text}"
            );
            refusal.request_id
        }
        other => panic!("{other}"),
    };
    let request = VideoRequest::new("A fox");
    let documented = Some("3f0e1c1a-6f0e-4a8e-9d4a-000000000001".to_owned());
    assert_eq!(
        request_id(client.generate_video(&request).unwrap_err()),
        documented
    );
    assert_eq!(
        request_id(client.get_video("gen:1").unwrap_err()),
        documented
    );
    assert_eq!(
        request_id(client.generate_video(&request).unwrap_err()),
        Some("17".to_owned())
    );
    assert_eq!(
        request_id(client.generate_video(&request).unwrap_err()),
        None
    );
}
