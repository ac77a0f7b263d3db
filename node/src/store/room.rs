//! Room on the disk: a change is refused while there is still enough left, since redb closes itself for good after one failed write.

#[cfg(test)]
use std::sync::{Arc, atomic::AtomicU64};
use std::{io, path::PathBuf};

use super::Error;

/// Bytes that a change leaves free: what one transaction of this node writes at most beside the change itself, with a margin for
/// other programs on the same disk.
pub(super) const RESERVE_BYTES: u64 = 16 << 20;

/// Where the free space is asked.
#[derive(Debug, Clone)]
pub(super) enum Room {
    /// The file system that holds this folder.
    Folder(PathBuf),
    /// No file system: the database of a test lies in memory.
    #[cfg(test)]
    Memory(Arc<AtomicU64>),
}

impl Room {
    /// Refuses a change of `bytes` when too little would be left.
    pub(super) fn check(&self, bytes: usize) -> Result<(), Error> {
        // A copied tree doubles what is written for a moment.
        let wanted = RESERVE_BYTES + 2 * bytes as u64;
        let free = self.free().map_err(|source| Error::Room { source })?;
        if free < wanted { Err(Error::NoSpace { free, wanted }) } else { Ok(()) }
    }

    fn free(&self) -> io::Result<u64> {
        match self {
            Room::Folder(folder) => {
                let found = rustix::fs::statvfs(folder)?;
                Ok(found.f_bavail.saturating_mul(found.f_frsize))
            }
            #[cfg(test)]
            Room::Memory(free) => Ok(free.load(std::sync::atomic::Ordering::SeqCst)),
        }
    }
}
