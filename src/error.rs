use std::{fmt, io, path::PathBuf, time::Duration};

use crate::{Generation, Status};

/// Why a call failed. Each variant calls for a different next step.
///
/// The text says what happened, whether money may have moved, and what to do; it never holds the
/// API key. A cause is part of the text, so [`source`](std::error::Error::source) is always `None`.
/// Debug prints the same text, so that it reads well when `main` returns the error.
///
/// ```no_run
/// use aimlapi_video::{Client, Error, VideoRequest};
///
/// let client = Client::from_env()?;
/// let id = match client.generate_video(&VideoRequest::new("A fox in the snow")) {
///     Ok(generation) => generation.id,
///     // Sent, and not answered: the usage log knows it, perhaps some minutes later.
///     Err(Error::OutcomeUnknown(lost)) => match client.find_generation(&lost.client_request_id)? {
///         Some(found) => found.generation_id,
///         None => return Err(Error::OutcomeUnknown(lost)),
///     },
///     Err(error) => return Err(error),
/// };
/// # println!("{id}");
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

    /// Call again: a request that only reads had no answer, or one that pays never reached the server whole.
    #[error(
        "{}no answer from the server: {cause}; this call charged nothing, and calling again is safe",
        of(generation_id)
    )]
    #[non_exhaustive]
    Network {
        /// The generation asked about, if there was one.
        generation_id: Option<String>,
        /// What went wrong.
        cause: io::Error,
    },

    /// The server's certificate is not trusted. Nothing was sent.
    #[error(
        "{}the server's certificate is not trusted: {cause}; nothing was sent. Behind a proxy with a certificate \
        authority of its own, build with the feature `platform-verifier` or `native-tls`",
        of(generation_id)
    )]
    #[non_exhaustive]
    Certificate {
        /// The generation asked about, if there was one.
        generation_id: Option<String>,
        /// What the TLS library said.
        cause: io::Error,
    },

    /// Read what the server says: it refused the request, and charged nothing for it.
    #[error("{0}")]
    Refused(Box<Refusal>),

    /// **The generation may have been made and charged. Look it up; do not just send it again.**
    #[error("{0}")]
    OutcomeUnknown(Box<LostAnswer>),

    /// The server's answer to a request that only reads can't be understood. Calling again is safe.
    #[error("{}the answer can't be understood ({reason}): {}", of(generation_id), Short(body))]
    #[non_exhaustive]
    UnexpectedAnswer {
        /// The generation asked about, if there was one.
        generation_id: Option<String>,
        /// What was expected and not found.
        reason: &'static str,
        /// The answer's body as it came.
        body: String,
    },

    /// The generation is over and there is no video. Read the server's reason, change the request.
    #[error("{}", without_video(.0))]
    Failed(Box<Generation>),

    /// Wait again with the same id: the generation goes on at the server.
    #[error("{0}")]
    TimedOut(Box<TimedOut>),

    /// The callback stopped the wait or the download. The generation goes on at the server.
    #[error(
        "stopped by the caller; generation {generation_id} goes on at the server, and waiting for it \
        again costs nothing"
    )]
    #[non_exhaustive]
    Stopped {
        /// The generation that was waited for.
        generation_id: String,
    },

    /// Mend what is wrong with the file or the download, then save the same generation again.
    #[error("{}: {reason}{}", place(path), paid(generation_id))]
    #[non_exhaustive]
    File {
        /// The file in question, or `None` for a download into a writer.
        path: Option<PathBuf>,
        /// The generation whose video was to be saved, if it is known already.
        generation_id: Option<String>,
        /// What went wrong.
        reason: String,
    },
}

/// The server's refusal of a request: an answer with a status of 300 or more.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The server's `message`, where the body has the documented shape.
    pub message: Option<String>,
    /// The server's `requestId`, to quote when asking the vendor.
    pub request_id: Option<String>,
    /// How long the server asks to wait before the next request.
    pub retry_after: Option<Duration>,
    /// The body as it came, at most 1 MiB of it.
    pub body: String,
    /// The generation asked about, if there was one.
    pub generation_id: Option<String>,
}

impl Refusal {
    fn text(&self) -> &str {
        self.message.as_ref().unwrap_or(&self.body)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Short(self.text());
        write!(f, "{}the server refused with status {}: {text}", of(&self.generation_id), self.status)?;
        if let Some(id) = &self.request_id {
            write!(f, " (request id {})", Short(id))?;
        }
        if let Some(wait) = self.retry_after {
            write!(f, " (asks to wait {} s)", wait.as_secs())?;
        }
        match (self.status, &self.generation_id) {
            (300..=399, _) => f.write_str("; redirects are not followed: check the base address"),
            (404, Some(_)) => f.write_str(
                "; is the id right, and the key that of the account that requested it? Asking again is free",
            ),
            (_, None) => f.write_str("; this request was not charged"),
            _ => Ok(()),
        }
    }
}

/// A request for a generation went out, and no answer came that says what became of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LostAnswer {
    /// What was sent as `X-Client-Request-Id`: the argument for [`Client::find_generation`](crate::Client::find_generation).
    pub client_request_id: String,
    /// The generation's id, where a broken answer still named it.
    pub generation_id: Option<String>,
    /// What went wrong.
    pub cause: String,
    /// The receipt that keeps this in mind, where there is one.
    pub receipt: Option<PathBuf>,
}

