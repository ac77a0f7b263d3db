//! The coordinators as a group: what one member proposes, every member applies, in one order, and nothing that was acknowledged
//! is lost while a majority of the disks lives. A pinned coordinator is a group of one, on the same code path.
//!
//! ```text
//!   daemon --propose--> Group --entries--> openraft --append--> Durable (log, vote, snapshots on the disk)
//!                         ^                   |  ^
//!   daemon <--Standing----+     committed --> |  | Wires: questions and answers between members
//!                                          Machine (the ledger)
//! ```
//!
//! The engine is openraft 0.9, which is named only here and in `storage`. Four things are ours, since openraft leaves them open:
//!
//! * **Elections** (`election`): openraft's own timer is off. A member that missed its leader first asks the others whether they
//!   would vote for it, and stands for election only when a majority would; so neither a flapping member nor one that hears
//!   nobody can depose a leader who is heard. Each member waits its own, disjoint time, so that no two tie for ever.
//! * **Majority** (`election`): a leader that no majority answers any more falls silent after a bound, so that the others may
//!   elect, and says so in its [`Standing`]; it proposes nothing until a majority answers again.
//! * **Restart**: a member that was the leader comes back as a follower and asks to be elected into a new term. (openraft would
//!   resume the old term, in which entries that reached others but not its own disk could be written twice.)
//! * **Transfer and stepping down**, which openraft 0.9 lacks.
//!
//! It is safe against crashes, loss, delay, duplicates and partitions; it is not safe against members that lie. What a lying
//! coordinator cannot do is secured elsewhere (attestations, witnesses). It knows nothing of jobs, addresses or tables.

mod change;
mod contact;
mod election;
mod group;
mod guard;
mod machine;
mod proposer;
#[cfg(test)]
mod sim;
mod standing;
pub mod storage;
mod wires;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    io,
    time::Duration,
};

use openraft::storage::RaftLogStorage;
use protocol::{NodeId, lease::Term};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use self::{group::Group, wires::FRAME_BYTES_MAX};

openraft::declare_raft_types!(
    /// The types that openraft works with.
    pub Types:
        D = Payload,
        R = Applied,
        NodeId = Member,
        Node = openraft::EmptyNode,
        SnapshotData = io::Cursor<Vec<u8>>,
);

/// The largest payload of one proposal, in bytes. A batch of commands is a few KiB; a request with its lock file is the largest.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;

/// A member of the group as openraft wants it (it must have a default and be `Copy`): the bytes of its [`NodeId`].
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Member(#[serde(with = "key")] pub [u8; 32]);

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Member({self})")
    }
}

impl From<NodeId> for Member {
    fn from(node: NodeId) -> Member {
        Member(*node.as_bytes())
    }
}

impl From<Member> for NodeId {
    fn from(member: Member) -> NodeId {
        NodeId::from_bytes(member.0)
    }
}

/// Member keys as byte strings.
mod key {
    use serde::{Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        protocol::codec::octets::serialize(bytes, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let bytes = protocol::codec::octets::deserialize(deserializer)?;
        bytes.try_into().map_err(|bytes: Vec<u8>| D::Error::invalid_length(bytes.len(), &"32 bytes of a member's key"))
    }
}

/// One entry: who proposed it, then the proposals that share it (see [`Position::part`]), opaque to openraft and the disk.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// The member that proposed it, as the leader of the entry's term.
    pub by: Member,
    /// The proposals, as the engine frames them.
    #[serde(with = "protocol::codec::octets")]
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload(by {}, {} bytes)", self.by, self.bytes.len())
    }
}

/// The answer of the state machine to openraft: nothing, since effects leave through the [`Machine`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied;

/// Where a proposal stands in the log. Index and part together are unique and only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The term in which it was proposed.
    pub term: Term,
    /// The leader of that term, who proposed it.
    pub leader: NodeId,
    /// Its index; only grows, with gaps (the engine's own entries take indexes too).
    pub index: u64,
    /// Proposals that wait together share one entry, so that they share one flush: its place in there, from 0.
    pub part: u32,
}

