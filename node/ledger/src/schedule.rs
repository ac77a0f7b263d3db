//! Who builds what: bids become leases as long as a job wants builders. First come, first served; who had no turn first.

use std::{collections::BTreeSet, time::Duration};

use protocol::{
    Hash, JobId, NodeId, Timestamp,
    job::Announcement,
    lease::{Lease, LeaseNumber, Profile},
    limits,
    message::{Bid, Refusal},
};

use crate::{
    Effect, Ledger, News, Turn,
    deadlines::Due,
    graph::Ahead,
    job::{Attempt, AttemptState, Bidder, Job, JobState, Outcome, Pause, PublishStep, Publishing},
    planted::{self, Fault},
    reputation::{Class, May, Turned},
    tally::{self, Decision, Standing},
};

/// How often a job that wants builders is announced again: gossip may lose it, and builders become free.
pub(crate) const ANNOUNCE_EVERY: Duration = Duration::from_secs(30);
/// How long a node stands back after its first interruption, so that others have the chance; doubled each time.
pub(crate) const PAUSE_INTERRUPTED: Duration = Duration::from_secs(10);
/// How long a node stands back after it first declined; doubled each time.
pub(crate) const PAUSE_DECLINED: Duration = Duration::from_secs(2);
/// The longest that a node stands back.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(600);
/// Builders that wait for one job; more than the third and fourth opinion ever need.
pub(crate) const BIDDERS_MAX: usize = 64;
/// Waiting builders of one operator: it has one turn, and must not fill the list for the others.
const BIDDERS_OF_OPERATOR_MAX: usize = 4;
/// Nodes that an announcement names as excluded.
const EXCLUDED_MAX: usize = 64;

impl Ledger {
    pub(crate) fn bid(&mut self, node: NodeId, bid: &Bid, turn: &mut Turn) {
        match self.remember_bid(node, bid, turn) {
            Err(refusal) => turn.refuse(refusal),
            Ok(()) => {
                turn.done();
                self.settle(bid.job, turn);
            }
        }
    }

    fn remember_bid(&mut self, node: NodeId, bid: &Bid, turn: &mut Turn) -> Result<(), Refusal> {
        let Some(operator) = self.policy_in_force().operator_of(&node).cloned() else {
            return Err(Refusal::NotAllowed("no operator of the policy answers for this node".into()));
        };
        let ahead = self.jobs.get(&bid.job).map_or(Ahead::Free, |job| self.ahead(job));
        let Some(class) = self.jobs.get(&bid.job).map(|job| Class::of(&job.facts)) else {
            return Err(Refusal::Unknown(format!("job {}", bid.job)));
        };
        match self.admit_builder(node, (&operator, &class), bid.memory_mib, turn) {
            Ok(()) => {}
            Err(Turned::ToCanary) => return Ok(()),
            Err(Turned::Away(hindrance)) => return Err(Refusal::Busy(hindrance.sentence(&class, turn.at))),
        }
        let job = self.jobs.get_mut(&bid.job).expect("found above");
        if !job.state.wants_builders() {
            return Err(Refusal::Invalid(format!("the job is {}", job.state.word())));
        }
        if job.facts.is_server() {
            return Err(Refusal::Invalid("the coordinator runs this job itself".into()));
        }
        if let Ahead::Waits(of) | Ahead::Failed(of) = ahead {
            return Err(Refusal::Busy(format!("the job waits for job {}", of.short())));
        }
        if !job.facts.schedule.allows(&node) {
            return Err(Refusal::NotAllowed("the job's maintainer asked for other nodes".into()));
        }
        if bid.memory_mib < job.facts.memory_mib {
            let wanted = job.facts.memory_mib;
            return Err(Refusal::Invalid(format!(
                "the job needs {wanted} MiB of memory, the bid has {}",
                bid.memory_mib
            )));
        }
        let waiting = job.attempts.iter().find(|a| a.node == node && a.state == AttemptState::Granted);
        if let Some(lease) = waiting.and_then(|attempt| self.leases.get(&attempt.lease)) {
            // Its grant was lost on the way.
            turn.push(Effect::Grant(lease.clone()));
            return Ok(());
        }
        if job.is_spent(&operator) && !planted::is(Fault::OperatorTwice) {
            return Err(Refusal::NotAllowed(format!("operator {operator} has had its turn for this job")));
        }
        if job.bidders.iter().any(|b| b.node == node) {
            return Ok(());
        }
        let policy = self.policies.last().expect("never empty").get();
        let fellows = job.bidders.iter().filter(|b| policy.operator_of(&b.node) == Some(&operator)).count();
        if fellows >= BIDDERS_OF_OPERATOR_MAX || job.bidders.len() >= BIDDERS_MAX {
            return Err(Refusal::Busy("enough builders wait for this job".into()));
        }
        job.bidders.push(Bidder { at: turn.at, node });
        Ok(())
    }

