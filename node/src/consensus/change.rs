//! Changes of a group at work: who votes, and who leads. openraft 0.9 changes memberships; handing over is ours.
//!
//! Handing over: the leader waits until its heir has everything, falls silent, tells the others whom the lease shall not hinder,
//! and asks the heir to stand. If the heir does not lead in time, the leader speaks again and goes on in its term.

use std::{collections::BTreeSet, future::Future, time::Duration};

use openraft::{
    ChangeMembers, ServerState,
    error::{ChangeMembershipError, ClientWriteError, RaftError},
};
use protocol::{NodeId, lease::Term};
use tokio::time::Instant;

use super::{
    Error, Group, Life, Member, Standing,
    contact::Voice,
    group::quorums,
    wires::{Answer, Question},
};

/// How long a change of the membership may take, in patiences: a new member may first need a whole snapshot.
const CHANGE_WITHIN: u32 = 30;

/// How many entries a new member may be behind when it gets its vote.
const CAUGHT_UP: u64 = 256;

type Written<T> = Result<T, RaftError<Member, ClientWriteError<Member, openraft::EmptyNode>>>;

impl Group {
    /// Makes these the voters: new ones follow as learners until they have caught up, then old and new majorities decide
    /// together, then the new one alone. Nothing is to do when they vote already. Whoever is neither voter nor wanted is dropped.
    /// A leader that is not among them leaves when it is done.
    ///
    /// # Errors
    /// [`Error::NotLeader`]; [`Error::Refused`] for an empty set; [`Error::TimedOut`] when a new member does not catch up or no
    /// majority takes part: then call it again, with the same or other voters.
    pub async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), Error> {
        if voters.is_empty() {
            return Err(Error::Refused { what: "a group needs at least one voter".to_owned() });
        }
        let wanted: BTreeSet<Member> = voters.into_iter().map(Member::from).collect();
        let within = self.shared.config.timing.patience * CHANGE_WITHIN;
        self.bounded("the change of the voters", within, self.change(&wanted)).await?
    }

    async fn change(&self, wanted: &BTreeSet<Member>) -> Result<(), Error> {
        loop {
            self.must_lead()?;
            let metrics = self.raft.metrics().borrow().clone();
            let membership = metrics.membership_config.membership();
            let members: BTreeSet<Member> = membership.nodes().map(|(id, _)| *id).collect();
            if quorums(&metrics) == [wanted.clone()] && members == *wanted {
                return Ok(());
            }
            let missing: Vec<Member> = wanted.difference(&members).copied().collect();
            if let Some(new) = missing.first() {
                let added = self.raft.add_learner(*new, openraft::EmptyNode::new(), false).await;
                self.settle(added.map(drop)).await?;
                continue;
            }
            self.catch_up(wanted).await?;
            let change = ChangeMembers::ReplaceAllVoters(wanted.clone());
            let changed = self.raft.change_membership(change, false).await.map(drop);
            let is_last = changed.is_ok();
            self.settle(changed).await?;
            // Not asked again by the metrics: a leader that is no voter any more does not lead.
            if is_last {
                self.shared.kick.notify_one();
                return Ok(());
            }
        }
    }

    /// What a refused step means: another change is on its way (wait a moment), or this is not for this member to do.
    async fn settle(&self, step: Written<()>) -> Result<(), Error> {
        match step {
            Ok(()) => Ok(()),
            Err(RaftError::Fatal(e)) => Err(Error::Stopped { why: e.to_string() }),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(Error::NotLeader { leader: forward.leader_id.map(NodeId::from) })
            }
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(e))) => match e {
                ChangeMembershipError::InProgress(_) | ChangeMembershipError::LearnerNotFound(_) => {
                    tokio::time::sleep(self.shared.config.timing.heartbeat).await;
                    Ok(())
                }
                ChangeMembershipError::EmptyMembership(_) => Err(Error::Refused { what: e.to_string() }),
            },
        }
    }

    /// Waits until every wanted member that is new has nearly the whole log.
    async fn catch_up(&self, wanted: &BTreeSet<Member>) -> Result<(), Error> {
        let mut metrics = self.raft.metrics();
        loop {
            {
                let now = metrics.borrow_and_update();
                let voters: BTreeSet<Member> = quorums(&now).into_iter().flatten().collect();
                let last = now.last_log_index.unwrap_or(0);
                let near = |member: &Member| {
                    let known = now.replication.as_ref().and_then(|all| all.get(member)).copied().flatten();
                    known.is_some_and(|log| log.index + CAUGHT_UP >= last)
                };
                if now.state != ServerState::Leader || wanted.difference(&voters).all(near) {
                    return Ok(());
                }
            }
            metrics.changed().await.map_err(|_| stopped())?;
        }
    }

    /// Gives the leadership to the member that is furthest, and does not stand again for a while.
    ///
    /// # Errors
    /// [`Error::NotLeader`]; [`Error::Refused`] in a group of one; [`Error::TimedOut`] when no other member took over: this one
    /// then leads on.
    pub async fn step_down(&self) -> Result<(), Error> {
        let standing = self.must_lead()?;
        let mut heirs: Vec<_> = standing.progress.into_iter().filter(|(id, _)| standing.voters.contains(id)).collect();
        heirs.sort_by_key(|(id, index)| (std::cmp::Reverse(*index), *id));
        if heirs.is_empty() {
            let what = "a group of one has nobody to hand over to; name more coordinators in the policy".to_owned();
            return Err(Error::Refused { what });
        }
        let mut last = Ok(());
        for (heir, _) in heirs {
            last = self.transfer(heir).await;
            match &last {
                Err(Error::TimedOut { .. }) => {}
                Ok(())
                | Err(Error::Open { .. } | Error::NotLeader { .. } | Error::Refused { .. } | Error::Stopped { .. }) => {
                    break;
                }
            }
        }
        last
    }

    /// Gives the leadership to this member. Meanwhile nothing is accepted; it takes about two heartbeats.
    ///
    /// # Errors
    /// [`Error::NotLeader`]; [`Error::Refused`] when it does not vote; [`Error::TimedOut`] when it did not take over: this member
    /// then leads on, unless another was elected meanwhile.
    pub async fn transfer(&self, to: NodeId) -> Result<(), Error> {
        let standing = self.must_lead()?;
        if to == standing.me {
            return Ok(());
        }
        if !standing.voters.contains(&to) {
            return Err(Error::Refused { what: format!("{to} does not vote in this group, so it cannot lead it") });
        }
        let timing = self.shared.config.timing;
        let what = format!("handing over to {to}");
        self.bounded(&what, timing.patience * 2, self.wait_for_log(to)).await??;
        self.hand_over(to.into(), standing.term).await;
        let led = self.bounded(&what, timing.patience * 2, self.wait_for_leader(to, standing.term)).await;
        {
            let mut contact = self.shared.contact();
            if contact.voice == Voice::HandingOver {
                contact.lead(&quorums(&self.raft.metrics().borrow()), self.shared.me(), Instant::now());
            }
            if matches!(led, Ok(Ok(()))) {
                contact.stand_back(Instant::now() + timing.patience * 2);
            }
        }
        self.shared.kick.notify_one();
        led?
    }

    async fn hand_over(&self, heir: Member, term: Term) {
        let timing = self.shared.config.timing;
        {
            let mut contact = self.shared.contact();
            contact.voice = Voice::HandingOver;
            contact.yield_to(heir, Instant::now() + timing.patience * 2);
        }
        self.shared.kick.notify_one();
        let voters: BTreeSet<Member> = quorums(&self.raft.metrics().borrow()).into_iter().flatten().collect();
        let others = voters.iter().filter(|voter| **voter != self.shared.me());
        let question = Question::Yield(term, heir);
        let told = others.map(|other| self.shared.line.ask(*other, &question, timing.heartbeat));
        // openraft's own lease is one heartbeat; the questions may take as long.
        let lease = tokio::time::sleep(timing.heartbeat + Duration::from_millis(10));
        tokio::join!(futures::future::join_all(told.collect::<Vec<_>>()), lease);
        let answer = self.shared.line.ask(heir, &Question::TakeOver(term), timing.heartbeat).await;
        if !matches!(answer, Ok(Answer::Yes)) {
            tracing::info!(%heir, ?answer, "the heir does not take over");
        }
    }

    /// Waits until a member has the whole log of this leader.
    async fn wait_for_log(&self, member: NodeId) -> Result<(), Error> {
        let mut metrics = self.raft.metrics();
        loop {
            {
                let now = metrics.borrow_and_update();
                let known = now.replication.as_ref().and_then(|all| all.get(&member.into())).copied().flatten();
                if now.state != ServerState::Leader {
                    return Err(Error::NotLeader { leader: now.current_leader.map(NodeId::from) });
                }
                if known.map(|log| log.index) == now.last_log_index {
                    return Ok(());
                }
            }
            metrics.changed().await.map_err(|_| stopped())?;
        }
    }

    async fn wait_for_leader(&self, leader: NodeId, after: Term) -> Result<(), Error> {
        let mut metrics = self.raft.metrics();
        loop {
            {
                let now = metrics.borrow_and_update();
                if now.current_term > after.0 && now.vote.is_committed() {
                    return match now.current_leader {
                        Some(leads) if leads == leader.into() => Ok(()),
                        other => Err(Error::NotLeader { leader: other.map(NodeId::from) }),
                    };
                }
            }
            metrics.changed().await.map_err(|_| stopped())?;
        }
    }

    fn must_lead(&self) -> Result<Standing, Error> {
        let standing = self.standing().borrow().clone();
        if let Life::Stopped(why) = standing.life {
            return Err(Error::Stopped { why });
        }
        if standing.leads() {
            return Ok(standing);
        }
        Err(Error::NotLeader { leader: standing.leader.filter(|leader| *leader != standing.me) })
    }

    async fn bounded<T>(&self, what: &str, within: Duration, work: impl Future<Output = T>) -> Result<T, Error> {
        let timed_out = |_| Error::TimedOut { what: what.to_owned(), after: within };
        tokio::time::timeout(within, work).await.map_err(timed_out)
    }
}

fn stopped() -> Error {
    Error::Stopped { why: "it was stopped".to_owned() }
}
