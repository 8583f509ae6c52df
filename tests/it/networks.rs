//! Networks with authorities, proxies and protocols of their own: refused or served, never paid for
//! by accident.

use std::{io::Read, net::TcpListener, sync::Mutex};

use aimlapi_video::{Client, Error, Generation, VideoRequest};

use crate::support::{Act, KEY, Request, Server, builder, child, child_output};
use crate::support::{child_report, child_task, ok, queued, response};

pub(crate) const FILM: &str = "\0\0\0\x18ftyp a film of a fox";

/// The whole API, with a file server at the origin `cdn`.
fn respond(request: &Request, cdn: &str) -> Vec<Act> {
    if request.is_post() {
        queued()
    } else if request.target.starts_with("/film.mp4") {
        response(200, &[], FILM)
    } else {
        let url = format!("{cdn}/film.mp4?signature=sig-secret");
        let body = serde_json::json!({"id": "gen:1", "status": "completed", "video": {"url": url}});
        ok(body)
    }
}

/// The whole API, whose file server is itself.
pub(crate) fn respond_alone(request: &Request) -> Vec<Act> {
    let host = request.header("host").unwrap();
    respond(request, &format!("http://{host}"))
}

fn whole_api(address: &str) -> Server {
    Server::listen(address, |stream, number, state| {
        state.serve(stream, number, &|request, _| respond_alone(request))
    })
}

fn post(client: &Client) -> Result<Generation, Error> {
    client.generate_video(&VideoRequest::new("A fox"))
}

/// Makes a film and reads it, or what is said of that.
pub(crate) fn save(client: &Client) -> Result<String, Error> {
    let video = client.wait_for_video(&post(client)?.id, |_| {})?;
    let mut film = String::new();
    let read = client.open_video(&video).read_to_string(&mut film);
    Ok(read.map_or_else(|error| error.to_string(), |_| film))
}

/// Does `post`, `wait` or `save` at a base URL in a process with variables of its own. Returns what
/// came of it.
fn run(call: &str, base_url: &str, variables: &[(&str, &str)]) -> String {
    let test = "networks::loopback_is_never_asked_for_through_a_proxy";
    let mut command = child(test, &format!("{call} {base_url}"));
    command.envs(variables.iter().copied());
    child_report(command)
}

#[test]
fn loopback_is_never_asked_for_through_a_proxy() {
    if let Some(task) = child_task() {
        let (call, url) = task.split_once(' ').unwrap();
        let client = builder(url).build().unwrap();
        let result = match call {
            "post" => post(&client).map(|generation| generation.id),
            "wait" => client.wait_for_video("gen:1", |_| {}).map(|v| v.url),
            _ => save(&client),
        };
        return println!("<{}>", result.unwrap_or_else(|error| error.to_string()));
    }
    let api = whole_api("127.0.0.1:0");
    let proxy = Server::script(vec![vec![Act::Close]]);
    for name in ["ALL_PROXY", "HTTP_PROXY", "https_proxy"] {
        let host = ["127.0.0.1", "localhost"][usize::from(name == "HTTP_PROXY")];
        let url = api.url("/v2").replace("127.0.0.1", host);
        assert_eq!(run("save", &url, &[(name, &proxy.origin())]), FILM);
    }
    assert_eq!((api.posts(), proxy.connections()), (3, 0));
}

#[test]
fn ipv6_works_as_ipv4_does() {
    if TcpListener::bind("[::1]:0").is_err() {
        // Without IPv6, the URL is as good as any other where nothing listens.
        let error = post(&builder("http://[::1]:9/v2").build().unwrap()).unwrap_err();
        assert!(matches!(error, Error::Network { .. }), "{error}");
        return;
    }
    let api = whole_api("[::1]:0");
    assert!(api.origin().starts_with("http://[::1]:"));
    assert_eq!(save(&api.client()).unwrap(), FILM);
}

struct Recorder(Mutex<String>);

static RECORDER: Recorder = Recorder(Mutex::new(String::new()));

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}\n", record.level(), record.args());
        self.0.lock().unwrap().push_str(&line);
    }

    fn flush(&self) {}
}