/// A consistent copy of a machine, that becomes the bytes of a snapshot when it is called; in words, why it cannot. The member
/// then stops.
pub type Frozen = Box<dyn FnOnce() -> Result<Vec<u8>, String> + Send>;

/// What the group replicates. Called in log order, on every member, only with committed entries, and never twice for one entry
/// in the life of one state (after a restart: first [`Machine::restore`] of the newest snapshot, then what came after it).
pub trait Machine: Send + 'static {
    /// Applies one committed proposal. Never fails for what a member proposed; `position` says whose it was.
    fn apply(&mut self, position: Position, payload: &[u8]);

    /// A consistent copy from which the bytes of a snapshot are made off the loop, on a thread that may wait.
    fn freeze(&self) -> Frozen;

    /// Replaces the whole state by a snapshot's.
    ///
    /// # Errors
    /// In words, when the bytes are no snapshot of this machine. The member then stops.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String>;
}

/// One question, one answer, to another member. Cheap to clone. A dropped future withdraws the question.
pub trait Wires: Clone + Send + Sync + 'static {
    /// Asks a member and waits for its answer.
    ///
    /// # Errors
    /// When no answer came within the time, or the member cannot be reached. Whether it got the question is then unknown.
    fn ask(
        &self,
        to: NodeId,
        message: Vec<u8>,
        within: Duration,
    ) -> impl Future<Output = Result<Vec<u8>, WireError>> + Send;
}

/// Why a question has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WireError {
    /// No connection to the member.
    #[error("{to} cannot be reached: {why}")]
    Unreachable {
        /// The member.
        to: NodeId,
        /// The transport's words.
        why: String,
    },
    /// The member did not answer in time.
    #[error("{to} did not answer within {within:?}")]
    TimedOut {
        /// The member.
        to: NodeId,
        /// The time it had.
        within: Duration,
    },
}

/// What a member keeps on its disk: vote and log as openraft wants them, and the newest snapshot.
pub trait Durable: RaftLogStorage<Types> {
    /// The snapshots beside this log.
    type Snapshots: Snapshots;

    /// The snapshots beside this log, as a handle of their own.
    fn snapshots(&self) -> Self::Snapshots;
}

/// The place of the one newest snapshot.
pub trait Snapshots: Clone + Send + Sync + 'static {
    /// Replaces the snapshot, atomically; durable when it returns.
    ///
    /// # Errors
    /// The disk's. The member then stops.
    fn put(&self, meta: Vec<u8>, bytes: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send;

    /// The newest snapshot, as (meta, bytes).
    ///
    /// # Errors
    /// The disk's, or that the record is damaged.
    fn get(&self) -> impl Future<Output = io::Result<Option<(Vec<u8>, Vec<u8>)>>> + Send;
}

/// How fast a group notices that its leader is gone. All members of a group use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader that has nothing to say lets itself be heard. Also the time for one small answer.
    pub heartbeat: Duration,
    /// How long a member waits for its leader before it asks for votes; the member of rank 0.
    pub patience: Duration,
    /// How much longer each further rank waits: longer than a question, its answer and a flush take.
    pub stagger: Duration,
}

impl Timing {
    /// For members with a few ms between them: a new leader within about 2 s.
    pub fn lan() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(250),
            patience: Duration::from_millis(1000),
            stagger: Duration::from_millis(300),
        }
    }
}

impl Default for Timing {
    /// For members at home links on several continents: a new leader within about 8 s.
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(1000),
            patience: Duration::from_millis(4000),
            stagger: Duration::from_millis(1000),
        }
    }
}

/// How one member takes part.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub me: NodeId,
    /// Who may ask besides the members: the candidates of the policy (a new member is asked before it knows the membership).
    pub candidates: BTreeSet<NodeId>,
    /// The group's timing.
    pub timing: Timing,
    /// After how many entries a snapshot is made; the log before it is dropped.
    pub snapshot_every: u64,
}

