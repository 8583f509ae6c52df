use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use crate::{Generation, Status, Usage};

/// Why a call failed. There is one variant for each next step of a caller.
///
/// The text says what happened, whether money may have moved, and what to do. It never contains
/// the API key. Debug prints the same text, so that it reads well when `main` returns the error.
/// A cause is part of the text, so [`source`](std::error::Error::source) is always `None`.
///
/// ```no_run
/// use aimlapi_video::{Client, Error, VideoRequest};
///
/// let client = Client::from_env()?;
/// let request = VideoRequest::new("A fox in the snow");
/// let id = match client.generate_video(&request) {
///     Ok(generation) => generation.id,
///     // Sent, and the response was lost. The usage log may have it only minutes later.
///     Err(Error::OutcomeUnknown { client_request_id, .. }) => {
///         match client.find_generation(&client_request_id)? {
///             Some(id) => id,
///             None => {
///                 println!("Look {client_request_id} up again later; do not send it again.");
///                 return Ok(());
///             }
///         }
///     }
///     Err(error) => return Err(error),
/// };
/// println!("{id}");
/// # Ok::<(), Error>(())
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Set one of the environment variables. Nothing was sent.
    #[error(
        "no API key: set AIMLAPI_KEY (or AIML_API_KEY, or AIMLAPI_API_KEY) to your AI/ML API key; \
         nothing was sent"
    )]
    MissingKey,

    /// Correct the configuration, the request or the argument. Nothing was sent.
    #[error("{0}; nothing was sent")]
    Invalid(String),

    /// Call again: the request got no response, and this call charged nothing.
    #[error(
        "{}{cause}; this request charged nothing. Check the network and the base URL; calling again \
         is safe",
        of(generation_id)
    )]
    #[non_exhaustive]
    Network {
        /// The generation that the call was about, if any.
        generation_id: Option<String>,
        /// What went wrong, with the host: a [`std::io::Error`]. Its kind is `InvalidData` where the
        /// TLS library refused the server.
        cause: io::Error,
    },

    /// Read the server's message: it rejected the request, and charged nothing for it.
    #[error("{0}")]
    Api(Box<ApiError>),

    /// **The generation may have been made and charged. Look it up; do not just send it again.**
    #[error(
        "the generation may have been made and charged: {cause}. Do not just send it again: {}",
        look_up(client_request_id, generation_id, receipt)
    )]
    #[non_exhaustive]
    OutcomeUnknown {
        /// The argument for [`Client::find_generation`](crate::Client::find_generation).
        client_request_id: String,
        /// The generation's id, where a broken response still named it.
        generation_id: Option<String>,
        /// What went wrong.
        cause: String,
        /// The receipt that records this, for a [`VideoFile`](crate::VideoFile).
        receipt: Option<PathBuf>,
    },

    /// Call again: the response to a GET is not what the API documents.
    #[error(
        "{}the response can't be understood: {reason}; this request charged nothing. Check the \
         network and the base URL; calling again is safe",
        of(generation_id)
    )]
    #[non_exhaustive]
    UnexpectedResponse {
        /// The generation that the call was about, if any.
        generation_id: Option<String>,
        /// What is wrong with the response, and how it begins.
        reason: String,
    },

    /// The generation ended without a video. Read the server's reason, change the request.
    #[error("{}", without_video(.0))]
    Failed(Box<Generation>),

    /// Wait again for the same id: the generation continues on the server.
    #[error(
        "generation {} is not finished after {waited:.0?}{}. It may continue on the server, and \
         waiting for the same id again costs nothing",
        Excerpt(generation_id),
        last(last_status, last_error)
    )]
    #[non_exhaustive]
    TimedOut {
        /// The generation that was waited for.
        generation_id: String,
        /// The last status that the server gave, if any.
        last_status: Option<Status>,
        /// The time spent waiting.
        waited: Duration,
        /// Why the last poll that failed did.
        last_error: Option<String>,
    },

    /// Fix what is wrong with the file or the download, then save the same generation again.
    #[error("{}: {cause}{}", path.display(), requested(generation_id))]
    #[non_exhaustive]
    File {
        /// The file in question.
        path: PathBuf,
        /// The generation whose video was to be saved, if it is known already.
        generation_id: Option<String>,
        /// What went wrong: a [`std::io::Error`].
        cause: io::Error,
    },
}

impl Error {
    /// The id of the generation that the error is about, wherever one is known.
    #[must_use]
    pub fn generation_id(&self) -> Option<&str> {
        match self {
            Error::Network { generation_id, .. }
            | Error::OutcomeUnknown { generation_id, .. }
            | Error::UnexpectedResponse { generation_id, .. }
            | Error::File { generation_id, .. } => generation_id.as_deref(),
            Error::Api(error) => error.generation_id.as_deref(),
            Error::Failed(generation) => Some(&generation.id),
            Error::TimedOut { generation_id, .. } => Some(generation_id),
            Error::MissingKey | Error::Invalid(_) => None,
        }
    }

