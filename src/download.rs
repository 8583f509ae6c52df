use std::{
    fmt,
    io::{self, Read, Seek, Write},
    mem,
    path::Path,
    time::Duration,
};

use crate::{
    Client, Error, Video,
    error::file_error,
    part_file::{Lock, PartFile},
    poll::sleep,
    transport::{ANOTHER_PART, BUFFER_SIZE, FileBody, FileError},
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
        save().map_err(|cause| file_error(path, Some(&video.generation_id), cause))
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
            let reason = match self.try_read(buffer) {
                Ok(count) => return Ok(count),
                Err(FileError::Transient(reason)) => reason,
                Err(FileError::StartOver(reason)) => {
                    self.start_over();
                    reason.to_owned()
                }
                Err(FileError::Permanent(reason)) => return Err(io::Error::other(reason)),
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
            sleep(delay.min(MAX_DELAY));
        }
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> Result<usize, FileError> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.connect()?,
        };
        let before = self.position;
        let count = match body.read(buffer) {
            Ok(count) => count,
            // All bytes came: what broke, or had no end, is the framing around them.
            Err(_) if before > 0 && self.expected_size() == Some(before) => 0,
            Err(error) => {
                let reason = format!("the connection broke after {before} bytes: {error}");
                return Err(transient(reason));
            }
        };
        let position = before + count as u64;
        match self.expected_size() {
            Some(expected) if position > expected => {
                return Err(FileError::StartOver(
                    "the server sent more bytes than expected",
                ));
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
        let mut file = self.request();
        if matches!(file, Err(FileError::Expired(_))) && !self.is_renewed {
            self.renew()?;
            file = self.request();
        }
        let file = file?;
        if file.start == 0 {
            self.start_over();
        } else if self.is_another(&file) {
            return Err(FileError::StartOver(ANOTHER_PART));
        }
        self.total = self.total.or(file.total);
        self.validator = self.validator.take().or(file.validator);
        if self.expected_size().is_none() && !file.has_end {
            let reason = "the file server gives neither the size nor the end of the file";
            return Err(FileError::Permanent(reason.to_owned()));
        }
        Ok(file.reader)
    }

    fn request(&self) -> Result<FileBody, FileError> {
        self.client.inner.transport.get_file(
            &self.video.url,
            self.position,
            self.validator.as_deref(),
            self.client.inner.settings.read_timeout,
            self.connection_timeout,
        )
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
        sizes.is_some_and(|(known, new)| known != new)
            || validators.any(|(known, new)| is_etag(known) == is_etag(new) && known != new)
    }

    fn renew(&mut self) -> Result<(), FileError> {
        let generation = self.client.get_video(&self.video.generation_id);
        let generation = generation.map_err(|error| {
            let cause = error.cause();
            let reason = format!("its URL has expired, and asking for another failed: {cause}");
            match error.is_transient() {
                true => FileError::Transient(reason),
                false => FileError::Permanent(reason),
            }
        })?;
        let reason = "its URL has expired, and the server has no other";
        let video = generation.video;
        let video = video.ok_or_else(|| FileError::Expired(reason.to_owned()))?;
        (self.video.url, self.is_renewed) = (video.url, true);
        Ok(())
    }
}

fn transient(reason: impl Into<String>) -> FileError {
    FileError::Transient(reason.into())
}

impl Read for VideoReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if !self.has_restarted {
            let count = self.read_some(buffer)?;
            if !self.has_restarted {
                return Ok(count);
            }
        }
        // What was read can't be taken back: each further read fails, too.
        let text = "the file changed on the server, or can't be resumed: open it again, or use \
                    download_video";
        Err(io::Error::other(text))
    }
}

