//! The crate's promises, over real sockets.

mod answers;
mod configuration;
mod download;
mod examples;
mod images;
mod kill;
mod models;
mod networks;
mod properties;
mod simulator;
mod support;
mod video_file;
mod wait;
mod wire;
