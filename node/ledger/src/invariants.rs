//! What must hold after every command, each a named function. The property tests and the simulation check all of them.
//!
//! They recompute from signed evidence and from effects; they do not trust the tally.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use attest::{
    commitment, compare,
    log::{
        entry::{self, End, Entry, Event},
        story::{Story, StoryError},
        tree::{self, Edge},
    },
};
use protocol::{
    ChannelName, Hash, JobId, NodeId, OperatorName, Timestamp,
    lease::{Lease, LeaseNumber},
    limits,
};

use crate::{
    Command, Effect, Ledger, Opening, commitments,
    deadlines::Due,
    job::{Attempt, AttemptState, Job, JobState, Outcome, PublishStep},
    planted::{self, Fault},
    view::{AttemptView, ResultView},
};

/// What was seen of one ledger's life, beside the ledger.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    accepted: BTreeSet<JobId>,
    highest_lease: u64,
    generations: BTreeMap<ChannelName, BTreeMap<u64, JobId>>,
    published: BTreeMap<JobId, u64>,
    /// Jobs that were over once.
    over: BTreeSet<JobId>,
    /// Jobs whose agreement was checked, under the policy of that moment.
    decided: BTreeSet<JobId>,
    /// Leases under which what was committed to came while they lived.
    honoured: BTreeSet<LeaseNumber>,
    /// Leases whose result was asked for.
    asked: BTreeSet<LeaseNumber>,
    log: LogReader,
}

/// Who reads the transparency log as it is written.
#[derive(Debug, Default)]
struct LogReader {
    edge: Edge,
    story: Story,
    /// What each lease is bound to.
    bound: BTreeMap<LeaseNumber, Hash>,
    /// Who is bound to a result of a job, or failed.
    spoken: BTreeMap<JobId, BTreeSet<NodeId>>,
}

impl LogReader {
    /// Each entry has the next place and follows from those before.
    fn read(&mut self, index: u64, bytes: &[u8], at: Timestamp) -> Held {
        let size = self.edge.head().size;
        must(index == size, || format!("entry {index} is appended to a log of {size}"))?;
        self.edge.append(tree::leaf(bytes));
        let entry = Entry::from_bytes(bytes).map_err(|e| e.to_string())?;
        must(entry.at == at, || format!("an entry of another time: {entry:?}"))?;
        if let Event::Commitment(one) = &entry.event {
            self.bound.insert(one.lease, one.digest);
            self.spoken.entry(one.job).or_default().insert(one.node);
        }
        if let Event::Outcome(entry::Outcome { end: End::Failed(_), job, node, .. }) = &entry.event {
            self.spoken.entry(*job).or_default().insert(*node);
        }
        match self.story.read(&entry) {
            // The faults are to be found by who looks for them, not here.
            Err(StoryError::AcceptedTwice(_) | StoryError::JudgedTwice(_)) if planted::is(Fault::AcceptsReplay) => {
                Ok(())
            }
            Err(StoryError::Unbound(_)) if planted::is(Fault::CountsUnbound) => Ok(()),
            told => told.map_err(|error| format!("{error}: {entry:?}")),
        }
    }

    /// The leases without an end are those that live, and what the ledger knows of the log is the log.
    fn agrees(&self, ledger: &Ledger) -> Held {
        let (head, known) = (self.edge.head(), ledger.log_head());
        must(head == known, || format!("the log is {head:?}, the ledger has {known:?}"))?;
        let live = |lease: &LeaseNumber| ledger.leases.contains_key(lease) || ledger.reputation.has_canary(*lease);
        let gap = self.story.open().find(|lease| !live(lease));
        must(gap.is_none(), || format!("a lease is over and its end not logged: {gap:?}"))
    }
}

type Held = Result<(), String>;

fn must(holds: bool, otherwise: impl FnOnce() -> String) -> Held {
    if holds { Ok(()) } else { Err(otherwise()) }
}

