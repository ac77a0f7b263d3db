//! The group of coordinators as a model of a correct replicated log: what any such replication may do to the ledger.
//!
//! ```text
//!   follower --no leader heard of, a majority agrees--> leader of the next term --hears of a higher term--> follower
//!                                                         first of all it commits `Restarted`
//! ```
//!
//! * One committed log. A leader of the newest term adds to it while it talks with a majority (of both, while membership
//!   changes); a leader of an older term never does, though it goes on believing until it hears of the newer one.
//! * What a leader had under way when another was elected is either in the log, in the old term's name, or gone.
//! * Members apply the log in order, each as far as it heard. A crash loses what was not synced: the member begins again at a
//!   snapshot and is told the rest.

use std::collections::BTreeSet;

use protocol::{NetworkId, NodeId, Timestamp, Verified, policy::Policy};

use super::{
    Asker, Event, Order, Victim, World,
    member::{Member, Office, Role},
    network::Place,
    records::{self, Shape},
};
use crate::{
    Command, Effect,
    invariants::{Witness, a_beginning_asks_for_a_timer},
    planted::{self, Fault},
};

/// How often a leader says that it leads, in milliseconds.
const BEAT: u64 = 2000;
/// How long a member waits for a leader before it would follow another, in milliseconds.
pub(super) const PATIENCE: u64 = 6000;

/// One committed entry.
pub(super) struct Entry {
    pub(super) term: u64,
    pub(super) by: usize,
    pub(super) batch: Vec<(Timestamp, Command)>,
    /// What the first member that applied it wants done, for each command.
    pub(super) effects: Vec<Vec<Effect>>,
}

/// Every member, and what they agreed on.
pub(super) struct Group {
    pub(super) network: NetworkId,
    pub(super) genesis: Verified<Policy>,
    pub(super) members: Vec<Member>,
    pub(super) log: Vec<Entry>,
    pub(super) witness: Witness,
    voters: BTreeSet<usize>,
    /// The next voters, while both majorities must agree.
    joining: Option<BTreeSet<usize>>,
    /// The newest term.
    term: u64,
    leader: usize,
    /// What the newest leader has proposed and nobody knows to be committed.
    flight: Option<Vec<(Timestamp, Command)>>,
}

impl Group {
    pub(super) fn new(shape: Shape) -> Self {
        let (genesis, network) = records::genesis(shape);
        let first = usize::from(shape.members);
        Self {
            network,
            members: (0..=first).map(|_| Member::new(network, &genesis)).collect(),
            genesis,
            log: Vec::new(),
            witness: Witness::default(),
            voters: (0..first).collect(),
            joining: None,
            term: 0,
            leader: 0,
            flight: None,
        }
    }

    /// Gives the leader of the newest term, up or not.
    pub(super) const fn newest_leader(&self) -> usize {
        self.leader
    }

    /// Gives the member that has applied the whole log, if the newest leader is up: what the network knows.
    pub(super) fn head(&self) -> Option<&Member> {
        let leader = &self.members[self.leader];
        (leader.is_up() && leader.applied == self.log.len()).then_some(leader)
    }

    pub(super) fn all_ended(&self) -> bool {
        self.joining.is_none() && self.head().is_some_and(|head| head.ledger.open.ids().is_empty())
    }

    pub(super) fn member_of(&self, node: NodeId) -> Option<usize> {
        (0..self.members.len()).find(|at| records::member(*at) == node)
    }

    /// Says whether a majority is among some members; of both groups, while membership changes.
    fn is_majority(&self, some: &BTreeSet<usize>) -> bool {
        let most = |voters: &BTreeSet<usize>| voters.intersection(some).count() * 2 > voters.len();
        most(&self.voters) && self.joining.as_ref().is_none_or(most)
    }

    fn may_vote(&self, member: usize) -> bool {
        self.voters.contains(&member) || self.joining.as_ref().is_some_and(|next| next.contains(&member))
    }
}

impl World {
    /// Gives who is up and hears a member, and is heard by it.
    fn talks_with(&self, member: usize) -> BTreeSet<usize> {
        let all = self.group.members.iter().enumerate();
        let near = |at: usize| self.network.talk(Place::Member(member), Place::Member(at));
        all.filter(|(at, other)| other.is_up() && near(*at)).map(|(at, _)| at).collect()
    }

    pub(super) fn beat(&mut self, member: usize, term: u64) {
        if !self.group.members[member].leads_in(term) {
            return;
        }
        if self.group.is_majority(&self.talks_with(member)) {
            self.group.members[member].heard_at = self.now;
        } else {
            self.see("leader without majority");
        }
        self.at(self.now + BEAT, Event::Beat(member, term));
        let order = Order { from: member, term };
        for to in (0..self.group.members.len()).filter(|to| *to != member) {
            self.send(Place::Member(member), Place::Member(to), Event::Append(to, order));
        }
    }

