//! One run of a job on one node: where it is, what it built, and whether its operator's turn is over.

use attest::compare::Output;
use protocol::{
    Hash, NodeId, OperatorName, Salt, Timestamp,
    blame::{Blame, Failure},
    lease::{LeaseNumber, Profile},
};
use serde::{Deserialize, Serialize};

use crate::planted::{self, Fault};

/// What an attestation says, as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// BLAKE3 of the build log.
    pub log: Hash,
    /// What its commitment hid it with; none in what earlier versions decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<Salt>,
    /// The digest of the set of outputs: equal digests agree.
    pub digest: Hash,
    /// The outputs, by name; empty once the job is long over.
    pub outputs: Vec<Output>,
    /// The attestation's id.
    pub attestation: Hash,
}

/// Where an attempt is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptState {
    /// The builder has not said that it started.
    Granted,
    /// The sandbox runs.
    Running {
        /// What it does now.
        phase: String,
        /// Since when.
        started: Timestamp,
    },
    /// It has outputs, and nobody has seen them.
    Committed {
        /// When it said so.
        at: Timestamp,
        /// Whether it is to show them.
        asked: bool,
        /// What it is bound to.
        digest: Hash,
        /// When it started; none when the builder never said so.
        started: Option<Timestamp>,
    },
    /// It has outputs.
    Revealed {
        /// What it built.
        vote: Vote,
        /// When.
        ended: Timestamp,
        /// When it started.
        started: Timestamp,
    },
    /// It has none.
    Failed {
        /// BLAKE3 of the build log, where there is one.
        log: Option<Hash>,
        /// When.
        ended: Timestamp,
        /// It was the builder's fault and nobody else was left, so that the operator has another turn.
        #[serde(default, skip_serializing_if = "crate::snapshot::is_default")]
        excused: bool,
        /// Why.
        failure: Failure,
        /// When it started.
        started: Timestamp,
    },
    /// It was cut off; nobody is blamed.
    Interrupted {
        /// How it was noticed.
        why: String,
        /// When that was noticed.
        ended: Timestamp,
        /// When it started; none when the builder never said so.
        started: Option<Timestamp>,
    },
    /// It gave no result when it had to, though its builder was there.
    Silent {
        /// In one sentence.
        why: String,
        /// What it owed.
        kind: Silence,
        /// When it was over.
        ended: Timestamp,
        /// When it started; none when the builder never said so.
        started: Option<Timestamp>,
    },
    /// We ended it, because its result was no longer needed.
    Revoked {
        /// When.
        ended: Timestamp,
        /// Why.
        reason: String,
        /// When it started; none when the builder never said so.
        started: Option<Timestamp>,
    },
}

/// What a builder did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Silence {
    /// The result that it is bound to, when it was asked for it. Others may have shown theirs to a coordinator since, so that its
    /// operator could copy: it never has another turn.
    Withheld,
    /// Any result, within the attempt's time.
    Endless,
    /// The same, and nobody else was left, so that the operator has another turn.
    Excused,
}

impl AttemptState {
    /// Gives the state's word.
    pub const fn word(&self) -> &'static str {
        match self {
            AttemptState::Granted => "granted",
            AttemptState::Running { .. } => "running",
            AttemptState::Committed { .. } => "committed",
            AttemptState::Revealed { .. } => "revealed",
            AttemptState::Failed { .. } => "failed",
            AttemptState::Interrupted { .. } => "interrupted",
            AttemptState::Silent { kind: Silence::Withheld, .. } => "withheld",
            AttemptState::Silent { kind: Silence::Endless | Silence::Excused, .. } => "unanswered",
            AttemptState::Revoked { .. } => "revoked",
        }
    }

    /// Says whether the attempt holds a live lease.
    pub const fn is_live(&self) -> bool {
        matches!(self, AttemptState::Granted | AttemptState::Running { .. } | AttemptState::Committed { .. })
    }

    /// Gives what it is bound to and has not shown.
    pub const fn committed(&self) -> Option<Hash> {
        if let AttemptState::Committed { digest, .. } = self { Some(*digest) } else { None }
    }

    /// Gives when it was bound to what it has not shown.
    pub const fn committed_at(&self) -> Option<Timestamp> {
        if let AttemptState::Committed { at, .. } = self { Some(*at) } else { None }
    }

    /// Says whether it was asked to show what it is bound to.
    pub const fn is_asked(&self) -> bool {
        matches!(self, AttemptState::Committed { asked: true, .. })
    }

    /// Says whether it is bound to what it was not asked to show.
    pub const fn is_hidden(&self) -> bool {
        matches!(self, AttemptState::Committed { asked: false, .. })
    }

    /// Gives when it started, where it did.
    pub const fn started(&self) -> Option<Timestamp> {
        match self {
            AttemptState::Granted => None,
            AttemptState::Running { started, .. }
            | AttemptState::Revealed { started, .. }
            | AttemptState::Failed { started, .. } => Some(*started),
            AttemptState::Committed { started, .. }
            | AttemptState::Interrupted { started, .. }
            | AttemptState::Silent { started, .. }
            | AttemptState::Revoked { started, .. } => *started,
        }
    }

    /// Gives when it ended, where it did.
    pub const fn ended(&self) -> Option<Timestamp> {
        match self {
            AttemptState::Granted | AttemptState::Running { .. } => None,
            AttemptState::Committed { at, .. } => Some(*at),
            AttemptState::Revealed { ended, .. }
            | AttemptState::Failed { ended, .. }
            | AttemptState::Interrupted { ended, .. }
            | AttemptState::Silent { ended, .. }
            | AttemptState::Revoked { ended, .. } => Some(*ended),
        }
    }
}

