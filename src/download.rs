use std::{
    fmt,
    io::{self, Read, Seek, Write},
    mem,
    path::Path,
    time::Duration,
};

use crate::{
    Client, Error, Video,
    part_file::{Lock, PartFile},
    poll::sleep,
    transport::{BUFFER_SIZE, FileBody, FileError},
};

/// How many attempts in a row may fail without a byte.
const MAX_FAILURES: u32 = 5;
const MAX_DELAY: Duration = Duration::from_secs(60);
/// A server can keep a connection busy without an end: with trailers, or one byte at a time.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(3600);

impl Client {
    /// Opens a video for reading. The first read sends the first request.
    ///
    /// The API key is not sent to the file server.
    #[must_use]
    pub fn open_video(&self, video: &Video) -> VideoReader {
        VideoReader {
            client: self.clone(),
            video: video.clone(),
            is_renewed: false,
            total: None,
            validator: None,
            body: None,
            position: 0,
            high_water_mark: 0,
            failures: 0,
            has_restarted: false,
            connection_timeout: CONNECTION_TIMEOUT,
        }
    }

    /// Downloads a video to a file: the whole file is at `path` in the end, or nothing.
    ///
    /// Writes to `<path>.part`, syncs, and renames; `<path>.lock` keeps other processes and
    /// threads out meanwhile. Otherwise as [`VideoReader`], and starts over if the file changed on
    /// the server. `on_progress` gets the number of bytes written, and of all bytes, if known.
    ///
    /// # Errors
    /// [`Error::File`], with the path, the reason, and the generation's id.
    pub fn download_video(
        &self,
        video: &Video,
        path: impl AsRef<Path>,
        on_progress: impl FnMut(u64, Option<u64>),
    ) -> Result<(), Error> {
        let path = path.as_ref();
        let save = || {
            let lock = Lock::acquire(path, self.inner.settings.poll_timeout)?;
            let (part, _) = self.download_part(video, path, on_progress)?;
            lock.check()?;
            part.persist()
        };
        save().map_err(|cause| Error::File {
            path: path.to_owned(),
            generation_id: Some(video.generation_id.clone()),
            cause,
        })
    }

    /// Downloads a video to the part file of `path`. Returns its size, too.
    pub(crate) fn download_part(
        &self,
        video: &Video,
        path: &Path,
        mut on_progress: impl FnMut(u64, Option<u64>),
    ) -> io::Result<(PartFile, u64)> {
        let mut part = PartFile::create(path)?;
        let mut reader = self.open_video(video);
        let mut buffer = vec![0; BUFFER_SIZE];
        loop {
            let count = reader.read_some(&mut buffer)?;
            if mem::take(&mut reader.has_restarted) {
                part.file().set_len(0)?;
                part.file().rewind()?;
            }
            if count == 0 {
                return Ok((part, reader.position));
            }
            part.file().write_all(&buffer[..count])?;
            on_progress(reader.position, reader.expected_size());
        }
    }
}

/// Reads a video from its file server, and hides broken connections. From [`Client::open_video`].
///
/// Where a connection breaks or stalls for [`read_timeout`](crate::ClientBuilder::read_timeout),
/// it resumes on another; five failures in a row without a byte end it. A URL that has expired is
/// renewed once. It ends successfully only once the whole file was read: as many bytes as the file
/// server's size says, else as the API's `file_size` says, else to the end of a chunked response.
/// A file that changes on the server meanwhile is an error, and so is a broken connection to a
/// server that can't resume.
pub struct VideoReader {
    client: Client,
    video: Video,
    is_renewed: bool,
    /// The size and the validator that the file server gave.
    total: Option<u64>,
    validator: Option<String>,
    body: Option<Box<dyn Read + Send>>,
    position: u64,
    /// The most that was ever read: what counts as progress after starting over.
    high_water_mark: u64,
    /// How many attempts there were since the last progress.
    failures: u32,
    /// Whether the bytes before are of another file than the bytes to come.
    has_restarted: bool,
    connection_timeout: Duration,
}

