//! The offline check: is what a bundle claims true, given nothing but the network's id?
//!
//! ```text
//!  network id -> genesis policy -> ... -> policy in force -> maintainer's request -> environment lock
//!                                                        \-> k operators' attestations -> files
//! ```
//!
//! What an offline check cannot know: whether a newer policy exists, and whether evidence was left out. The policy's
//! expiry bounds the first; [`crate::threshold`] says why the second turns nothing wrong into something reproduced.

pub mod attempts;
mod promotion;
mod proof;
mod stapled;

use protocol::{
    Arch, ChannelName, JobId, NetworkId, OperatorName, Signed, Timestamp, Verified,
    envelope::EnvelopeError,
    environment::{EnvironmentLock, LockError},
    job::{JobRequest, job_id},
    policy::{Maintainer, Policy, SuccessionError, check_genesis, check_successor},
};

pub use attempts::{Attempts, attempts};
pub use promotion::Promotion;
pub use proof::{DebName, Proof, rpm_package};
pub use stapled::{Broken, Chain, Moment, Stapled, verify_bundle, verify_stapled};

use crate::{
    bundle::{self, Bundle},
    independence::Vote,
    statement::{self, Mismatch, VerifiedAttestation},
    threshold::{Reach, Rule, Verdict, verdict},
};

