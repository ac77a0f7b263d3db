//! What a build says that it left: the `.changes` of `dpkg-genchanges` (deb-changes(5)), and the list that our script for RPMs
//! writes.
//!
//! A build can put anything there. Names are plain ones, so that nothing outside the build's folder is asked for; the digests are
//! compared with the files by who takes them.

use std::collections::BTreeSet;

use protocol::{Sha256, limits::OUTPUTS_MAX, words::RelativePath};

/// The largest `.changes` that is read, in bytes.
pub const CHANGES_MAX: u64 = 4 * 1024 * 1024;
/// The largest list of RPMs that is read, in bytes.
pub const RPMS_MAX: u64 = 1024 * 1024;

/// Why a list was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It names a file that we do not carry: the name, shortened.
    #[error("{0:?} is not an acceptable name")]
    Name(String),
    /// It breaks a rule of its form.
    #[error("{0}")]
    Form(&'static str),
}

/// Gives the files of a `.changes`, with their digests, in its order.
///
/// # Errors
/// The first line that is not acceptable; or that it names nothing, too much, or a file twice.
pub fn changes(text: &str) -> Result<Vec<(Sha256, RelativePath)>, Refused> {
    let lines = text.lines().skip_while(|line| *line != "Checksums-Sha256:").skip(1);
    let mut files = Vec::new();
    for line in lines.take_while(|line| line.starts_with(' ')) {
        let mut words = line.split_whitespace();
        let (Some(digest), Some(_), Some(file), None) = (words.next(), words.next(), words.next(), words.next()) else {
            return Err(Refused::Form("a line of Checksums-Sha256 has not three words"));
        };
        let digest = digest.parse().map_err(|_| Refused::Form("a digest is malformed"))?;
        files.push((digest, plain(file)?));
        if files.len() > OUTPUTS_MAX {
            return Err(Refused::Form("it names too many files"));
        }
    }
    if files.is_empty() {
        return Err(Refused::Form("it has no Checksums-Sha256"));
    }
    once(files.iter().map(|(_, file)| file))?;
    Ok(files)
}

/// Gives the packages of a list of RPMs, one of a line, in its order.
///
/// # Errors
/// The first name that is not acceptable; or that it names no binary package, too much, or a package twice.
pub fn rpms(text: &str) -> Result<Vec<RelativePath>, Refused> {
    let mut names = Vec::new();
    for line in text.lines() {
        names.push(plain(line).ok().filter(|_| line.ends_with(".rpm")).ok_or_else(|| name(line))?);
        if names.len() > OUTPUTS_MAX {
            return Err(Refused::Form("it names too many packages"));
        }
    }
    if names.iter().all(|name| name.as_str().ends_with(".src.rpm")) {
        return Err(Refused::Form("it names no binary package"));
    }
    once(names.iter())?;
    Ok(names)
}

/// Gives a name that has no folder.
///
/// # Errors
/// A name that we do not carry.
pub fn plain(file: &str) -> Result<RelativePath, Refused> {
    RelativePath::new(file).ok().filter(|_| !file.contains('/')).ok_or_else(|| name(file))
}

fn name(file: &str) -> Refused {
    Refused::Name(file.chars().take(80).collect())
}

fn once<'a>(names: impl ExactSizeIterator<Item = &'a RelativePath>) -> Result<(), Refused> {
    let count = names.len();
    if names.collect::<BTreeSet<_>>().len() < count { Err(Refused::Form("it names a file twice")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::OutputError;

    #[test]
    fn a_changes_file_lists_files_and_refuses_nonsense() {
        let digest = Sha256::of(b"x");
        let text = format!("Format: 1.8\nChecksums-Sha256:\n {digest} 12 a_1_all.deb\nFiles:\n 00 12 x a_1_all.deb\n");
        assert_eq!(changes(&text), Ok(vec![(digest, RelativePath::new("a_1_all.deb").unwrap())]));
        assert_eq!(changes("Checksums-Sha256:\n zz 1 a.deb\n"), Err(Refused::Form("a digest is malformed")));
        assert_eq!(changes("Format: 1.8\n"), Err(Refused::Form("it has no Checksums-Sha256")));
        let four = format!("Checksums-Sha256:\n {digest} 1 a.deb b.deb\n");
        assert_eq!(changes(&four), Err(Refused::Form("a line of Checksums-Sha256 has not three words")));
        let twice = format!("Checksums-Sha256:\n {digest} 1 a.deb\n {digest} 1 a.deb\n");
        assert_eq!(changes(&twice), Err(Refused::Form("it names a file twice")));
        let many: String = (0..=OUTPUTS_MAX).map(|at| format!(" {digest} 1 {at}.deb\n")).collect();
        let many = changes(&format!("Checksums-Sha256:\n{many}"));
        assert_eq!(many, Err(Refused::Form("it names too many files")));
    }

    #[test]
    fn names_that_are_no_plain_ones_are_refused_in_words_without_their_controls() {
        for hostile in ["../a.deb", "x/a.deb", "-rf", "a\n.deb", "\u{1b}[31ma.deb", "a\u{202e}bed.a", ".a.deb", ""] {
            let refused = OutputError::listed("x.changes", plain(hostile).unwrap_err()).to_string();
            assert!(!refused.contains(|c: char| c.is_control() || c == '\u{202e}'), "{refused}");
        }
    }

    #[test]
    fn a_list_names_packages_and_nothing_else() {
        let names = rpms("a-1-1.src.rpm\na-1-1.x86_64.rpm\n").unwrap();
        assert_eq!(names.len(), 2);
        for bad in
            ["", "a.rpm\na.rpm\n", "a-1-1.src.rpm\n", "a.rpm\n../b.rpm\n", "a.rpm\nb.deb\n", "x/a.rpm\n", "-a.rpm\n"]
        {
            assert!(rpms(bad).is_err(), "{bad:?}");
        }
    }
}