    /// A member hears a leader: it follows, and applies what is committed as far as it was told.
    pub(super) fn append(&mut self, to: usize, order: Order) -> Result<(), String> {
        let member = &mut self.group.members[to];
        if !member.is_up() {
            return Ok(());
        }
        if order.term < member.seen_term {
            // The refusal names the newer term.
            let (newer, back) = (member.seen_term, (Place::Member(to), Place::Member(order.from)));
            if self.network.reaches(back.0, back.1) {
                self.see_term(order.from, newer);
            }
            return Ok(());
        }
        self.see_term(to, order.term);
        let member = &mut self.group.members[to];
        (member.heard_at, member.knows_leader) = (self.now, Some(order.from));
        let (known, all) = (self.group.members[to].applied, self.group.log.len());
        if order.term < self.group.term || known >= all {
            return Ok(());
        }
        let lags = self.faulty() && self.random.percent(30);
        if lags {
            self.see("member lags");
        }
        let until = if lags { known + usize::try_from(self.random.below((all - known) as u64)).unwrap() } else { all };
        self.apply_until(to, until).map(drop)
    }

    /// Notes a term; who led in an older one steps down and sends its callers on.
    fn see_term(&mut self, to: usize, term: u64) {
        let member = &mut self.group.members[to];
        if member.is_up() && term > member.seen_term {
            (member.seen_term, member.knows_leader) = (term, None);
            self.step_down(to);
        }
    }

    fn step_down(&mut self, member: usize) {
        let Role::Leader(office) = std::mem::replace(&mut self.group.members[member].role, Role::Follower) else {
            return;
        };
        self.see("leader deposed");
        for asker in office.inbox.into_iter().map(|(asker, _)| asker).chain(office.flight.into_iter().flatten()) {
            self.send_on(member, asker);
        }
    }

    /// Looks whether a member should stand for election.
    pub(super) fn suspect(&mut self, member: usize) -> Result<(), String> {
        self.soon(1500, 4000, Event::Suspect(member));
        let patience = PATIENCE + self.random.below(PATIENCE);
        let lonely = |of: &Member, patience: u64| of.heard_at == 0 || self.now > of.heard_at + patience;
        let stands = &self.group.members[member];
        let follows = matches!(stands.role, Role::Follower);
        if !stands.is_up() || !follows || !self.group.may_vote(member) || !lonely(stands, patience) {
            return Ok(());
        }
        let near = self.talks_with(member).into_iter();
        let votes = near.filter(|at| lonely(&self.group.members[*at], PATIENCE)).collect();
        if self.group.is_majority(&votes) {
            votes.into_iter().for_each(|voter| self.see_term(voter, self.group.term + 1));
            return self.elect(member);
        }
        self.see("no majority for a leader");
        Ok(())
    }

    fn elect(&mut self, member: usize) -> Result<(), String> {
        self.see("leader elected");
        let (old, by) = (self.group.term, self.group.leader);
        match self.group.flight.take() {
            Some(batch) if self.random.percent(50) => {
                self.see("proposal survived its leader");
                self.group.log.push(Entry { term: old, by, batch, effects: Vec::new() });
            }
            Some(_) => self.see("proposal vanished with its leader"),
            None => {}
        }
        if by != member && old > 0 {
            self.see("another leader");
        }
        self.apply_until(member, self.group.log.len())?;
        self.group.term = old + 1;
        self.group.leader = member;
        let term = self.group.term;
        let chosen = &mut self.group.members[member];
        chosen.knows_leader = Some(member);
        chosen.heard_at = self.now;
        chosen.role = Role::Leader(Office { term, inbox: Vec::new(), flight: None });
        if !planted::is(Fault::BeginsWithoutRestarted) {
            self.intake(member, Asker::Daemon, Command::Restarted);
        }
        self.beat(member, term);
        Ok(())
    }

    /// A leader takes a command.
    pub(super) fn intake(&mut self, member: usize, asker: Asker, command: Command) {
        let Role::Leader(office) = &mut self.group.members[member].role else { return };
        office.inbox.push((asker, command));
        if office.flight.is_none() {
            self.propose(member);
        }
    }

    /// Proposes what has gathered, as one batch.
    fn propose(&mut self, member: usize) {
        let at = self.group.members[member].clock(self.now);
        let Role::Leader(office) = &mut self.group.members[member].role else { return };
        let term = office.term;
        let (askers, commands): (Vec<_>, Vec<_>) = office.inbox.drain(..).unzip();
        office.flight = Some(askers);
        if term == self.group.term {
            self.group.flight = Some(commands.into_iter().map(|command| (at, command)).collect());
        }
        let round = if self.group.voters.len() == 1 { 30 } else { 300 };
        self.soon(1, round, Event::Commit(member, term));
    }

