//! How each attempt of a job ended, by what a bundle or a staple brings along: what the log says, what commitments hid, and what
//! builders signed about attempts without outputs. It decides nothing: a verdict rests on attestations.
//!
//! ```text
//!  coordinators of the policies -> checkpoint -> entries of the job -> attempts
//!                                                commitment = H(salt, attestation)
//!                                                outcome    = H(attestation | negative)
//! ```
//! What is there must hold, since nobody honest adds what does not; what is missing is told. A coordinator can leave attempts out of
//! a bundle; that they were granted, its log shows.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    Hash, JobId, NetworkId, NodeId, OperatorName, PublicKey, Timestamp,
    job::job_id,
    lease::{LeaseNumber, Profile},
    policy::Policy,
};
use serde::Serialize;

use super::{Proof, attestations, policy_chain, request};
use crate::{
    bundle::Bundle,
    commitment,
    course::{Course, Logged, Opened, Placed},
    log::{
        checkpoint::{CheckpointError, Signed, Verified as Checkpoint},
        entry::{self, End, Entry, EntryError, Event},
        network,
        note::VerifierKey,
        tree::{self, ProofError},
    },
    negative::{Negative, outcome},
    statement::{self, VerifiedAttestation},
};

/// Characters of a builder's words that are told.
const WORDS_MAX: usize = 300;

/// Why what a bundle says of attempts does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A negative is not acceptable.
    #[error("negative {position} is not acceptable")]
    Negative {
        /// Its place in the bundle, from 1.
        position: usize,
        /// What is wrong with it.
        source: statement::Error,
    },
    /// A negative is of another job.
    #[error("negative {position} is of job {got}")]
    OtherJob {
        /// Its place in the bundle, from 1.
        position: usize,
        /// The job that it names.
        got: JobId,
    },
    /// The checkpoint is not the log's.
    #[error("the checkpoint is signed by no coordinator of the network")]
    Checkpoint(#[source] CheckpointError),
    /// An entry is not in the log.
    #[error("entry {index} is not in the log that the checkpoint signs for")]
    Inclusion {
        /// Its place.
        index: u64,
        /// Why.
        source: ProofError,
    },
    /// An entry cannot be read.
    #[error("entry {index} of the log cannot be read")]
    Entry {
        /// Its place.
        index: u64,
        /// Why.
        source: EntryError,
    },
    /// An entry does not follow those before it.
    #[error("entry {index} of the log {why}")]
    Story {
        /// Its place.
        index: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// A result is not what its builder was bound to.
    #[error("the attestation under lease {lease} is not what its builder had committed to at entry {index} of the log")]
    Unbound {
        /// The lease.
        lease: LeaseNumber,
        /// The commitment's place.
        index: u64,
    },
    /// What an outcome names is of another attempt.
    #[error("the outcome of lease {lease} names what a builder signed about another attempt")]
    Misnamed {
        /// The lease.
        lease: LeaseNumber,
    },
}

/// Whether a result is known to be what its builder was bound to before anybody could see one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// Salt and attestation give the commitment that was logged.
    Opened,
    /// It was committed to, and salt or attestation are not at hand.
    Sealed,
    /// The log shows no commitment.
    Never,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The log shows no end: a gap, until its lease runs out.
    Open,
    /// With outputs.
    Built {
        /// The attestation.
        attestation: Hash,
        /// Whether it was bound to it.
        bound: Bound,
    },
    /// Without; its builder signed why.
    Told(Box<Negative>),
    /// Without; what its builder signed is not at hand.
    Untold(Hash),
    /// As the log says in its own words.
    Otherwise(&'static str),
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its lease.
    pub lease: LeaseNumber,
    /// Its builder.
    pub node: NodeId,
    /// Who answers for the builder, by the newest policy at hand.
    pub operator: Option<OperatorName>,
    /// The variation, where the log tells it.
    pub profile: Option<Profile>,
    /// How it ended.
    pub ended: Ended,
    /// The place of the log's last entry about it; none where the log was not brought along.
    pub place: Option<u64>,
}

/// Every attempt that a bundle tells of, by lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempts {
    list: Vec<Attempt>,
    /// How many entries the log had; none where it was not brought along.
    size: Option<u64>,
}

