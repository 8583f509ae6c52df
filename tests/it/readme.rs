//! The README's tables say what the programs and the simulator do.

use std::{collections::BTreeMap, fs, path::Path};

use aimlapi_video::{Error, UNIVERSAL_ENDPOINT, VideoRequest, simulator::Simulator};
use serde_json::{Value, json};

use crate::support::{example, stderr, stdout};

const README: &str = include_str!("../../README.md");

/// The rows of the README's table whose first cell is this, split into cells.
fn table(title: &str) -> Vec<Vec<&'static str>> {
    let title = format!("| {title} |");
    let rows = README.lines().skip_while(|l| !l.starts_with(&title));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// A number, a truth value, or a string.
fn to_value(word: &str) -> Value {
    serde_json::from_str(word).unwrap_or_else(|_| json!(word))
}

/// What stands in backticks.
fn code(cell: &'static str) -> impl Iterator<Item = &'static str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn each_lesson_is_in_the_readme_and_has_help() {
    let mut names = Vec::new();
    for row in table("program") {
        let usage = code(row[0]).next().unwrap();
        let name = usage.split(' ').next().unwrap();
        if name == "build_script/" {
            continue;
        }
        names.push(format!("{name}.rs"));
        let help = example(name).arg("--help").output().unwrap();
        assert_eq!((help.status.code(), &*stderr(&help)), (Some(0), ""));
        assert!(stdout(&help).starts_with(&format!("usage: {usage}\n\n")));
        for wrong in [&["-x", "y", "z"][..], &["a", "b", "c", "-d"]] {
            let output = example(name).args(wrong).output().unwrap();
            assert_eq!((output.status.code(), &*stdout(&output)), (Some(2), ""));
            assert!(stderr(&output).starts_with(&format!("usage: {usage}\n")));
        }
    }
    names.sort();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = fs::read_dir(folder).unwrap();
    let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<_> = files.filter(|name| name.ends_with(".rs")).collect();
    files.sort();
    assert_eq!(names, files);
}

#[test]
fn the_models_in_the_readme_take_what_it_says_and_nothing_else() {
    let published: Vec<Value> =
        serde_json::from_str(include_str!("../../src/simulator/models.json")).unwrap();
    // Google's are the first.
    let published = published.iter().take(18);
    let published: BTreeMap<&str, &Value> = published
        .map(|model| (model["name"].as_str().unwrap(), model))
        .collect();
    let simulator = Simulator::start().unwrap();
    let builder = simulator.client_builder().endpoint(UNIVERSAL_ENDPOINT);
    let client = builder.build().unwrap();
    let mut samples: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for row in table("parameter") {
        let url = json!("https://example.com/a");
        let values = match row[1] {
            text if text.starts_with("an `https` URL") => vec![url],
            text if text.starts_with("a list") => vec![json!([url])],
            "a string" => vec![json!("a red paper boat")],
            "an integer" => vec![json!(7)],
            text => code(text).map(to_value).collect(),
        };
        samples.extend(code(row[0]).map(|name| (name, values.clone())));
    }
    let mut models = Vec::new();
    for row in table("model") {
        let mut required = vec!["prompt"];
        let mut parameters = BTreeMap::from([("prompt", samples["prompt"].clone())]);
        // `name` (value, value), **`name`**, `name`
        let words: Vec<&str> = row[1].split('`').collect();
        for at in (1..words.len()).step_by(2) {
            let (name, next) = (words[at], words[at + 1]);
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
        for model in code(row[0]) {
            models.push(model);
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
