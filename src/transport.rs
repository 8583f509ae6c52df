//! The one sender and the one reply handler. The only file that names `ureq`.

use std::{
    io::{self, Read},
    time::{Duration, SystemTime},
};

use serde_json::Value;
use ureq::{
    SendBody,
    http::{HeaderMap, HeaderValue, Response, header},
};

use crate::{
    Error, Generation, Usage,
    download::{BUFFER_SIZE, Body, Fault, Version},
    error::{NOT_JSON, Refusal, Short, is_passing_status},
    http::{self, Address},
};

/// No JSON of this API comes near this size.
const MAX_JSON: u64 = 1024 * 1024;
const MAX_REDIRECTS: usize = 10;
/// What stands in place of the key.
pub(crate) const HIDDEN: &str = "[hidden]";

/// Connections, and the key that is sent to the API alone.
pub(crate) struct Transport {
    agent: ureq::Agent,
    /// `Bearer`, a space, and the key.
    authorization: String,
}

/// Why a POST has no answer.
pub(crate) enum Unanswered {
    /// It never got to the end of its body.
    NotSent(Error),
    /// The server may have read it, for all that anybody knows.
    Lost(String),
}

impl Transport {
    pub(crate) fn new(key: &str, user_agent: &str, is_loopback: bool) -> Self {
        Transport { agent: agent(user_agent, is_loopback), authorization: format!("Bearer {key}") }
    }

    /// Sends one POST on a fresh connection, and calls `before_body` when its head is out.
    pub(crate) fn post(
        &self,
        url: &str,
        json: &str,
        client_request_id: &str,
        timeout: Duration,
        mut before_body: impl FnMut() -> io::Result<()>,
    ) -> Result<Reply, Unanswered> {
        let mut body = Sent { bytes: json.as_bytes(), before: &mut before_body, begun: false };
        let answer = self
            .agent
            .post(url)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_LENGTH, json.len())
            .header("x-client-request-id", client_request_id)
            .config()
            // A pooled connection may die under the request, and nobody would know what became of it.
            .max_idle_age(Duration::ZERO)
            .timeout_global(Some(timeout))
            .build()
            .send(SendBody::from_reader(&mut body));
        match answer {
            Ok(response) => Ok(self.receive(response)),
            // A server that has not the whole body has nothing that it could charge for.
            Err(error) if !body.bytes.is_empty() => Err(Unanswered::NotSent(uncharged(error, None))),
            Err(error) => Err(Unanswered::Lost(into_io(error).to_string())),
        }
    }

    /// Sends one GET. The answer has a status of 200 to 299, and came whole.
    pub(crate) fn get(
        &self,
        url: &str,
        query: &[(&str, &str)],
        timeout: Duration,
        generation_id: Option<&str>,
    ) -> Result<Reply, Error> {
        let response = self
            .agent
            .get(url)
            .query_pairs(query.iter().copied())
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .config()
            .timeout_global(Some(timeout))
            .build()
            .call()
            .map_err(|error| uncharged(error, generation_id))?;
        let mut reply = self.receive(response);
        if !(200..300).contains(&reply.status) {
            return Err(Error::Refused(Box::new(reply.into_refusal(generation_id))));
        }
        match reply.broken.take() {
            Some(cause) => Err(Error::Network { generation_id: generation_id.map(str::to_owned), cause }),
            None => Ok(reply),
        }
    }

    /// One attempt at the bytes of the file at `url` from `offset` on: a GET, and those that redirects ask for.
    pub(crate) fn fetch(
        &self,
        url: &str,
        offset: u64,
        version: &Version,
        stall_timeout: Duration,
    ) -> Result<Body, Fault> {
        let mut address = Address::parse(url).map_err(|fault| Fault::Final(format!("the video's address {fault}")))?;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(&address.url).header(header::ACCEPT_ENCODING, "identity");
            if offset > 0 {
                request = request.header(header::RANGE, format!("bytes={offset}-"));
                if let Some(version) = version.strong() {
                    request = request.header(header::IF_RANGE, version);
                }
            }
            let config = request
                .config()
                .timeout_per_read(Some(stall_timeout))
                .timeout_recv_response(Some(stall_timeout))
                .input_buffer_size(BUFFER_SIZE);
            let config = if address.is_loopback { config.proxy(None) } else { config };
            let response = config.build().call().map_err(|error| match uncharged(error, None) {
                Error::Network { cause, .. } => Fault::passing(cause.to_string()),
                untrusted => Fault::Final(untrusted.to_string()),
            })?;
            if !response.status().is_redirection() {
                return into_body(response, offset);
            }
            let location = response.headers().get("location").map_or(&[][..], |location| location.as_bytes());
            let location = String::from_utf8_lossy(location);
            address =
                address.join(&location).map_err(|fault| Fault::Final(format!("the redirect's target {fault}")))?;
        }
        Err(Fault::Final(format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// Reads an answer to its end, so that its connection can serve the next request.
    fn receive(&self, response: Response<ureq::Body>) -> Reply {
        let (head, body) = response.into_parts();
        let mut bytes = Vec::new();
        let read = body.into_with_config().limit(MAX_JSON).reader().read_to_end(&mut bytes);
        let mut body =
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        // A server, or a proxy, may quote what it was sent.
        let key = &self.authorization["Bearer ".len()..];
        let mut headers = head.headers;
        if key.len() >= 8 {
            // JSON can spell it with escapes.
            if body.contains('\\')
                && let Some(plain) = serde_json::from_str::<Value>(&body).ok().map(|json| json.to_string())
                && plain.contains(key)
            {
                body = plain;
            }
            if body.contains(key) {
                body = body.replace(key, HIDDEN);
            }
            for value in headers.values_mut().filter(|value| value.to_str().is_ok_and(|text| text.contains(key))) {
                *value = HeaderValue::from_static(HIDDEN);
            }
        }
        Reply { status: head.status.as_u16(), headers, body, broken: read.err() }
    }
}

fn agent(user_agent: &str, is_loopback: bool) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .user_agent(user_agent)
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_resolve(Some(Duration::from_secs(10)))
        .timeout_connect(Some(Duration::from_secs(20)))
        // A hundred jobs that wait at once keep their connections, and small buffers.
        .max_idle_connections(128)
        .max_idle_connections_per_host(128)
        .input_buffer_size(16 * 1024)
        .output_buffer_size(16 * 1024);
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    let config = {
        use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
        let (provider, roots) = if cfg!(feature = "native-tls") {
            (TlsProvider::NativeTls, RootCerts::PlatformVerifier)
        } else if cfg!(feature = "platform-verifier") {
            (TlsProvider::Rustls, RootCerts::PlatformVerifier)
        } else {
            (TlsProvider::Rustls, RootCerts::WebPki)
        };
        config.tls_config(TlsConfig::builder().provider(provider).root_certs(roots).build())
    };
    // A proxy from the environment can't reach this machine as this machine does.
    let config = if is_loopback { config.proxy(None) } else { config };
    config.build().new_agent()
}

