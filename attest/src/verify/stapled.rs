//! The offline check at installation: do a package's staples prove it, given what a verifier trusts?
//!
//! ```text
//!  trust -> policy in force at the verdict's place in the log -> maintainer's request -> k operators' attestations -> files
//!     \-> log, witnesses -> verdict: reproduced, by these attestations --------------------/
//! ```
//! Lines that do not verify are not counted, and where they are missed their reason is told. Of attestations that the logged
//! verdict names none may be missing: who leaves a contradiction out is found out. Whoever publishes or mirrors a package asks
//! the same of its bundle, of which nothing may be broken.
//!
//! Steps into other channels have no place in the log: they count by the policy of the verdict's place or any later one, and not
//! where the key that signed them was revoked from any place on.

use std::{borrow::Cow, collections::BTreeMap};

use protocol::{
    ChannelName, JobId, OperatorName, PublicKey, Timestamp, Verified,
    environment::EnvironmentLock,
    job::{JobRequest, job_id},
    policy::Policy,
};

use super::{
    Case, Error, Proof,
    attempts::{Attempts, is_operators},
    attestations, lock, promotion, request,
};
use crate::{
    bundle::Bundle,
    log::{
        checkpoint::Signed,
        entry::{Entry, Event, Judgement, Verdict},
        network::witness_key,
        policy::Witnessed,
        proof::{self, Logged},
    },
    negative::Negative,
    staple::Lines,
    statement::{self, VerifiedAttestation, write_time},
    trust::{LogDemand, Trust},
};

/// The evidence beside a package.
#[derive(Debug, Clone, Copy)]
pub struct Stapled<'a> {
    /// The file of lines, see [`crate::staple::SUFFIX`].
    pub lines: &'a [u8],
    /// The proof from the log, see [`crate::staple::PROOF_SUFFIX`], where there is one.
    pub proof: Option<&'a [u8]>,
}

/// When a check is done.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// The time.
    pub now: Timestamp,
    /// A checkpoint that is newer than the proof's, where there is one: what is old by its own proof is fresh by this.
    pub checkpoint: Option<&'a [u8]>,
}

/// What a package's staples proved.
#[derive(Debug, Clone)]
pub struct Chain {
    /// What the attestations proved.
    pub proof: Proof,
    /// Where the verdict stands in the log, and who saw it; none where no proof is looked at.
    pub logged: Option<Logged>,
    /// The newest sign of life of the log, where there is one.
    pub seen: Option<Timestamp>,
    /// Attempts of the job without outputs, by what their builders signed; others may have been left out.
    pub failed: Attempts,
    /// Lines that did not verify and were not needed.
    pub broken: usize,
}

impl Chain {
    /// Gives the chain for people: one line for each thing that was proven, and by whom.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.proof.lines();
        lines.extend(self.failed.lines(Some(&self.proof)));
        if let Some(Logged { index, witnessed }) = &self.logged {
            let head = witnessed.checkpoint.head();
            lines.push(format!("log {}: entry {index} of {}", witnessed.checkpoint.get().origin(), head.size));
            lines.extend(witnessed.seen.iter().map(|seen| {
                let operator = self.operator_of(seen.witness.key());
                format!("  seen by {operator} at {}", write_time(seen.at))
            }));
        }
        lines.extend(self.seen.map(|at| format!("alive at {}", write_time(at))));
        lines
    }

    /// Names who runs a witness; a key that the policy which judged does not have stands for itself.
    fn operator_of(&self, key: &PublicKey) -> String {
        let operator = self.proof.policy.operator_of(&protocol::NodeId::from(*key));
        operator.map_or_else(|| format!("key {key}"), ToString::to_string)
    }
}

