//! How long attempts take: a moving average for each subject, so that people learn when something ends. It promises nothing.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// Subjects that are remembered; beyond that the one that was seen longest ago is forgotten.
const SUBJECTS_MAX: usize = 4096;
/// What an attempt of an unknown subject is taken for when machine time is shared.
const UNKNOWN: Duration = Duration::from_secs(60);
/// The most that one attempt is taken for: a wild estimate must not cost a maintainer its turn for days.
const COST_MAX: Duration = Duration::from_secs(4 * 3600);

/// Durations by subject.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pace {
    /// Attempts that were noted so far.
    noted: u64,
    #[serde(with = "pairs")]
    subjects: BTreeMap<String, Seen>,
}

/// What was seen of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    /// A moving average: the newest duration weighs a quarter.
    millis: u64,
    /// The number of the newest attempt.
    newest: u64,
}

/// The map as a list of pairs: names as keys would be sorted by their length.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Seen;

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<String, Seen>, to: S) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Seen>, D::Error> {
        Ok(Vec::deserialize(from)?.into_iter().collect())
    }
}

impl Pace {
    /// Notes how long an attempt with outputs took.
    pub(crate) fn note(&mut self, title: &str, took: Duration) {
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.noted += 1;
        let newest = self.noted;
        for subject in [subject(title), kind(title)] {
            let seen = self.subjects.entry(subject).or_insert(Seen { newest, millis: took });
            *seen = Seen { newest, millis: (seen.millis / 4).saturating_mul(3).saturating_add(took / 4).max(1) };
        }
        if self.subjects.len() > SUBJECTS_MAX {
            let oldest = self.subjects.iter().min_by_key(|(_, seen)| seen.newest).map(|(subject, _)| subject.clone());
            oldest.map(|subject| self.subjects.remove(&subject));
        }
    }

    /// Gives how long an attempt takes as far as is known: of this subject, else of this kind and architecture.
    pub(crate) fn expect(&self, title: &str) -> Option<Duration> {
        let seen = self.subjects.get(&subject(title)).or_else(|| self.subjects.get(&kind(title)))?;
        Some(Duration::from_millis(seen.millis))
    }

    /// Gives what an attempt costs its maintainer's share, in seconds of a slot.
    pub(crate) fn cost(&self, title: &str) -> u64 {
        self.expect(title).unwrap_or(UNKNOWN).min(COST_MAX).as_secs().max(1)
    }
}

/// Gives a title's kind, name and architecture, without the version: `deb hello 2.10-3 amd64` gives `deb hello amd64`.
fn subject(title: &str) -> String {
    let mut words = title.split(' ');
    let (kind, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    format!("{kind} {name} {}", words.next_back().unwrap_or_default())
}

/// Gives a title's kind and architecture; no subject reads like that.
fn kind(title: &str) -> String {
    let mut words = title.split(' ');
    format!("{} {}", words.next().unwrap_or_default(), words.next_back().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_known_by_name_and_then_by_kind() {
        let mut pace = Pace::default();
        assert_eq!((pace.expect("deb hello 2.10 amd64"), pace.cost("deb hello 2.10 amd64")), (None, 60));
        pace.note("deb hello 2.10 amd64", Duration::from_secs(100));
        assert_eq!(pace.expect("deb hello 2.11 amd64"), Some(Duration::from_secs(100)));
        assert_eq!(pace.expect("deb other 1 amd64"), Some(Duration::from_secs(100)), "of the kind");
        assert_eq!(pace.expect("deb hello 2.10 arm64"), None);
        pace.note("deb hello 2.12 amd64", Duration::from_secs(200));
        assert_eq!(pace.expect("deb hello 2.11 amd64"), Some(Duration::from_secs(125)));
    }

    #[test]
    fn only_so_many_subjects_are_kept() {
        let mut pace = Pace::default();
        for number in 0..=SUBJECTS_MAX {
            pace.note(&format!("deb name-{number} 1 amd64"), Duration::from_secs(5));
        }
        assert_eq!(pace.subjects.len(), SUBJECTS_MAX);
        assert!(!pace.subjects.contains_key("deb name-0 amd64"));
    }
}
