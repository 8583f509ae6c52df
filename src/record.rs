//! What a run knows of its attempt, and how it is written down: read, unite, ask, write.

use std::{io, path::PathBuf};

use crate::{
    error::Error,
    generation::Usage,
    ledger::{Action, Event, step},
    part_file::{Lock, make_folder},
    receipt::{Attempt, Receipt, Saved},
    standing::Viewer,
    target::{Target, about},
};

/// How often another program may write the receipt while this run does.
const MAX_WRITES: u32 = 100;

/// The receipt of a run, and the attempt that it works at.
#[derive(Clone)]
pub(crate) struct Record<'a> {
    pub(crate) target: &'a Target,
    pub(crate) viewer: Viewer<'a>,
    pub(crate) path: PathBuf,
    /// What this run knows: more than what is on disk, while that can't be written.
    pub(crate) known: Receipt,
    /// Whether this run wrote whose video the file is.
    pub(crate) has_saved: bool,
    /// The client request id of the attempt.
    pub(crate) id: String,
}

/// What a response adds to an attempt, the state and the cost aside.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) id: Option<String>,
    pub(crate) usage: Option<Usage>,
    pub(crate) failure: Option<String>,
}

impl Heard {
    pub(crate) fn usage(usage: Option<Usage>) -> Self {
        Heard {
            usage,
            ..Heard::default()
        }
    }

    pub(crate) fn failure(failure: impl Into<String>) -> Self {
        Heard {
            failure: Some(failure.into()),
            ..Heard::default()
        }
    }

    pub(crate) fn with_id(self, id: Option<String>) -> Self {
        Heard { id, ..self }
    }
}

impl Record<'_> {
    /// The attempt, once it has an entry.
    pub(crate) fn attempt(&self) -> Option<&Attempt> {
        self.known
            .find(&self.id)
            .map(|index| &self.known.attempts[index])
    }

    pub(crate) fn generation_id(&self) -> Option<&str> {
        self.attempt()?.generation_id.as_deref()
    }

    /// Records what was learned, and asks the ledger what comes next.
    pub(crate) fn learn(&mut self, event: Event, heard: Heard) -> Result<Action, Error> {
        let id = self.id.clone();
        // In memory first: if it can't be written, the error still has the generation's id.
        self.known.change(&id, |attempt| {
            let Heard {
                id: generation_id,
                usage,
                failure,
            } = heard;
            attempt.unite(Attempt {
                generation_id,
                usage,
                failure,
                ..attempt.clone()
            });
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

    /// Records whose video the file is.
    pub(crate) fn save(
        &mut self,
        bytes: u64,
        lock: Option<&Lock>,
        is_done: bool,
    ) -> Result<(), Error> {
        self.has_saved = true;
        let id = self.id.clone();
        self.known.saved = match is_done {
            true => Saved {
                saved: Some(id.clone()),
                saving: None,
            },
            false => Saved {
                saving: Some(id.clone()),
                ..self.known.saved.clone()
            },
        };
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
            if next == disk
                || self
                    .replace(&disk, &next, lock)
                    .map_err(|e| self.in_receipt(e))?
            {
                self.known = next;
                return Ok(result);
            }
        }
        Err(self.in_receipt(io::Error::other("other programs write it all the time")))
    }

    /// Unites what is on disk with what this run knows. Returns what is on disk.
    pub(crate) fn read(&mut self) -> Result<Receipt, Error> {
        let disk = self
            .target
            .receipt()
            .map_err(|error| match (error, self.generation_id()) {
                (Error::File { path, cause, .. }, id @ Some(_)) => Error::file(&path, id, cause),
                (error, _) => error,
            })?;
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
        make_folder(&self.path)?;
        let part = next.prepare(&self.path)?;
        if Receipt::read(&self.path)?
            .as_ref()
            .unwrap_or(&Receipt::empty())
            != disk
        {
            return Ok(false);
        }
        lock.map_or(Ok(()), Lock::check)?;
        match part.persist() {
            // Another program removed the part, or the folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            persisted => persisted.map(|()| true),
        }
    }

    pub(crate) fn in_receipt(&self, error: io::Error) -> Error {
        about(&self.path, self.attempt(), error)
    }

    pub(crate) fn in_file(&self, error: io::Error) -> Error {
        about(&self.target.path, self.attempt(), error)
    }
}
