//! Times, spans and lists as sentences have them. It knows nothing of jobs.

use std::time::Duration;

use protocol::Timestamp;

const DAY_SECS: u64 = 86_400;

/// Writes an instant to the minute: `2026-11-21 14:00 UTC`.
pub(super) fn time(at: Timestamp) -> String {
    let (days, rest) = (at.as_secs() / DAY_SECS, at.as_secs() % DAY_SECS);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", rest / 3600, rest % 3600 / 60)
}

/// Gives year, month and day of a day since 1970-01-01, in the Gregorian calendar.
///
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`: eras of 400 years that begin in March.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_based = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_based + 2) / 5 + 1;
    let month = if march_based < 10 { march_based + 3 } else { march_based - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// Writes a span as people say it: `45 s`, `4 min`, `2 h`, `3 d`.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..90 => format!("{} s", seconds.max(1)),
        90..5400 => format!("{} min", (seconds + 30) / 60),
        5400..129_600 => format!("{} h", (seconds + 1800) / 3600),
        _ => format!("{} d", (seconds + DAY_SECS / 2) / DAY_SECS),
    }
}

/// Writes memory: `512 MiB`, `16 GiB`.
pub(super) fn memory(mib: u32) -> String {
    if mib >= 1024 && mib.is_multiple_of(1024) { format!("{} GiB", mib / 1024) } else { format!("{mib} MiB") }
}

/// Counts things: `1 job`, `12 jobs`.
pub(super) fn count(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let table = [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_340, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_795_269_600, "2026-11-21 14:00 UTC"),
            (4_107_542_399, "2100-02-28 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ];
        for (seconds, text) in table {
            assert_eq!(time(Timestamp::from_millis(seconds * 1000)), text);
        }
    }

    #[test]
    fn spans_and_sizes_read_well() {
        let table = [(0, "1 s"), (45, "45 s"), (240, "4 min"), (7200, "2 h"), (259_200, "3 d")];
        for (seconds, text) in table {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!((memory(65_536), memory(1500)), ("64 GiB".to_owned(), "1500 MiB".to_owned()));
        assert_eq!((count(1, "job"), count(12, "job")), ("1 job".to_owned(), "12 jobs".to_owned()));
    }
}
