//! Coordinators, builders and a mirror on links that break: who is in the minority accepts nothing and publishes nothing, and
//! says so; afterwards all have equal ledgers.

use std::time::Instant;

use harness::{Cables, Ground, Lab, Network, Plan, Station, at_once, until};
use protocol::{Arch, JobId};
use web::{
    Backend,
    api::{JobState, Majority},
    backend::ByteRange,
};

use crate::{
    elected::{ANOTHER_WITHIN, EQUAL_WITHIN, WITHIN, equal, jobs},
    ground,
};

/// What a busy machine may hide or disturb is tried again so often.
const TRIES_MAX: usize = 5;

/// Gives the network and its leader, or says why this machine cannot make one.
async fn apart() -> Option<(Ground, Network, String)> {
    if let Err(why) = Lab::make() {
        assert!(std::env::var_os("ARTEL_TESTS").is_none_or(|word| word != "required"), "{why}");
        println!("SKIPPED: no network namespaces here: {why}");
        return None;
    }
    let ground = ground().await?;
    let mirrors = vec!["mirror".to_owned()];
    let plan = Plan { coordinators: 3, cables: Cables::Namespaces, mirrors, ..Plan::builders(2) };
    let mut network = Network::found(&ground, &plan);
    network.start().await;
    let leader = network.led(ANOTHER_WITHIN, &[]).await;
    network.ask_at(&leader);
    Some((ground, network, leader))
}

fn at(network: &Network, name: &str) -> Station {
    network.lab().1[name]
}

/// Everybody but these.
fn others(network: &Network, not: &[&str]) -> Vec<Station> {
    network.lab().1.iter().filter(|(name, _)| !not.contains(&name.as_str())).map(|(_, station)| *station).collect()
}

async fn generation(network: &Network, name: &str) -> u64 {
    let views = network.client(name).repositories().await.unwrap();
    views.iter().map(|view| view.generation).max().unwrap_or(0)
}

async fn majority(network: &Network, name: &str) -> Option<Majority> {
    network.client(name).coordination().await.ok().map(|view| view.majority)
}

