//! Which waiting job comes next: fair shares between maintainers, urgency within one.
//!
//! ```text
//!  a free slot --> architecture --> the maintainer that was served least --> its lanes that this node may serve
//!                                                                               --> most urgent, begun, oldest
//! ```
//!
//! * **Between maintainers** machine time is shared evenly (start-time fair queueing): each lease costs its maintainer the
//!   seconds that such an attempt takes, corrected when it has ended; who has the least comes first. Who comes back after a while begins where the others
//!   are, so that nobody saves up a monopoly. Three thousand jobs of one do not make another wait for more than one lease.
//! * **Within a maintainer** the more urgent job comes first, then one that others have begun, then the older.
//! * **A lane** holds jobs that the same nodes may take: size of memory, operators that had their turn, nodes that are asked
//!   for or excluded, hosts that are fetched from. So what does not fit a node is skipped by the lane, not job by job, and a lease costs the same among ten
//!   jobs or a hundred thousand.
//!
//! All of it but the shares is made from the jobs and is no part of a snapshot. It knows no nodes' state and grants nothing.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    Arch, JobId, NodeId, OperatorName, PublicKey, Timestamp,
    job::{Endpoint, Isolation, Priority, reaches},
    words::HostRule,
};
use serde::{Deserialize, Serialize};

use crate::{
    job::Job,
    planted::{self, Fault},
};

/// Jobs of one lane that are looked at for one slot; what does not fit by the lane alone is rare (a pause, a rest of memory).
const LOOK_MAX: usize = 32;
/// Lanes of one maintainer that are looked at for one slot.
const LANES_MAX: usize = 256;

/// What each maintainer was served, in seconds of a slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shares {
    /// What the one had that was served last: where a newcomer begins.
    floor: u64,
    /// Who has waiting jobs, or is above the floor.
    served: BTreeMap<PublicKey, u64>,
}

/// Where a job stands within its maintainer's jobs: the least comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// How far below the highest priority it is.
    urgency: u8,
    progress: Progress,
    accepted: Timestamp,
    job: JobId,
}

/// Whether somebody had a turn at the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Begun,
    Fresh,
}

/// What jobs have in common that the same nodes may take.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Lane {
    /// The memory of an attempt is below 2 to this power, in MiB.
    size: u32,
    /// Operators that had their turn, sorted.
    spent: Vec<OperatorName>,
    only: Vec<NodeId>,
    without: Vec<NodeId>,
    /// Where a fetch goes, sorted.
    endpoints: Vec<Endpoint>,
    isolation: Isolation,
}

/// Where a job is found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    arch: Arch,
    key: PublicKey,
    lane: Lane,
    rank: Rank,
}

/// The waiting jobs of one architecture.
#[derive(Debug, Clone, Default)]
struct Hall {
    /// Maintainers with waiting jobs, who was served least first.
    order: BTreeSet<(u64, PublicKey)>,
    lanes: BTreeMap<PublicKey, Lanes>,
    jobs: usize,
}

/// The waiting jobs of one maintainer and architecture; no lane is empty.
#[derive(Debug, Clone, Default)]
struct Lanes {
    jobs: BTreeMap<Lane, BTreeSet<Rank>>,
    /// The lane of each first job, so that the lanes are looked at in the order of their first jobs.
    heads: BTreeMap<Rank, Lane>,
}

/// Every job that wants builders, and what their maintainers were served.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    shares: Shares,
    halls: BTreeMap<Arch, Hall>,
    places: BTreeMap<JobId, Place>,
    /// Waiting jobs of each maintainer.
    waiting: BTreeMap<PublicKey, usize>,
}

/// A node with a free slot, as the queue needs to know it.
pub(crate) struct Taker<'a> {
    pub(crate) node: NodeId,
    pub(crate) operator: &'a OperatorName,
    pub(crate) arches: &'a [Arch],
    pub(crate) memory_mib: u32,
    /// Whom it fetches from.
    pub(crate) fetch: &'a [HostRule],
    /// The lightest isolation that its owner allows.
    pub(crate) isolation: Isolation,
}

impl Queue {
    /// Takes up the shares of a snapshot; the jobs follow by [`Queue::restore`].
    pub(crate) fn with_shares(shares: Shares) -> Self {
        Self { shares, ..Self::default() }
    }

    /// Gives what each maintainer was served.
    pub(crate) fn shares(&self) -> &Shares {
        &self.shares
    }

    /// Says whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Says whether a job waits.
    pub(crate) fn has(&self, job: &JobId) -> bool {
        self.places.contains_key(job)
    }

    /// Counts the waiting jobs of an architecture.
    pub(crate) fn len_of(&self, arch: Arch) -> usize {
        self.halls.get(&arch).map_or(0, |hall| hall.jobs)
    }

    /// Counts maintainers with waiting jobs of an architecture.
    pub(crate) fn maintainers_of(&self, arch: Arch) -> usize {
        self.halls.get(&arch).map_or(0, |hall| hall.order.len())
    }

