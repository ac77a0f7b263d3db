//! What a maintainer orders after a job was submitted: cancel, suspend, resume, retry, another priority.
//!
//! ```text
//!            suspend                                    retry: a fresh round
//!   open <-------------> suspended          ended badly ---------------------> queued
//!            resume                         failed-to-publish ---------------> publishing
//! ```
//!
//! * **Who.** The key that signed the request, or a root.
//! * **No replay.** Each order carries its time. One that is older than the newest that was applied to the job is refused; the
//!   newest itself is answered again, so a client may repeat it. An order that was refused is not remembered: who has it
//!   may send it again, and it is applied when it has become legal.
//! * **Cancel** ends what builders do at once, and what is on its way into a repository while the publisher does not work on it.
//!   What may be out already is cancelled only when a newer generation is known to be without it, see [`crate::withdrawal`]; the
//!   order is answered "not yet" until then, and may be sent again.
//! * **Suspend** takes the leases back at once and gives none until `resume`. The operators keep their turn and nobody is
//!   blamed; what was built already counts. The job's deadline goes on.
//! * **Retry** is for a job that ended as failed, disputed, unreproducible, cancelled or skipped: it is queued again with a fresh
//!   round of opinions, in which every operator has its turn; what the earlier rounds said is kept as evidence and does not
//!   count. A job that could not be published is only published again, and a server job run again. A job whose time is over is
//!   not retried: the maintainer signed for that time only. Each round has its own bound of attempts, and there are at most
//!   [`ROUNDS_MAX`] rounds.

use protocol::{
    Hash, JobId, Timestamp, Verified,
    job::{Change, Order, Priority},
    lease::LeaseNumber,
    limits,
    message::Refusal,
};
use serde::{Deserialize, Serialize};

use crate::{
    KEPT_AFTER_END, Ledger, News, Turn,
    deadlines::Due,
    graph::Ahead,
    job::{Attempt, Ended, Job, JobState, Outcome, PublishStep, Publishing},
    planted::{self, Fault},
    service::Run,
};

/// Refuses what needs inputs or outputs that nodes have let go.
fn still_kept(ended: &Ended, at: Timestamp) -> Result<(), Refusal> {
    if ended.at.after(KEPT_AFTER_END) > at {
        return Ok(());
    }
    let hours = KEPT_AFTER_END.as_secs() / 3600;
    Err(Refusal::Invalid(format!("the job ended over {hours} hours ago, what it needs is let go: submit it anew")))
}

/// Rounds that one job may have, the first included.
pub const ROUNDS_MAX: u32 = 8;
/// Attempts that count no more and are kept for people and for late reports.
const EARLIER_MAX: usize = 96;

/// What was ordered for a job so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    /// Whether it is held.
    pub hold: Hold,
    /// When the newest order was signed, and its id.
    pub last: Option<(Timestamp, Hash)>,
    /// Rounds before this one.
    pub rounds: u32,
    /// Attempts that count no more: of earlier rounds, or ended by a suspension.
    pub earlier: Vec<Attempt>,
    /// How urgent it is now.
    pub priority: Priority,
}

/// Whether a maintainer holds a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hold {
    /// It goes on.
    Not,
    /// It rests.
    Suspended {
        /// Who wants that.
        by: String,
        /// The words.
        reason: String,
    },
}

impl Orders {
    /// Begins with what the request says.
    pub fn new(priority: Priority) -> Self {
        Self { hold: Hold::Not, last: None, rounds: 0, earlier: Vec::new(), priority }
    }
}

impl Ledger {
    pub(crate) fn order(&mut self, order: &Verified<Order>, turn: &mut Turn) {
        match self.obey(order, turn) {
            Ok(()) => turn.done(),
            Err(refusal) => turn.refuse(refusal),
        }
    }

    fn obey(&mut self, signed: &Verified<Order>, turn: &mut Turn) -> Result<(), Refusal> {
        let order = signed.get();
        let id = order.job;
        let by = self.who_orders(signed)?;
        let job = self.jobs.get(&id).expect("who_orders found it");
        if order.at > turn.at.after(limits::CLOCK_SKEW_MAX) {
            let ahead = order.at.since(turn.at).as_secs();
            return Err(Refusal::Invalid(format!(
                "the order was signed {ahead} s in the future: check the signer's clock"
            )));
        }
        match job.orders.last {
            Some((_, last)) if last == signed.id() => return Ok(()),
            Some((at, _)) if order.at <= at => {
                return Err(Refusal::Invalid("a newer order for this job was applied already: sign a new one".into()));
            }
            Some(_) | None => {}
        }
        let reason = order.reason.clone();
        match order.what {
            Change::Cancel => self.cancel(id, reason, turn)?,
            Change::Suspend => self.suspend(id, (by.clone(), reason.clone()), turn)?,
            Change::Resume => self.resume(id, turn)?,
            Change::Retry => self.retry(id, turn)?,
            Change::Reprioritise(priority) => self.reprioritise(id, priority)?,
        }
        let job = self.jobs.get_mut(&id).expect("found above");
        job.orders.last = Some((order.at, signed.id()));
        if order.what != Change::Cancel {
            turn.tell(News::Ordered { job: id, what: order.what.to_string(), by, reason: order.reason.clone() });
        }
        Ok(())
    }

