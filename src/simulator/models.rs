//! What is published: the names of all models, and what their schemas allow.
//!
//! `models.json` is made of the vendor's own schemas, a model a line: its name, its endpoint, and its
//! parameters with the keywords that `allows` reads. `x-case-insensitive` is what the vendor's prose
//! alone says, and the last lines are other spellings that are published, too.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::response::cut;
use crate::settings::{UNIVERSAL_ENDPOINT, VEO_ENDPOINT};

#[derive(Deserialize)]
struct Model {
    name: String,
    path: String,
    required: Vec<String>,
    parameters: Map<String, Value>,
}

/// All models that are published, as of August 2026. Google's are the first.
static PUBLISHED: LazyLock<Vec<Model>> = LazyLock::new(|| {
    let models = serde_json::from_str(include_str!("models.json"));
    models.expect("a test reads it")
});

/// "When using last_image_url, the duration can only be 8s", says this model's schema alone.
const LITE_PREVIEW: &str = "google/veo-3-1-lite-generate-preview";

/// Checks a request's body. The error is a hint for the response.
pub(super) fn check(path: &str, body: &Map<String, Value>) -> Result<(), String> {
    let received = body.get("model");
    let name = received.and_then(Value::as_str);
    let name = name.ok_or_else(|| hint("model", "string", received))?;
    let mut models = PUBLISHED.iter();
    let Some(model) = models.find(|model| model.name == name) else {
        let expected = format!("a published model, such as {:?}", nearest(name));
        return Err(hint("model", &expected, received));
    };
    if path != model.path && !(is_common(path) && is_common(&model.path)) {
        let expected = format!("a model of this URL, not one of {}", model.path);
        return Err(hint("model", &expected, received));
    }
    model.check(body)
}

pub(super) fn is_endpoint(path: &str) -> bool {
    is_common(path) || PUBLISHED.iter().any(|model| model.path == path)
}

/// Whether it is one of the two endpoints that serve nearly all models.
fn is_common(path: &str) -> bool {
    let endpoint = path.strip_prefix("/v2/").unwrap_or_default();
    [VEO_ENDPOINT, UNIVERSAL_ENDPOINT].contains(&endpoint)
}

impl Model {
    fn check(&self, body: &Map<String, Value>) -> Result<(), String> {
        for (name, value) in body.iter().filter(|(name, _)| *name != "model") {
            let Some(schema) = self.parameters.get(name) else {
                return Err(hint(name, &self.no_such(name), Some(value)));
            };
            if !allows(schema, value) {
                return Err(hint(name, &expected(schema), Some(value)));
            }
        }
        let mut required = self.required.iter();
        if let Some(name) = required.find(|name| !body.contains_key(*name)) {
            let schema = self.parameters.get(name).unwrap_or(&Value::Null);
            return Err(hint(name, &expected(schema), None));
        }
        let duration = body.get("duration").filter(|seconds| **seconds != 8);
        if self.name == LITE_PREVIEW && duration.is_some() && body.contains_key("last_image_url") {
            let expected = "8, the only one with last_image_url";
            return Err(hint("duration", expected, duration));
        }
        Ok(())
    }

    /// What is expected instead of this parameter. For an image or a video, that names the model to
    /// take: the first that needs one, or else the first that takes one.
    fn no_such(&self, name: &str) -> String {
        let names: Vec<&str> = self.parameters.keys().map(String::as_str).collect();
        let only = format!("no such parameter, only {}", names.join(", "));
        let needs = |model: &&Model| model.required.iter().any(|known| known == name);
        let takes = |model: &&Model| model.parameters.contains_key(name);
        let model = (PUBLISHED.iter().find(needs)).or_else(|| PUBLISHED.iter().find(takes));
        match model.filter(|_| name.ends_with("_url") || name.ends_with("_urls")) {
            Some(model) => format!("{only} ({} takes {name})", model.name),
            None => only,
        }
    }
}

/// Whether a value is what a parameter's schema allows. A keyword that is not there allows all.
fn allows(schema: &Value, value: &Value) -> bool {
    let size = match value {
        Value::String(text) => Some(text.chars().count() as f64),
        Value::Array(items) => Some(items.len() as f64),
        _ => value.as_f64(),
    };
    let is_any_case = schema["x-case-insensitive"] == true;
    let is_same = |word: &Value| match (word.as_str(), value.as_str()) {
        (Some(word), Some(text)) if is_any_case => word.eq_ignore_ascii_case(text),
        _ => word == value,
    };
    let is_item = |item| allows(&schema["items"], item);
    let mut keywords = schema.as_object().into_iter().flatten();
    keywords.all(|(keyword, bound)| match (&**keyword, value) {
        ("type", _) => is_type(bound, value),
        ("enum", _) => bound.as_array().into_iter().flatten().any(is_same),
        ("minimum" | "minLength" | "minItems", _) => size >= bound.as_f64(),
        ("maximum" | "maxLength" | "maxItems", _) => size <= bound.as_f64(),
        ("items", Value::Array(items)) => items.iter().all(is_item),
        ("format", Value::String(text)) => is_url(text),
        _ => true,
    })
}

fn is_type(name: &Value, value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) => name == "boolean",
        Value::Number(number) => name == "number" || (name == "integer" && !number.is_f64()),
        Value::String(_) => name == "string",
        Value::Array(_) => name == "array",
        Value::Object(_) => name == "object",
    }
}

/// What a schema allows, in words.
fn expected(schema: &Value) -> String {
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words.iter().map(Value::to_string).collect();
        return words.join(", ");
    }
    let mut text = match schema["type"].as_str().unwrap_or("any value") {
        _ if schema["format"] == "uri" => "a URL (https://…) or a data URL, without white space",
        "array" if schema["items"]["format"] == "uri" => "array of URLs or data URLs",
        name => name,
    }
    .to_owned();
    let keywords = schema.as_object().into_iter().flatten();
    for (keyword, bound) in keywords.filter(|(keyword, _)| keyword.starts_with('m')) {
        text += &format!(", {keyword} {bound}");
    }
    text
}

fn is_url(text: &str) -> bool {
    let start = cut(text, 8).to_ascii_lowercase();
    let schemes = ["https://", "http://", "gs://", "data:"];
    let has = |scheme: &&str| start.starts_with(*scheme) && text.len() > scheme.len();
    schemes.iter().any(has) && !text.contains(|c: char| c.is_ascii_whitespace())
}

fn hint(parameter: &str, expected: &str, received: Option<&Value>) -> String {
    let received = received.map_or_else(|| "undefined".to_owned(), Value::to_string);
    let received = cut(&received, 300);
    format!("{parameter}: Expected {expected}, received {received}")
}

/// The published name that differs least.
fn nearest(name: &str) -> &'static str {
    // No published name is longer than this.
    let start = &name.as_bytes()[..name.len().min(100)];
    let names = PUBLISHED.iter().map(|model| &*model.name);
    let nearest = names.min_by_key(|known| distance(known.as_bytes(), start));
    nearest.unwrap_or_default()
}

/// How many bytes have to be added, removed or replaced.
fn distance(one: &[u8], other: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}
