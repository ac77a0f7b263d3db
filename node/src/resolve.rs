//! From the machine's configured apt archive to what a job names: a source package and an environment lock.
//!
//! ```text
//!  /etc/apt sources --archive--> private apt directory --source--> .dsc and files --lock--> EnvironmentLock + .debs
//! ```
//!
//! apt itself checks the chain of signatures and solves dependencies, always in a directory of its own and against an empty
//! package status, so the machine's packages, pins and third-party sources never reach a lock. Nothing here builds
//! or installs anything, and no archive's address stands in the code. Every call runs programs and blocks; async code runs it
//! on a blocking thread.

pub mod archive;
pub mod buildinfo;
pub mod compare;
pub mod dnf;
pub mod elsewhere;
pub mod further;
pub mod lock;
pub mod origin;
pub mod release;
pub mod source;

mod configured;
pub(crate) mod digest;
mod index;
