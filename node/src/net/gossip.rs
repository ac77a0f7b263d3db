//! Announcements to everybody: gossipsub with the settings of peer-to-peer.md section 3.3.
//!
//! Messages carry no libp2p signature (their content is signed by its author), are forwarded only after a verdict, and are
//! known by the hash of their bytes. This module does not read the content.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use libp2p::{
    PeerId,
    gossipsub::{
        self, DataTransform, IdentTopic, MaxCountSubscriptionFilter, MessageAcceptance, MessageAuthenticity, MessageId,
        PeerScoreParams, PeerScoreThresholds, TopicHash, TopicScoreParams, ValidationMode, WhitelistSubscriptionFilter,
    },
};
use protocol::{Arch, NetworkId, limits};
use tokio::sync::mpsc;

/// The largest frame on the wire, in bytes; a message over [`limits::GOSSIP_MAX`] in it is rejected and costs its sender.
const TRANSMIT_MAX: usize = 16 * 1024;
/// Topics that a peer may be subscribed to.
const TOPICS_MAX: usize = 16;
/// A verdict that comes later than this counts as "ignore".
pub(super) const VERDICT_WITHIN: Duration = Duration::from_secs(1);
/// How long a message is known that was received. The id of each is kept for as long, whoever sent it.
const KNOWN_FOR: Duration = Duration::from_secs(5 * 60);
/// Separates the ids of our messages from any other use of the hash.
const ID_DOMAIN: &[u8] = b"artel gossip 1";

/// What an announcement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Jobs that want builders of this architecture.
    Jobs(Arch),
    /// Signed facts: attestations, releases.
    Facts,
    /// Between coordinators.
    Coordination,
    /// Node cards.
    Nodes,
}

impl Topic {
    /// Gives every topic of a network.
    fn every() -> impl Iterator<Item = Topic> {
        let jobs = Arch::EVERY.iter().map(|arch| Topic::Jobs(*arch));
        jobs.chain([Topic::Facts, Topic::Coordination, Topic::Nodes])
    }

    fn named(self, net8: &str) -> IdentTopic {
        IdentTopic::new(match self {
            Topic::Jobs(arch) => format!("/artel/{net8}/jobs/{arch}/1"),
            Topic::Facts => format!("/artel/{net8}/facts/1"),
            Topic::Coordination => format!("/artel/{net8}/coord/1"),
            Topic::Nodes => format!("/artel/{net8}/nodes/1"),
        })
    }
}

/// Why an announcement was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No connected node listens to the topic; tell those that connect later, or publish again.
    #[error("no connected node listens to {0:?}")]
    NobodyListens(Topic),
    /// Over the limit of a gossip message.
    #[error("announcement of {got} bytes is over the limit of {limit}; announce a hash instead")]
    TooLarge {
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The same bytes were published or received within the last five minutes.
    #[error("the same announcement was already made")]
    Duplicate,
    /// The queues to all peers are full; try again later.
    #[error("the queues to all peers are full")]
    Busy,
    /// This node's network is shut down.
    #[error("the network of this node is shut down")]
    Stopped,
}

/// The topics of one network by their hash.
#[derive(Debug)]
pub(super) struct Topics {
    net8: String,
    by_hash: BTreeMap<TopicHash, Topic>,
}

impl Topics {
    pub(super) fn new(network: NetworkId) -> Self {
        let net8 = network.net8();
        let by_hash = Topic::every().map(|topic| (topic.named(&net8).hash(), topic)).collect();
        Self { net8, by_hash }
    }

    pub(super) fn ident(&self, topic: Topic) -> IdentTopic {
        topic.named(&self.net8)
    }

    pub(super) fn topic(&self, hash: &TopicHash) -> Option<Topic> {
        self.by_hash.get(hash).copied()
    }
}

