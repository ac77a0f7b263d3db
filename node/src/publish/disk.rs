//! Files that survive a crash: written beside their place, synced, renamed, and the folder synced.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use protocol::{Hash, Sha256};
use sha2::Digest as _;

use crate::resolve::digest::Digest;

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}")]
pub struct Error {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Adds operation and path to an I/O error.
pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error { what, path, source }
}

/// Holds a folder's lock file while it lives; the kernel frees it when the process dies.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, or says that somebody has it.
    pub(super) fn take(path: &Path) -> Result<Option<Self>, Error> {
        let file = File::options().create(true).append(true).open(path).map_err(failed("open", path))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(failed("lock", path)(error.into())),
        }
    }
}

/// Creates a folder and what leads to it.
pub(super) fn create_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(failed("create", path))
}

/// Writes bytes to a place through a temporary folder on the same disk.
pub(super) fn write(temporary: &Path, place: &Path, bytes: &[u8]) -> Result<(), Error> {
    let from = temporary.join("writing");
    let mut file = File::create(&from).map_err(failed("create", &from))?;
    file.write_all(bytes).map_err(failed("write", &from))?;
    file.sync_all().map_err(failed("sync", &from))?;
    rename(&from, place)
}

/// Moves a synced file to its place and syncs the folder.
pub(super) fn rename(from: &Path, place: &Path) -> Result<(), Error> {
    let folder = place.parent().unwrap_or(Path::new("."));
    create_folder(folder)?;
    fs::rename(from, place).map_err(failed("rename to", place))?;
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(failed("sync", folder))
}

/// Copies at most `limit` bytes from a reader to a new file, synced, and names what it copied.
pub(super) fn copy(from: &mut dyn Read, to: &Path, limit: u64) -> Result<Digest, Error> {
    let mut file = File::create(to).map_err(failed("create", to))?;
    let (mut blake3, mut sha256) = (blake3::Hasher::new(), sha2::Sha256::new());
    let (mut buffer, mut size) = (vec![0; 1 << 17], 0u64);
    loop {
        let count = from.read(&mut buffer).map_err(failed("read what goes to", to))?;
        if count == 0 {
            break;
        }
        size += count as u64;
        if size > limit {
            let error = io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {limit} bytes"));
            return Err(failed("write", to)(error));
        }
        blake3.update(&buffer[..count]);
        sha256.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(failed("write", to))?;
    }
    file.sync_all().map_err(failed("sync", to))?;
    let hash = Hash::from_bytes(*blake3.finalize().as_bytes());
    Ok(Digest { hash, sha256: Sha256::from_bytes(sha256.finalize().into()), size })
}

/// Removes a file; one that is gone already is as good.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes empty folders upwards from a file that was removed, up to but not including `root`.
pub(super) fn remove_empty_folders(root: &Path, file: &Path) {
    let mut folder = file.parent();
    while let Some(path) = folder.filter(|p| *p != root && p.starts_with(root)) {
        if fs::remove_dir(path).is_err() {
            return;
        }
        folder = path.parent();
    }
}

/// Gives a file's size, where it is a plain file.
pub(super) fn size_of(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file).map(|m| m.len())
}

/// Writes a record with its own hash in front, so that a torn or changed one is noticed.
pub(super) fn write_sealed(temporary: &Path, place: &Path, record: &[u8]) -> Result<(), Error> {
    let mut bytes = Hash::of(record).as_bytes().to_vec();
    bytes.extend_from_slice(record);
    write(temporary, place, &bytes)
}

/// Reads a sealed record; `None` where there is no file.
pub(super) fn read_sealed(place: &Path) -> Result<Option<Vec<u8>>, Error> {
    let bytes = match fs::read(place) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", place)(error)),
    };
    match bytes.split_at_checked(32) {
        Some((seal, record)) if Hash::of(record).as_bytes()[..] == *seal => Ok(Some(record.to_vec())),
        _ => Err(failed("believe", place)(io::Error::new(io::ErrorKind::InvalidData, "its own hash does not match"))),
    }
}
