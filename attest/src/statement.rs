//! Statements: what one attempt made from what, signed by the node that ran it.
//!
//! ```text
//!  Attestation --sign(key)--> DSSE JSON bytes --read(network)--> VerifiedAttestation
//!              limits, own rules              limits, form, signature of builder.id, meaning, network
//! ```
//!
//! On the wire it is an in-toto Statement v1 with the SLSA provenance v1 predicate, so that other tools can read it;
//! inside artel it is [`Attestation`]. Whether the signer may vote and whether the job exists is not asked here.

mod wire;

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use protocol::{
    Arch, ChannelName, FileName, Hash, JobId, NetworkId, NodeId, PackageName, PublicKey, Sha256, Timestamp, Verified,
    envelope::check_set,
    job::{ImageJob, JobKind, JobRequest},
    lease::{Lease, LeaseNumber, Profile},
    limits,
    words::{DebVersion, RelativePath},
};
use serde::{Deserialize, Serialize};

pub(crate) use self::wire::{STATEMENT_TYPE, write_time};
use crate::{
    compare::{Output, Role, role},
    dsse, link,
};

/// Facts that a builder may tell about itself.
pub const NODE_INFO_MAX: usize = 64;
/// Byproducts of one attempt.
pub const BYPRODUCTS_MAX: usize = 64;
/// The largest number that every JSON reader keeps exactly (2^53 - 1); lease numbers and sizes stay below.
pub const EXACT_MAX: u64 = (1 << 53) - 1;

/// What was built: one package or one command's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Binary packages of a Debian source package.
    Deb {
        /// The source package.
        source: PackageName,
        /// Its version.
        version: DebVersion,
    },
    /// RPM packages of a source RPM or spec.
    Rpm {
        /// The source package.
        source: PackageName,
        /// Its version.
        version: DebVersion,
    },
    /// The outputs of a command.
    Command {
        /// What the job is called.
        name: FileName,
    },
    /// The images of a recipe.
    Image {
        /// What the recipe is called.
        name: FileName,
    },
    /// The sources of a fetch.
    Fetch {
        /// What the fetch is called.
        name: FileName,
    },
    /// A server job, which nobody builds: no statement of it is ever signed or read.
    Server,
}

impl Work {
    /// Gives the word of [`JobKind::word`].
    pub fn word(&self) -> &'static str {
        match self {
            Work::Deb { .. } => "deb",
            Work::Rpm { .. } => "rpm",
            Work::Command { .. } => "command",
            Work::Image { .. } => "image",
            Work::Fetch { .. } => "fetch",
            Work::Server => "server",
        }
    }
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Work::Deb { source, version } => write!(f, "deb {source} {version}"),
            Work::Rpm { source, version } => write!(f, "rpm {source} {version}"),
            Work::Command { name } => write!(f, "command {name}"),
            Work::Image { name } => write!(f, "image {name}"),
            Work::Fetch { name } => write!(f, "fetch {name}"),
            Work::Server => f.write_str("server job"),
        }
    }
}

/// What the maintainer asked for, as the builder understood it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The network.
    pub network: NetworkId,
    /// The job.
    pub job: JobId,
    /// What was built.
    pub work: Work,
    /// The architecture that the build ran on.
    pub arch: Arch,
    /// The channel.
    pub channel: ChannelName,
    /// The environment lock's id.
    pub environment: Hash,
}

impl Task {
    /// Gives the task of a request.
    pub fn of(job: JobId, request: &JobRequest) -> Self {
        let work = match &request.kind {
            JobKind::Deb(deb) => Work::Deb { source: deb.source.clone(), version: deb.version.clone() },
            JobKind::Rpm(rpm) => Work::Rpm { source: rpm.name.clone(), version: rpm.version.clone() },
            JobKind::Command(command) => Work::Command { name: command.name.clone() },
            JobKind::Image(image) => Work::Image { name: image.name.clone() },
            JobKind::Fetch(fetch) => Work::Fetch { name: fetch.name.clone() },
            JobKind::Server(_) => Work::Server,
        };
        Self {
            network: request.network,
            job,
            work,
            arch: request.arch,
            channel: request.channel.clone(),
            environment: request.environment,
        }
    }
}

