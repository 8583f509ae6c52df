//! A video as a reader that hides broken connections.

use std::{
    fmt,
    io::{self, Read},
    time::Duration,
};

use crate::{
    client::Client,
    error::Error,
    generation::Video,
    http::file::{End, FileBody, FileError, Known, Verdict, judge, place, too_large, transient},
    reply::Excerpt,
};

/// How many attempts in a row may fail without a byte.
const MAX_FAILURES: u32 = 5;
const MAX_RESTARTS: u32 = 20;
const MAX_DELAY: Duration = Duration::from_secs(60);

impl Client {
    /// Opens a video for reading. The first read sends the first request.
    ///
    /// The API key is not sent to the file server.
    #[must_use]
    pub fn open_video(&self, video: &Video) -> VideoReader {
        // No video is empty: a size of zero is none.
        let file_size = video.file_size.filter(|size| *size > 0);
        VideoReader {
            client: self.clone(),
            video: video.clone(),
            known: Known {
                file_size,
                ..Known::default()
            },
            body: None,
            start: Vec::new(),
            start_given: 0,
            verdict: Verdict::NeedsMore,
            is_ended: false,
            is_expired: false,
            chunked_size: None,
            high_water_mark: 0,
            failures: 0,
            restarts: 0,
            has_restarted: false,
        }
    }
}

/// Reads a video from its file server, and hides broken connections. From [`Client::open_video`].
///
/// Where a connection breaks or stalls for [`read_timeout`](crate::ClientBuilder::read_timeout),
/// it resumes on another; five failures in a row without a byte end it. A URL that is not, or no
/// longer, served is replaced by a fresh one. It gives no byte before it has seen that the first
/// ones are not something else than a video, and ends successfully only once the whole file was
/// read: as many bytes as the file server's size says, else to the end of a chunked response, else
/// as many as the API's `file_size` says. A file that changes on the server meanwhile is an error,
/// and so is a broken connection to a server that can't resume.
///
/// Its errors are [`io::Error`]s that hold an [`Error`]: `error.get_ref()` gives it.
pub struct VideoReader {
    client: Client,
    video: Video,
    pub(crate) known: Known,
    body: Option<(FileBody, End)>,
    /// The first bytes, from which the verdict comes, and how many of them were given out.
    start: Vec<u8>,
    start_given: usize,
    verdict: Verdict,
    is_ended: bool,
    /// Whether the URL has to be replaced before the next request.
    is_expired: bool,
    /// The size of a chunked file that was read to its end, and is read once more.
    chunked_size: Option<u64>,
    /// The most that was ever read: what counts as progress after starting over.
    high_water_mark: u64,
    /// How many attempts there were since the last progress.
    failures: u32,
    restarts: u32,
    /// Whether the bytes that were given out are of another file than the bytes to come.
    pub(crate) has_restarted: bool,
}

