//! Who builds what: room that builders offer becomes leases as long as jobs want builders, in the fair order of the queue.
//!
//! No room that fits a waiting job stays empty: a job that begins to wait takes what is there, an offer takes what waits.

use std::{collections::BTreeSet, time::Duration};

use attest::log::entry::End;
use protocol::{
    JobId, NodeId, OperatorName, Timestamp,
    job::Announcement,
    lease::{Lease, LeaseNumber, Profile},
    limits,
    message::{Bid, Offer, Refusal},
    peer::Capacity,
};

use crate::{
    Effect, Ledger, News, Turn,
    deadlines::Due,
    graph::Ahead,
    job::{Attempt, AttemptState, Job, JobState, Outcome, Pause, PublishStep, Publishing, Said, Silence},
    log,
    orders::Hold,
    peers::{Duty, Room},
    planted::{self, Fault},
    queue::Taker,
    reputation::{Class, May, Turned},
    tally::{self, Decision, Standing},
};

/// How often a job that wants builders is announced again: gossip may lose it, and builders become free.
pub(crate) const ANNOUNCE_EVERY: Duration = Duration::from_secs(30);
/// How long a node stands back after its first interruption, so that others have the chance; doubled each time.
pub(crate) const PAUSE_INTERRUPTED: Duration = Duration::from_secs(10);
/// How long a node stands back after it first declined; doubled each time.
pub(crate) const PAUSE_DECLINED: Duration = Duration::from_secs(2);
/// How long a node stands back that could not try, when nobody else is left; doubled each time.
pub(crate) const PAUSE_EXCUSED: Duration = Duration::from_secs(10);
/// The longest that a node stands back.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(600);
/// Jobs of one architecture that are announced at once or at one time. Builders with room are known, so that an announcement
/// only wakes those that are not; when more jobs wait than this, every builder is busy and asks again by itself.
const ANNOUNCED_MAX: usize = 16;
/// Announcements in one answer.
const OPEN_MAX: usize = 64;
/// Nodes that an announcement names as excluded.
const EXCLUDED_MAX: usize = 64;

impl Ledger {
    /// A free slot, rather for this job. Fairness comes first: when another maintainer's job, or a more urgent one of the same
    /// maintainer, comes before it, the slot goes there.
    pub(crate) fn bid(&mut self, node: NodeId, bid: &Bid, turn: &mut Turn) {
        if let Err(refusal) = self.check_bid(node, bid, turn) {
            turn.refuse(refusal);
            return;
        }
        turn.done();
        self.fill(node, Some(bid.job), turn);
    }

    fn check_bid(&mut self, node: NodeId, bid: &Bid, turn: &mut Turn) -> Result<(), Refusal> {
        let operator = self.operator(&node)?.clone();
        let Some(class) = self.jobs.get(&bid.job).map(|job| Class::of(&job.facts)) else {
            return Err(Refusal::Unknown(format!("job {}", bid.job)));
        };
        match self.admit_builder(node, (&operator, &class), bid.memory_mib, turn) {
            Ok(()) => {}
            Err(Turned::ToCanary) => return Ok(()),
            Err(Turned::Away(hindrance)) => return Err(Refusal::Busy(hindrance.sentence(&class, turn.at))),
        }
        let job = self.jobs.get(&bid.job).expect("found above");
        if !job.state.wants_builders() {
            return Err(Refusal::Invalid(format!("the job is {}", job.state.word())));
        }
        if job.facts.is_server() {
            return Err(Refusal::Invalid("the coordinator runs this job itself".into()));
        }
        if job.orders.hold != Hold::Not {
            return Err(Refusal::Busy("the job is suspended".into()));
        }
        if let Ahead::Waits(of) | Ahead::Failed(of) = self.ahead(job) {
            return Err(Refusal::Busy(format!("the job waits for job {}", of.short())));
        }
        if !job.facts.schedule.allows(&node) {
            return Err(Refusal::NotAllowed("the job's maintainer asked for other nodes".into()));
        }
        if let Some(withheld) = self.withheld(node, job) {
            return Err(Refusal::NotAllowed(format!("this node's owner does not let it {withheld}")));
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
            if lease.expires <= turn.at {
                // It falls due in this very command.
                return Err(Refusal::Busy(format!("lease {} has just run out: bid again in a moment", lease.number)));
            }
            // Its grant was lost on the way.
            turn.push(Effect::Grant(lease.clone()));
            return Ok(());
        }
        if job.is_spent(&operator) && !planted::is(Fault::OperatorTwice) {
            return Err(Refusal::NotAllowed(format!("operator {operator} has had its turn for this job")));
        }
        let (arch, memory_mib) = (job.facts.arch, bid.memory_mib);
        self.peers.heard(node, turn.at);
        if self.peers.room(&node).is_none() {
            self.peers.set_room(node, Some(Room { free: 1, since: turn.at, arches: vec![arch], memory_mib }));
        }
        Ok(())
    }

