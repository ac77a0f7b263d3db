//! Performs what the ledger decided towards the network: grants, revocations, announcements, publications, news.
//!
//! It decides nothing. Every errand is idempotent, since a crash may have it performed twice; an errand that failed comes
//! back to the ledger as a command.

use std::{sync::Arc, time::Duration};

use ledger::{
    Cause, Command, Effect, Left, News,
    explain::{Dispute, Findings},
};
use protocol::{
    JobId, NodeId,
    lease::{Lease, LeaseNumber, Term},
    message::{Request, Response},
};
use tokio::{
    sync::{Semaphore, broadcast, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    clock,
    daemon::{Decisions, Errand, Shared, Task, Work, chain},
    net::{AskError, Topic},
    serve::Desk,
};

/// How often a revocation is repeated to a builder that does not answer; its lease ends by itself after that.
const REVOKE_TRIES: u32 = 5;
/// How often a builder that does not answer is told what it may show; it asks by itself, too.
const SAY_TRIES: u32 = 4;
/// How long after its start a coordinator waits for builders to come back; they notice a dead one within five seconds.
const SETTLE: Duration = Duration::from_secs(10);
/// How often it looks for them.
const SETTLE_STEP: Duration = Duration::from_millis(250);
/// Logs that are fetched from builders at one time.
pub const LOGS: usize = 16;
/// The largest log that the coordinator keeps, in bytes.
const LOG_MAX: u64 = 256 << 20;

/// Where errands go.
pub struct Performer {
    /// What all share.
    pub shared: Arc<Shared>,
    /// The way back to the ledger.
    pub decisions: Decisions,
    /// How to ask a node, this one too.
    pub desk: Desk,
    /// The publisher's queue.
    pub publications: mpsc::Sender<Work>,
    /// The explainer's queue.
    pub disputes: mpsc::Sender<Errand>,
    /// Live news for pages and clients.
    pub news: broadcast::Sender<Arc<News>>,
    /// Logs that are fetched at one time; see [`LOGS`].
    pub logs: Semaphore,
}

impl Performer {
    /// Performs errands until stopped; each one that asks a peer runs in its own task, joined at the end.
    pub async fn run(self, mut errands: mpsc::Receiver<(Term, Effect)>, stop: CancellationToken) {
        let this = Arc::new(self);
        let mut asked = JoinSet::new();
        loop {
            let errand = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = asked.join_next() => continue,
                errand = errands.recv() => errand,
            };
            let Some((term, effect)) = errand else { break };
            if this.shared.leads() != Some(term) {
                debug!(%term, "an errand of a former office is left to the new leader");
                continue;
            }
            match effect {
                Effect::Grant(lease) => drop(asked.spawn(Arc::clone(&this).grant(term, lease))),
                Effect::Revoke { node, lease, reason } => {
                    drop(asked.spawn(Arc::clone(&this).revoke(term, (node, lease), reason)));
                }
                Effect::Reveal { node, lease } => {
                    drop(asked.spawn(Arc::clone(&this).say(node, Request::Reveal(term, lease))));
                }
                Effect::Disclose { node, job } => {
                    drop(asked.spawn(Arc::clone(&this).say(node, Request::Disclose(term, job))));
                }
                Effect::Announce(announcement) => {
                    let signed = this.shared.sign(&announcement).to_bytes();
                    let this = Arc::clone(&this);
                    asked.spawn(async move { this.announce(announcement, signed).await });
                }
                Effect::Resign { channel, generation } => {
                    let work = Work { term, task: Task::Resign(channel, generation) };
                    if this.publications.try_send(work).is_err() {
                        warn!(generation, "the publisher's queue is full; the index is signed anew later");
                    }
                }
                Effect::Serve(service) => drop(asked.spawn(Arc::clone(&this).publish(term, Task::Serve(service)))),
                Effect::Withdraw(order) => drop(asked.spawn(Arc::clone(&this).publish(term, Task::Withdraw(order)))),
                Effect::Publish(publication) => {
                    drop(asked.spawn(Arc::clone(&this).publish(term, Task::Publish(publication))));
                }
                Effect::Explain(dispute) => drop(asked.spawn(Arc::clone(&this).explain(term, dispute))),
                Effect::Notify(news) => {
                    if let News::Revealed { job, lease, node, .. } | News::AttemptFailed { job, lease, node, .. } = news
                    {
                        asked.spawn(Arc::clone(&this).keep_log(job, lease, node));
                    }
                    this.notify(news);
                }
                Effect::Answer(_) | Effect::WakeAt(_) | Effect::Append { .. } => {
                    debug!("answers, timers and the log's entries stay in the decider");
                }
            }
        }
        asked.shutdown().await;
    }

    async fn grant(self: Arc<Self>, term: Term, lease: Lease) {
        let (node, number) = (lease.node, lease.number);
        let why = match self.deliver_grant(term, lease).await {
            Ok(Response::Done) => return info!(%node, lease = %number, "lease granted"),
            Ok(Response::Refused(refusal)) => refusal.to_string(),
            Ok(other) => format!("answered a grant with {other:?}").chars().take(120).collect(),
            Err(error @ AskError::Unreachable { .. }) => {
                // It never had the lease, and its other bids are as void.
                self.decisions.tell(Command::Lost { node }).await;
                error.to_string()
            }
            Err(error) if error.may_have_arrived() => {
                // It may build already: its lease lives on until it expires.
                info!(%node, lease = %number, %error, "builder lost while it was granted a lease");
                return self.decisions.tell(Command::Lost { node }).await;
            }
            Err(error) => error.to_string(),
        };
        info!(%node, lease = %number, %why, "lease declined");
        self.decisions.tell(Command::Declined { node, lease: number, why }).await;
    }

    /// Says a grant once more when nobody knows whether it arrived; a builder that has it says so again.
    ///
    /// A coordinator that has just come up says its leases again before the builders are back: they get a moment, since
    /// those that build already would otherwise lose what they have.
    async fn deliver_grant(&self, term: Term, lease: Lease) -> Result<Response, AskError> {
        loop {
            match self.desk.ask(lease.node, Request::Grant(term, lease.clone())).await {
                Err(error) if error.may_have_arrived() => {
                    return self.desk.ask(lease.node, Request::Grant(term, lease)).await;
                }
                Err(AskError::Unreachable { .. }) if self.settles(term) => {
                    tokio::time::sleep(SETTLE_STEP).await;
                }
                answered => return answered,
            }
        }
    }

    /// Whether this node leads since a moment only.
    fn settles(&self, term: Term) -> bool {
        let known = self.shared.known_leader();
        let since = known.leader.filter(|_| known.term == term).map_or(self.shared.began, |(_, since)| since);
        self.shared.leads() == Some(term) && clock::now().since(since) < SETTLE
    }

    /// Gives a builder a word that it also learns otherwise, only later.
    async fn say(self: Arc<Self>, node: NodeId, word: Request) {
        for attempt in 0..SAY_TRIES {
            match self.desk.ask(node, word.clone()).await {
                Ok(_) => return,
                Err(error) => debug!(%node, ?word, %error, "word not delivered"),
            }
            tokio::time::sleep(Duration::from_millis(500 << attempt)).await;
        }
    }

    async fn revoke(self: Arc<Self>, term: Term, (node, lease): (NodeId, LeaseNumber), reason: String) {
        for attempt in 0..REVOKE_TRIES {
            match self.desk.ask(node, Request::Revoke(term, lease, reason.clone())).await {
                Ok(_) => return,
                Err(error) => debug!(%node, %lease, %error, "revocation not delivered"),
            }
            tokio::time::sleep(Duration::from_millis(500 << attempt)).await;
        }
        warn!(%node, %lease, "a revoked builder does not answer; its lease ends by itself");
    }

    async fn announce(&self, announcement: protocol::job::Announcement, signed: Vec<u8>) {
        // A coordinator that builds does not hear its own gossip.
        self.desk.heard(&announcement);
        if let Err(error) = self.shared.net.publish(Topic::Jobs(announcement.arch), signed).await {
            debug!(job = %announcement.job, %error, "announcement not gossiped; builders will ask for open jobs");
        }
    }

    /// In a task of its own: the ledger waits for this loop when its errands pile up, so the loop never waits for it.
    async fn publish(self: Arc<Self>, term: Term, task: Task) {
        let Some((job, generation)) = task.awaited() else { return };
        if self.publications.try_send(Work { term, task }).is_err() {
            let (why, generation) = ("the publisher's queue is full".to_owned(), Some(generation));
            let (cause, left) = (Cause::Transient, Left::Nothing);
            self.decisions.tell(Command::PublishFailed { job, generation, cause, left, why }).await;
        }
    }

    /// Hands a dispute to the explainer; what does not fit into its queue stays unexplained.
    async fn explain(self: Arc<Self>, term: Term, dispute: Dispute) {
        let explanation = dispute.id;
        if self.disputes.try_send(Errand { term, dispute }).is_err() {
            let trouble = "cannot explain here: too many differences wait already".to_owned();
            let findings = Findings { trouble, ..Findings::default() };
            self.decisions.tell(Command::Explained { explanation, findings }).await;
        }
    }

    /// Brings the log of an ended attempt here: it must outlive the builder's interest in it.
    async fn keep_log(self: Arc<Self>, job: JobId, lease: LeaseNumber, node: NodeId) {
        let look = move |ledger: &ledger::Ledger| ledger.job(job)?.attempts.iter().find(|a| a.lease == lease)?.log;
        if node == self.shared.id {
            return;
        }
        // A slow builder delays the logs of others, never their leases.
        let Ok(_place) = self.logs.acquire().await else { return };
        let Some(log) = self.decisions.view(look).await.flatten() else { return };
        let blobs = &self.shared.blobs;
        let kept = async {
            // A builder names its log; it must not name content that lies here for another reason.
            if blobs.size(&log).await.map_err(|e| chain(&e))?.is_some() && !self.shared.offers.contains(&log) {
                return Err("the log's hash is that of other content here".to_owned());
            }
            blobs.fetch(&self.shared.net, &log, &[node], LOG_MAX).await.map_err(|e| chain(&e))?;
            self.shared.offer(&format!("job/{job}/{lease}-log"), log).await.map_err(|e| chain(&e))
        };
        if let Err(why) = kept.await {
            debug!(%job, %lease, %why, "log not kept");
        }
    }

    fn notify(&self, news: News) {
        info!(?news, "ledger");
        // Nobody may be listening.
        let _ = self.news.send(Arc::new(news));
    }
}
