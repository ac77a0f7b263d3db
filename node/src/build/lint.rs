//! An optional step after a build: `lintian` or `rpmlint` looks over the packages, where the environment has it. Its result is a
//! line for people; outputs, verdict and exit code stay what they are.
//!
//! It runs in the sandbox of the build, within the build's own limits, and ends before the build's time does. When it breaks a limit
//! all the same, the attempt goes on with what was built before. What it prints stands in the log; the build itself could print
//! the same, which spares it nothing: whoever stops early gives the outputs of who stopped early.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use protocol::job::{BuildLimits, JobKind};

use super::sandbox::{Breach, Ending};

/// The function that scripts call at their end, with the linter and its arguments.
const LINT: &str = include_str!("lint.sh");
/// What stands before and after the linter's own lines.
const BEGIN: &str = "artel: lint by ";
const END: &str = "artel: lint ended";
/// Seconds that a linter may take.
const SECONDS_MAX: u32 = 300;
/// Bytes of a log that are searched.
const SEARCHED_MAX: u64 = 256 << 20;
/// Bytes of one line that are looked at.
const LINE_MAX: u64 = 4096;
/// The longest summary, in bytes.
const SUMMARY_MAX: usize = 240;
/// Lines that the summary repeats.
const QUOTED_MAX: usize = 3;

/// Gives what a script begins with that lints at its end: how long there is time, by the machine's uptime.
pub(in crate::build) fn begin(limits: &BuildLimits) -> String {
    let (budget, most) = (limits.wall_secs.saturating_sub(5), limits.silence_secs.saturating_sub(5).min(SECONDS_MAX));
    format!(
        "read -r artel_now artel_rest < /proc/uptime\nARTEL_LINT_UNTIL=$((${{artel_now%%.*}} + {budget}))\n\
         ARTEL_LINT_MAX={most}\n{LINT}"
    )
}

/// What a linter did in an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::build) enum Lint {
    /// There was none.
    None,
    /// It came to its end.
    Ended(Said),
    /// The attempt ended before it did.
    CutShort(Said),
}

/// What a linter said so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::build) struct Said {
    by: String,
    errors: usize,
    warnings: usize,
    first: Vec<String>,
}

impl Lint {
    /// Reads what the last linter of a log said.
    pub(in crate::build) fn of(kind: &JobKind, log: &Path) -> Self {
        match kind {
            JobKind::Deb(_) | JobKind::Rpm(_) => {
                let file = File::open(log).map(|file| BufReader::new(file.take(SEARCHED_MAX)));
                file.and_then(read).unwrap_or(Lint::None)
            }
            JobKind::Command(_) | JobKind::Image(_) | JobKind::Fetch(_) | JobKind::Server(_) => Lint::None,
        }
    }

    /// Forgives the limit that only the linter broke.
    pub(in crate::build) fn forgive(&self, ending: Ending) -> Ending {
        match (self, ending) {
            (Lint::CutShort(_), Ending::Broke(breach)) if breach != Breach::Start => Ending::Exited(0),
            (Lint::None | Lint::Ended(_) | Lint::CutShort(_), ending) => ending,
        }
    }

    /// Sums it up in a line; nothing when there was none.
    pub(in crate::build) fn summary(&self) -> Option<String> {
        match self {
            Lint::None => None,
            Lint::Ended(said) => Some(said.words("")),
            Lint::CutShort(said) => Some(said.words(", cut short")),
        }
    }
}

fn read(mut log: impl BufRead) -> io::Result<Lint> {
    let (mut lint, mut bytes) = (Lint::None, Vec::new());
    loop {
        bytes.clear();
        if log.by_ref().take(LINE_MAX).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(lint);
        }
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end();
        lint = match (lint, line.strip_prefix(BEGIN)) {
            (_, Some(by)) => {
                let by = by.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
                Lint::CutShort(Said { by, errors: 0, warnings: 0, first: Vec::new() })
            }
            (Lint::CutShort(said), None) if line == END => Lint::Ended(said),
            (Lint::CutShort(mut said), None) => {
                said.take(line);
                Lint::CutShort(said)
            }
            (lint @ (Lint::None | Lint::Ended(_)), None) => lint,
        };
    }
}

impl Said {
    fn take(&mut self, line: &str) {
        // lintian: `E: package: tag`; rpmlint: `package.x86_64: E: tag`.
        let holds = |letter: &str| line.starts_with(&format!("{letter}: ")) || line.contains(&format!(": {letter}: "));
        let count = match (holds("E"), holds("W")) {
            (true, _) => &mut self.errors,
            (false, true) => &mut self.warnings,
            (false, false) => return,
        };
        *count += 1;
        if self.first.len() < QUOTED_MAX {
            self.first.push(line.to_owned());
        }
    }

    fn words(&self, end: &str) -> String {
        let count = |count, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let (errors, warnings) = (count(self.errors, "error"), count(self.warnings, "warning"));
        let mut words = format!("{}: {errors}, {warnings}{end}", self.by);
        for line in &self.first {
            words = format!("{words}; {line}");
        }
        words.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).take(SUMMARY_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(log: &str) -> Option<String> {
        read(log.as_bytes()).unwrap().summary()
    }

    #[test]
    fn errors_and_warnings_are_counted_between_the_marks() {
        let log = "E: this is the build's\nartel: lint by lintian\nE: tiny: no-copyright-file\nW: tiny: no-manual-page \
                   [usr/bin/tiny]\nI: tiny: x\nN: note\nartel: lint ended\nW: later\n";
        let expect = "lintian: 1 error, 1 warning; E: tiny: no-copyright-file; W: tiny: no-manual-page [usr/bin/tiny]";
        assert_eq!(summary(log).unwrap(), expect);
        let rpm = "artel: lint by rpmlint\nhello.x86_64: W: no-documentation\nhello.x86_64: E: no-binary\n";
        assert!(summary(rpm).unwrap().starts_with("rpmlint: 1 error, 1 warning, cut short; hello.x86_64: W: "));
        assert_eq!(summary("E: x\n"), None);
    }

    #[test]
    fn a_hostile_line_is_cut_and_cleaned() {
        let log = format!("artel: lint by li\u{1b}[1mntian\nE: \u{202e}{}\n", "x".repeat(9000));
        let words = summary(&log).unwrap();
        assert!(words.len() <= SUMMARY_MAX && words.is_ascii() && !words.contains('\u{1b}'), "{words}");
    }

    #[test]
    fn only_a_limit_that_a_linter_broke_is_forgiven() {
        let check = |log: &str, ending| read(log.as_bytes()).unwrap().forgive(ending);
        let (open, over) = ("artel: lint by lintian\n", "artel: lint by lintian\nartel: lint ended\n");
        assert_eq!(check(open, Ending::Broke(Breach::Memory)), Ending::Exited(0));
        for (log, ending) in [
            (over, Ending::Broke(Breach::Memory)),
            ("", Ending::Broke(Breach::Disk)),
            (open, Ending::Broke(Breach::Start)),
            (open, Ending::Cancelled),
            (open, Ending::Exited(2)),
        ] {
            assert_eq!(check(log, ending), ending);
        }
    }
}