async fn publish(network: &Network, ground: &Ground, version: &str) -> JobId {
    let job = network.submit(&ground.tiny_version(version, network.folder())).await;
    let detail = network.over(job, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    job
}

async fn refused(network: &mut Network, ground: &Ground, name: &str) {
    network.ask_at(name);
    let prepared = ground.script("nobody", "echo nobody > out");
    let submitted = network.try_submit(&prepared).await;
    let why = submitted.expect_err("a minority accepts nothing").to_string();
    assert!(why.contains("majority"), "{name} says why: {why}");
}

#[tokio::test]
async fn a_leader_alone_accepts_and_publishes_nothing() {
    let Some((ground, mut network, old)) = apart().await else { return };
    let first = publish(&network, &ground, "1.0").await;
    let rest = others(&network, &[&old]);
    network.lab().0.part(&[at(&network, &old)], &rest);
    let cut = Instant::now();
    let new = network.led(ANOTHER_WITHIN, &[&old]).await;
    println!("figure: another leads {:.2} s after the partition", cut.elapsed().as_secs_f64());
    until("the old leader says that it has no majority", ANOTHER_WITHIN, async || {
        (majority(&network, &old).await? == Majority::Missing).then_some(())
    })
    .await;
    refused(&mut network, &ground, &old).await;
    network.ask_at(&new);
    let second = publish(&network, &ground, "1.1").await;
    assert_eq!(generation(&network, &old).await, 1, "the minority published nothing");
    network.lab().0.heal();
    let names = network.candidates().to_vec();
    equal(&network, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for name in &names {
        assert_eq!(jobs(&network, name).await, [first, second], "{name}");
    }
    until("the mirror has the newest release", EQUAL_WITHIN, async || {
        (generation(&network, "mirror").await == generation(&network, &new).await).then_some(())
    })
    .await;
    let path = format!("dists/{}/InRelease", ground.lock.suite);
    let mirror = network.client("mirror");
    let file = mirror.repository_file(network.channel.clone(), path.parse().unwrap(), ByteRange::All);
    assert!(file.await.is_ok());
}

/// Where a job is, as one node sees it.
async fn state(network: &Network, name: &str, job: JobId) -> Option<JobState> {
    Some(network.client(name).job(job).await.ok()?.summary.state)
}

/// Submits a version and looks until its publication is in flight; gives the job, as an error when it was over before that was
/// seen.
async fn in_flight(network: &Network, ground: &Ground, (leader, number): (&str, usize)) -> Result<JobId, JobId> {
    let job = network.submit(&ground.tiny_version(&format!("1.{number}"), network.folder())).await;
    at_once("the publication is under way", WITHIN, async || {
        let state = state(network, leader, job).await?;
        if state == JobState::Publishing { Some(Ok(job)) } else { state.is_over().then_some(Err(job)) }
    })
    .await
}

/// The mirror's index, once it has a version.
async fn index_with(network: &Network, ground: &Ground, version: &str) -> String {
    let path = format!("dists/{}/main/binary-{}/Packages", ground.lock.suite, Arch::native().unwrap());
    let (mirror, line) = (network.client("mirror"), format!("Version: {version}\n"));
    until("the mirror shows the newest version", EQUAL_WITHIN, async || {
        let file = mirror.repository_file(network.channel.clone(), path.parse().unwrap(), ByteRange::All).await.ok()?;
        let index = String::from_utf8(file.collect(1 << 20).await.ok()?.to_vec()).unwrap();
        index.contains(&line).then_some(index)
    })
    .await
}

#[tokio::test]
async fn a_publication_in_flight_when_its_leader_is_cut_off_comes_about_once() {
    let Some((ground, mut network, old)) = apart().await else { return };
    let first = publish(&network, &ground, "1.0").await;
    let rest = others(&network, &[&old]);
    let mut published = vec![first];
    let second = loop {
        let job = in_flight(&network, &ground, (&old, published.len())).await;
        match job {
            Ok(job) => break job,
            Err(over) => published.push(over),
        }
        assert!(published.len() <= TRIES_MAX, "no publication is ever seen in flight");
    };
    network.lab().0.part(&[at(&network, &old)], &rest);
    let new = network.led(ANOTHER_WITHIN, &[&old]).await;
    until("the old leader says that it has no majority", ANOTHER_WITHIN, async || {
        (majority(&network, &old).await? == Majority::Missing).then_some(())
    })
    .await;
    let (alone, there) = (state(&network, &old, second).await, generation(&network, &old).await);
    println!("figure: the old leader alone sees the job as {alone:?}, and has generation {there}");
    network.ask_at(&new);
    let detail = network.over(second, WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    let third = publish(&network, &ground, "2.0").await;
    assert_eq!(generation(&network, &old).await, there, "the minority published nothing more");
    assert_eq!(state(&network, &old, second).await, alone, "nor does it say so");
    network.lab().0.heal();
    let (healed, names) = (Instant::now(), network.candidates().to_vec());
    equal(&network, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    println!("figure: equal ledgers {:.2} s after the links were mended", healed.elapsed().as_secs_f64());
    published.extend([second, third]);
    for name in &names {
        assert_eq!(jobs(&network, name).await, published, "{name}");
    }
    let index = index_with(&network, &ground, "2.0").await;
    let lines = |word: &str| index.lines().filter(|line| *line == word).count();
    assert_eq!((lines("Package: artel-tiny"), lines("Package: artel-tiny-doc")), (1, 1), "{index}");
    assert_eq!(generation(&network, "mirror").await, generation(&network, &new).await);
}

#[tokio::test]
async fn three_coordinators_alone_are_none_and_come_together_again() {
    let Some((ground, mut network, _)) = apart().await else { return };
    let first = publish(&network, &ground, "1.0").await;
    let names = network.candidates().to_vec();
    for name in &names {
        let one = at(&network, name);
        let rest: Vec<Station> = names.iter().map(|other| at(&network, other)).filter(|other| *other != one).collect();
        network.lab().0.part(&[one], &rest);
    }
    for name in &names {
        until(&format!("{name} says that it has no majority"), ANOTHER_WITHIN, async || {
            (majority(&network, name).await? == Majority::Missing).then_some(())
        })
        .await;
        refused(&mut network, &ground, name).await;
    }
    network.lab().0.heal();
    let leader = network.led(EQUAL_WITHIN, &[]).await;
    equal(&network, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    network.ask_at(&leader);
    let second = publish(&network, &ground, "1.1").await;
    assert_eq!(jobs(&network, &leader).await, [first, second]);
}

#[tokio::test]
async fn a_link_that_is_deaf_in_one_direction_deposes_nobody_for_ever() {
    let Some((ground, mut network, leader)) = apart().await else { return };
    let first = network.client(&leader).coordination().await.unwrap().term.0;
    let mut before = first;
    let names = network.candidates().to_vec();
    let deaf = names.iter().find(|name| **name != leader).unwrap().clone();
    // It hears nobody of the group, and everybody hears it.
    for name in names.iter().filter(|name| **name != deaf) {
        network.lab().0.cut(at(&network, name), at(&network, &deaf));
    }
    until("the deaf coordinator says that it has no majority", ANOTHER_WITHIN, async || {
        (majority(&network, &deaf).await? != Majority::Reachable).then_some(())
    })
    .await;
    let mut published = Vec::new();
    loop {
        published.push(publish(&network, &ground, &format!("1.{}", published.len())).await);
        let after = network.client(&leader).coordination().await.unwrap().term.0;
        println!("figure: the term went from {before} to {after} beside a coordinator that hears nobody");
        if after <= before + 2 {
            break;
        }
        assert!(after <= first + 2 * TRIES_MAX as u64, "the term goes up and up");
        assert!(published.len() < TRIES_MAX, "a deaf member must not depose leader after leader");
        before = after;
    }
    network.lab().0.heal();
    equal(&network, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let leader = network.led(ANOTHER_WITHIN, &[]).await;
    network.ask_at(&leader);
    published.push(publish(&network, &ground, "2.0").await);
    assert_eq!(jobs(&network, &leader).await, published);
}
