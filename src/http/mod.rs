//! Connections: proxy, TLS, limits; and what went wrong with one, in words. Only this folder names
//! `ureq`.

pub(crate) mod api;
pub(crate) mod file;
pub(crate) mod url;

use std::{
    env, io,
    time::{Duration, SystemTime},
};

use crate::reply::Excerpt;

/// Over loopback, 64 KiB are about a tenth slower, and more than this gains nothing.
pub(crate) const BUFFER_SIZE: usize = 131_072;
/// For the TCP connection and the TLS handshake, of all addresses that a host has.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

const HAS_TLS: bool = cfg!(any(feature = "rustls", feature = "native-tls"));
const NEEDS_TLS: &str = "needs the feature `rustls` or `native-tls`";

/// Limits each phase of a request. A macro, since the type of `config` can't be named.
macro_rules! limit_phases {
    ($config:expr, $time:expr) => {
        $config
            .timeout_connect(Some($time.min(CONNECT_TIMEOUT)))
            .timeout_send_request(Some($time))
            .timeout_send_body(Some($time))
            .timeout_recv_response(Some($time))
            .timeout_recv_body(Some($time))
    };
}
use limit_phases;

/// No timeout is global: with one, ureq starts a thread for DNS at each request.
fn agent(proxy: Option<ureq::Proxy>, time: Duration) -> ureq::Agent {
    let config = limit_phases!(ureq::Agent::config_builder(), time)
        .user_agent(concat!("aimlapi-video/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .proxy(proxy)
        .http_status_as_error(false)
        .max_redirects(0)
        // A hundred jobs that wait at once keep their connections, and small buffers.
        .max_idle_connections(128)
        .max_idle_connections_per_host(128)
        .input_buffer_size(16_384)
        .output_buffer_size(16_384);
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

/// The proxy that the environment names. One that can't be used is an error, and never left out.
fn proxy_for_host(is_loopback: bool) -> Result<Option<ureq::Proxy>, String> {
    // The order in which ureq reads them.
    let names = "ALL_PROXY all_proxy HTTPS_PROXY https_proxy HTTP_PROXY http_proxy";
    // A proxy can't reach this computer's loopback.
    for name in names.split(' ').filter(|_| !is_loopback) {
        let value = match env::var(name) {
            Ok(value) if !value.trim().is_empty() => value,
            Err(env::VarError::NotUnicode(_)) => return Err(format!("{name} is not Unicode")),
            _ => continue,
        };
        let advice = "correct the variable, or unset it";
        let refused = |reason| format!("the proxy in {name} {reason}: {advice}");
        let proxy = ureq::Proxy::new(&value).map_err(|_| refused("is not the URL of a proxy"));
        check_proxy(&proxy?).map_err(refused)?;
        return Ok(ureq::Proxy::try_from_env());
    }
    Ok(None)
}

fn check_proxy(proxy: &ureq::Proxy) -> Result<(), &'static str> {
    match proxy.protocol() {
        ureq::ProxyProtocol::Http => Ok(()),
        ureq::ProxyProtocol::Https if HAS_TLS => Ok(()),
        ureq::ProxyProtocol::Https => Err(NEEDS_TLS),
        _ if cfg!(feature = "socks-proxy") => Ok(()),
        _ => Err("is a SOCKS proxy, which needs the feature `socks-proxy` of aimlapi-video"),
    }
}

/// What went wrong between this computer and the host. The kind is `InvalidData` where the TLS
/// library refused the server.
fn describe(error: ureq::Error, host: &str) -> io::Error {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, InvalidData, TimedOut};
    let error = match error {
        ureq::Error::Timeout(timeout) => io::Error::new(TimedOut, format!("timed out ({timeout})")),
        #[cfg(feature = "native-tls")]
        ureq::Error::NativeTls(error) => io::Error::new(InvalidData, error),
        other => other.into_io(),
    };
    let cause = Excerpt(&error.to_string()).to_string();
    let has = |words: &[&str]| words.iter().any(|word| cause.contains(word));
    let is_broken = has(&["fatal alert", "SSL alert", "unexpected EOF", "decrypt"]);
    let kind = match error.kind() {
        // A load balancer that restarts, say.
        InvalidData if is_broken => ConnectionReset,
        // `io::copy` would try again, forever.
        Interrupted => ConnectionAborted,
        kind => kind,
    };
    if kind != InvalidData {
        return io::Error::new(kind, format!("no response from {host}: {cause}"));
    }
    let advice = match has(&["not valid yet", "not yet valid", "expired"]) {
        true => format!("This computer's date is {}: check its clock", date(SystemTime::now())),
        false => "Behind a proxy with a certificate authority of its own, build with the feature \
            `platform-verifier` or `native-tls`; a server without TLS needs an http URL, which must \
            be loopback"
            .to_owned(),
    };
    let text = format!("{host}: the TLS library refused the server ({cause}). {advice}");
    io::Error::new(kind, text)
}

/// The date, in UTC (Howard Hinnant's `civil_from_days`).
fn date(time: SystemTime) -> String {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH);
    let days = since_1970.unwrap_or_default().as_secs() / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + 400 * era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_of_a_day_has_its_date() {
        let days = [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (789, "1972-02-29"),
            (11_016, "2000-02-29"),
            (20_784, "2026-11-27"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ];
        for (day, text) in days {
            for second in [0, 86_399] {
                let time = Duration::from_secs(day * 86_400 + second);
                assert_eq!(date(SystemTime::UNIX_EPOCH + time), text);
            }
        }
    }
}
