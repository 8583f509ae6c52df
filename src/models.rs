//! What the vendor's published schemas allow, model by model.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::error::Excerpt;

pub(crate) struct Model {
    name: &'static str,
    required: &'static [&'static str],
    params: &'static [Param],
}

type Param = (&'static str, Kind);

pub(crate) enum Kind {
    Prompt,
    Text,
    Url,
    Urls { at_most: usize },
    Integer,
    Boolean,
    Seconds(&'static [u64]),
    Words(&'static [&'static str]),
    AnyCaseWords(&'static [&'static str]),
}
use Kind::{AnyCaseWords, Boolean, Integer, Prompt, Seconds, Text, Url, Urls, Words};

const PROMPT: Param = ("prompt", Prompt);
const IMAGE: Param = ("image_url", Url);
const LAST_IMAGE: Param = ("last_image_url", Url);
const VIDEO: Param = ("video_url", Url);
const RATIO: Param = ("aspect_ratio", Words(&["16:9", "9:16"]));
const UPPER: Param = ("resolution", Words(&["720P", "1080P"]));
const LOWER: Param = ("resolution", Words(&["720p", "1080p"]));
const LENGTH: Param = ("duration", Seconds(&[4, 6, 8]));
const VEO2_LENGTH: Param = ("duration", Seconds(&[5, 6, 7, 8]));
const NEGATIVE: Param = ("negative_prompt", Text);
const SEED: Param = ("seed", Integer);
const ENHANCE: Param = ("enhance_prompt", Boolean);
const AUDIO: Param = ("generate_audio", Boolean);
const FIX: Param = ("auto_fix", Boolean);
const PROVIDER: Param = ("provider", AnyCaseWords(&["auto", "google", "fal"]));

const VEO3: &[Param] = &[PROMPT, LENGTH, RATIO, UPPER, NEGATIVE, SEED, ENHANCE, AUDIO];
const VEO3_IMAGE: &[Param] = &[
    PROMPT, IMAGE, LENGTH, RATIO, UPPER, NEGATIVE, SEED, ENHANCE, AUDIO,
];
const VEO31: &[Param] = &[
    PROMPT, RATIO, LENGTH, LOWER, AUDIO, SEED, FIX, NEGATIVE, ENHANCE, PROVIDER,
];
const VEO31_IMAGE: &[Param] = &[PROMPT, IMAGE, RATIO, LENGTH, LOWER, AUDIO, PROVIDER];
const VEO31_FRAMES: &[Param] = &[
    PROMPT, IMAGE, LAST_IMAGE, RATIO, LENGTH, LOWER, AUDIO, PROVIDER,
];
const VEO31_EXTEND: &[Param] = &[
    PROMPT,
    VIDEO,
    ("aspect_ratio", Words(&["auto", "16:9", "9:16"])),
    ("duration", Seconds(&[7])),
    ("resolution", Words(&["720p"])),
    AUDIO,
    FIX,
    PROVIDER,
];

const fn model(
    name: &'static str,
    required: &'static [&'static str],
    params: &'static [Param],
) -> Model {
    Model {
        name,
        required,
        params,
    }
}

