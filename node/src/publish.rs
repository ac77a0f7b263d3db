//! Repositories: from attested packages to a signed repository for apt and dnf, and from its releases to a mirror.
//!
//! ```text
//!  incoming -> checks -> pool -> indexes -> InRelease, Release.gpg -> swap        apt (the publisher)
//!           -> sign ----^   \-> repodata -> repomd.xml, repomd.xml.asc             rpm (beside it, in the same generation)
//!  release -> manifest -> fetch by hash -> pool -> indexes -> InRelease           follow (a mirror)
//! ```
//!
//! The same packages, settings, key and time give the same bytes, so anybody can compute a repository again. Who may
//! publish, and whether enough operators agreed, was decided before anything comes here.

pub mod apt;
pub mod catalogue;
pub mod evidence;
pub mod follow;
pub mod incoming;
pub mod kind;
pub mod rpm;
pub mod sign;
pub mod version;

mod disk;
#[cfg(test)]
pub(crate) mod testing;
