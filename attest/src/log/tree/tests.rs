//! The published vectors, RFC 6962's own definitions, and what a change does to a proof.

use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::testing::log::Memory;

fn hashes_of(memory: &Memory) -> Vec<Sha256> {
    memory.entries().iter().map(|entry| leaf(entry)).collect()
}

/// RFC 6962 section 2.1, word for word.
fn mth(entries: &[Sha256]) -> Sha256 {
    match entries {
        [] => Sha256::of(b""),
        [one] => *one,
        _ => {
            let k = entries.len().next_power_of_two() / 2;
            node(&mth(&entries[..k]), &mth(&entries[k..]))
        }
    }
}

/// RFC 6962 section 2.1.1, word for word.
fn path(m: usize, entries: &[Sha256]) -> Vec<Sha256> {
    if entries.len() <= 1 {
        return Vec::new();
    }
    let (left, right) = entries.split_at(entries.len().next_power_of_two() / 2);
    let (mut path, last) =
        if m < left.len() { (path(m, left), mth(right)) } else { (path(m - left.len(), right), mth(left)) };
    path.push(last);
    path
}

/// RFC 6962 section 2.1.2, word for word.
fn subproof(m: usize, entries: &[Sha256], complete: bool) -> Vec<Sha256> {
    if m == entries.len() {
        return if complete { Vec::new() } else { vec![mth(entries)] };
    }
    let (left, right) = entries.split_at(entries.len().next_power_of_two() / 2);
    let (mut proof, last) = if m <= left.len() {
        (subproof(m, left, complete), mth(right))
    } else {
        (subproof(m - left.len(), right, false), mth(left))
    };
    proof.push(last);
    proof
}

#[test]
fn roots_and_proofs_are_those_of_the_rfc() {
    let memory = Memory::sized(70);
    let all = hashes_of(&memory);
    for size in 0..=70 {
        let now = head(size, &memory).unwrap();
        let so_far = &all[..size as usize];
        assert_eq!(now.root, mth(so_far), "size {size}");
        assert_eq!(Edge::resume(size, &memory).unwrap().head(), now);
        for index in 0..size {
            let proof = inclusion(index, size, &memory).unwrap();
            assert_eq!(proof, path(index as usize, so_far), "{index} of {size}");
            assert_eq!(check_inclusion(all[index as usize], index, now, &proof), Ok(()));
        }
        for old in 0..=size {
            let proof = consistency(old, size, &memory).unwrap();
            let expected = if old == 0 { Vec::new() } else { subproof(old as usize, so_far, true) };
            assert_eq!(proof, expected, "{old} to {size}");
            assert_eq!(check_consistency(head(old, &memory).unwrap(), now, &proof), Ok(()), "{old} to {size}");
        }
    }
}

