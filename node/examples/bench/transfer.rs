//! Bytes between two nodes over the network's own streams, verified and kept, against `rsync` with `b3sum` on the same
//! disk. Both read what lies in the page cache and end with the system's `sync`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail};
use artel::{
    blobs::{self, Blobs, Import},
    keys,
    net::{self, Event, Inbox, Mdns, Net},
};
use futures::{StreamExt, TryStreamExt, stream};
use protocol::{Hash, NetworkId, NodeId};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    Options,
    table::{Row, Table},
};

const FILE_BYTES: u64 = 4096;
const AT_ONCE: usize = 64;
const OF_PEER: f64 = 0.5;

/// Two nodes, each with a store.
struct Pair {
    from: Blobs,
    to: Blobs,
    source: NodeId,
    net: Net,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// Measures and adds the rows.
pub(crate) async fn measure(options: &Options, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let mib = options.amount(1024, 256);
    let count = options.amount(10_000, 2000);
    fs::create_dir_all(folder)?;
    let mut pair = Pair::open(folder).await?;
    let (large, small) = (folder.join("large"), folder.join("small"));
    write_large(&large, mib)?;
    let ours = pair.large(&large, mib).await?;
    let theirs = mib as f64 / rsync(&large, &folder.join("large-copy"))?;
    table.add(
        Row::new(format!("{mib} MiB between two nodes, synced"), ours.fetch, "MiB/s")
            .beside("rsync + b3sum + sync", theirs)
            .at_least_of_peer(OF_PEER),
    );
    table.add(Row::new("   import of the same at its source", ours.import, "MiB/s"));
    write_small(&small, count)?;
    let ours = pair.small(&small, count).await?;
    let theirs = count as f64 / rsync(&small, &folder.join("small-copy"))?;
    table.add(
        Row::new(format!("{count} files of 4 KiB between two nodes, synced"), ours.fetch, "files/s")
            .beside("rsync + b3sum + sync", theirs)
            .at_least_of_peer(OF_PEER),
    );
    table.add(Row::new("   import of the same at their source", ours.import, "files/s"));
    pair.close().await;
    fs::remove_dir_all(folder)?;
    Ok(())
}

/// Units per second.
struct Speeds {
    import: f64,
    fetch: f64,
}

impl Pair {
    async fn open(folder: &Path) -> anyhow::Result<Self> {
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let network = NetworkId::from_bytes(keys::random()?);
        let from = Blobs::open(&folder.join("from"), blobs::Options::new(1 << 40)).await?;
        let to = Blobs::open(&folder.join("to"), blobs::Options::new(1 << 40)).await?;
        let (source, inbox) = node(network, Vec::new(), &stop, &mut tasks).await?;
        tasks.spawn(serve(inbox, from.clone()));
        let udp = |address: &String| address.contains("/udp/");
        let addresses = source.listen_addresses().into_iter().filter(udp).collect();
        let (net, mut inbox) = node(network, addresses, &stop, &mut tasks).await?;
        let members = || [source.node_id(), net.node_id()].into_iter().collect();
        source.set_members(members());
        net.set_members(members());
        tasks.spawn(async move { while inbox.next().await.is_some() {} });
        Ok(Self { from, to, source: source.node_id(), net, stop, tasks })
    }

    async fn large(&self, path: &Path, mib: u64) -> anyhow::Result<Speeds> {
        let begun = Instant::now();
        let (hash, size) = self.from.add_file(path, Import::Copy).await?;
        rustix::fs::sync();
        let import = mib as f64 / begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        self.to.fetch(&self.net, &hash, &[self.source], size).await?;
        rustix::fs::sync();
        Ok(Speeds { import, fetch: mib as f64 / begun.elapsed().as_secs_f64() })
    }

    async fn small(&self, folder: &Path, count: u64) -> anyhow::Result<Speeds> {
        let begun = Instant::now();
        let paths = stream::iter(0..count).map(|index| folder.join(index.to_string()));
        let adds = paths.map(|path| async move { self.from.add_file(&path, Import::Copy).await });
        let wanted: Vec<(Hash, u64)> = adds.buffered(AT_ONCE).try_collect().await?;
        rustix::fs::sync();
        let import = count as f64 / begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        self.to.fetch_many(&self.net, &wanted, &[self.source]).await?;
        rustix::fs::sync();
        Ok(Speeds { import, fetch: count as f64 / begun.elapsed().as_secs_f64() })
    }

    async fn close(&mut self) {
        self.stop.cancel();
        self.tasks.shutdown().await;
        self.from.shutdown().await;
        self.to.shutdown().await;
    }
}

async fn node(
    network: NetworkId,
    bootstrap: Vec<String>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<(Net, Inbox)> {
    let config = net::Config {
        key: keys::generate()?,
        network,
        listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into(), "/ip4/127.0.0.1/tcp/0".into()],
        announce: Vec::new(),
        bootstrap,
        mdns: Mdns::Off,
        connections: 8,
    };
    let (net, inbox, task) = net::start(config, stop.clone()).await?;
    tasks.spawn(async move {
        if let Err(error) = task.run().await {
            eprintln!("a node ended: {error}");
        }
    });
    Ok((net, inbox))
}

async fn serve(mut inbox: Inbox, blobs: Blobs) {
    let mut streams = JoinSet::new();
    while let Some(event) = inbox.next().await {
        while streams.try_join_next().is_some() {}
        if let Event::Stream { from, stream, .. } = event {
            let blobs = blobs.clone();
            streams.spawn(async move {
                if let Err(error) = blobs.serve(from, stream, |_, _| true).await {
                    eprintln!("serving failed: {error}");
                }
            });
        }
    }
}

/// Copies, hashes the copy, and syncs; gives the seconds.
fn rsync(from: &Path, to: &Path) -> anyhow::Result<f64> {
    let begun = Instant::now();
    run(Command::new("rsync").args(["-a", "-W"]).arg(from).arg(to))?;
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in walkdir::WalkDir::new(to) {
        let entry = entry?;
        if entry.file_type().is_file() {
            files.push(entry.into_path());
        }
    }
    for some in files.chunks(4096) {
        run(Command::new("b3sum").args(some))?;
    }
    rustix::fs::sync();
    Ok(begun.elapsed().as_secs_f64())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{} ended with {status}", command.get_program().display());
    }
    Ok(())
}

/// Fills a buffer with bytes that do not repeat.
fn noise(seed: u64, out: &mut [u8]) {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(out);
}

fn write_large(path: &Path, mib: u64) -> anyhow::Result<()> {
    use std::io::Write;
    let mut file = fs::File::create(path)?;
    let mut block = vec![0; 1024 * 1024];
    for index in 0..mib {
        noise(u64::MAX - index, &mut block);
        file.write_all(&block)?;
    }
    rustix::fs::sync();
    Ok(())
}

fn write_small(folder: &Path, count: u64) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let mut content = vec![0; usize::try_from(FILE_BYTES)?];
    for index in 0..count {
        noise(index + 1, &mut content);
        fs::write(folder.join(index.to_string()), &content)?;
    }
    rustix::fs::sync();
    Ok(())
}
