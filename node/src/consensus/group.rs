//! The handle of one member: opens it over its log, machine and wires, proposes, answers the others, and tells how it stands.
//!
//! ```text
//!   propose --> [queue] --> proposer (joins what waits) --> openraft --> log, others --> machine --> propose returns
//!   answer  --> gate (who asks? does the leader live?) --> openraft
//!   pulse   (election): heartbeats, elections, majority --> Standing
//! ```
//!
//! Tasks of ours are joined in [`Group::stop`]; openraft's own end with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openraft::{
    LogId, Raft, ServerState, SnapshotPolicy, error::InitializeError, error::RaftError, metrics::RaftMetrics,
};
use protocol::NodeId;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Config, Durable, Error, Life, Machine, Member, PAYLOAD_BYTES_MAX, Position, ProposeError, Standing, Types, Wires,
    contact::Contact,
    election::Pulse,
    guard::{Guarded, Marks},
    machine::Adapter,
    proposer::{Proposal, Proposer},
    standing,
    wires::{Answer, Line, Network, Question, SNAPSHOT_CHUNK_BYTES, decode, encode, is_likely},
};

/// Proposals that may wait for the proposer; more make the caller wait, which slows it down to the speed of the disk.
const QUEUE: usize = 1024;
/// The largest snapshot that is taken from another member; a ledger of 100,000 jobs has an eighth of it.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// How soon a snapshot is wished for again.
const SNAPSHOT_AGAIN: Duration = Duration::from_millis(500);

/// The longest that one message of entries may take on the slowest link, before openraft sends it again.
const APPEND_WITHIN: Duration = Duration::from_secs(90);

/// How many entries one message carries at most; its bytes are limited in `wires`.
const APPEND_ENTRIES: u64 = 512;

/// What a member's metrics are.
pub(super) type Metrics = RaftMetrics<Member, openraft::EmptyNode>;

/// What the parts of one member share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) line: Line,
    pub(super) marks: Arc<Marks>,
    contact: Mutex<Contact>,
    candidates: Mutex<BTreeSet<NodeId>>,
    /// Wakes the pulse before its time.
    pub(super) kick: Notify,
}

impl Shared {
    /// Who was heard when. Never held over an await.
    pub(super) fn contact(&self) -> MutexGuard<'_, Contact> {
        self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn me(&self) -> Member {
        self.config.me.into()
    }

    fn is_candidate(&self, node: NodeId) -> bool {
        self.candidates.lock().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }
}

/// The sets of voters: two while the membership changes.
pub(super) fn quorums(metrics: &Metrics) -> Vec<BTreeSet<Member>> {
    metrics.membership_config.membership().get_joint_config().clone()
}

/// One member of the group. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    pub(super) raft: Raft<Types>,
    pub(super) shared: Arc<Shared>,
    proposals: mpsc::Sender<Proposal>,
    standing: watch::Receiver<Standing>,
    /// Where its log ended when it was opened.
    opened: Option<LogId<Member>>,
    tasks: Arc<tokio::sync::Mutex<JoinSet<()>>>,
    ending: CancellationToken,
}

impl Group {
    /// Opens a member over what its disk holds. A member that was never [founded](Group::found) and is in no membership waits
    /// until it is added.
    ///
    /// # Errors
    /// [`Error::Open`] when log, vote or snapshot cannot be read, or the machine does not take its snapshot.
    pub async fn open<M: Machine, W: Wires>(
        config: Config,
        log: impl Durable,
        machine: M,
        wires: W,
    ) -> Result<Group, Error> {
        let failed = |why: String| Error::Open { why };
        let marks = Marks::new();
        let machine = Adapter::open(machine, log.snapshots(), Arc::clone(&marks)).await.map_err(failed)?;
        let now = Instant::now();
        let shared = Arc::new(Shared {
            line: Line::new(wires),
            marks: Arc::clone(&marks),
            contact: Mutex::new(Contact::new(config.timing, now)),
            candidates: Mutex::new(config.candidates.clone()),
            kick: Notify::new(),
            config,
        });
        let me = shared.me();
        let network = Network { shared: Arc::clone(&shared) };
        let log = Guarded::new(log, me, marks);
        let raft = Raft::new(me, Arc::new(engine_config(&shared.config)), network, log, machine)
            .await
            .map_err(|e| failed(e.to_string()))?;

        let ending = CancellationToken::new();
        let (told, standing) = watch::channel(standing::of(&raft.metrics().borrow(), &shared, (now, now)));
        let (proposals, queue) = mpsc::channel(QUEUE);
        let pulse = Pulse::new(raft.clone(), Arc::clone(&shared), told);
        let proposer = Proposer::new(raft.clone(), me, shared.config.timing);
        let mut tasks = JoinSet::new();
        tasks.spawn(pulse.run(ending.clone()));
        tasks.spawn(proposer.run(queue, ending.clone()));
        let tasks = Arc::new(tokio::sync::Mutex::new(tasks));
        let opened = shared.marks.last_log();
        Ok(Group { raft, shared, proposals, standing, opened, tasks, ending })
    }

