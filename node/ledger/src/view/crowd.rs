//! The builders that could take one job, and what keeps the others from it.

use protocol::{NodeId, OperatorName, Timestamp};

use crate::{
    Ledger,
    job::Job,
    peers::{Duty, Presence, Withheld},
    reputation::{Class, Hindrance, May},
};

/// Builders, as one job sees them.
#[derive(Debug, Default)]
pub(super) struct Crowd<'a> {
    /// Those that could take it, now or when they have room.
    pub(super) fitting: Vec<Fitting<'a>>,
    /// What keeps those from it that could, but have shown that they must not for now.
    pub(super) hindered: Vec<Hindrance>,
    /// Those that could, but take nothing new.
    pub(super) draining: usize,
    /// The most memory among those that have too little.
    pub(super) largest_mib: Option<u32>,
    /// What the owner of one of them does not allow.
    pub(super) withheld: Option<Withheld>,
    /// Those that are online and had their turn.
    pub(super) had_turn: usize,
    /// Those that could, but are away.
    pub(super) away: usize,
    /// When the last of them was seen.
    pub(super) last_seen: Option<Timestamp>,
}

/// A builder that could take the job.
#[derive(Debug)]
pub(super) struct Fitting<'a> {
    pub(super) node: NodeId,
    pub(super) operator: &'a OperatorName,
    pub(super) slots: u16,
    pub(super) has_room: bool,
}

impl Ledger {
    /// Looks at every builder as one job sees it. A builder that has not shown its card may be able to do everything.
    pub(super) fn crowd(&self, job: &Job) -> Crowd<'_> {
        let mut crowd = Crowd::default();
        let facts = &job.facts;
        let (class, now) = (Class::of(facts), self.last_command());
        for (node, operator, peer) in self.peers.all().filter(|(node, ..)| facts.schedule.allows(node)) {
            let capacity = peer.capacity.as_ref();
            if capacity.is_some_and(|c| !c.arches.contains(&facts.arch)) {
                continue;
            }
            match (peer.presence, &peer.duty) {
                (Presence::Gone, _) if job.is_spent(operator) => {}
                (Presence::Gone, _) => {
                    crowd.away += 1;
                    crowd.last_seen = crowd.last_seen.max(Some(peer.seen));
                }
                (Presence::Online, _) if job.is_spent(operator) => crowd.had_turn += 1,
                (Presence::Online, _) if capacity.is_some_and(|c| c.memory_mib < facts.memory_mib) => {
                    crowd.largest_mib = crowd.largest_mib.max(capacity.map(|c| c.memory_mib));
                }
                (Presence::Online, _) if self.withheld(*node, job).is_some() => {
                    crowd.withheld = self.withheld(*node, job);
                }
                (Presence::Online, Duty::Draining { .. }) => crowd.draining += 1,
                (Presence::Online, Duty::Ready) => {
                    if let May::No(hindrance) = self.may_lease(*node, operator, &class, now) {
                        crowd.hindered.push(hindrance);
                        continue;
                    }
                    let room = self.peers.room(node);
                    crowd.fitting.push(Fitting {
                        node: *node,
                        operator,
                        slots: capacity.map_or(1, |c| c.slots.max(1)),
                        has_room: room.is_some_and(|room| room.memory_mib >= facts.memory_mib),
                    });
                }
            }
        }
        crowd
    }
}
