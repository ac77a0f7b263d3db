//! How a member stands, in the words of [`Standing`], from openraft's metrics and from who was heard when.

use std::collections::BTreeSet;

use openraft::ServerState;
use protocol::{NodeId, lease::Term};
use tokio::time::Instant;

use super::{
    Life, Majority, Member, Standing,
    contact::{Contact, Reach, Voice},
    group::{Metrics, Shared, progress, quorums},
};

/// Computes the standing. `times` are the present, and since when term and leader have been the same.
pub(super) fn of(metrics: &Metrics, shared: &Shared, times: (Instant, Instant)) -> Standing {
    let (now, since) = times;
    let me = shared.me();
    let voters: BTreeSet<Member> = quorums(metrics).into_iter().flatten().collect();
    let nodes = |members: &mut dyn Iterator<Item = Member>| members.map(NodeId::from).collect::<BTreeSet<NodeId>>();
    let learners = metrics.membership_config.membership().learner_ids();
    let contact = shared.contact();
    let majority = majority(metrics, &contact, me, now);
    Standing {
        me: shared.config.me,
        term: Term(metrics.current_term),
        leader: leader(metrics, &contact, &voters, now).map(NodeId::from),
        since,
        learners: nodes(&mut learners.filter(|learner| !voters.contains(learner))),
        voters: nodes(&mut voters.iter().copied()),
        applied: metrics.last_applied.map_or(0, |log| log.index),
        last_log: metrics.last_log_index.unwrap_or(0),
        majority,
        progress: progress(metrics),
        life: match &metrics.running_state {
            Ok(()) => Life::Running,
            Err(e) => Life::Stopped(e.to_string()),
        },
    }
}

/// Who leads: a leader that was not heard for long leads no more, and one that is no voter has been removed.
fn leader(metrics: &Metrics, contact: &Contact, voters: &BTreeSet<Member>, now: Instant) -> Option<Member> {
    let leader = metrics.current_leader.filter(|leader| voters.contains(leader))?;
    if leader == metrics.id {
        return (contact.voice == Voice::Speaking && metrics.state == ServerState::Leader).then_some(leader);
    }
    (now < contact.may_stand_at(u32::try_from(voters.len()).unwrap_or(u32::MAX))).then_some(leader)
}

fn majority(metrics: &Metrics, contact: &Contact, me: Member, now: Instant) -> Majority {
    match (metrics.state == ServerState::Leader, contact.voice, contact.reach) {
        (true, Voice::Speaking, _) if contact.followed(&quorums(metrics), me, now) => Majority::Reachable,
        (true, Voice::HandingOver, _) => Majority::Unsettled,
        (true, Voice::Speaking | Voice::Silent, _) => Majority::Missing,
        (false, _, Reach::TooFew) => Majority::Missing,
        (false, _, _) if contact.leader_lives(now) && metrics.current_leader.is_some() => Majority::Reachable,
        (false, _, Reach::Enough | Reach::Unknown) => Majority::Unsettled,
    }
}
