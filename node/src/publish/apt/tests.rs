//! The repository: deterministic bytes, old versions, refusals, and stops between any two steps.

use std::{
    fs::{self, File},
    time::Duration,
};

use protocol::release::ReleaseFile;

use super::*;
use crate::{
    publish::testing::{AT, addition, addition_of, control, deb, key, repository, settings, tree},
    resolve::digest::Digest,
};

mod client;
mod full;
mod handover;

fn day(count: u32) -> Timestamp {
    AT.after(Duration::from_secs(24 * 3600) * count)
}

fn listed(repository: &Repository, arch: &str) -> String {
    fs::read_to_string(repository.root().join(format!("dists/main/main/binary-{arch}/Packages"))).unwrap()
}

#[test]
fn the_same_additions_give_the_same_bytes_anywhere() {
    let (a, b, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one =
        [addition(debs.path(), ("tiny", "1", "amd64"), "a"), addition(debs.path(), ("libtiny", "1:2", "all"), "a")];
    let other = [one[1].clone(), one[0].clone()];
    let first = repository(a.path()).publish(&one, AT, 1).unwrap();
    let second = repository(b.path()).publish(&other, AT, 1).unwrap();
    assert_eq!(first.manifest, second.manifest);
    let (left, right) = (tree(&a.path().join("public")), tree(&b.path().join("public")));
    assert_eq!(left, right);
    assert_eq!(left.len(), first.manifest.files.len(), "the manifest lists every file");
    for file in &first.manifest.files {
        assert_eq!(
            Digest::of(&left[file.path.as_str()]),
            Digest { hash: file.hash, sha256: file.sha256, size: file.size }
        );
    }
    assert!(left.contains_key("pool/main/libt/libtiny/libtiny_2_all.deb.artel-bundle"));
    assert_eq!(Manifest::from_bytes(&first.manifest.to_bytes()).unwrap(), first.manifest);
}

#[test]
fn a_newer_version_replaces_the_older_one_which_goes_after_a_day() {
    let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut repository = repository(dir.path());
    repository.publish(&[addition(debs.path(), ("tiny", "1.9", "amd64"), "a")], AT, 1).unwrap();
    let published = repository.publish(&[addition(debs.path(), ("tiny", "1.10", "amd64"), "a")], AT, 2).unwrap();
    let index = listed(&repository, "amd64");
    assert!(index.contains("Version: 1.10\n") && !index.contains("Version: 1.9\n"), "{index}");
    assert_eq!(published.manifest.packages.len(), 1);
    let old = repository.root().join("pool/main/t/tiny/tiny_1.9_amd64.deb");
    assert!(old.exists(), "clients with the old index may still fetch it");
    repository.resign(day(2), 3).unwrap();
    assert!(!old.exists());
    assert_eq!(tree(&repository.root()).len(), repository.published().unwrap().manifest.files.len());
    let back = [addition(debs.path(), ("tiny", "1.9", "amd64"), "a")];
    assert!(matches!(repository.publish(&back, day(2), 4), Err(Error::Older { .. })));
    let changed = [Addition { order: Order::Downgrade, ..addition(debs.path(), ("tiny", "1.9", "amd64"), "b") }];
    assert!(
        matches!(repository.publish(&changed, day(2), 4), Err(Error::Different { .. })),
        "removed names are not free"
    );
    let back = [Addition { order: Order::Downgrade, ..back[0].clone() }];
    repository.publish(&back, day(2), 4).unwrap();
    assert!(listed(&repository, "amd64").contains("Version: 1.9\n"));
}

#[test]
fn all_counts_in_each_architecture() {
    let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut repository = repository(dir.path());
    let add = |id, salt| addition(debs.path(), id, salt);
    let first = [add(("tiny", "1", "amd64"), "a"), add(("tiny", "1", "arm64"), "a")];
    repository.publish(&first, AT, 1).unwrap();
    repository.publish(&[add(("tiny", "2", "amd64"), "a")], AT, 2).unwrap();
    assert!(listed(&repository, "amd64").contains("Version: 2\n"));
    assert!(listed(&repository, "arm64").contains("Version: 1\n"), "one architecture is later than the other");
    repository.publish(&[add(("tiny", "3", "all"), "a")], AT, 3).unwrap();
    for arch in ["amd64", "arm64"] {
        assert_eq!(listed(&repository, arch).matches("Package: tiny\n").count(), 1);
        assert!(listed(&repository, arch).contains("Version: 3\n"));
    }
    repository.publish(&[add(("tiny", "4", "amd64"), "a")], AT, 4).unwrap();
    assert!(listed(&repository, "amd64").contains("Version: 4\n"));
    assert!(listed(&repository, "arm64").contains("Version: 3\n"));
}

#[test]
fn data_for_all_stays_where_its_siblings_are_not_built_yet() {
    let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut repository = repository(dir.path());
    let add = |(name, version, arch): (&str, &str, &str)| {
        let text = control(name, version, arch).replace("Maintainer", "Source: tiny\nMaintainer");
        addition_of(debs.path(), (name, version, arch), &deb(&text, "a"))
    };
    let (one, two) = ("1", "2");
    let first = [add(("tiny", one, "amd64")), add(("tiny", one, "arm64")), add(("tiny-data", one, "all"))];
    repository.publish(&first, AT, 1).unwrap();
    repository.publish(&[add(("tiny", two, "amd64")), add(("tiny-data", two, "all"))], AT, 2).unwrap();
    assert_eq!(listed(&repository, "amd64").matches("Package: tiny-data\n").count(), 1);
    assert_eq!(listed(&repository, "arm64").matches("Package: tiny-data\n").count(), 2, "version 1 has a reprieve");
    repository.publish(&[add(("tiny", two, "arm64"))], AT, 3).unwrap();
    assert_eq!(listed(&repository, "arm64").matches("Package: tiny-data\n").count(), 1);
    assert_eq!(repository.published().unwrap().manifest.packages.len(), 3);
}

#[test]
fn wrong_or_changed_bytes_are_refused_and_nothing_changes() {
    let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut repository = repository(dir.path());
    let good = addition(debs.path(), ("tiny", "1", "amd64"), "a");
    repository.publish(std::slice::from_ref(&good), AT, 1).unwrap();
    let before = tree(&repository.root());
    let changed = addition(debs.path(), ("tiny", "1", "amd64"), "b");
    let said = repository.publish(std::slice::from_ref(&changed), AT, 2).unwrap_err().to_string();
    assert!(said.contains(&good.sha256.to_string()) && said.contains(&changed.sha256.to_string()), "{said}");
    let lied = Addition { sha256: good.sha256, size: changed.size, ..changed };
    assert!(matches!(repository.publish(&[lied], AT, 2), Err(Error::NotAttested { .. })));
    let foreign = addition(debs.path(), ("tiny", "2", "s390x"), "a");
    assert!(matches!(repository.publish(&[foreign], AT, 2), Err(Error::Incoming(incoming::Error::Arch { .. }))));
    assert!(matches!(repository.publish(&[], AT, 1), Err(Error::Conflict { generation: 1 })));
    assert!(matches!(repository.publish(&[], Timestamp::ZERO, 2), Err(Error::Backwards { .. })));
    assert_eq!(tree(&repository.root()), before);
    repository.publish(&[good], AT, 1).unwrap();
    repository.resign(AT, 5).unwrap();
    assert!(matches!(repository.resign(AT, 4), Err(Error::Fenced { got: 4, published: 5 })));
    fs::remove_file(repository.root().join("pool/main/t/tiny/tiny_1_amd64.deb")).unwrap();
    assert!(matches!(repository.resign(AT, 6), Err(Error::Damaged { .. })));
}

#[test]
fn a_second_publisher_is_refused_and_half_of_the_life_asks_for_a_new_signature() {
    let dir = tempfile::tempdir().unwrap();
    let mut repository = repository(dir.path());
    assert!(matches!(Repository::open(dir.path(), settings(), key()), Err(Error::Locked { .. })));
    assert!(!repository.needs_signature(AT));
    repository.publish(&[], AT, 1).unwrap();
    assert!(!repository.needs_signature(day(3)));
    assert!(repository.needs_signature(day(4)));
}

/// Stops the publisher before its n-th step, for every n, starts it again and repeats the generation.
#[test]
fn a_stop_between_any_two_steps_loses_nothing_and_doubles_nothing() {
    let debs = tempfile::tempdir().unwrap();
    let old = [addition(debs.path(), ("tiny", "1", "amd64"), "a")];
    let new = [addition(debs.path(), ("tiny", "2", "amd64"), "a"), addition(debs.path(), ("libtiny", "1", "all"), "a")];
    let whole = tempfile::tempdir().unwrap();
    let mut wanted = repository(whole.path());
    wanted.publish(&old, AT, 1).unwrap();
    let manifest = wanted.publish(&new, day(2), 2).unwrap().manifest;
    let (mut steps, mut ended) = (0, false);
    while !ended {
        let dir = tempfile::tempdir().unwrap();
        let mut stopped = repository(dir.path());
        stopped.publish(&old, AT, 1).unwrap();
        stopped.steps_left.store(steps, std::sync::atomic::Ordering::Relaxed);
        ended = match stopped.publish(&new, day(2), 2) {
            Ok(_) => true,
            Err(Error::Stopped) => false,
            Err(other) => panic!("{other}"),
        };
        drop(stopped);
        let mut again = repository(dir.path());
        assert_eq!(again.publish(&new, day(2), 2).unwrap().manifest, manifest, "stopped before step {steps}");
        assert_eq!(tree(&again.root()), tree(&wanted.root()), "stopped before step {steps}");
        steps += 1;
    }
    assert!(steps > 20, "{steps} steps");
}
