//! What a job needs, against what a builder's owner gives: places to fetch from, programs, disk. It stands on the builder's card.

use protocol::{NodeId, job::reaches};

use crate::{Ledger, job::Job, peers::Withheld};

impl Ledger {
    /// Gives what a job needs and a node's owner does not allow.
    pub(crate) fn withheld(&self, node: NodeId, job: &Job) -> Option<Withheld> {
        let rules = self.peers.fetches_from(&node);
        let light = job.facts.isolation > self.peers.isolation_of(&node);
        let large = job.facts.disk_mib > self.peers.disk_of(&node);
        let place = job.facts.endpoints.iter().find(|place| !reaches(rules, place));
        let other = light.then_some(Withheld::Programs).or(large.then_some(Withheld::Disk(job.facts.disk_mib)));
        place.cloned().map(Withheld::Place).or(other)
    }

    /// Says whether a node has the disk for a job beside those that it builds. Who is bound has built, and waits for others.
    pub(crate) fn has_disk(&self, node: NodeId, job: &Job) -> bool {
        let held = self.held_by.get(&node).into_iter().flatten().filter_map(|lease| self.leases.get(lease));
        let builds = held
            .map(|lease| (&self.jobs[&lease.job], lease.number))
            .filter(|(job, lease)| job.attempt(*lease).is_none_or(|attempt| attempt.state.committed().is_none()));
        let taken = builds.map(|(job, _)| u64::from(job.facts.disk_mib)).sum::<u64>();
        taken + u64::from(job.facts.disk_mib) <= u64::from(self.peers.disk_of(&node))
    }
}
