//! The daemon and the command line of artel: performs what the ledger decides.

pub mod blobs;
mod bounded;
pub mod build;
pub mod charter;
pub mod cli;
pub mod clock;
pub mod config;
pub mod consensus;
pub mod daemon;
pub mod demo;
pub mod handle;
pub mod keys;
pub mod mirror;
pub mod net;
pub mod perform;
pub mod publish;
pub mod recipe;
pub mod resolve;
pub mod serve;
pub mod store;
pub mod submit;
pub mod ticket;
pub mod tlog;
pub mod trace;
pub mod worker;
