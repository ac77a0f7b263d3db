//! What a witness remembers: the checkpoint that it cosigned last of each log, and evidence against logs that forked.

use protocol::{Hash, Timestamp};
use redb::ReadableTable;

use super::{Error, Store, failed, tables};

const OPEN: &str = "open what was witnessed";
const READ: &str = "read what was witnessed";
const WRITE: &str = "write what was witnessed";

impl Store {
    /// Gives the checkpoint that was cosigned last of a log.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn witnessed(&self, origin: &str) -> Result<Option<Vec<u8>>, Error> {
        self.read(|transaction| {
            let table = transaction.open_table(tables::WITNESSED).map_err(failed(OPEN))?;
            let row = table.get(origin).map_err(failed(READ))?;
            Ok(row.map(|row| row.value().to_vec()))
        })
    }

    /// Shows `decide` the checkpoint that was cosigned last of a log and keeps the one that it gives, in one transaction: of
    /// two at a time the second sees what the first has decided. What is kept is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], [`Error::NoSpace`]; then nothing was kept.
    pub fn witness<T>(
        &self,
        origin: &str,
        decide: impl FnOnce(Option<&[u8]>) -> (Option<Vec<u8>>, T),
    ) -> Result<T, Error> {
        self.write(|transaction| {
            let mut table = transaction.open_table(tables::WITNESSED).map_err(failed(OPEN))?;
            let latest = table.get(origin).map_err(failed(READ))?.map(|row| row.value().to_vec());
            let (kept, answer) = decide(latest.as_deref());
            if let Some(checkpoint) = kept {
                table.insert(origin, checkpoint.as_slice()).map_err(failed(WRITE))?;
            }
            Ok(answer)
        })
    }

    /// Keeps evidence of a forked log; gives when it was found first.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], [`Error::NoSpace`].
    pub fn conflict_put(&self, evidence: &[u8], at: Timestamp) -> Result<Timestamp, Error> {
        self.write(|transaction| {
            let mut table = transaction.open_table(tables::CONFLICTS).map_err(failed(OPEN))?;
            let key = Hash::of(evidence);
            let known = table.get(key.as_bytes()).map_err(failed(READ))?.map(|row| row.value().0);
            if known.is_none() {
                table.insert(key.as_bytes(), (at.as_millis(), evidence)).map_err(failed(WRITE))?;
            }
            Ok(known.map_or(at, Timestamp::from_millis))
        })
    }

    /// Gives all evidence of forked logs, and when each was found.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn conflicts(&self) -> Result<Vec<(Timestamp, Vec<u8>)>, Error> {
        self.read(|transaction| {
            let table = transaction.open_table(tables::CONFLICTS).map_err(failed(OPEN))?;
            let rows = table.iter().map_err(failed(READ))?;
            rows.map(|row| {
                let (_, row) = row.map_err(failed(READ))?;
                let (at, bytes) = row.value();
                Ok((Timestamp::from_millis(at), bytes.to_vec()))
            })
            .collect()
        })
    }
}
