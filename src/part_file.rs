//! A file that is whole or not there: written under another name, synced, renamed. And the lock
//! that keeps others from doing the same at the same time.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::poll::sleep;

/// A new file beside `target`, which takes its name once it is whole. Removed otherwise.
pub(crate) struct PartFile {
    /// `None` once it is closed to be renamed.
    file: Option<File>,
    path: PathBuf,
    target: PathBuf,
}

impl PartFile {
    pub(crate) fn create(target: &Path) -> io::Result<Self> {
        check_regular(target)?;
        let path = sibling(target, ".part")?;
        // What a killed process left. Removing follows no link, and opens no pipe.
        if check_regular(&path)? {
            fs::remove_file(&path)?;
        }
        let file = os::options().write(true).create_new(true).open(&path)?;
        Ok(PartFile {
            file: Some(file),
            path,
            target: target.to_owned(),
        })
    }

    /// Empties the file, to write it from its start.
    pub(crate) fn restart(&mut self) -> io::Result<()> {
        let file = self.file()?;
        file.set_len(0)?;
        file.rewind()
    }

    /// Syncs the file, renames it to `target`, and syncs the folder: that survives a power cut.
    pub(crate) fn persist(mut self) -> io::Result<()> {
        // Opened first: if no file descriptor is left, nothing is renamed.
        let folder = os::open_folder(&self.target)?;
        self.file()?.sync_all()?;
        os::rename(&mut self.file, &self.path, &self.target)?;
        os::sync_folder(&folder)
    }

    fn file(&mut self) -> io::Result<&mut File> {
        self.file.as_mut().ok_or(io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        os::remove(self.file.take(), &self.path);
    }
}

/// Held by the one process and thread that works at a file. Leaves nothing behind.
pub(crate) struct Lock {
    file: Option<File>,
    path: PathBuf,
}

impl Lock {
    /// Waits for the lock of `target`, for at most `timeout`.
    pub(crate) fn acquire(target: &Path, timeout: Duration) -> io::Result<Self> {
        let path = sibling(target, ".lock")?;
        let start = Instant::now();
        loop {
            check_regular(&path)?;
            let file = os::try_lock(&path)?;
            // Its last holder may have removed it after it was opened here.
            if file.as_ref().is_some_and(|file| os::is_at(file, &path)) {
                return Ok(Lock { file, path });
            }
            if start.elapsed() >= timeout {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    format!(
                        "another process or thread holds its lock, {}",
                        path.display()
                    ),
                ));
            }
            sleep(Duration::from_millis(20).min(timeout));
        }
    }

    /// Fails if the lock file was deleted: then another process may work at the file, too.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self
            .file
            .as_ref()
            .is_some_and(|file| os::is_at(file, &self.path))
        {
            return Ok(());
        }
        let text = format!(
            "its lock, {}, was deleted by another program",
            self.path.display()
        );
        Err(io::Error::other(text))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        os::remove(self.file.take(), &self.path);
    }
}

/// The path of a file beside `target`, named like it with `suffix` appended.
pub(crate) fn sibling(target: &Path, suffix: &str) -> io::Result<PathBuf> {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    // `file_name` ignores a slash at the end.
    let path = target.as_os_str().as_encoded_bytes();
    if name.is_empty() || !path.ends_with(name.as_encoded_bytes()) {
        let text = "is not the name of a file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    name.push(suffix);
    Ok(target.with_file_name(name))
}

/// Whether there is a file at `path`. Anything else there is an error: a pipe would block, and a
/// link or a device leads elsewhere.
pub(crate) fn check_regular(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(_) => Err(io::Error::other(format!(
            "{} is not a regular file",
            path.display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the file at `path`, and syncs the folder.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let folder = os::open_folder(path)?;
    fs::remove_file(path)?;
    os::sync_folder(&folder)
}

#[cfg(not(windows))]
mod os {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    pub(super) fn options() -> OpenOptions {
        OpenOptions::new()
    }

    pub(super) fn try_lock(path: &Path) -> io::Result<Option<File>> {
        let mut options = options();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether `path` still names `file`: any program may rename or remove it.
    pub(super) fn is_at(file: &File, path: &Path) -> bool {
        let (Ok(ours), Ok(theirs)) = (file.metadata(), path.symlink_metadata()) else {
            return false;
        };
        (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
    }

    pub(super) fn rename(file: &mut Option<File>, from: &Path, to: &Path) -> io::Result<()> {
        if !file.as_ref().is_some_and(|file| is_at(file, from)) {
            let text = format!("{} was deleted by another program", from.display());
            return Err(io::Error::other(text));
        }
        fs::rename(from, to)
    }

    pub(super) fn remove(file: Option<File>, path: &Path) {
        if file.is_some_and(|file| is_at(&file, path)) {
            let _ = fs::remove_file(path);
        }
    }

    pub(super) fn open_folder(file: &Path) -> io::Result<Option<File>> {
        let folder = file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        match File::open(folder.unwrap_or(Path::new("."))) {
            Ok(folder) => Ok(Some(folder)),
            // Some folders can be written and not read.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn sync_folder(folder: &Option<File>) -> io::Result<()> {
        use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
        match folder.as_ref().map_or(Ok(()), File::sync_all) {
            // Some file systems don't sync folders.
            Err(error) if matches!(error.kind(), PermissionDenied | InvalidInput | Unsupported) => {
                Ok(())
            }
            synced => synced,
        }
    }
}

/// On Windows, nobody can rename or remove a file that is opened without `FILE_SHARE_DELETE`.
#[cfg(windows)]
mod os {
    use super::*;
    use std::os::windows::fs::OpenOptionsExt;

    const FILE_SHARE_READ: u32 = 1;
    const FILE_FLAG_DELETE_ON_CLOSE: u32 = 0x0400_0000;
    const ERROR_ACCESS_DENIED: i32 = 5;
    const ERROR_SHARING_VIOLATION: i32 = 32;

    pub(super) fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.share_mode(FILE_SHARE_READ);
        options
    }

    /// The system deletes the file with its handle, even of a process that is killed.
    pub(super) fn try_lock(path: &Path) -> io::Result<Option<File>> {
        let mut options = options();
        options.write(true).create(true).truncate(false);
        options
            .share_mode(0)
            .custom_flags(FILE_FLAG_DELETE_ON_CLOSE);
        match options.open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn is_at(_: &File, _: &Path) -> bool {
        true
    }

    /// Virus scanners and players open files for moments: tries again for a second.
    pub(super) fn rename(file: &mut Option<File>, from: &Path, to: &Path) -> io::Result<()> {
        *file = None;
        let start = Instant::now();
        loop {
            match fs::rename(from, to) {
                Err(error)
                    if start.elapsed() < Duration::from_secs(1)
                        && [Some(ERROR_ACCESS_DENIED), Some(ERROR_SHARING_VIOLATION)]
                            .contains(&error.raw_os_error()) => {}
                renamed => return renamed,
            }
            sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn remove(file: Option<File>, path: &Path) {
        drop(file);
        let _ = fs::remove_file(path);
    }

    pub(super) fn open_folder(_: &Path) -> io::Result<Option<File>> {
        Ok(None)
    }

    pub(super) fn sync_folder(_: &Option<File>) -> io::Result<()> {
        Ok(())
    }
}
