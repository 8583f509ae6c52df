//! A video file that is paid for once.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    cargo_dirs,
    client::Client,
    download::Progress,
    error::Error,
    ledger::State,
    part_file::{Lock, PartFile, make_folder},
    receipt::Attempt,
    record::{Record, Target},
    request::VideoRequest,
    run::Run,
};

/// A video file that is paid for once: after a failure or a kill, the next run continues.
///
/// Beside the file is its receipt, `<file>.receipt.json`: what was requested for this file, written
/// before a request is sent, and after each step. Keep the two together, in version control too.
///
/// In a build script, with the file beside `Cargo.toml`, and committed:
/// ```no_run
/// use aimlapi_video::{Client, VideoFile, VideoRequest};
///
/// let request = VideoRequest::new("A paper boat on a river");
/// let intro = VideoFile::new("assets/intro.mp4", request);
/// println!("cargo::rerun-if-changed=assets/intro.mp4");
/// if !intro.is_current()? {
///     // Minutes, in which cargo shows nothing.
///     intro.generate(&Client::from_env()?, |_| {})?;
///     println!("cargo::warning=commit assets/intro.mp4 and assets/intro.mp4.receipt.json");
/// }
/// # Ok::<(), aimlapi_video::Error>(())
/// ```
/// The folder is made if it is missing. `OUT_DIR` is an error: each profile has its own, and `cargo
/// clean` empties it, so that each would pay again. So is a copy of the project that cargo made, for
/// a package, a git dependency or vendored sources: other people's builds would pay.
///
/// A changed request is another video, and a video that is paid for is never replaced unasked: while
/// the file is there, [`generate`](Self::generate) with a changed request is an error, and nothing
/// is paid. Delete the file, or call [`allow_replace`](Self::allow_replace). Changing the request
/// back pays nothing: the first video is downloaded again, if the server still keeps it.
///
/// A relative path in another working directory is another file, and a random
/// [`seed`](VideoRequest::seed) makes another request of each run: both pay again.
#[derive(Debug, Clone)]
#[must_use]
pub struct VideoFile {
    target: Target,
}

impl VideoFile {
    /// The file at `path`, for the video that `request` asks for. Does nothing yet.
    ///
    /// If the request has a [client request id](VideoRequest::client_request_id), of 81 characters
    /// at most, each attempt is sent with that, a colon, and a new random one. A URL in the request
    /// that differs from run to run, as signed ones do, makes it another request each time. White
    /// space at the ends of texts does not, nor does the kind of their line ends.
    pub fn new(path: impl Into<PathBuf>, request: VideoRequest) -> Self {
        VideoFile {
            target: Target {
                path: path.into(),
                request,
                may_replace: false,
            },
        }
    }

    /// Sets whether a paid video that stands at the path may be replaced by this request's. Defaults
    /// to `false`. A file that the receipt does not explain is never replaced.
    pub fn allow_replace(mut self, allow: bool) -> Self {
        self.target.may_replace = allow;
        self
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.target.path
    }

    /// Whether the file is there, with the video of this request, at its full size. Needs neither a
    /// key nor a network. A video that the [simulator](crate#testing-offline) made is
    /// none.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the request is invalid, [`Error::File`] if the file or its receipt
    /// can't be read.
    pub fn is_current(&self) -> Result<bool, Error> {
        Ok(Record::open(&self.target, None)?.finished()?.is_some())
    }

    /// All requests for this file, the oldest first.
    ///
    /// # Errors
    /// [`Error::File`] if the receipt can't be read.
    pub fn attempts(&self) -> Result<Vec<Attempt>, Error> {
        Ok(self.target.receipt(None)?.attempts)
    }

    /// The attempt that counts for this request: one that may be charged if there is any, else the
    /// newest.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the request is invalid, [`Error::File`] if the receipt can't be read.
    pub fn attempt(&self) -> Result<Option<Attempt>, Error> {
        Ok(Record::open(&self.target, None)?.attempt().cloned())
    }