/// Why a bundle proves nothing, or not what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bundle is too large or malformed.
    #[error("the bundle cannot be read")]
    Bundle(#[from] bundle::Error),
    /// The bundle has no policy at all.
    #[error("the bundle holds no policy")]
    NoPolicy,
    /// The first policy is not the one that the network is named after.
    #[error("the bundle is from network {got}, not {wanted}")]
    OtherNetwork {
        /// The network of the bundle.
        got: NetworkId,
        /// The network that is trusted.
        wanted: NetworkId,
    },
    /// A policy of the chain is not signed as it must be.
    #[error("policy {position} of the chain is not acceptable")]
    PolicyEnvelope {
        /// Its place in the chain, from 1.
        position: usize,
        /// What is wrong with it.
        source: EnvelopeError,
    },
    /// A policy of the chain does not follow from the one before.
    #[error("policy {position} of the chain is not valid here")]
    Succession {
        /// Its place in the chain, from 1.
        position: usize,
        /// What is wrong with it.
        source: SuccessionError,
    },
    /// The request's envelope is not acceptable.
    #[error("the job request is not acceptable")]
    Request(#[source] EnvelopeError),
    /// Nobody who may sign for the channel signed the request.
    #[error("no maintainer of channel {channel} signed job {job}")]
    NotAllowed {
        /// The job.
        job: JobId,
        /// The channel that it is for.
        channel: String,
    },
    /// The policy has no such channel, or not for that architecture.
    #[error("the policy has no channel {channel} for {arch}")]
    NoChannel {
        /// The channel.
        channel: String,
        /// The architecture.
        arch: String,
    },
    /// A step into another channel does not hold.
    #[error("promotion {position} of the bundle does not hold: {why}")]
    Promotion {
        /// Its place in the bundle, from 1.
        position: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The package was not among those that were promoted.
    #[error("{name} was not promoted to channel {channel}")]
    NotPromoted {
        /// The package.
        name: String,
        /// The channel.
        channel: String,
    },
    /// The lock is malformed.
    #[error("the environment lock cannot be read")]
    Lock(#[source] LockError),
    /// The lock is not the one that the request names.
    #[error("the environment lock is not the one that job {job} names")]
    OtherLock {
        /// The job.
        job: JobId,
    },
    /// An attestation is not acceptable.
    #[error("attestation {position} of the bundle is not acceptable")]
    Attestation {
        /// Its place in the bundle, from 1.
        position: usize,
        /// What is wrong with it.
        source: statement::Error,
    },
    /// An attestation answers something else.
    #[error("attestation {position} of the bundle is not for this job")]
    Unbound {
        /// Its place in the bundle, from 1.
        position: usize,
        /// The field that differs.
        source: Mismatch,
    },
    /// What it tells of attempts does not hold.
    #[error("what the bundle tells of the attempts does not hold")]
    Attempts(#[from] attempts::Error),
    /// No attestation by an operator's node.
    #[error("no operator of the policy attests job {job}")]
    NoAttestation {
        /// The job.
        job: JobId,
    },
    /// Fewer operators than needed, though none differs.
    #[error("{got} of {wanted} operators attest job {job}, under {profiles} different profiles")]
    TooFew {
        /// The job.
        job: JobId,
        /// Operators that agree.
        got: usize,
        /// Operators needed.
        wanted: u8,
        /// Profiles that they span; two are needed where more than one operator is.
        profiles: usize,
    },
    /// The operators do not agree.
    #[error("the builders of job {job} disagree ({verdict}); {wanted} operators must sign the same files")]
    Disagree {
        /// The job.
        job: JobId,
        /// The verdict's word.
        verdict: &'static str,
        /// Operators needed.
        wanted: u8,
    },
    /// The job did not make a file of this name.
    #[error("job {job} made no file named {name:?}")]
    NoSuchFile {
        /// The job.
        job: JobId,
        /// The name asked for.
        name: String,
    },
    /// The file is not the one that was built.
    #[error("{name} has sha256 {got}, the builders signed {wanted}")]
    OtherContent {
        /// The file.
        name: String,
        /// Its digest.
        got: protocol::Sha256,
        /// The digest that was signed.
        wanted: protocol::Sha256,
    },
    /// The file's name claims an architecture that the job did not build for.
    #[error("{name} claims an architecture other than {arch} or all")]
    OtherArchitecture {
        /// The file.
        name: String,
        /// The job's architecture.
        arch: protocol::Arch,
    },
}

impl Error {
    /// Gives the exit code that programs see: 10 no attestation, 11 fewer than k agree, 12 mismatch, 13 bad signature
    /// or broken chain, 1 anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::NoAttestation { .. } | Error::NoSuchFile { .. } => 10,
            Error::TooFew { .. } => 11,
            Error::Disagree { .. } | Error::OtherContent { .. } | Error::OtherArchitecture { .. } => 12,
            Error::OtherNetwork { .. }
            | Error::PolicyEnvelope { .. }
            | Error::Request(_)
            | Error::NotAllowed { .. }
            | Error::NoChannel { .. }
            | Error::Promotion { .. }
            | Error::NotPromoted { .. }
            | Error::OtherLock { .. }
            | Error::Attestation { .. }
            | Error::Unbound { .. }
            | Error::Attempts(_)
            | Error::NoPolicy => 13,
            Error::Succession { source: SuccessionError::Expired, .. } => 1,
            Error::Succession { .. } => 13,
            Error::Bundle(_) | Error::Lock(_) => 1,
        }
    }
}

/// Checks a bundle against the one thing that is trusted, the network's id.
///
/// `now` is the time at which the bundle's last policy must be in force: today for a fresh claim. Who follows the
/// network and knows where its policies stand in the log, as a mirror does, asks [`verify_bundle`] instead.
///
/// # Errors
/// The first link of the chain that does not hold.
pub fn verify(bundle: &Bundle, network: &NetworkId, now: Timestamp) -> Result<Proof, Error> {
    bundle.check()?;
    let policy = policy_in_force(bundle, network, now)?;
    verify_under(bundle, network, &policy)
}

/// Checks a bundle under a policy that is believed; the bundle's own chain is not read.
fn verify_under(bundle: &Bundle, network: &NetworkId, policy: &Policy) -> Result<Proof, Error> {
    bundle.check()?;
    let request = request(bundle, network)?;
    maintainer(policy, &request)?;
    let case = Case {
        network,
        policy,
        moved_under: policy,
        lock: Some(lock(bundle, &request)?),
        promotions: promotion::read(bundle, network)?,
        attestations: attestations(bundle, network, &request)?,
        request,
    };
    case.prove()
}

/// Evidence of one job whose signatures were checked, and the policy that says what it is worth.
struct Case<'a> {
    network: &'a NetworkId,
    policy: &'a Policy,
    /// The policy that says who may move it to other channels, and what the last of them asks for.
    moved_under: &'a Policy,
    request: Verified<JobRequest>,
    /// In the order in which they were done.
    promotions: Vec<Verified<JobRequest>>,
    lock: Option<EnvironmentLock>,
    /// All of this job.
    attestations: Vec<VerifiedAttestation>,
}

impl Case<'_> {
    fn prove(self) -> Result<Proof, Error> {
        let Case { network, policy, moved_under, request, promotions, lock, attestations } = self;
        let maintainer = maintainer(policy, &request)?.clone();
        let promotions = promotion::follow(&promotions, network, moved_under, request.get())?;
        let channel = promotions.last().map_or(&request.get().channel, |step| &step.to).clone();
        let rule = rule(moved_under, &channel, request.get().arch)?;
        let votes: Vec<Vote> = attestations.iter().filter_map(|a| Vote::of(policy, a)).collect();
        let (agree, dissent, outputs) = agreed(rule, job_id(&request), &votes)?;
        Ok(Proof {
            network: *network,
            policy: policy.clone(),
            job: job_id(&request),
            channel,
            promotions,
            request: request.into_inner(),
            maintainer: maintainer.name,
            lock,
            rule,
            votes: votes.into_iter().filter(|vote| agree.contains(&vote.operator)).collect(),
            agree,
            dissent,
            outputs,
        })
    }
}

/// Follows the policy chain. A superseded policy may have expired since; the last one must be in force at `now`.
///
/// # Errors
/// The first policy that does not follow.
pub fn policy_in_force(bundle: &Bundle, network: &NetworkId, now: Timestamp) -> Result<Policy, Error> {
    let chain = policy_chain(bundle.policies.iter().map(|policy| policy.0.as_slice()), network, now)?;
    chain.into_iter().next_back().map(Verified::into_inner).ok_or(Error::NoPolicy)
}

