//! The coordinator's decisions: a deterministic state machine. One command in, effects out.
//!
//! ```text
//!   Command --apply(at, ..)--> Vec<Effect>          the same commands at the same times give the same ledger
//!
//!                         lease ended early, nobody has it
//!                       +----------------------------------+
//!   Submit              v            a lease               |
//!  ----------------> queued -----------------------------> building
//!                       |                                  |
//!    cancelled <--------+--- Cancel, request.expires ------+
//!    expired            |                                  |
//!    failed  <----------+--- quorum, poison, exhausted ----+--> disputed | unreproducible
//!                                                          |
//!                                         k operators agree|
//!                                       (command) +--------+--------+ (deb)
//!                                                 v                 v      PublishFailed, again later
//!                                            reproduced        publishing <--+
//!                                                              |    |    |   |
//!                                       Published              v    v    +---+
//!                                                       published  failed-to-publish   (for good, or out of time)
//!                                                                          cancelled           (while it rests)
//! ```
//!
//! # Rules
//!
//! * **Order.** What is applied is durable before its effects are performed; an effect may be performed twice.
//! * **Leases** carry numbers that only grow, over all jobs. A report under a lease that is over is kept as evidence, is
//!   answered politely and decides nothing.
//! * **One operator, one turn** for each job. The turn is over when an attempt ended with outputs or a failure, whoever is to
//!   blame; it is not over when the attempt was declined or cut off (expired, connection gone, builder restarted). Then
//!   operators that had no turn come first, the operator's other nodes next, and the same node after a pause: 10 s after
//!   a first interruption, 2 s after a first refusal, doubled each time up to 10 minutes. So a network of as many operators as
//!   must agree goes on after any of them restarted.
//!   A builder's own fault (disk, sandbox, wrong input) ends its operator's turn too, but is no opinion about the job: another
//!   operator is asked instead. When nobody is left, those that could not try have another turn after a pause, doubled like the
//!   others: the job waits and says so. It ends as failed only when its attempts are used up.
//! * **Profiles.** Each lease of a job has another profile number, counted up from 0 and never given twice.
//! * **Publication** is one at a time in each channel, in the order of the verdicts; generations only grow. What passes (a full
//!   disk, a node that is away) is tried again, after at most an hour and until the job's time is over; what lasts ends the job at
//!   once. A try that certainly showed nothing holds up no other. One that may have (it was said in an earlier term, or failed
//!   after it began to write) keeps its generation and its place until its outcome is known: its job would vanish from the
//!   generation between; one that is given up or cancelled then ends only when a generation above all that may be out says how,
//!   see [`withdrawal`]. A generation whose publisher gave up is not used again, since parts of it may have been seen. What waits is held against the policy in
//!   force when its turn comes; under an expired policy nothing is published.
//! * **Jobs that wait for jobs** begin when all of those ended well and are skipped when one did not, see [`graph`].
//! * **Explanations** of a disagreement are wanted beside the verdict and hold up nothing, see [`explain`].
//! * **Server jobs** wait in the same line as publications and are run by the publisher, see [`service`].
//! * **Failures** are the job's only when a quorum of operators, each of which has proven that it can build such jobs, names
//!   the same step. Other endings: see [`tally`]. What verdicts say about builders: see [`reputation`].
//! * **Time** is an argument and may jump. Backwards: every deadline is pulled back to at most its usual distance. Forwards by
//!   more than two lease times without a command: nobody listened, so leases get a fresh time instead of expiring.
//!
//! # Memory
//!
//! Open jobs are limited by the policy, for each maintainer. The newest [`ENDED_FULL_MAX`] ended jobs keep their request, their
//! attestations and lists of outputs; older ones keep facts, attempts and verdict (about 2 KiB). Beyond [`ENDED_MAX`] the
//! oldest are forgotten, once their request has expired, since from then on the same request is refused as expired.
//!
//! What it does not do: no I/O, no clock, no randomness, no hash map; it holds no logs and no contents of files.

pub mod command;
pub mod commitments;
pub mod course;
pub mod effect;
pub mod evidence;
pub mod explain;
pub mod graph;
pub mod job;
pub mod log;
pub mod reputation;
pub mod service;
pub mod signers;
pub mod snapshot;
pub mod tally;
pub mod view;
pub mod withdrawal;

pub mod orders;

mod admission;
mod allowance;
mod deadlines;
mod environments;
mod open;
mod pace;
mod peers;
mod planted;
mod queue;
mod recipes;
mod releases;
mod reports;
mod revocation;
mod schedule;
mod shelf;
mod timer;

#[cfg(test)]
mod invariants;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

pub use command::{Cause, Command, Left};
pub use commitments::{Grounds, Opening};
pub use effect::{Doubt, Effect, News, Publication, Withdrawal};
pub use evidence::Evidence;
pub use peers::Duty;
pub use reports::unknown_lease;
pub use service::Service;

