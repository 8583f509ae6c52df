//! What goes over the wire is what the vendor's example sends.

use std::{collections::BTreeSet, thread, time::Duration};

use aimlapi_video::{Polling, UNIVERSAL_ENDPOINT, VideoRequest};
use serde_json::{Value, json};

use crate::support::{Act, KEY, Outcome, Server, completed, http, json, queued, quick};

const ID: &str = "df43b636-6b09-4b6d-bbd2-f710ac0a3cfd:veo3";

#[test]
fn the_post_is_the_references() {
    let server = Server::script(vec![queued()]);
    let prompt = "\nA dragon. We see it's coming.\n";
    server
        .client()
        .generate_video(&VideoRequest::new(prompt))
        .unwrap();
    let requests = server.requests();
    let [post] = requests.as_slice() else {
        panic!("{requests:?}")
    };
    assert_eq!(
        (post.method.as_str(), post.target.as_str()),
        ("POST", "/v2/generate/video/google/generation")
    );
    assert_eq!(
        post.header("authorization"),
        Some("Bearer sk-secret-0123456789")
    );
    assert_eq!(post.header("content-type"), Some("application/json"));
    assert_eq!(
        post.header("content-length"),
        Some(post.body.len().to_string().as_str())
    );
    assert_eq!(
        post.header("user-agent"),
        Some(concat!("aimlapi-video/", env!("CARGO_PKG_VERSION")))
    );
    let body: Value = serde_json::from_str(&post.body).unwrap();
    assert_eq!(body, json!({"model": "google/veo3", "prompt": prompt}));
}

#[test]
fn the_get_is_the_references() {
    let server = Server::script(vec![completed()]);
    server.client().get_video(ID).unwrap();
    let requests = server.requests();
    let [get] = requests.as_slice() else {
        panic!("{requests:?}")
    };
    assert_eq!(get.method, "GET");
    // As Python's requests encodes it.
    let query = "generation_id=df43b636-6b09-4b6d-bbd2-f710ac0a3cfd%3Aveo3";
    assert_eq!(
        get.target,
        format!("/v2/generate/video/google/generation?{query}")
    );
    assert_eq!(
        get.header("authorization"),
        Some("Bearer sk-secret-0123456789")
    );
    assert_eq!(get.header("content-type"), Some("application/json"));
    assert_eq!(get.body, "");
}

#[test]
fn ids_of_any_characters_arrive_as_they_are() {
    for (id, query) in [
        (
            "524671b1-c89a:google/veo-3.1-t2v",
            "524671b1-c89a%3Agoogle%2Fveo-3.1-t2v",
        ),
        ("QWcoGFfDtx2Th5tCkeilb", "QWcoGFfDtx2Th5tCkeilb"),
        ("234954179076239", "234954179076239"),
        ("a?b&c=d e#f%g", "a%3Fb%26c%3Dd%20e%23f%25g"),
        ("é\r\n", "%C3%A9%0D%0A"),
    ] {
        let server = Server::script(vec![completed()]);
        server.client().get_video(id).unwrap();
        assert!(
            server.requests()[0]
                .target
                .ends_with(&format!("?generation_id={query}")),
            "{:?}",
            server.requests()
        );
    }
}

#[test]
fn the_universal_endpoint_is_one_call_away() {
    let server = Server::script(vec![queued()]);
    let client = server
        .builder()
        .endpoint(UNIVERSAL_ENDPOINT)
        .user_agent("lesson/1")
        .build()
        .unwrap();
    client.generate_video(&VideoRequest::new("A fox")).unwrap();
    client.get_video(ID).unwrap();
    let requests = server.requests();
    assert_eq!(requests[0].target, "/v2/video/generations");
    assert!(
        requests[1]
            .target
            .starts_with("/v2/video/generations?generation_id=")
    );
    assert_eq!(requests[0].header("user-agent"), Some("lesson/1"));
}

#[test]
fn one_connection_serves_a_whole_job() {
    let server = Server::script(vec![queued(), queued(), queued(), completed()]);
    let client = server.client();
    let generation = client.generate_video(&VideoRequest::new("A fox")).unwrap();
    client
        .wait_for_video(&generation.id, &quick(), |_| {})
        .unwrap();
    assert_eq!(server.requests().len(), 4);
    assert_eq!(server.connections(), 1);
}

