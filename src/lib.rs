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
mod request;
#[cfg(feature = "simulator")]
pub mod simulator;
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