use attest::log::entry::Event;
use protocol::{
    ChannelName, JobId, NetworkId, NodeId, Timestamp, Verified,
    lease::{Lease, LeaseNumber},
    message::{Octets, Refusal, Response},
    policy::{self, Policy, SuccessionError},
};

use crate::{
    deadlines::{Deadlines, Due},
    environments::Environments,
    evidence::Dossier,
    job::{Ended, IllegalTransition, Job, JobState, Outcome},
    open::Open,
    pace::Pace,
    peers::{Known, Peers},
    queue::Queue,
    reputation::Reputation,
    shelf::Shelf,
};

/// For how long after its end nodes keep what a job needs and what it made.
pub const KEPT_AFTER_END: Duration = Duration::from_secs(24 * 3600);
/// Ended jobs that keep their evidence.
pub const ENDED_FULL_MAX: usize = 256;
/// Ended jobs that are kept at all while their requests could still be replayed, and beyond that only so many.
pub const ENDED_MAX: usize = 20_000;

/// The state of one network's coordinator.
#[derive(Debug, Clone)]
pub struct Ledger {
    network: NetworkId,
    /// The chain of policies, never empty, the one in force last.
    policies: Vec<Verified<Policy>>,
    jobs: Shelf<JobId, Job>,
    /// Jobs that are not over.
    open: Open,
    /// Jobs that are over, in the order in which they ended, whatever the clock said.
    ended: VecDeque<JobId>,
    dossiers: Shelf<JobId, Dossier>,
    /// Live leases.
    leases: BTreeMap<LeaseNumber, Lease>,
    /// The job of every attempt that is kept in full, by lease.
    job_of_lease: BTreeMap<LeaseNumber, JobId>,
    /// The highest lease number that was ever given.
    last_lease: u64,
    /// The repository of each channel.
    lines: BTreeMap<ChannelName, releases::Line>,
    /// Jobs that want builders, in their fair order.
    queue: Queue,
    peers: Peers,
    /// Live leases of each node.
    held_by: BTreeMap<NodeId, BTreeSet<LeaseNumber>>,
    pace: Pace,
    /// The certificates of the coordinators' repository keys.
    signers: BTreeMap<NodeId, Octets>,
    /// What builders have shown.
    reputation: Reputation,
    /// The job of every explanation, by the explanation's id.
    explained: BTreeMap<JobId, JobId>,
    environments: Environments,
    /// Recipes and their runs.
    book: recipes::Book,
    /// How far the transparency log is.
    log: log::Log,
    deadlines: Deadlines,
    /// When the last command was applied, and the timer that was asked for then.
    clock: timer::Clock,
}

/// One call of [`Ledger::apply`]: its time and what it wants done.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) at: Timestamp,
    effects: Vec<Effect>,
    events: Vec<Event>,
}

impl Turn {
    pub(crate) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Notes something for the transparency log.
    pub(crate) fn log(&mut self, event: Event) {
        self.events.push(event);
    }

    pub(crate) fn answer(&mut self, response: Response) {
        self.push(Effect::Answer(response));
    }

    pub(crate) fn done(&mut self) {
        self.answer(Response::Done);
    }

    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        self.answer(Response::Refused(refusal));
    }

    pub(crate) fn tell(&mut self, news: News) {
        self.push(Effect::Notify(news));
    }
}

impl Ledger {
    /// Begins a network with its first policy.
    ///
    /// # Errors
    /// When the policy is not the network's genesis, or too few of its own roots signed it.
    pub fn new(network: NetworkId, genesis: Verified<Policy>) -> Result<Self, SuccessionError> {
        // A genesis may have expired since: then it adopts a successor and accepts nothing before.
        if policy::check_genesis(&genesis, Timestamp::ZERO)? != network {
            return Err(SuccessionError::OtherNetwork);
        }
        let peers = Peers::new(Known::default(), genesis.get());
        Ok(Self {
            network,
            policies: vec![genesis],
            jobs: Shelf::default(),
            open: Open::default(),
            ended: VecDeque::new(),
            dossiers: Shelf::default(),
            leases: BTreeMap::new(),
            job_of_lease: BTreeMap::new(),
            last_lease: 0,
            lines: BTreeMap::new(),
            queue: Queue::default(),
            peers,
            held_by: BTreeMap::new(),
            pace: Pace::default(),
            signers: BTreeMap::new(),
            reputation: Reputation::default(),
            explained: BTreeMap::new(),
            environments: Environments::default(),
            book: recipes::Book::default(),
            log: log::Log::default(),
            deadlines: Deadlines::default(),
            clock: timer::Clock::default(),
        })
    }

