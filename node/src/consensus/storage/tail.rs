//! The newest entries in memory: all that the disk does not have yet, and as many more as replication and the machine ask for.

use std::collections::VecDeque;

use super::record::LogEntry;

/// Entries that are kept though the disk has them.
const ENTRIES: usize = 1024;
/// Bytes of payload that are kept though the disk has them.
const BYTES: usize = 8 << 20;

/// Consecutive entries at the end of the log.
#[derive(Debug, Default)]
pub(super) struct Tail {
    entries: VecDeque<LogEntry>,
    bytes: usize,
}

impl Tail {
    /// The index of the oldest entry in memory.
    pub(super) fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.log_id.index)
    }

    pub(super) fn push(&mut self, entry: LogEntry) {
        self.bytes += weight(&entry);
        self.entries.push_back(entry);
    }

    /// Forgets the entries from `index` on; gives the entry before them, if it is in memory.
    pub(super) fn truncate(&mut self, index: u64) -> Option<&LogEntry> {
        while self.entries.back().is_some_and(|entry| entry.log_id.index >= index) {
            let entry = self.entries.pop_back();
            self.bytes -= entry.as_ref().map_or(0, weight);
        }
        self.entries.back()
    }

    /// Forgets the entries up to and with `index`.
    pub(super) fn purge(&mut self, index: u64) {
        while self.first().is_some_and(|first| first <= index) {
            self.pop();
        }
    }

    /// Forgets the oldest entries beyond the limits, of those that the disk has: the ones before `flushed`.
    pub(super) fn trim(&mut self, flushed: u64) {
        while self.entries.len() > ENTRIES || self.bytes > BYTES {
            if self.first().is_none_or(|first| first >= flushed) {
                return;
            }
            self.pop();
        }
    }

    fn pop(&mut self) {
        let entry = self.entries.pop_front();
        self.bytes -= entry.as_ref().map_or(0, weight);
    }

    /// The entries of `from..to`, as many as `bytes_max` allow and at least one.
    pub(super) fn read(&self, from: u64, to: u64, bytes_max: usize) -> Vec<LogEntry> {
        let Some(first) = self.first() else { return Vec::new() };
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let mut found = Vec::new();
        for entry in self.entries.iter().skip(skip).take_while(|entry| entry.log_id.index < to) {
            bytes += weight(entry);
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        found
    }
}

/// What an entry costs, about.
pub(super) fn weight(entry: &LogEntry) -> usize {
    let payload = match &entry.payload {
        openraft::EntryPayload::Normal(payload) => payload.bytes.len(),
        openraft::EntryPayload::Blank | openraft::EntryPayload::Membership(_) => 0,
    };
    payload + 64
}
