//! The queue of changes and its way to the disk.
//!
//! ```text
//!   append, vote, truncate, purge, snapshot --> state in memory + queue --> one transaction of all that waits --> done
//! ```
//!
//! Changes reach the disk in the order in which they were queued. Whoever queues one while none is being written starts the
//! drain on a blocking thread; the others find their change in the drain's next transaction. A change that failed is the last
//! one: what follows it would leave a hole. Only a lack of space is waited for, since nothing was written then.

use std::{
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openraft::storage::LogFlushed;
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

use super::{
    Health,
    record::{self, Ballot, Id, LogEntry, Place, RecordError},
    tail::Tail,
};
use crate::{
    consensus::Types,
    store::{Change, Error as StoreError, Store},
};

/// How often the disk is asked whether there is space again.
const SPACE_EVERY: Duration = Duration::from_millis(500);

/// Why a change did not reach the disk. Cloneable, since it ends every later change too.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Disk(Arc<Chain>),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("entry {got} does not follow: expected {expected}")]
    Hole { expected: u64, got: u64 },
    #[error("the log was closed before the change was written")]
    Closed,
}

/// An error of the store with all its sources, since openraft passes on nothing but one line.
#[derive(Debug)]
pub(super) struct Chain(StoreError);

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = std::error::Error::source(&self.0);
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Disk(Arc::new(Chain(error)))
    }
}

impl From<Failure> for std::io::Error {
    fn from(failure: Failure) -> Self {
        std::io::Error::other(failure)
    }
}

/// Who waits for a change.
pub(super) enum Done {
    /// openraft, for entries.
    Appended(LogFlushed<Types>),
    /// One of our own functions.
    Waiter(oneshot::Sender<Result<(), Failure>>),
}

impl Done {
    fn tell(self, result: Result<(), Failure>) {
        match self {
            Done::Appended(callback) => callback.log_io_completed(result.map_err(Into::into)),
            // Whoever waited may have gone; the change is on the disk all the same.
            Done::Waiter(sender) => drop(sender.send(result)),
        }
    }
}

struct Queued {
    changes: Vec<Change>,
    /// The next index of the log once this is written.
    next: u64,
    done: Done,
}

/// Whether changes are on their way to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Idle,
    Writing,
    /// A change failed, or the log was closed.
    Ended,
}

/// What a member's log is, queued changes included.
pub(super) struct State {
    pub(super) vote: Option<Ballot>,
    pub(super) committed: Option<Id>,
    /// `committed` moved since it was last written.
    stale: Option<Id>,
    pub(super) purged: Option<Id>,
    pub(super) last: Option<Id>,
    pub(super) tail: Tail,
    /// The index that the next entry must have on the disk.
    pub(super) next: u64,
    /// The first index that no snapshot covers.
    pub(super) covered: u64,
    queue: Vec<Queued>,
    flow: Flow,
    failure: Option<Failure>,
}

impl State {
    pub(super) fn new(vote: Option<Ballot>, committed: Option<Id>, purged: Option<Id>, covered: u64) -> Self {
        let next = purged.map_or(0, |purged| purged.index + 1);
        Self {
            vote,
            committed,
            stale: None,
            purged,
            last: purged,
            tail: Tail::default(),
            next,
            covered,
            queue: Vec::new(),
            flow: Flow::Idle,
            failure: None,
        }
    }