impl fmt::Display for LostAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the generation may have been made and charged: {}. Do not just send it again: ", self.cause)?;
        match (&self.generation_id, &self.receipt) {
            (Some(id), _) => write!(f, "wait for generation {id}"),
            (None, None) => write!(
                f,
                "look it up with find_generation({:?}), more than once, because the usage log can be late",
                self.client_request_id
            ),
            (None, Some(receipt)) => write!(
                f,
                "run this again in some minutes, which looks it up in the usage log as {:?} and pays nothing. Only if \
                 your account shows that nothing was charged, change \"sending\" to \"failed\" in {} to start anew",
                self.client_request_id,
                receipt.display()
            ),
        }
    }
}

/// A wait that reached its deadline.
#[derive(Debug)]
#[non_exhaustive]
pub struct TimedOut {
    /// The generation waited for.
    pub generation_id: String,
    /// The last status the server gave, or `None` if no poll was answered.
    pub last_status: Option<Status>,
    /// The time spent waiting.
    pub waited: Duration,
    /// How many polls failed.
    pub failed_polls: u32,
    /// Why the last failed poll did.
    pub last_failure: Option<Error>,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {} is not finished after {:.0?}", self.generation_id, self.waited)?;
        match &self.last_status {
            Some(status) => write!(f, ", last status: {}", Short(status.as_str()))?,
            None => f.write_str(", no poll was answered")?,
        }
        if let Some(failure) = &self.last_failure {
            write!(f, ", failed polls: {}, the last: {}", self.failed_polls, failure.cause())?;
        }
        f.write_str(". It goes on at the server, and waiting for the same id again costs nothing")
    }
}

impl Error {
    /// The id of the generation that the failure is about, wherever one is known.
    #[must_use]
    pub fn generation_id(&self) -> Option<&str> {
        match self {
            Error::Network { generation_id, .. }
            | Error::Certificate { generation_id, .. }
            | Error::UnexpectedAnswer { generation_id, .. }
            | Error::File { generation_id, .. } => generation_id.as_deref(),
            Error::Refused(refusal) => refusal.generation_id.as_deref(),
            Error::OutcomeUnknown(lost) => lost.generation_id.as_deref(),
            Error::Failed(generation) => Some(&generation.id),
            Error::TimedOut(timed_out) => Some(&timed_out.generation_id),
            Error::Stopped { generation_id } => Some(generation_id),
            Error::MissingKey | Error::Invalid(_) => None,
        }
    }

    /// What went wrong, without what to do next: for the text of another error.
    pub(crate) fn cause(&self) -> String {
        match self {
            Error::Network { cause, .. } | Error::Certificate { cause, .. } => cause.to_string(),
            Error::Refused(refusal) => format!("status {}: {}", refusal.status, Short(refusal.text())),
            other => other.to_string(),
        }
    }

    /// Whether a poll that failed so may go better at the next tick.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Error::Network { .. } => true,
            Error::Refused(refusal) => is_passing_status(refusal.status),
            Error::UnexpectedAnswer { reason, .. } => *reason == NOT_JSON,
            _ => false,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }
}

/// The reason of an [`Error::UnexpectedAnswer`] that is not from the API itself: a proxy's page, say.
pub(crate) const NOT_JSON: &str = "it is not JSON";

pub(crate) fn is_passing_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn of(generation_id: &Option<String>) -> String {
    generation_id.as_ref().map_or_else(String::new, |id| format!("generation {id}: "))
}

fn paid(generation_id: &Option<String>) -> String {
    let known = |id| format!(". Generation {id} is paid for: fetch its video again by this id, which costs nothing");
    generation_id.as_ref().map_or_else(String::new, known)
}

fn place(path: &Option<PathBuf>) -> String {
    path.as_ref().map_or_else(|| "the download".to_owned(), |path| path.display().to_string())
}

fn without_video(generation: &Generation) -> String {
    let Generation { id, status, error, .. } = generation;
    let reason = error.as_ref().map_or_else(String::new, |error| format!(": {}", Short(&error.to_string())));
    let charge = match status {
        Status::Completed => "; it may have been charged: ask the vendor, with this id",
        _ => "",
    };
    let status = Short(status.as_str());
    format!("generation {id} is over without a video (status {status}){reason}{charge}")
}

/// A server's text in a message: on one line, not longer than a few, without the queries that sign addresses.
pub(crate) struct Short<'a>(pub(crate) &'a str);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LIMIT: usize = 300;
        let text = without_queries(self.0.trim());
        let mut chars = text.chars();
        for c in chars.by_ref().take(LIMIT) {
            fmt::Write::write_char(f, if c.is_control() { ' ' } else { c })?;
        }
        match (chars.next(), text.is_empty()) {
            (Some(_), _) => f.write_str(" …"),
            (None, true) => f.write_str("(empty)"),
            (None, false) => Ok(()),
        }
    }
}

fn without_queries(text: &str) -> String {
    let ends_word = |c: char| c.is_whitespace() || "\"'<>".contains(c);
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('?') {
        let (query, after_query) = after.split_at(after.find(ends_word).unwrap_or(after.len()));
        let follows_an_address = before.rsplit(ends_word).next().is_some_and(|word| word.contains("://"));
        shown.push_str(before);
        shown.push('?');
        rest = if query.contains('=') || (follows_an_address && !query.is_empty()) {
            shown.push_str("[hidden]");
            after_query
        } else {
            after
        };
    }
    shown + rest
}