    pub(crate) fn declined(&mut self, node: NodeId, number: LeaseNumber, why: String, turn: &mut Turn) {
        let Some(lease) = self.held(node, number).cloned() else {
            self.drop_canary(node, number);
            return;
        };
        let job = self.jobs.get_mut(&lease.job).expect("a live lease has a job");
        job.attempts.retain(|a| a.lease != number);
        stand_back(job, node, PAUSE_DECLINED, turn.at);
        self.release(number);
        self.job_of_lease.remove(&number);
        turn.tell(News::Declined { job: lease.job, lease: number, node, why: cut(why) });
        self.settle(lease.job, turn);
    }

    /// The connection to a builder is gone: a grant could not reach it, so its bids are forgotten. Its leases live on.
    pub(crate) fn lost(&mut self, node: NodeId) {
        for id in &self.open {
            self.jobs.get_mut(id).expect("open jobs are jobs").bidders.retain(|b| b.node != node);
        }
    }

    /// The coordinator came up again: leases get a fresh time, and what nobody acknowledged is said once more.
    pub(crate) fn restarted(&mut self, turn: &mut Turn) {
        if planted::is(Fault::LeaseNumberAgain) {
            self.last_lease = self.last_lease.saturating_sub(1);
        }
        self.refresh_leases(turn.at);
        for lease in self.leases.values() {
            let attempt = self.jobs.get(&lease.job).and_then(|job| job.attempt(lease.number));
            if attempt.is_some_and(|a| a.state == AttemptState::Granted) {
                turn.push(Effect::Grant(lease.clone()));
            }
        }
        for id in self.open.clone() {
            let job = self.jobs.get_mut(&id).expect("open jobs are jobs");
            job.bidders.clear();
            job.announced = 0;
            self.settle(id, turn);
            if !planted::is(Fault::ForgetsPublication) {
                self.say_publication(id, turn);
            }
        }
    }

    /// Brings an open job forward as far as it goes now: a verdict, or leases and announcements. Applying it twice changes
    /// nothing more.
    pub(crate) fn settle(&mut self, id: JobId, turn: &mut Turn) {
        let policy = self.policies.last().expect("never empty").get();
        let Some(job) = self.jobs.get(&id).filter(|job| job.state.wants_builders()) else { return };
        let Some(channel) = policy.channel(&job.facts.channel) else { return };
        match self.ahead(job) {
            Ahead::Free => {}
            Ahead::Waits(_) => return,
            Ahead::Failed(of) => {
                self.skip(id, of, turn);
                return;
            }
        }
        if let Some(begin) = begins_later(job, turn.at) {
            self.deadlines.set(Due::Begin(id), begin);
            return;
        }
        if job.facts.is_server() {
            self.queue_service(id, turn);
            return;
        }
        let heard = self.heard(job, turn.at);
        match tally::stand(job, channel, policy, &heard.operators) {
            Standing::Decided(decision) => self.decide(id, decision, turn),
            Standing::Wants(wanted) => {
                self.listen_again(id, heard.again);
                let granted = (0..wanted).take_while(|_| self.grant_next(id, turn)).count();
                let missing = wanted - u32::try_from(granted).expect("at most the wanted number");
                self.look_for_builders(id, missing, turn);
            }
        }
    }

    fn decide(&mut self, id: JobId, decision: Decision, turn: &mut Turn) {
        if let Decision::Reproduced(agreement) = &decision {
            self.judge(id, agreement, turn);
        }
        let job = self.jobs.get_mut(&id).expect("settle found it");
        let (word, why) = words(&decision);
        turn.tell(News::Verdict { job: id, word: word.into(), why });
        let outcome = match decision {
            Decision::Reproduced(agreement) => {
                tell_dissent(id, &agreement, turn);
                if job.facts.kind == "deb" {
                    let publishing = JobState::Publishing(Publishing { agreement, step: PublishStep::Waiting });
                    job.state.become_state(publishing).expect("a job with attempts may be published");
                    let channel = job.facts.channel.clone();
                    self.close_builds(id, "the job is reproduced", turn);
                    self.queue_publication(id, &channel, turn);
                    return;
                }
                Outcome::Reproduced(agreement)
            }
            Decision::Disputed(comparison) => Outcome::Disputed(comparison),
            Decision::Unreproducible(comparison) => Outcome::Unreproducible(comparison),
            Decision::Failed(failure) => Outcome::Failed(failure),
        };
        self.end(id, outcome, turn).expect("an open job may end in every verdict");
    }

