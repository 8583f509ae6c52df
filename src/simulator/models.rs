//! What is published: the names of all models, and the schemas of Google's.
//!
//! `models.txt` has a line for each model: its name, `@` and its endpoint if that is not the
//! universal one, and its parameters if its schema is known. `!` marks those that are required.

use serde_json::{Map, Value};

use crate::UNIVERSAL_ENDPOINT;

#[derive(Clone, Copy)]
struct Model {
    name: &'static str,
    endpoint: &'static str,
    parameters: &'static str,
}

struct Parameter {
    name: &'static str,
    is_required: bool,
    kind: &'static str,
}

/// "When using last_image_url, the duration can only be 8s", says this model's schema alone.
const LITE_PREVIEW: &str = "google/veo-3-1-lite-generate-preview";

/// Checks a request's body, and gives the model's name. The error is a hint for the response.
pub(super) fn check<'a>(
    endpoint: &str,
    body: &'a Map<String, Value>,
    is_allowed: impl Fn(&str) -> bool,
) -> Result<&'a str, String> {
    let received = body.get("model");
    let name = received.and_then(Value::as_str);
    let name = name.ok_or_else(|| hint("model", "string", received))?;
    if is_allowed(name) {
        return Ok(name);
    }
    let Some(model) = published().find(|model| model.name == name) else {
        // No published name is longer than this.
        let start = &name.as_bytes()[..name.len().min(100)];
        let nearest = published().min_by_key(|model| distance(model.name.as_bytes(), start));
        let expected = nearest.map_or("", |model| model.name);
        return Err(hint(
            "model",
            &format!("a published model, such as {expected:?}"),
            received,
        ));
    };
    if (is_special(endpoint) || is_special(model.endpoint)) && endpoint != model.endpoint {
        let expected = format!("a model of this URL, not one of /v2/{}", model.endpoint);
        return Err(hint("model", &expected, received));
    }
    if !model.parameters.is_empty() {
        model.check(body)?;
    }
    Ok(name)
}

/// Whether the endpoint has models that no other endpoint has.
pub(super) fn is_special(endpoint: &str) -> bool {
    endpoint != UNIVERSAL_ENDPOINT && published().any(|model| model.endpoint == endpoint)
}

/// All models that are published, as of August 2026.
fn published() -> impl Iterator<Item = Model> {
    include_str!("models.txt").lines().map(|line| {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        match rest.strip_prefix('@') {
            Some(endpoint) => Model {
                name,
                endpoint,
                parameters: "",
            },
            None => Model {
                name,
                endpoint: UNIVERSAL_ENDPOINT,
                parameters: rest,
            },
        }
    })
}

impl Model {
    fn check(&self, body: &Map<String, Value>) -> Result<(), String> {
        for (name, value) in body.iter().filter(|(name, _)| *name != "model") {
            let Some(parameter) = self.parameters().find(|known| known.name == name) else {
                let names: Vec<&str> = self.parameters().map(|known| known.name).collect();
                let mut expected = format!("no such parameter, only {}", names.join(", "));
                if let Some(other) = model_for(name) {
                    expected += &format!(" ({other} takes {name})");
                }
                return Err(hint(name, &expected, Some(value)));
            };
            if !parameter.allows(value) {
                return Err(hint(name, &parameter.expected(), Some(value)));
            }
        }
        for parameter in self.parameters() {
            if parameter.is_required && !body.contains_key(parameter.name) {
                return Err(hint(parameter.name, &parameter.expected(), None));
            }
        }
        let duration = body.get("duration").filter(|seconds| **seconds != 8);
        if self.name == LITE_PREVIEW && duration.is_some() && body.contains_key("last_image_url") {
            return Err(hint(
                "duration",
                "8, the only one with last_image_url",
                duration,
            ));
        }
        Ok(())
    }

    fn parameters(&self) -> impl Iterator<Item = Parameter> {
        self.parameters.split(' ').filter_map(|text| {
            let (name, kind) = text.split_once(':')?;
            let required = name.strip_suffix('!');
            Some(Parameter {
                name: required.unwrap_or(name),
                is_required: required.is_some(),
                kind,
            })
        })
    }
}

/// The model to take for an image or a video: the first that needs one, or else the first that
/// takes one.
fn model_for(name: &str) -> Option<&'static str> {
    let takes = |model: &Model, needs: bool| {
        let mut found = model.parameters().filter(|known| known.name == name);
        found.any(|known| known.kind.starts_with("url") && known.is_required >= needs)
    };
    let find = |needs: bool| published().find(|model| takes(model, needs));
    find(true).or_else(|| find(false)).map(|model| model.name)
}

impl Parameter {
    fn allows(&self, value: &Value) -> bool {
        let text = value.as_str();
        match self.kind {
            "text" => text.is_some_and(|text| !text.is_empty()),
            "string" => value.is_string(),
            "url" => text.is_some_and(is_url),
            "integer" => value.is_i64() || value.is_u64(),
            "boolean" => value.is_boolean(),
            kind if kind.starts_with("urls") => value.as_array().is_some_and(|urls| {
                let is_url = |value: &Value| value.as_str().is_some_and(is_url);
                (1..=self.at_most()).contains(&urls.len()) && urls.iter().all(is_url)
            }),
            // Published as case-insensitive, unlike all others.
            words if self.name == "provider" => text
                .is_some_and(|text| words.split('|').any(|word| word.eq_ignore_ascii_case(text))),
            words => words.split('|').any(|word| to_value(word) == *value),
        }
    }

    fn expected(&self) -> String {
        match self.kind {
            "text" => "a string that is not empty".to_owned(),
            "url" => "a URL (https://…) or a data URL, without white space".to_owned(),
            "string" | "boolean" => format!("a {}", self.kind),
            "integer" => "an integer".to_owned(),
            kind if kind.starts_with("urls") => match self.at_most() {
                usize::MAX => "a list of one or more URLs or data URLs".to_owned(),
                at_most => format!("a list of 1 to {at_most} URLs or data URLs"),
            },
            words => words
                .split('|')
                .map(|word| to_value(word).to_string())
                .collect::<Vec<_>>()
                .join(", "),
        }
    }

    fn at_most(&self) -> usize {
        let bound = self
            .kind
            .strip_prefix("urls<=")
            .and_then(|bound| bound.parse().ok());
        bound.unwrap_or(usize::MAX)
    }
}

/// A word as JSON: an integer or a string.
fn to_value(word: &str) -> Value {
    word.parse::<u64>()
        .map_or_else(|_| word.into(), Value::from)
}

fn is_url(text: &str) -> bool {
    let has_scheme = |scheme: &&str| {
        let start = text.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme)) && text.len() > scheme.len()
    };
    let schemes = ["https://", "http://", "gs://", "data:"];
    schemes.iter().any(has_scheme) && !text.bytes().any(|byte| byte.is_ascii_whitespace())
}

fn hint(parameter: &str, expected: &str, received: Option<&Value>) -> String {
    let mut received = received.map_or_else(|| "undefined".to_owned(), Value::to_string);
    if let Some((end, _)) = received.char_indices().nth(300) {
        received.truncate(end);
        received.push('…');
    }
    format!("{parameter}: Expected {expected}, received {received}")
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