/// What a builder has said of an attempt that the log keeps, signed by it: since then it cannot copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Said {
    /// Nothing that binds it.
    #[default]
    Nothing,
    /// What it is committed to.
    Bound,
    /// That it failed.
    Failed,
}

/// One run of a job on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Seconds of a slot that its maintainer's share was charged when it was granted; corrected when it ends.
    pub cost: u64,
    /// The builder.
    pub node: NodeId,
    /// What it has said for good.
    #[serde(default, skip_serializing_if = "crate::snapshot::is_default")]
    pub said: Said,
    /// The lease.
    pub lease: LeaseNumber,
    /// Where it is.
    pub state: AttemptState,
    /// When the lease was granted.
    pub granted: Timestamp,
    /// The variation.
    pub profile: Profile,
    /// Who answered for the node at that time.
    pub operator: OperatorName,
}

impl Attempt {
    /// Says whether the operator has had its turn: it holds a lease, or its attempt ended in a way that is not repeated.
    pub fn is_spent(&self) -> bool {
        let again = planted::is(Fault::WithholdsAgain) && matches!(self.state, AttemptState::Silent { .. });
        !again
            && !matches!(
                self.state,
                AttemptState::Interrupted { .. }
                    | AttemptState::Failed { excused: true, .. }
                    | AttemptState::Silent { kind: Silence::Excused, .. }
            )
    }

    /// Says whether the builder could not try, and its operator's turn is over because of that.
    pub fn may_be_excused(&self) -> bool {
        // Who was bound could try; what it shows instead later could be a copy.
        if self.said == Said::Bound {
            return false;
        }
        if let AttemptState::Failed { failure, excused, .. } = &self.state {
            return !excused && matches!(failure.blame, Blame::Builder(_));
        }
        matches!(self.state, AttemptState::Silent { kind: Silence::Endless, .. })
    }

    /// Says whether a running builder was lost.
    pub fn is_lost(&self) -> bool {
        matches!(self.state, AttemptState::Interrupted { started: Some(_), .. })
    }

    /// Gives the vote, where there is one.
    pub fn vote(&self) -> Option<&Vote> {
        match &self.state {
            AttemptState::Revealed { vote, .. } => Some(vote),
            AttemptState::Granted
            | AttemptState::Running { .. }
            | AttemptState::Committed { .. }
            | AttemptState::Failed { .. }
            | AttemptState::Interrupted { .. }
            | AttemptState::Silent { .. }
            | AttemptState::Revoked { .. } => None,
        }
    }

    /// Gives the failure, where there is one.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.state {
            AttemptState::Failed { failure, .. } => Some(failure),
            AttemptState::Granted
            | AttemptState::Running { .. }
            | AttemptState::Committed { .. }
            | AttemptState::Revealed { .. }
            | AttemptState::Interrupted { .. }
            | AttemptState::Silent { .. }
            | AttemptState::Revoked { .. } => None,
        }
    }
}

/// A report that came under a dead lease: evidence, no vote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    /// When it came.
    pub at: Timestamp,
    /// The lease that was over.
    pub lease: LeaseNumber,
    /// What it said.
    pub report: LateReport,
}

/// What a late report said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LateReport {
    /// Outputs, with a valid attestation.
    Attested(Vote),
    /// A failure.
    Failed(Failure),
}
