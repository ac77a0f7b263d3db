//! What the store holds and when it lets go: the account against the quota, the schedule of sweeps, and the young
//! content that is kept for a while without a pin.
//!
//! The library sweeps by itself and offers no call for it. The callback that it makes before each sweep is where the
//! schedule is held: it returns when the interval is over or when somebody asked.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt};
use iroh_blobs::{
    api::{Store, TempTag, blobs::BlobStatus},
    store::{ProtectCb, ProtectOutcome},
};
use tokio::sync::{Notify, watch};

use super::{Error, failed, locked};

/// Look-ups at once while the store is measured.
const LOOK_UPS: usize = 64;
/// How long anybody waits for a sweep; one takes milliseconds, so more means that sweeping has died.
const SWEEP_TIME_MAX: Duration = Duration::from_secs(30);

/// Sweeps begun and ended since the store was opened. They differ by one while a sweep runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    begun: u64,
    ended: u64,
    measured: u64,
}

/// The schedule of sweeps.
#[derive(Debug)]
pub(super) struct Sweep {
    asked: Notify,
    progress: watch::Sender<Progress>,
}

impl Sweep {
    pub(super) fn new() -> Self {
        Self { asked: Notify::new(), progress: watch::Sender::new(Progress::default()) }
    }

    /// Gives the callback that the library makes before each sweep.
    pub(super) fn schedule(self: &Arc<Self>, interval: Duration) -> ProtectCb {
        let sweep = self.clone();
        Arc::new(move |_protected| {
            let sweep = sweep.clone();
            Box::pin(async move {
                sweep.progress.send_modify(|progress| progress.ended = progress.begun);
                // Asked or not, it is time: the outcome of the wait does not matter.
                let _ = tokio::time::timeout(interval, sweep.asked.notified()).await;
                sweep.progress.send_modify(|progress| progress.begun += 1);
                ProtectOutcome::Continue
            })
        })
    }

    /// Waits until no sweep runs, so that what is protected now is seen by the next one.
    pub(super) async fn settled(&self) {
        self.wait(|progress| progress.ended == progress.begun).await;
    }

    /// Sweeps now and waits until the store has been measured again.
    pub(super) async fn now(&self) {
        self.settled().await;
        let before = self.progress.borrow().begun;
        self.asked.notify_one();
        self.wait(|progress| progress.measured > before).await;
    }

    async fn wait(&self, reached: impl Fn(&Progress) -> bool) {
        let mut progress = self.progress.subscribe();
        let waited = tokio::time::timeout(SWEEP_TIME_MAX, progress.wait_for(|now| reached(now))).await;
        if waited.is_err() {
            tracing::warn!("sweep of the blob store does not end");
        }
    }
}

/// Measures the store after each sweep and lets go of what is not young any more. Ends with the store.
pub(super) async fn after_each_sweep(store: Store, account: Arc<Account>, young: Arc<Young>, sweep: Arc<Sweep>) {
    let mut progress = sweep.progress.subscribe();
    loop {
        let next = progress.wait_for(|now| now.ended > now.measured).await.map(|now| now.ended);
        let Ok(ended) = next else { return };
        young.prune();
        if let Err(error) = account.measure(&store).await {
            tracing::debug!(%error, "blob store is not measured any more");
            return;
        }
        sweep.progress.send_modify(|progress| progress.measured = ended);
    }
}

/// Bytes in the store and bytes promised to adds and fetches under way.
#[derive(Debug)]
pub(super) struct Account {
    quota: u64,
    held: AtomicU64,
    promised: AtomicU64,
}

impl Account {
    pub(super) fn new(quota: u64) -> Self {
        Self { quota, held: AtomicU64::new(0), promised: AtomicU64::new(0) }
    }

    pub(super) fn used(&self) -> u64 {
        self.held.load(Ordering::Relaxed).saturating_add(self.promised.load(Ordering::Relaxed))
    }

    /// Counts the content of the store anew.
    pub(super) async fn measure(&self, store: &Store) -> Result<(), Error> {
        let hashes = store.blobs().list().hashes().await.map_err(failed("list the blobs"))?;
        let sizes = futures::stream::iter(hashes).map(|hash| store.blobs().status(hash)).buffer_unordered(LOOK_UPS);
        let add = |sum: u64, status| async move {
            Ok(sum.saturating_add(match status {
                BlobStatus::NotFound => 0,
                BlobStatus::Partial { size } => size.unwrap_or(0),
                BlobStatus::Complete { size } => size,
            }))
        };
        let held = sizes.try_fold(0, add).await.map_err(failed("look up a blob"))?;
        self.held.store(held, Ordering::Relaxed);
        Ok(())
    }

    /// Promises room for `bytes`, sweeping once when the store is full.
    pub(super) async fn promise(self: &Arc<Self>, bytes: u64, sweep: &Sweep) -> Result<Promise, Error> {
        if let Some(promise) = self.try_promise(bytes) {
            return Ok(promise);
        }
        sweep.now().await;
        let full = || Error::QuotaExceeded { needed: bytes, used: self.used(), quota: self.quota };
        self.try_promise(bytes).ok_or_else(full)
    }

    fn try_promise(self: &Arc<Self>, bytes: u64) -> Option<Promise> {
        let before = self.promised.fetch_add(bytes, Ordering::Relaxed);
        let promise = Promise { account: self.clone(), bytes };
        let used = self.held.load(Ordering::Relaxed).saturating_add(before).saturating_add(bytes);
        (used <= self.quota).then_some(promise)
    }
}

/// Room in the store; given back when dropped, unless it was used.
#[derive(Debug)]
pub(super) struct Promise {
    account: Arc<Account>,
    bytes: u64,
}

impl Promise {
    /// Says that content of this size is now in the store.
    pub(super) fn used(self, bytes: u64) {
        self.account.held.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.account.promised.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Content that was just added or fetched, so that its owner has time to pin it.
#[derive(Debug)]
pub(super) struct Young {
    grace: Duration,
    tags: Mutex<VecDeque<(Instant, TempTag)>>,
}

impl Young {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, tags: Mutex::default() }
    }

    /// Keeps what the tag protects for the time of grace.
    pub(super) fn keep(&self, tag: TempTag) {
        let now = Instant::now();
        let mut tags = locked(&self.tags);
        while tags.front().is_some_and(|(since, _)| now.duration_since(*since) > self.grace) {
            tags.pop_front();
        }
        if !self.grace.is_zero() {
            tags.push_back((now, tag));
        }
    }

    /// Lets go of what is not young any more.
    pub(super) fn prune(&self) {
        let now = Instant::now();
        locked(&self.tags).retain(|(since, _)| now.duration_since(*since) <= self.grace);
    }

    pub(super) fn clear(&self) {
        locked(&self.tags).clear();
    }
}
