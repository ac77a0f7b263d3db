//! The one place that reads the clock. Everything else takes the time as an argument.

use jiff::tz::TimeZone;
use protocol::Timestamp;

/// Gives the wall-clock time.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Writes a time for people and JSON: RFC 3339 in UTC, to the second.
pub fn rfc3339(at: Timestamp) -> String {
    let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) => time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => format!("@{seconds}"),
    }
}

/// Reads a time as people write it: RFC 3339.
///
/// # Errors
/// A sentence fragment that shows the form.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    let time: jiff::Timestamp =
        text.parse().map_err(|_| format!("{text:?} is not a time; write it as 2027-01-31T00:00:00Z"))?;
    let millis = u64::try_from(time.as_millisecond()).map_err(|_| format!("{text:?} lies before 1970"))?;
    Ok(Timestamp::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_trip() {
        let at = parse("2026-11-21T01:02:03Z").unwrap();
        assert_eq!(rfc3339(at), "2026-11-21T01:02:03Z");
        assert!(parse("yesterday").unwrap_err().contains("2027-01-31"));
    }
}
