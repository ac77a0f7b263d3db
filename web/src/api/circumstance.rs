//! What the builders of one job saw, key by key: where the cause of a difference is looked for.

use std::collections::BTreeSet;

use super::{AttemptView, JobDetail};

/// Facts that differ between any two attempts and never explain anything; they stand with the attempts themselves.
const MEASURED: [&str; 2] = ["cpu_seconds", "memory_peak_mib"];

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
        keys.into_iter().filter(|key| !MEASURED.contains(&key.as_str())).map(of).collect()
    }
}

impl AttemptView {
    /// Gives the CPU time of the build in seconds, as its builder says it.
    pub fn cpu_seconds(&self) -> Option<&str> {
        self.builder.info.get(MEASURED[0]).map(String::as_str)
    }

    /// Gives the most memory at one time in MiB, as its builder says it.
    pub fn memory_peak_mib(&self) -> Option<&str> {
        self.builder.info.get(MEASURED[1]).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
