//! The JSON form: in-toto Statement v1 with the SLSA provenance v1 predicate.
//!
//! Field names are those of the two specifications. Unknown fields are ignored where in-toto says so; unknown external
//! parameters are refused, as SLSA demands of whoever verifies.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use protocol::{
    Arch, ChannelName, FileName, Hash, JobId, NetworkId, NodeId, PackageName, Sha256, Timestamp,
    lease::{LeaseNumber, Profile},
    words::{DebVersion, RelativePath},
};
use serde::{Deserialize, Serialize};

use super::{Attestation, Error, Material, Run, Task, Work};
use crate::{
    compare::Output,
    dsse,
    link::{self, Link},
};

/// The `_type` of every statement.
pub(crate) const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
const BUILDER: &str = "https://artel.example/builder/";
const VERSION_KEY: &str = "artel";

/// The statement around the predicate.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Statement {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<FileDescriptor>,
    predicate_type: String,
    predicate: Provenance,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Provenance {
    build_definition: BuildDefinition,
    run_details: RunDetails,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BuildDefinition {
    build_type: String,
    external_parameters: External,
    internal_parameters: Internal,
    resolved_dependencies: Vec<MaterialDescriptor>,
}

/// What the maintainer decided. Everything here is checked against the signed request.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct External {
    architecture: Arch,
    channel: ChannelName,
    environment: Hash,
    job: JobId,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    name: Option<FileName>,
    network: NetworkId,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    source: Option<PackageName>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    version: Option<DebVersion>,
}

/// What the coordinator and the builder decided.
#[derive(Serialize, Deserialize)]
struct Internal {
    lease: LeaseNumber,
    #[serde(default)]
    node: BTreeMap<String, String>,
    profile: Profile,
}

#[derive(Serialize, Deserialize)]
struct RunDetails {
    builder: Builder,
    metadata: Metadata,
    #[serde(default)]
    byproducts: Vec<FileDescriptor>,
}

#[derive(Serialize, Deserialize)]
struct Builder {
    id: String,
    version: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    invocation_id: String,
    started_on: String,
    finished_on: String,
}

#[derive(Serialize, Deserialize)]
struct FileDescriptor {
    name: RelativePath,
    digest: Digests,
    annotations: Annotations,
}

#[derive(Serialize, Deserialize)]
struct Digests {
    blake3: Hash,
    sha256: Sha256,
}

#[derive(Serialize, Deserialize)]
struct Annotations {
    size: u64,
    /// The builder's signature on the file's link. It is no part of the meaning, so whatever stands here does no harm.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    link: Option<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct MaterialDescriptor {
    name: RelativePath,
    digest: MaterialDigest,
}

#[derive(Serialize, Deserialize)]
struct MaterialDigest {
    sha256: Sha256,
}

impl Statement {
    /// Gives the JSON form of an attestation.
    pub(super) fn of(attestation: &Attestation) -> Self {
        let Attestation { task, run, outputs, byproducts, materials } = attestation;
        Self {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: outputs.iter().map(FileDescriptor::of).collect(),
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: Provenance {
                build_definition: BuildDefinition {
                    build_type: build_type(&task.work),
                    external_parameters: External::of(task),
                    internal_parameters: Internal {
                        lease: run.lease,
                        profile: run.profile,
                        node: run.node_info.clone(),
                    },
                    resolved_dependencies: materials.iter().map(MaterialDescriptor::of).collect(),
                },
                run_details: RunDetails {
                    builder: Builder {
                        id: format!("{BUILDER}{}", run.node),
                        version: BTreeMap::from([(VERSION_KEY.to_owned(), run.version.clone())]),
                    },
                    metadata: Metadata {
                        invocation_id: invocation(&task.job, run.lease),
                        started_on: write_time(run.started),
                        finished_on: write_time(run.finished),
                    },
                    byproducts: byproducts.iter().map(FileDescriptor::of).collect(),
                },
            },
        }
    }

    /// Adds the builder's signatures on the links of its packages.
    pub(super) fn linked(mut self, key: &SigningKey) -> Self {
        for subject in &mut self.subject {
            let link = Link::of(subject.name.as_str(), &subject.digest.sha256);
            subject.annotations.link = link.map(|link| link::to_hex(&link.sign(key).bytes).into());
        }
        self
    }

    /// Gives what stands where signatures on links do, by file; nobody looked whether they hold.
    pub(super) fn links(self) -> impl Iterator<Item = (Output, Vec<u8>)> {
        self.subject.into_iter().filter_map(|mut subject| {
            let bytes = link::from_hex(subject.annotations.link.take()?.as_str()?)?;
            Some((subject.output(), bytes))
        })
    }

