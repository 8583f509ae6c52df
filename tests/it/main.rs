//! The crate's promises, over real sockets.

mod support;
