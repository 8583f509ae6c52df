//! Connections and HTTP/1.1: one thread for each connection, nothing of the API itself.

use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::response::Response;
use super::script::Received;

const MAX_HEAD: u64 = 64 << 10;
const MAX_BODY: u64 = 32 << 20;

/// The body of a request. What is left of its limit has not been read.
pub(super) type Body<'a> = io::Take<&'a mut dyn Read>;

/// Responds to a request, whose body it reads.
type Handler = dyn Fn(Received, &mut Body<'_>) -> Response + Send + Sync;

/// The running server, which each of its threads holds.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) connections: AtomicUsize,
    handler: Box<Handler>,
    is_stopping: AtomicBool,
    open: Mutex<Vec<Weak<TcpStream>>>,
}

/// A request, the length of its body, and whether the connection stays open.
type Head = (Received, u64, bool);

/// Why a request is refused: the status and the message.
type Refusal = (u16, &'static str);

impl Server {
    pub(super) fn start(listener: TcpListener, handler: Box<Handler>) -> io::Result<Arc<Self>> {
        let server = Arc::new(Server {
            address: listener.local_addr()?,
            connections: AtomicUsize::default(),
            handler,
            is_stopping: AtomicBool::default(),
            open: Mutex::default(),
        });
        let accepting = Arc::clone(&server);
        thread::Builder::new().spawn(move || accepting.accept(listener))?;
        Ok(server)
    }

    /// Ends what its threads are waiting for, and waits for them, for a second at most.
    pub(super) fn stop(self: &Arc<Self>) {
        self.is_stopping.store(true, SeqCst);
        // Ends the wait for a connection. Once, since the port may be somebody else's then.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_millis(100));
        let start = Instant::now();
        while Arc::strong_count(self) > 1 && start.elapsed() < Duration::from_millis(900) {
            for stream in lock(&self.open).iter().filter_map(Weak::upgrade) {
                let _ = stream.shutdown(Shutdown::Both);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Drops the listener before the server: its port is free when no thread holds the server.
    fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = listener.accept();
            if self.is_stopping.load(SeqCst) {
                return;
            }
            let Ok((stream, _)) = accepted else {
                // Too many open files, say: others may close theirs.
                thread::sleep(Duration::from_millis(10));
                continue;
            };
            self.connections.fetch_add(1, SeqCst);
            let (server, stream) = (Arc::clone(&self), Arc::new(stream));
            let mut open = lock(&self.open);
            open.retain(|stream| stream.strong_count() > 0);
            open.push(Arc::downgrade(&stream));
            // Without a thread, the connection is closed.
            let thread = thread::Builder::new().stack_size(512 << 10);
            let _ = thread.spawn(move || server.serve(&stream));
        }
    }

    /// Serves all requests of a connection. An error means that it is gone.
    fn serve(self: Arc<Self>, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        loop {
            let (request, length, stays) = match read_head(&mut reader, self.address.port())? {
                Ok(head) => head,
                Err((status, message)) => {
                    self.send(stream, &Response::error(status, message, "/"), false)?;
                    // Otherwise closing might reset the connection before the client has read that.
                    stream.shutdown(Shutdown::Write)?;
                    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
                    return io::copy(&mut reader.take(2 * MAX_BODY), &mut io::sink()).map(drop);
                }
            };
            let source: &mut dyn Read = &mut reader;
            let mut body = source.take(length);
            let response = (self.handler)(request, &mut body);
            let stays = stays && body.limit() == 0;
            if !self.send(stream, &response, stays)? || self.is_stopping.load(SeqCst) {
                return Ok(());
            }
        }
    }

    /// Whether the connection stays open for another request.
    fn send(&self, mut stream: &TcpStream, response: &Response, stays: bool) -> io::Result<bool> {
        self.pause(response.wait);
        if let Some(raw) = &response.raw {
            stream.write_all(raw.as_bytes())?;
            return Ok(false);
        }
        let body = &response.bytes[response.range.clone()];
        let mut writer = BufWriter::new(stream);
        write!(writer, "HTTP/1.1 {} \r\n", response.status)?;
        for (name, value) in &response.headers {
            write!(writer, "{name}: {value}\r\n")?;
        }
        if !stays {
            writer.write_all(b"connection: close\r\n")?;
        }
        write!(writer, "content-length: {}\r\n\r\n", body.len())?;
        let body = &body[..response.cut.unwrap_or(body.len()).min(body.len())];
        let (first, rest) = body.split_at(body.len() / 2);
        writer.write_all(first)?;
        if !response.halfway.is_zero() {
            writer.flush()?;
            self.pause(response.halfway);
        }
        writer.write_all(rest)?;
        writer.flush()?;
        Ok(stays && response.cut.is_none())
    }

    /// Waits, at most until the server is to stop.
    fn pause(&self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time && !self.is_stopping.load(SeqCst) {
            thread::sleep(time.min(Duration::from_millis(20)));
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_head(reader: &mut BufReader<&TcpStream>, port: u16) -> io::Result<Result<Head, Refusal>> {
    let mut bytes = Vec::new();
    loop {
        let left = MAX_HEAD - bytes.len() as u64;
        if reader.take(left).read_until(b'\n', &mut bytes)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if let Some(head) = parse(&bytes, port).transpose() {
            return Ok(head);
        }
    }
}

/// `None` if there is more to come.
fn parse(bytes: &[u8], port: u16) -> Result<Option<Head>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err((400, "This is no HTTP/1.1 request")),
    }
    let headers = parsed.headers.iter().map(|header| {
        let value = String::from_utf8_lossy(header.value).into_owned();
        (header.name.to_ascii_lowercase(), value)
    });
    let request = Received {
        method: parsed.method.unwrap_or_default().to_owned(),
        url: parsed.path.unwrap_or_default().to_owned(),
        headers: headers.collect(),
        body: String::new(),
        status: 0,
    };
    if !is_from_here(&request, port) {
        return Err((403, "Only programs of this computer are served"));
    }
    let length = request.header("content-length").unwrap_or("0").parse();
    let length = match (length, request.header("transfer-encoding")) {
        (Ok(length @ 0..=MAX_BODY), None) => length,
        (Ok(_), None) => return Err((413, "Payload Too Large")),
        _ => return Err((411, "The simulator needs a Content-Length")),
    };
    let is_close = |value: &str| value.eq_ignore_ascii_case("close");
    let stays = parsed.version == Some(1) && !request.header("connection").is_some_and(is_close);
    Ok(Some((request, length, stays)))
}

/// False if a web page of another origin is behind the request, or a name that somebody pointed at
/// this computer.
fn is_from_here(request: &Received, port: u16) -> bool {
    let own = ["127.0.0.1", "localhost"].map(|name| format!("http://{name}:{port}"));
    let mut headers = request.headers.iter();
    let is_allowed = headers.all(|(name, value)| match &**name {
        "host" => is_loopback(value),
        "origin" => own.contains(value),
        // Links to the page may be anywhere.
        "sec-fetch-site" => request.path() == "/" || ["same-origin", "none"].contains(&&**value),
        _ => true,
    });
    is_allowed && request.header("host").is_some()
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    let is_v4 = (name.parse()).is_ok_and(|address: Ipv4Addr| address.is_loopback());
    is_v4 || name.eq_ignore_ascii_case("localhost") || [host, name].contains(&"[::1]")
}
