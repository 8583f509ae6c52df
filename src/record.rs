//! The file of a request and its receipt: what stands there, what a run knows of its attempt, and how
//! that is written down: read, unite, ask, write.

use std::{
    fs::{self, File},
    io::{self, ErrorKind::NotFound, Read},
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, uncertain},
    ledger::{Action, Event, step},
    part_file::{Lock, make_folder, sibling},
    receipt::{Attempt, Receipt, fingerprint},
    reply::Excerpt,
    request::VideoRequest,
    standing::{Standing, Viewer, current, standing},
};

/// How often another program may write the receipt while this run does.
const MAX_WRITES: u32 = 100;

const FOREIGN: &str = "there is a file that its receipt does not explain: move it away, or restore \
    its receipt. Nothing replaces it";

/// What the ledger says to do next, or why the run ends.
pub(crate) type Next = Result<Action, Error>;

/// A file, and the request for the video that belongs there.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) request: VideoRequest,
    pub(crate) may_replace: bool,
}

impl Target {
    pub(crate) fn receipt_path(&self) -> Result<PathBuf, Error> {
        sibling(&self.path, ".receipt.json").map_err(|error| unsent(&self.path, None, error))
    }

    /// What is on disk. An error names the generation.
    pub(crate) fn receipt(&self, generation_id: Option<&str>) -> Result<Receipt, Error> {
        let path = self.receipt_path()?;
        let in_file = |error| Error::file(&path, generation_id, uncertain(error));
        Receipt::read(&path).map_err(in_file)
    }
}

/// The receipt of a run, and the attempt that it works at.
#[derive(Clone)]
pub(crate) struct Record<'a> {
    pub(crate) target: &'a Target,
    pub(crate) viewer: Viewer,
    pub(crate) path: PathBuf,
    /// What this run knows: more than what is on disk, while that can't be written.
    pub(crate) known: Receipt,
    /// Whether this run wrote whose video the file is.
    pub(crate) has_saved: bool,
    /// The client request id of the attempt: at first, of the one that speaks for the request.
    pub(crate) id: String,
}

impl<'a> Record<'a> {
    /// Reads the receipt, for the client of a host, or without one.
    pub(crate) fn open(target: &'a Target, host: Option<&str>) -> Result<Self, Error> {
        let fingerprint = fingerprint(&target.request.to_json()?);
        let host = host.map(str::to_owned);
        let viewer = Viewer { fingerprint, host };
        let known = target.receipt(None)?;
        let id = current(&known, &viewer).map(|attempt| attempt.client_request_id.clone());
        Ok(Record {
            target,
            path: target.receipt_path()?,
            has_saved: false,
            id: id.unwrap_or_default(),
            known,
            viewer,
        })
    }

    /// The attempt whose video is whole at the path.
    pub(crate) fn finished(&self) -> Result<Option<Attempt>, Error> {
        match self.look().map_err(|error| self.refused(error))? {
            Standing::Current(index) => Ok(Some(self.known.attempts[index].clone())),
            _ => Ok(None),
        }
    }

    /// What stands at the path, which may be a link to it.
    fn look(&self) -> io::Result<Standing> {
        let size = match fs::metadata(&self.target.path) {
            Ok(file) if file.is_file() => Some(file.len()),
            // A pipe would block.
            Ok(_) => return Err(io::Error::other("is not a regular file")),
            Err(error) if error.kind() == NotFound => None,
            Err(error) => return Err(error),
        };
        let start = self.start();
        let file = size.map(|size| (size, &*start));
        Ok(standing(&self.known, file, &self.viewer))
    }

    /// Fails if what stands at the path must not be replaced.
    pub(crate) fn check_standing(&self) -> io::Result<()> {
        let text = match self.look()? {
            Standing::Absent | Standing::Current(_) => return Ok(()),
            Standing::Another(_) if self.target.may_replace => return Ok(()),
            Standing::Another(what) => format!(
                "there is {what}, which begins with {}. Delete it, or call allow_replace(true), and \
                 this request's video takes its place. `resume ID FILE` saves a video elsewhere",
                self.start().escape_ascii()
            ),
            Standing::Foreign => FOREIGN.to_owned(),
        };
        Err(io::Error::other(text))
    }

    /// The first bytes of what stands at the path.
    fn start(&self) -> Vec<u8> {
        let (mut start, file) = (Vec::new(), File::open(&self.target.path));
        let _ = file.and_then(|file| file.take(12).read_to_end(&mut start));
        start
    }

    /// The attempt, once it has an entry.
    pub(crate) fn attempt(&self) -> Option<&Attempt> {
        let index = self.known.find(&self.id)?;
        Some(&self.known.attempts[index])
    }

    pub(crate) fn generation_id(&self) -> Option<&str> {
        self.attempt()?.generation_id.as_deref()
    }