    /// Puts a job where it belongs now.
    pub(crate) fn put(&mut self, id: JobId, job: &Job) {
        let place = place(id, job);
        if self.places.get(&id) == Some(&place) {
            return;
        }
        self.remove(&id);
        if !self.waiting.contains_key(&place.key) {
            let served = self.shares.served.entry(place.key).or_default();
            *served = (*served).max(self.shares.floor);
        }
        self.insert(id, place);
    }

    /// Puts a job of a snapshot back, whose maintainer's share is known already.
    pub(crate) fn restore(&mut self, id: JobId, job: &Job) {
        self.insert(id, place(id, job));
    }

    fn insert(&mut self, id: JobId, place: Place) {
        let share = self.share(&place.key);
        let hall = self.halls.entry(place.arch).or_default();
        hall.order.insert((share, place.key));
        hall.lanes.entry(place.key).or_default().insert(place.lane.clone(), place.rank);
        hall.jobs += 1;
        *self.waiting.entry(place.key).or_default() += 1;
        self.places.insert(id, place);
    }

    /// Forgets a job, which wants nobody now.
    pub(crate) fn remove(&mut self, id: &JobId) {
        let Some(place) = self.places.remove(id) else { return };
        let share = self.share(&place.key);
        let hall = self.halls.get_mut(&place.arch).expect("a placed job has a hall");
        let lanes = hall.lanes.get_mut(&place.key).expect("a placed job has lanes");
        lanes.remove(&place.lane, &place.rank);
        hall.jobs -= 1;
        if lanes.jobs.is_empty() {
            hall.lanes.remove(&place.key);
            hall.order.remove(&(share, place.key));
        }
        let waiting = self.waiting.get_mut(&place.key).expect("a placed job is counted");
        *waiting -= 1;
        if *waiting == 0 {
            self.waiting.remove(&place.key);
        }
    }

    /// Charges a maintainer for a lease.
    pub(crate) fn charge(&mut self, key: PublicKey, cost: u64) {
        let before = self.share(&key);
        self.shares.floor = self.shares.floor.max(before);
        self.set_share(key, before.saturating_add(cost));
        if self.shares.served.len() > 2 * self.waiting.len() + 64 {
            let (floor, waiting) = (self.shares.floor, &self.waiting);
            self.shares.served.retain(|key, served| *served > floor || waiting.contains_key(key));
        }
    }

    /// Replaces what a lease was taken for by what it took.
    pub(crate) fn correct(&mut self, key: PublicKey, charged: u64, took: u64) {
        self.set_share(key, self.share(&key).saturating_sub(charged).saturating_add(took));
    }

    fn set_share(&mut self, key: PublicKey, share: u64) {
        let before = self.share(&key);
        self.shares.served.insert(key, share);
        for hall in self.halls.values_mut() {
            if hall.order.remove(&(before, key)) {
                hall.order.insert((share, key));
            }
        }
    }

    fn share(&self, key: &PublicKey) -> u64 {
        self.shares.served.get(key).copied().unwrap_or(self.shares.floor)
    }

    /// Gives the job that comes next for a node. Of jobs that come equally early, the one that the node would rather have.
    pub(crate) fn next(
        &self,
        taker: &Taker<'_>,
        rather: Option<JobId>,
        fits: &impl Fn(JobId) -> bool,
    ) -> Option<JobId> {
        let halls = taker.arches.iter().filter_map(|arch| self.halls.get(arch));
        let (share, rank) = halls.filter_map(|hall| hall.next(taker, fits)).min()?;
        let Some(wish) = rather.and_then(|id| self.places.get(&id)) else { return Some(rank.job) };
        let equal = self.share(&wish.key) == share && wish.rank.urgency == rank.urgency;
        let open = equal && taker.arches.contains(&wish.arch) && wish.lane.is_open_to(taker) && fits(wish.rank.job);
        Some(if open { wish.rank.job } else { rank.job })
    }

    /// Gives some waiting jobs of each architecture, fairly chosen, to be announced.
    pub(crate) fn front(&self, each: usize) -> Vec<JobId> {
        self.halls.values().flat_map(|hall| hall.front(each)).collect()
    }

    /// Counts the jobs of the same maintainer and architecture that come before a waiting one, up to `most`.
    pub(crate) fn before(&self, id: &JobId, most: usize) -> usize {
        let Some(place) = self.places.get(id) else { return 0 };
        let lanes = self.halls.get(&place.arch).and_then(|hall| hall.lanes.get(&place.key));
        let ranks = lanes.into_iter().flat_map(|lanes| lanes.jobs.values()).flat_map(|lane| lane.range(..place.rank));
        ranks.take(most).count()
    }
}

impl Hall {
    fn next(&self, taker: &Taker<'_>, fits: &impl Fn(JobId) -> bool) -> Option<(u64, Rank)> {
        self.order.iter().find_map(|(share, key)| Some((*share, self.lanes.get(key)?.next(taker, fits)?)))
    }

