//! The Merkle tree of RFC 6962 section 2.1: hashing, appending, and proofs made and checked.
//!
//! A tree of any size is made of *complete subtrees*: `2^height` entries beginning at a multiple of that. Their hashes
//! never change once they are there, so a log stores them (or the tiles that hold them, see [`super::tile`]) and
//! computes everything else. Proofs are checked by the algorithms of RFC 9162 sections 2.1.3.2 and 2.1.4.2.

use protocol::Sha256;
use sha2::Digest as _;

/// The largest size of a tree, in entries: what readers that count in signed 64-bit numbers can say.
pub const SIZE_MAX: u64 = i64::MAX as u64;
/// The longest inclusion or consistency proof of a tree of that size, in hashes.
pub const PROOF_MAX: usize = 63;

/// The state of a log at one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// How many entries there are.
    pub size: u64,
    /// The tree's hash over all of them.
    pub root: Sha256,
}

impl Head {
    /// The head of a log without entries: SHA-256 of nothing.
    pub fn empty() -> Self {
        Self { size: 0, root: Sha256::of(b"") }
    }
}

/// A complete subtree: the entries from `index * 2^height` on, `2^height` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subtree {
    /// How many levels it has above its entries; 0 is one entry's hash.
    pub height: u8,
    /// Its place among those of its height.
    pub index: u64,
}

/// Where the hashes of complete subtrees come from: a store, tiles, or memory.
pub trait Subtrees {
    /// Why a hash cannot be had.
    type Error;

    /// Gives the hash of a complete subtree.
    ///
    /// # Errors
    /// When it cannot be had; a caller asks only for subtrees within the size that it named.
    fn hash(&self, subtree: Subtree) -> Result<Sha256, Self::Error>;
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The entry is not within the tree.
    #[error("entry {index} is not within {size} entries")]
    Index {
        /// The entry's place.
        index: u64,
        /// The tree's size.
        size: u64,
    },
    /// The newer tree is smaller.
    #[error("a log of {new} entries cannot continue one of {old}")]
    Backwards {
        /// The older size.
        old: u64,
        /// The newer size.
        new: u64,
    },
    /// Too few or too many hashes.
    #[error("a proof of {got} hashes does not have the length that the sizes ask for")]
    Length {
        /// Hashes found.
        got: usize,
    },
    /// The hashes lead to another root.
    #[error("the proof leads to another root at {size} entries")]
    Root {
        /// The size at which it does.
        size: u64,
    },
}

/// Hashes one entry.
pub fn leaf(entry: &[u8]) -> Sha256 {
    let mut hasher = sha2::Sha256::new();
    hasher.update([0]);
    hasher.update(entry);
    Sha256::from_bytes(hasher.finalize().into())
}

/// Hashes two neighbours into one.
pub fn node(left: &Sha256, right: &Sha256) -> Sha256 {
    let mut hasher = sha2::Sha256::new();
    hasher.update([1]);
    hasher.update(left.as_bytes());
    hasher.update(right.as_bytes());
    Sha256::from_bytes(hasher.finalize().into())
}

/// A range of entries whose tree hash is wanted: from, and up to but without.
type Range = (u64, u64);

/// Gives the complete subtrees that a range is made of, from left to right. The range begins where a tree's left part ends.
fn parts((from, to): Range) -> Vec<Subtree> {
    let (mut at, mut parts) = (from, Vec::new());
    while at < to {
        let height = (to - at).ilog2();
        parts.push(Subtree { height: height as u8, index: at >> height });
        at += 1 << height;
    }
    parts
}

/// Gives a range's tree hash.
fn range_hash<S: Subtrees>(range: Range, subtrees: &S) -> Result<Sha256, S::Error> {
    let hashes = parts(range).into_iter().map(|part| subtrees.hash(part)).collect::<Result<Vec<_>, _>>()?;
    Ok(join(&hashes))
}

/// Joins the hashes of neighbours, the largest first, from the right: the smaller ones are the deeper ones.
fn join(hashes: &[Sha256]) -> Sha256 {
    let joined = hashes.iter().copied().rev().reduce(|right, left| node(&left, &right));
    joined.unwrap_or(Head::empty().root)
}

/// Gives the subtrees that the root of a tree of this size is made of, the largest first.
pub fn root_parts(size: u64) -> Vec<Subtree> {
    parts((0, size))
}

