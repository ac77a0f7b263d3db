//! What the store keeps over a restart, refuses, and survives.

mod crash;

use std::{os::unix::fs::PermissionsExt, path::Path, time::Instant};

use protocol::{
    ChannelName, Hash, NodeId,
    lease::{LeaseNumber, Term},
};

use super::{Error, Generation, Snapshot, Store, migrate, tables};

fn channel(name: &str) -> ChannelName {
    name.parse().unwrap()
}

fn entry(seq: u64) -> (u64, Vec<u8>) {
    (seq, format!("entry {seq}").into_bytes())
}

#[test]
fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.db");
    let (node, record, stable) = (NodeId::from_bytes([1; 32]), Hash::of(b"record"), channel("stable"));
    let store = Store::open(&path).unwrap();
    store.journal_append(&[entry(1), entry(2), entry(3), entry(4)]).unwrap();
    store.snapshot_put(2, b"state").unwrap();
    store.policy_append(1, b"genesis").unwrap();
    store.policy_append(2, b"second").unwrap();
    store.record_put(&record, b"record").unwrap();
    store.release_put(&stable, 7, Term(1), b"release").unwrap();
    store.mirror_put(&stable, 5, b"mirror").unwrap();
    store.peer_put(&node, b"addresses").unwrap();
    store.attempt_put(LeaseNumber(9), b"running").unwrap();
    store.attempt_put(LeaseNumber(8), b"done").unwrap();
    store.attempt_remove(LeaseNumber(8)).unwrap();
    assert_eq!(store.counter_add("builds", 2).unwrap(), 2);
    drop(store);

    let store = Store::open(&path).unwrap();
    assert_eq!(store.journal_from(0, 100).unwrap(), [entry(3), entry(4)]);
    assert_eq!(store.journal_from(4, 100).unwrap(), [entry(4)]);
    assert_eq!(store.journal_from(0, 1).unwrap(), [entry(3)]);
    assert_eq!(store.snapshot().unwrap(), Some(Snapshot { seq: 2, bytes: b"state".to_vec() }));
    assert_eq!(store.policies().unwrap(), [(1, b"genesis".to_vec()), (2, b"second".to_vec())]);
    assert_eq!(store.record(&record).unwrap().unwrap(), b"record");
    assert_eq!(store.record(&Hash::of(b"other")).unwrap(), None);
    assert_eq!(store.release(&stable).unwrap(), Some(Generation { number: 7, bytes: b"release".to_vec() }));
    assert_eq!(store.mirror(&stable).unwrap(), Some(Generation { number: 5, bytes: b"mirror".to_vec() }));
    assert_eq!(store.peers().unwrap(), [(node, b"addresses".to_vec())]);
    assert_eq!(store.attempts().unwrap(), [(LeaseNumber(9), b"running".to_vec())]);
    assert_eq!(store.counter_add("builds", 1).unwrap(), 3);
    assert_eq!(store.counter("never").unwrap(), 0);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "one file, and no other name of it");
}

#[test]
fn the_journal_has_no_gap_and_a_batch_is_whole_or_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("node.db")).unwrap();
    assert!(matches!(store.journal_append(&[entry(2)]), Err(Error::JournalGap { expected: 1, got: 2 })));
    store.journal_append(&[entry(1), entry(2)]).unwrap();
    assert!(matches!(store.journal_append(&[entry(2)]), Err(Error::JournalGap { expected: 3, got: 2 })));
    assert!(store.journal_append(&[entry(3), entry(5)]).is_err());
    assert_eq!(store.journal_last().unwrap(), 2, "nothing of the refused batch is kept");
    assert!(matches!(store.snapshot_put(3, b""), Err(Error::SnapshotOutOfRange { last: 2, .. })));
    store.snapshot_put(2, b"all").unwrap();
    assert!(matches!(store.snapshot_put(2, b"again"), Err(Error::SnapshotOutOfRange { kept: 2, .. })));
    assert!(store.journal_from(0, 10).unwrap().is_empty());
    assert_eq!(store.journal_last().unwrap(), 2, "the snapshot carries the number on");
    store.journal_append(&[entry(3)]).unwrap();
}

#[test]
fn generations_and_policies_only_go_forward() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("node.db")).unwrap();
    let (stable, testing) = (channel("stable"), channel("testing"));
    store.release_put(&stable, 5, Term(1), b"five").unwrap();
    for older in [0, 4] {
        let refused = store.release_put(&stable, older, Term(9), b"older");
        assert!(matches!(refused, Err(Error::GenerationNotNewer { kept: 5, .. })), "{refused:?}");
    }
    for term in [0, 1] {
        let refused = store.release_put(&stable, 5, Term(term), b"other");
        assert!(matches!(refused, Err(Error::TermNotNewer { kept: 1, .. })), "{refused:?}");
    }
    store.release_put(&stable, 5, Term(1), b"five").unwrap();
    store.release_put(&testing, 1, Term(1), b"another channel").unwrap();
    store.release_put(&stable, 5, Term(2), b"five, said again by the next coordinator").unwrap();
    store.release_put(&stable, 9, Term(1), b"nine").unwrap();
    assert_eq!(store.release(&stable).unwrap().unwrap().number, 9);
    store.policy_append(3, b"joined here").unwrap();
    for version in [2, 3, 5] {
        let refused = store.policy_append(version, b"");
        assert!(matches!(refused, Err(Error::PolicyOutOfOrder { kept: 3, .. })), "{refused:?}");
    }
    store.policy_append(4, b"next").unwrap();
}

