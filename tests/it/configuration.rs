//! Keys, URLs and settings: a clear error before anything is sent, and the key in no text.

use std::{ffi::OsStr, time::Duration};

use aimlapi_video::{BASE_URL, Client, ClientBuilder, Error, UNIVERSAL_ENDPOINT, VideoRequest};

use crate::support::{KEY, Server, child, child_report, child_task, completed, fox, queued, rows};

const HAS_TLS: bool = cfg!(any(feature = "rustls", feature = "native-tls"));

fn on_loopback() -> ClientBuilder {
    Client::builder(KEY).base_url("http://127.0.0.1:1")
}

fn assert_invalid(builder: ClientBuilder, reason: &str) {
    let error = builder.build().unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    assert_eq!(error.to_string(), format!("{reason}; nothing was sent"));
}

#[test]
fn debug_hides_the_key() {
    let fields = r#"{ base_url: "http://127.0.0.1:1", endpoint: "generate/video/google/generation", api_key: [redacted], poll_interval: 10s, poll_timeout: 1000s, .. }"#;
    let builder = on_loopback();
    assert_eq!(format!("{builder:?}"), format!("ClientBuilder {fields}"));
    let client = builder.build().unwrap();
    assert_eq!(format!("{client:?}"), format!("Client {fields}"));
}

#[test]
fn a_key_is_a_bearer_token_and_the_slip_in_another_is_named_and_never_the_key() {
    let allowed = "a key has A-Z a-z 0-9 - . _ ~ + / and = at the end";
    let character = |at: &str| format!("has the character {at}: {allowed}");
    let quotes = "has quotes around it: remove them";
    let bearer = "has `Bearer ` in front of it: remove that";
    let name = "has the name of a variable and `=` in front of it: remove these";
    for (key, reason) in [
        (" \n", "is blank"),
        ("==", "is blank"),
        ("'sk-secret'", quotes),
        ("“sk-secret”", quotes),
        ("bearer  sk-secret", bearer),
        ("AIMLAPI_KEY=sk-secret", name),
        ("<YOUR_KEY>", "is a placeholder: put your own key there"),
        ("\u{feff}sk-secret", &character("U+FEFF at position 1")),
        ("sk-secret\u{a0}key", &character("U+00A0 at position 10")),
        ("sk-sécret", &character("U+00E9 at position 5")),
        ("sk secret", &character("U+0020 at position 3")),
        ("sk=secret", &character("U+003D at position 3")),
        ("sk_1=secret", &character("U+003D at position 5")),
        ("SK=secret", &character("U+003D at position 3")),
    ] {
        println!("{key:?}");
        assert_invalid(Client::builder(key), &format!("the API key {reason}"));
    }
    // White space around it, as in a file, is not part of it.
    for key in [" key-from-a-file\r\n", "aZ0-._~+/=="] {
        let server = Server::always(completed());
        let client = Client::builder(key).base_url(server.url("/v2")).build();
        let _ = client.unwrap().get_video("gen:1").unwrap();
        assert_bearer(&server, key.trim());
    }
}

fn assert_bearer(server: &Server, key: &str) {
    let bearer = format!("Bearer {key}");
    assert_eq!(server.requests()[0].header("authorization"), Some(&*bearer));
}

#[test]
fn a_base_url_is_https_or_http_to_a_loopback_host() {
    let good = "http://LOCALHOST:8080/v2|http://[::1]:8080/v2|https://127.0.0.1:8443| \
                HTTPS://proxy.example/aiml/v2/ ";
    let is_usable = |url: &&str| HAS_TLS || url.starts_with("http:");
    for url in good.split('|').filter(is_usable) {
        let client = Client::builder(KEY).base_url(url).build();
        assert!(client.is_ok(), "{url}: {client:?}");
    }
    let table = "
                                       | does not start with https://
        api.aimlapi.com/v2             | does not start with https://
        http://127.0.0.1.evil.example/ | is http to 127.0.0.1.evil.example: SAFE
        http://192.168.0.1/v2          | is http to 192.168.0.1: SAFE
        ftp://localhost                | is ftp to localhost: SAFE
        http://user:secret@127.0.0.1   | has an invalid port or host, or a user name
        http://127.0.0.1:99999/v2      | has an invalid port or host, or a user name
        http://127.0.0.1/v2?key=1      | is too long, or has a query or a fragment
        http://127.0.0.1/v2#top        | is too long, or has a query or a fragment
        http://                        | is invalid (empty string)";
    let long = format!("http://127.0.0.1/{}", "x".repeat(2000));
    let too_long = [&*long, "is too long, or has a query or a fragment"];
    for [url, reason] in rows(table).chain([too_long]) {
        println!("{url}");
        let reason = reason.replace("SAFE", "only https is safe, or http to a loopback host");
        let text = format!("the base URL {reason}; it is like {BASE_URL}");
        assert_invalid(Client::builder(KEY).base_url(url), &text);
    }
}

