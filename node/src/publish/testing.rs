//! Tiny packages and repositories for the tests of this folder.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use protocol::{Arch, FileName, JobId, Sha256, SuiteName, Timestamp, id::Hash};

use super::{
    apt::{Addition, Order, Repository, Settings},
    sign::RepositoryKey,
};

/// The time of the first generation.
pub(crate) const AT: Timestamp = Timestamp::from_millis(1_790_000_000_000);

pub(crate) fn key() -> RepositoryKey {
    key_of(7)
}

/// Gives the key of one of several publishers.
pub(crate) fn key_of(seed: u8) -> RepositoryKey {
    RepositoryKey::from_seed("artel test repository", Timestamp::from_millis(1_780_000_000_000), [seed; 32]).unwrap()
}

pub(crate) fn settings() -> Settings {
    Settings {
        suite: SuiteName::new("stable").unwrap(),
        codename: SuiteName::new("main").unwrap(),
        origin: "artel test".into(),
        label: "artel".into(),
        arches: vec![Arch::Amd64, Arch::Arm64],
        valid_secs: 7 * 24 * 3600,
    }
}

pub(crate) fn repository(dir: &Path) -> Repository {
    Repository::open(dir, settings(), key()).unwrap()
}

/// As [`repository`], with the key of one of several publishers.
pub(crate) fn repository_of(dir: &Path, seed: u8) -> Repository {
    Repository::open(dir, settings(), key_of(seed)).unwrap()
}

/// Writes a tar with one file.
pub(crate) fn tar(path: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, path, content).unwrap();
    builder.into_inner().unwrap()
}

pub(crate) fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes an ar with these members.
pub(crate) fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ar::Builder::new(Vec::new());
    for (name, content) in members {
        builder.append(&ar::Header::new(name.as_bytes().to_vec(), content.len() as u64), *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn control(name: &str, version: &str, arch: &str) -> String {
    format!(
        "Package: {name}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: nobody <nobody@localhost>\n\
         Description: a test\n of nothing\n .\n at all\n"
    )
}

/// Makes a `.deb` that dpkg accepts, with `salt` in its data.
pub(crate) fn deb(control: &str, salt: &str) -> Vec<u8> {
    let (control, data) =
        (gz(&tar("./control", control.as_bytes())), gz(&tar("./usr/share/doc/salt", salt.as_bytes())));
    ar(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &control), ("data.tar.gz", &data)])
}

/// Puts a package into a folder and describes it as an addition.
pub(crate) fn addition(dir: &Path, id: (&str, &str, &str), salt: &str) -> Addition {
    addition_of(dir, id, &deb(&control(id.0, id.1, id.2), salt))
}

/// As [`addition`], with the bytes of a `.deb`.
pub(crate) fn addition_of(dir: &Path, id: (&str, &str, &str), bytes: &[u8]) -> Addition {
    let (name, version, arch) = id;
    let file = FileName::new(format!("{name}_{}_{arch}.deb", version.rsplit(':').next().unwrap())).unwrap();
    let path: PathBuf = dir.join(format!("{}-{file}", Sha256::of(bytes)));
    fs::write(&path, bytes).unwrap();
    Addition {
        path,
        file,
        sha256: Sha256::of(bytes),
        size: bytes.len() as u64,
        job: JobId::from(Hash::of(format!("{name} {version}").as_bytes())),
        bundle: format!("evidence for {name} {version}").into_bytes(),
        staples: vec![],
        order: Order::Upwards,
    }
}

/// Puts an RPM `artel-answer-doc` of a version of eight bytes into a folder: the fixture, written over.
pub(crate) fn rpm(dir: &Path, version: &str) -> Addition {
    assert_eq!(version.len(), 8, "a header's offsets stay");
    let mut bytes = include_bytes!("../../../fixtures/rpm/unsigned.rpm").to_vec();
    for (old, new) in [(b"1.2^git3".as_slice(), version.as_bytes()), (b"Artel-", b"artel-")] {
        let places: Vec<usize> = (0..bytes.len() - old.len()).filter(|at| bytes[*at..].starts_with(old)).collect();
        places.into_iter().for_each(|at| bytes[at..at + old.len()].copy_from_slice(new));
    }
    let file = FileName::new(format!("artel-answer-doc-{version}-1.noarch.rpm")).unwrap();
    let path = dir.join(file.as_str());
    fs::write(&path, &bytes).unwrap();
    Addition {
        path,
        file,
        sha256: Sha256::of(&bytes),
        size: bytes.len() as u64,
        job: JobId::from(Hash::of(version.as_bytes())),
        bundle: format!("evidence for {version}").into_bytes(),
        staples: vec![],
        order: Order::Upwards,
    }
}

/// Gives every file below a folder with its content.
pub(crate) fn tree(root: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    walkdir::WalkDir::new(root)
        .into_iter()
        .map(Result::unwrap)
        .filter(|e| e.file_type().is_file())
        .map(|e| (e.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned(), fs::read(e.path()).unwrap()))
        .collect()
}
