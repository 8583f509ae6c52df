use std::{
    io::{self, Read},
    net::IpAddr,
    time::Duration,
};

use serde_json::Value;
use ureq::{
    SendBody,
    http::{Response, Uri, Version, header},
};

use crate::{
    Error,
    error::{Excerpt, is_transient_status, outcome_unknown},
    reply::{HEADERS, Reply},
};

/// A response of this API has some kilobytes.
const MAX_JSON: u64 = 1024 * 1024;
/// Over loopback, 64 KiB are about a tenth slower, and more than this gains nothing.
pub(crate) const BUFFER_SIZE: usize = 128 * 1024;
/// What is shown in place of the key.
pub(crate) const REDACTED: &str = "[redacted]";

/// A URL that this crate may send requests to: https anywhere, or http to a loopback host.
pub(crate) struct SafeUrl {
    pub(crate) url: String,
    host: String,
    is_https: bool,
    is_loopback: bool,
}

impl SafeUrl {
    /// Errors complete the sentence "the URL …", and don't repeat the URL: it may be signed.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let url = percent_encode(url.trim());
        if !url.contains("://") {
            return Err("does not start with https://".to_owned());
        }
        let uri = Uri::try_from(&url).map_err(|error| format!("is invalid ({error})"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err("has no host".to_owned());
        };
        let host = authority.host();
        let port = authority.port_u16().map(|port| format!(":{port}"));
        if host.is_empty() || authority.as_str() != format!("{host}{}", port.unwrap_or_default()) {
            return Err("has an invalid port or host, or a user name".to_owned());
        }
        let ip: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
        let is_localhost = host.eq_ignore_ascii_case("localhost");
        let is_loopback = is_localhost || ip.is_ok_and(|ip| ip.is_loopback());
        match scheme {
            "https" if cfg!(any(feature = "rustls", feature = "native-tls")) => {}
            "http" if is_loopback => {}
            "https" => return Err("needs the feature `rustls` or `native-tls`".to_owned()),
            _ => {
                return Err(format!(
                    "is {scheme} to {host}: only https is safe, or http to a loopback host"
                ));
            }
        }
        Ok(SafeUrl {
            host: host.to_owned(),
            is_https: scheme == "https",
            is_loopback,
            url,
        })
    }
}

