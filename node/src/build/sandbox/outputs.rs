//! Reads what a build left, as hostile as it may be: only regular files with one name, below one folder, within a size.
//!
//! The tree is dead by now, but its links, pipes and holes are still there: every path is opened below the folder without
//! following a link (`openat2`), looked at before it is opened for reading, and copied into a file of our own, so modes,
//! owners and other attributes are dropped.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use protocol::{Hash, Sha256, words::RelativePath};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use sha2::Digest;
use tokio_util::sync::CancellationToken;

use crate::build::listed::Refused;

const PIECE: usize = 1024 * 1024;

/// One output, copied to a place of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// Its name below the build directory.
    pub name: RelativePath,
    /// The copy.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Sha256,
    /// Its BLAKE3.
    pub hash: Hash,
}

/// Why an output was not taken.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// It is not there.
    #[error("output {name} is missing")]
    Missing {
        /// The output.
        name: RelativePath,
    },
    /// It is, or lies behind, a symbolic link.
    #[error("output {name} is or lies behind a symbolic link")]
    Link {
        /// The output.
        name: RelativePath,
    },
    /// It is no regular file.
    #[error("output {name} is a {kind}, not a regular file")]
    Kind {
        /// The output.
        name: RelativePath,
        /// What it is.
        kind: &'static str,
    },
    /// It has more than one name.
    #[error("output {name} is a hard link with {links} names")]
    HardLink {
        /// The output.
        name: RelativePath,
        /// How many names it has.
        links: u64,
    },
    /// It is larger than what is left of the limit.
    #[error("output {name} has {size} bytes, over the {left} that are left of the limit")]
    TooLarge {
        /// The output.
        name: RelativePath,
        /// Its size, holes included.
        size: u64,
        /// What is left.
        left: u64,
    },
    /// Its name is not one that we carry.
    #[error("the build names an output {name:?}, which is not an acceptable name")]
    Name {
        /// The name, shortened.
        name: String,
    },
    /// What lists the outputs cannot be understood.
    #[error("{file} cannot be understood: {why}")]
    List {
        /// The listing file.
        file: String,
        /// Why.
        why: String,
    },
    /// An output is not what the list says.
    #[error("output {name} is not what the .changes file says")]
    Listed {
        /// The output.
        name: RelativePath,
    },
    /// This machine cannot read or copy it.
    #[error("cannot copy output {name}")]
    Copy {
        /// The output.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl OutputError {
    /// Gives why the list in `file` was not taken.
    pub(in crate::build) fn listed(file: &str, refused: Refused) -> Self {
        match refused {
            Refused::Name(name) => Self::Name { name },
            Refused::Form(why) => Self::List { file: file.to_owned(), why: why.to_owned() },
        }
    }
}

/// A build directory whose processes are gone.
#[derive(Debug)]
pub(in crate::build) struct Leftovers {
    folder: OwnedFd,
    left: u64,
    halt: CancellationToken,
}

