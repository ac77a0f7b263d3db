//! Who leads, as far as this node knows. The highest term counts; only candidates of the policy in force count at all.
//!
//! A candidate knows it from its group. Everybody else believes the leader's own signed word, which is gossiped when a term
//! begins and every few seconds, and given to whoever asks. The highest term that each candidate claimed is durable, so that a node
//! that was restarted still refuses the orders of an older one. The claims of whom the policy no longer names do not count: who lied
//! about its term is got rid of by a policy.

use protocol::{
    NodeId, PublicKey, Timestamp, Verified, envelope::Signed, lease::Term, message::Refusal, peer::Leadership,
    policy::Policy,
};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::{Shared, judge::Worth};
use crate::{clock, store};

/// Gives the name of the counter of the highest term that a candidate claimed.
fn counter(node: &NodeId) -> String {
    format!("coordinator-term/{node}")
}

/// Gives the highest term that any of these claimed.
async fn claimed(store: &store::Store, policy: &Policy) -> Result<Term, store::Error> {
    let names: Vec<String> = policy.coordinators.candidates().iter().map(counter).collect();
    let highest = move |store: &store::Store| {
        match names.iter().try_fold(0, |highest, name| Ok(store.counter(name)?.max(highest)))? {
            // Earlier versions did not note whose claim it was.
            0 => store.counter("coordinator-term"),
            claimed => Ok(claimed),
        }
    };
    store.run(highest).await.map(Term)
}

/// What is known of the leader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// The highest term that was seen.
    pub term: Term,
    /// Who leads in it and since when; none when only the term is known.
    pub leader: Option<(NodeId, Timestamp)>,
}

/// What this node does in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Office {
    /// It orders nothing.
    Follows,
    /// It leads in this term, and its ledger contains everything that former leaders promised.
    Leads(Term),
}

/// Who leads, and whether it is this node, as both change.
#[derive(Debug)]
pub struct Leading {
    known: watch::Sender<Known>,
    office: watch::Sender<Office>,
}

impl Leading {
    /// Begins with what the database remembers.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn load(store: &store::Store, policy: &Policy) -> Result<Self, store::Error> {
        let term = claimed(store, policy).await?;
        Ok(Self {
            known: watch::Sender::new(Known { term, leader: None }),
            office: watch::Sender::new(Office::Follows),
        })
    }

    /// Tells what is known, and when it changes.
    pub fn watch(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// Tells whether this node leads, and when that changes.
    pub fn watch_office(&self) -> watch::Receiver<Office> {
        self.office.subscribe()
    }

    /// Takes or leaves the office.
    pub(super) fn hold(&self, office: Office) {
        self.office.send_if_modified(|held| std::mem::replace(held, office) != office);
    }
}

impl Shared {
    /// What is known of the leader.
    pub fn known_leader(&self) -> Known {
        *self.others.leading.known.borrow()
    }

    /// Who leads, as far as this node knows. A single candidate needs no election to be known.
    pub fn leader(&self) -> Option<NodeId> {
        let policies = self.policies();
        let candidates = policies.current().coordinators.candidates();
        let known = self.known_leader().leader.map(|(node, _)| node).filter(|node| candidates.contains(node));
        known.or(match candidates {
            [only] => Some(*only),
            [] | [_, ..] => None,
        })
    }

    /// The highest term that this node has seen.
    pub fn term(&self) -> Term {
        self.known_leader().term
    }

    /// The term in which this node leads; none when it does not. What leaves this node as the coordinator's is fenced by it.
    pub fn leads(&self) -> Option<Term> {
        match *self.others.leading.office.borrow() {
            Office::Leads(term) => Some(term),
            Office::Follows => None,
        }
    }

    /// Says whether the policy lets a node coordinate.
    pub fn may_lead(&self, node: &NodeId) -> bool {
        self.policies().current().coordinators.candidates().contains(node)
    }

    /// Says whether this node takes part in the coordinators' group.
    pub fn is_candidate(&self) -> bool {
        self.may_lead(&self.id)
    }

    /// Learns who leads in a term. An older term, and a node that may not lead, change nothing.
    ///
    /// # Errors
    /// When the database fails; then nothing is learned.
    pub async fn learn_leader(&self, term: Term, node: NodeId, since: Timestamp) -> Result<(), store::Error> {
        let known = self.known_leader();
        if term < known.term || !self.may_lead(&node) {
            return Ok(());
        }
        if term > known.term {
            // First the disk: an order of this term may be obeyed as soon as it is known.
            self.store.run(move |store| store.counter_raise(&counter(&node), term.0)).await?;
        }
        // Meanwhile a policy may have come into force, and what it made be forgotten must not come back.
        self.others.leading.known.send_if_modified(|known| self.may_lead(&node) && learn(known, term, (node, since)));
        Ok(())
    }

    /// Forgets what those claimed whom the policy in force no longer names.
    ///
    /// # Errors
    /// When the database fails; then nothing is forgotten.
    pub(super) async fn forget_former_leaders(&self) -> Result<(), store::Error> {
        let policies = self.policies();
        let term = claimed(&self.store, policies.current()).await?;
        let candidates = policies.current().coordinators.candidates();
        self.others.leading.known.send_if_modified(|known| {
            let stays = known.leader.is_none_or(|(node, _)| candidates.contains(&node));
            if stays && known.term <= term {
                return false;
            }
            let leader = known.leader.filter(|_| stays && known.term == term);
            *known = Known { term, leader };
            true
        });
        Ok(())
    }

