//! The calls of the API.

use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    api_error::ApiError,
    error::Error,
    generation::{Cost, Generation, Video, named_id, number},
    http::api::{Api, lost},
    poll::{Retry, poll},
    reply::{Reply, is_id},
    request::{VideoRequest, check_client_request_id, new_request_id},
    settings::{ClientBuilder, Settings, check_base_url, check_endpoint, check_key, check_times},
};

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
}

impl Inner {
    pub(crate) fn on_retry(&self, error: &Error, pause: Duration) {
        (self.settings.on_retry)(&Retry { error, pause });
    }
}

/// Why a request has no generation, and what the response still says of the cost. The errors are
/// those of [`Client::generate_video`].
pub(crate) type Unaccepted = (Error, Cost);

/// Reads the response to a request that was sent with this client request id.
fn read(reply: &Reply, client_request_id: &str) -> Result<Generation, Unaccepted> {
    if reply.is_success() {
        return Generation::read(reply, None).map_err(|reason| {
            let json = reply.json().or_else(|| reply.cut_json());
            let json = json.unwrap_or_default();
            let cause = format!("the response can't be understood: {reason}");
            let error = lost(client_request_id, named_id(&json, reply), cause);
            (error, Cost::of_response(&json, reply))
        });
    }
    let error = ApiError::read(reply, None, true);
    let cost = error.cost;
    if error.is_rejection() {
        return Err((Error::Api(Box::new(error)), cost));
    }
    let reason = match error.status {
        ..400 => "is a redirect, which is not followed",
        _ if cost > Cost::Free => "names a cost",
        _ if error.is_documented => "is a timeout, which does not say whether the work continues",
        _ => "came from a proxy",
    };
    let cause = reply.unexpected(&format!("status {} {reason}", error.status));
    Err((lost(client_request_id, error.generation_id, cause), cost))
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
        ClientBuilder::new(api_key.into())
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
        let id = request.client_request_id.clone();
        let id = id.unwrap_or_else(new_request_id);
        let sent = self.send(request, &id, &mut || Ok(()));
        let mut generation = sent.map_err(|(error, _cost)| error)?;
        generation.client_request_id.get_or_insert(id);
        Ok(generation)
    }

    /// Sends the request with this client request id. Calls `before_body` when only the request's
    /// body is left to send: nothing can be charged before that.
    pub(crate) fn send(
        &self,
        request: &VideoRequest,
        id: &str,
        before_body: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<Generation, Unaccepted> {
        let unsaid = |error| (error, Cost::Unsaid);
        check_client_request_id(id).map_err(unsaid)?;
        let json = request.to_json().map_err(unsaid)?.to_string();
        let (api, settings) = (&self.inner.api, &self.inner.settings);
        let (endpoint, time) = (&settings.endpoint, settings.request_timeout);
        let reply = api.post(endpoint, id, &json, time, before_body);
        read(&reply.map_err(unsaid)?, id)
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
        let (api, endpoint) = (&self.inner.api, &self.inner.settings.endpoint);
        let reply = api.get(endpoint, &[("generation_id", id)], time, Some(id))?;
        let generation = Generation::read(&reply, Some(id));
        generation.map_err(|reason| Error::unexpected(Some(id), reason))
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
        let settings = &inner.settings;
        poll(
            generation_id,
            (settings.poll_interval, settings.poll_timeout),
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
        let reply = self.inner.api.get("billing", &[], MAX_GET_TIMEOUT, None)?;
        let balance = number(&reply.json().unwrap_or_default()["current_balance"]);
        let unexpected = || Error::unexpected(None, reply.unexpected("it has no balance"));
        balance.map(|usd| Balance { usd }).ok_or_else(unexpected)
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
        let inner = &self.inner;
        inner.settings.debug("Client", &inner.api.base_url.url, f)
    }
}

impl ClientBuilder {
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
        let get_timeout = self.settings.request_timeout.min(MAX_GET_TIMEOUT);
        let inner = Arc::new(Inner {
            api: Api::new(key, base_url, get_timeout)?,
            settings: self.settings,
        });
        Ok(Client { inner })
    }
}
