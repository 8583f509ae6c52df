//! The calls of the API, and their settings.

use std::{
    borrow::Cow,
    env, fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    error::{ApiError, Error},
    generation::{Cost, Generation, Video, ids, number},
    http::{
        api::{Api, Posted, REDACTED},
        url::SafeUrl,
    },
    poll::{Retry, Schedule, poll},
    reply::{Reply, is_id},
    request::{VideoRequest, check_client_request_id, new_request_id},
};

/// The default base URL of the API.
pub const BASE_URL: &str = "https://api.aimlapi.com/v2";

/// The default endpoint: the one on the vendor's Veo 3 page.
pub const VEO_ENDPOINT: &str = "generate/video/google/generation";

/// The vendor's newer endpoint, which serves nearly all video models, with the same bodies.
pub const UNIVERSAL_ENDPOINT: &str = "video/generations";

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
/// client.download_video(&video, "dragon.mp4", |progress| println!("{progress:?}"))?;
/// # Ok::<(), aimlapi_video::Error>(())
/// ```
#[derive(Clone)]
#[doc(alias = "requests")]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) api: Api,
    pub(crate) settings: Settings,
    on_retry: Option<OnRetry>,
}

type OnRetry = Arc<dyn Fn(&Retry<'_>) + Send + Sync>;

impl Inner {
    pub(crate) fn on_retry(&self, error: &Error, pause: Duration) {
        if let Some(on_retry) = &self.on_retry {
            on_retry(&Retry { error, pause });
        }
    }
}

/// What became of a request for a generation.
pub(crate) enum Sent {
    /// It was not sent to its end: nothing is charged.
    Unsent(Error),
    Accepted(Generation),
    /// The server rejected it.
    Refused(ApiError),
    /// It was sent, and what came of it is unknown.
    Lost {
        id: Option<String>,
        cost: Cost,
        cause: String,
    },
}

impl Sent {
    fn read(reply: &Reply) -> Self {
        if reply.is_success() {
            return match Generation::read(reply, None) {
                Ok(generation) => Sent::Accepted(generation),
                Err(reason) => {
                    let json = reply
                        .json()
                        .or_else(|| reply.cut_json())
                        .unwrap_or_default();
                    let in_header = || reply.inference_id().map(str::to_owned);
                    let id = ids(&json).next().map(Cow::into_owned);
                    Sent::Lost {
                        id: id.or_else(in_header),
                        cost: Cost::of_response(&json, reply),
                        cause: format!("the response can't be understood: {reason}"),
                    }
                }
            };
        }
        let error = ApiError::read(reply, None, true);
        if error.is_rejection() {
            return Sent::Refused(error);
        }
        let reason = match error.status {
            ..400 => "is a redirect, which is not followed",
            _ if error.cost > Cost::Free => "names a cost",
            _ if error.is_documented => "is a timeout, which does not say whether the work goes on",
            _ => "came from a proxy",
        };
        Sent::Lost {
            cause: reply.unexpected(&format!("status {} {reason}", error.status)),
            cost: error.cost,
            id: error.generation_id,
        }
    }
}

/// What is left in the account.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Balance {
    /// US dollars: `current_balance`, which the vendor's schema says is always in this currency.
    pub usd: f64,
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} USD", self.usd)
    }
}

