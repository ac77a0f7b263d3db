//! What a job takes along.

use std::fs;

use protocol::{Arch, Sha256, SuiteName, environment::LockedPackage, job::Isolation, words::DebVersion};

use super::*;

/// A package whose file holds its name.
pub(crate) fn package(name: &str) -> LockedPackage {
    LockedPackage {
        arch: Arch::All,
        file: FileName::new(format!("{name}_1_all.deb")).unwrap(),
        from: None,
        hash: Hash::of(name.as_bytes()),
        name: PackageName::new(name).unwrap(),
        size: name.len() as u64,
        sha256: Sha256::of(name.as_bytes()),
        version: DebVersion::new("1").unwrap(),
    }
}

/// A lock of packages.
pub(crate) fn lock(packages: &[LockedPackage]) -> EnvironmentLock {
    EnvironmentLock {
        arch: Arch::Amd64,
        epoch: 1,
        family: protocol::environment::Family::Dpkg,
        packages: packages.to_vec(),
        suite: SuiteName::new("bookworm").unwrap(),
    }
}

#[test]
fn another_environment_takes_nothing_from_an_images_own_packages() {
    let state = tempfile::tempdir().unwrap();
    let debs = state.path().join("bookworm-amd64/debs");
    fs::create_dir_all(&debs).unwrap();
    let (shared, tool, other) = (package("shared"), package("tool"), package("other"));
    for package in [&shared, &tool, &other] {
        fs::write(debs.join(package.file.as_str()), package.name.as_str()).unwrap();
    }
    let file = |package: &LockedPackage| (package.hash, debs.join(package.file.as_str()));
    // The environment's two, then the image's own.
    let files = vec![file(&shared), file(&tool), file(&shared)];
    let name = FileName::new("test").unwrap();
    let job = CommandJob {
        argv: vec!["true".into()],
        name,
        inputs: Vec::new(),
        outputs: Vec::new(),
        isolation: Isolation::Rootfs,
    };
    let prepared = Prepared { kind: JobKind::Command(job), lock: lock(&[shared.clone(), tool]), files };
    let taken = prepared.with_environment(lock(std::slice::from_ref(&other)), state.path()).unwrap();
    assert_eq!(taken.files, [file(&shared), file(&other)]);
    assert_eq!(taken.lock.packages, [other]);
}
