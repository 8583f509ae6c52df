//! Networks with authorities, proxies and protocols of their own: refused or served, never paid for by accident.

use std::{net::TcpListener, sync::Mutex, time::Duration};

use aimlapi_video::{Client, Error, VideoRequest};

use crate::support::{
    Act, KEY, Request, Server, child, child_task, http, json, queued, quick, stderr, stdout,
};

/// Runs `test` of this file in a process of its own, with these variables and no others that steer networks.
fn run(test: &str, task: &str, variables: &[(&str, &str)]) -> String {
    let mut command = child(&format!("networks::{test}"), task);
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = stdout(&output);
    assert!(output.status.success(), "{text}{}", stderr(&output));
    text[text.find('<').unwrap() + 1..text.rfind('>').unwrap()].to_owned()
}

/// What [`run`] runs: `CALL BASE_URL`, answered with what came of it.
fn act(task: &str) {
    let (call, url) = task.split_once(' ').unwrap();
    let client = Client::builder(KEY)
        .base_url(url)
        .retry_pause(Duration::ZERO)
        .build()
        .unwrap();
    let post = || client.generate_video(&VideoRequest::new("A fox").client_request_id("fox-1"));
    let wait = || client.wait_for_video("gen:1", &quick(), |_| {});
    let result = match call {
        "post" => post().map(|generation| generation.id),
        "wait" => wait().map(|video| video.url),
        _ => post().and_then(|_| wait()).and_then(|video| {
            let mut bytes = Vec::new();
            client.download_video_to(&video, &mut bytes, |_, _| {})?;
            Ok(String::from_utf8(bytes).unwrap())
        }),
    };
    match result {
        Ok(text) => println!("<{text}>"),
        Err(Error::Network { cause, .. }) => println!("<Network: {cause}>"),
        Err(error) => println!("<{error}>"),
    }
}

const FILM: &str = "\0a film of a fox";

/// The whole API, and a file server at `cdn`.
fn answer(request: &Request, cdn: &str) -> Vec<Act> {
    if request.is_post() {
        queued()
    } else if request.target.starts_with("/film.mp4") {
        vec![Act::Send(http(200, &[("content-type", "video/mp4")], FILM))]
    } else {
        let url = format!("{cdn}/film.mp4?signature=sig-secret");
        let body = serde_json::json!({"id": "gen:1", "status": "completed", "video": {"url": url}});
        json(200, &body.to_string())
    }
}

/// The API whose file server is itself.
fn whole_api() -> Server {
    Server::start(|request, _| {
        answer(
            request,
            &format!("http://{}", request.header("host").unwrap()),
        )
    })
}

#[test]
fn this_machine_is_never_asked_for_through_a_proxy() {
    if let Some(task) = child_task() {
        return act(&task);
    }
    let (api, proxy) = (whole_api(), Server::script(vec![vec![Act::Close]]));
    let origin = proxy.origin();
    for (name, host) in [
        ("ALL_PROXY", "127.0.0.1"),
        ("HTTP_PROXY", "localhost"),
        ("https_proxy", "127.0.0.1"),
    ] {
        let url = api.url("/v2").replace("127.0.0.1", host);
        let test = "this_machine_is_never_asked_for_through_a_proxy";
        assert_eq!(run(test, &format!("save {url}"), &[(name, &origin)]), FILM);
    }
    assert_eq!((api.posts(), proxy.connections()), (3, 0));
}

#[test]
fn ipv6_works_as_ipv4_does() {
    if TcpListener::bind("[::1]:0").is_err() {
        // A machine without IPv6: the address is as good as any other where nobody listens.
        let client = Client::builder(KEY)
            .base_url("http://[::1]:9/v2")
            .build()
            .unwrap();
        let error = client
            .generate_video(&VideoRequest::new("A fox"))
            .unwrap_err();
        assert!(matches!(error, Error::Network { .. }), "{error}");
        return;
    }
    let api = Server::start_on("[::1]:0", |request, _| {
        answer(
            request,
            &format!("http://{}", request.header("host").unwrap()),
        )
    });
    assert!(api.origin().starts_with("http://[::1]:"));
    let client = api.client();
    let generation = client.generate_video(&VideoRequest::new("A fox")).unwrap();
    let video = client
        .wait_for_video(&generation.id, &quick(), |_| {})
        .unwrap();
    let mut bytes = Vec::new();
    client
        .download_video_to(&video, &mut bytes, |_, _| {})
        .unwrap();
    assert_eq!((bytes.as_slice(), api.posts()), (FILM.as_bytes(), 1));
}

