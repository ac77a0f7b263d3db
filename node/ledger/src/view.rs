//! What people see: plain data about jobs, attempts and verdicts. Views change nothing and hold no references.

mod crowd;
mod decided;
mod explain;
mod peer;
mod phrase;
mod service;
mod waiting;

pub use decided::{Decided, Verdict};
pub use peer::{BreachView, ClassView, PeerView};

use attest::{compare::Output, statement::VerifiedAttestation};
use protocol::{
    Arch, ChannelName, Hash, JobId, MaintainerName, NodeId, OperatorName, Timestamp, Verified,
    blame::Failure,
    job::JobRequest,
    lease::{Lease, LeaseNumber, Profile},
    policy::Policy,
};
use serde::Serialize;

pub use explain::ExplanationView;
pub use service::{Link, Relation, RunView};

use crate::{
    Evidence, Ledger, commitments, course,
    job::{Attempt, AttemptState, Job, JobState, LateReport, Outcome},
    tally::{Agreement, Comparison, Difference, Dissent, Group, JobFailure},
};

/// One job, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobView {
    /// The job's id.
    pub id: JobId,
    /// What it builds, in one line.
    pub title: String,
    /// `deb`, `rpm`, `command`, or a server job's word.
    pub kind: String,
    /// The architecture that it builds on.
    pub arch: Arch,
    /// `queued`, `building`, `publishing`, `running` or how it ended.
    pub state: String,
    /// The channel.
    pub channel: ChannelName,
    /// Whose signature made it valid.
    pub maintainer: MaintainerName,
    /// Its times.
    pub times: Times,
    /// Its attempts, in order of their leases.
    pub attempts: Vec<AttemptView>,
    /// Attempts that count no more: of earlier rounds, or ended by a suspension.
    pub earlier: Vec<AttemptView>,
    /// What the attempts add up to.
    pub verdict: VerdictView,
    /// Reports that came under leases that were over.
    pub late: Vec<LateView>,
    /// Why nothing moves, in one sentence; none when something does.
    pub waiting: Option<String>,
    /// When it begins and ends, as far as is known.
    pub expected: Expected,
    /// The jobs that it was asked for with.
    pub group: Option<protocol::job::Group>,
}

/// As much of a job as a list is chosen by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brief {
    /// The job's id.
    pub id: JobId,
    /// `deb`, `rpm`, `command` or what a server job does.
    pub kind: String,
    /// What it is built for.
    pub arch: Arch,
    /// The state's word.
    pub state: &'static str,
    /// The channel.
    pub channel: ChannelName,
    /// When it became durable here.
    pub accepted: Timestamp,
    /// The group that it belongs to.
    pub group: Option<Hash>,
}

/// When an open job begins and ends, judged by what such jobs took; a guess for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// When the first sandbox starts; none when one has, or nothing is known.
    pub start: Option<Timestamp>,
    /// When its builds end; none when nothing is known.
    pub end: Option<Timestamp>,
}

/// When things happened to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Times {
    /// When the maintainer signed.
    pub created: Timestamp,
    /// When it became durable here.
    pub accepted: Timestamp,
    /// When its time runs out.
    pub expires: Timestamp,
    /// When it ended, where it did.
    pub ended: Option<Timestamp>,
}

/// One attempt, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttemptView {
    /// The builder.
    pub node: NodeId,
    /// Who answers for it.
    pub operator: OperatorName,
    /// The lease.
    pub lease: LeaseNumber,
    /// The variation.
    pub profile: Profile,
    /// `granted`, `running`, `committed`, `revealed`, `failed`, `interrupted` or `revoked`.
    pub state: String,
    /// What it does now, while it runs.
    pub phase: Option<String>,
    /// When its lease was granted.
    pub granted: Timestamp,
    /// When its sandbox started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// BLAKE3 of its log.
    pub log: Option<Hash>,
    /// How it ended.
    pub result: ResultView,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum ResultView {
    /// Not at all, so far.
    None,
    /// With outputs that nobody may see before the verdict.
    Sealed,
    /// With outputs.
    Outputs {
        /// The digest of the set.
        digest: Hash,
        /// The files; empty once the job is long over.
        outputs: Vec<Output>,
        /// The attestation's id.
        attestation: Hash,
    },
    /// Without.
    Failed(Failure),
    /// Cut off, or ended by us.
    Stopped {
        /// Why.
        why: String,
    },
}

