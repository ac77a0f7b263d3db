//! The coordinators' wires: questions and answers between candidates over streams of their own.
//!
//! ```text
//!  ask --lane of (node, size)--> one long stream per lane:  id, question -->
//!                                                           <-- id, answer   (in any order)
//! ```
//! Each lane is a task: it opens its stream when there is something to ask, and again after it broke. Small questions have a
//! lane of their own, so that a heartbeat never waits behind a snapshot. Everything is bounded: frames, questions that wait,
//! questions in flight, and the time to write; a candidate that hangs or talks nonsense loses its stream and nobody else's.
//! It does not know what is asked.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt, stream::FuturesUnordered};
use protocol::NodeId;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::{
    codec::{FramedRead, FramedWrite, LengthDelimitedCodec},
    sync::CancellationToken,
};
use tracing::debug;

use super::chain;
use crate::{
    consensus::{WireError, Wires},
    net::{ByteStream, Net, Purpose},
};

/// The largest question or answer, in bytes: several proposals of the largest size.
const FRAME_MAX: usize = 16 << 20;
/// A question over this size takes the lane of large ones.
const SMALL_MAX: usize = 32 << 10;
/// Questions that may wait in a lane or be in flight on its stream; a further one is refused at once.
const IN_FLIGHT_MAX: usize = 64;
/// Lanes that may wait to be started.
const LANES: usize = 64;
/// How long opening a stream may take, dialling included.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// How long writing one frame may take; a member that does not read for so long loses its stream.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of the id before each question and answer.
const ID_BYTES: usize = 8;

/// Which lane a question takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Size {
    Small,
    Large,
}

/// Where an answer goes, or why there is none.
type Reply = oneshot::Sender<Result<Vec<u8>, String>>;

/// A question on its way.
struct Question {
    message: Vec<u8>,
    reply: Reply,
}

type Lanes = BTreeMap<(NodeId, Size), mpsc::Sender<Question>>;

/// A lane that is to be started.
type NewLane = (NodeId, mpsc::Receiver<Question>);

/// Opens a stream to another candidate. The network does it; tests do it in memory.
pub(super) trait Open: Clone + Send + Sync + 'static {
    /// What is opened.
    type Stream: AsyncRead + AsyncWrite + Send + 'static;

    /// Opens a stream.
    fn open(&self, to: NodeId) -> impl Future<Output = Result<Self::Stream, String>> + Send;
}

impl Open for Net {
    type Stream = ByteStream;

    async fn open(&self, to: NodeId) -> Result<ByteStream, String> {
        Net::open(self, to, Purpose::Coordination).await.map_err(|error| chain(&error))
    }
}

/// The wires of one candidate.
#[derive(Clone)]
pub(super) struct Switchboard {
    lanes: Arc<Mutex<Lanes>>,
    start: mpsc::Sender<NewLane>,
}

impl fmt::Debug for Switchboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switchboard").finish_non_exhaustive()
    }
}

/// Runs the lanes of a switchboard.
pub(super) struct Operator<O> {
    open: O,
    start: mpsc::Receiver<NewLane>,
}

/// Makes the wires and what runs them.
pub(super) fn wires<O: Open>(open: O) -> (Switchboard, Operator<O>) {
    let (start, started) = mpsc::channel(LANES);
    (Switchboard { lanes: Arc::default(), start }, Operator { open, start: started })
}

impl Switchboard {
    /// Hands a question to its lane.
    fn hand(&self, to: NodeId, question: Question) -> Result<(), &'static str> {
        let size = if question.message.len() > SMALL_MAX { Size::Large } else { Size::Small };
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = match lanes.get(&(to, size)) {
            Some(lane) if !lane.is_closed() => lane.clone(),
            Some(_) | None => {
                let (lane, questions) = mpsc::channel(IN_FLIGHT_MAX);
                self.start.try_send((to, questions)).map_err(|_| "this node is stopping")?;
                lanes.insert((to, size), lane.clone());
                lane
            }
        };
        lane.try_send(question).map_err(|_| "too many questions wait for it")
    }
}

impl Wires for Switchboard {
    async fn ask(&self, to: NodeId, message: Vec<u8>, within: Duration) -> Result<Vec<u8>, WireError> {
        let unreachable = |why: &str| WireError::Unreachable { to, why: why.to_owned() };
        if message.len() > FRAME_MAX - ID_BYTES {
            return Err(unreachable("the question is larger than a frame may be"));
        }
        let (reply, answer) = oneshot::channel();
        self.hand(to, Question { message, reply }).map_err(unreachable)?;
        match tokio::time::timeout(within, answer).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(why))) => Err(unreachable(&why)),
            Ok(Err(_)) => Err(unreachable("the stream to it ended")),
            Err(_) => Err(WireError::TimedOut { to, within }),
        }
    }
}