/// Why staples prove nothing.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The evidence does not hold.
    #[error(transparent)]
    Evidence(#[from] Error),
    /// Nothing is there to be judged.
    #[error("there is no attestation beside it")]
    Nothing,
    /// There are attestations, but no request that they answer.
    #[error("no maintainer of the network signed the request that the attestations answer")]
    NoRequest,
    /// Too little is left without lines that do not verify.
    #[error("{why}; line {line} does not verify")]
    Forged {
        /// What is missed without it.
        why: Box<Error>,
        /// The first such line, from 1.
        line: usize,
        /// What is wrong with it.
        source: statement::Error,
    },
    /// A proof from the log is asked for, and none is there.
    #[error("there is no proof that the verdict was logged{}", seen_words(*.witnesses))]
    NotLogged {
        /// How many must have seen it.
        witnesses: u8,
    },
    /// The proof from the log does not hold.
    #[error("the proof from the log does not hold")]
    Log(#[source] proof::Error),
    /// The proof is of something else.
    #[error("the log's entry {index} is not that job {job} was reproduced")]
    OtherEntry {
        /// The entry's place.
        index: u64,
        /// The job.
        job: JobId,
    },
    /// Attestations that the verdict rests on are not there.
    #[error("{count} attestations that the logged verdict of job {job} rests on are not beside it")]
    Missing {
        /// How many.
        count: usize,
        /// The job.
        job: JobId,
    },
    /// The checkpoint that should show that the log is alive does not hold.
    #[error("the newer checkpoint does not hold")]
    Checkpoint(#[source] proof::Error),
    /// The log gave no sign of life for too long: somebody may hold back what is newer.
    #[error(
        "the newest sign of life of the log is {age_secs} s old, at most {max_secs} s are allowed; it takes a newer checkpoint"
    )]
    Stale {
        /// How old it is, in seconds.
        age_secs: u64,
        /// How old it may be, in seconds.
        max_secs: u64,
    },
    /// The same where no witness is asked for: then only the coordinator says when, and of a checkpoint it says nothing.
    #[error(
        "the verdict was logged {age_secs} s ago, at most {max_secs} s are allowed, and without witnesses no checkpoint shows that the \
         log is alive: that takes `witnesses` in the channel's policy"
    )]
    Untimed {
        /// How long ago, in seconds, by the coordinator's clock.
        age_secs: u64,
        /// How old it may be, in seconds.
        max_secs: u64,
    },
    /// An age is asked for, and nothing says how old the log is.
    #[error(
        "nothing says how old this is, and no more than {max_secs} s are allowed: `log none` looks at no proof from the log"
    )]
    Ageless {
        /// How old it may be, in seconds.
        max_secs: u64,
    },
    /// Fewer operators agree than the verifier asks for.
    #[error("{got} operators agree, {wanted} are asked for here")]
    TooFew {
        /// How many agree.
        got: usize,
        /// How many must.
        wanted: u8,
    },
    /// The package is of a channel that the verifier does not accept.
    #[error("it is a package of channel {0}, which is not accepted here")]
    OtherChannel(ChannelName),
}

impl Broken {
    /// Gives the exit code that programs see, see [`Error::exit_code`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Broken::Evidence(error) => error.exit_code(),
            Broken::Nothing => 10,
            Broken::TooFew { .. } => 11,
            Broken::NoRequest
            | Broken::Forged { .. }
            | Broken::NotLogged { .. }
            | Broken::Log(_)
            | Broken::OtherEntry { .. }
            | Broken::Missing { .. }
            | Broken::Checkpoint(_)
            | Broken::Stale { .. }
            | Broken::Untimed { .. }
            | Broken::Ageless { .. }
            | Broken::OtherChannel(_) => 13,
        }
    }
}

/// Checks what lies beside a package against what a verifier trusts. Whether the package is one of [`Proof::outputs`] is asked
/// of the proof.
///
/// # Errors
/// The first link of the chain that does not hold.
pub fn verify_stapled(stapled: &Stapled<'_>, trust: &Trust, moment: &Moment<'_>) -> Result<Chain, Broken> {
    let lines = Lines::read(stapled.lines, trust.network());
    if lines.attestations.is_empty() && lines.broken.is_empty() {
        return Err(Broken::Nothing);
    }
    let log = log_proof(stapled.proof, trust)?;
    let check = Check::at_claimed_place(log.as_ref(), (trust, moment));
    let requests = lines.requests(trust.network(), &check.signers());
    let (builds, promotions): (Vec<_>, Vec<_>) = requests.into_iter().partition(|r| r.get().server().is_none());
    let answered = |request: &Verified<JobRequest>| {
        lines.attestations.iter().any(|attestation| attestation.get().task.job == job_id(request))
    };
    let request = builds.iter().find(|request| answered(request)).or(builds.first()).ok_or(Broken::NoRequest)?;
    let (request, Lines { attestations, negatives, broken, .. }) = (request.clone(), lines);
    check.chain(Evidence { request, promotions, lock: None, attestations, negatives, broken }, log.as_ref())
}

