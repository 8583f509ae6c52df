use std::{
    env, fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Error, Generation, Usage, Video, VideoRequest,
    error::outcome_unknown,
    generation::is_id,
    poll,
    reply::Reply,
    request::{check_client_request_id, new_request_id},
    transport::{REDACTED, SafeUrl, Transport},
};

/// The default base URL of the API.
pub const BASE_URL: &str = "https://api.aimlapi.com/v2";

/// The default endpoint: the one on the vendor's Veo 3 page.
pub const VEO_ENDPOINT: &str = "generate/video/google/generation";

/// The vendor's newer endpoint, which serves nearly all video models, with the same bodies.
pub const UNIVERSAL_ENDPOINT: &str = "video/generations";

/// The usage log gives at most 100 rows a page, and 429 past 200 requests a minute.
const LOG_PAGE: usize = 100;
const MAX_LOG_PAGES: usize = 100;

/// A year: a later point in time can't be computed everywhere.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);
/// A GET has a small response: one that takes longer is hung.
const MAX_GET_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of the API. Cheap to clone and to share between threads: clones share connections.
///
/// ```no_run
/// use aimlapi_video::{Client, VideoRequest};
///
/// let client = Client::from_env()?;
/// let request = VideoRequest::new("A dragon over the tallest mountain");
/// let generation = client.generate_video(&request)?;
/// let video = client.wait_for_video(&generation.id, |generation| {
///     println!("Status: {}", generation.status);
/// })?;
/// client.download_video(&video, "dragon.mp4", |done, total| {
///     println!("{done} of {total:?} bytes");
/// })?;
/// # Ok::<(), aimlapi_video::Error>(())
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) transport: Transport,
    /// As set, and checked. The key is with the transport alone.
    pub(crate) settings: ClientBuilder,
}

impl Client {
    /// A client with this key and all defaults.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the key is not a bearer token. White space around it is ignored.
    pub fn new(api_key: impl Into<String>) -> Result<Self, Error> {
        Self::builder(api_key).build()
    }

    /// A client with the key from `AIMLAPI_KEY`, else `AIML_API_KEY`, else `AIMLAPI_API_KEY`, and
    /// the base URL from `AIMLAPI_BASE_URL`, if set. A blank variable counts as not set.
    ///
    /// # Errors
    /// [`Error::MissingKey`] without a key; [`Error::Invalid`] if a value is invalid.
    pub fn from_env() -> Result<Self, Error> {
        ClientBuilder::from_env()?.build()
    }

