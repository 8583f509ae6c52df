use std::{
    env, fs,
    io::{self, Write},
    path::{self, Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Client, Error, Generation, Status, Usage, VideoRequest,
    part_file::{self, Lock, PartFile, check_regular, sibling},
    request::{check_client_request_id, new_request_id},
};

/// The version of the receipts that this crate writes, and the only one that it reads.
const VERSION: u64 = 2;
const ABOUT: &str = "What was requested for the video file beside this one, by aimlapi-video: an \
    attempt for each payment. Without it, videos may be paid for again.";

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

/// The ledger of a [`VideoFile`]: an entry for each request that was sent, or may have been. It
/// contains neither the API key nor a URL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Receipt {
    #[serde(default)]
    about: String,
    version: u64,
    /// The file as it was saved last.
    saved: Option<Saved>,
    /// All attempts, the oldest first.
    pub attempts: Vec<Attempt>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Saved {
    generation_id: String,
    bytes: u64,
}

/// A request for a [`VideoFile`], and its outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attempt {
    /// When it was sent, in seconds since 1970.
    pub sent: u64,
    /// The model.
    pub model: String,
    /// The prompt, if there is one.
    pub prompt: Option<String>,
    /// The other parameters, without URLs and strings of over 100 bytes.
    pub parameters: Map<String, Value>,
    /// Identifies model and parameters. All of them, the images too.
    fingerprint: String,
    /// What was sent as `X-Client-Request-Id`, to find it in the usage log.
    pub client_request_id: String,
    /// The generation's id, once the server has named it.
    pub generation_id: Option<String>,
    /// How far it is.
    pub state: State,
    /// What it cost, if the server said so.
    pub usage: Option<Usage>,
    /// Why the server rejected the request, or why the generation failed.
    pub failure: Option<String>,
}

/// The state of an [`Attempt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// The request may have been sent, and there was no response so far.
    Sending,
    /// The server named the generation. Asking for it costs nothing.
    Waiting,
    /// There will be no video, and nothing was charged. The same request can be sent again.
    Failed,
    /// The server has, or had, the video. Downloading it costs nothing.
    Completed,
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
        Ok(self.current()?.is_some())
    }

    /// The receipt, if there is one.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be read, or if another version of this crate wrote it.
    pub fn receipt(&self) -> Result<Option<Receipt>, Error> {
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }
        let path = self.receipt_path()?;
        let unreadable = |reason: String| {
            let text = format!(
                "can't be read as a receipt ({reason}); nothing was sent and nothing was changed. \
                 Restore the receipt that was there, or use another path"
            );
            file_error(&path, None, io::Error::other(text))
        };
        if !check_regular(&path).map_err(|error| file_error(&path, None, error))? {
            return Ok(None);
        }
        let json = fs::read(&path).map_err(|error| unreadable(error.to_string()))?;
        match serde_json::from_slice(&json) {
            Ok(Version { version: VERSION }) => {}
            Ok(Version { version }) => {
                return Err(unreadable(format!(
                    "its version is {version}, and this crate reads {VERSION}"
                )));
            }
            Err(error) => return Err(unreadable(error.to_string())),
        }
        let receipt = serde_json::from_slice(&json);
        receipt
            .map(Some)
            .map_err(|error| unreadable(error.to_string()))
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
        if let Some(attempt) = self.current()? {
            return Ok(attempt);
        }
        let lock = self
            .prepare(client)
            .map_err(|error| file_error(&self.path, None, error))?;
        // Another process may have finished it meanwhile.
        if let Some(attempt) = self.current()? {
            return Ok(attempt);
        }
        let mut ledger = Ledger::open(self, client, lock)?;
        let attempt = ledger.requested(&mut on_progress)?;
        ledger.save(attempt, &mut on_progress)
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
            let path = match suffix {
                "" => self.path.clone(),
                suffix => sibling(&self.path, suffix)?,
            };
            check_regular(&path)?;
        }
        Lock::acquire(&self.path, client.settings().polling.timeout)
    }

    /// The attempt that made the file, if the file is current.
    fn current(&self) -> Result<Option<Attempt>, Error> {
        let fingerprint = fingerprint(&self.request.to_json()?);
        let Some(receipt) = self.receipt()? else {
            return Ok(None);
        };
        let (Some(index), Some(saved)) = (receipt.find(&fingerprint), &receipt.saved) else {
            return Ok(None);
        };
        let attempt = &receipt.attempts[index];
        if attempt.generation_id.as_ref() != Some(&saved.generation_id) {
            return Ok(None);
        }
        let bytes = check_regular(&self.path).and_then(|exists| match exists {
            true => Ok(Some(self.path.metadata()?.len())),
            false => Ok(None),
        });
        let bytes = bytes.map_err(|error| file_error(&self.path, None, error))?;
        Ok((bytes == Some(saved.bytes)).then(|| attempt.clone()))
    }

    fn receipt_path(&self) -> Result<PathBuf, Error> {
        let path = sibling(&self.path, ".receipt.json");
        path.map_err(|error| file_error(&self.path, None, error))
    }
}

