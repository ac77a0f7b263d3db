//! Strangers who ask a node that is no coordinator for what only a coordinator has: they get it, and cost little.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use harness::{Memory, Network, Plan};
use protocol::{Hash, Sha256};
use web::{
    Backend,
    api::{JobFilter, JobState},
};

use crate::{ground, sandbox::cancellation};

/// Questions for parts of the log, and for files by their digests.
const QUESTIONS: u64 = 10_000;
const DIGESTS: u64 = 1_000;
/// Who asks at one time.
const CALLERS: u64 = 16;
/// What it may cost the node, in KiB.
const COST_KIB_MAX: u64 = 48 * 1024;
/// What the node may ask coordinators for strangers in a second.
const PER_SECOND: u64 = 100;

/// Asks, and gives status, head and body.
fn ask(at: &str, path: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {at}\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head, answer[end + 4..].to_vec())
}

/// Has so many questions asked, some at a time, and counts the answers.
async fn flood(at: &str, questions: u64, path: fn(u64) -> String) -> BTreeMap<u16, u64> {
    let caller = |first: u64| {
        let at = at.to_owned();
        tokio::task::spawn_blocking(move || {
            let mut counts: BTreeMap<u16, u64> = BTreeMap::new();
            for number in (first..questions).step_by(CALLERS as usize) {
                let (status, head, _) = ask(&at, &path(number));
                assert!([200, 404, 429, 503].contains(&status), "{head}");
                let says_when = head.to_ascii_lowercase().contains("retry-after: ");
                assert_eq!(says_when, status >= 429, "{head}");
                *counts.entry(status).or_default() += 1;
            }
            counts
        })
    };
    let mut all: BTreeMap<u16, u64> = BTreeMap::new();
    for caller in (0..CALLERS).map(caller).collect::<Vec<_>>() {
        for (status, count) in caller.await.unwrap() {
            *all.entry(status).or_default() += count;
        }
    }
    all
}

/// Tiles and bundles of every width, some that there are not, and now and then the checkpoint.
fn part(number: u64) -> String {
    match number % 8 {
        0 => "/log/checkpoint".to_owned(),
        1 => format!("/log/tile/entries/x{:03}/{:03}", 1 + number / 1000 % 999, number % 1000),
        2 => format!("/log/tile/7/000.p/{}", 1 + number % 255),
        odd if odd % 2 == 1 => format!("/log/tile/0/000.p/{}", 1 + number / 8 % 24),
        _ => format!("/log/tile/entries/000.p/{}", 1 + number / 8 % 24),
    }
}

fn digest(number: u64) -> String {
    format!("/api/v1/artifacts/sha256:{}/attestations", Sha256::of(&number.to_be_bytes()))
}

/// Pages of a list of one state, while a job leaves it.
async fn older_jobs_are_there_though_the_last_one_has_another_state(network: &Network) {
    let client = network.client("coordinator");
    let queued = JobFilter { state: Some(JobState::Waiting), limit: Some(4), ..JobFilter::default() };
    let first = client.jobs(queued.clone()).await.unwrap();
    assert_eq!((first.jobs.len(), first.next), (4, first.jobs.last().map(|job| job.id)));
    let order = cancellation(network, first.next.unwrap(), &network.maintainer);
    client.order(order).await.unwrap();
    let second = client.jobs(JobFilter { after: first.next, ..queued }).await.unwrap();
    assert_eq!(second.jobs.len(), 4);
    let begins = second.jobs[0].id.to_string()[..10].to_owned();
    let found = client.jobs(JobFilter { begins: Some(begins), ..JobFilter::default() }).await.unwrap();
    assert_eq!(found.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [second.jobs[0].id]);
}

/// Pages, lists, views and logs of jobs that nobody knows.
fn job(number: u64) -> String {
    let id = Hash::of(&number.to_be_bytes());
    match number % 4 {
        0 => format!("/jobs/{id}"),
        1 => format!("/api/v1/jobs/{id}/log?follow=1"),
        2 => format!("/api/v1/jobs?begins={id}"),
        _ => format!("/api/v1/jobs/{id}"),
    }
}

#[tokio::test]
async fn ten_thousand_questions_at_a_mirror_are_few_at_the_coordinator() {
    let Some(ground) = ground().await else { return };
    let plan = Plan { mirrors: vec!["mirror".into()], ..Plan::builders(1) };
    let mut network = Network::found(&ground, &plan);
    network.start_some(&["coordinator", "mirror"]).await;
    for number in 0..10 {
        network.submit(&ground.script(&format!("job-{number}"), "echo > out")).await;
    }
    let (mirror, own) = (network.public_address("mirror"), network.public_address("coordinator"));
    let page = network.public("mirror");
    let relayed = async || page.metrics().await.unwrap().relayed;
    older_jobs_are_there_though_the_last_one_has_another_state(&network).await;
    let narrow =
        ["/log/tile/0/000.p/3", "/log/tile/entries/000.p/3", "/log/tile/0/000.p/9", "/log/tile/entries/000.p/9"];
    for path in narrow {
        let (here, there) = (ask(&mirror, path), ask(&own, path));
        assert_eq!((here.0, here.2 == there.2), (200, true), "{path} is what the coordinator serves");
    }
    let before = relayed().await;
    assert!((1..=6).contains(&before), "one checkpoint and the widest parts: {before}");

    let (memory, begun) = (Memory::of(network.node("mirror").pid()), Instant::now());
    let counts = flood(&mirror, QUESTIONS, part).await;
    let (seconds, asked) = (begun.elapsed().as_secs() + 1, relayed().await - before);
    println!(
        "figure: {QUESTIONS} questions for the log in {seconds} s: {counts:?}, {asked} to the coordinator, {}",
        memory.cost()
    );
    // Nobody knows whether the log has grown meanwhile, so the checkpoint is asked for once a second.
    assert!(asked <= 2 * seconds + 10, "{asked} in {seconds} s");
    assert!(counts[&200] > 0 && counts[&404] > 0, "{counts:?}");

    let (before, begun) = (relayed().await, Instant::now());
    let counts = flood(&mirror, DIGESTS, digest).await;
    let (seconds, asked) = (begun.elapsed().as_secs() + 1, relayed().await - before);
    println!("figure: {DIGESTS} digests in {seconds} s: {counts:?}, {asked} to the coordinator, {}", memory.cost());
    assert!(asked <= PER_SECOND * (seconds + 1), "{asked} in {seconds} s");

    let (before, begun) = (relayed().await, Instant::now());
    let counts = flood(&mirror, DIGESTS, job).await;
    let (seconds, asked) = (begun.elapsed().as_secs() + 1, relayed().await - before);
    println!("figure: {DIGESTS} jobs in {seconds} s: {counts:?}, {asked} to the coordinator, {}", memory.cost());
    assert!(asked > 0 && asked <= PER_SECOND * (seconds + 1), "{asked} in {seconds} s");
    let owner = network.client("mirror").jobs(JobFilter::default()).await.unwrap();
    assert_eq!((owner.jobs.len(), relayed().await - before), (10, asked), "the owner asks as often as he likes");
    let public = page.jobs(JobFilter::default()).await.unwrap();
    assert_eq!((public.jobs.len(), relayed().await - before), (10, asked + 1));
    assert!(memory.peak_kib() <= COST_KIB_MAX, "{}", memory.cost());
    assert_eq!(ask(&mirror, narrow[0]).0, 200, "it goes on");
}
