//! The state machine as openraft sees it: owns the [`Machine`], remembers how far it has applied, makes and takes snapshots.
//!
//! A snapshot is written before it counts: the log before it is dropped only then (see `guard`).

use std::{
    io::{self, Cursor},
    sync::{Arc, Mutex, PoisonError},
};

use openraft::{
    AnyError, Entry, EntryPayload, LogId, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError, StorageIOError,
    StoredMembership, storage::RaftStateMachine,
};
use protocol::lease::Term;

use super::{Applied, Frozen, Machine, Member, Payload, Position, Snapshots, Types, guard::Marks};

type Stored<T> = Result<T, StorageError<Member>>;
type Meta = SnapshotMeta<Member, openraft::EmptyNode>;
type Membership = StoredMembership<Member, openraft::EmptyNode>;

/// Joins proposals into the payload of one entry: each with its length before it.
pub(super) fn join(by: Member, parts: &[Vec<u8>]) -> Payload {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        let length = u32::try_from(part.len()).expect("a proposal is below PAYLOAD_BYTES_MAX");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(part);
    }
    Payload { by, bytes }
}

/// The proposals of one entry. Bytes that no member of this version wrote end the list: every member sees the same.
pub(super) fn split(payload: &Payload) -> impl Iterator<Item = &[u8]> {
    let mut rest = payload.bytes.as_slice();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (part, after) = after.split_at_checked(length)?;
        rest = after;
        Some(part)
    })
}

/// A machine with its place in the log.
pub(super) struct Adapter<M, S> {
    machine: Mutex<M>,
    applied: Option<LogId<Member>>,
    membership: Membership,
    shelf: Shelf<S>,
}

impl<M: Machine, S: Snapshots> Adapter<M, S> {
    /// Restores the machine from the newest snapshot, if there is one.
    pub(super) async fn open(mut machine: M, snapshots: S, marks: Arc<Marks>) -> Result<Self, String> {
        let shelf = Shelf { snapshots, marks, turn: Arc::default() };
        let (mut applied, mut membership) = (None, Membership::default());
        if let Some((meta, bytes)) = shelf.get().await.map_err(|e| format!("reading the snapshot: {e}"))? {
            machine.restore(&bytes).map_err(|e| format!("restoring the snapshot {}: {e}", meta.snapshot_id))?;
            (applied, membership) = (meta.last_log_id, meta.last_membership);
        }
        if let Some(last) = applied {
            shelf.marks.cover(last.index);
        }
        Ok(Adapter { machine: Mutex::new(machine), applied, membership, shelf })
    }

