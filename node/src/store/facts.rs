//! Everything beside the journal: the policy chain, records by hash, releases and mirrors that only go forward, peers,
//! attempts and counters.

use std::path::Path;

use protocol::{
    ChannelName, Hash, NodeId,
    lease::{LeaseNumber, Term},
};
use redb::{Builder, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};

use super::{CACHE_BYTES, Error, Store, failed, not_opened, tables};

/// A numbered state that only grows: a channel's newest release, or how far a mirror is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The number.
    pub number: u64,
    /// The bytes that belong to it.
    pub bytes: Vec<u8>,
}

impl Store {
    /// Appends the next signed policy. The first may have any version; each further one is the next version.
    ///
    /// # Errors
    ///
    /// [`Error::PolicyOutOfOrder`].
    pub fn policy_append(&self, version: u64, bytes: &[u8]) -> Result<(), Error> {
        self.write(|transaction| {
            let mut table = transaction.open_table(tables::POLICIES).map_err(failed("open the policies"))?;
            let newest = table.last().map_err(failed("read the policies"))?.map(|(kept, _)| kept.value());
            if let Some(kept) = newest.filter(|kept| kept.checked_add(1) != Some(version)) {
                return Err(Error::PolicyOutOfOrder { offered: version, kept });
            }
            table.insert(version, bytes).map_err(failed("write a policy"))?;
            Ok(())
        })
    }

