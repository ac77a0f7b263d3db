//! Who may write a repository: the lock keeps two processes apart, the fence keeps a former coordinator out.
//!
//! The fence is a small file beside the publisher's record. It is raised before a plan is recorded and never lowered, and it is
//! read again from disk each time, so that a process whose memory is older than the folder refuses to write.

use std::{path::Path, sync::Arc};

use protocol::lease::Term;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::publish::disk;

/// The fence's file below the publisher's own folder.
const FILE: &str = "fence";

/// Gives the term in which this process may publish now. It is asked at the beginning, right before a generation is signed,
/// and right before it is switched.
pub type Authority = Arc<dyn Fn() -> Result<Term, NotLeading> + Send + Sync>;

/// This process may not publish now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this node does not publish now: {why}")]
pub struct NotLeading {
    /// Why, for people.
    pub why: String,
}

/// The newest generation and the newest term that were ever written here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fence {
    pub(super) generation: u64,
    pub(super) term: Term,
}

impl Fence {
    pub(super) fn read(private: &Path) -> Result<Self, Error> {
        let path = private.join(FILE);
        let Some(record) = disk::read_sealed(&path)? else { return Ok(Self::default()) };
        serde_json::from_slice(&record).map_err(|e| Error::State { path, why: e.to_string() })
    }

    /// Refuses who comes from an older term or with an older generation.
    pub(super) fn admit(self, generation: u64, term: Term) -> Result<(), Error> {
        if term < self.term {
            return Err(Error::OlderTerm { got: term, published: self.term });
        }
        if generation < self.generation || generation == 0 {
            return Err(Error::Fenced { got: generation, published: self.generation });
        }
        Ok(())
    }

    /// Raises the fence durably; what is higher already stays.
    pub(super) fn raise(self, private: &Path, generation: u64, term: Term) -> Result<(), Error> {
        let raised = Self { generation: generation.max(self.generation), term: term.max(self.term) };
        if raised == self {
            return Ok(());
        }
        let record = serde_json::to_vec(&raised).expect("two numbers can be written");
        Ok(disk::write_sealed(private, &private.join(FILE), &record)?)
    }
}
