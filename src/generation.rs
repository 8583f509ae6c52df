use std::{fmt, str::FromStr};

use serde_json::Value;

use crate::error::{Error, NOT_JSON};

/// What the API says of a generation: the answer to a POST or to a GET.
///
/// Fields are those of the published schema (`GET /v2/video/generations`) and of the older answers
/// in the vendor's transcripts. What this type has no field for is in [`raw`](Self::raw).
///
/// ```
/// let answer = r#"{
///     "id": "df43:veo3",
///     "status": "completed",
///     "video": {"url": "https://cdn.example/v.mp4"}
/// }"#;
/// let generation: aimlapi_video::Generation = answer.parse()?;
/// assert!(generation.is_finished());
/// assert_eq!(generation.video.unwrap().url, "https://cdn.example/v.mp4");
/// # Ok::<(), aimlapi_video::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Generation {
    /// The id, from `id` or `generation_id`.
    pub id: String,
    /// How the generation stands.
    pub status: Status,
    /// Where the video is, once there is one.
    pub video: Option<Video>,
    /// What went wrong, if something did.
    pub error: Option<Failure>,
    /// What was charged, from the body's `meta.usage` or the answer's headers.
    pub usage: Option<Usage>,
    /// The id that the request was sent with: as sent, or from the answer's `X-Client-Request-Id` header.
    pub client_request_id: Option<String>,
    /// The whole answer.
    pub raw: Value,
}

impl Generation {
    /// Whether the generation is over, well or badly.
    ///
    /// It is when it has a video or an error, or a status that says so. A status word that this
    /// crate does not know is not taken for an end.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.video.is_some() || self.error.is_some() || self.status.is_final()
    }

    /// Whether this, as the answer to a poll, tells how the generation stands.
    pub(crate) fn tells_how_it_stands(&self) -> bool {
        self.raw.get("status").is_some_and(Value::is_string) || self.video.is_some() || self.error.is_some()
    }

    /// Reads an answer; `known_id` is the id where the answer itself has none.
    pub(crate) fn from_json(raw: Value, known_id: Option<&str>) -> Result<Self, (&'static str, Value)> {
        let text = |name: &str| raw.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let Some(id) = text("id").or(text("generation_id")).or(known_id).map(str::to_owned) else {
            return Err(("it has no id", raw));
        };
        Ok(Generation {
            status: raw.get("status").and_then(Value::as_str).unwrap_or_default().into(),
            video: raw.get("video").and_then(|video| Video::from_json(video, &id)),
            error: raw.get("error").and_then(Failure::from_json),
            usage: raw.get("meta").and_then(|meta| meta.get("usage")).and_then(Usage::from_json),
            client_request_id: None,
            id,
            raw,
        })
    }
}

impl FromStr for Generation {
    type Err = Error;

    /// Reads a stored answer.
    ///
    /// # Errors
    /// [`Error::UnexpectedAnswer`] if the text is not JSON, or has no id.
    fn from_str(text: &str) -> Result<Self, Error> {
        serde_json::from_str(text)
            .map_err(|_| NOT_JSON)
            .and_then(|raw| Generation::from_json(raw, None).map_err(|(reason, _)| reason))
            .map_err(|reason| Error::UnexpectedAnswer { generation_id: None, reason, body: text.to_owned() })
    }
}

/// The API's word for how a generation stands, in any letter case.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// `waiting`: not begun.
    Waiting,
    /// `active`: being made.
    Active,
    /// `queued`: not begun.
    Queued,
    /// `generating`: being made.
    Generating,
    /// `completed`: over, with a video unless something (a safety filter, say) took it.
    Completed,
    /// `error`: over, without a video.
    Error,
    /// `failed`: over, without a video.
    Failed,
    /// `cancelled` or `canceled`: over, without a video.
    Cancelled,
    /// `aborted`: over, without a video.
    Aborted,
    /// `expired`: over, without a video.
    Expired,
    /// `rejected`: over, without a video.
    Rejected,
    /// A word that this crate does not know, as the server wrote it; empty if there was none.
    Unknown(String),
}

static WORDS: [(&str, Status); 12] = [
    ("waiting", Status::Waiting),
    ("active", Status::Active),
    ("queued", Status::Queued),
    ("generating", Status::Generating),
    ("completed", Status::Completed),
    ("error", Status::Error),
    ("failed", Status::Failed),
    ("cancelled", Status::Cancelled),
    ("canceled", Status::Cancelled),
    ("aborted", Status::Aborted),
    ("expired", Status::Expired),
    ("rejected", Status::Rejected),
];

impl Status {
    /// Whether this word alone says that the generation is over.
    #[must_use]
    pub fn is_final(&self) -> bool {
        use Status::{Active, Generating, Queued, Unknown, Waiting};
        !matches!(self, Waiting | Active | Queued | Generating | Unknown(_))
    }