impl<O: Open> Operator<O> {
    /// Runs lanes until stopped.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut lanes = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = lanes.join_next(), if !lanes.is_empty() => {}
                new = self.start.recv() => match new {
                    Some((to, questions)) => drop(lanes.spawn(lane(self.open.clone(), to, questions))),
                    None => break,
                },
            }
        }
        lanes.shutdown().await;
    }
}

/// Asks one member, over one stream at a time.
async fn lane<O: Open>(open: O, to: NodeId, mut questions: mpsc::Receiver<Question>) {
    while let Some(first) = questions.recv().await {
        if first.reply.is_closed() {
            continue;
        }
        let why = match tokio::time::timeout(OPEN_WITHIN, open.open(to)).await {
            Ok(Ok(stream)) => talk(stream, first, &mut questions).await,
            Ok(Err(why)) => fail(first, why),
            Err(_) => fail(first, format!("no stream within {OPEN_WITHIN:?}")),
        };
        debug!(node = %to.short(), %why, "coordinators' stream");
        // Who asked meanwhile learns it now, and need not wait for a time to pass.
        while let Ok(waiting) = questions.try_recv() {
            fail(waiting, why.clone());
        }
    }
}

fn fail(question: Question, why: String) -> String {
    // The asker may have gone.
    let _ = question.reply.send(Err(why.clone()));
    why
}

/// Questions whose answers are outstanding.
type Pending = Mutex<BTreeMap<u64, Reply>>;

/// Asks over a stream until it breaks, and says why it did. Questions without an answer then have none.
async fn talk<S>(stream: S, first: Question, questions: &mut mpsc::Receiver<Question>) -> String
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(stream);
    let (mut read, mut write) = (FramedRead::new(read, frames()), FramedWrite::new(write, frames()));
    let pending = Pending::default();
    let answers = async {
        while let Some(frame) = read.next().await {
            let (id, answer) = match frame.map_err(|e| e.to_string()).and_then(parse) {
                Ok(parsed) => parsed,
                Err(why) => return why,
            };
            if let Some(reply) = waiting(&pending).remove(&id) {
                // The asker may have gone.
                let _ = reply.send(Ok(answer.to_vec()));
            }
        }
        "the other side ended the stream".to_owned()
    };
    let asked = async {
        let (mut next, mut id) = (Some(first), 0);
        loop {
            let question = match next.take() {
                Some(question) => question,
                None => match questions.recv().await {
                    Some(question) => question,
                    None => return "this node is stopping".to_owned(),
                },
            };
            if question.reply.is_closed() {
                continue;
            }
            id += 1;
            {
                let mut pending = waiting(&pending);
                pending.retain(|_, reply| !reply.is_closed());
                if pending.len() >= IN_FLIGHT_MAX {
                    drop(pending);
                    fail(question, "it does not answer".to_owned());
                    continue;
                }
                pending.insert(id, question.reply);
            }
            if let Err(error) = send(&mut write, id, &question.message).await {
                return error.to_string();
            }
        }
    };
    tokio::select! {
        why = answers => why,
        why = asked => why,
    }
}

fn waiting(pending: &Pending) -> MutexGuard<'_, BTreeMap<u64, Reply>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

fn frames() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(FRAME_MAX).new_codec()
}

fn parse(mut frame: BytesMut) -> Result<(u64, Bytes), String> {
    if frame.len() < ID_BYTES {
        return Err("a frame is shorter than its id".into());
    }
    let id = frame.get_u64();
    Ok((id, frame.freeze()))
}

async fn send<W>(write: &mut FramedWrite<W, LengthDelimitedCodec>, id: u64, body: &[u8]) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let mut frame = BytesMut::with_capacity(ID_BYTES + body.len());
    frame.put_u64(id);
    frame.put_slice(body);
    tokio::time::timeout(WRITE_WITHIN, write.send(frame.freeze())).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// Answers a candidate's questions until its stream ends. Questions are answered beside each other, as many as may be in