/// What stands before gossipsub's caches, which keep whatever they are given, told to us or not: only announcements of topics that this
/// node listens to pass, and only of a size that may be forwarded. An honest node sends no others.
#[derive(Debug, Clone, Default)]
pub(super) struct Door(Arc<Mutex<HashSet<TopicHash>>>);

impl Door {
    /// Lets a topic pass from now on. It stays open after an unsubscription, of which others hear later.
    pub(super) fn open(&self, topic: TopicHash) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(topic);
    }
}

impl DataTransform for Door {
    fn inbound_transform(&self, raw: gossipsub::RawMessage) -> Result<gossipsub::Message, io::Error> {
        if raw.data.len() > limits::GOSSIP_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the announcement is too large"));
        }
        if !self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&raw.topic) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "nobody here listens to its topic"));
        }
        let gossipsub::RawMessage { source, data, sequence_number, topic, .. } = raw;
        Ok(gossipsub::Message { source, data, sequence_number, topic })
    }

    fn outbound_transform(&self, _: &TopicHash, data: Vec<u8>) -> Result<Vec<u8>, io::Error> {
        Ok(data)
    }
}

type Filter = MaxCountSubscriptionFilter<WhitelistSubscriptionFilter>;
/// Gossipsub as we set it.
pub(super) type Behaviour = gossipsub::Behaviour<Door, Filter>;

/// Builds the behaviour.
pub(super) fn behaviour(topics: &Topics, door: &Door) -> Result<Behaviour, String> {
    let filter = MaxCountSubscriptionFilter {
        filter: WhitelistSubscriptionFilter(topics.by_hash.keys().cloned().collect::<HashSet<_>>()),
        max_subscribed_topics: TOPICS_MAX,
        max_subscriptions_per_request: TOPICS_MAX * 2,
    };
    let config = config().map_err(|error| error.to_string())?;
    let mut behaviour = Behaviour::new_with_subscription_filter_and_transform(
        MessageAuthenticity::Anonymous,
        config,
        filter,
        door.clone(),
    )?;
    behaviour.with_peer_score(score(topics), PeerScoreThresholds::default())?;
    Ok(behaviour)
}

fn config() -> Result<gossipsub::Config, gossipsub::ConfigBuilderError> {
    gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(message_id)
        .max_transmit_size(TRANSMIT_MAX)
        .history_length(12)
        .history_gossip(3)
        .duplicate_cache_time(KNOWN_FOR)
        // A publish still goes to `mesh_n` subscribed peers, in the mesh or not, so that a fresh small network loses none.
        .flood_publish(false)
        .max_publish_messages(64)
        .connection_handler_queue_len(512)
        .mesh_n_low(3)
        .mesh_n(5)
        .mesh_n_high(10)
        .mesh_outbound_min(2)
        .heartbeat_interval(Duration::from_secs(1))
        .build()
}

fn message_id(message: &gossipsub::Message) -> MessageId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(ID_DOMAIN);
    hasher.update(&u64::try_from(message.topic.as_str().len()).unwrap_or(u64::MAX).to_be_bytes());
    hasher.update(message.topic.as_str().as_bytes());
    hasher.update(&message.data);
    MessageId::new(&hasher.finalize().as_bytes()[..20])
}

/// Scores peers. Announcements are rare by nature, so silence costs nothing (P3 and P3b are off): with the defaults an idle
/// network graylists itself.
fn score(topics: &Topics) -> PeerScoreParams {
    let topic = TopicScoreParams {
        topic_weight: 0.5,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 100.0,
        first_message_deliveries_weight: 0.5,
        first_message_deliveries_cap: 4.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -12.0,
        ..TopicScoreParams::default()
    };
    PeerScoreParams {
        topics: topics.by_hash.keys().map(|hash| (hash.clone(), topic.clone())).collect::<HashMap<_, _>>(),
        // Below the cost of one invalid message (0.5 * -12): good behaviour earns no licence.
        topic_score_cap: 4.0,
        app_specific_weight: 1.0,
        ip_colocation_factor_weight: -4.0,
        ip_colocation_factor_threshold: 8.0,
        // Many nodes of a test or a demonstration share the loopback address.
        ip_colocation_factor_whitelist: HashSet::from([
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ]),
        behaviour_penalty_weight: -10.0,
        behaviour_penalty_threshold: 6.0,
        ..PeerScoreParams::default()
    }
}

