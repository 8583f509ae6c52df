//! What is sent for a request, and the documented body of an error.

use std::{ops::Range, sync::Arc, time::Duration};

use serde_json::{Value, json};

/// The time of all that happens, so that responses are the same in each run.
pub(super) const NOW: &str = "2026-08-01T12:00:00.000Z";

#[derive(Default)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    /// What `range` takes a part of: a file that all connections share, or the body.
    pub(super) bytes: Arc<[u8]>,
    pub(super) range: Range<usize>,
    /// How long to wait before the response, and in the middle of its body.
    pub(super) wait: Duration,
    pub(super) halfway: Duration,
    /// How many bytes of the body to send before the connection is closed.
    pub(super) cut: Option<usize>,
    /// What to send instead of all that, before the connection is closed.
    pub(super) raw: Option<String>,
}

impl Response {
    pub(super) fn new(status: u16, content_type: &str, bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Response {
            status,
            headers: vec![("content-type", content_type.to_owned())],
            range: 0..bytes.len(),
            bytes,
            ..Response::default()
        }
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Response::new(status, "application/json", body.to_string().into_bytes())
    }

    pub(super) fn with(mut self, header: &'static str, value: impl Into<Option<String>>) -> Self {
        let header = value.into().map(|value| (header, value));
        self.headers.extend(header);
        self
    }

    /// With the documented body.
    pub(super) fn error(status: u16, message: &str, path: &str) -> Self {
        let body = json!({"message": message, "path": path, "statusCode": status, "timestamp": NOW,
            "requestId": "00000000-0000-4000-8000-000000000000"});
        Response::json(status, &body)
    }

    /// Sends this text, and closes the connection. Empty: just closes it, with the status 0.
    pub(super) fn raw(text: impl Into<String>) -> Self {
        let text = text.into();
        let status = text.get(9..12).and_then(|digits| digits.parse().ok());
        Response {
            status: status.unwrap_or(0),
            raw: Some(text),
            ..Response::default()
        }
    }
}

/// The text, or that many characters of it.
pub(super) fn cut(text: &str, length: usize) -> String {
    let end = text.char_indices().nth(length).map(|(end, _)| end);
    end.map_or_else(|| text.to_owned(), |end| format!("{}…", &text[..end]))
}
