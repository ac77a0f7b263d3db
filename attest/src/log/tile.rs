//! Tiles: the tree as files that never change, and entries in bundles (C2SP tlog-tiles).
//!
//! ```text
//!  <prefix>/checkpoint                     the newest signed head
//!  <prefix>/tile/<level>/<index>[.p/<w>]   up to 256 hashes: of complete subtrees of height 8 * level
//!  <prefix>/tile/entries/<index>[.p/<w>]   up to 256 entries, each behind its length in 16 bits
//! ```
//! An index is written in groups of three digits, `x001/x234/067`. Only the rightmost tile of a level is partial, and the
//! partial tiles of a size are exactly what its root is made of: [`View`] believes a head that a checkpoint signed, then
//! those tiles, then every full tile whose hash stands in a tile above that it believes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use protocol::Sha256;

use super::tree::{self, Head, ProofError, SIZE_MAX, Subtree, Subtrees};

/// Hashes or entries of a full tile.
pub const WIDTH: u64 = 256;
/// Levels of the tree in one tile.
const HEIGHT: u8 = 8;
/// The highest level of a tile in a tree of [`SIZE_MAX`] entries.
const LEVEL_MAX: u8 = 7;
/// The longest entry, in bytes: its length stands in 16 bits.
pub const ENTRY_MAX: usize = u16::MAX as usize;
/// The largest entry bundle, in bytes.
pub const BUNDLE_MAX: usize = WIDTH as usize * (2 + ENTRY_MAX);
/// The largest tile, in bytes.
pub const TILE_MAX: usize = WIDTH as usize * 32;

/// One tile of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tile {
    level: u8,
    slice: Slice,
}

/// A row of up to 256 things: a tile's hashes or a bundle's entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slice {
    index: u64,
    /// 1 to 256.
    width: u16,
}

/// What a log serves, by its path below the log's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// The newest checkpoint; the only one that changes.
    Checkpoint,
    /// A tile of the tree.
    Tile(Tile),
    /// An entry bundle.
    Entries(Slice),
}