    /// Gives the JSON bytes: fields in the order of declaration, no spaces.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and maps with text keys always write as JSON")
    }

    /// Reads the JSON form.
    pub(super) fn read(payload: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(payload).map_err(|e| Error::Form { why: dsse::printable(&e) })
    }

    /// Gives the meaning; everything that is said twice must agree.
    pub(super) fn meaning(self) -> Result<Attestation, Error> {
        expect("statement type", &self.statement_type, STATEMENT_TYPE)?;
        expect("predicate type", &self.predicate_type, PREDICATE_TYPE)?;
        let BuildDefinition { build_type: kind, external_parameters, internal_parameters, resolved_dependencies } =
            self.predicate.build_definition;
        let RunDetails { builder, metadata, byproducts } = self.predicate.run_details;
        let task = external_parameters.task()?;
        expect("build type", &kind, &build_type(&task.work))?;
        expect("invocation id", &metadata.invocation_id, &invocation(&task.job, internal_parameters.lease))?;
        let run = Run {
            node: node(&builder.id)?,
            lease: internal_parameters.lease,
            profile: internal_parameters.profile,
            started: read_time(&metadata.started_on)?,
            finished: read_time(&metadata.finished_on)?,
            version: builder.version.get(VERSION_KEY).cloned().unwrap_or_default(),
            node_info: internal_parameters.node,
        };
        Ok(Attestation {
            task,
            run,
            outputs: self.subject.into_iter().map(FileDescriptor::output).collect(),
            byproducts: byproducts.into_iter().map(FileDescriptor::output).collect(),
            materials: resolved_dependencies.into_iter().map(MaterialDescriptor::material).collect(),
        })
    }
}

impl External {
    fn of(task: &Task) -> Self {
        let (name, source, version) = match &task.work {
            Work::Deb { source, version } | Work::Rpm { source, version } => {
                (None, Some(source.clone()), Some(version.clone()))
            }
            Work::Command { name } | Work::Image { name } | Work::Fetch { name } => (Some(name.clone()), None, None),
            Work::Server => (None, None, None),
        };
        Self {
            architecture: task.arch,
            channel: task.channel.clone(),
            environment: task.environment,
            job: task.job,
            kind: task.work.word().to_owned(),
            name,
            network: task.network,
            source,
            version,
        }
    }

    fn task(self) -> Result<Task, Error> {
        let work = match (self.kind.as_str(), self.name, self.source, self.version) {
            ("deb", None, Some(source), Some(version)) => Work::Deb { source, version },
            ("rpm", None, Some(source), Some(version)) => Work::Rpm { source, version },
            ("command", Some(name), None, None) => Work::Command { name },
            ("image", Some(name), None, None) => Work::Image { name },
            ("fetch", Some(name), None, None) => Work::Fetch { name },
            (kind, ..) => {
                let kind: String = kind.chars().take(40).collect();
                let why = format!(
                    "kind {kind:?} needs source and version (deb, rpm) or name (command, image, fetch), and no more"
                );
                return Err(Error::Form { why });
            }
        };
        Ok(Task {
            network: self.network,
            job: self.job,
            work,
            arch: self.architecture,
            channel: self.channel,
            environment: self.environment,
        })
    }
}

impl FileDescriptor {
    fn of(output: &Output) -> Self {
        Self {
            name: output.name.clone(),
            digest: Digests { blake3: output.hash, sha256: output.sha256 },
            annotations: Annotations { size: output.size, link: None },
        }
    }

    fn output(self) -> Output {
        Output { hash: self.digest.blake3, name: self.name, size: self.annotations.size, sha256: self.digest.sha256 }
    }
}

impl MaterialDescriptor {
    fn of(material: &Material) -> Self {
        Self { name: material.name.clone(), digest: MaterialDigest { sha256: material.sha256 } }
    }

    fn material(self) -> Material {
        Material { name: self.name, sha256: self.digest.sha256 }
    }
}

fn build_type(work: &Work) -> String {
    format!("https://artel.example/buildtypes/{}/v1", work.word())
}

fn invocation(job: &JobId, lease: LeaseNumber) -> String {
    format!("{job}/{lease}")
}

fn node(id: &str) -> Result<NodeId, Error> {
    let node = id.strip_prefix(BUILDER).and_then(|hex| hex.parse().ok());
    node.ok_or_else(|| Error::Form { why: format!("builder.id is not {BUILDER}<64 hexadecimal digits>") })
}

fn expect(what: &str, got: &str, wanted: &str) -> Result<(), Error> {
    if got == wanted {
        return Ok(());
    }
    let got: String = got.chars().take(120).collect();
    Err(Error::Form { why: format!("{what} is {got:?}, expected {wanted:?}") })
}

/// Writes a time as `YYYY-MM-DDThh:mm:ssZ`. A time that the calendar cannot say becomes its last second.
pub(crate) fn write_time(time: Timestamp) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Reads a time in exactly the form that [`write_time`] writes, from 1970 on.
fn read_time(text: &str) -> Result<Timestamp, Error> {
    let parsed = text.parse::<jiff::Timestamp>().ok().and_then(|t| u64::try_from(t.as_second()).ok());
    let time = parsed.map(|seconds| Timestamp::from_millis(seconds.saturating_mul(1000)));
    time.filter(|time| write_time(*time) == text)
        .ok_or_else(|| Error::Form { why: "a time is not YYYY-MM-DDThh:mm:ssZ from 1970 on".to_owned() })
}
