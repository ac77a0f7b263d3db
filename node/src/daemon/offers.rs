//! What this node offers to other members: content that a job or a release needs, by name, so that it can be withdrawn.
//!
//! An offer pins the content in the blob store and lets it be served; nothing else in the store is served. Names look
//! like paths: `job/<id>/..`, `release/<channel>/<generation>`. What an attempt made is *sealed* at first: pinned, and served to
//! coordinators alone, until its job is decided. Who could read it before could sign it without having built it. When a job's offers end is [`super::retention`]'s matter.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use protocol::{ChannelName, Hash, JobId};

use super::Shared;
use crate::blobs::Error;

/// The folder of all offers among the store's pins.
const FOLDER: &str = "offer/";
/// The folder of what is sealed.
const SEALED: &str = "sealed/";

/// What is offered.
#[derive(Debug, Default)]
pub struct Offers {
    offered: Mutex<Offered>,
    sealed: Mutex<Offered>,
}

/// The offers by name, and how many of them name a content.
#[derive(Debug, Default)]
struct Offered {
    names: BTreeMap<String, Vec<Hash>>,
    count: BTreeMap<Hash, usize>,
}

impl Offered {
    fn add(&mut self, name: &str, hashes: &[Hash]) {
        // First the new, then the old: what is in both stays.
        hashes.iter().for_each(|hash| *self.count.entry(*hash).or_default() += 1);
        if let Some(old) = self.names.insert(name.to_owned(), hashes.to_vec()) {
            self.release(&old);
        }
    }

    fn remove(&mut self, withdrawn: impl Fn(&str) -> bool) -> Vec<String> {
        let names: Vec<String> = self.names.keys().filter(|name| withdrawn(name)).cloned().collect();
        for name in &names {
            let hashes = self.names.remove(name).unwrap_or_default();
            self.release(&hashes);
        }
        names
    }

    fn release(&mut self, hashes: &[Hash]) {
        for hash in hashes {
            if let Some(count) = self.count.get_mut(hash) {
                *count -= 1;
                if *count == 0 {
                    self.count.remove(hash);
                }
            }
        }
    }
}

impl Offers {
    /// Says whether other members may have a content.
    pub fn contains(&self, hash: &Hash) -> bool {
        self.offered().count.contains_key(hash)
    }

