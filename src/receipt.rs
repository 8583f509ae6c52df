//! The receipt of a video file, as JSON: read, unite, write.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Serialize, Serializer, de::DeserializeOwned};
use serde_json::{Map, Number, Value};

use crate::{
    generation::{Cost, Usage},
    http::url::is_loopback,
    ledger::{Entry, State},
    part_file::PartFile,
    reply::{Excerpt, is_id},
    request::VideoRequest,
};

/// The version of the receipts that this crate writes, and the only one that it reads.
const VERSION: u64 = 3;
const ABOUT: &str = "What was requested for the video file beside this one, by aimlapi-video: an \
    attempt for each payment. Without it, videos may be paid for again.";
const MAX_READ: u64 = 2 << 20;
/// A receipt of this size can still grow by what the responses say.
const MAX_BEFORE_POST: usize = 1 << 20;

/// What was requested for a file. It contains neither the API key nor a URL.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Receipt {
    about: String,
    version: u64,
    #[serde(flatten)]
    pub(crate) saved: Saved,
    /// The oldest first.
    pub(crate) attempts: Vec<Attempt>,
}

/// Whose video the file is: the client request ids of attempts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Saved {
    /// Of the attempt whose video was renamed to the file last.
    pub(crate) saved: Option<String>,
    /// Of the attempt whose video is being renamed to the file.
    pub(crate) saving: Option<String>,
}

/// A request for a [`VideoFile`](crate::VideoFile), and its outcome.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Attempt {
    /// When it was sent, by this computer's clock. In JSON: in seconds since 1970.
    #[serde(serialize_with = "seconds")]
    pub sent: SystemTime,
    /// The host, with its port if the base URL names one, that it was sent to.
    pub host: Option<String>,
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
    /// The highest cost that any response named.
    pub(crate) cost: Cost,
    /// What it cost, if the server said so.
    pub usage: Option<Usage>,
    /// The size of its video in bytes, once that was saved.
    pub bytes: Option<u64>,
    /// What went wrong last.
    pub failure: Option<String>,
}

fn seconds<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(since_1970(*time))
}

fn since_1970(time: SystemTime) -> u64 {
    let time = time.duration_since(UNIX_EPOCH);
    time.unwrap_or_default().as_secs()
}

impl Receipt {
    fn empty() -> Self {
        Receipt {
            about: ABOUT.to_owned(),
            version: VERSION,
            saved: Saved::default(),
            attempts: Vec::new(),
        }
    }

    /// Reads the receipt at `path`, which may be a link. Without one, nothing was requested.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let check = |file: fs::Metadata| match file.is_file() {
            true => Ok(()),
            false => Err(unreadable("not a regular file")),
        };
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Receipt::empty()),
            file => check(file?)?,
        }
        let (file, mut bytes) = (File::open(path)?, Vec::new());
        check(file.metadata()?)?;
        file.take(MAX_READ + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_READ {
            return Err(unreadable(&format!("it has more than {MAX_READ} bytes")));
        }
        // Some editors save a byte order mark.
        let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let json = serde_json::from_slice(json).map_err(|error| error.to_string());
        let receipt = json.and_then(|json| Receipt::from_json(&json));
        receipt.map_err(|reason| unreadable(&reason))
    }

    fn from_json(json: &Value) -> Result<Self, String> {
        let version: u64 = field(json, "version")?;
        if version != VERSION {
            return Err(format!("version {version} is not {VERSION}"));
        }
        let attempts = json["attempts"].as_array();
        let attempts = attempts.ok_or("it has no list of attempts")?;
        let mut receipt = Receipt::empty();
        receipt.saved.saved = field(json, "saved")?;
        receipt.saved.saving = field(json, "saving")?;
        for (number, attempt) in (1..).zip(attempts) {
            let attempt = Attempt::from_json(attempt);
            // A merge can leave two versions of one attempt in one file.
            receipt.add(attempt.map_err(|reason| format!("attempt {number}: {reason}"))?);
        }
        Ok(receipt)
    }

    /// Adds an attempt, or what is newer about one.
    pub(crate) fn add(&mut self, attempt: Attempt) {
        match self.find(&attempt.client_request_id) {
            Some(index) => self.attempts[index].unite(attempt),
            None => self.attempts.push(attempt),
        }
    }

    /// Adds what a run knows to what is on disk. Nothing that either knows is lost.
    pub(crate) fn unite(&mut self, known: &Receipt) {
        let attempts = known.attempts.iter().cloned();
        attempts.for_each(|attempt| self.add(attempt));
    }

    pub(crate) fn change(&mut self, client_request_id: &str, change: impl FnOnce(&mut Attempt)) {
        if let Some(index) = self.find(client_request_id) {
            change(&mut self.attempts[index]);
        }
    }

    pub(crate) fn find(&self, client_request_id: &str) -> Option<usize> {
        let is_it = |attempt: &Attempt| attempt.client_request_id == client_request_id;
        self.attempts.iter().position(is_it)
    }

    fn to_json(&self) -> io::Result<String> {
        let json = serde_json::to_string_pretty(self)?;
        // Nested too deep to be read again: that must be known before it is paid for.
        serde_json::from_str::<Value>(&json)?;
        Ok(json + "\n")
    }

    /// Fails if it is too large for another payment.
    pub(crate) fn check_size(&self) -> io::Result<()> {
        if self.to_json()?.len() <= MAX_BEFORE_POST {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "would have more than {MAX_BEFORE_POST} bytes: take parameters out of the request, or \
             use another file; nothing was sent"
        )))
    }

    /// A file that takes the place of the one at `path` once it is persisted.
    pub(crate) fn prepare(&self, path: &Path) -> io::Result<PartFile> {
        let json = self.to_json()?;
        let mut part = PartFile::create(path)?;
        part.file().write_all(json.as_bytes())?;
        part.sync().map(|()| part)
    }
}

