//! A mock server of the API on 127.0.0.1, for tests, demos and classes. Feature `simulator`.
//!
//! It imitates what the vendor publishes, and no more: the endpoints, the bearer check, the schemas
//! of all models, the error bodies, the balance, the usage log, a file server with ranges. It
//! generates nothing: each video is the same short clip, which says so. What it is made for is to
//! fail as told.
//!
//! ```toml
//! [dev-dependencies]
//! aimlapi-video = { path = "../aimlapi-video", features = ["simulator"] }
//! ```
//!
//! # Testing your program
//!
//! Let the function under test take a [`Client`]. Each test starts a simulator of its own, on a
//! free port. [`Simulator::client`] polls every millisecond, so tests take milliseconds.
//!
//! ```
//! use aimlapi_video::{Client, Error, VideoRequest, simulator::Simulator};
//! use std::path::Path;
//!
//! fn make_fox(client: &Client, path: &Path) -> Result<(), Error> {
//!     let generation = client.generate_video(&VideoRequest::new("A fox in the snow"))?;
//!     let video = client.wait_for_video(&generation.id, |_| {})?;
//!     client.download_video(&video, path, |_| {})
//! }
//!
//! let simulator = Simulator::start()?;
//! let path = std::env::temp_dir().join(format!("fox-{}.mp4", std::process::id()));
//! make_fox(&simulator.client(), &path)?;
//! assert_eq!(std::fs::read(&path)?, aimlapi_video::simulator::CLIP);
//! assert_eq!(simulator.charged(), 1);
//! # std::fs::remove_file(path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ## An outage while polling
//!
//! A script says how the polls of each new generation go. Its last step repeats.
//!
//! ```
//! use aimlapi_video::{Error, VideoRequest, simulator::{Poll, Simulator}};
//!
//! let simulator = Simulator::start()?;
//! let client = simulator.client();
//!
//! // The wait continues, and nothing is paid again.
//! simulator.script_polls([Poll::Reject(503), Poll::CloseAfter(10), Poll::Complete]);
//! let generation = client.generate_video(&VideoRequest::new("A fox"))?;
//! assert!(client.wait_for_video(&generation.id, |_| {}).is_ok());
//! assert_eq!(simulator.charged(), 1);
//!
//! // A generation that fails is not charged.
//! simulator.script_polls([Poll::fail("SafetyError", "The prompt was rejected.")]);
//! let generation = client.generate_video(&VideoRequest::new("A fox"))?;
//! let error = client.wait_for_video(&generation.id, |_| {}).unwrap_err();
//! assert!(matches!(error, Error::Failed { .. }));
//! assert_eq!(simulator.charged(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ## A rejected request
//!
//! ```
//! use aimlapi_video::{Error, VideoRequest, simulator::{Post, Simulator}};
//!
//! let simulator = Simulator::start()?;
//! simulator.script_posts([Post::Reject(403)]); // Out of credits.
//! match simulator.client().generate_video(&VideoRequest::new("A fox")) {
//!     Err(Error::Api(error)) => assert_eq!(error.status, 403),
//!     other => panic!("{other:?}"),
//! }
//! assert_eq!(simulator.charged(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What the published schemas do not allow is rejected with 400 as well, without a script.
//!
//! ## An expired URL, and a download that breaks off
//!
//! ```
//! use aimlapi_video::{VideoRequest, simulator::{Download, Simulator}};
//!
//! let simulator = Simulator::start()?;
//! let client = simulator.client();
//! let generation = client.generate_video(&VideoRequest::new("A fox"))?;
//! let video = client.wait_for_video(&generation.id, |_| {})?;
//!
//! simulator.script_downloads([Download::CloseAfter(1000), Download::Expire]);
//! let path = std::env::temp_dir().join(format!("broken-{}.mp4", std::process::id()));
//! client.download_video(&video, &path, |_| {})?;
//! assert_eq!(std::fs::read(&path)?, aimlapi_video::simulator::CLIP);
//! # std::fs::remove_file(path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ## A lost response
//!
//! The case that costs money twice if a program just tries again: the generation was created and
//! charged, and the response never came.
//!
//! ```
//! use aimlapi_video::{Error, VideoRequest, simulator::{Post, Simulator}};
//!
//! let simulator = Simulator::start()?;
//! let client = simulator.client();
//! simulator.script_posts([Post::DropResponse]);
//! let request = VideoRequest::new("A fox").client_request_id("fox-1");
//! let error = client.generate_video(&request).unwrap_err();
//! assert!(matches!(error, Error::OutcomeUnknown { .. }));
//!
//! let id = client.find_generation_id("fox-1")?.expect("the usage log has it");
//! assert!(client.wait_for_video(&id, |_| {}).is_ok());
//! assert_eq!(simulator.charged(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The real log can be late, and fail: [`Simulator::hide_log`] and [`Simulator::script_logs`] show
//! whether your program waits for it.
//!
//! # A page for a class
//!
//! The simulator's address, opened in a browser, shows each request as it comes, the states of each
//! generation, and the videos. Its example `simulator` serves programs in any language.
//!
//! Only programs of this computer are served: a request that names another host, or comes from a web
//! page of another origin, gets 403 and is not recorded.
#![doc(alias = "mock")]