    /// Founds the group with these voters, if nothing is founded yet: every one of them may call it, at any time. A member that
    /// finds the group at work already does nothing and is contacted by its leader.
    ///
    /// # Errors
    /// [`Error::Refused`] when this member is not among them; [`Error::Stopped`].
    pub async fn found(&self, voters: &BTreeSet<NodeId>) -> Result<(), Error> {
        if !voters.contains(&self.shared.config.me) {
            let what = "only one of its voters can found a group; this member waits to be added".to_owned();
            return Err(Error::Refused { what });
        }
        if self.has_log() || self.is_founded_elsewhere(voters).await {
            return Ok(());
        }
        let members: BTreeSet<Member> = voters.iter().copied().map(Member::from).collect();
        match self.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(e @ InitializeError::NotInMembers(_))) => {
                Err(Error::Refused { what: e.to_string() })
            }
            Err(RaftError::Fatal(e)) => Err(Error::Stopped { why: e.to_string() }),
        }
    }

    /// Says whether this member has anything of the group's log, as its disk has it.
    pub fn has_log(&self) -> bool {
        self.shared.marks.last_log().is_some()
    }

    /// Waits until everything is applied here again that was applied before the last stop. What its log had is decided then, or was
    /// replaced under a later term.
    pub async fn caught_up(&self) {
        let Some(opened) = self.opened else { return };
        let is_past =
            |applied: LogId<Member>| applied.index >= opened.index || applied.leader_id.term > opened.leader_id.term;
        let mut metrics = self.raft.metrics();
        if metrics.wait_for(|now| now.last_applied.is_some_and(is_past)).await.is_err() {
            // The engine ended before: it never will be.
            std::future::pending::<()>().await;
        }
    }

    /// Whether another one of the voters holds a log already.
    async fn is_founded_elsewhere(&self, voters: &BTreeSet<NodeId>) -> bool {
        let within = self.shared.config.timing.heartbeat;
        let others = voters.iter().filter(|voter| **voter != self.shared.config.me);
        let asking = others.map(|voter| self.shared.line.ask((*voter).into(), &Question::Reach, within));
        let answers = futures::future::join_all(asking.collect::<Vec<_>>()).await;
        answers.iter().any(|answer| matches!(answer, Ok(Answer::Here { last_log: Some(_), .. })))
    }

    /// Replaces who may ask besides the members, after a change of policy.
    pub fn set_candidates(&self, candidates: BTreeSet<NodeId>) {
        *self.shared.candidates.lock().unwrap_or_else(PoisonError::into_inner) = candidates;
    }

    /// Proposes a payload; returns when it is committed and applied here. Those that wait at the same time share one flush of
    /// the disk. A dropped future does not withdraw the proposal.
    ///
    /// # Errors
    /// See [`ProposeError`]: only [`ProposeError::NotLeader`] and [`ProposeError::TooLarge`] say that it was not accepted; after
    /// the others the outcome is unknown.
    pub async fn propose(&self, payload: Vec<u8>) -> Result<Position, ProposeError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(ProposeError::TooLarge { got: payload.len() });
        }
        {
            let standing = self.standing.borrow();
            if let Life::Stopped(why) = &standing.life {
                return Err(ProposeError::Stopped { why: why.clone() });
            }
            if !standing.leads() {
                let leader = standing.leader.filter(|leader| *leader != standing.me);
                return Err(ProposeError::NotLeader { leader });
            }
        }
        let (told, answer) = oneshot::channel();
        let stopped = || ProposeError::Stopped { why: "it was stopped".to_owned() };
        self.proposals.send(Proposal { payload, told }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Answers a member's question. Who is neither a member nor a candidate is refused; bytes that are no question are refused.
    /// Never fails and never panics for what it is asked.
    pub async fn answer(&self, from: NodeId, message: &[u8]) -> Vec<u8> {
        let answer = if self.knows(from) {
            match decode::<Question>(message) {
                Ok(question) => self.reply(from.into(), question).await,
                Err(e) => Answer::Refused(e.to_string()),
            }
        } else {
            Answer::Refused("only members of the group and candidates of the policy may ask".to_owned())
        };
        encode(&answer)
    }

    fn knows(&self, node: NodeId) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        self.shared.is_candidate(node) || metrics.membership_config.membership().get_node(&node.into()).is_some()
    }

    async fn reply(&self, from: Member, question: Question) -> Answer {
        let vote = match &question {
            Question::Append(request) => Some(request.vote),
            Question::Snapshot(request) => Some(request.vote),
            Question::Vote(request) => Some(request.vote),
            Question::WouldYou(_)
            | Question::Reach
            | Question::Pulse(_)
            | Question::Yield(..)
            | Question::TakeOver(_) => None,
        };
        if vote.is_some_and(|vote| !is_likely(&vote, self.term().0)) {
            return Answer::Refused("no group has had so many elections".to_owned());
        }
        match question {
            Question::Append(request) => {
                let vote = request.vote;
                if vote.leader_id().voted_for() != Some(from) {
                    return Answer::Refused("entries can only be sent by who leads".to_owned());
                }
                match self.raft.append_entries(request).await {
                    Ok(answer) => {
                        if !matches!(answer, openraft::raft::AppendEntriesResponse::HigherVote(_)) {
                            self.heard(from, vote);
                        }
                        Answer::Append(answer)
                    }
                    Err(e) => Answer::Refused(e.to_string()),
                }
            }
            Question::Snapshot(request) => self.take_snapshot(from, request).await,
            Question::Vote(request) => self.vote(from, request).await,
            Question::WouldYou(last_log) => yes_if(self.may_vote_for(from) && last_log >= self.shared.marks.last_log()),
            Question::Reach => {
                let term = self.term();
                Answer::Here { term, last_log: self.shared.marks.last_log() }
            }
            Question::Pulse(term) => {
                let follows = self.follows(from, term);
                if follows {
                    self.shared.contact().hear(Instant::now());
                }
                yes_if(follows)
            }
            Question::Yield(term, heir) => {
                let follows = self.follows(from, term);
                if follows {
                    let until = Instant::now() + self.shared.config.timing.patience;
                    self.shared.contact().yield_to(heir, until);
                }
                yes_if(follows)
            }
            Question::TakeOver(term) => {
                let follows = self.follows(from, term);
                yes_if(follows && self.raft.trigger().elect().await.is_ok())
            }
        }
    }

    async fn take_snapshot(&self, from: Member, request: openraft::raft::InstallSnapshotRequest<Types>) -> Answer {
        let vote = request.vote;
        let end = request.offset.saturating_add(request.data.len() as u64);
        if vote.leader_id().voted_for() != Some(from) || end > SNAPSHOT_BYTES_MAX {
            return Answer::Refused("a snapshot can only be sent by who leads, and has a limit".to_owned());
        }
        match self.raft.install_snapshot(request).await {
            Ok(answer) => {
                if answer.vote <= vote {
                    self.heard(from, vote);
                }
                Answer::Snapshot(Ok(answer))
            }
            Err(RaftError::APIError(openraft::error::InstallSnapshotError::SnapshotMismatch(mismatch))) => {
                self.heard(from, vote);
                Answer::Snapshot(Err(mismatch))
            }
            Err(RaftError::Fatal(e)) => Answer::Refused(e.to_string()),
        }
    }

    async fn vote(&self, from: Member, request: openraft::raft::VoteRequest<Member>) -> Answer {
        if request.vote.leader_id().voted_for() != Some(from) {
            return Answer::Refused("a vote can only be asked for oneself".to_owned());
        }
        if !self.may_vote_for(from) {
            let mine = self.raft.metrics().borrow().vote;
            return Answer::Vote(openraft::raft::VoteResponse::new(mine, self.shared.marks.last_log(), false));
        }
        match self.raft.vote(request).await {
            Ok(answer) => Answer::Vote(answer),
            Err(e) => Answer::Refused(e.to_string()),
        }
    }

    /// A message of a leader was accepted.
    fn heard(&self, from: Member, vote: openraft::Vote<Member>) {
        if vote.is_committed() && vote.leader_id().voted_for() == Some(from) {
            self.shared.contact().hear(Instant::now());
        }
    }

    fn may_vote_for(&self, candidate: Member) -> bool {
        let leading = self.raft.metrics().borrow().state == ServerState::Leader;
        self.shared.contact().may_vote_for(candidate, leading, Instant::now())
    }

    /// Whether this member follows `leader` in exactly this term.
    fn follows(&self, leader: Member, term: protocol::lease::Term) -> bool {
        let metrics = self.raft.metrics();
        let vote = metrics.borrow().vote;
        vote.is_committed() && vote.leader_id().voted_for() == Some(leader) && vote.leader_id().term == term.0
    }

    fn term(&self) -> protocol::lease::Term {
        protocol::lease::Term(self.raft.metrics().borrow().current_term)
    }

    /// How this member sees the group, and every change of it.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Writes what is decided as a snapshot, so that the next start has nothing to replay: another version may make other effects of
    /// the same commands. Gives up `within` that time, which costs the next start its time only.
    pub async fn write_snapshot(&self, within: Duration) {
        let Some(applied) = self.raft.metrics().borrow().last_applied else { return };
        let (done, end) = (|metrics: &Metrics| metrics.snapshot >= Some(applied), Instant::now() + within);
        // While an older one is being written, openraft does not hear the wish.
        while Instant::now() < end && self.raft.trigger().snapshot().await.is_ok() {
            let wait = self.raft.wait(Some(SNAPSHOT_AGAIN));
            if wait.metrics(done, "a snapshot before the end").await.is_ok() {
                tracing::info!(index = applied.index, "what is decided is kept as a snapshot");
                return;
            }
        }
        tracing::warn!(index = applied.index, "no snapshot was written before the end");
    }

    /// Stops this member and joins its tasks. What was in flight has an unknown outcome.
    pub async fn stop(&self) {
        self.ending.cancel();
        if let Err(e) = self.raft.shutdown().await {
            tracing::warn!(error = %e, "the consensus engine did not end cleanly");
        }
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}

