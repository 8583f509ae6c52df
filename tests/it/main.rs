//! The crate's promises, over real sockets.

mod download;
mod kill;
mod part_file;
mod schemas;
mod simulator;
mod support;
mod video_file;