impl Client {
    /// A client with this key and all defaults.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the key is not a bearer token (white space around it is ignored), or
    /// if the environment names a proxy that this build can't use.
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
            key_source: None,
            base_url: BASE_URL.to_owned(),
            on_retry: None,
            settings: Settings {
                endpoint: VEO_ENDPOINT.to_owned(),
                poll_interval: Duration::from_secs(10),
                poll_timeout: Duration::from_secs(1000),
                request_timeout: Duration::from_secs(120),
                read_timeout: Duration::from_secs(30),
                retry_delay: Duration::from_secs(1),
                connection_timeout: Duration::from_secs(3600),
            },
        }
    }

    /// Queues a generation. **This is the call that costs money.**
    ///
    /// Sends exactly one POST, on a fresh connection, follows no redirect, and never repeats it.
    /// The result has the [`id`](Generation::id) to wait for.
    ///
    /// # Errors
    /// - [`Error::Invalid`]: the request fails a local check; nothing was sent.
    /// - [`Error::Network`], [`Error::Shutdown`]: the request was not sent to its end; nothing is
    ///   charged.
    /// - [`Error::Api`]: the server rejected the request; nothing is charged.
    /// - [`Error::OutcomeUnknown`]: it was sent, and the response was lost. **It may be charged**:
    ///   look it up with [`find_generation_id`](Self::find_generation_id), do not just call again.
    #[doc(alias = "post")]
    #[doc(alias = "veo3")]
    pub fn generate_video(&self, request: &VideoRequest) -> Result<Generation, Error> {
        let id = request.requested_id().map(str::to_owned);
        let id = id.unwrap_or_else(new_request_id);
        match self.send(request, &id, &mut || Ok(()))? {
            Sent::Accepted(mut generation) => {
                generation.client_request_id.get_or_insert(id);
                Ok(generation)
            }
            Sent::Unsent(error) => Err(error),
            Sent::Refused(error) => Err(Error::Api(Box::new(error))),
            Sent::Lost {
                id: generation_id,
                cause,
                ..
            } => Err(Error::OutcomeUnknown {
                client_request_id: id,
                generation_id,
                cause,
                receipt: None,
            }),
        }
    }

    /// Calls `before_body` when only the request's body is left to send: nothing can be charged
    /// before that. An error means that the request is invalid, and nothing was sent.
    pub(crate) fn send(
        &self,
        request: &VideoRequest,
        client_request_id: &str,
        before_body: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<Sent, Error> {
        check_client_request_id(client_request_id)?;
        let json = request.to_json()?.to_string();
        let Settings {
            endpoint,
            request_timeout,
            ..
        } = &self.inner.settings;
        let api = &self.inner.api;
        let posted = api.post(
            endpoint,
            &json,
            client_request_id,
            *request_timeout,
            before_body,
        );
        Ok(match posted {
            Posted::NotSent(error) => Sent::Unsent(error),
            Posted::Response(reply) => Sent::read(&reply),
            Posted::NoResponse(cause) => Sent::Lost {
                id: None,
                cost: Cost::Unsaid,
                cause,
            },
        })
    }

    /// Asks once for the state of a generation.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an invalid id; [`Error::Network`], [`Error::Api`],
    /// [`Error::UnexpectedResponse`] and [`Error::Shutdown`], each with the id. None costs anything.
    pub fn get_video(&self, generation_id: &str) -> Result<Generation, Error> {
        self.get_video_within(generation_id, MAX_GET_TIMEOUT)
    }

    fn get_video_within(&self, id: &str, time: Duration) -> Result<Generation, Error> {
        if !is_id(id) {
            let reason = "blank, longer than 1000 bytes, or has control characters";
            return Err(Error::invalid(format!("the generation id is {reason}")));
        }
        let endpoint = &self.inner.settings.endpoint;
        let reply = self.get(endpoint, &[("generation_id", id)], time, Some(id))?;
        let generation_id = Some(id.to_owned());
        let unexpected = |reason| Error::UnexpectedResponse {
            generation_id,
            reason,
        };
        Generation::read(&reply, Some(id)).map_err(unexpected)
    }

    /// Asks until the generation has finished, and returns its video.
    ///
    /// The vendor says that a video of eight seconds takes about two minutes. Asks at once and then
    /// at each [`poll_interval`](ClientBuilder::poll_interval), for at most
    /// [`poll_timeout`](ClientBuilder::poll_timeout). `on_update` sees every response that
    /// describes the generation. [Transient](Error::is_transient) failures, and the first of two
    /// 404s in a row, are tried again at the next interval;
    /// [`on_retry`](ClientBuilder::on_retry) sees them.
    ///
    /// # Errors
    /// Always with the id: [`Error::Failed`] if it ended without a video, [`Error::TimedOut`],
    /// [`Error::Shutdown`], or what [`get_video`](Self::get_video) gives for failures that are not
    /// transient. Waiting again for the same id costs nothing.
    #[doc(alias = "poll")]
    #[doc(alias = "sleep")]
    pub fn wait_for_video(
        &self,
        generation_id: &str,
        mut on_update: impl FnMut(&Generation),
    ) -> Result<Video, Error> {
        self.wait(generation_id, &mut |generation| {
            on_update(generation);
            Ok(())
        })
    }

    /// As [`wait_for_video`](Self::wait_for_video); an error of `on_update` ends it.
    pub(crate) fn wait(
        &self,
        generation_id: &str,
        on_update: &mut dyn FnMut(&Generation) -> Result<(), Error>,
    ) -> Result<Video, Error> {
        let (inner, start) = (&self.inner, Instant::now());
        let Settings {
            poll_interval: interval,
            poll_timeout: timeout,
            ..
        } = inner.settings;
        poll(
            generation_id,
            Schedule { interval, timeout },
            || start.elapsed(),
            |time| inner.api.shutdown.pause(time, Some(generation_id)),
            |time_left| self.get_video_within(generation_id, time_left),
            on_update,
            |error, pause| inner.on_retry(error, pause),
        )
    }

    /// The balance of the account that the key belongs to (`GET /v2/billing`).
    ///
    /// # Errors
    /// [`Error::Network`], [`Error::Api`], [`Error::UnexpectedResponse`], [`Error::Shutdown`]. None
    /// costs anything.
    pub fn get_balance(&self) -> Result<Balance, Error> {
        let reply = self.get("billing", &[], MAX_GET_TIMEOUT, None)?;
        let balance = number(&reply.json().unwrap_or_default()["current_balance"]);
        let unexpected = || Error::UnexpectedResponse {
            generation_id: None,
            reason: reply.unexpected("it has no balance"),
        };
        balance.map(|usd| Balance { usd }).ok_or_else(unexpected)
    }

    pub(crate) fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
        time: Duration,
        generation_id: Option<&str>,
    ) -> Result<Reply, Error> {
        let time = time
            .min(MAX_GET_TIMEOUT)
            .min(self.inner.settings.request_timeout);
        self.inner.api.get(path, query, time, generation_id)
    }

    /// Ends all that this client and its clones do, from any thread: for the thread of a signal
    /// handler, a Cancel button, a service that stops. Later calls fail at once.
    ///
    /// Waits, pauses, downloads and the wait for a file's lock end within a second with
    /// [`Error::Shutdown`]; DNS, and a connection that is being made, take their time. A POST that
    /// was sent to its end is [`Error::OutcomeUnknown`]. What can be cancelled alone needs a client
    /// of its own: that costs its own connections, and a few microseconds.
    ///
    /// ```no_run
    /// use aimlapi_video::{Client, Error, VideoFile, VideoRequest};
    ///
    /// let client = Client::from_env()?;
    /// let cancel = client.clone();
    /// // On the thread of a Cancel button, or of a handler of Ctrl-C:
    /// std::thread::spawn(move || {
    ///     let _ = std::io::stdin().read_line(&mut String::new());
    ///     cancel.shutdown();
    /// });
    /// let file = VideoFile::new("boat.mp4", VideoRequest::new("A paper boat on a river"));
    /// match file.generate(&client, |_| {}) {
    ///     Err(Error::Shutdown { .. }) => println!("Stopped. The next run continues."),
    ///     other => println!("{other:?}"),
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    pub fn shutdown(&self) {
        self.inner.api.shutdown();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner
            .settings
            .debug("Client", &self.inner.api.base_url.url, f)
    }
}

