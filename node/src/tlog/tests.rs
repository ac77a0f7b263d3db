//! The book against a tree in memory: crashes at any point, gaps, contradictions, and what it serves.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use attest::{
    log::{
        checkpoint::Signed,
        network, tile,
        tile::{Resource, Slice, Tile},
    },
    testing::log::Memory,
};
use protocol::testing::{samples, signing_key};

use tokio::task::JoinSet;

use super::*;
use crate::store::testing::{Disk, Trouble, Unsynced};

/// How long a test waits for the writer.
const WITHIN: Duration = Duration::from_secs(20);

fn signer() -> Signer {
    Signer { origin: network::origin(&samples::network()), key: signing_key(10) }
}

fn store(disk: &Disk) -> Store {
    Store::open_with(disk.clone()).unwrap()
}

fn book(disk: &Disk) -> Arc<Book> {
    Book::open(&store(disk), signer()).unwrap()
}

fn placed(log: &Memory, from: u64, to: u64) -> Vec<Placed> {
    (from..to).map(|index| (index, log.entries()[index as usize].clone())).collect()
}

/// Appends and writes on this thread, as the writer does.
fn write(book: &Book, log: &Memory, (from, to): (u64, u64)) -> Result<(), Error> {
    book.append(placed(log, from, to), log.head(to));
    loop {
        let step = book.state().step();
        match step {
            Step::Rest => return Ok(()),
            Step::Write(batch) => book.write(&batch)?,
            Step::Fetch { .. } => panic!("nothing is missing: {step:?}"),
        }
    }
}

/// Everything that the book serves at its size, beside what the tree in memory has.
fn assert_serves(book: &Book, log: &Memory, size: u64) {
    assert_eq!(*book.heads().borrow(), log.head(size));
    for tile in Tile::added(0, size) {
        assert_eq!(book.read(Resource::Tile(tile)).unwrap(), Some(log.tile(tile)), "{tile} of {size}");
    }
    for slice in tile::bundles_added(0, size) {
        assert_eq!(book.read(Resource::Entries(slice)).unwrap(), Some(log.bundle(slice)), "{slice} of {size}");
    }
    let beyond = Slice::holding(size, size + 1).unwrap();
    assert_eq!(book.read(Resource::Entries(beyond)).unwrap(), None);
}

#[test]
fn the_book_serves_what_the_tree_has() {
    let (log, disk) = (Memory::sized(70_000), Disk::default());
    let kept = book(&disk);
    assert_eq!(kept.read(Resource::Checkpoint).unwrap(), None, "an empty log says nothing");
    let mut at = 0;
    for step in [1, 254, 1, 1, 255, 1000, 64_024, 1, 4463] {
        write(&kept, &log, (at, at + step)).unwrap();
        at += step;
        assert_eq!(*kept.heads().borrow(), log.head(at));
    }
    assert_serves(&kept, &log, 70_000);
    // A partial tile of an earlier size stays.
    let earlier = Slice::holding(999, 1000).unwrap();
    assert_eq!(kept.read(Resource::Entries(earlier)).unwrap(), Some(log.bundle(earlier)));
}

#[test]
fn a_checkpoint_is_signed_by_the_node_once_for_each_head() {
    let (log, kept) = (Memory::sized(30), book(&Disk::default()));
    write(&kept, &log, (0, 7)).unwrap();
    let first = kept.checkpoint().unwrap();
    assert_eq!(kept.checkpoint(), Some(first.clone()));
    kept.append(placed(&log, 7, 20), log.head(20));
    let step = kept.state().step();
    let Step::Write(batch) = step else { panic!("there is something to write: {step:?}") };
    assert_eq!(kept.checkpoint(), Some(first.clone()), "what was written before is signed while the writer writes");
    kept.restore(log.head(30)).unwrap();
    assert_eq!(kept.checkpoint(), None, "what does not come by itself is missing all the same");
    kept.restore(log.head(20)).unwrap();
    kept.write(&batch).unwrap();
    let bytes = kept.read(Resource::Checkpoint).unwrap().unwrap();
    let keys = [network::log_key(&samples::network(), &protocol::testing::node(10))];
    let signed = Signed::read(&bytes).unwrap().verify(&keys).unwrap();
    assert_eq!((first.claims().head(), signed.head()), (log.head(7), log.head(20)));
}

