//! The crate's promises, over real sockets.

mod cargo_dirs;
mod configuration;
mod download;
mod errors;
mod examples;
mod images;
mod kill;
mod locks;
mod networks;
mod part_file;
mod properties;
mod readme;
mod receipts;
mod responses;
mod schemas;
mod service;
mod shutdown;
mod simulator;
#[cfg(target_os = "linux")]
mod small_computers;
mod support;
mod video_file;
mod wait;
mod wire;