/// What a client does, the key and the base URL aside.
#[derive(Clone)]
pub(crate) struct Settings {
    endpoint: String,
    pub(crate) poll_interval: Duration,
    pub(crate) poll_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) retry_delay: Duration,
    /// A server can keep a connection busy without an end: one byte at a time, say.
    pub(crate) connection_timeout: Duration,
}

impl Settings {
    fn debug(&self, name: &str, base_url: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("base_url", &base_url)
            .field("endpoint", &self.endpoint)
            .field("api_key", &format_args!("{REDACTED}"))
            .field("poll_interval", &self.poll_interval)
            .field("poll_timeout", &self.poll_timeout)
            .finish_non_exhaustive()
    }
}

/// The settings of a [`Client`] to be. From [`Client::builder`], or from the environment.
#[derive(Clone)]
#[must_use]
pub struct ClientBuilder {
    key: String,
    /// The variable that the key came from.
    key_source: Option<&'static str>,
    base_url: String,
    on_retry: Option<OnRetry>,
    pub(crate) settings: Settings,
}

impl ClientBuilder {
    /// A builder with the key and the base URL that [`Client::from_env`] reads.
    ///
    /// # Errors
    /// As [`Client::from_env`].
    pub fn from_env() -> Result<Self, Error> {
        let mut key = None;
        for name in ["AIMLAPI_KEY", "AIML_API_KEY", "AIMLAPI_API_KEY"] {
            key = key.or(read_env(name)?.map(|key| (key, name)));
        }
        let (key, name) = key.ok_or(Error::MissingKey)?;
        let builder = ClientBuilder {
            key_source: Some(name),
            ..Client::builder(key)
        };
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
        self.settings.endpoint = path.into();
        self
    }

