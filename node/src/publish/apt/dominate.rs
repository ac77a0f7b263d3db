//! Domination: which packages an architecture's index lists. It removes nothing itself.
//!
//! Of the packages with one name, the highest version stays; `all` counts in each architecture, and at equal versions the
//! architecture's own package wins. An `all` package gets a reprieve in an architecture as long as a package of the same
//! source version is still the newest there: its siblings may need exactly that version. Packages for apt and RPMs do not meet.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use protocol::{Arch, PackageName};

use super::state::Pooled;
use crate::publish::kind::Kind;

/// Gives the packages of one architecture's index, sorted by name and path.
pub(super) fn index(packages: &[Pooled], arch: Arch) -> Vec<&Pooled> {
    let mut newest: BTreeMap<(Kind, &PackageName), &Pooled> = BTreeMap::new();
    let here = || packages.iter().filter(|p| p.arch == arch || p.arch == Arch::All);
    for package in here() {
        let best = newest.entry(name(package)).or_insert(package);
        if order(best, package) == Ordering::Less {
            *best = package;
        }
    }
    let own = newest.values().filter(|p| p.arch == arch);
    let sources: BTreeSet<_> = own.map(|p| (p.kind(), &p.source, &p.source_version)).collect();
    let sibling = |p: &Pooled| sources.contains(&(p.kind(), &p.source, &p.source_version));
    let reprieved = here().filter(|p| p.arch == Arch::All && newest[&name(p)].arch == Arch::All && sibling(p));
    let mut listed: Vec<&Pooled> = newest.values().copied().chain(reprieved).collect();
    listed.sort_by(|a, b| (&a.name, &a.file.path).cmp(&(&b.name, &b.file.path)));
    listed.dedup_by(|a, b| a.file.path == b.file.path);
    listed
}

/// Gives what packages compete for.
fn name(package: &Pooled) -> (Kind, &PackageName) {
    (package.kind(), &package.name)
}

/// Splits packages into those that some index lists and those that none does.
pub(super) fn split(packages: Vec<Pooled>, arches: &[Arch]) -> (Vec<Pooled>, Vec<Pooled>) {
    let listed: BTreeSet<_> =
        arches.iter().flat_map(|arch| index(&packages, *arch)).map(|p| p.file.path.clone()).collect();
    packages.into_iter().partition(|p| listed.contains(&p.file.path))
}

/// Orders two packages of one name and kind: version, then the architecture's own before `all`, then path.
pub(super) fn order(a: &Pooled, b: &Pooled) -> Ordering {
    let own = |p: &Pooled| p.arch != Arch::All;
    a.kind().order(&a.version, &b.version).then_with(|| own(a).cmp(&own(b))).then_with(|| a.file.path.cmp(&b.file.path))
}
