//! The transparency log on the disk: entries by their place, and the hashes that tiles are made of.
//!
//! Growth is the one change that is not durable when the function returns: what is logged follows from the group's log, which
//! is, and is written again after a crash. It is on the disk, at the latest, with the next change of anything else.

use redb::{Durability, ReadOnlyTable, ReadableDatabase, ReadableTable};

use super::{Error, Store, failed, tables};

const OPEN: &str = "open the transparency log";
const READ: &str = "read the transparency log";
const WRITE: &str = "write the transparency log";

/// A complete subtree: its height and its place among those of its height.
pub type Place = (u8, u64);

/// What a log has more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Growth {
    /// Entries, by their place.
    pub entries: Vec<(u64, Vec<u8>)>,
    /// Hashes of complete subtrees.
    pub hashes: Vec<(Place, [u8; 32])>,
    /// Places of entries that are looked for by what they are about, each under a key of the caller's.
    pub marks: Vec<([u8; 32], u64)>,
}

impl Growth {
    /// Says whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The log at one moment.
pub struct Pages {
    entries: ReadOnlyTable<u64, tables::Bytes>,
    marks: ReadOnlyTable<tables::Key32, u64>,
    hashes: ReadOnlyTable<Place, tables::Key32>,
}

impl Pages {
    /// Gives how many entries there are.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn size(&self) -> Result<u64, Error> {
        let last = self.entries.last().map_err(failed(READ))?;
        Ok(last.map_or(0, |(index, _)| index.value() + 1))
    }

    /// Gives an entry.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn entry(&self, index: u64) -> Result<Option<Vec<u8>>, Error> {
        let entry = self.entries.get(index).map_err(failed(READ))?;
        Ok(entry.map(|bytes| bytes.value().to_vec()))
    }

    /// Gives the newest place that has this mark.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn marked(&self, mark: &[u8; 32]) -> Result<Option<u64>, Error> {
        let place = self.marks.get(mark).map_err(failed(READ))?;
        Ok(place.map(|place| place.value()))
    }

    /// Gives the hash of a complete subtree, where it is kept.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn hash(&self, place: Place) -> Result<Option<[u8; 32]>, Error> {
        let hash = self.hashes.get(place).map_err(failed(READ))?;
        Ok(hash.map(|bytes| *bytes.value()))
    }
}

impl Store {
    /// Writes what the log has more; it begins where the log ends.
    ///
    /// # Errors
    ///
    /// [`Error::LogGap`], [`Error::NoSpace`], [`Error::Database`].
    pub fn log_grow(&self, growth: &Growth) -> Result<(), Error> {
        self.room.check(growth.entries.iter().map(|(_, bytes)| bytes.len() + 80).sum())?;
        let mut transaction = self.database.begin_write().map_err(failed("begin a transaction"))?;
        transaction.set_durability(Durability::None).map_err(failed(WRITE))?;
        {
            let mut entries = transaction.open_table(tables::LOG_ENTRIES).map_err(failed(OPEN))?;
            let mut hashes = transaction.open_table(tables::LOG_HASHES).map_err(failed(OPEN))?;
            let size = entries.last().map_err(failed(READ))?.map_or(0, |(index, _)| index.value() + 1);
            for (expected, (got, bytes)) in (size..).zip(&growth.entries) {
                if *got != expected {
                    return Err(Error::LogGap { expected, got: *got });
                }
                entries.insert(got, bytes.as_slice()).map_err(failed(WRITE))?;
            }
            let mut marks = transaction.open_table(tables::LOG_MARKS).map_err(failed(OPEN))?;
            for (mark, place) in &growth.marks {
                marks.insert(mark, place).map_err(failed(WRITE))?;
            }
            for (place, hash) in &growth.hashes {
                hashes.insert(place, hash).map_err(failed(WRITE))?;
            }
        }
        transaction.commit().map_err(failed("commit"))
    }

    /// Looks at the log as it is now.
    ///
    /// # Errors
    ///
    /// Those of `look`, and [`Error::Database`].
    pub fn log_look<T, E: From<Error>>(&self, look: impl FnOnce(&Pages) -> Result<T, E>) -> Result<T, E> {
        let transaction = self.database.begin_read().map_err(failed("begin a read"))?;
        let pages = Pages {
            entries: transaction.open_table(tables::LOG_ENTRIES).map_err(failed(OPEN))?,
            marks: transaction.open_table(tables::LOG_MARKS).map_err(failed(OPEN))?,
            hashes: transaction.open_table(tables::LOG_HASHES).map_err(failed(OPEN))?,
        };
        look(&pages)
    }
}
