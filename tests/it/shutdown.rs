//! A shutdown ends all that a client does, from another thread, and nothing that was cut off counts as
//! whole.

use std::time::{Duration, Instant};
use std::{fs, io::Read, path::Path, thread};

use aimlapi_video::{Client, Error, Video, VideoRequest, simulator::CLIP};
use serde_json::json;

use crate::support::{Act, Folder, Server, http, json as json_response, queued};

const STALL: Act = Act::Stall(Duration::from_secs(60));

/// An API and a file server that respond with `acts` and then fall silent, but to the poll that asks
/// for the video's URL.
fn silent(acts: Vec<Act>) -> Server {
    Server::start(move |request, _| {
        if !request.target.contains("=url") {
            return [&acts[..], &[STALL]].concat();
        }
        let url = format!("http://{}/v.mp4", request.header("host").unwrap());
        let video = json!({"url": url, "file_size": CLIP.len()});
        json_response(200, &json!({"video": video}).to_string())
    })
}

/// A client that waits for a minute wherever it can.
fn patient(server: &Server) -> Client {
    let minute = Duration::from_secs(60);
    let builder = server.builder().poll_interval(minute).retry_delay(minute);
    builder.poll_timeout(minute).build().unwrap()
}

fn video(server: &Server) -> Video {
    server.client().get_video("url").unwrap().video.unwrap()
}

/// What `call` ends with, once it is shut down in the middle of what it does. That is known by the
/// number of the server's requests.
fn shut_down<T: Send>(
    server: &Server,
    requests: usize,
    call: impl FnOnce(&Client) -> Result<T, Error> + Send,
) -> Error {
    let client = patient(server);
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
fn a_wait_ends_in_its_pause_and_in_the_middle_of_a_poll() {
    let head = Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"id\"".to_vec());
    for acts in [queued(), vec![], vec![head]] {
        let server = silent(acts);
        let error = shut_down(&server, 1, |client| client.wait_for_video("gen:1", |_| {}));
        assert_shut_down(&error, Some("gen:1"));
    }
}

#[test]
fn a_download_ends_wherever_it_is_and_leaves_nothing() {
    let half = &CLIP[..45_429];
    let chunk = [b"ffff\r\n", half].concat();
    for response in [
        vec![],
        http(200, &[("content-length", "90858")], half),
        http(200, &[("connection", "close")], half),
        http(200, &[("transfer-encoding", "chunked")], chunk),
        // In the pause after a failure.
        http(503, &[], "busy"),
    ] {
        let (server, folder) = (silent(vec![Act::Send(response)]), Folder::new());
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
    let lock = fs::File::create(folder.path("v.mp4.lock")).unwrap();
    lock.lock().unwrap();
    let error = shut_down(&server, 1, |client| {
        client.download_video(&video, folder.path("v.mp4"), |_| {})
    });
    assert_shut_down(&error, Some("url"));
}

#[test]
fn a_post_that_was_sent_has_an_unknown_outcome_and_another_is_not_charged() {
    let fox = || VideoRequest::new("A fox").client_request_id("fox-1");
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
        thread::sleep(Duration::from_secs(60));
    });
    let image = format!("data:image/png;base64,{}", "A".repeat(20_000_000));
    let large = fox().model("google/veo-3.0-i2v").image_url(image);
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
    let post = client.generate_video(&VideoRequest::new("A fox"));
    assert_shut_down(&post.unwrap_err(), None);
    assert_shut_down(&client.get_video("gen:1").unwrap_err(), Some("gen:1"));
    let wait = client.wait_for_video("gen:1", |_| {});
    assert_shut_down(&wait.unwrap_err(), Some("gen:1"));
    assert_shut_down(&client.find_generation_id("fox-1").unwrap_err(), None);
    let saved = client.download_video(&video, Path::new("never.mp4"), |_| {});
    assert_shut_down(&saved.unwrap_err(), Some("url"));
    assert_eq!(server.connections(), connections);
}
