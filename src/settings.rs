//! The settings of a client, and what is wrong with them.

use std::{env, fmt, sync::Arc, time::Duration};

use crate::{
    error::Error,
    http::{api::REDACTED, url::SafeUrl},
    poll::Retry,
};

/// The default base URL of the API.
pub const BASE_URL: &str = "https://api.aimlapi.com/v2";

/// The default endpoint: the one on the vendor's Veo 3 page.
pub const VEO_ENDPOINT: &str = "generate/video/google/generation";

/// The vendor's newer endpoint, which serves nearly all video models, with the same bodies.
pub const UNIVERSAL_ENDPOINT: &str = "video/generations";

/// A year: a later point in time can't be computed everywhere.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

const KEY_CHARS: &str = "a key has A-Z a-z 0-9 - . _ ~ + / and = at the end";

/// What a client does, the key and the base URL aside.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) endpoint: String,
    pub(crate) poll_interval: Duration,
    pub(crate) poll_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) retry_delay: Duration,
    /// A server can keep a connection busy without an end: one byte at a time, say.
    pub(crate) connection_timeout: Duration,
    pub(crate) on_retry: Arc<dyn Fn(&Retry<'_>) + Send + Sync>,
}

impl Settings {
    pub(crate) fn debug(&self, name: &str, url: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("base_url", &url)
            .field("endpoint", &self.endpoint)
            .field("api_key", &format_args!("{REDACTED}"))
            .field("poll_interval", &self.poll_interval)
            .field("poll_timeout", &self.poll_timeout)
            .finish_non_exhaustive()
    }
}

/// The settings of a [`Client`](crate::Client) to be. From [`Client::builder`](crate::Client::builder), or from the environment.
#[derive(Clone)]
#[must_use]
pub struct ClientBuilder {
    pub(crate) key: String,
    /// The variable that the key came from.
    pub(crate) key_source: Option<&'static str>,
    pub(crate) base_url: String,
    pub(crate) settings: Settings,
}

impl ClientBuilder {
    pub(crate) fn new(key: String) -> Self {
        ClientBuilder {
            key,
            key_source: None,
            base_url: BASE_URL.to_owned(),

            settings: Settings {
                endpoint: VEO_ENDPOINT.to_owned(),
                poll_interval: Duration::from_secs(10),
                poll_timeout: Duration::from_secs(1000),
                request_timeout: Duration::from_secs(120),
                read_timeout: Duration::from_secs(30),
                retry_delay: Duration::from_secs(1),
                connection_timeout: Duration::from_secs(3600),
                on_retry: Arc::new(|_| {}),
            },
        }
    }

    /// A builder with the key and the base URL that [`Client::from_env`](crate::Client::from_env) reads.
    ///
    /// # Errors
    /// As [`Client::from_env`](crate::Client::from_env).
    pub fn from_env() -> Result<Self, Error> {
        let mut key = None;
        for name in ["AIMLAPI_KEY", "AIML_API_KEY", "AIMLAPI_API_KEY"] {
            key = key.or(read_env(name)?.map(|key| (key, name)));
        }
        let (key, name) = key.ok_or(Error::MissingKey)?;
        let mut builder = ClientBuilder::new(key);
        builder.key_source = Some(name);
        builder.base_url = read_env("AIMLAPI_BASE_URL")?.unwrap_or(builder.base_url);
        Ok(builder)
    }