// Each file uses only those before it in this order: script, response, server, models, files, state,
// page, api.
mod api;
mod files;
mod models;
mod page;
mod response;
mod script;
mod server;
mod state;

use std::sync::{Arc, atomic::Ordering::SeqCst};
use std::{fmt, io, net::TcpListener, time::Duration};

pub use files::CLIP;
pub use script::{Download, Log, Poll, Post, Received};

use crate::{client::Client, settings::ClientBuilder};

/// The running mock server. Stops when dropped.
#[doc(alias = "mock")]
#[must_use = "the simulator stops when it is dropped"]
pub struct Simulator {
    server: Arc<server::Server>,
    api: Arc<api::Api>,
}

impl Simulator {
    /// The key that the simulator accepts.
    pub const KEY: &'static str = "simulator-key";

    /// What one generation costs here, in credits and in US dollars: a published schema's example,
    /// and not a price.
    pub const PRICE: (u32, f64) = state::PRICE;

    /// Starts on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port is available.
    pub fn start() -> io::Result<Self> {
        Self::start_on(0)
    }

    /// Starts on this port of 127.0.0.1.
    ///
    /// # Errors
    /// If the port is not available.
    pub fn start_on(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let api = Arc::<api::Api>::default();
        let handling = Arc::clone(&api);
        let handler = move |request, body: &mut server::Body<'_>| handling.handle(request, body);
        let server = server::Server::start(listener, Box::new(handler))?;
        let simulator = Simulator { server, api };
        let states = ["queued", "generating"].map(Poll::status);
        simulator.video(CLIP);
        simulator.script_polls(states.into_iter().chain([Poll::Complete]));
        Ok(simulator)
    }

    /// The base URL, for [`ClientBuilder::base_url`] or `AIMLAPI_BASE_URL`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v2", self.server.address)
    }

    /// A client for tests, as [`client_builder`](Simulator::client_builder) says.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client_builder().build().expect("its URL and its key")
    }

    /// A client's builder with the simulator's base URL and key, and short times: it polls every
    /// millisecond, for at most 10 s, and retries without delay.
    pub fn client_builder(&self) -> ClientBuilder {
        Client::builder(Self::KEY)
            .base_url(self.base_url())
            .poll_interval(Duration::from_millis(1))
            .poll_timeout(Duration::from_secs(10))
            .retry_delay(Duration::ZERO)
    }

    /// Sets what happens to the next POSTs: one step for each, in order, then [`Post::Accept`].
    /// Replaces an earlier script. A POST without the key or to another URL takes no step.
    pub fn script_posts(&self, steps: impl IntoIterator<Item = Post>) {
        self.api.state().posts = steps.into_iter().collect();
    }

    /// Sets what the polls of a generation respond, for each generation that is created from now
    /// on. The last step repeats; an empty script is [`Poll::Complete`].
    ///
    /// At first: queued, generating, complete.
    pub fn script_polls(&self, steps: impl IntoIterator<Item = Poll>) {
        self.api.state().polls = steps.into_iter().collect();
    }

    /// Sets what happens to the next requests for files: one step for each, in order, then
    /// [`Download::Serve`]. Replaces an earlier script. A request for a file that does not exist or
    /// has expired takes no step.
    pub fn script_downloads(&self, steps: impl IntoIterator<Item = Download>) {
        self.api.state().downloads = steps.into_iter().collect();
    }

    /// Sets the file that is served as every video. At first [`CLIP`].
    pub fn video(&self, bytes: impl Into<Arc<[u8]>>) {
        self.api.state().video = files::VideoFile::new(bytes.into());
    }

    /// Sets what happens to the next requests for the usage log: one step for each, in order, then
    /// [`Log::Serve`]. Replaces an earlier script. A request without the key takes no step.
    pub fn script_logs(&self, steps: impl IntoIterator<Item = Log>) {
        self.api.state().logs = steps.into_iter().collect();
    }

    /// Lets the next `lookups` requests for the usage log find it empty, as the real one can be
    /// late; at most 100,000. Replaces an earlier script.
    pub fn hide_log(&self, lookups: usize) {
        self.script_logs(std::iter::repeat_n(Log::Hide, lookups.min(100_000)));
    }

    /// Accepts a model that is not published, with any parameters.
    pub fn allow_model(&self, name: impl Into<String>) {
        self.api.state().allowed_models.insert(name.into());
    }

    /// How many generations were charged, or will be once they complete.
    #[must_use]
    pub fn charged(&self) -> usize {
        self.api.state().charged()
    }

    /// The requests so far, in order, without those of the page; of many, or of bodies of more than
    /// 64 MiB, only the newest.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        let state = self.api.state();
        let requests = state.received.iter().map(|(_, request)| request.clone());
        requests.collect()
    }

    /// Calls this with each request from now on, when its response is about to be sent. It must not
    /// call `on_response` itself.
    pub fn on_response(&self, observer: impl Fn(&Received) + Send + 'static) {
        *server::lock(&self.api.observer) = Some(Box::new(observer));
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.server.connections.load(SeqCst)
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.server.stop();
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Simulator({})", self.base_url())
    }
}