/// A report that came under a lease that was over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LateView {
    /// When it came.
    pub at: Timestamp,
    /// The lease.
    pub lease: LeaseNumber,
    /// What it said: the digest of its outputs; none before the verdict.
    pub digest: Option<Hash>,
    /// What it said: a failure.
    pub failure: Option<Failure>,
}

/// What the attempts of a job add up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum VerdictView {
    /// Nothing yet, or the job ended without one.
    Pending,
    /// k operators agree.
    Reproduced {
        /// The digest of the agreed set of outputs.
        digest: Hash,
        /// Operators that agree.
        agree: Vec<OperatorName>,
        /// Who differs, with both hashes.
        dissent: Vec<Dissent>,
        /// The agreed files; empty once the job is long over.
        outputs: Vec<Output>,
        /// The repository's generation, once published.
        generation: Option<u64>,
        /// Why it could not be published, where that is so.
        unpublished: Option<String>,
    },
    /// Some agree, too few.
    Disputed {
        /// Who agrees with whom.
        groups: Vec<Group>,
        /// The files that differ.
        files: Vec<Difference>,
    },
    /// No two agree.
    Unreproducible {
        /// Who built what.
        groups: Vec<Group>,
        /// The files that differ.
        files: Vec<Difference>,
    },
    /// It does not build.
    Failed {
        /// One sentence.
        why: String,
        /// The same for programs.
        failure: JobFailure,
    },
    /// A job that it waits for did not end well.
    Skipped {
        /// That job.
        of: JobId,
        /// One sentence.
        why: String,
    },
    /// A server job is done.
    Served {
        /// The repository's generation; zero when nothing was changed.
        generation: u64,
        /// What came of it, in one sentence.
        summary: String,
    },
    /// Who asked for it, or the roots, ended it.
    Cancelled {
        /// The words, perhaps none.
        why: String,
    },
    /// A server job could not be done.
    Unserved {
        /// Why.
        why: String,
    },
}

/// One lease that lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeaseView {
    /// The lease.
    pub lease: Lease,
    /// Who answers for the builder.
    pub operator: OperatorName,
}

impl Ledger {
    /// Gives every job that was submitted, the newest first.
    pub fn jobs(&self) -> Vec<JobView> {
        newest_first(self.jobs.iter().map(|(id, job)| self.view(*id, job)).collect())
    }

    /// Gives a line for every job, publications that follow builds included, the newest first. A whole view costs a look at
    /// every peer, so lists choose by these.
    pub fn briefs(&self) -> Vec<Brief> {
        let submitted = self.jobs.iter().map(|(id, job)| Brief {
            id: *id,
            kind: job.facts.kind.clone(),
            arch: job.facts.arch,
            state: job.state.word(),
            channel: job.facts.channel.clone(),
            accepted: job.facts.accepted,
            group: job.facts.schedule.group.as_ref().map(|group| group.id),
        });
        let mut briefs: Vec<_> = submitted.chain(self.publication_briefs()).chain(self.explanation_briefs()).collect();
        briefs.sort_by_key(|brief| (std::cmp::Reverse(brief.accepted), brief.id));
        briefs
    }