impl VideoReader {
    /// Reads at least one byte, or to the end. Tries again where that may help.
    pub(crate) fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let shutdown = self.client.clone();
        let shutdown = &shutdown.inner.api.shutdown;
        loop {
            let result = self.try_read(buffer);
            // A connection that was cut by a shutdown may end as if the body were whole.
            if !matches!(result, Ok(Some(1..))) {
                shutdown.check(Some(&self.video.generation_id))?;
            }
            let error = match result {
                Ok(Some(count)) => return Ok(count),
                Ok(None) => continue,
                Err(error) => error,
            };
            let (kind, reason, wait) = match error {
                FileError::Permanent(reason) => {
                    return Err(self.error(io::ErrorKind::InvalidData, reason));
                }
                FileError::NotServed(reason) => {
                    self.is_expired = true;
                    (io::ErrorKind::NotFound, reason, None)
                }
                FileError::StartOver(reason) => {
                    self.start_over();
                    (io::ErrorKind::ConnectionAborted, reason, None)
                }
                FileError::Transient(reason, wait) => {
                    (io::ErrorKind::ConnectionAborted, reason, wait)
                }
            };
            self.give_up_at_limit(kind, &reason)?;
            let pause = self.delay().max(wait.unwrap_or_default());
            self.client.inner.on_retry(&self.error(kind, reason), pause);
            shutdown.pause(pause, Some(&self.video.generation_id))?;
        }
    }

    fn give_up_at_limit(&mut self, kind: io::ErrorKind, reason: &str) -> Result<(), Error> {
        let what = if self.failures >= MAX_FAILURES {
            format!("{MAX_FAILURES} attempts in a row failed")
        } else if self.restarts >= MAX_RESTARTS {
            format!("it started over {MAX_RESTARTS} times")
        } else {
            return Ok(());
        };
        (self.failures, self.restarts) = (0, 0);
        let hint = match kind {
            io::ErrorKind::NotFound => ". `resume ID` prints its URL, for another program",
            _ => "",
        };
        Err(self.error(kind, format!("{what}, the last: {reason}{hint}")))
    }

    /// The pause before the next attempt.
    fn delay(&self) -> Duration {
        let delay = self.client.inner.settings.retry_delay;
        let doubled = 1_u32 << self.failures.saturating_sub(1).min(MAX_FAILURES);
        delay.saturating_mul(doubled).min(MAX_DELAY.max(delay))
    }

    fn error(&self, kind: io::ErrorKind, reason: String) -> Error {
        Error::download(
            None,
            &self.video.generation_id,
            io::Error::new(kind, reason),
        )
    }

    /// Gives out bytes, or reads what decides whether there are any to give out: `None`.
    fn try_read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, FileError> {
        if self.verdict != Verdict::NeedsMore && self.start_given < self.start.len() {
            let count = (&self.start[self.start_given..])
                .read(buffer)
                .unwrap_or_default();
            self.start_given += count;
            return Ok(Some(count));
        }
        if self.is_ended {
            return Ok(Some(0));
        }
        let (mut file, end) = match self.body.take() {
            Some(body) => body,
            None => self.connect()?,
        };
        // Another response may be another file, which has to be decided anew.
        let is_decided = self.verdict != Verdict::NeedsMore;
        let mut small = [0; 64];
        let buffer = if is_decided { buffer } else { &mut small[..] };
        let count = match file.reader.read(buffer) {
            Ok(count) => count,
            // All bytes came: what broke, or had no end, is the framing around them.
            Err(_) if end == End::At(self.known.position) && self.known.position > 0 => 0,
            Err(error) => return Err(self.broken(&error)),
        };
        self.advance(count, end)?;
        let is_whole = count == 0;
        if !is_decided {
            self.start.extend_from_slice(&buffer[..count]);
            self.decide(&file, end, is_whole)?;
        }
        if is_whole {
            self.check_whole(&file, end)?;
            self.is_ended = true;
        }
        self.body = Some((file, end));
        Ok(is_decided.then_some(count))
    }

    fn broken(&mut self, error: &io::Error) -> FileError {
        let position = self.known.position;
        let error = error.to_string();
        transient(format!(
            "the connection broke after {position} bytes: {}",
            Excerpt(&error)
        ))
    }

    /// Counts bytes that came. None means that the body has ended.
    fn advance(&mut self, count: usize, end: End) -> Result<(), FileError> {
        let position = self.known.position + count as u64;
        match end {
            End::At(size) if position > size => {
                let reason = "the server sent more bytes than expected";
                return Err(FileError::StartOver(reason.to_owned()));
            }
            End::At(size) if count == 0 && position < size => {
                return Err(transient(format!("only {position} of {size} bytes came")));
            }
            _ if position == 0 => return Err(transient("the server sent no bytes")),
            _ if position > self.known.limit() => return Err(too_large(position, &self.known)),
            _ => {}
        }
        self.known.position = position;
        if position > self.high_water_mark {
            (self.high_water_mark, self.failures) = (position, 0);
        }
        Ok(())
    }

    fn decide(&mut self, file: &FileBody, end: End, is_whole: bool) -> Result<(), FileError> {
        let size = match end {
            End::At(size) => Some(size),
            End::OfChunks => is_whole.then_some(self.known.position),
        };
        self.verdict = match judge(&self.start, is_whole, &file.head, size, &self.known) {
            Verdict::NotVideo(reason) => return Err(FileError::Permanent(reason)),
            verdict => verdict,
        };
        Ok(())
    }

    /// A chunked file can end properly at another size than the API says. If it does so twice, that
    /// is its size.
    fn check_whole(&mut self, file: &FileBody, end: End) -> Result<(), FileError> {
        let size = self.known.position;
        if end != End::OfChunks || self.known.file_size.is_none_or(|stated| stated == size) {
            return Ok(());
        }
        if self.verdict == Verdict::Plausible {
            return self.decide(file, end, true);
        }
        if self.chunked_size.replace(size) == Some(size) {
            return Ok(());
        }
        let reason = format!("it has {size} bytes, and another size by the API");
        Err(FileError::StartOver(reason))
    }

    fn connect(&mut self) -> Result<(FileBody, End), FileError> {
        self.failures += 1;
        if self.verdict == Verdict::NeedsMore {
            self.start_over();
        }
        if self.is_expired {
            self.renew()?;
        }
        let settings = &self.client.inner.settings;
        let api = &self.client.inner.api;
        let timeouts = (settings.read_timeout, settings.connection_timeout);
        let mut file = api.get_file(&self.video, &self.known, timeouts)?;
        let place = place(&file.head, &self.known).map_err(|error| with_start(error, &mut file))?;
        if place.start == 0 {
            self.start_over();
        }
        let known = &mut self.known;
        known.total = known.total.or(place.total);
        known.validator = known.validator.take().or(file.head.validator.clone());
        Ok((file, place.end))
    }

    fn start_over(&mut self) {
        self.restarts += u32::from(self.known.position > 0);
        self.has_restarted |= self.given() > 0;
        let file_size = self.known.file_size;
        self.known = Known {
            file_size,
            ..Known::default()
        };
        (self.start, self.start_given) = (Vec::new(), 0);
        self.verdict = Verdict::NeedsMore;
    }

    /// How many bytes of this file were given out.
    pub(crate) fn given(&self) -> u64 {
        match self.start.len() - self.start_given {
            0 => self.known.position,
            _ => self.start_given as u64,
        }
    }

    pub(crate) fn expected_size(&self) -> Option<u64> {
        self.known.total.or(self.known.file_size)
    }

    /// Asks the API for a fresh URL.
    fn renew(&mut self) -> Result<(), FileError> {
        let generation = self.client.get_video(&self.video.generation_id);
        let generation = generation.map_err(|error| {
            let cause = error.cause();
            let reason = format!("its URL is not served, and asking for another failed: {cause}");
            match error.is_transient() {
                true => transient(reason),
                false => FileError::NotServed(reason),
            }
        })?;
        let reason = "its URL is not served, and the server has no other";
        let video = generation.video;
        let video = video.ok_or_else(|| FileError::NotServed(reason.to_owned()))?;
        (self.video.url, self.is_expired) = (video.url, false);
        Ok(())
    }
}

