//! What comes from the network: questions to the desk, gossip to the right part, byte streams to the blob store.

use std::{sync::Arc, time::Duration};

use protocol::{
    NodeId, Verified,
    job::Announcement,
    message::{Request, Response},
    release::Release,
};
use tokio::{
    sync::broadcast,
    task::JoinSet,
    time::{Instant, Interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Decisions, Policies, Shared,
    cards::{self, Heard},
    chain,
    judge::{self, Worth},
    wires,
};
use crate::{
    clock,
    config::Config,
    net::{Event, Inbox, Net, Purpose, Topic, Verdictor},
    serve::Desk,
};

/// How often members ask the coordinator whether the policy changed.
const POLICY_EVERY: Duration = Duration::from_secs(30);
/// How long after a new connection the node's card is told.
const TELL_AFTER_CONNECT: Duration = Duration::from_secs(1);
/// How long after it was told it is told again at the earliest, whoever comes and goes.
const TELL_APART: Duration = Duration::from_secs(3);

/// Handles what comes in until stopped. Every answer is given in a task of its own, joined at the end.
pub(super) async fn run(
    shared: Arc<Shared>,
    desk: Desk,
    mut inbox: Inbox,
    releases: broadcast::Sender<Verified<Release>>,
    stop: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    let mut refresh = tokio::time::interval(POLICY_EVERY);
    let mut tell = Telling::new();
    let mut leading = shared.others.leading.watch();
    loop {
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            event = inbox.next() => event,
            Ok(()) = leading.changed() => {
                if let Some(worker) = desk.worker() {
                    tasks.spawn(Arc::clone(worker).greet());
                }
                continue;
            }
            () = tell.due() => {
                tasks.spawn(tell_card(Arc::clone(&shared), desk.clone()));
                continue;
            }
            _ = refresh.tick() => {
                tasks.spawn(refresh_policy(Arc::clone(&shared), shared.leader()));
                continue;
            }
        };
        match event {
            None => break,
            Some(Event::Request { from, request, reply }) => {
                let desk = desk.clone();
                tasks.spawn(async move { reply.send(&desk.answer(from, request).await) });
            }
            Some(Event::Stream { from, purpose: Purpose::Blobs, stream }) => {
                tasks.spawn(serve_blobs(Arc::clone(&shared), from, stream));
            }
            Some(Event::Stream { from, purpose: Purpose::Coordination, stream }) => {
                if let Some(decisions) = desk.decisions() {
                    tasks.spawn(serve_group(decisions, from, stream));
                }
            }
            Some(Event::Gossip { topic: Topic::Coordination, bytes, verdict, .. }) => {
                tasks.spawn(heard_leader(Arc::clone(&shared), bytes, verdict));
            }
            Some(Event::Gossip { topic: Topic::Nodes, bytes, verdict, .. }) => {
                let heard = heard_card(&shared, &bytes, verdict);
                if let Heard::Newcomer(node) | Heard::News(node) = heard {
                    tasks.spawn(note_card(Arc::clone(&shared), desk.clone(), node));
                }
                if let Heard::Newcomer(_) = heard {
                    tell.soon();
                }
            }
            Some(Event::Gossip { topic, bytes, verdict, .. }) => {
                gossip(&shared, &desk, &releases, (topic, bytes, verdict));
            }
            Some(Event::Connected(node)) => {
                // The new peer learns who we are, and through it others do; its subscriptions take a moment to arrive.
                tell.soon();
                if shared.may_lead(&node) {
                    tasks.spawn(meet_candidate(Arc::clone(&shared), desk.clone(), node));
                }
            }
            Some(Event::Disconnected(node)) => {
                // A stranger holds nothing that could be lost, and coming and going must not cost journal entries.
                if let Some(decisions) = desk.leading().filter(|_| shared.policies().current().is_member(&node)) {
                    tasks.spawn(async move { decisions.tell(ledger::Command::Lost { node }).await });
                }
            }
        }
    }
    tasks.shutdown().await;
}

/// When this node's card is told next.
struct Telling {
    every: Interval,
    told: Option<Instant>,
    soon: bool,
}

impl Telling {
    fn new() -> Self {
        Self { every: tokio::time::interval(cards::TELL_EVERY), told: None, soon: false }
    }

    /// Ends when it is to be told.
    async fn due(&mut self) {
        self.every.tick().await;
        (self.told, self.soon) = (self.soon.then(Instant::now), false);
    }

    /// Wishes for it earlier than usual. Who wishes again and again does not put it off.
    fn soon(&mut self) {
        if std::mem::replace(&mut self.soon, true) {
            return;
        }
        let after = Instant::now() + TELL_AFTER_CONNECT;
        self.every.reset_at(self.told.map_or(after, |told| after.max(told + TELL_APART)));
    }
}