/// Who built it, when and under which lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The builder; the attestation is signed by it.
    pub node: NodeId,
    /// The attempt's lease.
    pub lease: LeaseNumber,
    /// The variation that the attempt ran under.
    pub profile: Profile,
    /// When the attempt started, in whole seconds on the wire.
    pub started: Timestamp,
    /// When it finished, in whole seconds on the wire.
    pub finished: Timestamp,
    /// The version of artel that ran it.
    pub version: String,
    /// Facts about the builder for people, for instance `kernel`; at most [`NODE_INFO_MAX`].
    pub node_info: BTreeMap<String, String>,
}

/// One input file that the request names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Material {
    /// The file's name.
    pub name: RelativePath,
    /// Its SHA-256, as checked on the builder.
    pub sha256: Sha256,
}

impl Material {
    /// Gives the materials of a request, sorted by name.
    pub fn of(request: &JobRequest) -> Vec<Self> {
        let plain = |name: &FileName| RelativePath::new(name).expect("a file name is a path of one part");
        match &request.kind {
            JobKind::Deb(deb) => deb.files.iter().map(|f| Self { name: plain(&f.name), sha256: f.sha256 }).collect(),
            JobKind::Rpm(rpm) => rpm.files.iter().map(|f| Self { name: plain(&f.name), sha256: f.sha256 }).collect(),
            JobKind::Command(command) => {
                command.inputs.iter().map(|f| Self { name: f.path.clone(), sha256: f.sha256 }).collect()
            }
            JobKind::Image(image) => Self::of_image(image),
            JobKind::Server(_) | JobKind::Fetch(_) => Vec::new(),
        }
    }
}

impl Material {
    fn of_image(image: &ImageJob) -> Vec<Self> {
        let files = image.files.iter().map(|f| Self { name: ImageJob::input_path(f), sha256: f.sha256 });
        let lock = RelativePath::new(ImageJob::LOCK).map(|name| Self { name, sha256: image.packages.sha256 });
        // `files/` sorts before the lock.
        files.chain(lock).collect()
    }
}

/// A builder's statement: these inputs, in this environment, gave these outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// What was asked for.
    pub task: Task,
    /// Who built it.
    pub run: Run,
    /// Files that are compared and published, sorted by name; at least one.
    pub outputs: Vec<Output>,
    /// Files that are kept but never compared, sorted by name.
    pub byproducts: Vec<Output>,
    /// Input files, sorted by name, see [`Material::of`].
    pub materials: Vec<Material>,
}

/// Why an attestation was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The envelope is not acceptable.
    #[error(transparent)]
    Envelope(#[from] dsse::Error),
    /// The envelope holds something else.
    #[error("payload is of type {got:?}, expected {wanted:?}", wanted = dsse::IN_TOTO)]
    PayloadType {
        /// The type found.
        got: String,
    },
    /// The payload is not a statement of ours.
    #[error("not a build statement: {why}")]
    Form {
        /// What is wrong.
        why: String,
    },
    /// The node that the statement names did not sign it.
    #[error("no valid signature by the builder {node} that the statement names")]
    BadSignature {
        /// The node named as builder.
        node: NodeId,
    },
    /// The statement was made for another network.
    #[error("attestation is for network {got}, this is {wanted}")]
    OtherNetwork {
        /// The network found.
        got: NetworkId,
        /// This network.
        wanted: NetworkId,
    },
    /// The statement breaks one of its own rules.
    #[error("attestation is not acceptable: {0}")]
    Meaning(String),
}

impl Attestation {
    /// Says in one line what was built, for instance `deb base-files 12.4 amd64`.
    pub fn title(&self) -> String {
        format!("{} {}", self.task.work, self.task.arch)
    }

