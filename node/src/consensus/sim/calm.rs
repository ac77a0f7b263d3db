//! Single stories: that a group stays calm, hands over in bounds, changes its members, and says when it cannot.

use std::{collections::BTreeSet, time::Duration};

use protocol::{NodeId, lease::Term};

use super::{
    cluster::{Cluster, Repair, member, timing},
    net::Weather,
    run,
};
use crate::consensus::{Error, Group, Majority, ProposeError, WireError, wires::Answer, wires::decode};

const LONG: Duration = Duration::from_secs(60);

async fn founded(seed: u64, size: u8) -> (Cluster, NodeId, Group) {
    let mut cluster = Cluster::new(seed, size);
    cluster.found().await.unwrap();
    let (leader, group) = led(&mut cluster).await;
    (cluster, leader, group)
}

async fn led(cluster: &mut Cluster) -> (NodeId, Group) {
    cluster.until("a leader", Duration::from_secs(8), |c| c.leader().is_some()).await.unwrap();
    cluster.leader().unwrap()
}

fn term(cluster: &Cluster) -> Term {
    let all = cluster.seats.keys().filter_map(|id| cluster.standing(*id));
    all.map(|standing| standing.term).max().unwrap()
}

fn follower(cluster: &Cluster, leader: NodeId) -> NodeId {
    cluster.voters.iter().copied().find(|id| *id != leader).unwrap()
}

async fn propose(group: &Group, id: u64) -> Result<u64, ProposeError> {
    group.propose(id.to_be_bytes().to_vec()).await.map(|at| at.index)
}

#[test]
fn a_member_that_flaps_deposes_nobody() {
    run(async {
        let (mut cluster, leader, group) = founded(11, 3).await;
        let before = term(&cluster);
        let flapping = follower(&cluster, leader);
        let until = tokio::time::Instant::now() + LONG;
        cluster.repair(Repair::Flap(flapping, until)).await.unwrap();
        for id in 1..=60 {
            cluster.pass(Duration::from_secs(1)).await.unwrap();
            propose(&group, id).await.unwrap();
        }
        assert_eq!((term(&cluster), cluster.leader().unwrap().0), (before, leader));
        cluster.close().await;
    });
}

/// One follower hears nobody, though all hear it: it may not even ask for votes, and nobody notices.
#[test]
fn a_deaf_follower_deposes_nobody() {
    run(async {
        let (mut cluster, leader, group) = founded(12, 3).await;
        let before = term(&cluster);
        let deaf = follower(&cluster, leader);
        for (from, to) in cluster.ways(deaf) {
            if to == deaf {
                cluster.net.cut(from, to);
            }
        }
        cluster.pass(LONG).await.unwrap();
        propose(&group, 1).await.unwrap();
        assert_eq!((term(&cluster), cluster.leader().unwrap().0), (before, leader));
        assert_eq!(cluster.standing(deaf).unwrap().majority, Majority::Missing);
        cluster.net.heal();
        cluster.pass(LONG).await.unwrap();
        assert_eq!((term(&cluster), cluster.leader().unwrap().0), (before, leader), "nor when it hears again");
        cluster.close().await;
    });
}

/// The dangerous one: its heartbeats would keep the others from electing, and it can commit nothing.
#[test]
fn a_deaf_leader_falls_silent_and_another_leads() {
    run(async {
        let (mut cluster, leader, group) = founded(13, 3).await;
        for (from, to) in cluster.ways(leader) {
            if to == leader {
                cluster.net.cut(from, to);
            }
        }
        let other = |c: &Cluster| c.leader().is_some_and(|(id, _)| id != leader);
        let took = cluster.until("another leader", Duration::from_secs(8), other).await.unwrap();
        println!("another leads after {took:?}");
        let standing = cluster.standing(leader).unwrap();
        assert!(!standing.leads(), "{standing:?}");
        assert!(matches!(propose(&group, 1).await, Err(ProposeError::NotLeader { .. })));
        let now = term(&cluster);
        cluster.pass(LONG).await.unwrap();
        assert_eq!(term(&cluster), now, "the new term lasts");
        cluster.net.heal();
        cluster.pass(Duration::from_secs(5)).await.unwrap();
        let (new, _) = cluster.leader().unwrap();
        assert_eq!(cluster.standing(leader).unwrap().leader, Some(new), "the old one follows");
        cluster.close().await;
    });
}

