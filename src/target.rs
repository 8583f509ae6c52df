//! The file of a request: its receipt, what stands at its path, and whether that may be replaced.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Uncertain},
    part_file::sibling,
    receipt::{Attempt, Receipt, fingerprint},
    request::VideoRequest,
    standing::{Standing, Viewer, current, standing},
};

/// A file, and the request for the video that belongs there.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) request: VideoRequest,
    pub(crate) may_replace: bool,
}

impl Target {
    pub(crate) fn fingerprint(&self) -> Result<String, Error> {
        Ok(fingerprint(&self.request.to_json()?))
    }

    pub(crate) fn receipt_path(&self) -> Result<PathBuf, Error> {
        sibling(&self.path, ".receipt.json").map_err(|error| unsent(&self.path, None, error))
    }

    pub(crate) fn receipt(&self) -> Result<Receipt, Error> {
        let path = self.receipt_path()?;
        let receipt = Receipt::read(&path).map_err(|error| {
            let uncertain = Uncertain(error.to_string());
            unsent(&path, None, io::Error::new(error.kind(), uncertain))
        })?;
        Ok(receipt.unwrap_or_else(Receipt::empty))
    }

    /// What stands at the path, which may be a link to it.
    pub(crate) fn standing(
        &self,
        receipt: &Receipt,
        fingerprint: &str,
        viewer: Viewer<'_>,
    ) -> Result<Standing, Error> {
        let size = match fs::metadata(&self.path) {
            Ok(file) if file.is_file() => Some(file.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(self.refused(receipt, fingerprint, viewer, error)),
            Ok(_) => {
                let error = io::Error::other("is not a regular file");
                return Err(self.refused(receipt, fingerprint, viewer, error));
            }
        };
        Ok(standing(receipt, fingerprint, size, viewer))
    }

    /// Fails if what stands at the path must not be replaced.
    pub(crate) fn check_standing(
        &self,
        receipt: &Receipt,
        fingerprint: &str,
        viewer: Viewer<'_>,
    ) -> Result<(), Error> {
        let text = match self.standing(receipt, fingerprint, viewer)? {
            Standing::Absent | Standing::Current(_) => return Ok(()),
            Standing::Another(_) if self.may_replace => return Ok(()),
            Standing::Another(what) => format!(
                "there is {what}, which begins with {}. Delete it, or call allow_replace(true), and \
                 this request's video takes its place. `resume ID FILE` saves a video elsewhere",
                self.beginning()
            ),
            Standing::Foreign => {
                "there is a file that its receipt does not explain: move it away, \
                or restore its receipt. Nothing replaces it"
                    .to_owned()
            }
        };
        Err(self.refused(receipt, fingerprint, viewer, io::Error::other(text)))
    }

    /// The first bytes of what stands at the path, for a person who has to know what it is.
    fn beginning(&self) -> String {
        let mut start = Vec::new();
        let file = File::open(&self.path);
        let _ = file.and_then(|file| file.take(12).read_to_end(&mut start));
        start.escape_ascii().to_string()
    }

    /// The error of a run that stops before it sends anything. It says whether the request is open.
    pub(crate) fn refused(
        &self,
        receipt: &Receipt,
        fingerprint: &str,
        viewer: Viewer<'_>,
        cause: io::Error,
    ) -> Error {
        let index = current(receipt, fingerprint, viewer);
        let attempt = index.map(|index| &receipt.attempts[index]);
        match attempt.filter(|attempt| attempt.entry().is_open()) {
            None => unsent(&self.path, None, cause),
            Some(Attempt {
                generation_id: Some(id),
                ..
            }) => unsent(&self.path, Some(id), cause),
            Some(_) => {
                let uncertain = Uncertain(cause.to_string());
                unsent(&self.path, None, io::Error::new(cause.kind(), uncertain))
            }
        }
    }
}

/// The error of a run that stops before it sends anything.
fn unsent(path: &Path, generation_id: Option<&str>, cause: io::Error) -> Error {
    let kind = cause.kind();
    let text = format!("{cause}; nothing was sent");
    let cause = match cause.get_ref() {
        Some(inner) if inner.is::<Uncertain>() => io::Error::new(kind, Uncertain(text)),
        _ => io::Error::new(kind, text),
    };
    Error::file(path, generation_id, cause)
}
