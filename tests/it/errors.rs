//! What the docs of `Error` say in a table is so, and each text is one line.

use std::{error::Error as _, fs, io::Read, time::Duration};

use aimlapi_video::{Client, Error, Video, VideoFile, image_file};

use crate::support::{Act, Folder, Server, fox, ok, refusal, response};

fn with_id(status: u16) -> Vec<Act> {
    let body =
        r#"{"message": "m", "path": "p", "requestId": "r", "statusCode": 0, "timestamp": "t"}"#;
    response(status, &[("x-inference-id", "gen:1")], body)
}

fn post_by(client: &Client) -> Error {
    client.generate_video(&fox()).unwrap_err()
}

fn get_by(client: &Client) -> Error {
    client.get_video("gen:1").unwrap_err()
}

fn post(response: Vec<Act>) -> Error {
    post_by(&Server::always(response).client())
}

fn get(response: Vec<Act>) -> Error {
    get_by(&Server::always(response).client())
}

fn balance(client: &Client) -> Error {
    client.get_balance().unwrap_err()
}

fn wait(body: &str) -> Error {
    let server = Server::always(ok(body));
    let client = server.builder().poll_timeout(Duration::from_millis(50));
    let video = client.build().unwrap().wait_for_video("gen:1", |_| {});
    video.unwrap_err()
}

fn video(url: &str) -> Video {
    let api = Server::always(ok(format!(r#"{{"video": {{"url": "{url}"}}}}"#)));
    api.client().get_video("gen:1").unwrap().video.unwrap()
}

fn download(status: u16, body: &str) -> Error {
    let (server, folder) = (Server::always(response(status, &[], body)), Folder::new());
    let (client, video) = (server.client(), video(&server.url("/v.mp4")));
    let saved = client.download_video(&video, folder.path("v.mp4"), |_| {});
    saved.unwrap_err()
}

/// A video file's error where there is a file of this name and content beside it, which is locked.
fn file(name: &str, content: &str) -> Error {
    let (server, folder) = (Server::always(vec![Act::Close]), Folder::new());
    let client = server.builder().poll_timeout(Duration::ZERO).build();
    fs::write(folder.path(name), content).unwrap();
    let held = fs::File::open(folder.path(name)).unwrap();
    held.lock().unwrap();
    let file = VideoFile::new(folder.path("v.mp4"), fox());
    let error = file.generate(&client.unwrap(), |_| {}).unwrap_err();
    assert_eq!(server.connections(), 0);
    error
}

/// A row of the table: the variant, whether it may be charged, whether it is transient, the id.
macro_rules! row {
    ($variant:ident, $charged:literal, $transient:literal, $id:expr, $error:expr) => {
        let error: Error = $error;
        let text = error.to_string();
        assert!(matches!(error, Error::$variant { .. }), "{text}");
        let found = (error.may_be_charged(), error.is_transient());
        assert_eq!(found, ($charged, $transient), "{text}");
        assert_eq!(error.generation_id(), $id, "{text}");
        assert!(error.source().is_none(), "{text}");
        let debug = format!("{error:?}");
        assert!(!debug.contains(char::is_control), "{debug:?}");
    };
}

#[test]
fn each_row_of_the_table_in_the_docs_is_so() {
    let id = Some("gen:1");
    let gone = Server::always(vec![]).client();
    let failed = r#"{"id": "gen:1", "status": "failed"}"#;
    let charged = r#"{"id": "gen:1", "status": "failed", "meta": {"usage": {"usd_spent": 3}}}"#;
    let shut_down = Server::always(vec![]).client();
    shut_down.shutdown();
    row!(MissingKey, false, false, None, Error::MissingKey);
    row!(Invalid, false, false, None, Client::new("").unwrap_err());
    row!(Network, false, true, None, balance(&gone));
    row!(Network, false, true, None, post_by(&gone));
    row!(Network, true, true, id, get_by(&gone));
    row!(Api, false, false, None, post(refusal(400, "No")));
    row!(Api, false, true, None, post(refusal(429, "Busy")));
    row!(Api, false, true, None, post(refusal(503, "Busy")));
    for status in [400, 429, 503] {
        row!(Api, true, false, id, post(with_id(status)));
    }
    for status in [408, 425, 429, 500, 599] {
        row!(Api, true, true, id, get(refusal(status, "Busy")));
    }
    row!(Api, true, false, id, get(refusal(401, "No")));
    row!(OutcomeUnknown, true, false, None, post(vec![Act::Close]));
    row!(OutcomeUnknown, true, false, id, post(with_id(504)));
    row!(UnexpectedResponse, true, true, id, get(ok("[]")));
    let odd = Server::always(ok("[]"));
    let error = balance(&odd.client());
    row!(UnexpectedResponse, false, true, None, error);
    row!(Failed, false, false, id, wait(failed));
    row!(Failed, true, false, id, wait(charged));
    row!(TimedOut, true, false, id, wait(r#"{"status": "queued"}"#));
    let error = image_file("no\nfile").unwrap_err();
    row!(File, false, false, None, error);
    if cfg!(unix) {
        row!(File, true, false, None, file("v.mp4.lock", ""));
        row!(File, true, false, None, file("v.mp4.receipt.json", "{\n"));
    }
    row!(Download, true, true, id, download(503, "Busy"));
    row!(Download, true, false, id, download(403, "No"));
    row!(Download, true, false, id, download(200, "<html>"));
    row!(Shutdown, false, false, None, post_by(&shut_down));
    row!(Shutdown, true, false, id, get_by(&shut_down));
}

#[test]
fn what_a_program_shares_or_compares_is_made_for_that() {
    fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn is_error<T: std::error::Error + Send + Sync + 'static>(_: &T) {}
    fn is_sent<T: Read + Send + 'static>(_: &T) {}
    let server = Server::always(ok(r#"{"id": "gen:1", "status": "QUEUED"}"#));
    let client = server.client();
    is_shared(&client);
    is_sent(&client.open_video(&video("https://v")));
    is_error(&Error::MissingKey);
    let Error::Api(error) = post(refusal(403, "No credit")) else {
        panic!()
    };
    is_error(&*error);
    let found = (error.status, error.message.as_deref());
    assert_eq!(found, (403, Some("No credit")));
    let status = client.get_video("gen:1").unwrap().status;
    assert!(status == "queued" && status == *"queued" && status != *"active");
    assert!(!status.is_final());
    assert_eq!(format!("<{status:>8}>"), "<  queued>");
}