    fn front(&self, count: usize) -> Vec<JobId> {
        let mut jobs: Vec<JobId> = Vec::new();
        let each = count.div_ceil(self.order.len().max(1));
        for (_, key) in &self.order {
            let lanes = &self.lanes[key].jobs;
            let of_lane = each.div_ceil(lanes.len());
            jobs.extend(lanes.values().flat_map(|ranks| ranks.iter().take(of_lane)).take(each).map(|rank| rank.job));
            if jobs.len() >= count {
                break;
            }
        }
        jobs.truncate(count);
        jobs
    }
}

impl Lanes {
    fn insert(&mut self, lane: Lane, rank: Rank) {
        let ranks = self.jobs.entry(lane.clone()).or_default();
        let head = ranks.first().copied();
        ranks.insert(rank);
        if head.is_none_or(|head| rank < head) {
            head.map(|head| self.heads.remove(&head));
            self.heads.insert(rank, lane);
        }
    }

    fn remove(&mut self, lane: &Lane, rank: &Rank) {
        let ranks = self.jobs.get_mut(lane).expect("a placed job has a lane");
        ranks.remove(rank);
        let head = ranks.first().copied();
        if head.is_none() {
            self.jobs.remove(lane);
        }
        if let Some(lane) = self.heads.remove(rank)
            && let Some(head) = head
        {
            self.heads.insert(head, lane);
        }
    }

    fn next(&self, taker: &Taker<'_>, fits: &impl Fn(JobId) -> bool) -> Option<Rank> {
        let mut best: Option<Rank> = None;
        let open = self.heads.iter().filter(|(_, lane)| lane.is_open_to(taker));
        for (head, lane) in open.take(LANES_MAX) {
            if best.is_some_and(|best| best < *head) {
                break;
            }
            let first = self.jobs[lane].iter().take(LOOK_MAX).find(|rank| fits(rank.job)).copied();
            best = best.into_iter().chain(first).min();
        }
        best
    }
}

impl Lane {
    fn is_open_to(&self, taker: &Taker<'_>) -> bool {
        // A lane whose largest job may not fit may still hold one that does.
        self.size <= size(taker.memory_mib)
            && self.spent.binary_search(taker.operator).is_err()
            && (self.only.is_empty() || self.only.binary_search(&taker.node).is_ok())
            && self.without.binary_search(&taker.node).is_err()
            && self.endpoints.iter().all(|endpoint| reaches(taker.fetch, endpoint))
            && self.isolation <= taker.isolation
    }
}

/// Gives the number of binary digits: what is below 2 to this power and not below half of that.
const fn size(memory_mib: u32) -> u32 {
    u32::BITS - memory_mib.leading_zeros()
}

fn place(id: JobId, job: &Job) -> Place {
    let facts = &job.facts;
    let spent: BTreeSet<&OperatorName> = job.attempts.iter().filter(|a| a.is_spent()).map(|a| &a.operator).collect();
    let progress = if spent.is_empty() { Progress::Fresh } else { Progress::Begun };
    let lane = Lane {
        size: size(facts.memory_mib),
        spent: if planted::is(Fault::OperatorTwice) { Vec::new() } else { spent.into_iter().cloned().collect() },
        only: facts.schedule.only.clone(),
        without: facts.schedule.without.clone(),
        endpoints: facts.endpoints.clone(),
        isolation: facts.isolation,
    };
    let urgency = Priority::MAX.0.saturating_sub(job.orders.priority.0);
    let rank = Rank { urgency, progress, accepted: facts.accepted, job: id };
    Place { arch: facts.arch, key: facts.key, lane, rank }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_jobs_of_all_lanes_are_known_whatever_comes_and_goes() {
        let lane = |size| Lane {
            size,
            spent: Vec::new(),
            only: Vec::new(),
            without: Vec::new(),
            endpoints: Vec::new(),
            isolation: Isolation::Rootfs,
        };
        let rank = |urgency: u8, number: u8| Rank {
            urgency,
            progress: Progress::Fresh,
            accepted: Timestamp::ZERO,
            job: JobId::from_bytes([number; 32]),
        };
        let firsts = |lanes: &Lanes| -> BTreeMap<Rank, Lane> {
            lanes.jobs.iter().map(|(lane, ranks)| (*ranks.first().expect("no lane is empty"), lane.clone())).collect()
        };
        let (mut lanes, mut inside) = (Lanes::default(), Vec::new());
        for number in 0..=u8::MAX {
            // Small multipliers of coprime strides stand for chance.
            let job = (lane(u32::from(number % 5)), rank(number.wrapping_mul(37) % 11, number));
            lanes.insert(job.0.clone(), job.1);
            inside.push(job);
            if number % 3 != 0 {
                let (lane, rank) = inside.swap_remove(usize::from(number) * 7 % inside.len());
                lanes.remove(&lane, &rank);
            }
            assert_eq!(lanes.heads, firsts(&lanes), "after job {number}");
        }
        inside.into_iter().for_each(|(lane, rank)| lanes.remove(&lane, &rank));
        assert!(lanes.jobs.is_empty() && lanes.heads.is_empty());
    }
}
