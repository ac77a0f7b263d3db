//! The first line of a log in which a tool says that something is wrong, for the summary of a failed build. It explains; it
//! decides nothing.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

/// Bytes of a log that are searched.
const SEARCHED_MAX: u64 = 64 << 20;
/// Bytes of one line that are looked at.
const LINE_MAX: u64 = 64 << 10;
/// Characters of the line in a summary.
const TEXT_MAX: usize = 200;
/// How a line begins with which a tool gives up.
const BEGINNINGS: [&str; 9] = [
    "error:",
    "Error:",
    "ERROR:",
    "E: ",
    "fatal:",
    "CMake Error",
    "Traceback (most recent call last)",
    "ld: ",
    "FAILED: ",
];
/// What such a line holds.
const PARTS: [&str; 10] = [
    ": error: ",
    ": error :",
    ": fatal error: ",
    ": Error: ",
    " *** ",
    ": undefined reference to ",
    ": command not found",
    ": not found",
    ": No such file or directory",
    ": Permission denied",
];

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::build) struct Complaint {
    /// From 1.
    line: u64,
    /// Where the line begins.
    byte: u64,
    text: String,
}

impl std::fmt::Display for Complaint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "first error in line {}, byte {}: {}", self.line, self.byte, self.text)
    }
}

/// Finds the first complaint in a log; nothing when there is none, or the log cannot be read.
pub(in crate::build) fn first(log: &Path) -> Option<Complaint> {
    first_in(BufReader::new(File::open(log).ok()?.take(SEARCHED_MAX)))
}

fn first_in(mut log: impl BufRead) -> Option<Complaint> {
    let (mut line, mut byte, mut bytes) = (0, 0, Vec::new());
    let mut begins = true;
    loop {
        bytes.clear();
        let count = log.by_ref().take(LINE_MAX).read_until(b'\n', &mut bytes).ok()?;
        if count == 0 {
            return None;
        }
        line += u64::from(begins);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        let ours = text.starts_with("[artel]");
        if !ours && (BEGINNINGS.iter().any(|b| text.starts_with(b)) || PARTS.iter().any(|part| text.contains(part))) {
            let shown = text.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect();
            return Some(Complaint { line, byte, text: shown });
        }
        begins = bytes.ends_with(b"\n");
        byte += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(log: &str, expect: Option<&str>) {
        assert_eq!(first_in(log.as_bytes()).map(|c| c.to_string()).as_deref(), expect);
    }

    #[test]
    fn the_first_line_that_complains_is_found_with_its_place() {
        check("gcc -Werror=format a.c\nchecking for error... no\n", None);
        check(
            "[artel] E: ours\ngcc a.c\na.c:3:1: error: expected ';'\nmake: *** [Makefile:2: a.o] Error 1\n",
            Some("first error in line 3, byte 24: a.c:3:1: error: expected ';'"),
        );
        check("x\nmake[1]: *** No rule\n", Some("first error in line 2, byte 2: make[1]: *** No rule"));
        check("sh: 1: foo: not found", Some("first error in line 1, byte 0: sh: 1: foo: not found"));
        let long = format!("{}\nE: \u{1b}[2Jend", "x".repeat(200_000));
        check(&long, Some("first error in line 2, byte 200001: E: [2Jend"));
    }
}
