//! Keys, URLs and settings: a clear error before anything is sent, and the key in no text.

use std::time::Duration;

use aimlapi_video::{Client, ClientBuilder, Error, VideoRequest};

use crate::support::{KEY, Server, child, child_task, completed, queued, stdout};

const HAS_TLS: bool = cfg!(any(feature = "rustls", feature = "native-tls"));

fn on_loopback() -> ClientBuilder {
    Client::builder(KEY).base_url("http://127.0.0.1:1")
}

fn invalid(builder: ClientBuilder) -> String {
    let error = builder.build().unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    error.to_string()
}

#[test]
fn debug_hides_the_key() {
    let fields = "{ base_url: \"http://127.0.0.1:1\", endpoint: \
                  \"generate/video/google/generation\", api_key: [redacted], poll_interval: \
                  10s, poll_timeout: 1000s, .. }";
    let builder = on_loopback();
    assert_eq!(format!("{builder:?}"), format!("ClientBuilder {fields}"));
    let client = builder.build().unwrap();
    assert_eq!(format!("{client:?}"), format!("Client {fields}"));
}

#[test]
fn a_client_is_cheap_to_share() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    check::<Client>();
    fn check_error<T: std::error::Error + Send + Sync + 'static>() {}
    check_error::<Error>();
}

#[test]
fn a_key_is_a_bearer_token_and_anything_else_is_refused_unseen() {
    let bad = [
        "",
        " \n",
        "==",
        "two words",
        "line\nbreak",
        "schl\u{fc}ssel",
        "nul\0",
        "del\u{7f}",
    ];
    for key in bad
        .into_iter()
        .chain(["quo\"te", "back\\slash", "a=b", "Bearer:x", "a,b", "{a}"])
    {
        assert_eq!(
            invalid(Client::builder(key)),
            "the API key is blank, a placeholder, or has other characters than A-Z a-z 0-9 - . _ ~ + / and = at \
             the end; nothing was sent"
        );
    }
    // White space around it, as in a file, is not part of it.
    for (key, sent) in [
        (" key-from-a-file\r\n", "key-from-a-file"),
        ("aZ0-._~+/==", "aZ0-._~+/=="),
    ] {
        let server = Server::script(vec![completed()]);
        let client = Client::builder(key).base_url(server.url("/v2")).build();
        client.unwrap().get_video("gen:1").unwrap();
        let bearer = format!("Bearer {sent}");
        assert_eq!(server.requests()[0].header("authorization"), Some(&*bearer));
    }
}

#[test]
fn a_base_url_is_https_or_http_to_a_loopback_host() {
    let good = [
        "http://localhost:8080/v2",
        "http://LOCALHOST/v2",
        "http://127.9.9.9/v2",
        "http://[::1]:8080/v2",
    ];
    let https = [
        "https://api.aimlapi.com/v2",
        "https://127.0.0.1:8443",
        " HTTPS://proxy.example/aiml/v2/ ",
    ];
    for url in good.iter().chain(https.iter().filter(|_| HAS_TLS)) {
        let client = Client::builder(KEY).base_url(*url).build();
        assert!(client.is_ok(), "{url}: {client:?}");
    }
    let http = |host| format!("is http to {host}: only https is safe, or http to a loopback host");
    let not_https = || "does not start with https://".to_owned();
    let bad_host = || "has an invalid port or host, or a user name".to_owned();
    let has_query = || "has a query or a fragment".to_owned();
    for (url, reason) in [
        ("", "is invalid (empty string)".to_owned()),
        (
            "api.aimlapi.com/v2",
            "is invalid (invalid format)".to_owned(),
        ),
        ("/v2", not_https()),
        ("api.aimlapi.com", not_https()),
        ("http://api.aimlapi.com/v2", http("api.aimlapi.com")),
        (
            "http://127.0.0.1.evil.example/",
            http("127.0.0.1.evil.example"),
        ),
        (
            "http://localhost.evil.example/",
            http("localhost.evil.example"),
        ),
        ("http://192.168.0.1/v2", http("192.168.0.1")),
        (
            "ftp://localhost",
            http("localhost").replacen("http to", "ftp to", 1),
        ),
        ("http://user:secret@127.0.0.1", bad_host()),
        ("http://127.0.0.1:99999/v2", bad_host()),
        ("http://127.0.0.1:/v2", bad_host()),
        ("http://127.0.0.1/v2?key=1", has_query()),
        ("http://127.0.0.1/v2#top", has_query()),
    ] {
        let text = format!(
            "the base URL {reason}; it is like {}; nothing was sent",
            aimlapi_video::BASE_URL
        );
        assert_eq!(invalid(Client::builder(KEY).base_url(url)), text, "{url}");
    }
    for url in [
        "http://",
        "http:///v2",
        "http://127.0.0.1\\@evil.example/",
        "http://a b/",
    ] {
        let text = invalid(Client::builder(KEY).base_url(url));
        assert!(text.starts_with("the base URL "), "{text}");
    }
}

