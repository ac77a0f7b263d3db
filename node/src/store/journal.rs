//! The journal of schema 1, which only `consensus::storage::upgrade` still reads: numbered entries without a gap, and one snapshot
//! that stands for all up to its number. Only tests write one.

use redb::ReadableTable;
#[cfg(test)]
use redb::WriteTransaction;

use super::{Error, Store, failed, tables};

/// The ledger's state after the entry `seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry that the state contains.
    pub seq: u64,
    /// The encoded state.
    pub bytes: Vec<u8>,
}

impl Store {
    /// Appends entries in one transaction. The first entry of all has number 1; each further one follows without a gap.
    ///
    /// # Errors
    ///
    /// [`Error::JournalGap`] when a number does not follow; then none of the batch is kept.
    #[cfg(test)]
    pub fn journal_append<B: AsRef<[u8]>>(&self, entries: &[(u64, B)]) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let first = last(transaction)? + 1;
            let mut journal = transaction.open_table(tables::JOURNAL).map_err(failed("open the journal"))?;
            for (expected, (seq, bytes)) in (first..).zip(entries) {
                if *seq != expected {
                    return Err(Error::JournalGap { expected, got: *seq });
                }
                journal.insert(seq, bytes.as_ref()).map_err(failed("append to the journal"))?;
            }
            Ok(())
        })
    }

    /// Gives up to `limit` entries in order, beginning with number `from`.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn journal_from(&self, from: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        self.read(|transaction| {
            let journal = transaction.open_table(tables::JOURNAL).map_err(failed("open the journal"))?;
            let entries = journal.range(from..).map_err(failed("read the journal"))?.take(limit);
            entries
                .map(|entry| entry.map(|(seq, bytes)| (seq.value(), bytes.value().to_vec())))
                .collect::<Result<_, _>>()
                .map_err(failed("read the journal"))
        })
    }

    /// Gives the number of the last entry, be it in the journal or in the snapshot; 0 before the first.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn journal_last(&self) -> Result<u64, Error> {
        self.read(|transaction| {
            let journal = transaction.open_table(tables::JOURNAL).map_err(failed("open the journal"))?;
            let snapshot = transaction.open_table(tables::SNAPSHOT).map_err(failed("open the snapshot"))?;
            last_of(&journal, &snapshot)
        })
    }

    /// Keeps a snapshot and removes the entries that it contains, in one transaction.
    ///
    /// # Errors
    ///
    /// [`Error::SnapshotOutOfRange`] when an equal or newer one is kept or the journal has not come that far.
    #[cfg(test)]
    pub fn snapshot_put(&self, seq: u64, bytes: &[u8]) -> Result<(), Error> {
        self.write(|transaction| {
            let last = last(transaction)?;
            let mut journal = transaction.open_table(tables::JOURNAL).map_err(failed("open the journal"))?;
            let mut snapshot = transaction.open_table(tables::SNAPSHOT).map_err(failed("open the snapshot"))?;
            let kept = kept(&snapshot)?;
            if seq <= kept || seq > last {
                return Err(Error::SnapshotOutOfRange { offered: seq, kept, last });
            }
            snapshot.insert(tables::SNAPSHOT_KEY, (seq, bytes)).map_err(failed("write the snapshot"))?;
            journal.retain_in(..=seq, |_, _| false).map_err(failed("shorten the journal"))
        })
    }

    /// Gives the snapshot, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn snapshot(&self) -> Result<Option<Snapshot>, Error> {
        self.read(|transaction| {
            let table = transaction.open_table(tables::SNAPSHOT).map_err(failed("open the snapshot"))?;
            let row = table.get(tables::SNAPSHOT_KEY).map_err(failed("read the snapshot"))?;
            Ok(row.map(|row| Snapshot { seq: row.value().0, bytes: row.value().1.to_vec() }))
        })
    }
}

#[cfg(test)]
fn last(transaction: &WriteTransaction) -> Result<u64, Error> {
    let journal = transaction.open_table(tables::JOURNAL).map_err(failed("open the journal"))?;
    let snapshot = transaction.open_table(tables::SNAPSHOT).map_err(failed("open the snapshot"))?;
    last_of(&journal, &snapshot)
}

fn last_of(
    journal: &impl ReadableTable<u64, tables::Bytes>,
    snapshot: &impl ReadableTable<&'static str, (u64, tables::Bytes)>,
) -> Result<u64, Error> {
    match journal.last().map_err(failed("read the journal"))? {
        Some((seq, _)) => Ok(seq.value()),
        None => kept(snapshot),
    }
}

/// The number of the kept snapshot; 0 without one.
fn kept(snapshot: &impl ReadableTable<&'static str, (u64, tables::Bytes)>) -> Result<u64, Error> {
    let row = snapshot.get(tables::SNAPSHOT_KEY).map_err(failed("read the snapshot"))?;
    Ok(row.map_or(0, |row| row.value().0))
}