/// An answer of the API, read to its end or to where it broke.
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: HeaderMap,
    body: String,
    broken: Option<io::Error>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        text(&self.headers, name)
    }

    /// The vendor's documentation says that this header is the id of the generation.
    pub(crate) fn inference_id(&self) -> Option<String> {
        self.header("x-inference-id").filter(|id| !id.is_empty()).map(str::to_owned)
    }

    /// The body as JSON, if that came whole, whatever became of the connection after it.
    pub(crate) fn into_json(self) -> Result<Value, (&'static str, String)> {
        serde_json::from_str(self.body.trim_start_matches('\u{feff}')).map_err(|_| (NOT_JSON, self.body))
    }

    pub(crate) fn into_generation(self, asked: Option<&str>) -> Result<Generation, (&'static str, String)> {
        let number = |name| self.header(name).and_then(|number| number.parse().ok());
        let usage = Usage::new(number("x-aimlapi-credits-used"), number("x-aimlapi-usd-spent"));
        let client_request_id = self.header("x-client-request-id").map(str::to_owned);
        let inference_id = self.inference_id();
        let mut generation = Generation::from_json(self.into_json()?, asked.or(inference_id.as_deref()))
            .map_err(|(reason, json)| (reason, json.to_string()))?;
        if let Some(asked) = asked {
            if !generation.tells_how_it_stands() {
                return Err(("it has neither status nor video nor error", generation.raw.to_string()));
            }
            // It is about what was asked for, whatever it says.
            generation.id = asked.to_owned();
            if let Some(video) = &mut generation.video {
                video.generation_id = asked.to_owned();
            }
        }
        generation.usage = Usage::merge(generation.usage, usage);
        generation.client_request_id = client_request_id;
        Ok(generation)
    }

    /// The refusal has a message if the body is the API's own, as documented, and not that of a proxy.
    pub(crate) fn into_refusal(self, generation_id: Option<&str>) -> Refusal {
        let json: Option<Value> = serde_json::from_str(&self.body).ok();
        let json = json.filter(|json| json.get("message").is_some() && json.get("statusCode").is_some());
        let field = |name: &str| {
            let value = json.as_ref()?.get(name)?;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        Refusal {
            status: self.status,
            message: field("message"),
            request_id: field("requestId"),
            retry_after: retry_after(&self.headers),
            generation_id: generation_id.map(str::to_owned),
            body: self.body,
        }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    http::retry_after(text(headers, "retry-after")?, SystemTime::now())
}

/// What a file server's answer means to a download.
fn into_body(response: Response<ureq::Body>, offset: u64) -> Result<Body, Fault> {
    let (head, body) = response.into_parts();
    let header = |name| text(&head.headers, name);
    let range = header("content-range").and_then(http::content_range);
    let reason = format!("the file server answered with status {}", head.status.as_u16());
    let (start, total) = match (head.status.as_u16(), range) {
        (200, _) => (0, body.content_length()),
        (206, Some((Some(start), total))) if start == offset => (start, total),
        // Nothing is left after the offset: an empty body says the same.
        (416, Some((None, total))) => (offset, total),
        // Some stores say 400 of a signature that has expired.
        (400 | 401 | 403 | 404 | 410, _) => return Err(Fault::Expired(reason)),
        (416, _) => (offset, None),
        // Another part, or one of nobody knows what: no offset matches.
        (206, _) => (u64::MAX, None),
        (status, _) if is_passing_status(status) => {
            return Err(Fault::Passing { reason, retry_after: retry_after(&head.headers) });
        }
        _ => return Err(Fault::Final(reason)),
    };
    if head.status == 416 {
        return Ok(Body { start, total, version: Version::default(), framed: false, reader: Box::new(io::empty()) });
    }
    let kind = header("content-type").unwrap_or_default().to_ascii_lowercase();
    if ["text/html", "application/json"].iter().any(|text| kind.starts_with(text)) {
        return Err(Fault::Final(format!("the file server sent {} instead of the video", Short(&kind))));
    }
    if header("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(Fault::Final("the file server sent the video compressed, unasked".to_owned()));
    }
    let owned = |name| header(name).map(str::to_owned);
    // Chunks have an end since HTTP/1.1. That of a part says nothing of the file's.
    let chunked = head.version >= ureq::http::Version::HTTP_11
        && header("transfer-encoding").is_some_and(|coding| coding.to_ascii_lowercase().contains("chunked"));
    Ok(Body {
        start,
        total,
        version: Version { tag: owned("etag"), date: owned("last-modified") },
        framed: head.status == 200 && chunked,
        reader: Box::new(body.into_reader()),
    })
}

/// A request body that knows whether any of it was asked for, which is when the head of the request is out.
struct Sent<'a> {
    bytes: &'a [u8],
    before: &'a mut dyn FnMut() -> io::Result<()>,
    begun: bool,
}

impl Read for Sent<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.begun {
            (self.before)()?;
            self.begun = true;
        }
        self.bytes.read(buffer)
    }
}

/// The error for a request that charged nothing, whatever became of it.
#[cold]
fn uncharged(error: ureq::Error, generation_id: Option<&str>) -> Error {
    let generation_id = generation_id.map(str::to_owned);
    let cause = into_io(error);
    // Neither TLS library's error type can be named here. Both say "certificate" of untrusted ones; an alert
    // is what the server says, and any certificate in it is the client's.
    let text = cause.to_string();
    if text.contains("certificate") && !text.contains(" alert ") {
        return Error::Certificate { generation_id, cause };
    }
    Error::Network { generation_id, cause }
}

#[cold]
fn into_io(error: ureq::Error) -> io::Error {
    match error {
        ureq::Error::Timeout(timeout) => io::Error::new(io::ErrorKind::TimedOut, format!("timed out ({timeout})")),
        other => other.into_io(),
    }
}
