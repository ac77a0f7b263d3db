//! The life of environments on disk: adopted, used, evicted, left half done. Skipped where sandboxes cannot be made.

use std::process::Command;

use super::*;
use crate::build::RigConfig;

fn later() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

/// Opens a folder of environments and makes a tar file of one small file.
fn open(folder: &Path, bytes_max: u64) -> Option<(Environments, PathBuf)> {
    let rig = match Rig::find(&RigConfig::default()) {
        Ok(rig) => Arc::new(rig),
        Err(error) => {
            eprintln!("skipped: {error}");
            return None;
        }
    };
    // The build user must get through.
    fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (environments, tree) = (folder.join("environments"), folder.join("tree"));
    fs::create_dir(&environments).unwrap();
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), [7; 8192]).unwrap();
    let tar = folder.join("tree.tar");
    assert!(Command::new("tar").arg("-C").arg(&tree).arg("-cf").arg(&tar).arg(".").status().unwrap().success());
    Some((Environments::new(environments, bytes_max, rig, later), tar))
}

fn lock(epoch: u64) -> EnvironmentLock {
    let (arch, suite) = (protocol::Arch::Amd64, protocol::SuiteName::new("test").unwrap());
    EnvironmentLock { arch, epoch, suite, family: protocol::environment::Family::Dpkg, packages: Vec::new() }
}

#[tokio::test]
async fn the_least_recently_used_goes_and_what_is_used_stays() {
    let folder = tempfile::tempdir().unwrap();
    let Some((environments, tar)) = open(folder.path(), 1) else { return };
    let (stop, nowhere) = (CancellationToken::new(), Path::new("/nonexistent"));
    environments.adopt(lock(1).id(), &tar).await.unwrap();
    let used = environments.get(&lock(1), nowhere, &stop).await.unwrap();
    assert!(used.root.join("file").is_file());
    environments.adopt(lock(2).id(), &tar).await.unwrap();
    environments.evict();
    assert!(environments.has(&lock(1).id()), "in use");
    assert!(!environments.has(&lock(2).id()), "over the limit and not in use");
    drop(used);
    environments.evict();
    assert!(!environments.has(&lock(1).id()), "not in use any more");
}

#[tokio::test]
async fn half_an_environment_is_swept_and_a_whole_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    let Some((environments, tar)) = open(folder.path(), 1 << 30) else { return };
    environments.adopt(lock(1).id(), &tar).await.unwrap();
    let half = folder.path().join(format!("environments/new-{}", lock(2).id()));
    let unmarked = folder.path().join(format!("environments/{}", lock(3).id()));
    fs::create_dir_all(half.join("root/usr")).unwrap();
    fs::create_dir_all(unmarked.join("root/usr")).unwrap();
    environments.sweep().unwrap();
    assert!(!half.exists() && !unmarked.exists());
    assert!(environments.has(&lock(1).id()));
}

#[tokio::test]
async fn a_tree_is_taken_only_from_where_it_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let Some((environments, _)) = open(folder.path(), 1 << 30) else { return };
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("dev")).unwrap();
    fs::create_dir_all(elsewhere.join("proc")).unwrap();
    for (link, word) in [("", "/root"), ("root", "/root"), ("root/dev", "/root/dev")] {
        let new = environments.begin(&lock(1).id()).unwrap();
        let place = new.path.join("upper/build/place");
        fs::create_dir_all(place.join("root/proc")).unwrap();
        fs::create_dir_all(place.join("root/dev")).unwrap();
        let link = if link.is_empty() { place.clone() } else { place.join(link) };
        fs::remove_dir_all(&link).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        for entry in walkdir::WalkDir::new(new.path.join("upper")) {
            environments.rig.give(entry.unwrap().path()).unwrap();
        }
        let words = [new.path.to_str().unwrap(), "/build/place", "0", "1"].map(str::to_owned);
        let result = environments.seal(install::SEAL, &words, &CancellationToken::new()).await;
        let Err(EnvironmentError::Refused { why }) = result else { panic!("{result:?}") };
        assert!(why.ends_with(&format!("in place of {word}")), "{why}");
        assert!(elsewhere.join("dev").is_dir() && !new.path.join("root").exists());
    }
}

#[tokio::test]
async fn a_tampered_package_is_refused_before_anything_is_installed() {
    let folder = tempfile::tempdir().unwrap();
    let Some((environments, _)) = open(folder.path(), 1 << 30) else { return };
    fs::write(folder.path().join("a_1_all.deb"), b"tampered").unwrap();
    let mut lock = lock(1);
    lock.packages.push(protocol::environment::LockedPackage {
        arch: protocol::Arch::All,
        file: protocol::FileName::new("a_1_all.deb").unwrap(),
        from: None,
        hash: Hash::of(b"original"),
        name: protocol::PackageName::new("aa").unwrap(),
        size: 8,
        sha256: protocol::Sha256::of(b"original"),
        version: protocol::words::DebVersion::new("1").unwrap(),
    });
    let result = environments.get(&lock, folder.path(), &CancellationToken::new()).await;
    let Err(EnvironmentError::Package(InputError::Tampered { name, .. })) = result else { panic!("{result:?}") };
    assert_eq!(name, "a_1_all.deb");
    let left: Vec<_> =
        fs::read_dir(folder.path().join("environments")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().ends_with(".lock")), "{left:?}");
}
