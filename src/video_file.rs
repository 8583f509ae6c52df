use std::{
    env, fs, io,
    path::{self, Path, PathBuf},
};

use crate::{
    Attempt, Client, Error, Generation, Receipt, State, Usage, Video, VideoRequest,
    error::file_error,
    part_file::{Lock, check_regular, sibling},
    receipt::{Saved, fingerprint},
    request::new_request_id,
};

/// A video file that is paid for once: after a failure or a kill, the next run continues.
///
/// Beside the file is its [`Receipt`], `<file>.receipt.json`: a ledger of all requests for this
/// file, written before a request is sent, and after each step. Keep the two together, in version
/// control too.
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
/// }
/// # Ok::<(), aimlapi_video::Error>(())
/// ```
/// The folder is made if it is missing. Never use `OUT_DIR`: each profile has its own, and `cargo
/// clean` empties it, so that each would pay again. A path in it is an error.
///
/// A changed request is another video. It is paid for, and overwrites the file. Changing it back
/// pays nothing: the first video is downloaded again, if the server still keeps it.
#[derive(Debug, Clone)]
pub struct VideoFile {
    path: PathBuf,
    request: VideoRequest,
}

/// A step of [`VideoFile::generate`], for its callback.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The server responded to the request, or to a poll.
    Generation(&'a Generation),
    /// Bytes of the video were written to disk.
    Download {
        /// The number of bytes written.
        done: u64,
        /// The number of all bytes, if known.
        total: Option<u64>,
    },
}

