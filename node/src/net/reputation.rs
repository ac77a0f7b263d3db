//! What peers may cost: how fast each may ask and announce, and what garbage does to its standing.
//!
//! A standing starts at zero, falls with garbage and halves its distance to zero every ten minutes. Content is not judged
//! here; a lying builder is the ledger's affair.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// Cost of one message that no honest node sends.
const GARBAGE: f64 = -5.0;
/// At this standing a peer is disconnected: the fourth piece of garbage.
const DISCONNECT_AT: f64 = -18.0;
/// At this standing a peer is banned: about the tenth.
const BAN_AT: f64 = -45.0;
/// How long a ban lasts.
pub(super) const BAN_TIME: Duration = Duration::from_secs(3600);
/// In this time a standing halves.
const HALF_LIFE: Duration = Duration::from_secs(600);
/// Peers whose standing is remembered; the best are forgotten first.
const PEERS_MAX: usize = 4096;

/// How fast a peer may do something.
#[derive(Debug, Clone, Copy)]
struct Rate {
    per_second: f64,
    burst: f64,
}

const MEMBER_REQUESTS: Rate = Rate { per_second: 1000.0, burst: 4000.0 };
const STRANGER_REQUESTS: Rate = Rate { per_second: 5.0, burst: 50.0 };
/// A coordinator announces every job, so a member's rate bounds the network's jobs per second.
const MEMBER_ANNOUNCEMENTS: Rate = Rate { per_second: 500.0, burst: 2000.0 };
const STRANGER_ANNOUNCEMENTS: Rate = Rate { per_second: 5.0, burst: 50.0 };
/// Announcements over the rate, which a node in a busy network may hand on without knowing.
const MEMBER_FLOOD: Rate = Rate { per_second: 1500.0, burst: 6000.0 };
const STRANGER_FLOOD: Rate = Rate { per_second: 15.0, burst: 150.0 };

/// Whether a peer is of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Member,
    Stranger,
}

/// What is to be done about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sentence {
    None,
    Disconnect,
    Ban,
}

/// What a peer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Request,
    Announcement,
    /// An announcement over its rate.
    Flood,
}

/// A token bucket that starts full.
#[derive(Debug)]
struct Bucket {
    spent: f64,
    at: Instant,
}

impl Bucket {
    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.spent = (self.spent - passed * rate.per_second).max(0.0);
        self.at = now;
        let allowed = self.spent < rate.burst;
        if allowed {
            self.spent += 1.0;
        }
        allowed
    }
}

#[derive(Debug)]
struct Record {
    score: f64,
    at: Instant,
    requests: Bucket,
    announcements: Bucket,
    flood: Bucket,
}

impl Record {
    fn new(now: Instant) -> Self {
        let bucket = || Bucket { spent: 0.0, at: now };
        Self { score: 0.0, at: now, requests: bucket(), announcements: bucket(), flood: bucket() }
    }

    fn score(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.score * 0.5_f64.powf(passed / HALF_LIFE.as_secs_f64())
    }
}

/// The standing of every peer that was heard.
#[derive(Debug, Default)]
pub(super) struct Reputation {
    peers: BTreeMap<PeerId, Record>,
    bans: BTreeMap<PeerId, Instant>,
}

impl Reputation {
    /// Says whether a peer may do this now.
    pub(super) fn allows(&mut self, peer: PeerId, act: Act, standing: Standing, now: Instant) -> bool {
        let record = self.record(peer, now);
        match (act, standing) {
            (Act::Request, Standing::Member) => record.requests.take(MEMBER_REQUESTS, now),
            (Act::Request, Standing::Stranger) => record.requests.take(STRANGER_REQUESTS, now),
            (Act::Announcement, Standing::Member) => record.announcements.take(MEMBER_ANNOUNCEMENTS, now),
            (Act::Announcement, Standing::Stranger) => record.announcements.take(STRANGER_ANNOUNCEMENTS, now),
            (Act::Flood, Standing::Member) => record.flood.take(MEMBER_FLOOD, now),
            (Act::Flood, Standing::Stranger) => record.flood.take(STRANGER_FLOOD, now),
        }
    }

    /// Notes a message that no honest node sends; gives the new score and what is to be done.
    pub(super) fn garbage(&mut self, peer: PeerId, now: Instant) -> (f64, Sentence) {
        let record = self.record(peer, now);
        record.score = record.score(now) + GARBAGE;
        record.at = now;
        let score = record.score;
        let sentence = if score <= BAN_AT {
            Sentence::Ban
        } else if score <= DISCONNECT_AT {
            Sentence::Disconnect
        } else {
            Sentence::None
        };
        (score, sentence)
    }

    /// Notes a ban.
    pub(super) fn ban(&mut self, peer: PeerId, until: Instant) {
        self.bans.insert(peer, until);
    }

    /// Says whether a peer is banned.
    pub(super) fn is_banned(&self, peer: &PeerId) -> bool {
        self.bans.contains_key(peer)
    }

    /// Gives the peers whose ban is over, and forgets it.
    pub(super) fn pardoned(&mut self, now: Instant) -> Vec<PeerId> {
        self.bans.extract_if(.., |_, until| *until <= now).map(|(peer, _)| peer).collect()
    }

    fn record(&mut self, peer: PeerId, now: Instant) -> &mut Record {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer) {
            let best = self.peers.iter().max_by(|(_, a), (_, b)| a.score(now).total_cmp(&b.score(now)));
            if let Some(best) = best.map(|(peer, _)| *peer) {
                self.peers.remove(&best);
            }
        }
        self.peers.entry(peer).or_insert_with(|| Record::new(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_disconnects_then_bans_and_is_forgiven() {
        let (now, peer) = (Instant::now(), PeerId::random());
        let mut reputation = Reputation::default();
        let sentences: Vec<_> = (0..10).map(|_| reputation.garbage(peer, now).1).collect();
        assert_eq!(sentences[..4], [Sentence::None, Sentence::None, Sentence::None, Sentence::Disconnect]);
        assert_eq!(sentences[9], Sentence::Ban);
        assert_eq!(reputation.garbage(peer, now + HALF_LIFE * 8).1, Sentence::None);
        reputation.ban(peer, now + BAN_TIME);
        assert!(reputation.pardoned(now).is_empty() && reputation.is_banned(&peer));
        assert_eq!(reputation.pardoned(now + BAN_TIME), [peer]);
        assert!(!reputation.is_banned(&peer));
    }

    #[test]
    fn a_stranger_has_a_burst_and_then_a_rate() {
        let (now, peer) = (Instant::now(), PeerId::random());
        let mut reputation = Reputation::default();
        let allowed = |reputation: &mut Reputation, at| {
            (0..200).filter(|_| reputation.allows(peer, Act::Request, Standing::Stranger, at)).count()
        };
        assert_eq!(allowed(&mut reputation, now), 50);
        assert_eq!(allowed(&mut reputation, now + Duration::from_secs(2)), 10);
        let over = (0..200).filter(|_| reputation.allows(peer, Act::Flood, Standing::Stranger, now)).count();
        assert_eq!(over, 150, "and so much over it before it is disconnected");
    }
}
