//! A file that is complete or absent, never half there: written under another name, synced,
//! renamed. And the lock that keeps others from doing the same at the same time.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    error::{Error, show},
    poll::{Shutdown, sleep},
};

const MOMENT: Duration = Duration::from_millis(20);

/// A file that is removed when it is dropped, unless another program did that already.
struct OwnedFile {
    file: File,
    path: PathBuf,
}

impl OwnedFile {
    /// Fails if the path does not name the file anymore: what is there is another program's.
    fn check(&self) -> io::Result<()> {
        match is_at(&self.file, &self.path) {
            true => Ok(()),
            false => {
                let text = format!("{} was deleted by another program", show(&self.path));
                Err(io::Error::new(io::ErrorKind::NotFound, text))
            }
        }
    }
}

impl Drop for OwnedFile {
    fn drop(&mut self) {
        if self.check().is_ok() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A new file beside `target`, which takes its name once it is complete, and is removed otherwise.
pub(crate) struct PartFile {
    part: OwnedFile,
    target: PathBuf,
    folder: Option<File>,
}

impl PartFile {
    pub(crate) fn create(target: &Path) -> io::Result<Self> {
        check_regular(target)?;
        let path = sibling(target, ".part")?;
        // Opened first: if no file descriptor is left, nothing is written.
        let folder = open_folder(target)?;
        // What a killed process left. Removing it follows no link and opens no pipe.
        if check_regular(&path)? {
            fs::remove_file(&path).map_err(|error| failed("remove", &path, error))?;
        }
        let file = File::create_new(&path).map_err(|error| failed("make", &path, error))?;
        let part = OwnedFile { file, path };
        keep_mode(target, &part.file)?;
        Ok(PartFile {
            part,
            target: target.to_owned(),
            folder,
        })
    }

    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.part.file
    }

    /// Writes the bytes to the disk: what has been persisted has to survive a power cut.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let path = &self.part.path;
        synced(self.part.file.sync_all()).map_err(|error| failed("sync", path, error))
    }

    /// Renames the file, which was synced, to `target`, and syncs the folder.
    pub(crate) fn persist(self) -> io::Result<()> {
        self.part.check()?;
        check_regular(&self.target)?;
        rename(&self.part.path, &self.target)?;
        let folder = self.folder.as_ref().map_or(Ok(()), File::sync_all);
        synced(folder).map_err(|error| failed("sync the folder of", &self.target, error))
    }
}

/// Some file systems can't sync.
fn synced(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// What could not be done with which file.
fn failed(what: &str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("can't {what} {} ({error})", show(path)),
    )
}

fn in_the_way(path: &Path, what: &str) -> io::Error {
    io::Error::other(format!("{} {what}", show(path)))
}

/// Held by the one process and thread that works at a file. Leaves nothing behind.
pub(crate) struct Lock(OwnedFile);

impl Lock {
    /// Waits for the lock of `target`, for at most `timeout`. An error names the generation.
    pub(crate) fn acquire(
        target: &Path,
        timeout: Duration,
        shutdown: &Shutdown,
        generation_id: Option<&str>,
    ) -> Result<Self, Error> {
        let in_file = |error| Error::file(target, generation_id, error);
        let path = sibling(target, ".lock").map_err(in_file)?;
        let start = Instant::now();
        loop {
            if let Some(file) = try_lock(&path).map_err(in_file)? {
                return Ok(Lock(OwnedFile { file, path }));
            }
            if start.elapsed() >= timeout {
                let text = format!("another process or thread holds its lock, {}", show(&path));
                return Err(in_file(io::Error::new(io::ErrorKind::WouldBlock, text)));
            }
            shutdown.pause(MOMENT.min(timeout), generation_id)?;
        }
    }

    /// Fails if the lock file was deleted: then another process may work at the file, too.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.0.check()
    }
}

