//! A file that is complete or absent, never half there: written under another name, synced,
//! renamed. And the lock that keeps others from doing the same at the same time.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

#[cfg(not(windows))]
use crate::unix as system;
#[cfg(windows)]
use crate::windows as system;
use crate::{
    error::{Error, show},
    poll::Shutdown,
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
        if system::is_at(&self.file, &self.path) {
            return Ok(());
        }
        let text = format!("{} was deleted by another program", show(&self.path));
        Err(io::Error::new(ErrorKind::NotFound, text))
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
        let file =
            system::create_new(&path, target).map_err(|error| failed("make", &path, error))?;
        Ok(PartFile {
            part: OwnedFile { file, path },
            target: target.to_owned(),
            folder,
        })
    }

    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.part.file
    }

    /// Writes the bytes to the disk: what has been persisted has to survive a power cut.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let part = &self.part;
        sync(Some(&part.file)).map_err(|error| failed("sync", &part.path, error))
    }

    /// Renames the file, which was synced, to `target`, and syncs the folder.
    pub(crate) fn persist(self) -> io::Result<()> {
        self.part.check()?;
        check_regular(&self.target)?;
        system::rename(&self.part.path, &self.target)?;
        let synced = sync(self.folder.as_ref());
        synced.map_err(|error| failed("sync the folder of", &self.target, error))
    }
}

/// Some file systems can't sync, and some folders can't be opened.
fn sync(file: Option<&File>) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, Unsupported};
    match file.map_or(Ok(()), File::sync_all) {
        Err(error) if matches!(error.kind(), InvalidInput | Unsupported) => Ok(()),
        synced => synced,
    }
}

/// What could not be done with which file.
fn failed(what: &str, path: &Path, error: io::Error) -> io::Error {
    let text = format!("can't {what} {} ({error})", show(path));
    io::Error::new(error.kind(), text)
}

fn not_regular(path: &Path) -> io::Error {
    io::Error::other(format!("{} is not a regular file", show(path)))
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
                return Err(in_file(io::Error::new(ErrorKind::WouldBlock, text)));
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
    let is_new = !check_regular(path)?;
    let opened = system::open_lock(path, is_new);
    let opened = opened.or_else(|error| match (error.kind(), is_new) {
        // Another process was faster: it made the file, or removed it.
        (ErrorKind::AlreadyExists, _) | (ErrorKind::NotFound, false) => Ok(None),
        _ => Err(failed("make the lock file", path, error)),
    });
    let Some(file) = opened? else {
        return Ok(None);
    };
    if !file.metadata()?.is_file() {
        return Err(not_regular(path));
    }
    // Its last holder may have removed it after it was opened here.
    Ok(system::is_at(&file, path).then_some(file))
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
        Ok(_) => Err(not_regular(path)),
        // What can't be looked at can't be made, either: that says why.
        Err(_) => Ok(false),
    }
}

/// Makes the folder of a file, and those above it, and syncs each into the one that it is in.
pub(crate) fn make_folder(file: &Path) -> io::Result<()> {
    let folder = folder_of(file);
    if folder.is_dir() {
        return Ok(());
    }
    make_folder(folder)?;
    match fs::create_dir(folder) {
        Ok(()) => sync(open_folder(folder)?.as_ref()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed("make the folder", folder, error)),
    }
}

fn folder_of(file: &Path) -> &Path {
    let folder = file.parent().filter(|folder| *folder != Path::new(""));
    folder.unwrap_or(Path::new("."))
}

/// The folder that a file is in.
fn open_folder(file: &Path) -> io::Result<Option<File>> {
    match File::open(folder_of(file)) {
        // Windows opens no folders; elsewhere, some can be written and not read.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(None),
        folder => folder.map(Some),
    }
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

    #[test]
    fn a_folder_may_be_made_by_several_at_once_and_not_below_a_file() {
        let folder = env::temp_dir().join(format!("aimlapi-video-folders-{}", process::id()));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..200 {
                        make_folder(&folder.join(format!("{number}/v.mp4"))).unwrap();
                    }
                });
            }
        });
        let file = folder.join("file");
        fs::write(&file, "").unwrap();
        let error = make_folder(&file.join("sub/v.mp4")).unwrap_err();
        assert!(
            error.to_string().starts_with("can't make the folder "),
            "{error}"
        );
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
                        let running = Shutdown::default();
                        let lock = match Lock::acquire(&path, Duration::ZERO, &running, None) {
                            Err(Error::File { cause, .. }) => {
                                assert_eq!(cause.kind(), ErrorKind::WouldBlock, "{cause}");
                                continue;
                            }
                            lock => lock.unwrap(),
                        };
                        assert!(!is_held.swap(true, Ordering::SeqCst), "held twice");
                        lock.check().unwrap();
                        is_held.store(false, Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