impl VideoFile {
    /// The file at `path`, for the video that `request` asks for. Does nothing yet.
    ///
    /// If the request has a [client request id](VideoRequest::client_request_id), of 81 characters
    /// at most, each attempt is sent with that, a colon, and a new random one. A URL in the request
    /// that differs from run to run, as signed ones do, makes it another request each time.
    pub fn new(path: impl Into<PathBuf>, request: VideoRequest) -> Self {
        let path = path.into();
        VideoFile { path, request }
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is there, whole, and made by this request. Needs neither key nor network:
    /// it compares the receipt with the file's size.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a request that fails a local check; [`Error::File`] if the receipt
    /// can't be read, or the path is not that of a regular file.
    pub fn is_current(&self) -> Result<bool, Error> {
        let receipt = self.receipt()?.unwrap_or_else(Receipt::empty);
        Ok(self.current(&receipt)?.is_some())
    }

    /// The receipt, if there is one.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be read, or if another version of this crate wrote it.
    pub fn receipt(&self) -> Result<Option<Receipt>, Error> {
        let path = self.receipt_path()?;
        Receipt::read(&path).map_err(unsent(&path))
    }

    /// Continues from wherever the file is, until it is saved. Each request is paid for once,
    /// however often this is called. Returns its attempt.
    ///
    /// - Saved already: sends nothing.
    /// - Not requested yet: sends the request, waits, downloads.
    /// - Requested, and the response was lost: looks it up in the usage log, and **never sends it
    ///   again**.
    /// - Requested, or the file is missing or has another size: waits and downloads, by the
    ///   generation's id.
    /// - Failed, or rejected, without a charge: sends the request again.
    ///
    /// Makes the folder if it is missing. Other processes and threads with the same file wait
    /// meanwhile, for at most [`poll_timeout`](crate::ClientBuilder::poll_timeout).
    ///
    /// # Errors
    /// What [`generate_video`](Client::generate_video), [`wait_for_video`](Client::wait_for_video)
    /// and [`download_video`](Client::download_video) give. [`Error::OutcomeUnknown`] in each run,
    /// free of charge, while a lost request is not in the usage log. [`Error::File`] if a file or
    /// the receipt is in the way, or can't be read or written, if another process holds the file,
    /// or if there is no video and it may have been charged. Each text names the way out.
    pub fn generate(
        &self,
        client: &Client,
        mut on_progress: impl FnMut(Progress<'_>),
    ) -> Result<Attempt, Error> {
        let receipt = self.receipt()?.unwrap_or_else(Receipt::empty);
        if let Some(attempt) = self.current(&receipt)? {
            return Ok(attempt);
        }
        let lock = self.prepare(client).map_err(unsent(&self.path))?;
        // Another process may have finished it meanwhile.
        let receipt = self.receipt()?.unwrap_or_else(Receipt::empty);
        if let Some(attempt) = self.current(&receipt)? {
            return Ok(attempt);
        }
        let path = self.receipt_path()?;
        // No generation was named, so it can't be this file's.
        let has_no_id = |attempt: &Attempt| attempt.generation_id.is_none();
        if receipt.attempts.iter().all(has_no_id) && self.path.exists() {
            let text = format!(
                "is there, and no video for it is in {}: restore that receipt, or move the file \
                 away, and the video is paid for",
                path.display()
            );
            return Err(unsent(&self.path)(io::Error::other(text)));
        }
        let mut ledger = Ledger {
            file: self,
            client,
            lock,
            path,
            receipt,
            index: 0,
        };
        ledger.request(&mut on_progress)?;
        let video = ledger.wait(&mut on_progress)?;
        ledger.download(&video, &mut on_progress)?;
        Ok(ledger.attempt().clone())
    }

    /// Checks all that could go wrong with the place before it is paid for, and locks it.
    fn prepare(&self, client: &Client) -> io::Result<Lock> {
        if let Some(out_dir) = env::var_os("OUT_DIR")
            && path::absolute(&self.path)?.starts_with(path::absolute(out_dir)?)
        {
            return Err(io::Error::other(
                "is in OUT_DIR, of which each build profile has its own, and which `cargo clean` \
                 empties: each would pay again. Use a folder beside Cargo.toml, and commit the \
                 file with its receipt",
            ));
        }
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        for suffix in ["", ".part", ".receipt.json", ".receipt.json.part"] {
            check_regular(&sibling(&self.path, suffix)?)?;
        }
        Lock::acquire(&self.path, client.inner.settings.poll_timeout)
    }

    /// The attempt that made the file, if the file is current.
    fn current(&self, receipt: &Receipt) -> Result<Option<Attempt>, Error> {
        let found = receipt.find(&fingerprint(&self.request.to_json()?));
        let attempt = found.map(|index| &receipt.attempts[index]);
        let (Some(attempt), Some(saved)) = (attempt, &receipt.saved) else {
            return Ok(None);
        };
        let size = match check_regular(&self.path) {
            Ok(true) => fs::metadata(&self.path).map(|file| Some(file.len())),
            missing => missing.map(|_| None),
        };
        let is_current = attempt.generation_id.as_ref() == Some(&saved.generation_id)
            && size.map_err(unsent(&self.path))? == Some(saved.bytes);
        Ok(is_current.then(|| attempt.clone()))
    }

    fn receipt_path(&self) -> Result<PathBuf, Error> {
        sibling(&self.path, ".receipt.json").map_err(unsent(&self.path))
    }
}

/// A receipt, the lock that permits changing it, and the attempt of the request.
struct Ledger<'a> {
    file: &'a VideoFile,
    client: &'a Client,
    lock: Lock,
    path: PathBuf,
    receipt: Receipt,
    index: usize,
}

impl Ledger<'_> {
    fn attempt(&mut self) -> &mut Attempt {
        &mut self.receipt.attempts[self.index]
    }

