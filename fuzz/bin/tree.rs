//! Proofs of the tree, and tiles that somebody chose: two sizes, a place, and hashes or tiles.

#![no_main]

use std::collections::BTreeMap;

use attest::{
    log::{
        tile::{self, Tile, View},
        tree::{self, Head},
    },
    testing::log::Memory,
};
use libfuzzer_sys::fuzz_target;
use protocol::Sha256;

fuzz_target!(|bytes: &[u8]| {
    let Some((numbers, rest)) = bytes.split_first_chunk::<24>() else { return };
    let [old, new, index] = [0, 8, 16].map(|at| u64::from_be_bytes(*numbers[at..].first_chunk().expect("24 bytes")));
    let hashes: Vec<Sha256> = rest.as_chunks().0.iter().copied().map(Sha256::from_bytes).collect();
    let root = hashes.first().copied().unwrap_or(Head::empty().root);
    let proof = hashes.get(1..).unwrap_or_default();
    let _ = tree::check_inclusion(root, index, Head { size: new, root }, proof);
    let _ = tree::prefix(Head { size: old, root }, Head { size: new, root }, proof);
    // One byte of one tile of a true log is changed: no view comes of it.
    let size = new % 700;
    let log = Memory::sized(size);
    let mut tiles: BTreeMap<Tile, Vec<u8>> = Tile::added(0, size).map(|tile| (tile, log.tile(tile))).collect();
    assert!(View::new(log.head(size), &tiles).is_ok());
    let Some((tile, bytes)) = tiles.iter_mut().nth((index % 5) as usize) else { return };
    let (tile, at) = (*tile, (old % bytes.len() as u64) as usize);
    bytes[at] ^= (old >> 56) as u8 | 1;
    assert!(View::new(log.head(size), &tiles).is_err(), "{tile}");
    let _ = tile::for_inclusion(index, new).map(|tiles| assert!(tiles.len() < 32));
    let _ = tile::for_consistency(old, new);
});
