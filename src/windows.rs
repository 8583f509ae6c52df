//! What part files and locks need of Windows.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::windows::fs::OpenOptionsExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

const FILE_FLAG_DELETE_ON_CLOSE: u32 = 0x0400_0000;
const ERROR_ACCESS_DENIED: i32 = 5;
const ERROR_SHARING_VIOLATION: i32 = 32;

/// Opens the file for this handle alone. `None` while another process or thread holds it. Windows
/// removes it with the handle, even that of a process that is killed, and no other process can.
pub(crate) fn open_lock(path: &Path, _is_new: bool) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
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

pub(crate) fn create_new(path: &Path, _target: &Path) -> io::Result<File> {
    File::create_new(path)
}

/// Windows can't tell, and needs not: no other process gets the lock, and makes these files.
pub(crate) fn is_at(_: &File, _: &Path) -> bool {
    true
}

/// Windows renames over no open file, and virus scanners open files for moments.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    const BUSY: [Option<i32>; 2] = [Some(ERROR_ACCESS_DENIED), Some(ERROR_SHARING_VIOLATION)];
    let start = Instant::now();
    loop {
        let renamed = fs::rename(from, to);
        let code = renamed.as_ref().err().and_then(io::Error::raw_os_error);
        if !BUSY.contains(&code) || start.elapsed() >= Duration::from_secs(1) {
            return renamed;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