    /// Gives the whole policy chain, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn policies(&self) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        self.list(tables::POLICIES, "read the policies", |version| version)
    }

    /// Gives the whole policy chain of the node whose database lies there, oldest first, without opening it for a daemon: nothing is
    /// made, brought to another schema or repaired.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`] while a daemon has it, and as [`Store::open`] where it was not closed in order.
    pub fn policies_at(path: &Path) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        let database = Builder::new().set_cache_size(CACHE_BYTES).open_read_only(path);
        let database = database.map_err(|error| not_opened(error, path))?;
        let transaction = database.begin_read().map_err(failed("begin a read"))?;
        list(&transaction, tables::POLICIES, ("read the policies", |version| version))
    }

    /// Keeps a signed record under its hash. A record that is there stays as it is: equal hashes are equal payloads.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn record_put(&self, hash: &Hash, bytes: &[u8]) -> Result<(), Error> {
        self.write(|transaction| {
            let mut table = transaction.open_table(tables::RECORDS).map_err(failed("open the records"))?;
            if table.get(hash.as_bytes()).map_err(failed("read a record"))?.is_none() {
                table.insert(hash.as_bytes(), bytes).map_err(failed("write a record"))?;
            }
            Ok(())
        })
    }

    /// Gives a record by its hash.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn record(&self, hash: &Hash) -> Result<Option<Vec<u8>>, Error> {
        self.read(|transaction| {
            let table = transaction.open_table(tables::RECORDS).map_err(failed("open the records"))?;
            let row = table.get(hash.as_bytes()).map_err(failed("read a record"))?;
            Ok(row.map(|row| row.value().to_vec()))
        })
    }

    /// Keeps a channel's newest release: that of the highest generation, and of the highest term among equal ones. The same
    /// again changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::GenerationNotNewer`], and [`Error::TermNotNewer`] for a generation that is kept from the same or a later term.
    pub fn release_put(&self, channel: &ChannelName, generation: u64, term: Term, bytes: &[u8]) -> Result<(), Error> {
        self.write(|transaction| {
            let mut table = transaction.open_table(tables::RELEASES).map_err(failed("open the releases"))?;
            let row = table.get(channel.as_str()).map_err(failed("read a release"))?;
            let kept = row.map(|row| (row.value().0, row.value().1, row.value() == (generation, term.0, bytes)));
            if let Some((kept, kept_term, same)) = kept.filter(|(g, t, _)| (*g, *t) >= (generation, term.0)) {
                let name = channel.to_string();
                return match (same, kept > generation) {
                    (true, _) => Ok(()),
                    (false, true) => Err(Error::GenerationNotNewer { name, offered: generation, kept }),
                    (false, false) => Err(Error::TermNotNewer { name, generation, offered: term.0, kept: kept_term }),
                };
            }
            table.insert(channel.as_str(), (generation, term.0, bytes)).map_err(failed("write a release"))?;
            Ok(())
        })
    }

    /// Gives a channel's newest release.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn release(&self, channel: &ChannelName) -> Result<Option<Generation>, Error> {
        self.read(|transaction| {
            let table = transaction.open_table(tables::RELEASES).map_err(failed("open the releases"))?;
            let row = table.get(channel.as_str()).map_err(failed("read a release"))?;
            Ok(row.map(|row| Generation { number: row.value().0, bytes: row.value().2.to_vec() }))
        })
    }

    /// Keeps how far the mirror of a channel is.
    ///
    /// # Errors
    ///
    /// [`Error::GenerationNotNewer`].
    pub fn mirror_put(&self, channel: &ChannelName, generation: u64, bytes: &[u8]) -> Result<(), Error> {
        self.forward(tables::MIRRORS, channel.as_str(), generation, bytes)
    }

    /// Gives how far the mirror of a channel is.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn mirror(&self, channel: &ChannelName) -> Result<Option<Generation>, Error> {
        self.generation(tables::MIRRORS, channel.as_str())
    }

    /// Keeps the addresses of a peer, encoded by the caller; the newest replace the older ones.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn peer_put(&self, node: &NodeId, addresses: &[u8]) -> Result<(), Error> {
        self.write(|transaction| {
            let mut table = transaction.open_table(tables::PEERS).map_err(failed("open the peers"))?;
            table.insert(node.as_bytes(), addresses).map_err(failed("write a peer"))?;
            Ok(())
        })
    }

    /// Forgets a peer.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn peer_remove(&self, node: &NodeId) -> Result<(), Error> {
        self.write(|transaction| {
            let mut table = transaction.open_table(tables::PEERS).map_err(failed("open the peers"))?;
            table.remove(node.as_bytes()).map_err(failed("remove a peer"))?;
            Ok(())
        })
    }

    /// Gives all known peers with their encoded addresses.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn peers(&self) -> Result<Vec<(NodeId, Vec<u8>)>, Error> {
        self.list(tables::PEERS, "read the peers", |node| NodeId::from_bytes(*node))
    }

    /// Keeps the state of an attempt that this builder holds; the newest replaces the older one.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn attempt_put(&self, lease: LeaseNumber, state: &[u8]) -> Result<(), Error> {
        self.write(|transaction| {
            let mut table = transaction.open_table(tables::ATTEMPTS).map_err(failed("open the attempts"))?;
            table.insert(lease.0, state).map_err(failed("write an attempt"))?;
            Ok(())
        })
    }

    /// Forgets an attempt that is over and reported.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn attempt_remove(&self, lease: LeaseNumber) -> Result<(), Error> {
        self.write(|transaction| {
            let mut table = transaction.open_table(tables::ATTEMPTS).map_err(failed("open the attempts"))?;
            table.remove(lease.0).map_err(failed("remove an attempt"))?;
            Ok(())
        })
    }

    /// Gives all attempts with their states, oldest lease first.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn attempts(&self) -> Result<Vec<(LeaseNumber, Vec<u8>)>, Error> {
        self.list(tables::ATTEMPTS, "read the attempts", LeaseNumber)
    }

    /// Adds to a counter, which starts at 0, and gives its new value. It stops at the largest number.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn counter_add(&self, name: &str, amount: u64) -> Result<u64, Error> {
        self.write(|transaction| {
            let mut table = transaction.open_table(tables::COUNTERS).map_err(failed("open the counters"))?;
            let old = table.get(name).map_err(failed("read a counter"))?.map_or(0, |row| row.value());
            let new = old.saturating_add(amount);
            table.insert(name, new).map_err(failed("write a counter"))?;
            Ok(new)
        })
    }

    /// Raises a counter to a value; a higher one stays.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn counter_raise(&self, name: &str, value: u64) -> Result<(), Error> {
        self.write(|transaction| {
            let mut table = transaction.open_table(tables::COUNTERS).map_err(failed("open the counters"))?;
            let old = table.get(name).map_err(failed("read a counter"))?.map_or(0, |row| row.value());
            if value > old {
                table.insert(name, value).map_err(failed("write a counter"))?;
            }
            Ok(())
        })
    }

    /// Gives a counter's value; 0 when it was never written.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub fn counter(&self, name: &str) -> Result<u64, Error> {
        self.read(|transaction| {
            let table = transaction.open_table(tables::COUNTERS).map_err(failed("open the counters"))?;
            Ok(table.get(name).map_err(failed("read a counter"))?.map_or(0, |row| row.value()))
        })
    }

    /// Replaces a numbered state by a newer one. The same again changes nothing: after a crash a step is done twice.
    fn forward(
        &self,
        table: TableDefinition<&'static str, (u64, tables::Bytes)>,
        name: &str,
        number: u64,
        bytes: &[u8],
    ) -> Result<(), Error> {
        self.write(|transaction| {
            let mut table = transaction.open_table(table).map_err(failed("open the generations"))?;
            let row = table.get(name).map_err(failed("read a generation"))?;
            let kept = row.map(|row| (row.value().0, row.value() == (number, bytes)));
            if let Some((kept, same)) = kept.filter(|(kept, _)| *kept >= number) {
                let refused = Error::GenerationNotNewer { name: name.to_owned(), offered: number, kept };
                return if same { Ok(()) } else { Err(refused) };
            }
            table.insert(name, (number, bytes)).map_err(failed("write a generation"))?;
            Ok(())
        })
    }

    fn generation(
        &self,
        table: TableDefinition<&'static str, (u64, tables::Bytes)>,
        name: &str,
    ) -> Result<Option<Generation>, Error> {
        self.read(|transaction| {
            let table = transaction.open_table(table).map_err(failed("open the generations"))?;
            let row = table.get(name).map_err(failed("read a generation"))?;
            Ok(row.map(|row| Generation { number: row.value().0, bytes: row.value().1.to_vec() }))
        })
    }

    fn list<K: redb::Key + 'static, T>(
        &self,
        table: TableDefinition<'static, K, tables::Bytes>,
        operation: &'static str,
        key: impl Fn(K::SelfType<'_>) -> T,
    ) -> Result<Vec<(T, Vec<u8>)>, Error> {
        self.read(|transaction| list(transaction, table, (operation, key)))
    }
}

fn list<K: redb::Key + 'static, T>(
    transaction: &ReadTransaction,
    table: TableDefinition<'static, K, tables::Bytes>,
    (operation, key): (&'static str, impl Fn(K::SelfType<'_>) -> T),
) -> Result<Vec<(T, Vec<u8>)>, Error> {
    let table = transaction.open_table(table).map_err(failed(operation))?;
    let rows = table.iter().map_err(failed(operation))?;
    rows.map(|row| row.map(|(k, v)| (key(k.value()), v.value().to_vec())))
        .collect::<Result<_, _>>()
        .map_err(failed(operation))
}
