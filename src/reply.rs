use std::time::Duration;

use serde_json::Value;

use crate::{
    Generation,
    error::{ApiError, Excerpt},
    generation::{INFERENCE_ID, is_id},
};

/// The headers that this crate reads.
pub(crate) const HEADERS: [&str; 5] = [
    INFERENCE_ID,
    "x-client-request-id",
    "x-aimlapi-credits-used",
    "x-aimlapi-usd-spent",
    "retry-after",
];

/// A response of the API.
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Those of [`HEADERS`] that it has.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
    pub(crate) host: String,
}

impl Reply {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| *known == name);
        header.map(|(_, value)| value.as_str())
    }

    /// The generation's id, where only the headers have it.
    pub(crate) fn inference_id(&self) -> Option<String> {
        let id = self.header(INFERENCE_ID).filter(|id| is_id(id));
        id.map(str::to_owned)
    }

    /// The body as JSON, if that came whole, even if the connection broke after it.
    pub(crate) fn json(&self) -> Result<Value, String> {
        serde_json::from_str(&self.body).map_err(|_| "it is not JSON".to_owned())
    }

    /// The generation that the response describes. `asked` is the id that a GET asked about.
    pub(crate) fn generation(&self, asked: Option<&str>) -> Result<Generation, String> {
        let header = |name: &str| self.header(name);
        let generation = self
            .json()
            .and_then(|json| Generation::new(json, asked, &header));
        generation.map_err(|reason| self.unexpected(&reason))
    }

    /// The text for a response that can't be understood.
    pub(crate) fn unexpected(&self, reason: &str) -> String {
        format!("{reason}: {}", Excerpt(&self.body))
    }

    pub(crate) fn api_error(&self, generation_id: Option<&str>) -> ApiError {
        let seconds = self
            .header("retry-after")
            .and_then(|seconds| seconds.parse().ok());
        let asked = generation_id.map(str::to_owned);
        ApiError {
            retry_after: seconds.map(Duration::from_secs),
            generation_id: asked.or_else(|| self.inference_id()),
            ..ApiError::new(self.status, &self.host, &self.body)
        }
    }
}
