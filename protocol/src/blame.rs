//! Who is at fault when an attempt ends without outputs.

use serde::{Deserialize, Serialize};

/// Who is at fault. A builder's fault is never the package's. On the wire and in views it is one word, [`Blame::word`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blame {
    /// The job: its build step ended with an error or broke its own limits. Counts when a quorum says the same.
    Job,
    /// The builder: it could not try.
    Builder(Fault),
    /// Inputs whose hash is not what the request names.
    InputMismatch,
    /// The attempt was cut off (crash, power, lost connection); nobody is blamed.
    Interrupted,
    /// The attempt hit its time limit.
    Timeout,
    /// The maintainer cancelled.
    Cancelled,
    /// The build reached out of its sandbox. Both are stopped at once: the job, and the builder whose wall it broke.
    IsolationBreach,
}

impl Blame {
    /// Says whether who reports this has had its turn: it could try, and is not asked again.
    pub const fn is_final(self) -> bool {
        match self {
            Blame::Job | Blame::InputMismatch | Blame::Timeout | Blame::IsolationBreach => true,
            Blame::Builder(_) | Blame::Interrupted | Blame::Cancelled => false,
        }
    }
}

/// What a builder lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Its disk is full.
    DiskFull,
    /// Its memory ran out, though the build kept its own limit.
    Memory,
    /// Its clock is wrong.
    Clock,
    /// Its sandbox or its environments do not work.
    Sandbox,
    /// It cannot get what others may have got.
    Fetch,
    /// Something else of its own: its store, its folders, its signature.
    Other,
}

impl Blame {
    /// Every class.
    pub const EVERY: [Blame; 12] = [
        Blame::Job,
        Blame::Builder(Fault::DiskFull),
        Blame::Builder(Fault::Memory),
        Blame::Builder(Fault::Clock),
        Blame::Builder(Fault::Sandbox),
        Blame::Builder(Fault::Fetch),
        Blame::Builder(Fault::Other),
        Blame::InputMismatch,
        Blame::Interrupted,
        Blame::Timeout,
        Blame::Cancelled,
        Blame::IsolationBreach,
    ];

    /// Gives the word that people read.
    pub const fn word(self) -> &'static str {
        match self {
            Blame::Job => "job",
            Blame::Builder(Fault::DiskFull) => "disk-full",
            Blame::Builder(Fault::Memory) => "memory",
            Blame::Builder(Fault::Clock) => "clock",
            Blame::Builder(Fault::Sandbox) => "sandbox",
            Blame::Builder(Fault::Fetch) => "fetch",
            Blame::Builder(Fault::Other) => "builder",
            Blame::InputMismatch => "input-mismatch",
            Blame::Interrupted => "interrupted",
            Blame::Timeout => "timeout",
            Blame::Cancelled => "cancelled",
            Blame::IsolationBreach => "isolation-breach",
        }
    }

    /// Gives whose fault that is, for people who do not know the words.
    pub const fn party(self) -> &'static str {
        match self {
            Blame::Job | Blame::Timeout => "the job",
            Blame::Builder(_) | Blame::InputMismatch => "the builder",
            Blame::Interrupted | Blame::Cancelled => "nobody",
            Blame::IsolationBreach => "the job and the builder",
        }
    }

    /// Says whether a report with this blame counts towards the job's failure quorum.
    pub const fn counts_on_job(self) -> bool {
        matches!(self, Blame::Job | Blame::Timeout)
    }
}

impl std::str::FromStr for Blame {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::EVERY.into_iter().find(|blame| blame.word() == word);
        found.ok_or_else(|| format!("{word:?} is no class of failure"))
    }
}

impl Serialize for Blame {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl<'de> Deserialize<'de> for Blame {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        word.parse().map_err(serde::de::Error::custom)
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
            Some((at, _)) => {
                let fits = |end: &usize| text.is_char_boundary(*end);
                text[..(0..=at.min(1024)).rev().find(fits).unwrap_or_default()].to_owned()
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_of_any_script_are_cut_between_characters() {
        for letter in ["a", "é", "語", "🦀"] {
            let failure = Failure::new(Blame::Job, "build", letter.repeat(2000));
            assert!(failure.what.len() <= 1024 && failure.what.len() > 1000 - 4, "{letter}: {}", failure.what.len());
        }
    }

    #[test]
    fn every_class_has_its_own_word() {
        let words: std::collections::BTreeSet<_> = Blame::EVERY.iter().map(|blame| blame.word()).collect();
        assert_eq!(words.len(), Blame::EVERY.len());
        for blame in Blame::EVERY {
            assert_eq!(blame.word().parse(), Ok(blame));
        }
        assert!("moon".parse::<Blame>().unwrap_err().contains("no class"));
    }
}
