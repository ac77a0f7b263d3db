//! The node's decoders of bytes from outside, compiled without the rest of the node. Every file beside this one is a link to the
//! node's own: what is fuzzed is what runs.
//!
//! The few items that those files ask of their neighbours, and that decode nothing, stand here in place of them.

#![expect(dead_code, reason = "the node uses what no target reaches")]

pub mod bounded;
pub mod recipe;
pub mod resolve;
pub mod ticket;

/// What a build leaves that is read.
pub mod build {
    pub mod listed;

    /// What explains differences.
    pub mod explain {
        pub mod quotes;
    }
}

/// Packages at a repository's door, and its signatures.
pub mod publish {
    /// What a mirror reads of a release.
    pub mod follow {
        /// Whether its evidence covers it.
        pub mod covered {
            pub mod packages;
        }
    }
    pub mod incoming;
    pub mod rpm;
    pub mod sign;
    pub mod version;

    mod disk;

    use std::path::Path;

    use protocol::{Arch, FileName, Sha256, release::ReleaseFile, words::RelativePath};

    /// In place of the repository's own module.
    pub mod apt {
        /// Why a signed RPM was not written.
        #[derive(Debug, thiserror::Error)]
        pub enum Error {
            /// The package breaks a rule.
            #[error(transparent)]
            Incoming(#[from] super::incoming::Error),
            /// OpenPGP refused.
            #[error(transparent)]
            Sign(#[from] super::sign::Error),
            /// A file operation failed.
            #[error(transparent)]
            Disk(#[from] super::disk::Error),
        }

        pub(in crate::publish) mod index {
            /// In place of the repository's own packer; no target writes a repository.
            pub(in crate::publish) fn gzip(bytes: &[u8]) -> Vec<u8> {
                bytes.to_vec()
            }
        }
    }

    /// Reads an RPM as the publisher does at its door, and gives what the repository's metadata would say of it.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn described(path: &Path, file: &FileName, arches: &[Arch]) -> Result<[String; 3], incoming::Error> {
        let package = rpm::package::inspect(path, file, arches)?;
        let sha256 = Sha256::of(b"");
        let path = RelativePath::new(format!("pool/{file}")).expect("a file's name is a path");
        let entry = package.entry(sha256, &ReleaseFile { path, size: 0, sha256, hash: protocol::Hash::of(b"") });
        Ok([entry.primary, entry.filelists, entry.other])
    }
}
