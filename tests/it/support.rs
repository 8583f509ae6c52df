//! A server that misbehaves as told, and what all tests share.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use aimlapi_video::{Client, ClientBuilder, Polling};

pub(crate) const KEY: &str = "sk-secret-0123456789";

/// A request as it came over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// Which connection it came on, from 0.
    pub(crate) connection: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_post(&self) -> bool {
        self.method == "POST"
    }
}

/// What the server does next.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Send(Vec<u8>),
    /// Sends the same bytes this many times.
    Repeat(Vec<u8>, usize),
    /// Waits, or until the client is gone.
    Stall(Duration),
    Close,
    Reset,
}

type Handler = dyn Fn(&Request, usize) -> Vec<Act> + Send + Sync;

/// Something that listens until it is dropped.
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) requests: Arc<Mutex<Vec<Request>>>,
    pub(crate) connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Listener {
    /// Calls `serve(connection, number of connections before it, requests)` on a thread for each connection.
    pub(crate) fn start_on(
        address: &str,
        serve: impl Fn(TcpStream, usize, &Mutex<Vec<Request>>) + Send + Sync + 'static,
    ) -> Self {
        let socket = TcpListener::bind(address).unwrap();
        let listener = Listener {
            address: socket.local_addr().unwrap(),
            requests: Arc::default(),
            connections: Arc::default(),
            stop: Arc::default(),
        };
        let (requests, connections, stop) = (
            Arc::clone(&listener.requests),
            Arc::clone(&listener.connections),
            Arc::clone(&listener.stop),
        );
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in socket.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let (requests, serve) = (Arc::clone(&requests), Arc::clone(&serve));
                thread::spawn(move || serve(stream.unwrap(), number, &requests));
            }
        });
        listener
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers each request with what `handler(request, number of requests before it)` says.
pub(crate) struct Server(Listener);

impl Server {
    pub(crate) fn start(
        handler: impl Fn(&Request, usize) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        Self::start_on("127.0.0.1:0", handler)
    }

    pub(crate) fn start_on(
        address: &str,
        handler: impl Fn(&Request, usize) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        Server(Listener::start_on(
            address,
            move |stream, number, requests| {
                stream.set_nodelay(true).unwrap();
                serve(&stream, number, requests, &handler);
            },
        ))
    }

    /// Answers the n-th request with the n-th answer, and all later ones with the last.
    pub(crate) fn script(answers: Vec<Vec<Act>>) -> Self {
        Self::start(move |_, n| answers[n.min(answers.len() - 1)].clone())
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.0.address)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin())
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder(KEY)
            .base_url(self.url("/v2"))
            .retry_pause(Duration::ZERO)
    }

    pub(crate) fn client(&self) -> Client {
        self.builder().build().unwrap()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.0.requests.lock().unwrap().clone()
    }

    pub(crate) fn posts(&self) -> usize {
        self.requests()
            .iter()
            .filter(|request| request.is_post())
            .count()
    }

    pub(crate) fn connections(&self) -> usize {
        self.0.connections.load(Ordering::SeqCst)
    }
}

fn serve(stream: &TcpStream, connection: usize, requests: &Mutex<Vec<Request>>, handler: &Handler) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader, connection) {
        let number = {
            let mut requests = requests.lock().unwrap();
            requests.push(request.clone());
            requests.len() - 1
        };
        for act in handler(&request, number) {
            match act {
                Act::Send(bytes) => {
                    let mut stream = stream;
                    if stream.write_all(&bytes).is_err() {
                        return;
                    }
                }
                Act::Repeat(bytes, times) => {
                    let mut stream = stream;
                    if (0..times).any(|_| stream.write_all(&bytes).is_err()) {
                        return;
                    }
                }
                Act::Stall(time) => {
                    stream.set_read_timeout(Some(time)).unwrap();
                    // Ends when the client goes away, or when the time is up.
                    let _ = reader.fill_buf();
                    stream.set_read_timeout(None).unwrap();
                }
                Act::Close => return,
                Act::Reset => {
                    socket2::SockRef::from(stream)
                        .set_linger(Some(Duration::ZERO))
                        .unwrap();
                    return;
                }
            }
        }
    }
}