    /// The API's word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Status::Unknown(word) => word,
            known => WORDS.iter().find(|(_, status)| status == known).map_or("", |(word, _)| word),
        }
    }
}

impl From<&str> for Status {
    fn from(word: &str) -> Self {
        let lower = word.to_ascii_lowercase();
        let known = WORDS.iter().find(|(known, _)| *known == lower);
        known.map_or_else(|| Status::Unknown(word.to_owned()), |(_, status)| status.clone())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A finished video, at the address where it can be fetched.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Video {
    /// The generation that made it.
    pub generation_id: String,
    /// Its address, on a host other than the API's; may be signed, and may expire.
    pub url: String,
    /// Its media type, if the answer names it: `video/mp4`.
    pub content_type: Option<String>,
    /// Its name at the server, if the answer names it. Not safe as a local path.
    pub file_name: Option<String>,
    /// Its size in bytes, if the answer names it.
    pub file_size: Option<u64>,
    /// Its length in seconds, if the answer names it (older answers do).
    pub duration: Option<f64>,
}

impl Video {
    fn from_json(video: &Value, generation_id: &str) -> Option<Self> {
        let text = |name: &str| video.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Video {
            generation_id: generation_id.to_owned(),
            url: text("url").filter(|url| !url.is_empty())?,
            content_type: text("content_type"),
            file_name: text("file_name"),
            file_size: video.get("file_size").and_then(Value::as_u64),
            duration: video.get("duration").and_then(Value::as_f64),
        })
    }
}

/// Why a generation failed, in the server's words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The error's name; empty if the server gave none.
    pub name: String,
    /// The error's message; the whole error as JSON where it has another shape (older answers).
    pub message: String,
}

impl Failure {
    fn from_json(error: &Value) -> Option<Self> {
        let text = |name: &str| error.get(name).and_then(Value::as_str).map(str::to_owned);
        let message = match error {
            Value::Null | Value::Bool(_) | Value::Number(_) => return None,
            Value::Object(fields) if fields.is_empty() => return None,
            Value::Array(items) if items.is_empty() => return None,
            Value::String(message) if message.is_empty() => return None,
            Value::String(message) => message.clone(),
            other => text("message").unwrap_or_else(|| other.to_string()),
        };
        Some(Failure { name: text("name").unwrap_or_default(), message })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.name.is_empty() { "" } else { ": " };
        write!(f, "{}{separator}{}", self.name, self.message)
    }
}

/// What a generation was charged.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// Credits: `credits_used`, or `tokens_used` in older answers.
    pub credits_used: Option<f64>,
    /// US dollars.
    pub usd_spent: Option<f64>,
}

impl Usage {
    pub(crate) fn new(credits_used: Option<f64>, usd_spent: Option<f64>) -> Option<Self> {
        // Rust reads "NaN" and "inf" as numbers, too.
        let [credits_used, usd_spent] = [credits_used, usd_spent].map(|cost| cost.filter(|cost| cost.is_finite()));
        (credits_used.is_some() || usd_spent.is_some()).then_some(Usage { credits_used, usd_spent })
    }

    /// What `first` says, and where it says nothing, what `second` does.
    pub(crate) fn merge(first: Option<Self>, second: Option<Self>) -> Option<Self> {
        let (Some(a), Some(b)) = (first, second) else { return first.or(second) };
        Usage::new(a.credits_used.or(b.credits_used), a.usd_spent.or(b.usd_spent))
    }

    fn from_json(usage: &Value) -> Option<Self> {
        let number = |name: &str| usage.get(name).and_then(Value::as_f64);
        Usage::new(number("credits_used").or(number("tokens_used")), number("usd_spent"))
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

/// A row of the API's usage log (`GET /v2/logs`), found by [`Client::find_generation`](crate::Client::find_generation).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoggedGeneration {
    /// The generation's id (`inference_id`), for [`get_video`](crate::Client::get_video).
    pub generation_id: String,
    /// `succeeded` or `failed`, in the server's words.
    pub status: String,
    /// The whole row: `created`, `model`, `cost` (`usd`, `credits`) and more.
    pub raw: Value,
}

impl LoggedGeneration {
    pub(crate) fn from_json(row: &Value) -> Option<Self> {
        let text = |name: &str| row.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        Some(LoggedGeneration {
            generation_id: text("inference_id")?.to_owned(),
            status: text("status").unwrap_or_default().to_owned(),
            raw: row.clone(),
        })
    }

    /// What was charged.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        let cost = |name: &str| self.raw.pointer(name).and_then(Value::as_f64);
        Usage::new(cost("/cost/credits"), cost("/cost/usd"))
    }
}
