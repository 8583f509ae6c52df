//! Requests to the API: one POST, one GET. The key is here alone.

use std::{
    io::{self, Read},
    time::Duration,
};

use serde_json::Value;
use ureq::{
    RequestBuilder, SendBody,
    http::{HeaderName, HeaderValue, Response, header},
};

use crate::{
    api_error::ApiError,
    error::Error,
    http::{CONNECT_TIMEOUT, agent, describe, limit_phases, proxy_for_host, url::SafeUrl},
    poll::Shutdown,
    reply::{CLIENT_REQUEST_ID, HEADERS, Reply},
};

/// A response of this API has some kilobytes.
const MAX_JSON: u64 = 1024 * 1024;
/// A request above this size has an image in it.
const LARGE: usize = 1_000_000;
const JSON: &str = "application/json";
/// What is shown in place of the key.
pub(crate) const REDACTED: &str = "[redacted]";

/// Connections, and the key, which is sent to the API alone.
pub(crate) struct Api {
    pub(crate) agent: ureq::Agent,
    pub(crate) base_url: SafeUrl,
    pub(crate) shutdown: Shutdown,
    /// The limit of a GET's phases, which the agent has. Those of other requests are set for each.
    get_timeout: Duration,
    /// `Bearer`, a space, and the key.
    authorization: String,
}

impl Api {
    pub(crate) fn new(key: &str, base_url: SafeUrl, get_timeout: Duration) -> Result<Self, Error> {
        let proxy = proxy_for_host(base_url.is_loopback).map_err(Error::invalid)?;
        Ok(Api {
            agent: agent(proxy, get_timeout),
            get_timeout,
            base_url,
            shutdown: Shutdown::default(),
            authorization: format!("Bearer {key}"),
        })
    }

    /// Ends what is in flight, and all later requests.
    pub(crate) fn shutdown(&self) {
        self.shutdown.set();
        self.agent.clone().shutdown();
    }

