//! Debian's order of versions. It decides which of two packages of one name stays.
//!
//! The parts come from the crate `debversion`; the comparison is dpkg's `verrevcmp` (lib/dpkg/version.c), because the crate
//! puts an absent number before 0 (`2~` before `2~0`), which dpkg calls equal.

use std::cmp::Ordering;

use protocol::words::DebVersion;

/// The largest epoch that dpkg accepts.
const EPOCH_MAX: u32 = i32::MAX as u32;

/// A version that the order cannot place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version {version} has no place in Debian's order: {why}")]
pub struct Error {
    version: DebVersion,
    why: String,
}

/// A version with its parts apart, ready to be compared.
#[derive(Debug, Clone)]
pub struct Ordered(debversion::Version);

impl Ordered {
    /// Takes a version apart.
    ///
    /// # Errors
    /// An epoch beyond what dpkg accepts, or an upstream version or a revision that dpkg warns of.
    pub fn new(version: &DebVersion) -> Result<Self, Error> {
        let refuse = |why: String| Error { version: version.clone(), why };
        let parsed: debversion::Version = version.as_str().parse().map_err(|e| refuse(format!("{e}")))?;
        if parsed.epoch.is_some_and(|epoch| epoch > EPOCH_MAX) {
            return Err(refuse("the epoch is too large".into()));
        }
        if version.as_str().ends_with('-') {
            return Err(refuse("the revision is empty".into()));
        }
        if !parsed.upstream_version.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(refuse("the upstream version does not begin with a digit".into()));
        }
        // The crate takes such a revision for a part of the upstream version; dpkg splits at the last hyphen.
        if version.as_str().rsplit_once('-').is_some_and(|(_, revision)| revision.contains(':')) {
            return Err(refuse("the revision has a colon".into()));
        }
        Ok(Self(parsed))
    }
}

impl Ordered {
    fn compare(&self, other: &Self) -> Ordering {
        let (a, b) = (&self.0, &other.0);
        let revision = |v: &debversion::Version| v.debian_revision.clone().unwrap_or_default();
        a.epoch
            .unwrap_or(0)
            .cmp(&b.epoch.unwrap_or(0))
            .then_with(|| compare_part(&a.upstream_version, &b.upstream_version))
            .then_with(|| compare_part(&revision(a), &revision(b)))
    }
}

/// Compares upstream versions or revisions: text and numbers in turns.
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (text_a, text_b) = (take(&mut a, |c| !c.is_ascii_digit()), take(&mut b, |c| !c.is_ascii_digit()));
        let (number_a, number_b) = (take(&mut a, |c| c.is_ascii_digit()), take(&mut b, |c| c.is_ascii_digit()));
        let order = compare_text(text_a, text_b).then_with(|| compare_numbers(number_a, number_b));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// Takes the characters that belong together off the front.
pub(in crate::publish) fn take<'a>(text: &mut &'a str, belongs: impl Fn(char) -> bool) -> &'a str {
    let (head, tail) = text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()));
    *text = tail;
    head
}

/// Compares numbers of any length, written in digits.
pub(in crate::publish) fn compare_numbers(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// A tilde comes before the end, the end before letters, letters before everything else.
fn compare_text(a: &str, b: &str) -> Ordering {
    let weight = |text: &str, at: usize| match text.as_bytes().get(at) {
        None => 0,
        Some(b'~') => -1,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    };
    let places = 0..a.len().max(b.len());
    places.map(|at| weight(a, at).cmp(&weight(b, at))).find(|o| *o != Ordering::Equal).unwrap_or(Ordering::Equal)
}

/// Compares as `dpkg --compare-versions` does. A version that the order cannot place comes before every other.
pub fn compare(a: &DebVersion, b: &DebVersion) -> Ordering {
    match (Ordered::new(a), Ordered::new(b)) {
        (Ok(a), Ok(b)) => a.compare(&b),
        (Ok(_), Err(_)) => Ordering::Greater,
        (Err(_), Ok(_)) => Ordering::Less,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

/// Gives the version without its epoch, as file names carry it.
pub fn without_epoch(version: &DebVersion) -> &str {
    version.as_str().split_once(':').map_or(version.as_str(), |(_, rest)| rest)
}

#[cfg(test)]
pub(in crate::publish) mod tests;