/// Why tiles or bundles cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// No path of a tiled log.
    #[error("{0:?} is no path of a log")]
    Path(String),
    /// Not the bytes of a tile of this width.
    #[error("tile {tile} has {got} bytes")]
    Length {
        /// The tile.
        tile: Tile,
        /// Bytes found.
        got: usize,
    },
    /// A tile that is needed was not given.
    #[error("tile {0} is missing")]
    Missing(Tile),
    /// A tile does not belong to the tree.
    #[error("tile {0} is not the one that the checkpoint signs for")]
    Foreign(Tile),
    /// The partial tiles lead to another root.
    #[error("the tiles of {size} entries lead to another root than the checkpoint's")]
    Root {
        /// The tree's size.
        size: u64,
    },
    /// An entry is too long.
    #[error("an entry has at most {ENTRY_MAX} bytes, not {got}")]
    Entry {
        /// Bytes found.
        got: usize,
    },
    /// Not an entry bundle of this width.
    #[error("bundle {slice} is malformed at byte {at}")]
    Bundle {
        /// The bundle.
        slice: Slice,
        /// Where.
        at: usize,
    },
    /// An entry is not the one that the tree holds.
    #[error("entry {index} is not the one that the tree holds")]
    Swapped {
        /// Its place in the log.
        index: u64,
    },
    /// There is no such proof.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl Slice {
    /// The slice that holds a place, in a row of `count` things; none where the place is beyond.
    pub fn holding(place: u64, count: u64) -> Option<Self> {
        (place < count).then(|| Self::at(place / WIDTH, count))
    }

    /// The slice of this index in a row that is long enough for it.
    fn at(index: u64, count: u64) -> Self {
        Self { index, width: (count - index * WIDTH).min(WIDTH) as u16 }
    }

    /// The slices that a row has and did not have when it was shorter, in order.
    fn added(old: u64, new: u64) -> impl Iterator<Item = Self> {
        let from = if new > old { old / WIDTH } else { u64::MAX };
        (from..new.div_ceil(WIDTH)).map(move |index| Self::at(index, new))
    }

    /// Gives the place of the first thing.
    pub fn first(&self) -> u64 {
        self.index * WIDTH
    }

    /// Gives how many things there are, 1 to 256.
    pub fn width(&self) -> u64 {
        self.width.into()
    }

    /// Says whether nothing can be added any more.
    pub fn is_full(&self) -> bool {
        self.width() == WIDTH
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.index.to_string();
        let padded = format!("{digits:0>width$}", width = digits.len().next_multiple_of(3));
        let groups: Vec<&str> = (0..padded.len()).step_by(3).map(|at| &padded[at..at + 3]).collect();
        let (last, before) = groups.split_last().expect("a number has a digit");
        before.iter().try_for_each(|group| write!(f, "x{group}/"))?;
        f.write_str(last)?;
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

impl FromStr for Slice {
    type Err = TileError;

    fn from_str(text: &str) -> Result<Self, TileError> {
        let refused = || TileError::Path(text.chars().take(80).collect());
        let (index, width) = text.split_once(".p/").map_or((text, None), |(index, width)| (index, Some(width)));
        let width = width.map_or(Some(WIDTH as u16), |width| width.parse().ok()).ok_or_else(refused)?;
        let digits: String = index.split('/').map(|group| group.strip_prefix('x').unwrap_or(group)).collect();
        let index = digits.parse().ok().filter(|index| *index <= SIZE_MAX / WIDTH).ok_or_else(refused)?;
        let slice = Self { index, width };
        // There is one way to write it; that also refuses a width of 0 and of 256 and more.
        let ok = (1..=WIDTH).contains(&slice.width()) && slice.to_string() == text;
        if ok { Ok(slice) } else { Err(refused()) }
    }
}

impl Tile {
    /// Gives how many hashes a level has in a tree of this size: one of each full tile below.
    fn row(level: u8, size: u64) -> u64 {
        size.checked_shr(u32::from(HEIGHT) * u32::from(level)).unwrap_or(0)
    }

    /// The tile that holds a complete subtree's hash, or the hashes that it is made of, in a tree of this size.
    fn holding(subtree: Subtree, size: u64) -> Option<Self> {
        let level = subtree.height / HEIGHT;
        let place = subtree.index.checked_mul(1 << (subtree.height % HEIGHT))?;
        Some(Self { level, slice: Slice::holding(place, Self::row(level, size))? })
    }

    /// The tile above a full one, that holds its hash.
    fn parent(self, size: u64) -> Option<Self> {
        Self::holding(Subtree { height: HEIGHT * (self.level + 1), index: self.slice.index }, size)
    }

    /// The tiles to write when a log has grown: full ones and the partial one of each level.
    pub fn added(old: u64, new: u64) -> impl Iterator<Item = Self> {
        (0..=LEVEL_MAX).flat_map(move |level| {
            let row = |size| Self::row(level, size);
            Slice::added(row(old), row(new)).map(move |slice| Self { level, slice })
        })
    }

    /// The partial tiles of a tree: its root is made of them.
    pub fn partial(size: u64) -> impl Iterator<Item = Self> {
        let last = move |level| {
            let row = Self::row(level, size);
            let slice = Slice::holding(row.checked_sub(1)?, row).filter(|slice| !slice.is_full());
            Some(Self { level, slice: slice? })
        };
        (0..=LEVEL_MAX).filter_map(last)
    }

    /// Gives the bytes, out of the hashes of complete subtrees.
    ///
    /// # Errors
    /// When a hash cannot be had.
    pub fn bytes<S: Subtrees>(&self, subtrees: &S) -> Result<Vec<u8>, S::Error> {
        let height = HEIGHT * self.level;
        let places = self.slice.first()..self.slice.first() + self.slice.width();
        let hashes = places.map(|index| subtrees.hash(Subtree { height, index }));
        let hashes = hashes.collect::<Result<Vec<Sha256>, _>>()?;
        Ok(hashes.iter().flat_map(|hash| *hash.as_bytes()).collect())
    }

    /// Gives the hashes in a tile's bytes.
    ///
    /// # Errors
    /// [`TileError::Length`].
    pub fn hashes(&self, bytes: &[u8]) -> Result<Vec<Sha256>, TileError> {
        let (hashes, rest) = bytes.as_chunks::<32>();
        if hashes.len() as u64 != self.slice.width() || !rest.is_empty() {
            return Err(TileError::Length { tile: *self, got: bytes.len() });
        }
        Ok(hashes.iter().copied().map(Sha256::from_bytes).collect())
    }

    /// Gives the same tile once it is full: what may be fetched where a log no longer has the partial one.
    pub fn filled(&self) -> Self {
        Self { slice: Slice { width: WIDTH as u16, ..self.slice }, ..*self }
    }

    /// Takes this tile's bytes out of those of [`Tile::filled`].
    ///
    /// # Errors
    /// [`TileError::Length`] where these are not the bytes of a full tile.
    pub fn cut<'a>(&self, filled: &'a [u8]) -> Result<&'a [u8], TileError> {
        let whole = filled.len() == TILE_MAX;
        let bytes = filled.get(..self.slice.width() as usize * 32).filter(|_| whole);
        bytes.ok_or(TileError::Length { tile: self.filled(), got: filled.len() })
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.level, self.slice)
    }
}

