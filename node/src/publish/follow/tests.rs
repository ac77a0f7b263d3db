//! A mirror's tree against its publisher's: equal, never backwards, whole after a stop anywhere.

use std::{collections::BTreeMap, fs, time::Duration};

use protocol::{Signed, testing::signing_key};

use super::*;
use crate::publish::{
    apt::Published,
    testing::{AT, addition, repository, repository_of, tree},
};

const ROOM: u64 = 1 << 20;

fn channel() -> ChannelName {
    ChannelName::new("main").unwrap()
}

fn release(manifest: &[u8], generation: u64) -> Verified<Release> {
    release_of(manifest, generation, 1)
}

fn release_of(manifest: &[u8], generation: u64, term: u64) -> Verified<Release> {
    let release = Release { at: AT, term: Term(term), channel: channel(), manifest: Hash::of(manifest), generation };
    Signed::sign(&release, None, &[&signing_key(1)]).verify(None).unwrap()
}

/// Gives the bytes of a publisher's tree by hash, as peers do.
fn bytes_of(published: &Published) -> BTreeMap<Hash, Vec<u8>> {
    let read = |f: &ReleaseFile| (f.hash, fs::read(published.root.join(f.path.as_str())).unwrap());
    published.manifest.files.iter().map(read).collect()
}

fn from(bytes: &BTreeMap<Hash, Vec<u8>>) -> impl FnMut(&ReleaseFile) -> io::Result<Box<dyn Read>> + '_ {
    |file| match bytes.get(&file.hash) {
        Some(bytes) => Ok(Box::new(io::Cursor::new(bytes.clone()))),
        None => Err(io::Error::new(io::ErrorKind::NotFound, "no peer has it")),
    }
}

struct Pair {
    first: (Vec<u8>, BTreeMap<Hash, Vec<u8>>),
    second: (Vec<u8>, BTreeMap<Hash, Vec<u8>>),
    public: BTreeMap<String, Vec<u8>>,
}

/// Publishes two generations, the second two days later.
fn two_generations() -> Pair {
    let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut publisher = repository(dir.path());
    let one = publisher.publish(&[addition(debs.path(), ("tiny", "1", "amd64"), "a")], AT, 1).unwrap();
    let first = (one.manifest.to_bytes(), bytes_of(&one));
    let two = publisher.publish(&[addition(debs.path(), ("tiny", "2", "all"), "a")], AT, 2).unwrap();
    let second = (two.manifest.to_bytes(), bytes_of(&two));
    publisher.resign(AT.after(Duration::from_secs(200_000)), 3).unwrap();
    let listed = |(path, _): &(String, _)| two.manifest.files.iter().any(|f| f.path.as_str() == path);
    let public: BTreeMap<_, _> = second_tree(&second.1, &two);
    assert!(public.keys().all(|path| listed(&(path.clone(), ()))));
    Pair { first, second, public }
}

fn second_tree(bytes: &BTreeMap<Hash, Vec<u8>>, published: &Published) -> BTreeMap<String, Vec<u8>> {
    published.manifest.files.iter().map(|f| (f.path.to_string(), bytes[&f.hash].clone())).collect()
}

#[test]
fn a_mirror_becomes_the_publishers_tree_and_never_goes_back() {
    let (dir, pair) = (tempfile::tempdir().unwrap(), two_generations());
    let mut mirror = Mirror::open(dir.path(), channel(), ROOM).unwrap();
    assert!(matches!(Mirror::open(dir.path(), channel(), ROOM), Err(Error::Locked { .. })));
    let (first, second) = (release(&pair.first.0, 1), release(&pair.second.0, 2));
    let applied = mirror.apply(&first, &pair.first.0, AT, &mut from(&pair.first.1)).unwrap();
    assert!(applied.fetched > 5);
    let again = mirror.apply(&first, &pair.first.0, AT, &mut from(&BTreeMap::new())).unwrap();
    assert_eq!(again.fetched, 0, "nothing is fetched twice");
    mirror.apply(&second, &pair.second.0, AT, &mut from(&pair.second.1)).unwrap();
    let old = mirror.root().join("pool/main/t/tiny/tiny_1_amd64.deb");
    assert!(old.exists(), "a day of grace");
    drop(mirror);
    let mut mirror = Mirror::open(dir.path(), channel(), ROOM).unwrap();
    assert_eq!(mirror.generation(), 2);
    let back = mirror.apply(&first, &pair.first.0, AT, &mut from(&pair.first.1));
    assert!(matches!(back, Err(Error::Backwards { got: 1, have: 2 })));
    let twice = mirror.apply(&release(&pair.first.0, 2), &pair.first.0, AT, &mut from(&pair.first.1));
    assert!(matches!(twice, Err(Error::Equivocation { generation: 2, .. })));
    let later = AT.after(Duration::from_secs(100_000));
    fs::remove_file(mirror.root().join("dists/main/Release")).unwrap();
    let repaired = mirror.apply(&second, &pair.second.0, later, &mut from(&pair.second.1)).unwrap();
    assert_eq!(repaired.fetched, 1);
    assert!(!old.exists());
    assert_eq!(tree(&mirror.root()), pair.public);
}