    /// Believes a leader's signed word, if it is worth anything.
    pub async fn believe_leader(&self, bytes: &[u8]) {
        let worth = self.hear_leader(bytes).await;
        debug!(?worth, "a candidate said who leads");
    }

    /// Believes a leader's signed word, and says what it is worth.
    pub(super) async fn hear_leader(&self, bytes: &[u8]) -> Worth {
        let read = Signed::<Leadership>::read(bytes).and_then(|s| s.verify(Some(&self.network)));
        let record: Verified<Leadership> = match read {
            Ok(record) => record,
            Err(error) => {
                debug!(%error, "a word of leadership was rejected");
                return Worth::Bad;
            }
        };
        let Leadership { node, term, since, .. } = *record.get();
        if !record.signers().contains(&PublicKey::from(node)) {
            return Worth::Bad;
        }
        if !self.may_lead(&node) || term < self.term() {
            return Worth::Nothing;
        }
        if let Err(error) = self.learn_leader(term, node, since).await {
            warn!(%error, "the leader's term is not kept, so it is not followed");
            return Worth::Nothing;
        }
        Worth::News
    }

    /// This node's signed word that it leads; none when it does not.
    pub fn leadership(&self) -> Option<Signed<Leadership>> {
        let term = self.leads()?;
        let known = self.known_leader();
        let now = clock::now();
        let since = known.leader.filter(|(node, _)| *node == self.id).map_or(now, |(_, since)| since.min(now));
        Some(self.sign(&Leadership { at: now, node: self.id, term, since }))
    }

    /// Lets an order pass that the leader of the highest term gave, and refuses any other by name.
    ///
    /// # Errors
    /// The refusal to send.
    pub async fn check_order(&self, from: NodeId, term: Term) -> Result<(), Refusal> {
        if !self.may_lead(&from) {
            return Err(Refusal::NotAllowed("only a coordinator grants and revokes".into()));
        }
        if term >= self.term() {
            // An order is as good as the word of leadership that was not heard yet.
            self.learn_leader(term, from, clock::now()).await.map_err(|error| {
                warn!(%error, "the term of an order is not kept, so it is not obeyed");
                Refusal::Busy("the database failed".into())
            })?;
        }
        let known = self.known_leader();
        match known.leader {
            Some((leader, _)) if term == known.term && leader == from => Ok(()),
            Some((leader, _)) if term == known.term => {
                Err(Refusal::NotAllowed(format!("in term {term} this node follows {leader}")))
            }
            Some(_) | None => {
                Err(Refusal::NotAllowed(format!("term {term} is over, this node follows term {}", known.term)))
            }
        }
    }
}

/// Whether what is known changed.
fn learn(known: &mut Known, term: Term, (node, since): (NodeId, Timestamp)) -> bool {
    if term < known.term {
        return false;
    }
    match known.leader {
        Some((leader, _)) if term == known.term && leader != node => {
            warn!(%term, known = %leader, said = %node, "two nodes claim one term; the first is believed");
            false
        }
        // The leader itself knows best since when; others learn of it later.
        Some((_, began)) if term == known.term && since >= began => false,
        Some(_) | None => {
            if term > known.term || known.leader.is_none() {
                info!(%term, leader = %node, "this node follows a leader");
            }
            *known = Known { term, leader: Some((node, since)) };
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::testing::node;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn the_highest_term_counts_and_an_older_one_changes_nothing() {
        let mut known = Known { term: Term(3), leader: None };
        assert!(!learn(&mut known, Term(2), (node(1), at(1))), "an older term");
        assert!(learn(&mut known, Term(3), (node(1), at(10))), "who leads in the known term");
        assert!(!learn(&mut known, Term(3), (node(2), at(5))), "nobody else leads in the same term");
        assert!(learn(&mut known, Term(3), (node(1), at(5))), "it knows better since when");
        assert!(learn(&mut known, Term(7), (node(2), at(20))));
        assert_eq!(known, Known { term: Term(7), leader: Some((node(2), at(20))) });
    }

    #[tokio::test]
    async fn what_somebody_claimed_whom_the_policy_no_longer_names_does_not_count() {
        use protocol::testing::samples;

        let folder = tempfile::tempdir().unwrap();
        let store = store::Store::open(&folder.path().join("node.db")).unwrap();
        let (mut policy, liar, honest) = (samples::genesis(3), node(8), node(9));
        store.counter_raise("coordinator-term", 7).unwrap();
        policy.coordinators = protocol::policy::Coordinators::Pinned(honest);
        assert_eq!(claimed(&store, &policy).await.unwrap(), Term(7), "what an earlier version noted");
        store.counter_raise(&counter(&liar), u64::MAX).unwrap();
        store.counter_raise(&counter(&honest), 13).unwrap();
        policy.coordinators = protocol::policy::Coordinators::Elected(vec![liar, honest]);
        assert_eq!(claimed(&store, &policy).await.unwrap(), Term(u64::MAX));
        policy.coordinators = protocol::policy::Coordinators::Pinned(honest);
        assert_eq!(claimed(&store, &policy).await.unwrap(), Term(13));
        assert_eq!(Leading::load(&store, &policy).await.unwrap().known.borrow().term, Term(13));
    }
}
