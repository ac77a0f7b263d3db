//! The course of a job, as a bundle brings it along: what the transparency log says of each attempt, what opens the
//! commitments, and what builders signed about attempts without outputs.
//!
//! ```text
//!  log        lease ------> commitment ------> outcome .. verdict     each with its place, and its path to one checkpoint
//!                               |                 |
//!  beside it             salt, attestation    attestation or negative
//! ```
//! It proves nothing by itself, and reading it checks only sizes; [`crate::verify::attempts()`] checks what it says. That every
//! attempt is in it nobody can tell offline: whoever reads the whole log sees which leases a job had.

use protocol::{Salt, Sha256, lease::LeaseNumber, message::Octets};
use serde::{Deserialize, Serialize};

use crate::{
    bundle::{Error, at_most, fits},
    log::{entry::ENTRY_MAX, note::NOTE_MAX, tree::PROOF_MAX},
    negative::NEGATIVE_MAX,
};

/// Entries of one job, all its rounds together.
pub const ENTRIES_MAX: usize = 256;
/// Negatives of one job, all its rounds together.
pub const NEGATIVES_MAX: usize = 64;

/// How the attempts of a job ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Course {
    /// What hid those attestations that count.
    pub salts: Vec<Opened>,
    /// What the log says; none where nobody noted it, as of jobs of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logged: Option<Logged>,
    /// The DSSE envelopes of builders about attempts without outputs, see [`crate::negative`].
    pub negatives: Vec<Octets>,
}

/// What opens a commitment, together with the attestation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opened {
    /// The salt.
    pub salt: Salt,
    /// The attempt's lease.
    pub lease: LeaseNumber,
}

/// Entries of the log, and what proves that they are in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logged {
    /// The entries, by their places.
    pub entries: Vec<Placed>,
    /// The checkpoint that their paths lead to, signed by a coordinator.
    pub checkpoint: Octets,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    /// The inclusion proof.
    pub path: Vec<Sha256>,
    /// The entry's bytes.
    pub entry: Octets,
    /// Its place in the log, from 0.
    pub index: u64,
}

impl Course {
    /// Checks the sizes of all parts.
    pub(crate) fn check(&self) -> Result<(), Error> {
        at_most("salts", self.salts.len(), ENTRIES_MAX)?;
        at_most("negatives", self.negatives.len(), NEGATIVES_MAX)?;
        self.negatives.iter().try_for_each(|negative| fits("negative", negative, NEGATIVE_MAX))?;
        let Some(Logged { entries, checkpoint }) = &self.logged else { return Ok(()) };
        fits("checkpoint", checkpoint, NOTE_MAX)?;
        at_most("log entries", entries.len(), ENTRIES_MAX)?;
        entries.iter().try_for_each(|placed| {
            at_most("hashes of a path", placed.path.len(), PROOF_MAX)?;
            fits("log entry", &placed.entry, ENTRY_MAX)
        })
    }
}
