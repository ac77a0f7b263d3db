//! What is different between two generations, by package: a pure function of two manifests.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Arch, PackageName, Sha256, release::Manifest, words::DebVersion};
use serde::Serialize;

use crate::publish::kind::Kind;

/// One package in one generation. Kinds never meet, and of an RPM what was attested counts: who signed it is no change of the package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Item {
    /// What kind of package it is.
    pub kind: Kind,
    /// The package's name.
    pub name: PackageName,
    /// Its architecture.
    pub arch: Arch,
    /// Its version.
    pub version: DebVersion,
    /// The SHA-256 that was attested.
    pub sha256: Sha256,
}

/// A package that both sides have, in other versions or with other bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// What the left side has.
    pub left: Vec<Item>,
    /// What the right side has.
    pub right: Vec<Item>,
}

/// What is different.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Only on the right.
    pub added: Vec<Item>,
    /// Only on the left.
    pub removed: Vec<Item>,
    /// On both sides, and not the same.
    pub changed: Vec<Changed>,
}

/// Compares two generations. Packages are the same when name, architecture, version and bytes are.
pub fn compare(left: &Manifest, right: &Manifest) -> Comparison {
    let (mut left, mut right) = (items(left), items(right));
    let mut comparison = Comparison::default();
    let keys: BTreeSet<_> = left.keys().chain(right.keys()).cloned().collect();
    for key in keys {
        match (left.remove(&key), right.remove(&key)) {
            (Some(left), Some(right)) if left != right => {
                let changed = Changed { left: left.into_iter().collect(), right: right.into_iter().collect() };
                comparison.changed.push(changed);
            }
            (Some(gone), None) => comparison.removed.extend(gone),
            (None, Some(new)) => comparison.added.extend(new),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    comparison
}

fn items(manifest: &Manifest) -> BTreeMap<(Kind, PackageName, Arch), BTreeSet<Item>> {
    let mut items: BTreeMap<_, BTreeSet<Item>> = BTreeMap::new();
    for package in &manifest.packages {
        let Some(file) = manifest.file(&package.path) else { continue };
        let (name, arch, version) = (package.name.clone(), package.arch, package.version.clone());
        let (kind, sha256) = (Kind::of(package), package.attested.unwrap_or(file.sha256));
        let item = Item { kind, name: name.clone(), arch, version, sha256 };
        items.entry((kind, name, arch)).or_default().insert(item);
    }
    items
}

impl Comparison {
    /// Says it in one sentence.
    pub fn summary(&self) -> String {
        format!("{} added, {} removed, {} changed", self.added.len(), self.removed.len(), self.changed.len())
    }

    /// Gives one line for each difference, as `diff` marks them.
    pub fn lines(&self) -> Vec<String> {
        let item = |mark: char, i: &Item| {
            let kind = if i.kind == Kind::Rpm { "rpm " } else { "" };
            format!("{mark} {kind}{} {} {} sha256 {}", i.name, i.version, i.arch, i.sha256)
        };
        let mut lines: Vec<String> = self.removed.iter().map(|i| item('-', i)).collect();
        lines.extend(self.added.iter().map(|i| item('+', i)));
        for changed in &self.changed {
            lines.extend(changed.left.iter().map(|i| item('<', i)));
            lines.extend(changed.right.iter().map(|i| item('>', i)));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::testing::{AT, addition, repository, repository_of, rpm};

    #[test]
    fn what_came_went_and_changed_is_named() {
        let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut repository = repository(dir.path());
        let add = |id| addition(debs.path(), id, "a");
        let first = [add(("tiny", "1", "amd64")), add(("doc", "1", "all"))];
        let left = repository.publish(&first, AT, 1).unwrap().manifest;
        let right = repository.publish(&[add(("tiny", "2", "amd64")), add(("news", "1", "amd64"))], AT, 2).unwrap();
        let right = right.manifest;
        let comparison = compare(&left, &right);
        assert_eq!(comparison.summary(), "1 added, 0 removed, 1 changed");
        let shown: Vec<String> = comparison.lines().iter().map(|l| l.split(" sha256").next().unwrap().into()).collect();
        assert_eq!(shown, ["+ news 1 amd64", "< tiny 1 amd64", "> tiny 2 amd64"]);
        assert_eq!(compare(&right, &left).summary(), "0 added, 1 removed, 1 changed");
        assert_eq!(compare(&left, &left), Comparison::default());
    }

    #[test]
    fn packages_of_two_kinds_are_not_compared_and_another_signature_is_no_change() {
        let (a, b, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (deb, rpm) = (addition(debs.path(), ("artel-answer-doc", "1", "all"), "a"), rpm(debs.path(), "1.2^git3"));
        let mut repository = repository(a.path());
        let left = repository.publish(std::slice::from_ref(&deb), AT, 1).unwrap().manifest;
        let right = repository.publish(std::slice::from_ref(&rpm), AT, 2).unwrap().manifest;
        let comparison = compare(&left, &right);
        assert_eq!(comparison.summary(), "1 added, 0 removed, 0 changed");
        assert!(comparison.lines()[0].starts_with("+ rpm artel-answer-doc 1.2^git3-1 all sha256"));
        assert_eq!(comparison.added[0].sha256, rpm.sha256, "what was attested");
        let other = repository_of(b.path(), 8).publish(&[deb, rpm], AT, 1).unwrap().manifest;
        assert_eq!(compare(&right, &other), Comparison::default());
    }
}