static RECORDS: Mutex<String> = Mutex::new(String::new());

struct Recorder;

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        RECORDS
            .lock()
            .unwrap()
            .push_str(&format!("{} {}\n", record.level(), record.args()));
    }

    fn flush(&self) {}
}

#[test]
fn a_log_holds_the_key_at_the_level_trace_alone() {
    let Some(level) = child_task() else {
        for level in ["DEBUG", "TRACE"] {
            run("a_log_holds_the_key_at_the_level_trace_alone", level, &[]);
        }
        return;
    };
    log::set_logger(&Recorder).unwrap();
    log::set_max_level(level.parse().unwrap());
    let api = whole_api();
    let client = api.client();
    let generation = client.generate_video(&VideoRequest::new("A fox")).unwrap();
    let video = client
        .wait_for_video(&generation.id, &quick(), |_| {})
        .unwrap();
    client
        .download_video_to(&video, std::io::sink(), |_, _| {})
        .unwrap();
    let records = RECORDS.lock().unwrap();
    assert!(records.contains(&level), "{records}");
    // What is sent is dumped in hexadecimal, with 16 characters beside it in each line.
    let dumped: String = records
        .lines()
        .filter_map(|line| Some(line.rsplit_once("  ")?.1))
        .collect();
    for secret in [KEY, "sig-secret"] {
        let seen = records.contains(secret) || dumped.contains(secret);
        assert_eq!(seen, level == "TRACE", "{secret} in\n{records}");
    }
    println!("<checked>");
}

