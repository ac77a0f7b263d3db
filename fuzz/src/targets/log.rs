//! The transparency log, and what others say of it.

use std::collections::BTreeMap;

use attest::{
    log::{
        checkpoint::{Checkpoint, Signed},
        conflict::{CONFLICT_MAX, Conflict},
        entry::{self, Entry},
        note::{NOTE_MAX, Note, VerifierKey},
        policy::{POLICY_MAX, Policy},
        proof::{self, Proof},
        story::Story,
        tile::{self, Resource, Tile, View, read_bundle, write_bundle},
        tree::{self, Head},
        witness::{REQUEST_MAX, Request, decide},
    },
    testing::log::{Memory, ORIGIN, log_key, witness_key},
};
use protocol::Sha256;

use super::same_text;
use crate::{Target, limit};

/// Signed notes, and the keys that they are checked with.
pub const NOTE: Target = Target {
    name: "note",
    limit: NOTE_MAX + 512,
    run: |bytes| {
        let (key, note) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        let key = str::from_utf8(key).ok().and_then(|key| key.strip_suffix('\n'));
        let key = key.and_then(|key| same_text(key.parse::<VerifierKey>(), key.as_bytes()));
        let mut read = false;
        for note in [bytes, note] {
            if let Some(note) = same_text(Note::read(note), note) {
                let _ = note.signers(key.as_slice());
                read = true;
            }
        }
        read
    },
};

/// Checkpoints.
pub const CHECKPOINT: Target = Target {
    name: "checkpoint",
    limit: NOTE_MAX,
    run: |bytes| {
        let text = str::from_utf8(bytes).ok().and_then(|text| same_text(Checkpoint::read(text), bytes));
        let Some(signed) = same_text(Signed::read(bytes), bytes) else { return text.is_some() };
        if let Ok(verified) = signed.verify(&[log_key(ORIGIN)]) {
            let _ = verified.cosigners(&[witness_key(5)]);
            let _ = str::from_utf8(bytes).map(|text| verified.with_answer(text, &[witness_key(5)]));
        }
        true
    },
};

/// Paths of tiled logs, and entry bundles: a path, a newline, the bytes.
pub const TILE: Target = Target {
    name: "tile",
    limit: limit(tile::BUNDLE_MAX),
    run: |bytes| {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return false };
        let Ok(path) = str::from_utf8(&bytes[..end]) else { return false };
        let content = &bytes[end + 1..];
        match same_text(path.parse::<Resource>(), path.as_bytes()) {
            Some(Resource::Entries(slice)) => {
                let Ok(entries) = read_bundle(slice, content) else { return false };
                assert_eq!(entries.len() as u64, slice.width());
                assert_eq!(write_bundle(entries).as_deref(), Ok(content));
                true
            }
            Some(Resource::Tile(tile)) => {
                let Ok(hashes) = tile.hashes(content) else { return false };
                assert_eq!(hashes.len() * 32, content.len());
                true
            }
            Some(Resource::Checkpoint) => true,
            None => false,
        }
    },
};

/// Proofs of the tree, and tiles that somebody chose: two sizes, a place, and hashes or tiles.
pub const TREE: Target = Target {
    name: "tree",
    limit: 24 + 32 * 200,
    run: |bytes| {
        let Some((numbers, rest)) = bytes.split_first_chunk::<24>() else { return false };
        let [old, new, index] =
            [0, 8, 16].map(|at| u64::from_be_bytes(*numbers[at..].first_chunk().expect("24 bytes")));
        let hashes: Vec<Sha256> = rest.as_chunks().0.iter().copied().map(Sha256::from_bytes).collect();
        let root = hashes.first().copied().unwrap_or(Head::empty().root);
        let proof = hashes.get(1..).unwrap_or_default();
        let _ = tree::check_inclusion(root, index, Head { size: new, root }, proof);
        let _ = tree::prefix(Head { size: old, root }, Head { size: new, root }, proof);
        let _ = tile::for_inclusion(index, new).map(|tiles| assert!(tiles.len() < 32));
        let _ = tile::for_consistency(old, new);
        // One byte of one tile of a true log is changed: no view comes of it.
        let size = new % 700;
        let log = LOG.with(Clone::clone);
        let mut tiles: BTreeMap<Tile, Vec<u8>> = Tile::added(0, size).map(|tile| (tile, log.tile(tile))).collect();
        assert!(View::new(log.head(size), &tiles).is_ok());
        let Some((tile, bytes)) = tiles.iter_mut().nth((index % 5) as usize) else { return true };
        let (tile, at) = (*tile, (old % bytes.len() as u64) as usize);
        bytes[at] ^= (old >> 56) as u8 | 1;
        assert!(View::new(log.head(size), &tiles).is_err(), "{tile}");
        true
    },
};

