//! The simulator's page in a real browser. On Debian: `apt-get install chromium chromium-driver`.
//! Its pictures are in `target/tmp`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, path::Path, thread};

use aimlapi_video::VideoRequest;
use aimlapi_video::simulator::{Download, Poll, Post, Simulator};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// A headless Chromium, driven by chromedriver.
struct Browser {
    driver: Child,
    /// Of its session.
    url: String,
}

impl Browser {
    fn start() -> Self {
        let mut driver = Command::new("chromedriver");
        let driver = driver.arg("--port=0").stdout(Stdio::piped()).spawn();
        let mut driver = driver.expect("apt-get install chromium chromium-driver");
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.map(Result::unwrap).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });
        let url = format!("http://127.0.0.1:{}/session", port.unwrap());
        let mut browser = Browser { driver, url };
        // Its folder for a user is a new and empty one each time.
        let arguments = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
            --disable-background-networking --disable-component-update --disable-sync";
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let capabilities = json!({"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }});
        let created = browser.command("", &json!({"capabilities": capabilities}));
        let session = created["sessionId"].as_str().unwrap();
        browser.url = format!("{}/{session}", browser.url);
        browser
    }

    /// The value of the response to a command of the WebDriver protocol.
    fn command(&self, name: &str, body: &Value) -> Value {
        value(ureq::post(format!("{}{name}", self.url)).send(body.to_string()))
    }

    fn run(&self, script: &str) -> Value {
        let script = format!("return {script}");
        self.command("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression is true.
    fn sees(&self, expression: &str) {
        let start = Instant::now();
        while self.run(expression) != true {
            let page = self.run("document.body.innerText");
            let is_late = start.elapsed() > Duration::from_secs(30);
            assert!(!is_late, "{expression}: {page}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until so many elements match.
    fn sees_all(&self, count: usize, selector: &str) {
        self.sees(&format!(
            "document.querySelectorAll('{selector}').length === {count}"
        ));
    }

    fn devtools(&self, command: &str, parameters: &Value) {
        let body = json!({"cmd": command, "params": parameters});
        self.command("/goog/cdp/execute", &body);
    }

    /// A picture of what is in sight, at this width.
    fn picture(&self, name: &str, width: u32, scheme: &str) {
        let metrics =
            json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.devtools(
            "Emulation.setEmulatedMedia",
            &json!({"features": [feature]}),
        );
        self.devtools("Emulation.setScrollbarsHidden", &json!({"hidden": true}));
        self.sees("document.documentElement.scrollWidth <= window.innerWidth");
        let picture = value(ureq::get(format!("{}/screenshot", self.url)).call());
        let picture = BASE64_STANDARD.decode(picture.as_str().unwrap());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(path, picture.unwrap()).unwrap();
    }
}

fn value(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Value {
    let text = response.unwrap().into_body().read_to_string().unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["value"].clone()
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with its session, whatever became of the test.
        let _ = ureq::delete(&self.url).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

#[test]
fn a_class_sees_each_request_each_state_and_the_video_playing() {
    let (simulator, browser) = (Simulator::start().unwrap(), Browser::start());
    let url = simulator.base_url().replace("/v2", "/");
    browser.command("/url", &json!({"url": url}));
    browser.sees("document.getElementById('live').textContent === '● live'");
    browser.sees("document.body.innerText.includes('No generation yet')");

    // Without a reload.
    let states = ["queued", "generating", "generating"].map(Poll::status);
    let end = [Poll::Reject(503), Poll::Complete];
    simulator.script_polls(states.into_iter().chain(end));
    simulator.script_downloads([Download::Reject(503)]);
    let builder = simulator.client_builder();
    let builder = builder.poll_interval(Duration::from_millis(400));
    let client = builder.build().unwrap();
    let create = |prompt: &str| client.generate_video(&VideoRequest::new(prompt));
    let prompts = [
        "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">",
        "A paper boat sails through a puddle at dawn",
        "Ein Fuchs im Schnee",
    ];
    let ids = prompts.map(|prompt| create(prompt).unwrap().id);
    thread::scope(|scope| {
        for id in &ids {
            scope.spawn(|| client.wait_for_video(id, |_| {}).unwrap());
        }
        browser.sees_all(3, ".card.working");
    });
    browser.sees_all(3, ".card.good");
    browser.sees("[...document.querySelectorAll('.steps')].every(steps => /queued .* generating .* 503 .* completed/s.test(steps.innerText.replaceAll('\\n', ' ')))");
    let play = |count: usize| {
        let playing =
            "!video.paused && video.muted && video.currentTime > 0.5 && video.videoWidth === 1280";
        browser.sees(&format!(
            "[...document.querySelectorAll('video')].filter(video => {playing}).length === {count}"
        ));
    };
    play(3);

    // What a program sends is text, and scripts are for programs.
    let newest_first =
        "[...document.querySelectorAll('.prompt')].map(prompt => prompt.textContent)";
    let [first, second, third] = prompts;
    assert_eq!(browser.run(newest_first), json!([third, second, first]));
    assert_eq!(browser.run("document.title"), "AI/ML API simulator");
    assert_eq!(browser.run("document.images.length"), 0);
    let received = simulator.received();
    assert!(received.iter().all(|one| one.url.starts_with("/v2/")));
    let video = client.get_video(&ids[0]).unwrap().video.unwrap();
    let rejected = ureq::get(video.url).call().unwrap_err().to_string();
    assert_eq!(rejected, "http status: 503", "the step was left");

    let fail = Poll::fail("SafetyError", "No dragons.");
    simulator.script_polls([Poll::status("queued"), fail]);
    simulator.script_posts([Post::Accept, Post::Reject(429), Post::DropResponse]);
    for prompt in ["A dragon", "A castle", "A lighthouse in a storm"] {
        let _ = create(prompt).map(|created| client.wait_for_video(&created.id, |_| {}));
    }
    browser.sees_all(1, ".card.bad");
    browser.sees("document.body.innerText.includes('no response')");
    browser.sees("document.getElementById('cost').textContent === '0.18 USD'");

    browser.picture("page-1280.png", 1280, "light");
    browser.picture("page-1280-dark.png", 1280, "dark");
    browser.picture("page-360.png", 360, "light");
    browser.run("document.querySelector('.requests').scrollIntoView()");
    browser.picture("page-360-requests.png", 360, "dark");

    // Thirty programs at once, for a while: the lists stay short.
    simulator.script_polls([Poll::status("queued"), Poll::Complete]);
    thread::scope(|scope| {
        for number in 0..30 {
            let client = simulator.client();
            scope.spawn(move || {
                for _ in 0..5 {
                    let request = VideoRequest::new(format!("Program {number}"));
                    let id = client.generate_video(&request).unwrap().id;
                    let _ = client.wait_for_video(&id, |_| {}).unwrap();
                }
            });
        }
    });
    browser.sees_all(100, ".card");
    browser.sees_all(100, ".request");
    play(6);
    browser.sees_all(6, "video");
    browser.run("document.querySelectorAll('.card')[99].querySelector('button').click()");
    play(7);
    browser.run("window.scrollTo(0, 0)");
    browser.picture("page-class.png", 1280, "light");

    let log = browser.command("/se/log", &json!({"type": "browser"}));
    assert_eq!(log, json!([]), "no error and no violation of the policy");
    drop(simulator);
    browser.sees("document.getElementById('live').textContent.includes('has stopped')");
}