    /// Starts a client with settings of your own.
    pub fn builder(api_key: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            key: api_key.into(),
            base_url: BASE_URL.to_owned(),
            endpoint: VEO_ENDPOINT.to_owned(),
            poll_interval: Duration::from_secs(10),
            poll_timeout: Duration::from_secs(1000),
            request_timeout: Duration::from_secs(120),
            read_timeout: Duration::from_secs(30),
            retry_delay: Duration::from_secs(1),
        }
    }

    /// Queues a generation. **This is the call that costs money.**
    ///
    /// Sends exactly one POST, on a fresh connection, follows no redirect, and never repeats it.
    /// The result has the [`id`](Generation::id) to wait for.
    ///
    /// # Errors
    /// - [`Error::Invalid`]: the request fails a local check; nothing was sent.
    /// - [`Error::Network`]: the request was not sent to its end; nothing is charged.
    /// - [`Error::Api`]: the server rejected the request; nothing is charged.
    /// - [`Error::OutcomeUnknown`]: it was sent, and the response was lost. **It may be charged**:
    ///   look it up with [`find_generation`](Self::find_generation), do not just call again.
    pub fn generate_video(&self, request: &VideoRequest) -> Result<Generation, Error> {
        let id = request.requested_id().map(str::to_owned);
        let id = id.unwrap_or_else(new_request_id);
        self.generate_video_as(request, &id, &mut || Ok(()))
    }

    /// Calls `before_body` when only the request's body is left to send: nothing can be charged
    /// before that.
    pub(crate) fn generate_video_as(
        &self,
        request: &VideoRequest,
        client_request_id: &str,
        before_body: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<Generation, Error> {
        check_client_request_id(client_request_id)?;
        let json = request.to_json()?.to_string();
        let (api, settings) = (&self.inner.transport, &self.inner.settings);
        let (url, timeout) = (settings.url(), settings.request_timeout);
        let reply = api.post(&url, &json, client_request_id, timeout, before_body)?;
        let unknown = |cause| outcome_unknown(client_request_id, reply.inference_id(), cause);
        if !reply.is_success() {
            let mut error = reply.api_error(None);
            error.is_post = true;
            // A proxy gives 408, 499 and 5xx for requests that it may have passed on.
            let is_proxy = matches!(error.status, 408 | 499..) && error.message.is_none();
            let reason = match error.status {
                ..400 => "is a redirect, which is not followed: check the base URL",
                _ if is_proxy => "came from a proxy",
                _ => return Err(Error::Api(Box::new(error))),
            };
            return Err(unknown(
                reply.unexpected(&format!("status {} {reason}", error.status)),
            ));
        }
        let mut generation = reply
            .generation(None)
            .map_err(|reason| unknown(format!("the response can't be understood: {reason}")))?;
        let sent = || client_request_id.to_owned();
        generation.client_request_id.get_or_insert_with(sent);
        Ok(generation)
    }

    /// Asks once for the state of a generation.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an invalid id; [`Error::Network`], [`Error::Api`] and
    /// [`Error::UnexpectedResponse`], each with the id. None costs anything.
    pub fn get_video(&self, generation_id: &str) -> Result<Generation, Error> {
        self.get_video_within(generation_id, MAX_GET_TIMEOUT)
    }

    fn get_video_within(&self, id: &str, time: Duration) -> Result<Generation, Error> {
        if !is_id(id) {
            let reason = "blank, longer than 1000 bytes, or has control characters";
            return Err(Error::Invalid(format!("the generation id is {reason}")));
        }
        let url = self.inner.settings.url();
        let reply = self
            .inner
            .get(&url, &[("generation_id", id)], time, Some(id))?;
        let generation_id = Some(id.to_owned());
        let unexpected = |reason| Error::UnexpectedResponse {
            generation_id,
            reason,
        };
        reply.generation(Some(id)).map_err(unexpected)
    }

    /// Asks until the generation has finished, and returns its video.
    ///
    /// The vendor says that a video of eight seconds takes about two minutes. Asks at once and then
    /// at each [`poll_interval`](ClientBuilder::poll_interval), for at most
    /// [`poll_timeout`](ClientBuilder::poll_timeout). `on_update` sees every response that
    /// describes the generation. [Transient](Error::is_transient) failures are tried again at the
    /// next interval.
    ///
    /// # Errors
    /// Always with the id: [`Error::Failed`] if it ended without a video, [`Error::TimedOut`], or
    /// what [`get_video`](Self::get_video) gives for failures that are not transient. Waiting again
    /// for the same id costs nothing.
    pub fn wait_for_video(
        &self,
        generation_id: &str,
        on_update: impl FnMut(&Generation),
    ) -> Result<Video, Error> {
        let (settings, start) = (&self.inner.settings, Instant::now());
        poll::poll(
            generation_id,
            (settings.poll_interval, settings.poll_timeout),
            || start.elapsed(),
            poll::sleep,
            |time_left| self.get_video_within(generation_id, time_left),
            on_update,
        )
    }

    /// Looks up the id of a generation in the usage log of the last 30 days, by the client request
    /// id that it was sent with, and with the same key.
    ///
    /// `None` means: not found *so far*. The log can be late, so that never proves that nothing was
    /// charged. Reads the newest 10,000 rows at most.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an id that can't have been sent; [`Error::Network`], [`Error::Api`],
    /// [`Error::UnexpectedResponse`]. None costs anything.
    pub fn find_generation(&self, client_request_id: &str) -> Result<Option<String>, Error> {
        let row = self.find_log_row(client_request_id)?;
        Ok(row.and_then(|row| row.generation_id))
    }

    pub(crate) fn find_log_row(&self, client_request_id: &str) -> Result<Option<LogRow>, Error> {
        check_client_request_id(client_request_id)?;
        let url = format!("{}/logs", self.inner.settings.base_url);
        let limit = LOG_PAGE.to_string();
        let is_it = |row: &&Value| row["client_request_id"] == client_request_id;
        let mut seen = 0;
        for _ in 0..MAX_LOG_PAGES {
            let offset = seen.to_string();
            let query = [("period", "30d"), ("limit", &limit), ("offset", &offset)];
            let reply = self.inner.get(&url, &query, MAX_GET_TIMEOUT, None)?;
            let log = reply.json().unwrap_or_default();
            let Some(rows) = log.get("data").and_then(Value::as_array) else {
                let reason = reply.unexpected("it is not a usage log");
                let generation_id = None;
                return Err(Error::UnexpectedResponse {
                    generation_id,
                    reason,
                });
            };
            if let Some(row) = rows.iter().filter(is_it).find_map(LogRow::from_json) {
                return Ok(Some(row));
            }
            if rows.is_empty() || log.pointer("/pagination/has_more") != Some(&Value::Bool(true)) {
                break;
            }
            seen += rows.len();
        }
        Ok(None)
    }
}

