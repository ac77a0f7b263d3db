//! A full disk: changes wait, the health says so, and they go on by themselves; a disk that is full all of a sudden ends the log.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use openraft::storage::RaftLogStorageExt;

use super::{
    super::{Health, Log},
    model::entry,
};
use crate::store::{
    Error as StoreError, Store,
    testing::{Disk, Trouble},
};

#[tokio::test]
async fn changes_wait_for_space_and_go_on_by_themselves() {
    let (disk, free) = (Disk::default(), Arc::new(AtomicU64::new(u64::MAX)));
    let store = Store::open_with_room(disk.clone(), free.clone()).unwrap();
    let mut log = Log::open(&store).unwrap();
    let mut health = log.health();
    log.blocking_append([entry(1, 0, Vec::new())]).await.unwrap();
    free.store(5 << 20, Ordering::SeqCst);
    let refused = store.counter_add("builds", 1).unwrap_err();
    assert!(matches!(refused, StoreError::NoSpace { free: 5_242_880, .. }), "{refused}");
    assert!(refused.to_string().starts_with("no space: 5 MiB are free"), "{refused}");
    let before = disk.operations();
    let mut waiting = log.clone();
    let told = async {
        health.wait_for(|health| matches!(health, Health::NoSpace { free: 5_242_880, .. })).await.unwrap();
        assert_eq!(disk.operations(), before, "nothing is written to a full disk");
        free.store(u64::MAX, Ordering::SeqCst);
        health.wait_for(|health| *health == Health::Sound).await.unwrap();
    };
    let (appended, ()) = tokio::join!(waiting.blocking_append([entry(1, 1, Vec::new())]), told);
    appended.unwrap();
    log.blocking_append([entry(1, 2, Vec::new())]).await.unwrap();
    assert_eq!(store.group_records(0, 9, usize::MAX).unwrap().len(), 3);
}

#[tokio::test]
async fn a_member_that_waits_for_space_can_be_stopped() {
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let store = Store::open_with_room(Disk::default(), free.clone()).unwrap();
    let mut log = Log::open(&store).unwrap();
    let mut health = log.health();
    free.store(0, Ordering::SeqCst);
    let closer = log.clone();
    let close = async {
        health.wait_for(|health| *health != Health::Sound).await.unwrap();
        closer.close();
    };
    let (refused, ()) = tokio::join!(log.blocking_append([entry(1, 0, Vec::new())]), close);
    assert!(refused.unwrap_err().to_string().contains("closed before the change was written"));
    free.store(u64::MAX, Ordering::SeqCst);
    assert!(log.blocking_append([entry(1, 1, Vec::new())]).await.is_err(), "it stays closed");
    drop(log);
    assert!(store.group_records(0, 9, usize::MAX).unwrap().is_empty());
    let mut log = Log::open(&store).unwrap();
    log.blocking_append([entry(1, 0, Vec::new())]).await.unwrap();
}

/// Another program took the reserve between the look and the write: the member stops, in words, and comes back after a restart.
#[tokio::test]
async fn a_disk_that_is_full_all_of_a_sudden_ends_the_log() {
    let disk = Disk::default();
    let store = Store::open_with(disk.clone()).unwrap();
    let mut log = Log::open(&store).unwrap();
    log.blocking_append([entry(1, 0, Vec::new())]).await.unwrap();
    disk.fail_after(2, Trouble::Full);
    let refused = log.blocking_append([entry(1, 1, vec![1; 9000])]).await.unwrap_err().to_string();
    assert!(refused.contains("storage space"), "{refused}");
    assert!(matches!(&*log.health().borrow(), Health::Failed(why) if why.contains("storage space")));
    assert!(log.blocking_append([entry(1, 2, Vec::new())]).await.is_err(), "nothing follows a change that failed");
    drop((log, store));
    let disk = disk.after_failure(crate::store::testing::Unsynced::AllKept);
    let mut log = Log::open(&Store::open_with(disk).unwrap()).unwrap();
    log.blocking_append([entry(1, 1, Vec::new())]).await.unwrap();
}