    /// Gives the word of every job's state, as [`Ledger::briefs`] have it, in no order.
    pub fn states(&self) -> impl Iterator<Item = &'static str> {
        let others = self.publication_briefs().chain(self.explanation_briefs());
        self.jobs.iter().map(|(_, job)| job.state.word()).chain(others.map(|brief| brief.state))
    }

    /// Gives one job.
    pub fn job(&self, id: JobId) -> Option<JobView> {
        self.jobs
            .get(&id)
            .map(|job| self.view(id, job))
            .or_else(|| self.publication(id))
            .or_else(|| self.explanation_job(id))
    }

    /// Counts the leases that live.
    pub fn live_leases(&self) -> usize {
        self.leases.len()
    }

    /// Gives a lease that lives.
    pub fn lease(&self, number: LeaseNumber) -> Option<LeaseView> {
        let lease = self.leases.get(&number)?;
        let operator = self.jobs.get(&lease.job)?.attempt(number)?.operator.clone();
        Some(LeaseView { lease: lease.clone(), operator })
    }

    /// Gives a job's signed request, while it is kept.
    pub fn request(&self, id: JobId) -> Option<&Verified<JobRequest>> {
        self.dossiers.get(&id).map(|dossier| &dossier.request)
    }

    /// Gives what a bundle of the job needs, while it is kept. Before the verdict there are no attestations in it.
    pub fn evidence(&self, id: JobId) -> Option<Evidence> {
        let dossier = self.dossiers.get(&id)?;
        let open = self.jobs.get(&id).is_some_and(commitments::is_open);
        let bytes = |list: &[VerifiedAttestation]| {
            list.iter().filter(|_| open).map(|attestation| attestation.bytes().to_vec()).collect()
        };
        Some(Evidence {
            request: dossier.request.to_bytes(),
            policies: self.policies.iter().map(Verified::to_bytes).collect(),
            attestations: bytes(&dossier.attestations),
            late: bytes(&dossier.late),
            negatives: dossier.negatives.iter().map(|signed| signed.0.clone()).collect(),
            salts: self.jobs.get(&id).filter(|_| open).map(course::salts).unwrap_or_default(),
            course: dossier.course.iter().map(|(place, entry)| (*place, entry.0.clone())).collect(),
        })
    }

    /// Gives what builders attested of a job, late ones included, while it is kept.
    pub fn attested(&self, id: JobId) -> impl Iterator<Item = &VerifiedAttestation> {
        self.dossiers.get(&id).into_iter().flat_map(|dossier| dossier.attestations.iter().chain(&dossier.late))
    }

    /// Gives the policy in force.
    pub fn policy(&self) -> &Verified<Policy> {
        self.policies.last().expect("the chain begins with the genesis and only grows")
    }

    /// Gives every policy, the genesis first.
    pub fn policy_chain(&self) -> &[Verified<Policy>] {
        &self.policies
    }

    /// Gives the network.
    pub fn network(&self) -> protocol::NetworkId {
        self.network
    }

    /// Gives the newest generation that a publication of the channel was given; zero before the first.
    pub fn generation(&self, channel: &ChannelName) -> u64 {
        self.lines.get(channel).map_or(0, |line| line.generation)
    }

    fn view(&self, id: JobId, job: &Job) -> JobView {
        let facts = &job.facts;
        let ended = match &job.state {
            JobState::Ended(ended) => Some(ended.at),
            JobState::Queued | JobState::Building | JobState::Publishing(_) | JobState::Serving(_) => None,
        };
        let open = commitments::is_open(job);
        let shown = |one: &Attempt| attempt(one, open);
        JobView {
            id,
            title: facts.title.clone(),
            kind: facts.kind.clone(),
            arch: facts.arch,
            state: job.state.word().to_owned(),
            channel: facts.channel.clone(),
            maintainer: facts.maintainer.clone(),
            times: Times { created: facts.created, accepted: facts.accepted, expires: facts.expires, ended },
            attempts: job.attempts.iter().map(shown).collect(),
            earlier: job.orders.earlier.iter().map(shown).collect(),
            verdict: verdict(job),
            late: job.late.iter().map(|report| late(report, open)).collect(),
            waiting: self.why_waiting(id, job),
            expected: self.expected(id, job),
            group: facts.schedule.group.clone(),
        }
    }
}

fn newest_first(mut views: Vec<JobView>) -> Vec<JobView> {
    views.sort_by_key(|view| (std::cmp::Reverse(view.times.accepted), view.id));
    views
}

