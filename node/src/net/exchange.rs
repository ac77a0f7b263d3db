//! One request, one response: the exchange protocol `/artel/<net8>/exchange/1`.
//!
//! A message is a length of four bytes, big-endian, and that many bytes of canonical CBOR. A length over the limit is
//! refused when it is read, before anything is allocated; one for which its connection or the node has no room is refused as
//! busy; a request whose bytes then stay out is refused as late. What came passes the strict door of `protocol::codec`. What
//! does not pass is answered with a refusal that says why. This module does not know what the messages mean.

mod room;

use std::{io, time::Duration};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};
use protocol::{
    NodeId,
    codec::{self, DoorError},
    limits,
    message::{Refusal, Request, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;
use tracing::warn;

pub(super) use self::room::Memory;
use self::room::Room;

/// How long a request may take, its answer included.
pub(super) const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of the length before each message.
const HEADER: usize = 4;
/// How long the bytes of a request may stay out. A slow uplink needs nearly as long as libp2p allows, which gives the request up unsaid
/// then; the room that it holds meanwhile is its own connection's.
const BODY_WITHIN: Duration = Duration::from_secs(14);

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length says more than the limit; nothing of it was read.
    #[error("message of {got} bytes is over the limit of {limit}; send less, or send it as a blob")]
    TooLarge {
        /// Bytes announced.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The length came, and then not as many bytes.
    #[error("message of {got} bytes did not arrive within {within:?}")]
    Late {
        /// Bytes announced.
        got: usize,
        /// How long they were waited for.
        within: Duration,
    },
    /// The bytes did not pass the strict door.
    #[error("message refused: {0}")]
    Door(#[from] DoorError),
}

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No connection to the node could be made.
    #[error("node {node} cannot be reached: {why}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// What was tried.
        why: String,
    },
    /// The node did not answer in time; whether it acted is unknown.
    #[error("node {0} did not answer in time; ask again")]
    Timeout(NodeId),
    /// The connection broke before the answer; whether the node acted is unknown.
    #[error("connection to node {0} was lost before its answer; ask again")]
    Interrupted(NodeId),
    /// Too many answers are being read to take one more; whether the node acted is unknown.
    #[error("the answer of node {0} found no room here, others are being read; ask again")]
    NoRoom(NodeId),
    /// The request is larger than any node takes; it was not sent.
    #[error("request not sent: {0}")]
    TooLarge(FrameError),
    /// The node answered with something that is no response.
    #[error("bad answer from node {node}")]
    BadAnswer {
        /// The node.
        node: NodeId,
        /// What was wrong with it.
        source: FrameError,
    },
    /// The node does not speak the exchange protocol of this network.
    #[error("node {0} does not speak this network's exchange protocol; is it of another network or version?")]
    Unsupported(NodeId),
    /// This node's network is shut down.
    #[error("the network of this node is shut down")]
    Stopped,
}

impl AskError {
    /// Says whether the node may have acted on the question all the same.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            AskError::Timeout(_) | AskError::Interrupted(_) | AskError::NoRoom(_) | AskError::BadAnswer { .. } => true,
            AskError::Unreachable { .. } | AskError::TooLarge(_) | AskError::Unsupported(_) | AskError::Stopped => {
                false
            }
        }
    }
}

/// A message on its way through libp2p: encoded when it goes out, decoded and judged when it came in.
#[derive(Debug)]
pub(super) enum Frame<T> {
    Outgoing(Vec<u8>),
    Message(T, Memory),
    Garbage(FrameError),
    /// There was no room for it; nothing of it was read.
    NoRoom,
}

/// Encodes a message with its length.
pub(super) fn encode<T: Serialize>(message: &T, limit: usize) -> Result<Vec<u8>, FrameError> {
    let body = codec::encode(message);
    if body.len() > limit {
        return Err(FrameError::TooLarge { got: body.len(), limit });
    }
    let length = u32::try_from(body.len()).expect("limits are far below 4 GiB");
    let mut frame = Vec::with_capacity(HEADER + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Reads and writes messages; one clone per connection, and one of that per stream.
#[derive(Debug, Clone)]
pub(super) struct Codec {
    requests: Room,
    answers: Room,
}

impl Codec {
    pub(super) fn new() -> Self {
        Self { requests: Room::for_requests(), answers: Room::for_answers() }
    }
}

/// Reads a message; its bytes, once their length is known, are to come `within` that time.
async fn read<T, R>(room: &Room, stream: &mut R, limit: usize, within: Duration) -> io::Result<Frame<T>>
where
    T: Serialize + DeserializeOwned,
    R: AsyncRead + Unpin + Send,
{
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await?;
    let length = u32::from_be_bytes(header);
    let got = usize::try_from(length).unwrap_or(usize::MAX);
    if got > limit {
        return Ok(Frame::Garbage(FrameError::TooLarge { got, limit }));
    }
    let Some(memory) = room.take(length) else { return Ok(Frame::NoRoom) };
    // Grows with what arrives, not with what was announced.
    let mut body = Vec::new();
    match tokio::time::timeout(within, stream.take(u64::from(length)).read_to_end(&mut body)).await {
        Ok(read) => drop(read?),
        Err(_) => return Ok(Frame::Garbage(FrameError::Late { got, within })),
    }
    if body.len() < got {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(match codec::decode(&body, limit) {
        Ok(message) => Frame::Message(message, memory),
        Err(error) => Frame::Garbage(error.into()),
    })
}

async fn write<T: Send, W: AsyncWrite + Unpin + Send>(stream: &mut W, frame: Frame<T>) -> io::Result<()> {
    match frame {
        Frame::Outgoing(bytes) => stream.write_all(&bytes).await,
        Frame::Message(..) | Frame::Garbage(_) | Frame::NoRoom => Err(io::ErrorKind::InvalidInput.into()),
    }
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Frame<Request>;
    type Response = Frame<Response>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Frame<Request>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(&self.requests, io, limits::REQUEST_MAX, BODY_WITHIN).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Frame<Response>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(&self.answers, io, limits::RESPONSE_MAX, EXCHANGE_TIMEOUT).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, frame: Frame<Request>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, frame).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, frame: Frame<Response>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, frame).await
    }
}

/// Where the answer to a request goes. Dropped without an answer, the asker is told that this node was too busy.
#[derive(Debug)]
pub struct Reply {
    answer: oneshot::Sender<Vec<u8>>,
    _memory: Option<Memory>,
}

impl Reply {
    pub(super) fn new(memory: Option<Memory>) -> (Self, oneshot::Receiver<Vec<u8>>) {
        let (answer, receiver) = oneshot::channel();
        (Self { answer, _memory: memory }, receiver)
    }

    /// Sends the answer. One that is over the limit becomes a refusal that says so.
    pub fn send(self, response: &Response) {
        let frame = encode(response, limits::RESPONSE_MAX).unwrap_or_else(|error| {
            warn!(%error, "answer replaced by a refusal");
            refusal(Refusal::Invalid("the answer would be over the limit; ask for less".into()))
        });
        // An asker that no longer waits is its own affair.
        drop(self.answer.send(frame));
    }
}

/// Encodes a refusal.
pub(super) fn refusal(refusal: Refusal) -> Vec<u8> {
    encode(&Response::Refused(refusal), limits::RESPONSE_MAX).expect("a refusal is short")
}

/// Decodes an answer that never left this process.
pub(super) fn decode_own(frame: &[u8]) -> Result<Response, FrameError> {
    let body = frame.get(HEADER..).unwrap_or_default();
    Ok(codec::decode(body, limits::RESPONSE_MAX)?)
}
