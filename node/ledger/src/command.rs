//! What happened: the entries of the coordinators' log. Written to the journal as bytes before any effect is performed, and
//! believed again only after every signature was verified again.

use attest::{
    negative::Negative,
    statement::{self, VerifiedAttestation},
};
use protocol::{
    ChannelName, Envelope, Hash, JobId, NetworkId, NodeId, Salt, Signed, Verified,
    codec::{self, DoorError},
    envelope::{EnvelopeError, Record},
    job::{JobRequest, Order},
    lease::LeaseNumber,
    limits,
    message::{Bid, Commitment, Failed, Octets, Offer, Renewal},
    peer::Capacity,
    policy::Policy,
    recipe::{Recipe, RecipeRun},
    release::Release,
};
use serde::{Deserialize, Serialize};

use crate::{commitments::Opening, explain::Findings, peers::Duty, service::Account};

/// The largest stored command, in bytes: a policy or an attestation with room around it.
pub const COMMAND_MAX: usize = limits::ATTESTATION_MAX + limits::POLICY_MAX;

/// Something that happened to the coordinator.
#[derive(Debug, Clone)]
pub enum Command {
    /// The roots signed a new policy.
    AdoptPolicy(Verified<Policy>),
    /// A maintainer wants a job.
    Submit(Verified<JobRequest>),
    /// A maintainer wants something else of a job.
    Order(Verified<Order>),
    /// A builder has a free slot for a job.
    Bid {
        /// The builder.
        node: NodeId,
        /// Its bid.
        bid: Bid,
    },
    /// A builder has room.
    Offer {
        /// The builder.
        node: NodeId,
        /// Its room.
        offer: Offer,
    },
    /// What a builder says of itself changed.
    Card {
        /// The builder.
        node: NodeId,
        /// What it offers in all, when it builds.
        capacity: Option<Capacity>,
        /// Whether it takes anything new.
        duty: Duty,
    },
    /// A builder does not take the lease that it was granted.
    Declined {
        /// The builder.
        node: NodeId,
        /// The lease.
        lease: LeaseNumber,
        /// Its words.
        why: String,
    },
    /// A builder says that leases live.
    Renewed {
        /// The builder.
        node: NodeId,
        /// The leases.
        renewals: Vec<Renewal>,
    },
    /// A sandbox started.
    Started {
        /// The builder.
        node: NodeId,
        /// The lease.
        lease: LeaseNumber,
    },
    /// A builder has a result, and is bound to it.
    Committed {
        /// The builder.
        node: NodeId,
        /// Lease and digest.
        commitment: Commitment,
    },
    /// An attempt ended with outputs.
    Revealed {
        /// The builder.
        node: NodeId,
        /// The lease.
        lease: LeaseNumber,
        /// BLAKE3 of the build log.
        log: Hash,
        /// What it was committed to.
        opening: Opening,
        /// What it attests.
        attestation: VerifiedAttestation,
    },
    /// An attempt ended without outputs.
    Failed {
        /// The builder.
        node: NodeId,
        /// Lease, class, step and words.
        report: Failed,
    },
    /// The connection to a builder is gone. Its leases live on until they expire.
    Lost {
        /// The builder.
        node: NodeId,
    },
    /// The timer of the last `WakeAt` fired.
    Woken,
    /// The coordinator came up again: nobody could renew a lease in between.
    Restarted,
    /// A job's outputs are in the repository, or a server job is done.
    Published {
        /// The job.
        job: JobId,
        /// The generation that it became; zero for what changes nothing.
        generation: u64,
    },
    /// The newest generation of a channel is known to be without a job that was withdrawn.
    Withdrawn {
        /// The job.
        job: JobId,
        /// The generation.
        generation: u64,
    },
    /// A job that is to be withdrawn was found: this generation of it will continue what was found, and have it.
    Found {
        /// The job.
        job: JobId,
        /// The generation, not yet made.
        generation: u64,
    },
    /// A generation is written and its release signed: nobody is told of it before it is logged.
    Released(Verified<Release>),
    /// Half of the life of a repository's signed index is over: it is to be signed anew.
    Resign {
        /// The channel.
        channel: ChannelName,
    },
    /// What the publisher did in its last try for a job, told before how the try ended.
    Ran {
        /// The job.
        job: JobId,
        /// Steps, log and result.
        account: Account,
    },
    /// A difference was looked into.
    Explained {
        /// The explanation.
        explanation: JobId,
        /// What was found.
        findings: Findings,
    },
    /// A coordinator says which key signs the repositories that it publishes, two while it changes; the certificates were read
    /// before.
    Signer {
        /// The coordinator.
        node: NodeId,
        /// The certificate.
        certificate: Octets,
    },
    /// A maintainer wants a recipe kept, or removed.
    Recipe(Verified<Recipe>),
    /// A maintainer tells how a run of a recipe goes.
    RecipeRun(Verified<RecipeRun>),
    /// They could not be put there.
    PublishFailed {
        /// The job.
        job: JobId,
        /// The generation that was tried; none in what earlier versions wrote.
        generation: Option<u64>,
        /// Whether it may work later.
        cause: Cause,
        /// Whether anything of the generation may be out.
        left: Left,
        /// The publisher's words.
        why: String,
    },
}