/// Adds how a response begins that rejects the request.
fn with_start(error: FileError, file: &mut FileBody) -> FileError {
    let mut start = Vec::new();
    if file.head.status < 400
        || file
            .reader
            .by_ref()
            .take(300)
            .read_to_end(&mut start)
            .is_err()
    {
        return error;
    }
    let start = String::from_utf8_lossy(&start);
    let add = |reason| format!("{reason}, which begins: {}", Excerpt(&start));
    match error {
        FileError::NotServed(reason) => FileError::NotServed(add(reason)),
        FileError::Permanent(reason) => FileError::Permanent(add(reason)),
        other => other,
    }
}

impl Read for VideoReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if !self.has_restarted {
            let count = self.read_some(buffer).map_err(into_io)?;
            if !self.has_restarted {
                return Ok(count);
            }
        }
        // What was read can't be taken back: each further read fails, too.
        let text = "the file changed on the server, or can't be resumed: open it again, or use \
                    download_video";
        Err(into_io(
            self.error(io::ErrorKind::ConnectionAborted, text.to_owned()),
        ))
    }
}

fn into_io(error: Error) -> io::Error {
    let kind = match &error {
        Error::Download { cause, .. } => cause.kind(),
        _ => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, error)
}

impl fmt::Debug for VideoReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("VideoReader");
        debug.field("generation_id", &self.video.generation_id);
        debug
            .field("position", &self.given())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
        sync::{
            Mutex,
            atomic::{AtomicBool, Ordering},
        },
        thread,
    };

    use serde_json::json;

    use super::*;
    use crate::{generation::Generation, reply::Reply};

    /// The head and the first bytes of a response whose body has no end yet.
    const WHOLE: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\nwhole file\r\n";

    /// Reads a file over connections that end after `time`. Its server sends [`WHOLE`], or `later`
    /// to a request for a range, and then `drip` each millisecond until the client is gone. Returns
    /// what was read, and the `Range` headers.
    fn read(
        time: Duration,
        drip: &str,
        later: Option<&str>,
    ) -> (Result<String, String>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v.mp4", listener.local_addr().unwrap());
        let mut builder = Client::builder("key")
            .base_url("http://127.0.0.1/v2")
            .retry_delay(Duration::ZERO);
        assert_eq!(
            builder.settings.connection_timeout,
            Duration::from_secs(3600)
        );
        builder.settings.connection_timeout = time;
        let json = json!({"id": "gen:1", "status": "completed", "video": {"url": url}});
        let reply = Reply {
            status: 200,
            body: json.to_string(),
            ..Reply::default()
        };
        let video = Generation::read(&reply, None).unwrap().video;
        let mut reader = builder.build().unwrap().open_video(&video.unwrap());
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
        const AT_END: &str = "HTTP/1.1 416 No\r\ncontent-range: bytes */10\r\n\r\n";
        const REST: &str = "HTTP/1.1 206 Part\r\ncontent-range: bytes 10-11/12\r\n\
                            content-length: 2\r\n\r\n!!";
        const NOTHING: &str = "HTTP/1.1 206 Part\r\ncontent-range: bytes 10-11/12\r\n\
                               transfer-encoding: chunked\r\n\r\n";
        const LIMIT: &str = "5 attempts in a row failed, the last: the connection broke after 10 \
                             bytes: timeout: receive body";
        const OVER: &str = "the file changed on the server, or can't be resumed: open it again, \
                            or use download_video";
        let cases = [
            ("trailers", "0\r\nx: y\r\n", Some(AT_END), Ok("whole file")),
            ("the size of a chunk", "0", Some(AT_END), Ok("whole file")),
            ("the size of a chunk", "0", Some(REST), Ok("whole file!!")),
            ("always", "0", Some(NOTHING), Err(LIMIT)),
            ("without ranges", "0", None, Err(OVER)),
        ];
        for (case, drip, later, text) in cases {
            // A busy computer may take more than 100 ms for a good response, too.
            let times = [100, 1000, 10_000].map(Duration::from_millis);
            let is_expected = |read: &Result<String, String>| match (read, text) {
                (Ok(read), Ok(text)) => read == text,
                (Err(error), Err(text)) => error.starts_with(text),
                _ => false,
            };
            let found = times.into_iter().any(|time| {
                let (read, ranges) = read(time, drip, later);
                assert!(ranges.iter().all(|range| range == "range: bytes=10-"));
                is_expected(&read)
            });
            assert!(found, "{case}");
        }
    }

    #[test]
    fn a_chunked_body_without_an_end_is_refused_at_the_limit() {
        let json = json!({"id": "gen:1", "video": {"url": "https://v", "file_size": 7}});
        let reply = Reply {
            status: 200,
            body: json.to_string(),
            ..Reply::default()
        };
        let video = Generation::read(&reply, None).unwrap().video.unwrap();
        let client = Client::builder("key").base_url("http://127.0.0.1/v2");
        let mut reader = client.build().unwrap().open_video(&video);
        for (count, is_read) in [(99_999_999, true), (1, true), (1, false)] {
            let advanced = reader.advance(count, End::OfChunks);
            assert_eq!(advanced.is_ok(), is_read, "{advanced:?}");
        }
        assert_eq!(reader.known.position, 100_000_000);
    }
}
