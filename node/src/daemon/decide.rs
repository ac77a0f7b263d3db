//! The loop of one coordinator: takes commands, proposes them to the group, and lets effects out once they are committed.
//!
//! ```text
//!  commands --queue--> batch --propose--> group --committed, applied--> outcome --> answers, errands, timer
//!                                                   (replica)
//! ```
//!
//! Only the leader proposes. A new leader first has `Restarted` committed in its term, whose effects say again what is
//! outstanding; only then it holds the office and takes commands. Effects of a batch leave this node only while it holds the
//! office of the term in which the batch was proposed; answers leave whatever became of the office, since what is committed
//! stays true. One batch is under way at a time: what comes meanwhile shares the next one, and its flush.
//!
//! A command that cannot be decided here is refused with who leads, as far as known; whether one that was under way when the
//! leadership was lost is committed nobody knows, so its sender is told to ask again, which is harmless: every command is
//! idempotent.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use ledger::{Command, Effect, Ledger};
use protocol::{
    Hash, JobId, NodeId, Timestamp, codec,
    lease::Term,
    message::{Octets, Refusal, Response},
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Shared, chain,
    leadership::Office,
    replica::{Batch, Entry, Replica},
};
use crate::{
    clock,
    consensus::{Group, Life, Majority, ProposeError, Standing, storage::Health},
    tlog::Book,
};

/// Commands that may wait; a burst of submissions fits, a runaway peer does not.
const QUEUE: usize = 1024;
/// Commands that share one proposal.
const BATCH: usize = 256;
/// Bytes of commands that share one proposal; a single larger command has its own.
const BATCH_BYTES: usize = 1 << 20;
/// How long after a failed beginning of its office a leader tries again.
const AGAIN: Duration = Duration::from_millis(500);
/// What who asks is told while no majority can be reached.
pub(crate) const NO_MAJORITY: &str =
    "no majority of the coordinators is reachable: nothing is accepted until enough of them are back";

/// Why the loop ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The group stopped this member: its disk failed or its records are damaged.
    #[error("this coordinator has stopped: {0}")]
    Stopped(String),
}

/// A command on its way.
struct Input {
    command: Box<Command>,
    by: Option<NodeId>,
    reply: Option<oneshot::Sender<Response>>,
}

impl Input {
    fn own(command: Command) -> Self {
        Self { command: Box::new(command), by: None, reply: None }
    }

    fn refuse(self, refusal: Refusal) {
        match self.reply {
            // The asker may have gone.
            Some(reply) => drop(reply.send(Response::Refused(refusal))),
            None => debug!(%refusal, "a command of this node was not decided"),
        }
    }
}

/// The replies of a batch, one for each command, by the batch's number.
type Replies = (u64, Vec<Option<oneshot::Sender<Response>>>);

/// The way to the loop, to its ledger and to its group.
#[derive(Clone)]
pub struct Decisions {
    queue: mpsc::Sender<Input>,
    replica: Arc<Replica>,
    group: Group,
    health: watch::Receiver<Health>,
}

impl Decisions {
    /// Has a command decided and gives the answer; the decision is committed then.
    pub async fn decide(&self, command: Command) -> Response {
        self.ask(command, None).await
    }

    /// Has a command decided that a node handed in, and remembers the node with it.
    pub async fn decide_for(&self, node: NodeId, command: Command) -> Response {
        self.ask(command, Some(node)).await
    }

    async fn ask(&self, command: Command, by: Option<NodeId>) -> Response {
        let (reply, answer) = oneshot::channel();
        let input = Input { command: Box::new(command), by, reply: Some(reply) };
        if self.queue.try_send(input).is_err() {
            return Response::Refused(Refusal::Busy("the coordinator's queue is full; try again in a second".into()));
        }
        answer.await.unwrap_or(Response::Refused(Refusal::NotCoordinator(None)))
    }

    /// Hands over a command whose answer nobody waits for. Without the office it is dropped: a new leader finds out itself.
    pub async fn tell(&self, command: Command) {
        if self.queue.send(Input::own(command)).await.is_err() {
            debug!("a command came after the coordinator stopped");
        }
    }

