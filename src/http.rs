//! What the texts in HTTP messages mean: addresses, `Retry-After`, `Content-Range`. No I/O.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::{Duration, SystemTime},
};

const HAS_TLS: bool = cfg!(any(feature = "rustls", feature = "native-tls"));

/// An address that this crate may send to: https anywhere, or http to this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// The address in ASCII, without a fragment.
    pub(crate) url: String,
    /// Where the path begins in `url`.
    path_at: usize,
    pub(crate) is_loopback: bool,
}

impl Address {
    /// Errors complete the sentence "the address …". They don't repeat the address, which may be signed.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let url = url.trim();
        let url = url.split('#').next().unwrap_or_default();
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err("does not begin with https://".to_owned());
        };
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err("has a user name in it".to_owned());
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let proper = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
        };
        if !proper {
            return Err("has no proper host name".to_owned());
        }
        if port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return Err("has no proper port".to_owned());
        }
        let is_loopback = is_loopback(host);
        let scheme = scheme.to_ascii_lowercase();
        match scheme.as_str() {
            "https" if HAS_TLS => {}
            "https" => return Err("is https, which needs the feature `rustls` or `native-tls`".to_owned()),
            "http" if is_loopback => {}
            "http" => return Err(format!("is http to {host}: only https is safe, or http to this machine")),
            _ => return Err("is neither https nor http".to_owned()),
        }
        let path = &rest[authority.len()..];
        let slash = if path.starts_with('/') { "" } else { "/" };
        let origin = format!("{scheme}://{authority}");
        Ok(Address { url: format!("{origin}{slash}{}", to_ascii(path)), path_at: origin.len(), is_loopback })
    }

    /// The address that a `Location` header at this address names.
    pub(crate) fn join(&self, location: &str) -> Result<Self, String> {
        let (origin, path) = self.url.split_at(self.path_at);
        let location = location.trim().split('#').next().unwrap_or_default();
        if location.is_empty() {
            return Err("is not given".to_owned());
        }
        if let Some(host_and_path) = location.strip_prefix("//") {
            let scheme = origin.split("://").next().unwrap_or_default();
            return Self::parse(&format!("{scheme}://{host_and_path}"));
        }
        let scheme_end = location.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
        if scheme_end.is_some_and(|end| location[end..].starts_with(':')) {
            return Self::parse(location);
        }
        let path = path.split('?').next().unwrap_or_default();
        match location.as_bytes()[0] {
            b'/' => Self::parse(&format!("{origin}{}", without_dots(location))),
            b'?' => Self::parse(&format!("{origin}{path}{location}")),
            _ => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                Self::parse(&format!("{origin}{}", without_dots(&format!("{folder}/{location}"))))
            }
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Resolves the steps `.` and `..` of a path (RFC 3986, 5.2.4), not those of its query.
fn without_dots(path: &str) -> String {
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let mut steps = Vec::new();
    let mut rest = path.split('/').skip(1).peekable();
    while let Some(step) = rest.next() {
        if step == ".." {
            steps.pop();
        }
        if step != "." && step != ".." {
            steps.push(step);
        } else if rest.peek().is_none() {
            steps.push("");
        }
    }
    format!("/{}{query}", steps.join("/"))
}

/// Percent-encodes what may not stand in an address as it is.
fn to_ascii(path: &str) -> String {
    let mut ascii = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            ascii.push(char::from(byte));
        } else {
            ascii.push_str(&format!("%{byte:02X}"));
        }
    }
    ascii
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date. Anything else is as if it were not there.
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(http_date(value)?))?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// Seconds since 1970 of a date like `Sun, 06 Nov 1994 08:49:37 GMT`, the only form that servers may write.
fn http_date(date: &str) -> Option<u64> {
    let (_, date) = date.split_once(", ")?;
    let mut words = date.split(' ');
    let mut word = || words.next();
    let (day, month, year, time, zone) = (word()?, word()?, word()?, word()?, word()?);
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == month)? as u64 + 1;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let mut parts = time.split(':').map(|part| part.parse::<u64>().ok().filter(|number| *number <= 60));
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1..=31).contains(&day) || !(1970..=9999).contains(&year) || zone != "GMT" {
        return None;
    }
    // Years that begin in March, so that leap days come last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
}

