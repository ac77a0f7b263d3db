//! A transparency log in memory, for tests: its tree, its entries and its key.

use std::collections::BTreeMap;

use protocol::{
    ChannelName, Hash, PublicKey, Sha256, Timestamp,
    lease::{LeaseNumber, Profile},
    message::Octets,
    testing::{node, public_key, signing_key},
};

use crate::log::{
    checkpoint::{Signed, Verified},
    entry::{self, End, Entry, Event, Judgement},
    note::{Algorithm, VerifierKey},
    tile::{self, Resource, Slice, Tile},
    tree::{self, Edge, Head, Subtree, Subtrees},
};

/// The origin of the sample log.
pub const ORIGIN: &str = "artel.example/log";
/// The seed of the sample log's key, see `protocol::testing::signing_key`.
pub const SEED: u8 = 101;

/// A log with all its entries.
#[derive(Default)]
pub struct Memory {
    entries: Vec<Vec<u8>>,
    hashes: BTreeMap<Subtree, Sha256>,
    edge: Edge,
}

impl Memory {
    /// Gives a log of these entries.
    pub fn of(entries: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut log = Self::default();
        entries.into_iter().for_each(|entry| log.append(entry));
        log
    }

    /// Gives a log of small entries, each another one.
    pub fn sized(size: u64) -> Self {
        Self::of((0..size).map(|at| format!("entry {at}").into_bytes()))
    }

    /// As [`Memory::sized`], with another entry at one place.
    pub fn forked(size: u64, at: u64) -> Self {
        let entry = |place| if place == at { b"forged".to_vec() } else { format!("entry {place}").into_bytes() };
        Self::of((0..size).map(entry))
    }

    /// Appends an entry.
    pub fn append(&mut self, entry: Vec<u8>) {
        self.hashes.extend(self.edge.append(tree::leaf(&entry)));
        self.entries.push(entry);
    }

    /// Gives the entries.
    pub fn entries(&self) -> &[Vec<u8>] {
        &self.entries
    }

    /// Gives the head that the log had at a size.
    pub fn head(&self, size: u64) -> Head {
        tree::head(size, self).expect("the log was that large")
    }

    /// Gives the checkpoint that the log signs at a size.
    pub fn checkpoint(&self, size: u64) -> Verified {
        signed(ORIGIN, self.head(size))
    }

    /// Gives everything that the log serves at a size, by path below its prefix.
    pub fn files(&self, size: u64) -> BTreeMap<String, Vec<u8>> {
        let checkpoint = self.checkpoint(size).as_signed().to_string().into_bytes();
        let tiles = Tile::added(0, size).map(|tile| (Resource::Tile(tile), self.tile(tile)));
        let bundles = tile::bundles_added(0, size).map(|slice| (Resource::Entries(slice), self.bundle(slice)));
        let all = tiles.chain(bundles).chain([(Resource::Checkpoint, checkpoint)]);
        all.map(|(resource, bytes)| (resource.to_string(), bytes)).collect()
    }

    /// Gives the bytes of a tile.
    pub fn tile(&self, tile: Tile) -> Vec<u8> {
        tile.bytes(self).expect("the log was that large")
    }

    /// Gives the bytes of an entry bundle.
    pub fn bundle(&self, slice: Slice) -> Vec<u8> {
        let entries = self.entries.iter().skip(slice.first() as usize).take(slice.width() as usize);
        tile::write_bundle(entries.map(Vec::as_slice)).expect("sample entries are short")
    }
}

impl Subtrees for Memory {
    type Error = Subtree;

    fn hash(&self, subtree: Subtree) -> Result<Sha256, Subtree> {
        self.hashes.get(&subtree).copied().ok_or(subtree)
    }
}

/// Gives a head signed as a log of this origin by the sample key.
pub fn signed(origin: &str, head: Head) -> Verified {
    let name = origin.parse().expect("a sample origin is a key name");
    Signed::sign(&name, head, &signing_key(SEED)).verify(&[log_key(origin)]).expect("it was just signed")
}

/// Gives the sample log's key under this origin.
pub fn log_key(origin: &str) -> VerifierKey {
    key(origin, Algorithm::Ed25519, public_key(SEED))
}

/// Gives the key of a sample witness.
pub fn witness_key(seed: u8) -> VerifierKey {
    key(&format!("witness.example/{seed}"), Algorithm::Cosignature, public_key(seed))
}

fn key(name: &str, algorithm: Algorithm, key: PublicKey) -> VerifierKey {
    VerifierKey::new(name.parse().expect("a sample name is a key name"), algorithm, key)
}

/// Gives an entry of every kind, outcomes and verdicts of every kind included.
pub fn entries() -> Vec<Entry> {
    let (job, lease, node) = (Hash::of(b"job").into(), LeaseNumber(7), node(11));
    let envelope = Hash::of(b"envelope");
    let channel = ChannelName::new("stable").expect("a sample is valid");
    let mut events = vec![
        Event::Policy(entry::Policy { number: 1, envelope }),
        Event::Accepted(entry::Accepted { job, envelope }),
        Event::Lease(entry::Lease { job, node, lease, profile: Profile(2) }),
        Event::Commitment(entry::Commitment {
            job,
            node,
            lease,
            digest: Hash::of(b"salt and attestation"),
            signature: None,
        }),
        Event::Release(entry::Release { channel, envelope, generation: 3 }),
        Event::Revocation(entry::Revocation { key: public_key(9), from: 40, envelope }),
    ];
    let ends = [End::Built(Hash::of(b"attestation")), End::Failed(Hash::of(b"report")), End::Lost];
    events.extend(ends.map(|end| Event::Outcome(entry::Outcome { job, end, node, lease })));
    let verdicts = [Judgement::Reproduced, Judgement::Disputed, Judgement::Unreproducible, Judgement::Failed];
    let attestations = vec![Hash::from_bytes([1; 32]), Hash::from_bytes([2; 32])];
    events.extend(
        verdicts.map(|verdict| Event::Verdict(entry::Verdict { job, verdict, attestations: attestations.clone() })),
    );
    let bound = entry::Commitment { job, node, lease, digest: Hash::of(b"salt and attestation"), signature: None };
    events.push(Event::Commitment(entry::Commitment { signature: Some(Octets(vec![5; 64])), ..bound }));
    events.push(Event::Outcome(entry::Outcome { job, end: End::Withheld, node, lease }));
    events.push(Event::Outcome(entry::Outcome { job, end: End::Stopped(Hash::of(b"report")), node, lease }));
    let times = (0..).map(|at| Timestamp::from_millis(1_700_000_000_000 + at));
    times.zip(events).map(|(at, event)| Entry { at, event }).collect()
}
