use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

/// How many attempts in a row may fail without gaining a byte.
const MAX_FAILURES: u32 = 5;
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Over loopback, 64 KiB are about a tenth slower, and more than this gains nothing.
pub(crate) const BUFFER_SIZE: usize = 128 * 1024;

/// The bytes of a file from `start` to the end, as the server sends them.
pub(crate) struct Body {
    pub(crate) start: u64,
    /// The size of the whole file, if the server names it.
    pub(crate) total: Option<u64>,
    pub(crate) version: Version,
    /// Whether the protocol marks the end of the file: the end of a connection alone does not.
    pub(crate) framed: bool,
    pub(crate) reader: Box<dyn Read>,
}

/// What the server names this version of the file by.
#[derive(Default)]
pub(crate) struct Version {
    pub(crate) tag: Option<String>,
    pub(crate) date: Option<String>,
}

impl Version {
    /// The value for `If-Range`, which takes no weak tags (RFC 9110, 13.1.5).
    pub(crate) fn strong(&self) -> Option<&str> {
        self.tag.as_deref().filter(|tag| !tag.starts_with("W/")).or(self.date.as_deref())
    }

    /// A part may leave out what the first answer said (RFC 9110, 15.3.7), so only like is held against like.
    fn differs(&self, told: &Self) -> bool {
        match (&self.tag, &told.tag) {
            (Some(known), Some(told)) => known != told,
            _ => differ(&self.date, &told.date),
        }
    }
}

/// Why an attempt, or the whole download, came to nothing.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Another attempt may do better.
    Passing { reason: String, retry_after: Option<Duration> },
    /// The address is not, or no longer, good.
    Expired(String),
    /// No attempt will do better.
    Final(String),
    /// The caller wants no more.
    Stopped,
}

impl Fault {
    pub(crate) fn passing(reason: impl Into<String>) -> Self {
        Fault::Passing { reason: reason.into(), retry_after: None }
    }
}

/// A download under way: what is known of the file, and how much of it has come.
pub(crate) struct Download<'a> {
    sink: Sink<'a>,
    /// The size that the API announced.
    announced: Option<u64>,
    /// The size and the version that the file server named.
    total: Option<u64>,
    version: Version,
    done: u64,
    /// The most that was ever done: what counts as progress for a download that starts over.
    furthest: u64,
    boxes: Boxes,
}

impl<'a> Download<'a> {
    pub(crate) fn new(sink: Sink<'a>, announced: Option<u64>) -> Self {
        Download {
            sink,
            // No video is empty: a size of zero is one that is not known.
            announced: announced.filter(|size| *size > 0),
            total: None,
            version: Version::default(),
            done: 0,
            furthest: 0,
            boxes: Boxes::default(),
        }
    }

    /// Asks `fetch(offset, version)` for bytes until all are there, with a pause after each failure.
    pub(crate) fn run(
        &mut self,
        mut fetch: impl FnMut(u64, &Version) -> Result<Body, Fault>,
        mut progress: impl FnMut(u64, Option<u64>) -> ControlFlow<()>,
        pause: Duration,
        sleep: impl Fn(Duration),
    ) -> Result<(), Fault> {
        let mut failures = 0;
        loop {
            let furthest = self.furthest;
            let attempt = fetch(self.done, &self.version).and_then(|body| self.take(body, &mut progress));
            let Err(Fault::Passing { reason, retry_after }) = attempt else {
                return attempt;
            };
            failures = if self.furthest > furthest { 0 } else { failures + 1 };
            if failures == MAX_FAILURES {
                return Err(Fault::Final(format!("{failures} attempts in a row failed, the last: {reason}")));
            }
            let backoff = pause.saturating_mul(1 << failures.saturating_sub(1));
            sleep(backoff.max(retry_after.unwrap_or_default()).min(LONGEST_PAUSE));
        }
    }

