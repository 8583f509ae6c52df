//! A video as a reader that hides broken connections.

use std::{
    fmt,
    io::{self, Cursor, ErrorKind, Read},
    time::Duration,
};

use crate::{
    client::Client,
    error::Error,
    generation::Video,
    http::file::{FileBody, FileError, Known, Remedy, Verdict, judge, place, too_large},
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
        VideoReader {
            client: self.clone(),
            video: video.clone(),
            // No video is empty: a size of zero is none.
            known: Known::new(video.file_size.filter(|size| *size > 0)),
            body: None,
            start: Cursor::default(),
            verdict: Verdict::NeedsMore,
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
    /// The response that is being read, and the size of the file. `None`: it ends with the chunks.
    body: Option<(FileBody, Option<u64>)>,
    /// The first bytes, from which the verdict comes. They are given out from the cursor on.
    start: Cursor<Vec<u8>>,
    verdict: Verdict,
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
        let client = self.client.clone();
        let shutdown = &client.inner.api.shutdown;
        loop {
            let result = self.try_read(buffer);
            // A connection that was cut by a shutdown may end as if the body were whole.
            shutdown.check(Some(&self.video.generation_id))?;
            let FileError { remedy, reason } = match result {
                Ok(Some(count)) => return Ok(count),
                Ok(None) => continue,
                Err(error) => error,
            };
            let (kind, wait) = match remedy {
                Remedy::Nothing => return Err(self.error(ErrorKind::InvalidData, reason)),
                Remedy::AnotherUrl => (ErrorKind::NotFound, Duration::ZERO),
                Remedy::StartOver => (ErrorKind::ConnectionAborted, Duration::ZERO),
                Remedy::Wait(time) => (ErrorKind::ConnectionAborted, time),
            };
            self.is_expired |= remedy == Remedy::AnotherUrl;
            if remedy == Remedy::StartOver {
                self.start_over();
            }
            self.give_up_at_limit(kind, &reason)?;
            let pause = self.delay().max(wait);
            client.inner.on_retry(&self.error(kind, reason), pause);
            shutdown.pause(pause, Some(&self.video.generation_id))?;
        }
    }

    fn give_up_at_limit(&mut self, kind: ErrorKind, reason: &str) -> Result<(), Error> {
        let what = match (self.failures, self.restarts) {
            (MAX_FAILURES.., _) => format!("{MAX_FAILURES} attempts in a row failed"),
            (_, MAX_RESTARTS..) => format!("it started over {MAX_RESTARTS} times"),
            _ => return Ok(()),
        };
        (self.failures, self.restarts) = (0, 0);
        let hint = match kind {
            ErrorKind::NotFound => ". `resume ID` prints its URL, for another program",
            _ => "",
        };
        Err(self.error(kind, format!("{what}, the last: {reason}{hint}")))
    }

    /// The pause before the next attempt.
    fn delay(&self) -> Duration {
        let delay = self.client.inner.settings.retry_delay;
        let doubled = delay.saturating_mul(1 << self.failures.saturating_sub(1));
        doubled.min(MAX_DELAY.max(delay))
    }

    fn error(&self, kind: ErrorKind, reason: String) -> Error {
        let cause = io::Error::new(kind, reason);
        Error::download(None, &self.video.generation_id, cause)
    }

    /// Gives out bytes, or reads what decides whether there are any to give out: `None`.
    fn try_read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, FileError> {
        let is_undecided = self.verdict == Verdict::NeedsMore;
        if !is_undecided && self.given() < self.known.position {
            return Ok(self.start.read(buffer).ok());
        }
        let (mut file, size) = match self.body.take() {
            Some(body) => body,
            None => self.connect()?,
        };
        // Another response may be another file, which has to be decided again.
        let is_undecided = self.verdict == Verdict::NeedsMore;
        let mut small = [0; 64];
        let buffer = if is_undecided { &mut small } else { buffer };
        let position = self.known.position;
        let count = match file.reader.read(buffer) {
            // All bytes came: what broke, or had no end, is the framing around them.
            Err(_) if size == Some(position) => 0,
            read => read.map_err(|error| broken(position, &error))?,
        };
        self.advance(count, size)?;
        let is_whole = count == 0;
        if is_undecided {
            self.start.get_mut().extend_from_slice(&buffer[..count]);
        }
        if is_undecided || is_whole {
            let size = size.or(is_whole.then_some(self.known.position));
            let start = self.start.get_ref();
            self.verdict = judge(start, is_whole, &file.head, size, &self.known)?;
        }
        if is_whole {
            self.check_size(size)?;
            file.reader = Box::new(io::empty());
        }
        self.body = Some((file, size));
        Ok((!is_undecided).then_some(count))
    }

    /// Counts bytes that came. None means that the body has ended.
    fn advance(&mut self, count: usize, size: Option<u64>) -> Result<(), FileError> {
        let position = self.known.position + count as u64;
        match size {
            Some(size) if position > size => {
                let reason = "the server sent more bytes than expected";
                return Err(FileError::new(Remedy::StartOver, reason));
            }
            Some(size) if count == 0 && position < size => {
                let reason = format!("only {position} of {size} bytes came");
                return Err(FileError::transient(reason));
            }
            _ if position == 0 => return Err(FileError::transient("the server sent no bytes")),
            _ if position > self.known.limit() => return Err(too_large(position, &self.known)),
            _ => {}
        }
        self.known.position = position;
        if position > self.high_water_mark {
            (self.high_water_mark, self.failures) = (position, 0);
        }
        Ok(())
    }

    /// A chunked file can end properly at another size than the API says. If it does so twice, that
    /// is its size.
    fn check_size(&mut self, size: Option<u64>) -> Result<(), FileError> {
        let position = self.known.position;
        let is_stated = self.known.file_size.is_none_or(|stated| stated == position);
        if size.is_some() || is_stated || self.chunked_size.replace(position) == Some(position) {
            return Ok(());
        }
        let reason = format!("it has {position} bytes, and another size by the API");
        Err(FileError::new(Remedy::StartOver, reason))
    }

    fn connect(&mut self) -> Result<(FileBody, Option<u64>), FileError> {
        self.failures += 1;
        if self.verdict == Verdict::NeedsMore {
            self.start_over();
        }
        if self.is_expired {
            self.renew()?;
        }
        let inner = &self.client.inner;
        let file = inner
            .api
            .get_file(&self.video.url, &self.known, &inner.settings);
        let mut file = file?;
        let place = place(&file.head, &self.known).map_err(|error| with_start(error, &mut file))?;
        if place.start == 0 {
            self.start_over();
        }
        let known = &mut self.known;
        known.total = known.total.or(place.total);
        known.validator = known.validator.take().or(file.head.validator.clone());
        Ok((file, place.size))
    }

    fn start_over(&mut self) {
        self.restarts += u32::from(self.known.position > 0);
        self.has_restarted |= self.given() > 0;
        self.known = Known::new(self.known.file_size);
        (self.start, self.verdict) = (Cursor::default(), Verdict::NeedsMore);
    }

    /// How many bytes of this file were given out.
    pub(crate) fn given(&self) -> u64 {
        let held = self.start.get_ref().len() as u64 - self.start.position();
        self.known.position - held
    }

    /// Asks the API for a fresh URL.
    fn renew(&mut self) -> Result<(), FileError> {
        let generation = self.client.get_video(&self.video.generation_id);
        let generation = generation.map_err(|error| {
            let remedy = match error.is_transient() {
                true => Remedy::Wait(Duration::ZERO),
                false => Remedy::AnotherUrl,
            };
            let text = "its URL is not served, and asking for another failed";
            FileError::new(remedy, format!("{text}: {}", error.cause()))
        })?;
        let reason = "its URL is not served, and the server has no other";
        let none = || FileError::new(Remedy::AnotherUrl, reason);
        self.video.url = generation.video.ok_or_else(none)?.url;
        self.is_expired = false;
        Ok(())
    }
}

