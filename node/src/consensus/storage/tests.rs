//! What a member's log keeps, refuses and survives.

mod faults;
mod model;

use std::{
    collections::BTreeMap,
    io::Cursor,
    sync::{Arc, Mutex},
};

use openraft::{
    Entry, EntryPayload, LogId, RaftLogReader, StorageError,
    storage::{RaftLogStorage, RaftLogStorageExt},
    testing::{StoreBuilder, Suite},
};

use self::model::{entry, id, meta};
use super::{Error, Log, Place, RecordError, Snapshots as _, record};
use crate::{
    consensus::{Durable, Machine, Member, Position, Snapshots as _, Types, guard::Marks, machine::Adapter},
    store::{Change, Store},
};

impl From<u64> for Member {
    fn from(number: u64) -> Member {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        Member(key)
    }
}

/// A machine that remembers what it was given.
#[derive(Debug, Default)]
struct Pile(Vec<u8>);

impl Machine for Pile {
    fn apply(&mut self, position: Position, payload: &[u8]) {
        self.0.extend(position.index.to_be_bytes());
        self.0.extend(payload);
    }

    fn freeze(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send> {
        let copy = self.0.clone();
        Box::new(|| copy)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.0 = snapshot.to_vec();
        Ok(())
    }
}

struct OnDisk;

impl StoreBuilder<Types, Log, Adapter<Pile, super::Snapshots>, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, Log, Adapter<Pile, super::Snapshots>), StorageError<Member>> {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("node.db")).unwrap();
        let log = Log::open(&store).unwrap();
        let machine = Adapter::open(Pile::default(), log.snapshots(), Marks::new()).await.unwrap();
        Ok((folder, log, machine))
    }
}

#[test]
fn openrafts_own_suite_passes() {
    Suite::test_all(OnDisk).unwrap();
}
