//! RPMs at the door, signed, and as the real rpm and dnf see them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use protocol::{
    Arch, Hash, JobId, Signed,
    lease::Term,
    release::{Manifest, Release, ReleaseFile},
    testing::signing_key,
};

use super::*;
use crate::publish::{
    apt::{
        self, Addition, Order, Published,
        carry::{Fate, Takeover},
    },
    follow::{
        self, Mirror,
        covered::{self, rpms::Rpms},
    },
    testing::{AT, addition, key, key_of, repository, repository_of, tree},
};

mod client;

/// What rpmbuild 4.18 made of `fixtures/rpm/artel-answer.spec`.
const UNSIGNED: &[u8] = include_bytes!("../../../../fixtures/rpm/unsigned.rpm");
const NAME: &str = "Artel-answer-doc-1.2^git3-1.noarch.rpm";
const POOL: &str = "pool/main/A/Artel-answer/Artel-answer-doc-1.2^git3-1.noarch.rpm";

fn file(name: &str) -> FileName {
    FileName::new(name).unwrap()
}

fn rpm(folder: &Path) -> Addition {
    let path = folder.join(NAME);
    fs::write(&path, UNSIGNED).unwrap();
    Addition {
        path,
        file: file(NAME),
        sha256: Sha256::of(UNSIGNED),
        size: UNSIGNED.len() as u64,
        job: JobId::from(Hash::of(b"rpm")),
        bundle: b"evidence".to_vec(),
        staples: vec![],
        order: Order::Upwards,
    }
}

fn signed(folder: &Path, key: &RepositoryKey) -> PathBuf {
    let (from, to) = (folder.join("unsigned"), folder.join(NAME));
    fs::write(&from, UNSIGNED).unwrap();
    sign((&from, &to), &file(NAME), key).unwrap();
    to
}

fn check(manifest: &Manifest, root: &Path, known: Rpms) -> Result<Rpms, covered::rpms::Error> {
    let keyring = Keyring::read(&fs::read(root.join("archive-key.gpg")).unwrap()).unwrap();
    covered::rpms::check((manifest, &keyring), AT, known, &mut |file| Ok(root.join(file.path.as_str())))
}

#[test]
fn a_signature_changes_with_the_key_alone_and_comes_off_again() {
    let (a, b, c) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, again, other) = (signed(a.path(), &key()), signed(b.path(), &key()), signed(c.path(), &key_of(8)));
    assert_eq!(fs::read(&first).unwrap(), fs::read(&again).unwrap());
    assert_ne!(fs::read(&first).unwrap(), fs::read(&other).unwrap());
    for path in [&first, &other] {
        assert_eq!(attested(path, &file(NAME)).unwrap(), Sha256::of(UNSIGNED));
    }
    let error = sign((&first, &a.path().join("twice")), &file(NAME), &key()).unwrap_err();
    assert!(error.to_string().contains("signed already"), "{error}");
}

#[test]
fn what_is_no_rpm_of_that_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let inspect = |bytes: &[u8], name: &str, arches: &[Arch]| {
        fs::write(&path, bytes).unwrap();
        package::inspect(&path, &file(name), arches).map(|p| p.version.to_string()).map_err(|e| e.to_string())
    };
    assert_eq!(inspect(UNSIGNED, NAME, &[]).unwrap(), "1.2^git3-1");
    assert!(inspect(UNSIGNED, "Artel-answer-doc-1.2-1.noarch.rpm", &[]).unwrap_err().contains("should be called"));
    assert!(inspect(&UNSIGNED[..3000], NAME, &[]).is_err(), "cut within its header");
    assert!(inspect(b"!<arch>\n", NAME, &[]).is_err());
    let source = include_bytes!("../../../../fixtures/rpm/source.rpm");
    assert!(inspect(source, "Artel-answer-1.2^git3-1.src.rpm", &[]).unwrap_err().contains("source package"));
    let foreign: Vec<u8> = {
        let at = UNSIGNED.windows(7).position(|w| w == b"noarch\0").unwrap();
        [&UNSIGNED[..at], b"s390x\0", &UNSIGNED[at + 6..]].concat()
    };
    let error = inspect(&foreign, "Artel-answer-doc-1.2^git3-1.s390x.rpm", &[Arch::Amd64]).unwrap_err();
    assert!(error.contains("does not build"), "{error}");
}

