//! What members say to each other, as bytes, and openraft's view of the way there.
//!
//! A message is one version byte and one [`Question`] or [`Answer`] in postcard, at most [`FRAME_BYTES_MAX`] bytes. Every question
//! may come twice, late, or never; none is believed to come from anybody but the sender that the transport names.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use openraft::{
    EmptyNode, LogId, RaftNetwork, RaftNetworkFactory, Vote,
    error::{InstallSnapshotError, RPCError, RaftError, RemoteError, SnapshotMismatch, Unreachable},
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
        VoteResponse,
    },
};
use protocol::{NodeId, lease::Term};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use super::{Member, PAYLOAD_BYTES_MAX, Types, WireError, Wires, contact::Voice, group::Shared};

/// The largest message between members, in bytes.
pub const FRAME_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + (64 << 10);

/// How many bytes of entries go into one message, unless the first entry alone is larger: small enough that a home link carries
/// it before anybody loses patience.
const APPEND_BYTES: usize = 256 << 10;

/// The part of a snapshot that goes into one message.
pub(super) const SNAPSHOT_CHUNK_BYTES: u64 = 256 << 10;

/// The slowest link that is waited for, in bytes per second: what one message may take beyond the time for a small answer.
const SLOWEST_LINK: u64 = 64 << 10;

/// The version of these messages; a member refuses what it does not know.
const VERSION: u8 = 1;

/// What a member asks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question {
    /// openraft: take these entries.
    Append(AppendEntriesRequest<Types>),
    /// openraft: take this part of a snapshot.
    Snapshot(InstallSnapshotRequest<Types>),
    /// openraft: vote for me.
    Vote(VoteRequest<Member>),
    /// Would you vote for a member whose log ends here? Changes nothing.
    WouldYou(Option<LogId<Member>>),
    /// Are you there, and how far? Changes nothing.
    Reach,
    /// The leader of this term is alive, though its entries are slow.
    Pulse(Term),
    /// The leader of this term hands over to this member: the lease does not stand in its way.
    Yield(Term, Member),
    /// The leader of this term hands over to you.
    TakeOver(Term),
}

/// What a member answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// To [`Question::Append`].
    Append(AppendEntriesResponse<Member>),
    /// To [`Question::Snapshot`]; the error says which part was expected.
    Snapshot(Result<InstallSnapshotResponse<Member>, SnapshotMismatch>),
    /// To [`Question::Vote`].
    Vote(VoteResponse<Member>),
    /// Yes: to [`Question::WouldYou`], [`Question::Pulse`], [`Question::Yield`], [`Question::TakeOver`].
    Yes,
    /// No, to the same: the member knows a leader, or another term.
    No,
    /// To [`Question::Reach`].
    Here {
        /// The newest term that the member knows.
        term: Term,
        /// Its newest log entry.
        last_log: Option<LogId<Member>>,
    },
    /// The sender may not ask, or the message is none; in words.
    Refused(String),
}

/// Why a message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    /// More bytes than a message may have.
    #[error("a message of {got} bytes is over the limit of {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Bytes received.
        got: usize,
    },
    /// Another version, or no byte at all.
    #[error(
        "message version {got:?} is unknown, this member speaks {VERSION}; use the same release on all coordinators"
    )]
    Version {
        /// The version byte.
        got: Option<u8>,
    },
    /// Not a message.
    #[error("the message does not decode: {why}")]
    Decode {
        /// The decoder's words.
        why: String,
    },
}

/// Writes a message.
pub(super) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_extend(message, vec![VERSION]).expect("messages hold only what postcard can write")
}

/// Reads a message from a peer.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { got: bytes.len() });
    }
    let (version, body) = match bytes.split_first() {
        Some((version, body)) if *version == VERSION => (*version, body),
        other => return Err(FrameError::Version { got: other.map(|(version, _)| *version) }),
    };
    debug_assert_eq!(version, VERSION);
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(FrameError::Decode { why: format!("{} bytes too many", rest.len()) }),
        Err(e) => Err(FrameError::Decode { why: e.to_string() }),
    }
}

/// The wires without their type: asks a member.
#[derive(Clone)]
pub(super) struct Line(Arc<dyn Fn(NodeId, Vec<u8>, Duration) -> Asking + Send + Sync>);

type Asking = BoxFuture<'static, Result<Vec<u8>, WireError>>;

impl Line {
    pub(super) fn new<W: Wires>(wires: W) -> Line {
        Line(Arc::new(move |to, message, within| {
            let wires = wires.clone();
            Box::pin(async move { wires.ask(to, message, within).await })
        }))
    }