#[test]
fn wrong_bytes_change_nothing_that_clients_see() {
    let (dir, pair) = (tempfile::tempdir().unwrap(), two_generations());
    let mut mirror = Mirror::open(dir.path(), channel(), ROOM).unwrap();
    mirror.apply(&release(&pair.first.0, 1), &pair.first.0, AT, &mut from(&pair.first.1)).unwrap();
    let before = fs::read(mirror.root().join("dists/main/InRelease")).unwrap();
    let second = release(&pair.second.0, 2);
    let mut hostile = |_: &ReleaseFile| -> io::Result<Box<dyn Read>> { Ok(Box::new(io::repeat(7).take(1 << 30))) };
    assert!(mirror.apply(&second, &pair.second.0, AT, &mut hostile).is_err(), "a flood ends at the file's size");
    let manifest = Manifest::from_bytes(&pair.second.0).unwrap();
    for file in &manifest.files {
        let mut bytes = pair.second.1.clone();
        bytes.get_mut(&file.hash).unwrap()[0] ^= 1;
        let result = mirror.apply(&second, &pair.second.0, AT, &mut from(&bytes));
        if let Err(error) = result {
            assert!(matches!(error, Error::WrongBytes { .. }), "{error}");
            assert_eq!(fs::read(mirror.root().join("dists/main/InRelease")).unwrap(), before);
        }
    }
    mirror.apply(&second, &pair.second.0, AT, &mut from(&pair.second.1)).unwrap();
    assert_eq!(mirror.generation(), 2);
}

#[test]
fn hostile_releases_are_refused() {
    let (dir, pair) = (tempfile::tempdir().unwrap(), two_generations());
    let mut mirror = Mirror::open(dir.path(), channel(), ROOM).unwrap();
    let mut none = from(&pair.first.1);
    let wrong = mirror.apply(&release(b"other", 1), &pair.first.0, AT, &mut none);
    assert!(matches!(wrong, Err(Error::WrongManifest { .. })));
    let mut manifest = Manifest::from_bytes(&pair.first.0).unwrap();
    manifest.files[0].size = ROOM;
    let bytes = manifest.to_bytes();
    assert!(matches!(mirror.apply(&release(&bytes, 1), &bytes, AT, &mut none), Err(Error::TooLarge { .. })));
    manifest.files[0].size = 1;
    manifest.files[0].path = RelativePath::new("aaa/index.html").unwrap();
    let bytes = manifest.to_bytes();
    assert!(matches!(mirror.apply(&release(&bytes, 1), &bytes, AT, &mut none), Err(Error::Path { .. })));
    mirror.apply(&release(&pair.first.0, 1), &pair.first.0, AT, &mut none).unwrap();
    let mut manifest = Manifest::from_bytes(&pair.first.0).unwrap();
    let deb = manifest.files.iter_mut().find(|f| f.path.as_str().ends_with(".deb")).unwrap();
    deb.sha256 = Sha256::of(b"other");
    let bytes = manifest.to_bytes();
    assert!(matches!(mirror.apply(&release(&bytes, 2), &bytes, AT, &mut none), Err(Error::Different { .. })));
}