    /// A builder says which room it has. Grants that it has not got yet will take theirs.
    pub(crate) fn offer(&mut self, node: NodeId, offer: &Offer, turn: &mut Turn) {
        if let Err(refusal) = self.operator(&node) {
            turn.refuse(refusal);
            return;
        }
        turn.done();
        self.peers.heard(node, turn.at);
        self.peers.set_room(node, self.room_of(node, offer, turn.at));
        self.fill(node, None, turn);
    }

    fn room_of(&self, node: NodeId, offer: &Offer, at: Timestamp) -> Option<Room> {
        let leases = self.held_by.get(&node).into_iter().flatten();
        let coming = leases.filter(|lease| !offer.held.contains(lease)).filter_map(|lease| self.leases.get(lease));
        let on_their_way = coming.fold((0u16, 0u32), |(leases, memory), lease| {
            (leases.saturating_add(1), memory.saturating_add(lease.memory_mib))
        });
        Room::of(offer, at, on_their_way)
    }

    /// Says whether an offer changes nothing, so that it need not be applied.
    pub fn offer_stands(&self, node: NodeId, offer: &Offer) -> bool {
        let known = self.peers.room(&node);
        let room = self.room_of(node, offer, known.map_or(Timestamp::ZERO, |room| room.since));
        // Who is hindered asks again: its time may be over, or a job with a known answer be due.
        let hindered = self.peers.operator(&node).is_none_or(|operator| self.reputation.hinders(operator, node));
        // Who looked for a builder for a job looked at a few of an operator's nodes, and perhaps not at this one.
        let waits = || self.next_for(node, (None, &BTreeSet::new()), self.last_command()).is_some();
        !hindered && self.peers.is_online(&node) && room.as_ref() == known && !waits()
    }

    /// A builder says what it is. What its owner allows stands on its card alone, so what that opens is given out now.
    pub(crate) fn card(&mut self, node: NodeId, capacity: Option<Capacity>, duty: Duty, turn: &mut Turn) {
        let disk = self.peers.disk_of(&node);
        let opens = |capacity: &Capacity| {
            !(capacity.fetch.is_empty() && capacity.isolation.is_rootfs()) || capacity.disk_mib > disk
        };
        let opens = capacity.as_ref().is_some_and(opens);
        self.peers.card(node, capacity, duty, turn.at);
        if opens {
            self.fill(node, None, turn);
        }
    }

    /// Says whether a card changes nothing, so that it need not be applied.
    pub fn card_stands(&self, node: NodeId, capacity: Option<&Capacity>, duty: &Duty) -> bool {
        let Some(peer) = self.peers.get(&node) else { return self.peers.operator(&node).is_none() };
        self.peers.is_online(&node) && peer.capacity.as_ref() == capacity && peer.duty == *duty
    }

    fn operator(&self, node: &NodeId) -> Result<&OperatorName, Refusal> {
        let stranger = || Refusal::NotAllowed("no operator of the policy answers for this node".into());
        self.peers.operator(node).ok_or_else(stranger)
    }

