//! What a response says about a generation.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::reply::{
    CLIENT_REQUEST_ID, CREDITS, Excerpt, Reply, USD, is_id, one_line, percent_encode,
};

/// The state of a generation, as a response to a POST or a GET describes it.
///
/// The fields are those of the published schema (`GET /v2/video/generations`) and of older
/// responses in the vendor's documentation. Everything else is in [`raw`](Self::raw).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
#[must_use]
pub struct Generation {
    /// The id, from `id`, `generation_id` or the header `x-inference-id`.
    pub id: String,
    /// How far the generation is.
    pub status: Status,
    /// The video, once there is one.
    pub video: Option<Video>,
    /// The server's error. One whose texts are all empty is none.
    pub error: Option<Failure>,
    /// What was charged, from the body's `meta.usage` or the response's headers.
    pub usage: Option<Usage>,
    /// The value of `X-Client-Request-Id`, for
    /// [`Client::find_generation_id`](crate::Client::find_generation_id).
    pub client_request_id: Option<String>,
    /// The whole response body.
    pub raw: Value,
    /// All that the response says about the cost, what can't be read included.
    #[serde(skip)]
    pub(crate) cost: Cost,
}

impl Generation {
    /// Whether the generation has ended.
    ///
    /// While the status is `waiting`, `queued`, `active` or `generating` it has not, whatever else
    /// the response has. With a status that this crate does not know it has ended once there is a
    /// video or an error.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        let has_outcome = self.video.is_some() || self.error.is_some();
        let is_pending = PENDING.contains(&self.status.as_str());
        self.status.is_final() || (has_outcome && !is_pending)
    }

    /// Reads a response. `asked` is the id that a GET asked about.
    pub(crate) fn read(reply: &Reply, asked: Option<&str>) -> Result<Self, String> {
        let read = || {
            let raw = reply.json().ok_or("it is not JSON")?;
            let is_other = |id: &str| !ids(&raw).any(|own| own == id) && ids(&raw).next().is_some();
            let id = match asked {
                None => named_id(&raw, reply).ok_or("it has no id")?,
                Some(id) if is_other(id) => return Err("it is about another generation"),
                Some(id) => id.to_owned(),
            };
            let status = raw.get("status").and_then(Value::as_str);
            let usage = Usage::read(&raw, reply);
            let video = Video::read(&raw["video"], &id, usage);
            let error = raw.get("error").and_then(Failure::read);
            if asked.is_some() && status.is_none() && video.is_none() && error.is_none() {
                return Err("it has neither status nor video nor error");
            }
            Ok(Generation {
                id,
                status: Status(status.unwrap_or_default().to_ascii_lowercase()),
                video,
                error,
                usage,
                client_request_id: reply.header(CLIENT_REQUEST_ID).map(str::to_owned),
                cost: Cost::of_response(&raw, reply),
                raw,
            })
        };
        read().map_err(|reason| reply.unexpected(reason))
    }

    /// Whether the response itself names this generation, and not only the request for it.
    pub(crate) fn names_itself(&self) -> bool {
        ids(&self.raw).any(|id| id == self.id)
    }

    /// The server's error; without one, how the response begins, since the reason may be anywhere
    /// in it.
    pub(crate) fn reason(&self) -> String {
        let raw = || Excerpt(&self.raw.to_string()).to_string();
        let reason = self.error.as_ref().map_or_else(raw, Failure::to_string);
        format!("status {}: {reason}", self.status)
    }
}

/// The id of the generation that a response names.
pub(crate) fn named_id(raw: &Value, reply: &Reply) -> Option<String> {
    let in_header = || reply.inference_id().map(str::to_owned);
    ids(raw).next().or_else(in_header)
}

/// The ids that a body names.
fn ids(raw: &Value) -> impl Iterator<Item = String> {
    let names = ["id", "generation_id"].into_iter();
    names.filter_map(|name| read_id(&raw[name]))
}

/// An id, which may be a number.
pub(crate) fn read_id(id: &Value) -> Option<String> {
    let id = match id {
        Value::String(id) => id.clone(),
        id => id.as_u64()?.to_string(),
    };
    is_id(&id).then_some(id)
}

/// The server's error about a generation: `error` in the response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Failure {
    /// Its `name`, if it has one.
    pub name: Option<String>,
    /// Its `message`; of errors of another shape, which older responses have, all that they say.
    pub message: Option<String>,
}

