//! What is different between two generations, by package: a pure function of two manifests.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Arch, PackageName, Sha256, release::Manifest, words::DebVersion};
use serde::Serialize;

/// One package in one generation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Item {
    /// The package's name.
    pub name: PackageName,
    /// Its architecture.
    pub arch: Arch,
    /// Its version.
    pub version: DebVersion,
    /// SHA-256 of its file.
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

fn items(manifest: &Manifest) -> BTreeMap<(PackageName, Arch), BTreeSet<Item>> {
    let mut items: BTreeMap<_, BTreeSet<Item>> = BTreeMap::new();
    for package in &manifest.packages {
        let Some(file) = manifest.file(&package.path) else { continue };
        let (name, arch, version) = (package.name.clone(), package.arch, package.version.clone());
        items.entry((name.clone(), arch)).or_default().insert(Item { name, arch, version, sha256: file.sha256 });
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
        let item = |mark: char, i: &Item| format!("{mark} {} {} {} sha256 {}", i.name, i.version, i.arch, i.sha256);
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
    use crate::publish::testing::{AT, addition, repository};

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
}
