//! A response of the API that is an error.

use std::{fmt, time::Duration};

use serde_json::Value;

use crate::{
    generation::{Cost, named_id, number},
    reply::{Excerpt, RETRY_AFTER, Reply},
};

const TIMEOUTS: [f64; 3] = [408.0, 499.0, 504.0];

pub(crate) fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// A response with a status of 300 or more.
///
/// The statuses that the vendor documents, to branch on: 400 (the request is invalid: `message`
/// says what was expected), 401 (the key), 403 (no credit left), 404, 429 (too many requests), 500,
/// 502, 503 and 504.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// The server's `message`, if the body is JSON and has one.
    pub message: Option<String>,
    /// The server's `requestId`, to quote when asking the vendor.
    pub request_id: Option<String>,
    /// How long the server asks to wait before the next request: `Retry-After`, in seconds.
    pub retry_after: Option<Duration>,
    /// The body as it came, at most 1 MiB of it.
    pub body: String,
    /// The generation that the request was about, or that the response names.
    pub generation_id: Option<String>,
    pub(crate) is_post: bool,
    pub(crate) cost: Cost,
    /// Whether the body has all fields of the API's own errors.
    pub(crate) is_documented: bool,
    /// Whether the response before it was the same.
    pub(crate) is_repeated: bool,
    /// Whether the status, or the `statusCode` in the body, is that of a timeout.
    is_timeout: bool,
    base_url: String,
}

impl ApiError {
    /// Reads a response. `asked` is the id that a GET asked about.
    pub(crate) fn read(reply: &Reply, asked: Option<&str>, is_post: bool) -> Self {
        let json = reply.json().unwrap_or_default();
        let string = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_owned);
        let named = || named_id(&json, reply).filter(|_| is_post);
        let seconds = reply.header(RETRY_AFTER);
        let seconds = seconds.and_then(|seconds| seconds.trim().parse().ok());
        let documented = ["message", "path", "requestId", "statusCode", "timestamp"];
        let statuses = [Some(reply.status.into()), number(&json["statusCode"])];
        let is_timeout = statuses
            .iter()
            .flatten()
            .any(|status| TIMEOUTS.contains(status));
        ApiError {
            status: reply.status,
            message: string("message"),
            request_id: string("requestId"),
            retry_after: seconds.map(Duration::from_secs),
            body: reply.body.clone(),
            generation_id: asked.map(str::to_owned).or_else(named),
            is_post,
            cost: Cost::of_response(&json, reply),
            is_documented: documented.iter().all(|name| !json[*name].is_null()),
            is_repeated: false,
            is_timeout,
            base_url: reply.base_url.clone(),
        }
    }

    /// Whether a POST was rejected before it could cost anything. A timeout says nothing of whether
    /// the work continues, and a gateway gives a 5xx for requests that it has passed on.
    pub(crate) fn is_rejection(&self) -> bool {
        let has_rejected = match self.status {
            301 | 302 | 307 | 308 | 400..=499 => true,
            500..=599 => self.is_documented,
            _ => false,
        };
        has_rejected && !self.is_timeout && self.cost <= Cost::Free
    }

    /// What to check.
    fn advice(&self) -> String {
        let url = &self.base_url;
        match self.status {
            300..=399 => format!("; redirects are not followed: check the base URL, {url}"),
            401 => format!("; check the API key, and that {url} is the URL it belongs to"),
            404 if !self.is_post && self.generation_id.is_some() => format!(
                "; check the id, that the key belongs to the account that requested it, and the \
                 base URL, {url}"
            ),
            404 => format!("; check the endpoint, and the base URL, {url}"),
            _ => String::new(),
        }
    }

    pub(crate) fn cause(&self) -> String {
        let text = self.message.as_ref().unwrap_or(&self.body);
        format!("status {}: {}", self.status, Excerpt(text))
    }
}

impl std::error::Error for ApiError {}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.generation_id.as_deref().filter(|_| !self.is_post);
        let (of, url, cause) = (of(asked), &self.base_url, self.cause());
        write!(f, "{of}{url} responded with {cause}")?;
        if let Some(id) = &self.request_id {
            write!(f, " (request id {})", Excerpt(id))?;
        }
        if let Some(wait) = self.retry_after {
            write!(f, " (asks to wait {} s)", wait.as_secs())?;
        }
        match self.generation_id.as_deref().map(Excerpt) {
            _ if !self.is_post => {}
            None => f.write_str("; this request was not charged")?,
            Some(id) => write!(
                f,
                "; it names generation {id} all the same: wait for that before you send the \
                 request again"
            )?,
        }
        f.write_str(&self.advice())
    }
}

pub(crate) fn of(generation_id: Option<&str>) -> String {
    let of = |id| format!("generation {}: ", Excerpt(id));
    generation_id.map(of).unwrap_or_default()
}