impl Receipt {
    /// The attempt of a request: the newest that has not failed.
    fn find(&self, fingerprint: &str) -> Option<usize> {
        let is_it = |attempt: &Attempt| {
            attempt.fingerprint == fingerprint && attempt.state != State::Failed
        };
        self.attempts.iter().rposition(is_it)
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

impl<'a> Ledger<'a> {
    fn open(file: &'a VideoFile, client: &'a Client, lock: Lock) -> Result<Self, Error> {
        let path = file.receipt_path()?;
        let receipt = file.receipt()?;
        if receipt.is_none() && file.path.exists() {
            let text = format!(
                "is there, without its receipt {}: restore that, or move the file away; nothing \
                 was sent",
                path.display()
            );
            return Err(file_error(&file.path, None, io::Error::other(text)));
        }
        let empty = Receipt {
            about: ABOUT.to_owned(),
            version: VERSION,
            saved: None,
            attempts: Vec::new(),
        };
        Ok(Ledger {
            file,
            client,
            lock,
            path,
            fingerprint: fingerprint(&file.request.to_json()?),
            receipt: receipt.unwrap_or(empty),
        })
    }

    /// The attempt of the request, with its generation's id. Sends the request if there is none.
    fn requested(
        &mut self,
        on_progress: &mut impl FnMut(Progress<'_>),
    ) -> Result<(usize, String), Error> {
        while let Some(index) = self.receipt.find(&self.fingerprint) {
            let attempt = &self.receipt.attempts[index];
            match (&attempt.generation_id, attempt.state) {
                (None, _) => {
                    let path = self.file.path.display();
                    let cause = format!("an earlier request for {path} got no response");
                    self.look_up(index, cause)?;
                }
                (Some(_), State::Waiting) if attempt.failure.is_some() => self.ask_again(index)?,
                (Some(id), _) => return Ok((index, id.clone())),
            }
        }
        self.send(on_progress)
    }

    /// Sends the request. Its entry is on disk before the request's body is sent.
    fn send(
        &mut self,
        on_progress: &mut impl FnMut(Progress<'_>),
    ) -> Result<(usize, String), Error> {
        let request = &self.file.request;
        let client_request_id = match request.requested_id() {
            Some(id) => format!("{id}:{}", new_request_id()),
            None => new_request_id(),
        };
        check_client_request_id(&client_request_id)?;
        let old = self.receipt.clone();
        // The server rejected these, and gave no id to ask for.
        let is_replaced = |attempt: &Attempt| {
            attempt.fingerprint == self.fingerprint
                && attempt.state == State::Failed
                && attempt.generation_id.is_none()
        };
        self.receipt
            .attempts
            .retain(|attempt| !is_replaced(attempt));
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
        let response = self
            .client
            .generate_video_as(request, &client_request_id, &mut || {
                // After the second check, whoever gets the lock reads this entry, and sends nothing.
                let record = || {
                    self.check_lock()
                        .and_then(|()| self.write())
                        .and_then(|()| self.check_lock())
                };
                match recorded.insert(record()) {
                    Ok(()) => Ok(()),
                    Err(error) => Err(io::Error::other(error.to_string())),
                }
            });
        let attempt = &mut self.receipt.attempts[index];
        match response {
            Ok(generation) => {
                self.named(index, &generation.id, generation.usage)?;
                on_progress(Progress::Generation(&generation));
                Ok((index, generation.id))
            }
            Err(Error::OutcomeUnknown {
                generation_id: Some(id),
                ..
            }) => {
                self.named(index, &id, None)?;
                Ok((index, id))
            }
            Err(Error::OutcomeUnknown { cause, .. }) => {
                self.look_up(index, cause)?;
                let attempt = &self.receipt.attempts[index];
                match &attempt.generation_id {
                    Some(id) => Ok((index, id.clone())),
                    None => {
                        let failure = attempt.failure.clone().unwrap_or_default();
                        let text = format!("{failure}: running this again sends the request again");
                        Err(file_error(&self.path, None, io::Error::other(text)))
                    }
                }
            }
            Err(Error::Api(error)) => {
                attempt.generation_id = error.generation_id.clone();
                attempt.failure = Some(Error::Api(error.clone()).to_string());
                attempt.state = match error.generation_id {
                    Some(_) => State::Waiting,
                    None => State::Failed,
                };
                self.write()?;
                Err(Error::Api(error))
            }
            // Not sent to its end.
            Err(error) => {
                self.receipt = old;
                if recorded.is_some() && self.lock.check().is_ok() {
                    let is_new = self.receipt.attempts.is_empty() && self.receipt.saved.is_none();
                    let _ = match is_new {
                        true => {
                            part_file::remove(&self.path).map_err(|error| self.receipt_error(error))
                        }
                        false => self.write(),
                    };
                }
                Err(recorded.and_then(Result::err).unwrap_or(error))
            }
        }
    }

    /// Finds the id of an attempt whose response was lost.
    fn look_up(&mut self, index: usize, cause: String) -> Result<(), Error> {
        let attempt = &self.receipt.attempts[index];
        let cause = match self.client.find_log_row(&attempt.client_request_id) {
            Ok(Some(row)) if row.has_failed && row.usage.is_none_or(Usage::is_free) => {
                return self.failed(index, "the usage log says that it failed, at no cost");
            }
            Ok(Some(row)) if row.generation_id.is_some() => {
                let id = row.generation_id.unwrap_or_default();
                return self.named(index, &id, row.usage);
            }
            Ok(_) => format!("{cause}; it is not in the usage log so far"),
            Err(error) => format!("{cause}; looking it up failed: {}", error.cause()),
        };
        Err(Error::OutcomeUnknown {
            client_request_id: attempt.client_request_id.clone(),
            generation_id: None,
            cause,
            receipt: Some(self.path.clone()),
        })
    }

    /// Asks once for a generation that the server named as it rejected the request.
    fn ask_again(&mut self, index: usize) -> Result<(), Error> {
        let attempt = &self.receipt.attempts[index];
        let id = attempt.generation_id.clone().unwrap_or_default();
        match self.client.get_video(&id) {
            Ok(generation) if is_free_failure(attempt, &generation) => {
                self.failed(index, &Error::Failed(Box::new(generation)).to_string())
            }
            Ok(generation) => self.named(index, &id, generation.usage),
            Err(Error::Api(error)) if error.status == 404 => {
                let failure = attempt.failure.clone().unwrap_or_default();
                self.failed(
                    index,
                    &format!("{failure}; later, the server did not know its id"),
                )
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for the generation, and downloads its video to the file.
    fn save(
        &mut self,
        (index, id): (usize, String),
        on_progress: &mut impl FnMut(Progress<'_>),
    ) -> Result<Attempt, Error> {
        let waited = self.client.wait_for_video(&id, |generation| {
            on_progress(Progress::Generation(generation));
        });
        let attempt = &mut self.receipt.attempts[index];
        let video = match waited {
            Ok(video) => video,
            Err(Error::Failed(generation)) if is_free_failure(attempt, &generation) => {
                let error = Error::Failed(generation);
                self.failed(index, &error.to_string())?;
                return Err(error);
            }
            Err(error @ Error::Failed(_)) => return Err(self.dead_end(&id, &error)),
            Err(Error::Api(error)) if error.status == 404 => {
                return Err(self.dead_end(&id, &Error::Api(error)));
            }
            Err(error) => return Err(error),
        };
        let before = attempt.clone();
        attempt.state = State::Completed;
        attempt.usage = video.usage.or(attempt.usage);
        if *attempt != before {
            self.write()?;
        }
        let path = &self.file.path;
        let part = self.client.download_part(&video, path, |done, total| {
            on_progress(Progress::Download { done, total });
        });
        let (part, bytes) = part.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.dead_end(&id, &error),
            _ => file_error(path, Some(&id), error),
        })?;
        self.check_lock()?;
        if self.receipt.saved.take().is_some() {
            self.write()?;
        }
        part.persist()
            .map_err(|error| file_error(path, Some(&id), error))?;
        let generation_id = id;
        self.receipt.saved = Some(Saved {
            generation_id,
            bytes,
        });
        self.write()?;
        Ok(self.receipt.attempts[index].clone())
    }

    /// Records the id that the server gave to an attempt.
    fn named(&mut self, index: usize, id: &str, usage: Option<Usage>) -> Result<(), Error> {
        let attempt = &mut self.receipt.attempts[index];
        attempt.state = State::Waiting;
        attempt.generation_id = Some(id.to_owned());
        attempt.usage = usage;
        attempt.failure = None;
        self.write()
    }

    fn failed(&mut self, index: usize, failure: &str) -> Result<(), Error> {
        let attempt = &mut self.receipt.attempts[index];
        attempt.state = State::Failed;
        attempt.failure = Some(failure.to_owned());
        self.write()
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

    fn check_lock(&self) -> Result<(), Error> {
        self.lock.check().map_err(|error| self.receipt_error(error))
    }

    fn write(&self) -> Result<(), Error> {
        let write = || {
            let json = serde_json::to_string_pretty(&self.receipt)?;
            // Nested too deep to be read again: that must be known before it is paid for.
            serde_json::from_str::<Receipt>(&json)?;
            let mut part = PartFile::create(&self.path)?;
            part.write_all(json.as_bytes())?;
            part.write_all(b"\n")?;
            part.persist()
        };
        write().map_err(|error| self.receipt_error(error))
    }

    fn receipt_error(&self, error: io::Error) -> Error {
        let attempts = &self.receipt.attempts;
        let newest = attempts
            .iter()
            .rfind(|attempt| attempt.fingerprint == self.fingerprint);
        let id = newest.and_then(|attempt| attempt.generation_id.as_deref());
        let text = format!("can't be written: {error}");
        file_error(&self.path, id, io::Error::new(error.kind(), text))
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

fn file_error(path: &Path, generation_id: Option<&str>, cause: io::Error) -> Error {
    Error::File {
        path: path.to_owned(),
        generation_id: generation_id.map(str::to_owned),
        cause,
    }
}

/// Identifies a request body: 64-bit FNV-1a, which is the same with every compiler.
fn fingerprint(body: &Value) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    add(&mut hash, body);
    format!("{hash:016x}")
}

/// Adds a value so that serde_json's features, which other crates of a program may switch on,
/// change nothing: keys are sorted, and fractions have the precision of an f32.
fn add(hash: &mut u64, value: &Value) {
    let mut add_bytes = |tag: u8, bytes: &[u8]| {
        let length = (bytes.len() as u64).to_le_bytes();
        for byte in [tag].iter().chain(&length).chain(bytes) {
            *hash = (*hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    match value {
        Value::Null => add_bytes(b'n', &[]),
        Value::Bool(bool) => add_bytes(b'b', &[u8::from(*bool)]),
        Value::String(string) => add_bytes(b's', string.as_bytes()),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(integer), ..) => add_bytes(b'i', &integer.to_le_bytes()),
            (_, Some(integer), _) => add_bytes(b'u', &integer.to_le_bytes()),
            (.., float) => add_bytes(b'f', &(float.unwrap_or_default() as f32).to_le_bytes()),
        },
        Value::Array(items) => {
            add_bytes(b'a', &(items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| add(hash, item));
        }
        Value::Object(fields) => {
            add_bytes(b'o', &(fields.len() as u64).to_le_bytes());
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            for (name, value) in fields {
                add(hash, &Value::String(name.clone()));
                add(hash, value);
            }
        }
    }
}
