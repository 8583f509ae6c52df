//! <!-- The README's links, within this documentation: the first definition of a link is the one that counts. -->
//! [`BASE_URL`]: BASE_URL
//! [`Client::download_video`]: Client::download_video
//! [`Client::download_video_to`]: Client::download_video_to
//! [`Client::find_generation`]: Client::find_generation
//! [`Client::from_env`]: Client::from_env
//! [`Client::generate_video`]: Client::generate_video
//! [`Client::get_video`]: Client::get_video
//! [`Client::new`]: Client::new
//! [`Client::wait_for_video`]: Client::wait_for_video
//! [`Error`]: Error
//! [`Error::generation_id`]: Error::generation_id
//! [`Polling`]: Polling
//! [`VEO_ENDPOINT`]: VEO_ENDPOINT
//! [`VideoFile`]: VideoFile
//! [`VideoRequest`]: VideoRequest
//!
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