    /// Records what was learned, and asks the ledger what comes next. `heard` adds what a response
    /// says of the attempt, the state and the cost aside.
    pub(crate) fn learn(&mut self, event: Event, heard: impl FnOnce(&mut Attempt)) -> Next {
        let id = self.id.clone();
        // In memory first: if it can't be written, the error still has the generation's id.
        self.known.change(&id, |attempt| {
            let mut newer = attempt.clone();
            heard(&mut newer);
            attempt.unite(newer);
        });
        self.update(None, |receipt| {
            let mut next = Action::Stop;
            receipt.change(&id, |attempt| {
                let (entry, action) = step(Some(attempt.entry()), event);
                (attempt.state, attempt.cost, next) = (entry.state, entry.cost, action);
            });
            Ok(next)
        })
    }

    /// Records whose video the file is: with the lock that it will be, and without that it is.
    pub(crate) fn save(&mut self, bytes: u64, lock: Option<&Lock>) -> Result<(), Error> {
        let (id, saved) = (self.id.clone(), &mut self.known.saved);
        saved.saving = Some(id.clone());
        if lock.is_none() {
            saved.saved = saved.saving.take();
        }
        self.has_saved = true;
        self.update(lock, |receipt| {
            receipt.change(&id, |attempt| attempt.bytes = Some(bytes));
            Ok(())
        })
    }

    /// Changes the receipt as it is on disk and known to this run, and writes it; again if another
    /// program wrote it meanwhile. With a lock, only while that is held.
    pub(crate) fn update<T>(
        &mut self,
        lock: Option<&Lock>,
        mut change: impl FnMut(&mut Receipt) -> Result<T, Error>,
    ) -> Result<T, Error> {
        for _ in 0..MAX_WRITES {
            let disk = self.read()?;
            let mut next = self.known.clone();
            let result = change(&mut next)?;
            let replaced = self.replace(&disk, &next, lock);
            if replaced.map_err(|error| self.in_receipt(error))? {
                self.known = next;
                return Ok(result);
            }
        }
        Err(self.in_receipt(io::Error::other("other programs write it all the time")))
    }

    /// Unites what is on disk with what this run knows. Returns what is on disk.
    pub(crate) fn read(&mut self) -> Result<Receipt, Error> {
        let disk = self.target.receipt(self.generation_id())?;
        let mut receipt = disk.clone();
        receipt.unite(&self.known);
        if self.has_saved || disk.attempts.is_empty() {
            receipt.saved = self.known.saved.clone();
        }
        self.known = receipt;
        Ok(disk)
    }

    /// Puts `next` in the place of `disk`. False if something else is there by now.
    fn replace(&self, disk: &Receipt, next: &Receipt, lock: Option<&Lock>) -> io::Result<bool> {
        if next == disk {
            return Ok(true);
        }
        make_folder(&self.path)?;
        let part = next.prepare(&self.path)?;
        if Receipt::read(&self.path)? != *disk {
            return Ok(false);
        }
        lock.map_or(Ok(()), Lock::check)?;
        match part.persist() {
            // Another program removed the part, or the folder.
            Err(error) if matches!(error.kind(), NotFound) => Ok(false),
            persisted => persisted.map(|()| true),
        }
    }

    /// The error of a run that stops before it sends anything. It says whether the request is open.
    pub(crate) fn refused(&self, cause: io::Error) -> Error {
        unsent(&self.target.path, self.attempt(), cause)
    }

    /// The error of a request of which nothing tells what became of it.
    pub(crate) fn unknown(&self, cause: &str) -> Error {
        let host = self.attempt().and_then(|attempt| attempt.host.as_deref());
        let host = Excerpt(host.unwrap_or("an unknown host"));
        Error::OutcomeUnknown {
            client_request_id: self.id.clone(),
            generation_id: self.generation_id().map(str::to_owned),
            cause: format!("{cause} (sent to {host})"),
            receipt: Some(self.path.clone()),
        }
    }

    pub(crate) fn in_receipt(&self, error: io::Error) -> Error {
        about(&self.path, self.attempt(), error)
    }

    pub(crate) fn in_file(&self, error: io::Error) -> Error {
        about(&self.target.path, self.attempt(), error)
    }
}

/// The error of a run that stops before it sends anything.
fn unsent(path: &Path, attempt: Option<&Attempt>, cause: io::Error) -> Error {
    let text = format!("{cause}; nothing was sent");
    about(path, attempt, io::Error::new(cause.kind(), text))
}

/// The error of a file, which says whether an attempt may be charged.
pub(crate) fn about(path: &Path, attempt: Option<&Attempt>, cause: io::Error) -> Error {
    let open = attempt.filter(|attempt| attempt.is_open());
    match open.map(|attempt| attempt.generation_id.as_deref()) {
        Some(None) => Error::file(path, None, uncertain(cause)),
        id => Error::file(path, id.flatten(), cause),
    }
}
