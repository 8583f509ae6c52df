//! The file server: what a response says of the file, where its bytes belong, and whether they are
//! the video.

use std::{
    io::{self, Read},
    time::Duration,
};

use ureq::http::{Version, header, response::Parts};

use crate::{
    api_error::is_transient_status,
    http::{
        BUFFER_SIZE, CONNECT_TIMEOUT, api::Api, describe, limit_phases, proxy_for_host,
        url::SafeUrl,
    },
    reply::Excerpt,
    settings::Settings,
};

const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// No video is larger: an endless one must not fill the disk.
const MAX_SIZE: u64 = 4 << 30;
/// A file may be larger than the API says, up to ten times, and up to this size in any case.
const MAX_UNSTATED_SIZE: u64 = 100_000_000;
/// How many bytes may have to be seen before it is known what they are not.
const MAX_START: usize = 512;

/// Why a request for a file failed.
#[derive(Debug, PartialEq)]
pub(crate) struct FileError {
    pub(crate) remedy: Remedy,
    pub(crate) reason: String,
}

/// What may help.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Remedy {
    /// Another request, after this time.
    Wait(Duration),
    /// A request for the whole file.
    StartOver,
    /// Another URL: this one is not, or no longer, served.
    AnotherUrl,
    Nothing,
}

impl FileError {
    pub(crate) fn new(remedy: Remedy, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        FileError { remedy, reason }
    }

    pub(crate) fn transient(reason: impl Into<String>) -> Self {
        FileError::new(Remedy::Wait(Duration::ZERO), reason)
    }
}

/// What a response says about itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// `Content-Length`.
    pub(crate) length: Option<u64>,
    /// `Content-Range`: the offset of the first byte, and the size of the whole.
    pub(crate) range: (Option<u64>, Option<u64>),
    /// Whether the body ends properly by itself.
    pub(crate) is_chunked: bool,
    /// An ETag or a date that identifies this version of the file (RFC 9110, 8.8).
    pub(crate) validator: Option<String>,
    pub(crate) media_type: String,
    pub(crate) encoding: String,
    pub(crate) retry_after: Option<Duration>,
}

impl Head {
    fn read(head: &Parts, length: Option<u64>) -> Self {
        // Of several headers, as of a list, the last one counts.
        let text = |name| head.headers.get_all(name).iter().next_back()?.to_str().ok();
        let lower = |name| text(name).unwrap_or_default().trim().to_ascii_lowercase();
        let (etag, date) = (text(header::ETAG), text(header::LAST_MODIFIED));
        let strong = etag.filter(|etag| !etag.starts_with("W/"));
        let codings = lower(header::TRANSFER_ENCODING);
        let seconds = text(header::RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok());
        Head {
            status: head.status.as_u16(),
            // ureq gives no length of an empty body.
            length: length.or((text(header::CONTENT_LENGTH) == Some("0")).then_some(0)),
            range: text(header::CONTENT_RANGE).map_or((None, None), content_range),
            // Chunks exist since HTTP/1.1.
            is_chunked: codings.rsplit(',').next().map(str::trim) == Some("chunked")
                && head.version >= Version::HTTP_11,
            validator: strong.or(date).or(etag).map(str::to_owned),
            media_type: lower(header::CONTENT_TYPE),
            encoding: lower(header::CONTENT_ENCODING),
            retry_after: seconds.map(Duration::from_secs),
        }
    }
}

/// `Content-Range` (RFC 9110, 14.4).
fn content_range(value: &str) -> (Option<u64>, Option<u64>) {
    let (range, total) = value.split_once('/').unwrap_or_default();
    let start = range.split([' ', '-']).nth(1).unwrap_or_default();
    (start.parse().ok(), total.parse().ok())
}

/// What is known of a file before a request for its next part.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// How many of its bytes have come.
    pub(crate) position: u64,
    /// Its size and its validator, as the file server gave them.
    pub(crate) total: Option<u64>,
    pub(crate) validator: Option<String>,
    /// Its size, as the API gives it.
    pub(crate) file_size: Option<u64>,
}

impl Known {
    /// Of a file of which nothing has come.
    pub(crate) fn new(file_size: Option<u64>) -> Self {
        Known {
            file_size,
            ..Known::default()
        }
    }

    /// The largest size that this file can have.
    pub(crate) fn limit(&self) -> u64 {
        let limit = |size: u64| size.saturating_mul(10).clamp(MAX_UNSTATED_SIZE, MAX_SIZE);
        self.file_size.map_or(MAX_SIZE, limit)
    }
}