impl Resource {
    /// Says whether a log of this size has it. A partial tile or bundle is there as long as the log is as large as it, also
    /// when it has grown since.
    pub fn is_within(&self, size: u64) -> bool {
        let (slice, row) = match self {
            Resource::Checkpoint => return true,
            Resource::Tile(tile) => (tile.slice, Tile::row(tile.level, size)),
            Resource::Entries(slice) => (*slice, size),
        };
        slice.first() + slice.width() <= row
    }

    /// Gives the widest part of the same row that a log of this size has: every narrower one is its beginning.
    pub fn widest(&self, size: u64) -> Self {
        match self {
            Resource::Checkpoint => Resource::Checkpoint,
            Resource::Tile(tile) if self.is_within(size) => {
                let slice = Slice::at(tile.slice.index, Tile::row(tile.level, size));
                Resource::Tile(Tile { slice, ..*tile })
            }
            Resource::Entries(slice) if self.is_within(size) => Resource::Entries(Slice::at(slice.index, size)),
            Resource::Tile(_) | Resource::Entries(_) => *self,
        }
    }

    /// Takes this part's bytes out of those of a wider one of the same row.
    ///
    /// # Errors
    /// [`TileError`] where these are not the wider one's bytes.
    pub fn cut_from(&self, wider: Self, bytes: &[u8]) -> Result<Vec<u8>, TileError> {
        match (self, wider) {
            (Resource::Tile(tile), Resource::Tile(wide)) => {
                wide.hashes(bytes)?;
                let part = bytes.get(..tile.slice.width() as usize * 32);
                part.map(<[u8]>::to_vec).ok_or(TileError::Length { tile: wide, got: bytes.len() })
            }
            (Resource::Entries(slice), Resource::Entries(wide)) => {
                write_bundle(read_bundle(wide, bytes)?.into_iter().take(slice.width() as usize))
            }
            (Resource::Checkpoint | Resource::Tile(_) | Resource::Entries(_), _) => Ok(bytes.to_vec()),
        }
    }

    /// Gives the HTTP content type.
    pub fn content_type(&self) -> &'static str {
        match self {
            Resource::Checkpoint => "text/plain; charset=utf-8",
            Resource::Tile(_) | Resource::Entries(_) => "application/octet-stream",
        }
    }

    /// Says whether its bytes never change, so that caches may keep them.
    pub fn is_immutable(&self) -> bool {
        *self != Resource::Checkpoint
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Checkpoint => f.write_str("checkpoint"),
            Resource::Tile(tile) => write!(f, "tile/{tile}"),
            Resource::Entries(slice) => write!(f, "tile/entries/{slice}"),
        }
    }
}

impl FromStr for Resource {
    type Err = TileError;

    /// Reads a path without a leading slash; every resource has one spelling.
    fn from_str(text: &str) -> Result<Self, TileError> {
        let refused = || TileError::Path(text.chars().take(80).collect());
        if text == "checkpoint" {
            return Ok(Self::Checkpoint);
        }
        let (level, slice) = text.strip_prefix("tile/").and_then(|rest| rest.split_once('/')).ok_or_else(refused)?;
        let slice: Slice = slice.parse()?;
        match level.as_bytes() {
            b"entries" => Ok(Self::Entries(slice)),
            [digit @ b'0'..=b'7'] => Ok(Self::Tile(Tile { level: digit - b'0', slice })),
            _ => Err(refused()),
        }
    }
}

/// Gives the tiles that say the hashes of these subtrees, in a tree of this size, and prove them: up to its root.
fn needed(subtrees: impl IntoIterator<Item = Subtree>, size: u64) -> BTreeSet<Tile> {
    let mut tiles: BTreeSet<Tile> = Tile::partial(size).collect();
    for subtree in subtrees {
        let mut tile = Tile::holding(subtree, size);
        while let Some(next) = tile.filter(|tile| tiles.insert(*tile)) {
            tile = next.parent(size);
        }
    }
    tiles
}

/// Gives the tiles to fetch for the proof of an entry.
///
/// # Errors
/// [`TileError::Proof`] where the entry is beyond the size.
pub fn for_inclusion(index: u64, size: u64) -> Result<BTreeSet<Tile>, TileError> {
    let itself = Subtree { height: 0, index };
    Ok(needed(tree::inclusion_parts(index, size)?.into_iter().chain([itself]), size))
}

/// Gives the tiles to fetch for the proof that a log continued.
///
/// # Errors
/// [`TileError::Proof`] where it went backwards.
pub fn for_consistency(old: u64, new: u64) -> Result<BTreeSet<Tile>, TileError> {
    Ok(needed(tree::consistency_parts(old, new)?, new))
}