impl Witness {
    /// Notes which report comes under a live lease and is what the log says it is bound to, before it is applied.
    pub(crate) fn before(&mut self, ledger: &Ledger, command: &Command) {
        if let Command::Revealed { node, lease, opening: Opening::Salt(salt), attestation, .. } = command
            && ledger.held(*node, *lease).is_some()
            && self.log.bound.get(lease)
                == Some(&commitment::digest(&ledger.network, *lease, salt, attestation.bytes()))
        {
            self.honoured.insert(*lease);
        }
    }

    /// Checks everything after a command.
    pub(crate) fn after(&mut self, ledger: &Ledger, at: Timestamp, effects: &[Effect]) -> Held {
        let (known, mut answers) = (self.highest_lease, 0);
        // What is asked for follows from what is logged by the same command.
        for effect in effects {
            if let Effect::Append { index, entry } = effect {
                self.log.read(*index, entry, at)?;
            }
        }
        for effect in effects {
            match effect {
                Effect::Answer(protocol::message::Response::Receipt(job, _)) => {
                    answers += 1;
                    if self.accepted.insert(*job) {
                        who_submits_may(ledger, *job)?;
                    }
                }
                Effect::Answer(_) => answers += 1,
                Effect::Grant(lease) => {
                    self.highest_lease = self.highest_lease.max(lease.number.0);
                    // A grant that may have been lost is said again as long as its lease lives; so is a canary's.
                    let (number, reputation) = (lease.number, &ledger.reputation);
                    if lease.number.0 > known {
                        self.nobody_was_asked_before(ledger, lease)?;
                    }
                    let again = ledger.leases.contains_key(&number) || reputation.has_canary(number);
                    must(lease.number.0 > known || again, || format!("lease numbers only grow: {lease:?}"))?;
                }
                Effect::Publish(publication) => {
                    self.generations_strictly_grow(&publication.channel, publication.generation, publication.job)?;
                }
                Effect::Serve(service) if service.generation > 0 => {
                    self.generations_strictly_grow(&service.channel, service.generation, service.job)?;
                }
                Effect::Serve(_) => {}
                Effect::Withdraw(withdrawal) => {
                    self.generations_strictly_grow(&withdrawal.channel, withdrawal.generation, withdrawal.job)?;
                }
                Effect::Resign { channel, generation } => {
                    // No job has this id: a generation that is signed anew belongs to nobody.
                    let nobody = JobId::from_bytes([0; 32]);
                    self.generations_strictly_grow(channel, *generation, nobody)?;
                }
                Effect::WakeAt(time) => must(*time > at, || format!("wakes in the past: {time:?}"))?,
                Effect::Append { .. } => {}
                Effect::Disclose { job, .. } => {
                    must(commitments::is_open(&ledger.jobs[job]), || format!("{job:?} is undecided and opened"))?;
                }
                Effect::Reveal { .. }
                | Effect::Revoke { .. }
                | Effect::Announce(_)
                | Effect::Explain(_)
                | Effect::Notify(_) => {}
            }
        }
        must(answers <= 1, || "one answer at most".into())?;
        i1_an_accepted_job_is_never_lost(ledger, &self.accepted)?;
        for (id, job) in ledger.jobs.iter() {
            self.nobody_is_asked_too_early(ledger, job, at)?;
            one_operator_has_one_turn(job)?;
            no_profile_twice(job)?;
            self.only_live_leases_vote(job)?;
            if job.state.agreement().is_some() && self.decided.insert(*id) {
                i3_what_is_reproduced_has_its_attestations(ledger, *id, job)?;
            }
            i5_every_open_job_goes_on_or_waits_with_a_reason(ledger, *id, job)?;
            nobody_reads_before_the_verdict(ledger, *id, job)?;
            self.published_once(*id, job)?;
            self.over_is_over(*id, job)?;
        }
        self.log.agrees(ledger)?;
        live_leases_are_near_and_of_known_nodes(ledger, at)?;
        live_leases_are_the_running_attempts(ledger)
    }