    /// Gives a node's room to the jobs that come next.
    pub(crate) fn fill(&mut self, node: NodeId, rather: Option<JobId>, turn: &mut Turn) {
        let mut barred = BTreeSet::new();
        while let Some((id, class)) = self.next_for(node, (rather, &barred), turn.at) {
            let operator = self.peers.operator(&node).expect("who has room has an operator").clone();
            let memory_mib = self.peers.room(&node).map_or(0, |room| room.memory_mib);
            match self.admit_builder(node, (&operator, &class), memory_mib, turn) {
                Ok(()) => {
                    self.grant(id, node, turn);
                    self.settle(id, turn);
                }
                // It shows what it can before it gets anything else.
                Err(Turned::ToCanary) => return self.peers.set_room(node, None),
                Err(Turned::Away(_)) => drop(barred.insert(class)),
            }
        }
        self.watch_hindrance(node, turn);
    }

    fn next_for(
        &self,
        node: NodeId,
        (rather, barred): (Option<JobId>, &BTreeSet<Class>),
        at: Timestamp,
    ) -> Option<(JobId, Class)> {
        let (operator, room) = (self.peers.operator(&node)?, self.peers.room(&node)?);
        let fetch = self.peers.fetches_from(&node);
        let isolation = self.peers.isolation_of(&node);
        let taker = Taker { node, operator, arches: &room.arches, memory_mib: room.memory_mib, fetch, isolation };
        let fits = |id| {
            let job = &self.jobs[&id];
            self.has_disk(node, job) && rank(job, (node, operator), room, at).is_some() && {
                let class = Class::of(&job.facts);
                !barred.contains(&class) && !matches!(self.may_lease(node, operator, &class, at), May::No(_))
            }
        };
        let id = self.queue.next(&taker, rather, &fits)?;
        Some((id, Class::of(&self.jobs[&id].facts)))
    }

    pub(crate) fn declined(&mut self, node: NodeId, number: LeaseNumber, why: String, turn: &mut Turn) {
        let Some(lease) = self.held(node, number).cloned() else {
            self.drop_canary((node, number), End::Declined, turn);
            return;
        };
        // It said that it has a result: who takes that back has had the lease, and is asked for it.
        if self.jobs[&lease.job].attempt(number).is_some_and(|attempt| attempt.state.committed().is_some()) {
            return;
        }
        self.release(number, End::Declined, turn);
        let job = self.jobs.get_mut(&lease.job).expect("a live lease has a job");
        job.attempts.retain(|a| a.lease != number);
        stand_back(job, node, PAUSE_DECLINED, turn.at);
        self.job_of_lease.remove(&number);
        // It has less room than it seemed; it says so itself when it has some again.
        self.peers.set_room(node, None);
        turn.tell(News::Declined { job: lease.job, lease: number, node, why: cut(why) });
        self.settle(lease.job, turn);
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
        self.say_reveals(turn);
        // Who has room says so again when it is connected.
        self.peers.forget_rooms();
        self.doubt_publications();
        for id in self.open.ids().clone() {
            self.want(id, 0);
            self.settle(id, turn);
            if !planted::is(Fault::ForgetsPublication) {
                self.say_publication(id, turn);
            }
        }
        self.say_explanations(turn);
    }