/// Encodes what `Uri` refuses, and drops a fragment.
fn percent_encode(url: &str) -> String {
    let is_valid = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    let encode = |byte| match is_valid(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    let url = url.split('#').next().unwrap_or_default();
    url.bytes().map(encode).collect()
}

/// Connections, and the key, which is sent to the API alone.
pub(crate) struct Transport {
    agent: ureq::Agent,
    /// The API's host, for error texts.
    host: String,
    /// `Bearer`, a space, and the key.
    authorization: String,
}

impl Transport {
    pub(crate) fn new(key: &str, base_url: &SafeUrl) -> Self {
        Transport {
            agent: agent(base_url.is_loopback),
            host: base_url.host.clone(),
            authorization: format!("Bearer {key}"),
        }
    }

    /// Sends one POST on a fresh connection. Calls `before_body` once the head is sent; if that
    /// fails, no byte of the body is sent.
    pub(crate) fn post(
        &self,
        url: &str,
        json: &str,
        client_request_id: &str,
        timeout: Duration,
        before_body: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<Reply, Error> {
        let mut body = TrackedBody {
            unsent: json.as_bytes(),
            before: Some(before_body),
        };
        let response = self
            .agent
            .post(url)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_LENGTH, json.len())
            .header("x-client-request-id", client_request_id)
            .config()
            // A pooled connection may close while the request is sent: its fate would be unknown.
            .max_idle_age(Duration::ZERO)
            .timeout_global(Some(timeout))
            .build()
            .send(SendBody::from_reader(&mut body));
        match response {
            Ok(response) => Ok(self.read_response(response).0),
            // The server has nothing that it could charge for.
            Err(error) if !body.unsent.is_empty() => Err(self.network_error(error, None)),
            Err(error) => {
                let cause = describe(error, &self.host).to_string();
                Err(outcome_unknown(client_request_id, None, cause))
            }
        }
    }

    /// Sends one GET. The reply has a status of 200 to 299, and a whole body.
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
            .map_err(|error| self.network_error(error, generation_id))?;
        match self.read_response(response) {
            (reply, _) if !reply.is_success() => {
                Err(Error::Api(Box::new(reply.api_error(generation_id))))
            }
            (_, Some(error)) => Err(self.network_error(error.into(), generation_id)),
            (reply, None) => Ok(reply),
        }
    }

    /// Requests the bytes of the file at `url` from `offset` on, and follows redirects.
    pub(crate) fn get_file(
        &self,
        url: &str,
        offset: u64,
        validator: Option<&str>,
        read_timeout: Duration,
        connection_timeout: Duration,
    ) -> Result<FileBody, FileError> {
        let url = SafeUrl::parse(url)
            .map_err(|reason| FileError::Permanent(format!("the video's URL {reason}")))?;
        let request = self.agent.get(&url.url);
        let mut request = request.header(header::ACCEPT_ENCODING, "identity");
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
            // If-Range takes no weak ETags (RFC 9110, 13.1.5).
            if let Some(validator) = validator.filter(|validator| !validator.starts_with("W/")) {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        let config = request
            .config()
            .proxy(proxy(url.is_loopback))
            .max_redirects(10)
            .https_only(url.is_https)
            .timeout_global(Some(connection_timeout))
            .timeout_per_read(Some(read_timeout))
            .timeout_recv_response(Some(read_timeout))
            .input_buffer_size(BUFFER_SIZE);
        match config.build().call() {
            Ok(response) => file_body(response, offset),
            Err(error) => Err(classify(error, &url.host)),
        }
    }

    /// Reads a response to its end, so that its connection can serve the next request, or to
    /// where the connection breaks.
    fn read_response(&self, response: Response<ureq::Body>) -> (Reply, Option<io::Error>) {
        let (head, body) = response.into_parts();
        let mut bytes = Vec::new();
        let mut reader = body.into_with_config().limit(MAX_JSON).reader();
        let broken = reader.read_to_end(&mut bytes).err();
        let mut body = self.redact(&String::from_utf8_lossy(&bytes));
        // JSON may spell any character as an escape, such as \/ or \u002d.
        if body.contains('\\')
            && let Ok(json) = serde_json::from_str::<Value>(&body)
        {
            body = self.redact(&json.to_string());
        }
        let header = |name| Some((name, self.redact(head.headers.get(name)?.to_str().ok()?)));
        let reply = Reply {
            status: head.status.as_u16(),
            headers: HEADERS.into_iter().filter_map(header).collect(),
            body,
            host: self.host.clone(),
        };
        (reply, broken)
    }

    /// Hides the key, which a server or a proxy may echo. One of under 8 characters is a test's,
    /// and may be part of any word.
    fn redact(&self, text: &str) -> String {
        match &self.authorization["Bearer ".len()..] {
            key if key.len() >= 8 => text.replace(key, REDACTED),
            _ => text.to_owned(),
        }
    }

    /// The error of a request that charged nothing, whatever became of it.
    fn network_error(&self, error: ureq::Error, generation_id: Option<&str>) -> Error {
        Error::Network {
            generation_id: generation_id.map(str::to_owned),
            cause: describe(error, &self.host),
        }
    }
}

/// A proxy can't reach this host's loopback.
fn proxy(is_loopback: bool) -> Option<ureq::Proxy> {
    ureq::Proxy::try_from_env().filter(|_| !is_loopback)
}

fn agent(is_loopback: bool) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .user_agent(concat!("aimlapi-video/", env!("CARGO_PKG_VERSION")))
        .proxy(proxy(is_loopback))
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
        let mut tls = TlsConfig::builder();
        if cfg!(any(feature = "native-tls", feature = "platform-verifier")) {
            tls = tls.root_certs(RootCerts::PlatformVerifier);
        }
        if cfg!(feature = "native-tls") {
            tls = tls.provider(TlsProvider::NativeTls);
        }
        config.tls_config(tls.build())
    };
    config.build().new_agent()
}

/// The bytes of a file from `start` to the end, as the server sends them.
pub(crate) struct FileBody {
    pub(crate) start: u64,
    /// The size of the whole file, if the server gives it.
    pub(crate) total: Option<u64>,
    /// An ETag or a date that identifies this version of the file (RFC 9110, 8.8).
    pub(crate) validator: Option<String>,
    /// Whether the end of the body is also the end of the file, even without a size.
    pub(crate) has_end: bool,
    pub(crate) reader: Box<dyn Read + Send>,
}

pub(crate) const ANOTHER_PART: &str = "the server sent another part than the one asked for";