impl Leftovers {
    /// Opens the directory; at most `limit` bytes are taken from it in all.
    ///
    /// # Errors
    /// When it cannot be opened as a directory.
    pub(in crate::build) fn open(folder: &Path, limit: u64) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(folder, flags, Mode::empty())?;
        Ok(Self { folder, left: limit, halt: CancellationToken::new() })
    }

    /// Opens a directory below another one, following no link on the way to it.
    ///
    /// # Errors
    /// As [`Leftovers::open`].
    pub(in crate::build) fn open_place(top: &Path, place: &str, limit: u64) -> io::Result<Self> {
        let top = Self::open(top, limit)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let place = place.trim_start_matches('/');
        let folder = rustix::fs::openat2(&top.folder, place, flags, Mode::empty(), beneath)?;
        Ok(Self { folder, ..top })
    }

    /// Fails soon after `halt` is cancelled.
    pub(in crate::build) fn until(self, halt: CancellationToken) -> Self {
        Self { halt, ..self }
    }

    /// Copies one file to `into`, which must not exist, and hashes it.
    ///
    /// # Errors
    /// [`OutputError`]; never waits on a pipe or device.
    pub(in crate::build) fn take(&mut self, name: &RelativePath, into: &Path) -> Result<OutputFile, OutputError> {
        let (mut file, size) = self.open_regular(name)?;
        let copy = |source| OutputError::Copy { name: name.to_string(), source };
        if let Some(parent) = into.parent() {
            fs::create_dir_all(parent).map_err(copy)?;
        }
        let mut target = File::options().write(true).create_new(true).open(into).map_err(copy)?;
        let (mut sha256, mut blake3) = (sha2::Sha256::new(), blake3::Hasher::new());
        let mut buffer = vec![0; PIECE];
        let mut taken = 0;
        while taken < size {
            if self.halt.is_cancelled() {
                return Err(copy(io::ErrorKind::Interrupted.into()));
            }
            let read = file.read(&mut buffer).map_err(copy)?;
            if read == 0 {
                return Err(copy(io::ErrorKind::UnexpectedEof.into()));
            }
            target.write_all(&buffer[..read]).map_err(copy)?;
            sha256.update(&buffer[..read]);
            blake3.update(&buffer[..read]);
            taken += read as u64;
        }
        self.left = self.left.saturating_sub(taken);
        Ok(OutputFile {
            name: name.clone(),
            path: into.to_owned(),
            size: taken,
            sha256: Sha256::from_bytes(sha256.finalize().into()),
            hash: Hash::from_bytes(*blake3.finalize().as_bytes()),
        })
    }

    /// Reads a small text file of the build directory.
    ///
    /// # Errors
    /// [`OutputError`]; a file over `limit` bytes or that is not UTF-8 is refused.
    pub(in crate::build) fn read_text(&self, name: &RelativePath, limit: u64) -> Result<String, OutputError> {
        let (file, size) = self.open_regular(name)?;
        if size > limit {
            return Err(OutputError::TooLarge { name: name.clone(), size, left: limit });
        }
        let mut text = String::new();
        let read = file.take(limit).read_to_string(&mut text);
        read.map_err(|error| OutputError::List { file: name.to_string(), why: error.to_string() })?;
        Ok(text)
    }

    fn open_regular(&self, name: &RelativePath) -> Result<(File, u64), OutputError> {
        // A path descriptor touches nothing: opening a pipe would wait, opening a device may act.
        let seen = self.open_below(name, OFlags::PATH | OFlags::NOFOLLOW)?;
        let copy = |source: rustix::io::Errno| OutputError::Copy { name: name.to_string(), source: source.into() };
        let stat = fstat(&seen).map_err(copy)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::RegularFile => {}
            FileType::Symlink => return Err(OutputError::Link { name: name.clone() }),
            FileType::Directory
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return Err(OutputError::Kind { name: name.clone(), kind: word(kind) }),
        }
        if stat.st_nlink != 1 {
            return Err(OutputError::HardLink { name: name.clone(), links: stat.st_nlink });
        }
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if size > self.left {
            return Err(OutputError::TooLarge { name: name.clone(), size, left: self.left });
        }
        let file = self.open_below(name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let again = fstat(&file).map_err(copy)?;
        if (again.st_dev, again.st_ino) != (stat.st_dev, stat.st_ino) {
            return Err(OutputError::Kind { name: name.clone(), kind: "file that was replaced" });
        }
        Ok((File::from(file), size))
    }

    fn open_below(&self, name: &RelativePath, flags: OFlags) -> Result<OwnedFd, OutputError> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = flags | OFlags::CLOEXEC;
        openat2(self.folder.as_fd(), name.as_str(), flags, Mode::empty(), resolve).map_err(|errno| match errno {
            rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => OutputError::Missing { name: name.clone() },
            rustix::io::Errno::LOOP | rustix::io::Errno::XDEV => OutputError::Link { name: name.clone() },
            other => OutputError::Copy { name: name.to_string(), source: other.into() },
        })
    }
}

fn word(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "regular file",
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Unknown => "file of unknown kind",
    }
}

#[cfg(test)]
mod tests;
