//! Jobs that are not over, and how many of them each maintainer has. It is made from the jobs and is no part of a snapshot.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{JobId, PublicKey};

/// Open jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Open {
    ids: BTreeSet<JobId>,
    /// How many there are of each key; none has zero.
    counts: BTreeMap<PublicKey, usize>,
}

impl Open {
    /// Enters a job of a maintainer; again is harmless.
    pub(crate) fn insert(&mut self, id: JobId, key: PublicKey) {
        if self.ids.insert(id) {
            *self.counts.entry(key).or_default() += 1;
        }
    }

    /// Forgets a job that is over, with the key under which it was entered.
    pub(crate) fn remove(&mut self, id: &JobId, key: &PublicKey) {
        if !self.ids.remove(id) {
            return;
        }
        let count = self.counts.get_mut(key).expect("an open job is counted");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(key);
        }
    }

    /// Counts a maintainer's open jobs.
    pub(crate) fn count_of(&self, key: &PublicKey) -> usize {
        self.counts.get(key).copied().unwrap_or_default()
    }

    /// Gives the jobs.
    pub(crate) fn ids(&self) -> &BTreeSet<JobId> {
        &self.ids
    }
}

impl FromIterator<(JobId, PublicKey)> for Open {
    fn from_iter<I: IntoIterator<Item = (JobId, PublicKey)>>(jobs: I) -> Self {
        let mut open = Self::default();
        jobs.into_iter().for_each(|(id, key)| open.insert(id, key));
        open
    }
}