    /// Revokes the job's leases and stops looking for builders.
    pub(crate) fn close_builds(&mut self, id: JobId, reason: &str, turn: &mut Turn) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.bidders.clear();
        job.announced = 0;
        let mut over = Vec::new();
        for attempt in job.attempts.iter_mut().filter(|a| a.state.is_live()) {
            let (reason, started) = (reason.to_owned(), attempt.state.started());
            attempt.state = AttemptState::Revoked { ended: turn.at, reason: reason.clone(), started };
            turn.push(Effect::Revoke { node: attempt.node, lease: attempt.lease, reason });
            over.push(attempt.lease);
        }
        over.into_iter().for_each(|lease| self.release(lease));
        self.deadlines.clear(Due::Announce(id));
        self.deadlines.clear(Due::Bidder(id));
    }

    /// Grants a lease to the first waiting builder, where there is one whose turn it is.
    fn grant_next(&mut self, id: JobId, turn: &mut Turn) -> bool {
        let policy = self.policies.last().expect("never empty").get();
        let job = self.jobs.get_mut(&id).expect("settle found it");
        job.bidders.retain(|bidder| {
            let operator = policy.operator_of(&bidder.node);
            operator.is_some_and(|o| !job_is_spent(&job.attempts, o))
        });
        // Since it bid, a builder may have been contradicted.
        let class = Class::of(&job.facts);
        let reputation = &self.reputation;
        job.bidders.retain(|bidder| {
            let operator = policy.operator_of(&bidder.node).expect("kept above only with an operator");
            !matches!(reputation.may_without_canary(operator, &class, bidder.node, turn.at), May::No(_))
        });
        let ready = job.bidders.iter().filter(|b| job.pauses.get(&b.node).is_none_or(|p| p.until <= turn.at));
        let Some(node) = ready.min_by_key(|b| (rank(job, b.node, policy), b.at, tie(id, b.node))).map(|b| b.node)
        else {
            return false;
        };
        let operator = policy.operator_of(&node).expect("kept above only with an operator").clone();
        self.last_lease += 1;
        let lease = Lease {
            job: id,
            node,
            number: LeaseNumber(self.last_lease),
            expires: turn.at.after(limits::LEASE_TTL),
            profile: Profile(job.profiles),
        };
        job.profiles = job.profiles.saturating_add(1);
        job.bidders.retain(|b| b.node != node);
        job.attempts.push(Attempt {
            node,
            lease: lease.number,
            state: AttemptState::Granted,
            granted: turn.at,
            profile: lease.profile,
            operator: operator.clone(),
        });
        self.deadlines.set(Due::Lease(lease.number), lease.expires);
        self.job_of_lease.insert(lease.number, id);
        self.leases.insert(lease.number, lease.clone());
        turn.tell(News::Granted { job: id, lease: lease.number, node, operator });
        turn.push(Effect::Grant(lease));
        true
    }

    fn look_for_builders(&mut self, id: JobId, missing: u32, turn: &mut Turn) {
        let job = self.jobs.get_mut(&id).expect("settle found it");
        let busy = job.attempts.iter().any(Attempt::is_spent);
        let next = if busy { JobState::Building } else { JobState::Queued };
        job.state.become_state(next).expect("an open job is queued or building");
        let soonest = job.bidders.iter().filter_map(|b| job.pauses.get(&b.node)).map(|p| p.until).min();
        match soonest.filter(|_| missing > 0) {
            Some(until) => self.deadlines.set(Due::Bidder(id), until.max(turn.at.after(Duration::from_millis(1)))),
            None => self.deadlines.clear(Due::Bidder(id)),
        }
        let more = missing > job.announced;
        job.announced = missing;
        if missing == 0 {
            self.deadlines.clear(Due::Announce(id));
        } else if more {
            let announcement = self.announcement(id, turn.at).expect("the job is open");
            turn.push(Effect::Announce(announcement));
            self.deadlines.set(Due::Announce(id), turn.at.after(ANNOUNCE_EVERY));
        }
    }

    /// The last announcement is old: the next look for builders says it again.
    pub(crate) fn forget_announcement(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.announced = 0;
        }
    }

    pub(crate) fn announcement(&self, id: JobId, at: Timestamp) -> Option<Announcement> {
        let job = self.jobs.get(&id)?;
        let operators = self.policy_in_force().operators.iter().filter(|o| job.is_spent(&o.name));
        let without = job.facts.schedule.without.iter().copied();
        let spent = operators.flat_map(|o| o.nodes.iter().copied());
        let excluded: BTreeSet<NodeId> = without.chain(spent).take(EXCLUDED_MAX).collect();
        let excluded = excluded.into_iter().collect();
        Some(Announcement {
            at,
            job: id,
            arch: job.facts.arch,
            channel: job.facts.channel.clone(),
            excluded,
            memory_mib: job.facts.memory_mib,
        })
    }

    /// Finds a live lease of this node.
    pub(crate) fn held(&self, node: NodeId, number: LeaseNumber) -> Option<&Lease> {
        self.leases.get(&number).filter(|lease| lease.node == node)
    }

    /// Forgets a live lease; its attempt has ended.
    pub(crate) fn release(&mut self, number: LeaseNumber) {
        self.leases.remove(&number);
        self.deadlines.clear(Due::Lease(number));
    }
}