    /// Brings an open job forward as far as it goes now: a verdict, or leases and announcements. Applying it twice changes
    /// nothing more.
    pub(crate) fn settle(&mut self, id: JobId, turn: &mut Turn) {
        let policy = self.policies.last().expect("never empty").get();
        let Some(job) = self.jobs.get(&id).filter(|job| job.state.wants_builders()) else { return };
        if job.orders.hold != Hold::Not {
            self.want(id, 0);
            return;
        }
        match self.ahead(job) {
            Ahead::Free => {}
            Ahead::Waits(_) => {
                self.want(id, 0);
                return;
            }
            Ahead::Failed(of) => {
                self.skip(id, of, turn);
                return;
            }
        }
        if let Some(begin) = begins_later(job, turn.at) {
            self.deadlines.set(Due::Begin(id), begin);
            self.want(id, 0);
            return;
        }
        let Some(channel) = policy.channel(&job.facts.channel) else {
            self.want(id, 0);
            return;
        };
        if job.facts.is_server() {
            self.queue_service(id, turn);
            return;
        }
        let heard = self.heard(job, turn.at);
        match tally::stand(job, channel, (policy, self.peers.operators()), &heard.operators) {
            Standing::Decided(decision) => self.decide(id, decision, turn),
            Standing::Excuses => {
                self.excuse(id, turn);
                self.settle(id, turn);
            }
            Standing::Wants(wanted) => {
                self.listen_again(id, heard.again);
                let granted = (0..wanted).take_while(|_| self.grant_idle(id, turn)).count();
                let missing = wanted - u32::try_from(granted).expect("at most the wanted number");
                self.look_for_builders(id, missing, turn);
                self.permit_reveals(id, turn);
            }
        }
    }

    /// Gives builders that could not try another turn, after a while: what they lack (a disk, a source) may come back, and
    /// nobody else is left. A package does not fail because of it.
    fn excuse(&mut self, id: JobId, turn: &mut Turn) {
        let job = self.jobs.get_mut(&id).expect("settle found it");
        let mut again = Vec::new();
        for attempt in job.attempts.iter_mut().filter(|attempt| attempt.may_be_excused()) {
            match &mut attempt.state {
                AttemptState::Failed { excused, .. } => *excused = true,
                AttemptState::Silent { kind, .. } => *kind = Silence::Excused,
                AttemptState::Granted
                | AttemptState::Running { .. }
                | AttemptState::Committed { .. }
                | AttemptState::Revealed { .. }
                | AttemptState::Interrupted { .. }
                | AttemptState::Revoked { .. } => {}
            }
            attempt.said = Said::Nothing;
            again.push((attempt.operator.clone(), attempt.node, attempt.lease));
        }
        let class = Class::of(&job.facts);
        for (_, node, _) in &again {
            stand_back(job, *node, PAUSE_EXCUSED, turn.at);
        }
        for (operator, node, lease) in again {
            self.reputation.resolved((&operator, &class, node), lease);
        }
    }

