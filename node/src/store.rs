//! What the node must not forget: the log of the coordinators' group, the policy chain, signed records, releases, mirrors, peers
//! and the attempts that this builder holds, in one redb file.
//!
//! Every change but the growth of the transparency log, which can be written again, is one transaction with immediate
//! durability and two-phase commit: when a function returns, the bytes
//! are on the disk. The store keeps bytes and numbers; it does not decode, verify or decide. Content of packages is not
//! kept here (see `blobs`).
//!
//! The functions block: a read takes microseconds, a commit waits for the disk twice (milliseconds). Async callers
//! go through [`Store::run`], which moves the work to a blocking thread; a caller that awaits nothing else, such as the
//! ledger's own thread, may call them directly.

mod facts;
mod group;
mod journal;
mod log;
mod migrate;
mod room;
mod tables;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod witness;

use std::{
    fs,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, StorageError, WriteTransaction};

pub use facts::Generation;
pub use group::{Change, Described, Marks};
pub use journal::Snapshot;
pub use log::{Growth, Pages, Place};
use room::Room;

/// Pages that redb may keep in memory, in bytes. The node's state is small; the idle daemon must stay small too.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be created, opened or protected.
    #[error("cannot open the database file {}", path.display())]
    File {
        /// The database file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process holds the database.
    #[error("the database {} is open in another process: stop that node first, or give this one its own directory", path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// The database is damaged, so nothing in it can be relied on.
    #[error("the database {} is damaged: move it away, and the node fetches what it needs from its peers; one that has coordinated must not begin anew with the same \
         key: give it a new home folder, and have the roots name its new key", path.display())]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What redb found.
        #[source]
        source: Option<Box<redb::Error>>,
    },
    /// The database was written by a newer artel.
    #[error("the database has schema {found}, this artel knows {known}: install the newer artel that wrote it")]
    NewerSchema {
        /// The number in the file.
        found: u64,
        /// The newest number that this program knows.
        known: u64,
    },
    /// A read or a write failed.
    #[error("the database failed to {operation}")]
    Database {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// Too little space is left on the disk; nothing was written.
    #[error("no space: {} MiB are free on the disk of the database, {} MiB are needed; free some, the node goes on by itself", free >> 20, wanted.div_ceil(1 << 20))]
    NoSpace {
        /// Bytes that are free.
        free: u64,
        /// Bytes that must be free for this change.
        wanted: u64,
    },
    /// The free space could not be asked.
    #[error("cannot ask how much space is free on the disk of the database")]
    Room {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An entry does not follow the last one.
    #[error("journal entry {got} does not follow: expected {expected}")]
    JournalGap {
        /// The only number that may come next.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// An entry of the transparency log does not follow the last one.
    #[error("entry {got} of the transparency log does not follow: expected {expected}")]
    LogGap {
        /// The only place that may come next.
        expected: u64,
        /// The place that came.
        got: u64,
    },
    /// A snapshot is older than the one kept, or newer than the journal.
    #[error("a snapshot at {offered} is refused: one at {kept} is kept and the journal ends at {last}")]
    SnapshotOutOfRange {
        /// The number offered.
        offered: u64,
        /// The number of the snapshot that is kept; 0 without one.
        kept: u64,
        /// The journal's last number.
        last: u64,
    },
    /// A policy is not the next one of the chain.
    #[error("policy version {offered} does not follow version {kept}")]
    PolicyOutOfOrder {
        /// The version offered.
        offered: u64,
        /// The newest version kept.
        kept: u64,
    },
    /// A release is not newer than the one kept.
    #[error("generation {offered} of {name} is not newer than {kept}: a repository never goes back")]
    GenerationNotNewer {
        /// The channel or the mirrored repository.
        name: String,
        /// The generation offered.
        offered: u64,
        /// The generation kept.
        kept: u64,
    },
    /// A release of a generation that is kept already, with other bytes, and not of a later term.
    #[error("generation {generation} of {name} is kept from term {kept}; what term {offered} signed is not taken")]
    TermNotNewer {
        /// The channel.
        name: String,
        /// The generation.
        generation: u64,
        /// The term offered.
        offered: u64,
        /// The term kept.
        kept: u64,
    },
    /// The blocking thread panicked or the runtime is shutting down.
    #[error("the database task was stopped")]
    Stopped,
}

/// The node's database. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    database: Arc<Database>,
    room: Room,
}

impl Store {
    /// Opens the database at `path`, creates it with mode 0600 when it is not there, and brings it to the current schema.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`] when another process holds it, [`Error::Damaged`] when its checksums do not hold,
    /// [`Error::NewerSchema`] when a newer program wrote it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if fs::symlink_metadata(path).is_err() {
            Self::create(path)?;
        }
        Self::open_file(path, fs::OpenOptions::new().read(true).write(true))
    }

    /// Makes the database under another name first, so that a node that dies meanwhile leaves none that is half made.
    fn create(path: &Path) -> Result<(), Error> {
        let file_error = |source| Error::File { path: path.to_owned(), source };
        let new = path.with_added_extension(format!("new-{}", std::process::id()));
        let options = fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).clone();
        drop(Self::open_file(&new, &options)?);
        // A link does not replace the database of another process that was faster; opening that one is refused.
        let linked = fs::hard_link(&new, path);
        fs::remove_file(&new).map_err(file_error)?;
        match linked {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(file_error(error)),
            Ok(()) | Err(_) => sync_parent(path).map_err(file_error),
        }
    }

    fn open_file(path: &Path, options: &fs::OpenOptions) -> Result<Self, Error> {
        let file_error = |source| Error::File { path: path.to_owned(), source };
        let file = options.open(path).map_err(file_error)?;
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(file_error)?;
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_file(file);
        Self::from_database(database, path, Room::Folder(parent_of(path).to_owned()))
    }

    /// Opens the database over another storage, which is how the tests make writes fail.
    #[cfg(test)]
    pub(crate) fn open_with(backend: impl redb::StorageBackend) -> Result<Self, Error> {
        Self::open_with_room(backend, Arc::new(u64::MAX.into()))
    }

    /// Opens the database over another storage that says that `free` bytes are free.
    #[cfg(test)]
    pub(crate) fn open_with_room(
        backend: impl redb::StorageBackend,
        free: Arc<std::sync::atomic::AtomicU64>,
    ) -> Result<Self, Error> {
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend);
        Self::from_database(database, Path::new("test"), Room::Memory(free))
    }

    fn from_database(database: Result<Database, DatabaseError>, path: &Path, room: Room) -> Result<Self, Error> {
        let damaged = |source| Error::Damaged { path: path.to_owned(), source };
        let mut database = database.map_err(|error| not_opened(error, path))?;
        // What is signed from this state cannot be taken back, so a flipped bit stops the node here. A repair would
        // silently go back to an older commit, so it counts as damage as well.
        match database.check_integrity() {
            Ok(true) => {}
            Ok(false) => return Err(damaged(None)),
            Err(error) => return Err(damaged(Some(Box::new(error.into())))),
        }
        let store = Self { database: Arc::new(database), room };
        migrate::to_current(&store)?;
        Ok(store)
    }

    /// Runs blocking work on the store in a thread made for it.
    ///
    /// The work goes on to its end when the future is dropped.
    ///
    /// # Errors
    ///
    /// Those of `work`, and [`Error::Stopped`] when the thread did not finish.
    pub async fn run<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    {
        let store = self.clone();
        tokio::task::spawn_blocking(move || work(&store)).await.map_err(|_| Error::Stopped)?
    }

    /// Performs `change` in one transaction; nothing of it stays when it fails.
    fn write<T>(&self, change: impl FnOnce(&WriteTransaction) -> Result<T, Error>) -> Result<T, Error> {
        self.write_bytes(0, change)
    }

    /// [`Store::write`] of a change that adds `bytes`.
    fn write_bytes<T>(
        &self,
        bytes: usize,
        change: impl FnOnce(&WriteTransaction) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.room.check(bytes)?;
        let mut transaction = self.database.begin_write().map_err(failed("begin a transaction"))?;
        // Immediate durability is redb's default; two-phase commit keeps hostile input from forging a half commit.
        transaction.set_two_phase_commit(true);
        let value = change(&transaction)?;
        transaction.commit().map_err(failed("commit"))?;
        Ok(value)
    }

    fn read<T>(&self, look: impl FnOnce(&ReadTransaction) -> Result<T, Error>) -> Result<T, Error> {
        let transaction = self.database.begin_read().map_err(failed("begin a read"))?;
        look(&transaction)
    }
}

fn not_opened(error: DatabaseError, path: &Path) -> Error {
    if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
        return Error::InUse { path: path.to_owned() };
    }
    if let DatabaseError::Storage(StorageError::Io(source)) = error {
        return Error::File { path: path.to_owned(), source };
    }
    Error::Damaged { path: path.to_owned(), source: Some(Box::new(error.into())) }
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    fs::File::open(parent_of(path))?.sync_all()
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Gives redb's many error types the words of ours.
fn failed<E: Into<redb::Error>>(operation: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::Database { operation, source: Box::new(source.into()) }
}
