use std::{
    env, fs, io,
    path::{self, Path, PathBuf},
    time::SystemTime,
};

use crate::{
    Attempt, Client, Error, Generation, Receipt, State, Status, Usage, VideoRequest,
    part_file::{Lock, PartFile, check_regular, sibling},
    receipt::{Saved, fingerprint},
    request::{check_client_request_id, new_request_id},
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
/// Never use `OUT_DIR` for it: each profile has its own, and `cargo clean` empties it, so that
/// each would pay again. A path in it is an error.
///
/// A changed request is another video. It is paid for, and overwrites the file. Changing it back
/// pays nothing: the first video is downloaded again, if the server still keeps it.
#[derive(Debug, Clone)]
pub struct VideoFile {
    path: PathBuf,
    request: VideoRequest,
}

/// What [`VideoFile::generate`] is doing.
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
        Ok(self
            .current(&self.receipt()?.unwrap_or_default())?
            .is_some())
    }

    /// The receipt, if there is one.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be read, or if another version of this crate wrote it.
    pub fn receipt(&self) -> Result<Option<Receipt>, Error> {
        let path = self.receipt_path()?;
        Receipt::read(&path).map_err(at(&path))
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
        let receipt = self.receipt()?.unwrap_or_default();
        if let Some(attempt) = self.current(&receipt)? {
            return Ok(attempt);
        }
        let lock = self.prepare(client).map_err(at(&self.path))?;
        // Another process may have finished it meanwhile.
        let receipt = self.receipt()?.unwrap_or_default();
        if let Some(attempt) = self.current(&receipt)? {
            return Ok(attempt);
        }
        let path = self.receipt_path()?;
        if receipt.attempts.is_empty() && self.path.exists() {
            return Err(at(&self.path)(io::Error::other(format!(
                "is there, and no request for it is in {}: restore that receipt, or move the file \
                 away; nothing was sent",
                path.display()
            ))));
        }
        let mut ledger = Ledger {
            file: self,
            client,
            lock,
            path,
            fingerprint: fingerprint(&self.request.to_json()?),
            receipt,
        };
        let index = ledger.request(&mut on_progress)?;
        ledger.save(index, &mut on_progress)
    }

    /// Checks all that could go wrong with the place before it is paid for, and locks it.
    fn prepare(&self, client: &Client) -> io::Result<Lock> {
        if let Some(out_dir) = env::var_os("OUT_DIR")
            && path::absolute(&self.path)?.starts_with(path::absolute(out_dir)?)
        {
            return Err(io::Error::other(
                "is in OUT_DIR, of which each build profile has its own, and which `cargo clean` \
                 empties: each would pay again. Use a folder beside Cargo.toml, and commit the \
                 file with its receipt; nothing was sent",
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
        let fingerprint = fingerprint(&self.request.to_json()?);
        let attempt = receipt
            .find(&fingerprint)
            .map(|index| &receipt.attempts[index]);
        let (Some(attempt), Some(saved)) = (attempt, &receipt.saved) else {
            return Ok(None);
        };
        let is_whole = || match check_regular(&self.path)? {
            true => Ok(fs::metadata(&self.path)?.len() == saved.bytes),
            false => Ok(false),
        };
        let is_current = attempt.generation_id.as_ref() == Some(&saved.generation_id)
            && is_whole().map_err(at(&self.path))?;
        Ok(is_current.then(|| attempt.clone()))
    }

    fn receipt_path(&self) -> Result<PathBuf, Error> {
        sibling(&self.path, ".receipt.json").map_err(at(&self.path))
    }
}

/// A receipt, and the lock that permits changing it.
struct Ledger<'a> {
    file: &'a VideoFile,
    client: &'a Client,
    lock: Lock,
    path: PathBuf,
    fingerprint: String,
    receipt: Receipt,
}

impl Ledger<'_> {
    /// The attempt of the request, with a generation's id. Sends the request if there is none.
    fn request(&mut self, on_progress: &mut impl FnMut(Progress<'_>)) -> Result<usize, Error> {
        while let Some(index) = self.receipt.find(&self.fingerprint) {
            if self.receipt.attempts[index].generation_id.is_some() {
                return Ok(index);
            }
            let path = self.file.path.display();
            self.look_up(
                index,
                format!("an earlier request for {path} got no response"),
            )?;
        }
        let index = self.send(on_progress)?;
        let attempt = &self.receipt.attempts[index];
        match &attempt.failure {
            None => Ok(index),
            Some(failure) => {
                let text = format!("{failure}; running this again sends the request again");
                Err(at(&self.path)(io::Error::other(text)))
            }
        }
    }

    /// Sends the request. Its entry is on disk before the request's body is sent.
    fn send(&mut self, on_progress: &mut impl FnMut(Progress<'_>)) -> Result<usize, Error> {
        let request = &self.file.request;
        let client_request_id = match request.requested_id() {
            Some(id) => format!("{id}:{}", new_request_id()),
            None => new_request_id(),
        };
        check_client_request_id(&client_request_id)?;
        let old = self.receipt.clone();
        // What the server rejected without naming an id needs no memory.
        self.receipt.attempts.retain(|attempt| {
            attempt.fingerprint != self.fingerprint
                || attempt.generation_id.is_some()
                || attempt.failure.is_none()
        });
        let index = self.receipt.attempts.len();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.receipt.attempts.push(Attempt {
            sent: now.unwrap_or_default().as_secs(),
            model: request.model_name().to_owned(),
            prompt: request.prompt().map(str::to_owned),
            parameters: request.shown_params(),
            fingerprint: self.fingerprint.clone(),
            client_request_id: client_request_id.clone(),
            generation_id: None,
            state: State::Sending,
            usage: None,
            failure: None,
        });
        let mut recorded = None;
        let mut record = || {
            let write = || {
                self.lock.check()?;
                self.receipt.write(&self.path)?;
                // From here on, whoever gets the lock reads the entry, and sends nothing.
                self.lock.check()
            };
            let result = write();
            recorded = Some(result.as_ref().map_err(ToString::to_string).map(|_| ()));
            result
        };
        match self
            .client
            .generate_video_as(request, &client_request_id, &mut record)
        {
            Ok(generation) => {
                self.named(index, &generation.id, generation.usage)?;
                on_progress(Progress::Generation(&generation));
            }
            Err(Error::OutcomeUnknown {
                generation_id: Some(id),
                ..
            }) => {
                self.named(index, &id, None)?;
            }
            Err(Error::OutcomeUnknown { cause, .. }) => self.look_up(index, cause)?,
            Err(Error::Api(error)) => {
                let attempt = &mut self.receipt.attempts[index];
                attempt.generation_id = error.generation_id.clone();
                attempt.state = match error.generation_id {
                    Some(_) => State::Waiting,
                    None => State::Failed,
                };
                let error = Error::Api(error);
                attempt.failure = Some(error.to_string());
                self.write()?;
                return Err(error);
            }
            // Not sent to its end.
            Err(error) => {
                self.receipt = old;
                if recorded.is_some() && self.lock.check().is_ok() {
                    let _ = self.write();
                }
                return Err(match recorded {
                    Some(Err(reason)) => at(&self.path)(io::Error::other(reason)),
                    _ => error,
                });
            }
        }
        Ok(index)
    }

    /// Finds the id of an attempt whose response was lost.
    fn look_up(&mut self, index: usize, cause: String) -> Result<(), Error> {
        let client_request_id = &self.receipt.attempts[index].client_request_id;
        let cause = match self.client.find_log_row(client_request_id) {
            Ok(Some(row)) if row.has_failed && row.usage.is_none_or(Usage::is_free) => {
                return self.failed(index, "the usage log says that it failed, at no cost");
            }
            Ok(Some(row)) if row.generation_id.is_some() => {
                return self.named(index, &row.generation_id.unwrap_or_default(), row.usage);
            }
            Ok(_) => format!(
                "{cause}; it is not in the usage log so far. Running this again looks it up again, \
                 and pays nothing. Only if your account shows that nothing was charged, change \
                 its \"state\" to \"failed\" in {}: that permits another payment",
                self.path.display()
            ),
            Err(error) => format!("{cause}; looking it up failed: {}", error.cause()),
        };
        Err(Error::OutcomeUnknown {
            client_request_id: client_request_id.clone(),
            generation_id: None,
            cause,
        })
    }

    /// Waits for the generation, and downloads its video to the file.
    fn save(
        &mut self,
        index: usize,
        on_progress: &mut impl FnMut(Progress<'_>),
    ) -> Result<Attempt, Error> {
        let (client, path) = (self.client, &self.file.path);
        let id = self.receipt.attempts[index]
            .generation_id
            .clone()
            .unwrap_or_default();
        let mut known = Ok(());
        let waited = client.wait_for_video(&id, |generation| {
            // The server rejected the request, but knows the generation.
            if self.receipt.attempts[index].failure.take().is_some() {
                known = self.write();
            }
            on_progress(Progress::Generation(generation));
        });
        known?;
        let video = waited.map_err(|error| self.ended(index, &id, error))?;
        let attempt = &mut self.receipt.attempts[index];
        attempt.usage = video.usage.or(attempt.usage);
        attempt.state = State::Completed;
        self.write()?;
        let part = client.download_part(&video, path, |done, total| {
            on_progress(Progress::Download { done, total });
        });
        let (part, bytes) = part.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.dead_end(&id, &error),
            _ => file_error(path, Some(&id), error),
        })?;
        self.finish(part, &id, bytes)
            .map_err(|error| file_error(path, Some(&id), error))?;
        Ok(self.receipt.attempts[index].clone())
    }

    /// Gives the whole file its name. The receipt never claims a file that is being replaced.
    fn finish(&mut self, part: PartFile, id: &str, bytes: u64) -> io::Result<()> {
        self.lock.check()?;
        if self.receipt.saved.take().is_some() {
            self.receipt.write(&self.path)?;
        }
        part.persist()?;
        let generation_id = id.to_owned();
        self.receipt.saved = Some(Saved {
            generation_id,
            bytes,
        });
        self.receipt.write(&self.path)
    }

    /// Decides what the end of a wait means for money.
    fn ended(&mut self, index: usize, id: &str, error: Error) -> Error {
        let attempt = &self.receipt.attempts[index];
        let is_free = match &error {
            Error::Failed(generation) => is_free_failure(attempt, generation),
            // The server rejected the request, and never knew the id that it named.
            Error::Api(error) if error.status == 404 => attempt.failure.is_some(),
            _ => return error,
        };
        match is_free {
            true => self
                .failed(index, &error.to_string())
                .err()
                .unwrap_or(error),
            false => self.dead_end(id, &error),
        }
    }

    /// Records the id that the server gave to an attempt.
    fn named(&mut self, index: usize, id: &str, usage: Option<Usage>) -> Result<(), Error> {
        let attempt = &mut self.receipt.attempts[index];
        attempt.state = State::Waiting;
        attempt.generation_id = Some(id.to_owned());
        attempt.usage = usage;
        self.write()
    }

    fn failed(&mut self, index: usize, failure: &str) -> Result<(), Error> {
        let attempt = &mut self.receipt.attempts[index];
        attempt.state = State::Failed;
        attempt.failure = Some(failure.to_owned());
        self.write()
    }

    fn write(&self) -> Result<(), Error> {
        let newest = self.receipt.find(&self.fingerprint);
        let id = newest.and_then(|index| self.receipt.attempts[index].generation_id.as_deref());
        let written = self.receipt.write(&self.path);
        written.map_err(|error| file_error(&self.path, id, error))
    }

    /// The error where asking again may not help, and paying again is a person's decision.
    fn dead_end(&self, id: &str, error: &dyn std::error::Error) -> Error {
        let text = format!(
            "{error}. Running this again asks again, and pays nothing. Only to give this \
             generation up, change its attempt's \"state\" to \"failed\": that permits another \
             payment"
        );
        file_error(&self.path, Some(id), io::Error::other(text))
    }
}

/// Whether this response proves that the attempt came to nothing, and cost nothing.
fn is_free_failure(attempt: &Attempt, generation: &Generation) -> bool {
    use Status::{Aborted, Cancelled, Error, Failed, Rejected};
    attempt.state == State::Waiting
        && generation.video.is_none()
        && generation.names_itself()
        && matches!(
            generation.status,
            Error | Failed | Cancelled | Aborted | Rejected
        )
        && [attempt.usage, generation.usage]
            .into_iter()
            .flatten()
            .all(Usage::is_free)
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    |cause| file_error(path, None, cause)
}

fn file_error(path: &Path, generation_id: Option<&str>, cause: io::Error) -> Error {
    Error::File {
        path: path.to_owned(),
        generation_id: generation_id.map(str::to_owned),
        cause,
    }
}