    /// Who was asked once, by an order or in an answer, may be asked again, whatever changed since.
    fn nobody_is_asked_too_early(&mut self, ledger: &Ledger, job: &Job, at: Timestamp) -> Held {
        for attempt in job.attempts.iter().filter(|attempt| attempt.state.is_asked()) {
            if self.asked.insert(attempt.lease) {
                nobody_reveals_too_early(ledger, attempt.lease, at, &self.log.spoken)?;
            }
        }
        Ok(())
    }

    /// An operator that was asked for a result of a job is not leased the job again: others may have shown theirs.
    fn nobody_was_asked_before(&self, ledger: &Ledger, lease: &Lease) -> Held {
        let Some(job) = ledger.jobs.get(&lease.job) else { return Ok(()) };
        // A canary repeats a job whose answer everybody knows.
        let Some(own) = job.attempts.iter().find(|attempt| attempt.lease == lease.number) else { return Ok(()) };
        let asked = |a: &&Attempt| a.operator == own.operator && a.lease < own.lease && self.asked.contains(&a.lease);
        let before = job.attempts.iter().find(asked);
        must(before.is_none(), || format!("{lease:?} goes to an operator that was asked before: {before:?}"))
    }

    /// Each generation of a channel belongs to one job, and a new one is above all before.
    fn generations_strictly_grow(&mut self, channel: &ChannelName, generation: u64, job: JobId) -> Held {
        let known = self.generations.entry(channel.clone()).or_default();
        let newest = known.last_key_value().map_or(0, |(newest, _)| *newest);
        let owner = *known.entry(generation).or_insert(job);
        must(owner == job && generation >= newest, || format!("generation {generation} after {newest} for {job:?}"))
    }

    fn published_once(&mut self, id: JobId, job: &Job) -> Held {
        let JobState::Ended(ended) = &job.state else {
            return must(!self.published.contains_key(&id), || format!("{id:?} was published and is open again"));
        };
        let Outcome::Published { generation, .. } = &ended.outcome else { return Ok(()) };
        let first = *self.published.entry(id).or_insert(*generation);
        must(first == *generation, || format!("{id:?} published twice: {first} and {generation}"))
    }

    fn over_is_over(&mut self, id: JobId, job: &Job) -> Held {
        let known = if job.state.is_ended() { !self.over.insert(id) } else { self.over.contains(&id) };
        must(!known || job.state.is_ended(), || format!("{id:?} was over and is open again"))
    }

    fn only_live_leases_vote(&self, job: &Job) -> Held {
        let strange = job.attempts.iter().find(|a| a.vote().is_some() && !self.honoured.contains(&a.lease));
        must(strange.is_none(), || format!("a vote without a live lease: {strange:?}"))
    }
}

fn i1_an_accepted_job_is_never_lost(ledger: &Ledger, accepted: &BTreeSet<JobId>) -> Held {
    let lost = accepted.iter().find(|id| !ledger.jobs.contains_key(id));
    must(lost.is_none(), || format!("I1: an accepted job was lost: {lost:?}"))
}

/// A new job's key is that of a maintainer of the policy in force, who has no more open jobs than it allows.
fn who_submits_may(ledger: &Ledger, id: JobId) -> Held {
    let policy = ledger.policy_in_force();
    let Some(key) = ledger.jobs.get(&id).map(|job| job.facts.key) else { return Ok(()) };
    must(policy.maintainer(&key).is_some(), || format!("{key} is no maintainer and submitted {id:?}"))?;
    let open = ledger.open.ids().iter().filter(|open| ledger.jobs[*open].facts.key == key).count();
    must(open == ledger.open.count_of(&key), || format!("{key} has {open} open jobs, and another number is kept"))?;
    must(open <= policy.limits.open_jobs as usize, || format!("{key} has {open} open jobs"))
}