    fn machine(&mut self) -> &mut M {
        self.machine.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Machine, S: Snapshots> RaftStateMachine<Types> for Adapter<M, S> {
    type SnapshotBuilder = Builder<S>;

    async fn applied_state(&mut self) -> Stored<(Option<LogId<Member>>, Membership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Stored<Vec<Applied>>
    where
        I: IntoIterator<Item = Entry<Types>> + Send,
        I::IntoIter: Send,
    {
        let mut answers = Vec::new();
        for entry in entries {
            let log_id = entry.log_id;
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(membership) => {
                    self.membership = Membership::new(Some(log_id), membership);
                }
                EntryPayload::Normal(payload) => {
                    let (term, leader) = (Term(log_id.leader_id.term), payload.by.into());
                    for (part, bytes) in (0..).zip(split(&payload)) {
                        self.machine().apply(Position { term, leader, index: log_id.index, part }, bytes);
                    }
                }
            }
            self.applied = Some(log_id);
            answers.push(Applied);
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder<S> {
        let place = self.applied.map_or_else(|| "0-0".to_owned(), |id| format!("{}-{}", id.leader_id.term, id.index));
        let meta = Meta { last_log_id: self.applied, last_membership: self.membership.clone(), snapshot_id: place };
        Builder { frozen: Mutex::new(Some(self.machine().freeze())), meta, shelf: self.shelf.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Stored<Box<Cursor<Vec<u8>>>> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: Box<Cursor<Vec<u8>>>) -> Stored<()> {
        let bytes = snapshot.into_inner();
        let refused = |why: String| {
            StorageError::from(StorageIOError::write_snapshot(Some(meta.signature()), AnyError::error(why)))
        };
        // The machine says first whether it can read the bytes: the disk keeps the older snapshot if it cannot.
        if let Err(why) = self.machine().restore(&bytes) {
            self.shelf.marks.fail();
            return Err(refused(why));
        }
        self.shelf.put(meta, bytes).await.map_err(|e| refused(e.to_string()))?;
        (self.applied, self.membership) = (meta.last_log_id, meta.last_membership.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Stored<Option<Snapshot<Types>>> {
        let found = self.shelf.get().await;
        let found = found.map_err(|e| StorageError::from(StorageIOError::read_snapshot(None, AnyError::error(e))))?;
        Ok(found.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}

/// Makes one snapshot, beside the loop.
pub(super) struct Builder<S> {
    frozen: Mutex<Option<Frozen>>,
    meta: Meta,
    shelf: Shelf<S>,
}

impl<S: Snapshots> RaftSnapshotBuilder<Types> for Builder<S> {
    async fn build_snapshot(&mut self) -> Stored<Snapshot<Types>> {
        let failed = |why: String| StorageError::from(StorageIOError::write_snapshot(None, AnyError::error(why)));
        let frozen = self.frozen.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let frozen = frozen.ok_or_else(|| failed("a builder builds once".to_owned()))?;
        let bytes = tokio::task::spawn_blocking(frozen).await.map_err(|e| failed(e.to_string()))?.map_err(failed)?;
        self.shelf.put(&self.meta, bytes.clone()).await.map_err(|e| failed(e.to_string()))?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: Box::new(Cursor::new(bytes)) })
    }
}

/// The place of the newest snapshot. One writer at a time, and an older snapshot never replaces a newer one: one that is built
/// here may be overtaken by one that is received.
struct Shelf<S> {
    snapshots: S,
    marks: Arc<Marks>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl<S: Clone> Clone for Shelf<S> {
    fn clone(&self) -> Self {
        Shelf { snapshots: self.snapshots.clone(), marks: Arc::clone(&self.marks), turn: Arc::clone(&self.turn) }
    }
}

impl<S: Snapshots> Shelf<S> {
    async fn put(&self, meta: &Meta, bytes: Vec<u8>) -> io::Result<()> {
        let _turn = self.turn.lock().await;
        let index = meta.last_log_id.map_or(0, |id| id.index);
        if self.marks.covered().is_some_and(|covered| covered >= index) {
            return Ok(());
        }
        let record = postcard::to_stdvec(meta).map_err(io::Error::other)?;
        match self.snapshots.put(record, bytes).await {
            Ok(()) => {
                self.marks.cover(index);
                Ok(())
            }
            Err(e) => {
                self.marks.fail();
                Err(e)
            }
        }
    }

    async fn get(&self) -> io::Result<Option<(Meta, Vec<u8>)>> {
        let Some((record, bytes)) = self.snapshots.get().await? else { return Ok(None) };
        let meta = postcard::from_bytes(&record).map_err(|e| {
            io::Error::new(io::ErrorKind::InvalidData, format!("the snapshot's description is damaged: {e}"))
        })?;
        Ok(Some((meta, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_share_an_entry_and_come_apart_again() {
        let parts = vec![b"one".to_vec(), Vec::new(), vec![7; 300]];
        let payload = join(Member([1; 32]), &parts);
        assert_eq!(split(&payload).map(<[u8]>::to_vec).collect::<Vec<_>>(), parts);
    }

    #[test]
    fn bytes_that_nobody_wrote_end_the_list() {
        for bytes in [vec![0, 0, 0, 9, 1], vec![0, 0], vec![0xff; 8]] {
            assert_eq!(split(&Payload { by: Member::default(), bytes }).count(), 0);
        }
    }
}
