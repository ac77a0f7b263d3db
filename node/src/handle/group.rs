//! The view of the coordinators' group, as this node sees it.

use protocol::{NodeId, Timestamp};
use web::api::{ApiError, Coordination, Majority, MemberRole, MemberView, Time};

use crate::{
    clock,
    consensus::{self, Standing, storage::Health},
    daemon::{Decisions, Shared},
};

/// Shows the group: a member knows it; another node knows who leads, and whom the policy names.
pub(super) fn view(shared: &Shared, decisions: Option<&Decisions>) -> Coordination {
    let known = shared.known_leader();
    let Some(decisions) = decisions else {
        let leader = shared.leader();
        let policies = shared.policies();
        let member = |node: &NodeId| MemberView {
            node: *node,
            role: if leader == Some(*node) { MemberRole::Leader } else { MemberRole::Follower },
            log: None,
            applied: None,
            ledger: None,
        };
        return Coordination {
            at: Time::from(clock::now()),
            term: known.term,
            leader,
            since: known.leader.map(|(_, since)| Time::from(since)),
            majority: if leader.is_some() { Majority::Reachable } else { Majority::Unsettled },
            disk: None,
            members: policies.current().coordinators.candidates().iter().map(member).collect(),
        };
    };
    let standing = decisions.standing();
    let since = known.leader.filter(|_| known.term == standing.term && standing.leader.is_some());
    Coordination {
        at: Time::from(clock::now()),
        term: standing.term,
        leader: standing.leader,
        since: since.map(|(_, since): (NodeId, Timestamp)| Time::from(since)),
        majority: match standing.majority {
            // A leader whose office has not begun accepts nothing yet.
            consensus::Majority::Reachable if standing.leads() && shared.leads() != Some(standing.term) => {
                Majority::Unsettled
            }
            consensus::Majority::Reachable => Majority::Reachable,
            consensus::Majority::Unsettled => Majority::Unsettled,
            consensus::Majority::Missing => Majority::Missing,
        },
        disk: disk(&decisions.health()),
        members: members(&standing, decisions),
    }
}

/// Says what keeps the log from being written.
fn disk(health: &Health) -> Option<String> {
    match health {
        Health::Sound => None,
        Health::NoSpace { free, wanted } => Some(format!(
            "full: {} MiB are free, {} MiB must be; nothing is accepted here until you free some",
            free >> 20,
            wanted.div_ceil(1 << 20)
        )),
        Health::Failed(why) => Some(format!("failed: {why}; this coordinator stops")),
    }
}

fn members(standing: &Standing, decisions: &Decisions) -> Vec<MemberView> {
    let voters = standing.voters.iter().map(|node| (*node, MemberRole::Follower));
    let learners = standing.learners.difference(&standing.voters).map(|node| (*node, MemberRole::Learner));
    let mut members: Vec<MemberView> = voters
        .chain(learners)
        .map(|(node, role)| {
            let here = node == standing.me;
            MemberView {
                node,
                role: if standing.leader == Some(node) { MemberRole::Leader } else { role },
                log: if here { Some(standing.last_log) } else { standing.progress.get(&node).copied().flatten() },
                applied: here.then_some(standing.applied),
                ledger: here.then(|| decisions.digest()),
            }
        })
        .collect();
    members.sort_by_key(|member| member.node);
    members
}

/// What the owner is told when the group does not do as it was asked.
pub(super) fn refusal(error: consensus::Error) -> ApiError {
    match error {
        consensus::Error::NotLeader { .. } | consensus::Error::Refused { .. } => {
            ApiError::Refused { reason: error.to_string() }
        }
        consensus::Error::Open { .. } | consensus::Error::TimedOut { .. } | consensus::Error::Stopped { .. } => {
            ApiError::Unavailable { reason: error.to_string() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_said_in_words() {
        assert_eq!(disk(&Health::Sound), None);
        let words = "full: 3 MiB are free, 64 MiB must be; nothing is accepted here until you free some";
        assert_eq!(disk(&Health::NoSpace { free: 3 << 20, wanted: 64 << 20 }).as_deref(), Some(words));
        assert!(disk(&Health::Failed("no such device".into())).unwrap().contains("no such device"));
    }
}
