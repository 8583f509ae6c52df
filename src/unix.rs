//! What part files and locks need of Unix.

pub(crate) use std::fs::rename;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Opens the lock file, and locks it. `None` while another process or thread holds it.
pub(crate) fn open_lock(path: &Path, is_new: bool) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(is_new).mode(0o600);
    let file = options.open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            let _ = fs::remove_file(path);
            let advice = "use a folder on a local disk";
            let text = format!("this file system can't lock files ({error}): {advice}");
            Err(io::Error::new(error.kind(), text))
        }
    }
}

/// Makes the file at `path`. If others can't read the one at `target`, they can't read this one.
pub(crate) fn create_new(path: &Path, target: &Path) -> io::Result<File> {
    let old = target.symlink_metadata();
    let mode = old.map_or(0o666, |old| old.mode() & 0o666);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode).open(path)
}

/// Whether `path` still names `file`.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(theirs)) = (file.metadata(), path.symlink_metadata()) else {
        return false;
    };
    (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
}