#[test]
fn refused_polls_keep_the_connection_too() {
    let answers = vec![
        crate::support::refusal(503, "Service unavailable"),
        json(502, "<html>"),
        completed(),
    ];
    let server = Server::script(answers);
    server
        .client()
        .wait_for_video("gen:1", &quick(), |_| {})
        .unwrap();
    assert_eq!(server.connections(), 1);
}

#[test]
fn each_post_has_a_fresh_connection() {
    let server = Server::script(vec![queued()]);
    let client = server.client();
    for _ in 0..3 {
        client.generate_video(&VideoRequest::new("A fox")).unwrap();
    }
    let connections: BTreeSet<usize> = server
        .requests()
        .iter()
        .map(|request| request.connection)
        .collect();
    assert_eq!(connections.len(), 3);
}

#[test]
fn a_pooled_connection_that_dies_under_a_poll_costs_a_tick() {
    // The server takes the second request on the connection, and closes without an answer.
    let server = Server::start(|_, n| if n == 1 { vec![Act::Close] } else { queued() });
    let client = server.client();
    let generation = client.generate_video(&VideoRequest::new("A fox")).unwrap();
    let mut polls = 0;
    let stopped = client.wait_for_video(&generation.id, &quick(), |_| {
        polls += 1;
        std::ops::ControlFlow::Break(())
    });
    assert!(matches!(stopped, Err(aimlapi_video::Error::Stopped { .. })));
    assert_eq!((polls, server.posts()), (1, 1));
}

#[test]
fn no_redirect_is_followed() {
    let other = Server::script(vec![completed()]);
    for status in [301, 302, 303, 307, 308] {
        let location = other.url("/v2/elsewhere");
        let redirect =
            move |_: &_, _| vec![Act::Send(http(status, &[("location", &location)], ""))];
        let server = Server::start(redirect);
        let client = server.client();
        let error = client
            .generate_video(&VideoRequest::new("A fox"))
            .unwrap_err();
        assert!(error.may_have_charged(), "{error}");
        let error = client.get_video("gen:1").unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "generation gen:1: the server refused with status {status}: (empty); redirects are not followed: check \
                 the base address"
            )
        );
        assert_eq!(server.requests().len(), 2);
    }
    assert_eq!(other.requests().len(), 0);
}

#[test]
fn a_hundred_jobs_at_once_share_a_client_without_a_fault() {
    let server = Server::start(|request, _| {
        if request.is_post() {
            queued()
        } else {
            completed()
        }
    });
    let client = server.client();
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let generation = client.generate_video(&VideoRequest::new("A fox")).unwrap();
                let polling = Polling::default().interval(Duration::from_millis(1));
                client
                    .wait_for_video(&generation.id, &polling, |_| {})
                    .unwrap();
            });
        }
    });
    assert_eq!((server.posts(), server.requests().len()), (100, 200));
}

#[test]
fn the_client_request_id_is_sent_and_told() {
    let echo = |request: &crate::support::Request, _| {
        let id = request.header("x-client-request-id").unwrap_or_default();
        let body = r#"{"id": "gen:1", "status": "queued"}"#;
        vec![Act::Send(http(201, &[("x-client-request-id", id)], body))]
    };
    let server = Server::start(echo);
    let request = VideoRequest::new("A fox").client_request_id("customer-42");
    let generation = server.client().generate_video(&request).unwrap();
    assert_eq!(generation.client_request_id.as_deref(), Some("customer-42"));
    let generation = server
        .client()
        .generate_video(&VideoRequest::new("A fox"))
        .unwrap();
    assert!(
        generation
            .client_request_id
            .unwrap()
            .starts_with("aimlapi-video-")
    );
    // A server that does not tell it back changes nothing.
    let silent = Server::script(vec![queued()]);
    let generation = silent.client().generate_video(&request).unwrap();
    assert_eq!(generation.client_request_id.as_deref(), Some("customer-42"));
    assert!(
        !server
            .requests()
            .iter()
            .any(|request| request.body.contains(KEY))
    );
}
