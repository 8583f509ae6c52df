use std::fmt;

use serde_json::{Map, Value};

use crate::{Error, Image, models};

/// What to generate: a prompt, a model, and whatever else is set. What is not set is not sent.
///
/// # An upright, silent clip of four seconds, at 1080p, with a seed
/// ```
/// use aimlapi_video::{AspectRatio, Resolution, VideoRequest};
///
/// let request = VideoRequest::new("A lighthouse in a storm, seen from the sea")
///     .aspect_ratio(AspectRatio::Portrait)
///     .duration(4)
///     .generate_audio(false)
///     .resolution(Resolution::P1080)
///     .seed(42);
/// # request.to_json().unwrap();
/// ```
///
/// # A clip from a photo on disk
/// With `aimlapi-video = { version = "0.1", features = ["image-file"] }`:
/// ```no_run
/// use aimlapi_video::{Image, VideoRequest};
///
/// let photo = Image::from_file("cat.jpg")?;
/// let request = VideoRequest::from_image("The cat wakes and yawns", photo);
/// # Ok::<(), aimlapi_video::Error>(())
/// ```
///
/// # A clip between two frames
/// ```
/// use aimlapi_video::VideoRequest;
///
/// let request = VideoRequest::between_images(
///     "The flower opens",
///     "https://example.com/bud.png",
///     "https://example.com/blossom.png",
/// );
/// # request.to_json().unwrap();
/// ```
///
/// # More of an earlier video
/// ```
/// use aimlapi_video::VideoRequest;
///
/// let earlier = "https://example.com/dragon.mp4";
/// let request = VideoRequest::extend_video("The dragon lands", earlier);
/// # request.to_json().unwrap();
/// ```
///
/// # A model that this crate has never heard of
/// ```
/// use aimlapi_video::{Client, UNIVERSAL_ENDPOINT, VideoRequest};
///
/// let client = Client::builder("your-key").endpoint(UNIVERSAL_ENDPOINT).build()?;
/// let request = VideoRequest::new("A paper boat on a river")
///     .model("someone/new-model-2")
///     .param("cfg_scale", 0.5)
///     .param("camera_control", "zoom_in");
/// # request.to_json()?;
/// # Ok::<(), aimlapi_video::Error>(())
/// ```
///
/// Values and parameters are checked before anything is sent, against the published schema of the
/// chosen model; for a model that the crate does not know they are sent as given.
#[derive(Clone, PartialEq)]
#[must_use]
pub struct VideoRequest {
    model: String,
    params: Map<String, Value>,
    client_request_id: Option<String>,
}

