//! Byte streams between nodes: for what is too large for one message (blobs), and for the talk of the coordinators, which
//! must not wait behind anything else.
//!
//! A stream has two directions that end on their own: dropping the write half *finishes* it (the other side reads the end),
//! it does not reset it, so the last bytes are never lost. What flows through is the consumer's affair.

pub(super) mod behaviour;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use protocol::NodeId;
use sync_wrapper::SyncWrapper;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::{OwnedSemaphorePermit, mpsc},
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};
use tracing::{debug, warn};

/// Streams that one peer may have open towards us; a further one is refused.
pub(super) const INBOUND_MAX: usize = 16;
/// Coordinators' streams that one candidate may have open towards us: one for small and one for large messages, and as many
/// again that a lost connection left behind.
pub(super) const COORDINATION_INBOUND_MAX: usize = 4;
/// How long the end of a dropped stream may take to reach the other side.
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);

type Wire = Compat<libp2p::Stream>;

/// What a stream is for. Each purpose is a protocol of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Bytes of blobs; any member may open it.
    Blobs,
    /// Questions and answers of the coordinators' group; only candidates may open it.
    Coordination,
}

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// No connection to the node could be made.
    #[error("node {node} cannot be reached: {why}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// What was tried.
        why: String,
    },
    /// The node does not serve streams of this network.
    #[error("node {0} does not serve such streams in this network")]
    Unsupported(NodeId),
    /// The connection broke while the stream was being opened.
    #[error("connection to node {0} was lost while opening a stream")]
    Interrupted(NodeId),
    /// This node's network is shut down.
    #[error("the network of this node is shut down")]
    Stopped,
}

/// A stream whose write side still has to be finished, by the task that owns the network.
pub(super) type Unfinished = Box<dyn AsyncWrite + Send + Unpin>;

/// Where dropped streams go to be finished.
#[derive(Debug, Clone)]
pub(super) struct Finisher(mpsc::Sender<Unfinished>);

impl Finisher {
    /// Capacity of the queue; beyond it a dropped stream is reset, which the other side sees as an error.
    const QUEUE: usize = 1024;

    pub(super) fn new() -> (Self, mpsc::Receiver<Unfinished>) {
        let (sender, receiver) = mpsc::channel(Self::QUEUE);
        (Self(sender), receiver)
    }

    fn take(&self, stream: Unfinished) {
        if self.0.try_send(stream).is_err() {
            debug!("dropped stream is reset: the queue of unfinished streams is full or gone");
        }
    }
}

/// Finishes the write side of a dropped stream.
pub(super) async fn finish(mut stream: Unfinished) {
    match tokio::time::timeout(FINISH_TIMEOUT, stream.shutdown()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "stream ended before it was finished"),
        Err(_) => warn!("stream reset: the other side did not take its end in time"),
    }
}

/// The place that an inbound stream takes among its peer's.
#[derive(Debug, Clone)]
pub(super) enum Slot {
    /// We opened it.
    Ours,
    /// The peer opened it, within its limit.
    Theirs(#[expect(dead_code, reason = "held only to be given back on drop")] Arc<OwnedSemaphorePermit>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteSide {
    Open,
    Finished,
}

/// A stream of bytes to and from another node.
#[derive(Debug)]
pub struct ByteStream {
    /// `None` only after `split` took it.
    wire: Option<SyncWrapper<Wire>>,
    side: WriteSide,
    finisher: Finisher,
    slot: Slot,
}

impl ByteStream {
    pub(super) fn new(stream: libp2p::Stream, finisher: Finisher, slot: Slot) -> Self {
        Self { wire: Some(SyncWrapper::new(stream.compat())), side: WriteSide::Open, finisher, slot }
    }

    /// Splits into two halves that end on their own.
    pub fn split(mut self) -> (ReadHalf, WriteHalf) {
        let wire = self.wire.take().expect("only split and drop take the wire").into_inner();
        let (read, write) = tokio::io::split(wire);
        let (side, finisher, slot) = (self.side, self.finisher.clone(), self.slot.clone());
        (ReadHalf { wire: read, _slot: slot.clone() }, WriteHalf { wire: Some(write), side, finisher, _slot: slot })
    }

    fn wire(&mut self) -> Pin<&mut Wire> {
        Pin::new(self.wire.as_mut().expect("only split and drop take the wire").get_mut())
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.wire().poll_read(cx, buffer)
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wire().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = self.wire().poll_shutdown(cx);
        if result.is_ready() {
            self.side = WriteSide::Finished;
        }
        result
    }
}

impl Drop for ByteStream {
    fn drop(&mut self) {
        if let (WriteSide::Open, Some(wire)) = (self.side, self.wire.take()) {
            self.finisher.take(Box::new(wire.into_inner()));
        }
    }
}

/// The half that reads.
#[derive(Debug)]
pub struct ReadHalf {
    wire: tokio::io::ReadHalf<Wire>,
    _slot: Slot,
}

impl AsyncRead for ReadHalf {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_read(cx, buffer)
    }
}

/// The half that writes; dropping it finishes the direction.
#[derive(Debug)]
pub struct WriteHalf {
    /// `None` only while being dropped.
    wire: Option<tokio::io::WriteHalf<Wire>>,
    side: WriteSide,
    finisher: Finisher,
    _slot: Slot,
}

impl WriteHalf {
    fn wire(&mut self) -> Pin<&mut tokio::io::WriteHalf<Wire>> {
        Pin::new(self.wire.as_mut().expect("only drop takes the wire"))
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wire().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = self.wire().poll_shutdown(cx);
        if result.is_ready() {
            self.side = WriteSide::Finished;
        }
        result
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        if let (WriteSide::Open, Some(wire)) = (self.side, self.wire.take()) {
            self.finisher.take(Box::new(wire));
        }
    }
}
