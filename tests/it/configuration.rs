//! Keys, addresses and settings: a clear error before anything is sent, and the key in no text.

use std::time::Duration;

use aimlapi_video::{Client, Error, Polling, VideoRequest};

use crate::support::{KEY, Server, child, child_task, completed, queued, stdout};

#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn base_url_error(url: &str) -> String {
    let error = Client::builder(KEY).base_url(url).build().unwrap_err();
    assert!(matches!(error, Error::Invalid(_)));
    error.to_string()
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
#[test]
fn debug_hides_the_key() {
    let client = Client::new(KEY).unwrap();
    assert_eq!(
        format!("{client:?}"),
        "Client { base_url: \"https://api.aimlapi.com/v2\", endpoint: \"generate/video/google/generation\", api_key: \
         [hidden], .. }"
    );
    assert_eq!(
        format!("{:?}", Client::builder(KEY)),
        "ClientBuilder { base_url: \"https://api.aimlapi.com/v2\", endpoint: \"generate/video/google/generation\", \
         api_key: [hidden], .. }"
    );
}

#[test]
fn a_client_is_cheap_to_share() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    check::<Client>();
    fn check_error<T: std::error::Error + Send + Sync + 'static>() {}
    check_error::<Error>();
}

#[test]
fn a_key_with_a_stray_newline_is_trimmed() {
    let server = Server::script(vec![completed()]);
    let client = Client::builder(" key-from-a-file\r\n")
        .base_url(server.url("/v2"))
        .build()
        .unwrap();
    client.get_video("gen:1").unwrap();
    assert_eq!(
        server.requests()[0].header("authorization"),
        Some("Bearer key-from-a-file")
    );
}

#[test]
fn a_key_that_is_no_key_is_refused_unseen() {
    for key in [
        "",
        " \n",
        "two words",
        "line\nbreak",
        "sch\u{fc}ssel",
        "nul\0",
        "del\u{7f}",
    ] {
        let error = Client::new(key).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("the API key ") && text.ends_with("; nothing was sent"),
            "{text}"
        );
        assert!(key.trim().is_empty() || !text.contains(key), "{text}");
    }
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
#[test]
fn base_addresses_are_https_or_this_machine() {
    for url in [
        "https://api.aimlapi.com/v2",
        "HTTPS://api.aimlapi.com/v2/",
        "https://proxy.example:8443/aimlapi/v2//",
        "http://127.0.0.1:8080/v2",
        "http://127.9.9.9",
        "http://localhost:8080/v2/",
        "http://[::1]:8080/v2",
        " https://api.aimlapi.com/v2\n",
    ] {
        Client::builder(KEY)
            .base_url(url)
            .build()
            .unwrap_or_else(|error| panic!("{url}: {error}"));
    }
    let ending = "; it is like https://api.aimlapi.com/v2; nothing was sent";
    for (url, fault) in [
        ("", "does not begin with https://"),
        ("api.aimlapi.com/v2", "does not begin with https://"),
        (
            "http://api.aimlapi.com/v2",
            "is http to api.aimlapi.com: only https is safe, or http to this machine",
        ),
        (
            "http://127.0.0.1.evil.example",
            "is http to 127.0.0.1.evil.example: only https is safe, or http to this machine",
        ),
        (
            "http://192.168.0.1/v2",
            "is http to 192.168.0.1: only https is safe, or http to this machine",
        ),
        ("ftp://api.aimlapi.com", "is neither https nor http"),
        ("https://", "has no proper host name"),
        ("https:///v2", "has no proper host name"),
        (
            "https://user:secret@api.aimlapi.com",
            "has a user name in it",
        ),
        ("http://127.0.0.1\\@evil.example/", "has a user name in it"),
        (
            "http://127.0.0.1\\.evil.example/",
            "has no proper host name",
        ),
        ("https://api.aimlapi.com:99999/v2", "has no proper port"),
        ("https://api.aimlapi.com:/v2", "has no proper port"),
        (
            "https://api.aimlapi.com/v2?key=1",
            "has a query or a fragment",
        ),
        (
            "https://api.aimlapi.com/v2#top",
            "has a query or a fragment",
        ),
    ] {
        assert_eq!(
            base_url_error(url),
            format!("the base address {fault}{ending}"),
            "{url}"
        );
    }
}

