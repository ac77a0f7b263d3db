//! All tables of the database, in one place. A name carries the version of its layout: a new layout is a new table.

use redb::{TableDefinition, WriteTransaction};

use super::{Error, failed};

/// A node's, a record's or a policy's key: 32 bytes.
pub(super) type Key32 = &'static [u8; 32];
/// Encoded bytes that the store does not look into.
pub(super) type Bytes = &'static [u8];

/// About the database itself: `schema`.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta-1");
/// The ledger's commands, by sequence number.
pub(super) const JOURNAL: TableDefinition<u64, Bytes> = TableDefinition::new("journal-1");
/// The ledger's state at a sequence number; one row, with the key [`SNAPSHOT_KEY`].
pub(super) const SNAPSHOT: TableDefinition<&str, (u64, Bytes)> = TableDefinition::new("snapshot-1");
/// Signed policies, by version.
pub(super) const POLICIES: TableDefinition<u64, Bytes> = TableDefinition::new("policies-1");
/// Signed records as received, by the hash of their payload.
pub(super) const RECORDS: TableDefinition<Key32, Bytes> = TableDefinition::new("records-1");
/// The newest release of each channel: generation, term and signed bytes.
pub(super) const RELEASES: TableDefinition<&str, (u64, u64, Bytes)> = TableDefinition::new("releases-2");
/// How far each mirrored repository is: generation and the mirror's own bytes.
pub(super) const MIRRORS: TableDefinition<&str, (u64, Bytes)> = TableDefinition::new("mirrors-1");
/// Addresses of known peers, by node.
pub(super) const PEERS: TableDefinition<Key32, Bytes> = TableDefinition::new("peers-1");
/// The attempts that this builder holds or held, by lease number.
pub(super) const ATTEMPTS: TableDefinition<u64, Bytes> = TableDefinition::new("attempts-1");
/// Small numbers that must survive a restart.
pub(super) const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters-1");

/// The log of the coordinators' group, by index.
pub(super) const GROUP_LOG: TableDefinition<u64, Bytes> = TableDefinition::new("group-log-1");
/// The group's small records: vote, committed, purged.
pub(super) const GROUP: TableDefinition<&str, Bytes> = TableDefinition::new("group-1");
/// The group's one snapshot: what it contains, and its bytes; one row, with the key [`SNAPSHOT_KEY`].
pub(super) const GROUP_SNAPSHOT: TableDefinition<&str, (Bytes, Bytes)> = TableDefinition::new("group-snapshot-1");

/// The entries of the transparency log, by their place.
pub(super) const LOG_ENTRIES: TableDefinition<u64, Bytes> = TableDefinition::new("log-entries-1");
/// The hashes of its complete subtrees, by height and place.
pub(super) const LOG_HASHES: TableDefinition<(u8, u64), Key32> = TableDefinition::new("log-hashes-1");

/// The checkpoint of each log that this node cosigned last, by its origin.
pub(super) const WITNESSED: TableDefinition<&str, Bytes> = TableDefinition::new("witnessed-1");
/// Evidence of forked logs, by its hash: when it was found, in milliseconds, and its bytes.
pub(super) const CONFLICTS: TableDefinition<Key32, (u64, Bytes)> = TableDefinition::new("conflicts-1");

/// The only key of [`SNAPSHOT`] and [`GROUP_SNAPSHOT`].
pub(super) const SNAPSHOT_KEY: &str = "ledger";

/// Creates every table, so that a read never meets a missing one.
pub(super) fn create(transaction: &WriteTransaction) -> Result<(), Error> {
    let create = "create the tables";
    transaction.open_table(META).map_err(failed(create))?;
    transaction.open_table(JOURNAL).map_err(failed(create))?;
    transaction.open_table(SNAPSHOT).map_err(failed(create))?;
    transaction.open_table(POLICIES).map_err(failed(create))?;
    transaction.open_table(RECORDS).map_err(failed(create))?;
    transaction.open_table(RELEASES).map_err(failed(create))?;
    transaction.open_table(MIRRORS).map_err(failed(create))?;
    transaction.open_table(PEERS).map_err(failed(create))?;
    transaction.open_table(ATTEMPTS).map_err(failed(create))?;
    transaction.open_table(COUNTERS).map_err(failed(create))?;
    transaction.open_table(GROUP_LOG).map_err(failed(create))?;
    transaction.open_table(GROUP).map_err(failed(create))?;
    transaction.open_table(GROUP_SNAPSHOT).map_err(failed(create))?;
    transaction.open_table(LOG_ENTRIES).map_err(failed(create))?;
    transaction.open_table(LOG_HASHES).map_err(failed(create))?;
    transaction.open_table(WITNESSED).map_err(failed(create))?;
    transaction.open_table(CONFLICTS).map_err(failed(create))?;
    Ok(())
}