    /// Asks a member. The time holds whatever the transport does.
    pub(super) async fn ask(&self, to: Member, question: &Question, within: Duration) -> Result<Answer, WireError> {
        let to = NodeId::from(to);
        let asking = (self.0)(to, encode(question), within);
        let answer = tokio::time::timeout(within, asking).await.map_err(|_| WireError::TimedOut { to, within })??;
        decode(&answer).map_err(|e| WireError::Unreachable { to, why: e.to_string() })
    }
}

/// Makes openraft's ways to the others.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) shared: Arc<Shared>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: Member, _node: &EmptyNode) -> Way {
        Way { shared: Arc::clone(&self.shared), target }
    }
}

/// openraft's way to one member.
pub(super) struct Way {
    shared: Arc<Shared>,
    target: Member,
}

/// A term is one election, and each of them takes seconds, so that terms beyond this are no honest member's.
const TERM_LIKELY_MAX: u64 = 1 << 62;
/// Where a liar brought a group there, it goes on in small steps.
const TERM_STEP_MAX: u64 = 1 << 20;

/// Says whether a vote may be of a group in which this member knows the term `own`. A member that was away may be far behind; but the
/// numbers of terms must not be used up, for an election takes the next one.
pub(super) fn is_likely(vote: &Vote<Member>, own: u64) -> bool {
    vote.leader_id().term <= own.max(TERM_LIKELY_MAX).saturating_add(TERM_STEP_MAX)
}

type Failure<E = RaftError<Member>> = RPCError<Member, EmptyNode, E>;

/// Every failure counts as "unreachable", since openraft waits a while after that, and asks again at once after others.
fn unreachable<E: std::error::Error>(error: &(impl std::error::Error + 'static)) -> Failure<E> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl Way {
    /// Asks as the leader: only while this member's leadership may be heard, and a good answer counts as one of a follower.
    async fn ask<E: std::error::Error>(&self, question: Question, bytes: usize) -> Result<Answer, Failure<E>> {
        let why = match self.shared.contact().voice {
            Voice::Speaking => None,
            Voice::Silent => Some("this leader has no majority and keeps quiet"),
            Voice::HandingOver => Some("this leader hands over and keeps quiet"),
        };
        if let Some(why) = why {
            return Err(unreachable(&WireError::Unreachable { to: self.target.into(), why: why.to_owned() }));
        }
        let extra = Duration::from_secs(1).mul_f64(bytes as f64 / SLOWEST_LINK as f64);
        let within = self.shared.config.timing.heartbeat + extra;
        self.shared.line.ask(self.target, &question, within).await.map_err(|e| unreachable(&e))
    }

    fn acked(&self) {
        self.shared.contact().acked(self.target, Instant::now());
    }

    /// Gives why a vote is refused that would only use up the numbers.
    fn unlikely<E: std::error::Error>(&self, vote: &Vote<Member>, own: u64) -> Option<Failure<E>> {
        if is_likely(vote, own) {
            return None;
        }
        let why = format!("it claims term {}, and no group has had so many elections", vote.leader_id().term);
        Some(unreachable(&WireError::Unreachable { to: self.target.into(), why }))
    }

    fn odd<E: std::error::Error>(&self, answer: &Answer) -> Failure<E> {
        let why = if let Answer::Refused(why) = answer {
            format!("refused: {why}")
        } else {
            format!("answered something else: {answer:?}")
        };
        unreachable(&WireError::Unreachable { to: self.target.into(), why })
    }
}

impl RaftNetwork<Types> for Way {
    async fn append_entries(
        &mut self,
        mut request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Member>, Failure> {
        let (asked, term) = (request.entries.len(), request.vote.leader_id().term);
        let bytes = shorten(&mut request);
        let sent = request.entries.last().map(|entry| entry.log_id);
        let cut = request.entries.len() < asked;
        let answer = self.ask(Question::Append(request), bytes).await?;
        let Answer::Append(answer) = answer else { return Err(self.odd(&answer)) };
        if let AppendEntriesResponse::HigherVote(vote) = &answer
            && let Some(error) = self.unlikely(vote, term)
        {
            return Err(error);
        }
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.acked();
        }
        let whole = !(cut && answer.is_success());
        Ok(if whole { answer } else { AppendEntriesResponse::PartialSuccess(sent) })
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<Member>, Failure<RaftError<Member, InstallSnapshotError>>> {
        let (vote, bytes): (Vote<Member>, usize) = (request.vote, request.data.len());
        let answer = self.ask(Question::Snapshot(request), bytes).await?;
        let Answer::Snapshot(answer) = answer else { return Err(self.odd(&answer)) };
        match answer {
            Ok(answer) => {
                if let Some(error) = self.unlikely(&answer.vote, vote.leader_id().term) {
                    return Err(error);
                }
                if answer.vote <= vote {
                    self.acked();
                }
                Ok(answer)
            }
            Err(mismatch) => {
                self.acked();
                let error = RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch));
                Err(RPCError::RemoteError(RemoteError::new(self.target, error)))
            }
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Member>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Member>, Failure> {
        let (within, term) = (self.shared.config.timing.heartbeat, request.vote.leader_id().term);
        let answer = self.shared.line.ask(self.target, &Question::Vote(request), within).await;
        let answer = answer.map_err(|e| unreachable(&e))?;
        let Answer::Vote(answer) = answer else { return Err(self.odd(&answer)) };
        if let Some(error) = self.unlikely(&answer.vote, term) {
            return Err(error);
        }
        Ok(answer)
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.shared.config.timing.heartbeat))
    }
}