    /// Sets the pause between two polls, and between two look-ups of a lost request. Defaults to
    /// 10 s, as in the vendor's example. Zero is invalid.
    pub fn poll_interval(mut self, time: Duration) -> Self {
        self.settings.poll_interval = time;
        self
    }

    /// Sets the time after which [`wait_for_video`](Client::wait_for_video) gives up. Defaults to
    /// 1000 s, as in the vendor's example.
    #[doc(alias = "timeout")]
    pub fn poll_timeout(mut self, time: Duration) -> Self {
        self.settings.poll_timeout = time;
        self
    }

    /// Sets the time that each phase of a request to the API may take: sending the head, sending
    /// the body, waiting for the head of the response, and receiving its body. Defaults to 120 s. A
    /// GET has at most 30 s of it. A connection may take 20 s. DNS takes as long as the system's
    /// resolver does: a limit would take a thread for each request.
    pub fn request_timeout(mut self, time: Duration) -> Self {
        self.settings.request_timeout = time;
        self
    }

    /// Sets the time without a byte after which a download gives its connection up, and resumes
    /// on another. Defaults to 30 s.
    pub fn read_timeout(mut self, time: Duration) -> Self {
        self.settings.read_timeout = time;
        self
    }

    /// Sets the pause after a failed attempt to download; doubled with each further failure, up to
    /// a minute. Defaults to 1 s.
    pub fn retry_delay(mut self, time: Duration) -> Self {
        self.settings.retry_delay = time;
        self
    }

