//! RPMs of a repository, beside its apt packages: at the door, signed, and in `repodata` for dnf.
//!
//! ```text
//!  attested .rpm -> sign the header -> read it back -> pool -> primary, filelists, other -> repomd.xml, repomd.xml.asc
//! ```
//! What builders attest is unsigned; the signature that the publisher adds is a function of package and key, and taking it out
//! gives the attested bytes again ([`attest::rpm`]). The metadata is a function of the signed packages and the time, so whoever has
//! them can write it again and compare.

pub(in crate::publish) mod metadata;
pub(in crate::publish) mod package;
pub mod version;

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use attest::rpm as form;
use protocol::{FileName, Sha256};
use sha2::Digest as _;

use super::{
    disk,
    incoming::Error,
    sign::{RepositoryKey, check, keyring::Keyring},
};
use crate::resolve::digest::Digest;

/// What an RPM's file name ends with.
pub const SUFFIX: &str = ".rpm";

/// Says whether a file is a source RPM, by its name: those are compared and kept with their job, and enter no repository.
pub fn is_source(name: &str) -> bool {
    name.ends_with(".src.rpm")
}

/// Reads lead and headers of an RPM, never more.
fn read_front(rpm: &mut File, file: &FileName) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    loop {
        let wanted = form::front_size(&bytes).map_err(|e| refused(file, &e))?;
        let missing = wanted.saturating_sub(bytes.len());
        if missing == 0 {
            return Ok(bytes);
        }
        let read = rpm.take(missing as u64).read_to_end(&mut bytes).map_err(|source| unreadable(file, source))?;
        if read < missing {
            return Err(unreadable(file, io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Signs the header of an RPM that lies at `from` and writes the signed file to `to`. The same package and key give the same
/// bytes.
///
/// # Errors
/// When the file is no RPM as rpmbuild writes it, is signed already, or a file operation fails.
pub(in crate::publish) fn sign(
    (from, to): (&Path, &Path),
    file: &FileName,
    key: &RepositoryKey,
) -> Result<Digest, super::apt::Error> {
    let mut rpm = File::open(from).map_err(disk::failed("open", from))?;
    let bytes = read_front(&mut rpm, file)?;
    let front = form::front(&bytes).map_err(|e| refused(file, &e))?;
    let signature = key.sign_packet(&bytes[front.begin..front.end])?;
    let signed = form::sign(&bytes, &signature).map_err(|e| refused(file, &e))?;
    rpm.seek(SeekFrom::Start(signed.instead_of as u64)).map_err(disk::failed("read", from))?;
    Ok(disk::copy(&mut signed.bytes.as_slice().chain(rpm), to, u64::MAX)?)
}

/// As [`sign`], for a file that somebody signed before: that signature comes off first.
///
/// # Errors
/// As [`sign`].
pub(in crate::publish) fn sign_anew(
    (from, to): (&Path, &Path),
    file: &FileName,
    key: &RepositoryKey,
) -> Result<Digest, super::apt::Error> {
    let mut rpm = File::open(from).map_err(disk::failed("open", from))?;
    let bytes = read_front(&mut rpm, file)?;
    let unsigned = form::unsigned(&bytes).map_err(|e| refused(file, &e))?;
    let plain = to.with_extension("unsigned");
    rpm.seek(SeekFrom::Start(unsigned.instead_of as u64)).map_err(disk::failed("read", from))?;
    disk::copy(&mut unsigned.bytes.as_slice().chain(rpm), &plain, u64::MAX)?;
    let digest = sign((&plain, to), file, key)?;
    disk::remove(&plain)?;
    Ok(digest)
}

/// Checks that an RPM has one signature, of its header, by a key of the keyring; gives that key's fingerprint.
///
/// # Errors
/// When it is no RPM as rpmbuild writes it, or the signature does not hold.
pub(in crate::publish) fn check_signature(path: &Path, file: &FileName, keyring: &Keyring) -> Result<String, Error> {
    let mut rpm = File::open(path).map_err(|source| unreadable(file, source))?;
    let bytes = read_front(&mut rpm, file)?;
    let front = form::front(&bytes).map_err(|e| refused(file, &e))?;
    let packet = form::signature(&bytes).map_err(|e| refused(file, &e))?;
    let signer = check::packet(keyring, "its header", &packet, &bytes[front.begin..front.end]);
    signer.map_err(|error| Error::Container { file: file.clone(), why: error.to_string() })
}

/// Gives the SHA-256 that builders attested, of a file that may have been signed since.
///
/// # Errors
/// When the file is no RPM as rpmbuild writes it, or cannot be read.
pub(crate) fn attested(path: &Path, file: &FileName) -> Result<Sha256, Error> {
    let broken = |source| unreadable(file, source);
    let mut rpm = File::open(path).map_err(broken)?;
    let bytes = read_front(&mut rpm, file)?;
    let unsigned = form::unsigned(&bytes).map_err(|e| refused(file, &e))?;
    rpm.seek(SeekFrom::Start(unsigned.instead_of as u64)).map_err(broken)?;
    let (mut hasher, mut buffer) = (sha2::Sha256::new_with_prefix(&unsigned.bytes), vec![0; 1 << 17]);
    loop {
        match rpm.read(&mut buffer).map_err(broken)? {
            0 => return Ok(Sha256::from_bytes(hasher.finalize().into())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

fn refused(file: &FileName, error: &form::Error) -> Error {
    Error::Container { file: file.clone(), why: error.to_string() }
}

fn unreadable(file: &FileName, source: io::Error) -> Error {
    Error::Read { file: file.clone(), what: "the RPM", source }
}

#[cfg(test)]
mod tests;