#[test]
fn a_trailing_slash_and_a_path_do_no_harm() {
    for path in ["/v2", "/v2/", "/some/proxy/v2//", ""] {
        let server = Server::script(vec![completed()]);
        let client = Client::builder(KEY).base_url(server.url(path));
        let client = client.endpoint("/video/generations/").build().unwrap();
        client.get_video("gen:1").unwrap();
        let path = path.trim_end_matches('/');
        let target = format!("GET {path}/video/generations?generation_id=gen%3A1");
        assert_eq!(server.targets(), [target]);
    }
}

#[test]
fn invalid_settings_are_refused() {
    for endpoint in ["", "/", "a b", "a?b", "a#b", "\u{e9}"] {
        let shown = endpoint.trim_matches('/');
        assert_eq!(
            invalid(on_loopback().endpoint(endpoint)),
            format!(
                "the endpoint {shown:?} is not a path like generate/video/google/generation; \
                 nothing was sent"
            )
        );
    }
    for builder in [
        on_loopback().request_timeout(Duration::ZERO),
        on_loopback().read_timeout(Duration::ZERO),
    ] {
        assert_eq!(invalid(builder), "a timeout is zero; nothing was sent");
    }
}

#[test]
fn the_longest_timeouts_overflow_nothing() {
    let server = Server::script(vec![queued(), completed()]);
    let builder = server.builder().request_timeout(Duration::MAX);
    let builder = builder
        .poll_timeout(Duration::MAX)
        .read_timeout(Duration::MAX);
    let client = builder.build().unwrap();
    let generation = client.generate_video(&VideoRequest::new("A fox")).unwrap();
    client.wait_for_video(&generation.id, |_| {}).unwrap();
}

#[test]
fn invalid_arguments_send_nothing() {
    let server = Server::script(vec![queued()]);
    let client = server.client();
    let post = |request: VideoRequest| client.generate_video(&request).unwrap_err().to_string();
    let fox = || VideoRequest::new("A fox");
    let dropped = "would be dropped by the server: use 1 to 128 of A-Z a-z 0-9 . _ : -";
    let bad_id = "the generation id is blank, longer than 1000 bytes, or has control characters";
    for (text, expected) in [
        (
            post(VideoRequest::new(" \n")),
            "the prompt is blank: describe the scene",
        ),
        (
            post(fox().model(" ")),
            "the model is blank: name one, such as google/veo3",
        ),
        (
            post(fox().param("model", "google/veo3")),
            "`model` is set as a parameter: use VideoRequest::model",
        ),
        (
            post(fox().image_url("https://example.com/cat.png")),
            "`image_url` is set and no model is named, but the default, google/veo3, takes text \
             alone: name a model, such as google/veo-3.0-i2v",
        ),
        (
            post(fox().client_request_id("two words")),
            &format!("the client request id \"two words\" {dropped}"),
        ),
        (client.get_video("").unwrap_err().to_string(), bad_id),
        (
            client.wait_for_video(" ", |_| {}).unwrap_err().to_string(),
            bad_id,
        ),
        (
            client.find_generation("").unwrap_err().to_string(),
            &format!("the client request id \"\" {dropped}"),
        ),
    ] {
        assert_eq!(text, format!("{expected}; nothing was sent"));
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn the_environment_is_read_in_its_order() {
    if child_task().is_some() {
        return match Client::from_env().and_then(|client| client.get_video("gen:1")) {
            Ok(_) => println!("<completed>"),
            Err(error) => println!("<{error}>"),
        };
    }
    let run = |variables: &[(&str, &str)]| {
        let mut command = child(
            "configuration::the_environment_is_read_in_its_order",
            "poll",
        );
        stdout(&command.envs(variables.iter().copied()).output().unwrap())
    };
    let missing = "<no API key: set AIMLAPI_KEY (or AIML_API_KEY, or AIMLAPI_API_KEY) to your \
                   AI/ML API key; nothing was sent>";
    let http = [
        ("AIMLAPI_KEY", "k"),
        ("AIMLAPI_BASE_URL", "http://x.example"),
    ];
    for (variables, text) in [
        (&[][..], missing),
        (&[("AIMLAPI_KEY", " \n"), ("AIML_API_KEY", "")], missing),
        (
            &[("AIMLAPI_KEY", "a b")],
            "<the API key is blank, a placeholder, or has other characters",
        ),
        (&http, "<the base URL is http to x.example: "),
    ] {
        assert!(run(variables).contains(text), "{}", run(variables));
    }
    let keys = [
        ("AIMLAPI_KEY", "first"),
        ("AIML_API_KEY", "second"),
        ("AIMLAPI_API_KEY", "third"),
    ];
    for start in 0..keys.len() {
        let server = Server::script(vec![completed()]);
        let url = server.url("/v2");
        let variables = [&keys[start..], &[("AIMLAPI_BASE_URL", &url)]].concat();
        assert!(run(&variables).contains("<completed>"));
        let bearer = format!("Bearer {}", keys[start].1);
        assert_eq!(server.requests()[0].header("authorization"), Some(&*bearer));
    }
}