/// The power goes at the k-th write of a script, for each k: the book is then a beginning of the log, and what comes again
/// makes it whole.
#[test]
fn what_a_crash_takes_comes_again() {
    let log = Memory::sized(900);
    let script = |disk: &Disk| -> Result<u64, Error> {
        let (store, mut durable) = (Store::open_with(disk.clone())?, 0);
        let kept = Book::open(&store, signer())?;
        for round in 0..9 {
            write(&kept, &log, (round * 100, round * 100 + 100))?;
            if round % 3 == 2 {
                // Any durable change takes what was logged before along.
                store.counter_add("builds", 1)?;
                durable = round * 100 + 100;
            }
        }
        Ok(durable)
    };
    let sound = Disk::default();
    assert_eq!(script(&sound).unwrap(), 900);
    let (mut ended_early, mut lost) = (0, 0);
    for k in 0..sound.operations() {
        let disk = Disk::default();
        drop(store(&disk));
        disk.fail_after(k, Trouble::Broken);
        let failed = script(&disk).is_err();
        for unsynced in [Unsynced::AllLost, Unsynced::EveryOtherKept, Unsynced::SomeKept(k)] {
            let after = disk.after_failure(unsynced);
            let kept = book(&after);
            let size = kept.heads().borrow().size;
            assert_eq!(*kept.heads().borrow(), log.head(size), "write {k}, {unsynced:?}");
            ended_early += u64::from(failed);
            lost += u64::from(size < 900);
            kept.restore(log.head(size.min(300))).unwrap();
            write(&kept, &log, (size.min(300), 900)).unwrap();
            assert_serves(&kept, &log, 900);
        }
    }
    assert!(ended_early > 20 && lost > 20, "{ended_early} {lost}");
}

#[test]
fn what_was_durable_with_a_snapshot_survives_the_power() {
    let (log, disk) = (Memory::sized(500), Disk::default());
    let store = store(&disk);
    let kept = Book::open(&store, signer()).unwrap();
    write(&kept, &log, (0, 400)).unwrap();
    let change = crate::store::Change::Snapshot { meta: b"meta".to_vec(), bytes: b"ledger".to_vec() };
    store.group_write(&[change]).unwrap();
    write(&kept, &log, (400, 500)).unwrap();
    let after = disk.after_failure(Unsynced::AllLost);
    assert_eq!(*book(&after).heads().borrow(), log.head(400));
}

#[test]
fn the_same_again_is_nothing_and_another_entry_is_an_error() {
    let (log, disk) = (Memory::sized(300), Disk::default());
    let kept = book(&disk);
    write(&kept, &log, (0, 250)).unwrap();
    write(&kept, &log, (200, 300)).unwrap();
    assert_serves(&kept, &log, 300);
    let forged = Memory::forked(300, 120);
    kept.append(placed(&forged, 100, 130), forged.head(300));
    let Step::Write(batch) = kept.state().step() else { panic!("there is a batch") };
    assert!(matches!(kept.write(&batch), Err(Error::Contradiction { index: 120 })));
    assert!(matches!(kept.restore(forged.head(200)), Err(Error::Fork { size: 200 })));
    kept.restore(log.head(200)).unwrap();
    assert_serves(&kept, &log, 300);
}

#[test]
fn a_snapshot_waits_for_its_entries() {
    let (log, kept) = (Memory::sized(50), book(&Disk::default()));
    kept.append(placed(&log, 0, 50), log.head(50));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| kept.settle(50));
        assert!(kept.heads().borrow().size == 0 && !waits.is_finished(), "nothing is written yet");
        let Step::Write(batch) = kept.state().step() else { panic!("there is a batch") };
        kept.write(&batch).unwrap();
        assert_eq!(waits.join().unwrap(), Ok(()));
        let never = scope.spawn(|| kept.settle(51));
        kept.close();
        assert!(never.join().unwrap().is_err());
    });
}

/// What another candidate serves, some of it changed.
struct Other {
    files: BTreeMap<String, Vec<u8>>,
    asked: Mutex<u64>,
}

impl Other {
    fn of(log: &Memory, size: u64) -> Self {
        Self { files: log.files(size), asked: Mutex::default() }
    }
}

