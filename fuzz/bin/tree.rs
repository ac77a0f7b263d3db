//! Proofs of the tree, and tiles that somebody chose: two sizes, a place, and hashes or tiles.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::log::TREE);