#[test]
fn a_link_cut_between_two_followers_or_one_way_to_the_leader_changes_no_term() {
    run(async {
        let (mut cluster, leader, group) = founded(14, 3).await;
        let before = term(&cluster);
        let followers: Vec<NodeId> = cluster.voters.iter().copied().filter(|id| *id != leader).collect();
        for (from, to) in [(followers[0], followers[1]), (leader, followers[0]), (followers[1], leader)] {
            cluster.net.cut(from, to);
            cluster.pass(LONG / 2).await.unwrap();
            propose(&group, u64::from(from.as_bytes()[0]) * 256 + u64::from(to.as_bytes()[0])).await.unwrap();
            assert_eq!((term(&cluster), cluster.leader().unwrap().0), (before, leader), "{from} to {to}");
            cluster.net.mend(from, to);
            cluster.pass(Duration::from_secs(3)).await.unwrap();
        }
        cluster.close().await;
    });
}

#[test]
fn a_minority_accepts_nothing_and_says_so() {
    run(async {
        let (mut cluster, leader, group) = founded(15, 3).await;
        cluster.ways(leader).into_iter().for_each(|(from, to)| cluster.net.cut(from, to));
        let promised = propose(&group, 1).await;
        assert_eq!(promised, Err(ProposeError::NoMajority { after: timing().patience * 2 }), "the outcome is unknown");
        let silent = |c: &Cluster| c.standing(leader).is_some_and(|s| !s.leads() && s.majority == Majority::Missing);
        cluster.until("the leader says so", timing().patience * 2, silent).await.unwrap();
        assert_eq!(propose(&group, 2).await, Err(ProposeError::NotLeader { leader: None }));
        let (_, new) = led(&mut cluster).await;
        propose(&new, 3).await.unwrap();
        cluster.net.heal();
        let all =
            |c: &Cluster| c.up().iter().all(|id| c.items(*id).iter().map(|item| item.id).collect::<Vec<_>>() == [3]);
        cluster.until("equal lists", Duration::from_secs(8), all).await.unwrap();
        cluster.close().await;
    });
}

/// Both survivors of a crash start equal, again and again.
#[test]
fn survivors_never_tie_for_ever() {
    let mut times: Vec<Duration> = (0..100)
        .map(|seed| {
            run(async {
                let (mut cluster, leader, _) = founded(1000 + seed, 3).await;
                cluster.crash(leader);
                let took = cluster.until("a new leader", Duration::from_secs(4), |c| c.leader().is_some()).await;
                cluster.close().await;
                took.unwrap()
            })
        })
        .collect();
    times.sort();
    println!("new leader after a crash: median {:?}, most {:?} of {}", times[50], times[99], times.len());
    assert!(times[99] < Duration::from_secs(4));
}

#[test]
fn a_group_of_one_leads_at_once_and_in_a_new_term_after_each_restart() {
    run(async {
        let (mut cluster, me, group) = founded(16, 1).await;
        assert!(cluster.started.elapsed() < Duration::from_millis(500), "{:?}", cluster.started.elapsed());
        for id in 1..=70 {
            propose(&group, id).await.unwrap();
        }
        for restart in 0..3 {
            let before = term(&cluster);
            cluster.repair(Repair::Restart(me)).await.unwrap();
            cluster.crash(me);
            cluster.start(me).await.unwrap();
            let (_, group) = led(&mut cluster).await;
            assert!(term(&cluster) > before, "an order of the former process must be refusable");
            propose(&group, 100 + restart).await.unwrap();
            assert_eq!(cluster.items(me).len(), 71 + usize::try_from(restart).unwrap());
        }
        assert!(matches!(led(&mut cluster).await.1.step_down().await, Err(Error::Refused { .. })));
        cluster.close().await;
    });
}

#[test]
fn the_lead_is_handed_to_whom_one_names_and_back() {
    run(async {
        let (mut cluster, leader, group) = founded(17, 3).await;
        let heir = follower(&cluster, leader);
        assert!(matches!(group.transfer(member(77)).await, Err(Error::Refused { .. })));
        let start = tokio::time::Instant::now();
        group.transfer(heir).await.unwrap();
        println!("handed over in {:?}", start.elapsed());
        let (new, group) = led(&mut cluster).await;
        assert_eq!(new, heir);
        assert!(start.elapsed() < timing().patience * 2);
        propose(&group, 1).await.unwrap();
        group.step_down().await.unwrap();
        let (newer, group) = led(&mut cluster).await;
        assert_ne!(newer, heir, "who stepped down does not come back at once");
        propose(&group, 2).await.unwrap();
        let asked = cluster.seats[&heir].group.clone().unwrap().step_down().await;
        assert_eq!(asked, Err(Error::NotLeader { leader: Some(newer) }));
        cluster.close().await;
    });
}

#[test]
fn a_lead_that_nobody_takes_is_kept() {
    run(async {
        let (mut cluster, leader, group) = founded(18, 3).await;
        let heir = follower(&cluster, leader);
        let before = term(&cluster);
        cluster.crash(heir);
        assert!(matches!(group.transfer(heir).await, Err(Error::TimedOut { .. })));
        let (still, group) = led(&mut cluster).await;
        assert_eq!((still, term(&cluster)), (leader, before));
        propose(&group, 1).await.unwrap();
        cluster.close().await;
    });
}

