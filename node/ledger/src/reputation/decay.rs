//! A count that halves every day, in integers: the same on every member. It reads no clock.

use protocol::Timestamp;
use serde::{Deserialize, Serialize};

/// One event.
pub(crate) const ONE: u64 = 1 << 16;
/// An hour, in milliseconds.
const HOUR: u64 = 3_600_000;
/// 2^(-h/24) for each hour h of a day, in parts of [`ONE`].
const AFTER_HOURS: [u64; 25] = [
    65536, 63670, 61858, 60097, 58386, 56724, 55109, 53540, 52016, 50535, 49097, 47699, 46341, 45022, 43740, 42495,
    41285, 40110, 38968, 37859, 36781, 35734, 34716, 33728, 32768,
];

/// A number of events, each of which counts half a day later, a quarter after two, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decaying {
    /// When the units were counted.
    at: Option<Timestamp>,
    /// Parts of [`ONE`] at that time.
    units: u64,
}

impl Decaying {
    /// Gives what is left at `now`, in parts of [`ONE`]. Before the last event nothing decays.
    pub(crate) fn read(&self, now: Timestamp) -> u64 {
        let Some(at) = self.at else { return 0 };
        let passed = now.as_millis().saturating_sub(at.as_millis());
        let (hours, rest) = (passed / HOUR, passed % HOUR);
        let days = u32::try_from(hours / 24).unwrap_or(u32::MAX);
        let hour = usize::try_from(hours % 24).expect("below 24");
        let (from, to) = (AFTER_HOURS[hour], AFTER_HOURS[hour + 1]);
        let factor = from - (from - to) * rest / HOUR;
        (self.units.checked_shr(days).unwrap_or(0) * factor) / ONE
    }

    /// Counts one event more.
    pub(crate) fn add(&mut self, now: Timestamp) {
        // At most as much as a busy builder can do, so that the arithmetic never overflows.
        self.units = (self.read(now) + ONE).min(ONE << 24);
        self.at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000_000 + hours * HOUR)
    }

    #[test]
    fn a_count_halves_every_day_and_never_grows_by_waiting() {
        let mut count = Decaying::default();
        assert_eq!(count.read(at(0)), 0);
        (0..4).for_each(|_| count.add(at(0)));
        let table = [(0, 4 * ONE), (24, 2 * ONE), (48, ONE), (72, ONE / 2), (24 * 100, 0)];
        for (hours, left) in table {
            assert_eq!(count.read(at(hours)), left, "after {hours} h");
        }
        let steps: Vec<_> = (0..200).map(|hours| count.read(at(hours))).collect();
        assert!(steps.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn a_clock_that_is_set_back_changes_nothing() {
        let mut count = Decaying::default();
        count.add(at(100));
        assert_eq!(count.read(at(0)), ONE);
        count.add(at(0));
        assert_eq!(count.read(at(0)), 2 * ONE);
    }
}
