//! Moves 1 GiB and 10,000 files of 4 KiB between two stores over loopback TCP and prints what each step takes.
//!
//! `blobs_bench [DIRECTORY [MIB [FILES]]]`: the directory should lie on the disk that is to be measured; what is written
//! there is removed at the end. Each step is followed by the system's `sync`, which is timed as well.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use artel::blobs::{Blobs, Dial, DialError, Duplex, Import, Options};
use futures::{StreamExt, TryStreamExt, stream};
use protocol::{Hash, NodeId};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const FILE_BYTES: u64 = 4096;
const AT_ONCE: usize = 64;

/// Opens TCP connections to the nodes of this process.
#[derive(Clone)]
struct Loopback(Arc<BTreeMap<NodeId, SocketAddr>>);

impl Dial for Loopback {
    async fn open(&self, node: NodeId) -> Result<Box<dyn Duplex>, DialError> {
        let address = self.0.get(&node).ok_or_else(|| DialError { node, source: "no such node".into() })?;
        let stream = TcpStream::connect(address).await.map_err(|error| DialError { node, source: error.into() })?;
        stream.set_nodelay(true).map_err(|error| DialError { node, source: error.into() })?;
        Ok(Box::new(stream))
    }
}

async fn serve(listener: TcpListener, blobs: Blobs) {
    let mut streams = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let blobs = blobs.clone();
        streams.spawn(async move {
            if let Err(error) = blobs.serve(NodeId::from_bytes([0; 32]), stream, |_, _| true).await {
                eprintln!("serving failed: {error}");
            }
        });
        while streams.try_join_next().is_some() {}
    }
}

/// Bytes that do not repeat.
fn noise(seed: u64, out: &mut [u8]) {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(out);
}

fn report(step: &str, bytes: u64, files: u64, took: Duration) {
    let seconds = took.as_secs_f64();
    let mib = bytes as f64 / (1024.0 * 1024.0);
    println!("{step:<28} {seconds:>8.3} s {:>10.1} MiB/s {:>10.0} files/s", mib / seconds, files as f64 / seconds);
}

fn sync(step: &str) {
    let begun = Instant::now();
    rustix::fs::sync();
    println!("{step:<28} {:>8.3} s", begun.elapsed().as_secs_f64());
}

/// Where a pass reads from and writes to.
struct Pass<'a> {
    from: &'a Blobs,
    to: &'a Blobs,
    dial: &'a Loopback,
    node: NodeId,
    files: PathBuf,
    out: PathBuf,
}

impl Pass<'_> {
    async fn large(&self, mib: u64) -> Result<(), Box<dyn Error>> {
        let bytes = mib * 1024 * 1024;
        let path = self.files.join("large");
        write_large(&path, mib)?;
        sync("large: files written, sync");
        let begun = Instant::now();
        let (hash, _) = self.from.add_file(&path, Import::Copy).await?;
        report("large: import (copy)", bytes, 1, begun.elapsed());
        sync("large: sync");
        let begun = Instant::now();
        self.to.fetch(self.dial, &hash, &[self.node], bytes).await?;
        report("large: fetch, verified", bytes, 1, begun.elapsed());
        sync("large: sync");
        let begun = Instant::now();
        self.to.export(&hash, &self.out.join("large")).await?;
        report("large: export, verified", bytes, 1, begun.elapsed());
        sync("large: sync");
        Ok(())
    }

    async fn small(&self, files: u64) -> Result<(), Box<dyn Error>> {
        let bytes = files * FILE_BYTES;
        for index in 0..files {
            let mut content = [0; FILE_BYTES as usize];
            noise(index + 1, &mut content);
            fs::write(self.files.join(index.to_string()), content)?;
        }
        sync("small: files written, sync");
        let begun = Instant::now();
        let paths = stream::iter(0..files).map(|index| self.files.join(index.to_string()));
        let adds = paths.map(|path| async move { self.from.add_file(&path, Import::Copy).await });
        let wanted: Vec<(Hash, u64)> = adds.buffered(AT_ONCE).try_collect().await?;
        report("small: import", bytes, files, begun.elapsed());
        sync("small: sync");
        let begun = Instant::now();
        self.to.fetch_many(self.dial, &wanted, &[self.node]).await?;
        report("small: fetch, verified", bytes, files, begun.elapsed());
        sync("small: sync");
        let begun = Instant::now();
        let exports = stream::iter(wanted.iter().enumerate());
        let exports = exports.map(|(index, (hash, _))| async move {
            self.to.export(hash, &self.out.join(index.to_string())).await.map(drop)
        });
        exports.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        report("small: export, verified", bytes, files, begun.elapsed());
        sync("small: sync");
        Ok(())
    }
}

fn write_large(path: &Path, mib: u64) -> Result<(), Box<dyn Error>> {
    use std::io::Write;
    let mut file = fs::File::create(path)?;
    let mut block = vec![0; 1024 * 1024];
    for index in 0..mib {
        noise(u64::MAX - index, &mut block);
        file.write_all(&block)?;
    }
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let base = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let mib: u64 = arguments.next().map_or(Ok(1024), |text| text.parse())?;
    let files: u64 = arguments.next().map_or(Ok(10_000), |text| text.parse())?;
    let dir = base.join(format!("blobs-bench-{}", std::process::id()));
    for part in ["files", "out"] {
        fs::create_dir_all(dir.join(part))?;
    }
    let from = Blobs::open(&dir.join("from"), Options::new(1 << 40)).await?;
    let to = Blobs::open(&dir.join("to"), Options::new(1 << 40)).await?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let node = NodeId::from_bytes([1; 32]);
    let dial = Loopback(Arc::new(BTreeMap::from([(node, listener.local_addr()?)])));
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, from.clone()));
    let pass = Pass { from: &from, to: &to, dial: &dial, node, files: dir.join("files"), out: dir.join("out") };
    if mib > 0 {
        pass.large(mib).await?;
    }
    if files > 0 {
        pass.small(files).await?;
    }
    tasks.shutdown().await;
    from.shutdown().await;
    to.shutdown().await;
    fs::remove_dir_all(&dir)?;
    Ok(())
}
