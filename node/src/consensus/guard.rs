//! Three things that openraft 0.9 leaves to chance, put between it and the disk.
//!
//! * A member that was the leader when it stopped comes back as a follower: its own vote is read as a mere vote. openraft would
//!   go on in the same term, though entries of that term may have reached others and not this disk; their indexes would then be
//!   written a second time.
//! * The log is dropped only after the snapshot that stands for it is durable: when a snapshot is received, openraft drops the log
//!   at once and lets the snapshot be written beside it, and a crash in between would lose what this member had acknowledged.
//! * The newest log id is kept where an election's first question finds it.

use std::{
    fmt::Debug,
    ops::RangeBounds,
    sync::{Arc, Mutex, PoisonError},
};

use openraft::{
    AnyError, Entry, ErrorSubject, ErrorVerb, LogId, LogState, RaftLogReader, StorageError, StorageIOError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};
use tokio::sync::watch;

use super::{Durable, Member, Types};

type Stored<T> = Result<T, StorageError<Member>>;

/// How far the newest durable snapshot reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Covered {
    /// Nothing is covered.
    Nothing,
    /// Everything up to this index, inclusive.
    UpTo(u64),
    /// Snapshots cannot be written any more.
    Failed,
}

/// What the guard of the log, the machine and the elections know of the disk.
#[derive(Debug)]
pub(super) struct Marks {
    last_log: Mutex<Option<LogId<Member>>>,
    covered: watch::Sender<Covered>,
}

impl Marks {
    pub(super) fn new() -> Arc<Marks> {
        Arc::new(Marks { last_log: Mutex::new(None), covered: watch::Sender::new(Covered::Nothing) })
    }

    /// The newest entry in the log, durable or about to be.
    pub(super) fn last_log(&self) -> Option<LogId<Member>> {
        *self.last_log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_last_log(&self, log_id: Option<LogId<Member>>) {
        *self.last_log.lock().unwrap_or_else(PoisonError::into_inner) = log_id;
    }

    /// How far the newest durable snapshot reaches.
    pub(super) fn covered(&self) -> Option<u64> {
        match *self.covered.borrow() {
            Covered::UpTo(index) => Some(index),
            Covered::Nothing | Covered::Failed => None,
        }
    }

    /// A snapshot up to `index` is durable.
    pub(super) fn cover(&self, index: u64) {
        self.covered.send_replace(Covered::UpTo(index));
    }

    /// No snapshot can be written any more: whoever waits for one gets an error.
    pub(super) fn fail(&self) {
        self.covered.send_replace(Covered::Failed);
    }
}

/// A log with the three guards.
#[derive(Debug)]
pub(super) struct Guarded<L> {
    log: L,
    me: Member,
    marks: Arc<Marks>,
}

impl<L: Durable> Guarded<L> {
    pub(super) fn new(log: L, me: Member, marks: Arc<Marks>) -> Guarded<L> {
        Guarded { log, me, marks }
    }
}

impl<L: Durable> RaftLogReader<Types> for Guarded<L> {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> Stored<Vec<Entry<Types>>> {
        self.log.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Stored<Vec<Entry<Types>>> {
        self.log.limited_get_log_entries(start, end).await
    }
}

impl<L: Durable> RaftLogStorage<Types> for Guarded<L> {
    type LogReader = L::LogReader;

    async fn get_log_state(&mut self) -> Stored<LogState<Types>> {
        let state = self.log.get_log_state().await?;
        self.marks.set_last_log(state.last_log_id);
        Ok(state)
    }

    async fn get_log_reader(&mut self) -> L::LogReader {
        self.log.get_log_reader().await
    }

    async fn save_vote(&mut self, vote: &Vote<Member>) -> Stored<()> {
        self.log.save_vote(vote).await
    }

    async fn read_vote(&mut self) -> Stored<Option<Vote<Member>>> {
        let vote = self.log.read_vote().await?;
        Ok(vote.map(|mut vote| {
            if vote.leader_id().voted_for() == Some(self.me) {
                vote.committed = false;
            }
            vote
        }))
    }

    async fn save_committed(&mut self, committed: Option<LogId<Member>>) -> Stored<()> {
        self.log.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> Stored<Option<LogId<Member>>> {
        self.log.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Stored<()>
    where
        I: IntoIterator<Item = Entry<Types>> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry<Types>> = entries.into_iter().collect();
        if let Some(last) = entries.last() {
            self.marks.set_last_log(Some(last.log_id));
        }
        self.log.append(entries, callback).await
    }

    async fn truncate(&mut self, log_id: LogId<Member>) -> Stored<()> {
        self.log.truncate(log_id).await?;
        let state = self.log.get_log_state().await?;
        self.marks.set_last_log(state.last_log_id);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId<Member>) -> Stored<()> {
        let mut covered = self.marks.covered.subscribe();
        let reached = covered
            .wait_for(|covered| match covered {
                Covered::UpTo(index) => *index >= log_id.index,
                Covered::Failed => true,
                Covered::Nothing => false,
            })
            .await;
        match reached.map(|covered| *covered) {
            Ok(Covered::UpTo(_)) => {}
            Ok(Covered::Failed | Covered::Nothing) | Err(_) => {
                let why = AnyError::error("the snapshot that stands for the log could not be written");
                return Err(StorageIOError::new(ErrorSubject::Logs, ErrorVerb::Delete, why).into());
            }
        }
        self.log.purge(log_id).await?;
        if self.marks.last_log() < Some(log_id) {
            self.marks.set_last_log(Some(log_id));
        }
        Ok(())
    }
}
