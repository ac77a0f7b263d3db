//! Who is at fault when an attempt ends without outputs.

use serde::{Deserialize, Serialize};

/// Who is at fault. A builder's fault is never the package's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// The job: its build step ended with an error or broke its own limits. Counts when a quorum says the same.
    Job,
    /// The builder: sandbox, disk, memory, clock, or a fetch that others managed.
    Builder,
    /// Inputs whose hash is not what the request names.
    InputMismatch,
    /// The attempt was cut off (crash, power, lost connection); nobody is blamed.
    Interrupted,
    /// The attempt hit its time limit.
    Timeout,
    /// The maintainer cancelled.
    Cancelled,
}

impl Blame {
    /// Gives the word that people read.
    pub const fn word(self) -> &'static str {
        match self {
            Blame::Job => "job",
            Blame::Builder => "builder",
            Blame::InputMismatch => "input-mismatch",
            Blame::Interrupted => "interrupted",
            Blame::Timeout => "timeout",
            Blame::Cancelled => "cancelled",
        }
    }

    /// Says whether a report with this blame counts towards the job's failure quorum.
    pub const fn counts_on_job(self) -> bool {
        matches!(self, Blame::Job | Blame::Timeout)
    }
}

/// How an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The step, for instance `unpack`, `build` or `outputs`.
    pub step: String,
    /// What happened, named, for instance `memory limit of 256 MiB reached`.
    pub what: String,
    /// Who is at fault.
    pub blame: Blame,
}

impl Failure {
    /// Makes a failure; long texts are cut to 1,024 bytes.
    pub fn new(blame: Blame, step: impl Into<String>, what: impl Into<String>) -> Self {
        let cut = |text: String| match text.char_indices().nth(1000) {
            Some((at, _)) => text[..at.min(1024)].to_owned(),
            None => text,
        };
        Self { step: cut(step.into()), blame, what: cut(what.into()) }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} failed ({}): {}", self.step, self.blame.word(), self.what)
    }
}