/// Gives the head of a tree at a size.
///
/// # Errors
/// When a subtree's hash cannot be had.
pub fn head<S: Subtrees>(size: u64, subtrees: &S) -> Result<Head, S::Error> {
    Ok(Head { size, root: range_hash((0, size), subtrees)? })
}

/// Where a range splits: after the largest power of two that is smaller than its length.
fn split((from, to): Range) -> u64 {
    from + (1 << (to - from - 1).ilog2())
}

/// The ranges whose hashes prove an entry, from the entry's sibling up (RFC 6962 section 2.1.1). The entry is within the size.
fn inclusion_ranges(index: u64, size: u64) -> Vec<Range> {
    let (mut from, mut to, mut ranges) = (0, size, Vec::new());
    while to - from > 1 {
        let middle = split((from, to));
        if index < middle {
            ranges.push((middle, to));
            to = middle;
        } else {
            ranges.push((from, middle));
            from = middle;
        }
    }
    ranges.reverse();
    ranges
}

/// The ranges whose hashes prove that a tree continues a smaller one (RFC 6962 section 2.1.2). Old is not larger than new.
fn consistency_ranges(old: u64, new: u64) -> Vec<Range> {
    let (mut from, mut to, mut ranges) = (0, new, Vec::new());
    if old == 0 {
        return ranges;
    }
    while to != old {
        let middle = split((from, to));
        if old <= middle {
            ranges.push((middle, to));
            to = middle;
        } else {
            ranges.push((from, middle));
            from = middle;
        }
    }
    // The old tree itself is known to whoever asks.
    if from > 0 {
        ranges.push((from, to));
    }
    ranges.reverse();
    ranges
}

/// Gives the subtrees that an inclusion proof is made of.
///
/// # Errors
/// [`ProofError::Index`].
pub fn inclusion_parts(index: u64, size: u64) -> Result<Vec<Subtree>, ProofError> {
    within(index, size)?;
    Ok(inclusion_ranges(index, size).into_iter().flat_map(parts).collect())
}

/// Gives the subtrees that a consistency proof is made of.
///
/// # Errors
/// [`ProofError::Backwards`].
pub fn consistency_parts(old: u64, new: u64) -> Result<Vec<Subtree>, ProofError> {
    forwards(old, new)?;
    Ok(consistency_ranges(old, new).into_iter().flat_map(parts).collect())
}

fn within(index: u64, size: u64) -> Result<(), ProofError> {
    if index < size { Ok(()) } else { Err(ProofError::Index { index, size }) }
}

fn forwards(old: u64, new: u64) -> Result<(), ProofError> {
    if old <= new { Ok(()) } else { Err(ProofError::Backwards { old, new }) }
}

/// Why a proof could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MakeError<E> {
    /// There is no such proof.
    #[error(transparent)]
    Impossible(#[from] ProofError),
    /// A subtree's hash cannot be had.
    #[error("a part of the tree cannot be read")]
    Read(#[source] E),
}

/// Proves that an entry is in a tree of this size: the hashes beside its way to the root, the entry's sibling first.
///
/// # Errors
/// [`MakeError`].
pub fn inclusion<S: Subtrees>(index: u64, size: u64, subtrees: &S) -> Result<Vec<Sha256>, MakeError<S::Error>> {
    within(index, size)?;
    let hashes = inclusion_ranges(index, size).into_iter().map(|range| range_hash(range, subtrees));
    hashes.collect::<Result<_, _>>().map_err(MakeError::Read)
}

/// Proves that the tree at size `new` begins with the tree at size `old`. Nothing needs to be said about an empty tree.
///
/// # Errors
/// [`MakeError`].
pub fn consistency<S: Subtrees>(old: u64, new: u64, subtrees: &S) -> Result<Vec<Sha256>, MakeError<S::Error>> {
    forwards(old, new)?;
    let hashes = consistency_ranges(old, new).into_iter().map(|range| range_hash(range, subtrees));
    hashes.collect::<Result<_, _>>().map_err(MakeError::Read)
}

/// Checks that an entry's hash stands at a place in a tree.
///
/// # Errors
/// [`ProofError`].
pub fn check_inclusion(entry: Sha256, index: u64, head: Head, proof: &[Sha256]) -> Result<(), ProofError> {
    within(index, head.size)?;
    let (mut at, mut last, mut hash) = (index, head.size - 1, entry);
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Length { got: proof.len() });
        }
        if at & 1 == 1 || at == last {
            hash = node(sibling, &hash);
            skip_missing(&mut at, &mut last);
        } else {
            hash = node(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length { got: proof.len() });
    }
    if hash == head.root { Ok(()) } else { Err(ProofError::Root { size: head.size }) }
}