/// flight; who asks more waits.
pub(super) async fn answer<S, A, F>(stream: S, answer: A) -> String
where
    S: AsyncRead + AsyncWrite + Send + 'static,
    A: Fn(Bytes) -> F,
    F: Future<Output = Vec<u8>>,
{
    let (read, write) = tokio::io::split(stream);
    let (mut read, mut write) = (FramedRead::new(read, frames()), FramedWrite::new(write, frames()));
    let mut answers = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some((id, body)) = answers.next(), if !answers.is_empty() => {
                let body: Vec<u8> = body;
                if let Err(error) = send(&mut write, id, &body).await {
                    return error.to_string();
                }
            }
            frame = read.next(), if answers.len() < IN_FLIGHT_MAX => match frame {
                None => return "it ended".to_owned(),
                Some(frame) => match frame.map_err(|e| e.to_string()).and_then(parse) {
                    Ok((id, question)) => {
                        let answered = answer(question);
                        answers.push(async move { (id, answered.await) });
                    }
                    Err(why) => return why,
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncWriteExt, DuplexStream};

    use super::*;

    const WITHIN: Duration = Duration::from_secs(5);

    /// Opens streams to members that this process plays.
    #[derive(Clone)]
    struct Company(mpsc::Sender<(NodeId, DuplexStream)>);

    impl Open for Company {
        type Stream = DuplexStream;

        async fn open(&self, to: NodeId) -> Result<DuplexStream, String> {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            self.0.send((to, theirs)).await.map_err(|_| "nobody is there".to_owned())?;
            Ok(ours)
        }
    }

    fn member(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn start() -> (Switchboard, mpsc::Receiver<(NodeId, DuplexStream)>, JoinSet<()>) {
        let (streams, opened) = mpsc::channel(16);
        let (switchboard, operator) = wires(Company(streams));
        let mut tasks = JoinSet::new();
        tasks.spawn(operator.run(CancellationToken::new()));
        (switchboard, opened, tasks)
    }

    async fn echo(question: Bytes) -> Vec<u8> {
        question.to_vec()
    }

    #[tokio::test]
    async fn questions_share_a_stream_and_answers_find_their_questions() {
        let (switchboard, mut opened, mut tasks) = start();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        tasks.spawn(async move {
            while let Some((_, stream)) = opened.recv().await {
                counted.fetch_add(1, Ordering::Relaxed);
                answer(stream, echo).await;
            }
        });
        let asked = (0..50_u8).map(|n| switchboard.ask(member(1), vec![n; 100], WITHIN));
        for (n, answer) in (0..50_u8).zip(futures::future::join_all(asked).await) {
            assert_eq!(answer.unwrap(), vec![n; 100]);
        }
        assert_eq!(count.load(Ordering::Relaxed), 1, "one stream for all");
    }

    #[tokio::test]
    async fn a_member_that_hangs_or_talks_nonsense_harms_no_other() {
        let (switchboard, mut opened, mut tasks) = start();
        tasks.spawn(async move {
            let (mut hanging, mut answered) = (Vec::new(), JoinSet::new());
            while let Some((node, mut stream)) = opened.recv().await {
                if node == member(1) {
                    hanging.push(stream);
                } else if node == member(2) {
                    stream.write_all(&[0xff; 64]).await.unwrap();
                    hanging.push(stream);
                } else {
                    answered.spawn(answer(stream, echo));
                }
            }
        });
        let short = Duration::from_millis(50);
        let hangs = switchboard.ask(member(1), b"?".to_vec(), short).await;
        assert!(matches!(hangs, Err(WireError::TimedOut { .. })), "{hangs:?}");
        let nonsense = switchboard.ask(member(2), b"?".to_vec(), WITHIN).await;
        assert!(matches!(nonsense, Err(WireError::Unreachable { .. })), "{nonsense:?}");
        assert_eq!(switchboard.ask(member(3), b"well?".to_vec(), WITHIN).await.unwrap(), b"well?");
        let flood = (0..300).map(|_| switchboard.ask(member(1), b"?".to_vec(), short));
        assert!(futures::future::join_all(flood).await.iter().all(Result::is_err));
        assert_eq!(switchboard.ask(member(3), b"still?".to_vec(), WITHIN).await.unwrap(), b"still?");
    }

    #[tokio::test]
    async fn a_broken_stream_is_opened_again() {
        let (switchboard, mut opened, mut tasks) = start();
        tasks.spawn(async move {
            drop(opened.recv().await);
            while let Some((_, stream)) = opened.recv().await {
                answer(stream, echo).await;
            }
        });
        assert!(switchboard.ask(member(1), b"?".to_vec(), WITHIN).await.is_err());
        assert_eq!(switchboard.ask(member(1), b"again?".to_vec(), WITHIN).await.unwrap(), b"again?");
    }
}