    /// Finds the attempt of the request, with a generation's id, or sends the request.
    fn request(&mut self, on_progress: &mut impl FnMut(Progress<'_>)) -> Result<(), Error> {
        let fingerprint = fingerprint(&self.file.request.to_json()?);
        while let Some(index) = self.receipt.find(&fingerprint) {
            self.index = index;
            if self.attempt().generation_id.is_some() {
                return Ok(());
            }
            self.look_up("an earlier request got no response".to_owned())?;
        }
        self.send(fingerprint, on_progress)?;
        match self.attempt().failure.clone() {
            None => Ok(()),
            Some(failure) => {
                let text = format!("{failure}; running this again sends the request again");
                Err(self.error(io::Error::other(text)))
            }
        }
    }

    /// Sends the request. Its entry is on disk before the request's body is sent.
    fn send(
        &mut self,
        fingerprint: String,
        on_progress: &mut impl FnMut(Progress<'_>),
    ) -> Result<(), Error> {
        let (client, request) = (self.client, &self.file.request);
        let prefix = request.requested_id().map(|id| format!("{id}:"));
        let client_request_id = prefix.unwrap_or_default() + &new_request_id();
        let attempt = Attempt::new(request, fingerprint, client_request_id.clone());
        self.index = self.receipt.attempts.len();
        self.receipt.attempts.push(attempt);
        let (mut has_entry, mut failure) = (false, None);
        let sent = client.generate_video_as(request, &client_request_id, &mut || {
            has_entry = true;
            let recorded = self.record();
            failure = recorded.as_ref().err().map(ToString::to_string);
            recorded
        });
        match sent {
            Ok(generation) => {
                self.named(&generation.id, generation.usage)?;
                on_progress(Progress::Generation(&generation));
                Ok(())
            }
            Err(Error::OutcomeUnknown {
                generation_id,
                cause,
                ..
            }) => match generation_id {
                Some(id) => self.named(&id, None),
                None => self.look_up(cause),
            },
            Err(Error::Api(error)) => {
                let id = error.generation_id.clone();
                let error = Error::Api(error);
                self.attempt().failure = Some(error.to_string());
                match id {
                    Some(id) => self.named(&id, None)?,
                    None => self.failed(error.to_string())?,
                }
                Err(error)
            }
            // Not sent to its end.
            Err(error) => {
                if has_entry {
                    self.merge(false);
                    let _ = self.receipt.write(&self.path);
                }
                Err(match failure {
                    Some(text) => unsent(&self.path)(io::Error::other(text)),
                    None => error,
                })
            }
        }
    }

    /// Runs when only the request's body is left to send.
    fn record(&mut self) -> io::Result<()> {
        self.lock.check()?;
        self.merge(true);
        self.receipt.write(&self.path)?;
        // From here on, the next holder of the lock reads the entry, and sends nothing.
        self.lock.check()
    }

    /// Finds the id of an attempt whose response was lost.
    fn look_up(&mut self, cause: String) -> Result<(), Error> {
        let client_request_id = self.attempt().client_request_id.clone();
        let cause = match self.client.find_log_row(&client_request_id) {
            Ok(Some(row)) if row.is_free_failure => {
                self.attempt().generation_id = row.generation_id;
                return self.failed("the usage log says that it failed, at no cost".to_owned());
            }
            Ok(Some(row)) if row.generation_id.is_some() => {
                return self.named(&row.generation_id.unwrap_or_default(), row.usage);
            }
            Ok(_) => format!("{cause}; it is not in the usage log so far"),
            Err(error) => format!("{cause}; looking it up failed: {}", error.cause()),
        };
        Err(Error::OutcomeUnknown {
            client_request_id,
            generation_id: None,
            cause,
            receipt: Some(self.path.clone()),
        })
    }

    /// Waits for the generation.
    fn wait(&mut self, on_progress: &mut impl FnMut(Progress<'_>)) -> Result<Video, Error> {
        let (client, id) = (self.client, self.id());
        let mut written = Ok(());
        let waited = client.wait_for_video(&id, |generation| {
            // The server rejected the request, but knows the generation.
            if self.attempt().failure.take().is_some() {
                written = self.write();
            }
            on_progress(Progress::Generation(generation));
        });
        written?;
        let error = match waited {
            Ok(video) => {
                let usage = self.attempt().usage;
                self.attempt().usage = video.usage.or(usage);
                self.attempt().state = State::Completed;
                return self.write().map(|()| video);
            }
            Err(Error::Failed(mut generation)) => {
                generation.usage = generation.usage.or(self.attempt().usage);
                Error::Failed(generation)
            }
            Err(error) => error,
        };
        let is_free = match &error {
            Error::Failed(generation) => proves_free_failure(self.attempt(), generation),
            // The server itself, which rejected the request, does not know the id that it named.
            Error::Api(error) if error.status == 404 => {
                self.attempt().failure.is_some() && error.message.is_some()
            }
            Error::Api(error) if error.status == 400 => false,
            _ => return Err(error),
        };
        if is_free {
            self.failed(error.to_string())?;
            return Err(error);
        }
        Err(self.dead_end(&error))
    }

    /// Downloads the video to the file.
    fn download(
        &mut self,
        video: &Video,
        on_progress: &mut impl FnMut(Progress<'_>),
    ) -> Result<(), Error> {
        let (path, id) = (&self.file.path, self.id());
        let part = self.client.download_part(video, path, |done, total| {
            on_progress(Progress::Download { done, total });
        });
        let with_id = |error| file_error(path, Some(&id), error);
        let (part, bytes) = match part {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.dead_end(&error));
            }
            part => part.map_err(with_id)?,
        };
        self.lock.check().map_err(with_id)?;
        // The receipt never claims a file that is being replaced.
        if self.receipt.saved.take().is_some() {
            self.write()?;
        }
        part.persist().map_err(with_id)?;
        let generation_id = id.clone();
        self.receipt.saved = Some(Saved {
            generation_id,
            bytes,
        });
        self.write()
    }

    fn id(&mut self) -> String {
        self.attempt().generation_id.clone().unwrap_or_default()
    }

    /// Records the id that the server gave to the attempt.
    fn named(&mut self, id: &str, usage: Option<Usage>) -> Result<(), Error> {
        self.attempt().state = State::Waiting;
        self.attempt().generation_id = Some(id.to_owned());
        self.attempt().usage = usage;
        self.write()
    }

    fn failed(&mut self, failure: String) -> Result<(), Error> {
        self.attempt().state = State::Failed;
        self.attempt().failure = Some(failure);
        self.write()
    }

    fn write(&mut self) -> Result<(), Error> {
        self.merge(true);
        let written = self.receipt.write(&self.path);
        written.map_err(|error| self.error(error))
    }

    /// Takes over what is on disk, but for this attempt's own entry: where the lock was deleted,
    /// another process may have written its entries.
    fn merge(&mut self, keep_own: bool) {
        let own = self.attempt().clone();
        if let Ok(Some(disk)) = Receipt::read(&self.path) {
            self.receipt.attempts = disk.attempts;
            if self.lock.check().is_err() {
                self.receipt.saved = disk.saved;
            }
        }
        let attempts = &mut self.receipt.attempts;
        let is_own = |known: &Attempt| known.client_request_id == own.client_request_id;
        // What the server rejected without naming an id needs no memory once it is sent again.
        attempts.retain(|known| is_own(known) || !known.is_replaced_by(&own));
        self.index = attempts.iter().position(is_own).unwrap_or(attempts.len());
        attempts.retain(|known| !is_own(known));
        if keep_own {
            attempts.insert(self.index, own);
        }
    }

    /// The error where asking again may not help, and paying again is a person's decision.
    fn dead_end(&mut self, error: &dyn std::error::Error) -> Error {
        self.error(io::Error::other(format!(
            "{error}. Running this again asks again, and pays nothing. Only to give this \
             generation up, change its attempt's \"state\" to \"failed\": that permits another \
             payment"
        )))
    }

    fn error(&mut self, error: io::Error) -> Error {
        let id = self.attempt().generation_id.clone();
        file_error(&self.path, id.as_deref(), error)
    }
}

/// Whether this response proves that the attempt came to nothing, and cost nothing.
fn proves_free_failure(attempt: &Attempt, generation: &Generation) -> bool {
    attempt.state == State::Waiting
        && generation.video.is_none()
        && generation.names_itself()
        && generation.status.is_failure()
        && attempt.usage.is_none_or(Usage::is_free)
        && generation.usage.is_none_or(Usage::is_free)
}

/// The error of a run that stops before its request.
fn unsent(path: &Path) -> impl Fn(io::Error) -> Error {
    |cause| {
        let text = format!("{cause}; nothing was sent");
        file_error(path, None, io::Error::new(cause.kind(), text))
    }
}
