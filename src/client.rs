use std::{
    env, fmt,
    hash::{BuildHasher, RandomState},
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;

use crate::{
    Error, Generation, IntoControlFlow, LoggedGeneration, Polling, Video, VideoRequest,
    download::{Download, Fault, Part, Sink},
    error::{LostAnswer, Short},
    http::Address,
    poll,
    request::check_client_request_id,
    transport::{HIDDEN, Transport, Unanswered},
};

/// The default address of the API.
pub const BASE_URL: &str = "https://api.aimlapi.com/v2";

/// The default endpoint: the one of the vendor's Veo 3 page.
pub const VEO_ENDPOINT: &str = "generate/video/google/generation";

/// The vendor's newer endpoint, which serves every video model, with the same bodies and answers.
pub const UNIVERSAL_ENDPOINT: &str = "video/generations";

/// `GET /v2/logs` gives at most 100 rows a page, and 429 past 200 requests a minute.
const MAX_LOG_PAGES: usize = 100;
const LOG_PAGE: usize = 100;

/// Talks to the API. Cheap to clone, and to share between threads: clones share their connections.
///
/// ```no_run
/// use aimlapi_video::{Client, Polling, VideoRequest};
///
/// let client = Client::from_env()?;
/// let request = VideoRequest::new("A dragon over the tallest mountain");
/// let generation = client.generate_video(&request)?;
/// let video = client.wait_for_video(&generation.id, &Polling::default(), |generation| {
///     println!("Status: {}", generation.status);
/// })?;
/// client.download_video(&video, "dragon.mp4", |done, total| {
///     println!("{done} of {total:?} bytes");
/// })?;
/// # Ok::<(), aimlapi_video::Error>(())
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Transport,
    /// As set, and checked; the key is with the transport alone.
    settings: ClientBuilder,
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

    /// Starts a client with settings of your own.
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
    /// - [`Error::Network`], [`Error::Certificate`]: the request never reached the server whole.
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
        before_body: impl FnMut() -> io::Result<()>,
    ) -> Result<Generation, Error> {
        check_client_request_id(client_request_id)?;
        let json = request.to_json()?.to_string();
        let lost = |generation_id: Option<String>, cause: String| {
            Error::OutcomeUnknown(Box::new(LostAnswer {
                client_request_id: client_request_id.to_owned(),
                generation_id,
                cause,
                receipt: None,
            }))
        };
        let Inner { transport, settings } = &*self.inner;
        let timeout = settings.request_timeout;
        let reply = match transport.post(&settings.url(), &json, client_request_id, timeout, before_body) {
            Ok(reply) => reply,
            Err(Unanswered::NotSent(error)) => return Err(error),
            Err(Unanswered::Lost(cause)) => return Err(lost(None, cause)),
        };
        let inference_id = reply.inference_id();
        if !(200..300).contains(&reply.status) {
            let mut refusal = reply.into_refusal(None);
            let status = refusal.status;
            // A proxy gives 408 and 499 for requests that it may have passed on.
            if status < 400 || (matches!(status, 408 | 499..) && refusal.message.is_none()) {
                let cause = format!("status {status} came, not from the API itself: {}", Short(&refusal.body));
                return Err(lost(inference_id, cause));
            }
            if matches!(status, 408 | 499..) {
                refusal.generation_id = inference_id;
            }
            return Err(Error::Refused(Box::new(refusal)));
        }
        match reply.into_generation(None) {
            Ok(mut generation) => {
                generation.client_request_id.get_or_insert_with(|| client_request_id.to_owned());
                Ok(generation)
            }
            Err((reason, body)) => {
                let number = || Some(serde_json::from_str::<Value>(&body).ok()?.get("id")?.as_u64()?.to_string());
                Err(lost(
                    inference_id.or_else(number),
                    format!("the answer can't be understood ({reason}): {}", Short(&body)),
                ))
            }
        }
    }

    /// Asks once how a generation stands.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty id; [`Error::Network`], [`Error::Certificate`],
    /// [`Error::Refused`] and [`Error::UnexpectedAnswer`], each with the id. None costs anything.
    pub fn get_video(&self, generation_id: &str) -> Result<Generation, Error> {
        self.get_video_within(generation_id, self.inner.settings.poll_timeout)
    }

    fn get_video_within(&self, generation_id: &str, timeout: Duration) -> Result<Generation, Error> {
        check_generation_id(generation_id)?;
        let url = self.inner.settings.url();
        let reply =
            self.inner.transport.get(&url, &[("generation_id", generation_id)], timeout, Some(generation_id))?;
        reply.into_generation(Some(generation_id)).map_err(|(reason, body)| Error::UnexpectedAnswer {
            generation_id: Some(generation_id.to_owned()),
            reason,
            body,
        })
    }

    /// Asks until the generation is over, and gives its video.
    ///
    /// A video of eight seconds takes about two minutes, the vendor says.
    ///
    /// Polls at once and then at each [interval](Polling::interval). Failures that pass (connections
    /// that fail, timeouts, the statuses 408, 425, 429 and 5xx, a proxy's page) cost a tick, not the wait. The callback
    /// sees every answer; it may return [`ControlFlow::Break`](std::ops::ControlFlow::Break) to stop waiting, or nothing.
    /// Polls without an answer are not shown to it: a silent wait may be an outage.
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
        let start = Instant::now();
        poll::poll(
            generation_id,
            polling,
            || start.elapsed(),
            poll::sleep,
            |left| self.get_video_within(generation_id, left.min(self.inner.settings.poll_timeout)),
            |generation| callback(generation).into_control_flow(),
        )
    }

    /// Looks for a generation in the usage log of the last 30 days, by the client request id it was
    /// sent with, and with the same key.
    ///
    /// `None` means: not found *so far*. The log can be late, so that never proves that nothing was
    /// charged. Looks at the newest 10 000 rows at most.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an id that can't have been sent; [`Error::Network`],
    /// [`Error::Certificate`], [`Error::Refused`], [`Error::UnexpectedAnswer`]. None costs anything.
    pub fn find_generation(&self, client_request_id: &str) -> Result<Option<LoggedGeneration>, Error> {
        check_client_request_id(client_request_id)?;
        let url = format!("{}/logs", self.inner.settings.base_url);
        let limit = LOG_PAGE.to_string();
        let mut seen = 0;
        for _ in 0..MAX_LOG_PAGES {
            let offset = seen.to_string();
            let query = [("period", "30d"), ("limit", limit.as_str()), ("offset", offset.as_str())];
            let reply = self.inner.transport.get(&url, &query, self.inner.settings.poll_timeout, None)?;
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
            seen += rows.len();
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
        let cannot_write = |error: io::Error| fault(format!("can't be written: {error}"));
        let mut part = Part::create(path).map_err(cannot_write)?;
        self.download(video, Sink::Part(&mut part), progress, fault)?;
        part.finish().map_err(cannot_write)
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
                |offset, version| self.inner.transport.fetch(&url, offset, version, self.inner.settings.stall_timeout),
                |done, total| progress(done, total).into_control_flow(),
                self.inner.settings.retry_pause,
                poll::sleep,
            );
            match ended {
                Ok(()) => return Ok(()),
                Err(Fault::Stopped) => return Err(Error::Stopped { generation_id: video.generation_id.clone() }),
                Err(Fault::Expired(_)) if !fresh => {
                    let generation = self.get_video(&video.generation_id);
                    let found = generation.map_err(|error| {
                        fault(format!("its address has expired, and asking for another failed: {}", error.cause()))
                    })?;
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
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.settings.debug("Client", f)
    }
}

/// Makes a [`Client`]. From [`Client::builder`].
#[derive(Clone)]
#[must_use]
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
        self.debug("ClientBuilder", f)
    }
}

