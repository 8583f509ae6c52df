//! Which URLs this crate may send requests to.

use std::net::{IpAddr, Ipv4Addr};

use ureq::http::Uri;

use crate::{
    http::{HAS_TLS, NEEDS_TLS},
    reply::{Excerpt, percent_encode},
};

/// A URL that this crate may send requests to: https anywhere, or http to a loopback host.
pub(crate) struct SafeUrl {
    pub(crate) url: String,
    /// With the port, if the URL names one.
    pub(crate) host: String,
    pub(crate) is_https: bool,
    /// Whether it leads to this computer, however the host is written.
    pub(crate) is_loopback: bool,
}

impl SafeUrl {
    /// Errors complete the sentence "the URL …", and don't repeat the URL: it may be signed.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let url = percent_encode(url);
        if !url.contains("://") {
            return Err("does not start with https://".to_owned());
        }
        let uri = Uri::try_from(&url).map_err(|error| format!("is invalid ({error})"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err("has no host".to_owned());
        };
        let name = authority.host();
        let port = authority.port_u16().map(|port| format!(":{port}"));
        let host = format!("{name}{}", port.unwrap_or_default());
        if name.is_empty() || authority.as_str() != host {
            return Err("has an invalid port or host, or a user name".to_owned());
        }
        match scheme {
            "https" if HAS_TLS => {}
            "http" if is_plain_loopback(name) => {}
            "https" => return Err(NEEDS_TLS.to_owned()),
            _ => {
                let (scheme, name) = (Excerpt(scheme), Excerpt(name));
                let advice = "only https is safe, or http to a loopback host";
                return Err(format!("is {scheme} to {name}: {advice}"));
            }
        }
        Ok(SafeUrl {
            is_https: scheme == "https",
            is_loopback: is_loopback(name),
            host,
            url,
        })
    }
}

/// Whether every resolver reads this host as loopback.
fn is_plain_loopback(host: &str) -> bool {
    let ip: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Whether some resolver may read this host, which may have a port, as this computer.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let host = host.trim_matches(['[', ']']).trim_end_matches('.');
    let host = host.to_ascii_lowercase();
    let is_here = |ip: Ipv4Addr| ip.is_loopback() || ip.octets()[0] == 0;
    match host.parse() {
        Ok(IpAddr::V4(ip)) => is_here(ip),
        // Both spellings of IPv4 addresses; `::` and `::1` are 0.0.0.0 and 0.0.0.1 in the old one.
        Ok(IpAddr::V6(ip)) => ip.to_ipv4().is_some_and(is_here),
        Err(_) if host == "localhost" || host.ends_with(".localhost") => true,
        Err(_) => short_ipv4(&host).is_some_and(is_here),
    }
}

/// An IPv4 address as `inet_aton` reads it: of one to four numbers, decimal, octal or hexadecimal,
/// of which the last fills what is left.
fn short_ipv4(host: &str) -> Option<Ipv4Addr> {
    let parse = |part: &str| match part.strip_prefix("0x") {
        Some("") => Some(0),
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None if part.starts_with('0') => u32::from_str_radix(part, 8).ok(),
        None => part.parse().ok(),
    };
    let parts: Option<Vec<u32>> = host.split('.').map(parse).collect();
    let (last, first) = parts.as_deref()?.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) {
        return None;
    }
    let front = first.iter().enumerate();
    let front = front.fold(0, |ip, (index, part)| ip | part << (24 - 8 * index));
    Some(Ipv4Addr::from(front | last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_recognized_in_all_its_spellings() {
        let spellings = "localhost LOCALHOST localhost. a.localhost 127.0.0.1 127.1 127.0.1 \
            127.255.1 2130706433 0x7f000001 0x7f.1 0177.0.0.1 017700000001 0.0.0.0 0 \
            127.255.255.254 [::1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] 127.0.0.1.";
        for host in spellings.split_whitespace() {
            assert!(is_loopback(host), "{host}");
        }
        let others = "example.com localhost.com 128.0.0.1 10.0.0.1 2130706432.com 127.0.0.1.com \
            1.127.0.0.1 [2001:db8::1] 0x80.1 8.8.8.8 256.256.256.256 127.256.1 \
            127.0.0.0.1 cdn.aimlapi.com";
        for host in others.split_whitespace() {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn http_is_for_hosts_that_every_resolver_reads_as_loopback() {
        for url in [
            "http://localhost:1",
            "http://127.0.0.1",
            "http://[::1]:80/v2",
            "http://127.9.9.9",
        ] {
            assert!(SafeUrl::parse(url).is_ok(), "{url}");
        }
        for url in [
            "http://127.1",
            "http://0177.0.0.1",
            "http://2130706433",
            "http://a.localhost",
        ] {
            assert!(SafeUrl::parse(url).is_err(), "{url}");
        }
    }
}