fn broken(position: u64, error: &io::Error) -> FileError {
    let error = error.to_string();
    let error = Excerpt(&error);
    FileError::transient(format!(
        "the connection broke after {position} bytes: {error}"
    ))
}

/// Adds how a response begins that rejects the request.
fn with_start(mut error: FileError, file: &mut FileBody) -> FileError {
    let (mut start, is_error) = (Vec::new(), file.head.status >= 400);
    let is_final = matches!(error.remedy, Remedy::AnotherUrl | Remedy::Nothing);
    let mut first = file.reader.by_ref().take(300);
    if is_error && is_final && first.read_to_end(&mut start).is_ok() {
        let start = String::from_utf8_lossy(&start);
        error.reason += &format!(", which begins: {}", Excerpt(&start));
    }
    error
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
            self.error(ErrorKind::ConnectionAborted, text.to_owned()),
        ))
    }
}

fn into_io(error: Error) -> io::Error {
    let kind = match &error {
        Error::Download { cause, .. } => cause.kind(),
        _ => ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, error)
}

impl fmt::Debug for VideoReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("VideoReader");
        debug.field("generation_id", &self.video.generation_id);
        debug.field("position", &self.given());
        debug.finish_non_exhaustive()
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
            let advanced = reader.advance(count, None);
            assert_eq!(advanced.is_ok(), is_read, "{advanced:?}");
        }
        assert_eq!(reader.known.position, 100_000_000);
    }
}