#[test]
fn a_log_holds_the_key_at_the_level_trace_alone() {
    let Some(level) = child_task() else {
        let test = "networks::a_log_holds_the_key_at_the_level_trace_alone";
        for level in ["DEBUG", "TRACE"] {
            child_output(child(test, level));
        }
        return;
    };
    log::set_logger(&RECORDER).unwrap();
    log::set_max_level(level.parse().unwrap());
    assert_eq!(save(&whole_api("127.0.0.1:0").client()).unwrap(), FILM);
    let records = RECORDER.0.lock().unwrap();
    assert!(records.contains(&level), "{records}");
    // What is sent is dumped in hexadecimal, with 16 characters beside it in each line.
    let dumped = records.lines().filter_map(|line| line.rsplit_once("  "));
    let dumped: String = dumped.map(|(_, dumped)| dumped).collect();
    for secret in [KEY, "sig-secret"] {
        let seen = records.contains(secret) || dumped.contains(secret);
        assert_eq!(seen, level == "TRACE", "{secret} in\n{records}");
    }
}

#[cfg(not(any(feature = "rustls", feature = "native-tls")))]
#[test]
fn without_tls_an_https_url_names_the_features_that_bring_it() {
    let needs = "needs the feature `rustls` or `native-tls`";
    let error = builder("https://api.aimlapi.com/v2").build().unwrap_err();
    let text =
        format!("the base URL {needs}; it is like https://api.aimlapi.com/v2; nothing was sent");
    assert_eq!(error.to_string(), text);
    let api = Server::start(|request, _| respond(request, "https://127.0.0.1:1"));
    let text = format!("the video's URL {needs}. {}", crate::download::PAID);
    assert_eq!(save(&api.client()).unwrap(), text);
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
mod tls {
    use std::io::{BufReader, Write};
    use std::net::TcpStream;
    use std::time::{Duration, Instant};
    use std::{path::PathBuf, sync::Arc, thread};

    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    use rustls::{ServerConfig, ServerConnection, StreamOwned};

    use super::*;
    use crate::support::{Connection, SAFE, State};

    /// Whether this build trusts the authorities that SSL_CERT_FILE names.
    const TRUSTS_THE_SYSTEM: bool = cfg!(all(
        target_os = "linux",
        any(feature = "native-tls", feature = "platform-verifier")
    ));

    fn certificate(name: &str) -> PathBuf {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/certificates");
        folder.join(name)
    }

    /// As [`run`], where the system trusts this authority.
    fn run_trusting(authority: &str, call: &str, url: &str, variables: &[(&str, &str)]) -> String {
        let authority = certificate(authority).display().to_string();
        let variables = [variables, &[("SSL_CERT_FILE", &*authority)]].concat();
        run(call, url, &variables)
    }

    impl Connection for StreamOwned<ServerConnection, TcpStream> {
        fn socket(&self) -> &TcpStream {
            &self.sock
        }
    }

    /// Calls `serve` for each connection, with a TLS connection that has this certificate.
    fn listen_with_tls(
        file: &str,
        serve: impl Fn(ServerConnection, TcpStream, usize, &State) + Send + Sync + 'static,
    ) -> Server {
        let chain = vec![CertificateDer::from_pem_file(certificate(file)).unwrap()];
        let key = PrivateKeyDer::from_pem_file(certificate("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key);
        let config = Arc::new(config.unwrap());
        Server::listen("127.0.0.1:0", move |stream, number, state| {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            serve(tls, stream, number, state);
        })
    }

    /// An HTTPS server with this certificate.
    fn https_server(
        file: &str,
        handler: impl Fn(&Request, usize) -> Vec<Act> + Send + Sync + 'static,
    ) -> Server {
        listen_with_tls(file, move |tls, stream, number, state| {
            state.serve(StreamOwned::new(tls, stream), number, &handler);
        })
    }

    const NO_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\r\n";

    /// Responds to a TLS greeting with these bytes.
    fn greet(mut stream: TcpStream, bytes: &[u8]) {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(bytes);
    }

    /// The whole API over HTTPS, with a file server at the origin `cdn`.
    fn https_api(file: &str, cdn: &str) -> Server {
        let cdn = cdn.to_owned();
        https_server(file, move |request, _| respond(request, &cdn))
    }

    fn https(server: &Server) -> String {
        format!("https://{}/v2", server.address())
    }

    const ADVICE: &str = "Behind a proxy with a certificate authority of its own, build with the \
        feature `platform-verifier` or `native-tls`; a server without TLS needs an http URL, which \
        must be loopback";

    /// Checks the text about a server that was refused, and what the TLS library says in it.
    fn assert_refused(text: impl ToString, start: &str, server: &Server, cause: &str) {
        let (text, host) = (text.to_string(), server.address());
        let start = format!("{start}{host}: the TLS library refused the server (");
        let rest = text.strip_prefix(&start).and_then(|r| r.split_once("). "));
        let (said, advice) = rest.unwrap_or_else(|| panic!("{text}"));
        let is_of_time = cause.contains("certificate expired") || cause.contains("valid yet");
        let start = ["This computer's date is 2", ADVICE][usize::from(!is_of_time)];
        assert!(advice.starts_with(start), "{text}");
        assert_eq!(advice.contains(": check its clock"), is_of_time, "{text}");
        if cfg!(not(feature = "native-tls")) {
            assert!(said.contains(cause), "{said}");
        } else if cfg!(target_os = "linux") && !cause.is_empty() {
            assert!(said.contains("certificate verify failed"), "{said}");
        }
    }

    const UNKNOWN: &str = "invalid peer certificate: UnknownIssuer";

    #[test]
    fn a_certificate_that_is_not_trusted_is_refused_before_anything_is_sent() {
        let another_name = "certificate not valid for name \"127.0.0.1\"";
        let [ours, other] = ["authority.pem", "other_authority.pem"];
        // Its dates are checked before its signature.
        for (file, authority, cause, is_certain) in [
            ("server.pem", other, "UnknownIssuer", TRUSTS_THE_SYSTEM),
            ("expired.pem", ours, "certificate expired", true),
            ("not_yet_valid.pem", ours, "certificate not valid yet", true),
            ("another_name.pem", ours, another_name, TRUSTS_THE_SYSTEM),
        ] {
            let server = https_api(file, "");
            let cause = ["", cause][usize::from(is_certain)];
            let cause = format!("invalid peer certificate: {cause}");
            for (call, start) in [("post", ""), ("wait", "generation gen:1: ")] {
                let text = run_trusting(authority, call, &https(&server), &[]);
                assert_refused(text, start, &server, &cause);
            }
            // A wait ends at once: no later poll can do better.
            assert_eq!((server.connections(), server.requests().len()), (2, 0));
        }
    }

    #[test]
    fn the_systems_authorities_are_trusted_by_the_features_that_say_so() {
        let cdn = https_api("server.pem", "");
        let api = https_api("server.pem", &format!("https://{}", cdn.address()));
        let text = run_trusting("authority.pem", "save", &https(&api), &[]);
        if TRUSTS_THE_SYSTEM {
            assert_eq!(text, FILM);
            assert_eq!((api.requests().len(), cdn.requests().len()), (2, 1));
        } else {
            assert_refused(text, "", &api, UNKNOWN);
            assert_eq!(api.requests().len(), 0);
        }
    }

    #[test]
    fn a_file_server_that_is_not_trusted_ends_a_download_after_five_handshakes() {
        let cdn = https_api("server.pem", "");
        let origin = format!("https://{}", cdn.address());
        let api = Server::start(move |request, _| respond(request, &origin));
        let text = save(&api.client()).unwrap();
        assert_refused(text, crate::download::FIVE, &cdn, UNKNOWN);
        assert_eq!((cdn.connections(), cdn.requests().len()), (5, 0));
    }

    #[test]
    fn a_server_without_tls_is_refused_and_an_alert_is_like_a_reset() {
        // Fatal alerts (RFC 8446, 6.2): handshake failure, bad certificate, protocol version,
        // internal error, certificate required.
        let alerts = [40, 42, 70, 80, 116].map(|code| (vec![21, 3, 3, 0, 2, 2, code], true));
        let hello = vec![22, 3, 3, 0, 4, 2, 0, 0, 0];
        let others = [(NO_TLS.to_vec(), false), (hello, false), (Vec::new(), true)];
        for (bytes, is_transient) in alerts.into_iter().chain(others) {
            let server = Server::listen("127.0.0.1:0", move |stream, _, _| greet(stream, &bytes));
            let time = Duration::from_millis(if is_transient { 200 } else { 20_000 });
            let client = builder(https(&server)).poll_timeout(time);
            let client = client.build().unwrap();
            let posted = post(&client).unwrap_err();
            assert!(matches!(posted, Error::Network { .. }), "{posted}");
            assert_eq!(posted.is_transient(), is_transient, "{posted}");
            let waited = client.wait_for_video("gen:1", |_| {}).unwrap_err();
            if is_transient {
                assert!(matches!(waited, Error::TimedOut { .. }), "{waited}");
                continue;
            }
            assert_refused(waited, "generation gen:1: ", &server, "");
            assert_eq!(server.connections(), 2);
        }
    }

    #[test]
    fn a_record_that_can_not_be_decrypted_is_like_a_reset() {
        let server = listen_with_tls("server.pem", |mut tls, mut stream, _, _| {
            tls.read_tls(&mut stream).unwrap();
            tls.process_new_packets().unwrap();
            let mut bytes = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut bytes).unwrap();
            }
            // The last byte belongs to a record that is encrypted.
            *bytes.last_mut().unwrap() ^= 1;
            stream.write_all(&bytes).unwrap();
            let _ = stream.read(&mut [0; 9]);
        });
        let client = builder(https(&server)).build().unwrap();
        let error = client.get_video("gen:1").unwrap_err();
        assert!(error.is_transient(), "{error}");
        let text = format!("generation gen:1: no response from {}: ", server.address());
        assert!(error.to_string().starts_with(&text), "{error}");
        assert!(error.to_string().contains("decrypt"), "{error}");
    }

    #[test]
    fn a_handshake_that_stalls_or_drips_is_cut_and_charges_nothing() {
        // A record of 16 KiB, byte by byte, for a minute.
        let record = [&[22, 3, 3, 64, 0][..], &[2; 12_000]].concat();
        for count in [0, record.len()] {
            let drops = record[..count].to_vec();
            let server = Server::listen("127.0.0.1:0", move |mut stream, _, _| {
                let _ = stream.read(&mut [0; 4096]);
                let _ = drops.iter().try_for_each(|byte| {
                    thread::sleep(Duration::from_millis(5));
                    stream.write_all(&[*byte])
                });
                let _ = stream.read(&mut [0; 4096]);
            });
            let time = Duration::from_millis(100);
            let builder = builder(https(&server)).request_timeout(time);
            let client = builder.poll_timeout(time).build().unwrap();
            let started = Instant::now();
            let text = post(&client).unwrap_err().to_string();
            assert!(text.contains("timed out") && text.ends_with(SAFE), "{text}");
            let waited = client.wait_for_video("gen:1", |_| {}).unwrap_err();
            assert!(matches!(waited, Error::TimedOut { .. }), "{waited}");
            assert!(started.elapsed() < Duration::from_secs(20));
        }
    }

    /// What needs a server that is trusted.
    #[cfg(all(
        target_os = "linux",
        any(feature = "native-tls", feature = "platform-verifier")
    ))]
    mod trusted {
        use super::*;
        use crate::download::PAID;

        fn run_trusting(call: &str, server: &Server) -> String {
            super::run_trusting("authority.pem", call, &https(server), &[])
        }

        #[test]
        fn a_tls_connection_that_breaks_after_the_request_leaves_the_outcome_unknown() {
            let head = Act::Send(b"HTTP/1.1 201 Created\r\n".to_vec());
            for acts in [vec![Act::Close], vec![Act::Reset], vec![head, Act::Close]] {
                let api = https_server("server.pem", move |_, _| acts.clone());
                let text = run_trusting("post", &api);
                let start = "the generation may have been made and charged: ";
                assert!(text.starts_with(start), "{text}");
                assert_eq!(api.targets(), ["POST /v2/generate/video/google/generation"]);
            }
        }

        #[test]
        fn a_handshake_refused_after_a_good_response_is_tried_again() {
            let respond = |request: &Request, number| match number {
                0 => [queued(), vec![Act::Close]].concat(),
                _ => respond(request, "https://cdn"),
            };
            let api = listen_with_tls("server.pem", move |tls, stream, number, state| {
                if number == 1 {
                    return greet(stream, NO_TLS);
                }
                state.serve(StreamOwned::new(tls, stream), number, &respond);
            });
            let url = "https://cdn/film.mp4?signature=sig-secret";
            assert_eq!(run_trusting("wait", &api), url);
            assert_eq!((api.connections(), api.requests().len()), (3, 2));
        }

        #[test]
        fn an_https_file_server_may_not_redirect_to_http() {
            let plain = whole_api("127.0.0.1:0");
            let location = plain.url("/film.mp4?signature=sig-secret");
            let redirect = response(302, &[("location", &location)], "");
            let cdn = https_server("server.pem", move |_, _| redirect.clone());
            for scheme in ["https", "HTTPS"] {
                let api = https_api("server.pem", &format!("{scheme}://{}", cdn.address()));
                let text = format!("{} redirects from https to http. {PAID}", cdn.address());
                assert_eq!(run_trusting("save", &api), text);
            }
            assert_eq!((cdn.requests().len(), plain.connections()), (2, 0));
        }
    }

    #[test]
    fn a_job_goes_through_the_proxy_of_the_environment() {
        for name in ["HTTPS_PROXY", "all_proxy"] {
            // It connects everyone to itself.
            let proxy = listen_with_tls("server.pem", |tls, mut stream, number, state| {
                let _ = state.read(&mut BufReader::new(&stream), number);
                let connected = b"HTTP/1.1 200 Connection established\r\n\r\n";
                stream.write_all(connected).unwrap();
                state.serve(StreamOwned::new(tls, stream), number, &|request, _| {
                    respond(request, "https://cdn.test.example")
                });
            });
            let proxy_url = format!("http://user:proxy-secret@{}", proxy.address());
            let url = "https://api.test.example:8443/v2";
            let text = run_trusting("authority.pem", "save", url, &[(name, &*proxy_url)]);
            let targets = [
                "CONNECT api.test.example:8443",
                "POST /v2/generate/video/google/generation",
                "GET /v2/generate/video/google/generation?generation_id=gen%3A1",
                "CONNECT cdn.test.example:443",
                "GET /film.mp4?signature=sig-secret",
            ];
            if TRUSTS_THE_SYSTEM {
                assert_eq!(text, FILM);
                assert_eq!(proxy.targets(), targets);
            } else {
                let start = "api.test.example:8443: the TLS library refused the server (";
                assert!(text.starts_with(start), "{text}");
                assert_eq!(proxy.targets(), targets[..1]);
            }
            for request in proxy.requests() {
                let is_for_proxy = request.method == "CONNECT";
                let basic = is_for_proxy.then_some("Basic dXNlcjpwcm94eS1zZWNyZXQ=");
                assert_eq!(request.header("proxy-authorization"), basic);
                let has_key = request.header("authorization").is_some();
                assert_eq!(has_key, request.target.starts_with("/v2"));
            }
        }
    }

    #[test]
    fn a_proxy_that_refuses_charges_nothing_and_its_password_is_in_no_text() {
        let asking = "HTTP/1.1 407 Password\r\n\r\nproxy-secret";
        let refused = "CONNECT proxy failed: proxy server responded 407/407";
        for (response, cause) in [(asking, refused), ("", "")] {
            let proxy = Server::listen("127.0.0.1:0", |mut stream, number, state| {
                let _ = state.read(&mut BufReader::new(&stream), number);
                let _ = stream.write_all(response.as_bytes());
            });
            let url = format!("http://user:proxy-secret@{}", proxy.address());
            // A host in NO_PROXY is asked for without it.
            let direct = "no-such-host.invalid";
            let variables = [("HTTPS_PROXY", &*url), ("NO_PROXY", direct)];
            for (host, cause, is_asked) in [("api.test.example", cause, 1), (direct, "", 0)] {
                let before = proxy.connections();
                let text = run("post", &format!("https://{host}/v2"), &variables);
                let start = format!("no response from {host}: {cause}");
                assert!(text.starts_with(&start) && text.ends_with(SAFE), "{text}");
                assert!(!text.contains("secret"), "{text}");
                assert_eq!(proxy.connections(), before + is_asked);
            }
        }
    }
}
