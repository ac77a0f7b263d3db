//! Heartbeats, elections, and whether a majority follows: the pulse of one member.
//!
//! ```text
//!               heard the leader                     a majority would vote for me
//!        +--------------------------+          +------------------------------------+
//!        v                          |          |                                    v
//!   following --patience + rank--> asking "would you?" --too few, or no--> wait    candidate --elected--> leading
//!        ^                                                                 |         |                    |    ^
//!        +-----------------------------------------------------------------+---------+         no majority     a majority
//!                                                                                              answers |       answers again
//!                                                                                                      v    |
//!                                                                                                     silent (asks "are you there?")
//! ```
//!
//! Nothing here draws lots: a member of rank r among the voters waits `patience + r * stagger`, and r staggers more after each
//! try, so that two that started together part company.

use std::{collections::BTreeSet, future::Future, pin::Pin, sync::Arc};

use futures::{StreamExt, stream::FuturesUnordered};
use openraft::{Raft, ServerState};
use protocol::lease::Term;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Life, Member, Standing, Types,
    contact::{Reach, Voice, is_majority},
    group::{Metrics, Shared, quorums},
    standing,
    wires::{Answer, Question},
};

/// Questions of one leader on their way at once; more only pile up when its own core does not answer, and then say nothing new.
const ASKED_MAX: usize = 64;

/// A question on its way to a member, and its answer as far as there is one.
type Asked = Pin<Box<dyn Future<Output = (Member, Option<Answer>)> + Send>>;

/// Drives one member.
pub(super) struct Pulse {
    raft: Raft<Types>,
    shared: Arc<Shared>,
    told: watch::Sender<Standing>,
    /// The term in which this member was last seen leading.
    leads: Option<u64>,
    /// When the next heartbeat is due, as a leader.
    beat: Instant,
    /// Not before this time does this member ask for votes again.
    patient_until: Instant,
    /// Tries since a leader was last heard.
    tries: u32,
    /// Questions of the leader that are on their way.
    asked: FuturesUnordered<Asked>,
    /// Who answered since this leader fell silent.
    back: BTreeSet<Member>,
}

impl Pulse {
    pub(super) fn new(raft: Raft<Types>, shared: Arc<Shared>, told: watch::Sender<Standing>) -> Pulse {
        let now = Instant::now();
        Pulse {
            raft,
            shared,
            told,
            leads: None,
            beat: now,
            patient_until: now,
            tries: 0,
            asked: FuturesUnordered::new(),
            back: BTreeSet::new(),
        }
    }