#[test]
fn a_trailing_slash_and_a_path_do_no_harm() {
    for path in ["/v2", "/v2/", "/some/proxy/v2//", ""] {
        let server = Server::always(completed());
        let client = Client::builder(KEY).base_url(server.url(path));
        let client = client.endpoint("/video/generations/").build().unwrap();
        let _ = client.get_video("gen:1").unwrap();
        let _ = client.generate_video(&fox()).unwrap();
        let path = format!("{}/{UNIVERSAL_ENDPOINT}", path.trim_end_matches('/'));
        let get = format!("GET {path}?generation_id=gen%3A1");
        assert_eq!(server.targets(), [get, format!("POST {path}")]);
    }
}

#[test]
fn invalid_settings_are_refused() {
    for endpoint in ["/", "a b", "a?b", "a#b", "\u{e9}"] {
        let reason = "is not a path like generate/video/google/generation";
        let text = format!("the endpoint {endpoint:?} {reason}");
        assert_invalid(on_loopback().endpoint(endpoint), &text);
    }
    for (name, builder) in [
        (
            "request_timeout",
            on_loopback().request_timeout(Duration::ZERO),
        ),
        ("read_timeout", on_loopback().read_timeout(Duration::ZERO)),
        ("poll_interval", on_loopback().poll_interval(Duration::ZERO)),
    ] {
        assert_invalid(builder, &format!("{name} is zero: give a longer time"));
    }
}

#[test]
fn the_longest_timeouts_overflow_nothing() {
    let server = Server::script(vec![queued(), completed()]);
    let longest = Duration::MAX;
    let builder = server.builder().request_timeout(longest);
    let builder = builder.poll_timeout(longest).read_timeout(longest);
    let client = builder.build().unwrap();
    let generation = client.generate_video(&fox()).unwrap();
    let _ = client.wait_for_video(&generation.id, |_| {}).unwrap();
}

#[test]
fn invalid_arguments_send_nothing() {
    let server = Server::always(queued());
    let client = server.client();
    let post = |request: VideoRequest| client.generate_video(&request).map(drop);
    let bad_id = "the generation id is blank, longer than 1000 bytes, or has control characters";
    let dropped = "would be dropped by the server: use 1 to 128 of A-Z a-z 0-9 . _ : -";
    let dropped = |id: &str| format!("the client request id {id:?} {dropped}");
    let no_prompt = "the prompt is blank: describe the scene";
    let no_model = "the model is blank: name one, such as google/veo3";
    let parameter = "`model` is set as a parameter: use VideoRequest::model";
    let image = "`image_url` is set and no model is named, but the default, google/veo3, takes text \
                 alone: name a model, such as google/veo-3.0-i2v";
    for (result, reason) in [
        (post(VideoRequest::new(" \n")), no_prompt),
        (post(fox().model(" ")), no_model),
        (post(fox().param("model", "google/veo3")), parameter),
        (post(fox().image_url("https://example.com/a.png")), image),
        (post(fox().client_request_id("a b")), &dropped("a b")),
        (client.get_video("").map(drop), bad_id),
        (client.wait_for_video(" ", |_| {}).map(drop), bad_id),
        (client.find_generation_id("").map(drop), &dropped("")),
    ] {
        let text = result.unwrap_err().to_string();
        assert_eq!(text, format!("{reason}; nothing was sent"));
    }
    assert_eq!(server.connections(), 0);
}

