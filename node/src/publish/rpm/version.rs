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
mod tests {
    use std::process::Command;

    use proptest::{
        strategy::{Strategy, ValueTree},
        test_runner::TestRunner,
    };

    use super::*;

    fn version(text: &str) -> DebVersion {
        DebVersion::new(text).unwrap()
    }

    #[test]
    fn the_order_of_rpms_own_tests() {
        for (low, high) in [
            ("1.0", "2.0"),
            ("2.0.1", "2.0.1a"),
            ("5.5p1", "5.5p10"),
            ("10xyz", "10.1xyz"),
            ("xyz.4", "8"),
            ("5.5p2", "5.6p1"),
            ("6.0", "6.0.rc1"),
            ("1.0~rc1", "1.0"),
            ("1.0", "1.0^"),
            ("1.0^git1", "1.01"),
            ("1.0~rc1", "1.0~rc1^git1"),
            ("1.0^git1~pre", "1.0^git1"),
            ("9-1", "1:1-1"),
            ("1-1", "1-2"),
        ] {
            assert_eq!(compare(&version(low), &version(high)), Ordering::Less, "{low} {high}");
            assert_eq!(compare(&version(high), &version(low)), Ordering::Greater, "{high} {low}");
        }
        assert_eq!(compare(&version("0:2_0"), &version("2.0")), Ordering::Equal);
    }

    /// Each pair is near: the second is the first with one edit, which is where orders differ.
    #[test]
    fn rpm_says_the_same_of_generated_pairs() {
        if Command::new("rpm").arg("--version").output().is_err() {
            eprintln!("skipped: rpm is not installed");
            return;
        }
        let mut runner = TestRunner::deterministic();
        let text = "[0-9][0-9a-cA-B.+~^_]{0,8}";
        let pairs = (text, text, 0..3u8, 0..8usize, "[0-9a~^+._]");
        let mut script = String::new();
        for _ in 0..3000 {
            let (a, other, how, at, insert) = pairs.new_tree(&mut runner).unwrap().current();
            let mut b = a.clone();
            match how {
                0 => b = other,
                1 => b.insert_str(at.min(b.len()), &insert),
                _ => drop(b.remove(at.min(b.len() - 1))),
            }
            if b.is_empty() {
                continue;
            }
            let order = compare_part(&a, &b) as i8;
            script += &format!("if rpm.vercmp('{a}', '{b}') ~= {order} then print('{a} {b} is not {order}') end ");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.lua");
        std::fs::write(&path, format!("{script} print('end')")).unwrap();
        let run = format!("%{{lua: dofile('{}')}}", path.display());
        let out = Command::new("rpm").args(["--eval", &run]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "end", "{}", String::from_utf8_lossy(&out.stderr));
    }
}