/// Where the bytes of a body belong in the file, and how the end of the file is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    pub(crate) start: u64,
    /// The size at which the file ends. `None`: it ends with the chunked body.
    pub(crate) size: Option<u64>,
    /// The size of the file, if the file server gives it.
    pub(crate) total: Option<u64>,
}

/// Decides whether a response is the next part of the file, or the whole file once more.
pub(crate) fn place(head: &Head, known: &Known) -> Result<Place, FileError> {
    let another = "the server sent another part than the one asked for";
    let another = || FileError::new(Remedy::StartOver, another);
    let (start, total) = match (head.status, head.range) {
        (200, _) => (0, head.length),
        (206, (Some(start), total)) if start == 0 || start == known.position => (start, total),
        // All of it has come.
        (416, (_, total @ Some(end))) if end > 0 && end == known.position => (end, total),
        (206 | 416, _) => return Err(another()),
        _ => return Err(rejected(head)),
    };
    let is_next = start > 0;
    if is_next && is_another(head, total, known) {
        return Err(another());
    }
    let size = match total.or(known.total.filter(|_| is_next)) {
        None if head.is_chunked && head.status == 200 => None,
        size => size.or(known.file_size).map(Some).ok_or_else(|| {
            let reason = "the file server gives neither the size nor the end of the file";
            FileError::new(Remedy::Nothing, reason)
        })?,
    };
    match size {
        Some(size) if size > known.limit() => Err(too_large(size, known)),
        size => Ok(Place { start, size, total }),
    }
}

pub(crate) fn too_large(size: u64, known: &Known) -> FileError {
    let stated = match known.file_size {
        Some(stated) => format!(", and the API says that it has {stated}"),
        None => String::new(),
    };
    let reason = format!(
        "the file server sends {size} bytes or more{stated}. If that is right, download it with \
         another program: `resume ID` prints its URL"
    );
    FileError::new(Remedy::Nothing, reason)
}

/// Whether this part is of another file. It may leave out what the first response had (RFC 9110,
/// 15.3.7): a date is not compared with an ETag.
fn is_another(head: &Head, total: Option<u64>, known: &Known) -> bool {
    let is_etag = |validator: &str| validator.ends_with('"');
    let mut totals = known.total.iter().zip(total);
    let mut validators = known.validator.iter().zip(&head.validator);
    totals.any(|(known, new)| *known != new)
        || validators.any(|(known, new)| is_etag(known) == is_etag(new) && known != new)
}

fn rejected(head: &Head) -> FileError {
    let wait = head.retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
    let remedy = match head.status {
        401 | 403 | 404 | 410 => Remedy::AnotherUrl,
        // 202: it is not there yet.
        status if status == 202 || is_transient_status(status) => Remedy::Wait(wait),
        _ => Remedy::Nothing,
    };
    let text = "the file server responded with status";
    FileError::new(remedy, format!("{text} {}", head.status))
}

/// Whether a file is a video, as far as its first bytes tell.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Video,
    /// Unknown bytes, of which nothing says that they are no video.
    Plausible,
    NeedsMore,
}

/// Whether a file begins like MP4, MOV or WebM.
pub(crate) fn is_video(start: &[u8]) -> bool {
    start.get(4..8) == Some(b"ftyp") || start.starts_with(b"\x1a\x45\xdf\xa3")
}

/// Decides from the first bytes of a file, and where these say nothing, from the headers. `size` is
/// that of the whole file, once known.
pub(crate) fn judge(
    start: &[u8],
    is_end: bool,
    head: &Head,
    size: Option<u64>,
    known: &Known,
) -> Result<Verdict, FileError> {
    if is_video(start) {
        return Ok(Verdict::Video);
    }
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let text = text.trim_ascii_start();
    if !is_end && (start.len() < 8 || (text.is_empty() && start.len() < MAX_START)) {
        return Ok(Verdict::NeedsMore);
    }
    let is_text_type = |word| head.media_type.contains(word);
    let reason = if text.starts_with(b"<") || text.starts_with(b"{") {
        "a text".to_owned()
    } else if start.starts_with(b"\x1f\x8b") {
        "gzip".to_owned()
    } else if !["", "identity"].contains(&&*head.encoding) {
        format!("Content-Encoding: {}", Excerpt(&head.encoding))
    } else if ["text/", "json", "xml"].into_iter().any(is_text_type) {
        Excerpt(&head.media_type).to_string()
    } else {
        match (size, known.file_size) {
            (Some(size), Some(stated)) if size != stated => {
                format!("{size} bytes where the API says {stated}")
            }
            _ => return Ok(Verdict::Plausible),
        }
    };
    let start = String::from_utf8_lossy(&start[..start.len().min(200)]);
    let start = Excerpt(&start);
    let text = "the file server sent something else than the video";
    let reason = format!("{text} ({reason}), which begins: {start}");
    Err(FileError::new(Remedy::Nothing, reason))
}

