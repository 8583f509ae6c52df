//! The README and the pages of the docs say what the programs and the simulator do.

use std::{collections::BTreeMap, fs, path::Path};

use aimlapi_video::{Error, VideoRequest, simulator::Simulator};
use serde_json::{Value, json};

const README: &str = include_str!("../../README.md");
const MODELS: &str = include_str!("../../src/models.md");

/// The items of a list after this line, each in one line.
fn items(text: &'static str, after: &str) -> Vec<String> {
    let (_, list) = text.split_once(after).unwrap();
    let list = list
        .trim_start()
        .split("\n\n")
        .find(|part| part.starts_with("- "));
    let items = list.unwrap().trim_start_matches("- ").split("\n- ");
    items.map(|item| item.replace("\n  ", " ")).collect()
}

/// A number, a truth value, or a string.
fn to_value(word: &str) -> Value {
    serde_json::from_str(word).unwrap_or_else(|_| json!(word))
}

/// What stands in backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn each_lesson_is_in_the_readme_with_its_arguments() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut names = Vec::new();
    for item in items(README, "## Lessons") {
        let usage = code(&item).next().unwrap();
        let name = usage.split(' ').next().unwrap();
        let file = folder.join(format!("{name}.rs"));
        match fs::read_to_string(file) {
            Ok(source) if name == usage => assert!(!source.contains("const HELP"), "{name}"),
            Ok(source) => assert!(
                source.contains(&format!("usage: {usage}\n"))
                    || source.contains(&format!("usage: {usage}\"")),
                "{usage}"
            ),
            Err(_) => assert_eq!(name, "build_script/"),
        }
        names.push(name.trim_end_matches('/').to_owned());
    }
    names.sort();
    let files = fs::read_dir(folder).unwrap();
    let files = files.map(|file| file.unwrap().path().with_extension(""));
    let name = |file: std::path::PathBuf| file.file_name().unwrap().to_owned().into_string();
    let mut files: Vec<String> = files.map(|file| name(file).unwrap()).collect();
    files.sort();
    assert_eq!(names, files);
    // What the README runs, too.
    for command in README.split("cargo run --example ").skip(1) {
        let name = command.split([' ', '`', '\n']).next().unwrap();
        assert!(
            name == "NAME" || files.iter().any(|file| file == name),
            "{name}"
        );
    }
}

#[test]
fn the_readme_is_short_and_its_links_lead_into_the_docs() {
    assert!(README.split_whitespace().count() <= 1500);
    let docs = include_str!("../../src/lib.rs");
    for line in README.lines().filter(|line| line.starts_with('[')) {
        let Some((name, url)) = line.split_once("]: ") else {
            continue;
        };
        let name = &format!("{name}]");
        if url.starts_with("https://docs.rs/") {
            // rustdoc checks these.
            assert!(docs.contains(&format!("//! {name}: ")), "{line}");
        }
        let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join(url);
        assert!(url.starts_with("https://") || picture.exists(), "{line}");
        assert!(README.matches(name).count() > 1, "{line}");
    }
}

#[test]
fn the_models_in_the_docs_take_what_they_say_and_nothing_else() {
    let published: Vec<Value> =
        serde_json::from_str(include_str!("../../src/simulator/models.json")).unwrap();
    // Google's are the first.
    let published = published.iter().take(18);
    let published: BTreeMap<&str, &Value> = published
        .map(|model| (model["name"].as_str().unwrap(), model))
        .collect();
    let simulator = Simulator::start().unwrap();
    let client = simulator.client();
    let url = json!("https://example.com/a");
    let mut samples: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for item in items(MODELS, "The values:") {
        let (names, values) = item.split_once("`: ").unwrap();
        let values = match values {
            text if text.starts_with("an `https` URL") => vec![url.clone()],
            text if text.starts_with("a list") => vec![json!([url])],
            "a string" => vec![json!("a red paper boat")],
            "an integer" => vec![json!(7)],
            text => code(text).map(to_value).collect(),
        };
        let names = format!("{names}`");
        samples.extend(code(&names).map(|name| (name.to_owned(), values.clone())));
    }
    let mut models = Vec::new();
    for item in items(MODELS, "# Models of Google") {
        let (names, rest) = item.split_once("`: ").unwrap();
        let names = format!("{names}`");
        let mut required = vec!["prompt"];
        let mut parameters = BTreeMap::from([("prompt", samples["prompt"].clone())]);
        // `name` (value, value), **`name`**, `name`
        let words: Vec<&str> = rest.split('`').collect();
        for at in (1..words.len()).step_by(2) {
            let (name, next) = (words[at], words.get(at + 1).unwrap_or(&""));
            let values = match next.trim_start().strip_prefix('(') {
                Some(list) => (list.split(')').next().unwrap().split(", "))
                    .map(to_value)
                    .collect(),
                None => samples[name].clone(),
            };
            if next.starts_with("**") {
                required.push(name);
            }
            parameters.insert(name, values);
        }
        for model in code(&names) {
            models.push(model.to_owned());
            let facts = &published[model];
            assert_eq!(facts["required"], json!(required), "{model}");
            let known: Vec<&String> = facts["parameters"].as_object().unwrap().keys().collect();
            assert_eq!(parameters.keys().collect::<Vec<_>>(), known, "{model}");
            let mut request = VideoRequest::for_model(model);
            for name in &required {
                request = request.param(*name, parameters[name][0].clone());
            }
            for (name, values) in &parameters {
                if let Some(words) = facts["parameters"][name].get("enum") {
                    assert_eq!(words, &json!(values), "{model} {name}");
                }
                for value in values {
                    let request = request.clone().param(*name, value.clone());
                    let result = client.generate_video(&request);
                    assert!(result.is_ok(), "{model} {name} {value}: {result:?}");
                }
            }
            let result = client.generate_video(&request.param("fps", 24));
            assert!(matches!(result, Err(Error::Api(_))), "{model}: {result:?}");
        }
    }
    models.sort_unstable();
    assert_eq!(models, published.keys().copied().collect::<Vec<_>>());
}
