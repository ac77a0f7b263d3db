//! Watches how much disk an attempt uses, though no quota stands behind it.
//!
//! ```text
//! free space of the file system, 50 times a second -> fell by what is left of the limit, or 2 s are over
//!   -> the helper in the namespaces counts (`du`) -> over the limit: broken
//! ```
//! Looking at the free space costs nothing, counting costs as much as there are files: so what is counted is at most one
//! look old when it matters, and a build of many files is not slowed down. Files without a name are counted where a process
//! has them open. Where one is only mapped, or lies in a socket's queue, nobody can say how large it is: then space that is
//! gone and in no count ends the attempt, and so it does when a count does not come in time; but it may be somebody else's, so
//! the job is not blamed. Room cannot be taken without writing ([`super::seccomp`]).

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use protocol::job::BuildLimits;

use super::{Breach, INODES_PER_MIB, MIB};

/// How often the free space is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How old a count may be.
const COUNT_EVERY: Duration = Duration::from_secs(2);
/// How long a count may take while more than the limit is gone from the disk: it may be made slow on purpose.
const COUNT_WITHIN: Duration = Duration::from_secs(20);
/// A count rests for so many times as long as it took, or counting would be all that a machine does.
const REST: u32 = 3;

/// What is free, or used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) bytes: u64,
    pub(super) files: u64,
}

impl Amount {
    fn less(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_sub(other.bytes), files: self.files.saturating_sub(other.files) }
    }

    fn exceeds(self, limit: Self) -> bool {
        self.bytes > limit.bytes || self.files > limit.files
    }
}

/// Reads a count as the helper writes it: KiB and files in use, and files that could be seen but not measured.
fn read(words: &str) -> Option<(Amount, u64)> {
    let mut numbers = words.split_whitespace().map(|word| word.parse::<u64>().ok());
    let used = Amount { bytes: numbers.next()??.saturating_mul(1024), files: numbers.next()?? };
    Some((used, numbers.next()??))
}

/// How far a count is.
#[derive(Debug, Clone, Copy)]
enum Count {
    /// It was asked for.
    Asked { at: Instant },
    /// It was answered, and took so long.
    Answered { at: Instant, took: Duration },
}

/// The disk of one attempt.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    limit: Amount,
    /// What was free when the attempt began.
    begun: Amount,
    /// What was free when it was last counted.
    then: Amount,
    used: Amount,
    count: Count,
}

impl Disk {
    pub(super) fn new(folder: &Path, limits: &BuildLimits) -> Self {
        let disk = u64::from(limits.disk_mib);
        let free = free(folder);
        Self {
            folder: folder.to_owned(),
            limit: Amount { bytes: disk * MIB, files: disk * INODES_PER_MIB },
            begun: free,
            then: free,
            used: Amount::default(),
            count: Count::Answered { at: Instant::now(), took: Duration::ZERO },
        }
    }

    /// Says whether it is time to count; then a count has to be asked for.
    pub(super) fn is_due(&mut self) -> bool {
        let Count::Answered { at, took } = self.count else { return false };
        let free = free(&self.folder);
        let fell = self.then.less(free);
        let rested = at.elapsed() >= took * REST;
        let due = at.elapsed() >= COUNT_EVERY || fell.exceeds(self.limit.less(self.used));
        if due && rested {
            self.then = free;
            self.count = Count::Asked { at: Instant::now() };
        }
        due && rested
    }

    /// Says whether a count has not come for long, while somebody used more than the limit.
    pub(super) fn is_overdue(&self) -> bool {
        matches!(self.count, Count::Asked { at } if at.elapsed() > COUNT_WITHIN) && self.fell() > self.limit.bytes
    }

    /// Takes a count, and says which limit it is over.
    pub(super) fn counted(&mut self, words: &str) -> Option<Breach> {
        if let Count::Asked { at } = self.count {
            self.count = Count::Answered { at: Instant::now(), took: at.elapsed() };
        }
        let (used, kept) = read(words)?;
        self.used = used;
        if self.used.bytes > self.limit.bytes {
            return Some(Breach::Disk);
        }
        if self.is_hidden(kept) {
            return Some(Breach::Hidden);
        }
        (self.used.files > self.limit.files).then_some(Breach::Inodes)
    }

    /// More than the limit is gone from the disk and in no count, and the attempt keeps files where none can be measured.
    fn is_hidden(&self, kept: u64) -> bool {
        kept > 0 && self.fell().saturating_sub(self.used.bytes) > self.limit.bytes
    }

    /// How many bytes all that use this disk took since the attempt began.
    fn fell(&self) -> u64 {
        self.begun.less(free(&self.folder)).bytes
    }
}

fn free(folder: &Path) -> Amount {
    // Where nothing can be told, only time makes a count due.
    rustix::fs::statvfs(folder).map_or(Amount::default(), |disk| Amount {
        bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
        files: disk.f_favail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_limit_decides_and_nonsense_is_no_count() {
        let limits = BuildLimits { disk_mib: 1, ..BuildLimits::default() };
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::new(folder.path(), &limits);
        assert!(!disk.is_due(), "it is young and nothing was used");
        disk.then = Amount { bytes: u64::MAX, files: 0 };
        assert!(disk.is_due() && !disk.is_due(), "asked once");
        disk.begun = free(folder.path());
        for (words, expect) in [
            ("1024 256 9", None),
            ("nonsense", None),
            ("12", None),
            ("1 1", None),
            ("1025 1 0", Some(Breach::Disk)),
            ("1 257 0", Some(Breach::Inodes)),
            ("18446744073709551615 1 0", Some(Breach::Disk)),
        ] {
            assert_eq!(disk.counted(words), expect, "{words}");
        }
        disk.begun.bytes = u64::MAX;
        assert_eq!(disk.counted("1 1 1"), Some(Breach::Hidden), "files that cannot be measured");
        assert_eq!(disk.counted("1 1 0"), None, "somebody else used it");
        disk.count = Count::Asked { at: Instant::now().checked_sub(COUNT_WITHIN * 2).unwrap() };
        assert!(disk.is_overdue());
    }
}
