//! What a member of the group keeps on its disk: vote, log and the newest snapshot, in the node's own database (`store`).
//!
//! A vote, a truncation, a purge and a snapshot are on the disk when their function returns; entries are when openraft's callback
//! is called. All that waits at one moment shares one transaction. What is committed is written along with the next change, not by
//! itself: after a restart the group finds it out again.
//!
//! Every record carries a checksum over its place and bytes. At [`Log::open`] all are read, and one wrong record refuses the role:
//! a member that repaired its log by itself could take back what it promised.
//!
//! A snapshot and the removal of the log that it stands for are two changes; the engine asks for the second only when the first is
//! on the disk (`guard`), and a log without its snapshot is refused at the next start.
//!
//! A full disk stops nothing for good: changes wait until there is space ([`Health::NoSpace`]) or [`Log::close`]. After any other
//! failed write the member stops, since the database does not tell what arrived.
//!
//! It knows no terms, leaders or jobs, and asks no clock.

mod flush;
mod load;
mod record;
mod tail;
#[cfg(test)]
mod tests;
pub mod upgrade;

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use openraft::{
    AnyError, LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError,
    storage::{LogFlushed, RaftLogStorage},
};
use tokio::sync::watch;

pub use self::record::RecordError;
use self::{
    flush::{Done, Failure, Shared},
    record::{Ballot, Id, LogEntry, Meta, Place},
};
use super::{Durable, Member, Snapshots as SnapshotsApi, Types};
use crate::store::{Change, Store};

/// Bytes of entries that one read for replication gives; a frame of the group holds them.
const READ_BYTES_MAX: usize = 2 << 20;

/// Why the role cannot start from what is on the disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error("the coordinator's log cannot be read")]
    Store(#[from] crate::store::Error),
    /// A record is not what was written.
    #[error(
        "the coordinator's log is not sound, the role refuses to start: {0}; restore a backup, or let the others replace this member"
    )]
    Record(#[from] RecordError),
    /// An entry is missing.
    #[error(
        "the coordinator's log has a hole, the role refuses to start: expected entry {expected}, found {got}, which calls itself {says}"
    )]
    Hole {
        /// The only index that may come next.
        expected: u64,
        /// The index that came.
        got: u64,
        /// The index inside the entry.
        says: u64,
    },
    /// An entry is of an older term than the one before it.
    #[error("the coordinator's log is not sound, the role refuses to start: the term goes back at entry {index}")]
    TermGoesBack {
        /// The entry.
        index: u64,
    },
    /// An entry is there that was removed.
    #[error(
        "the coordinator's log is not sound, the role refuses to start: entry {index} is there, the log begins at {first}"
    )]
    Left {
        /// The entry.
        index: u64,
        /// Where the log begins.
        first: u64,
    },
    /// Entries were removed that no snapshot contains.
    #[error("the coordinator's log was removed up to entry {purged} and no snapshot contains that: restore a backup")]
    Uncovered {
        /// The last entry that was removed.
        purged: u64,
    },
    /// What an older journal logged cannot be kept.
    #[error("the transparency log of the older journal cannot be kept, the role refuses to start")]
    Log(#[source] crate::tlog::Error),
    /// An entry of a journal from before there were groups cannot be read.
    #[error("entry {entry} of the older journal cannot be read, nothing was changed: {why}")]
    Journal {
        /// The entry.
        entry: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A journal from before there were groups, beside a group.
    #[error(
        "the database holds a group's log and an older journal up to entry {last}, which contradict each other: restore a backup"
    )]
    Both {
        /// The journal's last number.
        last: u64,
    },
}

/// Whether the log can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Sound,
    /// Changes wait for space on the disk.
    NoSpace {
        /// Bytes that are free.
        free: u64,
        /// Bytes that must be free.
        wanted: u64,
    },
    /// A write failed; the member stops. In words.
    Failed(String),
}

/// A member's log. Clones share it.
#[derive(Debug, Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

/// Reads the log beside it.
#[derive(Debug, Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// The newest snapshot beside the log.
#[derive(Debug, Clone)]
pub struct Snapshots {
    shared: Arc<Shared>,
}