impl ClientBuilder {
    /// Sets the address of the API: https, or http to this machine. Defaults to [`BASE_URL`].
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = url.into();
        self
    }

    /// Sets the path of the endpoint under the base address, [`UNIVERSAL_ENDPOINT`], say. Defaults to [`VEO_ENDPOINT`].
    pub fn endpoint(mut self, path: impl Into<String>) -> Self {
        self.endpoint = path.into();
        self
    }

    /// Sets the `User-Agent`. Defaults to `aimlapi-video/` and the version.
    pub fn user_agent(mut self, name: impl Into<String>) -> Self {
        self.user_agent = name.into();
        self
    }

    /// Sets the time that the POST of [`generate_video`](Client::generate_video) may take in all. Defaults to 120 s.
    pub fn request_timeout(mut self, time: Duration) -> Self {
        self.request_timeout = time;
        self
    }

    /// Sets the time that one poll (or another GET to the API) may take in all. Defaults to 30 s.
    pub fn poll_timeout(mut self, time: Duration) -> Self {
        self.poll_timeout = time;
        self
    }

    /// Sets the time without a byte after which a download's connection is given up, and the download
    /// resumed on another. Defaults to 30 s.
    pub fn stall_timeout(mut self, time: Duration) -> Self {
        self.stall_timeout = time;
        self
    }

    /// Sets the pause after a failed attempt to download; doubled with each further failure. Defaults to 1 s.
    pub fn retry_pause(mut self, time: Duration) -> Self {
        self.retry_pause = time;
        self
    }

    /// Makes the client. Sends nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the key, the address, the endpoint, the user agent or a timeout is of no use.
    pub fn build(mut self) -> Result<Client, Error> {
        let check = |is_good: bool, fault: &str| {
            if is_good { Ok(()) } else { Err(Error::Invalid(fault.to_owned())) }
        };
        let key = std::mem::take(&mut self.key);
        let key = key.trim();
        check(!key.is_empty(), "the API key is empty")?;
        check(
            key.bytes().all(|byte| byte.is_ascii_graphic()),
            "the API key has a space, a line break or a character that is not ASCII inside",
        )?;
        let has_query = self.base_url.contains(['?', '#']);
        let address = Address::parse(&self.base_url)
            .and_then(|address| if has_query { Err("has a query or a fragment".to_owned()) } else { Ok(address) })
            .map_err(|fault| Error::Invalid(format!("the base address {fault}; it is like {BASE_URL}")))?;
        self.base_url = address.url.trim_end_matches('/').to_owned();
        self.endpoint = self.endpoint.trim().trim_matches('/').to_owned();
        check(
            !self.endpoint.is_empty()
                && self.endpoint.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b)),
            &format!("the endpoint {:?} is not a path like {VEO_ENDPOINT}", self.endpoint),
        )?;
        check(
            !self.user_agent.is_empty() && self.user_agent.bytes().all(|b| b.is_ascii_graphic() || b == b' '),
            "the user agent is empty or has characters that a header can't hold",
        )?;
        for timeout in [&mut self.request_timeout, &mut self.poll_timeout, &mut self.stall_timeout] {
            check(!timeout.is_zero(), "a timeout is zero")?;
            *timeout = (*timeout).min(LONGEST_TIMEOUT);
        }
        let transport = Transport::new(key, &self.user_agent, address.is_loopback);
        Ok(Client { inner: Arc::new(Inner { transport, settings: self }) })
    }

    fn debug(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("base_url", &self.base_url)
            .field("endpoint", &self.endpoint)
            .field("api_key", &format_args!("{HIDDEN}"))
            .finish_non_exhaustive()
    }

    fn url(&self) -> String {
        format!("{}/{}", self.base_url, self.endpoint)
    }
}

/// What lies beyond can't be added to the time of day everywhere.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

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
