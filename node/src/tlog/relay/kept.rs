//! Parts of the log that were fetched lately: they never change, so that whoever asks again costs nobody a question. It forgets what
//! was asked for least lately.

use std::collections::BTreeMap;

use attest::log::tile::Resource;
use bytes::Bytes;

/// Bytes that are kept.
pub(super) const BYTES_MAX: usize = 16 << 20;
/// What an entry costs beside its bytes.
const OVERHEAD: usize = 200;

/// Tiles and bundles by their path.
#[derive(Debug, Default)]
pub(super) struct Kept {
    parts: BTreeMap<Resource, (u64, Bytes)>,
    /// By the turn in which they were asked for last.
    turns: BTreeMap<u64, Resource>,
    turn: u64,
    bytes: usize,
}

impl Kept {
    /// Gives a part, and notes that it was asked for.
    pub(super) fn get(&mut self, part: &Resource) -> Option<Bytes> {
        let (turn, bytes) = self.parts.get_mut(part)?;
        self.turns.remove(turn);
        self.turn += 1;
        *turn = self.turn;
        self.turns.insert(self.turn, *part);
        Some(bytes.clone())
    }

    /// Keeps a part, and forgets others where there are too many bytes.
    pub(super) fn put(&mut self, part: Resource, bytes: &Bytes) {
        self.forget(&part);
        self.turn += 1;
        self.bytes += bytes.len() + OVERHEAD;
        self.parts.insert(part, (self.turn, bytes.clone()));
        self.turns.insert(self.turn, part);
        while self.bytes > BYTES_MAX
            && let Some((_, oldest)) = self.turns.first_key_value()
        {
            let oldest = *oldest;
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, part: &Resource) {
        if let Some((turn, bytes)) = self.parts.remove(part) {
            self.turns.remove(&turn);
            self.bytes -= bytes.len() + OVERHEAD;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(index: u32) -> Resource {
        let digits = format!("{index:09}");
        format!("tile/entries/x{}/x{}/{}", &digits[..3], &digits[3..6], &digits[6..]).parse().unwrap()
    }

    #[test]
    fn it_keeps_what_is_asked_for_and_no_more_than_its_bytes() {
        let (mut kept, large) = (Kept::default(), Bytes::from(vec![1; 1 << 20]));
        for index in 1_000_000..1_000_100 {
            kept.put(part(index), &large);
            assert!(kept.get(&part(1_000_000)).is_some(), "it is asked for again and again");
            assert!(kept.bytes <= BYTES_MAX);
        }
        assert!(kept.get(&part(1_000_001)).is_none() && kept.get(&part(1_000_099)).is_some());
        assert_eq!((kept.parts.len(), kept.turns.len()), (15, 15));
        kept.put(part(1_000_099), &Bytes::from_static(b"again"));
        assert_eq!(kept.get(&part(1_000_099)).unwrap(), "again");
        assert_eq!(kept.bytes, kept.parts.values().map(|(_, bytes)| bytes.len() + OVERHEAD).sum::<usize>());
    }
}