    fn take(
        &mut self,
        mut body: Body,
        progress: &mut impl FnMut(u64, Option<u64>) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        if body.start == 0 {
            self.restart()?;
            (self.total, self.version) = (body.total, body.version);
        } else if body.start != self.done || differ(&self.total, &body.total) || self.version.differs(&body.version) {
            self.restart()?;
            return Err(Fault::passing("the server sent another part than the one asked for"));
        }
        self.total = self.total.or(body.total);
        let expected = self.total.or(self.announced);
        let before = self.done;
        let mut buffer = vec![0; BUFFER_SIZE];
        loop {
            let count = match body.reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => {
                    return Err(Fault::passing(format!("the connection broke after {} bytes: {error}", self.done)));
                }
            };
            let bytes = &buffer[..count];
            if self.done == 0 && is_text(&bytes[..count.min(64)]) {
                return Err(Fault::Final("the server sent a text (HTML, JSON) instead of the video".to_owned()));
            }
            if expected.is_some_and(|expected| self.done + count as u64 > expected) {
                self.restart()?;
                return Err(Fault::passing("the server sent more bytes than were announced"));
            }
            self.sink.write(bytes).map_err(cannot_write)?;
            self.boxes.feed(bytes);
            self.done += count as u64;
            self.furthest = self.furthest.max(self.done);
            if progress(self.done, expected).is_break() {
                return Err(Fault::Stopped);
            }
        }
        self.check_whole(expected, body.framed).inspect_err(|_| {
            // The server thinks that all was said, and nothing was gained: asking for the rest is no use.
            if self.done == before {
                let _ = self.restart();
            }
        })
    }

    fn check_whole(&self, expected: Option<u64>, framed: bool) -> Result<(), Fault> {
        let reason = match (expected, self.announced) {
            _ if self.done == 0 => "the server sent no bytes".to_owned(),
            (Some(expected), _) if self.done != expected => format!("only {} of {expected} bytes came", self.done),
            // A file that is whole by its own account is worth more than a wrong number in an answer.
            (Some(total), Some(announced)) if total != announced && !self.boxes.end_here() => {
                format!("the file server has {total} bytes, the API announced {announced}")
            }
            (None, _) if !self.boxes.end_here() && (!framed || self.boxes.can_tell()) => {
                format!("the {} bytes that came are not a whole MP4 file", self.done)
            }
            _ => return Ok(()),
        };
        Err(Fault::passing(reason))
    }

    fn restart(&mut self) -> Result<(), Fault> {
        if self.done > 0 {
            self.sink.restart().map_err(cannot_write)?;
        }
        (self.total, self.version, self.done, self.boxes) = (None, Version::default(), 0, Boxes::default());
        Ok(())
    }
}

fn differ<T: PartialEq>(known: &Option<T>, told: &Option<T>) -> bool {
    known.is_some() && told.is_some() && known != told
}

/// No video begins with letters alone, or with the mark of a Unicode text.
fn is_text(bytes: &[u8]) -> bool {
    bytes.starts_with("\u{feff}".as_bytes()) || bytes.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace())
}

fn cannot_write(error: io::Error) -> Fault {
    Fault::Final(format!("can't be written: {error}"))
}

/// Where the bytes go.
pub(crate) enum Sink<'a> {
    Part(&'a mut Part),
    Writer(&'a mut dyn Write),
}

impl Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Sink::Part(part) => part.file.write_all(bytes),
            Sink::Writer(writer) => writer.write_all(bytes),
        }
    }

    fn restart(&mut self) -> io::Result<()> {
        match self {
            Sink::Part(part) => part.file.set_len(0).and_then(|()| part.file.rewind()),
            Sink::Writer(_) => Err(io::Error::other("the server started over, and a writer can't: download to a file")),
        }
    }
}

