use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Client, Error, Generation, IntoControlFlow, Polling, Status, Usage, VideoRequest,
    client::fresh_request_id,
    download::{is_at, open_locked, persist, sibling},
    error::LostAnswer,
    request::check_client_request_id,
};

/// The version of the receipts that this crate writes, and the newest that it reads.
const VERSION: u64 = 1;
/// For whoever finds a receipt.
const ABOUT: &str =
    "What aimlapi-video knows of the video beside this file. Without it, the video may be paid for twice.";

/// A video file that is paid for once: whatever breaks or is killed, the next run goes on from there.
///
/// Beside the file stands its [`Receipt`], `<file>.receipt.json`: written when the connection stands, before the
/// request goes out on it, and after each step. Keep the two together, in version control too: then nobody pays again.
///
/// In a build script:
/// ```no_run
/// use aimlapi_video::{Client, Polling, VideoFile, VideoRequest};
///
/// let request = VideoRequest::new("A paper boat on a river");
/// let intro = VideoFile::new("assets/intro.mp4", request);
/// if !intro.is_current()? {
///     intro.generate(&Client::from_env()?, &Polling::default(), |_| {})?;
/// }
/// # Ok::<(), aimlapi_video::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct VideoFile {
    path: PathBuf,
    request: VideoRequest,
}

/// Where a [`VideoFile`] stands, for the callback of [`generate`](VideoFile::generate).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The server's answer to the request, and then to each poll.
    Generation(&'a Generation),
    /// Bytes of the video that are on disk.
    Download {
        /// How many there are.
        done: u64,
        /// How many there will be, if that is known.
        total: Option<u64>,
    },
}

/// What is known of a [`VideoFile`], as kept in its receipt on disk. Holds neither the key nor the video's address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Receipt {
    #[serde(default)]
    about: String,
    version: u64,
    /// The step that was begun last.
    pub state: State,
    /// The generation's id, once the server has named it.
    pub generation_id: Option<String>,
    /// What the request was sent with, to find it by in the usage log.
    pub client_request_id: String,
    /// The request, with a checksum in place of images that are sent along, and of the queries of addresses.
    pub request: Value,
    /// What was charged, if the server said so.
    pub usage: Option<Usage>,
    /// Why the generation or the request failed.
    pub failure: Option<String>,
    /// The finished file.
    pub file: Option<Checksum>,
    /// Earlier attempts, whose videos may still be fetched by their ids.
    #[serde(default)]
    pub replaced: Vec<Replaced>,
}

/// How far a [`VideoFile`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// The request was sent, or was about to be, and no answer has been seen.
    Sending,
    /// The generation has an id, and waiting for it costs nothing.
    Waiting,
    /// There is a video, and downloading it costs nothing.
    Downloading,
    /// The file is whole.
    Done,
    /// There will be no video, and nothing was charged.
    Failed,
}

/// The size and a checksum of a finished file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Checksum {
    /// Size in bytes.
    pub bytes: u64,
    /// 64-bit FNV-1a, in hexadecimal.
    pub fnv1a: String,
}

/// A request that another took the place of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Replaced {
    /// What it was sent with.
    pub client_request_id: String,
    /// The generation's id, if the server named it.
    pub generation_id: Option<String>,
}

