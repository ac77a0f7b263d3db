//! The daemon and the command line of artel.

pub mod blobs;
pub mod build;
pub mod net;
pub mod publish;
pub mod resolve;
pub mod store;
