use std::{
    env, fmt,
    hash::{BuildHasher, RandomState},
    io::{self, Read, Write},
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;
use ureq::{
    SendBody,
    http::{HeaderMap, Response, header},
};

use crate::{
    Error, Generation, IntoControlFlow, LoggedGeneration, Polling, Usage, Video, VideoRequest,
    download::{BUFFER_SIZE, Body, Download, Fault, Part, Sink, Version},
    error::{LostAnswer, NOT_JSON, Refusal, Short, is_passing_status},
    http::{self, Address},
    poll,
    request::check_client_request_id,
};

/// The default address of the API.
pub const BASE_URL: &str = "https://api.aimlapi.com/v2";

/// The default endpoint: the one of the vendor's Veo 3 page.
pub const VEO_ENDPOINT: &str = "generate/video/google/generation";

/// The vendor's newer endpoint, which serves every video model, with the same bodies and answers.
pub const UNIVERSAL_ENDPOINT: &str = "video/generations";

/// No JSON of this API comes near this size.
const MAX_JSON: u64 = 1024 * 1024;
const MAX_REDIRECTS: usize = 10;
/// `GET /v2/logs` gives at most 100 rows a page, and 429 past 200 requests a minute.
const MAX_LOG_PAGES: usize = 100;
const LOG_PAGE: usize = 100;

/// Talks to the API. Cheap to clone, and to share between threads: clones share their connections.
///
/// ```no_run
/// use aimlapi_video::{Client, Polling, VideoRequest};
///
/// let client = Client::from_env()?;
/// let generation = client.generate_video(&VideoRequest::new("A dragon over the tallest mountain"))?;
/// let video = client.wait_for_video(&generation.id, &Polling::default(), |generation| {
///     println!("Status: {}", generation.status);
/// })?;
/// client.download_video(&video, "dragon.mp4", |done, total| println!("{done} of {total:?} bytes"))?;
/// # Ok::<(), aimlapi_video::Error>(())
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    agent: ureq::Agent,
    /// `Bearer`, a space, and the key.
    authorization: String,
    base_url: String,
    endpoint: String,
    request_timeout: Duration,
    poll_timeout: Duration,
    stall_timeout: Duration,
    retry_pause: Duration,
}

impl Client {
    /// A client with this key and all defaults.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the key is empty or can't be part of a header. White space around it is ignored.
    pub fn new(api_key: impl Into<String>) -> Result<Self, Error> {
        Self::builder(api_key).build()
    }

    /// A client with the key from `AIMLAPI_KEY`, else `AIML_API_KEY`, else `AIMLAPI_API_KEY`, and
    /// the base address from `AIMLAPI_BASE_URL`, if set. A variable that is set to nothing counts as not set.
    ///
    /// # Errors
    /// [`Error::MissingKey`] without a key; [`Error::Invalid`] if a value is of no use.
    pub fn from_env() -> Result<Self, Error> {
        let keys = ["AIMLAPI_KEY", "AIML_API_KEY", "AIMLAPI_API_KEY"];
        let mut key = None;
        for name in keys {
            key = key.or(read_env(name)?);
        }
        let mut builder = Self::builder(key.ok_or(Error::MissingKey)?);
        if let Some(base_url) = read_env("AIMLAPI_BASE_URL")? {
            builder = builder.base_url(base_url);
        }
        builder.build()
    }

