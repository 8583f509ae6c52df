#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod client;
mod download;
mod error;
mod file;
mod generation;
mod http;
mod image;
mod models;
mod poll;
mod request;
#[cfg(feature = "simulator")]
pub mod simulator;
mod transport;
#[cfg(doc)]
#[doc = include_str!("small_binaries.md")]
pub mod small_binaries {}

pub use client::{BASE_URL, Client, ClientBuilder, UNIVERSAL_ENDPOINT, VEO_ENDPOINT};
pub use error::{Error, LostAnswer, Refusal, TimedOut};
pub use file::{Checksum, Progress, Receipt, Replaced, State, VideoFile};
pub use generation::{Failure, Generation, LoggedGeneration, Status, Usage, Video};
pub use image::Image;
pub use poll::{IntoControlFlow, Polling};
pub use request::{AspectRatio, OmniTask, PersonGeneration, Provider, Resolution, VideoRequest};