fn yes_if(yes: bool) -> Answer {
    if yes { Answer::Yes } else { Answer::No }
}

/// openraft's configuration: its own elections and heartbeats are off, `election` drives both.
fn engine_config(config: &Config) -> openraft::Config {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let votes_within = millis(config.timing.heartbeat);
    openraft::Config {
        cluster_name: "artel".to_owned(),
        // The time for one vote, and openraft's own lease on the leader; ours (`contact`) is longer and stands before it.
        election_timeout_min: votes_within,
        election_timeout_max: votes_within + 1,
        // Not the heartbeat, but how long one message of entries may take; `wires` sets a shorter time by its size.
        heartbeat_interval: millis(APPEND_WITHIN),
        install_snapshot_timeout: millis(APPEND_WITHIN),
        max_payload_entries: APPEND_ENTRIES,
        replication_lag_threshold: config.snapshot_every.saturating_mul(2),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every),
        snapshot_max_chunk_size: SNAPSHOT_CHUNK_BYTES,
        max_in_snapshot_log_to_keep: config.snapshot_every / 2,
        enable_tick: true,
        enable_heartbeat: false,
        enable_elect: false,
        ..openraft::Config::default()
    }
}

/// How far each other member's log is known to agree, on the leader.
pub(super) fn progress(metrics: &Metrics) -> BTreeMap<NodeId, Option<u64>> {
    let mine = metrics.id;
    let replication = metrics.replication.iter().flatten();
    replication.filter(|(id, _)| **id != mine).map(|(id, log)| ((*id).into(), log.map(|log| log.index))).collect()
}