    /// Looks at the ledger, between two batches. What it shows is committed; on a member that does not lead it may be behind.
    pub async fn view<T: Send + 'static>(&self, look: impl FnOnce(&Ledger) -> T + Send + 'static) -> Option<T> {
        let replica = Arc::clone(&self.replica);
        // A view of many jobs takes a while; a thread of its own keeps the network's waiting from it.
        tokio::task::spawn_blocking(move || replica.look(look)).await.ok()
    }

    /// Gives the nodes that handed in a job.
    pub fn providers(&self, job: &JobId) -> Vec<NodeId> {
        self.replica.providers(job)
    }

    /// The transparency log as this member keeps it.
    pub fn book(&self) -> &Arc<Book> {
        self.replica.book()
    }

    /// Gives the digest of everything that was applied here.
    pub fn digest(&self) -> Hash {
        self.replica.digest()
    }

    /// Whether the log can be written here.
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// How this member sees the group.
    pub fn standing(&self) -> Standing {
        self.group.standing().borrow().clone()
    }

    /// The group.
    pub fn group(&self) -> &Group {
        &self.group
    }
}

/// The loop's state.
pub struct Decider {
    shared: Arc<Shared>,
    replica: Arc<Replica>,
    group: Group,
    office: Office,
    wake: Option<Timestamp>,
    next_batch: u64,
    queue: mpsc::Receiver<Input>,
    errands: mpsc::Sender<(Term, Effect)>,
}