/// Shows an attempt; what it made only when that is open to everybody.
fn attempt(attempt: &Attempt, open: bool) -> AttemptView {
    let (phase, log, result) = match &attempt.state {
        AttemptState::Granted => (None, None, ResultView::None),
        AttemptState::Running { phase, .. } => (Some(phase.clone()), None, ResultView::None),
        AttemptState::Committed { .. } => (Some("committed".to_owned()), None, ResultView::None),
        AttemptState::Revealed { vote, .. } if !open => (None, Some(vote.log), ResultView::Sealed),
        AttemptState::Revealed { vote, .. } => {
            let (digest, outputs, attestation) = (vote.digest, vote.outputs.clone(), vote.attestation);
            (None, Some(vote.log), ResultView::Outputs { digest, outputs, attestation })
        }
        AttemptState::Failed { log, failure, .. } => (None, *log, ResultView::Failed(failure.clone())),
        AttemptState::Interrupted { why, .. } | AttemptState::Silent { why, .. } => {
            (None, None, ResultView::Stopped { why: why.clone() })
        }
        AttemptState::Revoked { reason, .. } => (None, None, ResultView::Stopped { why: reason.clone() }),
    };
    AttemptView {
        node: attempt.node,
        operator: attempt.operator.clone(),
        lease: attempt.lease,
        profile: attempt.profile,
        state: attempt.state.word().to_owned(),
        phase,
        granted: attempt.granted,
        started: attempt.state.started(),
        ended: attempt.state.ended(),
        log,
        result,
    }
}

fn late(late: &crate::job::Late, open: bool) -> LateView {
    let (digest, failure) = match &late.report {
        LateReport::Attested(vote) => (open.then_some(vote.digest), None),
        LateReport::Failed(failure) => (None, Some(failure.clone())),
    };
    LateView { at: late.at, lease: late.lease, digest, failure }
}

fn verdict(job: &Job) -> VerdictView {
    match &job.state {
        JobState::Queued | JobState::Building | JobState::Serving(_) => VerdictView::Pending,
        JobState::Publishing(publishing) => reproduced(job, &publishing.agreement, None, None),
        JobState::Ended(ended) => match &ended.outcome {
            Outcome::Reproduced(agreement) => reproduced(job, agreement, None, None),
            Outcome::Published { agreement, generation } => reproduced(job, agreement, Some(*generation), None),
            Outcome::Unpublished { agreement, why } => reproduced(job, agreement, None, Some(why.clone())),
            Outcome::Disputed(Comparison { files, groups }) => {
                VerdictView::Disputed { groups: groups.clone(), files: files.clone() }
            }
            Outcome::Unreproducible(Comparison { files, groups }) => {
                VerdictView::Unreproducible { groups: groups.clone(), files: files.clone() }
            }
            Outcome::Failed(failure) => VerdictView::Failed { why: failure.to_string(), failure: failure.clone() },
            Outcome::Skipped { of, why } => VerdictView::Skipped { of: *of, why: why.clone() },
            Outcome::Served { generation } => {
                VerdictView::Served { generation: *generation, summary: job.run.account.summary.clone() }
            }
            Outcome::Unserved { why } => VerdictView::Unserved { why: why.clone() },
            Outcome::Cancelled { reason } => VerdictView::Cancelled { why: reason.clone() },
            Outcome::Expired => VerdictView::Pending,
        },
    }
}

fn reproduced(job: &Job, agreement: &Agreement, generation: Option<u64>, unpublished: Option<String>) -> VerdictView {
    let first = agreement.builders.first();
    let vote = job.attempts.iter().filter(|a| Some(&a.node) == first).find_map(Attempt::vote);
    VerdictView::Reproduced {
        digest: agreement.digest,
        agree: agreement.operators.clone(),
        dissent: agreement.dissent.clone(),
        outputs: vote.map(|v| v.outputs.clone()).unwrap_or_default(),
        generation,
        unpublished,
    }
}
