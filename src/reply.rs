//! A response of the API, as plain data; and how texts that others wrote are shown.

use std::fmt;

use serde_json::Value;

/// The response header that the vendor documents as the generation's id.
pub(crate) const INFERENCE_ID: &str = "x-inference-id";
pub(crate) const CLIENT_REQUEST_ID: &str = "x-client-request-id";
pub(crate) const CREDITS: &str = "x-aimlapi-credits-used";
pub(crate) const USD: &str = "x-aimlapi-usd-spent";
pub(crate) const RETRY_AFTER: &str = "retry-after";

/// The headers that this crate reads.
pub(crate) const HEADERS: [&str; 5] = [INFERENCE_ID, CLIENT_REQUEST_ID, CREDITS, USD, RETRY_AFTER];

/// A response of the API.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Those of [`HEADERS`] that it has.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
    /// The base URL that was asked.
    pub(crate) base_url: String,
}

impl Reply {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| *known == name);
        header.map(|(_, value)| value.as_str())
    }

    /// The body, if it is whole JSON, even if the connection broke after it.
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.body).ok()
    }

    /// The fields of a body that was cut, as far as they came whole.
    pub(crate) fn cut_json(&self) -> Option<Value> {
        let text = self.body.trim_end();
        // The last field may lack a part, but for what has a mark at its end.
        let whole = text.ends_with(['"', '}', ']']).then_some(text);
        let fields = text.rfind(',').map(|end| &text[..end]);
        let mut texts = whole.into_iter().chain(fields);
        texts.find_map(|text| serde_json::from_str(&format!("{text}}}")).ok())
    }

    /// The generation's id, where only the headers have it.
    pub(crate) fn inference_id(&self) -> Option<&str> {
        self.header(INFERENCE_ID).filter(|id| is_id(id))
    }

    /// The text for a response that can't be understood.
    pub(crate) fn unexpected(&self, reason: &str) -> String {
        let url = &self.base_url;
        let hint = match self.body.trim_start().chars().next() {
            Some('<') => format!(" (a web page: is {url} the base URL of the API?)"),
            // The first byte of gzip.
            Some('\u{1f}') => " (Content-Encoding: gzip, which was not asked for)".to_owned(),
            _ => String::new(),
        };
        format!("{reason}{hint}: {}", Excerpt(&self.body))
    }
}

/// Whether a generation can be asked for by this id: it has to fit into a URL and into one line.
pub(crate) fn is_id(id: &str) -> bool {
    id.len() <= 1000 && !id.trim().is_empty() && !id.contains(char::is_control)
}

/// Encodes what a URL can't have, and drops a fragment.
pub(crate) fn percent_encode(url: &str) -> String {
    let is_valid = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    let url = url.trim().split('#').next().unwrap_or_default();
    // No string for each byte: that took a twentieth of a job's instructions.
    let mut encoded = String::with_capacity(url.len());
    for byte in url.bytes() {
        match is_valid(byte) {
            true => encoded.push(char::from(byte)),
            false => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

/// What others wrote, as this crate's texts show it: one line of at most 300 characters.
pub(crate) struct Excerpt<'a>(pub(crate) &'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = one_line(self.0);
        let line = line.trim().trim_end_matches('.');
        match line.char_indices().nth(300) {
            Some((end, _)) => write!(f, "{} …", &line[..end]),
            None if line.is_empty() => f.write_str("(empty)"),
            None => f.write_str(line),
        }
    }
}

/// The text in one line, without characters that a terminal obeys or that can't be seen, and
/// without the queries of URLs, which may be signatures.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    let (mut is_url, mut is_query) = (false, false);
    for c in text.chars().filter(|c| !is_format(*c)) {
        let c = if c.is_control() { ' ' } else { c };
        if c.is_whitespace() || "\"'<>`|".contains(c) {
            (is_url, is_query) = (false, false);
        }
        // JSON may spell a slash as \/.
        is_url |= c == '/' && line.trim_end_matches('\\').ends_with('/');
        if is_url && !is_query && "?#".contains(c) {
            is_query = true;
            line.push_str("?…");
        }
        if !is_query {
            line.push(c);
        }
    }
    line
}

/// The characters of Unicode's category Cf, which are not shown, and its line and paragraph
/// separators: the first and the last of each range.
const FORMAT: [u32; 38] = [
    0xad, 0xad, 0x600, 0x605, 0x61c, 0x61c, 0x6dd, 0x6dd, 0x70f, 0x70f, 0x890, 0x891, 0x8e2, 0x8e2,
    0x180e, 0x180e, 0x200b, 0x200f, 0x2028, 0x202e, 0x2060, 0x206f, 0xfeff, 0xfeff, 0xfff9, 0xfffb,
    0x110bd, 0x110bd, 0x110cd, 0x110cd, 0x13430, 0x1343f, 0x1bca0, 0x1bca3, 0x1d173, 0x1d17a,
    0xe0000, 0xe007f,
];

fn is_format(c: char) -> bool {
    let (ranges, _) = FORMAT.as_chunks();
    ranges
        .iter()
        .any(|[first, last]| (*first..=*last).contains(&u32::from(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_one_line_without_signatures_and_hidden_characters() {
        let cases = [
            ("two\r\nlines", "two  lines"),
            ("a\u{1b}[31mred\u{9b}1m", "a [31mred 1m"),
            ("\u{202e}abc\u{2028}\u{feff}d\u{200b}", "abcd"),
            (
                "see https://cdn/v.mp4?sig=1&b=2, or not",
                "see https://cdn/v.mp4?… or not",
            ),
            (
                "{\"url\":\"https:\\/\\/cdn\\/v?sig=1\"}",
                "{\"url\":\"https:\\/\\/cdn\\/v?…\"}",
            ),
            (
                "https://a/?x=1 https://b/?y=2#z",
                "https://a/?… https://b/?…",
            ),
            ("https://a/b#f?x", "https://a/b?…"),
            ("really? yes/no? 1//2", "really? yes/no? 1//2"),
        ];
        for (text, line) in cases {
            assert_eq!(one_line(text), line);
        }
        assert_eq!(Excerpt(" Not shown... ").to_string(), "Not shown");
        assert_eq!(Excerpt("\n").to_string(), "(empty)");
        assert_eq!(
            Excerpt(&"é".repeat(301)).to_string(),
            "é".repeat(300) + " …"
        );
    }
}
