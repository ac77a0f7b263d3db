//! From one coordinator to the next: the same bytes, the same names, one generation after another.

use std::{
    collections::BTreeMap,
    io::{self, Cursor, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use protocol::{ChannelName, release::Release};

use super::*;
use crate::publish::{
    apt::adopt,
    testing::{key_of, repository_of},
};

type Bytes = BTreeMap<Hash, Vec<u8>>;

/// What a publisher signs about a generation, its manifest, and its files by hash.
fn release(published: &Published, term: u64) -> (Release, Vec<u8>, Bytes) {
    let manifest = published.manifest.to_bytes();
    let release = Release {
        at: published.at,
        term: Term(term),
        channel: ChannelName::new("main").unwrap(),
        manifest: Hash::of(&manifest),
        generation: published.generation,
    };
    let read = |f: &ReleaseFile| (f.hash, fs::read(published.root.join(f.path.as_str())).unwrap());
    (release, manifest, published.manifest.files.iter().map(read).collect())
}

fn from(bytes: &Bytes) -> impl FnMut(&ReleaseFile) -> io::Result<Box<dyn Read>> + '_ {
    |file| match bytes.get(&file.hash) {
        Some(bytes) => Ok(Box::new(Cursor::new(bytes.clone()))),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

fn adopt_from(repository: &mut Repository, from_whom: &(Release, Vec<u8>, Bytes)) -> Result<Published, Error> {
    repository.adopt(&from_whom.0, &from_whom.1, &mut from(&from_whom.2))
}

/// An authority whose term a test sets; 0 stands for a node that does not lead.
fn authority(term: &Arc<AtomicU64>) -> Authority {
    let term = Arc::clone(term);
    Arc::new(move || match term.load(Relaxed) {
        0 => Err(NotLeading { why: "there is no majority".into() }),
        term => Ok(Term(term)),
    })
}

/// The pool and the `Packages` of every architecture: what has neither signature nor time.
fn indexes(published: &Published) -> Vec<(String, Vec<u8>)> {
    let files = published.manifest.files.iter().map(|f| f.path.as_str());
    let kept = files.filter(|path| path.contains("/binary-") || path.starts_with("pool/"));
    kept.map(|path| (path.to_owned(), fs::read(published.root.join(path)).unwrap())).collect()
}

#[test]
fn the_next_coordinator_continues_with_the_same_bytes() {
    let (a, b, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut first, mut second) = (repository_of(a.path(), 1), repository_of(b.path(), 2));
    first.publish(&[addition(debs.path(), ("tiny", "1", "amd64"), "a")], AT, 1).unwrap();
    let two = [addition(debs.path(), ("libtiny", "1", "all"), "a"), addition(debs.path(), ("tiny", "2", "arm64"), "a")];
    let published = first.publish(&two, AT, 2).unwrap();
    let got = adopt_from(&mut second, &release(&published, 1)).unwrap();
    assert_eq!((&got.manifest, got.generation, got.term), (&published.manifest, 2, Term(1)));
    let all = tree(&first.root());
    let named = published.manifest.files.iter().map(|f| (f.path.to_string(), all[f.path.as_str()].clone()));
    assert!(tree(&second.root()) == named.collect(), "exactly that generation, signatures and all");
    adopt_from(&mut second, &release(&published, 1)).unwrap();
    drop(second);
    let mut second = repository_of(b.path(), 2);
    assert_eq!(second.published().unwrap(), Published { root: second.root(), ..got });
    let three = [addition(debs.path(), ("tiny", "3", "amd64"), "a")];
    let (mine, theirs) = (first.publish(&three, day(1), 3).unwrap(), second.publish(&three, day(1), 3).unwrap());
    assert!(indexes(&mine) == indexes(&theirs), "the same indexes and pool whoever signs them");
    assert_eq!(mine.manifest.packages, theirs.manifest.packages);
    assert_ne!(mine.manifest, theirs.manifest, "the signatures are their own");
    let changed = [addition(debs.path(), ("tiny", "2", "arm64"), "other")];
    assert!(matches!(second.publish(&changed, day(1), 4), Err(Error::Different { .. })), "names stay taken");
}

#[test]
fn a_generation_that_was_signed_but_not_reported_is_not_made_again() {
    let (a, b, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut first, mut second) = (repository_of(a.path(), 1), repository_of(b.path(), 2));
    let one = [addition(debs.path(), ("tiny", "1", "amd64"), "a")];
    let signed = first.publish(&one, AT, 1).unwrap();
    adopt_from(&mut second, &release(&signed, 1)).unwrap();
    let evidence = [Addition { bundle: b"more of it".to_vec(), ..one[0].clone() }];
    assert_eq!(second.publish(&evidence, day(1), 1).unwrap().manifest, signed.manifest);
    let other = [addition(debs.path(), ("other", "1", "amd64"), "a")];
    assert!(matches!(second.publish(&other, day(1), 1), Err(Error::Conflict { generation: 1 })));
}

#[test]
fn the_same_generation_of_a_later_term_replaces_and_anything_else_is_a_fork() {
    let (a, b, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut first, mut second) = (repository_of(a.path(), 1), repository_of(b.path(), 2));
    let one = [addition(debs.path(), ("tiny", "1", "amd64"), "a")];
    let old = release(&first.publish(&one, AT, 1).unwrap(), 1);
    let evidence = [Addition { bundle: b"more of it".to_vec(), ..one[0].clone() }];
    let new = release(&second.publish(&evidence, day(1), 1).unwrap(), 2);
    adopt_from(&mut first, &new).unwrap();
    assert_eq!(first.published().unwrap().manifest, second.published().unwrap().manifest);
    assert!(matches!(adopt_from(&mut first, &old), Err(Error::OlderTerm { got: Term(1), published: Term(2) })));
    let c = tempfile::tempdir().unwrap();
    let other = [addition(debs.path(), ("other", "1", "amd64"), "a")];
    let published = repository_of(c.path(), 3).publish(&other, AT, 1).unwrap();
    for term in 1..4 {
        let said = adopt_from(&mut first, &release(&published, term)).unwrap_err();
        assert!(matches!(said, Error::Adopt(adopt::Error::Fork { generation: 1, .. })), "{said}");
    }
    assert_eq!(first.published().unwrap().manifest, second.published().unwrap().manifest);
}

#[test]
fn what_the_manifest_does_not_name_is_not_taken_over() {
    let (a, b, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut first = repository_of(a.path(), 1);
    let one = [addition(debs.path(), ("tiny", "1", "amd64"), "a")];
    let good = release(&first.publish(&one, AT, 1).unwrap(), 1);
    let mut second = repository_of(b.path(), 2);
    for hash in good.2.keys() {
        let mut bad = good.clone();
        bad.2.get_mut(hash).unwrap().push(0);
        assert!(matches!(adopt_from(&mut second, &bad), Err(Error::Adopt(adopt::Error::WrongBytes { .. }))));
        bad.2.remove(hash);
        assert!(matches!(adopt_from(&mut second, &bad), Err(Error::Adopt(adopt::Error::Fetch { .. }))));
        assert_eq!((second.generation(), tree(&second.root()).len()), (0, 0));
    }
    let mut lied = Manifest::from_bytes(&good.1).unwrap();
    lied.packages[0].version = DebVersion::new("2").unwrap();
    let bytes = lied.to_bytes();
    let lied = (Release { manifest: Hash::of(&bytes), ..good.0.clone() }, bytes, good.2.clone());
    assert!(matches!(adopt_from(&mut second, &lied), Err(Error::Adopt(adopt::Error::Foreign { .. }))));
    adopt_from(&mut second, &good).unwrap();
}

/// Stops the taking over before its n-th step, for every n, and repeats it.
#[test]
fn a_stop_while_taking_over_loses_nothing() {
    let (a, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut first = repository_of(a.path(), 1);
    let one = release(&first.publish(&[addition(debs.path(), ("tiny", "1", "amd64"), "a")], AT, 1).unwrap(), 1);
    let wanted = first.publish(&[addition(debs.path(), ("tiny", "2", "amd64"), "a")], AT, 2).unwrap();
    let two = release(&wanted, 1);
    let (mut steps, mut ended) = (0, false);
    while !ended {
        let b = tempfile::tempdir().unwrap();
        let mut stopped = repository_of(b.path(), 2);
        adopt_from(&mut stopped, &one).unwrap();
        stopped.steps_left.store(steps, Relaxed);
        ended = match adopt_from(&mut stopped, &two) {
            Ok(_) => true,
            Err(Error::Stopped) => false,
            Err(other) => panic!("{other}"),
        };
        drop(stopped);
        let mut again = repository_of(b.path(), 2);
        assert_eq!(adopt_from(&mut again, &two).unwrap().manifest, wanted.manifest, "stopped before step {steps}");
        assert_eq!(tree(&again.root()), tree(&first.root()), "stopped before step {steps}");
        steps += 1;
    }
    assert!(steps > 15, "{steps} steps");
}

#[test]
fn a_former_coordinator_does_not_write() {
    let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let term = Arc::new(AtomicU64::new(5));
    let mut repository = repository_of(dir.path(), 1);
    repository.led_by(authority(&term));
    assert_eq!(repository.publish(&[], AT, 1).unwrap().term, Term(5));
    let before = tree(&repository.root());
    let one = [addition(debs.path(), ("tiny", "1", "amd64"), "a")];
    term.store(4, Relaxed);
    let said = repository.publish(&one, AT, 2).unwrap_err().to_string();
    assert!(said.contains("term 4 is over: term 5"), "{said}");
    term.store(0, Relaxed);
    let said = repository.publish(&one, AT, 2).unwrap_err().to_string();
    assert!(said.contains("there is no majority"), "{said}");
    assert_eq!(tree(&repository.root()), before);
    term.store(6, Relaxed);
    repository.publish(&one, AT, 2).unwrap();
}

/// The authority answers `yes` a few times and then no more: before the signature, before the switch.
#[test]
fn a_publisher_that_loses_its_office_on_the_way_changes_nothing() {
    let debs = tempfile::tempdir().unwrap();
    let one = [addition(debs.path(), ("tiny", "1", "amd64"), "a")];
    for yes in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let mut repository = repository_of(dir.path(), 1);
        let asked = AtomicU64::new(0);
        repository.led_by(Arc::new(move || match asked.fetch_add(1, Relaxed) {
            count if count < yes => Ok(Term(1)),
            _ => Err(NotLeading { why: "another member was elected".into() }),
        }));
        assert!(matches!(repository.publish(&one, AT, 1), Err(Error::NotLeading(_))), "after {yes} times");
        drop(repository);
        let repository = repository_of(dir.path(), 1);
        assert_eq!((repository.generation(), tree(&repository.root()).len()), (0, 0), "after {yes} times");
    }
}

#[test]
fn a_process_whose_memory_is_older_than_the_folder_does_not_write() {
    let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut old = repository_of(dir.path(), 1);
    old.publish(&[], AT, 1).unwrap();
    // Somebody removed the lock, so a second process came in.
    fs::remove_file(dir.path().join("state/lock")).unwrap();
    let mut new = repository_of(dir.path(), 1);
    new.publish(&[addition(debs.path(), ("tiny", "1", "amd64"), "a")], AT, 3).unwrap();
    assert!(matches!(old.publish(&[], AT, 2), Err(Error::Fenced { got: 2, published: 3 })));
}

#[test]
fn another_process_holds_the_lock_as_long_as_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    drop(repository_of(dir.path(), 1));
    let lock = dir.path().join("state/lock");
    let mut other = std::process::Command::new("flock")
        .args(["--exclusive", "--nonblock"])
        .arg(&lock)
        .args(["sh", "-c", "echo held; exec cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 5];
    other.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"held\n");
    let refused = Repository::open(dir.path(), settings(), key_of(1)).unwrap_err().to_string();
    assert!(refused.contains("another process publishes"), "{refused}");
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    repository_of(dir.path(), 1).publish(&[], AT, 1).unwrap();
}
