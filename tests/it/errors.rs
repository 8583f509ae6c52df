//! What the docs of `Error` say in a table is so, and each text is one line.

use std::{error::Error as _, fs, io::Read, time::Duration};

use aimlapi_video::{
    ApiError, Client, Error, Video, VideoFile, VideoReader, VideoRequest, image_file,
};

use crate::support::{Act, Folder, Server, builder, http, json, refusal};

fn fox() -> VideoRequest {
    VideoRequest::new("A fox")
}

/// A server that always sends this response.
fn always(response: Vec<Act>) -> Server {
    Server::script(vec![response])
}

fn with_id(status: u16) -> Vec<Act> {
    let body =
        r#"{"message": "m", "path": "p", "requestId": "r", "statusCode": 0, "timestamp": "t"}"#;
    vec![Act::Send(http(
        status,
        &[("x-inference-id", "gen:1")],
        body,
    ))]
}

fn post(response: Vec<Act>) -> Error {
    always(response)
        .client()
        .generate_video(&fox())
        .unwrap_err()
}

fn get(response: Vec<Act>) -> Error {
    always(response).client().get_video("gen:1").unwrap_err()
}

fn wait(response: Vec<Act>) -> Error {
    let server = always(response);
    let client = server.builder().poll_timeout(Duration::from_millis(50));
    client
        .build()
        .unwrap()
        .wait_for_video("gen:1", |_| {})
        .unwrap_err()
}

fn video(server: &Server) -> Video {
    let body = format!(
        r#"{{"status": "completed", "video": {{"url": "{}/v"}}}}"#,
        server.origin()
    );
    let api = always(json(200, &body));
    api.client().get_video("gen:1").unwrap().video.unwrap()
}

fn download(response: Vec<Act>) -> Error {
    let (server, folder) = (always(response), Folder::new());
    let saved = server
        .client()
        .download_video(&video(&server), folder.path("v.mp4"), |_| {});
    saved.unwrap_err()
}

/// A video file's error where there is a file of this name and content beside it, which is locked.
fn file(name: &str, content: &str) -> Error {
    let (server, folder) = (always(vec![Act::Close]), Folder::new());
    let client = server
        .builder()
        .poll_timeout(Duration::ZERO)
        .build()
        .unwrap();
    fs::write(folder.path(name), content).unwrap();
    let held = fs::File::open(folder.path(name)).unwrap();
    held.lock().unwrap();
    let file = VideoFile::new(folder.path("v.mp4"), fox()).generate(&client, |_| {});
    assert_eq!(server.connections(), 0);
    file.unwrap_err()
}

/// A row of the table: the variant, whether it may be charged, whether it is transient, the id.
macro_rules! assert_row {
    ($variant:ident, $may_be_charged:literal, $is_transient:literal, $id:expr, $error:expr) => {
        let error: Error = $error;
        let text = error.to_string();
        assert!(matches!(error, Error::$variant { .. }), "{text}");
        let [charged, transient] = [error.may_be_charged(), error.is_transient()];
        assert_eq!(
            [charged, transient],
            [$may_be_charged, $is_transient],
            "{text}"
        );
        assert_eq!(error.generation_id(), $id, "{text}");
        assert!(error.source().is_none(), "{text}");
        assert_eq!(format!("{error:?}"), text);
        assert!(!text.contains(char::is_control), "{text:?}");
    };
}

#[test]
fn each_row_of_the_table_in_the_docs_is_so() {
    let id = Some("gen:1");
    let gone = builder(always(vec![]).url("/v2")).build().unwrap();
    let failed = r#"{"id": "gen:1", "status": "failed"}"#;
    let charged = r#"{"id": "gen:1", "status": "failed", "meta": {"usage": {"usd_spent": 3}}}"#;
    let page = vec![Act::Send(http(200, &[], "<html>"))];
    assert_row!(MissingKey, false, false, None, Error::MissingKey);
    assert_row!(Invalid, false, false, None, Client::new("").unwrap_err());
    assert_row!(Network, false, true, None, gone.get_balance().unwrap_err());
    assert_row!(
        Network,
        false,
        true,
        None,
        gone.generate_video(&fox()).unwrap_err()
    );
    assert_row!(
        Network,
        true,
        true,
        id,
        gone.get_video("gen:1").unwrap_err()
    );
    assert_row!(Api, false, false, None, post(refusal(400, "No")));
    assert_row!(Api, false, true, None, post(refusal(429, "Busy")));
    assert_row!(Api, false, true, None, post(refusal(503, "Busy")));
    for status in [400, 429, 503] {
        assert_row!(Api, true, false, id, post(with_id(status)));
    }
    for status in [408, 425, 429, 500, 599] {
        assert_row!(Api, true, true, id, get(refusal(status, "Busy")));
    }
    assert_row!(Api, true, false, id, get(refusal(401, "No")));
    assert_row!(OutcomeUnknown, true, false, None, post(vec![Act::Close]));
    assert_row!(OutcomeUnknown, true, false, id, post(with_id(504)));
    assert_row!(UnexpectedResponse, true, true, id, get(json(200, "[]")));
    let not_a_balance = always(json(200, "[]"));
    let not_a_balance = not_a_balance.client().get_balance().unwrap_err();
    assert_row!(UnexpectedResponse, false, true, None, not_a_balance);
    assert_row!(Failed, false, false, id, wait(json(200, failed)));
    assert_row!(Failed, true, false, id, wait(json(200, charged)));
    assert_row!(
        TimedOut,
        true,
        false,
        id,
        wait(json(200, r#"{"status": "queued"}"#))
    );
    assert_row!(
        File,
        false,
        false,
        None,
        image_file("no such\nfile").unwrap_err()
    );
    if cfg!(unix) {
        assert_row!(File, true, false, None, file("v.mp4.lock", ""));
        assert_row!(
            File,
            true,
            false,
            None,
            file("v.mp4.receipt.json", "{\n half")
        );
    }
    assert_row!(Download, true, true, id, download(refusal(503, "Busy")));
    assert_row!(Download, true, false, id, download(refusal(403, "No")));
    assert_row!(Download, true, false, id, download(page));
    let shut_down = always(vec![]).client();
    shut_down.shutdown();
    assert_row!(
        Shutdown,
        false,
        false,
        None,
        shut_down.generate_video(&fox()).unwrap_err()
    );
    assert_row!(
        Shutdown,
        true,
        false,
        id,
        shut_down.get_video("gen:1").unwrap_err()
    );
}

#[test]
fn what_a_program_shares_or_compares_is_made_for_that() {
    fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn is_error<T: std::error::Error + Send + Sync + 'static>(_: &T) {}
    fn is_sent<T: Read + Send + 'static>(_: &T) {}
    is_shared::<Client>(&always(vec![]).client());
    is_error(&Error::MissingKey);
    is_sent::<VideoReader>(&always(vec![]).client().open_video(&video(&always(vec![]))));
    let Error::Api(error) = post(refusal(403, "No credit")) else {
        panic!()
    };
    is_error::<ApiError>(&error);
    assert_eq!(
        (error.status, error.message.as_deref()),
        (403, Some("No credit"))
    );
    let queued = always(json(200, r#"{"id": "gen:1", "status": "QUEUED"}"#));
    let status = queued.client().get_video("gen:1").unwrap().status;
    assert!(status == "queued" && status == *"queued" && !status.is_final());
    assert_eq!(format!("<{status:>8}>"), "<  queued>");
}