impl VideoReader {
    /// Reads at least one byte, or to the end. Tries again where that may help.
    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let (reason, retry_after) = match self.try_read(buffer) {
                Ok(count) => return Ok(count),
                Err(FileError::Transient(reason, retry_after)) => (reason, retry_after),
                Err(FileError::Permanent(reason)) => return Err(io::Error::other(reason)),
                Err(FileError::Expired(_)) if !self.is_renewed => {
                    self.renew()?;
                    continue;
                }
                // The one kind that says so.
                Err(FileError::Expired(reason)) => {
                    return Err(io::Error::new(io::ErrorKind::NotFound, reason));
                }
            };
            if self.failures >= MAX_FAILURES {
                self.failures = 0;
                return Err(io::Error::other(format!(
                    "{MAX_FAILURES} attempts in a row failed, the last: {reason}"
                )));
            }
            let delay = self.client.inner.settings.retry_delay;
            let delay = delay.saturating_mul(1 << self.failures.saturating_sub(1));
            sleep(delay.max(retry_after.unwrap_or_default()).min(MAX_DELAY));
        }
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> Result<usize, FileError> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.connect()?,
        };
        let before = self.position;
        let count = body.read(buffer).map_err(|error| {
            transient(format!(
                "the connection broke after {before} bytes: {error}"
            ))
        })?;
        let position = before + count as u64;
        match self.expected_size() {
            Some(expected) if position > expected => {
                self.start_over();
                return Err(transient("the server sent more bytes than expected"));
            }
            Some(expected) if count == 0 && position < expected => {
                let reason = format!("only {position} of {expected} bytes came");
                return Err(transient(reason));
            }
            _ if position == 0 => return Err(transient("the server sent no bytes")),
            _ => {}
        }
        if position > self.high_water_mark {
            (self.high_water_mark, self.failures) = (position, 0);
        }
        (self.position, self.body) = (position, Some(body));
        Ok(count)
    }

    fn connect(&mut self) -> Result<Box<dyn Read + Send>, FileError> {
        self.failures += 1;
        let file = self.client.inner.transport.get_file(
            &self.video.url,
            self.position,
            self.validator.as_deref(),
            self.client.inner.settings.read_timeout,
            self.connection_timeout,
        )?;
        if file.start == 0 {
            self.start_over();
        } else if self.is_another(&file) {
            self.start_over();
            let reason = "the server sent another part than the one asked for";
            return Err(transient(reason));
        }
        self.total = self.total.or(file.total);
        self.validator = self.validator.take().or(file.validator);
        if self.expected_size().is_none() && !file.has_end {
            let reason = "the file server gives neither the size nor the end of the file";
            return Err(FileError::Permanent(reason.to_owned()));
        }
        Ok(file.reader)
    }

    fn start_over(&mut self) {
        self.has_restarted |= self.position > 0;
        (self.total, self.validator, self.position) = (None, None, 0);
    }

    fn expected_size(&self) -> Option<u64> {
        // No video is empty: a size of zero is none.
        self.total.or(self.video.file_size.filter(|size| *size > 0))
    }

    /// Whether this part is not what comes next in the file. It may leave out what the first
    /// response had (RFC 9110, 15.3.7): a date is not compared with an ETag.
    fn is_another(&self, part: &FileBody) -> bool {
        let is_etag = |validator: &str| validator.ends_with('"');
        let sizes = self.total.zip(part.total);
        let mut validators = self.validator.iter().zip(&part.validator);
        part.start != self.position
            || sizes.is_some_and(|(known, new)| known != new)
            || validators.any(|(known, new)| is_etag(known) == is_etag(new) && known != new)
    }

    fn renew(&mut self) -> io::Result<()> {
        let generation = self.client.get_video(&self.video.generation_id);
        let generation = generation.map_err(|error| {
            let cause = error.cause();
            io::Error::other(format!(
                "its URL has expired, and asking for another failed: {cause}"
            ))
        })?;
        let video = generation.video.ok_or_else(|| {
            let text = "its URL has expired, and the server has no other";
            io::Error::new(io::ErrorKind::NotFound, text)
        })?;
        (self.video.url, self.is_renewed, self.failures) = (video.url, true, 0);
        Ok(())
    }
}

fn transient(reason: impl Into<String>) -> FileError {
    FileError::Transient(reason.into(), None)
}

impl Read for VideoReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = match self.has_restarted {
            true => 0,
            false => self.read_some(buffer)?,
        };
        match self.has_restarted {
            // What was read can't be taken back: each further read fails, too.
            true => Err(io::Error::other(
                "the file changed on the server, or can't be resumed: open it again, or use \
                 download_video",
            )),
            false => Ok(count),
        }
    }
}

impl fmt::Debug for VideoReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VideoReader")
            .field("generation_id", &self.video.generation_id)
            .field("position", &self.position)
            .field("expected_size", &self.expected_size())
            .finish_non_exhaustive()
    }
}
