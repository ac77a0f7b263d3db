//! The tree out of what the store keeps: entries, and the hashes of the heights that tiles hold. What lies between two such
//! heights is computed.

use attest::log::{
    tile::{self, Resource, TileError},
    tree::{self, Edge, Head, Subtree, Subtrees},
};
use protocol::Sha256;

use super::{Error, HEIGHT};
use crate::store::Pages;

/// What is missing of the kept log.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// A hash within the log is not there.
    #[error("the transparency log is not whole: hash {index} at height {height} is missing")]
    Hash {
        /// Its height.
        height: u8,
        /// Its place.
        index: u64,
    },
    /// An entry within the log is not there.
    #[error("the transparency log is not whole: entry {index} is missing")]
    Entry {
        /// Its place.
        index: u64,
    },
    /// What is kept cannot be served.
    #[error(transparent)]
    Tile(#[from] TileError),
}

/// The kept hashes as the tree wants them.
struct Kept<'a>(&'a Pages);

impl Subtrees for Kept<'_> {
    type Error = Error;

    fn hash(&self, subtree: Subtree) -> Result<Sha256, Error> {
        let Subtree { height, index } = subtree;
        if height.is_multiple_of(HEIGHT) {
            let hash = self.0.hash((height, index)).map_err(Error::Store)?;
            return hash.map(Sha256::from_bytes).ok_or_else(|| PageError::Hash { height, index }.into());
        }
        let half = |index| self.hash(Subtree { height: height - 1, index });
        Ok(tree::node(&half(2 * index)?, &half(2 * index + 1)?))
    }
}

/// Gives the right edge of the whole log.
pub(super) fn edge(pages: &Pages) -> Result<Edge, Error> {
    Edge::resume(pages.size()?, &Kept(pages))
}

/// Gives the head that the log had at a size.
pub(super) fn head(pages: &Pages, size: u64) -> Result<Head, Error> {
    tree::head(size, &Kept(pages))
}

/// Gives the bytes of a tile or a bundle within the log.
pub(super) fn bytes(pages: &Pages, resource: Resource) -> Result<Vec<u8>, Error> {
    match resource {
        Resource::Checkpoint => Ok(Vec::new()),
        Resource::Tile(tile) => tile.bytes(&Kept(pages)),
        Resource::Entries(slice) => {
            let entry = |index| pages.entry(index)?.ok_or(PageError::Entry { index }.into());
            let places = slice.first()..slice.first() + slice.width();
            let entries = places.map(entry).collect::<Result<Vec<Vec<u8>>, Error>>()?;
            Ok(tile::write_bundle(entries.iter().map(Vec::as_slice)).map_err(PageError::Tile)?)
        }
    }
}
