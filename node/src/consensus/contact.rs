//! Who was heard when, and what follows from it: whether a leader lives, whether a majority follows, whom this member may vote
//! for. No I/O and no clock: the time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{Member, Timing};

/// One or, while the membership changes, two sets of voters: a majority is one in each of them.
pub(super) type Quorums = [BTreeSet<Member>];

/// Whether `counts` holds for a majority of each set of voters. An empty membership has no majority.
pub(super) fn is_majority(quorums: &Quorums, counts: impl Fn(&Member) -> bool) -> bool {
    !quorums.is_empty()
        && quorums.iter().all(|voters| voters.iter().filter(|voter| counts(voter)).count() > voters.len() / 2)
}

/// Whether this member's leadership may be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    /// The ordinary state.
    Speaking,
    /// A leader without a majority keeps quiet, so that the others may elect; it only asks whether they are back.
    Silent,
    /// A leader that hands over keeps quiet until the other one leads, or until it gives up.
    HandingOver,
}

/// What the last round of questions found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Not asked since a leader was last heard.
    Unknown,
    /// A majority answered.
    Enough,
    /// Fewer than a majority answered.
    TooFew,
}

/// Who was heard when.
#[derive(Debug)]
pub(super) struct Contact {
    timing: Timing,
    /// When a message of the leader that this member follows last came.
    heard: Instant,
    /// As a leader: when each member last answered as a follower.
    acks: BTreeMap<Member, Instant>,
    /// Whether this member's leadership may be heard.
    pub(super) voice: Voice,
    /// What the last round of questions found.
    pub(super) reach: Reach,
    /// Until when this member does not stand for election, having stepped down.
    stand_back: Option<Instant>,
    /// To whom the leader hands over, and until when that counts.
    heir: Option<(Member, Instant)>,
}

impl Contact {
    /// A member that starts counts as one that has just heard its leader: it waits before it asks for votes.
    pub(super) fn new(timing: Timing, now: Instant) -> Contact {
        Contact {
            timing,
            heard: now,
            acks: BTreeMap::new(),
            voice: Voice::Speaking,
            reach: Reach::Unknown,
            stand_back: None,
            heir: None,
        }
    }

    /// The leader was heard.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.reach = Reach::Unknown;
    }

    /// When the leader was last heard.
    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// Whether the leader was heard so lately that nobody needs another. Shorter than the patience of the most impatient member,
    /// so that the members' clocks need not start together.
    pub(super) fn leader_lives(&self, now: Instant) -> bool {
        now < self.heard + self.timing.patience * 3 / 4
    }

    /// A member answered as this leader's follower.
    pub(super) fn acked(&mut self, by: Member, now: Instant) {
        self.acks.insert(by, now);
    }

    /// Starts a term as the leader: the voters have just been heard.
    pub(super) fn lead(&mut self, quorums: &Quorums, me: Member, now: Instant) {
        self.acks = quorums.iter().flatten().filter(|voter| **voter != me).map(|voter| (*voter, now)).collect();
        self.voice = Voice::Speaking;
        self.reach = Reach::Unknown;
        self.heir = None;
    }

    /// Whether a member answered within the time.
    pub(super) fn fresh(&self, member: Member, within: Duration, now: Instant) -> bool {
        self.acks.get(&member).is_some_and(|ack| now < *ack + within)
    }

    /// Whether a majority follows this leader: answered within the time after which the others would elect.
    pub(super) fn followed(&self, quorums: &Quorums, me: Member, now: Instant) -> bool {
        is_majority(quorums, |voter| *voter == me || self.fresh(*voter, self.timing.patience, now))
    }

    /// Does not stand for election for a while.
    pub(super) fn stand_back(&mut self, until: Instant) {
        self.stand_back = Some(until);
    }

    /// The earliest time at which this member, of this rank among the voters, may ask for votes.
    pub(super) fn may_stand_at(&self, rank: u32) -> Instant {
        let patient = self.heard + self.timing.patience + self.timing.stagger * rank;
        self.stand_back.map_or(patient, |until| patient.max(until))
    }

    /// The leader that this member follows, or this leader itself, hands over to `heir`.
    pub(super) fn yield_to(&mut self, heir: Member, until: Instant) {
        self.heir = Some((heir, until));
    }

    /// The member that is to lead next, if the leader has named one.
    pub(super) fn heir(&self, now: Instant) -> Option<Member> {
        self.heir.filter(|(_, until)| now < *until).map(|(heir, _)| heir)
    }

    /// Whether the leader's lease lets this member vote for a candidate. `leading` says that this member is the leader itself.
    pub(super) fn may_vote_for(&self, candidate: Member, leading: bool, now: Instant) -> bool {
        if self.heir(now) == Some(candidate) {
            return true;
        }
        match (leading, self.voice) {
            (true, Voice::Speaking | Voice::HandingOver) => false,
            (true, Voice::Silent) => true,
            (false, Voice::Speaking | Voice::Silent | Voice::HandingOver) => !self.leader_lives(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(byte: u8) -> Member {
        Member([byte; 32])
    }

    fn voters(bytes: &[u8]) -> BTreeSet<Member> {
        bytes.iter().copied().map(member).collect()
    }

    #[test]
    fn a_majority_is_one_in_each_set() {
        let joint = [voters(&[1, 2, 3]), voters(&[3, 4, 5])];
        assert!(is_majority(&joint, |voter| [2, 3, 4].map(member).contains(voter)));
        assert!(!is_majority(&joint, |voter| [1, 2, 3].map(member).contains(voter)), "one of the new three is none");
        assert!(!is_majority(&[voters(&[1, 2])], |voter| *voter == member(1)), "half is no majority");
        assert!(!is_majority(&[], |_| true), "nobody is no majority");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_is_followed_while_a_majority_answers() {
        let (timing, start) = (Timing::lan(), Instant::now());
        let quorums = [voters(&[1, 2, 3])];
        let mut contact = Contact::new(timing, start);
        contact.lead(&quorums, member(1), start);
        assert!(contact.followed(&quorums, member(1), start));
        let later = start + timing.patience;
        assert!(!contact.followed(&quorums, member(1), later));
        contact.acked(member(3), later);
        assert!(contact.followed(&quorums, member(1), later));
        contact.acked(member(9), later + timing.patience);
        assert!(!contact.followed(&quorums, member(1), later + timing.patience), "a learner's answer does not count");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_votes_against_a_leader_who_lives_but_for_its_heir() {
        let (timing, start) = (Timing::lan(), Instant::now());
        let mut contact = Contact::new(timing, start);
        assert!(!contact.may_vote_for(member(2), false, start));
        assert!(contact.may_vote_for(member(2), false, start + timing.patience));
        contact.yield_to(member(3), start + timing.patience);
        assert!(contact.may_vote_for(member(3), false, start) && !contact.may_vote_for(member(2), false, start));
        assert!(!contact.may_vote_for(member(2), true, start + timing.patience * 9), "a leader does not depose itself");
        contact.voice = Voice::Silent;
        assert!(contact.may_vote_for(member(2), true, start), "a leader without a majority does");
    }

    #[tokio::test(start_paused = true)]
    async fn ranks_stand_at_different_times() {
        let (timing, start) = (Timing::lan(), Instant::now());
        let mut contact = Contact::new(timing, start);
        assert_eq!(contact.may_stand_at(1) - contact.may_stand_at(0), timing.stagger);
        contact.stand_back(start + timing.patience * 3);
        assert_eq!(contact.may_stand_at(0), start + timing.patience * 3);
    }
}
