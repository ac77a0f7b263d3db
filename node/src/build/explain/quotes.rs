//! Reads diffoscope's text: which lines differ, where, and which of the varied circumstances shows in them.
//!
//! ```text
//! --- left
//! +++ right
//! │   --- left/out                    <- a file
//! ├── +++ right/out
//! │ @@ -1 +1 @@
//! │ -built on artel                   <- the first attempt's line
//! │ +built on varied-host-1           <- the other's
//! ```
//! The text comes from a hostile build: it is only cut, compared and shown.

use std::collections::BTreeMap;

/// Lines of the text that are read.
const LINES_MAX: usize = 20_000;
/// Pairs of lines that are looked at.
const PAIRS_MAX: usize = 2_000;
/// Characters of one line that are kept.
const LINE_MAX: usize = 240;
/// How deep the names of a place may be nested.
const PLACES_MAX: usize = 32;
/// The shortest value that is looked for: shorter ones stand everywhere.
const VALUE_MIN: usize = 3;
/// Circumstances that are measured, or that a program hardly writes down.
const SILENT: [&str; 10] = [
    "cpu_seconds",
    "lint",
    "memory_peak_mib",
    "profile",
    "profile_name",
    "nice",
    "umask",
    "login_shell",
    "usrmerge",
    "cpu_count",
];
/// How a date is written.
const DATES: [&str; 10] =
    ["%Y-%m-%d", "%Y%m%d", "%d/%m/%Y", "%m/%d/%Y", "%e %B %Y", "%b %e", "%b %d", "%d %b", "%m/%d/%y", "%Y"];
/// How far apart the recorded time and one that a build wrote down may be, in seconds.
const NEAR_SECS: i64 = 12 * 3600;

/// What a builder told of its attempt.
pub type Told = BTreeMap<String, String>;

/// Two lines that stand for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What they are a part of.
    pub place: String,
    /// The first attempt's line.
    pub left: String,
    /// The other's; empty where it has none.
    pub right: String,
    /// The circumstance that shows in both; empty when none does.
    pub variation: String,
}

/// Reads every pair of lines, and names the circumstance that shows in each. Those that show one come first.
pub fn read(text: &str, left: &Told, right: &Told) -> Vec<Pair> {
    let signs = signs(left, right);
    let mut pairs = pairs(text);
    for pair in &mut pairs {
        let shown = signs.iter().find(|sign| sign.shows(&pair.left, &pair.right));
        pair.variation = shown.map(|sign| sign.key.clone()).unwrap_or_default();
    }
    pairs.sort_by_key(|pair| pair.variation.is_empty());
    pairs
}

/// Takes diffoscope's frame off a line, and gives how deep it was.
fn unframed(line: &str) -> (usize, &str) {
    let (mut rest, mut depth) = (line, 0);
    while let Some(inner) = rest.strip_prefix("│ ").or_else(|| rest.strip_prefix("│")) {
        (rest, depth) = (inner, depth + 1);
    }
    (depth, rest)
}

/// Finds the lines that differ, with the names of what they are in.
fn pairs(text: &str) -> Vec<Pair> {
    let mut found = Vec::new();
    let mut places: Vec<(usize, String)> = Vec::new();
    let (mut minus, mut plus): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for line in text.lines().take(LINES_MAX) {
        let (depth, content) = unframed(line);
        match content.as_bytes() {
            [b'-', rest @ ..] if !rest.starts_with(b"-- ") => {
                if !plus.is_empty() {
                    put(&mut found, &places, (&mut minus, &mut plus));
                }
                minus.push(&content[1..]);
            }
            [b'+', rest @ ..] if !rest.starts_with(b"++ ") => plus.push(&content[1..]),
            _ => {
                put(&mut found, &places, (&mut minus, &mut plus));
                // A line of a file has a blank, a plus or a minus before it, whatever it looks like.
                if let Some(name) = content.strip_prefix("├── ") {
                    let name = name.strip_prefix("+++ right/").unwrap_or(name);
                    places.retain(|(above, _)| *above < depth);
                    places.truncate(PLACES_MAX);
                    places.push((depth, cut(name)));
                }
            }
        }
        if found.len() >= PAIRS_MAX {
            break;
        }
    }
    put(&mut found, &places, (&mut minus, &mut plus));
    found.truncate(PAIRS_MAX);
    found
}

/// Puts lines that were taken away beside those that came instead.
fn put(found: &mut Vec<Pair>, places: &[(usize, String)], (minus, plus): (&mut Vec<&str>, &mut Vec<&str>)) {
    let names: Vec<&str> = places.iter().map(|(_, name)| name.as_str()).collect();
    let place = cut(&names.join(" / "));
    let line = |line: Option<&&str>| line.map(|line| cut(line)).unwrap_or_default();
    let room = PAIRS_MAX.saturating_sub(found.len());
    for at in 0..minus.len().max(plus.len()).min(room) {
        let (left, right) = (line(minus.get(at)), line(plus.get(at)));
        found.push(Pair { place: place.clone(), left, right, variation: String::new() });
    }
    minus.clear();
    plus.clear();
}

/// Gives what is kept of a line.
fn cut(line: &str) -> String {
    line.trim_end().chars().take(LINE_MAX).collect()
}

/// What a circumstance looks like in the two attempts' lines.
struct Sign {
    key: String,
    forms: Vec<(String, String)>,
    /// The times of both, in seconds since 1970, where it is the date.
    times: Option<(i64, i64)>,
}

