//! Why a call failed, and what that means for the caller's money.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    api_error::{ApiError, is_transient_status, of},
    generation::{Cost, Generation, Status},
    reply::{Excerpt, one_line},
};

/// Why a call failed. There is one variant for each next step of a caller.
///
/// | variant | [may be charged](Self::may_be_charged) | [transient](Self::is_transient) | what to do |
/// |---|---|---|---|
/// | `MissingKey`, `Invalid` | no | no | correct what the text names |
/// | `Network` | if it names a generation | unless TLS refused the server | call again |
/// | `Api` | if it names a generation | 408, 425, 429, 5xx | read the server's message |
/// | `OutcomeUnknown` | **yes** | no | look it up; do not just send it again |
/// | `UnexpectedResponse` | if it names a generation | yes | call again |
/// | `Failed` | unless it failed free of charge | no | read the reason, change the request |
/// | `TimedOut` | yes | no | wait again for the same id |
/// | `File` | if it names a generation, if the file is locked, or if its receipt can't be read or has an attempt without an outcome | no | fix what the text names |
/// | `Download` | yes | where it may help | download again by the id |
/// | `Shutdown` | if it names a generation | no | continue with another client |
///
/// The text is one line: what happened, whether money may have moved, and what to do. It never
/// contains the API key. Debug prints the same text, so that it reads well when `main` returns the
/// error. A cause is part of the text, so [`source`](std::error::Error::source) is always `None`.
///
/// # A lost response, without a [`VideoFile`](crate::VideoFile)
/// ```no_run
/// use aimlapi_video::{Client, Error, VideoRequest};
/// use std::{thread::sleep, time::Duration};
///
/// /// The id of the generation, which is paid for once.
/// fn request(client: &Client, request: &VideoRequest) -> Result<String, Error> {
///     let error = match client.generate_video(request) {
///         Ok(generation) => return Ok(generation.id),
///         Err(error) => error,
///     };
///     let Error::OutcomeUnknown { generation_id, client_request_id, .. } = &error else {
///         return Err(error); // `may_be_charged` says whether to send the request again.
///     };
///     // A broken response may still have named the generation.
///     if let Some(id) = generation_id {
///         return Ok(id.clone());
///     }
///     // The usage log may have it only minutes later.
///     for _ in 0..30 {
///         match client.find_generation_id(client_request_id) {
///             Ok(Some(id)) => return Ok(id),
///             Ok(None) => {}
///             Err(error) if error.is_transient() => {}
///             Err(other) => return Err(other),
///         }
///         sleep(Duration::from_secs(20));
///     }
///     // Keep the client request id, and look it up again later. Do not send the request again.
///     Err(error)
/// }
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Set one of the environment variables. Nothing was sent.
    #[error(
        "no API key: set AIMLAPI_KEY (or AIML_API_KEY, or AIMLAPI_API_KEY) to your AI/ML API key. \
         To try this without a key, run `cargo run --example simulator` in the folder of \
         aimlapi-video, and set what that prints; nothing was sent"
    )]
    MissingKey,

    /// Correct the configuration, the request or the argument. Nothing was sent.
    #[error("{message}; nothing was sent")]
    #[non_exhaustive]
    Invalid {
        /// What is wrong, and what is allowed.
        message: String,
    },

    /// Call again: the request got no response, and this call charged nothing.
    #[error(
        "{}{cause}; this request charged nothing. Check the network and the base URL; calling again \
         is safe",
        of(generation_id.as_deref())
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
        look_up(client_request_id, generation_id.as_deref(), receipt.as_deref())
    )]
    #[non_exhaustive]
    OutcomeUnknown {
        /// The argument for
        /// [`Client::find_generation_id`](crate::Client::find_generation_id).
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
        of(generation_id.as_deref())
    )]
    #[non_exhaustive]
    UnexpectedResponse {
        /// The generation that the call was about, if any.
        generation_id: Option<String>,
        /// What is wrong with the response, and how it begins.
        reason: String,
    },

    /// The generation ended without a video. Read the server's reason, change the request.
    #[error("{}", without_video(generation, receipt.as_deref()))]
    #[non_exhaustive]
    Failed {
        /// The generation, with the server's [`error`](Generation::error).
        generation: Box<Generation>,
        /// The receipt of a [`VideoFile`](crate::VideoFile) that keeps this attempt, because it may
        /// have been charged.
        receipt: Option<PathBuf>,
    },

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

    /// Fix what is wrong with a file of this computer, then call again.
    #[error("{}: {cause}{}", show(path), requested(generation_id.as_deref()))]
    #[non_exhaustive]
    File {
        /// The file in question.
        path: PathBuf,
        /// The generation whose video was to be saved, if it is known already.
        generation_id: Option<String>,
        /// What went wrong: a [`std::io::Error`]. Its kind is `WouldBlock` where another process or
        /// thread holds the file's lock.
        cause: io::Error,
    },

    /// Download the video of the same generation again: the file server did not give it.
    #[error(
        "{}{cause}{}",
        text(path.as_deref(), |path| show(path) + ": "),
        requested(Some(generation_id))
    )]
    #[non_exhaustive]
    Download {
        /// Where the video was to be saved.
        path: Option<PathBuf>,
        /// The generation whose video it is.
        generation_id: String,
        /// What went wrong: a [`std::io::Error`]. Its kind is `NotFound` where the URL is not, or
        /// no longer, served, and `InvalidData` where what is served is not the video.
        cause: io::Error,
    },

    /// [`Client::shutdown`](crate::Client::shutdown) was called.
    #[error("the client was shut down{}", continues(generation_id.as_deref()))]
    #[non_exhaustive]
    Shutdown {
        /// The generation that the call was about, if any.
        generation_id: Option<String>,
    },
}