/// The sibling of a file that takes its name once it is whole. Removed where that does not happen.
pub(crate) struct Part {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl Part {
    pub(crate) fn create(target: &Path) -> io::Result<Self> {
        if target.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory: name a file"));
        }
        let path = sibling(target, ".part")?;
        let file = open_locked(&path)?;
        file.set_len(0)?;
        Ok(Part { file, path, target: target.to_owned() })
    }

    pub(crate) fn finish(self) -> io::Result<()> {
        persist(&self.file, &self.path, &self.target)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The path of a file beside `target`, named like it with `suffix` appended.
pub(crate) fn sibling(target: &Path, suffix: &str) -> io::Result<PathBuf> {
    let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "is not the name of a file");
    let mut name = target.file_name().ok_or_else(no_name)?.to_owned();
    // `file_name` overlooks a slash at the end.
    if !target.as_os_str().as_encoded_bytes().ends_with(name.as_encoded_bytes()) {
        return Err(no_name());
    }
    name.push(suffix);
    Ok(target.with_file_name(name))
}

/// Opens `path`, made if need be, once no other process and no other thread has it open this way.
pub(crate) fn open_locked(path: &Path) -> io::Result<File> {
    loop {
        // A pipe would be waited at for ever, and a link may lead anywhere.
        if path.symlink_metadata().is_ok_and(|there| !there.is_file()) {
            return Err(io::Error::other(format!("{} is there, and is not a file", path.display())));
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        file.lock()?;
        if is_at(&file, path) {
            return Ok(file);
        }
    }
}

/// Whether `path` still names `file`, which whoever had the lock may have renamed or removed.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(theirs)) = (file.metadata(), path.metadata()) else {
        return false;
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
    }
    #[cfg(not(unix))]
    {
        ours.created().ok() == theirs.created().ok()
    }
}