#[test]
fn a_trailing_slash_and_a_path_do_no_harm() {
    for path in ["/v2", "/v2/", "/some/proxy/v2//", ""] {
        let server = Server::script(vec![completed()]);
        let client = Client::builder(KEY)
            .base_url(server.url(path))
            .endpoint("/video/generations/")
            .build()
            .unwrap();
        client.get_video("gen:1").unwrap();
        let expected = format!(
            "{}/video/generations?generation_id=gen%3A1",
            path.trim_end_matches('/')
        );
        assert_eq!(server.requests()[0].target, expected);
    }
}

#[test]
fn settings_of_no_use_are_refused() {
    let invalid = |builder: aimlapi_video::ClientBuilder| builder.build().unwrap_err().to_string();
    let builder = || Client::builder(KEY).base_url("http://127.0.0.1:1");
    for endpoint in ["", "/", "a b", "a?b", "a#b", "\u{e9}"] {
        assert!(
            invalid(builder().endpoint(endpoint))
                .contains("is not a path like generate/video/google/generation")
        );
    }
    for name in ["", "a\nb", "\u{e9}"] {
        assert_eq!(
            invalid(builder().user_agent(name)),
            "the user agent is empty or has characters that a header can't hold; nothing was sent"
        );
    }
    for builder in [
        builder().request_timeout(Duration::ZERO),
        builder().poll_timeout(Duration::ZERO),
        builder().stall_timeout(Duration::ZERO),
    ] {
        assert_eq!(invalid(builder), "a timeout is zero; nothing was sent");
    }
}

#[test]
fn the_longest_timeouts_overflow_nothing() {
    let server = Server::script(vec![queued(), completed()]);
    let client = server
        .builder()
        .request_timeout(Duration::MAX)
        .poll_timeout(Duration::MAX)
        .stall_timeout(Duration::MAX)
        .build()
        .unwrap();
    let generation = client.generate_video(&VideoRequest::new("A fox")).unwrap();
    let patient = Polling::default().timeout(Duration::MAX);
    client
        .wait_for_video(&generation.id, &patient, |_| {})
        .unwrap();
}

#[test]
fn bad_arguments_send_nothing() {
    let server = Server::script(vec![queued()]);
    let client = server.client();
    let texts = [
        client
            .generate_video(&VideoRequest::new(" \n"))
            .unwrap_err(),
        client
            .generate_video(&VideoRequest::new("A fox").client_request_id("two words"))
            .unwrap_err(),
        client.get_video("").unwrap_err(),
        client
            .wait_for_video(" ", &Polling::default(), |_| {})
            .unwrap_err(),
        client.find_generation("").unwrap_err(),
    ]
    .map(|error| error.to_string());
    let dropped =
        "would be dropped by the server: use 1 to 128 of A-Z a-z 0-9 . _ : -; nothing was sent";
    assert_eq!(
        texts,
        [
            "the prompt is empty: describe the scene; nothing was sent".to_owned(),
            format!("the client request id \"two words\" {dropped}"),
            "the generation id is empty; nothing was sent".to_owned(),
            "the generation id is empty; nothing was sent".to_owned(),
            format!("the client request id \"\" {dropped}"),
        ]
    );
    assert_eq!(server.connections(), 0);
}

#[test]
fn the_environment_is_read_in_its_order() {
    if child_task().is_some() {
        return match Client::from_env().and_then(|client| client.get_video("gen:1")) {
            Ok(_) => println!("answered"),
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
    let missing = "<no API key: set AIMLAPI_KEY (or AIML_API_KEY, or AIMLAPI_API_KEY) to your AI/ML API key; nothing was \
                   sent>";
    assert!(run(&[]).contains(missing));
    assert!(run(&[("AIMLAPI_KEY", " \n"), ("AIML_API_KEY", "")]).contains(missing));
    assert!(run(&[("AIMLAPI_KEY", "a b")]).contains("<the API key has a space"));
    assert!(
        run(&[
            ("AIMLAPI_KEY", "k"),
            ("AIMLAPI_BASE_URL", "http://x.example")
        ])
        .contains("<the base address is http")
    );

    let all = [
        ("AIMLAPI_KEY", "first"),
        ("AIML_API_KEY", "second"),
        ("AIMLAPI_API_KEY", "third"),
    ];
    for (variables, key) in [
        (&all[..], "first"),
        (&all[1..], "second"),
        (&all[2..], "third"),
    ] {
        let server = Server::script(vec![completed()]);
        let url = server.url("/v2");
        let mut variables = variables.to_vec();
        variables.push(("AIMLAPI_BASE_URL", &url));
        assert!(run(&variables).contains("answered"));
        assert_eq!(
            server.requests()[0].header("authorization"),
            Some(format!("Bearer {key}").as_str())
        );
    }
}