/// The Google models of the vendor's published OpenAPI schemas, one per model page, as of August 2026.
static MODELS: [Model; 18] = [
    model("google/veo3", &["prompt"], VEO3),
    model("google/veo-3.0-fast", &["prompt"], VEO3),
    model("google/veo-3.0-i2v", &["prompt", "image_url"], VEO3_IMAGE),
    model(
        "google/veo-3.0-i2v-fast",
        &["prompt", "image_url"],
        VEO3_IMAGE,
    ),
    model("google/veo-3.1-t2v", &["prompt"], VEO31),
    model("google/veo-3.1-t2v-fast", &["prompt"], VEO31),
    model("google/veo-3.1-i2v", &["prompt", "image_url"], VEO31_IMAGE),
    model(
        "google/veo-3.1-i2v-fast",
        &["prompt", "image_url"],
        VEO31_IMAGE,
    ),
    model(
        "google/veo-3.1-first-last-image-to-video",
        &["prompt", "image_url", "last_image_url"],
        VEO31_FRAMES,
    ),
    model(
        "google/veo-3.1-first-last-image-to-video-fast",
        &["prompt", "image_url", "last_image_url"],
        VEO31_FRAMES,
    ),
    model(
        "google/veo-3.1-reference-to-video",
        &["prompt", "image_urls"],
        &[
            PROMPT,
            (
                "image_urls",
                Urls {
                    at_most: usize::MAX,
                },
            ),
            ("duration", Seconds(&[8])),
            LOWER,
            AUDIO,
            PROVIDER,
        ],
    ),
    model(
        "google/veo3-1-extend-video",
        &["prompt", "video_url"],
        VEO31_EXTEND,
    ),
    model(
        "google/veo3-1-fast-extend-video",
        &["prompt", "video_url"],
        VEO31_EXTEND,
    ),
    model(
        "veo-3.1-lite-generate-001",
        &["prompt"],
        &[
            PROMPT,
            IMAGE,
            LAST_IMAGE,
            RATIO,
            UPPER,
            LENGTH,
            AUDIO,
            ("person_generation", Words(&["dont_allow", "allow_adult"])),
        ],
    ),
    model(LITE_PREVIEW, &["prompt"], VEO31_FRAMES),
    model(
        "veo2",
        &["prompt"],
        &[PROMPT, VEO2_LENGTH, RATIO, NEGATIVE, SEED, ENHANCE],
    ),
    model(
        "veo2/image-to-video",
        &["prompt", "image_url"],
        &[
            PROMPT,
            IMAGE,
            ("tail_image_url", Url),
            VEO2_LENGTH,
            RATIO,
            NEGATIVE,
            SEED,
            ENHANCE,
        ],
    ),
    model(
        "google/gemini-omni-flash-preview",
        &["prompt"],
        &[
            PROMPT,
            IMAGE,
            ("image_urls", Urls { at_most: 6 }),
            VIDEO,
            ("audio_url", Url),
            ("previous_interaction_id", Text),
            (
                "task",
                Words(&[
                    "text_to_video",
                    "image_to_video",
                    "reference_to_video",
                    "edit",
                ]),
            ),
            RATIO,
            ("duration", Seconds(&[3, 4, 5, 6, 7, 8, 9, 10])),
            ("delivery", Words(&["uri"])),
        ],
    ),
];

/// "When using last_image_url, the duration can only be 8s", says this model's schema alone.
const LITE_PREVIEW: &str = "google/veo-3-1-lite-generate-preview";

pub(crate) fn find(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.name == name)
}

/// What a request has that a model does not take.
pub(crate) struct Fault {
    model: &'static str,
    param: String,
    expected: String,
    received: Option<Value>,
}

impl Fault {
    #[cfg(feature = "simulator")]
    pub(crate) fn hint(&self) -> String {
        let received = self
            .received
            .as_ref()
            .map_or("undefined".to_owned(), Value::to_string);
        format!(
            "{}: Expected {}, received {}",
            self.param,
            self.expected,
            Excerpt(&received)
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.received {
            Some(received) => {
                let received = received.to_string();
                write!(f, "`{}` is {}, but ", self.param, Excerpt(&received))?;
            }
            None => write!(f, "`{}` is missing: ", self.param)?,
        }
        write!(f, "{} takes {}", self.model, self.expected)
    }
}

impl Model {
    /// Writes words and names as this model does: letter case, `tail_image_url`.
    pub(crate) fn respell(&self, body: &mut Map<String, Value>) {
        if self.kind("tail_image_url").is_some()
            && !body.contains_key("tail_image_url")
            && let Some(image) = body.remove("last_image_url")
        {
            body.insert("tail_image_url".to_owned(), image);
        }
        if let (Some(Words(words)), Some(value)) =
            (self.kind("resolution"), body.get_mut("resolution"))
        {
            let given = value.as_str().unwrap_or_default();
            if let Some(word) = words.iter().find(|word| word.eq_ignore_ascii_case(given)) {
                *value = json!(word);
            }
        }
    }