/// The cause of an [`Error::File`] where a generation may exist that no receipt names.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Uncertain(String);

pub(crate) fn uncertain(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Uncertain(error.to_string()))
}

impl Error {
    /// The id of the generation that the error is about, wherever one is known.
    #[must_use]
    pub fn generation_id(&self) -> Option<&str> {
        use Error::*;
        match self {
            MissingKey | Invalid { .. } => None,
            Network { generation_id, .. }
            | OutcomeUnknown { generation_id, .. }
            | UnexpectedResponse { generation_id, .. }
            | File { generation_id, .. }
            | Shutdown { generation_id } => generation_id.as_deref(),
            Api(error) => error.generation_id.as_deref(),
            Failed { generation, .. } => Some(&generation.id),
            TimedOut { generation_id, .. } | Download { generation_id, .. } => Some(generation_id),
        }
    }

    /// Whether a generation exists, or may exist, that was or will be charged.
    ///
    /// If not, sending the same request again pays for it once. If so, it might pay twice: wait for
    /// the generation by its [id](Self::generation_id), or look it up with
    /// [`find_generation_id`](crate::Client::find_generation_id).
    #[must_use]
    pub fn may_be_charged(&self) -> bool {
        use Error::{Failed, File, OutcomeUnknown};
        let is_uncertain = |cause: &io::Error| {
            let marker = cause.get_ref();
            cause.kind() == io::ErrorKind::WouldBlock
                || marker.is_some_and(|marker| marker.is::<Uncertain>())
        };
        match self {
            OutcomeUnknown { .. } => true,
            Failed { receipt, .. } if receipt.is_some() => true,
            Failed { generation, .. } => !is_free_failure(generation),
            File { cause, .. } if is_uncertain(cause) => true,
            other => other.generation_id().is_some(),
        }
    }