impl VideoRequest {
    /// A video of what `prompt` describes, made by `google/veo3`, the model of the vendor's example.
    ///
    /// The prompt must not be empty. It arrives as it is, whatever its characters and its length.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self::for_model("google/veo3").prompt(prompt)
    }

    /// A video that begins with `image`, made by `google/veo-3.0-i2v`.
    pub fn from_image(prompt: impl Into<String>, image: impl Into<Image>) -> Self {
        Self::for_model("google/veo-3.0-i2v").prompt(prompt).image(image)
    }

    /// A video from the image `first` to the image `last`, made by
    /// `google/veo-3.1-first-last-image-to-video`.
    pub fn between_images(prompt: impl Into<String>, first: impl Into<Image>, last: impl Into<Image>) -> Self {
        Self::for_model("google/veo-3.1-first-last-image-to-video").prompt(prompt).image(first).last_image(last)
    }

    /// A video that shows what is on `images`, made by `google/veo-3.1-reference-to-video`.
    pub fn from_references<I: Into<Image>>(prompt: impl Into<String>, images: impl IntoIterator<Item = I>) -> Self {
        Self::for_model("google/veo-3.1-reference-to-video").prompt(prompt).reference_images(images)
    }

    /// Seven more seconds of the video at `video_url` (the [`url`](crate::Video::url) of an earlier one, say), made
    /// by `google/veo3-1-extend-video`.
    pub fn extend_video(prompt: impl Into<String>, video_url: impl Into<String>) -> Self {
        Self::for_model("google/veo3-1-extend-video").prompt(prompt).video_url(video_url)
    }

    /// A request to `model` with nothing else set: for models that take no prompt.
    pub fn for_model(model: impl Into<String>) -> Self {
        VideoRequest { model: model.into(), params: Map::new(), client_request_id: None }
    }

    /// Chooses the model. All that is set stays, spelled as the new model spells it.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = model.into();
        self
    }

    /// Sets `prompt`, the description of the scene.
    pub fn prompt(self, prompt: impl Into<String>) -> Self {
        self.param("prompt", prompt.into())
    }

    /// Sets `aspect_ratio`. Most Google models have no documented default. For ratios of other models that
    /// [`AspectRatio`] does not have, use [`param`](Self::param).
    pub fn aspect_ratio(self, ratio: AspectRatio) -> Self {
        self.param("aspect_ratio", ratio.as_str())
    }

    /// Sets `duration`, in seconds: 4, 6 or 8 for Veo 3. The service's default is 8 there.
    pub fn duration(self, seconds: u32) -> Self {
        self.param("duration", seconds)
    }

    /// Sets `resolution`. The service's default is 720p for Veo 3, 1080p for most of Veo 3.1.
    pub fn resolution(self, resolution: Resolution) -> Self {
        self.param("resolution", resolution.as_str())
    }

    /// Sets `negative_prompt`, the description of what to avoid.
    pub fn negative_prompt(self, prompt: impl Into<String>) -> Self {
        self.param("negative_prompt", prompt.into())
    }

    /// Sets `seed`: the same seed with the same request gives a similar video. The service's default is a random one.
    pub fn seed(self, seed: i64) -> Self {
        self.param("seed", seed)
    }

    /// Sets `enhance_prompt`: whether the service may rewrite the prompt. The service's default is `true`.
    pub fn enhance_prompt(self, enhance: bool) -> Self {
        self.param("enhance_prompt", enhance)
    }

    /// Sets `generate_audio`: whether the video has sound. The service's default is `true`.
    pub fn generate_audio(self, audio: bool) -> Self {
        self.param("generate_audio", audio)
    }

    /// Sets `auto_fix`: whether to rewrite a prompt that fails a content check. The service's default is `true`
    /// for Veo 3.1 from text, `false` for extending a video.
    pub fn auto_fix(self, fix: bool) -> Self {
        self.param("auto_fix", fix)
    }

    /// Sets `person_generation`, for `veo-3.1-lite-generate-001`. The service's default is [`PersonGeneration::AllowAdult`].
    pub fn person_generation(self, persons: PersonGeneration) -> Self {
        self.param("person_generation", persons.as_str())
    }

    /// Sets `provider`, who runs the model. The service's default is [`Provider::Auto`].
    pub fn provider(self, provider: Provider) -> Self {
        self.param("provider", provider.as_str())
    }

    /// Sets `image_url`, the first frame.
    pub fn image(self, image: impl Into<Image>) -> Self {
        self.param("image_url", image.into().into_url())
    }

    /// Sets `last_image_url`, the last frame; `tail_image_url` for `veo2/image-to-video`.
    pub fn last_image(self, image: impl Into<Image>) -> Self {
        self.param("last_image_url", image.into().into_url())
    }

    /// Sets `image_urls`, the images to take people and things from.
    pub fn reference_images<I: Into<Image>>(self, images: impl IntoIterator<Item = I>) -> Self {
        let urls: Vec<String> = images.into_iter().map(|image| image.into().into_url()).collect();
        self.param("image_urls", urls)
    }

    /// Sets `video_url`, the video to extend or to edit.
    pub fn video_url(self, url: impl Into<String>) -> Self {
        self.param("video_url", url.into())
    }

    /// Sets `audio_url`, for `google/gemini-omni-flash-preview`.
    pub fn audio_url(self, url: impl Into<String>) -> Self {
        self.param("audio_url", url.into())
    }

    /// Sets `previous_interaction_id`, for edits in conversation with `google/gemini-omni-flash-preview`.
    pub fn previous_interaction_id(self, id: impl Into<String>) -> Self {
        self.param("previous_interaction_id", id.into())
    }

    /// Sets `task`, for `google/gemini-omni-flash-preview`. The service infers it from the media given.
    pub fn task(self, task: OmniTask) -> Self {
        self.param("task", task.as_str())
    }

    /// Sets `delivery`, for `google/gemini-omni-flash-preview`, whose only word for it is `uri`.
    pub fn delivery(self, delivery: impl Into<String>) -> Self {
        self.param("delivery", delivery.into())
    }

    /// Sets any parameter: for those that have no method here.
    ///
    /// ```
    /// use aimlapi_video::VideoRequest;
    /// let request = VideoRequest::new("A fox").model("someone/model").param("cfg_scale", 0.5);
    /// assert_eq!(request.to_json()?["cfg_scale"], 0.5);
    /// # Ok::<(), aimlapi_video::Error>(())
    /// ```
    pub fn param(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.params.insert(name.into(), value.into());
        self
    }

    /// Sets the id that is sent as `X-Client-Request-Id` and kept in the usage log, to find the
    /// generation by: 1 to 128 of `A-Z a-z 0-9 . _ : -`. Use each once. Defaults to a fresh one for each call.
    ///
    /// The service drops any other value without a word; here, sending it is an error.
    pub fn client_request_id(mut self, id: impl Into<String>) -> Self {
        self.client_request_id = Some(id.into());
        self
    }

    pub(crate) fn requested_id(&self) -> Option<&str> {
        self.client_request_id.as_deref()
    }

    /// The JSON body that [`generate_video`](crate::Client::generate_video) sends, after all checks.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a parameter is missing, unknown to the model, or has a value that the
    /// model's published schema does not allow; or if the client request id would be dropped by the server.
    pub fn to_json(&self) -> Result<Value, Error> {
        if let Some(id) = &self.client_request_id {
            check_client_request_id(id)?;
        }
        if self.model.trim().is_empty() {
            return Err(Error::Invalid("the model is empty: name one, such as google/veo3".to_owned()));
        }
        let mut body = self.params.clone();
        if body.contains_key("model") {
            return Err(Error::Invalid("`model` is set as a parameter: use VideoRequest::model".to_owned()));
        }
        if body.get("prompt").and_then(Value::as_str).is_some_and(|prompt| prompt.trim().is_empty()) {
            return Err(Error::Invalid("the prompt is empty: describe the scene".to_owned()));
        }
        if let Some(model) = models::find(&self.model) {
            model.respell(&mut body);
            model.check(&body).map_err(|fault| Error::Invalid(fault.to_string()))?;
        }
        body.insert("model".to_owned(), Value::from(self.model.as_str()));
        Ok(Value::Object(body))
    }

    /// The request as it was made: what a receipt keeps, and what two requests are compared by. The spelling that a
    /// model wants is not in it, since what this crate knows of models may change.
    pub(crate) fn summary(&self) -> Value {
        let mut summary = Value::Object(self.params.clone());
        abridge(&mut summary);
        summary["model"] = Value::from(self.model.as_str());
        summary
    }
}

