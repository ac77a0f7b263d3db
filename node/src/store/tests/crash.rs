//! A disk whose k-th write, sync or growth fails, and that then loses what was not synced.
//!
//! For every k of a script of 60 operations: after the failure the disk is reopened, and everything that the store had
//! acknowledged is there.

use protocol::{
    Hash,
    lease::{LeaseNumber, Term},
};

use super::{
    super::{
        Error, Store,
        testing::{Disk, Unsynced},
    },
    channel, entry,
};

/// The highest numbers that the store acknowledged.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Acknowledged {
    journal: u64,
    snapshot: u64,
    generation: u64,
    attempts: u64,
    counter: u64,
}

/// 60 operations of six kinds, until one fails.
fn script(store: &Store, done: &mut Acknowledged) -> Result<(), Error> {
    let stable = channel("stable");
    for round in 1..=10 {
        let next = done.journal + 1;
        store.journal_append(&[entry(next), entry(next + 1)])?;
        done.journal = next + 1;
        store.record_put(&Hash::of(&round.to_string().into_bytes()), &vec![1; 6000])?;
        store.release_put(&stable, round, Term(1), b"release")?;
        done.generation = round;
        store.attempt_put(LeaseNumber(round), b"running")?;
        done.attempts = round;
        done.counter = store.counter_add("builds", 1)?;
        store.snapshot_put(done.journal - 1, b"state")?;
        done.snapshot = done.journal - 1;
    }
    Ok(())
}

fn found(store: &Store) -> Acknowledged {
    let entries = store.journal_from(0, 1000).unwrap();
    let snapshot = store.snapshot().unwrap().map_or(0, |snapshot| snapshot.seq);
    for (index, (seq, bytes)) in entries.iter().enumerate() {
        assert_eq!((*seq, bytes), (snapshot + 1 + index as u64, &entry(*seq).1), "the journal has no gap");
    }
    Acknowledged {
        journal: store.journal_last().unwrap(),
        snapshot,
        generation: store.release(&channel("stable")).unwrap().map_or(0, |release| release.number),
        attempts: store.attempts().unwrap().len() as u64,
        counter: store.counter("builds").unwrap(),
    }
}

#[test]
fn nothing_acknowledged_is_missing_after_a_failure_at_any_write() {
    let sound = Disk::default();
    let mut all = Acknowledged::default();
    script(&Store::open_with(sound.clone()).unwrap(), &mut all).unwrap();
    let operations = sound.operations();
    assert!(operations > 200, "the script writes: {operations}");
    let (mut during_open, mut later, mut unreadable) = (0, 0, 0);
    for k in 0..operations {
        let disk = Disk::failing_after(k);
        let mut done = Acknowledged::default();
        match Store::open_with(disk.clone()) {
            Err(_) => during_open += 1,
            Ok(store) => {
                later += u64::from(script(&store, &mut done).is_err());
            }
        }
        let some = if k.is_multiple_of(2) { Unsynced::AllKept } else { Unsynced::EveryOtherKept };
        for unsynced in [Unsynced::AllLost, some] {
            let case = format!("write {k} fails, {unsynced:?}");
            unreadable += u64::from(!check(&disk.after_failure(unsynced), &done, &case));
        }
    }
    assert!(during_open > 0 && later > 100, "{during_open} failures while opening, {later} later");
    println!(
        "{operations} failures x 2 disks: {during_open} while opening, {later} in the script, \
         {unreadable} disks with a database that was never whole"
    );
}

/// Reopens and compares. Says whether the disk could be read; one that failed before the first open ended need not be.
fn check(disk: &Disk, done: &Acknowledged, case: &str) -> bool {
    let store = match Store::open_with(disk.clone()) {
        Ok(store) => store,
        Err(error) if *done == Acknowledged::default() => {
            assert!(!error.to_string().is_empty());
            return false;
        }
        Err(error) => panic!("{case}: {error:?}"),
    };
    let found = found(&store);
    let at_least = found.journal >= done.journal
        && found.snapshot >= done.snapshot
        && found.generation >= done.generation
        && found.attempts >= done.attempts
        && found.counter >= done.counter;
    assert!(at_least, "{case}: {done:?} was acknowledged, {found:?} is there");
    let next = found.journal + 1;
    store.journal_append(&[entry(next)]).unwrap_or_else(|error| panic!("{case}: {error:?}"));
    true
}
