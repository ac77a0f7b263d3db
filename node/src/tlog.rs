//! The transparency log of this node: the book that a coordinator keeps, and how any node serves it.
//!
//! ```text
//!  batch --applied--> entries --Book::append--> queue --run--> store (entries, hashes)     every candidate
//!  snapshot of another member --Book::restore--> gap --Reader--> the other candidates' tiles, proven by the ledger's head
//!                                                                   |
//!  checkpoint, tiles, bundles <--Book::read-- store                 '--Relay-- a node that is no candidate
//! ```
//! What is logged is a function of the group's committed batches, so the book decides nothing: after a crash the same entries
//! come again, and one that is kept already must be the same. It promises one thing: [`Book::settle`] returns only once the
//! entries of a snapshot are written, since the batches that they came from are dropped then.

mod pages;
mod proofs;
mod reader;
mod relay;
mod remote;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use attest::log::{
    checkpoint::Signed,
    note::KeyName,
    tile::Resource,
    tree::{self, Edge, Head},
};
use ed25519_dalek::SigningKey;
use ledger::Effect;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

pub use pages::PageError;
pub use proofs::Subject;
pub use reader::{FetchError, ReadError, Reader, Source};
pub use relay::{Missing, Relay, VIEW, question, served};
pub use remote::Remote;

use crate::{
    daemon::chain,
    store::{self, Growth, Store},
};

/// Entries that share one transaction.
const BATCH: usize = 4096;
/// Entries that wait while those before them are fetched; beyond it they are fetched, too.
const WAITING_MAX: usize = 16 * 1024;
/// How long after a failed try a gap is filled again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often space on the disk is looked for.
const ROOM_EVERY: Duration = Duration::from_secs(1);
/// Only these heights of the tree are kept: what tiles hold.
const HEIGHT: u8 = 8;

/// Why the book cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error("the transparency log cannot be read or written")]
    Store(#[from] store::Error),
    /// Something is missing that was written.
    #[error(transparent)]
    Page(#[from] PageError),
    /// An entry is kept that the group did not decide.
    #[error(
        "entry {index} of the transparency log is kept here with other bytes than the coordinators decided: this node signs no more; \
         keep its database as evidence and let the others replace this member"
    )]
    Contradiction {
        /// Its place.
        index: u64,
    },
    /// The kept log is not the one of a snapshot.
    #[error(
        "the transparency log kept here has another root at {size} entries than the coordinators' snapshot: this node signs no \
         more; keep its database as evidence and let the others replace this member"
    )]
    Fork {
        /// The size at which they differ.
        size: u64,
    },
}

/// An entry with its place.
pub type Placed = (u64, Vec<u8>);

/// What signs checkpoints: a candidate, under the log's name.
pub struct Signer {
    /// The log's origin.
    pub origin: KeyName,
    /// The node's key.
    pub key: SigningKey,
}

/// What the writer does next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Nothing until something comes.
    Rest,
    /// Write these; they follow the written ones, or are written already.
    Write(Vec<Placed>),
    /// Fetch the entries from here up to, but not including, `to`; a head that contains them proves them.
    Fetch { from: u64, to: u64, head: Head },
}

/// Whether the writer works.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Life {
    Open,
    Closed,
}

struct State {
    /// What is written.
    edge: Edge,
    /// What the ledger says; while it catches up after a restart, it may be behind what is written.
    ledger: Head,
    /// What is to be written, by place; after a gap further ones.
    queue: VecDeque<Placed>,
    /// Where what the writer has taken out of the queue ends, while it writes that; 0 otherwise. A writer that is dropped leaves it:
    /// a book has one in its life.
    begun: u64,
    life: Life,
}

impl State {
    fn size(&self) -> u64 {
        self.edge.head().size
    }

    /// Where the missing entries end, if some are missing that will not come by themselves.
    fn gap(&self) -> Option<u64> {
        let next = self.queue.front().map_or(self.ledger.size, |(index, _)| *index);
        (next > self.size().max(self.begun)).then_some(next)
    }

    fn step(&mut self) -> Step {
        if let Some(to) = self.gap() {
            return Step::Fetch { from: self.size(), to, head: self.ledger };
        }
        let mut batch: Vec<Placed> = Vec::new();
        while let Some((index, _)) = self.queue.front()
            && batch.last().is_none_or(|(last, _)| last + 1 == *index)
            && batch.len() < BATCH
        {
            batch.extend(self.queue.pop_front());
        }
        let Some((last, _)) = batch.last() else { return Step::Rest };
        self.begun = last + 1;
        Step::Write(batch)
    }
}

/// Takes an entry of the log out of its effect.
pub fn placed(effect: Effect) -> Option<Placed> {
    if let Effect::Append { index, entry } = effect { Some((index, entry)) } else { None }
}

/// Writes entries into the store of a node that runs no candidate yet. Blocks.
///
/// # Errors
/// [`Error`].
pub fn keep(store: &Store, entries: &[Placed]) -> Result<(), Error> {
    let mut edge = store.log_look(pages::edge)?;
    entries.chunks(BATCH).try_for_each(|batch| write(store, &mut edge, batch))
}

