//! A server that misbehaves as told, and what all tests share.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::{env, fmt::Display, fs, thread, time::Duration};

use aimlapi_video::{Client, ClientBuilder, Progress, VideoRequest};

pub(crate) const KEY: &str = "sk-secret-0123456789";
pub(crate) const COMPLETED: &str =
    r#"{"id": "gen:1", "status": "completed", "video": {"url": "https://cdn.example/v.mp4"}}"#;
/// The end of an error of a call that charged nothing.
pub(crate) const SAFE: &str =
    "; this request charged nothing. Check the network and the base URL; calling again is safe";

/// A request as it came over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    /// With names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// Which connection it came on, from 0.
    pub(crate) connection: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(known, _)| known == name)?;
        Some(value)
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
    /// Waits this long, or until the client is gone.
    Stall(Duration),
    Close,
    Reset,
}

/// A connection of a client: plain, or with TLS.
pub(crate) trait Connection: Read + Write {
    fn socket(&self) -> &TcpStream;
}

impl Connection for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

/// Listens until it is dropped, and remembers what came.
pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
pub(crate) struct State {
    requests: Mutex<Vec<Request>>,
    connections: AtomicUsize,
    is_stopped: AtomicBool,
}

impl Server {
    /// Responds to each request with what `handler(request, number of requests before it)` says.
    pub(crate) fn start(
        handler: impl Fn(&Request, usize) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        Self::listen("127.0.0.1:0", move |stream, number, state| {
            state.serve(stream, number, &handler);
        })
    }

    /// Responds to the n-th request with the n-th response, and to all later ones with the last.
    pub(crate) fn script(responses: Vec<Vec<Act>>) -> Self {
        Self::start(move |_, n| responses[n.min(responses.len() - 1)].clone())
    }

    /// Responds to each request with the same.
    pub(crate) fn always(response: Vec<Act>) -> Self {
        Self::script(vec![response])
    }

