//! Content by hash: a store on disk, and its transfer between nodes over any byte stream.
//!
//! A thin shell around iroh-blobs, the only module that names it. Blobs are addressed by BLAKE3; what comes from a peer
//! is verified in groups of 16 KiB before it is kept, what is read is verified before it is handed out. The module
//! knows no addresses and no policy: the caller brings streams ([`Dial`]) and says what a peer may read
//! ([`Blobs::serve`]).
//!
//! ```text
//!            add_bytes, add_file            fetch, fetch_many <- Dial <- peers
//!                     \                       /
//!                      v                     v
//!   quota (Ledger) -> [ FsStore: data/, blobs.db ] -> read, read_range, export, serve
//!                      ^                     |
//!        pin, pin_set -'                     '-> sweep: what is neither pinned nor young is deleted
//! ```
//!
//! Nothing here makes data public by itself, and nothing here deletes what is pinned.

mod collect;
mod fetch;
mod local;
mod pins;
mod repair;
mod serve;
mod transfer;
mod wire;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh_blobs::{
    api::{Store, blobs::BlobStatus},
    store::{GcConfig, fs::FsStore, fs::options},
};
use protocol::{Hash, NodeId};
use tokio::{sync::Semaphore, task::JoinSet};

use collect::{Account, Sweep, Young};
pub use fetch::{FetchError, Fetched};
pub use local::Import;
pub use serve::{ServeError, Served};
pub use wire::{Dial, DialError, Duplex};

/// How long the store waits for more work before it commits its own database. The default of half a second makes small
/// files slow; 20 ms groups as many as arrive together (measured: network-crates.md 3.5).
const COMMIT_AFTER: Duration = Duration::from_millis(20);

/// The error of a library, kept as a source.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// How a store behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of content that the store may hold.
    pub quota_bytes: u64,
    /// How often unpinned content is deleted. A full store sweeps at once.
    pub gc_interval: Duration,
    /// How long content that was just added or fetched is kept without a pin.
    pub grace: Duration,
    /// How long a peer may send or take nothing before its stream is given up.
    pub idle: Duration,
    /// Streams that one peer may have open to us at a time.
    pub streams_per_peer: usize,
}

impl Options {
    /// Gives the usual options for a quota in bytes.
    pub fn new(quota_bytes: u64) -> Self {
        Self {
            quota_bytes,
            gc_interval: Duration::from_secs(120),
            grace: Duration::from_secs(600),
            idle: Duration::from_secs(4),
            streams_per_peer: 64,
        }
    }
}

/// A failure of the local store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store could not be opened.
    #[error("cannot open the blob store {}: is another node using it?", dir.display())]
    Open {
        /// The store's directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The store failed at something.
    #[error("the blob store failed to {operation}")]
    Store {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The blob is not here, or not whole.
    #[error("blob {hash} is not in the store: fetch it first")]
    Missing {
        /// The blob.
        hash: Hash,
    },
    /// The bytes on disk are not those of the hash. The blob counts as missing from now on, so that a fetch replaces it.
    #[error("blob {hash} is damaged on disk: fetch it again, and check the disk")]
    Corrupt {
        /// The blob.
        hash: Hash,
    },
    /// The blob was replaced, and what is read is damaged nevertheless. It still counts as missing.
    #[error("blob {hash} was replaced but is still read as damaged: try again when nobody reads it, or check the disk")]
    StillDamaged {
        /// The blob.
        hash: Hash,
    },
    /// The blob is larger than the caller allows.
    #[error("blob {hash} has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The blob.
        hash: Hash,
        /// Its size in bytes.
        size: u64,
        /// The caller's limit in bytes.
        limit: u64,
    },
    /// The store is full of pinned content.
    #[error(
        "the blob store is full: {needed} bytes do not fit beside {used} of {quota}; raise the quota or unpin content"
    )]
    QuotaExceeded {
        /// Bytes that were to be added.
        needed: u64,
        /// Bytes in use, after a sweep.
        used: u64,
        /// The quota in bytes.
        quota: u64,
    },
    /// A file outside the store could not be read or written.
    #[error("cannot use the file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A range ends before it begins or after the blob's end.
    #[error("range {start}..{end} is not within the {size} bytes of blob {hash}")]
    Range {
        /// The blob.
        hash: Hash,
        /// First byte.
        start: u64,
        /// One after the last byte.
        end: u64,
        /// The blob's size in bytes.
        size: u64,
    },
}

