//! What a log must hold after a list of changes, and a seeded generator of changes that openraft could ask for.

use std::collections::{BTreeMap, BTreeSet};

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, EntryPayload, LogId, Membership, RaftLogReader, StoredMembership, Vote};

use crate::{
    consensus::{
        Durable, Member, Payload, Snapshots as _,
        storage::{
            Error, Log,
            record::{Ballot, Id, LogEntry, Meta},
        },
    },
    store::{Store, testing::mix},
};

pub(super) fn id(term: u64, index: u64) -> Id {
    LogId::new(CommittedLeaderId::new(term, Member([1; 32])), index)
}

pub(super) fn entry(term: u64, index: u64, bytes: Vec<u8>) -> LogEntry {
    let payload = EntryPayload::Normal(Payload { by: Member([1; 32]), bytes });
    LogEntry { log_id: id(term, index), payload }
}

pub(super) fn meta(last: Id) -> Vec<u8> {
    let voters = Membership::new(vec![BTreeSet::from([Member([1; 32])])], ());
    let meta = Meta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), voters),
        snapshot_id: last.to_string(),
    };
    postcard::to_stdvec(&meta).unwrap()
}

/// Numbers by chance, the same for the same seed.
#[derive(Debug, Clone)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0) % end.max(1)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = match self.below(8) {
            0 => 0,
            1 => 6000,
            _ => self.below(400),
        };
        let fill = self.below(256);
        vec![u8::try_from(fill).unwrap(); usize::try_from(length).unwrap()]
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Op {
    Vote(Ballot),
    Committed(Id),
    Append(Vec<LogEntry>),
    Truncate(Id),
    Purge(Id),
    Snapshot(Id, Vec<u8>),
}

impl Op {
    /// Whether it is queued before its function waits for anything, so that several of them keep their order.
    pub(super) fn queues_at_once(&self) -> bool {
        matches!(self, Op::Vote(_) | Op::Append(_) | Op::Snapshot(..))
    }

    pub(super) async fn perform(self, mut log: Log) -> Result<(), String> {
        match self {
            Op::Vote(vote) => log.save_vote(&vote).await.map_err(|error| error.to_string()),
            Op::Committed(id) => log.save_committed(Some(id)).await.map_err(|error| error.to_string()),
            Op::Append(entries) => log.blocking_append(entries).await.map_err(|error| error.to_string()),
            Op::Truncate(from) => log.truncate(from).await.map_err(|error| error.to_string()),
            Op::Purge(upto) => log.purge(upto).await.map_err(|error| error.to_string()),
            Op::Snapshot(last, bytes) => {
                log.snapshots().put(meta(last), bytes).await.map_err(|error| error.to_string())
            }
        }
    }
}

/// What is on the disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Model {
    pub(super) vote: Option<Ballot>,
    pub(super) log: BTreeMap<u64, LogEntry>,
    pub(super) purged: Option<Id>,
    pub(super) snapshot: Option<(Id, Vec<u8>)>,
    /// The first index that is not known to be committed: what is before it is never truncated. Need not be on the disk.
    pub(super) floor: u64,
}

impl Model {
    pub(super) fn last(&self) -> Option<Id> {
        self.log.last_key_value().map(|(_, entry)| entry.log_id).or(self.purged)
    }

    fn next(&self) -> u64 {
        self.last().map_or(0, |last| last.index + 1)
    }

    fn term(&self) -> u64 {
        let voted = self.vote.map_or(1, |vote| vote.leader_id().get_term());
        voted.max(self.last().map_or(1, |last| last.leader_id.term))
    }

    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Vote(vote) => self.vote = Some(*vote),
            Op::Committed(last) => self.floor = last.index + 1,
            Op::Append(entries) => self.log.extend(entries.iter().map(|entry| (entry.log_id.index, entry.clone()))),
            Op::Truncate(from) => drop(self.log.split_off(&from.index)),
            Op::Purge(upto) => {
                self.log = self.log.split_off(&(upto.index + 1));
                self.purged = Some(*upto);
            }
            Op::Snapshot(last, bytes) => self.snapshot = Some((*last, bytes.clone())),
        }
    }

    /// A change that may come next.
    pub(super) fn choose(&self, chance: &mut Chance) -> Op {
        let (term, next) = (self.term(), self.next());
        let covered = self.snapshot.as_ref().map(|(last, _)| *last);
        let first = self.purged.map_or(0, |purged| purged.index + 1);
        if let Some(covered) = covered.filter(|covered| covered.index >= next) {
            return Op::Purge(covered);
        }
        // The first index that no snapshot stands for.
        let bare = covered.map_or(first, |covered| first.max(covered.index + 1));
        let keep = bare.max(self.floor);
        match chance.below(20) {
            0 | 1 => Op::Vote(Vote::new(term + 1, Member([1; 32]))),
            2 if next > 0 => Op::Committed(self.last().unwrap()),
            3 | 4 if next > keep => {
                let from = keep + chance.below(next - keep);
                Op::Truncate(self.log[&from].log_id)
            }
            5 | 6 if next > bare => {
                let upto = self.log[&(bare + chance.below(next - bare))].log_id;
                Op::Snapshot(upto, chance.bytes())
            }
            7 | 8 if covered.is_some_and(|covered| covered.index >= first) => Op::Purge(covered.unwrap()),
            9 => Op::Snapshot(id(term, next + chance.below(5)), chance.bytes()),
            _ => {
                let count = 1 + chance.below(3);
                Op::Append((next..next + count).map(|index| entry(term, index, chance.bytes())).collect())
            }
        }
    }

    /// Opens the log in a store and reads everything.
    pub(super) async fn read(store: &Store) -> Result<(Self, Log, Option<Id>), Error> {
        let mut log = Log::open(store)?;
        let state = log.get_log_state().await.unwrap();
        let entries = log.try_get_log_entries(..).await.unwrap();
        let snapshot = log.snapshots().get().await.unwrap().map(|(meta, bytes)| {
            let meta: Meta = postcard::from_bytes(&meta).unwrap();
            (meta.last_log_id.unwrap(), bytes)
        });
        let found = Self {
            vote: log.read_vote().await.unwrap(),
            log: entries.into_iter().map(|entry| (entry.log_id.index, entry)).collect(),
            purged: state.last_purged_log_id,
            snapshot,
            floor: 0,
        };
        assert_eq!(found.last(), state.last_log_id);
        let committed = log.read_committed().await.unwrap();
        Ok((found, log, committed))
    }
}
