//! The bytes of a generation: indexes, Release, signatures, manifest. A pure function of state and key.

use std::io::Write;

use jiff::tz::TimeZone;
use protocol::{
    Arch, Timestamp,
    release::{Manifest, ReleaseFile},
    words::RelativePath,
};

use super::{
    Error, dominate,
    state::{Pooled, State},
};
use crate::{
    publish::{
        rpm::metadata,
        sign::{keyring::Keyring, keys::Keys},
    },
    resolve::digest::Digest,
};

/// Where the keys of everybody who may publish lie, in the form that `Signed-By` takes.
pub(crate) const KEYRING: &str = "archive-key.gpg";
/// The same, armored.
pub(in crate::publish) const KEYRING_ARMORED: &str = "archive-key.asc";

/// When a file is written: nothing may be named before it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::publish) enum Stage {
    /// Packages, evidence, keys: nothing changes when they appear.
    Pool,
    /// Indexes under their hash.
    ByHash,
    /// Indexes under their name.
    Named,
    /// `Release.gpg`.
    Signature,
    /// `Release`.
    Release,
    /// `InRelease`, and `repomd.xml` with its signature: with them the generation is there.
    InRelease,
}

/// Says when a file of a repository is written.
pub(in crate::publish) fn stage(path: &RelativePath) -> Stage {
    let text = path.as_str();
    match text {
        // Nothing can switch these two at once; right after each other is as near as it gets.
        metadata::REPOMD | metadata::SIGNATURE => return Stage::InRelease,
        _ if text.starts_with(metadata::FOLDER) => return Stage::ByHash,
        _ => {}
    }
    if !text.starts_with("dists/") {
        return Stage::Pool;
    }
    match text.rsplit('/').next() {
        Some("InRelease") => Stage::InRelease,
        Some("Release") => Stage::Release,
        Some("Release.gpg") => Stage::Signature,
        Some(_) | None if text.contains("/by-hash/") => Stage::ByHash,
        Some(_) | None => Stage::Named,
    }
}

/// One generated file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) path: RelativePath,
    pub(super) bytes: Vec<u8>,
}

/// Generates every file of a generation beside the pool's, in the order in which they are written.
pub(super) fn generate(state: &State, keys: &Keys, keyring: &Keyring) -> Result<Vec<Output>, Error> {
    let dists = format!("dists/{}", state.settings.codename);
    let mut outputs = vec![
        output(KEYRING.into(), keyring.to_bytes()),
        output(KEYRING_ARMORED.into(), keyring.armored()?.into_bytes()),
    ];
    let mut sums = String::new();
    for arch in &state.settings.arches {
        let folder = format!("main/binary-{arch}");
        let plain = packages(&dominate::index(&state.packages, *arch));
        let files = [("Packages.gz", gzip(&plain)), ("Packages.xz", xz(&plain)), ("Packages", plain)];
        for (name, bytes) in files {
            let digest = Digest::of(&bytes);
            sums += &format!(" {} {:>8} {folder}/{name}\n", digest.sha256, digest.size);
            outputs.push(output(format!("{dists}/{folder}/by-hash/SHA256/{}", digest.sha256), bytes.clone()));
            outputs.push(output(format!("{dists}/{folder}/{name}"), bytes));
        }
    }
    let release = format!("{}SHA256:\n{sums}", release_head(state)?);
    let clear = keys.sign_clear(&release, state.at)?;
    outputs
        .push(output(format!("{dists}/Release.gpg"), keys.sign_detached(release.as_bytes(), state.at)?.into_bytes()));
    outputs.push(output(format!("{dists}/Release"), release.into_bytes()));
    outputs.push(output(format!("{dists}/InRelease"), clear.into_bytes()));
    outputs.extend(repodata(state, keys)?);
    outputs.sort_by(|a, b| (stage(&a.path), &a.path).cmp(&(stage(&b.path), &b.path)));
    // Two architectures with the same (for instance empty) index share nothing, but one architecture's never repeats.
    outputs.dedup_by(|a, b| a.path == b.path);
    Ok(outputs)
}