    pub(crate) fn check(&self, body: &Map<String, Value>) -> Result<(), Fault> {
        let fault = |param: &str, expected: String, received: Option<&Value>| Fault {
            model: self.name,
            param: param.to_owned(),
            expected,
            received: received.cloned(),
        };
        for (name, value) in body.iter().filter(|(name, _)| *name != "model") {
            let Some(kind) = self.kind(name) else {
                let names: Vec<&str> = self.params.iter().map(|(name, _)| *name).collect();
                return Err(fault(
                    name,
                    format!("no such parameter, only {}", names.join(", ")),
                    Some(value),
                ));
            };
            if !kind.allows(value) {
                return Err(fault(name, kind.to_string(), Some(value)));
            }
        }
        if let Some(missing) = self.required.iter().find(|name| !body.contains_key(**name)) {
            let expected = self.kind(missing).map_or_else(String::new, Kind::to_string);
            return Err(fault(missing, expected, None));
        }
        match body.get("duration") {
            Some(seconds)
                if self.name == LITE_PREVIEW
                    && *seconds != 8
                    && body.contains_key("last_image_url") =>
            {
                Err(fault(
                    "duration",
                    "only 8 with a last image".to_owned(),
                    Some(seconds),
                ))
            }
            _ => Ok(()),
        }
    }

    fn kind(&self, name: &str) -> Option<&'static Kind> {
        self.params
            .iter()
            .find(|(param, _)| *param == name)
            .map(|(_, kind)| kind)
    }
}

impl Kind {
    fn allows(&self, value: &Value) -> bool {
        let text = value.as_str();
        match self {
            Prompt => text.is_some_and(|text| !text.is_empty()),
            Text => value.is_string(),
            Url => text.is_some_and(is_url),
            Urls { at_most } => value.as_array().is_some_and(|urls| {
                (1..=*at_most).contains(&urls.len()) && urls.iter().all(|url| Url.allows(url))
            }),
            Integer => value.is_i64() || value.is_u64(),
            Boolean => value.is_boolean(),
            Seconds(allowed) => value
                .as_u64()
                .is_some_and(|seconds| allowed.contains(&seconds)),
            Words(allowed) => text.is_some_and(|text| allowed.contains(&text)),
            AnyCaseWords(allowed) => {
                text.is_some_and(|text| allowed.iter().any(|word| word.eq_ignore_ascii_case(text)))
            }
        }
    }
}

fn is_url(text: &str) -> bool {
    let schemes = ["https://", "http://", "gs://", "data:"];
    let starts_with = |scheme: &&str| {
        text.get(..scheme.len())
            .is_some_and(|s| s.eq_ignore_ascii_case(scheme))
    };
    let has_space = text.bytes().any(|byte| byte.is_ascii_whitespace());
    !has_space
        && schemes
            .iter()
            .find(|scheme| starts_with(scheme))
            .is_some_and(|scheme| text.len() > scheme.len())
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Prompt => f.write_str("a text that is not empty"),
            Text => f.write_str("a text"),
            Url => f.write_str("an address (https://…) or a data URL, without white space"),
            Urls {
                at_most: usize::MAX,
            } => f.write_str("a list of one or more addresses or data URLs"),
            Urls { at_most } => write!(f, "a list of 1 to {at_most} addresses or data URLs"),
            Integer => f.write_str("a whole number"),
            Boolean => f.write_str("true or false"),
            Seconds(allowed) => f.write_str(
                &allowed
                    .iter()
                    .map(u64::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
            ),
            Words(words) | AnyCaseWords(words) => {
                write!(f, "\"{}\"", words.join("\", \""))
            }
        }
    }
}
