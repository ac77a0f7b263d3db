//! Entries of the transparency log, from a batch that was decided to the disk; beside the disk's own rate of synced writes, and
//! beside what Tessera says of itself.

use std::{fs, path::Path, sync::Arc, time::Instant};

use artel::{
    store::Store,
    tlog::{Book, FetchError, Signer, Source},
};
use attest::log::{
    network,
    tile::Resource,
    tree::{self, Edge},
};
use ed25519_dalek::SigningKey;
use protocol::NetworkId;
use tokio_util::sync::CancellationToken;

use crate::{
    Options, consensus,
    table::{Row, Table},
};

/// Bytes of one entry: a verdict that rests on two attestations.
const ENTRY: usize = 150;
/// Entries a second that Tessera publishes for its POSIX backend on a tiny virtual machine.
const TESSERA: f64 = 1500.0;

/// Nobody has what this book lacks.
struct Nobody;

impl Source for Nobody {
    async fn fetch(&self, _resource: Resource) -> Result<Vec<u8>, FetchError> {
        Err(FetchError("there is no other".to_owned()))
    }
}

/// Measures and adds the rows.
pub(crate) async fn measure(options: &Options, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let window = options.amount(std::time::Duration::from_secs(4), std::time::Duration::from_secs(1));
    let disk = consensus::synced_writes(&folder.join("synced"), window)?;
    table.add(Row::new("disk: 300 B appended and synced, per second", disk, "/s"));
    for batch in [1, 16, 256] {
        let rate = appended(&folder.join(format!("batches-of-{batch}.db")), batch, window).await?;
        let figure = format!("log entries appended, tiled and synced, in batches of {batch}");
        let (peer, limit) =
            if batch == 256 { ("Tessera's published figure", TESSERA) } else { ("the disk's synced writes", disk) };
        table.add(Row::new(figure, rate, "/s").beside(peer, limit));
    }
    Ok(())
}

/// Appends batch after batch, each of which is on the disk before the next.
async fn appended(path: &Path, batch: u64, window: std::time::Duration) -> anyhow::Result<f64> {
    let store = Store::open(path)?;
    let signer =
        Signer { origin: network::origin(&NetworkId::from_bytes([7; 32])), key: SigningKey::from_bytes(&[7; 32]) };
    let book = Book::open(&store, signer)?;
    let (stop, mut heads) = (CancellationToken::new(), book.heads());
    let writer = Arc::clone(&book).run(Nobody, stop.clone());
    let feeder = async {
        let (begun, mut edge) = (Instant::now(), Edge::default());
        while begun.elapsed() < window {
            let first = edge.head().size;
            let entries: Vec<(u64, Vec<u8>)> = (first..first + batch).map(|index| (index, entry(index))).collect();
            entries.iter().for_each(|(_, bytes)| drop(edge.append(tree::leaf(bytes))));
            let head = edge.head();
            book.append(entries, head);
            heads.wait_for(|written| *written == head).await?;
            // What the group writes next takes the entries along to the disk.
            store.run(|store| store.counter_add("bench", 1)).await?;
        }
        anyhow::Ok(edge.head().size as f64 / begun.elapsed().as_secs_f64())
    };
    tokio::pin!(writer);
    let rate = tokio::select! {
        ended = &mut writer => anyhow::bail!("the book ended: {ended:?}"),
        rate = feeder => rate?,
    };
    stop.cancel();
    writer.await?;
    Ok(rate)
}

fn entry(index: u64) -> Vec<u8> {
    let mut bytes = vec![0x5a; ENTRY];
    bytes[..8].copy_from_slice(&index.to_be_bytes());
    bytes
}
