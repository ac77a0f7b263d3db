//! Views of jobs: the list, one job with its attempts, its verdict and what was published.

use std::collections::BTreeMap;

use protocol::{
    Arch, ChannelName, FileName, Hash, JobId, MaintainerName, NodeId, OperatorName, Sha256, blame::Blame,
    lease::LeaseNumber,
};
use serde::{Deserialize, Serialize};

use super::{AttemptState, ExplanationView, JobState, LoggedAttempt, Time, VerdictWord};

/// The receipt of a submitted job: it is durable since then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The job.
    pub job: JobId,
    /// Since when it is durable.
    pub accepted_at: Time,
}

/// How many operators agree, of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// Operators in the largest agreeing group.
    pub agree: u32,
    /// Operators that must agree (k).
    pub needed: u32,
    /// Operators that were asked so far.
    pub asked: u32,
}

/// One line of the list of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSummary {
    /// The job.
    pub id: JobId,
    /// One line, for instance `deb base-files 12.4 amd64`.
    pub title: String,
    /// `deb`, `rpm`, `command`, or a server job: `publish`, `promote`, `prune`, `derive`, `diff` or `explain`.
    pub kind: String,
    /// The architecture that the build runs on; `all` for most server jobs.
    pub arch: Arch,
    /// The channel.
    pub channel: ChannelName,
    /// Who signed the request.
    pub maintainer: MaintainerName,
    /// Where the job is.
    pub state: JobState,
    /// One sentence: why it waits, failed or differs. Empty when there is nothing to say.
    #[serde(default)]
    pub why: String,
    /// When the maintainer signed.
    pub created: Time,
    /// When it became durable.
    pub accepted: Time,
    /// When its state became final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// How many operators agree.
    pub agreement: Agreement,
    /// When it begins and ends, judged by what such jobs took; absent when nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<ExpectedView>,
    /// The jobs that it was asked for with, and what tells it from them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupView>,
}

/// Which group a job belongs to, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// The group.
    pub id: Hash,
    /// The job's name in it: people get a folder of this name.
    pub variant: FileName,
}

/// When an open job begins and ends, judged by what such jobs took. It promises nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedView {
    /// When the first builder begins; absent once one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Time>,
    /// When its builds end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Time>,
}

/// What the maintainer asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestView {
    /// Facts for people, in order of reading: what (`source`, `version`, `command`), options, limits.
    #[serde(default)]
    pub facts: Vec<(String, String)>,
    /// Input files with their hashes.
    #[serde(default)]
    pub inputs: Vec<FileView>,
    /// The environment lock's id.
    pub environment: Hash,
    /// When the job is over whatever its state.
    pub expires: Time,
}

/// One file by name, size and hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileView {
    /// The file's name or relative path.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: Sha256,
    /// BLAKE3 of the content, where known: its address under `/api/v1/blobs/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Hash>,
}

/// Who builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Builder {
    /// The node.
    pub node: NodeId,
    /// Who answers for it.
    pub operator: OperatorName,
    /// What the node says of itself (kernel, CPU, variations), for people.
    #[serde(default)]
    pub info: BTreeMap<String, String>,
}

/// How an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureView {
    /// Who is at fault.
    pub blame: Blame,
    /// The step.
    pub step: String,
    /// What happened.
    pub what: String,
}

/// One attempt: one run of the job on one node under one lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptView {
    /// The lease's number.
    pub number: LeaseNumber,
    /// Who builds.
    pub builder: Builder,
    /// The variation it runs under.
    pub profile: u16,
    /// Where it is.
    pub state: AttemptState,
    /// What it does now: `fetch`, `environment`, `build`, `attest`. Empty when it is over.
    #[serde(default)]
    pub phase: String,
    /// When the lease was granted.
    pub granted: Time,
    /// When the sandbox started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// Output files, sorted by name.
    #[serde(default)]
    pub outputs: Vec<FileView>,
    /// Why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
    /// The build log's BLAKE3, once it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Hash>,
}

/// One file that an operator built differently from the agreeing group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dissent {
    /// Who differs.
    pub operator: OperatorName,
    /// Its node.
    pub node: NodeId,
    /// The file.
    pub file: String,
    /// Its SHA-256 there; absent where that node has no such file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub theirs: Option<Sha256>,
    /// Its SHA-256 in the agreeing group; absent where the group has no such file, or there is no group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed: Option<Sha256>,
}

/// What the attestations add up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictView {
    /// The verdict.
    pub word: VerdictWord,
    /// Operators of the largest agreeing group, sorted.
    #[serde(default)]
    pub agree: Vec<OperatorName>,
    /// Who differs, with both hashes.
    #[serde(default)]
    pub dissent: Vec<Dissent>,
    /// Files that differ between any two attempts, sorted.
    #[serde(default)]
    pub differing: Vec<String>,
}

/// Where the outputs were published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedView {
    /// The generation that holds them first.
    pub generation: u64,
    /// The channel.
    pub channel: ChannelName,
    /// Paths below the repository's root.
    #[serde(default)]
    pub files: Vec<String>,
}

/// Everything about one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDetail {
    /// When this view was made, by the node's clock.
    pub at: Time,
    /// The line of the list.
    pub summary: JobSummary,
    /// What was asked for.
    pub request: RequestView,
    /// Attempts, by lease number.
    #[serde(default)]
    pub attempts: Vec<AttemptView>,
    /// What they add up to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<VerdictView>,
    /// Where the outputs are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<PublishedView>,
    /// What the coordinator's publisher does for it; only of server jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceView>,
    /// Jobs that it waits for, that wait for it, and the publication of a build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<JobLink>,
    /// Comparisons of attempts that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub explanations: Vec<ExplanationView>,
    /// What the transparency log says of each attempt, by lease: one without an outcome is a gap. Kept as long as its evidence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logged: Vec<LoggedAttempt>,
}

/// One step of a server job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepView {
    /// What is done, in a word or two.
    pub name: String,
    /// When it began.
    pub began: Time,
    /// When it ended; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
}

/// What the coordinator's publisher does for a server job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// When its turn came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Time>,
    /// When it is expected to end, while that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Time>,
    /// Its steps, in order; those of the last try.
    #[serde(default)]
    pub steps: Vec<StepView>,
    /// The log's BLAKE3, once a try has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Hash>,
    /// The BLAKE3 of a result for programs (JSON), where there is one: its address under `/api/v1/blobs/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Hash>,
}

/// Another job that one belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLink {
    /// What it is to this one: `waits for`, `before`, `published by`, `publishes`, `explained by` or `explains`.
    pub relation: String,
    /// The job.
    pub job: JobId,
    /// What it does, in one line.
    pub title: String,
}

/// A piece of a live log, as server-sent events carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    /// Where the piece starts, in bytes.
    pub at: u64,
    /// The piece; bytes that are not UTF-8 are replaced.
    pub text: String,
}