impl Config {
    /// The usual configuration of a member.
    pub fn new(me: NodeId, candidates: BTreeSet<NodeId>) -> Config {
        Config { me, candidates, timing: Timing::default(), snapshot_every: 4096 }
    }
}

/// How a member sees the group at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// This member.
    pub me: NodeId,
    /// The newest term it knows.
    pub term: Term,
    /// Who leads in that term, as far as known.
    pub leader: Option<NodeId>,
    /// Since when term and leader are these, on the monotonic clock.
    pub since: Instant,
    /// Who votes (in a change of membership: the old and the new).
    pub voters: BTreeSet<NodeId>,
    /// Who follows without a vote.
    pub learners: BTreeSet<NodeId>,
    /// The index of the newest entry that the machine has applied; 0 before the first.
    pub applied: u64,
    /// The index of the newest entry in this member's log; 0 before the first.
    pub last_log: u64,
    /// Whether a majority can be reached from here.
    pub majority: Majority,
    /// On the leader: how far each other member's log is known to agree; `None` for one that has not answered in this term.
    pub progress: BTreeMap<NodeId, Option<u64>>,
    /// Whether this member takes part at all.
    pub life: Life,
}

impl Standing {
    /// Whether this member leads and a majority follows: only then may it accept anything.
    pub fn leads(&self) -> bool {
        self.leader == Some(self.me) && self.majority == Majority::Reachable && self.life == Life::Running
    }

    /// Whether everything that this member has appended as the leader is decided. A leader that appended its own removal is no voter
    /// from then on, but those who stay cannot elect anybody before they have that entry, and only it can send it.
    pub fn is_decided(&self) -> bool {
        self.progress.is_empty() || self.applied >= self.last_log
    }
}

/// Whether enough members can be reached to decide anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Majority {
    /// A leader is acknowledged by a majority, or a follower hears such a leader.
    Reachable,
    /// Nobody leads just now, or it is not known yet; an election settles it.
    Unsettled,
    /// An election or a heartbeat found fewer than a majority: nothing is accepted until more come back.
    Missing,
}

/// Whether a member takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// It does.
    Running,
    /// It was stopped, or stopped itself: its disk failed, or its records are damaged; in words.
    Stopped(String),
}

/// Why a proposal was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another member leads, or nobody. The payload was **not** and will not be committed.
    #[error("this member does not lead; {}", .leader.map_or_else(|| "nobody leads at the moment".to_owned(), |leader| format!("{leader} does")))]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// Not committed within the bound: no majority answers, or leadership was lost meanwhile. **Whether the payload will be
    /// committed is unknown**: propose again only what may be committed twice.
    #[error("no majority of the coordinators acknowledged within {after:?}; the outcome is unknown")]
    NoMajority {
        /// The bound.
        after: Duration,
    },
    /// The payload is over [`PAYLOAD_BYTES_MAX`]; it was not proposed.
    #[error("a proposal of {got} bytes is over the limit of {PAYLOAD_BYTES_MAX}")]
    TooLarge {
        /// Bytes proposed.
        got: usize,
    },
    /// The member is stopped. The outcome of what was in flight is unknown.
    #[error("this member has stopped: {why}")]
    Stopped {
        /// Why.
        why: String,
    },
}

/// What a group cannot do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The member's records cannot be read, or it cannot be started from them.
    #[error("this member cannot start from its records: {why}")]
    Open {
        /// The storage's or the machine's words.
        why: String,
    },
    /// Only the leader can do this.
    #[error("this member does not lead; {}", .leader.map_or_else(|| "nobody leads at the moment".to_owned(), |leader| format!("ask {leader}")))]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// The change is not one that a group can make.
    #[error("{what}")]
    Refused {
        /// Why, and what to do.
        what: String,
    },
    /// It did not happen within its bound; it may still happen.
    #[error("{what} did not happen within {after:?}")]
    TimedOut {
        /// What.
        what: String,
        /// The bound.
        after: Duration,
    },
    /// The member is stopped.
    #[error("this member has stopped: {why}")]
    Stopped {
        /// Why.
        why: String,
    },
}