/// The response to a request for a file.
pub(crate) struct FileBody {
    pub(crate) head: Head,
    pub(crate) reader: Box<dyn Read + Send>,
}

impl Api {
    /// Requests a file from `known.position` on, and follows redirects. The key is not sent.
    pub(crate) fn get_file(
        &self,
        url: &str,
        known: &Known,
        settings: &Settings,
    ) -> Result<FileBody, FileError> {
        let refused = |reason: String| FileError::new(Remedy::Nothing, reason);
        let url = self.check_file_url(url).map_err(refused)?;
        let proxy = proxy_for_host(url.is_loopback).map_err(refused)?;
        let mut request = self.agent.get(&url.url);
        if known.position > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", known.position));
            // If-Range takes no weak ETags (RFC 9110, 13.1.5).
            let strong = known.validator.iter().find(|tag| !tag.starts_with("W/"));
            if let Some(validator) = strong {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        let config = limit_phases!(request.config(), settings.read_timeout)
            .timeout_recv_body(Some(settings.connection_timeout))
            .timeout_per_read(Some(settings.read_timeout))
            .proxy(proxy)
            .max_redirects(10)
            .https_only(url.is_https)
            .input_buffer_size(BUFFER_SIZE);
        let response = config.build().call();
        let (head, body) = response.map_err(|e| classify(e, &url.host))?.into_parts();
        let head = Head::read(&head, body.content_length());
        let reader: Box<dyn Read + Send> = match head.status {
            416 => Box::new(io::empty()),
            _ => Box::new(body.into_reader()),
        };
        Ok(FileBody { head, reader })
    }

    /// Whether the video's URL may be asked.
    fn check_file_url(&self, url: &str) -> Result<SafeUrl, String> {
        let url = SafeUrl::parse(url).and_then(|url| {
            match url.is_loopback && !self.base_url.is_loopback {
                true => Err("leads to this computer, and the API is on another one".to_owned()),
                false => Ok(url),
            }
        });
        url.map_err(|reason| format!("the video's URL {reason}"))
    }
}

/// ureq's own texts about redirects contain whole URLs, which may be signed.
fn classify(error: ureq::Error, host: &str) -> FileError {
    use ureq::Error::{BadUri, Http, Protocol, RequireHttpsOnly, TooManyRedirects};
    let reason = match error {
        RequireHttpsOnly(_) => "redirects from https to http",
        TooManyRedirects => "redirects more than 10 times",
        BadUri(_) | Http(_) => "redirects to an invalid URL",
        Protocol(_) => {
            let reason = format!("{host}: the response, or a redirect, is invalid");
            return FileError::transient(reason);
        }
        other => return FileError::transient(describe(other, host).to_string()),
    };
    FileError::new(Remedy::Nothing, format!("{host} {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cells of the rows of a table, without its heading.
    fn rows<const N: usize>(table: &str) -> impl Iterator<Item = [&str; N]> {
        let lines = table.lines().filter(|line| line.contains('|')).skip(1);
        lines.map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            cells.try_into().unwrap()
        })
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned()).filter(|text| !text.is_empty())
    }

    /// In words: where the bytes belong, or the kind of the error.
    fn shown(place: Result<Place, FileError>) -> String {
        match place.map_err(|error| error.remedy) {
            Ok(Place { start, size, .. }) => match size {
                Some(size) => format!("{start} to {size}"),
                None => format!("{start} to the end of chunks"),
            },
            Err(Remedy::Wait(Duration::ZERO)) => "transient".to_owned(),
            Err(Remedy::Wait(time)) => format!("transient, after {time:?}"),
            Err(Remedy::StartOver) => "start over".to_owned(),
            Err(Remedy::AnotherUrl) => "not served".to_owned(),
            Err(Remedy::Nothing) => "permanent".to_owned(),
        }
    }

