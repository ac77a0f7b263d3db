//! RPM's order of versions (`rpmio/rpmvercmp.c`): it decides which of two packages of one name stays.

use std::cmp::Ordering;

use protocol::words::DebVersion;

use crate::publish::version::{compare_numbers, take};

/// Compares two `[epoch:]version-release` as rpm does.
pub fn compare(a: &DebVersion, b: &DebVersion) -> Ordering {
    let (a, b) = (Evr::of(a), Evr::of(b));
    compare_numbers(a.epoch, b.epoch)
        .then_with(|| compare_part(a.version, b.version))
        .then_with(|| compare_part(a.release, b.release))
}

/// The parts of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evr<'a> {
    /// The epoch, `0` where there is none.
    pub epoch: &'a str,
    /// The version.
    pub version: &'a str,
    /// The release, empty where there is none.
    pub release: &'a str,
}

impl<'a> Evr<'a> {
    /// Takes a version apart.
    pub fn of(version: &'a DebVersion) -> Self {
        Self::parse(version.as_str())
    }

    /// Takes the text of a version apart.
    pub fn parse(text: &'a str) -> Self {
        let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
        let (version, release) = rest.rsplit_once('-').unwrap_or((rest, ""));
        Self { epoch, version, release }
    }
}

/// Compares versions or releases: segments of digits or of letters; what else there is separates them.
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    loop {
        let begins = |text: &str| text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '~' || c == '^');
        while !a.is_empty() && !begins(a) {
            a = &a[1..];
        }
        while !b.is_empty() && !begins(b) {
            b = &b[1..];
        }
        match (a.strip_prefix('~'), b.strip_prefix('~')) {
            (Some(rest_a), Some(rest_b)) => {
                (a, b) = (rest_a, rest_b);
                continue;
            }
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => {}
        }
        match (a.strip_prefix('^'), b.strip_prefix('^')) {
            (Some(rest_a), Some(rest_b)) => {
                (a, b) = (rest_a, rest_b);
                continue;
            }
            // A caret comes after the end and before anything else.
            (Some(_), None) => return if b.is_empty() { Ordering::Greater } else { Ordering::Less },
            (None, Some(_)) => return if a.is_empty() { Ordering::Less } else { Ordering::Greater },
            (None, None) => {}
        }
        if a.is_empty() || b.is_empty() {
            return a.len().cmp(&b.len());
        }
        let digits = a.starts_with(|c: char| c.is_ascii_digit());
        let (one, other) = (segment(&mut a, digits), segment(&mut b, digits));
        if other.is_empty() {
            // A number is newer than letters.
            return if digits { Ordering::Greater } else { Ordering::Less };
        }
        let order = if digits { compare_numbers(one, other) } else { one.cmp(other) };
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn segment<'a>(text: &mut &'a str, digits: bool) -> &'a str {
    take(text, |c| if digits { c.is_ascii_digit() } else { c.is_ascii_alphabetic() })
}

#[cfg(test)]
mod tests;