    /// Says whether there is an offer of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.offered().names.contains_key(name)
    }

    /// Says whether coordinators alone may have a content.
    pub fn is_sealed(&self, hash: &Hash) -> bool {
        self.sealed().count.contains_key(hash)
    }

    /// Gives the jobs that something is offered for, or sealed.
    pub fn jobs(&self) -> BTreeSet<JobId> {
        let mut jobs = self.sealed_jobs();
        jobs.extend(self.offered().names.keys().filter_map(|name| job_of(name)));
        jobs
    }

    /// Gives the jobs that something is sealed for.
    pub fn sealed_jobs(&self) -> BTreeSet<JobId> {
        self.sealed().names.keys().filter_map(|name| job_of(name)).collect()
    }

    fn sealed(&self) -> MutexGuard<'_, Offered> {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offered(&self) -> MutexGuard<'_, Offered> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Offers one content under a name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn offer(&self, name: &str, hash: Hash) -> Result<(), Error> {
        self.blobs.pin(&pin(name), &hash).await?;
        self.offers.offered().add(name, &[hash]);
        Ok(())
    }

    /// Keeps one content under a name, which nobody but coordinators may have until its job is decided.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn seal(&self, name: &str, hash: Hash) -> Result<(), Error> {
        self.blobs.pin(&format!("{SEALED}{name}"), &hash).await?;
        self.offers.sealed().add(name, &[hash]);
        Ok(())
    }

    /// Offers what was sealed of a job. It may be said again.
    ///
    /// # Errors
    /// When the store fails; then something stays sealed.
    pub async fn disclose(&self, job: &JobId) -> Result<(), Error> {
        let folder = format!("job/{job}/");
        let sealed: Vec<(String, Vec<Hash>)> = {
            let known = self.offers.sealed();
            let of_job = known.names.iter().filter(|(name, _)| name.starts_with(&folder));
            of_job.map(|(name, hashes)| (name.clone(), hashes.clone())).collect()
        };
        for (name, hashes) in sealed {
            // Offered first: it is never without a pin.
            for hash in hashes {
                self.offer(&name, hash).await?;
            }
            self.blobs.unpin(&format!("{SEALED}{name}")).await?;
            self.offers.sealed().remove(|sealed| sealed == name);
        }
        Ok(())
    }

    /// Offers many contents under a name, as one set.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn offer_all(&self, name: &str, hashes: &[Hash]) -> Result<(), Error> {
        self.blobs.pin_set(&pin(name), hashes).await?;
        self.offers.offered().add(name, hashes);
        Ok(())
    }

    /// Withdraws what was offered for a job; what another offer names stays.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn withdraw_job(&self, job: &JobId) -> Result<(), Error> {
        let folder = format!("job/{job}/");
        let sealed = self.offers.sealed().remove(|name| name.starts_with(&folder));
        for name in sealed {
            self.blobs.unpin(&format!("{SEALED}{name}")).await?;
        }
        self.withdraw(|name| name.starts_with(&folder)).await
    }

    /// Withdraws the releases of a channel below a generation, however many there are.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn withdraw_releases(&self, channel: &ChannelName, below: u64) -> Result<(), Error> {
        let folder = format!("release/{channel}/");
        let generation = |name: &str| name.strip_prefix(&folder)?.parse::<u64>().ok();
        self.withdraw(|name| generation(name).is_some_and(|generation| generation < below)).await
    }

    async fn withdraw(&self, withdrawn: impl Fn(&str) -> bool) -> Result<(), Error> {
        let names = self.offers.offered().remove(withdrawn);
        for name in names {
            self.blobs.unpin(&pin(&name)).await?;
        }
        Ok(())
    }

    /// Reads the offers back from the store's pins.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn load_offers(&self) -> Result<(), Error> {
        for (pinned, hashes) in self.blobs.pins(FOLDER).await? {
            if let Some(name) = pinned.strip_prefix(FOLDER) {
                self.offers.offered().add(name, &hashes);
            }
        }
        for (pinned, hashes) in self.blobs.pins(SEALED).await? {
            if let Some(name) = pinned.strip_prefix(SEALED) {
                self.offers.sealed().add(name, &hashes);
            }
        }
        Ok(())
    }
}

fn job_of(name: &str) -> Option<JobId> {
    name.strip_prefix("job/")?.split('/').next()?.parse().ok()
}

fn pin(name: &str) -> String {
    format!("{FOLDER}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_offered_as_long_as_one_name_holds_it() {
        let (one, two) = (Hash::of(b"1"), Hash::of(b"2"));
        let offers = Offers::default();
        offers.offered().add("release/main/1", &[one, two]);
        offers.offered().add("release/main/12", &[two, two]);
        assert_eq!(offers.offered().remove(|name| name == "release/main/1"), ["release/main/1"]);
        assert!(!offers.contains(&one) && offers.contains(&two));
        offers.offered().add("release/main/12", &[one]);
        assert!(offers.contains(&one) && !offers.contains(&two));
        assert!(offers.offered().remove(|name| name == "release/main/1").is_empty());
        assert!(offers.contains(&one), "a longer number is another name");
    }

    #[test]
    fn what_is_sealed_is_not_offered() {
        let (offers, job, made) = (Offers::default(), JobId::from(Hash::of(b"job")), Hash::of(b"made"));
        offers.sealed().add(&format!("job/{job}/7-made"), &[made]);
        assert!(offers.is_sealed(&made) && !offers.contains(&made));
        assert_eq!(offers.jobs(), offers.sealed_jobs());
        assert_eq!(offers.sealed_jobs().into_iter().collect::<Vec<_>>(), [job]);
    }

    #[test]
    fn jobs_are_read_from_the_names() {
        let offers = Offers::default();
        let job: JobId = Hash::of(b"job").into();
        offers.offered().add(&format!("job/{job}/inputs"), &[Hash::of(b"1")]);
        offers.offered().add(&format!("job/{job}/7-log"), &[Hash::of(b"2")]);
        offers.offered().add("release/main/1", &[Hash::of(b"3")]);
        assert_eq!(offers.jobs().into_iter().collect::<Vec<_>>(), [job]);
    }
}