    #[test]
    fn a_response_is_the_next_part_or_the_whole_file_or_refused() {
        // In the response: Content-Length, Content-Range, whether it is chunked, its validator. What
        // is known: the position, the size and the validator by the file server, the API's size.
        let table = r#"
            status | length | range   | chunked | validator || position | total | validator | file_size || place
            200 | 9 |         |     |       || 0 |   |       |    || 0 to 9
            200 | 9 |         | yes |       || 0 |   |       | 7  || 0 to 9
            200 | 9 |         |     | "b"   || 5 | 8 | "a"   |    || 0 to 9
            200 | 0 |         |     |       || 0 |   |       | 7  || 0 to 0
            200 |   |         | yes |       || 0 |   |       |    || 0 to the end of chunks
            200 |   |         | yes |       || 5 | 8 |       | 7  || 0 to the end of chunks
            200 |   |         |     |       || 0 |   |       | 7  || 0 to 7
            200 |   |         |     |       || 5 | 8 |       |    || permanent
            200 | 4294967296 | |    |       || 0 |   |       |    || 0 to 4294967296
            200 | 4294967297 | |    |       || 0 |   |       |    || permanent
            200 | 100000000  | |    |       || 0 |   |       | 7  || 0 to 100000000
            200 | 100000001  | |    |       || 0 |   |       | 7  || permanent
            200 | 200000000  | |    |       || 0 |   |       | 20000000 || 0 to 200000000
            200 | 200000001  | |    |       || 0 |   |       | 20000000 || permanent
            200 | 4294967297 | |    |       || 0 |   |       | 4294967297 || permanent
            206 | 4 | 5-8/9   |     |       || 5 |   |       |    || 5 to 9
            206 | 4 | 0-8/9   |     |       || 5 | 9 | "a"   |    || 0 to 9
            206 | 4 | 5-8/*   |     |       || 5 | 9 |       | 7  || 5 to 9
            206 | 4 | 5-8/*   |     |       || 5 |   |       | 7  || 5 to 7
            206 | 4 | 5-8/*   | yes |       || 5 |   |       |    || permanent
            206 | 4 | 5-8/4294967297 | |    || 5 |   |       |    || permanent
            206 | 4 | 6-9/9   |     |       || 5 | 9 |       |    || start over
            206 | 4 | 4-8/9   |     |       || 5 | 9 |       |    || start over
            206 | 4 |         |     |       || 5 | 9 |       |    || start over
            206 | 4 | bytes   |     |       || 5 | 9 |       |    || start over
            206 | 4 | 5-8/10  |     |       || 5 | 9 |       |    || start over
            206 | 4 | 5-8/9   |     | "a"   || 5 | 9 | "a"   |    || 5 to 9
            206 | 4 | 5-8/9   |     | "b"   || 5 | 9 | "a"   |    || start over
            206 | 4 | 5-8/9   |     | W/"b" || 5 | 9 | W/"a" |    || start over
            206 | 4 | 5-8/9   |     |       || 5 | 9 | "a"   |    || 5 to 9
            206 | 4 | 5-8/9   |     | "a"   || 5 | 9 | Sat   |    || 5 to 9
            206 | 4 | 5-8/9   |     | Sun   || 5 | 9 | Sat   |    || start over
            416 |   | */9     |     |       || 9 |   |       |    || 9 to 9
            416 |   | */9     |     |       || 5 | 9 |       |    || start over
            416 |   |         |     |       || 9 | 9 |       |    || start over
            416 |   | */0     |     |       || 0 |   |       |    || start over"#;
        for cells in rows::<12>(table) {
            let [status, length, range, chunked, sent, _, ..] = cells;
            let [.., position, total, validator, file_size, _, expected] = cells;
            let head = Head {
                status: status.parse().unwrap(),
                length: length.parse().ok(),
                range: content_range(&format!("bytes {range}")),
                is_chunked: chunked == "yes",
                validator: text(sent),
                ..Head::default()
            };
            let known = Known {
                position: position.parse().unwrap(),
                total: total.parse().ok(),
                validator: text(validator),
                file_size: file_size.parse().ok(),
            };
            assert_eq!(shown(place(&head, &known)), expected, "{cells:?}");
        }
    }

