use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    time::SystemTime,
};

use serde_json::{Map, Value};

use crate::error::Error;

const DEFAULT_MODEL: &str = "google/veo3";

/// A request for a video: a prompt, a model, and whatever else is set. What is not set is not sent.
///
/// Each setter has the name of the JSON parameter that it sets, and sets nothing else. The server
/// validates values, free of charge; which model takes which is in the vendor's model pages, and
/// for Google's models in [a list](crate::models).
///
/// # A silent portrait video of four seconds
/// ```
/// use aimlapi_video::VideoRequest;
///
/// let request = VideoRequest::new("A lighthouse in a storm, seen from the sea")
///     .aspect_ratio("9:16")
///     .duration(4)
///     .resolution("1080P")
///     .generate_audio(false);
/// assert_eq!(request.to_json()?["duration"], 4);
/// # Ok::<(), aimlapi_video::Error>(())
/// ```
///
/// # A video that starts with an image
/// The default model takes text alone; `google/veo-3.0-i2v` is its image-to-video model. An image
/// on disk becomes a URL with the function `image_file` (feature `image-file`).
/// ```
/// use aimlapi_video::VideoRequest;
///
/// let request = VideoRequest::new("The cat wakes and yawns")
///     .model("google/veo-3.0-i2v")
///     .image_url("https://example.com/cat.jpg");
/// # request.to_json().unwrap();
/// ```
///
/// # Another model, with parameters of its own
/// ```
/// use aimlapi_video::{Client, UNIVERSAL_ENDPOINT, VideoRequest};
///
/// let client = Client::builder("your-key").endpoint(UNIVERSAL_ENDPOINT).build()?;
/// let request = VideoRequest::for_model("someone/new-model-2")
///     .param("prompt", "A paper boat on a river")
///     .param("cfg_scale", 0.5);
/// # request.to_json()?;
/// # Ok::<(), aimlapi_video::Error>(())
/// ```
#[derive(Clone, Default, PartialEq)]
#[must_use]
pub struct VideoRequest {
    model: Option<String>,
    params: Map<String, Value>,
    pub(crate) client_request_id: Option<String>,
}

impl VideoRequest {
    /// A video of what `prompt` describes, by `google/veo3`, the model of the vendor's example.
    pub fn new(prompt: impl Into<String>) -> Self {
        VideoRequest::default().param("prompt", prompt.into())
    }

    /// A request for `model` with nothing else set: for models that take no prompt.
    pub fn for_model(model: impl Into<String>) -> Self {
        VideoRequest::default().model(model)
    }

    /// Sets `model`. Defaults to `google/veo3`.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Sets `image_url`, the first frame: an `https` URL or a data URL. Needs an image-to-video
    /// model. `image_file` (feature `image-file`) makes a data URL of a file.
    pub fn image_url(self, image_url: impl Into<String>) -> Self {
        self.param("image_url", image_url.into())
    }

    /// Sets `last_image_url`, the last frame, beside `image_url`.
    pub fn last_image_url(self, last_image_url: impl Into<String>) -> Self {
        self.param("last_image_url", last_image_url.into())
    }

    /// Sets `image_urls`, reference images: for `google/veo-3.1-reference-to-video`.
    pub fn image_urls<U: Into<String>>(self, image_urls: impl IntoIterator<Item = U>) -> Self {
        let urls: Vec<String> = image_urls.into_iter().map(Into::into).collect();
        self.param("image_urls", urls)
    }

    /// Sets `video_url`, the video to extend: for `google/veo3-1-extend-video`.
    pub fn video_url(self, video_url: impl Into<String>) -> Self {
        self.param("video_url", video_url.into())
    }

    /// Sets `negative_prompt`, what to avoid.
    pub fn negative_prompt(self, negative_prompt: impl Into<String>) -> Self {
        self.param("negative_prompt", negative_prompt.into())
    }

    /// Sets `aspect_ratio`: `16:9` or `9:16` for Google's models.
    pub fn aspect_ratio(self, aspect_ratio: impl Into<String>) -> Self {
        self.param("aspect_ratio", aspect_ratio.into())
    }

    /// Sets `duration`, in seconds: 4, 6 or 8 for Veo 3, where the service's default is 8.
    pub fn duration(self, seconds: u32) -> Self {
        self.param("duration", seconds)
    }

    /// Sets `resolution`. The letter case matters: `720P` or `1080P` for `google/veo3` and
    /// `google/veo-3.0-*`, `720p` or `1080p` for `google/veo-3.1-*`. The service's default is
    /// `720P` for Veo 3, `1080p` for most of Veo 3.1.
    pub fn resolution(self, resolution: impl Into<String>) -> Self {
        self.param("resolution", resolution.into())
    }