    /// Gives the [attempt](Self::attempt) of this request up: the next run pays for it again.
    ///
    /// That is a person's decision, for a generation that will never be found: look at your account
    /// first. Does nothing if nothing was requested, or what was requested has failed.
    ///
    /// # Errors
    /// As [`attempt`](Self::attempt), and [`Error::File`] if the receipt can't be written, or at once
    /// if another process or thread works at the file: of the kind `WouldBlock`.
    pub fn give_up(&self) -> Result<(), Error> {
        if self.attempt()?.is_none() {
            return Ok(());
        }
        let running = Default::default();
        let _lock = Lock::acquire(&self.target.path, Duration::ZERO, &running, None)?;
        let mut record = Record::open(&self.target, None)?;
        if !record.attempt().is_some_and(Attempt::is_open) {
            return Ok(());
        }
        let id = record.id.clone();
        record.update(None, |receipt| {
            receipt.change(&id, |attempt| attempt.state = State::GivenUp);
            Ok(())
        })
    }

    /// Makes the file current: requests the video if it was not requested before, waits for it, and
    /// downloads it. Returns the attempt that made it.
    ///
    /// - Current: does nothing.
    /// - Sent, and the response was lost: looks it up in the usage log, and **never sends it
    ///   again**.
    /// - Requested, or the file is missing: waits and downloads, by the generation's id.
    /// - Failed, or rejected, without a charge: sends the request again.
    ///
    /// Makes the folder if it is missing. Other processes and threads with the same file wait
    /// meanwhile, for at most [`poll_timeout`](crate::ClientBuilder::poll_timeout).
    ///
    /// # Errors
    /// What [`generate_video`](Client::generate_video), [`wait_for_video`](Client::wait_for_video)
    /// and [`download_video`](Client::download_video) give, and:
    /// - [`Error::OutcomeUnknown`] in each run, free of charge, while nothing tells what became of a
    ///   request that may be charged.
    /// - [`Error::File`] if another video or file stands at the path, if another request for this
    ///   file was never saved, if the receipt can't be read or written, if the folder is one of
    ///   cargo's, or if another process holds the file.
    ///
    /// Each text names the way out.
    pub fn generate(
        &self,
        client: &Client,
        mut on_progress: impl FnMut(Progress<'_>),
    ) -> Result<Attempt, Error> {
        let host = Some(&*client.inner.api.base_url.host);
        let record = Record::open(&self.target, host)?;
        if let Some(attempt) = record.finished()? {
            return Ok(attempt);
        }
        let lock = prepare(client, &record)?;
        // Another process may have finished it meanwhile.
        let record = Record::open(&self.target, host)?;
        if let Some(attempt) = record.finished()? {
            return Ok(attempt);
        }
        // What is in the way of the download has to be known before it is paid for.
        let checked = record
            .check_standing()
            .and_then(|()| PartFile::create(&self.target.path));
        checked.map_err(|error| record.refused(error))?;
        let on_progress = &mut on_progress;
        Run {
            client,
            lock,
            record,
            on_progress,
        }
        .finish()
    }
}

/// Checks and makes the folder, and locks the file.
fn prepare(client: &Client, record: &Record<'_>) -> Result<Lock, Error> {
    let (path, inner) = (&record.target.path, &client.inner);
    let folder = cargo_dirs::check(path).and_then(|()| make_folder(path));
    folder.map_err(|error| record.refused(error))?;
    let (timeout, shutdown) = (inner.settings.poll_timeout, &inner.api.shutdown);
    let lock = Lock::acquire(path, timeout, shutdown, record.generation_id());
    lock.map_err(|error| match error {
        Error::File { cause, .. } => record.refused(cause),
        Error::Shutdown {
            generation_id: None,
        } if record.attempt().is_some_and(|a| a.entry().is_open()) => {
            record.unknown(&error.to_string())
        }
        other => other,
    })
}