    /// Starts a client that is not all defaults.
    pub fn builder(api_key: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            key: api_key.into(),
            base_url: BASE_URL.to_owned(),
            endpoint: VEO_ENDPOINT.to_owned(),
            user_agent: concat!("aimlapi-video/", env!("CARGO_PKG_VERSION")).to_owned(),
            request_timeout: Duration::from_secs(120),
            poll_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            retry_pause: Duration::from_secs(1),
        }
    }

    /// Queues a generation. **This is the call that costs money.**
    ///
    /// Sends exactly one POST, on a fresh connection, follows no redirect, and never repeats it.
    /// The answer has the [`id`](Generation::id) to wait for.
    ///
    /// # Errors
    /// - [`Error::Invalid`]: the request can't be right; nothing was sent.
    /// - [`Error::Network`], [`Error::Certificate`]: nothing reached the server.
    /// - [`Error::Refused`]: the server said no; nothing is charged.
    /// - [`Error::OutcomeUnknown`]: it was sent, and the answer was lost. **It may be charged**:
    ///   look it up with [`find_generation`](Self::find_generation), do not just call again.
    pub fn generate_video(&self, request: &VideoRequest) -> Result<Generation, Error> {
        let id = request.requested_id().map_or_else(fresh_request_id, str::to_owned);
        self.generate_video_as(request, &id, || Ok(()))
    }

    /// Calls `before_body` when all is ready for the request's body: nothing can be charged before that.
    pub(crate) fn generate_video_as(
        &self,
        request: &VideoRequest,
        client_request_id: &str,
        mut before_body: impl FnMut() -> io::Result<()>,
    ) -> Result<Generation, Error> {
        check_client_request_id(client_request_id)?;
        let json = request.to_json()?.to_string();
        let mut body = Sent { bytes: json.as_bytes(), before: &mut before_body, begun: false };
        let answer = self
            .inner
            .agent
            .post(format!("{}/{}", self.inner.base_url, self.inner.endpoint))
            .header(header::AUTHORIZATION, &self.inner.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_LENGTH, json.len())
            .header("x-client-request-id", client_request_id)
            .config()
            // A pooled connection may die under the request, and nobody would know what became of it.
            .max_idle_age(Duration::ZERO)
            .timeout_global(Some(self.inner.request_timeout))
            .build()
            .send(SendBody::from_reader(&mut body));
        let lost = |generation_id: Option<String>, cause: String| {
            Error::OutcomeUnknown(Box::new(LostAnswer {
                client_request_id: client_request_id.to_owned(),
                generation_id,
                cause,
                receipt: None,
            }))
        };
        let reply = match answer {
            Ok(response) => self.receive(response),
            // A server that has no body has nothing that it could charge for.
            Err(error) if !body.begun => return Err(uncharged(error, None)),
            Err(error) => return Err(lost(None, into_io(error).to_string())),
        };
        let inference_id = reply.inference_id();
        match reply.status {
            200..300 => {}
            status if (400..500).contains(&status) || (status >= 500 && reply.documented_error().is_some()) => {
                return Err(Error::Refused(Box::new(reply.into_refusal(None))));
            }
            status => {
                let text = reply.into_refusal(None);
                let cause = format!("status {status} came, not from the API itself: {}", Short(&text.body));
                return Err(lost(inference_id, cause));
            }
        }
        match reply.into_generation(None) {
            Ok(mut generation) => {
                generation.client_request_id.get_or_insert_with(|| client_request_id.to_owned());
                Ok(generation)
            }
            Err((reason, body)) => {
                Err(lost(inference_id, format!("the answer can't be understood ({reason}): {}", Short(&body))))
            }
        }
    }

    /// Asks once how a generation stands.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty id; [`Error::Network`], [`Error::Certificate`],
    /// [`Error::Refused`] and [`Error::UnexpectedAnswer`], each with the id. None costs anything.
    pub fn get_video(&self, generation_id: &str) -> Result<Generation, Error> {
        self.get_video_within(generation_id, self.inner.poll_timeout)
    }

    fn get_video_within(&self, generation_id: &str, timeout: Duration) -> Result<Generation, Error> {
        check_generation_id(generation_id)?;
        let url = format!("{}/{}", self.inner.base_url, self.inner.endpoint);
        let reply = self.get(&url, &[("generation_id", generation_id)], timeout, Some(generation_id))?;
        reply.into_generation(Some(generation_id)).map_err(|(reason, body)| Error::UnexpectedAnswer {
            generation_id: Some(generation_id.to_owned()),
            reason,
            body,
        })
    }

    /// Asks until the generation is over, and gives its video.
    ///
    /// Polls at once and then at each [interval](Polling::interval). Failures that pass (connections
    /// that fail, timeouts, the statuses 408, 425, 429 and 5xx, a proxy's page) cost a tick, not the wait. The callback
    /// sees every answer; it may return [`ControlFlow::Break`](std::ops::ControlFlow::Break) to stop waiting, or nothing.
    ///
    /// # Errors
    /// Always with the id: [`Error::Failed`] if it is over without a video, [`Error::TimedOut`] after
    /// [`timeout`](Polling::timeout), [`Error::Stopped`], or what [`get_video`](Self::get_video) gives for
    /// failures that do not pass. Waiting again for the same id costs nothing.
    pub fn wait_for_video<C: IntoControlFlow>(
        &self,
        generation_id: &str,
        polling: &Polling,
        mut callback: impl FnMut(&Generation) -> C,
    ) -> Result<Video, Error> {
        check_generation_id(generation_id)?;
        let start = Instant::now();
        poll::poll(
            generation_id,
            polling,
            || start.elapsed(),
            poll::sleep,
            |left| self.get_video_within(generation_id, left.min(self.inner.poll_timeout)),
            |generation| callback(generation).into_control_flow(),
        )
    }

    /// Looks for a generation in the usage log of the last 30 days, by the client request id it was sent with.
    ///
    /// `None` means: not found *so far*. The log can be late, so that never proves that nothing was
    /// charged. Looks at the newest 10 000 rows at most.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an id that can't have been sent; [`Error::Network`],
    /// [`Error::Certificate`], [`Error::Refused`], [`Error::UnexpectedAnswer`]. None costs anything.
    pub fn find_generation(&self, client_request_id: &str) -> Result<Option<LoggedGeneration>, Error> {
        check_client_request_id(client_request_id)?;
        let url = format!("{}/logs", self.inner.base_url);
        let limit = LOG_PAGE.to_string();
        for page in 0..MAX_LOG_PAGES {
            let offset = (page * LOG_PAGE).to_string();
            let query = [("period", "30d"), ("limit", limit.as_str()), ("offset", offset.as_str())];
            let reply = self.get(&url, &query, self.inner.poll_timeout, None)?;
            let unexpected = |(reason, body)| Error::UnexpectedAnswer { generation_id: None, reason, body };
            let log = reply.into_json().map_err(unexpected)?;
            let Some(rows) = log.get("data").and_then(Value::as_array) else {
                return Err(unexpected(("it is not a usage log", log.to_string())));
            };
            let is_it = |row: &&Value| row.get("client_request_id").and_then(Value::as_str) == Some(client_request_id);
            if let Some(row) = rows.iter().filter(is_it).find_map(LoggedGeneration::from_json) {
                return Ok(Some(row));
            }
            if rows.is_empty() || log.pointer("/pagination/has_more") != Some(&Value::Bool(true)) {
                break;
            }
        }
        Ok(None)
    }

    /// Downloads a video to a file: the whole file under its name, or none.
    ///
    /// Streams into a sibling that ends in `.part`, resumes where a connection broke, checks the size,
    /// and renames at the end. An address that has expired is asked for anew, once. The API key
    /// is not sent there. The callback is told how many bytes there are, and of how many, if that is known; the count
    /// falls back if the file server makes the download start over.
    ///
    /// # Errors
    /// [`Error::File`] with the path, the reason, and the id of the generation, whose video can be fetched again;
    /// [`Error::Stopped`] if the callback returns [`ControlFlow::Break`](std::ops::ControlFlow::Break).
    pub fn download_video<C: IntoControlFlow>(
        &self,
        video: &Video,
        path: impl AsRef<Path>,
        progress: impl FnMut(u64, Option<u64>) -> C,
    ) -> Result<(), Error> {
        let path = path.as_ref();
        let fault = |reason: String| Error::File {
            path: Some(path.to_owned()),
            generation_id: Some(video.generation_id.clone()),
            reason,
        };
        let mut part = Part::create(path).map_err(|error| fault(format!("can't be written: {error}")))?;
        self.download(video, Sink::Part(&mut part), progress, fault)?;
        part.finish().map_err(|error| fault(format!("can't be written: {error}")))
    }

    /// Downloads a video into a writer, as [`download_video`](Self::download_video) does into a file.
    ///
    /// After an error, what was written is to be thrown away.
    ///
    /// # Errors
    /// As [`download_video`](Self::download_video). One fault more is final: a server that sends the file
    /// from its beginning again, or a changed file.
    pub fn download_video_to<C: IntoControlFlow>(
        &self,
        video: &Video,
        mut writer: impl Write,
        progress: impl FnMut(u64, Option<u64>) -> C,
    ) -> Result<(), Error> {
        let fault = |reason| Error::File { path: None, generation_id: Some(video.generation_id.clone()), reason };
        self.download(video, Sink::Writer(&mut writer), progress, fault)?;
        writer.flush().map_err(|error| fault(format!("can't be written: {error}")))
    }

    fn download<C: IntoControlFlow>(
        &self,
        video: &Video,
        sink: Sink<'_>,
        mut progress: impl FnMut(u64, Option<u64>) -> C,
        fault: impl Fn(String) -> Error,
    ) -> Result<(), Error> {
        let mut download = Download::new(sink, video.file_size);
        let mut url = video.url.clone();
        let mut fresh = false;
        loop {
            let ended = download.run(
                |offset, version| self.fetch(&url, offset, version),
                |done, total| progress(done, total).into_control_flow(),
                self.inner.retry_pause,
                poll::sleep,
            );
            match ended {
                Ok(()) => return Ok(()),
                Err(Fault::Stopped) => return Err(Error::Stopped { generation_id: video.generation_id.clone() }),
                Err(Fault::Expired(_)) if !fresh => {
                    let generation = self.get_video(&video.generation_id);
                    let found = generation.map_err(|error| fault(format!("its address has expired, and {error}")))?;
                    url = found
                        .video
                        .ok_or_else(|| fault("its address has expired, and there is no other".to_owned()))?
                        .url;
                    fresh = true;
                }
                Err(Fault::Expired(reason) | Fault::Final(reason) | Fault::Passing { reason, .. }) => {
                    return Err(fault(reason));
                }
            }
        }
    }

    /// One attempt at the bytes of the file at `url` from `offset` on: a GET, and those that redirects ask for.
    fn fetch(&self, url: &str, offset: u64, version: &Version) -> Result<Body, Fault> {
        let mut address = Address::parse(url).map_err(|fault| Fault::Final(format!("the video's address {fault}")))?;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.inner.agent.get(&address.url).header(header::ACCEPT_ENCODING, "identity");
            if offset > 0 {
                request = request.header(header::RANGE, format!("bytes={offset}-"));
                if let Some(version) = version.strong() {
                    request = request.header(header::IF_RANGE, version);
                }
            }
            let config = request
                .config()
                .timeout_per_read(Some(self.inner.stall_timeout))
                .timeout_recv_response(Some(self.inner.stall_timeout))
                .input_buffer_size(BUFFER_SIZE);
            let config = if address.is_loopback { config.proxy(None) } else { config };
            let response = config.build().call().map_err(|error| match uncharged(error, None) {
                Error::Network { cause, .. } => Fault::passing(cause.to_string()),
                untrusted => Fault::Final(untrusted.to_string()),
            })?;
            if !response.status().is_redirection() {
                return into_body(response, offset);
            }
            let location = response.headers().get("location").map_or(&[][..], |location| location.as_bytes());
            let location = String::from_utf8_lossy(location);
            address =
                address.join(&location).map_err(|fault| Fault::Final(format!("the redirect's target {fault}")))?;
        }
        Err(Fault::Final(format!("more than {MAX_REDIRECTS} redirects")))
    }

    fn get(
        &self,
        url: &str,
        query: &[(&str, &str)],
        timeout: Duration,
        generation_id: Option<&str>,
    ) -> Result<Reply, Error> {
        let response = self
            .inner
            .agent
            .get(url)
            .query_pairs(query.iter().copied())
            .header(header::AUTHORIZATION, &self.inner.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .config()
            .timeout_global(Some(timeout))
            .build()
            .call()
            .map_err(|error| uncharged(error, generation_id))?;
        let mut reply = self.receive(response);
        if !(200..300).contains(&reply.status) {
            return Err(Error::Refused(Box::new(reply.into_refusal(generation_id))));
        }
        match reply.broken.take() {
            Some(cause) => Err(Error::Network { generation_id: generation_id.map(str::to_owned), cause }),
            None => Ok(reply),
        }
    }

    /// Reads an answer to its end, so that its connection can serve the next request.
    fn receive(&self, response: Response<ureq::Body>) -> Reply {
        let (head, body) = response.into_parts();
        let mut bytes = Vec::new();
        let read = body.into_with_config().limit(MAX_JSON).reader().read_to_end(&mut bytes);
        let mut body =
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        // A server, or a proxy, may quote what it was sent.
        let key = self.inner.key();
        if key.len() >= 8 && body.contains(key) {
            body = body.replace(key, HIDDEN);
        }
        Reply { status: head.status.as_u16(), headers: head.headers, body, broken: read.err() }
    }
}

