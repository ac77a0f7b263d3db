//! One order over one stream: the request goes out, the answer is verified piece by piece and stored.

use std::{
    fs::File,
    io,
    num::NonZeroU64,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bao_tree::io::BaoContentItem;
use iroh_blobs::{
    api::Store,
    get::{
        self,
        fsm::{
            AtBlobHeader, AtBlobHeaderNextError, AtConnected, AtEndBlob, BlobContentNext, ConnectedNext, DecodeError,
            EndBlobNext,
        },
    },
    protocol::{ChunkRanges, ChunkRangesSeq, GetManyRequest, GetRequest, Request},
    util::RecvStream,
};
use protocol::Hash;

use super::{
    Cause, Duplex, to_iroh,
    wire::{Discard, Receiver, halves},
};

/// Pieces between the stream and the store.
const QUEUE: usize = 64;

/// What is asked of a provider at once.
#[derive(Debug, Clone)]
pub(super) enum Order {
    /// Parts of one blob of at most `limit` bytes.
    Parts { hash: Hash, parts: ChunkRanges, limit: u64 },
    /// Whole blobs in a row, each with its size in bytes.
    Many { blobs: Vec<(Hash, u64)> },
    /// A whole blob of at most `limit` bytes into a file, because the one in the store is damaged.
    Repair { hash: Hash, limit: u64, into: Arc<File> },
}

/// Why an order did not come to its end, and how many blobs of it did.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) done: usize,
    pub(super) fault: Fault,
}

/// What went wrong with an order.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The provider does not have the blob, or does not give it to us.
    #[error("it does not offer blob {hash}")]
    Lacks { hash: Hash },
    /// The provider says that the blob is larger than allowed. Nothing of it was stored.
    #[error("it says that blob {hash} has {size} bytes, and {limit} are allowed")]
    TooLarge { hash: Hash, size: u64, limit: u64 },
    /// The provider sent bytes that are not those of the hash. They were thrown away.
    #[error("it sent wrong bytes for blob {hash}")]
    WrongBytes { hash: Hash },
    /// The stream ended early, stood still or could not be opened.
    #[error("its stream failed: {source}")]
    Stream {
        #[source]
        source: Cause,
    },
    /// Our own store failed.
    #[error("our store failed: {source}")]
    Local {
        #[source]
        source: Cause,
    },
}

fn stream_fault(error: impl Into<Cause>) -> Fault {
    Fault::Stream { source: error.into() }
}

fn local_fault(error: impl Into<Cause>) -> Fault {
    Fault::Local { source: error.into() }
}

/// Carries out one order; `received` counts verified bytes as they come.
pub(super) async fn perform(
    store: &Store,
    stream: impl Duplex + 'static,
    idle: Duration,
    order: &Order,
    received: &AtomicU64,
) -> Result<(), Failure> {
    let (receiver, sender, _) = halves(stream, idle);
    let fail = |fault| Failure { done: 0, fault };
    let request = match order {
        Order::Parts { hash, parts, .. } => Request::Get(GetRequest::blob_ranges(to_iroh(hash), parts.clone())),
        Order::Repair { hash, .. } => Request::Get(GetRequest::blob(to_iroh(hash))),
        Order::Many { blobs } => {
            let hashes = blobs.iter().map(|(hash, _)| to_iroh(hash)).collect();
            Request::GetMany(GetManyRequest::new(hashes, ChunkRangesSeq::all()))
        }
    };
    let bytes = postcard::to_stdvec(&request).map_err(|error| fail(local_fault(error)))?;
    sender.send_last(&bytes).await.map_err(|error| fail(stream_fault(error)))?;
    match order {
        Order::Parts { hash, parts, limit } => {
            let request = GetRequest::blob_ranges(to_iroh(hash), parts.clone());
            let target = Target { hash: *hash, limit: *limit, received };
            one(store, receiver, request, target, None).await.map_err(fail)
        }
        Order::Repair { hash, limit, into } => {
            let target = Target { hash: *hash, limit: *limit, received };
            one(store, receiver, GetRequest::blob(to_iroh(hash)), target, Some(into)).await.map_err(fail)
        }
        Order::Many { blobs } => many(store, receiver, blobs, received).await,
    }
}

/// The blob that an answer is about.
struct Target<'a> {
    hash: Hash,
    limit: u64,
    received: &'a AtomicU64,
}

async fn one<S: Duplex + 'static>(
    store: &Store,
    receiver: Receiver<S>,
    request: GetRequest,
    target: Target<'_>,
    into: Option<&File>,
) -> Result<(), Fault> {
    let header = match connected(receiver, request).await? {
        ConnectedNext::StartRoot(root) => root.next(),
        ConnectedNext::StartChild(_) | ConnectedNext::Closing(_) => return Ok(()),
    };
    let end = match into {
        None => store_blob(store, header, &target).await?,
        Some(file) => write_blob(file, header, &target).await?,
    };
    match end.next() {
        EndBlobNext::Closing(_) | EndBlobNext::MoreChildren(_) => Ok(()),
    }
}

