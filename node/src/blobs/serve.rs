//! Answering one stream of a peer: what it may read, how many streams it may open, and for how long.
//!
//! Only whole blobs are served, by hash, alone or many in a row. Pushes, observations and sequences (whose children
//! would be chosen by the content of a blob) are refused. A refusal and a blob that is not here look the same from
//! outside: an answer that ends before it begins.

use std::time::Duration;

use iroh_blobs::{
    api::ExportBaoError,
    protocol::{GetManyRequest, GetRequest, Request},
    provider::{self, HandleGetError, HandleGetManyError, events::EventSender},
};
use protocol::{Hash, NodeId};

use super::{
    Blobs, Cause, Duplex, from_iroh,
    local::is_damage,
    locked,
    wire::{Receiver, Sender, halves},
};

/// How long a peer may take to send its request.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// How long one answer may take: enough for the largest order of a fetch on a slow line.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(600);
/// How long the last bytes may take to leave.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(10);

/// A stream that was not answered, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The peer has too many streams open.
    #[error("node {node} has {limit} streams open, which is the limit")]
    TooManyStreams {
        /// The peer.
        node: NodeId,
        /// The limit.
        limit: usize,
    },
    /// The peer asked for something that is never served.
    #[error("{what} are not served")]
    Refused {
        /// What it asked for.
        what: &'static str,
    },
    /// The peer may not read this blob.
    #[error("blob {hash} is not open to this node")]
    NotAllowed {
        /// The blob.
        hash: Hash,
    },
    /// The blob is not here.
    #[error("blob {hash} is not in the store")]
    Missing {
        /// The blob.
        hash: Hash,
    },
    /// The blob was found damaged while it was sent. The peer got no wrong byte.
    #[error("blob {hash} is damaged on disk")]
    Corrupt {
        /// The blob.
        hash: Hash,
    },
    /// The request or the answer took too long.
    #[error("the stream took too long")]
    TooSlow,
    /// The stream broke or the request could not be read.
    #[error("the stream failed")]
    Stream {
        /// Why.
        #[source]
        source: Cause,
    },
}

/// What was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Blobs that the answer was about.
    pub blobs: usize,
}