/// Cuts the entries of a request to what one message carries, and gives their bytes.
fn shorten(request: &mut AppendEntriesRequest<Types>) -> usize {
    let mut bytes = 0;
    let mut keep = 0;
    for entry in &request.entries {
        let more = match &entry.payload {
            openraft::EntryPayload::Normal(payload) => payload.bytes.len() + 64,
            openraft::EntryPayload::Blank | openraft::EntryPayload::Membership(_) => 1024,
        };
        if keep > 0 && bytes + more > APPEND_BYTES {
            break;
        }
        (bytes, keep) = (bytes + more, keep + 1);
    }
    request.entries.truncate(keep);
    bytes
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, Entry, EntryPayload};

    use super::*;
    use crate::consensus::Payload;

    fn entry(index: u64, bytes: usize) -> Entry<Types> {
        let payload = Payload { by: Member([1; 32]), bytes: vec![7; bytes] };
        let log_id = LogId::new(CommittedLeaderId::new(3, Member::default()), index);
        Entry { log_id, payload: EntryPayload::Normal(payload) }
    }

    fn append(entries: Vec<Entry<Types>>) -> AppendEntriesRequest<Types> {
        let vote = Vote::new_committed(3, Member([1; 32]));
        AppendEntriesRequest { vote, prev_log_id: None, entries, leader_commit: None }
    }

    #[test]
    fn terms_are_not_used_up_by_one_word() {
        let vote = |term| Vote::new(term, Member([2; 32]));
        assert!(is_likely(&vote(1_000_000_000), 3), "it was away for long");
        assert!(!is_likely(&vote(u64::MAX), 3) && !is_likely(&vote(1 << 63), 3));
        assert!(is_likely(&vote((1 << 62) + 5), (1 << 62) + 4));
    }

    #[test]
    fn messages_come_back_as_they_went() {
        let question = Question::Append(append(vec![entry(1, 10), entry(2, 0)]));
        let back: Question = decode(&encode(&question)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{question:?}"));
        let answer = Answer::Snapshot(Ok(InstallSnapshotResponse { vote: Vote::new(1, Member([2; 32])) }));
        let back: Answer = decode(&encode(&answer)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{answer:?}"));
    }

    #[test]
    fn what_is_no_message_is_refused_with_words_and_without_a_panic() {
        assert!(matches!(decode::<Question>(&[]), Err(FrameError::Version { got: None })));
        assert!(matches!(decode::<Question>(&[9, 4]), Err(FrameError::Version { got: Some(9) })));
        assert!(matches!(decode::<Question>(&vec![1; FRAME_BYTES_MAX + 1]), Err(FrameError::TooLarge { .. })));
        let whole = encode(&Question::Append(append(vec![entry(1, 40)])));
        for cut in 1..whole.len() {
            assert!(decode::<Question>(&whole[..cut]).is_err(), "cut at {cut}");
        }
        let mut long = whole.clone();
        long.push(0);
        assert!(matches!(decode::<Question>(&long), Err(FrameError::Decode { .. })));
        for at in 1..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0xff;
            // Some flips give another message; none may panic.
            drop(decode::<Question>(&flipped));
        }
    }

    #[test]
    fn a_request_is_cut_to_what_one_message_carries_but_never_to_nothing() {
        let mut request = append((1..=9).map(|index| entry(index, APPEND_BYTES / 4)).collect());
        shorten(&mut request);
        assert_eq!(request.entries.len(), 3);
        let mut request = append(vec![entry(1, PAYLOAD_BYTES_MAX), entry(2, 1)]);
        shorten(&mut request);
        assert_eq!(request.entries.len(), 1);
        assert!(encode(&Question::Append(request)).len() <= FRAME_BYTES_MAX);
    }
}