    /// Calls this before each pause in which a wait, a download or a look-up in the usage log
    /// stays, because something failed and will be tried again. Defaults to nothing: a wait for a
    /// host that does not respond then shows nothing.
    ///
    /// ```
    /// # use aimlapi_video::Client;
    /// let builder = Client::builder("your-key").on_retry(|retry| eprintln!("{retry}"));
    /// # builder.build().unwrap();
    /// ```
    pub fn on_retry(mut self, on_retry: impl Fn(&Retry<'_>) + Send + Sync + 'static) -> Self {
        self.on_retry = Some(Arc::new(on_retry));
        self
    }

    /// Makes the client. Sends nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the key, the base URL, the endpoint or a time is invalid, or if the
    /// environment names a proxy that this build can't use.
    pub fn build(mut self) -> Result<Client, Error> {
        let key = check_key(&self.key, self.key_source)?;
        let base_url = check_base_url(&self.base_url)?;
        self.settings.endpoint = check_endpoint(&self.settings.endpoint)?;
        check_times(&mut self.settings)?;
        let inner = Inner {
            api: Api::new(key, base_url)?,
            settings: self.settings,
            on_retry: self.on_retry,
        };
        Ok(Client {
            inner: Arc::new(inner),
        })
    }
}

/// A key is a bearer token (RFC 6750, 2.1), of characters that no JSON escapes. The error names
/// what people paste by mistake, and never the key.
fn check_key<'k>(key: &'k str, source: Option<&str>) -> Result<&'k str, Error> {
    let key = key.trim();
    let is_token_char = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
    let token = key.trim_end_matches('=');
    let wrong = token.chars().enumerate().find(|(_, c)| !is_token_char(*c));
    let name = key.split('=').next().unwrap_or_default();
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let reason = match wrong {
        None if !token.is_empty() => return Ok(key),
        None => "is blank".to_owned(),
        Some(_) if key.starts_with(['"', '\'', '“', '‘', '`']) => {
            "has quotes around it: remove them".to_owned()
        }
        Some(_)
            if key
                .get(..7)
                .is_some_and(|word| word.eq_ignore_ascii_case("bearer ")) =>
        {
            "has `Bearer ` in front of it: remove that".to_owned()
        }
        Some((_, '=')) if name.contains('_') && name.chars().all(is_name) => {
            "has the name of a variable and `=` in front of it: remove these".to_owned()
        }
        Some((_, '<')) => "is a placeholder: put your own key there".to_owned(),
        Some((index, c)) => format!(
            "has the character U+{:04X} at position {}: a key has A-Z a-z 0-9 - . _ ~ + / and = at \
             the end",
            u32::from(c),
            index + 1
        ),
    };
    let source = source.map_or_else(String::new, |name| format!(" in {name}"));
    Err(Error::invalid(format!("the API key{source} {reason}")))
}

fn check_base_url(url: &str) -> Result<SafeUrl, Error> {
    let invalid =
        |reason: &str| Error::invalid(format!("the base URL {reason}; it is like {BASE_URL}"));
    if url.contains(['?', '#']) || url.len() > 2000 {
        return Err(invalid("is too long, or has a query or a fragment"));
    }
    let mut url = SafeUrl::parse(url).map_err(|reason| invalid(&reason))?;
    url.url.truncate(url.url.trim_end_matches('/').len());
    Ok(url)
}

fn check_endpoint(path: &str) -> Result<String, Error> {
    let is_path_char = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    match path.trim_matches('/') {
        path if !path.is_empty() && path.bytes().all(is_path_char) => Ok(path.to_owned()),
        _ => Err(Error::invalid(format!(
            "the endpoint {path:?} is not a path like {VEO_ENDPOINT}"
        ))),
    }
}

fn check_times(settings: &mut Settings) -> Result<(), Error> {
    let Settings {
        poll_interval,
        request_timeout,
        read_timeout,
        ..
    } = settings;
    for (name, time) in [
        ("poll_interval", poll_interval),
        ("request_timeout", request_timeout),
        ("read_timeout", read_timeout),
    ] {
        if time.is_zero() {
            return Err(Error::invalid(format!(
                "{name} is zero: give a longer time"
            )));
        }
        *time = (*time).min(MAX_TIMEOUT);
    }
    Ok(())
}

fn read_env(name: &str) -> Result<Option<String>, Error> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.trim().is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(Error::invalid(format!("{name} is not Unicode"))),
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.debug("ClientBuilder", &self.base_url, f)
    }
}