/// Goes up past the levels on which the last node of a tree has no sibling.
fn skip_missing(at: &mut u64, last: &mut u64) {
    while *at & 1 == 0 && *at != 0 {
        *at >>= 1;
        *last >>= 1;
    }
}

/// Checks that a tree begins with an older one: nothing was removed, changed or put in between.
///
/// Every tree continues the empty one, without a proof, as tlog-witness has it.
///
/// # Errors
/// [`ProofError`].
pub fn check_consistency(old: Head, new: Head, proof: &[Sha256]) -> Result<(), ProofError> {
    let prefix = prefix(old, new, proof)?;
    if prefix == old.root { Ok(()) } else { Err(ProofError::Root { size: old.size }) }
}

/// Gives the root that a tree has at an older size, by a consistency proof that leads to the newer head. Where it is not
/// the older head's, no log can be behind both heads.
///
/// # Errors
/// [`ProofError`], also where the proof does not lead to the newer head.
pub fn prefix(old: Head, new: Head, proof: &[Sha256]) -> Result<Sha256, ProofError> {
    forwards(old.size, new.size)?;
    let wrong = ProofError::Length { got: proof.len() };
    if old.size == 0 || old.size == new.size {
        let root = if old.size == 0 { Head::empty().root } else { new.root };
        return match proof {
            [_, ..] => Err(wrong),
            [] if new.size == 0 && new != Head::empty() => Err(ProofError::Root { size: 0 }),
            [] => Ok(root),
        };
    }
    // A tree that is complete itself is no part of the proof: who checks knows its root.
    let (first, rest) = match proof.split_first() {
        _ if old.size.is_power_of_two() => (old.root, proof),
        Some((first, rest)) => (*first, rest),
        None => return Err(wrong),
    };
    let (mut at, mut last) = (old.size - 1, new.size - 1);
    let shared = at.trailing_ones();
    at >>= shared;
    last >>= shared;
    let (mut older, mut newer) = (first, first);
    for hash in rest {
        if last == 0 {
            return Err(wrong);
        }
        if at & 1 == 1 || at == last {
            older = node(hash, &older);
            newer = node(hash, &newer);
            skip_missing(&mut at, &mut last);
        } else {
            newer = node(&newer, hash);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong);
    }
    if newer == new.root { Ok(older) } else { Err(ProofError::Root { size: new.size }) }
}

/// A tree's right edge: all that appending needs to know, at most 63 hashes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edge {
    size: u64,
    /// The subtrees of [`root_parts`], the largest first.
    peaks: Vec<Sha256>,
}

impl Edge {
    /// Takes a log up again at a size.
    ///
    /// # Errors
    /// When a subtree's hash cannot be had.
    pub fn resume<S: Subtrees>(size: u64, subtrees: &S) -> Result<Self, S::Error> {
        let peaks = root_parts(size).into_iter().map(|part| subtrees.hash(part)).collect::<Result<_, _>>()?;
        Ok(Self { size, peaks })
    }

    /// Appends an entry's hash and gives every subtree that it completes, the entry itself first.
    ///
    /// # Panics
    /// Beyond [`SIZE_MAX`] entries.
    pub fn append(&mut self, entry: Sha256) -> Vec<(Subtree, Sha256)> {
        assert!(self.size < SIZE_MAX, "a log has at most {SIZE_MAX} entries");
        let (mut subtree, mut hash) = (Subtree { height: 0, index: self.size }, entry);
        let mut completed = vec![(subtree, hash)];
        while subtree.index & 1 == 1 {
            let left = self.peaks.pop().expect("an odd place has a left neighbour");
            hash = node(&left, &hash);
            subtree = Subtree { height: subtree.height + 1, index: subtree.index >> 1 };
            completed.push((subtree, hash));
        }
        self.peaks.push(hash);
        self.size += 1;
        completed
    }

    /// Gives the head.
    pub fn head(&self) -> Head {
        Head { size: self.size, root: join(&self.peaks) }
    }
}

#[cfg(test)]
mod tests;
