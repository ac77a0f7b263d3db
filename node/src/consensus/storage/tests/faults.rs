//! The log on a disk that fails: at every single write, and in thousands of power cuts.

use super::model::{Chance, Model, Op};
use crate::{
    consensus::storage::Log,
    store::{
        Store,
        testing::{Disk, Trouble, Unsynced},
    },
};

/// Changes of the script whose every write fails once.
const SCRIPT: usize = 200;
/// Power cuts of one run.
const CRASHES: u64 = 10_000;
/// Power cuts that one disk lives through.
const CRASHES_PER_DISK: u64 = 50;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(1).build().unwrap()
}

/// What a run leaves: the state that was acknowledged, and the ones that the changes in flight lead to.
struct Left {
    states: Vec<Model>,
    performed: usize,
}

/// Performs changes by chance until one fails or `count` are done. Some wait together and share a transaction.
async fn work(log: &Log, begin: Model, chance: &mut Chance, count: usize) -> Left {
    let mut states = vec![begin];
    let mut performed = 0;
    while performed < count {
        let mut ops: Vec<Op> = Vec::new();
        let together = 1 + chance.below(3);
        while (ops.len() as u64) < together {
            let last = states.last().unwrap();
            let op = last.choose(chance);
            if !op.queues_at_once() && !ops.is_empty() {
                break;
            }
            let alone = !op.queues_at_once();
            let mut next = last.clone();
            next.apply(&op);
            states.push(next);
            ops.push(op);
            if alone {
                break;
            }
        }
        let results = futures::future::join_all(ops.into_iter().map(|op| op.perform(log.clone()))).await;
        let done = results.iter().take_while(|result| result.is_ok()).count();
        assert!(
            results[done..].iter().all(Result::is_err),
            "a change is done though one before it failed: {results:?}"
        );
        performed += done;
        states.drain(..done);
        if done < results.len() {
            break;
        }
    }
    Left { states, performed }
}

/// Reopens, and gives the state that is there, which must be one of those that may be.
async fn recovered(disk: &Disk, left: &Left, case: &str) -> (Model, Log, Store) {
    let store = Store::open_with(disk.clone()).unwrap_or_else(|error| panic!("{case}: {error:?}"));
    let (mut found, log, committed) = Model::read(&store).await.unwrap_or_else(|error| panic!("{case}: {error:?}"));
    // The mark may be behind: what was committed is found out again by the group.
    found.floor = left.states[0].floor;
    assert!(
        left.states.contains(&found),
        "{case}: acknowledged {:?} and {} in flight, found {found:?}",
        left.states[0],
        left.states.len() - 1
    );
    assert!(committed <= found.last(), "{case}: {committed:?} is committed and {:?} is there", found.last());
    (found, log, store)
}

/// One run of the script on a disk that fails at the k-th operation, and the check of what is left. Says how many changes were done.
async fn fail_at(k: u64, trouble: Trouble) -> Option<usize> {
    let disk = Disk::default();
    disk.fail_after(k, trouble);
    let store = Store::open_with(disk.clone()).ok()?;
    let log = Log::open(&store).unwrap();
    let left = work(&log, Model::default(), &mut Chance(7), SCRIPT).await;
    drop((log, store));
    let some = if k.is_multiple_of(2) { Unsynced::AllKept } else { Unsynced::SomeKept(k) };
    for unsynced in [Unsynced::AllLost, some] {
        let case = format!("operation {k} fails ({trouble:?}), then {unsynced:?}");
        let (found, log, store) = recovered(&disk.after_failure(unsynced), &left, &case).await;
        // It goes on from there.
        let after = work(&log, found, &mut Chance(k), 3).await;
        assert!(after.performed >= 3, "{case}: the log does not go on");
        drop(store);
    }
    Some(left.performed)
}

#[test]
fn nothing_acknowledged_is_missing_after_an_error_at_any_write() {
    let runtime = runtime();
    let disk = Disk::default();
    let begun = std::time::Instant::now();
    let performed = runtime.block_on(async {
        let store = Store::open_with(disk.clone()).unwrap();
        let log = Log::open(&store).unwrap();
        work(&log, Model::default(), &mut Chance(7), SCRIPT).await.performed
    });
    let operations = disk.operations();
    assert!(performed >= SCRIPT && operations > 500, "{performed} changes, {operations} operations");
    let (mut during_open, mut during_script) = (0, 0);
    for k in 0..operations {
        let trouble = if k.is_multiple_of(3) { Trouble::Full } else { Trouble::Broken };
        match runtime.block_on(fail_at(k, trouble)) {
            Some(done) => during_script += usize::from(done < SCRIPT),
            None => during_open += 1,
        }
    }
    assert!(during_script > 400, "{during_script}");
    println!(
        "{performed} changes, {operations} operations, each failed once on 2 disks: {during_open} while the database was made, \
         {during_script} in the script; disk of {} KiB; {:.1} s",
        disk.len() / 1024,
        begun.elapsed().as_secs_f64()
    );
}

#[derive(Debug, Default)]
struct Count {
    crashes: u64,
    changes: u64,
    double: u64,
    /// A change in flight was there after all.
    ahead: u64,
    bytes_max: usize,
}

/// The life of one disk: work, power cut, sometimes another one while the database recovers.
async fn life(seed: u64, count: &mut Count) {
    let mut chance = Chance(seed << 20);
    let disk = Disk::default();
    let mut store = Store::open_with(disk.clone()).unwrap();
    let (mut model, mut log, _) = Model::read(&store).await.unwrap();
    for crash in 0..CRASHES_PER_DISK {
        let case = format!("seed {seed}, crash {crash}");
        disk.fail_after(chance.below(150), Trouble::Broken);
        let left = work(&log, model, &mut chance, 40).await;
        count.changes += left.performed as u64;
        disk.fail_after(u64::MAX, Trouble::Broken);
        drop((log, store));
        disk.restore_power(Unsynced::SomeKept(chance.below(u64::MAX)));
        if chance.below(5) == 0 {
            disk.fail_after(chance.below(8), Trouble::Broken);
            let again = Store::open_with(disk.clone());
            count.double += u64::from(again.is_err());
            disk.fail_after(u64::MAX, Trouble::Broken);
            drop(again);
            disk.restore_power(Unsynced::SomeKept(chance.below(u64::MAX)));
        }
        (model, log, store) = recovered(&disk, &left, &case).await;
        count.ahead += u64::from(model != left.states[0]);
        count.crashes += 1;
        count.bytes_max = count.bytes_max.max(disk.len());
    }
}

#[test]
fn nothing_acknowledged_is_missing_after_ten_thousand_power_cuts() {
    let runtime = runtime();
    let begun = std::time::Instant::now();
    let mut count = Count::default();
    for seed in 0..CRASHES / CRASHES_PER_DISK {
        runtime.block_on(life(seed, &mut count));
    }
    assert_eq!(count.crashes, CRASHES);
    assert!(count.double > 200 && count.ahead > 200 && count.changes > 4 * count.crashes, "{count:?}");
    println!("{count:?} in {:.1} s", begun.elapsed().as_secs_f64());
}
