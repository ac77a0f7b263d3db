//! Whole networks for tests: real daemons as processes on loopback, real builds in a real environment.
//!
//! ```text
//!  Ground (once a machine: lock, packages, one installed environment) -> Network (a test's own daemons) -> until(..)
//! ```
//! Nothing here is a stand-in for a part of the product, and nothing waits for a time: tests wait for conditions, each
//! with a limit. Processes are ended by their number and folders are removed also when a test panics.
//!
//! It holds no test and makes no claim about the product.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that asked for it")]

pub mod claim;
pub mod command;
pub mod copycat;
pub mod forker;
pub mod ground;
pub mod hostile;
pub mod lab;
pub mod liar;
pub mod network;
pub mod node;
pub mod place;
pub mod plan;
pub mod processes;
pub mod scratch;
pub mod sybil;
pub mod wait;

pub use command::{Said, run};
pub use copycat::{Copycat, Sight};
pub use forker::Forker;
pub use ground::{Ground, Site};
pub use hostile::{Hostile, Manner};
pub use lab::{Lab, Station};
pub use liar::Liar;
pub use network::{Network, free_port};
pub use node::Node;
pub use place::Place;
pub use plan::{BuilderPlan, Cables, Environments, Honesty, Plan};
pub use processes::{Memory, Process, mounts_of, processes_of};
pub use scratch::Scratch;
pub use sybil::{Sybil, Took};
pub use wait::{at_once, until};
