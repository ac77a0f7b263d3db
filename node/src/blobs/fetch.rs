//! Fetching by hash: orders in a queue, several providers at once, resumed from what is on disk.
//!
//! ```text
//!   queue of orders --> a free provider --> perform --> done
//!        ^                                     |
//!        |<-- the rest of the order -----------+--> the provider lacks it: another one gets this order
//!                                              '--> the provider failed or lied: it gets nothing more
//! ```
//!
//! Large blobs are cut into ranges of 16 MiB; small ones travel many in one answer. A provider is believed nothing: the
//! size it claims is checked before, every piece while it comes.

mod crew;

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt, TryStreamExt};
use iroh_blobs::{
    HashAndFormat,
    api::{Store, blobs::Bitfield},
    protocol::{ChunkRanges, ChunkRangesExt},
};
use protocol::{Hash, NodeId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Blobs, Dial, Error, failed, locked, to_iroh, transfer::Order};
pub(super) use crew::Crew;

/// Bytes of one range of a large blob.
const RANGE: u64 = 16 * 1024 * 1024;
/// Blobs in one answer. Each is committed before the next one, so several short answers side by side are faster than one.
const MANY_BLOBS_MAX: usize = 128;
/// Streams that all fetches together open to one provider: half of what its network lets in, which hears of an end later.
const STREAMS_PER_PROVIDER_MAX: usize = 8;
/// Look-ups of blobs at once.
const LOOK_UPS: usize = 64;

/// A fetch that did not bring everything. What was verified stays on disk for the next try.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody was named to fetch from.
    #[error("no provider is known for blob {hash}")]
    NoProvider {
        /// The blob.
        hash: Hash,
    },
    /// The blob is larger than the caller allows. Nothing of it was stored.
    #[error("blob {hash} has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The blob.
        hash: Hash,
        /// Its size in bytes, as the provider says.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Every provider failed.
    #[error("no provider gave blob {hash}: {}", reasons(.faults))]
    Failed {
        /// The blob that is missing (the first, of many).
        hash: Hash,
        /// What each provider did.
        faults: BTreeMap<NodeId, String>,
    },
    /// The store refused or failed.
    #[error("cannot store what was fetched")]
    Local(#[source] Error),
}

fn reasons(faults: &BTreeMap<NodeId, String>) -> String {
    let each: Vec<String> = faults.iter().map(|(node, fault)| format!("{}: {fault}", node.short())).collect();
    each.join("; ")
}

/// What a fetch brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Verified bytes that came over the network.
    pub bytes: u64,
    /// The same, per provider.
    pub from: BTreeMap<NodeId, u64>,
}

impl Fetched {
    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        for (node, bytes) in other.from {
            *self.from.entry(node).or_default() += bytes;
        }
    }
}

impl Blobs {
    /// Brings a blob of at most `limit` bytes into the store, from several providers at once when it is large.
    ///
    /// What is on disk is not fetched again. The future may be dropped; what was verified stays.
    ///
    /// # Errors
    ///
    /// [`FetchError`].
    pub async fn fetch(
        &self,
        dial: &impl Dial,
        hash: &Hash,
        from: &[NodeId],
        limit: u64,
    ) -> Result<Fetched, FetchError> {
        let tag = self.inner.store.tags().temp_tag(HashAndFormat::raw(to_iroh(hash))).await;
        let tag = tag.map_err(failed("protect a blob")).map_err(FetchError::Local)?;
        self.inner.sweep.settled().await;
        if let Some(size) = self.size(hash).await.map_err(FetchError::Local)? {
            self.inner.young.keep(tag);
            check_limit(hash, size, limit)?;
            return Ok(Fetched::default());
        }
        if from.is_empty() {
            return Err(FetchError::NoProvider { hash: *hash });
        }
        let fetched = if self.is_damaged(hash) {
            self.repair(dial, hash, from, limit).await
        } else {
            self.fetch_parts(dial, hash, from, limit).await
        };
        // Even after a failure: what came is kept for the next try.
        self.inner.young.keep(tag);
        fetched
    }

    /// Brings many blobs of known sizes into the store: small ones many to an answer, large ones by ranges.
    ///
    /// # Errors
    ///
    /// [`FetchError`].
    pub async fn fetch_many(
        &self,
        dial: &impl Dial,
        blobs: &[(Hash, u64)],
        from: &[NodeId],
    ) -> Result<Fetched, FetchError> {
        let hashes: Vec<Hash> = blobs.iter().map(|(hash, _)| *hash).collect();
        let tag = self.sequence(&hashes).await.map_err(FetchError::Local)?;
        self.inner.sweep.settled().await;
        let fetched = self.fetch_missing(dial, blobs, from).await;
        self.inner.young.keep(tag);
        fetched
    }