impl Decider {
    /// Makes the loop of a member and the way to it.
    pub(super) fn new(
        shared: Arc<Shared>,
        (group, replica, health): (Group, Arc<Replica>, watch::Receiver<Health>),
        errands: mpsc::Sender<(Term, Effect)>,
    ) -> (Self, Decisions) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let decisions = Decisions { queue: sender, replica: Arc::clone(&replica), group: group.clone(), health };
        // Batches of this run must not be taken for replayed ones of an earlier run.
        let next_batch = clock::now().as_millis() << 20;
        let office = Office::Follows;
        (Self { shared, replica, group, office, wake: None, next_batch, queue, errands }, decisions)
    }

    /// Decides until stopped. A dropped future loses only what was not yet answered.
    ///
    /// # Errors
    /// When the group stops this member.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        let result = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            result = self.decide() => result,
        };
        self.shared.others.leading.hold(Office::Follows);
        result
    }

    async fn decide(&mut self) -> Result<(), Error> {
        let (mut standing, mut applied) = (self.group.standing(), self.replica.applied());
        loop {
            let now = standing.borrow_and_update().clone();
            if let Life::Stopped(why) = now.life {
                return Err(Error::Stopped(why));
            }
            self.follow(&now).await;
            let mut inputs = Vec::new();
            let pause = self.pause(&now);
            tokio::select! {
                biased;
                changed = standing.changed() => changed.map_err(|_| Error::Stopped("the group is gone".into()))?,
                _ = applied.changed() => {}
                count = self.queue.recv_many(&mut inputs, BATCH) => {
                    if count == 0 {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep(pause) => self.woken(&mut inputs),
            }
            self.take(inputs, &standing).await;
            self.release(&mut Vec::new()).await;
            self.adopt_policies().await;
        }
    }

    /// Takes or leaves the office as the group says.
    async fn follow(&mut self, standing: &Standing) {
        if let Some(leader) = standing.leader
            && let Err(error) = self.shared.learn_leader(standing.term, leader, clock::now()).await
        {
            warn!(error = %chain(&error), "the leader's term is not kept");
        }
        let leads = standing.leads().then_some(standing.term);
        match (self.office, leads) {
            (Office::Leads(held), Some(term)) if held == term => {}
            (Office::Leads(held), _) => {
                info!(term = %held, leads_now = ?leads, "the office ends");
                self.leave();
                if let Some(term) = leads {
                    self.take_office(term).await;
                }
            }
            (Office::Follows, Some(term)) => self.take_office(term).await,
            (Office::Follows, None) => {}
        }
    }

    fn leave(&mut self) {
        self.office = Office::Follows;
        self.wake = None;
        self.shared.others.leading.hold(Office::Follows);
    }

    /// Begins a term: newer policies from this disk, and `Restarted`, are committed before anything else.
    async fn take_office(&mut self, term: Term) {
        let known = self.replica.look(|ledger| ledger.policy().get().number);
        let policies = self.shared.policies();
        let newer = policies.chain().iter().filter(|p| p.get().number > known);
        let mut first: Vec<Input> = newer.map(|p| Input::own(Command::AdoptPolicy(p.as_ref().clone()))).collect();
        first.push(Input::own(Command::Restarted));
        let (number, payload) = self.payload(&first);
        match self.group.propose(payload).await {
            Ok(position) if position.term == term => {
                info!(%term, batch = number, "this node leads");
                self.office = Office::Leads(term);
                self.shared.others.leading.hold(self.office);
                self.release(&mut Vec::new()).await;
            }
            Ok(position) => debug!(%term, now = %position.term, "the term changed while it began"),
            Err(error) => warn!(%term, error = %chain(&error), "the office is not taken yet"),
        }
    }

    /// How long nothing need be done if nothing comes.
    fn pause(&self, standing: &Standing) -> Duration {
        match (self.office, self.wake) {
            (Office::Leads(_), Some(at)) => at.since(clock::now()).max(Duration::from_millis(1)),
            (Office::Follows, _) if standing.leads() => AGAIN,
            (Office::Leads(_), None) | (Office::Follows, _) => Duration::from_secs(3600),
        }
    }

    fn woken(&mut self, inputs: &mut Vec<Input>) {
        if matches!(self.office, Office::Leads(_)) && self.wake.take().is_some() {
            inputs.push(Input::own(Command::Woken));
        }
    }

    /// Proposes what came, or refuses it.
    async fn take(&mut self, inputs: Vec<Input>, standing: &watch::Receiver<Standing>) {
        let mut waiting = VecDeque::from(inputs);
        while !waiting.is_empty() {
            let leads = standing.borrow().leads();
            if !leads || self.office == Office::Follows {
                let refusal = refusal(&standing.borrow(), self.shared.id);
                return waiting.into_iter().for_each(|input| input.refuse(refusal.clone()));
            }
            let batch = self.next(&mut waiting);
            self.propose(batch).await;
        }
    }

    /// Takes as many commands as share one proposal.
    fn next(&self, waiting: &mut VecDeque<Input>) -> Vec<Input> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(input) = waiting.pop_front() {
            bytes += input.command.to_bytes().len();
            if bytes > BATCH_BYTES && !batch.is_empty() {
                waiting.push_front(input);
                break;
            }
            batch.push(input);
        }
        batch
    }

    fn payload(&mut self, inputs: &[Input]) -> (u64, Vec<u8>) {
        self.next_batch += 1;
        let at = clock::now();
        let entry = |input: &Input| Entry { at, by: input.by, command: Octets(input.command.to_bytes()) };
        let batch = Batch { number: self.next_batch, entries: inputs.iter().map(entry).collect() };
        (self.next_batch, codec::encode(&batch))
    }

    async fn propose(&mut self, inputs: Vec<Input>) {
        if inputs.iter().any(|input| matches!(*input.command, Command::Woken)) {
            self.wake = None;
        }
        let (number, payload) = self.payload(&inputs);
        let mut replies: Vec<Replies> = vec![(number, inputs.into_iter().map(|input| input.reply).collect())];
        match self.group.propose(payload).await {
            Ok(_) => self.release(&mut replies).await,
            Err(error) => {
                warn!(error = %chain(&error), "a batch was not committed");
                if !matches!(error, ProposeError::TooLarge { .. }) {
                    // What was in it may be lost: should this node lead on, `Restarted` says again what is outstanding.
                    self.leave();
                }
                let refusal = match error {
                    ProposeError::NotLeader { leader } => {
                        Refusal::NotCoordinator(leader.filter(|leader| *leader != self.shared.id))
                    }
                    ProposeError::NoMajority { .. } | ProposeError::Stopped { .. } => Refusal::NotCoordinator(None),
                    ProposeError::TooLarge { .. } => Refusal::Invalid(error.to_string()),
                };
                for reply in replies.into_iter().flat_map(|(_, replies)| replies).flatten() {
                    // The asker may have gone.
                    let _ = reply.send(Response::Refused(refusal.clone()));
                }
            }
        }
    }

    /// Lets out what own batches came to, in the order in which they were applied.
    async fn release(&mut self, replies: &mut Vec<Replies>) {
        while let Some(outcome) = self.replica.outcome() {
            let ours = Some(outcome.term).filter(|term| self.office == Office::Leads(*term));
            let mut waiting = match replies.iter().position(|(number, _)| *number == outcome.batch) {
                Some(at) => replies.swap_remove(at).1,
                None => Vec::new(),
            };
            waiting.resize_with(outcome.effects.len(), || None);
            for (effects, mut reply) in outcome.effects.into_iter().zip(waiting) {
                for effect in effects {
                    self.let_out(effect, ours, &mut reply).await;
                }
                if let Some(reply) = reply {
                    // The asker may have gone.
                    let _ = reply.send(Response::Done);
                }
            }
        }
    }

    async fn let_out(&mut self, effect: Effect, ours: Option<Term>, reply: &mut Option<oneshot::Sender<Response>>) {
        match effect {
            Effect::Answer(response) => {
                if let Some(reply) = reply.take() {
                    // The asker may have gone.
                    let _ = reply.send(response);
                }
            }
            // The replica has taken these to the book, whoever leads.
            Effect::Append { .. } => {}
            Effect::WakeAt(at) => {
                if ours.is_some() {
                    self.wake = Some(at);
                }
            }
            errand @ (Effect::Grant(_)
            | Effect::Revoke { .. }
            | Effect::Reveal { .. }
            | Effect::Disclose { .. }
            | Effect::Announce(_)
            | Effect::Publish(_)
            | Effect::Serve(_)
            | Effect::Withdraw(_)
            | Effect::Resign { .. }
            | Effect::Explain(_)
            | Effect::Notify(_)) => match ours {
                Some(term) => {
                    if self.errands.send((term, errand)).await.is_err() {
                        warn!("an effect came after the errands stopped");
                    }
                }
                None => debug!("an effect of a former office stays here; the new leader says it again"),
            },
        }
    }

    /// Takes over the policies that the ledger adopted.
    async fn adopt_policies(&self) {
        let known = self.shared.policies();
        let number = known.current().number;
        let newer = self.replica.look(|ledger| {
            let chain = ledger.policy_chain();
            let newer = chain.iter().filter(|p| p.get().number > number).map(protocol::Verified::to_bytes);
            if ledger.policy().get().number > number { newer.collect() } else { Vec::new() }
        });
        if newer.is_empty() {
            return;
        }
        let policies = newer.iter().try_fold((*known).clone(), |policies, envelope| policies.followed_by(envelope));
        match policies {
            Ok(policies) => match self.shared.adopt(policies).await {
                Ok(_) => info!(number = self.shared.policies().current().number, "policy adopted by the coordinators"),
                Err(error) => warn!(error = %chain(&error), "a policy of the ledger is not stored"),
            },
            Err(error) => warn!(error = %chain(&error), "a policy of the ledger does not follow the known ones"),
        }
    }
}

/// Why a member that does not lead decides nothing.
pub(crate) fn refusal(standing: &Standing, me: NodeId) -> Refusal {
    match standing.majority {
        Majority::Missing => Refusal::Busy(NO_MAJORITY.into()),
        Majority::Reachable | Majority::Unsettled => {
            Refusal::NotCoordinator(standing.leader.filter(|leader| *leader != me))
        }
    }
}