    /// Applies one command at one time and says what is to be done.
    ///
    /// # Panics
    /// Never for what a peer sends; only when an invariant of the ledger itself is broken.
    #[must_use = "effects must be performed, in order"]
    pub fn apply(&mut self, at: Timestamp, command: Command) -> Vec<Effect> {
        let mut turn = Turn { at, effects: Vec::new(), events: Vec::new() };
        self.keep_time(at);
        self.begin_log(&mut turn);
        let woken = matches!(command, Command::Woken | Command::Restarted);
        match command {
            Command::AdoptPolicy(policy) => self.adopt_policy(policy, &mut turn),
            Command::Submit(request) => self.submit(request, &mut turn),
            Command::Order(order) => self.order(&order, &mut turn),
            Command::Bid { node, bid } => self.bid(node, &bid, &mut turn),
            Command::Offer { node, offer } => self.offer(node, &offer, &mut turn),
            Command::Card { node, capacity, duty } => self.card(node, capacity, duty, &mut turn),
            Command::Declined { node, lease, why } => self.declined(node, lease, why, &mut turn),
            Command::Renewed { node, renewals } => self.renewed(node, renewals, &mut turn),
            Command::Started { node, lease } => self.started(node, lease, &mut turn),
            Command::Committed { node, commitment } => self.committed(node, commitment, &mut turn),
            Command::Revealed { node, lease, log, opening, attestation } => {
                self.revealed(node, (lease, log, opening), attestation, &mut turn);
            }
            Command::Failed { node, report } => self.failed(node, report, &mut turn),
            Command::Lost { node } => self.peers.lost(node),
            Command::Woken => {}
            Command::Restarted => self.restarted(&mut turn),
            Command::Published { job, generation } => self.published(job, generation, &mut turn),
            Command::PublishFailed { job, generation, cause, left, why } => {
                self.publish_failed((job, generation), (cause, left), why, &mut turn);
            }
            Command::Found { job, generation } => self.found(job, generation, &mut turn),
            Command::Withdrawn { job, generation } => self.withdrawn(job, generation, &mut turn),
            Command::Signer { node, certificate } => self.signer(node, certificate, &mut turn),
            Command::Released(release) => self.log_release(&release, &mut turn),
            Command::Resign { channel } => self.resign(channel, &mut turn),
            Command::Ran { job, account } => self.ran(job, account),
            Command::Explained { explanation, findings } => self.take_findings(explanation, findings, &turn),
            Command::Recipe(recipe) => self.keep_recipe(recipe, &mut turn),
            Command::RecipeRun(run) => self.keep_run(run, &mut turn),
        }
        self.fall_due(&mut turn);
        self.write_log(&mut turn);
        self.forget_old(at);
        self.ask_for_timer(woken, &mut turn);
        turn.effects
    }

    /// Gives the policy in force.
    pub(crate) fn policy_in_force(&self) -> &Policy {
        self.policies.last().expect("the chain begins with the genesis and only grows").get()
    }

    /// Ends a job: revokes its leases, forgets its deadlines and bidders.
    pub(crate) fn end(&mut self, id: JobId, outcome: Outcome, turn: &mut Turn) -> Result<(), IllegalTransition> {
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(()) };
        let (reason, key) = (format!("the job is {}", outcome.word()), job.facts.key);
        job.state.become_state(JobState::Ended(Ended { at: turn.at, outcome }))?;
        self.close_builds(id, &reason, turn);
        self.deadlines.clear(Due::Begin(id));
        self.resolve_reports(id, turn);
        self.deadlines.clear(Due::Expiry(id));
        self.deadlines.clear(Due::Publish(id));
        self.deadlines.clear(Due::Reports(id));
        self.deadlines.clear(Due::Reveal(id));
        self.open.remove(&id, &key);
        self.ended.push_back(id);
        self.leave_queue(id);
        self.slim_one_more();
        self.tell_dependents(id, turn);
        Ok(())
    }

    /// Drops the evidence of the job that has just left the newest [`ENDED_FULL_MAX`].
    fn slim_one_more(&mut self) {
        let Some(old) = self.ended.iter().rev().nth(ENDED_FULL_MAX).copied() else { return };
        self.dossiers.remove(&old);
        if let Some(job) = self.jobs.get_mut(&old) {
            for attempt in job.every_attempt() {
                self.job_of_lease.remove(&attempt.lease);
            }
            job.slim();
        }
    }

    fn forget_old(&mut self, at: Timestamp) {
        while self.ended.len() > ENDED_MAX {
            // One whose time is not over may be handed in again; it does not keep those behind it.
            let over = |id: &JobId| self.jobs.get(id).is_none_or(|job| job.facts.expires <= at);
            let Some(oldest) = self.ended.iter().position(over).and_then(|place| self.ended.remove(place)) else {
                return;
            };
            self.forget_publication(oldest);
            self.forget_explanations(&oldest);
            self.jobs.remove(&oldest);
        }
    }
}
