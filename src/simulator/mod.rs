//! A mock server of the API on 127.0.0.1, for tests, demos and classes. Feature `simulator`.
//!
//! It imitates what the vendor publishes, and no more: the endpoints, the bearer check, the names
//! of all models, the schemas of Google's, the error bodies, the usage log, a file server with
//! ranges. It generates nothing: each video is the same short clip, which says so. What it is made
//! for is to fail as told.
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
//!     client.download_video(&video, path, |_, _| {})
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
//! simulator.script_polls([Poll::Fail { name: "SafetyError", message: "The prompt was rejected." }]);
//! let generation = client.generate_video(&VideoRequest::new("A fox"))?;
//! let error = client.wait_for_video(&generation.id, |_| {}).unwrap_err();
//! assert!(matches!(error, Error::Failed(_)));
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
//! client.download_video(&video, &path, |_, _| {})?;
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
//! let id = client.find_generation("fox-1")?.expect("the usage log has it");
//! assert!(client.wait_for_video(&id, |_| {}).is_ok());
//! assert_eq!(simulator.charged(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The real log can be late: [`Simulator::delay_log`] shows whether your program waits for it.
#![doc(alias = "mock")]

mod api;
mod models;
mod server;

use std::{fmt, io, sync::Arc, time::Duration};

use crate::{Client, ClientBuilder};

/// The file that is served as every video: 1280x720, eight seconds, with sound.
pub const CLIP: &[u8] = include_bytes!("clip.mp4");

/// What the simulator does with a POST. A request that is invalid is refused with 400 by the steps
/// that would accept it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Post {
    /// Creates and charges a generation.
    Accept,
    /// Responds with this status and the documented error body. Nothing is created or charged.
    Reject(u16),
    /// Creates and charges a generation, and closes the connection without a response.
    DropResponse,
    /// Reads this many bytes of the body, and closes the connection. Nothing is created or charged.
    CloseAfter(usize),
    /// Creates and charges a generation, and responds after this time.
    Stall(Duration),
    /// Sends this text as the whole HTTP response, and closes the connection. Nothing is created or
    /// charged.
    Raw(String),
}

/// What the simulator responds to one poll of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Poll {
    /// This status, without a video.
    Status(&'static str),
    /// The status `completed`, with a video and what it cost.
    Complete,
    /// The status `error`, with this error object. A generation whose script ends so is not
    /// charged.
    Fail {
        /// The error's name.
        name: &'static str,
        /// The error's message.
        message: &'static str,
    },
    /// This HTTP status with the documented error body.
    Reject(u16),
    /// The head and this many bytes of the body that the following step has; then the connection is
    /// closed.
    CloseAfter(usize),
    /// After this time, what the following step responds; at the end of the script,
    /// [`Complete`](Poll::Complete).
    Stall(Duration),
    /// This text as the whole HTTP response; then the connection is closed.
    Raw(String),
}

/// What the simulator does with a request for a video's file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Download {
    /// Sends the file, or the range that was asked for.
    Serve,
    /// Responds with this status and the documented error body.
    Reject(u16),
    /// Sends the head and this many bytes of the body, and closes the connection.
    CloseAfter(usize),
    /// Sends the head and half of the body, waits this time, and sends the rest.
    Stall(Duration),
    /// Responds with 403 to this URL from now on; the next poll that is `completed` has a fresh
    /// one.
    Expire,
    /// Sends this text as the whole HTTP response, and closes the connection.
    Raw(String),
}

/// A request that the simulator received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// The HTTP method.
    pub method: String,
    /// Path and query.
    pub url: String,
    /// The headers in the order they came, names in lower case. Keys other than [`Simulator::KEY`]
    /// are redacted.
    pub headers: Vec<(String, String)>,
    /// The body; what of it is not UTF-8 is replaced.
    pub body: String,
}

impl Received {
    /// The first value of a header, by its name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// The running mock server. Stops when dropped.
#[doc(alias = "mock")]
pub struct Simulator {
    server: server::Server,
}

/// What the simulator expects as `Authorization`.
const BEARER: &str = "Bearer simulator-key";

impl Simulator {
    /// The key that the simulator accepts.
    pub const KEY: &'static str = "simulator-key";

    /// What one generation costs here, in credits and in US dollars.
    pub const PRICE: (u32, f64) = (120_000, 0.06);

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
        Ok(Simulator {
            server: server::Server::start(port)?,
        })
    }

    /// The base URL, for [`ClientBuilder::base_url`] or `AIMLAPI_BASE_URL`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v2", self.server.address())
    }

    /// A client for tests: polls every millisecond, for at most 10 s, and retries without delay.
    #[must_use]
    pub fn client(&self) -> Client {
        let builder = self.builder().retry_delay(Duration::ZERO);
        let builder = builder.poll_interval(Duration::from_millis(1));
        builder
            .poll_timeout(Duration::from_secs(10))
            .build()
            .expect("the simulator's URL and key")
    }

    /// A client's builder with the simulator's base URL and key, and the defaults for everything
    /// else.
    pub fn builder(&self) -> ClientBuilder {
        Client::builder(Self::KEY).base_url(self.base_url())
    }

    /// Sets what happens to the next POSTs: one step for each, in order, then [`Post::Accept`].
    /// Replaces an earlier script. A POST without the key or to another URL takes no step.
    pub fn script_posts(&self, steps: impl IntoIterator<Item = Post>) {
        let steps = steps.into_iter().collect();
        self.server.api().state().posts = steps;
    }

    /// Sets what the polls of a generation respond, for each generation that is created from now
    /// on. The last step repeats; an empty script is [`Poll::Complete`].
    ///
    /// At first: queued, generating, complete.
    pub fn script_polls(&self, steps: impl IntoIterator<Item = Poll>) {
        let steps = steps.into_iter().collect();
        self.server.api().state().polls = steps;
    }

    /// Sets what happens to the next requests for files: one step for each, in order, then
    /// [`Download::Serve`]. Replaces an earlier script. A request for a file that does not exist or
    /// has expired takes no step.
    pub fn script_downloads(&self, steps: impl IntoIterator<Item = Download>) {
        let steps = steps.into_iter().collect();
        self.server.api().state().downloads = steps;
    }

    /// Sets the file that is served as every video. At first [`CLIP`].
    pub fn video(&self, bytes: impl Into<Arc<[u8]>>) {
        let video = bytes.into();
        self.server.api().state().set_video(video);
    }

    /// Lets the next `lookups` requests for the usage log find it empty, as the real one can be
    /// late.
    pub fn delay_log(&self, lookups: usize) {
        self.server.api().state().hidden_logs = lookups;
    }

    /// Accepts a model that is not published, with any parameters.
    pub fn allow_model(&self, name: impl Into<String>) {
        let name = name.into();
        self.server.api().state().allowed_models.insert(name);
    }

    /// How many generations were charged, or will be once they complete.
    #[must_use]
    pub fn charged(&self) -> usize {
        self.server.api().state().charged()
    }

    /// The requests so far, in order; of more than 64 MiB only the newest.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.server.api().state().received.iter().cloned().collect()
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.server.connections()
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator")
            .field("base_url", &self.base_url())
            .finish_non_exhaustive()
    }
}