/// Who comes up has no timer: what falls due next must be asked for.
pub(crate) fn a_beginning_asks_for_a_timer(ledger: &Ledger, effects: &[Effect]) -> Held {
    let asked = effects.iter().any(|effect| matches!(effect, Effect::WakeAt(_)));
    must(asked || ledger.deadlines.next().is_none(), || "it begins and asks for no timer".into())
}

fn live_leases_are_near_and_of_known_nodes(ledger: &Ledger, at: Timestamp) -> Held {
    let latest = at.after(limits::LEASE_TTL + Duration::from_secs(5));
    for lease in ledger.leases.values() {
        must(lease.expires <= latest, || format!("a lease that outlives its time: {lease:?} at {at:?}"))?;
        let operator = ledger.policy_in_force().operator_of(&lease.node);
        let holder = ledger.jobs[&lease.job].attempt(lease.number).map(|attempt| &attempt.operator);
        must(holder.is_some() && holder == operator, || format!("a lease of a stranger: {lease:?}"))?;
    }
    Ok(())
}

fn one_operator_has_one_turn(job: &Job) -> Held {
    let mut turns: BTreeMap<&OperatorName, u32> = BTreeMap::new();
    for attempt in job.attempts.iter().filter(|a| a.is_spent()) {
        *turns.entry(&attempt.operator).or_default() += 1;
    }
    let greedy = turns.into_iter().find(|(_, turns)| *turns > 1);
    must(greedy.is_none(), || format!("one operator, one turn: {greedy:?}"))
}

fn no_profile_twice(job: &Job) -> Held {
    let profiles: BTreeSet<_> = job.attempts.iter().map(|a| a.profile).collect();
    must(profiles.len() == job.attempts.len(), || "a profile was given twice".into())
}

/// I3: at least k distinct operators signed the same outputs, under at least two profiles.
fn i3_what_is_reproduced_has_its_attestations(ledger: &Ledger, id: JobId, job: &Job) -> Held {
    let (Some(agreement), Some(dossier)) = (job.state.agreement(), ledger.dossiers.get(&id)) else { return Ok(()) };
    let policy = ledger.policy_in_force();
    let Some(channel) = policy.channel(&job.facts.channel) else { return Ok(()) };
    let mut signers: BTreeMap<Hash, BTreeSet<&OperatorName>> = BTreeMap::new();
    let mut profiles = BTreeSet::new();
    for attestation in &dossier.attestations {
        let statement = attestation.get();
        let digest = compare::digest(&statement.outputs);
        if let Some(operator) = policy.operator_of(&attestation.signer()) {
            signers.entry(digest).or_default().insert(operator);
        }
        if digest == agreement.digest {
            profiles.insert(statement.run.profile);
        }
    }
    let agree = signers.get(&agreement.digest).map_or(0, BTreeSet::len);
    let wanted = usize::from(channel.agree);
    must(agree >= wanted && profiles.len() >= wanted.min(2), || {
        format!("I3: {agree} operators and {} profiles stand behind {}", profiles.len(), job.facts.title)
    })
}

/// Who is asked to show a result can see in the log why: k operators are bound or have failed, or it has waited long enough.
fn nobody_reveals_too_early(
    ledger: &Ledger,
    lease: LeaseNumber,
    at: Timestamp,
    spoken: &BTreeMap<JobId, BTreeSet<NodeId>>,
) -> Held {
    let id = ledger.job_of_lease[&lease];
    let job = &ledger.jobs[&id];
    let policy = ledger.policy_in_force();
    let Some(channel) = policy.channel(&job.facts.channel) else { return Ok(()) };
    let nodes = spoken.get(&id).into_iter().flatten();
    let operators: BTreeSet<_> = nodes.filter_map(|node| policy.operator_of(node)).collect();
    let since = job.attempt(lease).and_then(|attempt| attempt.state.committed_at());
    let waited = since.is_some_and(|since| since.after(limits::REVEAL_WAIT) <= at);
    must(operators.len() >= usize::from(channel.agree) || waited, || {
        format!("lease {lease} is to show its result while {} of {} have spoken", operators.len(), channel.agree)
    })
}