/// Why a request for a file failed.
pub(crate) enum FileError {
    /// Another request may succeed.
    Transient(String),
    /// Another request for the whole file may succeed.
    StartOver(&'static str),
    /// The URL is not, or no longer, served.
    Expired(String),
    /// No other request will succeed.
    Permanent(String),
}

fn file_body(response: Response<ureq::Body>, offset: u64) -> Result<FileBody, FileError> {
    let (head, body) = response.into_parts();
    let header = |name| head.headers.get(name)?.to_str().ok();
    let (range_start, range_total) = header("content-range").map_or((None, None), content_range);
    let reason = format!(
        "the file server responded with status {}",
        head.status.as_u16()
    );
    let (start, total) = match head.status.as_u16() {
        // ureq gives no length of an empty body.
        200 if header("content-length") == Some("0") => (0, Some(0)),
        200 => (0, body.content_length()),
        206 if [Some(0), Some(offset)].contains(&range_start) => {
            (range_start.unwrap_or_default(), range_total)
        }
        416 if range_total == Some(offset) => {
            return Ok(FileBody {
                start: offset,
                total: range_total,
                validator: None,
                has_end: true,
                reader: Box::new(io::empty()),
            });
        }
        206 | 416 => return Err(FileError::StartOver(ANOTHER_PART)),
        401 | 403 | 404 | 410 => return Err(FileError::Expired(reason)),
        status if is_transient_status(status) => return Err(FileError::Transient(reason)),
        _ => return Err(FileError::Permanent(reason)),
    };
    let media_type = header("content-type")
        .unwrap_or_default()
        .to_ascii_lowercase();
    if ["text/", "json", "xml"]
        .iter()
        .any(|text| media_type.contains(text))
    {
        let media_type = Excerpt(&media_type);
        let reason = format!("the file server sent {media_type} instead of the video");
        return Err(FileError::Permanent(reason));
    }
    let (etag, date) = (header("etag"), header("last-modified"));
    let strong = etag.filter(|etag| !etag.starts_with("W/"));
    // Of several headers, as of a list, the last coding counts.
    let codings = head.headers.get_all("transfer-encoding").iter().next_back();
    let codings = codings
        .and_then(|codings| codings.to_str().ok())
        .unwrap_or_default();
    let is_chunked = codings.to_ascii_lowercase().ends_with("chunked");
    Ok(FileBody {
        start,
        total,
        validator: strong.or(date).or(etag).map(str::to_owned),
        // Chunks exist since HTTP/1.1; the end of a part is not that of the file.
        has_end: is_chunked && head.status == 200 && head.version >= Version::HTTP_11,
        reader: Box::new(body.into_reader()),
    })
}

/// ureq's own texts about redirects contain whole URLs, which may be signed.
fn classify(error: ureq::Error, host: &str) -> FileError {
    FileError::Permanent(match error {
        ureq::Error::RequireHttpsOnly(_) => format!("{host} redirects from https to http"),
        ureq::Error::TooManyRedirects => format!("{host} redirects more than 10 times"),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            format!("{host} redirects to an invalid URL")
        }
        ureq::Error::Protocol(_) => {
            return FileError::Transient(format!(
                "{host}: the response, or a redirect, is invalid"
            ));
        }
        other => return FileError::Transient(describe(other, host).to_string()),
    })
}

/// `Content-Range` (RFC 9110, 14.4): the offset of the first byte, and the size of the whole.
fn content_range(value: &str) -> (Option<u64>, Option<u64>) {
    let (range, total) = value.split_once('/').unwrap_or_default();
    let start = range.split([' ', '-']).nth(1).unwrap_or_default();
    (start.parse().ok(), total.parse().ok())
}

/// A request body that knows how much of it is unsent, and when its first byte is asked for.
struct TrackedBody<'a> {
    unsent: &'a [u8],
    before: Option<&'a mut dyn FnMut() -> io::Result<()>>,
}

impl Read for TrackedBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(before) = self.before.take() {
            before()?;
        }
        self.unsent.read(buffer)
    }
}

fn describe(error: ureq::Error, host: &str) -> io::Error {
    let cause = match error {
        ureq::Error::Timeout(timeout) => {
            io::Error::new(io::ErrorKind::TimedOut, format!("timed out ({timeout})"))
        }
        #[cfg(feature = "native-tls")]
        ureq::Error::NativeTls(error) => io::Error::new(io::ErrorKind::InvalidData, error),
        other => other.into_io(),
    };
    let text = match cause.kind() {
        io::ErrorKind::InvalidData => format!(
            "{host}: the TLS library refused the server ({cause}). Behind a proxy with a \
             certificate authority of its own, build with the feature `platform-verifier` or \
             `native-tls`; a server without TLS needs an http URL, which must be loopback"
        ),
        _ => format!("no response from {host}: {cause}"),
    };
    io::Error::new(cause.kind(), text)
}