#[test]
fn what_does_not_exist_is_not_proven() {
    let memory = Memory::sized(5);
    assert_eq!(inclusion(5, 5, &memory), Err(ProofError::Index { index: 5, size: 5 }.into()));
    assert_eq!(consistency(6, 5, &memory), Err(ProofError::Backwards { old: 6, new: 5 }.into()));
    assert!(matches!(inclusion(2, 8, &memory), Err(MakeError::Read(_))));
    assert_eq!(inclusion_parts(0, 0), Err(ProofError::Index { index: 0, size: 0 }));
    assert_eq!(parts((0, SIZE_MAX)).len(), PROOF_MAX);
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Inclusion {
    leaf_idx: u64,
    tree_size: u64,
    root: String,
    leaf_hash: String,
    proof: Option<Vec<String>>,
    want_err: bool,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Consistency {
    size1: u64,
    size2: u64,
    root1: String,
    root2: String,
    proof: Option<Vec<String>>,
    want_err: bool,
    name: String,
}

/// Gives the 32 bytes. Some vectors hold shorter words on purpose, for which another value stands; for one without any bytes
/// our type has none at all.
fn hash(text: &str) -> Option<Sha256> {
    let bytes = STANDARD.decode(text).unwrap();
    let word = || (!bytes.is_empty()).then(|| leaf(&bytes));
    bytes.as_slice().try_into().map_or_else(|_| word(), |bytes| Some(Sha256::from_bytes(bytes)))
}

fn hashes(texts: &Option<Vec<String>>) -> Option<Vec<Sha256>> {
    texts.iter().flatten().map(|text| hash(text)).collect()
}

#[test]
fn published_inclusion_vectors() {
    let vectors = include_str!("../../../../fixtures/log/rfc6962-inclusion.json");
    let vectors: Vec<Inclusion> = serde_json::from_str(vectors).unwrap();
    assert_eq!(vectors.len(), 98);
    for vector in vectors {
        let accepted = || {
            let head = Head { size: vector.tree_size, root: hash(&vector.root)? };
            check_inclusion(hash(&vector.leaf_hash)?, vector.leaf_idx, head, &hashes(&vector.proof)?).ok()
        };
        assert_eq!(accepted().is_none(), vector.want_err, "{}", vector.name);
    }
}

#[test]
fn published_consistency_vectors() {
    let vectors = include_str!("../../../../fixtures/log/rfc6962-consistency.json");
    let vectors: Vec<Consistency> = serde_json::from_str(vectors).unwrap();
    assert_eq!(vectors.len(), 98);
    // The vectors call every proof from the empty tree an error; tlog-witness asks for exactly that, with an empty proof.
    let differ = vectors.into_iter().filter(|vector| {
        let accepted = || {
            let old = Head { size: vector.size1, root: hash(&vector.root1)? };
            let new = Head { size: vector.size2, root: hash(&vector.root2)? };
            check_consistency(old, new, &hashes(&vector.proof)?).ok()
        };
        accepted().is_none() != vector.want_err
    });
    let differ: Vec<String> = differ.map(|vector| vector.name).collect();
    assert_eq!(differ, ["consistency/additional/size1-is-zero-and-size2-is-not-zero"]);
}

/// The root that a fork shows is found by its own proof, where the proof says it: that is what convicts it.
#[test]
fn a_forks_own_proof_shows_its_past() {
    let (honest, fork) = (Memory::sized(6), Memory::forked(9, 2));
    let (old, new) = (head(6, &honest).unwrap(), head(9, &fork).unwrap());
    let proof = consistency(6, 9, &fork).unwrap();
    assert_eq!(check_consistency(old, new, &proof), Err(ProofError::Root { size: 6 }));
    assert_eq!(prefix(old, new, &proof), Ok(head(6, &fork).unwrap().root));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Invariant: a proof proves one entry at one place of one tree. Whatever is changed, it proves nothing.
    #[test]
    fn a_changed_proof_proves_nothing(size in 1..600u64, at in any::<u64>(), change in 0..7u8, bit in 0..256usize) {
        let (memory, index) = (Memory::sized(size), at % size);
        let all = hashes_of(&memory);
        let mut now = head(size, &memory).unwrap();
        let (mut entry, mut place) = (all[index as usize], index);
        let mut proof = inclusion(index, size, &memory).unwrap();
        prop_assert!(check_inclusion(entry, index, now, &proof).is_ok());
        let flip = |hash: Sha256| {
            let mut bytes = *hash.as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            Sha256::from_bytes(bytes)
        };
        match change {
            0 => entry = flip(entry),
            1 => now.root = flip(now.root),
            2 => proof.push(flip(entry)),
            3 if !proof.is_empty() => drop(proof.pop()),
            4 if !proof.is_empty() => { let at = bit % proof.len(); proof[at] = flip(proof[at]) }
            5 if size > 1 => place = (index + 1 + at % (size - 1)) % size,
            _ => proof.insert(0, flip(entry)),
        }
        prop_assert!(check_inclusion(entry, place, now, &proof).is_err());
    }

    /// Invariant: a log that changed one entry continues no log that had the other.
    #[test]
    fn a_changed_past_is_never_consistent(size in 2..400u64, at in any::<u64>(), which in any::<u64>()) {
        let old = 1 + at % (size - 1);
        let (honest, fork) = (Memory::sized(size), Memory::forked(size, which % old));
        let heads = |memory: &Memory| (head(old, memory).unwrap(), head(size, memory).unwrap());
        let ((before, after), (_, forged)) = (heads(&honest), heads(&fork));
        for proof in [consistency(old, size, &honest).unwrap(), consistency(old, size, &fork).unwrap()] {
            prop_assert!(check_consistency(before, forged, &proof).is_err());
        }
        prop_assert!(check_consistency(before, after, &consistency(old, size, &honest).unwrap()).is_ok());
    }
}
