//! A disk in memory that knows what was flushed: a crash loses the rest, or all but a part of it. Writes take virtual time and
//! can fail.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    ops::RangeBounds,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openraft::{
    AnyError, Entry, ErrorSubject, ErrorVerb, LogId, LogState, RaftLogReader, StorageError, StorageIOError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};
use tokio::time::Instant;

use super::dice::{Counts, Dice};
use crate::consensus::{Durable, Member, Snapshots, Types};

type Stored<T> = Result<T, StorageError<Member>>;

/// What is on the platters.
#[derive(Clone, Debug, Default)]
struct Content {
    vote: Option<Vote<Member>>,
    log: BTreeMap<u64, Entry<Types>>,
    purged: Option<LogId<Member>>,
    committed: Option<LogId<Member>>,
    snapshot: Option<(Vec<u8>, Vec<u8>)>,
}

/// Whether the disk does what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consensus) enum Flushing {
    /// What it acknowledges survives a crash.
    Honest,
    /// It acknowledges at once, and keeps what it has only now and then; the time at which it last did.
    Lying(Instant),
}

/// How long a lying disk keeps nothing.
const LIE: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Platters {
    /// What survives a crash.
    durable: Content,
    /// What a reader sees: with what is written but not flushed.
    seen: Content,
    /// Which mount may write; older ones are of a process that is dead.
    mount: u64,
    /// After how many further writes one fails.
    fails_in: Option<u64>,
    flushing: Flushing,
    dice: Dice,
    counts: Counts,
}

/// One member's disk.
#[derive(Clone, Debug)]
pub(in crate::consensus) struct Disk(Arc<Mutex<Platters>>);

