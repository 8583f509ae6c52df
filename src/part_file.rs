//! A file that is whole or not there: written under another name, synced, renamed. And the lock
//! that keeps others from doing the same at the same time.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::poll::sleep;

/// A file that is removed when it is dropped, unless another program did that already.
struct OwnedFile {
    file: File,
    path: PathBuf,
}

impl OwnedFile {
    /// Fails if the path does not name the file anymore: what is there is somebody else's.
    fn check(&self) -> io::Result<()> {
        if is_at(&self.file, &self.path) {
            return Ok(());
        }
        let text = format!("{} was deleted by another program", self.path.display());
        Err(io::Error::other(text))
    }
}

impl Drop for OwnedFile {
    fn drop(&mut self) {
        if self.check().is_ok() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A new file beside `target`, which takes its name once it is whole, and is removed otherwise.
pub(crate) struct PartFile {
    part: OwnedFile,
    target: PathBuf,
}

impl PartFile {
    pub(crate) fn create(target: &Path) -> io::Result<Self> {
        check_regular(target)?;
        let path = sibling(target, ".part")?;
        // What a killed process left. Removing it follows no link and opens no pipe.
        if check_regular(&path)? {
            fs::remove_file(&path)?;
        }
        let file = File::create_new(&path)?;
        let target = target.to_owned();
        Ok(PartFile {
            part: OwnedFile { file, path },
            target,
        })
    }

    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.part.file
    }

    /// Syncs the file, renames it to `target`, and syncs the folder: that survives a power cut.
    pub(crate) fn persist(self) -> io::Result<()> {
        // Opened first: if no file descriptor is left, nothing is renamed.
        let folder = open_folder(&self.target)?;
        self.part.file.sync_all()?;
        self.part.check()?;
        rename(&self.part.path, &self.target)?;
        match folder.map_or(Ok(()), |folder| folder.sync_all()) {
            // Some file systems don't sync folders.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            synced => synced,
        }
    }
}

/// Held by the one process and thread that works at a file. Leaves nothing behind.
pub(crate) struct Lock(OwnedFile);

impl Lock {
    /// Waits for the lock of `target`, for at most `timeout`.
    pub(crate) fn acquire(target: &Path, timeout: Duration) -> io::Result<Self> {
        let path = sibling(target, ".lock")?;
        let start = Instant::now();
        loop {
            check_regular(&path)?;
            if let Some(file) = try_lock(&path)?
                // Its last holder may have removed it after it was opened here.
                && is_at(&file, &path)
            {
                return Ok(Lock(OwnedFile { file, path }));
            }
            if start.elapsed() >= timeout {
                let text = format!(
                    "another process or thread holds its lock, {}",
                    path.display()
                );
                return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
            }
            sleep(Duration::from_millis(20).min(timeout));
        }
    }

    /// Fails if the lock file was deleted: then another process may work at the file, too.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.0.check()
    }
}

/// The path of a file beside `target`, named like it with `suffix` appended.
pub(crate) fn sibling(target: &Path, suffix: &str) -> io::Result<PathBuf> {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    // `file_name` ignores a slash at the end.
    let path = target.as_os_str().as_encoded_bytes();
    if name.is_empty() || !path.ends_with(name.as_encoded_bytes()) {
        return Err(io::Error::other("is not the name of a file"));
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

fn open_folder(file: &Path) -> io::Result<Option<File>> {
    let folder = file.parent().filter(|folder| *folder != Path::new(""));
    match File::open(folder.unwrap_or(Path::new("."))) {
        Ok(folder) => Ok(Some(folder)),
        // Windows opens no folders; elsewhere, some can be written and not read.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error),
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    // Windows renames over no open file, and virus scanners open files for moments.
    const IS_BUSY: [Option<i32>; 2] = [Some(5), Some(32)];
    let start = Instant::now();
    loop {
        match fs::rename(from, to) {
            Err(error)
                if cfg!(windows)
                    && IS_BUSY.contains(&error.raw_os_error())
                    && start.elapsed() < Duration::from_secs(1) =>
            {
                sleep(Duration::from_millis(20));
            }
            renamed => return renamed,
        }
    }
}

#[cfg(not(windows))]
fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
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

/// Opens the file for this handle alone. Windows removes it with the handle, even that of a
/// process that is killed, and no other process can.
#[cfg(windows)]
fn try_lock(path: &Path) -> io::Result<Option<File>> {
    use std::os::windows::fs::OpenOptionsExt;
    const FILE_FLAG_DELETE_ON_CLOSE: u32 = 0x0400_0000;
    const ERROR_SHARING_VIOLATION: i32 = 32;
    let mut options = OpenOptions::new();
    options
        .share_mode(0)
        .custom_flags(FILE_FLAG_DELETE_ON_CLOSE);
    match options.write(true).create(true).truncate(false).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `path` still names `file`.
#[cfg(not(windows))]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(ours), Ok(theirs)) = (file.metadata(), path.symlink_metadata()) else {
        return false;
    };
    (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
}

/// Windows can't tell, and needs not: no other process gets the lock, and makes these files.
#[cfg(windows)]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    #[test]
    fn a_part_file_of_another_process_is_neither_renamed_nor_removed() {
        use std::{env, fs, process};

        let folder = env::temp_dir().join(format!("aimlapi-video-part-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (target, path) = (folder.join("v.mp4"), folder.join("v.mp4.part"));
        let part = super::PartFile::create(&target).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "half of another's").unwrap();
        let error = part.persist().unwrap_err().to_string();
        assert_eq!(
            error,
            format!("{} was deleted by another program", path.display())
        );
        assert!(!target.exists() && path.exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