/// Tiles of a tree whose head is believed: each of them was proven by it.
#[derive(Debug, Clone)]
pub struct View {
    head: Head,
    tiles: BTreeMap<Tile, Vec<Sha256>>,
}

impl View {
    /// Checks tiles against a head. The partial tiles of the size must be among them, and above every full one its parent,
    /// as [`for_inclusion`] and [`for_consistency`] list them.
    ///
    /// # Errors
    /// [`TileError`] with the first tile that is missing, malformed or not of this tree.
    pub fn new(head: Head, tiles: &BTreeMap<Tile, Vec<u8>>) -> Result<Self, TileError> {
        let mut view = Self { head, tiles: BTreeMap::new() };
        let read = |tile: Tile| tile.hashes(tiles.get(&tile).ok_or(TileError::Missing(tile))?);
        for tile in Tile::partial(head.size) {
            view.tiles.insert(tile, read(tile)?);
        }
        if tree::head(head.size, &view)? != head {
            return Err(TileError::Root { size: head.size });
        }
        // From the highest level down, so that a parent is proven before its children.
        for tile in tiles.keys().rev().filter(|tile| !view.tiles.contains_key(tile)).copied().collect::<Vec<_>>() {
            let hashes = read(tile)?;
            let whole = Subtree { height: HEIGHT * (tile.level + 1), index: tile.slice.index };
            let above = if tile.slice.is_full() { view.hash(whole)? } else { return Err(TileError::Foreign(tile)) };
            if complete(&hashes) != above {
                return Err(TileError::Foreign(tile));
            }
            view.tiles.insert(tile, hashes);
        }
        Ok(view)
    }

    /// Gives the head that everything here is proven by.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Gives the entries of a bundle, once each is the one that the tree holds there.
    ///
    /// # Errors
    /// [`TileError`], also where the bundle's tile is not here.
    pub fn entries<'a>(&self, slice: Slice, bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, TileError> {
        let entries = read_bundle(slice, bytes)?;
        for (index, entry) in (slice.first()..).zip(&entries) {
            if self.hash(Subtree { height: 0, index })? != tree::leaf(entry) {
                return Err(TileError::Swapped { index });
            }
        }
        Ok(entries)
    }
}

/// Gives the hash of a complete subtree out of the hashes that it is made of: a power of two of them.
fn complete(hashes: &[Sha256]) -> Sha256 {
    match hashes {
        [one] => *one,
        more => {
            let (left, right) = more.split_at(more.len() / 2);
            tree::node(&complete(left), &complete(right))
        }
    }
}

impl Subtrees for View {
    type Error = TileError;

    fn hash(&self, subtree: Subtree) -> Result<Sha256, TileError> {
        let beyond = ProofError::Index { index: subtree.index, size: self.head.size };
        let tile = Tile::holding(subtree, self.head.size).ok_or(beyond.clone())?;
        let hashes = self.tiles.get(&tile).ok_or(TileError::Missing(tile))?;
        let count = 1 << (subtree.height % HEIGHT);
        let from = (subtree.index * count - tile.slice.first()) as usize;
        hashes.get(from..from + count as usize).map(complete).ok_or(beyond.into())
    }
}

/// Gives the entry bundles to write when a log has grown.
pub fn bundles_added(old: u64, new: u64) -> impl Iterator<Item = Slice> {
    Slice::added(old, new)
}

/// Writes an entry bundle.
///
/// # Errors
/// [`TileError::Entry`].
pub fn write_bundle<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, TileError> {
    let mut bytes = Vec::new();
    for entry in entries {
        let length = u16::try_from(entry.len()).map_err(|_| TileError::Entry { got: entry.len() })?;
        bytes.extend(length.to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    Ok(bytes)
}

/// Reads an entry bundle: as many entries as its name says, and nothing behind them.
///
/// # Errors
/// [`TileError::Bundle`].
pub fn read_bundle(slice: Slice, bytes: &[u8]) -> Result<Vec<&[u8]>, TileError> {
    let (mut rest, mut entries) = (bytes, Vec::new());
    let malformed = |rest: &[u8]| TileError::Bundle { slice, at: bytes.len() - rest.len() };
    for _ in 0..slice.width {
        let (length, after) = rest.split_first_chunk::<2>().ok_or_else(|| malformed(rest))?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, after) = after.split_at_checked(length).ok_or_else(|| malformed(rest))?;
        entries.push(entry);
        rest = after;
    }
    if rest.is_empty() { Ok(entries) } else { Err(malformed(rest)) }
}

#[cfg(test)]
mod tests;