/// The node's blobs. Clones share the store.
#[derive(Debug, Clone)]
pub struct Blobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    options: Options,
    dir: PathBuf,
    account: Arc<Account>,
    sweep: Arc<Sweep>,
    young: Arc<Young>,
    damaged: Mutex<BTreeSet<Hash>>,
    verifying: Semaphore,
    streams: Mutex<BTreeMap<NodeId, usize>>,
    turns: Mutex<BTreeMap<NodeId, Arc<Semaphore>>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Blobs {
    /// Opens the store in `dir`, which is created when it is not there.
    ///
    /// # Errors
    ///
    /// [`Error::Open`], for example when another process holds it.
    pub async fn open(dir: &Path, options: Options) -> Result<Self, Error> {
        let open = |source: Cause| Error::Open { dir: dir.to_owned(), source };
        let dir = std::path::absolute(dir).map_err(|error| open(error.into()))?;
        for part in ["data", "temp", "repair"] {
            fs::create_dir_all(dir.join(part)).map_err(|error| open(error.into()))?;
        }
        let sweep = Arc::new(Sweep::new());
        let mut settings = options::Options::new(&dir);
        settings.batch.max_write_duration = COMMIT_AFTER;
        settings.gc = Some(GcConfig {
            // The pause between two sweeps is in the callback, where it can be cut short.
            interval: Duration::from_millis(1),
            add_protected: Some(sweep.schedule(options.gc_interval)),
        });
        let store = FsStore::load_with_opts(dir.join("blobs.db"), settings).await;
        let store: Store = store.map_err(|error| open(error.to_string().into()))?.into();
        // The store is ours alone now, so what lies there was left by an import that failed or a process that died.
        for part in ["temp", "repair"] {
            clear(&dir.join(part)).map_err(|error| open(error.into()))?;
        }
        let account = Arc::new(Account::new(options.quota_bytes));
        account.measure(&store).await?;
        let mut tasks = JoinSet::new();
        let young = Arc::new(Young::new(options.grace));
        tasks.spawn(collect::after_each_sweep(store.clone(), account.clone(), young.clone(), sweep.clone()));
        let inner = Inner {
            store,
            young,
            options,
            dir,
            account,
            sweep,
            damaged: Mutex::default(),
            verifying: Semaphore::new(1),
            streams: Mutex::default(),
            turns: Mutex::default(),
            tasks: Mutex::new(tasks),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Writes everything to disk and closes the store. All clones fail afterwards.
    pub async fn shutdown(&self) {
        let mut tasks = std::mem::take(&mut *locked(&self.inner.tasks));
        tasks.shutdown().await;
        self.inner.young.clear();
        if let Err(error) = self.inner.store.shutdown().await {
            tracing::warn!(%error, "blob store was already closed");
        }
    }

    /// Gives the bytes of content in the store, as counted against the quota.
    pub fn usage(&self) -> u64 {
        self.inner.account.used()
    }

    /// Gives a blob's size in bytes if it is whole and not known to be damaged.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn size(&self, hash: &Hash) -> Result<Option<u64>, Error> {
        if self.is_damaged(hash) {
            return Ok(None);
        }
        let status = self.inner.store.blobs().status(to_iroh(hash)).await.map_err(failed("look up a blob"))?;
        Ok(match status {
            BlobStatus::Complete { size } => Some(size),
            BlobStatus::NotFound | BlobStatus::Partial { .. } => None,
        })
    }
}

fn clear(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

fn to_iroh(hash: &Hash) -> iroh_blobs::Hash {
    iroh_blobs::Hash::from_bytes(*hash.as_bytes())
}

fn from_iroh(hash: iroh_blobs::Hash) -> Hash {
    Hash::from_bytes(*hash.as_bytes())
}

/// Gives the library's many error types the words of ours.
fn failed<E: Into<Cause>>(operation: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::Store { operation, source: source.into() }
}

/// Locks a mutex whose data stays usable when a thread panicked: each holds whole values only.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