    /// A batch comes back from a majority, or does not.
    pub(super) fn commit(&mut self, member: usize, term: u64) -> Result<(), String> {
        if !self.group.members[member].leads_in(term) {
            return Ok(());
        }
        let majority = self.group.is_majority(&self.talks_with(member));
        if term < self.group.term || !majority {
            self.see("commit waits for a majority");
            self.at(self.now + 500, Event::Commit(member, term));
            return Ok(());
        }
        let batch = self.group.flight.take().expect("the newest leader has proposed it");
        self.group.log.push(Entry { term, by: member, batch, effects: Vec::new() });
        self.turn_over_voters(member);
        if self.faulty() && self.random.percent(1) {
            self.see("crash before effects");
            self.crash_member(Victim::Member(member));
            return Ok(());
        }
        let Role::Leader(office) = &mut self.group.members[member].role else { return Ok(()) };
        let askers = office.flight.take().unwrap_or_default();
        let all = self.apply_until(member, self.group.log.len())?;
        for (asker, effects) in askers.into_iter().zip(all) {
            for effect in effects {
                self.perform(member, term, asker, effect)?;
            }
        }
        self.follow_policy(member);
        if let Role::Leader(office) = &self.group.members[member].role
            && office.flight.is_none()
            && (!office.inbox.is_empty() || self.group.joining.is_some())
        {
            self.propose(member);
        }
        Ok(())
    }

    /// What both majorities have is what ends a change of membership.
    fn turn_over_voters(&mut self, leader: usize) {
        let Some(next) = self.group.joining.take() else { return };
        self.see("membership changed");
        self.group.voters = next;
        if !self.group.voters.contains(&leader) {
            self.see("leader left the group");
            self.step_down(leader);
            self.group.members[leader].heard_at = self.now;
        }
    }

    /// The leader brings the group to the candidates of the policy in force.
    fn follow_policy(&mut self, leader: usize) {
        let policy = self.group.members[leader].ledger.policy().get();
        let candidates = policy.coordinators.candidates().iter();
        let wanted: BTreeSet<usize> = candidates.filter_map(|node| self.group.member_of(*node)).collect();
        let leads = matches!(self.group.members[leader].role, Role::Leader(_));
        if leads && wanted != self.group.voters && self.group.joining.is_none() {
            self.group.joining = Some(wanted);
        }
    }

    /// What was committed in a term that is over is the newest leader's to say again.
    fn withhold(&mut self, member: usize, term: u64, effects: Vec<Vec<Effect>>) -> Result<(), String> {
        let acts = |effect: &Effect| {
            matches!(effect, Effect::Grant(_) | Effect::Publish(_) | Effect::Serve(_) | Effect::Withdraw(_))
        };
        for effect in effects.into_iter().flatten().filter(acts) {
            self.see("effect of an old term withheld");
            if planted::is(Fault::PerformsOldTerm) {
                self.perform(member, term, Asker::Daemon, effect)?;
            }
        }
        Ok(())
    }

    /// Applies the log on one member; the first that applies an entry is watched, all others must come to the same.
    pub(super) fn apply_until(&mut self, member: usize, until: usize) -> Result<Vec<Vec<Effect>>, String> {
        let Group { members, log, witness, .. } = &mut self.group;
        let (at_home, member) = (member, &mut members[member]);
        let mut last = Vec::new();
        let mut withheld = Vec::new();
        for entry in &mut log[member.applied..until.max(member.applied)] {
            if planted::is(Fault::SkipsEntry) && !entry.effects.is_empty() && entry.batch.len() > 1 {
                member.applied += 1;
                continue;
            }
            last.clear();
            for (at, command) in &entry.batch {
                let at = if planted::is(Fault::OwnClock) { at.after(member.drift()) } else { *at };
                if entry.effects.is_empty() {
                    witness.before(&member.ledger, command);
                }
                let effects = member.ledger.apply(at, command.clone());
                if entry.effects.is_empty() {
                    witness.after(&member.ledger, at, &effects)?;
                    if matches!(command, Command::Restarted) {
                        a_beginning_asks_for_a_timer(&member.ledger, &effects)?;
                    }
                }
                last.push(effects);
            }
            if entry.effects.is_empty() {
                entry.effects.clone_from(&last);
            } else if entry.effects != last {
                return Err("two members apply the same entry and want different effects".into());
            }
            member.applied += 1;
            if entry.by == at_home && !member.leads_in(entry.term) {
                withheld.push((entry.term, entry.effects.clone()));
            }
        }
        for (term, effects) in withheld {
            self.withhold(at_home, term, effects)?;
        }
        Ok(last)
    }
}