/// Gives a tile or entries that a node kept which runs no candidate any more; none where it has not so many.
///
/// # Errors
/// [`Error`].
pub async fn serve_kept(store: Store, resource: Resource) -> Result<Option<Vec<u8>>, Error> {
    tokio::task::spawn_blocking(move || kept(&store, resource)).await.map_err(|_| store::Error::Stopped)?
}

fn kept(store: &Store, resource: Resource) -> Result<Option<Vec<u8>>, Error> {
    if resource == Resource::Checkpoint || !resource.is_within(store.log_look(pages::edge)?.head().size) {
        return Ok(None);
    }
    store.log_look(|pages| pages::bytes(pages, resource)).map(Some)
}

/// Writes entries of which the first is at most the next one; what is kept already must be the same.
fn write(store: &Store, edge: &mut Edge, batch: &[Placed]) -> Result<(), Error> {
    let size = edge.head().size;
    let (again, new) = batch.split_at(batch.partition_point(|(index, _)| *index < size));
    store.log_look(|pages| {
        let same = |(index, bytes): &Placed| {
            let kept = pages.entry(*index)?;
            if kept.as_ref() == Some(bytes) { Ok(()) } else { Err(Error::Contradiction { index: *index }) }
        };
        again.iter().try_for_each(same)
    })?;
    let mut growth = Growth::default();
    for (index, bytes) in new {
        let completed = edge.append(tree::leaf(bytes)).into_iter();
        let kept = completed.filter(|(subtree, _)| subtree.height.is_multiple_of(HEIGHT));
        growth.hashes.extend(kept.map(|(subtree, hash)| ((subtree.height, subtree.index), *hash.as_bytes())));
        growth.marks.extend(Subject::of(bytes).map(|subject| (subject.mark(), *index)));
        growth.entries.push((*index, bytes.clone()));
    }
    if growth.is_empty() { Ok(()) } else { Ok(store.log_grow(&growth)?) }
}

/// The log as a candidate keeps it.
pub struct Book {
    store: Store,
    signer: Signer,
    state: Mutex<State>,
    /// Tells those who wait in [`Book::settle`].
    grown: Condvar,
    /// Tells the writer.
    work: Notify,
    /// What is written, for those who follow it.
    heads: watch::Sender<Head>,
    /// The newest checkpoint, signed once.
    signed: Mutex<Option<Signed>>,
    /// Whether nothing is signed for now, see [`Book::hold`].
    held: watch::Sender<bool>,
}