impl fmt::Debug for VideoReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("VideoReader");
        debug.field("generation_id", &self.video.generation_id);
        debug
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        net::TcpListener,
        sync::{
            Mutex,
            atomic::{AtomicBool, Ordering},
        },
        thread,
    };

    use serde_json::json;

    use super::*;
    use crate::Generation;

    /// The head and the first bytes of a response whose body has no end yet.
    const WHOLE: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n";

    /// Reads a file over connections that end after 100 ms. Its server sends [`WHOLE`], or `later`
    /// to a request for a range, and then `drip` each millisecond until the client is gone. Returns
    /// what was read, and the `Range` headers.
    fn read(drip: &str, later: Option<&str>) -> (Result<String, String>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v.mp4", listener.local_addr().unwrap());
        let client = Client::builder("key").retry_delay(Duration::ZERO).build();
        let json = json!({"id": "gen:1", "status": "completed", "video": {"url": url}});
        let video = Generation::new(json, None, &|_| None).unwrap().video;
        let mut reader = client.unwrap().open_video(&video.unwrap());
        assert_eq!(reader.connection_timeout, Duration::from_secs(3600));
        reader.connection_timeout = Duration::from_millis(100);
        let (ranges, is_done) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let serve = |mut stream: std::net::TcpStream| {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let lines = lines.map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let range = head.into_iter().find(|line| line.starts_with("range: "));
            let response = later.filter(|_| range.is_some());
            ranges.lock().unwrap().extend(range);
            let mut sent = stream.write_all(response.unwrap_or(WHOLE).as_bytes());
            while sent.is_ok() {
                thread::sleep(Duration::from_millis(1));
                sent = stream.write_all(drip.as_bytes());
            }
        };
        let mut text = String::new();
        let result = thread::scope(|scope| {
            scope.spawn(|| {
                for stream in listener.incoming() {
                    if is_done.load(Ordering::SeqCst) {
                        return;
                    }
                    scope.spawn(|| serve(stream.unwrap()));
                }
            });
            let result = reader.read_to_string(&mut text);
            is_done.store(true, Ordering::SeqCst);
            drop(reader);
            let _ = std::net::TcpStream::connect(listener.local_addr().unwrap());
            result
        });
        let result = result.map(|_| text).map_err(|error| error.to_string());
        (result, ranges.into_inner().unwrap())
    }

    #[test]
    fn no_connection_stays_open_forever() {
        const AT_END: &str = "HTTP/1.1 416 No\r\ncontent-range: bytes */5\r\n\r\n";
        const REST: &str = "HTTP/1.1 206 Part\r\ncontent-range: bytes 5-8/9\r\n\
                            content-length: 4\r\n\r\nness";
        const NOTHING: &str = "HTTP/1.1 206 Part\r\ncontent-range: bytes 5-8/9\r\n\
                               transfer-encoding: chunked\r\n\r\n";
        const LIMIT: &str = "5 attempts in a row failed, the last: the connection broke after 5 \
                             bytes: timeout: global";
        const OVER: &str = "the file changed on the server, or can't be resumed: open it again, \
                            or use download_video";
        let cases = [
            ("trailers", "0\r\nx: y\r\n", Some(AT_END), Ok("whole")),
            ("the size of a chunk", "0", Some(AT_END), Ok("whole")),
            ("the size of a chunk", "0", Some(REST), Ok("wholeness")),
            ("always", "0", Some(NOTHING), Err(LIMIT)),
            ("without ranges", "0", None, Err(OVER)),
        ];
        for (case, drip, later, text) in cases {
            let (read, ranges) = read(drip, later);
            let read = read.as_deref().map_err(String::as_str);
            assert_eq!(read, text, "{case}");
            // A busy computer may take more than 100 ms for a good response, too.
            assert!(ranges.iter().all(|range| range == "range: bytes=5-"));
            assert!(!ranges.is_empty(), "{case}");
        }
    }

    /// Between the two, another process could take the lock.
    #[test]
    fn a_lock_is_deleted_before_it_is_released() {
        let path = std::env::temp_dir().join(format!("aimlapi-video-{}", std::process::id()));
        let is_held = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5000 {
                        if let Ok(lock) = Lock::acquire(&path, Duration::ZERO) {
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
