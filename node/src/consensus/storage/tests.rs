//! What a member's log keeps, refuses and survives.

mod faults;
mod model;
mod old;
mod space;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use openraft::{
    RaftLogReader, StorageError, Vote,
    storage::{RaftLogStorage, RaftLogStorageExt},
    testing::{StoreBuilder, Suite},
};

use self::model::{entry, id, meta};
use super::{Error, Health, Log, Place, RecordError};
use crate::{
    consensus::{
        Durable, Frozen, Machine, Member, PAYLOAD_BYTES_MAX, Position, Snapshots, Types, guard::Marks, machine::Adapter,
    },
    store::{Change, Store, testing::Disk},
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

    fn freeze(&self) -> Frozen {
        let copy = self.0.clone();
        Box::new(|| Ok(copy))
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

async fn filled(store: &Store, entries: u64) -> Log {
    let mut log = Log::open(store).unwrap();
    log.save_vote(&Vote::new(2, Member([1; 32]))).await.unwrap();
    for index in 0..entries {
        log.blocking_append([entry(2, index, index.to_be_bytes().to_vec())]).await.unwrap();
    }
    log.snapshots().put(meta(id(2, 1)), b"state".to_vec()).await.unwrap();
    log.purge(id(2, 1)).await.unwrap();
    // Committed is written along with the next change.
    log.save_committed(Some(id(2, entries - 1))).await.unwrap();
    log.save_vote(&Vote::new(3, Member([1; 32]))).await.unwrap();
    log
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.db");
    let store = Store::open(&path).unwrap();
    drop(filled(&store, 6).await);
    drop(store);
    let store = Store::open(&path).unwrap();
    let mut log = Log::open(&store).unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(3, Member([1; 32]))));
    assert_eq!(log.read_committed().await.unwrap(), Some(id(2, 5)));
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(2, 1)), Some(id(2, 5))));
    let found = log.try_get_log_entries(..).await.unwrap();
    let expected: Vec<_> = (2..6_u64).map(|index| entry(2, index, index.to_be_bytes().to_vec())).collect();
    assert_eq!(found, expected);
    assert_eq!(log.snapshots().get().await.unwrap(), Some((meta(id(2, 1)), b"state".to_vec())));
    log.snapshots().put(meta(id(2, 0)), b"older".to_vec()).await.unwrap();
    assert_eq!(log.snapshots().get().await.unwrap().unwrap().1, b"state", "a snapshot never goes back");
    let refused = log.blocking_append([entry(2, 9, Vec::new())]).await.unwrap_err();
    assert!(refused.to_string().contains("entry 9 does not follow: expected 6"), "{refused}");
    log.blocking_append([entry(2, 6, Vec::new())]).await.unwrap();
}

/// Every record in turn is damaged, of an unknown version, cut short or put elsewhere: the role refuses to start, and says why.
#[tokio::test]
async fn one_wrong_record_refuses_the_role() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("node.db")).unwrap();
    drop(filled(&store, 6).await);
    let marks = store.group_marks().unwrap();
    let (described, snapshot) = store.group_snapshot().unwrap().unwrap();
    let records = store.group_records(0, 9, usize::MAX).unwrap();
    let third = records[1].1.clone();
    type Put = Box<dyn Fn(Vec<u8>) -> Change>;
    let (meta_kept, snapshot_kept) = (described.clone(), snapshot.clone());
    let cases: Vec<(Place, Vec<u8>, Put)> = vec![
        (Place::Log(3), third.clone(), Box::new(|bytes| Change::Append(vec![(3, bytes)]))),
        (Place::Vote, marks.vote.unwrap(), Box::new(Change::Vote)),
        (Place::Committed, marks.committed.unwrap(), Box::new(Change::Committed)),
        (Place::Purged, marks.purged.unwrap(), Box::new(|mark| Change::Purge { upto: 1, mark })),
        (Place::Meta, described, Box::new(move |meta| Change::Snapshot { meta, bytes: snapshot_kept.clone() })),
        (Place::Snapshot, snapshot, Box::new(move |bytes| Change::Snapshot { meta: meta_kept.clone(), bytes })),
    ];
    let mut wrong = 0;
    for (place, sound, put) in cases {
        let mut refuse = |bytes: Vec<u8>| {
            store.group_write(&[put(bytes)]).unwrap();
            wrong += 1;
            match Log::open(&store) {
                Err(error @ Error::Record(_)) => {
                    assert!(error.to_string().contains("the role refuses to start"), "{error}");
                    let Error::Record(why) = error else { unreachable!() };
                    why
                }
                other => panic!("{place}: {other:?}"),
            }
        };
        for bit in 8..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // One bit in 7: every transaction is synced.
            if bit.is_multiple_of(7) {
                assert_eq!(refuse(bytes), RecordError::Checksum { place });
            }
        }
        let mut newer = sound.clone();
        newer[0] = 9;
        assert_eq!(refuse(newer), RecordError::Version { place, found: 9 });
        assert_eq!(refuse(sound[..20].to_vec()), RecordError::Short { place, got: 20 });
        assert_eq!(refuse(records[2].1.clone()), RecordError::Checksum { place }, "a sound record at another's place");
        store.group_write(&[put(sound)]).unwrap();
        drop(Log::open(&store).unwrap());
    }
    store.group_write(&[Change::Truncate(3), Change::Append(vec![(4, records[2].1.clone())])]).unwrap();
    assert!(matches!(Log::open(&store), Err(Error::Hole { expected: 3, got: 4, .. })));
    println!("{wrong} wrong records, each refused");
}