/// `Content-Range` (RFC 9110, 14.4): the offset of the first byte, if there are any, and the size of the whole.
pub(crate) fn content_range(value: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, range) = value.trim().split_once(' ')?;
    let (range, total) = range.split_once('/').filter(|_| unit.eq_ignore_ascii_case("bytes"))?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    if range == "*" {
        return Some((None, total));
    }
    let (start, _) = range.split_once('-')?;
    Some((Some(start.parse().ok()?), total))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};
    use ureq::http::Uri;

    use super::*;

    /// Addresses, and what people and attackers make of them.
    fn any_address() -> impl Strategy<Value = String> {
        let parts = "https:// http:// HTTP:// // / \\ ? # @ : . .. [ ] [::1] ::1 127.0.0.1 127.1 0x7f.1 localhost \
                     LOCALHOST evil.example [::ffff:127.0.0.1] 10.0.0.1 :80 :+80 :99999 %31 é \u{3000} a";
        prop_oneof![
            4 => vec(select(parts.split_whitespace().chain([" ", "\t", "\0"]).collect::<Vec<_>>()), 0..6)
                .prop_map(|parts| parts.concat()),
            4 => (select(vec!["https://", "http://"]), vec(select("127.0.0.1 localhost [::1] evil.example : @ / ] [ . 80".split(' ').collect::<Vec<_>>()), 0..5))
                .prop_map(|(scheme, parts)| scheme.to_owned() + &parts.concat()),
            1 => any::<String>(),
        ]
    }

    /// The address goes, as the HTTP library reads it, over https or to this machine.
    fn assert_safe(address: &Address) -> Result<(), TestCaseError> {
        let uri: Uri = address.url.parse().map_err(|error| TestCaseError::fail(format!("{address:?}: {error}")))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let local =
            host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        prop_assert!(uri.scheme_str() == Some("https") || local, "{:?}", address);
        prop_assert_eq!(address.is_loopback, local, "{:?}", address);
        prop_assert!(!uri.authority().is_none_or(|authority| authority.as_str().contains('@')), "{:?}", address);
        Ok(())
    }

    /// The date so many days after 1970-01-01, by counting.
    fn date(mut days: u64) -> (u64, usize, u64) {
        let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let (mut year, mut month) = (1970, 0);
        loop {
            let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            if days < lengths[month] {
                return (year, month, days + 1);
            }
            days -= lengths[month];
            month += 1;
            if month == 12 {
                (year, month) = (year + 1, 0);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_address_leads_to_plain_http_elsewhere(url in any_address(), location in any_address()) {
            if let Ok(address) = Address::parse(&url) {
                assert_safe(&address)?;
                if let Ok(next) = address.join(&location) {
                    assert_safe(&next)?;
                }
            }
        }

        #[test]
        fn a_date_is_read_as_a_calendar_says(days in 0..2_932_896_u64, time in 0..86_400_u64) {
            let (year, month, day) = date(days);
            let month = "JanFebMarAprMayJunJulAugSepOctNovDec".get(month * 3..month * 3 + 3).unwrap();
            let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
            let text = format!("Sun, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT");
            prop_assert_eq!(http_date(&text), Some(days * 86_400 + time), "{}", text);
        }

        #[test]
        fn headers_of_any_kind_are_read_or_left_out(value in any::<String>(), numbers in vec(any::<u64>(), 3)) {
            let [a, b, c] = numbers[..] else { unreachable!() };
            for text in [&value, &format!("bytes {value}"), &format!("Sun, {value} GMT"), &format!("{a}{b}")] {
                let _ = (retry_after(text, SystemTime::now()), content_range(text));
            }
            prop_assert_eq!(content_range(&format!("bytes {a}-{b}/{c}")), Some((Some(a), Some(c))));
            prop_assert_eq!(retry_after(&a.to_string(), SystemTime::UNIX_EPOCH), Some(Duration::from_secs(a)));
        }
    }
}