/// Checks what a bundle tells of the attempts of its job, whatever their verdict is. A bundle of an earlier version tells nothing.
///
/// # Errors
/// The first thing that does not hold, the bundle's policies and request included.
pub fn attempts(bundle: &Bundle, network: &NetworkId) -> Result<Attempts, super::Error> {
    bundle.check()?;
    let Some(course) = &bundle.course else { return Ok(Attempts::default()) };
    let chain = policy_chain(bundle.policies.iter().map(|policy| policy.0.as_slice()), network, Timestamp::ZERO)?;
    let newest = chain.last().ok_or(super::Error::NoPolicy)?.get();
    let request = request(bundle, network)?;
    let of = Of {
        network,
        job: job_id(&request),
        newest,
        keys: chain.iter().flat_map(|policy| network::log_keys(network, policy.get())).collect(),
        attestations: attestations(bundle, network, &request)?,
    };
    Ok(of.read(course)?)
}

impl Attempts {
    /// Makes them of what builders signed, without the log. Of one attempt the first word stays.
    pub(crate) fn of_negatives(policy: &Policy, negatives: impl IntoIterator<Item = Negative>) -> Self {
        let mut list: BTreeMap<LeaseNumber, Attempt> = BTreeMap::new();
        for negative in negatives {
            list.entry(negative.lease).or_insert_with(|| told(policy, negative));
        }
        Self { list: list.into_values().collect(), size: None }
    }

    /// Gives the attempts, by lease.
    pub fn list(&self) -> &[Attempt] {
        &self.list
    }

    /// Says in one line what they add up to, beside what was proven.
    pub fn summary(&self, proof: Option<&Proof>) -> String {
        let mut counts: Vec<(&str, usize)> = ["agreed", "differed"].map(|word| (word, 0)).to_vec();
        let mut count = |word: &'static str| match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        };
        let agree: BTreeSet<_> = proof.iter().flat_map(|proof| &proof.votes).map(|v| (v.node, v.lease)).collect();
        let differ: BTreeSet<_> = proof.iter().flat_map(|proof| &proof.dissent).map(|d| (d.node, d.lease)).collect();
        // Without the log only those are in the list that failed.
        let built = |of: &BTreeSet<(NodeId, LeaseNumber)>| {
            let told = |(node, lease): &&(NodeId, LeaseNumber)| {
                !self.list.iter().any(|attempt| attempt.node == *node && attempt.lease == *lease)
            };
            of.iter().filter(told).count()
        };
        (0..built(&agree)).for_each(|_| count("agreed"));
        (0..built(&differ)).for_each(|_| count("differed"));
        for attempt in &self.list {
            let key = (attempt.node, attempt.lease);
            let is_built = matches!(attempt.ended, Ended::Built { .. });
            count(match is_built {
                true if agree.contains(&key) => "agreed",
                true if differ.contains(&key) => "differed",
                true | false => attempt.ended.word(),
            });
        }
        let some = counts.iter().filter(|(_, count)| *count > 0);
        some.map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
    }

    /// Gives the chain for people: how many ended how, and a line for each attempt that is not among those that agree.
    pub fn lines(&self, proof: Option<&Proof>) -> Vec<String> {
        if self.list.is_empty() {
            return Vec::new();
        }
        let log = self
            .size
            .map_or_else(|| "by what builders signed".to_owned(), |size| format!("by entries of the log, of {size}"));
        let mut lines = vec![format!("attempts: {} ({log})", self.summary(proof))];
        let agrees = |attempt: &&Attempt| {
            let bound = matches!(attempt.ended, Ended::Built { bound: Bound::Opened, .. });
            !(bound && proof.is_some_and(|proof| proof.votes.iter().any(|vote| vote.lease == attempt.lease)))
        };
        lines.extend(self.list.iter().filter(agrees).map(|attempt| format!("  {attempt}")));
        let opened = self.list.iter().filter(|a| matches!(a.ended, Ended::Built { bound: Bound::Opened, .. })).count();
        if opened > 0 {
            lines.push(format!("  {opened} results are what their builders had committed to in the log"));
        }
        lines
    }
}

