//! Damage and its repair: a blob whose bytes on disk are not those of its hash counts as missing until it was brought
//! again and the new bytes are what every reader gets.
//!
//! The store opens a blob once for all who use it at a time, and it closes it when nobody does. Taking in a blob counts
//! as using it: the one in place is opened, and it stays the open one although the new one has taken its place on disk.
//! So the end of an import is not the end of a repair. Only a verified reading is: what it got can only come from the
//! new bytes, and the old ones are open to nobody then.
//!
//! ```text
//!   damaged --> import (by a fetch or an addition) --> verify --> sound
//!                                                       ^  |
//!                                     pause, others read '--' the old bytes are still open
//! ```
//!
//! What is not known to be damaged is not verified here.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bao_tree::io::EncodeError;
use futures::StreamExt;
use iroh_blobs::{api::blobs::EncodedItem, protocol::ChunkRanges};
use protocol::{Hash, NodeId};

use super::{
    Blobs, Dial, Error, FetchError, Fetched, Import, failed,
    fetch::Crew,
    local::{hash_file, is_damage},
    locked, to_iroh,
    transfer::Order,
};

/// The pauses between two readings of a repaired blob: short at first, because mostly only the import itself used it.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// All pauses together, in idle times of a stream (`Options::idle`): twice as long as a peer that takes nothing may hold
/// a blob open.
const PAUSES_IDLE_TIMES: u32 = 8;

/// Gives each repair a file of its own, since two may be of one blob.
static NEXT_FILE: AtomicU64 = AtomicU64::new(0);

impl Blobs {
    /// Whether the blob is known to be damaged.
    pub(super) fn is_damaged(&self, hash: &Hash) -> bool {
        locked(&self.inner.damaged).contains(hash)
    }

    /// Lets the blob count as missing.
    pub(super) fn set_damaged(&self, hash: &Hash) -> Error {
        tracing::error!(%hash, "blob is damaged on disk");
        locked(&self.inner.damaged).insert(*hash);
        Error::Corrupt { hash: *hash }
    }

    /// Ends the damage of a blob that was just imported, as soon as its new bytes are what readers get.
    ///
    /// # Errors
    ///
    /// [`Error::StillDamaged`] when they are not in time.
    pub(super) async fn set_sound(&self, hash: &Hash) -> Result<(), Error> {
        if !self.is_damaged(hash) {
            return Ok(());
        }
        // One at a time: two who verify one blob could keep the old bytes open for each other.
        let _turn = self.inner.verifying.acquire().await.map_err(failed("verify a repaired blob"))?;
        let (mut pause, mut left) = (PAUSE_MIN, self.inner.options.idle * PAUSES_IDLE_TIMES);
        while self.is_damaged(hash) {
            match self.verify(hash).await {
                Ok(()) => {
                    locked(&self.inner.damaged).remove(hash);
                }
                Err(error) if !is_damage(&error) => return Err(failed("verify a repaired blob")(error)),
                Err(_) if left.is_zero() => return Err(Error::StillDamaged { hash: *hash }),
                Err(error) => {
                    tracing::debug!(%hash, %error, "repaired blob is still open as it was");
                    tokio::time::sleep(pause.min(left)).await;
                    left = left.saturating_sub(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
        Ok(())
    }

    /// Reads the whole blob as the store gives it, up to the first damage.
    async fn verify(&self, hash: &Hash) -> Result<(), EncodeError> {
        let mut items = Box::pin(self.inner.store.export_bao(to_iroh(hash), ChunkRanges::all()).stream());
        while let Some(item) = items.next().await {
            match item {
                EncodedItem::Error(error) => return Err(error),
                EncodedItem::Size(_) | EncodedItem::Parent(_) | EncodedItem::Leaf(_) | EncodedItem::Done => {}
            }
        }
        Ok(())
    }

    /// Fetches a damaged blob whole into a file and lets it take the place of the one in the store.
    pub(super) async fn repair(
        &self,
        dial: &impl Dial,
        hash: &Hash,
        from: &[NodeId],
        limit: u64,
    ) -> Result<Fetched, FetchError> {
        let name = format!("{hash}-{}", NEXT_FILE.fetch_add(1, Ordering::Relaxed));
        let file = Temporary { path: self.inner.dir.join("repair").join(name) };
        let into = File::create(&file.path);
        let into = into.map_err(|source| FetchError::Local(Error::File { path: file.path.clone(), source }))?;
        let order = Order::Repair { hash: *hash, limit, into: Arc::new(into) };
        let fetched = Crew::new(self, dial, from).run(vec![order]).await?;
        self.take_repaired(hash, &file.path).await.map_err(FetchError::Local)?;
        Ok(fetched)
    }

    async fn take_repaired(&self, hash: &Hash, path: &Path) -> Result<(), Error> {
        let copy = path.to_owned();
        let found = tokio::task::spawn_blocking(move || hash_file(&copy)).await.map_err(failed("hash a file"))?;
        if found.map_err(|source| Error::File { path: path.to_owned(), source })? != *hash {
            return Err(Error::Corrupt { hash: *hash });
        }
        self.add_file(path, Import::Copy).await.map(drop)
    }
}

/// A file that goes when it is dropped, also with the future that holds it.
struct Temporary {
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the file of a repair");
        }
    }
}
