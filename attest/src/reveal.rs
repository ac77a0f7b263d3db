//! Whether a builder may show what it is bound to: not because a coordinator says so, but because the log does.
//!
//! ```text
//!  grounds --checkpoint signed by the log, continues what this node believes--> entries in it
//!      the verdict over the job                                       nobody can copy and count any more
//!      k operators: a commitment that its builder signed, or a       nobody can copy into the first k
//!                   failure that its builder signed
//! ```
//! A coordinator that shows entries which it does not show to others has forked its log, and signed that. It cannot say a commitment
//! in another node's name. What it can do is wait: a builder also shows its result when its own time is up, which is not asked here.

use std::collections::BTreeSet;

use protocol::{
    Hash, JobId, NetworkId, NodeId, OperatorName,
    lease::LeaseNumber,
    limits,
    message::{Grounds, Logged, Octets},
    policy::Policy,
};

use crate::{
    commitment,
    log::{
        checkpoint::{CheckpointError, Signed, Verified},
        conflict::Conflict,
        entry::{End, Entry, EntryError, Event, Outcome},
        network,
        note::NOTE_MAX,
        tree::{self, Head, PROOF_MAX, ProofError},
    },
    negative::Negative,
};

/// What a builder wants to know before it shows its result.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The network.
    pub network: NetworkId,
    /// The job.
    pub job: JobId,
    /// The builder's own node, lease and digest; none when its lease ended before it was bound.
    pub own: Option<(NodeId, LeaseNumber, Hash)>,
    /// How many operators have to be bound: the `agree` of the job's channel.
    pub agree: u8,
    /// The policy that the builder knows.
    pub policy: &'a Policy,
    /// The newest checkpoint that it believes; what it is told must continue it.
    pub believed: Option<&'a Verified>,
}

/// Why the log allows a result to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The job has its verdict.
    Judged,
    /// These operators are bound, or have failed.
    Bound(BTreeSet<OperatorName>),
}

/// Why what a coordinator says is no reason to show a result.
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    /// The checkpoint is none, or the log did not sign it.
    #[error("the checkpoint is not signed by the network's log")]
    Checkpoint(#[from] CheckpointError),
    /// It is of another log.
    #[error("the checkpoint is of the log {got}")]
    OtherLog {
        /// The origin found.
        got: String,
    },
    /// The checkpoint is older than what is known here.
    #[error("the checkpoint has {got} entries, and {known} are known here")]
    GoesBack {
        /// Its size.
        got: u64,
        /// The size that this node believes.
        known: u64,
    },
    /// No log has both the checkpoint and the believed one. This is the proof.
    #[error("the checkpoint does not continue the log that is known here: the log is forked")]
    Fork(Box<Conflict>),
    /// The proof of consistency is of something else, or of a history that is not known here; the log's tiles tell which.
    #[error("the proof does not show how the checkpoint continues the log that is known here")]
    Consistency,
    /// More than there can be.
    #[error("more entries or proofs than a job can have")]
    TooMany,
    /// An entry is none.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// An entry is not in the log.
    #[error("entry {index} is not in the log of the checkpoint")]
    Inclusion {
        /// The place that it is said to have.
        index: u64,
        /// Why not.
        #[source]
        source: ProofError,
    },
    /// The builder's own commitment is not in the log as it said it.
    #[error("this builder's own commitment is not in the log")]
    OwnMissing,
    /// Too few are bound.
    #[error("{bound} of {agree} operators are bound or have failed")]
    TooFew {
        /// How many are.
        bound: usize,
        /// How many must be.
        agree: u8,
    },
}

