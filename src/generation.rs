use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The response header that the vendor documents as the generation's id.
pub(crate) const INFERENCE_ID: &str = "x-inference-id";

/// The state of a generation, as a response to a POST or a GET describes it.
///
/// The fields are those of the published schema (`GET /v2/video/generations`) and of older
/// responses in the vendor's documentation. Everything else is in [`raw`](Self::raw).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Generation {
    /// The id, from `id`, `generation_id` or the header `x-inference-id`.
    pub id: String,
    /// How far the generation is.
    pub status: Status,
    /// The video, once there is one.
    pub video: Option<Video>,
    /// The server's error, as `name: message`.
    pub error: Option<String>,
    /// What was charged, from the body's `meta.usage` or the response's headers.
    pub usage: Option<Usage>,
    /// The value of `X-Client-Request-Id`, for
    /// [`Client::find_generation`](crate::Client::find_generation).
    pub client_request_id: Option<String>,
    /// The whole response body.
    pub raw: Value,
}

impl Generation {
    /// Whether the generation has ended: with a video, with an error, or with a final status.
    ///
    /// A status that this crate does not know is not final.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.video.is_some() || self.error.is_some() || self.status.is_final()
    }

    /// Reads a response. `asked` is the id that a GET asked about.
    pub(crate) fn new<'h>(
        raw: Value,
        asked: Option<&str>,
        header: &dyn Fn(&str) -> Option<&'h str>,
    ) -> Result<Self, String> {
        let id = match asked {
            Some(asked) if ids(&raw).next().is_none() || ids(&raw).any(|id| id == asked) => {
                asked.into()
            }
            Some(_) => return Err("it is about another generation".to_owned()),
            None => match ids(&raw).next() {
                Some(id) => id.into_owned(),
                None => header(INFERENCE_ID)
                    .filter(|id| is_id(id))
                    .ok_or("it has no id")?
                    .to_owned(),
            },
        };
        let usage = Usage::from_response(&raw, header);
        let video = raw.get("video");
        let status = raw.get("status").and_then(Value::as_str);
        let has_status = status.is_some();
        let status = Status(status.unwrap_or_default().to_ascii_lowercase());
        let generation = Generation {
            status,
            video: video.and_then(|video| Video::from_json(video, &id, usage)),
            error: raw.get("error").and_then(error_text),
            usage,
            client_request_id: header("x-client-request-id").map(str::to_owned),
            id,
            raw,
        };
        if asked.is_some() && !has_status && !generation.is_finished() {
            return Err("it has neither status nor video nor error".to_owned());
        }
        Ok(generation)
    }

    /// Whether the response itself names this generation, and not only the request for it.
    pub(crate) fn names_itself(&self) -> bool {
        ids(&self.raw).any(|id| id == self.id)
    }
}

fn ids(raw: &Value) -> impl Iterator<Item = Cow<'_, str>> {
    let id = |name: &str| match &raw[name] {
        Value::String(id) => Some(Cow::Borrowed(id.as_str())),
        Value::Number(id) => id.as_u64().map(|id| Cow::Owned(id.to_string())),
        _ => None,
    };
    let ids = ["id", "generation_id"].into_iter().filter_map(id);
    ids.filter(|id| is_id(id))
}

/// Whether a generation can be asked for by this id: it has to fit into a URL and into one line.
pub(crate) fn is_id(id: &str) -> bool {
    id.len() <= 1000 && !id.trim().is_empty() && !id.contains(char::is_control)
}

/// Older responses have errors of any type: an empty one is none.
fn error_text(error: &Value) -> Option<String> {
    let field = |name: &str| error.get(name).and_then(Value::as_str);
    let text = match (field("name"), field("message"), error) {
        (Some(name), Some(message), _) => format!("{name}: {message}"),
        (_, Some(message), _) => message.to_owned(),
        (_, _, Value::String(message)) => message.clone(),
        (_, _, Value::Object(fields)) if !fields.is_empty() => error.to_string(),
        (_, _, Value::Array(items)) if !items.is_empty() => error.to_string(),
        _ => String::new(),
    };
    Some(text).filter(|text| !text.is_empty())
}

/// The `status` of a generation: the API's word, in lower case.
///
/// `waiting` and `queued` (not started), `active` and `generating` (in progress), `completed`
/// (final, with a video unless something, a safety filter say, removed it), and `error`, `failed`,
/// `cancelled`, `canceled`, `aborted`, `expired` and `rejected` (final, without a video). Any other
/// word is not final. Empty if the response has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status(String);

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

    /// Whether it has ended and made no video, ever.
    pub(crate) fn is_failure(&self) -> bool {
        FAILURES.contains(&self.as_str())
    }

    /// The API's word, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A finished video: where it can be downloaded, and what it cost.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Video {
    /// The generation that made it.
    pub generation_id: String,
    /// Its URL, on another host than the API's. It may be signed, and may expire.
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
    fn from_json(video: &Value, generation_id: &str, usage: Option<Usage>) -> Option<Self> {
        let string = |name: &str| video.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Video {
            generation_id: generation_id.to_owned(),
            url: string("url").filter(|url| !url.is_empty())?,
            content_type: string("content_type"),
            file_name: string("file_name"),
            file_size: video.get("file_size").and_then(Value::as_u64),
            duration: video.get("duration").and_then(Value::as_f64),
            usage,
        })
    }
}

/// The cost of a generation, in credits and in US dollars.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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
        // Rust parses a header's "NaN" and "inf" as numbers, too.
        let [credits_used, usd_spent] =
            [credits_used, usd_spent].map(|number| number.filter(|number| number.is_finite()));
        (credits_used.or(usd_spent)).map(|_| Usage {
            credits_used,
            usd_spent,
        })
    }

    pub(crate) fn is_free(self) -> bool {
        [self.credits_used, self.usd_spent]
            .iter()
            .all(|cost| cost.unwrap_or(0.0) <= 0.0)
    }

    /// What the body's `meta.usage` says, and where it says nothing, the headers.
    fn from_response<'h>(raw: &Value, header: &dyn Fn(&str) -> Option<&'h str>) -> Option<Self> {
        let usage = &raw["meta"]["usage"];
        let in_body = |name: &str| usage[name].as_f64();
        let in_header = |name: &str| header(name)?.parse().ok();
        let credits = in_body("credits_used").or(in_body("tokens_used"));
        Usage::new(
            credits.or(in_header("x-aimlapi-credits-used")),
            in_body("usd_spent").or(in_header("x-aimlapi-usd-spent")),
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