/// Before the verdict nobody sees what was built: no view, no bundle.
fn nobody_reads_before_the_verdict(ledger: &Ledger, id: JobId, job: &Job) -> Held {
    if !matches!(job.state, JobState::Queued | JobState::Building) || planted::is(Fault::ShowsUndecided) {
        return Ok(());
    }
    if job.attempts.iter().all(|attempt| attempt.vote().is_none()) && job.late.is_empty() {
        return Ok(());
    }
    let evidence = ledger.evidence(id).expect("an open job has its evidence");
    let hidden = evidence.attestations.is_empty() && evidence.late.is_empty();
    must(hidden, || format!("the evidence of {id:?} is open before its verdict"))?;
    let view = ledger.job(id).expect("a known job");
    let open = |attempt: &AttemptView| matches!(attempt.result, ResultView::Outputs { .. });
    let seen = view.attempts.iter().any(open) || view.late.iter().any(|late| late.digest.is_some());
    must(!seen, || format!("what was built is seen before the verdict: {view:?}"))
}

/// I5: an open job has a deadline of its own, and either somebody works on it or the view says why not.
fn i5_every_open_job_goes_on_or_waits_with_a_reason(ledger: &Ledger, id: JobId, job: &Job) -> Held {
    let has = |due: Due| ledger.deadlines.has(due);
    let waits = || ledger.why_waiting(id, job).is_some();
    let holds = match &job.state {
        JobState::Ended(_) => return Ok(()),
        JobState::Queued | JobState::Building => {
            has(Due::Expiry(id)) && (job.live() > 0 || waits()) && (job.wanted == 0 || has(Due::Announce))
        }
        JobState::Publishing(publishing) => match publishing.step {
            PublishStep::Running { .. } => true,
            PublishStep::Resting { .. } => has(Due::Publish(id)),
            PublishStep::Waiting => waits(),
        },
        JobState::Serving(PublishStep::Resting { .. }) => has(Due::Publish(id)),
        JobState::Serving(_) => true,
    };
    must(holds, || format!("I5: {id:?} neither goes on nor waits with a reason: {job:?}"))
}

fn live_leases_are_the_running_attempts(ledger: &Ledger) -> Held {
    let live: BTreeSet<_> = ledger.leases.keys().copied().collect();
    let attempts = ledger.jobs.values().flat_map(|job| &job.attempts);
    let running: BTreeSet<_> = attempts.filter(|a| a.state.is_live()).map(|a| a.lease).collect();
    let odd: Vec<_> = live.symmetric_difference(&running).collect();
    must(odd.is_empty(), || format!("leases and running attempts differ: {odd:?}"))?;
    let endless = ledger.jobs.values().flat_map(|job| &job.attempts).find(|attempt| {
        attempt.state.is_live()
            && attempt.state.committed().is_none()
            && !ledger.deadlines.has(Due::Attempt(attempt.lease))
    });
    must(endless.is_none(), || format!("an attempt may go on for ever: {endless:?}"))?;
    let mut canaries = ledger.reputation.running_canaries().into_iter();
    let endless = canaries.find(|(number, _)| !ledger.deadlines.has(Due::Attempt(*number)));
    must(endless.is_none(), || format!("a canary may go on for ever: {endless:?}"))?;
    let timed = ledger.leases.values().all(|l| ledger.deadlines.time(Due::Lease(l.number)) == Some(l.expires));
    must(timed, || "a lease without its deadline".into())?;
    let ended = ledger.jobs.values().filter(|job| job.state.is_ended());
    let running = ended.flat_map(|j| &j.attempts).any(|a| matches!(a.state, AttemptState::Running { .. }));
    must(!running, || "an attempt of an ended job runs".into())
}
