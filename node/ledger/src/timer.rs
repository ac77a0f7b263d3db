//! The ledger's sense of time: which deadline is next, and what a jump of the clock means. It reads no clock.

use std::time::Duration;

use protocol::{Timestamp, limits};
use serde::{Deserialize, Serialize};

use crate::{
    Effect, Ledger, Turn,
    deadlines::Due,
    job::AttemptState,
    planted::{self, Fault},
    releases, reputation, schedule,
};

/// A step back of less is jitter.
const JITTER_MAX: Duration = Duration::from_secs(5);
/// A silence of more, while leases live, means that nobody listened: each lease would have woken us before.
const ASLEEP_AFTER: Duration = Duration::from_secs(2 * limits::LEASE_TTL.as_secs());
/// How often a job whose publication outlives its time is looked at.
const EXPIRED_PUBLICATION_EVERY: Duration = Duration::from_secs(60);

/// When the last command was applied, and for when the timer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Clock {
    seen: Option<Timestamp>,
    timer: Option<Timestamp>,
}

impl Ledger {
    /// Notes the time of a command, before it is applied.
    pub(crate) fn keep_time(&mut self, at: Timestamp) {
        if let Some(seen) = self.clock.seen.replace(at) {
            if at.after(JITTER_MAX) < seen && !planted::is(Fault::ForgetsClock) {
                self.pull_back(at);
            } else if at > seen.after(ASLEEP_AFTER) {
                self.refresh_leases(at);
            }
        }
    }

    /// Gives the time of the last command: the ledger's now.
    pub(crate) fn last_command(&self) -> Timestamp {
        self.clock.seen.unwrap_or(Timestamp::ZERO)
    }

    /// Gives every live lease, and its attempt, a fresh time: nobody knows what time passed for the builders.
    pub(crate) fn refresh_leases(&mut self, at: Timestamp) {
        let leases: Vec<_> = self.leases.values().map(|lease| (lease.number, lease.job)).collect();
        for (number, job) in leases {
            let latest = at.after(self.attempt_limit(&job));
            self.deadlines.set(Due::Attempt(number), latest);
        }
        for (number, job) in self.reputation.running_canaries() {
            let latest = at.after(self.attempt_limit(&job));
            self.deadlines.set(Due::Attempt(number), latest);
        }
        for (number, lease) in &mut self.leases {
            lease.expires = at.after(limits::LEASE_TTL);
            self.deadlines.set(Due::Lease(*number), lease.expires);
        }
    }

    /// The clock was set back: what was measured with the old one would fall due too late.
    fn pull_back(&mut self, at: Timestamp) {
        for (due, time) in self.deadlines.entries() {
            let longest = match due {
                Due::Lease(_) => limits::LEASE_TTL,
                Due::Announce => schedule::ANNOUNCE_EVERY,
                Due::Pause(_) => schedule::PAUSE_MAX,
                Due::Reports(_) => reputation::PROVEN_WAIT,
                Due::Reveal(_) => limits::REVEAL_WAIT,
                Due::Publish(_) => releases::REST_MAX,
                Due::Node(_) => reputation::LONGEST,
                Due::Attempt(number) => {
                    let canary = || self.reputation.canary_job(number);
                    let job = self.leases.get(&number).map(|lease| lease.job).or_else(canary);
                    job.map_or(Duration::ZERO, |job| self.attempt_limit(&job))
                }
                Due::Begin(_) | Due::Expiry(_) => continue,
            };
            let latest = at.after(longest).min(time);
            self.deadlines.set(due, latest);
            if let Due::Lease(number) = due
                && let Some(lease) = self.leases.get_mut(&number)
            {
                lease.expires = latest;
            }
        }
        self.reputation.pull_back(at);
        for id in self.open.ids() {
            let job = self.jobs.get_mut(id).expect("open jobs are jobs");
            for pause in job.pauses.values_mut() {
                pause.until = pause.until.min(at.after(schedule::PAUSE_MAX));
            }
            for attempt in &mut job.attempts {
                if let AttemptState::Committed { at: bound, .. } = &mut attempt.state {
                    *bound = at.min(*bound);
                }
            }
        }
    }

    /// Does what is due.
    pub(crate) fn fall_due(&mut self, turn: &mut Turn) {
        while let Some(due) = self.deadlines.take(turn.at) {
            match due {
                Due::Lease(number) => self.lease_expired(number, turn),
                Due::Attempt(number) => self.attempt_overdue(number, turn),
                Due::Expiry(job) => self.job_expired(job, turn),
                Due::Announce => self.announce_again(turn),
                Due::Begin(job) | Due::Pause(job) | Due::Reports(job) | Due::Reveal(job) => self.settle(job, turn),
                Due::Publish(job) => self.publish_again(job, turn),
                Due::Node(node) => self.fill(node, None, turn),
            }
        }
    }

    /// Looks again later at a job whose publication outlives its time.
    pub(crate) fn look_again(&mut self, job: protocol::JobId, turn: &Turn) {
        self.deadlines.set(Due::Expiry(job), turn.at.after(EXPIRED_PUBLICATION_EVERY));
    }

    /// Asks for a timer when the next deadline is before the one that was asked for, or that one is spent.
    pub(crate) fn ask_for_timer(&mut self, spent: bool, turn: &mut Turn) {
        let Some(next) = self.deadlines.next() else {
            self.clock.timer = None;
            return;
        };
        let stands = self.clock.timer.is_some_and(|timer| timer > turn.at && timer <= next);
        if (spent && !planted::is(Fault::ForgetsTimer)) || !stands {
            self.clock.timer = Some(next);
            turn.push(Effect::WakeAt(next));
        }
    }
}