#[tokio::test]
async fn an_entry_over_the_limit_is_refused_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("node.db")).unwrap();
    let mut log = Log::open(&store).unwrap();
    let refused = log.blocking_append([entry(1, 0, vec![0; PAYLOAD_BYTES_MAX + (1 << 20)])]).await.unwrap_err();
    assert!(refused.to_string().contains("over the limit"), "{refused}");
    log.blocking_append([entry(1, 0, vec![0; PAYLOAD_BYTES_MAX])]).await.unwrap();
}

/// Entries that left memory are read from the disk, and a reader sees no seam.
#[tokio::test]
async fn old_entries_come_from_the_disk() {
    let store = Store::open_with(Disk::default()).unwrap();
    let mut log = Log::open(&store).unwrap();
    for batch in 0..30_u64 {
        let entries = (batch * 100..batch * 100 + 100).map(|index| entry(1, index, vec![7; 500]));
        log.blocking_append(entries).await.unwrap();
    }
    let first = log.shared.state().tail.first().unwrap();
    assert!((1..=2000).contains(&first), "memory begins at {first}");
    let all = log.try_get_log_entries(..).await.unwrap();
    assert!(all.iter().zip(0..).all(|(entry, index)| entry.log_id.index == index) && all.len() == 3000);
    let across = log.try_get_log_entries(first - 2..=first + 1).await.unwrap();
    assert_eq!(across.iter().map(|entry| entry.log_id.index + 2 - first).collect::<Vec<_>>(), [0, 1, 2, 3]);
    log.blocking_append([entry(1, 3000, vec![1; 1 << 20]), entry(1, 3001, vec![1; 1 << 20])]).await.unwrap();
    let some = log.limited_get_log_entries(2999, 3002).await.unwrap();
    assert_eq!(some.len(), 2, "one frame does not hold both large ones");
    log.truncate(id(1, 10)).await.unwrap();
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(id(1, 9)));
    log.blocking_append([entry(2, 10, Vec::new())]).await.unwrap();
    assert_eq!(log.try_get_log_entries(8..).await.unwrap().len(), 3);
}

/// What waits together is synced together.
#[tokio::test]
async fn changes_that_wait_share_a_transaction() {
    let (disk, free) = (Disk::default(), Arc::new(AtomicU64::new(u64::MAX)));
    let store = Store::open_with_room(disk.clone(), free.clone()).unwrap();
    let mut log = Log::open(&store).unwrap();
    let mut health = log.health();
    let before = disk.operations();
    for index in 0..64 {
        log.blocking_append([entry(1, index, vec![1; 300])]).await.unwrap();
    }
    let alone = disk.operations() - before;
    let waiting = (64..128).map(|index| {
        let mut log = log.clone();
        async move { log.blocking_append([entry(1, index, vec![1; 300])]).await.unwrap() }
    });
    // How soon the writer wakes must not matter: it waits for space until all of them wait.
    free.store(0, Ordering::SeqCst);
    let freed = async {
        health.wait_for(|health| *health != Health::Sound).await.unwrap();
        free.store(u64::MAX, Ordering::SeqCst);
    };
    let before = disk.operations();
    tokio::join!(futures::future::join_all(waiting), freed);
    let together = disk.operations() - before;
    assert!(together * 8 < alone, "{together} disk operations together, {alone} one by one");
}
