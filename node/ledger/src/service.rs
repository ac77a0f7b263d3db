//! Server jobs: what the coordinator's publisher does, as jobs with a state, steps, a log and an expected end.
//!
//! ```text
//!            turn in the channel's line          Published
//!   queued -----------------------------> running ----------> done
//!                                          |   ^  PublishFailed, again later
//!                                          v   |
//!                                         resting ----------> failed-to-run, cancelled
//! ```
//!
//! What a job makes depends on more than the ledger knows: the channel that it reads moves, and so does the policy. So a try
//! that may be out is never made again under its number: everybody is asked for it, and what is found or made becomes a fresh
//! generation.
//!
//! They share the line of their channel with publications, see [`crate::releases`]: one change of a repository at a time,
//! and generations only grow. What changes nothing (a comparison) needs no turn. A publication that follows a build is shown
//! as a job of its own, whose id follows from the build's; it has no request, since the build's request asked for it.

use protocol::{ChannelName, Hash, JobId, Timestamp, job::ServerJob, message::Refusal, policy::Policy};
use serde::{Deserialize, Serialize};

use crate::{
    Doubt, Effect, Ledger, Left, Turn,
    job::{JobState, PublishStep},
    schedule::cut,
    withdrawal::Aim,
};

/// Steps that are kept of one run.
pub(crate) const STEPS_MAX: usize = 32;

/// One step of the publisher's work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What was done, in a word or two.
    pub name: String,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
}

/// What the publisher tells of its last try.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// BLAKE3 of the log.
    pub log: Option<Hash>,
    /// Its steps in order, at most 32.
    pub steps: Vec<Step>,
    /// BLAKE3 of a result for programs, where there is one.
    pub result: Option<Hash>,
    /// What came of it, in one sentence.
    pub summary: String,
}

/// The publisher's work for one job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// How it is to end.
    #[serde(default, skip_serializing_if = "crate::snapshot::is_default")]
    pub aim: Aim,
    /// When its turn came.
    pub began: Option<Timestamp>,
    /// The oldest generation that may be out without anybody having said so; 0 when none may.
    #[serde(default, skip_serializing_if = "crate::snapshot::is_default")]
    pub since: u64,
    /// When it came into the line.
    pub queued: Option<Timestamp>,
    /// What the publisher told.
    pub account: Account,
    /// Why the last try failed; empty when none did.
    pub trouble: String,
}

/// A server job, ready to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The job.
    pub job: JobId,
    /// The channel.
    pub channel: ChannelName,
    /// Whether an earlier try may be out.
    pub doubt: Doubt,
    /// The generation that it becomes; another one when an earlier try may be out; zero for one that changes nothing.
    pub generation: u64,
    /// What to do.
    pub work: ServerJob,
    /// The signed request: evidence for those who follow the channel.
    pub request: Vec<u8>,
}

/// Gives the id of the publication that follows a build.
pub fn publication_id(build: &JobId) -> JobId {
    JobId::from(Hash::of(&[b"artel publish ".as_slice(), build.as_bytes()].concat()))
}

impl Ledger {
    /// Brings a server job into its line, or has it run where it needs no turn.
    pub(crate) fn queue_service(&mut self, id: JobId, turn: &mut Turn) {
        let Some(work) = self.server_job(id) else { return };
        let channel = self.jobs[&id].facts.channel.clone();
        if work.changes_repository() {
            let waits = self.lines.get(&channel).is_some_and(|line| line.queue.contains(&id));
            if !waits {
                self.queue_publication(id, &channel, turn);
            }
        } else if let Err(why) = self.still_allowed(id) {
            self.give_up(id, why, turn);
        } else {
            self.note_queued(id, turn);
            self.begin_run(id, 0, turn);
        }
    }