/// Decides whether a result may be shown. Gives the checkpoint that this was decided by, too, even where it may not: it is signed
/// by the log, continues the believed one, and is to be remembered.
///
/// # Errors
/// [`Doubt`].
pub fn check(question: &Question<'_>, grounds: &Grounds) -> Result<(Verified, Result<Reason, Doubt>), Doubt> {
    let checkpoint = continues(question, grounds)?;
    if grounds.entries.len() > 1 + 2 * limits::ATTEMPTS_MAX as usize
        || grounds.negatives.len() > limits::ATTEMPTS_MAX as usize
        || grounds.entries.iter().any(|logged| logged.path.len() > PROOF_MAX)
    {
        return Err(Doubt::TooMany);
    }
    let reason = reason(question, grounds, checkpoint.head());
    Ok((checkpoint, reason))
}

/// Checks that the log signed the checkpoint, and that it continues the believed one.
fn continues(question: &Question<'_>, grounds: &Grounds) -> Result<Verified, Doubt> {
    if grounds.checkpoint.0.len() > NOTE_MAX || grounds.consistency.len() > PROOF_MAX {
        return Err(Doubt::TooMany);
    }
    let signed = Signed::read(&grounds.checkpoint.0)?;
    let got = signed.claims().origin();
    if got != network::origin(&question.network).as_str() {
        return Err(Doubt::OtherLog { got: got.chars().take(120).collect() });
    }
    let checkpoint = signed.verify(&network::log_keys(&question.network, question.policy))?;
    let Some(believed) = question.believed else { return Ok(checkpoint) };
    let (known, got) = (believed.head(), checkpoint.head());
    if got.size < known.size {
        return Err(Doubt::GoesBack { got: got.size, known: known.size });
    }
    if tree::check_consistency(known, got, &grounds.consistency).is_ok() {
        return Ok(checkpoint);
    }
    let conflict = Conflict::find(believed, &checkpoint, &grounds.consistency);
    Err(conflict.map_or(Doubt::Consistency, |conflict| Doubt::Fork(Box::new(conflict))))
}

fn reason(question: &Question<'_>, grounds: &Grounds, head: Head) -> Result<Reason, Doubt> {
    let failures: BTreeSet<(Hash, NodeId, LeaseNumber)> =
        grounds.negatives.iter().filter_map(|negative| failure(question, negative)).collect();
    let mut operators = BTreeSet::new();
    let mut own = question.own.is_none();
    for Logged { path, entry, index } in &grounds.entries {
        tree::check_inclusion(tree::leaf(&entry.0), *index, head, path)
            .map_err(|source| Doubt::Inclusion { index: *index, source })?;
        match Entry::from_bytes(&entry.0)?.event {
            Event::Verdict(verdict) if verdict.job == question.job => return Ok(Reason::Judged),
            Event::Commitment(said) if said.job == question.job && commitment::is_signed(&question.network, &said) => {
                own |= question.own == Some((said.node, said.lease, said.digest));
                operators.extend(question.policy.operator_of(&said.node).cloned());
            }
            Event::Outcome(Outcome { end: End::Failed(report), job, node, lease })
                if job == question.job && failures.contains(&(report, node, lease)) =>
            {
                operators.extend(question.policy.operator_of(&node).cloned());
            }
            Event::Policy(_)
            | Event::Accepted(_)
            | Event::Lease(_)
            | Event::Commitment(_)
            | Event::Outcome(_)
            | Event::Verdict(_)
            | Event::Release(_)
            | Event::Revocation(_) => {}
        }
    }
    if !own {
        return Err(Doubt::OwnMissing);
    }
    if operators.len() < usize::from(question.agree) {
        return Err(Doubt::TooFew { bound: operators.len(), agree: question.agree });
    }
    Ok(Reason::Bound(operators))
}

/// Reads what a builder of the job signed about its failure.
fn failure(question: &Question<'_>, negative: &Octets) -> Option<(Hash, NodeId, LeaseNumber)> {
    let read = Negative::read(&negative.0, &question.network).ok().filter(|negative| negative.job == question.job)?;
    Some((Hash::of(&negative.0), read.node, read.lease))
}

#[cfg(test)]
mod tests;