/// Checks a job's bundle, and the proof from the log where there is one, as [`verify_stapled`] does the lines that are made of
/// the bundle. The policies that it brings along are not read.
///
/// # Errors
/// The first link of the chain that does not hold. A part of the bundle that does not belong there refuses all of it: nobody
/// honest put it there.
pub fn verify_bundle(
    bundle: &Bundle,
    proof: Option<&[u8]>,
    (trust, moment): (&Trust, &Moment<'_>),
) -> Result<Chain, Broken> {
    let network = trust.network();
    bundle.check().map_err(Error::from)?;
    let request = request(bundle, network)?;
    let negatives = bundle.course.iter().flat_map(|course| &course.negatives);
    let evidence = Evidence {
        promotions: promotion::read(bundle, network)?,
        lock: Some(lock(bundle, &request)?),
        attestations: attestations(bundle, network, &request)?,
        negatives: negatives.filter_map(|bytes| Negative::read(&bytes.0, network).ok()).collect(),
        broken: Vec::new(),
        request,
    };
    let log = log_proof(proof, trust)?;
    Check::at_claimed_place(log.as_ref(), (trust, moment)).chain(evidence, log.as_ref())
}

/// Reads the proof from the log, unless the verifier looks at none.
fn log_proof(bytes: Option<&[u8]>, trust: &Trust) -> Result<Option<proof::Proof>, Broken> {
    match trust.demands().log {
        LogDemand::Never => Ok(None),
        LogDemand::AsPolicySays | LogDemand::Witnesses(_) => {
            bytes.map(proof::Proof::read).transpose().map_err(Broken::Log)
        }
    }
}

/// What is judged, each part verified by itself.
struct Evidence {
    request: Verified<JobRequest>,
    promotions: Vec<Verified<JobRequest>>,
    lock: Option<EnvironmentLock>,
    attestations: Vec<VerifiedAttestation>,
    negatives: Vec<Negative>,
    /// What does not verify, by its line.
    broken: Vec<(usize, statement::Error)>,
}

struct Check<'a> {
    trust: &'a Trust,
    moment: &'a Moment<'a>,
    /// The policy's place in the chain.
    era: usize,
    policy: Cow<'a, Policy>,
}