thread_local! {
    static LOG: std::rc::Rc<Memory> = std::rc::Rc::new(Memory::sized(700));
}

/// Proofs beside files.
pub const PROOF: Target = Target {
    name: "proof",
    limit: proof::FILE_MAX,
    run: |bytes| {
        let Some(proof) = same_text(Proof::read(bytes), bytes) else { return false };
        let text = format!("log {}\nwitness w {}\nquorum w\n", log_key(ORIGIN), witness_key(5));
        let policy = Policy::read(text.as_bytes()).expect("the policy is a sample");
        let _ = proof.entry(&policy);
        let _ = proof.check(b"entry", &policy);
        true
    },
};

/// Policies of transparency logs.
pub const LOG_POLICY: Target = Target {
    name: "policy",
    limit: POLICY_MAX,
    run: |bytes| {
        let Ok(policy) = Policy::read(bytes) else { return false };
        let _ = policy.check(Memory::sized(3).checkpoint(3).as_signed().clone());
        true
    },
};

/// Requests to a witness, and what it decides.
pub const WITNESS: Target = Target {
    name: "witness",
    limit: REQUEST_MAX,
    run: |bytes| {
        let Some(request) = same_text(Request::read(bytes), bytes) else { return false };
        let latest = Memory::sized(21).checkpoint(21);
        for latest in [None, Some(latest.as_signed())] {
            if let Err(refusal) = decide(&request, &[log_key(ORIGIN)], latest) {
                assert!([400, 403, 409, 422].contains(&refusal.status()));
            }
        }
        true
    },
};

/// Evidence against a log.
pub const CONVICTING: Target = Target {
    name: "conflict",
    limit: CONFLICT_MAX,
    run: |bytes| {
        let Ok(conflict) = Conflict::from_bytes(bytes) else { return false };
        assert_eq!(conflict.to_bytes(), bytes);
        let _ = conflict.convicts(&[log_key(ORIGIN)]);
        true
    },
};

/// Entries of the log.
pub const ENTRY: Target = Target {
    name: "entry",
    limit: entry::ENTRY_MAX,
    run: |bytes| {
        let Ok(entry) = Entry::from_bytes(bytes) else { return false };
        assert_eq!(entry.to_bytes(), bytes);
        true
    },
};

/// Entries of a story at most.
const STORY_ENTRIES: usize = 4096;

/// Entries one after the other, each with its length before it, as a reader follows them; and where a reader was.
pub const STORY: Target = Target {
    name: "story",
    limit: limit(usize::MAX),
    run: |bytes| {
        let (mut rest, mut story, mut read) = (bytes, Story::default(), false);
        // A reader stops at the first entry that is none; here others follow, but no million of them.
        for _ in 0..STORY_ENTRIES {
            let Some((length, more)) = rest.split_first_chunk::<2>() else { break };
            let (entry, behind) = more.split_at(more.len().min(u16::from_be_bytes(*length).into()));
            rest = behind;
            if let Ok(entry) = Entry::from_bytes(entry) {
                read |= story.read(&entry).is_ok();
            }
        }
        let kept = story.to_bytes();
        assert_eq!(Story::from_bytes(&kept).as_ref(), Ok(&story));
        let _ = (story.waiting(), story.open().count());
        if let Ok(kept) = Story::from_bytes(bytes) {
            assert_eq!(kept.to_bytes(), bytes);
            read = true;
        }
        read
    },
};