/// The lock file, if it could be locked. It is made here, or is a regular file that was there: a
/// link or a pipe that another user put there is neither followed nor opened.
fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let opened = match check_regular(path)? {
        true => open_lock(path, false),
        false => open_lock(path, true),
    };
    let file = match opened {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(None),
        // Another process was faster.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
            ) && path
                .parent()
                .is_none_or(|folder| folder == Path::new("") || folder.exists()) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(failed("make the lock file", path, error)),
    };
    if !file.metadata()?.is_file() {
        return Err(in_the_way(path, "is not a regular file"));
    }
    // Its last holder may have removed it after it was opened here.
    Ok(is_at(&file, path).then_some(file))
}

/// The path of a file beside `target`, named like it with `suffix` appended.
pub(crate) fn sibling(target: &Path, suffix: &str) -> io::Result<PathBuf> {
    let mut name: OsString = target.file_name().unwrap_or_default().to_owned();
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
        Ok(_) => Err(in_the_way(path, "is not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the folder of a file, and those above it, and syncs each into the one that it is in.
pub(crate) fn make_folder(file: &Path) -> io::Result<()> {
    let Some(folder) = file.parent().filter(|folder| *folder != Path::new("")) else {
        return Ok(());
    };
    if folder.is_dir() {
        return Ok(());
    }
    make_folder(folder)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed("make the folder", folder, error)),
        Ok(()) => match open_folder(folder)? {
            Some(parent) => synced(parent.sync_all()),
            None => Ok(()),
        },
    }
}

/// The folder that a file is in.
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
                sleep(MOMENT);
            }
            renamed => return renamed,
        }
    }
}

/// Opens the lock file, and locks it. `None` while another process or thread holds it.
#[cfg(not(windows))]
fn open_lock(path: &Path, is_new: bool) -> io::Result<Option<File>> {
    use std::os::unix::fs::OpenOptionsExt;
    // O_NONBLOCK: a pipe that was put there after the check must not block.
    let mut options = OpenOptions::new();
    options.write(true).create_new(is_new).mode(0o600);
    let file = options.open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => {
            drop(OwnedFile {
                file,
                path: path.to_owned(),
            });
            let text = format!(
                "this file system can't lock files ({error}): use a folder on a local disk"
            );
            Err(io::Error::new(error.kind(), text))
        }
    }
}

/// Opens the file for this handle alone. Windows removes it with the handle, even that of a
/// process that is killed, and no other process can.
#[cfg(windows)]
fn open_lock(path: &Path, _is_new: bool) -> io::Result<Option<File>> {
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

/// A file that others can't read stays so: the new one takes over what its mode forbids.
#[cfg(not(windows))]
fn keep_mode(target: &Path, part: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let Ok(old) = target.symlink_metadata() else {
        return Ok(());
    };
    let new = part.metadata()?.permissions().mode();
    let narrow = new & old.permissions().mode();
    match narrow == new {
        true => Ok(()),
        false => part.set_permissions(fs::Permissions::from_mode(narrow)),
    }
}

#[cfg(windows)]
fn keep_mode(_target: &Path, _part: &File) -> io::Result<()> {
    Ok(())
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
    use std::{
        env, process,
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_part_file_of_another_process_is_neither_renamed_nor_removed() {
        let folder = env::temp_dir().join(format!("aimlapi-video-part-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (target, path) = (folder.join("v.mp4"), folder.join("v.mp4.part"));
        let part = PartFile::create(&target).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "half of another's").unwrap();
        let error = part.persist().unwrap_err().to_string();
        let text = format!("{} was deleted by another program", path.display());
        assert_eq!(error, text);
        assert!(!target.exists() && path.exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    /// Between the two, another process could take the lock.
    #[test]
    fn a_lock_is_deleted_before_it_is_released() {
        let path = env::temp_dir().join(format!("aimlapi-video-{}", process::id()));
        let is_held = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5000 {
                        if let Ok(lock) =
                            Lock::acquire(&path, Duration::ZERO, &Shutdown::default(), None)
                        {
                            assert!(!is_held.swap(true, Ordering::SeqCst), "held twice");
                            lock.check().unwrap();
                            is_held.store(false, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
    }
}