    /// Whether the same call, a POST or a GET, may succeed later and pays nothing twice: network
    /// failures, the statuses 408, 425, 429 and 5xx, responses that can't be understood, and
    /// downloads that broke off.
    ///
    /// Not so where the TLS library refused the server, which needs another configuration, and
    /// where a rejected POST names a generation.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        use Error::{Api, Download, Network, UnexpectedResponse};
        use io::ErrorKind::{InvalidData, NotFound};
        match self {
            Network { cause, .. } => cause.kind() != InvalidData,
            Api(error) if error.is_post && error.generation_id.is_some() => false,
            Api(error) => is_transient_status(error.status),
            Download { cause, .. } => !matches!(cause.kind(), InvalidData | NotFound),
            other => matches!(other, UnexpectedResponse { .. }),
        }
    }

    /// What went wrong, without what to do: for the text of another error.
    pub(crate) fn cause(&self) -> String {
        use Error::{Api, Download, Network, OutcomeUnknown, UnexpectedResponse};
        match self {
            Network { cause, .. } | Download { cause, .. } => cause.to_string(),
            Api(error) => error.cause(),
            UnexpectedResponse { reason, .. } => reason.clone(),
            OutcomeUnknown { cause, .. } => cause.clone(),
            other => other.to_string(),
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        let message = message.into();
        Error::Invalid { message }
    }

    pub(crate) fn unexpected(generation_id: Option<&str>, reason: String) -> Error {
        let generation_id = generation_id.map(str::to_owned);
        Error::UnexpectedResponse {
            generation_id,
            reason,
        }
    }

    pub(crate) fn failed(generation: Generation, receipt: Option<PathBuf>) -> Error {
        let generation = Box::new(generation);
        Error::Failed {
            generation,
            receipt,
        }
    }

    pub(crate) fn download(path: Option<&Path>, generation_id: &str, cause: io::Error) -> Error {
        let (path, generation_id) = (path.map(Path::to_owned), generation_id.to_owned());
        Error::Download {
            path,
            generation_id,
            cause,
        }
    }

    pub(crate) fn file(path: &Path, generation_id: Option<&str>, cause: io::Error) -> Error {
        let generation_id = generation_id.map(str::to_owned);
        Error::File {
            path: path.to_owned(),
            generation_id,
            cause,
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A path for an error's text: in one line, whatever its name is.
pub(crate) fn show(path: &Path) -> String {
    one_line(&path.display().to_string())
}

/// What is said about something, if it is known.
fn text<T>(known: Option<T>, text: impl FnOnce(T) -> String) -> String {
    known.map(text).unwrap_or_default()
}

fn requested(id: Option<&str>) -> String {
    text(id.map(Excerpt), |id| {
        format!(". Its generation is {id}: trying again with that id costs nothing")
    })
}

fn continues(id: Option<&str>) -> String {
    text(id.map(Excerpt), |id| {
        format!(". Generation {id} continues on the server: waiting for that id costs nothing")
    })
}

fn look_up(request: &str, generation_id: Option<&str>, receipt: Option<&Path>) -> String {
    let request = Excerpt(request);
    match (generation_id.map(Excerpt), receipt.map(way_out)) {
        (Some(id), None) => format!("wait for generation {id}"),
        (Some(id), Some(way_out)) => format!(
            "run this again later, which asks for generation {id} again and pays nothing. {way_out}"
        ),
        (None, None) => format!(
            "look it up with find_generation_id(\"{request}\"), more than once, because the usage log \
             can be late"
        ),
        (None, Some(way_out)) => format!(
            "run this again later, which looks it up as {request} and pays nothing. {way_out}"
        ),
    }
}

/// How a person permits another payment.
pub(crate) fn way_out(receipt: &Path) -> String {
    format!(
        "Only to give this attempt up, call VideoFile::give_up, or change its \"state\" to \
         \"given_up\" in {}: then the next run pays again",
        show(receipt)
    )
}

/// Whether the generation has failed in a way that the vendor does not charge.
fn is_free_failure(generation: &Generation) -> bool {
    let is_own = generation.status.is_failure() && generation.names_itself();
    is_own && generation.cost <= Cost::Free && generation.video.is_none()
}

fn without_video(generation: &Generation, receipt: Option<&Path>) -> String {
    let (id, status) = (Excerpt(&generation.id), Excerpt(generation.status.as_str()));
    let is_failure = generation.status.is_failure();
    let is_free = receipt.is_none() && is_free_failure(generation);
    let reason = match &generation.error {
        Some(error) => format!(": {error}"),
        None if is_failure => String::new(),
        None => format!(", response: {}", Excerpt(&generation.raw.to_string())),
    };
    let charge = match generation.cost {
        Cost::Charged => "it was charged all the same: ask the vendor, with this id",
        _ if is_failure && !generation.names_itself() => {
            "the response names no generation: wait for this id again before paying for another"
        }
        _ if is_free => "the vendor does not charge failed generations",
        _ => "it may have been charged: ask the vendor, with this id",
    };
    let again = text(receipt.map(way_out), |way_out| {
        format!(". Running this again asks again, and pays nothing. {way_out}")
    });
    format!("generation {id} ended without a video (status {status}){reason}; {charge}{again}")
}

fn last(status: &Option<Status>, error: &Option<String>) -> String {
    let status = match status {
        Some(status) => format!(", last status: {}", Excerpt(status.as_str())),
        None => ", no poll succeeded".to_owned(),
    };
    status + &text(error.as_ref(), |error| format!(", last error: {error}"))
}
