//! Seeded chance, and the counts of what chance brought.

use std::{collections::BTreeMap, ops::Range, time::Duration};

/// A small generator (splitmix64): the same seed gives the same schedule.
#[derive(Clone, Debug)]
pub(in crate::consensus) struct Dice(u64);

impl Dice {
    pub(in crate::consensus) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(in crate::consensus) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(in crate::consensus) fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start).max(1)
    }

    pub(in crate::consensus) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.within(0..length as u64)).expect("below a usize")
    }

    pub(in crate::consensus) fn percent(&mut self, chance: u64) -> bool {
        self.within(0..100) < chance
    }

    pub(in crate::consensus) fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    pub(in crate::consensus) fn micros(&mut self, range: Range<u64>) -> Duration {
        Duration::from_micros(self.within(range))
    }

    pub(in crate::consensus) fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.index(from.len())].clone()) }
    }
}

/// How often each kind of fault happened.
#[derive(Clone, Debug, Default)]
pub(in crate::consensus) struct Counts(pub(in crate::consensus) BTreeMap<&'static str, u64>);

impl Counts {
    pub(in crate::consensus) fn hit(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(in crate::consensus) fn add(&mut self, other: &Counts) {
        for (what, times) in &other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }
}