impl Ended {
    /// Gives the word for people and programs.
    pub fn word(&self) -> &'static str {
        match self {
            Ended::Open => "without an end",
            Ended::Built { .. } => "built",
            Ended::Told(negative) if outcome(negative.failure.blame) == "interrupted" => "interrupted",
            Ended::Told(_) | Ended::Untold(_) => "failed",
            Ended::Otherwise(word) => word,
        }
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.operator {
            Some(operator) => write!(f, "{operator}")?,
            None => write!(f, "node {}", self.node)?,
        }
        write!(f, ", lease {}: {}", self.lease, self.ended.word())?;
        match &self.ended {
            Ended::Open | Ended::Otherwise(_) => Ok(()),
            Ended::Built { bound: Bound::Opened, .. } => f.write_str(", as it had committed to"),
            Ended::Built { attestation, bound: Bound::Sealed } => {
                write!(f, "; its commitment cannot be opened without attestation {attestation} and its salt")
            }
            Ended::Built { bound: Bound::Never, .. } => f.write_str(", without a commitment"),
            Ended::Told(negative) => {
                let failure = &negative.failure;
                let blame = outcome(failure.blame);
                write!(f, " in {} ({blame}, {}): {}", plain(&failure.step), failure.blame.word(), plain(&failure.what))
            }
            Ended::Untold(hash) => write!(f, "; what its builder signed, {hash}, is not here"),
        }
    }
}

/// What the parts of a course are held against.
struct Of<'a> {
    network: &'a NetworkId,
    job: JobId,
    newest: &'a Policy,
    /// Those of every coordinator that there was.
    keys: Vec<VerifierKey>,
    attestations: Vec<VerifiedAttestation>,
}

/// What the log says of an attempt, as far as it was read.
struct Seen {
    lease: entry::Lease,
    commitment: Option<(u64, Hash)>,
    end: Option<End>,
    place: u64,
}

