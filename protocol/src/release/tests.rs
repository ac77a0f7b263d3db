//! What a manifest may not say.

use super::*;
use crate::testing::samples;

fn refused(change: impl FnOnce(&mut Manifest)) -> String {
    let mut manifest = samples::manifest();
    change(&mut manifest);
    match Manifest::from_bytes(&manifest.to_bytes()) {
        Err(ManifestError::Meaning(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_manifest_is_sorted_and_every_package_has_its_file() {
    assert_eq!(Manifest::from_bytes(&samples::manifest().to_bytes()), Ok(samples::manifest()));
    assert!(refused(|m| m.files.reverse()).contains("files"));
    assert!(refused(|m| m.files.push(m.files[1].clone())).contains("files"));
    assert!(refused(|m| m.packages.push(m.packages[0].clone())).contains("packages"));
    assert!(refused(|m| drop(m.files.pop())).contains("has no file"));
}

#[test]
fn files_are_found_by_path() {
    let manifest = samples::manifest();
    assert_eq!(manifest.file(&manifest.files[1].path), Some(&manifest.files[1]));
    assert_eq!(manifest.file(&"dists/none".parse().unwrap()), None);
}

#[test]
fn generations_start_at_one() {
    let release = Release { generation: 0, ..samples::release() };
    assert!(release.check().is_err());
    assert_eq!(samples::release().check(), Ok(()));
}
