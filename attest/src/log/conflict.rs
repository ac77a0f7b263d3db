//! Conflicts: two checkpoints that one honest log cannot have signed, as a proof that anybody can check.
//!
//! Two heads of one size with different roots convict by themselves. Of different sizes, a consistency proof does: it leads
//! to the newer head and says which root that tree had at the older size. Where this is not the root that the older
//! checkpoint signs, no tree has both heads. Whoever forks a log and continues the fork must show such a proof to somebody.

use protocol::{
    Sha256,
    codec::{self, DoorError},
    message::Octets,
};
use serde::{Deserialize, Serialize};

use super::{
    checkpoint::{CheckpointError, Signed, Verified},
    note::{NOTE_MAX, VerifierKey},
    tree::{self, Head, PROOF_MAX, ProofError},
};

/// The largest conflict, in bytes.
pub const CONFLICT_MAX: usize = 2 * NOTE_MAX + 64 * PROOF_MAX;

/// Evidence against a log. Its canonical bytes are CBOR with these fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conflict {
    /// The root that the newer tree has at the older size.
    past: Sha256,
    /// The newer checkpoint, or the other one of the same size, as signed.
    newer: Octets,
    /// The older checkpoint, as signed.
    older: Octets,
    /// From the past root to the newer one, as a consistency proof.
    proof: Vec<Sha256>,
}

/// Why something is no evidence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConflictError {
    /// The bytes did not pass the door.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// A checkpoint cannot be read, or the log did not sign it.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The proof does not lead to the newer checkpoint.
    #[error("the proof does not belong to these checkpoints")]
    Proof(#[from] ProofError),
    /// The checkpoints are of different logs.
    #[error("the checkpoints are of different logs")]
    Origin,
    /// An honest log can have signed both.
    #[error("one log can have signed both checkpoints")]
    None,
}

impl Conflict {
    /// Makes evidence of two checkpoints and the consistency proof that came with the newer one; `None` where they do not
    /// convict: they agree, or the proof does not lead to the newer one.
    pub fn find(older: &Verified, newer: &Verified, proof: &[Sha256]) -> Option<Self> {
        let past = tree::prefix(older.head(), newer.head(), proof).ok()?;
        Self::new(older, newer, past, proof.to_vec())
    }

    /// Makes evidence of two checkpoints, given the root that the newer tree has at the older size, and its proof. `None`
    /// where they do not convict.
    pub fn new(older: &Verified, newer: &Verified, past: Sha256, proof: Vec<Sha256>) -> Option<Self> {
        contradicts(older, newer, past, &proof).ok()?;
        let octets = |checkpoint: &Verified| Octets(checkpoint.bare().as_signed().to_string().into_bytes());
        Some(Self { past, proof, newer: octets(newer), older: octets(older) })
    }

    /// Gives the canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads evidence.
    ///
    /// # Errors
    /// [`ConflictError`]; whether it convicts is not asked here.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ConflictError> {
        let conflict: Self = codec::decode(bytes, CONFLICT_MAX)?;
        if conflict.proof.len() > PROOF_MAX {
            return Err(ProofError::Length { got: conflict.proof.len() }.into());
        }
        Ok(conflict)
    }

    /// Checks that the log of these keys signed both checkpoints and that no log has both heads. Gives the heads, the older
    /// one first.
    ///
    /// # Errors
    /// [`ConflictError`].
    pub fn convicts(&self, log: &[VerifierKey]) -> Result<[Head; 2], ConflictError> {
        let verified = |octets: &Octets| Signed::read(&octets.0)?.verify(log);
        let (older, newer) = (verified(&self.older)?, verified(&self.newer)?);
        contradicts(&older, &newer, self.past, &self.proof)?;
        Ok([older.head(), newer.head()])
    }
}

fn contradicts(older: &Verified, newer: &Verified, past: Sha256, proof: &[Sha256]) -> Result<(), ConflictError> {
    if older.get().origin() != newer.get().origin() {
        return Err(ConflictError::Origin);
    }
    // The root of no entries needs no proof: whoever signs another one contradicts arithmetic.
    let nothing = Head::empty();
    if older.head().size == 0 && older.head() != nothing || newer.head().size == 0 && newer.head() != nothing {
        return Ok(());
    }
    tree::check_consistency(Head { root: past, ..older.head() }, newer.head(), proof)?;
    if past == older.head().root { Err(ConflictError::None) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