    /// Gives the name of who may order it and did.
    fn who_orders(&self, order: &Verified<Order>) -> Result<String, Refusal> {
        let (id, signers) = (order.get().job, order.signers());
        let job = self.jobs.get(&id).ok_or_else(|| Refusal::Unknown(format!("job {id}")))?;
        let policy = self.policy_in_force();
        if signers.contains(&job.facts.key) {
            if let Some(revoked) = policy.revocation(&job.facts.key) {
                return Err(Refusal::NotAllowed(revoked.to_string()));
            }
            return Ok(job.facts.maintainer.to_string());
        }
        if signers.iter().any(|key| policy.roots.keys.contains(key)) {
            return Ok("a root".to_owned());
        }
        Err(Refusal::NotAllowed(format!(
            "only maintainer {} (key {}) or a root may {} job {}",
            job.facts.maintainer,
            job.facts.key,
            order.get().what,
            id.short()
        )))
    }

    pub(crate) fn cancel(&mut self, id: JobId, reason: String, turn: &mut Turn) -> Result<(), Refusal> {
        let cancelled = |state: &JobState| match state {
            JobState::Ended(ended) => matches!(ended.outcome, Outcome::Cancelled { .. }),
            JobState::Queued | JobState::Building | JobState::Publishing(_) | JobState::Serving(_) => false,
        };
        if cancelled(&self.jobs[&id].state) {
            return Ok(());
        }
        if self.step(id).is_some() {
            return self.cancel_publication(id, reason, turn);
        }
        self.end(id, Outcome::Cancelled { reason: reason.clone() }, turn)
            .map_err(|illegal| Refusal::Invalid(format!("too late to cancel: {illegal}")))?;
        turn.tell(News::Cancelled { job: id, reason });
        Ok(())
    }

    fn suspend(&mut self, id: JobId, (by, reason): (String, String), turn: &mut Turn) -> Result<(), Refusal> {
        let job = &self.jobs[&id];
        if !job.state.wants_builders() || job.facts.is_server() {
            let (word, title) = (job.state.word(), &job.facts.title);
            return Err(Refusal::Invalid(format!("{title} is {word}: only what waits for builders can be suspended")));
        }
        let live: Vec<LeaseNumber> = job.attempts.iter().filter(|a| a.state.is_live()).map(|a| a.lease).collect();
        self.close_builds(id, &format!("the job was suspended by {by}"), turn);
        let job = self.jobs.get_mut(&id).expect("seen above");
        let attempts = std::mem::take(&mut job.attempts);
        // Who was interrupted by an order keeps its turn.
        let (stopped, kept) = attempts.into_iter().partition(|attempt| live.contains(&attempt.lease));
        job.attempts = kept;
        job.orders.hold = Hold::Suspended { by, reason };
        let next = if job.attempts.iter().any(Attempt::is_spent) { JobState::Building } else { JobState::Queued };
        job.state.become_state(next).expect("an open job is queued or building");
        self.set_aside(id, stopped);
        Ok(())
    }

    fn resume(&mut self, id: JobId, turn: &mut Turn) -> Result<(), Refusal> {
        let job = self.jobs.get_mut(&id).expect("who_orders found it");
        if job.orders.hold == Hold::Not || job.state.is_ended() {
            return Err(Refusal::Invalid(format!("the job is {} and not suspended", job.state.word())));
        }
        job.orders.hold = Hold::Not;
        self.settle(id, turn);
        Ok(())
    }

    fn reprioritise(&mut self, id: JobId, priority: Priority) -> Result<(), Refusal> {
        let job = self.jobs.get_mut(&id).expect("who_orders found it");
        if !job.state.wants_builders() {
            let word = job.state.word();
            return Err(Refusal::Invalid(format!("the job is {word}: only what waits for builders has a priority")));
        }
        job.orders.priority = priority;
        if job.wanted > 0 {
            self.queue.put(id, job);
        }
        Ok(())
    }

