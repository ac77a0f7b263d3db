//! Views of jobs: the list, one job with its attempts, its verdict and what was published.

use std::collections::BTreeMap;

use protocol::{
    Arch, ChannelName, Hash, JobId, MaintainerName, NodeId, OperatorName, Sha256, blame::Blame, lease::LeaseNumber,
};
use serde::{Deserialize, Serialize};

use super::Time;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal, $symbol:literal, $tone:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)*
            /// A word that this version does not know.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl $name {
            /// Every word but `unknown`, in the order of a life.
            pub const EVERY: &'static [Self] = &[$(Self::$variant),*];

            /// Gives the word, as in JSON.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* Self::Unknown => "unknown" }
            }

            /// Gives the shape that stands beside the word, so that no colour is needed to read it.
            pub const fn symbol(self) -> &'static str {
                match self { $(Self::$variant => $symbol,)* Self::Unknown => "?" }
            }

            /// Gives the style class: `good`, `bad`, `warn`, `busy` or `idle`.
            pub const fn tone(self) -> &'static str {
                match self { $(Self::$variant => $tone,)* Self::Unknown => "idle" }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::EVERY.iter().copied().find(|state| state.word() == text).ok_or_else(|| {
                    let all: Vec<_> = Self::EVERY.iter().map(|state| state.word()).collect();
                    format!("no such word {:?}; use one of {}", text.chars().take(40).collect::<String>(), all.join(", "))
                })
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// Where a job is in its life.
    JobState {
        /// Accepted; no builder holds a lease yet.
        Waiting = "waiting", "◌", "idle";
        /// Builders hold leases, or more of them are asked.
        Building = "building", "▶", "busy";
        /// Reproduced; the repository is being written.
        Publishing = "publishing", "▲", "busy";
        /// Reproduced by enough operators, and in the repository.
        Published = "published", "✔", "good";
        /// Reproduced by enough operators; a kind that is not published.
        Reproduced = "reproduced", "✔", "good";
        /// Operators agree, but too few of them.
        Disputed = "disputed", "≠", "warn";
        /// No two operators agree.
        Unreproducible = "unreproducible", "✘", "bad";
        /// A quorum reports the same failing step, or publication was refused.
        Failed = "failed", "✘", "bad";
        /// The maintainer cancelled.
        Cancelled = "cancelled", "■", "idle";
        /// Its time was over before a verdict.
        Expired = "expired", "■", "idle";
    }
}

impl JobState {
    /// Says whether nothing more will happen.
    pub const fn is_over(self) -> bool {
        match self {
            JobState::Waiting | JobState::Building | JobState::Publishing | JobState::Unknown => false,
            JobState::Published
            | JobState::Reproduced
            | JobState::Disputed
            | JobState::Unreproducible
            | JobState::Failed
            | JobState::Cancelled
            | JobState::Expired => true,
        }
    }
}

words! {
    /// Where an attempt is in its life.
    AttemptState {
        /// The lease is granted; the sandbox has not started.
        Granted = "granted", "◌", "idle";
        /// The sandbox runs.
        Running = "running", "▶", "busy";
        /// Outputs are attested.
        Built = "built", "✔", "good";
        /// It ended without outputs; `failure` says why.
        Failed = "failed", "✘", "bad";
        /// The lease ended without a word from the builder.
        Lost = "lost", "⚡", "warn";
        /// It was stopped because the job is over.
        Revoked = "revoked", "■", "idle";
    }
}

words! {
    /// What the attestations of one job add up to.
    VerdictWord {
        /// More attestations are awaited.
        Pending = "pending", "◌", "idle";
        /// k operators agree bit for bit.
        Reproduced = "reproduced", "✔", "good";
        /// Two or more agree, fewer than k.
        Disputed = "disputed", "≠", "warn";
        /// No two agree.
        Unreproducible = "unreproducible", "✘", "bad";
        /// A quorum reports the same failing step.
        Failed = "failed", "✘", "bad";
    }
}

/// The receipt of a submitted job: it is durable since then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The job.
    pub job: JobId,
    /// Since when it is durable.
    pub accepted_at: Time,
}

/// Which jobs to list, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFilter {
    /// Only jobs in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<JobState>,
    /// Only jobs of this kind: `deb` or `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only jobs of this channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelName>,
    /// At most so many; the server cuts it at [`JobFilter::LIMIT_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u16>,
    /// Only jobs that stand after this one in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<JobId>,
}

impl JobFilter {
    /// Jobs in one page when nobody says otherwise.
    pub const LIMIT_DEFAULT: u16 = 100;
    /// Jobs in one page at most.
    pub const LIMIT_MAX: u16 = 1000;

    /// Gives the number of jobs wanted, within bounds.
    pub fn limit(&self) -> usize {
        usize::from(self.limit.unwrap_or(Self::LIMIT_DEFAULT).clamp(1, Self::LIMIT_MAX))
    }

    /// Says whether a job passes (`limit` and `after` aside).
    pub fn matches(&self, job: &JobSummary) -> bool {
        self.state.is_none_or(|state| state == job.state)
            && self.kind.as_ref().is_none_or(|kind| *kind == job.kind)
            && self.channel.as_ref().is_none_or(|channel| *channel == job.channel)
    }
}

/// One page of the list of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPage {
    /// Jobs, newest first.
    pub jobs: Vec<JobSummary>,
    /// The value of `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<JobId>,
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
    /// `deb` or `command`.
    pub kind: String,
    /// The architecture that the build runs on.
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
}

/// A piece of a live log, as server-sent events carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    /// Where the piece starts, in bytes.
    pub at: u64,
    /// The piece; bytes that are not UTF-8 are replaced.
    pub text: String,
}
