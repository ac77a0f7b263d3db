//! What the builders of one job saw, key by key: where the cause of a difference is looked for.

use std::collections::BTreeSet;

use super::{AttemptView, FailureView, JobDetail};

/// Facts that differ between any two attempts and never explain anything; they stand with the attempts themselves.
const MEASURED: [&str; 3] = ["cpu_seconds", "memory_peak_mib", "lint"];

/// How the keys of steps begin; a number and the step's name follow.
const STEP: &str = "step_";

/// One thing that builders say of the circumstances of their attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circumstance {
    /// What it is, for instance `TZ`.
    pub key: String,
    /// What each attempt saw, in the order of [`JobDetail::told`]; none where it was not set.
    pub values: Vec<Option<String>>,
}

impl Circumstance {
    /// Says whether any two attempts saw something else.
    pub fn differs(&self) -> bool {
        self.values.windows(2).any(|pair| pair[0] != pair[1])
    }
}

impl JobDetail {
    /// Gives the attempts whose builders told their circumstances, with what they signed.
    pub fn told(&self) -> Vec<&AttemptView> {
        self.attempts.iter().filter(|attempt| !attempt.builder.info.is_empty()).collect()
    }

    /// Puts the circumstances of all attempts beside each other, sorted by key.
    pub fn circumstances(&self) -> Vec<Circumstance> {
        let told = self.told();
        let keys: BTreeSet<&String> = told.iter().flat_map(|attempt| attempt.builder.info.keys()).collect();
        let of = |key: &String| Circumstance {
            key: key.clone(),
            values: told.iter().map(|attempt| attempt.builder.info.get(key).cloned()).collect(),
        };
        let measured = |key: &str| MEASURED.contains(&key) || key.starts_with(STEP);
        keys.into_iter().filter(|key| !measured(key)).map(of).collect()
    }
}

impl AttemptView {
    /// Gives the CPU time of the build in seconds, as its builder says it.
    pub fn cpu_seconds(&self) -> Option<&str> {
        self.builder.info.get(MEASURED[0]).map(String::as_str)
    }

    /// Gives the attempt's steps and how long each took, in seconds, as its builder says it.
    pub fn steps(&self) -> Vec<(&str, &str)> {
        let named = self.builder.info.iter().filter_map(|(key, value)| {
            let (_, name) = key.strip_prefix(STEP)?.split_once('_')?;
            Some((name, value.as_str()))
        });
        named.collect()
    }

    /// Gives what a linter said of the packages, as its builder says it; nothing when none ran.
    pub fn lint(&self) -> Option<&str> {
        self.builder.info.get(MEASURED[2]).map(String::as_str)
    }

    /// Gives the most memory at one time in MiB, as its builder says it.
    pub fn memory_peak_mib(&self) -> Option<&str> {
        self.builder.info.get(MEASURED[1]).map(String::as_str)
    }
}

impl FailureView {
    /// Gives where in the attempt's log the line begins that the failure quotes, in bytes.
    pub fn log_byte(&self) -> Option<u64> {
        let (_, rest) = self.what.split_once("first error in line ")?;
        let (_, rest) = rest.split_once(", byte ")?;
        rest.split(':').next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_knows_its_place_in_the_log() {
        let failure =
            |what: &str| FailureView { blame: protocol::blame::Blame::Job, step: "build".into(), what: what.into() };
        let what = "ended with exit code 2; first error in line 3, byte 24: a.c:3:1: error: expected";
        assert_eq!(failure(what).log_byte(), Some(24));
        assert_eq!(failure("ended with exit code 2").log_byte(), None);
    }

    #[test]
    fn what_one_builder_does_not_have_differs() {
        let row = |values: &[Option<&str>]| Circumstance {
            key: "COLUMNS".into(),
            values: values.iter().map(|value| value.map(str::to_owned)).collect(),
        };
        assert!(row(&[None, Some("82")]).differs());
        assert!(row(&[Some("82"), Some("82"), Some("83")]).differs());
        assert!(!row(&[Some("82"), Some("82")]).differs() && !row(&[Some("82")]).differs());
    }
}