    #[test]
    fn a_status_says_whether_another_request_may_succeed() {
        for (status, retry_after, expected) in [
            ([401, 403, 404, 410], None, "not served"),
            ([202, 408, 425, 429], None, "transient"),
            ([500, 502, 503, 599], Some(7), "transient, after 7s"),
            ([202, 429, 503, 504], Some(61), "transient, after 60s"),
            ([100, 204, 203, 207], None, "permanent"),
            ([300, 304, 400, 451], Some(7), "permanent"),
        ] {
            for status in status {
                let head = Head {
                    status,
                    retry_after: retry_after.map(Duration::from_secs),
                    ..Head::default()
                };
                let place = place(&head, &Known::default());
                assert_eq!(shown(place), expected, "{status}");
            }
        }
    }

    #[test]
    fn what_is_too_large_is_refused_with_a_way_out() {
        let known = Known {
            file_size: Some(12_000),
            ..Known::default()
        };
        for (known, stated) in [
            (known, ", and the API says that it has 12000"),
            (Known::default(), ""),
        ] {
            let reason = format!(
                "the file server sends 9000000000 bytes or more{stated}. If that is right, \
                 download it with another program: `resume ID` prints its URL"
            );
            let head = Head {
                status: 200,
                length: Some(9_000_000_000),
                ..Head::default()
            };
            let refused = FileError::new(Remedy::Nothing, reason);
            assert_eq!(place(&head, &known), Err(refused));
        }
    }

    #[test]
    fn the_first_bytes_decide_and_then_the_headers_and_the_size() {
        // The response's type, its coding, its size where the API says 9, and how it begins, in the
        // end of which `$` stands for the end of the file; the verdict, or what the text names.
        let table = "
            type                     | coding   | size | start                 | verdict
            text/plain               | gzip     | 7    | \0\0\0\x18ftypmp42     | video
                                     |          |      | \0\0\0\x18ftyp         | video
            text/html                |          | 7    | \0\0\0\x18ftyp$        | video
                                     |          |      | \0\0\0\x18fty          | needs more
                                     |          | 9    | \0\0\0\x18fty$         | plausible
                                     |          |      | \x1aE\u{df}\u{a3} webm  | video
            video/mp4                | identity | 9    | unknown bytes         | plausible
                                     |          |      | unknown               | needs more
                                     |          |      | $                     | plausible
                                     |          |      | BLANKS                | needs more
                                     |          |      | BLANKS+               | plausible
            video/mp4                |          | 9    | <!DOCTYPE html>       | a text
            application/octet-stream |          | 9    | SPACE<html>           | a text
                                     |          |      | {\"error\": \"no\"}     | a text
                                     |          |      | BOM {\"error\": 1}     | a text
                                     |          |      | {}$                   | a text
            video/mp4                |          | 9    | \x1f\u{8b}\x08 gzip    | gzip
            video/mp4                | br       | 9    | unknown bytes         | Content-Encoding: br
            text/plain               |          | 9    | unknown bytes         | text/plain
            application/problem+json |          |      | unknown bytes         | application/problem+json
            application/xml; x       |          |      | unknown bytes         | application/xml; x
                                     |          | 7    | unknown bytes         | 7 bytes where the API says 9";
        for [media_type, encoding, size, start, expected] in rows(table) {
            let head = Head {
                media_type: media_type.to_owned(),
                encoding: encoding.to_owned(),
                ..Head::default()
            };
            let known = Known {
                file_size: Some(9),
                ..Known::default()
            };
            let start = start.replace("BLANKS", &" ".repeat(511)).replace('+', " ");
            let start = start
                .replace("SPACE", " \r\n")
                .replace("BOM", "\u{ef}\u{bb}\u{bf}");
            let is_end = start.ends_with('$');
            // Each character is a byte.
            let bytes = start.trim_end_matches('$').chars().map(|c| c as u8);
            let bytes: Vec<u8> = bytes.collect();
            let refused = format!(
                "the file server sent something else than the video ({expected}), which begins: {}",
                Excerpt(&String::from_utf8_lossy(&bytes))
            );
            let expected = match expected {
                "video" => Ok(Verdict::Video),
                "plausible" => Ok(Verdict::Plausible),
                "needs more" => Ok(Verdict::NeedsMore),
                _ => Err(FileError::new(Remedy::Nothing, refused)),
            };
            let verdict = judge(&bytes, is_end, &head, size.parse().ok(), &known);
            assert_eq!(verdict, expected, "{start:?} {is_end} {head:?} {size}");
        }
    }
}
