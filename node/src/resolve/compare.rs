//! What is different between two locks, package by package: a pure function. Where builds of one source differ and their
//! environments do too, the cause is looked for here first.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    Sha256,
    environment::{EnvironmentLock, LockedPackage},
    words::DebVersion,
};
use serde::Serialize;

/// One package on one side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Its version; for the lock's own words, the word.
    pub version: String,
    /// SHA-256 of its file; none for the lock's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
}

impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.sha256 {
            Some(sha256) => write!(f, "{} {}", self.version, sha256.short()),
            None => f.write_str(&self.version),
        }
    }
}

/// Something that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The package, or `arch`, `family`, `suite` or `epoch` of the lock itself.
    pub name: String,
    /// What the left side has.
    pub left: Option<Item>,
    /// What the right side has.
    pub right: Option<Item>,
}

/// Everything that is different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The changes: of the lock itself, then of packages, by name.
    pub changes: Vec<Change>,
    /// Packages that are the same on both sides.
    pub same: usize,
}

impl Comparison {
    /// Says it in one line.
    pub fn summary(&self) -> String {
        let count = |what: fn(&Change) -> bool| self.changes.iter().filter(|change| what(change)).count();
        let (removed, added) = (count(|c| c.right.is_none()), count(|c| c.left.is_none()));
        let changed = self.changes.len() - removed - added;
        format!("{} the same, {changed} changed, {removed} only left, {added} only right", self.same)
    }
}

/// Compares two locks.
pub fn compare(left: &EnvironmentLock, right: &EnvironmentLock) -> Comparison {
    let words = |lock: &EnvironmentLock| {
        [lock.arch.to_string(), lock.family.to_string(), lock.suite.to_string(), lock.epoch.to_string()]
    };
    let word = |version: String| Some(Item { version, sha256: None });
    let own = ["arch", "family", "suite", "epoch"].into_iter().zip(words(left).into_iter().zip(words(right)));
    let own = own.filter(|(_, (left, right))| left != right);
    let mut changes: Vec<Change> =
        own.map(|(name, (left, right))| Change { name: name.into(), left: word(left), right: word(right) }).collect();
    let by_name = |lock: &EnvironmentLock| -> BTreeMap<String, (DebVersion, Sha256)> {
        let entry = |p: &LockedPackage| (p.name.to_string(), (p.version.clone(), p.sha256));
        lock.packages.iter().map(entry).collect()
    };
    let (left, right) = (by_name(left), by_name(right));
    let item = |side: &BTreeMap<String, (DebVersion, Sha256)>, name: &str| {
        let (version, sha256) = side.get(name)?;
        Some(Item { version: version.to_string(), sha256: Some(*sha256) })
    };
    let mut same = 0;
    for name in left.keys().chain(right.keys()).collect::<BTreeSet<_>>() {
        match (item(&left, name), item(&right, name)) {
            (left, right) if left == right => same += 1,
            (left, right) => changes.push(Change { name: name.clone(), left, right }),
        }
    }
    Comparison { changes, same }
}

#[cfg(test)]
mod tests {
    use protocol::{Arch, FileName, Hash, PackageName, SuiteName, environment::Family};

    use super::*;

    fn lock(epoch: u64, packages: &[(&str, &str, &str)]) -> EnvironmentLock {
        let package = |(name, version, content): &(&str, &str, &str)| LockedPackage {
            arch: Arch::All,
            file: FileName::new(format!("{name}_{version}_all.deb")).unwrap(),
            from: None,
            hash: Hash::of(content.as_bytes()),
            name: PackageName::new(*name).unwrap(),
            size: content.len() as u64,
            sha256: Sha256::of(content.as_bytes()),
            version: DebVersion::new(*version).unwrap(),
        };
        let suite = SuiteName::new("main").unwrap();
        EnvironmentLock {
            arch: Arch::Amd64,
            epoch,
            suite,
            family: Family::Dpkg,
            packages: packages.iter().map(package).collect(),
        }
    }

    #[test]
    fn versions_bytes_and_the_lock_itself_are_compared() {
        let left = lock(1, &[("aa", "1", "a"), ("bb", "1", "b"), ("cc", "1", "c"), ("dd", "1", "d")]);
        let right = lock(2, &[("aa", "1", "a"), ("bb", "2", "bb"), ("cc", "1", "other"), ("ee", "1", "e")]);
        let comparison = compare(&left, &right);
        let names: Vec<_> = comparison.changes.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["epoch", "bb", "cc", "dd", "ee"]);
        assert_eq!(comparison.summary(), "1 the same, 3 changed, 1 only left, 1 only right");
        assert!(compare(&left, &left).changes.is_empty());
    }
}