/// Generates what dnf reads, where there are RPMs or dnf was told of some before.
fn repodata(state: &State, keys: &Keys) -> Result<Vec<Output>, Error> {
    let entries: Vec<_> = state.packages.iter().filter_map(|p| p.rpm.as_ref()).collect();
    if entries.is_empty() && !state.written.iter().any(|f| f.path.as_str() == metadata::REPOMD) {
        return Ok(Vec::new());
    }
    let mut files = metadata::generate(&entries, state.at);
    let (_, repomd) = files.last().expect("repomd.xml is always written");
    files.push((metadata::SIGNATURE.to_owned(), keys.sign_detached(repomd, state.at)?.into_bytes()));
    Ok(files.into_iter().map(|(path, bytes)| output(path, bytes)).collect())
}

/// Names generated files by their hashes.
pub(super) fn digests(outputs: &[Output]) -> Vec<ReleaseFile> {
    let digest = |output: &Output| {
        let Digest { hash, sha256, size } = Digest::of(&output.bytes);
        ReleaseFile { hash, path: output.path.clone(), size, sha256 }
    };
    outputs.iter().map(digest).collect()
}

/// Lists every file of a generation with its hashes, and every package with its evidence.
pub(super) fn manifest(state: &State, written: &[ReleaseFile]) -> Manifest {
    let pooled = state.packages.iter().flat_map(Pooled::files).cloned();
    let mut files: Vec<_> = written.iter().cloned().chain(pooled).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut packages: Vec<_> = state.packages.iter().map(Pooled::published).collect();
    packages.sort_by(|a, b| a.path.cmp(&b.path));
    Manifest { files, packages }
}

fn output(path: String, bytes: Vec<u8>) -> Output {
    Output { path: RelativePath::new(path).expect("made of checked words"), bytes }
}

/// Writes the Packages file: each control file as it is, and where the `.deb` lies.
fn packages(listed: &[&Pooled]) -> Vec<u8> {
    let mut text = String::new();
    for package in listed.iter().filter(|p| p.rpm.is_none()) {
        let ReleaseFile { path, size, sha256, .. } = &package.file;
        text += &format!("{}Filename: {path}\nSize: {size}\nSHA256: {sha256}\n\n", package.control);
    }
    text.into_bytes()
}

fn release_head(state: &State) -> Result<String, Error> {
    let settings = &state.settings;
    let end = state.at.after(std::time::Duration::from_secs(settings.valid_secs.into()));
    let arches = settings.arches.iter().map(|a: &Arch| a.name()).collect::<Vec<_>>().join(" ");
    Ok(format!(
        "Origin: {}\nLabel: {}\nSuite: {}\nCodename: {}\nDate: {}\nValid-Until: {}\nAcquire-By-Hash: yes\n\
         No-Support-for-Architecture-all: Packages\nArchitectures: {arches}\nComponents: main\n\
         Description: {} {}, generation {}\n",
        settings.origin,
        settings.label,
        settings.suite,
        settings.codename,
        date(state.at)?,
        date(end)?,
        settings.label,
        settings.codename,
        state.generation,
    ))
}

fn date(at: Timestamp) -> Result<String, Error> {
    let seconds = i64::try_from(at.as_secs()).ok();
    let instant = seconds.and_then(|s| jiff::Timestamp::from_second(s).ok()).ok_or(Error::Date { at })?;
    Ok(instant.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S UTC").to_string())
}

pub(in crate::publish) fn gzip(bytes: &[u8]) -> Vec<u8> {
    // No name, no time, a fixed system byte: only the content decides.
    let builder = flate2::GzBuilder::new().mtime(0).operating_system(255);
    let mut encoder = builder.write(Vec::new(), flate2::Compression::new(9));
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes every write")
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes every write")
}