impl Inner {
    fn key(&self) -> &str {
        &self.authorization["Bearer ".len()..]
    }
}

const HIDDEN: &str = "[hidden]";

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base_url", &self.inner.base_url)
            .field("endpoint", &self.inner.endpoint)
            .field("api_key", &format_args!("{HIDDEN}"))
            .finish_non_exhaustive()
    }
}

/// Makes a [`Client`]. From [`Client::builder`].
#[derive(Clone)]
pub struct ClientBuilder {
    key: String,
    base_url: String,
    endpoint: String,
    user_agent: String,
    request_timeout: Duration,
    poll_timeout: Duration,
    stall_timeout: Duration,
    retry_pause: Duration,
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("base_url", &self.base_url)
            .field("endpoint", &self.endpoint)
            .field("api_key", &format_args!("{HIDDEN}"))
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// Sets the address of the API: https, or http to this machine. Defaults to [`BASE_URL`].
    #[must_use]
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = url.into();
        self
    }

    /// Sets the path of the endpoint under the base address, [`UNIVERSAL_ENDPOINT`], say. Defaults to [`VEO_ENDPOINT`].
    #[must_use]
    pub fn endpoint(mut self, path: impl Into<String>) -> Self {
        self.endpoint = path.into();
        self
    }

    /// Sets the `User-Agent`. Defaults to `aimlapi-video/` and the version.
    #[must_use]
    pub fn user_agent(mut self, name: impl Into<String>) -> Self {
        self.user_agent = name.into();
        self
    }

    /// Sets the time that the POST of [`generate_video`](Client::generate_video) may take in all. Defaults to 120 s.
    #[must_use]
    pub fn request_timeout(mut self, time: Duration) -> Self {
        self.request_timeout = time;
        self
    }

    /// Sets the time that one poll (or another GET to the API) may take in all. Defaults to 30 s.
    #[must_use]
    pub fn poll_timeout(mut self, time: Duration) -> Self {
        self.poll_timeout = time;
        self
    }

    /// Sets the time without a byte after which a download's connection is given up, and the download
    /// resumed on another. Defaults to 30 s.
    #[must_use]
    pub fn stall_timeout(mut self, time: Duration) -> Self {
        self.stall_timeout = time;
        self
    }

    /// Sets the pause after a failed attempt to download; doubled with each further failure. Defaults to 1 s.
    #[must_use]
    pub fn retry_pause(mut self, time: Duration) -> Self {
        self.retry_pause = time;
        self
    }

    /// Makes the client. Sends nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the key, the address, the endpoint, the user agent or a timeout is of no use.
    pub fn build(self) -> Result<Client, Error> {
        let invalid = |fault: String| Err(Error::Invalid(fault));
        let key = self.key.trim();
        if key.is_empty() {
            return invalid("the API key is empty".to_owned());
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return invalid("the API key has a space, a line break or a character that is not ASCII inside".to_owned());
        }
        let address = Address::parse(&self.base_url);
        let address = match address {
            Ok(_) if self.base_url.contains(['?', '#']) => Err("has a query or a fragment".to_owned()),
            other => other,
        };
        let address =
            address.map_err(|fault| Error::Invalid(format!("the base address {fault}; it is like {BASE_URL}")))?;
        let endpoint = self.endpoint.trim().trim_matches('/').to_owned();
        if endpoint.is_empty() || !endpoint.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b)) {
            return invalid(format!("the endpoint {endpoint:?} is not a path like {VEO_ENDPOINT}"));
        }
        if self.user_agent.is_empty() || !self.user_agent.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
            return invalid("the user agent is empty or has characters that a header can't hold".to_owned());
        }
        let [request_timeout, poll_timeout, stall_timeout] =
            [self.request_timeout, self.poll_timeout, self.stall_timeout].map(|time| time.min(LONGEST_TIMEOUT));
        if request_timeout.is_zero() || poll_timeout.is_zero() || stall_timeout.is_zero() {
            return invalid("a timeout is zero".to_owned());
        }
        Ok(Client {
            inner: Arc::new(Inner {
                agent: agent(self.user_agent, address.is_loopback),
                authorization: format!("Bearer {key}"),
                base_url: address.url.trim_end_matches('/').to_owned(),
                endpoint,
                request_timeout,
                poll_timeout,
                stall_timeout,
                retry_pause: self.retry_pause,
            }),
        })
    }
}