/// What `Client::from_env` and a poll give in a process with these variables.
fn from_env(variables: &[(&str, &(impl AsRef<OsStr> + ?Sized))]) -> String {
    let test = "configuration::the_environment_is_read_in_its_order";
    let mut command = child(test, "poll");
    command.envs(variables.iter().copied());
    child_report(command)
}

#[test]
fn the_environment_is_read_in_its_order() {
    if child_task().is_some() {
        return match Client::from_env().and_then(|client| client.get_video("gen:1")) {
            Ok(_) => println!("<completed>"),
            Err(error) => println!("<{error}>"),
        };
    }
    let missing = "no API key: set AIMLAPI_KEY (or AIML_API_KEY, or AIMLAPI_API_KEY) to your \
                   AI/ML API key. To try this without a key, run `cargo run --example simulator` \
                   in the folder of aimlapi-video, and set what that prints; nothing was sent";
    let quotes = "the API key in AIML_API_KEY has quotes around it: remove them; nothing was sent";
    let url = ("AIMLAPI_BASE_URL", "http://x.example");
    for (variables, text) in [
        (&[][..], missing),
        (&[("AIMLAPI_KEY", " \n"), ("AIML_API_KEY", "")], missing),
        (&[("AIML_API_KEY", "'sk-secret'")], quotes),
        (
            &[("AIMLAPI_KEY", "k"), url],
            "the base URL is http to x.example: ",
        ),
    ] {
        assert!(from_env(variables).starts_with(text), "{variables:?}");
    }
    let names = ["AIMLAPI_KEY", "AIML_API_KEY", "AIMLAPI_API_KEY"];
    let keys = names.map(|name| (name, name));
    for first in 0..names.len() {
        let server = Server::always(completed());
        let url = server.url("/v2");
        let variables = [&keys[first..], &[("AIMLAPI_BASE_URL", &url)]].concat();
        assert_eq!(from_env(&variables), "completed");
        assert_bearer(&server, names[first]);
    }
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
#[test]
fn a_proxy_that_can_not_be_used_is_an_error_that_names_its_variable() {
    let socks = "is a SOCKS proxy, which needs the feature `socks-proxy` of aimlapi-video";
    let nonsense = "is not the URL of a proxy";
    for (variable, value, reason) in [
        ("ALL_PROXY", "socks5://127.0.0.1:9", socks),
        ("https_proxy", "socks4a://127.0.0.1:9", socks),
        ("HTTPS_PROXY", "http://127.0.0.1:9 ", nonsense),
        ("all_proxy", "ftp://127.0.0.1:9", nonsense),
        ("HTTP_PROXY", "http://user name@:x", nonsense),
    ] {
        if cfg!(feature = "socks-proxy") && reason == socks {
            continue;
        }
        let key = ("AIMLAPI_KEY", "k");
        let ask = |url, proxy| from_env(&[key, ("AIMLAPI_BASE_URL", url), (variable, proxy)]);
        let api = "https://no-such-host.invalid/v2";
        // Windows does not tell lower case from upper case there.
        let shown = match cfg!(windows) {
            true => variable.to_uppercase(),
            false => variable.to_owned(),
        };
        let text = format!("the proxy in {shown} {reason}: correct the variable, or unset it");
        assert_eq!(ask(api, value), text + "; nothing was sent");
        // A blank variable is not set; and loopback needs no proxy.
        for proxy in [" ", "https://127.0.0.1:9"] {
            let text = ask(api, proxy);
            let begin = "no response from no-such-host.invalid: ";
            assert!(text.contains(begin), "{variable}={proxy}: {text}");
        }
        let server = Server::always(completed());
        assert_eq!(ask(&server.url("/v2"), value), "completed");
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_unicode_is_named() {
    use std::os::unix::ffi::OsStrExt;
    let (key, value) = (OsStr::new("k"), OsStr::from_bytes(b"http://\xff"));
    let names = ["AIMLAPI_KEY", "AIMLAPI_BASE_URL", "https_proxy"];
    for name in &names[..if HAS_TLS { 3 } else { 2 }] {
        let text = from_env(&[("AIMLAPI_KEY", key), (name, value)]);
        assert_eq!(text, format!("{name} is not Unicode; nothing was sent"));
    }
}
