//! The daemon and the command line of artel.

pub mod build;