/// A row of the usage log (`GET /v2/logs`).
pub(crate) struct LogRow {
    pub(crate) generation_id: Option<String>,
    pub(crate) usage: Option<Usage>,
    pub(crate) is_free_failure: bool,
}

impl LogRow {
    fn from_json(row: &Value) -> Option<Self> {
        let id = row["inference_id"].as_str().filter(|id| is_id(id));
        let cost = &row["cost"];
        let usage = Usage::new(cost["credits"].as_f64(), cost["usd"].as_f64());
        let row = LogRow {
            generation_id: id.map(str::to_owned),
            usage,
            is_free_failure: row["status"] == "failed" && usage.is_none_or(Usage::is_free),
        };
        (row.generation_id.is_some() || row.is_free_failure).then_some(row)
    }
}

impl Inner {
    fn get(
        &self,
        url: &str,
        query: &[(&str, &str)],
        time: Duration,
        generation_id: Option<&str>,
    ) -> Result<Reply, Error> {
        let timeout = time.min(MAX_GET_TIMEOUT).min(self.settings.request_timeout);
        self.transport.get(url, query, timeout, generation_id)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.settings.debug("Client", f)
    }
}

/// The settings of a [`Client`] to be. From [`Client::builder`], or from the environment.
#[derive(Clone)]
#[must_use]
pub struct ClientBuilder {
    key: String,
    base_url: String,
    endpoint: String,
    poll_interval: Duration,
    pub(crate) poll_timeout: Duration,
    request_timeout: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) retry_delay: Duration,
}

impl ClientBuilder {
    /// A builder with the key and the base URL that [`Client::from_env`] reads.
    ///
    /// # Errors
    /// As [`Client::from_env`].
    pub fn from_env() -> Result<Self, Error> {
        let mut key = None;
        for name in ["AIMLAPI_KEY", "AIML_API_KEY", "AIMLAPI_API_KEY"] {
            key = key.or(read_env(name)?);
        }
        let builder = Client::builder(key.ok_or(Error::MissingKey)?);
        Ok(match read_env("AIMLAPI_BASE_URL")? {
            Some(base_url) => builder.base_url(base_url),
            None => builder,
        })
    }

