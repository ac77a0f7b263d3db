//! A disk whose k-th write, sync or growth fails, and that then loses what was not synced.
//!
//! For every k of a script of 60 operations: after the failure the disk is reopened, and everything that the store had
//! acknowledged is there.

use std::{
    io,
    sync::{Arc, Mutex},
};

use protocol::{
    Hash,
    lease::{LeaseNumber, Term},
};
use redb::StorageBackend;

use super::{
    super::{Error, Store},
    channel, entry,
};

/// What the disk keeps of writes that were not synced when it failed.
#[derive(Debug, Clone, Copy)]
enum Unsynced {
    AllKept,
    AllLost,
    EveryOtherKept,
}

#[derive(Debug, Default)]
struct State {
    /// What a reader sees.
    seen: Vec<u8>,
    /// What survives.
    durable: Vec<u8>,
    /// Writes since the last sync.
    pending: Vec<(u64, Vec<u8>)>,
    /// Operations until the disk fails for good; `None` never.
    left: Option<u64>,
    operations: u64,
}

#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<State>>);

impl Disk {
    fn failing_after(operations: u64) -> Self {
        let disk = Self::default();
        disk.0.lock().unwrap().left = Some(operations);
        disk
    }

    fn operations(&self) -> u64 {
        self.0.lock().unwrap().operations
    }

    /// The disk as it is found after the power came back.
    fn after_failure(&self, unsynced: Unsynced) -> Self {
        let state = self.0.lock().unwrap();
        let mut content = state.durable.clone();
        content.resize(state.seen.len().max(content.len()), 0);
        for (index, (offset, data)) in state.pending.iter().enumerate() {
            let kept = match unsynced {
                Unsynced::AllKept => true,
                Unsynced::AllLost => false,
                Unsynced::EveryOtherKept => index % 2 == 0,
            };
            if kept {
                put(&mut content, *offset, data);
            }
        }
        Self(Arc::new(Mutex::new(State { seen: content.clone(), durable: content, ..State::default() })))
    }
}

impl State {
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        match &mut self.left {
            Some(0) => Err(io::Error::other("the disk failed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn put(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let from = usize::try_from(offset).unwrap();
    if content.len() < from + data.len() {
        content.resize(from + data.len(), 0);
    }
    content[from..from + data.len()].copy_from_slice(data);
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let state = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap();
        let bytes = state.seen.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut state = self.0.lock().unwrap();
        state.operate()?;
        let len = usize::try_from(len).unwrap();
        state.seen.resize(len, 0);
        state.durable.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut state = self.0.lock().unwrap();
        state.operate()?;
        let state = &mut *state;
        for (offset, data) in state.pending.drain(..) {
            put(&mut state.durable, offset, &data);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut state = self.0.lock().unwrap();
        // The write that fails is torn: its first half may be on the disk.
        let whole = state.operate();
        let part = if whole.is_ok() { data } else { &data[..data.len() / 2] };
        put(&mut state.seen, offset, part);
        state.pending.push((offset, part.to_vec()));
        whole
    }
}

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
        let some = if k % 2 == 0 { Unsynced::AllKept } else { Unsynced::EveryOtherKept };
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