    fn retry(&mut self, id: JobId, turn: &mut Turn) -> Result<(), Refusal> {
        let job = &self.jobs[&id];
        let JobState::Ended(ended) = &job.state else {
            let word = job.state.word();
            return Err(Refusal::Invalid(format!("the job is {word}: only one that ended badly can be retried")));
        };
        if self.policy_in_force().expires <= turn.at {
            return Err(Refusal::NotAllowed("the network's policy has expired: its roots must sign a new one".into()));
        }
        match &ended.outcome {
            Outcome::Reproduced(_) | Outcome::Published { .. } | Outcome::Served { .. } => {
                Err(Refusal::Invalid("the job ended well: there is nothing to retry".into()))
            }
            Outcome::Expired => Err(Refusal::Invalid("the job's time is over: submit a new request".into())),
            Outcome::Unpublished { agreement, .. } => {
                let agreement = agreement.clone();
                still_kept(ended, turn.at)?;
                self.may_have_a_round(id)?;
                self.reopen(id, JobState::Publishing(Publishing { agreement, step: PublishStep::Waiting }), turn);
                let channel = self.jobs[&id].facts.channel.clone();
                self.queue_publication(id, &channel, turn);
                Ok(())
            }
            Outcome::Disputed(_)
            | Outcome::Unreproducible(_)
            | Outcome::Failed(_)
            | Outcome::Cancelled { .. }
            | Outcome::Skipped { .. } => {
                still_kept(ended, turn.at)?;
                self.may_begin_again(id, turn.at)?;
                self.fresh_round(id, turn);
                Ok(())
            }
            // What the publisher does needs nothing that builders had.
            Outcome::Unserved { .. } => {
                self.may_begin_again(id, turn.at)?;
                self.fresh_round(id, turn);
                Ok(())
            }
        }
    }

    fn may_have_a_round(&self, id: JobId) -> Result<(), Refusal> {
        let job = &self.jobs[&id];
        if !self.dossiers.contains_key(&id) {
            return Err(Refusal::Invalid(
                "the job ended long ago and its request is forgotten: submit a new one".into(),
            ));
        }
        if job.orders.rounds + 1 >= ROUNDS_MAX {
            return Err(Refusal::Invalid(format!("the job had its {ROUNDS_MAX} rounds: submit a new request")));
        }
        self.may_open_one_more(job.facts.key, &job.facts.maintainer)
    }

    fn may_begin_again(&self, id: JobId, at: Timestamp) -> Result<(), Refusal> {
        let job = &self.jobs[&id];
        if job.facts.expires <= at {
            return Err(Refusal::Invalid("the job's time is over: submit a new request".into()));
        }
        if let Some(Ahead::Failed(of)) = self.ahead_of_retry(job) {
            return Err(Refusal::Invalid(format!(
                "job {} that it waits for did not end well: retry that first",
                of.short()
            )));
        }
        self.may_have_a_round(id)
    }

    /// Says what a job waits for once it has no attempts.
    fn ahead_of_retry(&self, job: &Job) -> Option<Ahead> {
        let blank = Job::new(job.facts.clone(), job.place.clone());
        Some(self.ahead(&blank)).filter(|ahead| *ahead != Ahead::Free)
    }

    /// Begins the next round: what was said so far is evidence and counts no more.
    fn fresh_round(&mut self, id: JobId, turn: &mut Turn) {
        let job = self.jobs.get_mut(&id).expect("seen by the caller");
        let earlier = std::mem::take(&mut job.attempts);
        job.pauses.clear();
        job.orders.hold = Hold::Not;
        if let Some(dossier) = self.dossiers.get_mut(&id) {
            // A bundle holds the votes of the round that decided.
            dossier.late.append(&mut dossier.attestations);
        }
        self.set_aside(id, earlier);
        self.reopen(id, JobState::Queued, turn);
        self.settle(id, turn);
    }

    fn reopen(&mut self, id: JobId, state: JobState, turn: &mut Turn) {
        let job = self.jobs.get_mut(&id).expect("seen by the caller");
        job.orders.rounds += 1;
        job.run = Run::default();
        // The one way out of an end, and only by a signed order.
        job.state = state;
        let (expires, key) = (job.facts.expires, job.facts.key);
        self.ended.retain(|ended| *ended != id);
        self.open.insert(id, key);
        if expires > turn.at {
            self.deadlines.set(Due::Expiry(id), expires);
        } else {
            self.look_again(id, turn);
        }
    }

    /// Keeps attempts that count no more, the newest of them.
    fn set_aside(&mut self, id: JobId, attempts: Vec<Attempt>) {
        let job = self.jobs.get_mut(&id).expect("seen by the caller");
        job.orders.earlier.extend(attempts);
        let over = job.orders.earlier.len().saturating_sub(EARLIER_MAX);
        for attempt in job.orders.earlier.drain(..over) {
            self.job_of_lease.remove(&attempt.lease);
        }
    }

    /// Checks how many jobs a maintainer has open.
    ///
    /// # Errors
    /// When it may open no more.
    pub(crate) fn may_open_one_more(
        &self,
        key: protocol::PublicKey,
        maintainer: &protocol::MaintainerName,
    ) -> Result<(), Refusal> {
        let policy = self.policy_in_force();
        let open = self.open.count_of(&key);
        if open >= policy.limits.open_jobs as usize && !planted::is(Fault::NoLimit) {
            return Err(Refusal::Busy(format!(
                "maintainer {maintainer} has {open} open jobs, the policy allows {}: wait for one to end or cancel one",
                policy.limits.open_jobs
            )));
        }
        Ok(())
    }
}
