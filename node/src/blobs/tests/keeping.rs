//! What one store keeps, lets go of, and finds damaged.

use std::{fs, os::unix::fs::FileExt, path::PathBuf, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use protocol::Hash;
use tempfile::TempDir;

use super::{
    super::{Blobs, Error, Import, Options, ServeError},
    fresh,
    network::{Behaviour, Network},
    noise, open, strict, usual,
};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn files_come_in_and_go_out() {
    let (dir, blobs) = fresh(usual()).await;
    let bytes = noise(1, 3 * MIB + 17);
    let source = dir.path().join("source");
    fs::write(&source, &bytes).unwrap();
    let (hash, size) = blobs.add_file(&source, Import::Copy).await.unwrap();
    assert_eq!((hash, size), (Hash::of(&bytes), bytes.len() as u64));
    assert_eq!(blobs.usage(), size);

    let target = dir.path().join("target");
    assert_eq!(blobs.export(&hash, &target).await.unwrap(), size);
    assert_eq!(fs::read(&target).unwrap(), bytes);
    let again = blobs.export(&hash, &target).await;
    assert!(matches!(again, Err(Error::File { .. })), "an existing file is not written over");
    fs::write(&target, b"changed").unwrap();
    fs::write(&source, b"changed").unwrap();
    blobs.scrub(&hash).await.unwrap();

    for range in [0..0, 0..1, 5..20_000, MIB as u64 - 1..2 * MIB as u64 + 1, size - 1..size, 0..size] {
        let pieces: Vec<_> = blobs.read_range(&hash, range.clone()).await.unwrap().try_collect().await.unwrap();
        let (from, to) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
        assert_eq!(pieces.concat(), bytes[from..to], "{range:?}");
    }
    assert!(matches!(blobs.read_range(&hash, 0..size + 1).await, Err(Error::Range { .. })));
    assert!(matches!(blobs.read(&hash, size - 1).await, Err(Error::TooLarge { .. })));
    assert!(matches!(blobs.read(&Hash::of(b"other"), 10).await, Err(Error::Missing { .. })));
    assert!(matches!(blobs.add_file(dir.path(), Import::Copy).await, Err(Error::File { .. })), "a directory");
}

#[tokio::test]
async fn a_reader_is_added_up_to_its_size() {
    let (dir, blobs) = fresh(usual()).await;
    for size in [0, 1, 100, 16 * 1024 + 1, 3 * MIB] {
        let bytes = noise(1, size);
        let reader = std::io::Cursor::new(bytes.clone());
        let added = blobs.add_reader(reader.clone(), size as u64).await.unwrap();
        assert_eq!(added, (Hash::of(&bytes), size as u64));
        assert_eq!(blobs.read(&added.0, u64::MAX).await.unwrap(), bytes);
        if size > 0 {
            assert!(blobs.add_reader(reader, size as u64 - 1).await.is_err(), "{size}: it has grown");
        }
    }
    blobs.shutdown().await;
    drop(blobs);
    let _blobs = open(&dir, usual()).await;
    assert!(fs::read_dir(dir.path().join("temp")).unwrap().next().is_none(), "nothing is left of the refused");
}

#[tokio::test]
async fn a_second_process_cannot_open_the_store() {
    let (dir, _blobs) = fresh(usual()).await;
    assert!(matches!(Blobs::open(dir.path(), usual()).await, Err(Error::Open { .. })));
}

#[tokio::test]
async fn the_sweep_takes_what_is_not_pinned() {
    let (dir, blobs) = fresh(strict(1 << 30)).await;
    let mut hashes = Vec::new();
    for seed in 0..4 {
        hashes.push(blobs.add_bytes(noise(seed, 100 * 1024)).await.unwrap());
    }
    blobs.pin("job/1/source", &hashes[0]).await.unwrap();
    blobs.pin_set("job/2/outputs", &hashes[1..3]).await.unwrap();
    blobs.sweep().await;
    let kept = |hash: Hash| {
        let blobs = blobs.clone();
        async move { blobs.size(&hash).await.unwrap().is_some() }
    };
    assert!(kept(hashes[0]).await && kept(hashes[1]).await && kept(hashes[2]).await);
    assert!(!kept(hashes[3]).await, "never pinned");
    assert!(matches!(blobs.pin("late", &hashes[3]).await, Err(Error::Missing { .. })));
    blobs.unpin_prefix("late").await.unwrap();

    assert_eq!(blobs.unpin_prefix("job/2/").await.unwrap(), 1);
    blobs.sweep().await;
    assert!(kept(hashes[0]).await && !kept(hashes[1]).await && !kept(hashes[2]).await);
    assert_eq!(blobs.usage(), 100 * 1024);

    blobs.shutdown().await;
    drop(blobs);
    let blobs = open(&dir, strict(1 << 30)).await;
    blobs.sweep().await;
    assert!(blobs.size(&hashes[0]).await.unwrap().is_some(), "pins outlive the process");
}

#[tokio::test]
async fn what_is_young_is_kept_without_a_pin() {
    let (_dir, blobs) = fresh(usual()).await;
    let hash = blobs.add_bytes(noise(1, 100 * 1024)).await.unwrap();
    blobs.sweep().await;
    assert!(blobs.size(&hash).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quota_holds_after_a_sweep() {
    let quota = 10 * MIB as u64;
    let (_a, blobs) = fresh(strict(quota)).await;
    let (_b, provider) = fresh(usual()).await;
    let pinned = blobs.add_bytes(noise(1, 4 * MIB)).await.unwrap();
    blobs.pin("pinned", &pinned).await.unwrap();
    blobs.add_bytes(noise(2, 5 * MIB)).await.unwrap();
    // It fits only because the sweep takes the unpinned one.
    let second = blobs.add_bytes(noise(3, 5 * MIB)).await.unwrap();
    blobs.pin("second", &second).await.unwrap();
    assert_eq!(blobs.usage(), 9 * MIB as u64);
    let refused = blobs.add_bytes(noise(4, 2 * MIB)).await;
    assert!(matches!(refused, Err(Error::QuotaExceeded { .. })), "{refused:?}");

    let network = Network::default();
    let node = network.add(1, &provider, Behaviour::Honest);
    for size in [2 * MIB, 20 * MIB] {
        let hash = provider.add_bytes(noise(5, size)).await.unwrap();
        let refused = blobs.fetch(&network, &hash, &[node], size as u64).await.unwrap_err();
        let text = format!("{refused:?}");
        assert!(text.contains("QuotaExceeded"), "{text}");
        assert_eq!(blobs.size(&hash).await.unwrap(), None);
    }
    assert_eq!(blobs.usage(), 9 * MIB as u64);
}

/// Changes one byte of the only file under `data` with this blob's content.
fn flip(dir: &TempDir, hash: &Hash, at: u64) {
    let path: PathBuf = dir.path().join("data").join(format!("{hash}.data"));
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_is_found_everywhere_and_repaired_by_a_fetch() {
    let (_a, provider) = fresh(usual()).await;
    let bytes = noise(1, 3 * MIB);
    let hash = provider.add_bytes(bytes.clone()).await.unwrap();
    let network = Network::default();
    let node = network.add(1, &provider, Behaviour::Honest);
    for way in ["read", "range", "export", "scrub", "serve"] {
        let (dir, blobs) = fresh(usual()).await;
        blobs.fetch(&network, &hash, &[node], u64::MAX).await.unwrap();
        flip(&dir, &hash, 2 * MIB as u64);
        let found = match way {
            "read" => blobs.read(&hash, u64::MAX).await.map(drop),
            "range" => {
                blobs.read_range(&hash, 0..bytes.len() as u64).await.unwrap().try_for_each(|_| async { Ok(()) }).await
            }
            "export" => blobs.export(&hash, &dir.path().join("out")).await.map(drop),
            "scrub" => blobs.scrub(&hash).await,
            _ => serve_damaged(&blobs, &hash, &bytes).await,
        };
        assert!(matches!(found, Err(Error::Corrupt { .. })), "{way}: {found:?}");
        assert!(!dir.path().join("out").exists(), "no wrong file is left");
        assert_eq!(blobs.size(&hash).await.unwrap(), None, "{way}: it counts as missing");
        let fetched = blobs.fetch(&network, &hash, &[node], u64::MAX).await.unwrap();
        assert_eq!(fetched.bytes, bytes.len() as u64, "{way}: it is fetched again");
        blobs.scrub(&hash).await.unwrap();
        assert_eq!(blobs.read(&hash, u64::MAX).await.unwrap(), bytes, "{way}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_blob_that_lies_in_the_database_is_checked_as_well() {
    let (_a, provider) = fresh(usual()).await;
    let bytes = noise(9, 4096);
    let hash = provider.add_bytes(bytes.clone()).await.unwrap();
    let network = Network::default();
    let node = network.add(1, &provider, Behaviour::Honest);

    let (dir, blobs) = fresh(usual()).await;
    blobs.fetch_many(&network, &[(hash, 4096)], &[node]).await.unwrap();
    blobs.shutdown().await;
    drop(blobs);
    let path = dir.path().join("blobs.db");
    let mut database = fs::read(&path).unwrap();
    let at = database.windows(64).position(|window| window == &bytes[..64]).unwrap();
    database[at + 1000] ^= 1;
    fs::write(&path, database).unwrap();

    let blobs = open(&dir, usual()).await;
    assert!(matches!(blobs.export(&hash, &dir.path().join("out")).await, Err(Error::Corrupt { .. })));
    blobs.fetch_many(&network, &[(hash, 4096)], &[node]).await.unwrap();
    assert_eq!(blobs.read(&hash, 4096).await.unwrap(), bytes);
}

/// Adds a blob and damages it while a reader has it open; gives that reader, which has not come to the damage.
async fn damaged_and_open(
    bytes: &Bytes,
    options: Options,
) -> (TempDir, Blobs, impl Stream<Item = Result<Bytes, Error>> + Unpin) {
    let (dir, blobs) = fresh(options).await;
    let hash = blobs.add_bytes(bytes.clone()).await.unwrap();
    let mut reader = Box::pin(blobs.read_range(&hash, 0..bytes.len() as u64).await.unwrap());
    reader.next().await.unwrap().unwrap();
    flip(&dir, &hash, 2 * MIB as u64);
    assert!(matches!(blobs.scrub(&hash).await, Err(Error::Corrupt { .. })));
    (dir, blobs, reader)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_ends_when_nobody_has_the_damaged_file_open() {
    let (_a, provider) = fresh(usual()).await;
    let bytes = noise(1, 3 * MIB);
    let hash = provider.add_bytes(bytes.clone()).await.unwrap();
    let network = Network::default();
    let node = network.add(1, &provider, Behaviour::Honest);
    let patient = Options { idle: Duration::from_secs(30), ..usual() };
    let (dir, blobs, reader) = damaged_and_open(&bytes, patient).await;

    let providers = [node];
    let mut fetch = Box::pin(blobs.fetch(&network, &hash, &providers, u64::MAX));
    let path = dir.path().join("data").join(format!("{hash}.data"));
    let replaced = async {
        while fs::read(&path).unwrap() != bytes {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Long enough for a fetch that does not look at what readers get to come to its end.
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    tokio::select! {
        fetched = &mut fetch => panic!("readers still get the damaged bytes: {fetched:?}"),
        () = replaced => {}
    }
    assert_eq!(blobs.size(&hash).await.unwrap(), None, "it counts as missing");
    drop(reader);
    assert_eq!(fetch.await.unwrap().bytes, bytes.len() as u64);
    assert_eq!(blobs.read(&hash, u64::MAX).await.unwrap(), bytes);
    assert!(fs::read_dir(dir.path().join("repair")).unwrap().next().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_does_not_wait_for_ever() {
    let bytes = noise(1, 3 * MIB);
    let hash = Hash::of(&bytes);
    let hasty = Options { idle: Duration::from_millis(200), ..usual() };
    let (_dir, blobs, reader) = damaged_and_open(&bytes, hasty).await;
    let added = blobs.add_bytes(bytes.clone()).await;
    assert!(matches!(added, Err(Error::StillDamaged { .. })), "{added:?}");
    assert_eq!(blobs.size(&hash).await.unwrap(), None, "it counts as missing");
    drop(reader);
    blobs.add_bytes(bytes.clone()).await.unwrap();
    assert_eq!(blobs.read(&hash, u64::MAX).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_referenced_file_that_changes_counts_as_damaged() {
    let (dir, blobs) = fresh(usual()).await;
    let path = dir.path().join("source");
    fs::write(&path, noise(1, MIB)).unwrap();
    let (hash, _) = blobs.add_file(&path, Import::Reference).await.unwrap();
    blobs.scrub(&hash).await.unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"changed", 5000).unwrap();
    assert!(matches!(blobs.read(&hash, u64::MAX).await, Err(Error::Corrupt { .. })));
    blobs.add_bytes(noise(1, MIB)).await.unwrap();
    assert_eq!(blobs.read(&hash, u64::MAX).await.unwrap(), noise(1, MIB), "a copy takes its place");
}

/// Serves the damaged blob to a third store, which must get no wrong byte.
async fn serve_damaged(blobs: &Blobs, hash: &Hash, bytes: &[u8]) -> Result<(), Error> {
    use iroh_blobs::protocol::{GetRequest, Request};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let request = postcard::to_stdvec(&Request::Get(GetRequest::blob(super::super::to_iroh(hash)))).unwrap();
    let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
    let asking = async move {
        ours.write_all(&request).await.unwrap();
        ours.shutdown().await.unwrap();
        let mut answer = Vec::new();
        ours.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let node = protocol::NodeId::from_bytes([7; 32]);
    let (answer, verdict) = tokio::join!(asking, blobs.serve(node, theirs, |_, _| true));
    assert!(answer.len() < bytes.len(), "the answer ends before the damage");
    match verdict {
        Err(ServeError::Corrupt { hash }) => Err(Error::Corrupt { hash }),
        other => panic!("{other:?}"),
    }
}
