//! A shutdown ends all that a client does, from another thread, and nothing that was cut off counts as
//! whole.

use std::time::{Duration, Instant};
use std::{io::Read, thread};

use aimlapi_video::{Client, Error, Video, VideoFile, simulator::CLIP};
use serde_json::json;

use crate::support::{Act, Folder, Server, fox, fox_with_image, ok, response};

const MINUTE: Duration = Duration::from_secs(60);

/// An API and a file server that respond with `acts` and then fall silent, but to the poll that asks
/// for the video's URL.
fn silent(acts: Vec<Act>) -> Server {
    Server::start(move |request, _| {
        if !request.target.contains("=url") {
            return [&acts[..], &[Act::Stall(MINUTE)]].concat();
        }
        let url = format!("http://{}/v.mp4", request.header("host").unwrap());
        ok(json!({"video": {"url": url, "file_size": CLIP.len()}}))
    })
}

fn video(server: &Server) -> Video {
    server.client().get_video("url").unwrap().video.unwrap()
}

/// What `call` ends with, once a client that waits for a minute wherever it can is shut down in the
/// middle of it. That is known by the number of the server's requests.
fn shut_down<T: Send>(
    server: &Server,
    requests: usize,
    call: impl FnOnce(&Client) -> Result<T, Error> + Send,
) -> Error {
    let builder = server.builder().poll_interval(MINUTE).retry_delay(MINUTE);
    let client = builder.poll_timeout(MINUTE).build().unwrap();
    thread::scope(|scope| {
        let call = scope.spawn(|| call(&client).err());
        while server.requests().len() < requests {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(50));
        assert!(!call.is_finished());
        let start = Instant::now();
        client.clone().shutdown();
        let error = call.join().unwrap().unwrap();
        // A second is promised, and a busy computer may need more.
        assert!(start.elapsed() < Duration::from_secs(5), "{error}");
        error
    })
}

fn assert_shut_down(error: &Error, generation_id: Option<&str>) {
    let end = generation_id.map(|id| {
        format!(". Generation {id} continues on the server: waiting for that id costs nothing")
    });
    let text = format!("the client was shut down{}", end.unwrap_or_default());
    assert_eq!(error.to_string(), text);
    assert!(matches!(error, Error::Shutdown { .. }) && !error.is_transient());
    assert_eq!(error.generation_id(), generation_id);
    assert_eq!(error.may_be_charged(), generation_id.is_some());
}

#[test]
fn a_download_ends_wherever_it_is_and_leaves_nothing() {
    let half = &CLIP[..45_429];
    let chunk = [b"ffff\r\n", half].concat();
    for acts in [
        vec![],
        response(200, &[("content-length", "90858")], half),
        response(200, &[("connection", "close")], half),
        response(200, &[("transfer-encoding", "chunked")], chunk),
        // In the pause after a failure.
        response(503, &[], "busy"),
    ] {
        let (server, folder) = (silent(acts), Folder::new());
        let video = video(&server);
        let error = shut_down(&server, 2, |client| {
            client.download_video(&video, folder.path("v.mp4"), |_| {})
        });
        assert_shut_down(&error, Some("url"));
        assert!(folder.names().is_empty());

        let error = shut_down(&server, 3, |client| {
            let read = client.open_video(&video).read_to_end(&mut Vec::new());
            read.map_err(|error| *error.into_inner().unwrap().downcast().unwrap())
        });
        assert_shut_down(&error, Some("url"));
    }
}

#[cfg(unix)]
#[test]
fn a_wait_for_a_lock_ends() {
    let (server, folder) = (silent(vec![]), Folder::new());
    let video = video(&server);
    let lock = std::fs::File::create(folder.path("v.mp4.lock")).unwrap();
    lock.lock().unwrap();
    let error = shut_down(&server, 1, |client| {
        client.download_video(&video, folder.path("v.mp4"), |_| {})
    });
    assert_shut_down(&error, Some("url"));
    let file = VideoFile::new(folder.path("v.mp4"), fox());
    let error = shut_down(&server, 1, |client| file.generate(client, |_| {}));
    assert_shut_down(&error, None);
}

#[test]
fn a_post_that_was_sent_has_an_unknown_outcome_and_another_is_not_charged() {
    let server = silent(vec![]);
    let error = shut_down(&server, 1, |client| client.generate_video(&fox()));
    let text = format!(
        "the generation may have been made and charged: the client was shut down while it waited \
         for {}. Do not just send it again: look it up with find_generation_id(\"fox-1\"), more \
         than once, because the usage log can be late",
        server.address()
    );
    assert_eq!(error.to_string(), text);
    assert!(error.may_be_charged());

    // The server does not read the whole of this one.
    let server = Server::listen("127.0.0.1:0", |mut stream, _, state| {
        stream.read_exact(&mut [0; 1000]).unwrap();
        let mut request = &b"POST / HTTP/1.1\r\n\r\n"[..];
        let _ = state.read(&mut request, 0);
        thread::sleep(MINUTE);
    });
    let large = fox_with_image(20_000_000);
    let error = shut_down(&server, 1, |client| client.generate_video(&large));
    assert_shut_down(&error, None);
}

#[test]
fn a_look_up_ends_and_later_calls_end_at_once() {
    let server = silent(vec![]);
    let video = video(&server);
    let error = shut_down(&server, 2, |client| client.find_generation_id("fox-1"));
    assert_shut_down(&error, None);
    let error = shut_down(&server, 3, Client::get_balance);
    assert_shut_down(&error, None);

    let (client, connections) = (server.client(), server.connections());
    client.clone().shutdown();
    let waited = client.wait_for_video("gen:1", |_| {});
    let saved = client.download_video(&video, "never.mp4", |_| {});
    for (result, id) in [
        (client.generate_video(&fox()).map(drop), None),
        (client.get_video("gen:1").map(drop), Some("gen:1")),
        (waited.map(drop), Some("gen:1")),
        (client.find_generation_id("fox-1").map(drop), None),
        (saved, Some("url")),
    ] {
        assert_shut_down(&result.unwrap_err(), id);
    }
    assert_eq!(server.connections(), connections);
}