impl Source for Other {
    async fn fetch(&self, resource: Resource) -> Result<Vec<u8>, FetchError> {
        *self.asked.lock().unwrap() += 1;
        self.files.get(&resource.to_string()).cloned().ok_or_else(|| FetchError("not here".into()))
    }
}

async fn fill(kept: &Arc<Book>, other: &Other) -> Result<Result<(), ReadError>, Error> {
    let step = kept.state().step();
    let Step::Fetch { from, to, head } = step else { panic!("something is missing, not {step:?}") };
    kept.fill(other, (from, to), head).await
}

/// Several that can be asked, of whom one is, until what it gives is of no use.
struct Several {
    others: Vec<Other>,
    turn: AtomicUsize,
}

impl Source for Several {
    async fn fetch(&self, resource: Resource) -> Result<Vec<u8>, FetchError> {
        self.others[self.turn.load(Relaxed) % self.others.len()].fetch(resource).await
    }

    fn turn(&self) {
        self.turn.fetch_add(1, Relaxed);
    }
}

/// A crash takes the last batches, which come again: what was signed for before must not look as if it had gone back.
#[tokio::test]
async fn nothing_is_signed_until_what_a_crash_took_is_written_again() {
    let log = Memory::sized(300);
    let kept = book(&Disk::default());
    write(&kept, &log, (0, 290)).unwrap();
    kept.hold();
    assert_eq!(kept.checkpoint(), None);
    kept.append(placed(&log, 290, 300), log.head(300));
    let (book, entries) = (Arc::clone(&kept), placed(&log, 290, 300));
    let written = async {
        tokio::task::yield_now().await;
        assert_eq!(kept.checkpoint(), None, "the ledger knows more than is written");
        book.write(&entries).unwrap();
    };
    tokio::join!(kept.go_on(), written);
    assert_eq!(kept.checkpoint().unwrap().claims().head(), log.head(300));
}

#[tokio::test]
async fn who_lies_is_not_asked_for_ever() {
    let (log, forked) = (Memory::sized(700), Memory::forked(700, 3));
    let kept = book(&Disk::default());
    kept.restore(log.head(600)).unwrap();
    kept.append(placed(&log, 600, 610), log.head(610));
    let others = vec![Other::of(&forked, 610), Other::of(&Memory::sized(0), 0), Other::of(&log, 610)];
    let (stop, mut heads) = (CancellationToken::new(), kept.heads());
    let several = Several { others, turn: AtomicUsize::default() };
    let filled = async {
        tokio::time::timeout(WITHIN, heads.wait_for(|head| head.size == 610)).await.unwrap().unwrap();
        stop.cancel();
    };
    let (ran, ()) = tokio::join!(Arc::clone(&kept).run(several, stop.clone()), filled);
    ran.unwrap();
    assert_serves(&kept, &log, 610);
}

#[tokio::test]
async fn what_is_missing_is_fetched_and_proven() {
    let log = Memory::sized(1500);
    for have in [0, 1, 255, 256, 300] {
        let kept = book(&Disk::default());
        write(&kept, &log, (0, have)).unwrap();
        kept.restore(log.head(1200)).unwrap();
        kept.append(placed(&log, 1200, 1210), log.head(1210));
        assert_eq!(kept.checkpoint(), None, "what is missing here, others know");
        fill(&kept, &Other::of(&log, 1210)).await.unwrap().unwrap();
        write(&kept, &log, (1210, 1500)).unwrap();
        assert_serves(&kept, &log, 1500);
        assert_eq!(kept.checkpoint().unwrap().claims().head(), log.head(1500));
        // Who is no candidate any more gives the same, and signs nothing.
        let of = |text: &str| super::kept(&kept.store, text.parse().unwrap()).unwrap();
        assert_eq!(of("tile/entries/004").unwrap(), log.files(1500)["tile/entries/004"]);
        assert_eq!([of("checkpoint"), of("tile/entries/006")], [None, None]);
    }
}