async fn many<S: Duplex + 'static>(
    store: &Store,
    receiver: Receiver<S>,
    blobs: &[(Hash, u64)],
    received: &AtomicU64,
) -> Result<(), Failure> {
    // The answer looks like that to a sequence without its root; the root's hash is not part of it.
    let ranges = ChunkRangesSeq::from_ranges_infinite([ChunkRanges::empty(), ChunkRanges::all()]);
    let request = GetRequest::new(iroh_blobs::Hash::EMPTY, ranges);
    let next = connected(receiver, request).await.map_err(|fault| Failure { done: 0, fault })?;
    let ConnectedNext::StartChild(mut child) = next else {
        return Ok(());
    };
    for (done, (hash, size)) in blobs.iter().enumerate() {
        let target = Target { hash: *hash, limit: *size, received };
        let header = child.next(to_iroh(hash));
        let end = store_blob(store, header, &target).await.map_err(|fault| Failure { done, fault })?;
        child = match end.next() {
            EndBlobNext::MoreChildren(child) => child,
            EndBlobNext::Closing(_) => return Ok(()),
        };
    }
    Ok(())
}

async fn connected<S: Duplex + 'static>(
    receiver: Receiver<S>,
    request: GetRequest,
) -> Result<ConnectedNext<Receiver<S>>, Fault> {
    let pair = get::StreamPair::new(0, receiver, Discard);
    let connected = AtConnected::new(pair.t0, pair.recv, pair.send, request, Default::default());
    connected.next().await.map_err(|error| stream_fault(error.to_string()))
}

/// Reads the size that the provider claims and refuses a blob that is too large before anything is stored.
macro_rules! begin {
    ($header:expr, $target:expr) => {{
        let target = $target;
        let (content, size) = match $header.next().await {
            Ok(begun) => begun,
            Err(AtBlobHeaderNextError::NotFound { .. }) => return Err(Fault::Lacks { hash: target.hash }),
            Err(error) => return Err(stream_fault(io::Error::from(error))),
        };
        if size > target.limit {
            return Err(Fault::TooLarge { hash: target.hash, size, limit: target.limit });
        }
        (content, size)
    }};
}

/// Verifies the content of one blob and stores it.
async fn store_blob<R: RecvStream>(
    store: &Store,
    header: AtBlobHeader<R>,
    target: &Target<'_>,
) -> Result<AtEndBlob<R>, Fault> {
    let (mut content, size) = begin!(header, target);
    // The empty blob is always here, so it is never asked for.
    let size = NonZeroU64::new(size).ok_or(Fault::WrongBytes { hash: target.hash })?;
    let import = store.import_bao(to_iroh(&target.hash), size, QUEUE).await.map_err(local_fault)?;
    let (items, outcome) = (import.tx, import.rx);
    let receive = async move {
        loop {
            match content.next().await {
                BlobContentNext::More((next, item)) => {
                    let item = item.map_err(|error| decode_fault(&target.hash, error))?;
                    count(&item, target.received);
                    items.send(item).await.map_err(local_fault)?;
                    content = next;
                }
                BlobContentNext::Done(end) => break Ok(end),
            }
        }
    };
    let stored = async move { outcome.await.map_err(local_fault)?.map_err(local_fault) };
    let (end, ()) = tokio::try_join!(receive, stored)?;
    Ok(end)
}

/// Verifies the content of one blob and writes it to a file.
async fn write_blob<R: RecvStream>(
    file: &File,
    header: AtBlobHeader<R>,
    target: &Target<'_>,
) -> Result<AtEndBlob<R>, Fault> {
    let (mut content, _) = begin!(header, target);
    loop {
        match content.next().await {
            BlobContentNext::More((next, item)) => {
                let item = item.map_err(|error| decode_fault(&target.hash, error))?;
                count(&item, target.received);
                if let BaoContentItem::Leaf(leaf) = item {
                    file.write_all_at(&leaf.data, leaf.offset).map_err(local_fault)?;
                }
                content = next;
            }
            BlobContentNext::Done(end) => break Ok(end),
        }
    }
}

fn count(item: &BaoContentItem, received: &AtomicU64) {
    if let BaoContentItem::Leaf(leaf) = item {
        received.fetch_add(leaf.data.len() as u64, Ordering::Relaxed);
    }
}

fn decode_fault(hash: &Hash, error: DecodeError) -> Fault {
    if matches!(error, DecodeError::ParentHashMismatch { .. } | DecodeError::LeafHashMismatch { .. }) {
        return Fault::WrongBytes { hash: *hash };
    }
    stream_fault(io::Error::from(error))
}
