//! <!-- The README's links, as links within this documentation: the first definition wins. -->
//! [`BASE_URL`]: BASE_URL
//! [`Client::download_video`]: Client::download_video
//! [`Client::find_generation`]: Client::find_generation
//! [`Client::from_env`]: Client::from_env
//! [`Client::generate_video`]: Client::generate_video
//! [`Client::get_video`]: Client::get_video
//! [`Client::wait_for_video`]: Client::wait_for_video
//! [`ClientBuilder`]: ClientBuilder
//! [`Error`]: Error
//! [`VEO_ENDPOINT`]: VEO_ENDPOINT
//! [`VideoFile`]: VideoFile
//! [`VideoRequest`]: VideoRequest
//! [small binaries]: small_binaries
#![cfg_attr(feature = "simulator", doc = "[`simulator`]: simulator")]
//!
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod client;
mod download;
mod error;
mod generation;
#[cfg(feature = "image-file")]
mod image;
mod part_file;
mod poll;
mod receipt;
mod reply;
mod request;
#[cfg(feature = "simulator")]
pub mod simulator;
#[cfg(doc)]
#[doc = include_str!("small_binaries.md")]
pub mod small_binaries {}
mod transport;
mod video_file;

pub use client::{BASE_URL, Client, ClientBuilder, UNIVERSAL_ENDPOINT, VEO_ENDPOINT};
pub use download::VideoReader;
pub use error::{ApiError, Error};
pub use generation::{Generation, Status, Usage, Video};
#[cfg(feature = "image-file")]
pub use image::image_file;
pub use receipt::{Attempt, Receipt, State};
pub use request::VideoRequest;
pub use video_file::{Progress, VideoFile};
