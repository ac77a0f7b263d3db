//! The real apt as the judge.

use std::process::Command;

use protocol::{ChannelName, Signed, Verified, release::Release, testing::signing_key};

use super::*;
use crate::publish::{
    follow,
    sign::{RepositoryKey, keys::Keys},
    testing::{key_of, repository_of},
};

/// A private apt root with one source: the repository, by its key.
struct Client {
    dir: tempfile::TempDir,
}

impl Client {
    fn new(repository: &Repository) -> Option<Self> {
        Self::at(&repository.root())
    }

    /// As [`Client::new`], for any served folder.
    fn at(public: &Path) -> Option<Self> {
        if Command::new("apt-get").arg("--version").output().is_err() {
            eprintln!("skipped: apt-get is not installed");
            return None;
        }
        // apt fetches as its own user where it is root, which must be able to read what lies here.
        let dir = tempfile::Builder::new().prefix("artel-apt").tempdir().unwrap();
        for folder in ["state/lists/partial", "cache/archives/partial", "etc/sources.list.d", "log"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let root = dir.path().display();
        fs::write(dir.path().join("state/status"), "").unwrap();
        fs::copy(public.join("archive-key.gpg"), dir.path().join("key.gpg")).unwrap();
        fs::write(
            dir.path().join("etc/sources.list"),
            format!("deb [signed-by={root}/key.gpg] file://{} main main\n", public.display()),
        )
        .unwrap();
        fs::write(
            dir.path().join("apt.conf"),
            format!(
                "Dir::State \"{root}/state\";\nDir::State::status \"{root}/state/status\";\nDir::Cache \"{root}/cache\";\n\
                 Dir::Etc \"{root}/etc\";\nDir::Log \"{root}/log\";\nDir::Etc::trustedparts \"{root}/none\";\n\
                 APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\nAPT::Sandbox::User \"root\";\n\
                 Acquire::Languages \"none\";\nDebug::NoLocking \"true\";\nAPT::Update::Error-Mode \"any\";\n"
            ),
        )
        .unwrap();
        Some(Self { dir })
    }

    /// As [`Client::new`], for whoever has only this certificate.
    fn knowing(repository: &Repository, key: &RepositoryKey) -> Option<Self> {
        let client = Self::new(repository)?;
        fs::write(client.dir.path().join("key.gpg"), key.public_binary().unwrap()).unwrap();
        Some(client)
    }

    /// Says whether it installs a package, and what apt said.
    fn installs(&self, package: &str) -> (bool, String) {
        let (updated, said) = self.run(&["update"]);
        let (there, more) = self.run(&["-y", "install", "--download-only", package]);
        (updated && there, said + &more)
    }

    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new("apt-get");
        command.env("APT_CONFIG", self.dir.path().join("apt.conf")).env("LC_ALL", "C").args(arguments);
        let out = command.output().unwrap();
        let said = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8_lossy(&said).into_owned())
    }
}

/// Signatures must be of now for a client that looks at its own clock; the test reads the time from a file it writes.
fn now() -> Timestamp {
    let file = tempfile::NamedTempFile::new().unwrap();
    let modified = fs::metadata(file.path()).unwrap().modified().unwrap();
    let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap())
}

#[test]
fn the_real_apt_installs_the_newest_version_and_refuses_what_was_changed() {
    let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut repository = repository(dir.path());
    let at = now();
    repository.publish(&[addition(debs.path(), ("tiny", "1", "amd64"), "a")], at, 1).unwrap();
    let newest = addition(debs.path(), ("tiny", "1:0.5", "amd64"), "a");
    repository.publish(std::slice::from_ref(&newest), at, 2).unwrap();
    let Some(client) = Client::new(&repository) else { return };
    let (ok, said) = client.run(&["update"]);
    assert!(ok, "{said}");
    let (ok, said) = client.run(&["-y", "install", "--download-only", "tiny"]);
    assert!(ok, "{said}");
    let (ok, said) = client.run(&["-y", "-q", "-q", "install", "--print-uris", "--reinstall", "tiny=1:0.5"]);
    assert!(ok && said.contains("tiny_0.5_amd64.deb"), "{said}");
    assert!(!client.run(&["-y", "install", "--download-only", "tiny=1"]).0, "the old version left the index");

    let in_release = repository.root().join("dists/main/InRelease");
    let good = fs::read_to_string(&in_release).unwrap();
    fs::write(&in_release, good.replace("Origin: artel test", "Origin: other test")).unwrap();
    let (ok, said) = Client::new(&repository).unwrap().run(&["update"]);
    assert!(!ok && (said.contains("BADSIG") || said.contains("invalid")), "{said}");

    fs::write(&in_release, &good).unwrap();
    let index = fs::read_dir(repository.root().join("dists/main/main/binary-amd64/by-hash/SHA256")).unwrap();
    for file in index {
        fs::write(file.unwrap().path(), "changed").unwrap();
    }
    for name in ["Packages", "Packages.gz", "Packages.xz"] {
        fs::write(repository.root().join("dists/main/main/binary-amd64").join(name), "changed").unwrap();
    }
    assert!(!Client::new(&repository).unwrap().run(&["update"]).0, "a changed index is refused");
}