    /// Sets `seed`: the same seed with the same request gives a similar video. The service's
    /// default is a random one.
    pub fn seed(self, seed: i64) -> Self {
        self.param("seed", seed)
    }

    /// Sets `enhance_prompt`: whether the service may rewrite the prompt. The service's default
    /// is `true`.
    pub fn enhance_prompt(self, enhance: bool) -> Self {
        self.param("enhance_prompt", enhance)
    }

    /// Sets `generate_audio`: whether the video has sound. The service's default is `true`.
    pub fn generate_audio(self, generate: bool) -> Self {
        self.param("generate_audio", generate)
    }

    /// Sets any parameter: for those that have no method here.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.params.insert(name.into(), value.into());
        self
    }

    /// Sets the id that is sent as `X-Client-Request-Id`. **It is no idempotency key: a request that
    /// is sent twice with the same id is paid for twice.**
    ///
    /// It is worth setting all the same: the usage log keeps it, so that a program that stores it
    /// before it sends the request finds the generation again, whatever happened in between
    /// ([`find_generation_id`](crate::Client::find_generation_id)). Use each once: 1 to 128 of
    /// `A-Z a-z 0-9 . _ : -`. The service silently drops any other value; here, it is an error.
    /// Defaults to a new random one for each call.
    pub fn client_request_id(mut self, id: impl Into<String>) -> Self {
        self.client_request_id = Some(id.into());
        self
    }

    /// The JSON body that [`generate_video`](crate::Client::generate_video) sends.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the prompt or the model is blank, the model is set as a parameter,
    /// the client request id would be dropped by the server, or there is an image or a video but
    /// no model is named: the default one takes text alone.
    pub fn to_json(&self) -> Result<Value, Error> {
        let invalid = |reason: &str| Err(Error::invalid(reason));
        if let Some(id) = &self.client_request_id {
            check_client_request_id(id)?;
        }
        if self.model_name().trim().is_empty() {
            return invalid("the model is blank: name one, such as google/veo3");
        }
        if self.params.contains_key("model") {
            return invalid("`model` is set as a parameter: use VideoRequest::model");
        }
        if self.prompt().is_some_and(|prompt| prompt.trim().is_empty()) {
            return invalid("the prompt is blank: describe the scene");
        }
        let media = ["image_url", "image_urls", "video_url"];
        let is_media = |name: &&String| media.iter().any(|media| name.ends_with(media));
        let media = self.params.keys().find(is_media);
        if let (None, Some(name)) = (&self.model, media) {
            return invalid(&format!(
                "`{name}` is set and no model is named, but the default, {DEFAULT_MODEL}, takes \
                 text alone: name a model, such as google/veo-3.0-i2v"
            ));
        }
        let mut body = self.params.clone();
        body.insert("model".to_owned(), self.model_name().into());
        Ok(Value::Object(body))
    }

    pub(crate) fn model_name(&self) -> &str {
        self.model.as_deref().unwrap_or(DEFAULT_MODEL)
    }

    pub(crate) fn prompt(&self) -> Option<&str> {
        self.params.get("prompt").and_then(Value::as_str)
    }

    /// The parameters that can be shown: without the prompt, URLs (they may be signed) and long
    /// strings.
    pub(crate) fn shown_params(&self) -> Map<String, Value> {
        let shown = |(name, value): &(&String, &Value)| *name != "prompt" && can_be_shown(value);
        let params = self.params.iter().filter(shown);
        let params = params.map(|(name, value)| (name.clone(), value.clone()));
        params.collect()
    }
}

fn can_be_shown(value: &Value) -> bool {
    match value {
        Value::String(text) => text.len() <= 100 && !text.contains("://"),
        Value::Array(items) => items.iter().all(can_be_shown),
        Value::Object(fields) => fields.values().all(can_be_shown),
        _ => true,
    }
}

impl fmt::Debug for VideoRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VideoRequest")
            .field("model", &self.model_name())
            .field("prompt", &self.prompt())
            .field("params", &Value::Object(self.shown_params()))
            .field("client_request_id", &self.client_request_id)
            .finish_non_exhaustive()
    }
}

pub(crate) fn check_client_request_id(id: &str) -> Result<(), Error> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if (1..=128).contains(&id.len()) && id.bytes().all(fits) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the client request id {id:?} would be dropped by the server: use 1 to 128 of \
         A-Z a-z 0-9 . _ : -"
    )))
}

/// A new unique id: 128 bits of the randomness that std seeds hash maps with, and of the time.
pub(crate) fn new_request_id() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let random = || RandomState::new().hash_one(now.as_ref().ok());
    format!("aimlapi-video-{:016x}{:016x}", random(), random())
}