/// What lies beyond can't be added to the time of day everywhere.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

fn agent(user_agent: String, is_loopback: bool) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .user_agent(user_agent)
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_resolve(Some(Duration::from_secs(10)))
        .timeout_connect(Some(Duration::from_secs(20)))
        // A hundred jobs that wait at once keep their connections, and small buffers.
        .max_idle_connections(128)
        .max_idle_connections_per_host(128)
        .input_buffer_size(16 * 1024)
        .output_buffer_size(16 * 1024);
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    let config = {
        use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
        let (provider, roots) = if cfg!(feature = "native-tls") {
            (TlsProvider::NativeTls, RootCerts::PlatformVerifier)
        } else if cfg!(feature = "platform-verifier") {
            (TlsProvider::Rustls, RootCerts::PlatformVerifier)
        } else {
            (TlsProvider::Rustls, RootCerts::WebPki)
        };
        config.tls_config(TlsConfig::builder().provider(provider).root_certs(roots).build())
    };
    // A proxy from the environment can't reach this machine as this machine does.
    let config = if is_loopback { config.proxy(None) } else { config };
    config.build().new_agent()
}

/// An answer of the API, read to its end or to where it broke.
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: String,
    broken: Option<io::Error>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        text(&self.headers, name)
    }

    /// The vendor's documentation says that this header is the id of the generation.
    fn inference_id(&self) -> Option<String> {
        self.header("x-inference-id").filter(|id| !id.is_empty()).map(str::to_owned)
    }

    fn into_json(self) -> Result<Value, (&'static str, String)> {
        match serde_json::from_str(&self.body) {
            Ok(json) if self.broken.is_none() => Ok(json),
            _ => Err((NOT_JSON, self.body)),
        }
    }

    fn into_generation(self, asked: Option<&str>) -> Result<Generation, (&'static str, String)> {
        let number = |name| self.header(name).and_then(|number| number.parse().ok());
        let usage = Usage::new(number("x-aimlapi-credits-used"), number("x-aimlapi-usd-spent"));
        let client_request_id = self.header("x-client-request-id").map(str::to_owned);
        let inference_id = self.inference_id();
        let mut generation = Generation::from_json(self.into_json()?, asked.or(inference_id.as_deref()))
            .map_err(|(reason, json)| (reason, json.to_string()))?;
        generation.usage = Usage::merge(generation.usage, usage);
        generation.client_request_id = client_request_id;
        Ok(generation)
    }

    /// Whether the body is the API's own, as documented, and not that of a proxy.
    fn documented_error(&self) -> Option<Value> {
        let json: Value = serde_json::from_str(&self.body).ok()?;
        (json.get("message").is_some() && json.get("statusCode").is_some()).then_some(json)
    }

    fn into_refusal(self, generation_id: Option<&str>) -> Refusal {
        let json = self.documented_error();
        let field = |name: &str| {
            let value = json.as_ref()?.get(name)?;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        Refusal {
            status: self.status,
            message: field("message"),
            request_id: field("requestId"),
            retry_after: retry_after(&self.headers),
            generation_id: generation_id.map(str::to_owned),
            body: self.body,
        }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    http::retry_after(text(headers, "retry-after")?, SystemTime::now())
}

/// What a file server's answer means to a download.
fn into_body(response: Response<ureq::Body>, offset: u64) -> Result<Body, Fault> {
    let (head, body) = response.into_parts();
    let header = |name| text(&head.headers, name);
    let range = header("content-range").and_then(http::content_range);
    let reason = format!("the file server answered with status {}", head.status.as_u16());
    let (start, total) = match (head.status.as_u16(), range) {
        (200, _) => (0, body.content_length()),
        (206, Some((Some(start), total))) if start == offset => (start, total),
        // Nothing is left after the offset: an empty body says the same.
        (416, Some((None, total))) => (offset, total),
        (401 | 403 | 404 | 410, _) => return Err(Fault::Expired(reason)),
        (416, _) => (offset, None),
        // Another part, or one of nobody knows what: no offset matches.
        (206, _) => (u64::MAX, None),
        (status, _) if is_passing_status(status) => {
            return Err(Fault::Passing { reason, retry_after: retry_after(&head.headers) });
        }
        _ => return Err(Fault::Final(reason)),
    };
    if head.status == 416 {
        return Ok(Body { start, total, version: Version::default(), framed: false, reader: Box::new(io::empty()) });
    }
    let kind = header("content-type").unwrap_or_default().to_ascii_lowercase();
    if ["text/html", "application/json"].iter().any(|text| kind.starts_with(text)) {
        return Err(Fault::Final(format!("the file server sent {} instead of the video", Short(&kind))));
    }
    if header("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(Fault::Final("the file server sent the video compressed, unasked".to_owned()));
    }
    let owned = |name| header(name).map(str::to_owned);
    // Chunks have an end since HTTP/1.1. That of a part says nothing of the file's.
    let chunked = head.version >= ureq::http::Version::HTTP_11
        && header("transfer-encoding").is_some_and(|coding| coding.to_ascii_lowercase().contains("chunked"));
    Ok(Body {
        start,
        total,
        version: Version { tag: owned("etag"), date: owned("last-modified") },
        framed: head.status == 200 && chunked,
        reader: Box::new(body.into_reader()),
    })
}

/// A request body that knows whether any of it was asked for, which is when the head of the request is out.
struct Sent<'a> {
    bytes: &'a [u8],
    before: &'a mut dyn FnMut() -> io::Result<()>,
    begun: bool,
}