    /// Sets the base URL of the API: https, or http to a loopback host. Defaults to [`BASE_URL`].
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = url.into();
        self
    }

    /// Sets the path of the endpoint under the base URL, such as [`UNIVERSAL_ENDPOINT`]. Defaults
    /// to [`VEO_ENDPOINT`].
    pub fn endpoint(mut self, path: impl Into<String>) -> Self {
        self.endpoint = path.into();
        self
    }

    /// Sets the pause between two polls. Defaults to 10 s, as in the vendor's example.
    pub fn poll_interval(mut self, time: Duration) -> Self {
        self.poll_interval = time;
        self
    }

    /// Sets the time after which [`wait_for_video`](Client::wait_for_video) gives up. Defaults to
    /// 1000 s, as in the vendor's example.
    pub fn poll_timeout(mut self, time: Duration) -> Self {
        self.poll_timeout = time;
        self
    }

    /// Sets the time that one request to the API may take in all. Defaults to 120 s. A GET has at
    /// most 30 s of it.
    pub fn request_timeout(mut self, time: Duration) -> Self {
        self.request_timeout = time;
        self
    }

    /// Sets the time without a byte after which a download gives its connection up, and resumes
    /// on another. Defaults to 30 s.
    pub fn read_timeout(mut self, time: Duration) -> Self {
        self.read_timeout = time;
        self
    }

    /// Sets the pause after a failed attempt to download; doubled with each further failure, up to
    /// a minute. Defaults to 1 s.
    pub fn retry_delay(mut self, time: Duration) -> Self {
        self.retry_delay = time;
        self
    }

    /// Makes the client. Sends nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the key, the base URL, the endpoint or a timeout is invalid.
    pub fn build(mut self) -> Result<Client, Error> {
        let invalid = |reason: String| Err(Error::Invalid(reason));
        let key = std::mem::take(&mut self.key);
        // RFC 6750, 2.1: characters that no JSON escapes.
        let token = key.trim().trim_end_matches('=');
        let is_token_char = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        if token.is_empty() || !token.bytes().all(is_token_char) {
            let chars = "A-Z a-z 0-9 - . _ ~ + / and = at the end";
            return invalid(format!(
                "the API key is blank, a placeholder, or has other characters than {chars}"
            ));
        }
        let base_url = SafeUrl::parse(&self.base_url).map_err(|reason| {
            Error::Invalid(format!("the base URL {reason}; it is like {BASE_URL}"))
        })?;
        if self.base_url.contains(['?', '#']) || self.base_url.len() > 2000 {
            return invalid(format!(
                "the base URL is too long, or has a query or a fragment; it is like {BASE_URL}"
            ));
        }
        self.base_url = base_url.url.trim_end_matches('/').to_owned();
        self.endpoint = self.endpoint.trim_matches('/').to_owned();
        let is_path_char = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
        if self.endpoint.is_empty() || !self.endpoint.bytes().all(is_path_char) {
            let endpoint = &self.endpoint;
            return invalid(format!(
                "the endpoint {endpoint:?} is not a path like {VEO_ENDPOINT}"
            ));
        }
        for timeout in [&mut self.request_timeout, &mut self.read_timeout] {
            if timeout.is_zero() {
                return invalid("a timeout is zero".to_owned());
            }
            *timeout = (*timeout).min(MAX_TIMEOUT);
        }
        let transport = Transport::new(key.trim(), &base_url);
        let settings = self;
        Ok(Client {
            inner: Arc::new(Inner {
                transport,
                settings,
            }),
        })
    }

    fn debug(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("base_url", &self.base_url)
            .field("endpoint", &self.endpoint)
            .field("api_key", &format_args!("{REDACTED}"))
            .field("poll_interval", &self.poll_interval)
            .field("poll_timeout", &self.poll_timeout)
            .finish_non_exhaustive()
    }

    fn url(&self) -> String {
        format!("{}/{}", self.base_url, self.endpoint)
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.debug("ClientBuilder", f)
    }
}

fn read_env(name: &str) -> Result<Option<String>, Error> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.trim().is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(Error::Invalid(format!("{name} is not Unicode"))),
    }
}