impl Log {
    /// Reads the whole log and checks it. Blocks; call it through [`Store::run`] or from a thread that may.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with any record: the role must not start.
    pub fn open(store: &Store) -> Result<Self, Error> {
        let state = load::load(store)?;
        Ok(Self { shared: Arc::new(Shared::new(store.clone(), state)) })
    }

    /// Tells whether the log can be written.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// Gives up what waits for space, so that the member can be stopped. Nothing is written afterwards.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl Durable for Log {
    type Snapshots = Snapshots;

    fn snapshots(&self) -> Snapshots {
        Snapshots { shared: self.shared.clone() }
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Reader;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError<Member>> {
        let state = self.shared.state();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last })
    }

    async fn get_log_reader(&mut self) -> Reader {
        Reader { shared: self.shared.clone() }
    }

    async fn save_vote(&mut self, vote: &Ballot) -> Result<(), StorageError<Member>> {
        let failed = |failure: Failure| StorageIOError::write_vote(AnyError::new(&failure));
        let record = record::write(Place::Vote, vote).map_err(|error| failed(error.into()))?;
        let written = {
            let mut state = self.shared.state();
            state.vote = Some(*vote);
            self.shared.written(state, vec![Change::Vote(record)])
        };
        Ok(done(written.await).map_err(failed)?)
    }

    async fn read_vote(&mut self) -> Result<Option<Ballot>, StorageError<Member>> {
        Ok(self.shared.state().vote)
    }

    async fn save_committed(&mut self, committed: Option<Id>) -> Result<(), StorageError<Member>> {
        self.shared.state().commit(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<Id>, StorageError<Member>> {
        Ok(self.shared.state().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError<Member>>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let failed = |failure: Failure| StorageIOError::write_logs(AnyError::new(&failure));
        // What was removed stays removed: a snapshot stands for it.
        let begin = self.shared.state().first();
        let entries: Vec<LogEntry> = entries.into_iter().filter(|entry| entry.log_id.index >= begin).collect();
        let Some(first) = entries.first().map(|entry| entry.log_id.index) else {
            callback.log_io_completed(Ok(()));
            return Ok(());
        };
        let mut records = Vec::with_capacity(entries.len());
        for (expected, entry) in (first..).zip(&entries) {
            let index = entry.log_id.index;
            if index != expected {
                return Err(failed(Failure::Hole { expected, got: index }).into());
            }
            records.push((index, record::write(Place::Log(index), entry).map_err(|error| failed(error.into()))?));
        }
        let mut state = self.shared.state();
        if first != state.next && (state.last.is_some() || state.purged.is_some()) {
            let expected = state.next;
            drop(state);
            return Err(failed(Failure::Hole { expected, got: first }).into());
        }
        entries.into_iter().for_each(|entry| state.push(entry));
        self.shared.queue(state, vec![Change::Append(records)], Done::Appended(callback));
        Ok(())
    }

    async fn truncate(&mut self, log_id: Id) -> Result<(), StorageError<Member>> {
        let failed = |failure: Failure| StorageIOError::write_logs(AnyError::new(&failure));
        // The entry that becomes the last one must be known by its id; it may be older than the entries in memory.
        let before = log_id.index.checked_sub(1);
        let last = match before {
            Some(index) => read(&self.shared, index, index + 1, 1).await.map_err(failed)?.pop(),
            None => None,
        };
        let written = {
            let mut state = self.shared.state();
            state.tail.truncate(log_id.index);
            state.next = state.next.min(log_id.index);
            if state.last.is_some_and(|last| last.index >= log_id.index) {
                state.last = last.map(|entry| entry.log_id).or(state.purged);
            }
            self.shared.written(state, vec![Change::Truncate(log_id.index)])
        };
        Ok(done(written.await).map_err(failed)?)
    }

    async fn purge(&mut self, log_id: Id) -> Result<(), StorageError<Member>> {
        let failed = |failure: Failure| StorageIOError::write_logs(AnyError::new(&failure));
        let record = record::write(Place::Purged, &log_id).map_err(|error| failed(error.into()))?;
        let written = {
            let mut state = self.shared.state();
            if state.purged.is_some_and(|purged| purged >= log_id) {
                return Ok(());
            }
            state.purged = Some(log_id);
            state.last = state.last.max(Some(log_id));
            state.tail.purge(log_id.index);
            state.next = state.next.max(log_id.index + 1);
            self.shared.written(state, vec![Change::Purge { upto: log_id.index, mark: record }])
        };
        Ok(done(written.await).map_err(failed)?)
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<LogEntry>, StorageError<Member>> {
        Reader { shared: self.shared.clone() }.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, StorageError<Member>> {
        Reader { shared: self.shared.clone() }.limited_get_log_entries(start, end).await
    }
}

impl RaftLogReader<Types> for Reader {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<LogEntry>, StorageError<Member>> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        let found = read(&self.shared, from, to, usize::MAX).await;
        Ok(found.map_err(|failure| StorageIOError::read_logs(AnyError::new(&failure)))?)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, StorageError<Member>> {
        let found = read(&self.shared, start, end, READ_BYTES_MAX).await;
        Ok(found.map_err(|failure| StorageIOError::read_logs(AnyError::new(&failure)))?)
    }
}

impl SnapshotsApi for Snapshots {
    /// Replaces the snapshot. One that contains less than the kept one is not written.
    async fn put(&self, meta: Vec<u8>, bytes: Vec<u8>) -> io::Result<()> {
        let described: Meta = record::decode(Place::Meta, &meta).map_err(io::Error::other)?;
        let covers = described.last_log_id.map_or(0, |last| last.index + 1);
        let meta = record::seal(Place::Meta, &meta).map_err(io::Error::other)?;
        let bytes = record::seal(Place::Snapshot, &bytes).map_err(io::Error::other)?;
        let written = {
            let mut state = self.shared.state();
            if covers < state.covered {
                return Ok(());
            }
            state.covered = covers;
            self.shared.written(state, vec![Change::Snapshot { meta, bytes }])
        };
        done(written.await).map_err(Into::into)
    }

    async fn get(&self) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let found = self.shared.store.run(|store| store.group_snapshot()).await;
        let Some((meta, bytes)) = found.map_err(|error| io::Error::from(Failure::from(error)))? else {
            return Ok(None);
        };
        let meta = record::unseal(Place::Meta, &meta).map_err(io::Error::other)?.to_vec();
        let bytes = record::unseal(Place::Snapshot, &bytes).map_err(io::Error::other)?.to_vec();
        Ok(Some((meta, bytes)))
    }
}

/// What a change came to; the queue forgets nobody, except when the runtime ends.
fn done(written: Result<Result<(), Failure>, tokio::sync::oneshot::error::RecvError>) -> Result<(), Failure> {
    written.unwrap_or(Err(Failure::Closed))
}

/// The entries of `from..to` that are there: from memory, and from the disk what is older.
async fn read(shared: &Arc<Shared>, from: u64, to: u64, bytes_max: usize) -> Result<Vec<LogEntry>, Failure> {
    let (from, to, tail) = {
        let state = shared.state();
        let from = from.max(state.first());
        let tail = state.tail.first().unwrap_or(u64::MAX);
        if from >= to {
            return Ok(Vec::new());
        }
        if from >= tail {
            return Ok(state.tail.read(from, to, bytes_max));
        }
        (from, to, tail)
    };
    let records = shared.store.run(move |store| store.group_records(from, to.min(tail), bytes_max)).await?;
    let mut entries = Vec::with_capacity(records.len());
    let mut bytes = 0;
    for (index, record) in records {
        let entry: LogEntry = record::read(Place::Log(index), &record)?;
        bytes += tail::weight(&entry);
        entries.push(entry);
    }
    let complete = entries.last().is_none_or(|entry| entry.log_id.index + 1 == tail);
    if complete && tail < to && bytes < bytes_max {
        entries.extend(shared.state().tail.read(tail, to, bytes_max - bytes));
    }
    Ok(entries)
}