/// A verdict on its way to gossipsub.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) message: MessageId,
    pub(super) source: PeerId,
    pub(super) acceptance: MessageAcceptance,
}

/// Decides whether an announcement is forwarded. Dropped, or used after a second, it says "ignore".
#[derive(Debug)]
#[must_use = "an announcement without a verdict is not forwarded"]
pub struct Verdictor {
    message: MessageId,
    source: PeerId,
    since: Instant,
    acceptance: MessageAcceptance,
    judged: mpsc::Sender<Judged>,
}

impl Verdictor {
    pub(super) fn new(message: MessageId, source: PeerId, judged: mpsc::Sender<Judged>) -> Self {
        Self { message, source, since: Instant::now(), acceptance: MessageAcceptance::Ignore, judged }
    }

    /// Forwards the announcement: it is valid.
    pub fn accept(mut self) {
        self.acceptance = MessageAcceptance::Accept;
    }

    /// Neither forwards nor blames: stale, unknown signer, own overload, own error.
    pub fn ignore(self) {}

    /// Blames the sender, for what it could have checked itself: not canonical, bad signature, wrong topic.
    pub fn reject(mut self) {
        self.acceptance = MessageAcceptance::Reject;
    }
}

impl Drop for Verdictor {
    fn drop(&mut self) {
        let late = self.since.elapsed() > VERDICT_WITHIN;
        let acceptance = if late { MessageAcceptance::Ignore } else { self.acceptance };
        let judged = Judged { message: self.message.clone(), source: self.source, acceptance };
        // When the queue is full the message stays without a verdict, which is "ignore" too.
        drop(self.judged.try_send(judged));
    }
}

/// Translates gossipsub's error.
pub(super) fn publish_error(topic: Topic, got: usize, error: &gossipsub::PublishError) -> PublishError {
    match error {
        gossipsub::PublishError::Duplicate => PublishError::Duplicate,
        gossipsub::PublishError::NoPeersSubscribedToTopic => PublishError::NobodyListens(topic),
        gossipsub::PublishError::MessageTooLarge => PublishError::TooLarge { got, limit: limits::GOSSIP_MAX },
        gossipsub::PublishError::AllQueuesFull(_)
        | gossipsub::PublishError::SigningError(_)
        | gossipsub::PublishError::TransformFailed(_) => PublishError::Busy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_somebody_here_listens_to_reaches_the_caches() {
        let (topics, door) = (Topics::new(NetworkId::from(protocol::Hash::of(b"network"))), Door::default());
        let message = |topic: &IdentTopic, bytes| gossipsub::RawMessage {
            source: None,
            data: vec![7; bytes],
            sequence_number: None,
            topic: topic.hash(),
            signature: None,
            key: None,
            validated: false,
        };
        let (facts, nodes) = (topics.ident(Topic::Facts), topics.ident(Topic::Nodes));
        assert!(door.inbound_transform(message(&facts, 4)).is_err());
        door.open(facts.hash());
        let passed = door.inbound_transform(message(&facts, limits::GOSSIP_MAX)).unwrap();
        assert_eq!((passed.topic, passed.data.len()), (facts.hash(), limits::GOSSIP_MAX));
        assert!(door.inbound_transform(message(&facts, limits::GOSSIP_MAX + 1)).is_err());
        assert!(door.inbound_transform(message(&nodes, 4)).is_err());
        assert!(door.inbound_transform(message(&IdentTopic::new("x"), 4)).is_err());
    }
}