pub(crate) fn read_request(reader: &mut impl BufRead, connection: usize) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request {
        method,
        target,
        headers,
        body: String::new(),
        connection,
    };
    let length = request
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).unwrap();
    Some(request)
}

/// An HTTP answer with a Content-Length, unless the headers frame it otherwise.
pub(crate) fn http(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut text = format!("HTTP/1.1 {status} Whatever\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let framed = |(name, _): &(&str, &str)| {
        ["content-length", "transfer-encoding", "connection"]
            .contains(&name.to_ascii_lowercase().as_str())
    };
    if !headers.iter().any(framed) {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// An answer with a JSON body, on a connection that stays.
pub(crate) fn json(status: u16, body: &str) -> Vec<Act> {
    vec![Act::Send(http(
        status,
        &[("content-type", "application/json")],
        body,
    ))]
}

pub(crate) fn queued() -> Vec<Act> {
    json(201, r#"{"id": "gen:1", "status": "queued"}"#)
}

pub(crate) fn completed() -> Vec<Act> {
    json(
        200,
        r#"{"id": "gen:1", "status": "completed", "video": {"url": "https://cdn.example/v.mp4"}}"#,
    )
}

/// An error of the documented shape.
pub(crate) fn refusal(status: u16, message: &str) -> Vec<Act> {
    let body = serde_json::json!({
        "message": message,
        "path": "/v2/generate/video/google/generation",
        "requestId": "3f0e1c1a-6f0e-4a8e-9d4a-000000000001",
        "statusCode": status,
        "timestamp": "2026-08-01T12:00:00.000Z",
    });
    json(status, &body.to_string())
}

/// What the server at `address` answers to this request, to its last byte.
pub(crate) fn forward(address: &str, request: &Request) -> Vec<u8> {
    let mut text = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    for (name, value) in &request.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("connection: close\r\n\r\n");
    text.push_str(&request.body);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// Polling that takes milliseconds.
pub(crate) fn quick() -> Polling {
    Polling::default()
        .interval(Duration::from_millis(1))
        .timeout(Duration::from_secs(20))
}

/// What the crate itself leaves to a `match`.
pub(crate) trait Outcome {
    fn may_have_charged(&self) -> bool;
}

impl Outcome for aimlapi_video::Error {
    fn may_have_charged(&self) -> bool {
        matches!(self, aimlapi_video::Error::OutcomeUnknown(_))
    }
}

/// A folder that is empty, and removed in the end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let path = std::env::temp_dir().join(format!(
            "aimlapi-video-test-{}-{number}",
            std::process::id()
        ));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The names of all files in it, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The variable that tells a test that it is the child of itself.
const CHILD: &str = "AIMLAPI_VIDEO_TEST_CHILD";

/// The task of this process, if it was started with [`child`].
pub(crate) fn child_task() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// This test program again, to run `test` (its full name) with a task, and with no variables of the crate's.
pub(crate) fn child(test: &str, task: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, task);
    without_settings(&mut command);
    command
}

/// An example, as `cargo test` built it, with no variables of the crate's.
pub(crate) fn example(name: &str) -> Command {
    let target = std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .to_owned();
    let path = target
        .join("examples")
        .join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        path.exists(),
        "{} is not built: cargo build --examples",
        path.display()
    );
    let mut command = Command::new(path);
    without_settings(&mut command);
    command
}

fn without_settings(command: &mut Command) {
    for name in [
        "AIMLAPI_KEY",
        "AIML_API_KEY",
        "AIMLAPI_API_KEY",
        "AIMLAPI_BASE_URL",
    ] {
        command.env_remove(name);
    }
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
