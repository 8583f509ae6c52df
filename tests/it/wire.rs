//! What goes over the wire is what the vendor's example sends.

use std::thread;

use aimlapi_video::{Error, VideoRequest};
use serde_json::{Value, json};

use crate::support::{Act, Request, Server, completed, fox, json, queued, refusal, response, rows};

#[test]
fn the_post_and_the_get_are_the_references() {
    let server = Server::script(vec![queued(), completed()]);
    let (client, prompt) = (server.client(), "\nA dragon. We see it's coming.\n");
    let _ = client.generate_video(&VideoRequest::new(prompt)).unwrap();
    let _ = client.get_video("gen:1").unwrap();
    let path = "/v2/generate/video/google/generation";
    let get = format!("GET {path}?generation_id=gen%3A1");
    assert_eq!(server.targets(), [format!("POST {path}"), get]);
    let requests = server.requests();
    let agent = format!("aimlapi-video/{}", env!("CARGO_PKG_VERSION"));
    for request in &requests {
        for (name, value) in [
            ("authorization", "Bearer sk-secret-0123456789"),
            ("content-type", "application/json"),
            ("accept-encoding", "identity"),
            ("user-agent", &agent),
        ] {
            assert_eq!(request.header(name), Some(value));
        }
    }
    let [post, get] = [0, 1].map(|n| &requests[n]);
    let length = post.body.len().to_string();
    assert_eq!(post.header("content-length"), Some(&*length));
    let body: Value = serde_json::from_str(&post.body).unwrap();
    assert_eq!(body, json!({"model": "google/veo3", "prompt": prompt}));
    assert_eq!(get.header("cache-control"), Some("no-cache"));
    assert_eq!(get.body, "");
}

#[test]
fn ids_of_any_characters_arrive_as_they_are() {
    let longest = "i".repeat(1000);
    // The first as Python's requests encodes it.
    let table = "
        df43b636-6b09-4b6d-bbd2-f710ac0a3cfd:veo3 | df43b636-6b09-4b6d-bbd2-f710ac0a3cfd%3Aveo3
        524671b1:google/veo-3.1-t2v               | 524671b1%3Agoogle%2Fveo-3.1-t2v
        234954179076239                           | 234954179076239
        a?b&c=d e#f%g                             | a%3Fb%26c%3Dd%20e%23f%25g
        é                                         | %C3%A9";
    for [id, query] in rows(table).chain([[&*longest; 2]]) {
        let server = Server::always(json(200, r#"{"status": "queued"}"#));
        assert_eq!(server.client().get_video(id).unwrap().id, id);
        let query = format!("?generation_id={query}");
        assert!(server.targets()[0].ends_with(&query), "{query}");
    }
}

#[test]
fn one_connection_serves_a_whole_job_unless_it_dies_and_each_post_has_a_fresh_one() {
    let (busy, page) = (refusal(503, "Busy"), json(502, "<html>"));
    // The server takes a poll, and closes the connection without a response.
    let dies = vec![Act::Close];
    let server = Server::script(vec![queued(), busy, page, dies, completed(), queued()]);
    let client = server.client();
    let generation = client.generate_video(&fox()).unwrap();
    let video = client.wait_for_video(&generation.id, |_| {}).unwrap();
    assert_eq!(video.url, "https://cdn.example/v.mp4");
    let _ = client.generate_video(&fox()).unwrap();
    let connections = server.requests().into_iter().map(|r| r.connection);
    assert_eq!(connections.collect::<Vec<_>>(), [0, 0, 0, 0, 1, 2]);
    assert_eq!(server.posts(), 2);
}

#[test]
fn no_redirect_is_followed() {
    let other = Server::always(completed());
    for status in [301, 302, 303, 307, 308] {
        let location = other.url("/v2/elsewhere");
        let redirect = response(status, &[("location", &location)], "");
        let server = Server::always(redirect);
        let posted = server.client().generate_video(&fox()).unwrap_err();
        // A redirect of another kind may come from after the work.
        assert_eq!(matches!(posted, Error::Api(_)), status != 303, "{posted}");
        assert!(server.client().get_video("gen:1").is_err());
        assert_eq!(server.requests().len(), 2);
    }
    assert_eq!(other.requests().len(), 0);
}

#[test]
fn a_hundred_jobs_at_once_share_a_client_without_a_fault() {
    let server = Server::start(|request, _| match request.is_post() {
        true => queued(),
        false => completed(),
    });
    let client = server.client();
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let generation = client.generate_video(&fox()).unwrap();
                let _ = client.wait_for_video(&generation.id, |_| {}).unwrap();
            });
        }
    });
    assert_eq!((server.posts(), server.requests().len()), (100, 200));
}

#[test]
fn the_client_request_id_is_sent_and_returned() {
    let echo = |request: &Request, _| {
        let id = request.header("x-client-request-id").unwrap_or_default();
        let body = r#"{"id": "gen:1", "status": "queued"}"#;
        response(201, &[("x-client-request-id", id)], body)
    };
    let unnamed = VideoRequest::new("A fox");
    // A server that does not echo it changes nothing.
    for server in [Server::start(echo), Server::always(queued())] {
        let ids = [&fox(), &unnamed, &unnamed].map(|request| {
            let generation = server.client().generate_video(request).unwrap();
            generation.client_request_id.unwrap()
        });
        assert_eq!(ids[0], "fox-1");
        assert!(ids[1].starts_with("aimlapi-video-") && ids[1] != ids[2]);
        let requests = server.requests();
        let sent = requests.iter();
        let sent = sent.map(|r| r.header("x-client-request-id").unwrap());
        assert!(sent.eq(ids.iter()));
    }
}
