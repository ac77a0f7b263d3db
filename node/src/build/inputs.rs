//! Inputs of an attempt: each file's size and SHA-256 is checked while it is copied to where the build will read it, so
//! what was checked is what is used. It does not fetch.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use protocol::{
    Sha256,
    environment::LockedPackage,
    job::{InputFile, SourceFile},
};
use sha2::Digest;
use tokio_util::sync::CancellationToken;

use super::sandbox::rig::Rig;

const PIECE: usize = 1024 * 1024;

/// A file as the request or the lock names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::build) struct Wanted {
    name: String,
    size: u64,
    sha256: Sha256,
}

impl Wanted {
    pub(in crate::build) fn package(package: &LockedPackage) -> Self {
        Self { name: package.file.to_string(), size: package.size, sha256: package.sha256 }
    }

    pub(in crate::build) fn source(file: &SourceFile) -> Self {
        Self { name: file.name.to_string(), size: file.size, sha256: file.sha256 }
    }

    pub(in crate::build) fn input(file: &InputFile) -> Self {
        Self::at(file, file.path.as_str())
    }

    /// An input file that lies at another path than the one that its job gives it.
    pub(in crate::build) fn at(file: &InputFile, path: &str) -> Self {
        Self { name: path.to_owned(), size: file.size, sha256: file.sha256 }
    }

    /// The same file in a folder.
    pub(in crate::build) fn below(self, folder: &str) -> Self {
        Self { name: format!("{folder}/{}", self.name), ..self }
    }
}

/// Why an input was not taken.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Its bytes are not what the request names.
    #[error("tampered {name}: sha256 is {got}, the signed request names {wanted}")]
    Tampered {
        /// The file.
        name: String,
        /// What the request or lock names.
        wanted: Sha256,
        /// What came.
        got: Sha256,
    },
    /// Its size is not what the request names.
    #[error("tampered {name}: {got} bytes, the signed request names {wanted}")]
    Size {
        /// The file.
        name: String,
        /// What the request or lock names, in bytes.
        wanted: u64,
        /// What came, in bytes.
        got: u64,
    },
    /// It was not fetched.
    #[error("{name} was not fetched")]
    Missing {
        /// The file.
        name: String,
    },
    /// The disk does not do its part.
    #[error("cannot copy {name}")]
    Copy {
        /// The file.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// From where to where files are copied, for whom, and which time they get.
#[derive(Debug, Clone)]
pub(in crate::build) struct Placing {
    /// The folder that holds the files.
    pub(in crate::build) from: PathBuf,
    /// The new folder.
    pub(in crate::build) to: PathBuf,
    /// The files' time, in seconds since 1970.
    pub(in crate::build) epoch: u64,
    /// Whose account gets them.
    pub(in crate::build) rig: Arc<Rig>,
}

/// Copies the wanted files, checked.
pub(in crate::build) async fn place(wanted: Vec<Wanted>, placing: Placing) -> Result<(), InputError> {
    place_until(wanted, placing, CancellationToken::new()).await
}

/// Copies the wanted files, checked; fails soon after `halt` is cancelled.
pub(in crate::build) async fn place_until(
    wanted: Vec<Wanted>,
    placing: Placing,
    halt: CancellationToken,
) -> Result<(), InputError> {
    let folder = placing.to.display().to_string();
    let failed = move |source| InputError::Copy { name: folder.clone(), source };
    let on_disk = failed.clone();
    let work = tokio::task::spawn_blocking(move || {
        fs::create_dir_all(&placing.to).map_err(&on_disk)?;
        wanted.iter().try_for_each(|file| place_one(file, &placing, &halt))?;
        hand_over(&placing).map_err(&on_disk)
    });
    work.await.map_err(|error| failed(io::Error::other(error)))?
}

/// Makes everything readable, whatever this process's umask is, and gives it to the account.
fn hand_over(placing: &Placing) -> io::Result<()> {
    for entry in walkdir::WalkDir::new(&placing.to) {
        let entry = entry.map_err(io::Error::other)?;
        let mode = if entry.file_type().is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode))?;
        placing.rig.give(entry.path())?;
    }
    Ok(())
}

fn place_one(wanted: &Wanted, placing: &Placing, halt: &CancellationToken) -> Result<(), InputError> {
    let name = || wanted.name.clone();
    let copy = |source: io::Error| {
        let missing = source.kind() == io::ErrorKind::NotFound;
        if missing { InputError::Missing { name: name() } } else { InputError::Copy { name: name(), source } }
    };
    let mut source = File::open(placing.from.join(&wanted.name)).map_err(copy)?;
    let got = source.metadata().map_err(copy)?.len();
    if got != wanted.size {
        return Err(InputError::Size { name: name(), wanted: wanted.size, got });
    }
    let into = placing.to.join(&wanted.name);
    if let Some(parent) = into.parent() {
        fs::create_dir_all(parent).map_err(copy)?;
    }
    let mut target = File::create_new(&into).map_err(copy)?;
    let mut digest = sha2::Sha256::new();
    let mut buffer = vec![0; PIECE];
    loop {
        if halt.is_cancelled() {
            return Err(copy(io::ErrorKind::Interrupted.into()));
        }
        let read = source.read(&mut buffer).map_err(copy)?;
        if read == 0 {
            break;
        }
        digest.update(&buffer[..read]);
        target.write_all(&buffer[..read]).map_err(copy)?;
    }
    let got = Sha256::from_bytes(digest.finalize().into());
    if got != wanted.sha256 {
        return Err(InputError::Tampered { name: name(), wanted: wanted.sha256, got });
    }
    target.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(placing.epoch)).map_err(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(name: &str, content: &[u8], size: u64) -> Result<(), InputError> {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("a"), content).unwrap();
        let wanted = Wanted { name: name.into(), size, sha256: Sha256::of(b"artel") };
        let rig = Arc::new(Rig::of_own_user());
        place(vec![wanted], Placing { from: from.path().into(), to: to.path().join("in"), epoch: 7, rig }).await
    }

    #[tokio::test]
    async fn only_the_named_bytes_pass() {
        check("a", b"artel", 5).await.unwrap();
        assert!(matches!(check("a", b"artef", 5).await, Err(InputError::Tampered { .. })));
        assert!(matches!(check("a", b"artel and more", 5).await, Err(InputError::Size { .. })));
        assert!(matches!(check("b", b"artel", 5).await, Err(InputError::Missing { .. })));
    }
}