    /// Runs until the group stops, its engine fails, or nobody holds it any more.
    pub(super) async fn run(mut self, ending: CancellationToken) {
        let mut changes = self.raft.metrics();
        loop {
            let metrics = changes.borrow_and_update().clone();
            if metrics.running_state.is_err() {
                self.tell(&metrics);
                return;
            }
            let next = tokio::select! {
                biased;
                () = ending.cancelled() => break,
                next = self.step(&metrics) => next,
            };
            self.tell(&metrics);
            tokio::select! {
                biased;
                () = ending.cancelled() => break,
                changed = changes.changed() => if changed.is_err() { break },
                Some((member, answer)) = self.asked.next(), if !self.asked.is_empty() => self.take(member, answer),
                () = self.shared.kick.notified() => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
        self.told.send_modify(|standing| {
            if standing.life == Life::Running {
                standing.life = Life::Stopped("it was stopped".to_owned());
            }
        });
    }

    /// Does what is due, and says when something is due next.
    async fn step(&mut self, metrics: &Metrics) -> Instant {
        let voters = quorums(metrics);
        let is_voter = voters.iter().flatten().any(|voter| *voter == metrics.id);
        if metrics.state == ServerState::Leader {
            return self.lead(metrics, &voters);
        }
        if self.leads.take().is_some() {
            self.asked.clear();
            let mut contact = self.shared.contact();
            contact.voice = Voice::Speaking;
            contact.reach = Reach::Unknown;
        }
        if is_voter { self.follow(metrics, &voters).await } else { self.later() }
    }

    /// When nothing else is due: soon enough that the standing stays true.
    fn later(&self) -> Instant {
        Instant::now() + self.shared.config.timing.patience / 2
    }

    fn lead(&mut self, metrics: &Metrics, voters: &[BTreeSet<Member>]) -> Instant {
        let now = Instant::now();
        let timing = self.shared.config.timing;
        if self.leads != Some(metrics.current_term) {
            self.leads = Some(metrics.current_term);
            (self.beat, self.tries) = (now, 0);
            self.back.clear();
            self.shared.contact().lead(voters, metrics.id, now);
        }
        let (voice, followed) = {
            let mut contact = self.shared.contact();
            let followed = contact.followed(voters, metrics.id, now);
            let (applied, membership) = (metrics.last_applied, metrics.membership_config.log_id());
            let removed = applied >= *membership && !voters.iter().flatten().any(|voter| *voter == metrics.id);
            if removed {
                // openraft would lead on until its next tick; the others shall elect one of their own now.
                contact.voice = Voice::Silent;
                return now + timing.patience;
            }
            if contact.voice == Voice::Speaking && !followed {
                tracing::warn!(term = metrics.current_term, "no majority answers this leader; it keeps quiet");
                (contact.voice, contact.reach) = (Voice::Silent, Reach::TooFew);
                self.back.clear();
            }
            (contact.voice, followed)
        };
        if now >= self.beat {
            self.beat = now + timing.heartbeat;
            match voice {
                Voice::Speaking if followed => self.beat(metrics, voters, now),
                Voice::Speaking | Voice::Silent => self.ask_others(metrics, voters, |_| Some(Question::Reach)),
                Voice::HandingOver => {}
            }
        }
        self.beat
    }

    /// One heartbeat: openraft's, and ours to those whose entries are slow.
    fn beat(&mut self, metrics: &Metrics, voters: &[BTreeSet<Member>], now: Instant) {
        let raft = self.raft.clone();
        let me = metrics.id;
        // Through openraft's own loop: a leader whose disk hangs has no pulse.
        let beating = async move { (me, raft.trigger().heartbeat().await.ok().map(|()| Answer::Yes)) };
        self.asked.push(Box::pin(beating));
        let late = self.shared.config.timing.heartbeat * 3 / 2;
        let shared = Arc::clone(&self.shared);
        let term = Term(metrics.current_term);
        self.ask_others(metrics, voters, |voter| {
            let fresh = shared.contact().fresh(voter, late, now);
            (!fresh).then_some(Question::Pulse(term))
        });
    }

    fn ask_others(
        &mut self,
        metrics: &Metrics,
        voters: &[BTreeSet<Member>],
        question: impl Fn(Member) -> Option<Question>,
    ) {
        let everybody: BTreeSet<Member> = voters.iter().flatten().copied().collect();
        for voter in everybody.into_iter().filter(|voter| *voter != metrics.id) {
            if self.asked.len() >= ASKED_MAX {
                return;
            }
            let Some(question) = question(voter) else { continue };
            let (shared, raft) = (Arc::clone(&self.shared), self.raft.clone());
            let within = shared.config.timing.patience / 2;
            self.asked.push(Box::pin(async move {
                // The same here: no word of a leader whose core does not answer.
                if raft.with_raft_state(|_| ()).await.is_err() {
                    return (voter, None);
                }
                (voter, shared.line.ask(voter, &question, within).await.ok())
            }));
        }
    }

    /// Takes the answer to a leader's question.
    fn take(&mut self, member: Member, answer: Option<Answer>) {
        let Some(term) = self.leads else { return };
        let now = Instant::now();
        let metrics = self.raft.metrics().borrow().clone();
        if member == metrics.id || metrics.current_term != term {
            return;
        }
        let mut contact = self.shared.contact();
        match (answer, contact.voice) {
            (Some(Answer::Yes), Voice::Speaking) => contact.acked(member, now),
            (Some(Answer::Here { .. }), Voice::Silent) => {
                self.back.insert(member);
                let voters = quorums(&metrics);
                if is_majority(&voters, |voter| *voter == metrics.id || self.back.contains(voter)) {
                    tracing::info!(term, "a majority answers this leader again");
                    contact.lead(&voters, metrics.id, now);
                    self.back.clear();
                    self.beat = now;
                }
            }
            (Some(_) | None, Voice::Speaking | Voice::Silent | Voice::HandingOver) => {}
        }
    }

    async fn follow(&mut self, metrics: &Metrics, voters: &[BTreeSet<Member>]) -> Instant {
        let now = Instant::now();
        let timing = self.shared.config.timing;
        let everybody: BTreeSet<Member> = voters.iter().flatten().copied().collect();
        let alone = everybody.len() == 1;
        let rank = everybody.iter().position(|voter| *voter == metrics.id).unwrap_or(0);
        let rank = u32::try_from(rank).unwrap_or(u32::MAX);
        let (heard, at) = {
            let contact = self.shared.contact();
            (contact.heard(), contact.may_stand_at(rank))
        };
        if self.patient_until < heard {
            self.tries = 0;
        }
        let at = if alone { self.patient_until } else { at.max(self.patient_until) };
        if now < at {
            return at.min(self.later());
        }
        let willing = alone || would_win(&self.shared, metrics, voters).await;
        // Longer with each rank, so that two that asked together do not ask together again; bounded, so that a lone survivor's
        // patience does not outgrow the bound on the time without a leader.
        self.tries = (self.tries + 1).min(3);
        self.patient_until = Instant::now() + timing.stagger * (1 + (rank + 1) * self.tries);
        let still = self.shared.contact().heard() == heard;
        if willing && still && self.raft.trigger().elect().await.is_err() {
            tracing::debug!("the engine has stopped: no election");
        }
        self.patient_until
    }

    fn tell(&self, metrics: &Metrics) {
        let now = Instant::now();
        self.told.send_if_modified(|standing| {
            let mut new = standing::of(metrics, &self.shared, (now, standing.since));
            if (new.term, new.leader) != (standing.term, standing.leader) {
                new.since = now;
            }
            let changed = new != *standing;
            *standing = new;
            changed
        });
    }
}

/// Asks the others whether they would vote for this member. Changes nothing anywhere.
async fn would_win(shared: &Shared, metrics: &Metrics, voters: &[BTreeSet<Member>]) -> bool {
    let others: BTreeSet<Member> = voters.iter().flatten().copied().filter(|voter| *voter != metrics.id).collect();
    let (line, within) = (&shared.line, shared.config.timing.heartbeat);
    let last_log = shared.marks.last_log();
    let question = Question::WouldYou(last_log);
    let mut asking: FuturesUnordered<_> = others
        .into_iter()
        .map(|other| {
            let question = &question;
            async move { (other, line.ask(other, question, within).await) }
        })
        .collect();
    let (mut there, mut yes) = (BTreeSet::from([metrics.id]), BTreeSet::from([metrics.id]));
    while let Some((other, answer)) = asking.next().await {
        let Ok(answer) = answer else { continue };
        there.insert(other);
        if matches!(answer, Answer::Yes) {
            yes.insert(other);
        }
        if is_majority(voters, |voter| yes.contains(voter)) {
            break;
        }
    }
    let enough = is_majority(voters, |voter| there.contains(voter));
    shared.contact().reach = if enough { Reach::Enough } else { Reach::TooFew };
    is_majority(voters, |voter| yes.contains(voter))
}