#[cfg(not(any(feature = "rustls", feature = "native-tls")))]
#[test]
fn without_tls_an_https_address_names_the_features_that_bring_it() {
    for url in ["https://api.aimlapi.com/v2", "https://127.0.0.1:8443/v2"] {
        let error = Client::builder(KEY).base_url(url).build().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the base address is https, which needs the feature `rustls` or `native-tls`; it is like \
             https://api.aimlapi.com/v2; nothing was sent"
        );
    }
    let server = Server::script(vec![json(
        200,
        r#"{"id": "gen:1", "status": "completed", "video": {"url": "https://127.0.0.1:1/v"}}"#,
    )]);
    let video = server.client().get_video("gen:1").unwrap().video.unwrap();
    let error = server
        .client()
        .download_video_to(&video, std::io::sink(), |_, _| {})
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the download: the video's address is https, which needs the feature `rustls` or `native-tls`. Generation gen:1 \
         is paid for: fetch its video again by this id, which costs nothing"
    );
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
mod tls {
    use std::{
        fs,
        io::{self, BufReader, Read, Write},
        net::{Shutdown, SocketAddr, TcpStream},
        path::PathBuf,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
        time::Instant,
    };

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
    };
    use rustls::{
        ServerConfig, ServerConnection, StreamOwned,
        pki_types::{CertificateDer, PrivateKeyDer},
    };

    use crate::support::Listener;

    use super::*;
    use crate::support::{Folder, read_request};

    /// Whether this build trusts the authorities that SSL_CERT_FILE names, as OpenSSL and rustls-native-certs do.
    const TRUSTS_THE_SYSTEM: bool = cfg!(all(
        target_os = "linux",
        any(feature = "native-tls", feature = "platform-verifier")
    ));

    const NAMES: [&str; 4] = [
        "127.0.0.1",
        "localhost",
        "api.test.example",
        "cdn.test.example",
    ];

    const ADVICE: &str = "; nothing was sent. Behind a proxy with a certificate authority of its own, build with the \
        feature `platform-verifier` or `native-tls`";

    type Stream = StreamOwned<ServerConnection, TcpStream>;
    type Handler = dyn Fn(&Request, &mut Stream) -> io::Result<()> + Send + Sync;

    struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            // Of two authorities with one name, a certificate of one is the other's with a bad signature.
            static NUMBER: AtomicUsize = AtomicUsize::new(0);
            let name = format!("Authority {}", NUMBER.fetch_add(1, Ordering::SeqCst));
            params.distinguished_name.push(DnType::CommonName, name);
            Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
        }

        fn file(&self, folder: &Folder) -> PathBuf {
            let path = folder.path("authority.pem");
            fs::write(&path, self.0.pem()).unwrap();
            path
        }

        /// A server with a certificate for these names, good until the beginning of `year`.
        fn config(&self, names: &[&str], year: i32) -> Arc<ServerConfig> {
            let key = KeyPair::generate().unwrap();
            let mut params =
                CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())
                    .unwrap();
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(year, 1, 1);
            let certificate: CertificateDer<'static> =
                params.signed_by(&key, &self.0).unwrap().into();
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            Arc::new(
                ServerConfig::builder_with_provider(Arc::new(
                    rustls::crypto::ring::default_provider(),
                ))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key)
                .unwrap(),
            )
        }
    }

    impl Listener {
        fn start(serve: impl Fn(TcpStream, &Mutex<Vec<Request>>) + Send + Sync + 'static) -> Self {
            Self::start_on("127.0.0.1:0", move |stream, _, requests| {
                serve(stream, requests)
            })
        }

        /// An HTTPS server.
        fn tls(
            config: Arc<ServerConfig>,
            handler: impl Fn(&Request, &mut Stream) -> io::Result<()> + Send + Sync + 'static,
        ) -> Self {
            let handler: Box<Handler> = Box::new(handler);
            Self::start(move |stream, requests| {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut reader = BufReader::new(StreamOwned::new(connection, stream));
                while let Some(request) = read_request(&mut reader, 0) {
                    requests.lock().unwrap().push(request.clone());
                    if handler(&request, reader.get_mut()).is_err() {
                        return;
                    }
                }
            })
        }

        /// The whole API over HTTPS, whose file server is at `cdn`.
        fn api(config: Arc<ServerConfig>, cdn: impl Into<String>) -> Self {
            let cdn = cdn.into();
            Self::tls(config, move |request, stream| {
                for act in answer(request, &cdn) {
                    let Act::Send(bytes) = act else {
                        unreachable!()
                    };
                    stream.write_all(&bytes)?;
                }
                Ok(())
            })
        }

        /// A proxy that connects everyone to `target`.
        fn proxy(target: SocketAddr) -> Self {
            Self::start(move |client, requests| {
                let request = read_request(&mut BufReader::new(&client), 0).unwrap();
                requests.lock().unwrap().push(request);
                let server = TcpStream::connect(target).unwrap();
                (&client)
                    .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    .unwrap();
                let (mut up, mut down) = (client.try_clone().unwrap(), client);
                let (mut to_server, mut from_server) = (server.try_clone().unwrap(), server);
                thread::spawn(move || {
                    let _ = io::copy(&mut up, &mut to_server);
                    let _ = to_server.shutdown(Shutdown::Both);
                });
                let _ = io::copy(&mut from_server, &mut down);
                let _ = down.shutdown(Shutdown::Both);
            })
        }

        /// A proxy that connects nobody, and says so with these bytes.
        fn refusing_proxy(bytes: impl Into<Vec<u8>>) -> Self {
            let bytes = bytes.into();
            Self::start(move |stream, _| {
                read_request(&mut BufReader::new(&stream), 0).unwrap();
                (&stream).write_all(&bytes).unwrap();
            })
        }

        fn url(&self) -> String {
            format!("https://{}/v2", self.address)
        }

        fn connections(&self) -> usize {
            self.connections.load(Ordering::SeqCst)
        }

        fn targets(&self) -> Vec<String> {
            let requests = self.requests.lock().unwrap();
            requests
                .iter()
                .map(|request| format!("{} {}", request.method, request.target))
                .collect()
        }
    }

    fn assert_certificate_error(text: &str, prefix: &str, cause: &str) {
        let start = format!("{prefix}the server's certificate is not trusted: ");
        assert!(text.starts_with(&start) && text.ends_with(ADVICE), "{text}");
        let told = &text[start.len()..text.len() - ADVICE.len()];
        if cfg!(feature = "native-tls") {
            assert!(told.contains("certificate verify failed"), "{told}");
        } else {
            assert!(
                told.starts_with(&format!("invalid peer certificate: {cause}")),
                "{told}"
            );
        }
    }

    #[test]
    fn an_unknown_authority_is_refused_before_anything_is_sent() {
        if let Some(task) = child_task() {
            return act(&task);
        }
        let folder = Folder::new();
        let another = Authority::new().file(&folder);
        let server = Listener::api(Authority::new().config(&NAMES, 2100), "https://unused");
        for (call, prefix) in [("post", ""), ("wait", "generation gen:1: ")] {
            let before = server.connections();
            let text = run(
                "tls::an_unknown_authority_is_refused_before_anything_is_sent",
                &format!("{call} {}", server.url()),
                &[("SSL_CERT_FILE", another.to_str().unwrap())],
            );
            assert_certificate_error(&text, prefix, "UnknownIssuer");
            // A wait ends at once: no later poll can do better.
            assert_eq!(server.connections() - before, 1);
        }
        assert_eq!(server.targets(), [""; 0]);
    }

    #[test]
    fn the_systems_authorities_are_trusted_by_the_features_that_say_so() {
        if let Some(task) = child_task() {
            return act(&task);
        }
        let (authority, folder) = (Authority::new(), Folder::new());
        let file = authority.file(&folder);
        let cdn = Listener::api(authority.config(&NAMES, 2100), "");
        let server = Listener::api(
            authority.config(&NAMES, 2100),
            format!("https://{}", cdn.address),
        );
        let text = run(
            "tls::the_systems_authorities_are_trusted_by_the_features_that_say_so",
            &format!("save {}", server.url()),
            &[("SSL_CERT_FILE", file.to_str().unwrap())],
        );
        if TRUSTS_THE_SYSTEM {
            assert_eq!(text, FILM);
            assert_eq!((server.targets().len(), cdn.targets().len()), (2, 1));
        } else {
            assert_certificate_error(&text, "", "UnknownIssuer");
            assert_eq!(server.targets(), [""; 0]);
        }
    }

    #[test]
    fn a_certificate_that_is_expired_or_anothers_is_refused() {
        if let Some(task) = child_task() {
            return act(&task);
        }
        let (authority, folder) = (Authority::new(), Folder::new());
        let file = authority.file(&folder);
        for (config, fault) in [
            (authority.config(&NAMES, 2001), "certificate expired"),
            (
                authority.config(&["another.example"], 2100),
                "certificate not valid for name \"127.0.0.1\"",
            ),
        ] {
            let server = Listener::api(config, "");
            let text = run(
                "tls::a_certificate_that_is_expired_or_anothers_is_refused",
                &format!("post {}", server.url()),
                &[("SSL_CERT_FILE", file.to_str().unwrap())],
            );
            assert_certificate_error(&text, "", if TRUSTS_THE_SYSTEM { fault } else { "" });
            assert_eq!(server.targets(), [""; 0]);
        }
    }

    #[test]
    fn a_file_server_that_is_not_trusted_is_not_asked_twice() {
        let cdn = Listener::api(Authority::new().config(&NAMES, 2100), "");
        let url = format!("https://{}/film.mp4", cdn.address);
        let body = serde_json::json!({"id": "gen:1", "status": "completed", "video": {"url": url}});
        let client = Server::script(vec![json(200, &body.to_string())]).client();
        let video = body
            .to_string()
            .parse::<aimlapi_video::Generation>()
            .unwrap()
            .video
            .unwrap();
        let text = client
            .download_video_to(&video, io::sink(), |_, _| {})
            .unwrap_err()
            .to_string();
        assert!(
            text.starts_with("the download: the server's certificate is not trusted: "),
            "{text}"
        );
        let paid =
            ". Generation gen:1 is paid for: fetch its video again by this id, which costs nothing";
        assert!(text.ends_with(&format!("{ADVICE}{paid}")), "{text}");
        assert_eq!((cdn.connections(), cdn.targets()), (1, vec![]));
    }

    #[test]
    fn a_handshake_that_fails_for_another_reason_charges_nothing() {
        // Fatal alerts (RFC 8446, 6.2): 40 handshake failure, 42 bad certificate, 43 unsupported certificate,
        // 46 certificate unknown, 70 protocol version, 80 internal error, 116 certificate required. The
        // certificates in these are the client's, not the server's.
        let alerts = [40, 42, 43, 46, 70, 80, 116].map(|code| vec![21, 3, 3, 0, 2, 2, code]);
        let others = [
            Vec::new(),
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            vec![22, 3, 3, 0, 4, 2, 0, 0, 0],
        ];
        for bytes in alerts.into_iter().chain(others) {
            let reply = bytes.clone();
            let server = Listener::start(move |mut stream, _| {
                assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
                stream.write_all(&reply).unwrap();
            });
            let client = Client::builder(KEY).base_url(server.url()).build().unwrap();
            let error = client
                .generate_video(&VideoRequest::new("A fox"))
                .unwrap_err();
            assert!(matches!(error, Error::Network { .. }), "{bytes:?}: {error}");
            let text = error.to_string();
            assert!(
                text.ends_with("; this call charged nothing, and calling again is safe"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_handshake_that_stalls_charges_nothing() {
        let server =
            Listener::start(
                |mut stream, _| while stream.read(&mut [0; 512]).is_ok_and(|count| count > 0) {},
            );
        let client = Client::builder(KEY)
            .base_url(server.url())
            .request_timeout(Duration::from_millis(100))
            .build()
            .unwrap();
        let begun = Instant::now();
        let error = client
            .generate_video(&VideoRequest::new("A fox"))
            .unwrap_err();
        let Error::Network { cause, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(cause.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_tls_connection_that_breaks_after_the_request_leaves_the_outcome_unknown() {
        if let Some(task) = child_task() {
            return act(&task);
        }
        let (authority, folder) = (Authority::new(), Folder::new());
        let file = authority.file(&folder);
        let gone = || Err(io::ErrorKind::ConnectionAborted.into());
        let breaks: [fn(&mut Stream); 4] = [
            |_| {},
            |stream| {
                socket2::SockRef::from(&stream.sock)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap()
            },
            |stream| {
                stream
                    .sock
                    .write_all(b"this is no TLS record at all")
                    .unwrap()
            },
            // A record that makes no sense to this side of the connection, which it tells the other by a fatal alert.
            |stream| {
                stream
                    .conn
                    .read_tls(
                        &mut &[23, 3, 3, 0, 32]
                            .into_iter()
                            .chain([7; 32])
                            .collect::<Vec<u8>>()[..],
                    )
                    .unwrap();
                stream.conn.process_new_packets().unwrap_err();
                stream.conn.write_tls(&mut stream.sock).unwrap();
            },
        ];
        for break_it in breaks {
            let server = Listener::tls(authority.config(&NAMES, 2100), move |_, stream| {
                break_it(stream);
                gone()
            });
            let text = run(
                "tls::a_tls_connection_that_breaks_after_the_request_leaves_the_outcome_unknown",
                &format!("post {}", server.url()),
                &[("SSL_CERT_FILE", file.to_str().unwrap())],
            );
            if TRUSTS_THE_SYSTEM {
                assert!(
                    text.starts_with("the generation may have been made and charged: "),
                    "{text}"
                );
                assert_eq!(
                    server.targets(),
                    ["POST /v2/generate/video/google/generation"]
                );
            } else {
                assert_certificate_error(&text, "", "UnknownIssuer");
            }
        }
    }

    #[test]
    fn a_whole_job_goes_through_the_proxy_of_the_environment() {
        if let Some(task) = child_task() {
            return act(&task);
        }
        let (authority, folder) = (Authority::new(), Folder::new());
        let file = authority.file(&folder);
        let server = Listener::api(authority.config(&NAMES, 2100), "https://cdn.test.example");
        for name in ["HTTPS_PROXY", "ALL_PROXY"] {
            let proxy = Listener::proxy(server.address);
            let text = run(
                "tls::a_whole_job_goes_through_the_proxy_of_the_environment",
                "save https://api.test.example:8443/v2",
                &[
                    (name, &format!("http://user:proxy-secret@{}", proxy.address)),
                    ("SSL_CERT_FILE", file.to_str().unwrap()),
                ],
            );
            if TRUSTS_THE_SYSTEM {
                assert_eq!(text, FILM);
                let connects = proxy.targets();
                // The POST, on a connection of its own; the poll on the same or on another; the download.
                assert_eq!(connects.first().unwrap(), "CONNECT api.test.example:8443");
                assert_eq!(connects.last().unwrap(), "CONNECT cdn.test.example:443");
            } else {
                assert_certificate_error(&text, "", "UnknownIssuer");
                assert_eq!(proxy.targets(), ["CONNECT api.test.example:8443"]);
            }
            for request in &*proxy.requests.lock().unwrap() {
                assert_eq!(
                    request.header("proxy-authorization"),
                    Some("Basic dXNlcjpwcm94eS1zZWNyZXQ=")
                );
                assert_eq!(request.header("authorization"), None);
            }
        }
    }

    #[test]
    fn a_video_on_this_machine_is_not_asked_for_through_the_proxy() {
        if let Some(task) = child_task() {
            return act(&task);
        }
        let (authority, folder, cdn) = (Authority::new(), Folder::new(), whole_api());
        let file = authority.file(&folder);
        let server = Listener::api(authority.config(&NAMES, 2100), cdn.origin());
        let proxy = Listener::proxy(server.address);
        let text = run(
            "tls::a_video_on_this_machine_is_not_asked_for_through_the_proxy",
            "save https://api.test.example/v2",
            &[
                ("HTTPS_PROXY", &format!("http://{}", proxy.address)),
                ("SSL_CERT_FILE", file.to_str().unwrap()),
            ],
        );
        assert!(
            proxy
                .targets()
                .iter()
                .all(|target| target == "CONNECT api.test.example:443")
        );
        if TRUSTS_THE_SYSTEM {
            assert_eq!((text.as_str(), cdn.connections()), (FILM, 1));
        } else {
            assert_certificate_error(&text, "", "UnknownIssuer");
        }
    }

    #[test]
    fn a_proxy_that_refuses_charges_nothing_and_its_password_is_in_no_text() {
        if let Some(task) = child_task() {
            return act(&task);
        }
        let gone = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let head = |status| format!("HTTP/1.1 {status}\r\ncontent-length: 12\r\n\r\nproxy-secret");
        let refusing = ["407 Proxy Authentication Required", "502 Bad Gateway"]
            .map(|status| Listener::refusing_proxy(head(status)));
        let [silent, babbling] = ["", "SSH-2.0-OpenSSH_9.2\r\n\r\n"].map(Listener::refusing_proxy);
        for (proxy, cause) in [
            (
                refusing[0].address,
                "CONNECT proxy failed: proxy server responded 407/407",
            ),
            (
                refusing[1].address,
                "CONNECT proxy failed: proxy server responded 502/502",
            ),
            (silent.address, ""),
            (babbling.address, ""),
            (gone, "Connection refused"),
        ] {
            let text = run(
                "tls::a_proxy_that_refuses_charges_nothing_and_its_password_is_in_no_text",
                "post https://api.test.example/v2",
                &[("HTTPS_PROXY", &format!("http://user:proxy-secret@{proxy}"))],
            );
            assert!(text.starts_with(&format!("Network: {cause}")), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn hosts_in_no_proxy_are_asked_for_without_it() {
        if let Some(task) = child_task() {
            return act(&task);
        }
        let proxy = Listener::refusing_proxy("HTTP/1.1 502 Bad Gateway\r\n\r\n");
        let variables = [
            ("HTTPS_PROXY", &*format!("http://{}", proxy.address)),
            ("NO_PROXY", "no-such-host.invalid"),
        ];
        let test = "tls::hosts_in_no_proxy_are_asked_for_without_it";
        let text = run(test, "post https://no-such-host.invalid/v2", &variables);
        assert!(
            text.starts_with("Network: ") && !text.contains("CONNECT"),
            "{text}"
        );
        assert_eq!(proxy.connections(), 0);
        let text = run(test, "post https://another-host.invalid/v2", &variables);
        assert_eq!(
            (proxy.connections(), text.contains("CONNECT proxy failed")),
            (1, true),
            "{text}"
        );
    }
}
