//! The file of a request: its receipt, what stands at its path, and whether that may be replaced.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, uncertain},
    part_file::sibling,
    receipt::{Attempt, Receipt},
    request::VideoRequest,
    standing::{Standing, Viewer, standing},
};

const FOREIGN: &str = "there is a file that its receipt does not explain: move it away, or restore \
    its receipt. Nothing replaces it";

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
        let receipt = Receipt::read(&path).map_err(in_file)?;
        Ok(receipt.unwrap_or_else(Receipt::empty))
    }

    /// What stands at the path, which may be a link to it.
    pub(crate) fn look(&self, receipt: &Receipt, viewer: &Viewer) -> io::Result<Standing> {
        let size = match fs::metadata(&self.path) {
            Ok(file) if file.is_file() => Some(file.len()),
            Ok(_) => return Err(io::Error::other("is not a regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let start = self.start();
        Ok(standing(receipt, size.map(|size| (size, &*start)), viewer))
    }

    /// Fails if what stands at the path must not be replaced.
    pub(crate) fn check_standing(&self, receipt: &Receipt, viewer: &Viewer) -> io::Result<()> {
        let text = match self.look(receipt, viewer)? {
            Standing::Absent | Standing::Current(_) => return Ok(()),
            Standing::Another(_) if self.may_replace => return Ok(()),
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
        let mut start = Vec::new();
        let _ = File::open(&self.path).and_then(|file| file.take(12).read_to_end(&mut start));
        start
    }
}

/// The error of a run that stops before it sends anything.
pub(crate) fn unsent(path: &Path, attempt: Option<&Attempt>, cause: io::Error) -> Error {
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