    /// Sets the base URL of the API: https, or http to a loopback host. Defaults to [`BASE_URL`].
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = url.into();
        self
    }

    /// Sets the path of the endpoint under the base URL, such as [`UNIVERSAL_ENDPOINT`]. Defaults
    /// to [`VEO_ENDPOINT`].
    pub fn endpoint(mut self, path: impl Into<String>) -> Self {
        self.settings.endpoint = path.into();
        self
    }

    /// Sets the pause between two polls, and between two look-ups of a lost request. Defaults to
    /// 10 s, as in the vendor's example. Zero is invalid.
    pub fn poll_interval(mut self, time: Duration) -> Self {
        self.settings.poll_interval = time;
        self
    }

    /// Sets the time after which [`wait_for_video`](crate::Client::wait_for_video) gives up. Defaults to
    /// 1000 s, as in the vendor's example.
    #[doc(alias = "timeout")]
    pub fn poll_timeout(mut self, time: Duration) -> Self {
        self.settings.poll_timeout = time;
        self
    }

    /// Sets the time that each phase of a request to the API may take: sending the head, sending
    /// the body, waiting for the head of the response, and receiving its body. Defaults to 120 s. A
    /// GET has at most 30 s of it. A connection may take 20 s. DNS takes as long as the system's
    /// resolver does: a limit would take a thread for each request.
    pub fn request_timeout(mut self, time: Duration) -> Self {
        self.settings.request_timeout = time;
        self
    }

    /// Sets the time without a byte after which a download gives its connection up, and resumes
    /// on another. Defaults to 30 s.
    pub fn read_timeout(mut self, time: Duration) -> Self {
        self.settings.read_timeout = time;
        self
    }

    /// Sets the pause after a failed attempt to download; doubled with each further failure, up to
    /// a minute. Defaults to 1 s.
    pub fn retry_delay(mut self, time: Duration) -> Self {
        self.settings.retry_delay = time;
        self
    }

    /// Calls this before each pause in which a wait, a download or a look-up in the usage log
    /// stays, because something failed and will be tried again. Defaults to nothing: a wait for a
    /// host that does not respond then shows nothing.
    ///
    /// ```
    /// # use aimlapi_video::Client;
    /// let builder = Client::builder("your-key").on_retry(|retry| eprintln!("{retry}"));
    /// # builder.build().unwrap();
    /// ```
    pub fn on_retry(mut self, on_retry: impl Fn(&Retry<'_>) + Send + Sync + 'static) -> Self {
        self.settings.on_retry = Arc::new(on_retry);
        self
    }
}

/// A key is a bearer token (RFC 6750, 2.1), of characters that no JSON escapes. The error names
/// what people paste by mistake, and never the key.
pub(crate) fn check_key<'k>(key: &'k str, source: Option<&str>) -> Result<&'k str, Error> {
    let key = key.trim();
    let is_token_char = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
    let token = key.trim_end_matches('=');
    let wrong = token.chars().enumerate().find(|(_, c)| !is_token_char(*c));
    let name = key.split('=').next().unwrap_or_default();
    let bearer = key.get(..7).unwrap_or_default();
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let has_quotes = key.starts_with(['"', '\'', '“', '‘', '`']);
    let reason = match wrong {
        None if !token.is_empty() => return Ok(key),
        None => "is blank",
        Some(_) if has_quotes => "has quotes around it: remove them",
        Some(_) if bearer.eq_ignore_ascii_case("bearer ") => {
            "has `Bearer ` in front of it: remove that"
        }
        Some((_, '=')) if name.contains('_') && name.chars().all(is_name) => {
            "has the name of a variable and `=` in front of it: remove these"
        }
        Some((_, '<')) => "is a placeholder: put your own key there",
        Some((index, c)) => {
            let (code, position) = (u32::from(c), index + 1);
            &format!("has the character U+{code:04X} at position {position}: {KEY_CHARS}")
        }
    };
    let source = source.map(|name| format!(" in {name}")).unwrap_or_default();
    Err(Error::invalid(format!("the API key{source} {reason}")))
}

pub(crate) fn check_base_url(url: &str) -> Result<SafeUrl, Error> {
    let checked = match url.contains(['?', '#']) || url.len() > 2000 {
        true => Err("is too long, or has a query or a fragment".to_owned()),
        false => SafeUrl::parse(url),
    };
    let invalid = |reason| format!("the base URL {reason}; it is like {BASE_URL}");
    let mut url = checked.map_err(|reason| Error::invalid(invalid(reason)))?;
    url.url.truncate(url.url.trim_end_matches('/').len());
    Ok(url)
}

pub(crate) fn check_endpoint(path: &str) -> Result<String, Error> {
    let is_path_char = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let invalid = || format!("the endpoint {path:?} is not a path like {VEO_ENDPOINT}");
    match path.trim_matches('/') {
        path if !path.is_empty() && path.bytes().all(is_path_char) => Ok(path.to_owned()),
        _ => Err(Error::invalid(invalid())),
    }
}

pub(crate) fn check_times(settings: &mut Settings) -> Result<(), Error> {
    for (name, time) in [
        ("poll_interval", &mut settings.poll_interval),
        ("request_timeout", &mut settings.request_timeout),
        ("read_timeout", &mut settings.read_timeout),
    ] {
        if time.is_zero() {
            let reason = "is zero: give a longer time";
            return Err(Error::invalid(format!("{name} {reason}")));
        }
        *time = (*time).min(MAX_TIMEOUT);
    }
    Ok(())
}

fn read_env(name: &str) -> Result<Option<String>, Error> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.trim().is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(Error::invalid(format!("{name} is not Unicode"))),
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.debug("ClientBuilder", &self.base_url, f)
    }
}