impl Failure {
    fn read(error: &Value) -> Option<Self> {
        let string = |value: &Value| match value {
            Value::String(text) if says_something(value) => Some(text.clone()),
            _ => None,
        };
        let name = string(&error["name"]);
        let whole = || match error {
            Value::Object(_) | Value::Array(_) if !says_something(error) => None,
            // A name alone says it all.
            Value::Object(_) | Value::Array(_) => name.is_none().then(|| error.to_string()),
            other => string(other),
        };
        let message = string(&error["message"]).or_else(whole);
        (name.is_some() || message.is_some()).then_some(Failure { name, message })
    }
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(items) => items.iter().any(says_something),
        Value::Object(fields) => fields.values().any(says_something),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, &self.message) {
            (Some(name), Some(message)) => write!(f, "{}: {}", Excerpt(name), Excerpt(message)),
            (Some(text), None) | (None, Some(text)) => Excerpt(text).fmt(f),
            (None, None) => Ok(()),
        }
    }
}

/// The status of a generation: the API's word, in lower case.
///
/// `waiting` and `queued` (not started), `active` and `generating` (in progress), `completed`
/// (final, with a video unless something, a safety filter say, removed it), and `error`, `failed`,
/// `cancelled`, `canceled`, `aborted`, `expired` and `rejected` (final, without a video). Empty if
/// the response has none.
///
/// ```
/// # use aimlapi_video::{VideoRequest, simulator::Simulator};
/// # let simulator = Simulator::start()?;
/// # let generation = simulator.client().generate_video(&VideoRequest::new("A fox"))?;
/// assert!(generation.status == "queued");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status(String);

const PENDING: [&str; 4] = ["waiting", "active", "queued", "generating"];

impl Status {
    /// Whether this status alone says that the generation has ended.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.is_failure() || *self == "completed" || *self == "expired"
    }

    /// Whether it says that the generation has failed.
    pub(crate) fn is_failure(&self) -> bool {
        let word = self.as_str();
        matches!(
            word,
            "error" | "failed" | "cancelled" | "canceled" | "aborted" | "rejected"
        )
    }

    /// The API's word, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Status {
    fn eq(&self, word: &str) -> bool {
        self.0 == word
    }
}

impl PartialEq<&str> for Status {
    fn eq(&self, word: &&str) -> bool {
        self.0 == *word
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&one_line(&self.0))
    }
}

/// A finished video: where it can be downloaded, and what it cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
#[must_use]
pub struct Video {
    /// The generation that made it.
    pub generation_id: String,
    /// Its URL, on another host than the API's, percent-encoded. It may be signed, and may expire.
    pub url: String,
    /// Its media type, if the response has it: `video/mp4`.
    pub content_type: Option<String>,
    /// Its name on the server, if the response has it. Not safe as a local path.
    pub file_name: Option<String>,
    /// Its size in bytes, if the response has it.
    pub file_size: Option<u64>,
    /// Its length in seconds, if the response has it (older responses do).
    pub duration: Option<f64>,
    /// What it cost, if the response says so.
    pub usage: Option<Usage>,
}

impl Video {
    fn read(video: &Value, generation_id: &str, usage: Option<Usage>) -> Option<Self> {
        let string = |name: &str| video.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Video {
            generation_id: generation_id.to_owned(),
            url: percent_encode(&string("url")?),
            content_type: string("content_type"),
            file_name: string("file_name"),
            file_size: video.get("file_size").and_then(Value::as_u64),
            duration: video.get("duration").and_then(Value::as_f64),
            usage,
        })
        .filter(|video| !video.url.is_empty())
    }
}

/// The cost of a generation, in credits and in US dollars.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// Credits: `credits_used`, or `tokens_used` in older responses.
    pub credits_used: Option<f64>,
    /// US dollars: `usd_spent`.
    pub usd_spent: Option<f64>,
}

impl Usage {
    /// The usage of these numbers, if any of them is one.
    pub(crate) fn new(credits_used: Option<f64>, usd_spent: Option<f64>) -> Option<Self> {
        credits_used.or(usd_spent)?;
        Some(Usage {
            credits_used,
            usd_spent,
        })
    }