impl<'a> Check<'a> {
    /// The claimed place chooses the policy; under that policy it must turn out to be true.
    fn at_claimed_place(log: Option<&proof::Proof>, (trust, moment): (&'a Trust, &'a Moment<'a>)) -> Self {
        let (era, policy) = trust.in_force(log.map(proof::Proof::claimed_index));
        Self { trust, moment, era, policy }
    }

    /// Gives everybody whose signature a request or a promotion may bear.
    fn signers(&self) -> Vec<PublicKey> {
        let later = self.trust.since(self.era);
        let of = |policy: &Policy| -> Vec<PublicKey> {
            policy
                .maintainers
                .iter()
                .map(|maintainer| maintainer.key)
                .chain(policy.roots.keys.iter().copied())
                .collect()
        };
        let mut signers: Vec<PublicKey> = later.flat_map(|policy| of(&policy)).chain(of(&self.policy)).collect();
        signers.sort_unstable();
        signers.dedup();
        signers
    }

    fn chain(&self, evidence: Evidence, log: Option<&proof::Proof>) -> Result<Chain, Broken> {
        let mut refused = None;
        for (policy, promotions) in self.ways(&evidence) {
            match self.chain_under(&policy, promotions, (&evidence, log)) {
                Ok(chain) => return Ok(chain),
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        Err(refused.expect("there is a way without promotions"))
    }

    /// Gives the ways into the channel that the evidence claims, each with the policy that says who may move a package, and what
    /// its last channel asks for: the longest ones, which are the claim.
    fn ways(&self, evidence: &Evidence) -> Vec<(Cow<'_, Policy>, Vec<Verified<JobRequest>>)> {
        let own = (Cow::Borrowed(&*self.policy), Vec::new());
        if evidence.promotions.is_empty() {
            return vec![own];
        }
        let built = evidence.request.get();
        let under = |policy: Cow<'a, Policy>| {
            let steps = promotion::in_order(evidence.promotions.clone(), &policy, built);
            (policy, steps)
        };
        let mut ways: Vec<_> = self.trust.since(self.era).map(under).collect();
        let longest = ways.iter().map(|(_, steps)| steps.len()).max().unwrap_or(0);
        ways.retain(|(_, steps)| steps.len() == longest);
        if longest == 0 { vec![own] } else { ways }
    }

    fn chain_under(
        &self,
        policy: &Policy,
        promotions: Vec<Verified<JobRequest>>,
        (evidence, log): (&Evidence, Option<&proof::Proof>),
    ) -> Result<Chain, Broken> {
        let Evidence { request, attestations, broken, .. } = evidence;
        let channel = promotions.last().map_or(&request.get().channel, |step| &step.get().channel).clone();
        let quorum = self.quorum(policy, &channel);
        let logged = match (quorum, log) {
            (None, _) => None,
            (Some(quorum), Some(log)) => Some(self.verdict(log, job_id(request), quorum)?),
            (Some(witnesses), None) => return Err(Broken::NotLogged { witnesses }),
        };
        let (verdict, logged) = logged.map_or((None, None), |(verdict, logged)| (Some(verdict), Some(logged)));
        logged.as_ref().map_or(Ok(()), |logged| promotion::check_time(&promotions, logged.at))?;
        let of_job = |it: &&Negative| it.job == job_id(request) && is_operators(&self.policy, it);
        let failed = evidence.negatives.iter().filter(of_job).cloned();
        let failed = Attempts::of_negatives(&self.policy, failed);
        let (attestations, missing) = counted(attestations, request, verdict.as_ref());
        let case = Case {
            network: self.trust.network(),
            policy: &self.policy,
            moved_under: policy,
            request: request.clone(),
            promotions,
            lock: evidence.lock.clone(),
            attestations,
        };
        let proof = case.prove().map_err(|why| explained(why, broken))?;
        if missing > 0 {
            return Err(Broken::Missing { count: missing, job: proof.job });
        }
        self.accepts(&proof)?;
        let seen = self.seen(logged.as_ref(), quorum.unwrap_or(0))?;
        Ok(Chain { proof, logged: logged.map(|logged| logged.place), seen, failed, broken: broken.len() })
    }

    /// Gives how many operators' witnesses a package of the channel needs now, whenever it was built: a network that asks for more
    /// than it did has newer proofs. None where no proof from the log is looked at. Of a channel that there is no more, the
    /// policy of its time says it.
    fn quorum(&self, policy: &Policy, channel: &ChannelName) -> Option<u8> {
        match self.trust.demands().log {
            LogDemand::Never => None,
            LogDemand::Witnesses(number) => Some(number),
            LogDemand::AsPolicySays => {
                let asks = self.trust.newest().channel(channel).or(policy.channel(channel));
                // Without witnesses, too, the log says on which attestations the verdict rests.
                Some(asks.map_or(0, |channel| channel.witnesses))
            }
        }
    }

    /// Checks that the log has the verdict of the job, and that enough witnesses saw it.
    fn verdict(&self, log: &proof::Proof, job: JobId, quorum: u8) -> Result<(Verdict, InLog), Broken> {
        let (policy, (entry, place)) =
            self.under_any_log((quorum, log.claimed_size()), |known| log.entry(known)).map_err(Broken::Log)?;
        let Entry { at, event } = entry;
        match event {
            Event::Verdict(verdict) if verdict.job == job && verdict.verdict == Judgement::Reproduced => {
                let seen = seen_by(&policy, &place.witnessed, quorum);
                Ok((verdict, InLog { at, seen, place }))
            }
            Event::Verdict(_)
            | Event::Policy(_)
            | Event::Accepted(_)
            | Event::Lease(_)
            | Event::Commitment(_)
            | Event::Outcome(_)
            | Event::Release(_)
            | Event::Revocation(_) => Err(Broken::OtherEntry { index: place.index, job }),
        }
    }

    /// Asks the log of the newest policy first, then of those before, not further back than the policy that judges.
    fn under_any_log<T>(
        &self,
        (quorum, size): (u8, u64),
        ask: impl Fn(&crate::log::policy::Policy) -> Result<T, proof::Error>,
    ) -> Result<(Cow<'_, Policy>, T), proof::Error> {
        let mut refused = proof::Error::Form("no policy has a log's key and as many operators as must have seen it");
        for (policy, log) in self.trust.logs(self.era, (quorum, size)) {
            match ask(&log) {
                Ok(answer) => return Ok((policy, answer)),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn accepts(&self, proof: &Proof) -> Result<(), Broken> {
        let demands = self.trust.demands();
        if let Some(wanted) = demands.agree.filter(|wanted| proof.agree.len() < usize::from(*wanted)) {
            return Err(Broken::TooFew { got: proof.agree.len(), wanted });
        }
        if !demands.channels.is_empty() && !demands.channels.contains(&proof.channel) {
            return Err(Broken::OtherChannel(proof.channel.clone()));
        }
        Ok(())
    }

    /// Gives the newest sign of life of the log, and refuses one that is too old.
    fn seen(&self, logged: Option<&InLog>, quorum: u8) -> Result<Option<Timestamp>, Broken> {
        // Without witnesses only the coordinator's clock is left.
        let own = logged.map(|logged| logged.seen.unwrap_or(logged.at));
        let newer = self.moment.checkpoint.map(|bytes| self.checkpoint(bytes, quorum)).transpose()?.flatten();
        let seen = own.max(newer);
        match (self.trust.demands().max_age, seen) {
            (None, _) => Ok(seen),
            (Some(max), None) => Err(Broken::Ageless { max_secs: max.as_secs() }),
            (Some(max), Some(at)) => match self.moment.now.since(at) {
                age if age > max => {
                    let (age_secs, max_secs) = (age.as_secs(), max.as_secs());
                    Err(match quorum {
                        0 => Broken::Untimed { age_secs, max_secs },
                        _ => Broken::Stale { age_secs, max_secs },
                    })
                }
                _ => Ok(seen),
            },
        }
    }

    fn checkpoint(&self, bytes: &[u8], quorum: u8) -> Result<Option<Timestamp>, Broken> {
        let read = Signed::read(bytes).map_err(|e| Broken::Checkpoint(e.into()))?;
        let checked = self.under_any_log((quorum, read.claims().head().size), |log| Ok(log.check(read.clone())?));
        let (policy, witnessed) = checked.map_err(Broken::Checkpoint)?;
        Ok(seen_by(&policy, &witnessed, quorum))
    }
}

/// Says of a proof that is missing who must have seen it.
fn seen_words(witnesses: u8) -> String {
    if witnesses == 0 { String::new() } else { format!(", which {witnesses} witnesses must have seen") }
}

/// A verdict's place in the log, and when.
struct InLog {
    /// By the coordinator's clock.
    at: Timestamp,
    /// By the witnesses'.
    seen: Option<Timestamp>,
    place: Logged,
}

/// Gives when as many operators as must had seen a checkpoint, each by the newest of its witnesses: one alone cannot make an old
/// checkpoint young. None where no witness is asked for.
fn seen_by(policy: &Policy, witnessed: &Witnessed, quorum: u8) -> Option<Timestamp> {
    let mut newest: BTreeMap<&OperatorName, Timestamp> = BTreeMap::new();
    for seen in &witnessed.seen {
        let runs = |node: &protocol::NodeId| witness_key(node) == seen.witness;
        if let Some(operator) = policy.operators.iter().find(|operator| operator.nodes.iter().any(runs)) {
            let slot = newest.entry(&operator.name).or_insert(seen.at);
            *slot = seen.at.max(*slot);
        }
    }
    let mut times: Vec<Timestamp> = newest.into_values().collect();
    times.sort_unstable_by_key(|at| std::cmp::Reverse(*at));
    usize::from(quorum).checked_sub(1).and_then(|place| times.get(place).copied())
}

/// Gives the attestations of a job that count: all, or those that the logged verdict rests on. Says how many of those are missing.
fn counted(
    attestations: &[VerifiedAttestation],
    request: &Verified<JobRequest>,
    verdict: Option<&Verdict>,
) -> (Vec<VerifiedAttestation>, usize) {
    let named = |a: &VerifiedAttestation| verdict.is_none_or(|v| v.attestations.binary_search(&a.id()).is_ok());
    let answers = |a: &VerifiedAttestation| a.matches_request(request).is_ok();
    let mut counted: Vec<_> = attestations.iter().filter(|a| named(a) && answers(a)).cloned().collect();
    // Whatever the order of the lines, the same is said of them.
    counted.sort_by_key(VerifiedAttestation::id);
    counted.dedup_by_key(|attestation| attestation.id());
    let missing = verdict.map_or(0, |verdict| verdict.attestations.len().saturating_sub(counted.len()));
    (counted, missing)
}

/// Says of too little evidence whether there was more that does not verify.
fn explained(why: Error, broken: &[(usize, statement::Error)]) -> Broken {
    let too_little = matches!(why, Error::NoAttestation { .. } | Error::TooFew { .. } | Error::Disagree { .. });
    match broken.first() {
        Some((line, source)) if too_little => {
            Broken::Forged { why: Box::new(why), line: *line, source: source.clone() }
        }
        Some(_) | None => Broken::Evidence(why),
    }
}

#[cfg(test)]
mod tests;
