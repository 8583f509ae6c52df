use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::Path,
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use crate::{
    Usage, VideoRequest,
    part_file::{PartFile, check_regular},
};

/// The version of the receipts that this crate writes, and the only one that it reads.
const VERSION: u64 = 2;
const ABOUT: &str = "What was requested for the video file beside this one, by aimlapi-video: an \
    attempt for each payment. Without it, videos may be paid for again.";

/// The ledger of a [`VideoFile`](crate::VideoFile): an entry for each request that was sent, or may
/// have been. It contains neither the API key nor a URL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Receipt {
    #[serde(default)]
    about: String,
    version: u64,
    /// The file as it was saved last.
    pub(crate) saved: Option<Saved>,
    /// All attempts, the oldest first.
    pub attempts: Vec<Attempt>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) generation_id: String,
    pub(crate) bytes: u64,
}

/// A request for a [`VideoFile`](crate::VideoFile), and its outcome.
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
    pub(crate) fingerprint: String,
    /// What was sent as `X-Client-Request-Id`, to find it in the usage log.
    pub client_request_id: String,
    /// The generation's id, once the server has named it.
    pub generation_id: Option<String>,
    /// How far it is.
    pub state: State,
    /// What it cost, if the server said so.
    pub usage: Option<Usage>,
    /// Why the server rejected the request, or why the generation failed. With the state
    /// `waiting`: it rejected the request, but named a generation.
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

impl Receipt {
    pub(crate) fn empty() -> Self {
        Receipt {
            about: ABOUT.to_owned(),
            version: VERSION,
            saved: None,
            attempts: Vec::new(),
        }
    }

    /// Reads the receipt at `path`, if there is one.
    pub(crate) fn read(path: &Path) -> io::Result<Option<Self>> {
        if !check_regular(path)? {
            return Ok(None);
        }
        let bytes = fs::read(path)?;
        // Some editors save a byte order mark.
        let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let reason = match serde_json::from_slice::<Receipt>(json) {
            Ok(receipt) if receipt.version == VERSION => return Ok(Some(receipt)),
            Ok(receipt) => format!("version {} is not {VERSION}", receipt.version),
            Err(error) => error.to_string(),
        };
        Err(io::Error::other(format!(
            "is not a receipt that can be read ({reason}). Correct or restore it: without it, the \
             video is paid for again"
        )))
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        // Nested too deep to be read again: that must be known before it is paid for.
        serde_json::from_str::<Receipt>(&json)?;
        let mut part = PartFile::create(path)?;
        writeln!(part.file(), "{json}")?;
        part.persist()
    }

    /// The attempt of a request: the newest that has not failed.
    pub(crate) fn find(&self, fingerprint: &str) -> Option<usize> {
        let is_it = |attempt: &Attempt| {
            attempt.fingerprint == fingerprint && attempt.state != State::Failed
        };
        self.attempts.iter().rposition(is_it)
    }
}

impl Attempt {
    /// Whether the server rejected this request, named no id, and is asked again by `newer`.
    pub(crate) fn is_replaced_by(&self, newer: &Attempt) -> bool {
        let is_rejected = self.generation_id.is_none() && self.failure.is_some();
        is_rejected && self.fingerprint == newer.fingerprint
    }

    /// The entry of a request that is about to be sent.
    pub(crate) fn new(request: &VideoRequest, fingerprint: String, id: String) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Attempt {
            sent: now.unwrap_or_default().as_secs(),
            model: request.model_name().to_owned(),
            prompt: request.prompt().map(str::to_owned),
            parameters: request.shown_params(),
            fingerprint,
            client_request_id: id,
            generation_id: None,
            state: State::Sending,
            usage: None,
            failure: None,
        }
    }
}

/// Identifies a request body by its 64-bit FNV-1a hash, which is the same with every compiler.
pub(crate) fn fingerprint(body: &Value) -> String {
    let add = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = canonical(body).bytes().fold(0xcbf2_9ce4_8422_2325, add);
    format!("{hash:016x}")
}

/// The JSON of a value, so that serde_json's features, which other crates of a program may switch
/// on, change nothing: keys are sorted, and fractions have the precision of an f32.
fn canonical(value: &Value) -> String {
    let is_integer = |number: &Number| number.is_i64() || number.is_u64();
    match value {
        Value::Object(fields) => {
            let key = |name: &String| Value::from(name.as_str());
            let fields = fields.iter().map(|(name, value)| (name, canonical(value)));
            let sorted: BTreeMap<_, _> = fields.collect();
            let fields = sorted
                .iter()
                .map(|(name, value)| format!("{}:{value},", key(name)));
            format!("{{{}}}", fields.collect::<String>())
        }
        Value::Array(items) => {
            let items = items.iter().map(|item| canonical(item) + ",");
            format!("[{}]", items.collect::<String>())
        }
        Value::Number(number) if !is_integer(number) => {
            (number.as_f64().unwrap_or_default() as f32).to_string()
        }
        other => other.to_string(),
    }
}
