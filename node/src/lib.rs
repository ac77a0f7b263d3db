//! The daemon and the command line of artel.

pub mod publish;
pub mod resolve;
