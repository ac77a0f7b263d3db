//! One spelling for instants: RFC 3339, UTC, milliseconds.

use std::{fmt, str::FromStr};

use protocol::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An instant as JSON and people read it, for instance `2026-11-21T01:30:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(Timestamp);

/// A text that is not an RFC 3339 instant after 1970.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an RFC 3339 instant, got {got:?}")]
pub struct ParseTimeError {
    got: String,
}

impl Time {
    /// Gives the instant.
    pub fn timestamp(self) -> Timestamp {
        self.0
    }

    /// Gives the date of an HTTP header (RFC 9110), in whole seconds.
    pub fn http_date(self) -> String {
        let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
        printer.timestamp_to_rfc9110_string(&self.jiff()).unwrap_or_default()
    }

    /// Reads the date of an HTTP header.
    pub fn from_http_date(text: &str) -> Option<Self> {
        let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
        let millis = u64::try_from(zoned.timestamp().as_millisecond()).ok()?;
        Some(Self(Timestamp::from_millis(millis)))
    }

    /// Gives day and minute, as pages show them: `2026-11-21 01:30`.
    pub fn minute(self) -> String {
        self.to_string().get(..16).unwrap_or_default().replacen('T', " ", 1)
    }

    /// Gives the time of the day, as pages show it: `01:30:00`.
    pub fn clock(self) -> String {
        self.to_string().get(11..19).unwrap_or_default().to_owned()
    }

    fn jiff(self) -> jiff::Timestamp {
        let millis = i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX);
        jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX)
    }
}

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.jiff())
    }
}

impl FromStr for Time {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        let instant = text.parse::<jiff::Timestamp>().ok();
        let millis = instant.and_then(|at| u64::try_from(at.as_millisecond()).ok());
        let wrong = || ParseTimeError { got: text.chars().take(40).collect() };
        millis.map(|at| Self(Timestamp::from_millis(at))).ok_or_else(wrong)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_round_trip_in_each_spelling() {
        let at = Time::from(Timestamp::from_millis(1_795_224_600_042));
        assert_eq!(at.to_string(), "2026-11-21T01:30:00.042Z");
        assert_eq!(at.to_string().parse(), Ok(at));
        assert_eq!(at.http_date(), "Sat, 21 Nov 2026 01:30:00 GMT");
        assert_eq!(Time::from_http_date(&at.http_date()).unwrap().timestamp().as_secs(), at.timestamp().as_secs());
        assert_eq!((at.minute().as_str(), at.clock().as_str()), ("2026-11-21 01:30", "01:30:00"));
        assert!("yesterday".parse::<Time>().is_err());
        assert!(Time::from(Timestamp::from_millis(u64::MAX)).to_string().starts_with("9999"));
    }
}
