//! What a lock may not say.

use super::*;
use crate::testing::samples;

fn refused(change: impl FnOnce(&mut EnvironmentLock)) -> String {
    let mut lock = samples::lock();
    change(&mut lock);
    match EnvironmentLock::from_bytes(&lock.to_bytes()) {
        Err(LockError::Meaning(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lock_is_a_set_of_packages_for_one_architecture() {
    let lock = samples::lock();
    assert_eq!(EnvironmentLock::from_bytes(&lock.to_bytes()), Ok(lock.clone()));
    assert!(refused(|l| l.packages.reverse()).contains("sorted"));
    assert!(refused(|l| l.packages.push(l.packages[1].clone())).contains("sorted"));
    assert!(refused(|l| l.packages[0].arch = Arch::Arm64).contains("arm64"));
    assert_eq!(lock.package("libfaketime").map(|p| p.version.as_str()), Some("0.9.10-2.1"));
    assert_eq!(lock.package("bash"), None);
}

#[test]
fn a_lock_says_where_its_packages_are_from() {
    let mut lock = samples::lock();
    lock.packages[0].from = Some(RelativePath::new("pool/main/b/base-files/base-files_12.4_amd64.deb").unwrap());
    assert_eq!(EnvironmentLock::from_bytes(&lock.to_bytes()), Ok(lock.clone()));
    assert_ne!(lock.id(), samples::lock().id());
}

#[test]
fn every_byte_of_a_lock_is_in_its_id() {
    let mut other = samples::lock();
    other.packages[0].sha256 = Sha256::of(b"tampered");
    assert_ne!(other.id(), samples::lock().id());
    assert_eq!(samples::lock().id(), Hash::of(&samples::lock().to_bytes()));
}

#[test]
fn a_lock_says_which_family_installs_it_and_old_ones_stay_what_they_are() {
    let (debian, rpm) = (samples::lock(), samples::lock_of_rpm());
    assert_eq!(EnvironmentLock::from_bytes(&rpm.to_bytes()), Ok(rpm.clone()));
    let has = |lock: &EnvironmentLock| lock.to_bytes().windows(6).any(|word| word == b"family");
    assert!(has(&rpm) && !has(&debian), "what was said before families were is what dpkg installs");
    assert!(refused(|l| l.family = Family::Rpm).contains("does not end in .rpm"), "a lock has one family");
    let mixed = EnvironmentLock { packages: [&debian.packages[..], &rpm.packages[..]].concat(), ..rpm };
    assert!(mixed.check().is_err());
}