#[test]
fn a_stop_in_the_middle_of_the_switch_goes_forward_only() {
    let (dir, pair) = (tempfile::tempdir().unwrap(), two_generations());
    let (first, second) = (release(&pair.first.0, 1), release(&pair.second.0, 2));
    let named: Vec<ReleaseFile> = Manifest::from_bytes(&pair.second.0).unwrap().files;
    let named: Vec<_> = named.into_iter().filter(|f| stage(&f.path) >= Stage::Named).collect();
    for done in 0..=named.len() {
        let dir = dir.path().join(done.to_string());
        let mut mirror = Mirror::open(&dir, channel(), ROOM).unwrap();
        mirror.apply(&first, &pair.first.0, AT, &mut from(&pair.first.1)).unwrap();
        // What a process leaves that dies after the promise and some of the renames.
        mirror.state.promised = (2, second.get().manifest);
        mirror.record().unwrap();
        for file in &named[..done] {
            fs::write(mirror.root().join(file.path.as_str()), &pair.second.1[&file.hash]).unwrap();
        }
        drop(mirror);
        let mut mirror = Mirror::open(&dir, channel(), ROOM).unwrap();
        let back = mirror.apply(&first, &pair.first.0, AT, &mut from(&pair.first.1));
        assert!(matches!(back, Err(Error::Backwards { got: 1, have: 2 })));
        mirror.apply(&second, &pair.second.0, AT, &mut from(&pair.second.1)).unwrap();
        for (path, bytes) in &pair.public {
            assert_eq!(&fs::read(mirror.root().join(path)).unwrap(), bytes, "{path} after {done} renames");
        }
    }
}

#[test]
fn the_same_generation_of_a_later_term_replaces_and_other_packages_are_a_fork() {
    let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let publish = |seed, evidence: &str, name| {
        let folder = tempfile::tempdir().unwrap();
        let one = addition(debs.path(), (name, "1", "amd64"), "a");
        let one = crate::publish::apt::Addition { bundle: evidence.as_bytes().to_vec(), ..one };
        let published = repository_of(folder.path(), seed).publish(&[one], AT, 1).unwrap();
        (published.manifest.to_bytes(), bytes_of(&published))
    };
    let (old, new, other) = (publish(1, "some", "tiny"), publish(2, "more", "tiny"), publish(3, "some", "other"));
    let mut mirror = Mirror::open(dir.path(), channel(), ROOM).unwrap();
    mirror.apply(&release_of(&old.0, 1, 3), &old.0, AT, &mut from(&old.1)).unwrap();
    let same_term = release_of(&new.0, 1, 3);
    assert!(mirror.wants(same_term.get()), "it must be told");
    assert!(matches!(mirror.judge(same_term.get(), &new.0), Err(Error::Equivocation { .. })));
    let earlier = release_of(&new.0, 1, 2);
    assert!(!mirror.wants(earlier.get()));
    assert!(matches!(mirror.judge(earlier.get(), &new.0), Err(Error::OlderTerm { got: Term(2), have: Term(3) })));
    let later = release_of(&new.0, 1, 4);
    let applied = mirror.apply(&later, &new.0, AT, &mut from(&new.1)).unwrap();
    assert!(applied.fetched > 1 && !mirror.wants(later.get()), "evidence, keys and signatures are new");
    let manifest = Manifest::from_bytes(&new.0).unwrap();
    for file in &manifest.files {
        assert!(fs::read(mirror.root().join(file.path.as_str())).unwrap() == new.1[&file.hash], "{}", file.path);
    }
    for term in [3, 4, 5] {
        let fork = mirror.judge(release_of(&other.0, 1, term).get(), &other.0);
        assert!(matches!(fork, Err(Error::Equivocation { generation: 1, .. })), "{fork:?}");
    }
    assert!(mirror.wants(release_of(&other.0, 2, 1).get()), "a newer generation counts more than the term");
}

#[test]
fn a_stop_while_a_later_term_replaces_is_made_good() {
    let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let publish = |seed| {
        let folder = tempfile::tempdir().unwrap();
        let one = addition(debs.path(), ("tiny", "1", "amd64"), "a");
        let published = repository_of(folder.path(), seed).publish(&[one], AT, 1).unwrap();
        (published.manifest.to_bytes(), bytes_of(&published))
    };
    let (old, new) = (publish(1), publish(2));
    let mut mirror = Mirror::open(dir.path(), channel(), ROOM).unwrap();
    mirror.apply(&release_of(&old.0, 1, 1), &old.0, AT, &mut from(&old.1)).unwrap();
    let later = release_of(&new.0, 1, 2);
    // What a process leaves that dies after the promise.
    mirror.state.promised = (1, later.get().manifest);
    (mirror.state.term, mirror.state.generation) = (Term(2), 0);
    mirror.record().unwrap();
    drop(mirror);
    let mut mirror = Mirror::open(dir.path(), channel(), ROOM).unwrap();
    assert!(mirror.wants(later.get()));
    mirror.apply(&later, &new.0, AT, &mut from(&new.1)).unwrap();
    let manifest = Manifest::from_bytes(&new.0).unwrap();
    let signature = manifest.files.iter().find(|f| f.path.as_str().ends_with("InRelease")).unwrap();
    assert!(fs::read(mirror.root().join(signature.path.as_str())).unwrap() == new.1[&signature.hash]);
}