#[test]
fn a_channel_has_both_and_a_mirror_can_write_the_metadata_again() {
    let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut repository = repository(dir.path());
    let deb = addition(debs.path(), ("tiny", "1", "amd64"), "a");
    let before = repository.publish(std::slice::from_ref(&deb), AT, 1).unwrap();
    assert!(!before.manifest.files.iter().any(|f| f.path.as_str().starts_with("repodata")), "nothing for dnf yet");
    let published = repository.publish(&[rpm(debs.path())], AT, 2).unwrap();
    let manifest = &published.manifest;
    assert_eq!(tree(&published.root).len(), manifest.files.len(), "the manifest lists every file");
    let package = manifest.packages.iter().find(|p| p.is_rpm()).unwrap();
    assert_eq!((package.path.as_str(), package.attested), (POOL, Some(Sha256::of(UNSIGNED))));
    assert_eq!((package.name.as_str(), package.version.as_str()), ("Artel-answer-doc", "1.2^git3-1"));
    assert_ne!(manifest.file(&package.path).unwrap().sha256, Sha256::of(UNSIGNED), "it is signed");
    let packages = fs::read_to_string(published.root.join("dists/main/main/binary-amd64/Packages")).unwrap();
    assert!(packages.contains("Package: tiny") && !packages.contains("answer"), "{packages}");
    assert_eq!(Manifest::from_bytes(&manifest.to_bytes()).unwrap(), *manifest);
    let known = check(manifest, &published.root, Rpms::new()).unwrap();
    let keyring = Keyring::new([key().certificate().unwrap()]);
    let unread = covered::rpms::check((manifest, &keyring), AT, known.clone(), &mut |_| {
        panic!("what is known is not read again")
    });
    assert_eq!(unread.unwrap().len(), 1);
    let stranger = Keyring::new([key_of(8).certificate().unwrap()]);
    let open = &mut |file: &ReleaseFile| Ok(published.root.join(file.path.as_str()));
    let why = |known| covered::rpms::check((manifest, &stranger), AT, known, open).unwrap_err().to_string();
    let (again, first) = [known, Rpms::new()].map(why).into();
    assert!(again.contains("signer's key is not in the release"), "{again}");
    assert!(first.contains("none of its keys made the signature"), "{first}");
    let again = repository.publish(&[rpm(debs.path())], AT, 3).unwrap();
    assert_eq!(again.manifest.packages.len(), 2, "it is there already");
}

#[test]
fn a_mirror_refuses_metadata_and_packages_that_were_not_attested() {
    let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let published = repository(dir.path()).publish(&[rpm(debs.path())], AT, 1).unwrap();
    let refused = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = published.manifest.clone();
        change(&mut manifest);
        check(&manifest, &published.root, Rpms::new()).unwrap_err().to_string()
    };
    let repodata = |manifest: &Manifest, end: &str| {
        let found = |f: &ReleaseFile| f.path.as_str().starts_with("repodata") && f.path.as_str().ends_with(end);
        manifest.files.iter().position(found).unwrap()
    };
    for end in ["repomd.xml", "primary.xml.gz", "filelists.xml.gz", "other.xml.gz"] {
        let why = refused(&|m| {
            let at = repodata(m, end);
            m.files[at].hash = Hash::of(b"evil");
        });
        assert!(why.contains("has other bytes"), "{end}: {why}");
    }
    let why = refused(&|m| drop(m.files.remove(repodata(m, ".asc"))));
    assert!(why.contains("is missing"), "{why}");
    let why =
        refused(&|m| m.files.push(ReleaseFile { path: "repodata/evil.xml".parse().unwrap(), ..m.files[0].clone() }));
    assert!(why.contains("evil.xml is none of it"), "{why}");
    let why = refused(&|m| m.packages[0].attested = Some(Sha256::of(b"evil")));
    assert!(why.contains("not what was attested"), "{why}");
    let why = refused(&|m| m.packages.clear());
    assert!(why.contains("none of it") || why.contains("other bytes"), "{why}");
    let mut manifest = published.manifest.clone();
    manifest.packages[0].attested = None;
    assert!(Manifest::from_bytes(&manifest.to_bytes()).is_err(), "an RPM says what was attested");
}