/// Whether what went wrong may go right by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// It passes: a disk is full, a node is away, somebody else is at work.
    Transient,
    /// It lasts: a version is there with other content, a package is malformed.
    Permanent,
}

/// Whether a try that failed may have shown its generation to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Left {
    /// Certainly not: it ended before anything was written.
    #[default]
    Nothing,
    /// It may have: the generation is written, at least in part.
    Perhaps,
}

/// Why stored bytes are no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The bytes did not pass the door.
    #[error("stored command does not pass the door")]
    Door(#[from] DoorError),
    /// A signed record inside does not verify.
    #[error("signed record in a stored command does not verify")]
    Record(#[from] EnvelopeError),
    /// An attestation inside does not verify.
    #[error("attestation in a stored command does not verify: {why}")]
    Attestation {
        /// What its reader said.
        why: String,
    },
}

/// A command as bytes hold it: records as the envelopes that were received.
#[derive(Serialize, Deserialize)]
enum Stored {
    AdoptPolicy(Envelope),
    Submit(Envelope),
    Order(Envelope),
    Bid(NodeId, Bid),
    Offer(NodeId, Offer),
    Card(NodeId, Option<Capacity>, Duty),
    Declined(NodeId, LeaseNumber, String),
    Renewed(NodeId, Vec<Renewal>),
    Started(NodeId, LeaseNumber),
    /// As earlier versions wrote it, which knew no commitments.
    Revealed(NodeId, LeaseNumber, Hash, Octets),
    Committed(NodeId, Commitment),
    Opened(NodeId, LeaseNumber, Hash, Salt, Octets),
    Failed(NodeId, Failed),
    Lost(NodeId),
    Woken,
    Restarted,
    Published(JobId, u64),
    /// As earlier versions wrote it, which tried everything again.
    PublishFailed(JobId, String),
    Resign(ChannelName),
    Ran(JobId, Account),
    Explained(JobId, Findings),
    /// As earlier versions wrote it, which took it for certain that nothing was out.
    PublishFailedOf(JobId, Cause, String),
    Signer(NodeId, Octets),
    /// As earlier versions wrote it, which did not say which generation was tried.
    PublishFailedLeaving(JobId, Cause, Left, String),
    PublishFailedAs(JobId, u64, Cause, Left, String),
    Withdrawn(JobId, u64),
    Found(JobId, u64),
    Recipe(Envelope),
    RecipeRun(Envelope),
    Released(Envelope),
}

impl Command {
    /// Gives the bytes for the journal.
    pub fn to_bytes(&self) -> Vec<u8> {
        let stored = match self {
            Command::AdoptPolicy(policy) => Stored::AdoptPolicy(envelope(policy)),
            Command::Submit(request) => Stored::Submit(envelope(request)),
            Command::Order(order) => Stored::Order(envelope(order)),
            Command::Bid { node, bid } => Stored::Bid(*node, bid.clone()),
            Command::Offer { node, offer } => Stored::Offer(*node, offer.clone()),
            Command::Card { node, capacity, duty } => Stored::Card(*node, capacity.clone(), duty.clone()),
            Command::Declined { node, lease, why } => Stored::Declined(*node, *lease, why.clone()),
            Command::Renewed { node, renewals } => Stored::Renewed(*node, renewals.clone()),
            Command::Started { node, lease } => Stored::Started(*node, *lease),
            Command::Committed { node, commitment } => Stored::Committed(*node, commitment.clone()),
            Command::Revealed { node, lease, log, opening, attestation } => {
                let attestation = Octets(attestation.bytes().to_vec());
                match opening {
                    Opening::Salt(salt) => Stored::Opened(*node, *lease, *log, *salt, attestation),
                    Opening::EarlierVersion => Stored::Revealed(*node, *lease, *log, attestation),
                }
            }
            Command::Failed { node, report } => Stored::Failed(*node, report.clone()),
            Command::Lost { node } => Stored::Lost(*node),
            Command::Woken => Stored::Woken,
            Command::Restarted => Stored::Restarted,
            Command::Published { job, generation } => Stored::Published(*job, *generation),
            Command::PublishFailed { job, generation, cause, left, why } => match generation {
                Some(generation) => Stored::PublishFailedAs(*job, *generation, *cause, *left, why.clone()),
                None => Stored::PublishFailedLeaving(*job, *cause, *left, why.clone()),
            },
            Command::Withdrawn { job, generation } => Stored::Withdrawn(*job, *generation),
            Command::Found { job, generation } => Stored::Found(*job, *generation),
            Command::Signer { node, certificate } => Stored::Signer(*node, certificate.clone()),
            Command::Resign { channel } => Stored::Resign(channel.clone()),
            Command::Ran { job, account } => Stored::Ran(*job, account.clone()),
            Command::Explained { explanation, findings } => Stored::Explained(*explanation, findings.clone()),
            Command::Recipe(recipe) => Stored::Recipe(envelope(recipe)),
            Command::RecipeRun(run) => Stored::RecipeRun(envelope(run)),
            Command::Released(release) => Stored::Released(envelope(release)),
        };
        codec::encode(&stored)
    }

    /// Reads bytes of the journal and verifies what is signed in them.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn from_bytes(bytes: &[u8], network: &NetworkId) -> Result<Self, CommandError> {
        Ok(match codec::decode::<Stored>(bytes, COMMAND_MAX)? {
            Stored::AdoptPolicy(policy) => Command::AdoptPolicy(verify(&policy, network)?),
            Stored::Submit(request) => Command::Submit(verify(&request, network)?),
            Stored::Order(order) => Command::Order(verify(&order, network)?),
            Stored::Bid(node, bid) => Command::Bid { node, bid },
            Stored::Offer(node, offer) => Command::Offer { node, offer },
            Stored::Card(node, capacity, duty) => Command::Card { node, capacity, duty },
            Stored::Declined(node, lease, why) => Command::Declined { node, lease, why },
            Stored::Renewed(node, renewals) => Command::Renewed { node, renewals },
            Stored::Started(node, lease) => Command::Started { node, lease },
            Stored::Committed(node, commitment) => Command::Committed { node, commitment },
            Stored::Revealed(node, lease, log, Octets(bytes)) => {
                let opening = Opening::EarlierVersion;
                Command::Revealed { node, lease, log, opening, attestation: attestation(&bytes, network)? }
            }
            Stored::Opened(node, lease, log, salt, Octets(bytes)) => {
                let opening = Opening::Salt(salt);
                Command::Revealed { node, lease, log, opening, attestation: attestation(&bytes, network)? }
            }
            Stored::Failed(node, report) => {
                report.statement.as_ref().map_or(Ok(()), |statement| negative(statement, network))?;
                Command::Failed { node, report }
            }
            Stored::Lost(node) => Command::Lost { node },
            Stored::Woken => Command::Woken,
            Stored::Restarted => Command::Restarted,
            Stored::Published(job, generation) => Command::Published { job, generation },
            Stored::PublishFailed(job, why) => failed(job, None, (Cause::Transient, Left::Nothing), why),
            Stored::PublishFailedOf(job, cause, why) => failed(job, None, (cause, Left::Nothing), why),
            Stored::PublishFailedLeaving(job, cause, left, why) => failed(job, None, (cause, left), why),
            Stored::PublishFailedAs(job, generation, cause, left, why) => {
                failed(job, Some(generation), (cause, left), why)
            }
            Stored::Withdrawn(job, generation) => Command::Withdrawn { job, generation },
            Stored::Found(job, generation) => Command::Found { job, generation },
            Stored::Signer(node, certificate) => Command::Signer { node, certificate },
            Stored::Resign(channel) => Command::Resign { channel },
            Stored::Ran(job, account) => Command::Ran { job, account },
            Stored::Explained(explanation, findings) => Command::Explained { explanation, findings },
            Stored::Recipe(recipe) => Command::Recipe(verify(&recipe, network)?),
            Stored::RecipeRun(run) => Command::RecipeRun(verify(&run, network)?),
            Stored::Released(release) => Command::Released(verify(&release, network)?),
        })
    }
}

fn failed(job: JobId, generation: Option<u64>, (cause, left): (Cause, Left), why: String) -> Command {
    Command::PublishFailed { job, generation, cause, left, why }
}

fn envelope<T: Record>(record: &Verified<T>) -> Envelope {
    codec::decode(&record.to_bytes(), usize::MAX).expect("a verified record writes a canonical envelope")
}

fn verify<T: Record>(envelope: &Envelope, network: &NetworkId) -> Result<Verified<T>, EnvelopeError> {
    Signed::<T>::read(&codec::encode(envelope))?.verify(Some(network))
}

/// Verifies a stored statement of a failure again.
fn negative(Octets(bytes): &Octets, network: &NetworkId) -> Result<(), CommandError> {
    let read = Negative::read(bytes, network);
    read.map(drop).map_err(|e| CommandError::Attestation { why: e.to_string() })
}

/// Verifies a stored attestation again.
pub(crate) fn attestation(bytes: &[u8], network: &NetworkId) -> Result<VerifiedAttestation, CommandError> {
    statement::read(bytes, network).map_err(|e| CommandError::Attestation { why: e.to_string() })
}
