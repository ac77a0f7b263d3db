//! Providers behind in-memory streams, with the faults that the tests need.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use protocol::{Hash, NodeId};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    task::JoinSet,
};

use super::super::{Blobs, Dial, DialError, Duplex, locked};

/// How a provider behaves once it has sent so many bytes, over all of its streams.
#[derive(Debug, Clone, Copy)]
pub(super) enum Behaviour {
    Honest,
    DiesAfter(u64),
    HangsAfter(u64),
    FlipsAfter(u64),
}

#[derive(Clone)]
struct Provider {
    blobs: Blobs,
    behaviour: Behaviour,
    sent: Arc<AtomicU64>,
}

/// Providers by node. Each dialled stream is served by a task that ends with the network.
#[derive(Clone, Default)]
pub(super) struct Network {
    providers: Arc<Mutex<BTreeMap<NodeId, Provider>>>,
    forbidden: Arc<Mutex<Vec<Hash>>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Network {
    pub(super) fn add(&self, number: u8, blobs: &Blobs, behaviour: Behaviour) -> NodeId {
        let node = NodeId::from_bytes([number; 32]);
        let provider = Provider { blobs: blobs.clone(), behaviour, sent: Arc::default() };
        locked(&self.providers).insert(node, provider);
        node
    }

    pub(super) fn forbid(&self, hash: Hash) {
        locked(&self.forbidden).push(hash);
    }
}

impl Dial for Network {
    async fn open(&self, node: NodeId) -> Result<Box<dyn Duplex>, DialError> {
        let found = locked(&self.providers).get(&node).cloned();
        let provider = found.ok_or_else(|| DialError { node, source: "no such node".into() })?;
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        let (behaviour, sent) = (provider.behaviour, provider.sent.clone());
        let forbidden = self.forbidden.clone();
        locked(&self.tasks).spawn(async move {
            let allow = |_: &NodeId, hash: &Hash| !locked(&forbidden).contains(hash);
            let served = provider.blobs.serve(NodeId::from_bytes([0; 32]), theirs, allow).await;
            tracing::trace!(?served, "served");
        });
        Ok(Box::new(Faulty { stream: ours, behaviour, sent }))
    }
}

/// The receiver's end of a stream, with its provider's faults.
struct Faulty {
    stream: DuplexStream,
    behaviour: Behaviour,
    sent: Arc<AtomicU64>,
}

impl AsyncRead for Faulty {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let sent = this.sent.load(Ordering::Relaxed);
        match this.behaviour {
            Behaviour::DiesAfter(limit) if sent >= limit => return Poll::Ready(Ok(())),
            Behaviour::HangsAfter(limit) if sent >= limit => return Poll::Pending,
            Behaviour::Honest | Behaviour::DiesAfter(_) | Behaviour::HangsAfter(_) | Behaviour::FlipsAfter(_) => {}
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buf);
        let read = &mut buf.filled_mut()[before..];
        this.sent.fetch_add(read.len() as u64, Ordering::Relaxed);
        match this.behaviour {
            Behaviour::FlipsAfter(limit) if sent + read.len() as u64 > limit && !read.is_empty() => {
                let last = read.len() - 1;
                read[last] ^= 1;
            }
            Behaviour::Honest | Behaviour::DiesAfter(_) | Behaviour::HangsAfter(_) | Behaviour::FlipsAfter(_) => {}
        }
        polled
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