/// A removed member that was never told keeps asking; nobody minds.
#[test]
fn a_removed_member_does_not_disturb() {
    run(async {
        let (mut cluster, leader, group) = founded(19, 3).await;
        let gone = follower(&cluster, leader);
        cluster.ways(gone).into_iter().for_each(|(from, to)| cluster.net.cut(from, to));
        let rest: BTreeSet<NodeId> = cluster.voters.iter().copied().filter(|id| *id != gone).collect();
        group.set_voters(rest.clone()).await.unwrap();
        group.set_voters(rest.clone()).await.unwrap();
        (cluster.voters, cluster.wanted) = (rest.clone(), rest);
        cluster.net.heal();
        let before = term(&cluster);
        cluster.pass(LONG).await.unwrap();
        assert_eq!((term(&cluster), cluster.leader().unwrap().0), (before, leader));
        cluster.close().await;
    });
}

#[test]
fn a_dead_member_is_replaced_and_the_new_one_gets_a_snapshot() {
    run(async {
        let (mut cluster, leader, group) = founded(20, 3).await;
        for id in 1..=200 {
            propose(&group, id).await.unwrap();
        }
        let (dead, new) = (follower(&cluster, leader), member(50));
        cluster.crash(dead);
        let mut wanted = cluster.voters.clone();
        wanted.remove(&dead);
        wanted.insert(new);
        cluster.voters = wanted.clone();
        cluster.wanted = wanted.clone();
        cluster.start(new).await.unwrap();
        group.set_voters(wanted.clone()).await.unwrap();
        let all = |c: &Cluster| c.items(new).len() == 200;
        cluster.until("the new one has all", Duration::from_secs(5), all).await.unwrap();
        assert!(cluster.witness.lock().counts.0.contains_key("snapshot received"));
        let standing = cluster.standing(new).unwrap();
        assert_eq!((standing.voters, standing.learners), (wanted, BTreeSet::new()));
        assert!(matches!(group.set_voters(BTreeSet::new()).await, Err(Error::Refused { .. })));
        cluster.close().await;
    });
}

/// A member whose disk fails stops and says so; the others go on.
#[test]
fn a_member_with_a_failed_disk_stops() {
    run(async {
        let (mut cluster, leader, group) = founded(21, 3).await;
        cluster.seats[&leader].disk.fail_in(1);
        assert!(propose(&group, 1).await.is_err());
        let stopped = |c: &Cluster| !c.is_up(leader);
        cluster.until("the member stops", Duration::from_secs(2), stopped).await.unwrap();
        assert!(matches!(propose(&group, 2).await, Err(ProposeError::Stopped { why }) if why.contains("disk failed")));
        let (new, group) = led(&mut cluster).await;
        assert_ne!(new, leader);
        propose(&group, 3).await.unwrap();
        cluster.close().await;
    });
}

/// Strangers and garbage get an answer that says no, and change nothing.
#[test]
fn strangers_and_garbage_are_refused() {
    run(async {
        let (cluster, _, group) = founded(22, 3).await;
        for (from, message) in
            [(member(99), vec![1, 4]), (member(1), vec![]), (member(1), vec![1; 100]), (member(1), vec![9])]
        {
            let answer: Answer = decode(&group.answer(from, &message).await).unwrap();
            assert!(matches!(answer, Answer::Refused(_)), "{from} {message:?}: {answer:?}");
        }
        let unreachable = WireError::Unreachable { to: member(1), why: "gone".to_owned() };
        assert!(unreachable.to_string().contains("cannot be reached"));
        cluster.close().await;
    });
}

/// Rounds that take longer than a heartbeat, and a tenth of the messages lost: slow, but with one leader.
#[test]
fn a_bad_network_has_few_terms() {
    run(async {
        let (mut cluster, ..) = founded(23, 3).await;
        let before = term(&cluster);
        cluster.net.set_weather(Weather { loss: 10, twice: 5, delay: 30..150 });
        for id in 1..=60 {
            cluster.pass(Duration::from_secs(1)).await.unwrap();
            if let Some((_, group)) = cluster.leader() {
                // With such losses a proposal may time out; it must not be lost once acknowledged.
                if let Ok(at) = group.propose(u64::to_be_bytes(id).to_vec()).await {
                    cluster.witness.lock().acknowledge(id, at);
                }
            }
        }
        let terms = term(&cluster).0 - before.0;
        println!("{terms} new terms in a minute of bad network");
        assert!(terms <= 5, "{terms} new terms in a minute");
        cluster.close().await;
    });
}
