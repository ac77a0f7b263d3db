//! The coordinator's role: runs this node's member of the coordinators' group, from the policy that names it to the policy
//! that no longer does. A pinned coordinator is a group of one.
//!
//! It follows the policy: the leader brings the group's membership in line with the candidates that the policy in force
//! names; a member that is named later waits to be added; one that is no longer named goes once the group has let it go.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use attest::log::network;
use protocol::{NodeId, Verified, policy::Policy, release::Release};
use tokio::{
    sync::{Semaphore, broadcast, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Decider, Ending, Shared, chain, explain, inputs, publisher,
    replica::{Applier, Replica},
    wires,
};
use crate::{
    clock,
    consensus::{
        self, Group,
        storage::{Health, Log, upgrade},
    },
    cosign::Cosigner,
    net::Topic,
    on_behalf::Budget,
    perform::{self, Performer},
    serve::Desk,
    tlog::{Book, Relay, Signer},
};

/// Errands of the ledger that may wait to be performed.
const ERRANDS: usize = 1024;
/// Publications that may wait; the ledger gives one per channel at a time.
const PUBLICATIONS: usize = 64;
/// How often a leader says that it leads.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How long after a failed change of the membership it is tried again.
const AGAIN: Duration = Duration::from_secs(3);
/// How long the last snapshot of a member may take that ends: less than half of the time in which the daemon ends.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(3);
/// How long a member that the policy no longer names waits for the group to let it go.
const LET_GO_WITHIN: Duration = Duration::from_secs(60);

/// What the role needs of the daemon.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) shared: Arc<Shared>,
    pub(super) desk: Desk,
    pub(super) news: broadcast::Sender<Arc<ledger::News>>,
    /// Releases that were heard of.
    pub(super) releases: broadcast::Sender<Verified<Release>>,
}

fn candidates(policy: &Policy) -> BTreeSet<NodeId> {
    policy.coordinators.candidates().iter().copied().collect()
}