impl Disk {
    pub(in crate::consensus) fn new(seed: u64) -> Disk {
        Disk(Arc::new(Mutex::new(Platters {
            durable: Content::default(),
            seen: Content::default(),
            mount: 0,
            fails_in: None,
            flushing: Flushing::Honest,
            dice: Dice::new(seed),
            counts: Counts::default(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Platters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mounts it for a new process; what an older one still does fails.
    pub(in crate::consensus) fn mount(&self) -> Log {
        let mut platters = self.lock();
        platters.mount += 1;
        Log { disk: self.clone(), mount: platters.mount }
    }

    /// Loses power: what was not flushed is gone, or all but a part of it.
    pub(in crate::consensus) fn crash(&self) {
        let mut platters = self.lock();
        platters.mount += 1;
        platters.fails_in = None;
        if platters.flushing != Flushing::Honest {
            platters.seen = platters.durable.clone();
            return;
        }
        let unflushed: Vec<Entry<Types>> = platters
            .seen
            .log
            .iter()
            .filter(|(index, _)| !platters.durable.log.contains_key(index))
            .map(|(_, e)| e.clone())
            .collect();
        if !unflushed.is_empty() {
            platters.counts.hit("crash lost unflushed entries");
            let kept = platters.dice.index(unflushed.len() + 1);
            if kept > 0 {
                platters.counts.hit("crash tore a write");
            }
            for entry in unflushed.into_iter().take(kept) {
                platters.durable.log.insert(entry.log_id.index, entry);
            }
        }
        platters.seen = platters.durable.clone();
    }

    /// Lets one of the next writes fail.
    pub(in crate::consensus) fn fail_in(&self, writes: u64) {
        self.lock().fails_in = Some(writes);
    }

    /// No write fails any more.
    pub(in crate::consensus) fn mend(&self) {
        self.lock().fails_in = None;
    }

    /// From now on it acknowledges before it keeps.
    pub(in crate::consensus) fn lie(&self) {
        self.lock().flushing = Flushing::Lying(Instant::now());
    }

    pub(in crate::consensus) fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }
}

/// A mounted disk.
#[derive(Clone, Debug)]
pub(in crate::consensus) struct Log {
    disk: Disk,
    mount: u64,
}

impl Log {
    fn platters(&self) -> io::Result<MutexGuard<'_, Platters>> {
        let platters = self.disk.lock();
        if platters.mount == self.mount { Ok(platters) } else { Err(io::Error::other("this process is dead")) }
    }

    fn read<T>(&self, get: impl FnOnce(&Content) -> T) -> io::Result<T> {
        Ok(get(&self.platters()?.seen))
    }

    /// Writes, waits as long as a flush takes, and flushes; a crash in between loses it.
    async fn write(&self, change: impl Fn(&mut Content)) -> io::Result<()> {
        let flush = {
            let mut platters = self.platters()?;
            if let Some(left) = platters.fails_in.as_mut() {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    platters.fails_in = None;
                    platters.counts.hit("disk error");
                    return Err(io::Error::other("the disk failed"));
                }
            }
            if let Flushing::Lying(kept) = platters.flushing {
                if kept.elapsed() > LIE {
                    platters.flushing = Flushing::Lying(Instant::now());
                    platters.durable = platters.seen.clone();
                }
                change(&mut platters.seen);
                return Ok(());
            }
            change(&mut platters.seen);
            // Mostly fast, now and then a stall.
            if platters.dice.percent(1) { platters.dice.millis(20..200) } else { platters.dice.micros(100..4000) }
        };
        tokio::time::sleep(flush).await;
        change(&mut self.platters()?.durable);
        Ok(())
    }
}

fn reading(error: &io::Error) -> StorageError<Member> {
    storage_error(ErrorVerb::Read, error)
}

fn storage_error(verb: ErrorVerb, error: &io::Error) -> StorageError<Member> {
    StorageIOError::new(ErrorSubject::Store, verb, AnyError::error(error)).into()
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> Stored<Vec<Entry<Types>>> {
        self.read(|content| content.log.range(range).map(|(_, entry)| entry.clone()).collect()).map_err(|e| reading(&e))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> Stored<LogState<Types>> {
        self.read(|content| LogState {
            last_purged_log_id: content.purged,
            last_log_id: content.log.last_key_value().map(|(_, entry)| entry.log_id).or(content.purged),
        })
        .map_err(|e| reading(&e))
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<Member>) -> Stored<()> {
        let vote = *vote;
        self.write(|content| content.vote = Some(vote)).await.map_err(|e| storage_error(ErrorVerb::Write, &e))
    }

    async fn read_vote(&mut self) -> Stored<Option<Vote<Member>>> {
        self.read(|content| content.vote).map_err(|e| reading(&e))
    }

    async fn save_committed(&mut self, committed: Option<LogId<Member>>) -> Stored<()> {
        let mut platters = self.platters().map_err(|e| storage_error(ErrorVerb::Write, &e))?;
        platters.seen.committed = committed;
        // May or may not reach the platters: it is only a hint. On a lying disk it goes the way of the rest.
        if platters.flushing == Flushing::Honest && platters.dice.percent(50) {
            platters.durable.committed = committed;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Stored<Option<LogId<Member>>> {
        self.read(|content| content.committed).map_err(|e| reading(&e))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Stored<()>
    where
        I: IntoIterator<Item = Entry<Types>> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry<Types>> = entries.into_iter().collect();
        let written = self
            .write(|content| content.log.extend(entries.iter().map(|entry| (entry.log_id.index, entry.clone()))))
            .await;
        let answer = match &written {
            Ok(()) => Ok(()),
            Err(e) => Err(io::Error::other(e.to_string())),
        };
        callback.log_io_completed(answer);
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<Member>) -> Stored<()> {
        let cut = |content: &mut Content| drop(content.log.split_off(&log_id.index));
        self.write(cut).await.map_err(|e| storage_error(ErrorVerb::Delete, &e))?;
        self.disk.lock().counts.hit("truncated a log");
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId<Member>) -> Stored<()> {
        let cut = |content: &mut Content| {
            content.log = content.log.split_off(&(log_id.index + 1));
            content.purged = Some(log_id);
        };
        self.write(cut).await.map_err(|e| storage_error(ErrorVerb::Delete, &e))
    }
}

impl Durable for Log {
    type Snapshots = Log;

    fn snapshots(&self) -> Log {
        self.clone()
    }
}

impl Snapshots for Log {
    async fn put(&self, meta: Vec<u8>, bytes: Vec<u8>) -> io::Result<()> {
        self.write(|content| content.snapshot = Some((meta.clone(), bytes.clone()))).await
    }

    async fn get(&self) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        Ok(self.platters()?.seen.snapshot.clone())
    }
}