    /// Sends one POST on a fresh connection. Calls `before_body` when only the body is left to send;
    /// if that fails, no byte of the body is sent. Where the body was not sent to its end, the server
    /// has nothing that it could charge for.
    pub(crate) fn post(
        &self,
        endpoint: &str,
        client_request_id: &str,
        json: &str,
        time: Duration,
        before_body: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<Reply, Error> {
        self.shutdown.check(None)?;
        let mut body = TrackedBody {
            unsent: json.as_bytes(),
            before: Some(before_body),
        };
        let request = self.agent.post(self.url(endpoint));
        let request = self
            .with_headers(request)
            .header(header::CONTENT_LENGTH, json.len())
            .header(CLIENT_REQUEST_ID, client_request_id);
        // A pooled connection may close while the request is sent: its fate would be unknown.
        let config = request.config().max_idle_age(Duration::ZERO);
        let request = limit_phases!(config, time).build();
        let response = request.send(SendBody::from_reader(&mut body));
        let is_sent = body.unsent.is_empty();
        let error = match response {
            Ok(response) => return Ok(self.read(response).0),
            Err(error) => self.describe_post(error, json.len(), time),
        };
        Err(match is_sent {
            true => lost(client_request_id, None, error.to_string()),
            false => self.network(None, error),
        })
    }

    fn with_headers<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        request
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, HeaderValue::from_static(JSON))
    }

    /// The error of a request that got no response.
    fn network(&self, generation_id: Option<&str>, cause: io::Error) -> Error {
        let shutdown = self.shutdown.check(generation_id).err();
        let generation_id = generation_id.map(str::to_owned);
        shutdown.unwrap_or(Error::Network {
            generation_id,
            cause,
        })
    }

    fn describe_post(&self, error: ureq::Error, size: usize, time: Duration) -> io::Error {
        let is_slow = matches!(error, ureq::Error::Timeout(ureq::Timeout::SendBody));
        let host = &self.base_url.host;
        let error = describe(error, host);
        let mut text = error.to_string();
        if self.shutdown.check(None).is_err() {
            text = format!("the client was shut down while it waited for {host}");
        } else if is_slow {
            let speed = size as f64 / time.as_secs_f64() / 1000.0;
            text += &format!(
                ". The request has {size} bytes: set a longer `request_timeout`, or use a \
                 connection of more than {speed:.0} kB per second"
            );
        } else if size > LARGE {
            text += &format!(". The request has {size} bytes: an image in it may be too large");
        }
        io::Error::new(error.kind(), text)
    }

    /// Sends one GET. The reply has a status of 200 to 299, and a whole body.
    pub(crate) fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
        time: Duration,
        generation_id: Option<&str>,
    ) -> Result<Reply, Error> {
        self.shutdown.check(generation_id)?;
        let host = &self.base_url.host;
        let network = |error| self.network(generation_id, describe(error, host));
        let request = self.agent.get(self.url(path));
        let request = request.query_pairs(query.iter().copied());
        let mut request = self
            .with_headers(request)
            .header(header::CACHE_CONTROL, "no-cache");
        if time < self.get_timeout {
            request = limit_phases!(request.config(), time).build();
        }
        let (reply, broken) = self.read(request.call().map_err(network)?);
        if !reply.is_success() {
            let error = ApiError::read(&reply, generation_id, false);
            return Err(Error::Api(Box::new(error)));
        }
        match broken {
            Some(error) if reply.json().is_none() => Err(network(error.into())),
            // JSON that came whole counts, even if the framing broke after it.
            _ => Ok(reply),
        }
    }

    fn url(&self, path: &str) -> String {
        [&self.base_url.url, "/", path].concat()
    }

    /// Reads a response to its end, so that its connection can serve the next request, or to
    /// where the connection breaks.
    fn read(&self, response: Response<ureq::Body>) -> (Reply, Option<io::Error>) {
        let (head, body) = response.into_parts();
        // As much as most need: what grows is copied.
        let mut bytes = Vec::with_capacity(1000);
        let mut reader = body.into_with_config().limit(MAX_JSON).reader();
        // Where the framing breaks, ureq drops what it has read in the same call: so byte by byte.
        #[allow(clippy::unbuffered_bytes)]
        let broken = match head.headers.contains_key(header::TRANSFER_ENCODING) {
            true => {
                (reader.bytes().map(|byte| byte.map(|byte| bytes.push(byte)))).find_map(Result::err)
            }
            false => reader.read_to_end(&mut bytes).err(),
        };
        // This looks at eight bytes at once, where `from_utf8_lossy` looks at each.
        let text = String::from_utf8(bytes);
        let text = text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into());
        let mut body = self.redact(text.trim_start_matches('\u{feff}'));
        // JSON may spell any character as an escape, such as \/ or \u002d.
        if body.contains('\\')
            && let Ok(json) = serde_json::from_str::<Value>(&body)
        {
            body = self.redact(&json.to_string());
        }
        let header = |(name, value): (&HeaderName, &HeaderValue)| {
            let name = HEADERS.into_iter().find(|known| known == name)?;
            Some((name, self.redact(value.to_str().ok()?)))
        };
        let reply = Reply {
            status: head.status.as_u16(),
            headers: head.headers.iter().filter_map(header).collect(),
            body,
            base_url: self.base_url.url.clone(),
        };
        (reply, broken)
    }

    /// Hides the key, which a server or a proxy may echo. One of under 8 characters is a test's,
    /// and may be part of any word.
    fn redact(&self, text: &str) -> String {
        match &self.authorization["Bearer ".len()..] {
            key if key.len() >= 8 && text.contains(key) => text.replace(key, REDACTED),
            _ => text.to_owned(),
        }
    }
}

/// The error of a request that was sent, and of which nothing tells what came of it.
pub(crate) fn lost(client_request_id: &str, generation_id: Option<String>, cause: String) -> Error {
    Error::OutcomeUnknown {
        client_request_id: client_request_id.to_owned(),
        generation_id,
        cause,
        receipt: None,
    }
}

/// A request body that knows how much of it is unsent, and when its first byte is asked for.
///
/// ureq writes what one read gave before it reads again. The last byte is given in a read of its
/// own, so while that was not asked for, the body was not sent to its end.
struct TrackedBody<'a> {
    unsent: &'a [u8],
    before: Option<&'a mut dyn FnMut() -> io::Result<()>>,
}

impl Read for TrackedBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(before) = self.before.take() {
            before()?;
        }
        let len = self.unsent.len();
        let end = if len > 1 { len - 1 } else { len };
        let count = (&self.unsent[..end]).read(buffer)?;
        self.unsent = &self.unsent[count..];
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_byte_of_a_body_is_given_in_a_read_of_its_own() {
        for (body, reads) in [
            ("{}", vec![1, 1, 0]),
            ("12345", vec![4, 1, 0]),
            ("1", vec![1, 0]),
        ] {
            let mut calls = 0;
            let mut before = || {
                calls += 1;
                Ok(())
            };
            let mut tracked = TrackedBody {
                unsent: body.as_bytes(),
                before: Some(&mut before),
            };
            for count in reads {
                assert_eq!(tracked.read(&mut [0; 100]).unwrap(), count, "{body}");
            }
            assert!(tracked.unsent.is_empty());
            assert_eq!(calls, 1);
        }
    }
}