#[test]
fn the_real_apt_refuses_an_expired_release_and_another_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut repository = repository(dir.path());
    let long_ago = Timestamp::from_millis(now().as_millis() - 30 * 24 * 3600 * 1000);
    repository.publish(&[], long_ago, 1).unwrap();
    let Some(client) = Client::new(&repository) else { return };
    let (ok, said) = client.run(&["update"]);
    assert!(!ok && said.contains("expired"), "{said}");
    repository.resign(now(), 2).unwrap();
    let (ok, said) = client.run(&["update"]);
    assert!(ok, "{said}");
    let other = crate::publish::sign::RepositoryKey::from_seed("other", Timestamp::ZERO, [8; 32]).unwrap();
    fs::write(client.dir.path().join("key.gpg"), other.public_binary().unwrap()).unwrap();
    fs::remove_dir_all(client.dir.path().join("state/lists")).unwrap();
    fs::create_dir_all(client.dir.path().join("state/lists/partial")).unwrap();
    let (ok, said) = client.run(&["update"]);
    assert!(!ok && said.contains("NO_PUBKEY"), "{said}");
}

/// Gives a release of a generation, and whatever it names.
fn released(published: &Published, term: u64) -> (Verified<Release>, Vec<u8>) {
    let manifest = published.manifest.to_bytes();
    let (channel, generation) = (ChannelName::new("main").unwrap(), published.generation);
    let release = Release { at: published.at, term: Term(term), channel, manifest: Hash::of(&manifest), generation };
    (Signed::sign(&release, None, &[&signing_key(1)]).verify(None).unwrap(), manifest)
}

#[test]
fn the_real_apt_goes_on_after_a_change_of_the_coordinator_without_a_change_of_its_own() {
    let (a, b, m) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let debs = tempfile::tempdir().unwrap();
    let (mut first, mut second) = (repository_of(a.path(), 1), repository_of(b.path(), 2));
    let certificates = [key_of(1), key_of(2)].map(|key| key.certificate().unwrap());
    first.trust(certificates.clone()).unwrap();
    let one = first.publish(&[addition(debs.path(), ("tiny", "1", "amd64"), "a")], now(), 1).unwrap();
    let mut mirror = follow::Mirror::open(m.path(), ChannelName::new("main").unwrap(), 1 << 20).unwrap();
    let apply = |mirror: &mut follow::Mirror, published: &Published, term| {
        let (release, manifest) = released(published, term);
        let root = published.root.clone();
        let mut fetch = |f: &ReleaseFile| -> std::io::Result<Box<dyn std::io::Read>> {
            Ok(Box::new(File::open(root.join(f.path.as_str()))?))
        };
        mirror.apply(&release, &manifest, now(), &mut fetch).unwrap();
    };
    apply(&mut mirror, &one, 1);
    let Some(client) = Client::at(&mirror.root()) else { return };
    let (ok, said) = client.run(&["update"]);
    assert!(ok, "{said}");
    let (release, manifest) = released(&one, 1);
    let mut fetch = |f: &ReleaseFile| -> std::io::Result<Box<dyn std::io::Read>> {
        Ok(Box::new(File::open(one.root.join(f.path.as_str()))?))
    };
    second.adopt(release.get(), &manifest, &mut fetch).unwrap();
    drop(first);
    second.trust(certificates).unwrap();
    let two = second.publish(&[addition(debs.path(), ("other", "1", "amd64"), "a")], now(), 2).unwrap();
    apply(&mut mirror, &two, 2);
    let (ok, said) = client.run(&["update"]);
    assert!(ok && !said.contains("NO_PUBKEY"), "{said}");
    let (ok, said) = client.run(&["-y", "install", "--download-only", "tiny", "other"]);
    assert!(ok && said.contains("tiny") && said.contains("other"), "{said}");
}

#[test]
fn the_real_apt_knows_one_key_or_the_other_while_the_key_changes() {
    let (dir, debs, m) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut repository = repository_of(dir.path(), 1);
    let mut mirror = follow::Mirror::open(m.path(), ChannelName::new("main").unwrap(), 1 << 20).unwrap();
    let mut judged = |repository: &Repository| {
        let published = repository.published().unwrap();
        let open = |file: &ReleaseFile| fs::read(published.root.join(file.path.as_str()));
        follow::covered::signatures::check(&published.manifest, &mut |file| open(file)).unwrap();
        let (release, manifest) = released(&published, 1);
        let root = published.root.clone();
        let mut fetch = |f: &ReleaseFile| -> std::io::Result<Box<dyn std::io::Read>> {
            Ok(Box::new(File::open(root.join(f.path.as_str()))?))
        };
        mirror.apply(&release, &manifest, now(), &mut fetch).unwrap();
        let clients = [1, 2, 3].map(|seed| Client::knowing(repository, &key_of(seed)));
        clients.map(|client| client.map(|client| client.installs("tiny")))
    };
    let said = |judged: &[Option<(bool, String)>; 3]| judged.clone().map(|told| told.is_none_or(|(good, _)| good));
    let there = |judged: &[Option<(bool, String)>; 3]| judged.iter().all(Option::is_some);

    repository.publish(&[addition(debs.path(), ("tiny", "1", "amd64"), "a")], now(), 1).unwrap();
    let before = judged(&repository);
    if !there(&before) {
        return;
    }
    assert_eq!(said(&before), [true, false, false], "before: {before:?}");

    repository.sign_with(Keys::Two { old: key_of(1), new: key_of(2), until: now() });
    repository.trust([]).unwrap();
    assert!(repository.needs_keyring());
    repository.resign(now(), 2).unwrap();
    let during = judged(&repository);
    assert_eq!(said(&during), [true, true, false], "during: {during:?}");

    repository.sign_with(key_of(2).into());
    repository.trust([]).unwrap();
    assert!(repository.needs_keyring());
    repository.resign(now(), 3).unwrap();
    let after = judged(&repository);
    assert_eq!(said(&after), [false, true, false], "after: {after:?}");
}
