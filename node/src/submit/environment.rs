//! An environment as a job: its lock's packages and nothing else, as an image, so that operators attest that the lock gives one
//! environment. A policy may ask for that before it takes jobs in it.

use std::{fs, path::Path};

use protocol::{
    FileName, Hash, PackageName, Sha256,
    environment::{EnvironmentLock, Family},
    job::{ImageFormat, ImageJob, JobKind, SourceFile},
};

use super::{Error, Prepared, locked_files};
use crate::resolve::{archive::Archive, lock};

/// What an environment's lock ends with, as a file.
pub const SUFFIX: &str = "lock";
/// What installs an image's packages.
const TOOLS: [&str; 2] = ["apt-utils", "mmdebstrap"];
/// What the image is called, and its host.
const NAME: &str = "environment";
/// Digits of the lock's id in the output's name.
const DIGITS: usize = 16;

/// Prepares the image of an environment whose packages lie on one of this machine's archives below `state`. Blocking: runs apt.
///
/// # Errors
/// When one of its packages is on none of them, or the tools cannot be locked.
pub fn environment(archive: &Archive, lock: &EnvironmentLock, state: &Path) -> Result<Prepared, Error> {
    let word = |text: &str| FileName::new(text).map_err(|error| Error::Request(error.to_string()));
    if lock.family == Family::Rpm {
        return Err(Error::Request("images are made of Debian packages, and this environment is of RPMs".into()));
    }
    let packages = lock::files_of(lock, state)?;
    let tools = TOOLS.map(|tool| PackageName::new(tool).expect("the tools' names are valid"));
    let tools = lock::lock_plain(archive, &tools)?;
    let bytes = lock.to_bytes();
    let (hash, sha256, size) = (Hash::of(&bytes), Sha256::of(&bytes), bytes.len() as u64);
    let folder = archive.debs().with_file_name("generated");
    let path = folder.join(hash.to_string());
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&path, &bytes))
        .map_err(|source| Error::Read { path: path.clone(), source })?;
    let job = ImageJob {
        name: word(NAME)?,
        epoch: lock.epoch,
        files: Vec::new(),
        setup: Vec::new(),
        locale: "C.UTF-8".to_owned(),
        formats: vec![ImageFormat::Tar],
        version: word(&hash.to_string()[..DIGITS])?,
        hostname: NAME.to_owned(),
        packages: SourceFile { hash, name: word(ImageJob::LOCK)?, size, sha256 },
        subproject: None,
    };
    let mut files = vec![(hash, path)];
    files.extend(lock.packages.iter().map(|package| package.hash).zip(packages));
    files.extend(locked_files(&tools));
    // A package may be in both locks.
    files.sort();
    files.dedup_by_key(|(hash, _)| *hash);
    Ok(Prepared { kind: JobKind::Image(job), lock: tools.lock, files })
}
