//! What falls due when: one time per subject, and the subjects in order of time. It holds no clock and decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{JobId, NodeId, Timestamp, lease::LeaseNumber};
use serde::{Deserialize, Serialize};

/// What falls due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Due {
    /// The lease ends unless it is renewed.
    Lease(LeaseNumber),
    /// The job may begin.
    Begin(JobId),
    /// The job is over.
    Expiry(JobId),
    /// Some of the jobs that want builders are announced again.
    Announce,
    /// A builder that had to stand back from the job may take it.
    Pause(JobId),
    /// Reports that the job fails may count now, though who gave them has proven nothing.
    Reports(JobId),
    /// What builders are bound to is shown, whoever else is still to be bound.
    Reveal(JobId),
    /// The job's publication is tried again.
    Publish(JobId),
    /// What keeps a builder from leases ends: the room that it offered is looked at again.
    Node(NodeId),
    /// The attempt under this lease has had all its time.
    Attempt(LeaseNumber),
}

/// All deadlines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Deadlines {
    times: BTreeMap<Due, Timestamp>,
    order: BTreeSet<(Timestamp, Due)>,
}

impl Deadlines {
    /// Rebuilds from what [`Deadlines::entries`] gave.
    pub(crate) fn from_entries(entries: Vec<(Due, Timestamp)>) -> Self {
        let order = entries.iter().map(|(due, time)| (*time, *due)).collect();
        Self { times: entries.into_iter().collect(), order }
    }

    /// Gives every deadline.
    pub(crate) fn entries(&self) -> Vec<(Due, Timestamp)> {
        self.times.iter().map(|(due, time)| (*due, *time)).collect()
    }

    /// Sets or moves a deadline.
    pub(crate) fn set(&mut self, due: Due, time: Timestamp) {
        self.clear(due);
        self.times.insert(due, time);
        self.order.insert((time, due));
    }

    /// Forgets a deadline.
    pub(crate) fn clear(&mut self, due: Due) {
        if let Some(time) = self.times.remove(&due) {
            self.order.remove(&(time, due));
        }
    }

    /// Says whether a deadline is set.
    pub(crate) fn has(&self, due: Due) -> bool {
        self.times.contains_key(&due)
    }

    /// Gives the time of a deadline.
    pub(crate) fn time(&self, due: Due) -> Option<Timestamp> {
        self.times.get(&due).copied()
    }

    /// Gives the earliest time.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.order.first().map(|(time, _)| *time)
    }

    /// Takes the earliest subject that is due at `at`.
    pub(crate) fn take(&mut self, at: Timestamp) -> Option<Due> {
        let (_, due) = self.order.first().copied().filter(|(time, _)| *time <= at)?;
        self.clear(due);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_deadline_falls_due_once() {
        let (lease, at) = (Due::Lease(LeaseNumber(1)), Timestamp::from_millis);
        let mut deadlines = Deadlines::default();
        deadlines.set(lease, at(10));
        deadlines.set(lease, at(20));
        assert_eq!(deadlines.take(at(15)), None);
        assert_eq!(deadlines.next(), Some(at(20)));
        assert_eq!(deadlines.take(at(20)), Some(lease));
        assert_eq!(deadlines.take(at(99)), None);
        assert_eq!(Deadlines::from_entries(deadlines.entries()), deadlines);
    }
}