#[test]
fn a_record_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("node.db")).unwrap();
    let hash = Hash::of(b"payload");
    store.record_put(&hash, b"first signatures").unwrap();
    store.record_put(&hash, b"other signatures").unwrap();
    assert_eq!(store.record(&hash).unwrap().unwrap(), b"first signatures");
}

#[test]
fn a_second_open_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.db");
    let store = Store::open(&path).unwrap();
    let refused = Store::open(&path).unwrap_err();
    assert!(matches!(refused, Error::InUse { .. }), "{refused:?}");
    assert!(refused.to_string().contains("another process"), "{refused}");
    drop(store);
    Store::open(&path).unwrap();
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.db");
    let store = Store::open(&path).unwrap();
    let newer = migrate::SCHEMA + 1;
    store
        .write(|transaction| {
            let mut meta = transaction.open_table(tables::META).unwrap();
            meta.insert(migrate::SCHEMA_KEY, newer).unwrap();
            Ok(())
        })
        .unwrap();
    drop(store);
    for _ in 0..2 {
        let refused = Store::open(&path).unwrap_err();
        assert!(matches!(refused, Error::NewerSchema { found, .. } if found == newer), "{refused:?}");
    }
}

/// Flips single bits all over a filled database: each is refused, or touches nothing that is in use.
#[test]
fn a_flipped_bit_never_changes_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.db");
    let store = Store::open(&path).unwrap();
    let entries: Vec<_> = (1..=200).map(entry).collect();
    store.journal_append(&entries).unwrap();
    drop(store);
    let sound = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for step in 0..150 {
        let mut bytes = sound.clone();
        // A stride that meets the header, the trees and free pages alike.
        let at = (step * 7919 * 13) % bytes.len();
        bytes[at] ^= 1 << (step % 8);
        let copy = dir.path().join("copy.db");
        std::fs::write(&copy, &bytes).unwrap();
        match read_all(&copy) {
            Ok(found) => assert_eq!(found, entries, "a bit at {at}"),
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    println!("{refused} of 150 flipped bits were in use and refused");
    let leaf = sound.windows(9).position(|window| window == b"entry 100").unwrap();
    let mut bytes = sound;
    bytes[leaf] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(Store::open(&path), Err(Error::Damaged { .. })));
}

fn read_all(path: &Path) -> Result<Vec<(u64, Vec<u8>)>, Error> {
    Store::open(path)?.journal_from(0, 1000)
}

#[tokio::test]
async fn work_runs_beside_the_async_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("node.db")).unwrap();
    store.run(|store| store.journal_append(&[entry(1)])).await.unwrap();
    assert_eq!(store.run(Store::journal_last).await.unwrap(), 1);
    let refused = store.run(|store| store.journal_append(&[entry(1)])).await;
    assert!(matches!(refused, Err(Error::JournalGap { .. })));
}

#[test]
fn commits_are_counted_in_hundreds_and_batches_carry_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("node.db")).unwrap();
    let mut seq = 0;
    let mut rate = |commits: u64, batch: u64| {
        let begun = Instant::now();
        for _ in 0..commits {
            let entries: Vec<_> = (0..batch).map(|_| (seq_next(&mut seq), vec![7_u8; 300])).collect();
            store.journal_append(&entries).unwrap();
        }
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "batch of {batch}: {:.0} commits/s, {:.0} entries/s",
            commits as f64 / seconds,
            (commits * batch) as f64 / seconds
        );
    };
    rate(100, 1);
    rate(50, 64);
    assert_eq!(store.journal_last().unwrap(), 100 + 50 * 64);
}

fn seq_next(seq: &mut u64) -> u64 {
    *seq += 1;
    *seq
}

#[test]
fn policies_are_read_without_a_daemon_and_never_beside_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("artel.redb");
    assert!(matches!(Store::policies_at(&path), Err(Error::File { .. })), "nothing is made");
    assert!(!path.exists());
    let store = Store::open(&path).unwrap();
    store.policy_append(1, b"genesis").unwrap();
    store.policy_append(2, b"second").unwrap();
    assert!(matches!(Store::policies_at(&path), Err(Error::InUse { .. })));
    drop(store);
    assert_eq!(Store::policies_at(&path).unwrap(), [(1, b"genesis".to_vec()), (2, b"second".to_vec())]);
}