impl Attempt {
    /// The attempt of a request that is about to be sent.
    pub(crate) fn new(
        request: &VideoRequest,
        fingerprint: &str,
        host: Option<&str>,
        id: String,
    ) -> Self {
        let Entry { state, cost, .. } = Entry::NEW;
        Attempt {
            // In whole seconds, as receipts have it.
            sent: UNIX_EPOCH + Duration::from_secs(since_1970(SystemTime::now())),
            host: host.map(str::to_owned),
            model: request.model_name().to_owned(),
            prompt: request.prompt().map(str::to_owned),
            parameters: request.shown_params(),
            fingerprint: fingerprint.to_owned(),
            client_request_id: id,
            generation_id: None,
            state,
            cost,
            usage: None,
            bytes: None,
            failure: None,
        }
    }

    fn from_json(json: &Value) -> Result<Self, String> {
        let usage = |name: &str| json["usage"].get(name).and_then(Value::as_f64);
        let sent = UNIX_EPOCH.checked_add(Duration::from_secs(field(json, "sent")?));
        let generation_id: Option<String> = field(json, "generation_id")?;
        if !generation_id.as_deref().is_none_or(is_id) {
            return Err("`generation_id` is no id".to_owned());
        }
        Ok(Attempt {
            sent: sent.ok_or("`sent` is too large")?,
            host: field(json, "host")?,
            model: field(json, "model")?,
            prompt: field(json, "prompt")?,
            parameters: field(json, "parameters")?,
            fingerprint: field(json, "fingerprint")?,
            client_request_id: field(json, "client_request_id")?,
            generation_id,
            state: word(json, "state", &State::ALL)?,
            cost: word(json, "cost", &Cost::ALL)?,
            usage: Usage::new(usage("credits_used"), usage("usd_spent")),
            bytes: field(json, "bytes")?,
            failure: field(json, "failure")?,
        })
    }

    /// What the ledger looks at.
    pub(crate) fn entry(&self) -> Entry {
        Entry {
            state: self.state,
            has_id: self.generation_id.is_some(),
            cost: self.cost,
        }
    }

    /// Whether its generation exists, or may exist, and is or may be charged.
    pub(crate) fn is_open(&self) -> bool {
        self.entry().is_open()
    }

    /// Adds what a newer version of this attempt knows.
    pub(crate) fn unite(&mut self, newer: Attempt) {
        let Entry { state, cost, .. } = self.entry().unite(newer.entry());
        (self.state, self.cost) = (state, cost);
        self.usage = newer.usage.or(self.usage);
        self.bytes = newer.bytes.or(self.bytes);
        self.host = self.host.take().or(newer.host);
        self.failure = newer.failure.or(self.failure.take());
        match (&self.generation_id, newer.generation_id) {
            (Some(known), Some(other)) if *known != other => {
                let text = format!("generation {} was named, too", Excerpt(&other));
                self.failure = Some(match self.failure.take() {
                    Some(failure) if failure.contains(&text) => failure,
                    Some(failure) => format!("{failure}; {text}"),
                    None => text,
                });
            }
            (None, other) => self.generation_id = other,
            _ => {}
        }
    }

    /// Whether a simulator made it: nothing was generated, and nothing was charged.
    pub(crate) fn is_simulated(&self) -> bool {
        let id = self.generation_id.as_deref().unwrap_or_default();
        id.starts_with("simulated-") && self.host.as_deref().is_some_and(is_loopback)
    }
}

fn unreadable(reason: &str) -> io::Error {
    let reason = Excerpt(reason);
    io::Error::other(format!(
        "is not a receipt that can be read ({reason}). Correct or restore it: without it, the video \
         is paid for again"
    ))
}

/// A field of a receipt. One that is missing is null.
fn field<T: DeserializeOwned>(json: &Value, name: &str) -> Result<T, String> {
    T::deserialize(&json[name]).map_err(|error| format!("`{name}`: {error}"))
}

/// A field that is one of these words, as they are written to JSON.
fn word<T: Copy + Serialize>(json: &Value, name: &str, words: &[T]) -> Result<T, String> {
    let is_it = |word: &&T| serde_json::to_value(*word).is_ok_and(|word| word == json[name]);
    let unknown = || format!("`{name}`: unknown word {}", json[name]);
    words.iter().find(is_it).copied().ok_or_else(unknown)
}

/// Identifies a request body by its 64-bit FNV-1a hash, which is the same with every compiler.
pub(crate) fn fingerprint(body: &Value) -> String {
    let add = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = canonical(body).bytes().fold(0xcbf2_9ce4_8422_2325, add);
    format!("{hash:016x}")
}

/// The JSON of a value, so that neither serde_json's features, which other crates of a program may
/// switch on, nor a clone's line ends change anything: keys are sorted, fractions have the precision
/// of an f32, CRLF is LF, and texts have no white space at their ends.
fn canonical(value: &Value) -> String {
    let is_integer = |number: &Number| number.is_i64() || number.is_u64();
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            let fields = sorted.iter().map(|(name, value)| {
                format!("{}:{},", Value::from(name.as_str()), canonical(value))
            });
            format!("{{{}}}", fields.collect::<String>())
        }
        Value::Array(items) => {
            let items = items.iter().map(|item| canonical(item) + ",");
            format!("[{}]", items.collect::<String>())
        }
        Value::Number(number) if !is_integer(number) => {
            (number.as_f64().unwrap_or_default() as f32).to_string()
        }
        Value::String(text) => Value::from(text.replace("\r\n", "\n").trim()).to_string(),
        other => other.to_string(),
    }
}
