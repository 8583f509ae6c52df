//! The crate's promises, over real sockets.

mod kill;
mod schemas;
mod simulator;
mod support;
mod video_file;