    /// The first index that the log may still have.
    pub(super) fn first(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    /// Notes an entry that was loaded, or is about to be queued.
    pub(super) fn push(&mut self, entry: LogEntry) {
        self.last = Some(entry.log_id);
        self.next = entry.log_id.index + 1;
        self.tail.push(entry);
    }

    pub(super) fn commit(&mut self, committed: Option<Id>) {
        self.committed = committed;
        self.stale = committed;
    }
}

/// What the log, its readers and its snapshots share.
pub(super) struct Shared {
    pub(super) store: Store,
    state: Mutex<State>,
    /// Told when the log is closed, to a drain that waits for space.
    closed: Condvar,
    pub(super) health: watch::Sender<Health>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("health", &self.health.borrow()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(store: Store, state: State) -> Self {
        Self { store, state: Mutex::new(state), closed: Condvar::new(), health: watch::Sender::new(Health::Sound) }
    }

    /// The state; a panic elsewhere cannot leave it half changed, since nothing in a critical section panics.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues changes that `state` already shows. The lock is held from the one to the other, so that the orders agree.
    pub(super) fn queue(self: &Arc<Self>, mut state: MutexGuard<'_, State>, changes: Vec<Change>, done: Done) {
        match state.flow {
            Flow::Ended => {
                let failure = state.failure.clone().unwrap_or(Failure::Closed);
                drop(state);
                done.tell(Err(failure));
            }
            Flow::Writing => {
                let next = state.next;
                state.queue.push(Queued { changes, next, done });
            }
            Flow::Idle => {
                let next = state.next;
                state.queue.push(Queued { changes, next, done });
                state.flow = Flow::Writing;
                drop(state);
                let shared = self.clone();
                // It ends with the queue, and everybody who queued a change waits for that change.
                drop(tokio::task::spawn_blocking(move || shared.drain()));
            }
        }
    }

    /// Queues changes and waits until they are on the disk. They go there even when the future is dropped.
    pub(super) fn written(
        self: &Arc<Self>,
        state: MutexGuard<'_, State>,
        changes: Vec<Change>,
    ) -> oneshot::Receiver<Result<(), Failure>> {
        let (sender, receiver) = oneshot::channel();
        self.queue(state, changes, Done::Waiter(sender));
        receiver
    }

    /// Ends the log for good: changes that wait for space fail, later ones too.
    pub(super) fn close(&self) {
        let mut state = self.state();
        if state.flow != Flow::Ended {
            // A drain that writes just now still tells its waiters, then finds the end.
            state.flow = Flow::Ended;
            state.failure = Some(Failure::Closed);
        }
        drop(state);
        self.closed.notify_all();
    }

    /// Writes until nothing waits. The database is let go before the last ones are told: whoever waited may open it again.
    fn drain(self: Arc<Self>) {
        let mut next = self.take();
        while let Some((batch, stale)) = next {
            let end = batch.last().map_or(0, |queued| queued.next);
            let (mut changes, mut waiters) = (Vec::new(), Vec::new());
            for queued in batch {
                changes.extend(queued.changes);
                waiters.push(queued.done);
            }
            let result = self.write(changes, stale);
            match &result {
                Ok(()) => self.state().tail.trim(end),
                Err(failure) => self.end(failure),
            }
            next = self.take();
            if next.is_none() {
                drop(self);
                waiters.into_iter().for_each(|waiter| waiter.tell(result.clone()));
                return;
            }
            waiters.into_iter().for_each(|waiter| waiter.tell(result.clone()));
        }
    }

    /// Takes what waits; with nothing left the drain is over.
    fn take(&self) -> Option<(Vec<Queued>, Option<Id>)> {
        let mut state = self.state();
        match state.flow {
            Flow::Ended => {
                let failure = state.failure.clone().unwrap_or(Failure::Closed);
                let left = mem::take(&mut state.queue);
                drop(state);
                left.into_iter().for_each(|queued| queued.done.tell(Err(failure.clone())));
                None
            }
            Flow::Idle | Flow::Writing if state.queue.is_empty() => {
                state.flow = Flow::Idle;
                None
            }
            Flow::Idle | Flow::Writing => Some((mem::take(&mut state.queue), state.stale.take())),
        }
    }

    fn write(&self, mut changes: Vec<Change>, stale: Option<Id>) -> Result<(), Failure> {
        if let Some(committed) = stale {
            // Last, so that what is known to be committed is in the log by then.
            changes.push(Change::Committed(record::write(Place::Committed, &committed)?));
        }
        loop {
            match self.store.group_write(&changes) {
                Ok(()) => {
                    if self.health.send_if_modified(|health| mem::replace(health, Health::Sound) != Health::Sound) {
                        info!("there is space again: the coordinator's log goes on");
                    }
                    return Ok(());
                }
                Err(StoreError::NoSpace { free, wanted }) => self.wait_for_space(free, wanted)?,
                Err(other) => return Err(other.into()),
            }
        }
    }

    fn wait_for_space(&self, free: u64, wanted: u64) -> Result<(), Failure> {
        let now = Health::NoSpace { free, wanted };
        if self.health.send_replace(now) == Health::Sound {
            warn!(free, wanted, "no space for the coordinator's log: nothing is accepted until there is");
        }
        let state = self.state();
        if state.flow == Flow::Ended {
            return Err(Failure::Closed);
        }
        let waited = self.closed.wait_timeout(state, SPACE_EVERY).unwrap_or_else(PoisonError::into_inner);
        if waited.0.flow == Flow::Ended { Err(Failure::Closed) } else { Ok(()) }
    }

    /// Notes that nothing can be written any more, and tells those who wait.
    fn end(&self, failure: &Failure) {
        let mut state = self.state();
        if state.flow != Flow::Ended {
            state.flow = Flow::Ended;
            state.failure = Some(failure.clone());
        }
        drop(state);
        if matches!(failure, Failure::Closed) {
            info!("the coordinator's log was closed while it waited for space");
        } else {
            error!(%failure, "the coordinator's log cannot be written any more: this member stops");
            self.health.send_replace(Health::Failed(failure.to_string()));
        }
    }
}
