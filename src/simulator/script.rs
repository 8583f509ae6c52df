//! What a test tells the simulator to do, and what it hears back.

use std::{collections::BTreeMap, time::Duration};

/// What the simulator does with a POST. A request that is invalid is refused with 400 by the steps
/// that would accept it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Post {
    /// Creates and charges a generation.
    Accept,
    /// Responds with this status and the documented error body. Nothing is created or charged.
    Reject(u16),
    /// Creates and charges a generation, and closes the connection without a response.
    DropResponse,
    /// Reads this many bytes of the body, and closes the connection. Nothing is created or charged.
    CloseAfter(usize),
    /// Creates and charges a generation, and responds after this time.
    Stall(Duration),
    /// Sends this text as the whole HTTP response, and closes the connection. Nothing is created or
    /// charged.
    Raw(String),
}

/// What the simulator responds to one poll of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Poll {
    /// This status, without a video. See [`Poll::status`].
    Status(String),
    /// The status `completed`, with a video and what it cost.
    Complete,
    /// The status `error`, with this error object. See [`Poll::fail`] and [`Poll::fail_charged`].
    #[non_exhaustive]
    Fail {
        /// The error's name.
        name: String,
        /// The error's message.
        message: String,
        /// Whether the generation is charged, and the response names the cost. The real API says
        /// that it charges no failed generation.
        charged: bool,
    },
    /// This HTTP status with the documented error body.
    Reject(u16),
    /// The head and this many bytes of the body that the following step has; then the connection is
    /// closed.
    CloseAfter(usize),
    /// After this time, what the following step responds; at the end of the script,
    /// [`Complete`](Poll::Complete).
    Stall(Duration),
    /// This text as the whole HTTP response; then the connection is closed.
    Raw(String),
}

impl Poll {
    /// A [`Poll::Status`], such as `queued` or `generating`, or a word that nobody knows.
    pub fn status(word: impl Into<String>) -> Self {
        Poll::Status(word.into())
    }

    /// A [`Poll::Fail`]. A generation whose script ends so is not charged.
    pub fn fail(name: impl Into<String>, message: impl Into<String>) -> Self {
        Poll::Fail {
            name: name.into(),
            message: message.into(),
            charged: false,
        }
    }

    /// A [`Poll::Fail`] that is charged all the same: the response names the cost, and the usage log
    /// too.
    pub fn fail_charged(name: impl Into<String>, message: impl Into<String>) -> Self {
        Poll::Fail {
            name: name.into(),
            message: message.into(),
            charged: true,
        }
    }
}

/// What the simulator does with a request for a video's file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Download {
    /// Sends the file, or the range that was asked for.
    Serve,
    /// Responds with this status and the documented error body.
    Reject(u16),
    /// Sends the head and this many bytes of the body, and closes the connection.
    CloseAfter(usize),
    /// Sends the head and half of the body, waits this time, and sends the rest.
    Stall(Duration),
    /// Responds with 403 to this URL from now on; the next poll that is `completed` has a fresh
    /// one.
    Expire,
    /// Sends this text as the whole HTTP response, and closes the connection.
    Raw(String),
}

/// What the simulator does with a request for the usage log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Log {
    /// Sends the rows.
    Serve,
    /// Sends a log without rows, as the real one can be late.
    Hide,
    /// Responds with this status and the documented error body.
    Reject(u16),
    /// Sends the head and this many bytes of the body, and closes the connection.
    CloseAfter(usize),
    /// Sends this text as the whole HTTP response, and closes the connection.
    Raw(String),
}

/// A request that the simulator received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// The HTTP method.
    pub method: String,
    /// Path and query.
    pub url: String,
    /// The headers in the order they came, names in lower case. Any `Authorization` without the
    /// simulator's key is redacted.
    pub headers: Vec<(String, String)>,
    /// The body; what of it is not UTF-8 is replaced.
    pub body: String,
    /// The status of the response, or 0 if the connection was closed without one.
    pub status: u16,
}

impl Received {
    /// The first value of a header, by its name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn path(&self) -> &str {
        self.url.split('?').next().unwrap_or_default()
    }

    /// The parameters of the URL, decoded.
    pub(super) fn query(&self) -> BTreeMap<String, String> {
        let query = self.url.split_once('?').map_or("", |(_, query)| query);
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(name, value)| (decode(name), decode(value)))
            .collect()
    }
}

fn decode(text: &str) -> String {
    let text = text.replace('+', " ");
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2).unwrap_or((piece, ""));
        match u8::from_str_radix(digits, 16) {
            Ok(byte) => bytes.extend([&[byte], rest.as_bytes()].concat()),
            Err(_) => bytes.extend(format!("%{piece}").bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