#[tokio::test]
async fn another_log_than_the_ledgers_is_not_taken() {
    let log = Memory::sized(1000);
    for (case, other) in [("a fork", Memory::forked(1000, 700)), ("a longer fork", Memory::forked(1000, 10))] {
        let kept = book(&Disk::default());
        write(&kept, &log, (0, 100)).unwrap();
        kept.restore(log.head(1000)).unwrap();
        let error = fill(&kept, &Other::of(&other, 1000)).await.unwrap().unwrap_err();
        assert!(error.is_proof(), "{case}: {error:?}");
        assert_eq!(*kept.heads().borrow(), log.head(100), "{case}: nothing of it was written");
    }
    let kept = book(&Disk::default());
    kept.restore(log.head(1000)).unwrap();
    let mut swapped = Other::of(&log, 1000);
    let slice = Slice::holding(300, 1000).unwrap();
    let path = Resource::Entries(slice).to_string();
    let mut entries: Vec<Vec<u8>> =
        tile::read_bundle(slice, &swapped.files[&path]).unwrap().into_iter().map(<[u8]>::to_vec).collect();
    entries.swap(3, 4);
    swapped.files.insert(path, tile::write_bundle(entries.iter().map(Vec::as_slice)).unwrap());
    assert!(fill(&kept, &swapped).await.unwrap().unwrap_err().is_proof());
    assert_eq!(*kept.heads().borrow(), log.head(256), "what was proven before it is kept");
    fill(&kept, &Other::of(&log, 1000)).await.unwrap().unwrap();
    assert_serves(&kept, &log, 1000);
}

#[tokio::test]
async fn the_writer_fills_gaps_and_writes_until_it_is_stopped() {
    let (log, kept) = (Memory::sized(40_000), book(&Disk::default()));
    kept.restore(log.head(600)).unwrap();
    let (stop, other) = (CancellationToken::new(), Other::of(&log, 600));
    let (writer, token) = (Arc::clone(&kept), stop.clone());
    let mut running = JoinSet::new();
    running.spawn(async move { writer.run(other, token).await });
    let mut heads = kept.heads();
    let reached = |size: u64| move |head: &Head| head.size == size;
    tokio::time::timeout(WITHIN, heads.wait_for(reached(600))).await.unwrap().unwrap();
    for at in (600..40_000).step_by(100) {
        kept.append(placed(&log, at, at + 100), log.head(at + 100));
    }
    tokio::time::timeout(WITHIN, heads.wait_for(reached(40_000))).await.unwrap().unwrap();
    stop.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
    assert_serves(&kept, &log, 40_000);
    assert_eq!(kept.settle(40_001), Err("the transparency log is closed".into()));
}

#[test]
fn too_many_that_wait_behind_a_gap_are_fetched_as_well() {
    let (log, kept) = (Memory::sized(20_000), book(&Disk::default()));
    kept.restore(log.head(100)).unwrap();
    for at in (100..20_000).step_by(100) {
        kept.append(placed(&log, at, at + 100), log.head(at + 100));
    }
    let queued = kept.state().queue.len();
    assert!(queued <= WAITING_MAX, "{queued}");
    let next = kept.state().queue.front().map(|(index, _)| *index);
    let Step::Fetch { from: 0, to, head } = kept.state().step() else { panic!("entries are missing") };
    assert_eq!((Some(to), head), (next, log.head(20_000)), "they are fetched up to what waits");
}

#[tokio::test]
async fn a_reader_checks_that_a_log_continues() {
    let (log, fork) = (Memory::sized(3000), Memory::forked(3000, 2000));
    let (honest, forked) = (Other::of(&log, 3000), Other::of(&fork, 3000));
    for size in [0, 1, 256, 1999, 3000] {
        Reader::new(&honest, log.head(3000)).continues(log.head(size)).await.unwrap();
        Reader::new(&forked, fork.head(3000)).continues(log.head(size)).await.map_or_else(
            |error| assert!(size > 2000 && error.is_proof(), "{size}: {error:?}"),
            |()| assert!(size <= 2000, "{size}"),
        );
    }
    let back = Reader::new(&honest, log.head(3000)).continues(Head { size: 3001, ..log.head(3000) }).await;
    assert!(matches!(back, Err(ReadError::Inconsistent(_))));
    // Few tiles are asked for twice.
    let (mut reader, mut read) = (Reader::new(&honest, log.head(3000)), Vec::new());
    *honest.asked.lock().unwrap() = 0;
    while (read.len() as u64) < 3000 {
        read.extend(reader.bundle_with(read.len() as u64).await.unwrap().1);
    }
    assert_eq!(read, log.entries());
    assert!(*honest.asked.lock().unwrap() <= 30, "{:?}", honest.asked);
}
