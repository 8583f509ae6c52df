//! The simulator's page in a real browser. On Debian: `apt-get install chromium chromium-driver`.
//! Its pictures are in `target/tmp`.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, net::TcpStream, path::Path, thread};

use aimlapi_video::VideoRequest;
use aimlapi_video::simulator::{Poll, Post, Simulator};
use serde_json::{Value, json};

/// A headless Chromium, driven by chromedriver.
struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

impl Browser {
    fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("chromedriver: apt-get install chromium chromium-driver");
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.map(Result::unwrap).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        });
        let session = String::new();
        let mut browser = Browser {
            driver,
            port: port.unwrap(),
            session,
        };
        // Its folder for a user is a new and empty one each time.
        let arguments = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
            --disable-background-networking --disable-component-update --disable-sync";
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let capabilities = json!({"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }});
        let created = browser.ask("POST", "/session", &json!({"capabilities": capabilities}));
        browser.session = created["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// The value of a response of the WebDriver protocol.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let minute = Some(Duration::from_secs(60));
        stream.set_read_timeout(minute).unwrap();
        let body = if method == "GET" {
            String::new()
        } else {
            body.to_string()
        };
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let (mut reader, mut status, mut length) = (BufReader::new(stream), String::new(), 0);
        reader.read_line(&mut status).unwrap();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            match line.trim_end().to_ascii_lowercase().split_once(':') {
                Some(("content-length", text)) => length = text.trim().parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert!(status.contains(" 200 "), "{path}: {body}");
        body["value"].clone()
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", &format!("/session/{}/{path}", self.session), body)
    }

    fn run(&self, script: &str) -> Value {
        let script = format!("return {script}");
        self.command("execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression is true.
    fn sees(&self, expression: &str) {
        let start = Instant::now();
        while self.run(expression) != true {
            let page = self.run("document.body.innerText");
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "{expression}: {page}"
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn devtools(&self, command: &str, parameters: &Value) {
        let body = json!({"cmd": command, "params": parameters});
        self.command("goog/cdp/execute", &body);
    }

    /// A picture of what is in sight, at this width.
    fn picture(&self, name: &str, width: u32, height: u32, scheme: &str) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.devtools(
            "Emulation.setEmulatedMedia",
            &json!({"features": [feature]}),
        );
        self.devtools("Emulation.setScrollbarsHidden", &json!({"hidden": true}));
        self.sees("document.documentElement.scrollWidth <= window.innerWidth");
        let path = format!("/session/{}/screenshot", self.session);
        let picture = self.ask("GET", &path, &Value::Null);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(path, decode(picture.as_str().unwrap())).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with its session, whatever became of the test.
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let head = format!(
                "DELETE /session/{} HTTP/1.1\r\nHost: localhost",
                self.session
            );
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            let _ = write!(stream, "{head}\r\n\r\n");
            let _ = stream.read(&mut [0]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Base64, padded.
fn decode(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |byte: &u8| alphabet.iter().position(|known| known == byte);
    let digits: Vec<usize> = text.as_bytes().iter().filter_map(digit).collect();
    let bytes = digits.chunks(4).flat_map(|chunk| {
        let number = (0..4).fold(0, |sum, at| sum << 6 | chunk.get(at).unwrap_or(&0));
        number.to_be_bytes()[5..]
            .iter()
            .copied()
            .take(chunk.len() - 1)
            .collect::<Vec<u8>>()
    });
    bytes.collect()
}

#[test]
fn a_class_sees_each_request_each_state_and_the_video_playing() {
    let simulator = Simulator::start().unwrap();
    let browser = Browser::start();
    let url = simulator.base_url().replace("/v2", "/");
    browser.command("url", &json!({"url": url}));
    browser.sees("document.getElementById('live').textContent === '● live'");
    browser.sees("document.body.innerText.includes('No generation yet')");

    // Without a reload.
    let states = ["queued", "generating", "generating"].map(Poll::status);
    simulator.script_polls(
        states
            .into_iter()
            .chain([Poll::Reject(503), Poll::Complete]),
    );
    let builder = simulator.client_builder();
    let client = builder
        .poll_interval(Duration::from_millis(400))
        .build()
        .unwrap();
    let attack =
        "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">";
    let prompts = [
        attack,
        "A paper boat sails through a puddle at dawn, close-up, rain",
        "Ein Fuchs im Schnee",
    ];
    let ids = prompts.map(|prompt| {
        let request = VideoRequest::new(prompt).resolution("1080P").duration(8);
        client.generate_video(&request).unwrap().id
    });
    thread::scope(|scope| {
        for id in &ids {
            scope.spawn(|| client.wait_for_video(id, |_| {}).unwrap());
        }
        browser.sees("document.querySelectorAll('.card.working').length === 3");
    });
    browser.sees("document.querySelectorAll('.card.good').length === 3");
    browser.sees("[...document.querySelectorAll('.steps')].every(steps => /queued .* generating .* 503 .* completed/s.test(steps.innerText.replaceAll('\\n', ' ')))");
    let playing = "[...document.querySelectorAll('video')].filter(video => !video.paused && video.muted && video.currentTime > 0.5)";
    browser.sees(&format!("{playing}.length === 3"));
    browser
        .sees("[...document.querySelectorAll('video')].every(video => video.videoWidth === 1280)");

    // What a program sends is text, and scripts are for programs.
    let shown =
        browser.run("[...document.querySelectorAll('.prompt')].map(prompt => prompt.textContent)");
    assert!(
        prompts
            .iter()
            .all(|prompt| shown.as_array().unwrap().contains(&json!(prompt))),
        "{shown}"
    );
    assert_eq!(browser.run("document.title"), "AI/ML API simulator");
    assert_eq!(browser.run("document.images.length"), 0);
    assert!(
        simulator
            .received()
            .iter()
            .all(|request| request.url.starts_with("/v2/"))
    );

    simulator.script_polls([
        Poll::status("queued"),
        Poll::fail("SafetyError", "No dragons."),
    ]);
    simulator.script_posts([Post::Accept, Post::Reject(429), Post::DropResponse]);
    for prompt in [
        "A dragon",
        "A castle",
        "A lighthouse in a storm, seen from the sea",
    ] {
        let created = client.generate_video(&VideoRequest::new(prompt));
        let _ = created.map(|created| client.wait_for_video(&created.id, |_| {}));
    }
    browser.sees("document.querySelectorAll('.card.bad').length === 1");
    browser.sees("document.body.innerText.includes('no response')");
    browser.sees("document.getElementById('cost').textContent === '0.18 USD'");

    browser.picture("page-1280.png", 1280, 800, "light");
    browser.picture("page-1280-dark.png", 1280, 800, "dark");
    browser.picture("page-360.png", 360, 800, "light");
    browser.run("document.querySelector('.requests').scrollIntoView()");
    browser.picture("page-360-requests.png", 360, 800, "dark");

    // Thirty programs at once, for a while: the lists stay short.
    simulator.script_polls([Poll::status("queued"), Poll::Complete]);
    thread::scope(|scope| {
        for number in 0..30 {
            let client = simulator.client();
            scope.spawn(move || {
                for _ in 0..5 {
                    let request = VideoRequest::new(format!("Program {number}"));
                    let id = client.generate_video(&request).unwrap().id;
                    _ = client.wait_for_video(&id, |_| {}).unwrap();
                }
            });
        }
    });
    browser.sees("document.querySelectorAll('.card').length === 100");
    browser.sees("document.querySelectorAll('.request').length === 100");
    browser.sees(&format!("{playing}.length === 6"));
    browser.sees("document.querySelectorAll('video').length === 6");
    browser.run("document.querySelectorAll('.card')[99].querySelector('button').click()");
    browser.sees(&format!("{playing}.length === 7"));
    browser.run("window.scrollTo(0, 0)");
    browser.picture("page-class.png", 1280, 800, "light");

    let log = browser.command("se/log", &json!({"type": "browser"}));
    assert_eq!(log, json!([]), "no error and no violation of the policy");
    drop(simulator);
    browser.sees("document.getElementById('live').textContent.includes('has stopped')");
}