/// As [`policy_in_force`], and gives every policy of the chain.
///
/// # Errors
/// The first policy that does not follow; none at all is an empty chain.
pub fn policy_chain<'a>(
    envelopes: impl ExactSizeIterator<Item = &'a [u8]>,
    network: &NetworkId,
    now: Timestamp,
) -> Result<Vec<Verified<Policy>>, Error> {
    let mut chain: Vec<Verified<Policy>> = Vec::new();
    let count = envelopes.len();
    for (at, bytes) in envelopes.enumerate() {
        let position = at + 1;
        let judged_at = if position == count { now } else { Timestamp::ZERO };
        let signed_for = chain.last().map(|_| network);
        let policy = Signed::<Policy>::read(bytes)
            .and_then(|signed| signed.verify(signed_for))
            .map_err(|source| Error::PolicyEnvelope { position, source })?;
        let follows = match chain.last() {
            None if NetworkId::from(policy.id()) != *network => {
                return Err(Error::OtherNetwork { got: NetworkId::from(policy.id()), wanted: *network });
            }
            None => check_genesis(&policy, judged_at).map(drop),
            Some(previous) => check_successor(previous.get(), network, &policy, judged_at),
        };
        follows.map_err(|source| Error::Succession { position, source })?;
        chain.push(policy);
    }
    Ok(chain)
}

fn request(bundle: &Bundle, network: &NetworkId) -> Result<Verified<JobRequest>, Error> {
    let request =
        Signed::<JobRequest>::read(&bundle.request.0).and_then(|r| r.verify(Some(network))).map_err(Error::Request)?;
    match request.get().network {
        got if got == *network => Ok(request),
        got => Err(Error::OtherNetwork { got, wanted: *network }),
    }
}

fn maintainer<'a>(policy: &'a Policy, request: &Verified<JobRequest>) -> Result<&'a Maintainer, Error> {
    let channel = &request.get().channel;
    let may_sign = |m: &&Maintainer| m.channels.contains(channel);
    let signers = request.signers();
    signers
        .iter()
        .find_map(|key| policy.maintainer(key).filter(may_sign))
        .ok_or_else(|| Error::NotAllowed { job: job_id(request), channel: channel.to_string() })
}

fn lock(bundle: &Bundle, request: &Verified<JobRequest>) -> Result<EnvironmentLock, Error> {
    let lock = EnvironmentLock::from_bytes(&bundle.lock.0).map_err(Error::Lock)?;
    if lock.id() != request.get().environment || lock.arch != request.get().arch {
        return Err(Error::OtherLock { job: job_id(request) });
    }
    Ok(lock)
}

fn rule(policy: &Policy, name: &ChannelName, arch: Arch) -> Result<Rule, Error> {
    let channel = policy.channel(name).filter(|c| c.arches.contains(&arch));
    channel.map(Rule::from).ok_or_else(|| Error::NoChannel { channel: name.to_string(), arch: arch.to_string() })
}

/// Reads all attestations. One that is broken or for another job refuses the whole bundle: nobody honest put it there.
fn attestations(
    bundle: &Bundle,
    network: &NetworkId,
    request: &Verified<JobRequest>,
) -> Result<Vec<VerifiedAttestation>, Error> {
    let read = |(at, bytes): (usize, &protocol::message::Octets)| {
        let position = at + 1;
        let attestation =
            statement::read(&bytes.0, network).map_err(|source| Error::Attestation { position, source })?;
        attestation.matches_request(request).map_err(|source| Error::Unbound { position, source })?;
        Ok(attestation)
    };
    bundle.attestations.iter().enumerate().map(read).collect()
}

type Agreed = (Vec<OperatorName>, Vec<crate::threshold::Dissent>, Vec<crate::compare::Output>);

fn agreed(rule: Rule, job: JobId, votes: &[Vote]) -> Result<Agreed, Error> {
    if votes.is_empty() {
        return Err(Error::NoAttestation { job });
    }
    let verdict = verdict(rule, votes, &[], Reach::NOBODY);
    let one_voice = votes.iter().all(|vote| vote.digest() == votes[0].digest());
    match verdict {
        Verdict::Reproduced { agree, dissent, outputs } => Ok((agree, dissent, outputs)),
        other if !one_voice => Err(Error::Disagree { job, verdict: other.word(), wanted: rule.agree }),
        Verdict::Pending { .. }
        | Verdict::Disputed { .. }
        | Verdict::Unreproducible { .. }
        | Verdict::Failed { .. } => {
            let count = crate::independence::Count::of(votes);
            let profiles = count.groups.first().map_or(0, |group| group.profiles.len());
            Err(Error::TooFew { job, got: count.largest(), wanted: rule.agree, profiles })
        }
    }
}

#[cfg(test)]
mod tests;
