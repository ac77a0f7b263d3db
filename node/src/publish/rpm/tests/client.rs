//! A repository as the real dnf sees it, by a file URL: `dnf --installroot` with `gpgcheck=1 repo_gpgcheck=1`.

use std::process::Output;

use super::*;
use crate::publish::sign::keys::Keys;

/// Installs from a repository's folder into a fresh root.
fn dnf(root: &Path, into: &Path, key: &Path) -> Output {
    let mut command = Command::new("dnf");
    command.args(["-y", "--noplugins", "--releasever=1", "--setopt=reposdir=/nonexistent", "--repo=artel"]);
    command.arg(format!("--installroot={}", into.display()));
    command.arg(format!("--setopt=cachedir={}", into.join("cache").display()));
    command.arg(format!("--repofrompath=artel,file://{}/", root.display()));
    command.args(["--setopt=artel.gpgcheck=1", "--setopt=artel.repo_gpgcheck=1"]);
    command.arg(format!("--setopt=artel.gpgkey=file://{}", key.display()));
    command.args(["install", "Artel-answer-doc"]).output().unwrap()
}

fn words(output: &Output) -> String {
    [output.stdout.as_slice(), &output.stderr].map(String::from_utf8_lossy).concat()
}

#[test]
fn dnf_installs_what_is_signed_and_refuses_what_was_changed() {
    if Command::new("dnf").arg("--version").output().is_err() || !rustix::process::getuid().is_root() {
        eprintln!("skipped: dnf is not installed, or this is no root, who alone can install into a root of its own");
        return;
    }
    let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut repository = repository(dir.path());
    repository.trust([key_of(8).certificate().unwrap()]).unwrap();
    let published = repository.publish(&[rpm(debs.path())], AT, 1).unwrap();
    let (root, key) = (&published.root, published.root.join("archive-key.asc"));
    let attempt = || {
        let into = tempfile::tempdir().unwrap();
        let output = dnf(root, into.path(), &key);
        (output.status.success(), into.path().join("usr/share/doc/Artel-answer/answer.c").exists(), words(&output))
    };
    let (good, there, said) = attempt();
    assert!(good && there, "{said}");

    let repomd = root.join("repodata/repomd.xml");
    let honest = fs::read_to_string(&repomd).unwrap();
    fs::write(&repomd, honest.replace("<revision>", "<revision>1")).unwrap();
    let (good, there, said) = attempt();
    assert!(!good && !there && said.contains("GPG"), "a changed repomd.xml: {said}");
    fs::write(&repomd, &honest).unwrap();
    let signature = root.join("repodata/repomd.xml.asc");
    let kept = fs::read(&signature).unwrap();
    fs::remove_file(&signature).unwrap();
    assert!(!attempt().0, "a repomd.xml without signature");
    fs::write(&signature, kept).unwrap();

    // The whole metadata is signed and right, but the package in it is not signed.
    let unsigned = debs.path().join(NAME);
    fs::write(&unsigned, UNSIGNED).unwrap();
    let described = package::inspect(&unsigned, &file(NAME), &[]).unwrap();
    let of = ReleaseFile {
        hash: Hash::of(UNSIGNED),
        path: POOL.parse().unwrap(),
        size: UNSIGNED.len() as u64,
        sha256: Sha256::of(UNSIGNED),
    };
    let entry = described.entry(of.sha256, &of);
    let generated = metadata::generate(&[&entry], AT);
    for (path, bytes) in &generated {
        fs::write(root.join(path), bytes).unwrap();
    }
    let (_, repomd) = generated.last().unwrap();
    fs::write(signature, super::key().sign_detached(repomd, AT).unwrap()).unwrap();
    fs::write(root.join(POOL), UNSIGNED).unwrap();
    let (good, there, said) = attempt();
    assert!(!good && !there && said.contains("not signed"), "an unsigned package: {said}");
}

/// The headers are the old key's until the change ends, so who has only the new one must wait for that; the metadata is both's.
#[test]
fn dnf_knows_the_old_key_while_it_changes_and_the_new_one_after() {
    if Command::new("dnf").arg("--version").output().is_err() || !rustix::process::getuid().is_root() {
        eprintln!("skipped: dnf is not installed, or this is no root, who alone can install into a root of its own");
        return;
    }
    let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut repository = repository_of(dir.path(), 1);
    repository.publish(&[rpm(debs.path())], AT, 1).unwrap();
    let judged = |root: &Path| {
        [1, 2, 3].map(|seed| {
            let (into, key) = (tempfile::tempdir().unwrap(), debs.path().join(format!("{seed}.asc")));
            fs::write(&key, Keyring::new([key_of(seed).certificate().unwrap()]).armored().unwrap()).unwrap();
            let output = dnf(root, into.path(), &key);
            let there = into.path().join("usr/share/doc/Artel-answer/answer.c").exists();
            assert_eq!(output.status.success(), there);
            (there, words(&output))
        })
    };
    let root = repository.root();
    repository.sign_with(Keys::Two { old: key_of(1), new: key_of(2), until: AT });
    repository.trust([]).unwrap();
    let published = repository.resign(AT, 2).unwrap();
    check(&published.manifest, &published.root, Rpms::new()).unwrap();
    let during = judged(&root);
    assert_eq!([during[0].0, during[1].0, during[2].0], [true, false, false], "{during:?}");
    assert!(
        during[1].1.contains("is not correct for this package") || during[1].1.contains("is not installed"),
        "{during:?}"
    );
    assert!(during[2].1.contains("repomd.xml GPG signature verification error"), "{during:?}");

    repository.sign_with(key_of(2).into());
    repository.trust([]).unwrap();
    let published = repository.resign(AT, 3).unwrap();
    check(&published.manifest, &published.root, Rpms::new()).unwrap();
    let after = judged(&root);
    assert_eq!([after[0].0, after[1].0, after[2].0], [false, true, false], "{after:?}");
}
