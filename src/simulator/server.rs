//! Connections and HTTP/1.1: one thread for each connection, nothing of the API itself.

use std::{
    collections::HashMap,
    io::{
        self, BufRead, BufReader, BufWriter,
        ErrorKind::{Interrupted, TimedOut, WouldBlock},
        Read, Write,
    },
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    BEARER, Post, Received,
    api::{Api, documented},
};

const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 100;
const MAX_BODY: u64 = 32 << 20;
/// All bodies that are being received, together.
const MAX_BODIES: u64 = 128 << 20;
/// A body is read in pieces of this size, so that it takes no more memory than has arrived.
const PIECE: u64 = 64 << 10;

/// The running server. Stops when dropped.
pub(super) struct Server {
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

struct Shared {
    api: Api,
    address: SocketAddr,
    stop: AtomicBool,
    connections: AtomicUsize,
    open: Mutex<HashMap<usize, Arc<TcpStream>>>,
    receiving: AtomicU64,
}

/// What is sent for a request.
#[derive(Default)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Body,
    /// How long to wait before the response, and in the middle of its body.
    pub(super) wait: Duration,
    pub(super) halfway: Duration,
    /// How many bytes of the body to send before the connection is closed.
    pub(super) cut: Option<usize>,
    /// What to send instead of all that, before the connection is closed.
    pub(super) raw: Option<String>,
}

pub(super) enum Body {
    Bytes(Vec<u8>),
    /// A part of a file, which all connections share.
    File(Arc<[u8]>, Range<usize>),
}

/// Why there is no request: the connection is gone, or the request is refused with this status.
enum Fault {
    Gone,
    Refused(u16),
}
use Fault::{Gone, Refused};

impl From<io::Error> for Fault {
    fn from(_: io::Error) -> Self {
        Gone
    }
}

struct Head {
    request: Received,
    framing: Framing,
    keep_alive: bool,
}

#[derive(Clone, Copy)]
enum Framing {
    Length(u64),
    Chunked,
}

/// The body of a request as it arrives, counted among all that are being received.
struct Incoming<'a> {
    bytes: Vec<u8>,
    counted: u64,
    receiving: &'a AtomicU64,
}

type Reader<'a> = BufReader<&'a TcpStream>;

impl Server {
    pub(super) fn start(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            api: Api::new(format!("http://{address}")),
            address,
            stop: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            open: Mutex::default(),
            receiving: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = thread::Builder::new().spawn(move || accepting.accept(&listener))?;
        Ok(Server { shared, acceptor })
    }

    pub(super) fn api(&self) -> &Api {
        &self.shared.api
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.shared.address
    }

