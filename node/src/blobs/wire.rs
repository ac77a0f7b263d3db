//! Byte streams as the transfer protocol wants them: two halves, buffered, impatient, and closed in good order.
//!
//! The traps that this module is about: a stream may be `Send` without being `Sync`; small writes must be gathered; a
//! peer that stops without closing must be noticed in seconds; a finished answer must be flushed and shut down, or its
//! last bytes are lost.

use std::{
    future::{Future, pending},
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use iroh::endpoint::VarInt;
use iroh_blobs::util::{RecvStream, SendStream};
use protocol::NodeId;
use sync_wrapper::SyncWrapper;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter, ReadBuf, ReadHalf, WriteHalf},
    time::{Instant, Sleep},
};

use super::locked;

/// The buffer of each half, in bytes: four groups of 16 KiB.
const BUFFER: usize = 64 * 1024;

/// A byte stream in both directions. It need not be `Sync`.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + ?Sized> Duplex for T {}

/// A stream to a node could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open a stream to node {node}")]
pub struct DialError {
    /// The node.
    pub node: NodeId,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Opens streams to other nodes, on which they answer with [`super::Blobs::serve`].
pub trait Dial: Clone + Send + Sync + 'static {
    /// Opens a stream to a node.
    fn open(&self, node: NodeId) -> impl Future<Output = Result<Box<dyn Duplex>, DialError>> + Send;
}

/// A stream that fails when the other side neither sends nor takes anything for a while.
struct Impatient<S> {
    stream: SyncWrapper<S>,
    reading: Patience,
    writing: Patience,
}

struct Patience {
    limit: Duration,
    end: Pin<Box<Sleep>>,
    waiting: bool,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, end: Box::pin(tokio::time::sleep(limit)), waiting: false }
    }

    fn over(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.waiting {
            self.waiting = true;
            self.end.as_mut().reset(Instant::now() + self.limit);
        }
        ready!(self.end.as_mut().poll(context));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, format!("nothing moved for {:?}", self.limit)))
    }

    fn settle<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(result) => {
                self.waiting = false;
                Poll::Ready(result)
            }
            Poll::Pending => self.over(context).map(Err),
        }
    }
}

impl<S: AsyncRead + Unpin + Send> AsyncRead for Impatient<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(this.stream.get_mut()).poll_read(context, buf);
        this.reading.settle(polled, context)
    }
}

impl<S: AsyncWrite + Unpin + Send> AsyncWrite for Impatient<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(this.stream.get_mut()).poll_write(context, buf);
        this.writing.settle(polled, context)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(this.stream.get_mut()).poll_flush(context);
        this.writing.settle(polled, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(this.stream.get_mut()).poll_shutdown(context);
        this.writing.settle(polled, context)
    }
}

/// The half that receives.
pub(super) struct Receiver<S>(BufReader<ReadHalf<Impatient<S>>>);

/// The half that sends. When it is dropped the stream goes to its [`Closing`], which shuts it down.
pub(super) struct Sender<S> {
    half: Option<Writer<S>>,
    closing: Closing<S>,
}

/// Where the sending half comes back to when the library has dropped it.
pub(super) struct Closing<S>(Arc<Mutex<Option<Writer<S>>>>);

type Writer<S> = BufWriter<WriteHalf<Impatient<S>>>;

/// Splits a stream whose other side may be idle for `limit`.
pub(super) fn halves<S: Duplex>(stream: S, limit: Duration) -> (Receiver<S>, Sender<S>, Closing<S>) {
    let stream = SyncWrapper::new(stream);
    let impatient = Impatient { stream, reading: Patience::new(limit), writing: Patience::new(limit) };
    let (reader, writer) = tokio::io::split(impatient);
    let place = Arc::new(Mutex::new(None));
    let sender = Sender { half: Some(BufWriter::with_capacity(BUFFER, writer)), closing: Closing(place.clone()) };
    (Receiver(BufReader::with_capacity(BUFFER, reader)), sender, Closing(place))
}

impl<S: Duplex> Closing<S> {
    /// Flushes and shuts down the sending half, if it has been dropped.
    pub(super) async fn close(self) -> io::Result<()> {
        let half = locked(&self.0).take();
        match half {
            Some(mut half) => half.shutdown().await,
            None => Ok(()),
        }
    }
}

impl<S> Drop for Sender<S> {
    fn drop(&mut self) {
        *locked(&self.closing.0) = self.half.take();
    }
}

impl<S: Duplex> Sender<S> {
    fn half(&mut self) -> io::Result<&mut Writer<S>> {
        self.half.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Sends a whole request and closes this direction.
    pub(super) async fn send_last(mut self, bytes: &[u8]) -> io::Result<()> {
        let half = self.half()?;
        half.write_all(bytes).await?;
        half.shutdown().await
    }
}

impl<S: Duplex> SendStream for Sender<S> {
    async fn send_bytes(&mut self, bytes: Bytes) -> io::Result<()> {
        self.half()?.write_all(&bytes).await
    }

    async fn send(&mut self, buf: &[u8]) -> io::Result<()> {
        self.half()?.write_all(buf).await
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.half()?.flush().await
    }

    fn reset(&mut self, _code: VarInt) -> io::Result<()> {
        // The streams below have no reset with a code; the other side sees an answer that ends too early.
        Ok(())
    }

    async fn stopped(&mut self) -> io::Result<Option<VarInt>> {
        pending().await
    }

    fn id(&self) -> u64 {
        0
    }
}

impl<S: Duplex> RecvStream for Receiver<S> {
    async fn recv_bytes(&mut self, len: usize) -> io::Result<Bytes> {
        let mut buf = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match self.0.read(&mut buf[filled..]).await? {
                0 => break,
                read => filled += read,
            }
        }
        buf.truncate(filled);
        Ok(buf.into())
    }

    async fn recv_bytes_exact(&mut self, len: usize) -> io::Result<Bytes> {
        let mut buf = vec![0; len];
        self.0.read_exact(&mut buf).await?;
        Ok(buf.into())
    }

    async fn recv_exact(&mut self, target: &mut [u8]) -> io::Result<()> {
        self.0.read_exact(target).await.map(drop)
    }

    fn stop(&mut self, _code: VarInt) -> io::Result<()> {
        Ok(())
    }

    fn id(&self) -> u64 {
        0
    }
}

/// A sender that discards: our requests are on their way before the library's state machine begins.
pub(super) struct Discard;

impl SendStream for Discard {
    async fn send_bytes(&mut self, _bytes: Bytes) -> io::Result<()> {
        Ok(())
    }

    async fn send(&mut self, _buf: &[u8]) -> io::Result<()> {
        Ok(())
    }

    async fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reset(&mut self, _code: VarInt) -> io::Result<()> {
        Ok(())
    }

    async fn stopped(&mut self) -> io::Result<Option<VarInt>> {
        pending().await
    }

    fn id(&self) -> u64 {
        0
    }
}
