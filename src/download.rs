use std::{
    fmt,
    io::{self, Read, Seek, Write},
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
            generation_id: video.generation_id.clone(),
            url: video.url.clone(),
            // No video is empty: a size of zero is none.
            file_size: video.file_size.filter(|size| *size > 0),
            is_renewed: false,
            total: None,
            validator: None,
            has_end: false,
            body: None,
            position: 0,
            high_water_mark: 0,
            failures: 0,
            has_restarted: false,
            is_finished: false,
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
            match reader.next_bytes(&mut buffer)? {
                Next::Bytes(count) => part.file().write_all(&buffer[..count])?,
                Next::StartOver => {
                    part.file().set_len(0)?;
                    part.file().rewind()?;
                }
                Next::End => return Ok((part, reader.position)),
            }
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
/// A file that changes on the server meanwhile is an error.
pub struct VideoReader {
    client: Client,
    generation_id: String,
    url: String,
    is_renewed: bool,
    /// The size that the API gave.
    file_size: Option<u64>,
    /// The size and the validator that the file server gave.
    total: Option<u64>,
    validator: Option<String>,
    /// Whether the end of `body` is that of the file, even without a size.
    has_end: bool,
    body: Option<Box<dyn Read + Send>>,
    position: u64,
    /// The most that was ever read: what counts as progress after starting over.
    high_water_mark: u64,
    failures: u32,
    has_restarted: bool,
    is_finished: bool,
    connection_timeout: Duration,
}

enum Next {
    Bytes(usize),
    /// The bytes so far are of another file than the bytes to come.
    StartOver,
    End,
}

impl VideoReader {
    fn next_bytes(&mut self, buffer: &mut [u8]) -> io::Result<Next> {
        loop {
            if std::mem::take(&mut self.has_restarted) {
                return Ok(Next::StartOver);
            }
            if self.is_finished {
                return Ok(Next::End);
            }
            let next = match self.body.take() {
                None => self.connect().map(|()| None),
                Some(body) => self.read_body(body, buffer).map(Some),
            };
            match next {
                Ok(None) => {}
                Ok(Some(next)) => return Ok(next),
                Err(FileError::Expired(_)) if !self.is_renewed => self.renew()?,
                // The one kind that says so.
                Err(FileError::Expired(reason)) => {
                    return Err(io::Error::new(io::ErrorKind::NotFound, reason));
                }
                Err(FileError::Permanent(reason)) => return Err(io::Error::other(reason)),
                Err(FileError::Transient {
                    reason,
                    retry_after,
                }) => {
                    self.failures += 1;
                    if self.failures == MAX_FAILURES {
                        self.failures = 0;
                        return Err(io::Error::other(format!(
                            "{MAX_FAILURES} attempts in a row failed, the last: {reason}"
                        )));
                    }
                    let delay = self.client.inner.settings.retry_delay;
                    let delay = delay.saturating_mul(1 << (self.failures - 1));
                    sleep(delay.max(retry_after.unwrap_or_default()).min(MAX_DELAY));
                }
            }
        }
    }

    fn connect(&mut self) -> Result<(), FileError> {
        let FileBody {
            start,
            total,
            validator,
            has_end,
            reader,
        } = self.client.inner.transport.get_file(
            &self.url,
            self.position,
            self.validator.as_deref(),
            self.client.inner.settings.read_timeout,
            self.connection_timeout,
        )?;
        if start == 0 {
            self.start_over();
            (self.total, self.validator) = (total, validator);
        } else if start != self.position
            || self
                .total
                .zip(total)
                .is_some_and(|(known, new)| known != new)
            || self.is_another(validator.as_deref())
        {
            self.start_over();
            return Err(transient(
                "the server sent another part than the one asked for",
            ));
        }
        self.total = self.total.or(total);
        self.has_end = has_end;
        if self.expected_size().is_none() && !has_end {
            let reason = "the file server gives neither the size nor the end of the file";
            return Err(FileError::Permanent(reason.to_owned()));
        }
        self.body = Some(reader);
        Ok(())
    }

    fn read_body(
        &mut self,
        mut body: Box<dyn Read + Send>,
        buffer: &mut [u8],
    ) -> Result<Next, FileError> {
        let position = self.position;
        let count = body.read(buffer).map_err(|error| {
            transient(format!(
                "the connection broke after {position} bytes: {error}"
            ))
        })?;
        let expected = self.expected_size();
        if count == 0 {
            return match expected {
                _ if position == 0 => Err(transient("the server sent no bytes")),
                Some(expected) if position != expected => Err(transient(format!(
                    "only {position} of {expected} bytes came"
                ))),
                _ => {
                    self.is_finished = true;
                    Ok(Next::End)
                }
            };
        }
        if expected.is_some_and(|expected| position + count as u64 > expected) {
            self.start_over();
            return Err(transient("the server sent more bytes than expected"));
        }
        self.body = Some(body);
        self.position += count as u64;
        if self.position > self.high_water_mark {
            (self.high_water_mark, self.failures) = (self.position, 0);
        }
        Ok(Next::Bytes(count))
    }

    fn start_over(&mut self) {
        self.has_restarted |= self.position > 0;
        (self.total, self.validator, self.position) = (None, None, 0);
    }

    fn expected_size(&self) -> Option<u64> {
        self.total.or(self.file_size)
    }

    /// Whether this validator of a part is that of another file. A part may leave out what the
    /// first response had (RFC 9110, 15.3.7): a date is not compared with an ETag.
    fn is_another(&self, validator: Option<&str>) -> bool {
        let is_etag = |validator: &str| validator.ends_with('"');
        match (self.validator.as_deref(), validator) {
            (Some(known), Some(new)) => is_etag(known) == is_etag(new) && known != new,
            _ => false,
        }
    }

    fn renew(&mut self) -> io::Result<()> {
        let generation = self.client.get_video(&self.generation_id);
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
        (self.url, self.is_renewed) = (video.url, true);
        Ok(())
    }
}

fn transient(reason: impl Into<String>) -> FileError {
    FileError::Transient {
        reason: reason.into(),
        retry_after: None,
    }
}

impl Read for VideoReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        match self.next_bytes(buffer)? {
            Next::Bytes(count) => Ok(count),
            Next::End => Ok(0),
            Next::StartOver => {
                // What was read can't be taken back: each further read fails, too.
                self.has_restarted = true;
                Err(io::Error::other(
                    "the file changed on the server: open it again, or use download_video",
                ))
            }
        }
    }
}

impl fmt::Debug for VideoReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VideoReader")
            .field("generation_id", &self.generation_id)
            .field("position", &self.position)
            .field("expected_size", &self.expected_size())
            .finish_non_exhaustive()
    }
}