    async fn fetch_missing(
        &self,
        dial: &impl Dial,
        blobs: &[(Hash, u64)],
        from: &[NodeId],
    ) -> Result<Fetched, FetchError> {
        let missing = self.missing(blobs).await.map_err(FetchError::Local)?;
        let (damaged, missing): (Vec<_>, Vec<_>) = missing.into_iter().partition(|(hash, _)| self.is_damaged(hash));
        let (small, large): (Vec<_>, Vec<_>) = missing.into_iter().partition(|(_, size)| *size <= RANGE);
        let mut fetched = Fetched::default();
        if let Some((first, _)) = small.first() {
            if from.is_empty() {
                return Err(FetchError::NoProvider { hash: *first });
            }
            let total = small.iter().map(|(_, size)| size).sum();
            let promise = self.inner.account.promise(total, &self.inner.sweep).await.map_err(FetchError::Local)?;
            fetched.add(Crew::new(self, dial, from).run(pack(small)).await?);
            promise.used(total);
        }
        for (hash, size) in large.into_iter().chain(damaged) {
            fetched.add(self.fetch(dial, &hash, from, size).await?);
        }
        Ok(fetched)
    }

    /// Waits until a provider may be sent another request.
    async fn turn(&self, node: NodeId) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut all = locked(&self.inner.turns);
            all.retain(|_, turns| Arc::strong_count(turns) > 1);
            all.entry(node).or_insert_with(|| Arc::new(Semaphore::new(STREAMS_PER_PROVIDER_MAX))).clone()
        };
        turns.acquire_owned().await.ok()
    }

    /// Gives those blobs that are not here whole, each once. It looks for many at one time.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn absent(&self, hashes: &[Hash]) -> Result<Vec<Hash>, Error> {
        let blobs: Vec<(Hash, u64)> = hashes.iter().map(|hash| (*hash, 0)).collect();
        Ok(self.missing(&blobs).await?.into_iter().map(|(hash, _)| hash).collect())
    }

    /// Gives those blobs that are not whole, each once.
    async fn missing(&self, blobs: &[(Hash, u64)]) -> Result<Vec<(Hash, u64)>, Error> {
        let wanted: BTreeMap<Hash, u64> = blobs.iter().copied().collect();
        let look_ups = futures::stream::iter(wanted)
            .map(
                |(hash, size)| async move { Ok::<_, Error>(self.size(&hash).await?.is_none().then_some((hash, size))) },
            )
            .buffered(LOOK_UPS);
        look_ups.try_filter_map(|missing| std::future::ready(Ok(missing))).try_collect().await
    }

    async fn fetch_parts(
        &self,
        dial: &impl Dial,
        hash: &Hash,
        from: &[NodeId],
        limit: u64,
    ) -> Result<Fetched, FetchError> {
        let mut crew = Crew::new(self, dial, from);
        let mut fetched = Fetched::default();
        let mut present = present(&self.inner.store, hash).await.map_err(FetchError::Local)?;
        let account = &self.inner.account;
        if present.validated_size().is_none() {
            // The first order brings the first range, and with the last chunk the proof of the size.
            let first = account.promise(RANGE.min(limit), &self.inner.sweep).await.map_err(FetchError::Local)?;
            let parts = &(ChunkRanges::bytes(0..RANGE) - &present.ranges) | &ChunkRanges::last_chunk();
            fetched.add(crew.run(vec![Order::Parts { hash: *hash, parts, limit }]).await?);
            present = self::present(&self.inner.store, hash).await.map_err(FetchError::Local)?;
            if present.is_complete() {
                first.used(present.size());
                return Ok(fetched);
            }
            drop(first);
        }
        let size = present.size();
        check_limit(hash, size, limit)?;
        let promise = account.promise(size, &self.inner.sweep).await.map_err(FetchError::Local)?;
        fetched.add(crew.run(cut(hash, &present.ranges, size)).await?);
        match self.size(hash).await.map_err(FetchError::Local)? {
            Some(size) => promise.used(size),
            None => return Err(FetchError::Local(Error::Missing { hash: *hash })),
        }
        Ok(fetched)
    }
}

fn check_limit(hash: &Hash, size: u64, limit: u64) -> Result<(), FetchError> {
    if size <= limit { Ok(()) } else { Err(FetchError::TooLarge { hash: *hash, size, limit }) }
}

/// What of a blob is on disk.
async fn present(store: &Store, hash: &Hash) -> Result<Bitfield, Error> {
    store.observe(to_iroh(hash)).await.map_err(failed("look at a blob"))
}

/// Cuts what is missing of a blob into orders of one range each.
fn cut(hash: &Hash, present: &ChunkRanges, size: u64) -> Vec<Order> {
    let starts = (0..size.div_ceil(RANGE)).map(|index| index * RANGE);
    let windows = starts.map(|start| &ChunkRanges::bytes(start..size.min(start + RANGE)) - present);
    let missing = windows.filter(|parts| !parts.is_empty());
    missing.map(|parts| Order::Parts { hash: *hash, parts, limit: size }).collect()
}

/// Packs small blobs into orders that are bounded in number and in bytes.
fn pack(blobs: Vec<(Hash, u64)>) -> Vec<Order> {
    let mut orders = Vec::new();
    let mut current: Vec<(Hash, u64)> = Vec::new();
    let mut bytes = 0;
    for (hash, size) in blobs {
        if !current.is_empty() && (current.len() >= MANY_BLOBS_MAX || bytes + size > RANGE) {
            orders.push(Order::Many { blobs: std::mem::take(&mut current) });
            bytes = 0;
        }
        bytes += size;
        current.push((hash, size));
    }
    if !current.is_empty() {
        orders.push(Order::Many { blobs: current });
    }
    orders
}
