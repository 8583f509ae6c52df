//! <!-- The README's links, as links within this documentation: the first definition wins. -->
//! [models]: models
//! [benchmarks]: benchmarks
//! [small]: small_binaries
//! [`VideoFile`]: VideoFile
//! [`VideoFile::generate`]: VideoFile::generate
//! [`VideoRequest`]: VideoRequest
//! [`Client::from_env`]: Client::from_env
//! [`Error::generation_id`]: Error::generation_id
//! [`Error::may_be_charged`]: Error::may_be_charged
//! [`Error::is_transient`]: Error::is_transient
//! [`generate_video`]: Client::generate_video
//! [`wait_for_video`]: Client::wait_for_video
//! [`download_video`]: Client::download_video
//! [`get_video`]: Client::get_video
//! [`find_generation_id`]: Client::find_generation_id
//! [`open_video`]: Client::open_video
//! [`shutdown`]: Client::shutdown
//! [`on_retry`]: ClientBuilder::on_retry
#![doc = include_str!("../docs/pictures.md")]
//!
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod api_error;
#[cfg(doc)]
#[doc = include_str!("benchmarks.md")]
pub mod benchmarks {}
mod cargo_dirs;
mod client;
mod download;
mod error;
mod generation;
mod http;
#[cfg(feature = "image-file")]
mod image;
mod ledger;
#[cfg(doc)]
#[doc = include_str!("models.md")]
pub mod models {}
mod part_file;
mod poll;
mod receipt;
mod record;
mod reply;
mod request;
mod run;
mod settings;
#[cfg(feature = "simulator")]
pub mod simulator;
#[cfg(doc)]
#[doc = include_str!("small_binaries.md")]
pub mod small_binaries {}
mod standing;
#[cfg(not(windows))]
mod unix;
mod usage_log;
mod video_file;
mod video_reader;
#[cfg(windows)]
mod windows;

pub use api_error::ApiError;
pub use client::{Balance, Client};
pub use download::Progress;
pub use error::Error;
pub use generation::{Failure, Generation, Status, Usage, Video};
#[cfg(feature = "image-file")]
pub use image::image_file;
pub use ledger::State;
pub use poll::Retry;
pub use receipt::Attempt;
pub use request::VideoRequest;
pub use settings::{BASE_URL, ClientBuilder, UNIVERSAL_ENDPOINT, VEO_ENDPOINT};
pub use video_file::VideoFile;
pub use video_reader::VideoReader;