    /// Begins the work of a job whose turn it is.
    pub(crate) fn begin_run(&mut self, id: JobId, generation: u64, turn: &mut Turn) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.run.began = Some(turn.at);
        }
        self.set_step(id, PublishStep::Running { tries: 0, generation, left: Left::Nothing });
        self.say_publication(id, turn);
    }

    pub(crate) fn note_queued(&mut self, id: JobId, turn: &Turn) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.run.queued = Some(turn.at);
        }
    }

    /// Takes what the publisher tells of a try, before it says how the try ended.
    pub(crate) fn ran(&mut self, id: JobId, account: Account) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if !matches!(job.state, JobState::Publishing(_) | JobState::Serving(_)) {
            return;
        }
        let steps = account.steps.into_iter().take(STEPS_MAX).map(|step| Step { name: cut(step.name), ..step });
        job.run.account = Account { steps: steps.collect(), summary: cut(account.summary), ..account };
    }

    /// Remembers how long this kind of work takes in the channel: half of it from the newest, half from before.
    pub(crate) fn note_duration(&mut self, id: JobId, turn: &Turn) {
        let job = &self.jobs[&id];
        let (Some(began), channel) = (job.run.began, job.facts.channel.clone()) else { return };
        let word = job.facts.service_word().to_owned();
        let took = u64::try_from(turn.at.since(began).as_millis()).unwrap_or(u64::MAX);
        let known = self.lines.entry(channel).or_default().took.entry(word).or_insert(took);
        *known = known.midpoint(took);
    }

    /// Says when the publisher's work for a job is expected to end; nothing before the first of its kind has ended.
    pub(crate) fn expected_end(&self, id: JobId) -> Option<Timestamp> {
        let job = self.jobs.get(&id)?;
        let line = self.lines.get(&job.facts.channel)?;
        let typical = |id: &JobId| line.took.get(self.jobs.get(id)?.facts.service_word()).copied();
        let after = |from: Timestamp, ms: u64| from.after(std::time::Duration::from_millis(ms));
        match (self.step(id)?, job.run.began) {
            (PublishStep::Running { .. }, Some(began)) => Some(after(began, typical(&id)?).max(self.last_command())),
            (PublishStep::Waiting, _) => {
                let before = line.queue.iter().take_while(|waiting| **waiting != id);
                let total = before.map(&typical).sum::<Option<u64>>()?.saturating_add(typical(&id)?);
                Some(after(self.last_command(), total))
            }
            (PublishStep::Running { .. } | PublishStep::Resting { .. }, _) => None,
        }
    }

    /// Tells the publisher of a server job that is under way; it may have heard it before.
    pub(crate) fn say_service(&self, id: JobId, (generation, doubt): (u64, Doubt), turn: &mut Turn) {
        let (Some(work), Some(dossier)) = (self.server_job(id), self.dossiers.get(&id)) else { return };
        let (channel, request) = (self.jobs[&id].facts.channel.clone(), dossier.request.to_bytes());
        turn.push(Effect::Serve(Service { job: id, channel, doubt, generation, work, request }));
    }

    fn server_job(&self, id: JobId) -> Option<ServerJob> {
        self.dossiers.get(&id)?.request.get().server().cloned()
    }

    /// Holds a server job against the policy in force: its channels must be there, and who signed it must still be allowed to.
    pub(crate) fn still_allowed(&self, id: JobId) -> Result<(), String> {
        let policy = self.policy_in_force();
        let Some(work) = self.server_job(id) else { return Err("its request is no longer kept".into()) };
        let facts = &self.jobs[&id].facts;
        check_channels(&work, &facts.channel, policy).map_err(|refusal| refusal.to_string())?;
        let maintains = |m: &protocol::policy::Maintainer| m.channels.binary_search(&facts.channel).is_ok();
        if policy.maintainer(&facts.key).is_some_and(maintains) || policy.roots.keys.contains(&facts.key) {
            return Ok(());
        }
        Err(format!("{} may no longer change channel {}", facts.maintainer, facts.channel))
    }
}

/// Checks that every channel of a server job is in the policy.
pub(crate) fn check_channels(work: &ServerJob, own: &ChannelName, policy: &Policy) -> Result<(), Refusal> {
    let mut named = work.reads();
    named.push(own);
    match named.into_iter().find(|name| policy.channel(name).is_none()) {
        Some(missing) => Err(Refusal::Invalid(format!("there is no channel {missing} in the policy"))),
        None => Ok(()),
    }
}