    /// What the body's `meta.usage` says, and where it says nothing, the headers.
    fn read(raw: &Value, reply: &Reply) -> Option<Self> {
        let usage = &raw["meta"]["usage"];
        let header = |name| number(&reply.header(name).into());
        let credits = number(&usage["credits_used"]).or(number(&usage["tokens_used"]));
        let usd = number(&usage["usd_spent"]);
        Usage::new(credits.or(header(CREDITS)), usd.or(header(USD)))
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.credits_used, self.usd_spent) {
            (Some(credits), Some(usd)) => write!(f, "{usd} USD ({credits} credits)"),
            (Some(credits), None) => write!(f, "{credits} credits"),
            (None, Some(usd)) => write!(f, "{usd} USD"),
            (None, None) => Ok(()),
        }
    }
}

/// What a response says about the cost, in the order in which a later word counts more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cost {
    /// Nothing: it is left out, null or blank.
    #[default]
    Unsaid,
    /// Zero.
    Free,
    /// What is there is no number, or negative.
    Unreadable,
    /// A number above zero.
    Charged,
}

impl Cost {
    pub(crate) const ALL: [Cost; 4] = [Cost::Unsaid, Cost::Free, Cost::Unreadable, Cost::Charged];

    pub(crate) fn read(value: &Value) -> Self {
        match (value, number(value)) {
            (Value::Null, _) => Cost::Unsaid,
            (Value::String(text), _) if text.trim().is_empty() => Cost::Unsaid,
            (_, Some(0.0)) => Cost::Free,
            (_, Some(0.0..)) => Cost::Charged,
            _ => Cost::Unreadable,
        }
    }

    /// The highest cost that the body or the headers name.
    pub(crate) fn of_response(raw: &Value, reply: &Reply) -> Self {
        let names = ["credits_used", "tokens_used", "usd_spent"];
        let in_body = match &raw["meta"]["usage"] {
            usage @ Value::Object(_) => names.map(|name| Cost::read(&usage[name])),
            usage => [Cost::read(usage); 3],
        };
        let in_headers = [CREDITS, USD].map(|name| Cost::read(&reply.header(name).into()));
        in_headers
            .into_iter()
            .chain(in_body)
            .max()
            .unwrap_or_default()
    }
}

/// A number, or a string that is one.
pub(crate) fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64(),
    };
    // Rust parses "NaN" and "inf" as numbers, too.
    number.filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_zero_is_free_and_what_cannot_be_read_is_not() {
        let cases = [
            (json!(null), Cost::Unsaid),
            (json!(" "), Cost::Unsaid),
            (json!(0), Cost::Free),
            (json!(-0.0), Cost::Free),
            (json!("0.00"), Cost::Free),
            (json!(1e-9), Cost::Charged),
            (json!("3.2"), Cost::Charged),
            (json!(-1), Cost::Unreadable),
            (json!("3,2 USD"), Cost::Unreadable),
            (json!("NaN"), Cost::Unreadable),
            (json!("inf"), Cost::Unreadable),
            (json!(false), Cost::Unreadable),
            (json!([]), Cost::Unreadable),
        ];
        for (value, cost) in cases {
            assert_eq!(Cost::read(&value), cost, "{value}");
        }
    }

    #[test]
    fn the_highest_cost_of_body_and_headers_counts() {
        let cases = [
            (json!({}), None, Cost::Unsaid),
            (json!({"meta": {"usage": null}}), Some("0"), Cost::Free),
            (
                json!({"meta": {"usage": {"credits_used": 0, "usd_spent": "0.1"}}}),
                None,
                Cost::Charged,
            ),
            (
                json!({"meta": {"usage": {"credits_used": 0}}}),
                Some("5"),
                Cost::Charged,
            ),
            (
                json!({"meta": {"usage": {"tokens_used": 7}}}),
                Some("0"),
                Cost::Charged,
            ),
            (
                json!({"meta": {"usage": {"credits_used": "?"}}}),
                Some("0"),
                Cost::Unreadable,
            ),
            (json!({"meta": {"usage": "a lot"}}), None, Cost::Unreadable),
            (json!({"meta": 5}), None, Cost::Unsaid),
        ];
        for (raw, header, cost) in cases {
            let headers = header.map(|value: &str| (USD, value.to_owned()));
            let headers = headers.into_iter().collect();
            let reply = Reply {
                headers,
                ..Reply::default()
            };
            assert_eq!(Cost::of_response(&raw, &reply), cost, "{raw} {header:?}");
        }
    }
}