impl Book {
    /// Takes up the log that the store has. Blocks.
    ///
    /// # Errors
    /// [`Error`], when what is kept is not whole.
    pub fn open(store: &Store, signer: Signer) -> Result<Arc<Self>, Error> {
        let edge = store.log_look(pages::edge)?;
        let head = edge.head();
        debug!(size = head.size, root = %head.root, "the transparency log is opened");
        let state = State { edge, ledger: Head::empty(), queue: VecDeque::new(), begun: 0, life: Life::Open };
        Ok(Arc::new(Self {
            store: store.clone(),
            signer,
            state: Mutex::new(state),
            grown: Condvar::new(),
            work: Notify::new(),
            heads: watch::Sender::new(head),
            signed: Mutex::new(None),
            held: watch::Sender::new(false),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs nothing until [`Book::go_on`]: what was written last before a crash comes again out of the group's log, and was signed for.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Ends [`Book::hold`] when all that the ledger knows now is written.
    pub async fn go_on(&self) {
        let size = self.state().ledger.size;
        let mut heads = self.heads.subscribe();
        // The sender is this book's own.
        drop(heads.wait_for(|head| head.size >= size).await);
        self.held.send_replace(false);
    }

    /// Takes what a batch logged, in order, and the ledger's head after it. It is written soon.
    pub fn append(&self, entries: Vec<Placed>, ledger: Head) {
        let mut state = self.state();
        state.ledger = ledger;
        state.queue.extend(entries);
        if state.queue.len() > WAITING_MAX && state.gap().is_some() {
            // They are in the other candidates' books as well.
            state.queue.clear();
        }
        drop(state);
        self.work.notify_one();
    }

    /// Takes the head of a ledger that came as a snapshot: what was logged up to it does not come as batches any more.
    ///
    /// # Errors
    /// [`Error::Fork`] when the kept log is another one.
    pub fn restore(&self, ledger: Head) -> Result<(), Error> {
        let mut state = self.state();
        if state.size() >= ledger.size && self.store.log_look(|pages| pages::head(pages, ledger.size))? != ledger {
            return Err(Error::Fork { size: ledger.size });
        }
        state.ledger = ledger;
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Waits until the first `size` entries are written. Blocks the thread.
    ///
    /// # Errors
    /// In words, when the book is closed before.
    pub fn settle(&self, size: u64) -> Result<(), String> {
        let mut state = self.state();
        while state.size() < size {
            if state.life == Life::Closed {
                return Err("the transparency log is closed".into());
            }
            state = self.grown.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Ends the waiting in [`Book::settle`]. What is queued comes again after a restart.
    pub fn close(&self) {
        self.state().life = Life::Closed;
        self.grown.notify_all();
    }

    /// Tells size and root of what is written.
    pub fn heads(&self) -> watch::Receiver<Head> {
        self.heads.subscribe()
    }

    /// Writes until stopped, and fetches what is missing.
    ///
    /// # Errors
    /// [`Error`] when the log cannot be kept any more, which ends this candidate.
    pub async fn run<S: Source>(self: Arc<Self>, source: S, stop: CancellationToken) -> Result<(), Error> {
        let result = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            result = self.keep(&source) => result,
        };
        self.close();
        if let Err(error) = &result {
            error!(error = %chain(error), "the transparency log is not kept any more");
        }
        result
    }

    async fn keep<S: Source>(self: &Arc<Self>, source: &S) -> Result<(), Error> {
        loop {
            // The guard must not live on in the arms.
            let step = self.state().step();
            match step {
                Step::Rest => self.work.notified().await,
                Step::Write(batch) => {
                    let written = self.write_soon(batch).await;
                    self.state().begun = 0;
                    written?;
                }
                Step::Fetch { from, to, head } => {
                    info!(from, to, "entries of the transparency log are missing here and are fetched");
                    if let Err(why) = self.fill(source, (from, to), head).await? {
                        warn!(from, to, %why, "the missing entries cannot be fetched yet");
                        source.turn();
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        }
    }

    /// Writes a batch as soon as there is space for it.
    async fn write_soon(self: &Arc<Self>, batch: Vec<Placed>) -> Result<(), Error> {
        let batch = Arc::new(batch);
        loop {
            let (book, entries) = (Arc::clone(self), Arc::clone(&batch));
            let written = tokio::task::spawn_blocking(move || book.write(&entries)).await;
            match written.map_err(|_| store::Error::Stopped)? {
                Err(Error::Store(error @ store::Error::NoSpace { .. })) => {
                    warn!(%error, "the transparency log waits for space");
                    tokio::time::sleep(ROOM_EVERY).await;
                }
                other => return other,
            }
        }
    }

    /// Writes entries of which the first is at most the next one. Only one thread does so at a time. Blocks.
    fn write(&self, batch: &[Placed]) -> Result<(), Error> {
        let mut edge = self.state().edge.clone();
        write(&self.store, &mut edge, batch)?;
        let head = edge.head();
        self.state().edge = edge;
        self.grown.notify_all();
        self.heads.send_replace(head);
        Ok(())
    }

    /// Fetches entries that will not come by themselves. The inner error is of the others, and may pass.
    async fn fill<S: Source>(
        self: &Arc<Self>,
        source: &S,
        (from, to): (u64, u64),
        head: Head,
    ) -> Result<Result<(), ReadError>, Error> {
        let mut reader = Reader::new(source, head);
        let mut next = from;
        while next < to {
            let (first, entries) = match reader.bundle_with(next).await {
                Ok(bundle) => bundle,
                Err(error) => return Ok(Err(error)),
            };
            let placed = (first..).zip(entries).filter(|(index, _)| (from..to).contains(index));
            let batch: Vec<Placed> = placed.filter(|(index, _)| *index >= next).collect();
            next += batch.len() as u64;
            self.write_soon(batch).await?;
        }
        Ok(Ok(()))
    }

    /// Gives what the log serves under a path; none while it has no such thing. Blocks.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read(&self, resource: Resource) -> Result<Option<Vec<u8>>, Error> {
        if resource == Resource::Checkpoint {
            return Ok(self.checkpoint().map(|signed| signed.to_string().into_bytes()));
        }
        let size = self.heads.borrow().size;
        if !resource.is_within(size) {
            return Ok(None);
        }
        self.store.log_look(|pages| pages::bytes(pages, resource)).map(Some)
    }

    /// [`Book::read`] on a thread that may wait.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn serve(self: &Arc<Self>, resource: Resource) -> Result<Option<Vec<u8>>, Error> {
        let book = Arc::clone(self);
        tokio::task::spawn_blocking(move || book.read(resource)).await.map_err(|_| store::Error::Stopped)?
    }

    /// Signs what is written, once for each head. None before there is anything, while entries are missing here, since others
    /// know more then, and while it is held.
    pub fn checkpoint(&self) -> Option<Signed> {
        let head = {
            let state = self.state();
            let is_whole = state.gap().is_none() && !*self.held.borrow();
            Some(state.edge.head()).filter(|head| head.size > 0 && is_whole)
        }?;
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if signed.as_ref().is_none_or(|signed| signed.claims().head() != head) {
            *signed = Some(Signed::sign(&self.signer.origin, head, &self.signer.key));
        }
        signed.clone()
    }
}