impl Of<'_> {
    fn read(&self, course: &Course) -> Result<Attempts, Error> {
        let negatives = self.negatives(course)?;
        let Some(logged) = &course.logged else {
            return Ok(Attempts::of_negatives(self.newest, negatives.into_values()));
        };
        let checkpoint = self.checkpoint(logged)?;
        let mut list = self
            .entries(logged, &checkpoint)?
            .into_values()
            .map(|seen| self.attempt(seen, course, &negatives))
            .collect::<Result<Vec<Attempt>, Error>>()?;
        let known: BTreeSet<LeaseNumber> = list.iter().map(|attempt| attempt.lease).collect();
        let unlogged = negatives.into_values().filter(|negative| !known.contains(&negative.lease));
        list.extend(Attempts::of_negatives(self.newest, unlogged).list);
        list.sort_by_key(|attempt| attempt.lease);
        Ok(Attempts { list, size: Some(checkpoint.head().size) })
    }

    fn negatives(&self, course: &Course) -> Result<BTreeMap<Hash, Negative>, Error> {
        let read = |(at, bytes): (usize, &protocol::message::Octets)| {
            let position = at + 1;
            let negative =
                Negative::read(&bytes.0, self.network).map_err(|source| Error::Negative { position, source })?;
            match negative.job {
                job if job == self.job => Ok((Hash::of(&bytes.0), negative)),
                got => Err(Error::OtherJob { position, got }),
            }
        };
        course.negatives.iter().enumerate().map(read).collect()
    }

    /// A coordinator's key that is revoked signs nothing from its place on.
    fn checkpoint(&self, logged: &Logged) -> Result<Checkpoint, Error> {
        let signed = Signed::read(&logged.checkpoint.0).map_err(Error::Checkpoint)?;
        let last = signed.claims().head().size.saturating_sub(1);
        let counts = |key: &&VerifierKey| self.newest.revocation(key.key()).is_none_or(|revoked| last < revoked.from);
        let keys: Vec<VerifierKey> = self.keys.iter().filter(counts).cloned().collect();
        signed.verify(&keys).map_err(Error::Checkpoint)
    }

    fn entries(&self, logged: &Logged, checkpoint: &Checkpoint) -> Result<BTreeMap<LeaseNumber, Seen>, Error> {
        let mut seen: BTreeMap<LeaseNumber, Seen> = BTreeMap::new();
        let mut next = 0;
        for Placed { path, entry, index } in &logged.entries {
            let (index, story) = (*index, |why| Error::Story { index: *index, why });
            tree::check_inclusion(tree::leaf(&entry.0), index, checkpoint.head(), path)
                .map_err(|source| Error::Inclusion { index, source })?;
            let entry = Entry::from_bytes(&entry.0).map_err(|source| Error::Entry { index, source })?;
            if index < next {
                return Err(story("stands behind a later one"));
            }
            next = index + 1;
            match entry.event {
                Event::Lease(lease) if lease.job == self.job => {
                    let number = lease.lease;
                    if seen.insert(number, Seen { lease, commitment: None, end: None, place: index }).is_some() {
                        return Err(story("grants a lease again"));
                    }
                }
                Event::Commitment(it) if it.job == self.job => {
                    let attempt = of_lease(&mut seen, it.lease, it.node).ok_or_else(|| story("is of no attempt"))?;
                    (attempt.commitment, attempt.place) = (Some((index, it.digest)), index);
                }
                Event::Outcome(it) if it.job == self.job => {
                    let attempt = of_lease(&mut seen, it.lease, it.node).ok_or_else(|| story("is of no attempt"))?;
                    (attempt.end, attempt.place) = (Some(it.end), index);
                }
                Event::Verdict(it) if it.job == self.job => {}
                Event::Policy(_)
                | Event::Accepted(_)
                | Event::Lease(_)
                | Event::Commitment(_)
                | Event::Outcome(_)
                | Event::Verdict(_)
                | Event::Release(_)
                | Event::Revocation(_) => return Err(story("is not about an attempt of this job")),
            }
        }
        Ok(seen)
    }

    fn attempt(&self, seen: Seen, course: &Course, negatives: &BTreeMap<Hash, Negative>) -> Result<Attempt, Error> {
        let entry::Lease { node, lease, profile, .. } = seen.lease;
        let ended = match seen.end {
            None => Ended::Open,
            Some(End::Built(attestation)) => {
                Ended::Built { attestation, bound: self.bound(lease, (seen.commitment, attestation), &course.salts)? }
            }
            Some(End::Failed(hash) | End::Stopped(hash)) => match negatives.get(&hash) {
                None => Ended::Untold(hash),
                Some(said) if (said.lease, said.node) == (lease, node) => Ended::Told(Box::new(said.clone())),
                Some(_) => return Err(Error::Misnamed { lease }),
            },
            Some(End::Lost) => Ended::Otherwise("nothing came"),
            Some(End::Withheld) => Ended::Otherwise("withheld"),
            Some(End::Declined) => Ended::Otherwise("declined"),
            Some(End::Interrupted) => Ended::Otherwise("interrupted"),
            Some(End::Revoked) => Ended::Otherwise("taken back"),
        };
        let operator = self.newest.operator_of(&node).cloned();
        Ok(Attempt { lease, node, operator, profile: Some(profile), ended, place: Some(seen.place) })
    }

    fn bound(
        &self,
        lease: LeaseNumber,
        (committed, attestation): (Option<(u64, Hash)>, Hash),
        salts: &[Opened],
    ) -> Result<Bound, Error> {
        let Some((index, digest)) = committed else { return Ok(Bound::Never) };
        let salt = salts.iter().find(|opened| opened.lease == lease).map(|opened| opened.salt);
        let bytes = self.attestations.iter().find(|known| known.id() == attestation);
        let Some((salt, attestation)) = salt.zip(bytes) else { return Ok(Bound::Sealed) };
        if attestation.get().run.lease != lease {
            return Err(Error::Misnamed { lease });
        }
        match commitment::digest(self.network, lease, &salt, attestation.bytes()) {
            got if got == digest => Ok(Bound::Opened),
            _ => Err(Error::Unbound { lease, index }),
        }
    }
}

/// Keeps a builder's words on one line.
fn plain(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(WORDS_MAX).collect()
}

fn of_lease(seen: &mut BTreeMap<LeaseNumber, Seen>, lease: LeaseNumber, node: NodeId) -> Option<&mut Seen> {
    seen.get_mut(&lease).filter(|attempt| attempt.lease.node == node && attempt.end.is_none())
}

fn told(policy: &Policy, negative: Negative) -> Attempt {
    Attempt {
        lease: negative.lease,
        node: negative.node,
        operator: policy.operator_of(&negative.node).cloned(),
        profile: None,
        ended: Ended::Told(Box::new(negative)),
        place: None,
    }
}

/// Says whether a key is one that an operator of the policy answers for.
pub(super) fn is_operators(policy: &Policy, negative: &Negative) -> bool {
    policy.operator_of(&negative.node).is_some() && policy.revocation(&PublicKey::from(negative.node)).is_none()
}

#[cfg(test)]
mod tests;
