//! A disk that is really full: nothing torn, plain words, and it goes on as soon as there is room.

use std::process::Command;

use protocol::{ChannelName, Signed, release::Release, testing::signing_key};

use super::*;
use crate::publish::follow;

/// A small file system of its own, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(kib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={kib}k");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "artel-test"]).arg(dir.path()).output();
        match mounted {
            Ok(out) if out.status.success() => Some(Self(dir)),
            Ok(_) | Err(_) => {
                eprintln!("skipped: only root may mount a small disk");
                None
            }
        }
    }

    /// Leaves so many KiB free.
    fn fill(&self, free_kib: u64) {
        let stat = rustix::fs::statvfs(self.0.path()).unwrap();
        let room = stat.f_bavail * stat.f_frsize;
        fs::write(self.0.path().join("filler"), vec![1; usize::try_from(room - (free_kib << 10)).unwrap()]).unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        assert!(ended.is_ok_and(|status| status.success()), "the small disk stays mounted");
    }
}

/// What clients see: everything below `dists`.
fn seen(root: &Path) -> Vec<(String, Vec<u8>)> {
    tree(root).into_iter().filter(|(path, _)| path.starts_with("dists/") && !path.contains("/by-hash/")).collect()
}

#[test]
fn a_publisher_on_a_full_disk_changes_nothing_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::new(2048) else { return };
    let debs = tempfile::tempdir().unwrap();
    let folder = disk.0.path().join("repository");
    fs::create_dir(&folder).unwrap();
    let mut repository = repository(&folder);
    repository.publish(&[addition(debs.path(), ("tiny", "1", "amd64"), "a")], AT, 1).unwrap();
    let before = seen(&repository.root());
    let next = [addition(debs.path(), ("tiny", "2", "amd64"), "a"), addition(debs.path(), ("doc", "2", "all"), "a")];
    let mut refusals = 0;
    for free in (0..).step_by(4) {
        disk.fill(free);
        let result = repository.publish(&next, AT, 2);
        disk.empty();
        match result {
            Ok(_) => break,
            Err(error) => {
                let said = crate::daemon::chain(&error);
                assert!(said.contains("No space left on device"), "{said}");
                assert!(seen(&repository.root()) == before, "torn with {free} KiB free");
                refusals += 1;
            }
        }
    }
    assert!(refusals > 3, "{refusals} refusals");
    assert_eq!(repository.generation(), 2);
    assert_eq!(repository.published().unwrap().manifest.packages.len(), 2);
}

#[test]
fn a_mirror_on_a_full_disk_changes_nothing_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::new(2048) else { return };
    let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut repository = repository(dir.path());
    let channel = ChannelName::new("main").unwrap();
    let mut mirror = follow::Mirror::open(&disk.0.path().join("mirror"), channel.clone(), 1 << 20).unwrap();
    let apply = |mirror: &mut follow::Mirror, published: &Published| {
        let (manifest, generation) = (published.manifest.to_bytes(), published.generation);
        let release =
            Release { at: AT, term: Term(1), channel: channel.clone(), manifest: Hash::of(&manifest), generation };
        let release = Signed::sign(&release, None, &[&signing_key(1)]).verify(None).unwrap();
        let mut fetch = |f: &ReleaseFile| -> std::io::Result<Box<dyn std::io::Read>> {
            Ok(Box::new(File::open(published.root.join(f.path.as_str()))?))
        };
        mirror.apply(&release, &manifest, AT, &mut fetch)
    };
    let one = repository.publish(&[addition(debs.path(), ("tiny", "1", "amd64"), "a")], AT, 1).unwrap();
    apply(&mut mirror, &one).unwrap();
    let before = seen(&mirror.root());
    let two = repository.publish(&[addition(debs.path(), ("tiny", "2", "amd64"), "a")], AT, 2).unwrap();
    let mut refusals = 0;
    for free in (0..).step_by(4) {
        disk.fill(free);
        let result = apply(&mut mirror, &two);
        disk.empty();
        match result {
            Ok(_) => break,
            Err(error) => {
                let said = crate::daemon::chain(&error);
                assert!(said.contains("No space left on device"), "{said}");
                assert!(seen(&mirror.root()) == before, "torn with {free} KiB free");
                refusals += 1;
            }
        }
    }
    assert!(refusals > 3, "{refusals} refusals");
    assert_eq!(mirror.generation(), 2);
}