impl VideoFile {
    /// The file at `path`, to hold the video that `request` asks for. Does nothing yet.
    ///
    /// If the request has a [client request id](VideoRequest::client_request_id), of 81 characters at most, each
    /// attempt is sent with that, a colon, and characters of its own. An address in the request that is signed anew
    /// in each run makes it another request each time, to be paid for each time.
    pub fn new(path: impl Into<PathBuf>, request: VideoRequest) -> Self {
        VideoFile { path: path.into(), request }
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is there, whole, unaltered, and made by this request. Needs neither key nor network.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a request that can't be right; [`Error::File`] for a receipt that can't be read.
    pub fn is_current(&self) -> Result<bool, Error> {
        self.request.to_json()?;
        Ok(self.finished(&self.request.summary())?.is_some())
    }

    /// The receipt, if there is one.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be read, or if a newer version of this crate wrote it.
    pub fn receipt(&self) -> Result<Option<Receipt>, Error> {
        let path = self.receipt_path()?;
        if path.metadata().is_ok_and(|there| !there.is_file()) {
            return Err(fault(&path, UNREADABLE));
        }
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fault(&path, error)),
        };
        let json: Value =
            serde_json::from_slice(&text).map_err(|error| fault(&path, format!("{UNREADABLE} ({error})")))?;
        match json.get("version").and_then(Value::as_u64) {
            Some(version) if version > VERSION => Err(fault(
                &path,
                format!(
                    "written by a newer version of aimlapi-video (format {version}, this one reads {VERSION}): update it"
                ),
            )),
            _ => {
                serde_json::from_value(json).map(Some).map_err(|error| fault(&path, format!("{UNREADABLE} ({error})")))
            }
        }
    }

    /// Finishes the file from wherever it stands, and pays at most once, however often this is called.
    ///
    /// - Finished already: nothing is sent.
    /// - Nothing done yet: makes sure that the place can be written, sends the request, waits, downloads.
    /// - A request was sent and its answer lost: looks it up in the usage log, and **never sends it again**.
    /// - Waiting, downloading, or the file was deleted or altered: goes on by the generation's id.
    /// - The request was changed: begins anew, and keeps the ids of what it replaces.
    /// - The generation failed, and was not charged: begins anew.
    /// - It is over without a video, and may have been charged: says so each time, and asks for no other. Ask the
    ///   vendor, with the id; only once the receipt is deleted is there another request.
    ///
    /// Another process or thread at the same file waits for this one, then finds the work done.
    /// The callback may return [`ControlFlow::Break`](std::ops::ControlFlow::Break) to stop; the next call goes on.
    ///
    /// # Errors
    /// What [`generate_video`](Client::generate_video), [`wait_for_video`](Client::wait_for_video) and
    /// [`download_video`](Client::download_video) give. [`Error::OutcomeUnknown`] again and again, free of charge,
    /// while a lost request is not in the usage log; its text names the way out. [`Error::File`] if a file
    /// stands in the way that has no receipt, or if a receipt can't be read or written.
    pub fn generate<C: IntoControlFlow>(
        &self,
        client: &Client,
        polling: &Polling,
        mut callback: impl FnMut(Progress<'_>) -> C,
    ) -> Result<Receipt, Error> {
        self.request.to_json()?;
        let request = self.request.summary();
        if let Some(receipt) = self.finished(&request)? {
            return Ok(receipt);
        }
        let _lock = Lock::wait(&self.receipt_path()?)?;
        if let Some(receipt) = self.finished(&request)? {
            return Ok(receipt);
        }
        let mut receipt = match self.receipt()? {
            Some(receipt) if receipt.request == request && receipt.state != State::Failed => receipt,
            None if self.path.exists() => {
                let receipt = self.receipt_path()?;
                let receipt = receipt.display();
                let reason =
                    format!("there, without its receipt {receipt}: move it away, or bring that back; nothing was sent");
                return Err(fault(&self.path, reason));
            }
            old => self.request_generation(client, request, old, &mut callback)?,
        };
        let id = match receipt.generation_id.clone() {
            Some(id) => id,
            None => self.look_up(
                client,
                &mut receipt,
                format!("an earlier request for {} had no answer", self.path.display()),
            )?,
        };
        let waited = client.wait_for_video(&id, polling, |generation| {
            receipt.usage = generation.usage.or(receipt.usage);
            callback(Progress::Generation(generation))
        });
        if let Err(error @ Error::Failed(generation)) = &waited {
            // One that may have been charged keeps its id: to ask for it again is free, to make another is not.
            let never_had_a_video = receipt.state == State::Waiting
                && generation.status.is_final()
                && !matches!(generation.status, Status::Completed | Status::Expired);
            if never_had_a_video && receipt.usage.is_none_or(is_free) {
                self.record_failure(&mut receipt, error)?;
            }
        }
        let video = waited?;
        receipt.state = State::Downloading;
        self.write(&receipt)?;
        client.download_video(&video, &self.path, |done, total| callback(Progress::Download { done, total }))?;
        receipt.file = Some(checksum(&self.path).map_err(|error| file_error(&self.path, Some(&id), error))?);
        receipt.state = State::Done;
        self.write(&receipt)?;
        Ok(receipt)
    }

    /// Sends the request, with a new receipt written when nothing but the body is left to send.
    fn request_generation<C: IntoControlFlow>(
        &self,
        client: &Client,
        request: Value,
        old: Option<Receipt>,
        callback: &mut impl FnMut(Progress<'_>) -> C,
    ) -> Result<Receipt, Error> {
        let mut replaced = Vec::new();
        if let Some(Receipt { client_request_id, generation_id, state, replaced: before, .. }) = old.clone() {
            replaced = before;
            if generation_id.is_some() || state != State::Failed {
                replaced.push(Replaced { client_request_id, generation_id });
            }
        }
        let client_request_id = match self.request.requested_id() {
            Some(id) => format!("{id}:{}", fresh_request_id()),
            None => fresh_request_id(),
        };
        check_client_request_id(&client_request_id)?;
        let mut receipt = Receipt {
            about: ABOUT.to_owned(),
            version: VERSION,
            state: State::Sending,
            generation_id: None,
            client_request_id,
            request,
            usage: None,
            failure: None,
            file: None,
            replaced,
        };
        let mut written = None;
        let before_body = || {
            let result = written.insert(self.write(&receipt));
            result.as_ref().map_or_else(|error| Err(io::Error::other(error.to_string())), |()| Ok(()))
        };
        let answer = client.generate_video_as(&self.request, &receipt.client_request_id, before_body);
        match (answer, written) {
            (_, Some(Err(unwritten))) => return Err(unwritten),
            (Ok(generation), _) => {
                self.record_id(&mut receipt, &generation.id, generation.usage)?;
                if callback(Progress::Generation(&generation)).into_control_flow().is_break() {
                    return Err(Error::Stopped { generation_id: generation.id });
                }
            }
            (Err(Error::OutcomeUnknown(lost)), _) => match &lost.generation_id {
                Some(id) => self.record_id(&mut receipt, id, None)?,
                None => drop(self.look_up(client, &mut receipt, lost.cause)?),
            },
            // The receipt that was there before, if any, still tells the truth.
            (Err(error), None) => return Err(error),
            (Err(error), Some(Ok(()))) => {
                receipt.generation_id = error.generation_id().map(str::to_owned);
                match &old {
                    Some(old) if old.state != State::Failed => self.write(old)?,
                    _ => self.record_failure(&mut receipt, &error)?,
                }
                return Err(error);
            }
        }
        Ok(receipt)
    }

    /// Finds the id of a request whose answer was lost.
    fn look_up(&self, client: &Client, receipt: &mut Receipt, cause: String) -> Result<String, Error> {
        let cause = match client.find_generation(&receipt.client_request_id) {
            Ok(Some(row)) => {
                self.record_id(receipt, &row.generation_id, row.usage())?;
                return Ok(row.generation_id);
            }
            Ok(None) => format!("{cause}; it is not in the usage log so far"),
            Err(error) => format!("{cause}; looking it up failed: {}", error.cause()),
        };
        Err(Error::OutcomeUnknown(Box::new(LostAnswer {
            client_request_id: receipt.client_request_id.clone(),
            generation_id: None,
            cause,
            receipt: Some(self.receipt_path()?),
        })))
    }

    fn record_id(&self, receipt: &mut Receipt, id: &str, usage: Option<Usage>) -> Result<(), Error> {
        receipt.state = State::Waiting;
        receipt.generation_id = Some(id.to_owned());
        receipt.usage = usage;
        self.write(receipt)
    }

    fn record_failure(&self, receipt: &mut Receipt, error: &Error) -> Result<(), Error> {
        receipt.state = State::Failed;
        receipt.failure = Some(error.to_string());
        self.write(receipt)
    }

    fn finished(&self, request: &Value) -> Result<Option<Receipt>, Error> {
        let Some(receipt) = self.receipt()? else { return Ok(None) };
        if receipt.file.is_none() || receipt.request != *request {
            return Ok(None);
        }
        match checksum(&self.path) {
            Ok(found) => Ok((receipt.file.as_ref() == Some(&found)).then_some(receipt)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fault(&self.path, error)),
        }
    }

    fn receipt_path(&self) -> Result<PathBuf, Error> {
        sibling(&self.path, ".receipt.json").map_err(|error| fault(&self.path, error))
    }

    fn write(&self, receipt: &Receipt) -> Result<(), Error> {
        let path = self.receipt_path()?;
        let written = || {
            let temporary = sibling(&path, ".tmp")?;
            let mut file = File::create(&temporary)?;
            let json = serde_json::to_string_pretty(receipt)?;
            // What can't be read back (it is nested too deep, say) is found out now, not after the payment.
            serde_json::from_str::<Receipt>(&json)?;
            file.write_all(json.as_bytes())?;
            file.write_all(b"\n")?;
            persist(&file, &temporary, &path)
        };
        written()
            .map_err(|error| file_error(&path, receipt.generation_id.as_deref(), format!("can't be written: {error}")))
    }
}

const UNREADABLE: &str = "is not a receipt; nothing was sent and nothing was changed. Bring back the receipt that was there, \
    or delete it if no generation hangs on it";

fn fault(path: &Path, reason: impl ToString) -> Error {
    file_error(path, None, reason)
}

fn file_error(path: &Path, generation_id: Option<&str>, reason: impl ToString) -> Error {
    let generation_id = generation_id.map(str::to_owned);
    Error::File { path: Some(path.to_owned()), generation_id, reason: reason.to_string() }
}

fn is_free(usage: Usage) -> bool {
    usage.credits_used.unwrap_or_default() == 0.0 && usage.usd_spent.unwrap_or_default() == 0.0
}

/// Held by whoever works at a receipt.
struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    fn wait(receipt: &Path) -> Result<Self, Error> {
        let locked = || {
            let path = sibling(receipt, ".lock")?;
            Ok(Lock { file: open_locked(&path)?, path })
        };
        locked().map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => fault(receipt, "its folder does not exist: make it; nothing was sent"),
            _ => fault(receipt, format!("can't be locked: {error}; nothing was sent")),
        })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Whoever waits for it sees that it is gone, and makes another. Elsewhere that can't be seen for sure.
        if cfg!(unix) && is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn checksum(path: &Path) -> io::Result<Checksum> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 128 * 1024];
    let (mut bytes, mut hash) = (0, FNV_START);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Checksum { bytes, fnv1a: format!("{hash:016x}") }),
            count => {
                bytes += count as u64;
                hash = fnv1a(hash, &buffer[..count]);
            }
        }
    }
}

pub(crate) const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// 64-bit FNV-1a: tells accidents, not attacks, and is the same on every machine.
pub(crate) fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