impl Candidate {
    /// Takes part whenever the policy names this node, until stopped.
    ///
    /// # Errors
    /// Words, when the member cannot begin or has stopped by itself.
    pub(super) async fn run(self, stop: CancellationToken) -> Result<(), String> {
        let mut policies = self.shared.policies.subscribe();
        loop {
            let me = self.shared.id;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                named = policies.wait_for(|p| candidates(p.current()).contains(&me)) => {
                    drop(named.map_err(|e| e.to_string())?);
                }
            }
            self.take_part(&stop).await?;
        }
    }

    /// Runs the member until stopped or let go.
    async fn take_part(&self, stop: &CancellationToken) -> Result<(), String> {
        let shared = &self.shared;
        let (switchboard, operator) = wires::wires(shared.net.clone());
        let until = stop.child_token();
        let mut parts: JoinSet<Ending> = JoinSet::new();
        let ending = until.clone();
        parts.spawn(async move {
            operator.run(ending).await;
            ("coordinators' wires", Ok(()))
        });
        let policies = shared.policies();
        let genesis = &policies.chain()[0];
        let book = self.book().await?;
        book.hold();
        let replica = Replica::new((shared.id, shared.network), genesis, Arc::clone(&book), self.news.clone())?;
        let log = self.log(genesis).await?;
        // It ends last: a snapshot waits for what it writes.
        let writes = CancellationToken::new();
        let (source, ending) = (Relay::new(Arc::clone(shared), &Budget::new()), writes.clone());
        let writer = Arc::clone(&book).run(source, ending);
        parts.spawn(async move { ("transparency log", writer.await.map_err(|e| chain(&e))) });
        let config = consensus::Config::new(shared.id, candidates(policies.current()));
        let group = Group::open(config, log.clone(), Applier(Arc::clone(&replica)), switchboard).await;
        let group = group.map_err(|e| chain(&e))?;
        let may = self.may_begin(&group);
        if may.is_ok() {
            info!(candidates = policies.current().coordinators.candidates().len(), "this node may coordinate");
            self.start(&group, (&replica, log.health()), &mut parts, &until);
            parts.spawn(tell_health(log.health(), until.clone()));
        }
        let result = tokio::select! {
            biased;
            Err(why) = std::future::ready(may) => Err(why),
            () = stop.cancelled() => Ok(()),
            () = self.let_go(&group) => {
                info!("this node no longer coordinates");
                Ok(())
            }
            ended = parts.join_next() => match ended {
                Some(Ok((part, Err(why)))) => Err(format!("{part}: {why}")),
                Some(Ok((_, Ok(())))) | None if stop.is_cancelled() => Ok(()),
                Some(Ok((part, Ok(())))) => Err(format!("{part} ended without a word")),
                Some(Err(error)) => Err(error.to_string()),
                None => Ok(()),
            },
        };
        self.desk.coordinate(None);
        if result.is_ok() {
            group.write_snapshot(SNAPSHOT_WITHIN).await;
        }
        until.cancel();
        writes.cancel();
        // What waits for space on the disk must not hold up the end.
        log.close();
        book.close();
        group.stop().await;
        while parts.join_next().await.is_some() {}
        result
    }

    /// Opens the transparency log as this member keeps it.
    async fn book(&self) -> Result<Arc<Book>, String> {
        let store = self.shared.store.clone();
        let signer = Signer { origin: network::origin(&self.shared.network), key: self.shared.key.clone() };
        let opened = tokio::task::spawn_blocking(move || Book::open(&store, signer)).await;
        opened.map_err(|e| e.to_string())?.map_err(|e| chain(&e))
    }

    /// Opens the member's log; the journal of a coordinator that had no group yet becomes its first snapshot.
    async fn log(&self, genesis: &Arc<Verified<Policy>>) -> Result<Log, String> {
        let (store, me, network) = (self.shared.store.clone(), self.shared.id, self.shared.network);
        let genesis = Arc::clone(genesis);
        let opened = tokio::task::spawn_blocking(move || {
            let upgraded = upgrade::from_journal(&store, me, network, &genesis).map_err(|e| chain(&e))?;
            debug!(?upgraded, "the journal of an older version was looked for");
            Log::open(&store).map_err(|e| chain(&e))
        });
        opened.await.map_err(|e| e.to_string())?
    }

    fn start(
        &self,
        group: &Group,
        (replica, health): (&Arc<Replica>, watch::Receiver<Health>),
        parts: &mut JoinSet<Ending>,
        stop: &CancellationToken,
    ) {
        let shared = &self.shared;
        let (errands, errands_in) = mpsc::channel(ERRANDS);
        let (publications, publications_in) = mpsc::channel(PUBLICATIONS);
        let (disputes, disputes_in) = mpsc::channel(explain::QUEUE);
        let parts_of_group = (group.clone(), Arc::clone(replica), health);
        let (decider, decisions) = Decider::new(Arc::clone(shared), parts_of_group, errands);
        self.desk.coordinate(Some(decisions.clone()));
        let performer = Performer {
            shared: Arc::clone(shared),
            decisions: decisions.clone(),
            desk: self.desk.clone(),
            publications,
            disputes,
            news: self.news.clone(),
            logs: Semaphore::new(perform::LOGS),
        };
        let cosigner = Cosigner::new(Arc::clone(shared), self.desk.clone(), Arc::clone(replica.book()));
        self.desk.cosign(&cosigner);
        let parts_of_publisher = (self.desk.clone(), decisions.clone(), Arc::clone(&cosigner));
        let publisher = publisher::Publisher::new(Arc::clone(shared), parts_of_publisher);
        let heard = self.releases.subscribe();
        let explainer = explain::Explainer::new(Arc::clone(shared), decisions.clone(), Arc::clone(self.desk.runs()));
        let keeper = inputs::Keeper::new(Arc::clone(shared), decisions, Arc::clone(replica));
        let [a, b, c, d, e, f] = std::array::from_fn(|_| stop.clone());
        parts.spawn(async move {
            cosigner.run(f).await;
            ("cosigner", Ok(()))
        });
        parts.spawn(async move { ("ledger", decider.run(a).await.map_err(|e| chain(&e))) });
        parts.spawn(async move {
            performer.run(errands_in, b).await;
            ("performer", Ok(()))
        });
        parts.spawn(async move {
            publisher.run(publications_in, heard, c).await;
            ("publisher", Ok(()))
        });
        parts.spawn(async move {
            keeper.run(d).await;
            ("keeper of inputs", Ok(()))
        });
        parts.spawn(async move {
            explainer.run(disputes_in, e).await;
            ("explainer", Ok(()))
        });
        let (of, book, until) = (group.clone(), Arc::clone(replica.book()), stop.clone());
        parts.spawn(async move {
            let caught_up = async {
                of.caught_up().await;
                book.go_on().await;
                std::future::pending::<()>().await;
            };
            until.run_until_cancelled(caught_up).await;
            ("checkpoints", Ok(()))
        });
        let (this, of, until) = (self.clone(), group.clone(), stop.clone());
        parts.spawn(async move {
            this.follow_policy(&of, until).await;
            ("membership", Ok(()))
        });
        let (shared, until) = (Arc::clone(shared), stop.clone());
        parts.spawn(async move {
            herald(&shared, until).await;
            ("herald", Ok(()))
        });
    }

    /// Founds the group where this node was named from the beginning, then keeps its membership as the policy says.
    async fn follow_policy(&self, group: &Group, stop: CancellationToken) {
        let (mut policies, mut standing) = (self.shared.policies.subscribe(), group.standing());
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let current = Arc::clone(&policies.borrow_and_update());
            let wanted = candidates(current.current());
            group.set_candidates(wanted.clone());
            let now = standing.borrow_and_update().clone();
            let work = async {
                if now.voters.is_empty() {
                    return self.found(group, &candidates(current.chain()[0].get())).await;
                }
                self.mark();
                if now.leads() && (now.voters != wanted || !now.learners.is_empty()) {
                    match group.set_voters(wanted.clone()).await {
                        Ok(()) => info!(members = wanted.len(), "the group of coordinators is as the policy says"),
                        Err(error) => warn!(error = %chain(&error), "the group of coordinators is not changed yet"),
                    }
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = work => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = policies.changed() => if changed.is_err() { return },
                _ = again.tick() => {}
                changed = standing.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // A group that changes often must not be asked to change as often.
                    again.tick().await;
                }
            }
        }
    }

    /// Refuses to begin anew where this node has taken part before and knows nothing of it any more: a second history under its key
    /// would convict it, and stop the network.
    fn may_begin(&self, group: &Group) -> Result<(), String> {
        let mark = self.shared.home.coordinated();
        if group.has_log() || !mark.exists() {
            return Ok(());
        }
        Err(format!(
            "this node has coordinated, as {} says, and its database has nothing of that: put the database back as it was when \
             the node was stopped, or give the node a new home folder and have the roots name its new key",
            mark.display()
        ))
    }

    /// Remembers outside of the database that this node takes part.
    fn mark(&self) {
        let mark = self.shared.home.coordinated();
        if mark.exists() {
            return;
        }
        let text = "This node coordinates, or has. It must not begin anew under the same key.\n";
        if let Err(error) = std::fs::write(&mark, text) {
            warn!(%error, path = %mark.display(), "that this node coordinates is not noted");
        }
    }

    async fn found(&self, group: &Group, first: &BTreeSet<NodeId>) {
        if !first.contains(&self.shared.id) {
            return debug!("this member waits to be added to the group");
        }
        match group.found(first).await {
            Ok(()) if group.has_log() => self.mark(),
            Ok(()) => {}
            Err(error) => warn!(error = %chain(&error), "the group is not founded yet"),
        }
    }

    /// Waits until the policy does not name this node and the group has let it go, or nobody does for a while.
    async fn let_go(&self, group: &Group) {
        let (mut policies, mut standing) = (self.shared.policies.subscribe(), group.standing());
        let me = self.shared.id;
        loop {
            // An error means that the daemon is ending, which another part says.
            if policies.wait_for(|p| !candidates(p.current()).contains(&me)).await.is_err() {
                return std::future::pending().await;
            }
            let gone = standing.wait_for(|s| !s.voters.contains(&me) && !s.learners.contains(&me) && s.is_decided());
            // Who is let go may never hear of it; nobody else needs it any more.
            let _ = tokio::time::timeout(LET_GO_WITHIN, gone).await;
            let now = standing.borrow().clone();
            let led_by_another = now.leader.is_some_and(|leader| leader != me);
            // Who leads is in the middle of handing over, and a group that nobody leads may need this vote.
            if !self.shared.is_candidate() && (!now.voters.contains(&me) || led_by_another) {
                return;
            }
        }
    }
}