/// Says when a job may begin, where that is later. What has begun goes on, whatever the clock does.
pub(crate) fn begins_later(job: &Job, at: Timestamp) -> Option<Timestamp> {
    job.facts.schedule.not_before.filter(|begin| *begin > at && job.attempts.is_empty())
}

/// Makes a node stand back for this job; each time twice as long.
pub(crate) fn stand_back(job: &mut Job, node: NodeId, first: Duration, at: Timestamp) {
    let times = job.pauses.get(&node).map_or(0, |p| p.times);
    let pause = first.saturating_mul(1 << times.min(16)).min(PAUSE_MAX);
    job.pauses.insert(node, Pause { times: times.saturating_add(1), until: at.after(pause) });
}

/// Cuts what a peer says to what is worth keeping.
pub(crate) fn cut(text: String) -> String {
    match text.char_indices().nth(256) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

fn job_is_spent(attempts: &[Attempt], operator: &protocol::OperatorName) -> bool {
    !planted::is(Fault::OperatorTwice) && attempts.iter().any(|a| a.operator == *operator && a.is_spent())
}

/// Operators that had no turn come first, then other nodes of those that were interrupted, then the same nodes again.
fn rank(job: &Job, node: NodeId, policy: &protocol::policy::Policy) -> u8 {
    let operator = policy.operator_of(&node);
    let again = job.attempts.iter().any(|a| Some(&a.operator) == operator);
    match (job.pauses.contains_key(&node), again) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    }
}

fn tie(job: JobId, node: NodeId) -> Hash {
    Hash::of(&[job.as_bytes().as_slice(), node.as_bytes().as_slice()].concat())
}

fn tell_dissent(job: JobId, agreement: &tally::Agreement, turn: &mut Turn) {
    for dissent in &agreement.dissent {
        if let Some(first) = dissent.files.first() {
            turn.tell(News::Dissent {
                job,
                node: dissent.node,
                operator: dissent.operator.clone(),
                file: first.file.to_string(),
                agreed: first.agreed,
                got: first.got,
            });
        }
    }
}

/// Gives a verdict's word and one sentence.
fn words(decision: &Decision) -> (&'static str, String) {
    let files = |comparison: &tally::Comparison| {
        let names: Vec<_> = comparison.files.iter().take(8).map(|d| d.file.as_str()).collect();
        names.join(", ")
    };
    match decision {
        Decision::Reproduced(agreement) => {
            let (agree, differ) = (agreement.operators.len(), agreement.dissent.len());
            ("reproduced", format!("{agree} operators agree, {differ} differ"))
        }
        Decision::Disputed(comparison) => {
            ("disputed", format!("too few operators agree; these files differ: {}", files(comparison)))
        }
        Decision::Unreproducible(comparison) => {
            ("unreproducible", format!("no two operators agree; these files differ: {}", files(comparison)))
        }
        Decision::Failed(failure) => ("failed", failure.to_string()),
    }
}
