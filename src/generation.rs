//! What a response says about a generation.

use std::{borrow::Cow, fmt};

use serde::Serialize;
use serde_json::Value;

use crate::reply::{
    CLIENT_REQUEST_ID, CREDITS_USED, Excerpt, Reply, USD_SPENT, is_id, one_line, percent_encode,
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
        self.status.is_final() || (has_outcome && !self.status.is_pending())
    }

    /// Reads a response. `asked` is the id that a GET asked about.
    pub(crate) fn read(reply: &Reply, asked: Option<&str>) -> Result<Self, String> {
        let read = || {
            let raw = reply.json().ok_or("it is not JSON")?;
            let id = find_id(&raw, asked, reply)?;
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
        match &self.error {
            Some(error) => format!("status {}: {error}", self.status),
            None => format!("status {}: {}", self.status, Excerpt(&self.raw.to_string())),
        }
    }
}

fn find_id(raw: &Value, asked: Option<&str>, reply: &Reply) -> Result<String, &'static str> {
    let mut ids = ids(raw).peekable();
    let Some(asked) = asked else {
        let in_header = || reply.inference_id().map(str::to_owned);
        let id = ids.next().map(Cow::into_owned).or_else(in_header);
        return id.ok_or("it has no id");
    };
    match ids.peek().is_some() && !ids.any(|id| id == asked) {
        true => Err("it is about another generation"),
        false => Ok(asked.to_owned()),
    }
}

/// The ids that a body names.
pub(crate) fn ids(raw: &Value) -> impl Iterator<Item = Cow<'_, str>> {
    ["id", "generation_id"]
        .map(|name| read_id(&raw[name]))
        .into_iter()
        .flatten()
}

/// An id, which may be a number.
pub(crate) fn read_id(id: &Value) -> Option<Cow<'_, str>> {
    let id = match id {
        Value::String(id) => Cow::Borrowed(id.as_str()),
        Value::Number(id) => Cow::Owned(id.as_u64()?.to_string()),
        _ => return None,
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
        let string = |name: &str| match error.get(name) {
            Some(Value::String(text)) if !text.trim().is_empty() => Some(text.clone()),
            _ => None,
        };
        let (name, mut message) = (string("name"), string("message"));
        if message.is_none() && says_something(error) {
            message = match error {
                Value::String(text) => Some(text.clone()),
                // A name alone says it all.
                Value::Object(_) if name.is_some() => None,
                Value::Object(_) | Value::Array(_) => Some(error.to_string()),
                _ => None,
            };
        }
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
const FAILURES: [&str; 6] = [
    "error",
    "failed",
    "cancelled",
    "canceled",
    "aborted",
    "rejected",
];

impl Status {
    /// Whether this status alone says that the generation has ended.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.is_failure() || ["completed", "expired"].contains(&self.as_str())
    }

    /// Whether it says that the generation has not ended.
    fn is_pending(&self) -> bool {
        PENDING.contains(&self.as_str())
    }

    /// Whether it says that the generation has failed.
    pub(crate) fn is_failure(&self) -> bool {
        FAILURES.contains(&self.as_str())
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
        let usage = Usage {
            credits_used,
            usd_spent,
        };
        (credits_used.is_some() || usd_spent.is_some()).then_some(usage)
    }

    /// What the body's `meta.usage` says, and where it says nothing, the headers.
    fn read(raw: &Value, reply: &Reply) -> Option<Self> {
        let usage = &raw["meta"]["usage"];
        let header = |name| parse_number(reply.header(name)?);
        let credits = number(&usage["credits_used"]).or(number(&usage["tokens_used"]));
        Usage::new(
            credits.or(header(CREDITS_USED)),
            number(&usage["usd_spent"]).or(header(USD_SPENT)),
        )
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
        match value {
            Value::Null => Cost::Unsaid,
            Value::String(text) => Cost::parse(text),
            other => Cost::of_number(number(other)),
        }
    }

    fn parse(text: &str) -> Self {
        match text.trim() {
            "" => Cost::Unsaid,
            text => Cost::of_number(parse_number(text)),
        }
    }

    fn of_number(number: Option<f64>) -> Self {
        match number {
            Some(0.0) => Cost::Free,
            Some(number) if number > 0.0 => Cost::Charged,
            _ => Cost::Unreadable,
        }
    }

    /// The highest cost that the body or the headers name.
    pub(crate) fn of_response(raw: &Value, reply: &Reply) -> Self {
        let in_body = match raw.get("meta").and_then(|meta| meta.get("usage")) {
            Some(Value::Object(usage)) => {
                let names = ["credits_used", "tokens_used", "usd_spent"];
                let costs = names
                    .iter()
                    .filter_map(|name| usage.get(*name))
                    .map(Cost::read);
                costs.max().unwrap_or_default()
            }
            usage => usage.map(Cost::read).unwrap_or_default(),
        };
        let headers = [CREDITS_USED, USD_SPENT].into_iter();
        let in_headers = headers
            .filter_map(|name| reply.header(name))
            .map(Cost::parse);
        in_headers.fold(in_body, Cost::max)
    }
}

/// A number, or a string that is one.
pub(crate) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64().filter(|number| number.is_finite()),
        Value::String(text) => parse_number(text),
        _ => None,
    }
}

/// Rust parses "NaN" and "inf" as numbers, too.
fn parse_number(text: &str) -> Option<f64> {
    text.trim()
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
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
            let headers = header.map(|value: &str| (USD_SPENT, value.to_owned()));
            let headers = headers.into_iter().collect();
            let reply = Reply {
                headers,
                ..Reply::default()
            };
            assert_eq!(Cost::of_response(&raw, &reply), cost, "{raw} {header:?}");
        }
    }
}