/// Says whenever the log's disk is full, and when it is no longer.
async fn tell_health(mut health: watch::Receiver<Health>, stop: CancellationToken) -> Ending {
    loop {
        let now = health.borrow_and_update().clone();
        match now {
            Health::Sound => debug!("the coordinators' log can be written"),
            Health::NoSpace { .. } | Health::Failed(_) => {
                warn!(health = ?now, "the coordinators' log cannot be written: nothing is accepted here; free some space");
            }
        }
        let changed = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            changed = health.changed() => changed,
        };
        if changed.is_err() {
            stop.cancelled().await;
            break;
        }
    }
    ("watch over the log's disk", Ok(()))
}

/// Says that this node leads: at once when its term begins, and every few seconds.
async fn herald(shared: &Shared, stop: CancellationToken) {
    let mut office = shared.others.leading.watch_office();
    let mut tell = tokio::time::interval(TELL_EVERY);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = office.changed() => if changed.is_err() { return },
            _ = tell.tick() => {}
        }
        let Some(term) = shared.leads() else { continue };
        // The leader knows best since when.
        if let Err(error) = shared.learn_leader(term, shared.id, clock::now()).await {
            warn!(%error, "the own term is not kept");
        }
        let Some(leadership) = shared.leadership() else { continue };
        if let Err(error) = shared.net.publish(Topic::Coordination, leadership.to_bytes()).await {
            debug!(%error, "leadership not gossiped; who needs it asks");
        }
    }
}
