//! The README and the pages of the docs say what the programs and the simulator do.

use std::collections::{BTreeMap, BTreeSet};
use std::{fs, path::Path};

use aimlapi_video::VideoRequest;
use serde_json::{Value, json};

const README: &str = include_str!("../../README.md");
const MODELS: &str = include_str!("../../src/models.md");

/// The items of a list after this line, each in one line.
fn items(text: &str, after: &str) -> Vec<String> {
    let (_, rest) = text.split_once(after).unwrap();
    let (_, list) = rest.split_once("\n- ").unwrap();
    let list = list.split("\n\n").next().unwrap();
    let items = list.split("\n- ");
    items.map(|item| item.replace("\n  ", " ")).collect()
}

#[test]
fn each_lesson_is_in_the_readme_with_its_arguments() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut names = BTreeSet::new();
    for item in items(README, "## Lessons") {
        let usage = item.split('`').nth(1).unwrap();
        let name = usage.split(' ').next().unwrap();
        let source = fs::read_to_string(folder.join(format!("{name}.rs"))).unwrap_or_default();
        let usages = ["\n", "\""].map(|end| format!("usage: {usage}{end}"));
        match name {
            "build_script/" => {}
            _ if name == usage => assert!(!source.contains("const HELP"), "{name}"),
            _ => assert!(usages.iter().any(|usage| source.contains(usage)), "{usage}"),
        }
        names.insert(name.trim_end_matches('/').to_owned());
    }
    let files = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let name = |file: fs::DirEntry| file.path().file_stem().unwrap().to_owned().into_string();
    let files: BTreeSet<String> = files.map(|file| name(file).unwrap()).collect();
    assert_eq!(names, files);
    // What the README runs, too.
    for command in README.split("cargo run --example ").skip(1) {
        let name = command.split([' ', '`', '\n']).next().unwrap();
        assert!(name == "NAME" || files.contains(name), "{name}");
    }
}

#[test]
fn the_readme_is_short_and_its_links_lead_into_the_docs() {
    assert!(README.split_whitespace().count() <= 1500);
    let docs = include_str!("../../src/lib.rs");
    let links = README.lines().filter(|line| line.starts_with('['));
    for (name, url) in links.filter_map(|line| line.split_once("]: ")) {
        let name = &format!("{name}]");
        if url.starts_with("https://docs.rs/") {
            // rustdoc checks these.
            assert!(docs.contains(&format!("//! {name}: ")), "{name}");
        }
        let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join(url);
        assert!(url.starts_with("https://") || picture.exists(), "{name}");
        assert!(README.matches(name).count() > 1, "{name}");
    }
}

/// The names of each such item, each with what is said of it.
fn said(after: &str) -> BTreeMap<String, String> {
    let pairs = items(MODELS, after).into_iter().flat_map(|item| {
        let (names, text) = item.split_once("`: ").unwrap();
        let names = names.split('`').skip(1).step_by(2);
        let pairs = names.map(|name| (name.to_owned(), text.to_owned()));
        pairs.collect::<Vec<_>>()
    });
    pairs.collect()
}

/// What the docs say of the values that a schema allows.
fn described(schema: &Value) -> String {
    if let Some(words) = schema["enum"].as_array() {
        let words = words.iter().map(|word| word.to_string().replace('"', ""));
        return words.collect::<Vec<_>>().join(", ");
    }
    let text = match schema["type"].as_str().unwrap() {
        "array" => "a list of such URLs",
        "boolean" => "true, false",
        "integer" => "an integer",
        _ if schema["format"] == "uri" => "an https URL, or a data URL",
        _ => "a string",
    };
    text.to_owned()
}

/// That the simulator takes what the schemas say, and nothing else, is tested in `schemas.rs`.
#[test]
fn the_models_in_the_docs_take_what_they_say_and_nothing_else() {
    let (models, values) = (said("# Models of Google"), said("The values:"));
    let published = include_str!("../../src/simulator/models.json");
    let published: Vec<Value> = serde_json::from_str(published).unwrap();
    assert_eq!(models.len(), 18);
    // Google's are the first.
    for model in &published[..18] {
        let name = model["name"].as_str().unwrap();
        // `name` (value, value), **`name`**, `name`
        let words: Vec<&str> = models[name].split('`').collect();
        let shown = words[1..].chunks(2).map(|words| {
            let list = words[1].trim_start().strip_prefix('(');
            let list = list.map(|list| list.split(')').next().unwrap().to_owned());
            (words[0], words[1].starts_with("**"), list)
        });
        let shown: BTreeSet<_> = shown.chain([("prompt", true, None)]).collect();
        let required = model["required"].as_array().unwrap();
        let parameters = model["parameters"].as_object().unwrap().iter();
        let expected = parameters.map(|(parameter, schema)| {
            let is_required = required.iter().any(|name| name == parameter);
            let described = described(schema);
            let Some(text) = values.get(parameter) else {
                return (&**parameter, is_required, Some(described));
            };
            let text = text.replace('`', "");
            let (text, _limit) = text.split_once("; ").unwrap_or((&text, ""));
            assert_eq!(text, described, "{name} {parameter}");
            (parameter, is_required, None)
        });
        assert_eq!(shown, expected.collect(), "{name}");
    }
}

#[test]
fn a_request_has_a_method_for_most_parameters() {
    let request = VideoRequest::for_model("veo2")
        .image_url("https://a/1")
        .last_image_url("https://a/2")
        .image_urls(["https://a/3", "https://a/4"])
        .video_url("https://a/5")
        .negative_prompt("snow")
        .aspect_ratio("16:9")
        .duration(4)
        .resolution("720P")
        .seed(-1)
        .enhance_prompt(false)
        .generate_audio(true);
    let expected = json!({"model": "veo2", "image_url": "https://a/1", "last_image_url": "https://a/2",
        "image_urls": ["https://a/3", "https://a/4"], "video_url": "https://a/5",
        "negative_prompt": "snow", "aspect_ratio": "16:9", "duration": 4, "resolution": "720P",
        "seed": -1, "enhance_prompt": false, "generate_audio": true});
    assert_eq!(request.to_json().unwrap(), expected);
    // What may be a signed URL, or an image, is not shown.
    let shown = VideoRequest::new("A fox")
        .param("list", vec!["a", "b"])
        .param("object", json!({"a": 1}))
        .param("urls", vec!["a", "https://a"])
        .param("url", json!({"a": {"b": "https://a"}}))
        .param("image", "x".repeat(101));
    let text = r#"VideoRequest { model: "google/veo3", prompt: Some("A fox"), "#;
    let params = r#"params: Object {"list": Array [String("a"), String("b")], "object": Object {"a": Number(1)}}, "#;
    let end = "client_request_id: None, .. }";
    assert_eq!(format!("{shown:?}"), format!("{text}{params}{end}"));
}