/// Learns what a candidate knows that has just been connected; the leader is asked what is open.
async fn meet_candidate(shared: Arc<Shared>, desk: Desk, node: NodeId) {
    let leads = shared.leader() == Some(node);
    desk.ask_who_leads(node).await;
    if let Some(worker) = desk.worker().filter(|_| leads) {
        Arc::clone(worker).greet().await;
    }
    refresh_policy(shared, Some(node)).await;
}

async fn tell_card(shared: Arc<Shared>, desk: Desk) {
    shared.tell_card(&desk).await;
}

async fn note_card(shared: Arc<Shared>, desk: Desk, node: NodeId) {
    shared.note_card(&desk, node).await;
}

async fn serve_blobs(shared: Arc<Shared>, from: NodeId, stream: crate::net::ByteStream) {
    let allow = |node: &NodeId, hash: &protocol::Hash| {
        let open = || shared.offers.contains(hash) || (shared.may_lead(node) && shared.offers.is_sealed(hash));
        shared.policies().current().is_member(node) && open()
    };
    match shared.blobs.serve(from, stream, allow).await {
        Ok(served) => debug!(%from, blobs = served.blobs, "blobs served"),
        Err(error) => debug!(%from, error = %chain(&error), "blobs not served"),
    }
}

/// Answers the questions of another candidate until its stream ends.
async fn serve_group(decisions: Decisions, from: NodeId, stream: crate::net::ByteStream) {
    let answered = wires::answer(stream, |question| {
        let group = decisions.group().clone();
        async move { group.answer(from, &question).await }
    });
    let why = answered.await;
    debug!(node = %from.short(), %why, "coordinators' stream from another candidate");
}

/// Judges one gossiped message. Only what its sender could have checked is rejected; the rest is ignored.
fn gossip(
    shared: &Arc<Shared>,
    desk: &Desk,
    releases: &broadcast::Sender<Verified<Release>>,
    (topic, bytes, verdict): (Topic, Vec<u8>, Verdictor),
) {
    match topic {
        Topic::Jobs(_) => {
            let read = shared.read_signed_by_candidate::<Announcement>(&bytes);
            let worth = judge::announcement(&read, clock::now());
            tell(worth, topic, verdict);
            if let (Worth::News, Ok(announcement)) = (worth, read) {
                desk.heard(announcement.get());
            }
        }
        Topic::Facts => {
            let read = shared.read_signed_by_candidate::<Release>(&bytes);
            tell(judge::release(&read), topic, verdict);
            if let Ok(release) = read {
                // Nobody may follow releases here; who lags asks for the newest by itself afterwards.
                let _ = releases.send(release);
            }
        }
        Topic::Coordination | Topic::Nodes => verdict.ignore(),
    }
}

async fn heard_leader(shared: Arc<Shared>, bytes: Vec<u8>, verdict: Verdictor) {
    tell(shared.hear_leader(&bytes).await, Topic::Coordination, verdict);
}

fn heard_card(shared: &Shared, bytes: &[u8], verdict: Verdictor) -> Heard {
    let heard = shared.hear_card(bytes);
    match heard {
        Heard::Newcomer(_) | Heard::News(_) => verdict.accept(),
        Heard::Nothing => verdict.ignore(),
        Heard::Bad => verdict.reject(),
    }
    heard
}

fn tell(worth: Worth, topic: Topic, verdict: Verdictor) {
    match worth {
        Worth::News => verdict.accept(),
        Worth::Nothing => {
            debug!(?topic, "gossip was ignored");
            verdict.ignore();
        }
        Worth::Bad => {
            warn!(?topic, "malformed gossip was rejected");
            verdict.reject();
        }
    }
}

/// Asks a node for its policies and adopts what is newer.
async fn refresh_policy(shared: Arc<Shared>, node: Option<NodeId>) {
    let Some(node) = node.filter(|node| *node != shared.id) else { return };
    match ask_policies(&shared.net, node, &shared.config).await {
        Ok(policies) => match shared.adopt(policies).await {
            Ok(true) => info!(number = shared.policies().current().number, "policy adopted"),
            Ok(false) => {}
            Err(error) => warn!(error = %chain(&error), "policy not stored"),
        },
        Err(why) => debug!(%node, %why, "policy not fetched"),
    }
}

pub(super) async fn ask_policies(net: &Net, node: NodeId, config: &Config) -> Result<Policies, String> {
    match net.ask(node, Request::Policy).await {
        Ok(Response::Records(records)) => {
            let envelopes: Vec<Vec<u8>> = records.into_iter().map(|r| r.0).collect();
            Policies::verify(&config.network.id, &envelopes).map_err(|e| chain(&e))
        }
        Ok(_) => Err("the node did not give its policies".into()),
        Err(error) => Err(chain(&error)),
    }
}
