//! What this node offers to other members: content that a job or a release needs, by name, so that it can be withdrawn.
//!
//! An offer pins the content in the blob store and lets it be served; nothing else in the store is served. Names look
//! like paths: `offer/job/<id>/..`, `offer/release/<channel>/..`, `offer/upload/..`.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use protocol::{Hash, JobId, NodeId};

use super::Shared;
use crate::blobs::Error;

/// Jobs whose submitters are remembered.
const SUBMITTERS_MAX: usize = 4096;

/// What is offered, and who sent what.
#[derive(Debug, Default)]
pub struct Offers {
    offered: Mutex<BTreeSet<Hash>>,
    submitters: Mutex<Vec<(JobId, NodeId)>>,
}

impl Offers {
    /// Says whether other members may have a content.
    pub fn contains(&self, hash: &Hash) -> bool {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner).contains(hash)
    }

    fn add(&self, hashes: impl IntoIterator<Item = Hash>) {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner).extend(hashes);
    }

    fn replace(&self, hashes: BTreeSet<Hash>) {
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) = hashes;
    }
}

impl Shared {
    /// Offers one content under a name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn offer(&self, name: &str, hash: Hash) -> Result<(), Error> {
        self.blobs.pin(&format!("offer/{name}"), &hash).await?;
        self.offers.add([hash]);
        Ok(())
    }

    /// Offers many contents under a name, as one set.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn offer_all(&self, name: &str, hashes: &[Hash]) -> Result<(), Error> {
        self.blobs.pin_set(&format!("offer/{name}"), hashes).await?;
        self.offers.add(hashes.iter().copied());
        Ok(())
    }

    /// Withdraws every offer whose name begins so; what another offer names stays.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn withdraw(&self, prefix: &str) -> Result<(), Error> {
        if self.blobs.unpin_prefix(&format!("offer/{prefix}")).await? > 0 {
            self.load_offers().await?;
        }
        Ok(())
    }

    /// Reads the offers back from the store's pins.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn load_offers(&self) -> Result<(), Error> {
        self.offers.replace(self.blobs.pinned("offer/").await?);
        Ok(())
    }

    /// Remembers which node sent a job: it has the inputs.
    pub fn remember_provider(&self, job: JobId, node: NodeId) {
        let mut submitters = self.offers.submitters.lock().unwrap_or_else(PoisonError::into_inner);
        if submitters.len() >= SUBMITTERS_MAX {
            submitters.remove(0);
        }
        submitters.push((job, node));
    }

    /// Gives the nodes that sent a job.
    pub fn providers_of(&self, job: &JobId) -> Vec<NodeId> {
        let submitters = self.offers.submitters.lock().unwrap_or_else(PoisonError::into_inner);
        submitters.iter().filter(|(id, _)| id == job).map(|(_, node)| *node).collect()
    }
}
