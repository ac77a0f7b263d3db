//! The schema number, and the way from an older one to the current one.
//!
//! A database of a newer schema is refused and left as it is: an older program would not know what it must keep.

use redb::ReadableTable;

use super::{Error, Store, failed, tables};

/// The schema that this program reads and writes.
pub(super) const SCHEMA: u64 = 2;
/// The key of the schema number in [`tables::META`].
pub(super) const SCHEMA_KEY: &str = "schema";

/// Creates the tables of a new database, or brings an older one to [`SCHEMA`], in one transaction.
pub(super) fn to_current(store: &Store) -> Result<(), Error> {
    store.write(|transaction| {
        let mut meta = transaction.open_table(tables::META).map_err(failed("read the schema number"))?;
        let found = meta.get(SCHEMA_KEY).map_err(failed("read the schema number"))?.map(|number| number.value());
        if let Some(found) = found.filter(|found| *found > SCHEMA) {
            return Err(Error::NewerSchema { found, known: SCHEMA });
        }
        meta.insert(SCHEMA_KEY, SCHEMA).map_err(failed("write the schema number"))?;
        drop(meta);
        // Schema 2 adds the group's tables. What the journal of schema 1 holds becomes the group's first snapshot when a
        // coordinator opens its log (`consensus::storage`), since only the ledger can read it.
        tables::create(transaction)
    })
}