    pub(super) fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(900) {
            // Ends whatever their threads are waiting for.
            for stream in self.shared.open().values() {
                let _ = stream.shutdown(Shutdown::Both);
            }
            if !self.acceptor.is_finished() {
                let _ = TcpStream::connect_timeout(&self.shared.address, Duration::from_millis(10));
            } else if self.shared.open().is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, HashMap<usize, Arc<TcpStream>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        loop {
            let accepted = listener.accept();
            if self.stop.load(SeqCst) {
                return;
            }
            let Ok((stream, _)) = accepted else {
                // Too many open files, say: others may close theirs.
                thread::sleep(Duration::from_millis(10));
                continue;
            };
            let number = self.connections.fetch_add(1, SeqCst);
            let stream = Arc::new(stream);
            self.open().insert(number, Arc::clone(&stream));
            let shared = Arc::clone(&self);
            let thread = thread::Builder::new().stack_size(512 << 10).spawn(move || {
                let _ = stream.set_nodelay(true);
                shared.serve(&stream);
                drop(stream);
                shared.open().remove(&number);
            });
            if thread.is_err() {
                self.open().remove(&number);
            }
        }
    }

    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        let status = loop {
            match self.serve_one(stream, &mut reader) {
                Ok(true) if !self.stop.load(SeqCst) => {}
                Ok(_) | Err(Gone) => return,
                Err(Refused(status)) => break status,
            }
        };
        let response = Response::error(status, documented(status), "/");
        if self.send(stream, response, false, false).is_ok() {
            drain(stream, &mut reader);
        }
    }

    /// Whether the connection stays open for another request.
    fn serve_one(&self, stream: &TcpStream, reader: &mut Reader<'_>) -> Result<bool, Fault> {
        let head = read_head(reader)?;
        let request = head.request;
        let mut body = Incoming::new(&self.receiving);
        let post = self.api.next_post(&request);
        if let Post::CloseAfter(limit) = post {
            let _ = body.read(reader, head.framing, limit as u64);
            self.api.state().record(request, body.take());
            return Ok(false);
        }
        let is_too_large = matches!(head.framing, Framing::Length(length) if length > MAX_BODY);
        if is_too_large || !body.read(reader, head.framing, MAX_BODY)? {
            return Err(Refused(413));
        }
        let is_head = request.method == "HEAD";
        let response = self.api.respond(request, body.take(), post);
        drop(body);
        Ok(self.send(stream, response, is_head, head.keep_alive)?)
    }

    /// Whether the connection stays open for another request.
    fn send(
        &self,
        mut stream: &TcpStream,
        response: Response,
        is_head: bool,
        keep_alive: bool,
    ) -> io::Result<bool> {
        if !self.pause(stream, response.wait)? {
            return Ok(false);
        }
        if let Some(raw) = response.raw {
            stream.write_all(raw.as_bytes())?;
            return Ok(false);
        }
        let mut body = match &response.body {
            Body::Bytes(bytes) => bytes,
            Body::File(file, range) => &file[range.clone()],
        };
        let mut writer = BufWriter::new(stream);
        write!(writer, "HTTP/1.1 {} \r\n", response.status)?;
        for (name, value) in &response.headers {
            write!(writer, "{name}: {value}\r\n")?;
        }
        if !keep_alive {
            writer.write_all(b"connection: close\r\n")?;
        }
        write!(writer, "content-length: {}\r\n\r\n", body.len())?;
        let end = if is_head { Some(0) } else { response.cut };
        body = &body[..end.unwrap_or(body.len()).min(body.len())];
        let (first, rest) = body.split_at(body.len() / 2);
        writer.write_all(first)?;
        if !response.halfway.is_zero() {
            writer.flush()?;
            if !self.pause(stream, response.halfway)? {
                return Ok(false);
            }
        }
        writer.write_all(rest)?;
        writer.flush()?;
        Ok(keep_alive && response.cut.is_none())
    }

    /// Waits. False if the client went away, or the server is to stop.
    fn pause(&self, stream: &TcpStream, time: Duration) -> io::Result<bool> {
        const LOOK: Duration = Duration::from_millis(20);
        let start = Instant::now();
        loop {
            let left = time.saturating_sub(start.elapsed()).min(LOOK);
            if left.is_zero() {
                stream.set_read_timeout(None)?;
                return Ok(true);
            }
            stream.set_read_timeout(Some(left))?;
            match stream.peek(&mut [0]) {
                _ if self.stop.load(SeqCst) => return Ok(false),
                Ok(0) => return Ok(false),
                // Another request, sent before this one was responded to.
                Ok(_) => thread::sleep(left),
                Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Reads what still comes, so that closing does not reset the connection before the client has read
/// its response.
fn drain(stream: &TcpStream, reader: &mut Reader<'_>) {
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let _ = io::copy(&mut reader.take(2 * MAX_BODY), &mut io::sink());
}

fn read_head(reader: &mut Reader<'_>) -> Result<Head, Fault> {
    // TLS and other protocols may never send a line.
    if !matches!(reader.fill_buf()?, [] | [b'A'..=b'Z' | b'a'..=b'z' | b'\r' | b'\n', ..]) {
        return Err(Refused(400));
    }
    let mut bytes = Vec::new();
    loop {
        let start = bytes.len();
        let mut limited = reader.take((MAX_HEAD - start) as u64);
        limited.read_until(b'\n', &mut bytes)?;
        match &bytes[start..] {
            b"\r\n" | b"\n" if start == 0 => bytes.clear(),
            b"\r\n" | b"\n" => break,
            [.., b'\n'] => {}
            _ if bytes.len() == MAX_HEAD => return Err(Refused(431)),
            _ => return Err(Gone),
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(&bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refused(431)),
        _ => return Err(Refused(400)),
    }
    let headers = parsed.headers.iter().map(|header| {
        let name = header.name.to_ascii_lowercase();
        let value = String::from_utf8_lossy(header.value).into_owned();
        match &*name {
            "authorization" if value != BEARER => (name, "[redacted]".to_owned()),
            _ => (name, value),
        }
    });
    let request = Received {
        method: parsed.method.unwrap_or_default().to_owned(),
        url: parsed.path.unwrap_or_default().to_owned(),
        headers: headers.collect(),
        body: String::new(),
    };
    let values = |wanted: &str| -> Vec<&str> {
        let headers = request.headers.iter().filter(|(name, _)| name == wanted);
        headers.map(|(_, value)| value.as_str()).collect()
    };
    let framing = match (&*values("content-length"), &*values("transfer-encoding")) {
        ([], []) => Framing::Length(0),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            Framing::Length(length.parse().map_err(|_| Refused(400))?)
        }
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked,
        _ => return Err(Refused(400)),
    };
    let is_close = |value: &&str| value.eq_ignore_ascii_case("close");
    let keep_alive = parsed.version == Some(1) && !values("connection").iter().any(is_close);
    Ok(Head {
        request,
        framing,
        keep_alive,
    })
}

/// A line without its end.
fn read_line(reader: &mut Reader<'_>) -> Result<String, Fault> {
    let mut line = Vec::new();
    reader.take(MAX_HEAD as u64).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(Gone);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

impl<'a> Incoming<'a> {
    fn new(receiving: &'a AtomicU64) -> Self {
        let (bytes, counted) = (Vec::new(), 0);
        Incoming {
            bytes,
            counted,
            receiving,
        }
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// False if the body is longer than `limit`.
    fn read(
        &mut self,
        reader: &mut Reader<'_>,
        framing: Framing,
        limit: u64,
    ) -> Result<bool, Fault> {
        if let Framing::Length(length) = framing {
            return self.append(reader, length, limit);
        }
        loop {
            let line = read_line(reader)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).map_err(|_| Refused(400))?;
            if size == 0 {
                // Trailers.
                while !read_line(reader)?.is_empty() {}
                return Ok(true);
            }
            if !self.append(reader, size, limit)? {
                return Ok(false);
            }
            if !read_line(reader)?.is_empty() {
                return Err(Refused(400));
            }
        }
    }

    fn append(&mut self, reader: &mut Reader<'_>, size: u64, limit: u64) -> Result<bool, Fault> {
        let fitting = size.min(limit - self.bytes.len() as u64);
        let mut left = fitting;
        while left > 0 {
            let piece = left.min(PIECE);
            self.counted += piece;
            if self.receiving.fetch_add(piece, SeqCst) + piece > MAX_BODIES {
                return Err(Refused(503));
            }
            if (reader.take(piece).read_to_end(&mut self.bytes)? as u64) < piece {
                return Err(Gone);
            }
            left -= piece;
        }
        Ok(fitting == size)
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        self.receiving.fetch_sub(self.counted, SeqCst);
    }
}

impl Default for Body {
    fn default() -> Self {
        Body::Bytes(Vec::new())
    }
}