    /// Signs the statement, and the links of its packages, and gives the DSSE envelope's bytes; equal statements give equal bytes.
    ///
    /// # Errors
    /// When the statement breaks a rule, the key is not the builder's, or the envelope would be too large: what others
    /// would refuse is never signed.
    pub fn sign(&self, key: &SigningKey) -> Result<Vec<u8>, Error> {
        self.check().map_err(Error::Meaning)?;
        if key.verifying_key().as_bytes() != self.run.node.as_bytes() {
            return Err(Error::BadSignature { node: self.run.node });
        }
        let payload = wire::Statement::of(self).linked(key).to_bytes();
        let bytes = dsse::Envelope::sign(dsse::IN_TOTO, payload, &[key]).to_bytes();
        match bytes.len() {
            got if got > limits::ATTESTATION_MAX => {
                Err(dsse::Error::TooLarge { got, limit: limits::ATTESTATION_MAX }.into())
            }
            _ => Ok(bytes),
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.task.work == Work::Server {
            return Err("a server job is not built, so nobody attests it".into());
        }
        if self.outputs.is_empty() {
            return Err("an attestation names at least one output".into());
        }
        check_set("outputs", &names(&self.outputs), limits::OUTPUTS_MAX)?;
        check_set("byproducts", &names(&self.byproducts), BYPRODUCTS_MAX)?;
        check_set("materials", &self.materials.iter().map(|m| &m.name).collect::<Vec<_>>(), limits::INPUTS_MAX)?;
        let misplaced = |o: &&Output| role(&self.task.work, &o.name) == Role::Byproduct;
        if let Some(output) = self.outputs.iter().find(misplaced) {
            return Err(format!("{} is a byproduct, not an output", output.name));
        }
        if let Some(both) = self.byproducts.iter().find(|b| self.outputs.iter().any(|o| o.name == b.name)) {
            return Err(format!("{} is both output and byproduct", both.name));
        }
        if self.outputs.iter().chain(&self.byproducts).any(|o| o.size > EXACT_MAX) {
            return Err(format!("a file has at most {EXACT_MAX} bytes"));
        }
        self.run.check()
    }
}

fn names(outputs: &[Output]) -> Vec<&RelativePath> {
    outputs.iter().map(|o| &o.name).collect()
}

impl Run {
    fn check(&self) -> Result<(), String> {
        if self.finished < self.started {
            return Err("the attempt finished before it started".into());
        }
        if self.lease.0 > EXACT_MAX {
            return Err(format!("a lease number is at most {EXACT_MAX}"));
        }
        if !printable(&self.version, 64) {
            return Err("the version has 1 to 64 printable characters".into());
        }
        let fits = self.node_info.iter().all(|(key, value)| printable(key, 64) && printable(value, 256));
        if self.node_info.len() > NODE_INFO_MAX || !fits {
            return Err(format!("node_info has at most {NODE_INFO_MAX} printable texts of at most 64 and 256 bytes"));
        }
        Ok(())
    }
}

fn printable(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
}

/// An attestation whose form, signature, rules and network were checked. Whether its signer has a vote is the policy's
/// question, see [`crate::independence::Vote::of`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedAttestation {
    value: Attestation,
    id: Hash,
    bytes: Vec<u8>,
}

/// Reads an attestation: limits, form, the signature of the node that `builder.id` names, rules, and the network.
///
/// # Errors
/// The first check that fails.
pub fn read(bytes: &[u8], network: &NetworkId) -> Result<VerifiedAttestation, Error> {
    if bytes.contains(&b'\n') {
        return Err(Error::Form { why: "an attestation is one line, so that it can stand in a file of lines".into() });
    }
    let envelope = dsse::Envelope::read(bytes, limits::ATTESTATION_MAX)?;
    if envelope.payload_type() != dsse::IN_TOTO {
        return Err(Error::PayloadType { got: envelope.payload_type().chars().take(120).collect() });
    }
    let value = wire::Statement::read(envelope.payload())?.meaning()?;
    if envelope.signers(&[PublicKey::from(value.run.node)]).is_empty() {
        return Err(Error::BadSignature { node: value.run.node });
    }
    value.check().map_err(Error::Meaning)?;
    if value.task.network != *network {
        return Err(Error::OtherNetwork { got: value.task.network, wanted: *network });
    }
    Ok(VerifiedAttestation { value, id: Hash::of(bytes), bytes: bytes.to_vec() })
}