    fn decide(&mut self, id: JobId, decision: Decision, turn: &mut Turn) {
        self.disclose(id, turn);
        if let Decision::Reproduced(agreement) = &decision {
            self.judge(id, agreement, turn);
            self.note_environment(id, agreement);
        }
        let job = self.jobs.get_mut(&id).expect("settle found it");
        let (word, why) = tally::words(&decision);
        turn.tell(News::Verdict { job: id, word: word.into(), why });
        turn.log(log::verdict(
            id,
            &decision,
            job.attempts.iter().filter_map(Attempt::vote).map(|v| v.attestation).collect(),
        ));
        let outcome = match decision {
            Decision::Reproduced(agreement) => {
                tell_dissent(id, &agreement, turn);
                if matches!(job.facts.kind.as_str(), "deb" | "rpm") {
                    let publishing = JobState::Publishing(Publishing { agreement, step: PublishStep::Waiting });
                    job.state.become_state(publishing).expect("a job with attempts may be published");
                    let channel = job.facts.channel.clone();
                    self.close_builds(id, "the job is reproduced", turn);
                    self.want_explanations(id, turn);
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
        self.want_explanations(id, turn);
    }

    /// Revokes the job's leases and stops looking for builders.
    pub(crate) fn close_builds(&mut self, id: JobId, reason: &str, turn: &mut Turn) {
        self.want(id, 0);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let mut over = Vec::new();
        for attempt in job.attempts.iter_mut().filter(|a| a.state.is_live()) {
            let (reason, started) = (reason.to_owned(), attempt.state.started());
            attempt.state = AttemptState::Revoked { ended: turn.at, reason: reason.clone(), started };
            turn.push(Effect::Revoke { node: attempt.node, lease: attempt.lease, reason });
            over.push(attempt.lease);
        }
        over.into_iter().for_each(|lease| self.release(lease, End::Revoked, turn));
        self.deadlines.clear(Due::Pause(id));
    }

    /// Grants a lease to a builder with room, where there is one whose turn it is.
    fn grant_idle(&mut self, id: JobId, turn: &mut Turn) -> bool {
        let job = &self.jobs[&id];
        let operators = &self.policy_in_force().operators;
        let Some(from) = operators.get(tie(id) % operators.len().max(1)) else { return false };
        let class = Class::of(&job.facts);
        let ranked = |node, operator: &OperatorName, room: &Room| {
            // Who is to show what it can first is served when it asks.
            let may = self.may_lease(node, operator, &class, turn.at) == May::Yes;
            let reach = self.withheld(node, job).is_none() && self.has_disk(node, job);
            rank(job, (node, operator), room, turn.at).filter(|_| may && reach)
        };
        let Some(node) = self.peers.find(job.facts.arch, &from.name, ranked) else { return false };
        self.grant(id, node, turn);
        true
    }

    /// Grants a lease to a node that has room for it.
    fn grant(&mut self, id: JobId, node: NodeId, turn: &mut Turn) {
        let operator = self.peers.operator(&node).expect("who has room has an operator").clone();
        let job = self.jobs.get_mut(&id).expect("who grants found it");
        self.last_lease += 1;
        let lease = Lease {
            job: id,
            node,
            number: LeaseNumber(self.last_lease),
            expires: turn.at.after(limits::LEASE_TTL),
            profile: Profile(job.profiles),
            memory_mib: job.facts.memory_mib,
        };
        let cost = self.pace.cost(&job.facts.title);
        job.profiles = job.profiles.saturating_add(1);
        job.attempts.push(Attempt {
            cost,
            node,
            said: Said::Nothing,
            lease: lease.number,
            state: AttemptState::Granted,
            granted: turn.at,
            profile: lease.profile,
            operator: operator.clone(),
        });
        self.queue.charge(job.facts.key, cost);
        self.peers.take(node, lease.memory_mib);
        self.held_by.entry(node).or_default().insert(lease.number);
        self.deadlines.set(Due::Lease(lease.number), lease.expires);
        self.deadlines.set(Due::Attempt(lease.number), turn.at.after(self.attempt_limit(&id)));
        self.job_of_lease.insert(lease.number, id);
        self.leases.insert(lease.number, lease.clone());
        turn.tell(News::Granted { job: id, lease: lease.number, node, operator });
        turn.log(log::lease(&lease));
        turn.push(Effect::Grant(lease));
    }

    fn look_for_builders(&mut self, id: JobId, missing: u32, turn: &mut Turn) {
        let job = self.jobs.get_mut(&id).expect("settle found it");
        let busy = job.attempts.iter().any(Attempt::is_spent);
        let next = if busy { JobState::Building } else { JobState::Queued };
        job.state.become_state(next).expect("an open job is queued or building");
        let soonest = job.pauses.values().map(|p| p.until).filter(|until| *until > turn.at).min();
        match soonest.filter(|_| missing > 0) {
            Some(until) => self.deadlines.set(Due::Pause(id), until),
            None => self.deadlines.clear(Due::Pause(id)),
        }
        let (more, arch) = (missing > job.wanted, job.facts.arch);
        self.want(id, missing);
        if more && self.queue.len_of(arch) <= ANNOUNCED_MAX {
            turn.push(Effect::Announce(self.announcement(id, turn.at).expect("the job is open")));
        }
        if missing > 0 && !self.deadlines.has(Due::Announce) {
            self.deadlines.set(Due::Announce, turn.at.after(ANNOUNCE_EVERY));
        }
    }

    /// Notes how many more builders a job wants; with none it leaves the queue.
    fn want(&mut self, id: JobId, missing: u32) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.wanted = missing;
        if missing > 0 {
            self.queue.put(id, job);
        } else {
            self.queue.remove(&id);
        }
        if self.queue.is_empty() {
            self.deadlines.clear(Due::Announce);
        }
    }

    /// Some of what waits is announced again: gossip may have lost it, and a builder may not know that it is wanted.
    pub(crate) fn announce_again(&mut self, turn: &mut Turn) {
        for id in self.queue.front(ANNOUNCED_MAX) {
            self.settle(id, turn);
            if self.queue.has(&id) {
                turn.push(Effect::Announce(self.announcement(id, turn.at).expect("a waiting job is known")));
            }
        }
        if !self.queue.is_empty() {
            self.deadlines.set(Due::Announce, turn.at.after(ANNOUNCE_EVERY));
        }
    }

    /// Gives announcements of some jobs that want builders at `at`, fairly chosen.
    pub fn open_jobs(&self, at: Timestamp) -> Vec<Announcement> {
        self.queue.front(OPEN_MAX).into_iter().filter_map(|id| self.announcement(id, at)).take(OPEN_MAX).collect()
    }

    pub(crate) fn announcement(&self, id: JobId, at: Timestamp) -> Option<Announcement> {
        let job = self.jobs.get(&id)?;
        let all = &self.policy_in_force().operators;
        let names: BTreeSet<_> = job.attempts.iter().filter(|a| a.is_spent()).map(|a| &a.operator).collect();
        let operators = names.into_iter().filter_map(|name| all.binary_search_by_key(&name, |o| &o.name).ok());
        let operators = operators.map(|found| &all[found]);
        let without = job.facts.schedule.without.iter().copied();
        let spent = operators.flat_map(|o| o.nodes.iter().copied());
        let excluded: BTreeSet<NodeId> = without.chain(spent).take(EXCLUDED_MAX).collect();
        Some(Announcement {
            at,
            job: id,
            arch: job.facts.arch,
            channel: job.facts.channel.clone(),
            excluded: excluded.into_iter().collect(),
            memory_mib: job.facts.memory_mib,
        })
    }

    /// Finds a live lease of this node.
    pub(crate) fn held(&self, node: NodeId, number: LeaseNumber) -> Option<&Lease> {
        self.leases.get(&number).filter(|lease| lease.node == node)
    }

    /// Forgets a live lease; its attempt has ended.
    pub(crate) fn release(&mut self, number: LeaseNumber, end: End, turn: &mut Turn) {
        let Some(lease) = self.leases.remove(&number) else { return };
        turn.log(log::outcome(lease.job, (lease.node, number), end));
        self.deadlines.clear(Due::Lease(number));
        self.deadlines.clear(Due::Attempt(number));
        let job = &self.jobs[&lease.job];
        if let Some(attempt) = job.attempt(number) {
            // Who waits for others takes no slot.
            let ended = attempt.state.committed_at().unwrap_or(self.last_command());
            let took = ended.since(attempt.granted).as_secs().max(1);
            self.queue.correct(job.facts.key, attempt.cost, took);
        }
        let held = self.held_by.get_mut(&lease.node).expect("a live lease is its node's");
        held.remove(&number);
        if held.is_empty() {
            self.held_by.remove(&lease.node);
        }
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

/// Says whether a node with room may take a job now, and how gladly: operators that had no turn come first, then other nodes of
/// those that were interrupted, then the same nodes again.
fn rank(job: &Job, (node, operator): (NodeId, &OperatorName), room: &Room, at: Timestamp) -> Option<u8> {
    let spent = job.is_spent(operator) && !planted::is(Fault::OperatorTwice);
    let pause = job.pauses.get(&node);
    let pauses = pause.is_some_and(|pause| pause.until > at);
    if spent || pauses || room.memory_mib < job.facts.memory_mib || !job.facts.schedule.allows(&node) {
        return None;
    }
    let again = job.attempts.iter().any(|a| a.operator == *operator);
    Some(match (pause.is_some(), again) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    })
}

/// Gives a number by which jobs begin their look for builders at different operators.
fn tie(job: JobId) -> usize {
    job.as_bytes().iter().take(4).fold(0, |number, byte| number * 256 + usize::from(*byte))
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