impl Blobs {
    /// Answers one incoming stream of the node `from`; `allow` says which hashes it may read.
    ///
    /// The future may be dropped; the peer then sees the stream end.
    ///
    /// # Errors
    ///
    /// [`ServeError`]: a refusal, a broken stream, or damage found while sending.
    pub async fn serve<S, A>(&self, from: NodeId, stream: S, allow: A) -> Result<Served, ServeError>
    where
        S: Duplex,
        A: Fn(&NodeId, &Hash) -> bool + Send + Sync,
    {
        let _slot = self.slot(from)?;
        let (receiver, sender, closing) = halves(stream, self.inner.options.idle * 4);
        let pair = provider::StreamPair::new(0, receiver, sender, EventSender::DEFAULT);
        let allow = |hash: &Hash| allow(&from, hash);
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, self.answer(pair, allow)).await;
        // The library has dropped the sending half; what is left in its buffer must still leave.
        let closed = tokio::time::timeout(CLOSE_TIME_MAX, closing.close()).await;
        let served = answer.map_err(|_| ServeError::TooSlow)??;
        match closed {
            Ok(Ok(())) => Ok(served),
            Ok(Err(error)) => Err(ServeError::Stream { source: error.into() }),
            Err(_) => Err(ServeError::TooSlow),
        }
    }

    async fn answer<S: Duplex>(
        &self,
        mut pair: provider::StreamPair<Receiver<S>, Sender<S>>,
        allow: impl Fn(&Hash) -> bool + Send + Sync,
    ) -> Result<Served, ServeError> {
        let request = tokio::time::timeout(REQUEST_TIME_MAX, pair.read_request()).await;
        let request = request.map_err(|_| ServeError::TooSlow)?;
        let request = request.map_err(|error| ServeError::Stream { source: error.to_string().into() })?;
        match request {
            Request::Get(request) => self.answer_one(pair, request, allow).await,
            Request::GetMany(request) => self.answer_many(pair, request, allow).await,
            Request::Push(_) => Err(ServeError::Refused { what: "pushes" }),
            Request::Observe(_) => Err(ServeError::Refused { what: "observations" }),
            Request::Slot2 | Request::Slot3 | Request::Slot4 | Request::Slot5 | Request::Slot6 | Request::Slot7 => {
                Err(ServeError::Refused { what: "unknown requests" })
            }
        }
    }

    async fn answer_one<S: Duplex>(
        &self,
        pair: provider::StreamPair<Receiver<S>, Sender<S>>,
        request: GetRequest,
        allow: impl Fn(&Hash) -> bool + Send + Sync,
    ) -> Result<Served, ServeError> {
        if !request.ranges.is_blob() {
            return Err(ServeError::Refused { what: "sequences" });
        }
        let hash = from_iroh(request.hash);
        self.check(&hash, &allow).await?;
        let sent = provider::handle_get(pair, self.inner.store.clone(), request).await;
        sent.map_err(|error| match error.downcast_ref::<HandleGetError>() {
            Some(HandleGetError::ExportBao { source, .. }) if damaged(source) => self.corrupt(&hash),
            _ => ServeError::Stream { source: error.to_string().into() },
        })?;
        Ok(Served { blobs: 1 })
    }

    /// Answers with the blobs up to the first that the peer may not have: the answer carries no names, so none can be
    /// left out of the middle.
    async fn answer_many<S: Duplex>(
        &self,
        pair: provider::StreamPair<Receiver<S>, Sender<S>>,
        mut request: GetManyRequest,
        allow: impl Fn(&Hash) -> bool + Send + Sync,
    ) -> Result<Served, ServeError> {
        let mut stopped = None;
        for (index, hash) in request.hashes.iter().enumerate() {
            if let Err(error) = self.check(&from_iroh(*hash), &allow).await {
                stopped = Some((index, error));
                break;
            }
        }
        if let Some((index, _)) = &stopped {
            request.hashes.truncate(*index);
        }
        let hashes = request.hashes.clone();
        let sent = provider::handle_get_many(pair, self.inner.store.clone(), request).await;
        if let Err(error) = sent {
            let damage = match error.downcast_ref::<HandleGetManyError>() {
                Some(HandleGetManyError::ExportBao { source, .. }) => damaged(source),
                None => false,
            };
            if damage {
                return Err(self.find_damage(&hashes).await);
            }
            return Err(ServeError::Stream { source: error.to_string().into() });
        }
        match stopped {
            Some((_, error)) => Err(error),
            None => Ok(Served { blobs: hashes.len() }),
        }
    }

    async fn check(&self, hash: &Hash, allow: &(impl Fn(&Hash) -> bool + Send + Sync)) -> Result<(), ServeError> {
        if !allow(hash) {
            return Err(ServeError::NotAllowed { hash: *hash });
        }
        match self.size(hash).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(ServeError::Missing { hash: *hash }),
            Err(error) => Err(ServeError::Stream { source: error.into() }),
        }
    }

    /// The library does not say which of many blobs was damaged, so each is read once more. It happens once per damage.
    async fn find_damage(&self, hashes: &[iroh_blobs::Hash]) -> ServeError {
        for hash in hashes {
            let hash = from_iroh(*hash);
            if let Err(super::Error::Corrupt { hash }) = self.scrub(&hash).await {
                return ServeError::Corrupt { hash };
            }
        }
        ServeError::Stream { source: "a blob was damaged while it was sent and is sound again".into() }
    }

    fn corrupt(&self, hash: &Hash) -> ServeError {
        self.set_damaged(hash);
        ServeError::Corrupt { hash: *hash }
    }

    fn slot(&self, node: NodeId) -> Result<Slot<'_>, ServeError> {
        let limit = self.inner.options.streams_per_peer;
        let mut streams = locked(&self.inner.streams);
        let open = streams.entry(node).or_default();
        if *open >= limit {
            return Err(ServeError::TooManyStreams { node, limit });
        }
        *open += 1;
        Ok(Slot { blobs: self, node })
    }
}

/// One of a peer's streams; gives its place back when dropped.
struct Slot<'a> {
    blobs: &'a Blobs,
    node: NodeId,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut streams = locked(&self.blobs.inner.streams);
        if let Some(open) = streams.get_mut(&self.node) {
            *open -= 1;
            if *open == 0 {
                streams.remove(&self.node);
            }
        }
    }
}

fn damaged(error: &ExportBaoError) -> bool {
    matches!(error, ExportBaoError::ExportBaoInner { source, .. } if is_damage(source))
}