impl Read for Sent<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.begun {
            (self.before)()?;
            self.begun = true;
        }
        self.bytes.read(buffer)
    }
}

/// The error for a request that charged nothing, whatever became of it.
fn uncharged(error: ureq::Error, generation_id: Option<&str>) -> Error {
    let generation_id = generation_id.map(str::to_owned);
    let cause = into_io(error);
    // Neither TLS library's error type can be named here. Both say "certificate" of untrusted ones; an alert
    // is what the server says, and any certificate in it is the client's.
    let text = cause.to_string();
    if text.contains("certificate") && !text.contains(" alert ") {
        return Error::Certificate { generation_id, cause };
    }
    Error::Network { generation_id, cause }
}

fn into_io(error: ureq::Error) -> io::Error {
    match error {
        ureq::Error::Timeout(timeout) => io::Error::new(io::ErrorKind::TimedOut, format!("timed out ({timeout})")),
        other => other.into_io(),
    }
}

fn check_generation_id(id: &str) -> Result<(), Error> {
    if id.trim().is_empty() {
        return Err(Error::Invalid("the generation id is empty".to_owned()));
    }
    Ok(())
}

fn read_env(name: &str) -> Result<Option<String>, Error> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.trim().is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(Error::Invalid(format!("{name} is not Unicode"))),
    }
}

/// An id that nobody else has: 128 bits of the randomness that hash maps are seeded with, and of the time.
pub(crate) fn fresh_request_id() -> String {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let random = || RandomState::new().hash_one(time);
    format!("aimlapi-video-{:016x}{:016x}", random(), random())
}