impl fmt::Debug for VideoRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VideoRequest")
            .field("body", &format_args!("{}", self.summary()))
            .field("client_request_id", &self.client_request_id)
            .finish()
    }
}

/// Puts a checksum in place of what is long or secret: data URLs, and the queries of addresses, which may be signed.
/// Fractions become texts: as numbers, they may read back as their neighbours, and the request would be another.
fn abridge(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(abridge),
        Value::Object(map) => map.values_mut().for_each(abridge),
        Value::Number(number) if number.is_f64() => *value = Value::String(number.to_string()),
        Value::String(text) => {
            let starts_with = |scheme: &str| text.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme));
            let is_address = (starts_with("https://") || starts_with("http://")) && !text.contains(char::is_whitespace);
            let kept = match text.find(if is_address { '?' } else { ',' }) {
                Some(end) if is_address => end,
                Some(end) if text.len() > 256 && starts_with("data:") => end.min(100),
                _ => return,
            };
            let hash = crate::file::fnv1a(crate::file::FNV_START, text.as_bytes());
            let head = String::from_utf8_lossy(&text.as_bytes()[..kept]);
            *text = format!("{head}, {} characters, FNV-1a {hash:016x}", text.len());
        }
        _ => {}
    }
}

pub(crate) fn check_client_request_id(id: &str) -> Result<(), Error> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if (1..=128).contains(&id.len()) && id.bytes().all(fits) {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "the client request id {id:?} would be dropped by the server: use 1 to 128 of A-Z a-z 0-9 . _ : -"
    )))
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// The API's word.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// The shape of the picture, for [`VideoRequest::aspect_ratio`].
    AspectRatio {
        /// `16:9`, as on a screen.
        Landscape = "16:9",
        /// `9:16`, as on a telephone.
        Portrait = "9:16",
        /// `1:1`: models other than Google's.
        Square = "1:1",
        /// `auto`, as the video that is extended.
        Auto = "auto",
    }
}

words! {
    /// The size of the picture, for [`VideoRequest::resolution`]: sent as the chosen model spells it, `720P` or `720p`.
    Resolution {
        /// 480 lines: models other than Google's.
        P480 = "480p",
        /// 720 lines: 1280x720 upright or lying.
        P720 = "720p",
        /// 1080 lines: 1920x1080 upright or lying.
        P1080 = "1080p",
    }
}

words! {
    /// Whether people may be shown, for [`VideoRequest::person_generation`].
    PersonGeneration {
        /// `dont_allow`: nobody.
        DontAllow = "dont_allow",
        /// `allow_adult`: adults.
        AllowAdult = "allow_adult",
    }
}

words! {
    /// Who runs the model, for [`VideoRequest::provider`].
    Provider {
        /// `auto`: Google, then fal.ai if Google does not.
        Auto = "auto",
        /// `google`: Google alone.
        Google = "google",
        /// `fal`: fal.ai's mirror.
        Fal = "fal",
    }
}

words! {
    /// What Gemini Omni is to do, for [`VideoRequest::task`].
    OmniTask {
        /// `text_to_video`
        TextToVideo = "text_to_video",
        /// `image_to_video`
        ImageToVideo = "image_to_video",
        /// `reference_to_video`
        ReferenceToVideo = "reference_to_video",
        /// `edit`
        Edit = "edit",
    }
}