impl Sign {
    fn shows(&self, left: &str, right: &str) -> bool {
        let stands = |(l, r): &(String, String)| contains(left, l) && contains(right, r);
        let times = || {
            let (l, r) = self.times?;
            let near = |line: &str, time: i64| numbers(line).any(|n| (n - time).abs() < NEAR_SECS);
            Some(near(left, l) && near(right, r))
        };
        self.forms.iter().any(stands) || times() == Some(true)
    }
}

/// Gives what to look for, what is longest first: a host's name says more than a year.
fn signs(left: &Told, right: &Told) -> Vec<Sign> {
    let differing = left.iter().filter_map(|(key, l)| Some((key, l, right.get(key).filter(|r| *r != l)?)));
    let telling = differing.filter(|(key, ..)| !SILENT.contains(&key.as_str()) && !key.starts_with("step_"));
    let mut signs: Vec<Sign> = telling.map(|(key, l, r)| sign(key, l, r)).collect();
    signs.sort_by_key(|sign| std::cmp::Reverse(sign.forms.first().map_or(0, |(l, r)| l.len().min(r.len()))));
    signs
}

fn sign(key: &str, left: &str, right: &str) -> Sign {
    let mut forms = Vec::new();
    let mut form = |l: &str, r: &str| {
        if l != r && l.len().min(r.len()) >= VALUE_MIN {
            forms.push((l.to_owned(), r.to_owned()));
        }
    };
    let mut times = None;
    match (key, left.parse::<jiff::Timestamp>(), right.parse::<jiff::Timestamp>()) {
        ("date", Ok(l), Ok(r)) => {
            times = Some((l.as_second(), r.as_second()));
            for format in DATES {
                form(&l.strftime(format).to_string(), &r.strftime(format).to_string());
            }
        }
        ("TZ", ..) => {
            form(left, right);
            // What `date` prints of a zone is its name.
            let name = |zone: &str| zone.chars().take_while(char::is_ascii_alphabetic).collect::<String>();
            form(&name(left), &name(right));
        }
        _ => form(left, right),
    }
    Sign { key: key.to_owned(), forms, times }
}

/// Says whether a value stands in a line, and not only as a part of a longer word.
fn contains(line: &str, value: &str) -> bool {
    line.match_indices(value).any(|(at, _)| {
        let (before, after) = (line[..at].chars().next_back(), line[at + value.len()..].chars().next());
        let part = |next: Option<char>, edge: Option<char>| {
            next.is_some_and(|c| c.is_ascii_alphanumeric()) && edge.is_some_and(|c| c.is_ascii_alphanumeric())
        };
        !part(before, value.chars().next()) && !part(after, value.chars().next_back())
    })
}

/// Gives every number of ten digits.
fn numbers(line: &str) -> impl Iterator<Item = i64> + '_ {
    line.split(|c: char| !c.is_ascii_digit()).filter(|word| word.len() == 10).filter_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pairs: &[(&str, &str)]) -> Told {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn plain() -> Told {
        told(&[("hostname", "artel"), ("date", "2026-07-11T10:00:00Z"), ("uid", "1000"), ("TZ", "UTC")])
    }

    fn varied() -> Told {
        told(&[("hostname", "varied-host-1"), ("date", "2027-08-13T11:01:11Z"), ("uid", "1002"), ("TZ", "ART+6:00")])
    }

    #[test]
    fn a_line_names_the_circumstance_that_shows_in_it() {
        let text = "--- left\n+++ right\n│   --- left/out\n├── +++ right/out\n│ @@ -1,3 +1,3 @@\n│  same\n│ -by artel\n│ -at 1783764000\n\
                    │ +by varied-host-1\n│ +at 1818155000\n│  end\n│ -x\n│ +y\n";
        let found = read(text, &plain(), &varied());
        let seen: Vec<_> = found.iter().map(|p| (p.place.as_str(), p.left.as_str(), p.variation.as_str())).collect();
        assert_eq!(seen, [("out", "by artel", "hostname"), ("out", "at 1783764000", "date"), ("out", "x", "")]);
    }

    #[test]
    fn places_are_nested() {
        let text = "--- left\n+++ right\n│   --- left/a.deb\n├── +++ right/a.deb\n│ ├── data.tar.xz\n│ │ ├── data.tar\n\
                    │ │ │ ├── ./usr/bin/x\n│ │ │ │ @@ -1 +1 @@\n│ │ │ │ -Copyright 2026\n│ │ │ │ +Copyright 2027\n";
        let found = read(text, &plain(), &varied());
        assert_eq!(found[0].place, "a.deb / data.tar.xz / data.tar / ./usr/bin/x");
        assert_eq!((found[0].variation.as_str(), found[0].right.as_str()), ("date", "Copyright 2027"));
    }

    #[test]
    fn a_file_cannot_name_a_place_nor_make_the_pairs_large() {
        let mut text = format!("│   --- left/out\n├── +++ right/out\n│  ├── {}\n", "x".repeat(370_000));
        text.extend((0..20_000).map(|_| "│ -a\n"));
        let found = read(&text, &plain(), &varied());
        assert_eq!((found.len(), found[0].place.as_str()), (PAIRS_MAX, "out"));
        let deep = read(&format!("├── {}\n│ -a\n│ +b\n", "y".repeat(370_000)), &plain(), &varied());
        assert_eq!(deep[0].place.chars().count(), LINE_MAX);
    }

    #[test]
    fn a_value_inside_a_longer_word_is_none() {
        assert!(contains("host artel!", "artel") && !contains("martels", "artel"));
        assert!(!contains("12026", "2026") && contains("-2026-", "2026"));
        assert!(read("│ -a\u{e9}\n│ +b\n│ --\n", &plain(), &varied()).iter().all(|p| p.variation.is_empty()));
    }
}