/// An attestation that does not answer this request or this lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("attestation says {field} {attested}, wanted {wanted}")]
pub struct Mismatch {
    field: &'static str,
    attested: String,
    wanted: String,
}

impl VerifiedAttestation {
    /// Gives the statement.
    pub fn get(&self) -> &Attestation {
        &self.value
    }

    /// Gives the hash of the envelope's bytes.
    pub fn id(&self) -> Hash {
        self.id
    }

    /// Gives the builder, whose signature was verified.
    pub fn signer(&self) -> NodeId {
        self.value.run.node
    }

    /// Gives the envelope's bytes, as received.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the builder's signatures on links of its packages, see [`link`], as far as they hold. One that does not, or none at
    /// all, takes nothing from the statement.
    pub fn links(&self) -> Vec<(Output, link::Signature)> {
        let payload = dsse::Envelope::read(&self.bytes, limits::ATTESTATION_MAX);
        let statement = payload.ok().and_then(|envelope| wire::Statement::read(envelope.payload()).ok());
        let key = PublicKey::from(self.signer());
        let claimed = statement.into_iter().flat_map(wire::Statement::links);
        let signed = claimed.map(|(output, bytes)| (output, link::Signature { key, bytes }));
        let holds = |(output, signature): &(Output, link::Signature)| {
            link::Link::of(output.name.as_str(), &output.sha256).is_some_and(|link| link.is_signed_by(signature))
        };
        signed.filter(holds).collect()
    }

    /// Checks that the attestation answers this request: the same job, work, architecture, channel, environment and
    /// input files, and, for a command, exactly the outputs that it declares.
    ///
    /// # Errors
    /// The first field that differs.
    pub fn matches_request(&self, request: &Verified<JobRequest>) -> Result<(), Mismatch> {
        let wanted = Task::of(protocol::job::job_id(request), request.get());
        let task = &self.value.task;
        same("network", &task.network, &wanted.network)?;
        same("job", &task.job, &wanted.job)?;
        same("work", &task.work, &wanted.work)?;
        same("architecture", &task.arch, &wanted.arch)?;
        same("channel", &task.channel, &wanted.channel)?;
        same("environment", &task.environment, &wanted.environment)?;
        same("materials", &listed(&self.value.materials), &listed(&Material::of(request.get())))?;
        let join = |names: Vec<&RelativePath>| names.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(" ");
        match &request.get().kind {
            JobKind::Deb(_) | JobKind::Rpm(_) | JobKind::Server(_) => Ok(()),
            JobKind::Command(command) => {
                same("outputs", &join(names(&self.value.outputs)), &join(command.outputs.iter().collect()))
            }
            JobKind::Fetch(fetch) => {
                same("outputs", &join(names(&self.value.outputs)), &join(fetch.outputs().iter().collect()))
            }
            JobKind::Image(image) => {
                let declared = image.outputs(request.get().arch);
                same("outputs", &join(names(&self.value.outputs)), &join(declared.iter().collect()))
            }
        }
    }

    /// Checks that the attestation was made under this lease.
    ///
    /// # Errors
    /// The first field that differs.
    pub fn matches_lease(&self, lease: &Lease) -> Result<(), Mismatch> {
        let run = &self.value.run;
        same("job", &self.value.task.job, &lease.job)?;
        same("builder", &run.node, &lease.node)?;
        same("lease", &run.lease, &lease.number)?;
        same("profile", &run.profile.0, &lease.profile.0)
    }
}

fn listed(materials: &[Material]) -> String {
    materials.iter().map(|m| format!("{} {}", m.name, m.sha256)).collect::<Vec<_>>().join(", ")
}

fn same<T: PartialEq + std::fmt::Display>(field: &'static str, attested: &T, wanted: &T) -> Result<(), Mismatch> {
    if attested == wanted {
        return Ok(());
    }
    let cut = |value: &T| value.to_string().chars().take(200).collect();
    Err(Mismatch { field, attested: cut(attested), wanted: cut(wanted) })
}

#[cfg(test)]
mod tests;
