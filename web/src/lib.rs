//! What people see and ask: the JSON API, the pages, and the client.
//!
//! ```text
//!  browser, curl, apt --HTTP--> server --\
//!  CLI --client--unix or HTTP--> server --+--> Backend (the node, another client, or the test double)
//!  tests ----------------------------------/
//! ```
//!
//! The crate never sees the daemon: [`Backend`] is the one door through which people reach a node. It decides nothing about
//! jobs, keeps no state of its own beside request counters, and reads no clock: every view carries the instant it was made.

pub mod api;
pub mod backend;
pub mod client;
mod pages;
pub mod server;
pub mod testing;

pub use api::ApiError;
pub use backend::Backend;
pub use client::{Address, Client};
pub use server::{Access, Early, Limits, Listener, Server};