/// Has a repository take over what another one published.
fn adopt(repository: &mut apt::Repository, published: &Published) -> Result<Published, apt::Error> {
    let bytes = published.manifest.to_bytes();
    let (term, generation, channel) = (published.term, published.generation, "main".parse().unwrap());
    let release = Release { at: AT, term, channel, manifest: Hash::of(&bytes), generation };
    let root = published.root.clone();
    let mut fetch =
        |file: &ReleaseFile| -> io::Result<Box<dyn Read>> { Ok(Box::new(File::open(root.join(file.path.as_str()))?)) };
    repository.adopt(&release, &bytes, &mut fetch)
}

#[test]
fn another_coordinator_continues_and_signs_nothing_twice() {
    let (a, b, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut first = repository(a.path());
    let published = first.publish(&[rpm(debs.path())], AT, 1).unwrap();
    let mut second = repository_of(b.path(), 8);
    adopt(&mut second, &published).unwrap();
    assert_eq!(tree(&second.root()), tree(&first.root()));
    second.trust([key().certificate().unwrap()]).unwrap();
    let next = second.publish(&[rpm(debs.path())], AT, 2).unwrap();
    let signed = |published: &Published| fs::read(published.root.join(POOL)).unwrap();
    assert_eq!(next.manifest.packages, published.manifest.packages);
    assert_eq!(signed(&next), signed(&published), "the first signature stays");
    check(&next.manifest, &next.root, Rpms::new()).unwrap();
    let mut changed = UNSIGNED.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    let mut other = rpm(debs.path());
    fs::write(&other.path, &changed).unwrap();
    other.sha256 = Sha256::of(&changed);
    let error = second.publish(&[other], AT, 3).unwrap_err();
    assert!(matches!(error, apt::Error::Different { .. }), "{error}");
}

/// A leader that stopped may have signed a generation without saying so; the next one signs the same packages with its own key.
#[test]
fn a_mirror_takes_the_same_rpm_signed_again_by_a_later_term_and_no_other() {
    let (a, b, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = repository(a.path()).publish(&[rpm(debs.path())], AT, 1).unwrap();
    let second = repository_of(b.path(), 8).publish(&[rpm(debs.path())], AT, 1).unwrap();
    assert!(apt::adopt::same_packages(&first.manifest, &second.manifest));
    let dir = tempfile::tempdir().unwrap();
    let mut mirror = Mirror::open(dir.path(), "main".parse().unwrap(), 1 << 20).unwrap();
    let mut apply = |published: &Published, manifest: &Manifest, term: u64| {
        let bytes = manifest.to_bytes();
        let release = Release {
            at: AT,
            term: Term(term),
            channel: "main".parse().unwrap(),
            manifest: Hash::of(&bytes),
            generation: 1,
        };
        let release = Signed::sign(&release, None, &[&signing_key(1)]).verify(None).unwrap();
        let root = published.root.clone();
        let mut fetch = |file: &ReleaseFile| -> io::Result<Box<dyn Read>> {
            Ok(Box::new(File::open(root.join(file.path.as_str()))?))
        };
        mirror.apply(&release, &bytes, AT, &mut fetch).map(|applied| applied.generation)
    };
    assert_eq!(apply(&first, &first.manifest, 1).unwrap(), 1);
    assert_eq!(apply(&second, &second.manifest, 2).unwrap(), 1);
    let (shown, wanted) = (tree(&dir.path().join("public")), tree(&second.root));
    assert!(
        wanted.iter().all(|(path, bytes)| shown.get(path) == Some(bytes)),
        "the second signature replaced the first"
    );
    let mut other = first.manifest.clone();
    other.packages[0].attested = Some(Sha256::of(b"another"));
    assert!(matches!(apply(&first, &other, 3), Err(follow::Error::Equivocation { .. })));
}

/// What was taken out comes back under whoever publishes then, and the former publisher follows.
#[test]
fn an_rpm_that_was_taken_out_comes_back_under_another_key() {
    let (a, b, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut first, mut second) = (repository(a.path()), repository_of(b.path(), 8));
    let prune = protocol::job::Prune { keep: 0, before: None, packages: vec![] };
    let published = first.publish(&[rpm(debs.path())], AT, 1).unwrap();
    adopt(&mut second, &published).unwrap();
    let (published, _) = first.prune(&prune, Hash::of(b"prune"), (AT, 2)).unwrap();
    adopt(&mut second, &published).unwrap();
    let again = second.publish(&[rpm(debs.path())], AT, 3).unwrap();
    assert_eq!(again.manifest.packages.len(), 1);
    adopt(&mut first, &again).unwrap();
    assert_eq!(tree(&first.root())[POOL], tree(&second.root())[POOL]);
    first.prune(&prune, Hash::of(b"again"), (AT, 4)).unwrap();
    let mut changed = UNSIGNED.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    let mut other = rpm(debs.path());
    fs::write(&other.path, &changed).unwrap();
    other.sha256 = Sha256::of(&changed);
    let error = first.publish(&[other], AT, 5).unwrap_err();
    assert!(matches!(error, apt::Error::Different { .. }), "one name has one attested content: {error}");
}

/// A coordinator that is none any more is not in the keyring: its signatures would not hold.
#[test]
fn what_a_former_coordinator_signed_is_signed_again() {
    let (a, b, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let published = repository(a.path()).publish(&[rpm(debs.path())], AT, 1).unwrap();
    let mut second = repository_of(b.path(), 8);
    adopt(&mut second, &published).unwrap();
    let next = second.resign(AT, 2).unwrap();
    let signed = |published: &Published| fs::read(published.root.join(POOL)).unwrap();
    assert_ne!(signed(&next), signed(&published));
    check(&next.manifest, &next.root, Rpms::new()).unwrap();
    let manifests = (&next.manifest, &published.manifest);
    assert!(apt::adopt::same_packages(manifests.0, manifests.1), "what was attested is the same");
    assert_eq!(tree(&next.root).len(), next.manifest.files.len() + index_files(&published, &next));
    let dir = tempfile::tempdir().unwrap();
    let mut third = repository(dir.path());
    adopt(&mut third, &published).unwrap();
    adopt(&mut third, &next).unwrap();
    assert_eq!(signed(&third.published().unwrap()), signed(&next), "who has the first takes the second");
}

/// Counts the files by hash of one generation that the next one does not name: they stay for a day.
fn index_files(before: &Published, after: &Published) -> usize {
    let gone = |file: &&ReleaseFile| after.manifest.file(&file.path).is_none();
    before.manifest.files.iter().filter(gone).count()
}

#[test]
fn rpms_are_taken_over_into_another_channel() {
    let (a, b, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut from, mut to) = (repository(a.path()), repository(b.path()));
    from.publish(&[rpm(debs.path())], AT, 1).unwrap();
    let stock = from.stock();
    assert_eq!(stock[0].sha256, Sha256::of(UNSIGNED), "what its evidence names");
    let paths = [stock[0].path.clone()];
    let bundle = |path: &Path| fs::read(path);
    let takeover = Takeover { from: &from, paths: &paths, bundle: &bundle };
    let (published, fates) = to.carry(&takeover, Hash::of(b"asked"), (AT, 1)).unwrap();
    assert_eq!(fates, [Fate::Entered]);
    check(&published.manifest, &published.root, Rpms::new()).unwrap();
    let prune = protocol::job::Prune { keep: 0, before: None, packages: vec![] };
    let (published, removed) = to.prune(&prune, Hash::of(b"prune"), (AT, 2)).unwrap();
    assert_eq!(removed, [POOL]);
    check(&published.manifest, &published.root, Rpms::new()).unwrap();
    let repomd = fs::read_to_string(published.root.join("repodata/repomd.xml")).unwrap();
    assert!(repomd.contains("<revision>"), "dnf is told that nothing is left: {repomd}");
}

#[test]
fn rpm_itself_checks_the_signature() {
    if Command::new("rpmkeys").arg("--version").output().is_err() {
        eprintln!("skipped: rpm is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let rpmkeys = |arguments: &[&str]| {
        let db = folder.path().join("db");
        let out = Command::new("rpmkeys").arg("--dbpath").arg(&db).args(arguments).output().unwrap();
        let said = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let key_file = folder.path().join("key.asc");
    let keyring = crate::publish::sign::keyring::Keyring::new([key().certificate().unwrap()]);
    fs::write(&key_file, keyring.armored().unwrap()).unwrap();
    assert!(rpmkeys(&["--import", key_file.to_str().unwrap()]).0);
    let path = signed(folder.path(), &key());
    let (good, said) = rpmkeys(&["-Kv", path.to_str().unwrap()]);
    assert!(good && said.contains("V4 EdDSA/SHA512 Signature") && !said.contains("NOKEY"), "{said}");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() - 1;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (good, said) = rpmkeys(&["-Kv", path.to_str().unwrap()]);
    assert!(!good, "a changed payload: {said}");
}
