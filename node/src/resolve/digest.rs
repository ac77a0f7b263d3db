//! Size, SHA-256 and BLAKE3 of a file, read once.

use std::{fs::File, io, io::Read, path::Path};

use protocol::{Hash, Sha256};
use sha2::Digest as _;

/// What names a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) hash: Hash,
    pub(crate) sha256: Sha256,
    pub(crate) size: u64,
}

impl Digest {
    /// Hashes bytes in memory.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { hash: Hash::of(bytes), sha256: Sha256::of(bytes), size: bytes.len() as u64 }
    }

    /// Hashes a file.
    pub(crate) fn of_file(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let (mut blake3, mut sha256) = (blake3::Hasher::new(), sha2::Sha256::new());
        let (mut buffer, mut size) = (vec![0; 1 << 17], 0u64);
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            blake3.update(&buffer[..count]);
            sha256.update(&buffer[..count]);
            size += count as u64;
        }
        Ok(Self {
            hash: Hash::from_bytes(*blake3.finalize().as_bytes()),
            sha256: Sha256::from_bytes(sha256.finalize().into()),
            size,
        })
    }
}