    /// Whether a GET that failed this way may succeed later: network failures, the statuses
    /// 408, 425, 429 and 5xx, and responses that can't be understood.
    ///
    /// Not so where the TLS library refused the server: that needs another configuration.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Network { cause, .. } => cause.kind() != io::ErrorKind::InvalidData,
            Error::Api(error) => is_transient_status(error.status),
            Error::UnexpectedResponse { .. } => true,
            _ => false,
        }
    }

    /// What went wrong, without what to do: for the text of another error.
    pub(crate) fn cause(&self) -> String {
        match self {
            Error::Network { cause, .. } => cause.to_string(),
            Error::Api(error) => format!("status {}: {}", error.status, Excerpt(error.text())),
            Error::UnexpectedResponse { reason, .. } => reason.clone(),
            other => other.to_string(),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(crate) fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// A response with a status of 300 or more.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// The server's `message`, where the body has the documented shape.
    pub message: Option<String>,
    /// The server's `requestId`, to quote when asking the vendor.
    pub request_id: Option<String>,
    /// How long the server asks to wait before the next request: `Retry-After`, in seconds.
    pub retry_after: Option<Duration>,
    /// The body as it came, at most 1 MiB of it.
    pub body: String,
    /// The generation that the request was about, or that the response names.
    pub generation_id: Option<String>,
    pub(crate) host: String,
    pub(crate) is_post: bool,
}

impl ApiError {
    /// It has a message if the body is the API's own, as documented, and not a proxy's.
    pub(crate) fn new(status: u16, host: &str, body: &str) -> Self {
        let json: Value = serde_json::from_str(body).unwrap_or_default();
        let is_documented = json.get("message").is_some() && json.get("statusCode").is_some();
        let field = |name: &str| match json.get(name).filter(|_| is_documented)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        ApiError {
            status,
            message: field("message"),
            request_id: field("requestId"),
            retry_after: None,
            body: body.to_owned(),
            generation_id: None,
            host: host.to_owned(),
            is_post: false,
        }
    }

    fn text(&self) -> &str {
        self.message.as_ref().unwrap_or(&self.body)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, status) = (&self.host, self.status);
        let text = Excerpt(self.text());
        write!(
            f,
            "{}{host} responded with status {status}: {text}",
            of(&self.generation_id)
        )?;
        if let Some(id) = &self.request_id {
            write!(f, " (request id {})", Excerpt(id))?;
        }
        if let Some(wait) = self.retry_after {
            write!(f, " (asks to wait {} s)", wait.as_secs())?;
        }
        if self.is_post {
            f.write_str("; this request was not charged")?;
        }
        f.write_str(match (status, &self.generation_id) {
            (300..=399, _) => "; redirects are not followed: check the base URL",
            (401, _) => "; check the API key, and that the base URL is the one it belongs to",
            (404, Some(_)) if !self.is_post => {
                "; check the id, and that the key belongs to the account that requested it"
            }
            (404, _) => "; check the base URL, which ends in /v2, and the endpoint",
            _ => "",
        })
    }
}

pub(crate) fn outcome_unknown(
    client_request_id: &str,
    generation_id: Option<String>,
    cause: String,
) -> Error {
    let client_request_id = client_request_id.to_owned();
    Error::OutcomeUnknown {
        client_request_id,
        generation_id,
        cause,
        receipt: None,
    }
}

pub(crate) fn file_error(path: &Path, generation_id: Option<&str>, cause: io::Error) -> Error {
    let path = path.to_owned();
    let generation_id = generation_id.map(str::to_owned);
    Error::File {
        path,
        generation_id,
        cause,
    }
}

fn of(generation_id: &Option<String>) -> String {
    let id = generation_id.as_deref().map(Excerpt);
    id.map_or_else(String::new, |id| format!("generation {id}: "))
}

fn requested(generation_id: &Option<String>) -> String {
    let id = generation_id.as_deref().map(Excerpt);
    id.map_or_else(String::new, |id| {
        format!(". Its generation is {id}: trying again with that id costs nothing")
    })
}

fn look_up(id: &str, generation_id: &Option<String>, receipt: &Option<PathBuf>) -> String {
    match (generation_id.as_deref().map(Excerpt), receipt) {
        (Some(id), _) => format!("wait for generation {id}"),
        (None, None) => format!(
            "look it up with find_generation({id:?}), more than once, because the usage log can be \
             late"
        ),
        (None, Some(receipt)) => format!(
            "run this again in some minutes, which looks it up as {id:?} and pays nothing. Only if \
             your account shows that nothing was charged, change its \"state\" to \"failed\" in \
             {}: that permits another payment",
            receipt.display()
        ),
    }
}

fn without_video(generation: &Generation) -> String {
    let id = Excerpt(&generation.id);
    let status = Excerpt(generation.status.as_str());
    let reason = generation.error.as_deref().map(Excerpt);
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    let is_free = generation.usage.is_none_or(Usage::is_free);
    let charge = match generation.status.as_str() {
        "completed" | "expired" => "; it may have been charged: ask the vendor, with this id",
        _ if !is_free => "; it was charged all the same: ask the vendor, with this id",
        _ if !generation.names_itself() => {
            "; the response names no generation: wait for this id again before paying for another"
        }
        _ => "; the vendor does not charge failed generations",
    };
    format!("generation {id} ended without a video (status {status}){reason}{charge}")
}

fn last(status: &Option<Status>, error: &Option<String>) -> String {
    let mut text = match status {
        Some(status) => format!(", last status: {}", Excerpt(status.as_str())),
        None => ", no poll succeeded".to_owned(),
    };
    if let Some(error) = error {
        text += &format!(", last error: {error}");
    }
    text
}

/// The server's words in a message: one line of at most 300 characters, none of them control
/// characters.
pub(crate) struct Excerpt<'a>(pub(crate) &'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self
            .0
            .trim()
            .trim_end_matches('.')
            .replace(char::is_control, " ");
        match line.char_indices().nth(300) {
            Some((end, _)) => write!(f, "{} …", &line[..end]),
            None if line.is_empty() => f.write_str("(empty)"),
            None => f.write_str(&line),
        }
    }
}