    /// Calls `serve(connection, number of connections before it, state)` on a thread for each.
    pub(crate) fn listen(
        address: &str,
        serve: impl Fn(TcpStream, usize, &State) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let (shared, serve) = (Arc::clone(&state), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.is_stopped.load(Ordering::SeqCst) {
                    break;
                }
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                let (shared, serve) = (Arc::clone(&shared), Arc::clone(&serve));
                thread::spawn(move || serve(stream, number, &shared));
            }
        });
        Server { address, state }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin())
    }

    /// Polls each millisecond, for at most 20 s, and retries without delay.
    pub(crate) fn builder(&self) -> ClientBuilder {
        builder(self.url("/v2"))
    }

    pub(crate) fn client(&self) -> Client {
        self.builder().build().unwrap()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// The method and the target of each request.
    pub(crate) fn targets(&self) -> Vec<String> {
        let requests = self.requests().into_iter();
        let target = |request: Request| format!("{} {}", request.method, request.target);
        requests.map(target).collect()
    }

    pub(crate) fn posts(&self) -> usize {
        let requests = self.requests();
        requests.iter().filter(|request| request.is_post()).count()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.is_stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// As [`Server::builder`], for a base URL of the test's own.
pub(crate) fn builder(base_url: impl Into<String>) -> ClientBuilder {
    Client::builder(KEY)
        .base_url(base_url)
        .poll_interval(Duration::from_millis(1))
        .poll_timeout(Duration::from_secs(20))
        .retry_delay(Duration::ZERO)
}

/// A client of a port where nothing listens.
pub(crate) fn offline() -> Client {
    builder("http://127.0.0.1:9/v2").build().unwrap()
}

/// A callback that does this when it is first called.
pub(crate) fn once(act: impl FnOnce()) -> impl FnMut(Progress<'_>) {
    let mut act = Some(act);
    move |_| {
        if let Some(act) = act.take() {
            act();
        }
    }
}

impl State {
    /// Reads a request, and remembers it. Returns how many were before it, too.
    pub(crate) fn read(&self, reader: &mut impl BufRead, on: usize) -> Option<(Request, usize)> {
        let request = read_request(reader, on)?;
        let mut requests = self.requests.lock().unwrap();
        requests.push(request.clone());
        Some((request, requests.len() - 1))
    }

    /// Serves all requests of a connection.
    pub(crate) fn serve(
        &self,
        connection: impl Connection,
        number: usize,
        handler: &dyn Fn(&Request, usize) -> Vec<Act>,
    ) {
        let mut reader = BufReader::new(connection);
        while let Some((request, before)) = self.read(&mut reader, number) {
            for act in handler(&request, before) {
                if act.perform(&mut reader).is_err() {
                    return;
                }
            }
        }
    }
}

impl Act {
    /// An error ends the connection.
    fn perform(self, reader: &mut BufReader<impl Connection>) -> io::Result<()> {
        let close = Err(io::ErrorKind::ConnectionAborted.into());
        let (bytes, times) = match self {
            Act::Send(bytes) => (bytes, 1),
            Act::Repeat(bytes, times) => (bytes, times),
            Act::Stall(time) => {
                let timeout = |time| reader.get_ref().socket().set_read_timeout(time);
                timeout(Some(time))?;
                let _ = reader.fill_buf();
                return reader.get_ref().socket().set_read_timeout(None);
            }
            Act::Close => return close,
            Act::Reset => {
                let socket = socket2::SockRef::from(reader.get_ref().socket());
                socket.set_linger(Some(Duration::ZERO))?;
                return close;
            }
        };
        (0..times).try_for_each(|_| reader.get_mut().write_all(&bytes))?;
        reader.get_mut().flush()
    }
}

fn read_request(reader: &mut impl BufRead, connection: usize) -> Option<Request> {
    let lines = reader.by_ref().lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let mut words = head.first()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = head[1..].iter().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    let mut request = Request {
        method,
        target,
        headers: headers.collect(),
        body: String::new(),
        connection,
    };
    let length = request.header("content-length");
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).unwrap();
    Some(request)
}

/// An HTTP response with a Content-Length, unless the headers frame it otherwise.
pub(crate) fn http(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut head = format!("HTTP/1.1 {status} Whatever\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let framing = ["content-length", "transfer-encoding", "connection"];
    if !headers.iter().any(|(name, _)| framing.contains(name)) {
        head += &format!("content-length: {}\r\n", body.len());
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// A response on a connection that stays.
pub(crate) fn response(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<Act> {
    vec![Act::Send(http(status, headers, body))]
}

/// A response with a JSON body.
pub(crate) fn json(status: u16, body: &str) -> Vec<Act> {
    response(status, &[("content-type", "application/json")], body)
}

pub(crate) fn ok(body: impl Display) -> Vec<Act> {
    json(200, &body.to_string())
}

pub(crate) fn queued() -> Vec<Act> {
    json(201, r#"{"id": "gen:1", "status": "queued"}"#)
}

pub(crate) fn completed() -> Vec<Act> {
    ok(COMPLETED)
}

/// The cells of each line of a table, but blank lines and those that begin with `#`.
pub(crate) fn rows<const N: usize>(table: &str) -> impl Iterator<Item = [&str; N]> {
    let is_row = |line: &&str| !line.is_empty() && !line.starts_with('#');
    table.lines().map(str::trim).filter(is_row).map(cells)
}

/// The cells of a line of a table.
pub(crate) fn cells<const N: usize>(line: &str) -> [&str; N] {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    cells.try_into().unwrap()
}

/// The id of a request in [`refusal`].
pub(crate) const REQUEST_ID: &str = "3f0e1c1a-6f0e-4a8e-9d4a-000000000001";

/// An error of the documented shape.
pub(crate) fn refusal(status: u16, message: &str) -> Vec<Act> {
    let body = serde_json::json!({
        "message": message,
        "path": "/v2/generate/video/google/generation",
        "requestId": REQUEST_ID,
        "statusCode": status,
        "timestamp": "2026-08-01T12:00:00.000Z",
    });
    json(status, &body.to_string())
}

pub(crate) fn fox() -> VideoRequest {
    VideoRequest::new("A fox").client_request_id("fox-1")
}

/// A request with an image of this many bytes.
pub(crate) fn fox_with_image(size: usize) -> VideoRequest {
    let image = format!("data:image/png;base64,{}", "A".repeat(size));
    fox().model("google/veo-3.0-i2v").image_url(image)
}

/// A folder that is empty, and removed in the end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("aimlapi-video-test-{}-{number}", process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The names of all files in it, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string();
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> = entries.map(|entry| name(entry).unwrap()).collect();
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

/// The permissions of a file.
#[cfg(unix)]
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[cfg(unix)]
pub(crate) fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

/// Each makes something at a path that is no regular file. One is a link to the file `precious`
/// beside it.
pub(crate) const TRAPS: &[fn(&Path)] = &[
    |path| fs::create_dir(path).unwrap(),
    #[cfg(unix)]
    make_pipe,
    #[cfg(unix)]
    |path| std::os::unix::fs::symlink(path.with_file_name("precious"), path).unwrap(),
    #[cfg(unix)]
    |path| std::os::unix::fs::symlink(path.with_file_name("dangling"), path).unwrap(),
    #[cfg(unix)]
    |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
];

/// The variable that tells a test that it runs in a child process.
const CHILD: &str = "AIMLAPI_VIDEO_TEST_CHILD";

/// The task of this process, if it was started with [`child`].
pub(crate) fn child_task() -> Option<String> {
    env::var(CHILD).ok()
}

/// This test program again, to run `test` (its full name) with a task.
pub(crate) fn child(test: &str, task: &str) -> Command {
    let mut command = without_settings(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(CHILD, task);
    command
}

/// What that test printed, once it has succeeded.
pub(crate) fn child_output(mut child: Command) -> String {
    let output = child.output().unwrap();
    let text = stdout(&output);
    assert!(output.status.success(), "{text}{}", stderr(&output));
    text
}

/// What that test printed between `<` and `>`.
pub(crate) fn child_report(child: Command) -> String {
    let text = child_output(child);
    let (_, report) = text.split_once('<').unwrap();
    report.rsplit_once('>').unwrap().0.to_owned()
}

/// The most memory that this process had, in KiB.
#[cfg(target_os = "linux")]
pub(crate) fn peak_memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let (_, peak) = status.split_once("VmHWM:").unwrap();
    peak.split_whitespace().next().unwrap().parse().unwrap()
}

/// A shell command that ends in this one.
#[cfg(target_os = "linux")]
pub(crate) fn in_shell(shell: &[&str], script: &str, argument: &Path, test: &Command) -> Command {
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg("-c");
    command.arg(format!("{script}; exec \"$@\"")).arg(argument);
    command.arg(test.get_program()).args(test.get_args());
    let envs = test.get_envs();
    command.envs(envs.filter_map(|(name, value)| Some((name, value?))));
    command
}

/// An example, as `cargo test` built it.
pub(crate) fn example(name: &str) -> Command {
    let program = env::current_exe().unwrap();
    let target = program.parent().unwrap().parent().unwrap();
    let file = format!("{name}{}", env::consts::EXE_SUFFIX);
    let path = target.join("examples").join(file);
    assert!(path.exists(), "{path:?}: cargo build --examples");
    without_settings(path)
}

/// A program that no variable of this crate, and none about proxies, reaches.
fn without_settings(program: PathBuf) -> Command {
    let mut command = Command::new(program);
    let names = "AIMLAPI_KEY AIML_API_KEY AIMLAPI_API_KEY AIMLAPI_BASE_URL";
    let proxies = "ALL_PROXY HTTPS_PROXY HTTP_PROXY NO_PROXY";
    for name in names.split(' ').chain(proxies.split(' ')) {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
