//! The coordinators' group on the disk: log, vote, marks and the one snapshot. Bytes and numbers only: what they mean, and whether
//! they are sound, is known to `consensus::storage`.

use redb::WriteTransaction;

use super::{Error, Store, failed, tables};

const OPEN_LOG: &str = "open the group's log";
const OPEN_MARKS: &str = "open the group's marks";
const OPEN_SNAPSHOT: &str = "open the group's snapshot";
const READ_LOG: &str = "read the group's log";
const READ_MARKS: &str = "read the group's marks";
const READ_SNAPSHOT: &str = "read the group's snapshot";

const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";

/// One change. Several of them, in order, are one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Replaces the vote.
    Vote(Vec<u8>),
    /// Replaces the mark of what is known to be committed.
    Committed(Vec<u8>),
    /// Adds records at the end of the log, by index. A record that is there is replaced.
    Append(Vec<(u64, Vec<u8>)>),
    /// Removes the records from this index on.
    Truncate(u64),
    /// Removes the records up to and with this index, and replaces the mark of what was removed.
    Purge {
        /// The last index that goes.
        upto: u64,
        /// The mark's bytes.
        mark: Vec<u8>,
    },
    /// Replaces the snapshot.
    Snapshot {
        /// What the snapshot contains.
        meta: Vec<u8>,
        /// The snapshot.
        bytes: Vec<u8>,
    },
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Change::Vote(bytes) | Change::Committed(bytes) | Change::Purge { mark: bytes, .. } => bytes.len(),
            Change::Append(records) => records.iter().map(|(_, bytes)| bytes.len()).sum(),
            Change::Truncate(_) => 0,
            Change::Snapshot { meta, bytes } => meta.len() + bytes.len(),
        }
    }
}

/// A snapshot: what it contains, and its bytes.
pub type Described = (Vec<u8>, Vec<u8>);

/// The group's small records, as they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// The vote.
    pub vote: Option<Vec<u8>>,
    /// What is known to be committed.
    pub committed: Option<Vec<u8>>,
    /// What was removed from the log.
    pub purged: Option<Vec<u8>>,
}

impl Store {
    /// Performs changes in one transaction; nothing of them stays when one fails.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`] before anything is written, [`Error::Database`].
    pub fn group_write(&self, changes: &[Change]) -> Result<(), Error> {
        let bytes = changes.iter().map(Change::bytes).sum();
        self.write_bytes(bytes, |transaction| changes.iter().try_for_each(|change| perform(transaction, change)))
    }

    /// Performs the changes that found a group out of the journal, and empties the journal, in one transaction.
    ///
    /// # Errors
    ///
    /// Those of [`Store::group_write`].
    pub fn group_found(&self, changes: &[Change]) -> Result<(), Error> {
        let bytes = changes.iter().map(Change::bytes).sum();
        self.write_bytes(bytes, |transaction| {
            changes.iter().try_for_each(|change| perform(transaction, change))?;
            let mut journal = transaction.open_table(tables::JOURNAL).map_err(failed("open the journal"))?;
            journal.retain(|_, _| false).map_err(failed("empty the journal"))?;
            let mut snapshot = transaction.open_table(tables::SNAPSHOT).map_err(failed("open the snapshot"))?;
            snapshot.remove(tables::SNAPSHOT_KEY).map_err(failed("remove the snapshot"))?;
            Ok(())
        })
    }

    /// Gives the group's small records.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn group_marks(&self) -> Result<Marks, Error> {
        self.read(|transaction| {
            let table = transaction.open_table(tables::GROUP).map_err(failed(OPEN_MARKS))?;
            let mark = |key| {
                let row = table.get(key).map_err(failed(READ_MARKS))?;
                Ok(row.map(|row| row.value().to_vec()))
            };
            Ok(Marks { vote: mark(VOTE)?, committed: mark(COMMITTED)?, purged: mark(PURGED)? })
        })
    }

    /// Gives the log's records of `from..to` in order, as many as `bytes_max` allow and at least one.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn group_records(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        self.read(|transaction| {
            let table = transaction.open_table(tables::GROUP_LOG).map_err(failed(OPEN_LOG))?;
            let (mut records, mut bytes) = (Vec::new(), 0);
            for row in table.range(from..to).map_err(failed(READ_LOG))? {
                let (index, record) = row.map_err(failed(READ_LOG))?;
                bytes += record.value().len();
                if bytes > bytes_max && !records.is_empty() {
                    break;
                }
                records.push((index.value(), record.value().to_vec()));
            }
            Ok(records)
        })
    }

    /// Gives the snapshot as (meta, bytes).
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn group_snapshot(&self) -> Result<Option<Described>, Error> {
        self.read(|transaction| {
            let table = transaction.open_table(tables::GROUP_SNAPSHOT).map_err(failed(OPEN_SNAPSHOT))?;
            let row = table.get(tables::SNAPSHOT_KEY).map_err(failed(READ_SNAPSHOT))?;
            Ok(row.map(|row| (row.value().0.to_vec(), row.value().1.to_vec())))
        })
    }
}

fn perform(transaction: &WriteTransaction, change: &Change) -> Result<(), Error> {
    match change {
        Change::Vote(bytes) => mark(transaction, VOTE, bytes),
        Change::Committed(bytes) => mark(transaction, COMMITTED, bytes),
        Change::Append(records) => {
            let mut log = transaction.open_table(tables::GROUP_LOG).map_err(failed(OPEN_LOG))?;
            for (index, record) in records {
                log.insert(index, record.as_slice()).map_err(failed("append to the group's log"))?;
            }
            Ok(())
        }
        Change::Truncate(from) => {
            let mut log = transaction.open_table(tables::GROUP_LOG).map_err(failed(OPEN_LOG))?;
            log.retain_in(*from.., |_, _| false).map_err(failed("shorten the group's log"))
        }
        Change::Purge { upto, mark: bytes } => {
            let mut log = transaction.open_table(tables::GROUP_LOG).map_err(failed(OPEN_LOG))?;
            log.retain_in(..=*upto, |_, _| false).map_err(failed("shorten the group's log"))?;
            mark(transaction, PURGED, bytes)
        }
        Change::Snapshot { meta, bytes } => {
            let mut table = transaction.open_table(tables::GROUP_SNAPSHOT).map_err(failed(OPEN_SNAPSHOT))?;
            table
                .insert(tables::SNAPSHOT_KEY, (meta.as_slice(), bytes.as_slice()))
                .map_err(failed("write the group's snapshot"))?;
            Ok(())
        }
    }
}

fn mark(transaction: &WriteTransaction, key: &str, bytes: &[u8]) -> Result<(), Error> {
    let mut table = transaction.open_table(tables::GROUP).map_err(failed(OPEN_MARKS))?;
    table.insert(key, bytes).map_err(failed("write a mark of the group"))?;
    Ok(())
}