/// Gives the synced `file` at `from` the name `to`, so that both survive a power cut.
pub(crate) fn persist(file: &File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(from, to)?;
    #[cfg(unix)]
    {
        use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
        match File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all()) {
            // Not every folder can be opened for reading, and not every file system syncs folders.
            Err(error) if !matches!(error.kind(), PermissionDenied | InvalidInput | Unsupported) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Follows the top-level boxes of an MP4 file (ISO/IEC 14496-12, 4.2): size and type, then contents.
#[derive(Default)]
struct Boxes {
    header: Vec<u8>,
    /// Bytes left of the box begun.
    left: u64,
    first: Option<[u8; 4]>,
    /// Whether the boxes came that no video lacks: its index, and its pictures.
    has_moov: bool,
    has_mdat: bool,
    /// A box of no stated size, or of an impossible one: no end can be told.
    endless: bool,
}

impl Boxes {
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.endless {
            if self.left > 0 {
                let skip = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.left -= skip as u64;
                bytes = &bytes[skip..];
                continue;
            }
            self.header.push(bytes[0]);
            bytes = &bytes[1..];
            let (size, length) = match self.header[..] {
                [0, 0, 0, 1, _, _, _, _, a, b, c, d, e, f, g, h] => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 16),
                [0, 0, 0, 1, ..] => continue,
                [a, b, c, d, _, _, _, _] => (u64::from(u32::from_be_bytes([a, b, c, d])), 8),
                _ => continue,
            };
            let kind = [4, 5, 6, 7].map(|at| self.header[at]);
            self.first.get_or_insert(kind);
            self.has_moov |= kind == *b"moov";
            self.has_mdat |= kind == *b"mdat";
            self.header.clear();
            match size.checked_sub(length) {
                Some(left) => self.left = left,
                None => self.endless = true,
            }
        }
    }

    fn is_mp4(&self) -> bool {
        self.first == Some(*b"ftyp")
    }

    /// Whether the boxes say where the file ends.
    fn can_tell(&self) -> bool {
        self.is_mp4() && !self.endless
    }

    fn end_here(&self) -> bool {
        self.can_tell() && self.has_moov && self.has_mdat && self.left == 0 && self.header.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn pauses(pause: u64, retry_after: Option<u64>) -> Vec<u64> {
        let slept = RefCell::new(Vec::new());
        let mut sink = io::sink();
        let ended = Download::new(Sink::Writer(&mut sink), None).run(
            |_, _| Err(Fault::Passing { reason: "busy".to_owned(), retry_after: retry_after.map(Duration::from_secs) }),
            |_, _| ControlFlow::Continue(()),
            Duration::from_secs(pause),
            |pause| slept.borrow_mut().push(pause.as_secs()),
        );
        assert!(matches!(ended, Err(Fault::Final(reason)) if reason == "5 attempts in a row failed, the last: busy"));
        slept.into_inner()
    }

    #[test]
    fn pauses_grow_and_respect_the_server_up_to_a_minute() {
        assert_eq!(pauses(1, None), [1, 2, 4, 8]);
        assert_eq!(pauses(1, Some(5)), [5, 5, 5, 8]);
        assert_eq!(pauses(1, Some(u64::MAX)), [60; 4]);
        assert_eq!(pauses(u64::MAX, None), [60; 4]);
        assert_eq!(pauses(0, None), [0; 4]);
    }
}

#[cfg(test)]
mod properties {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::Boxes;

    /// A box with a true or a false size, in 32 or 64 bits.
    fn any_box() -> impl Strategy<Value = Vec<u8>> {
        (select(vec![*b"ftyp", *b"moov", *b"mdat"]), any::<bool>(), select(vec![0, 0, 0, 0, 1, 7, -1, -9]), 0..20_usize)
            .prop_map(|(kind, long, lie, length)| {
                let head = if long { 16 } else { 8 };
                let size = (head + length as i64 + lie).max(0);
                let mut bytes = if long { vec![0, 0, 0, 1] } else { (size as u32).to_be_bytes().to_vec() };
                bytes.extend(kind);
                if long {
                    bytes.extend((size as u64).to_be_bytes());
                }
                bytes.resize(bytes.len() + length, 0xff);
                bytes
            })
    }

    /// Whether the boxes end where the bytes do, `None` if they do not say; all bytes at hand at once.
    fn ends(bytes: &[u8]) -> Option<bool> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some((head, _)) = rest.split_at_checked(8) else { return Some(false) };
            let (size, head) = match u32::from_be_bytes(head[..4].try_into().unwrap()) {
                1 => match rest.get(8..16) {
                    Some(size) => (u64::from_be_bytes(size.try_into().unwrap()), 16),
                    None => return Some(false),
                },
                size => (u64::from(size), 8),
            };
            if size < head {
                return None;
            }
            match usize::try_from(size).ok().and_then(|size| rest.split_at_checked(size)) {
                Some((_, after)) => rest = after,
                None => return Some(false),
            }
        }
        Some(true)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn boxes_end_in_the_same_place_however_they_arrive(
            boxes in vec(any_box(), 1..5), rest in vec(any::<u8>(), 0..20), pieces in vec(1..30_usize, 1..9),
        ) {
            let bytes = [boxes.concat(), rest].concat();
            let mut arrived = Boxes::default();
            let (mut left, mut pieces) = (&bytes[..], pieces.into_iter().cycle());
            while let Some(piece) = pieces.next().filter(|_| !left.is_empty()) {
                let (now, later) = left.split_at(piece.min(left.len()));
                arrived.feed(now);
                left = later;
            }
            let expected = if bytes[4..8] == *b"ftyp" { ends(&bytes) } else { None };
            let video = arrived.has_moov && arrived.has_mdat;
            prop_assert_eq!(arrived.end_here(), expected == Some(true) && video);
            // Less than one header tells nothing.
            prop_assert_eq!(arrived.can_tell(), expected.is_some() && (bytes[3] != 1 || bytes.len() >= 16));
            prop_assert!(arrived.header.capacity() <= 16);
        }
    }
}
