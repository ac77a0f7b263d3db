//! The coordinator is killed in every phase of a job, pinned and elected: somebody serves again soon, nothing that was
//! promised is lost, and nothing happens twice.
//!
//! `ARTEL_KILLS` says how often in each phase; `make chaos` sets 25.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use harness::{Ground, Network, Plan, at_once, until};
use protocol::{Arch, JobId, words::RelativePath};
use web::{
    Backend,
    api::{AttemptState, JobDetail, JobFilter, JobState},
    backend::ByteRange,
};

use crate::{elected::SIGNED, ground};

const WITHIN: Duration = Duration::from_secs(120);
/// A pinned coordinator serves again so soon after its start.
const PINNED_WITHIN: Duration = Duration::from_secs(10);
/// Another coordinator serves so soon after the leader was killed.
const ELECTED_WITHIN: Duration = Duration::from_secs(15);
/// So many jobs are submitted at most until a builder is seen to fetch their inputs.
const FETCHES_MAX: u32 = 5;
/// How often in each phase, unless `ARTEL_KILLS` says otherwise.
const KILLS: u32 = 2;

fn kills() -> u32 {
    std::env::var("ARTEL_KILLS").map_or(KILLS, |text| text.parse().expect("ARTEL_KILLS is a number"))
}

/// Spreads a phase's kills over a span: a moment that cannot be seen from outside is met by some of them.
fn spread(round: u32, span: Duration) -> Duration {
    span * (round * 7 % 11) / 11
}

/// A network whose coordinator is killed again and again.
struct Trial {
    network: Network,
    ground: Ground,
    leader: String,
    accepted: Vec<JobId>,
    times: Vec<Duration>,
}

impl Trial {
    async fn begin(coordinators: u8) -> Option<Self> {
        let ground = ground().await?;
        let plan = Plan { coordinators, mirrors: vec!["mirror".into()], ..Plan::builders(2) };
        let mut network = Network::found(&ground, &plan);
        network.start().await;
        let leader = network.led(ELECTED_WITHIN, &[]).await;
        network.ask_at(&leader);
        Some(Self { network, ground, leader, accepted: Vec::new(), times: Vec::new() })
    }

    fn is_pinned(&self) -> bool {
        self.network.candidates().len() == 1
    }

    /// Kills whoever leads and waits until somebody does; where there are several, it must be another.
    async fn power_cut(&mut self, phase: &str) {
        let victim = self.leader.clone();
        self.network.node(&victim).kill();
        let begun = Instant::now();
        let within = if self.is_pinned() {
            self.network.node(&victim).start();
            self.network.node(&victim).up().await;
            self.leader = self.network.led(PINNED_WITHIN, &[]).await;
            PINNED_WITHIN
        } else {
            self.leader = self.network.led(ELECTED_WITHIN, &[&victim]).await;
            ELECTED_WITHIN
        };
        let took = begun.elapsed();
        println!("figure: killed {phase}, serving again after {:.2} s", took.as_secs_f64());
        assert!(took < within, "{phase}: {took:?}");
        self.times.push(took);
        if !self.is_pinned() {
            self.network.node(&victim).start();
            self.network.node(&victim).up().await;
        }
        let leader = self.leader.clone();
        self.network.ask_at(&leader);
    }

    async fn submit(&mut self, name: &str, script: &str) -> JobId {
        let job = self.network.submit(&self.ground.script(name, script)).await;
        self.accepted.push(job);
        job
    }

    async fn jobs(&self) -> Vec<JobId> {
        let page = self.network.coordinator().jobs(JobFilter { limit: Some(1000), ..JobFilter::default() }).await;
        let jobs = page.unwrap().jobs;
        jobs.iter().rev().filter(|job| SIGNED.contains(&job.kind.as_str())).map(|job| job.id).collect()
    }

    /// A request is on its way: whoever did not get a receipt sends it again, and it is one job.
    async fn before_the_receipt(&mut self, round: u32) {
        let prepared = self.ground.script("sent", "echo sent > out");
        let (network, wish) = (&self.network, self.network.wish());
        let signed = prepared.sign(&wish, network.id, artel::clock::now(), &network.maintainer).unwrap();
        let bytes = Bytes::from(signed.to_bytes());
        let client = network.coordinator();
        prepared.upload(&client).await.unwrap();
        // Whether it was in time does not matter.
        let _ = tokio::time::timeout(spread(round, Duration::from_millis(30)), client.submit(bytes.clone())).await;
        self.power_cut(&format!("before the receipt {round}")).await;
        let client = self.network.coordinator();
        prepared.upload(&client).await.unwrap();
        self.accepted.push(client.submit(bytes).await.unwrap().job);
        assert_eq!(self.jobs().await, self.accepted, "one job");
    }

    async fn after_the_receipt(&mut self, round: u32) {
        self.submit("short", "echo done > out").await;
        self.power_cut(&format!("after the receipt {round}")).await;
        assert_eq!(self.jobs().await, self.accepted, "it is there again");
    }

    async fn announced(&mut self, round: u32) {
        let job = self.submit("wanted", "echo done > out").await;
        let client = self.network.coordinator();
        at_once("a lease is granted", WITHIN, async || {
            (!client.job(job).await.ok()?.attempts.is_empty()).then_some(())
        })
        .await;
        self.power_cut(&format!("announced {round}")).await;
    }

    async fn fetching(&mut self, round: u32) {
        let file = self.network.folder().join(format!("input-{round}"));
        let mut tries = 0..FETCHES_MAX;
        while !self.fetches(&file, (round, tries.next().expect("nobody is ever seen to fetch the inputs"))).await {}
        self.power_cut(&format!("while inputs are fetched {round}")).await;
        fs::remove_file(file).unwrap();
    }

    /// Submits a job with a large input; gives true when a builder is seen to fetch it, false when all have begun before.
    async fn fetches(&mut self, file: &Path, (round, tried): (u32, u32)) -> bool {
        let content = u8::try_from((round * FETCHES_MAX + tried) % 250).unwrap();
        fs::write(file, vec![content; 40 << 20]).unwrap();
        let prepared = self.ground.with_input(self.ground.script("large", "sha256sum file > out"), "file", file);
        let job = self.network.submit(&prepared).await;
        self.accepted.push(job);
        let client = self.network.coordinator();
        at_once("a builder fetches the inputs", WITHIN, async || {
            let detail = client.job(job).await.ok()?;
            let fetching = detail.attempts.iter().any(|a| a.started.is_none() && a.ended.is_none());
            (fetching || detail.summary.state.is_over()).then_some(fetching)
        })
        .await
    }

    async fn building(&mut self, rounds: u32) {
        // The last kill must meet it asleep, however long the coordinator needs to serve again after those before.
        let nap = 20 + 6 * rounds;
        let job = self.submit("long", &format!("echo asleep; sleep {nap}; echo done > out")).await;
        let running = |d: &JobDetail| d.attempts.iter().filter(|a| a.state == AttemptState::Running).count() == 2;
        for round in 1..=rounds {
            self.network.job_until((job, "two build it"), WITHIN, running).await;
            self.power_cut(&format!("while building {round}")).await;
        }
        let detail = self.network.over(job, WITHIN + Duration::from_secs(u64::from(nap))).await;
        assert_eq!(detail.attempts.len(), 2, "nobody had to begin again: {detail:#?}");
    }

    /// One builder has shown what it built, the other has not.
    async fn collecting(&mut self, round: u32) {
        let script = "sleep $(($(od -An -N1 -tu1 /dev/urandom) % 4)); echo done > out";
        let job = self.submit("uneven", script).await;
        let client = self.network.coordinator();
        at_once("the first builder reveals", WITHIN, async || {
            let detail = client.job(job).await.ok()?;
            detail.attempts.iter().any(|a| a.state == AttemptState::Built).then_some(())
        })
        .await;
        self.power_cut(&format!("collecting {round}")).await;
    }

    /// Both builders end at about the same time; the kills are spread around it.
    async fn deciding(&mut self, round: u32) {
        let job = self.submit("even", "sleep 1; echo done > out").await;
        let running = |d: &JobDetail| d.attempts.iter().filter(|a| a.state == AttemptState::Running).count() == 2;
        self.network.job_until((job, "two build it"), WITHIN, |d| running(d) || d.summary.state.is_over()).await;
        tokio::time::sleep(Duration::from_millis(900) + spread(round, Duration::from_millis(600))).await;
        self.power_cut(&format!("while the verdict is decided {round}")).await;
    }

    async fn publishing(&mut self, version: &str, moment: Moment) {
        let prepared = self.ground.tiny_version(version, self.network.folder());
        let job = self.network.submit(&prepared).await;
        self.accepted.push(job);
        self.meet(job, moment).await;
        self.power_cut(&format!("while publishing: {moment:?}")).await;
        let detail = self.network.over(job, WITHIN).await;
        assert_eq!(detail.summary.state, JobState::Published, "cut short at {moment:?}: {detail:#?}");
    }

    /// Waits for a moment of a job's publication.
    async fn meet(&mut self, job: JobId, moment: Moment) {
        let (leader, channel) = (self.leader.clone(), self.network.channel.clone());
        let node = self.network.node(&leader);
        let (incoming, repository) =
            (node.home.path().join("incoming").join(job.to_string()), node.home.repository(&channel));
        let signed = node.log().matches("release signed").count();
        let (client, before) = (self.network.coordinator(), newest(&repository));
        at_once(&format!("{moment:?}"), WITHIN, async || {
            let here = match moment {
                Moment::Decided => client.job(job).await.ok()?.summary.state == JobState::Publishing,
                Moment::LaidOut => incoming.exists(),
                Moment::Indexed => newest(&repository) != before,
                Moment::Signed => self.network.node(&leader).log().matches("release signed").count() > signed,
            };
            // A publication that was over before it was seen is killed afterwards.
            let over = client.job(job).await.is_ok_and(|detail| detail.summary.state.is_over());
            (here || over).then_some(())
        })
        .await;
    }

    /// Every promise is kept, once.
    async fn judge(&mut self) {
        let mut generations = BTreeSet::new();
        for job in self.accepted.clone() {
            let detail = self.network.over(job, WITHIN).await;
            let state = detail.summary.state;
            assert!([JobState::Reproduced, JobState::Published].contains(&state), "{detail:#?}");
            let done = detail.attempts.iter().filter(|a| a.state == AttemptState::Built);
            let operators: BTreeSet<_> = done.clone().map(|a| a.builder.operator.clone()).collect();
            assert_eq!(operators.len(), done.count(), "each operator built it once: {detail:#?}");
            if let Some(published) = detail.published {
                assert!(generations.insert(published.generation), "{} came twice", published.generation);
            }
        }
        assert_eq!(self.jobs().await, self.accepted, "in the order of their receipts");
        self.times.sort();
        let (median, last) = (self.times[self.times.len() / 2], self.times[self.times.len() - 1]);
        let (kills, jobs) = (self.times.len(), self.accepted.len());
        println!(
            "figure: {kills} kills, {jobs} jobs: 0 lost, 0 double; serving again after {:.2} s (median), {:.2} s (longest)",
            median.as_secs_f64(),
            last.as_secs_f64()
        );
    }

    /// The repository holds the newest version once, and the mirror follows.
    async fn judge_repository(&self, version: &str) {
        let mirror = self.network.client("mirror");
        let path = format!("dists/{}/main/binary-{}/Packages", self.ground.lock.suite, Arch::native().unwrap());
        let path = RelativePath::new(path).unwrap();
        let index = until("the mirror has the last publication", WITHIN, async || {
            let file = mirror.repository_file(self.network.channel.clone(), path.clone(), ByteRange::All).await.ok()?;
            let index = String::from_utf8(file.collect(1 << 20).await.ok()?.to_vec()).unwrap();
            index.contains(&format!("Version: {version}\n")).then_some(index)
        })
        .await;
        let lines = |word: &str| index.lines().filter(|line| *line == word).count();
        assert_eq!((lines("Package: artel-tiny"), lines("Package: artel-tiny-doc")), (1, 1), "{index}");
        assert_eq!(lines(&format!("Version: {version}")), 2, "the newest alone: {index}");
    }
}

/// A moment of a publication, as it can be seen from outside.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// The ledger decided it.
    Decided,
    /// The packages are laid out.
    LaidOut,
    /// Indexes are written, the switch may have happened.
    Indexed,
    /// The release is signed and stored; the ledger does not know yet, or just now.
    Signed,
}

/// The newest change anywhere in a tree.
fn newest(folder: &Path) -> Option<std::time::SystemTime> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let times = entries.filter_map(|entry| {
        let path = entry.path();
        let own = fs::symlink_metadata(&path).ok()?.modified().ok()?;
        Some(if path.is_dir() && !path.is_symlink() { newest(&path).map_or(own, |below| below.max(own)) } else { own })
    });
    times.max()
}

async fn builds(coordinators: u8) {
    let Some(mut trial) = Trial::begin(coordinators).await else { return };
    for round in 1..=kills() {
        trial.before_the_receipt(round).await;
        trial.after_the_receipt(round).await;
        trial.announced(round).await;
        trial.fetching(round).await;
        trial.collecting(round).await;
        trial.deciding(round).await;
    }
    trial.building(kills()).await;
    trial.judge().await;
}

async fn publications(coordinators: u8) {
    let Some(mut trial) = Trial::begin(coordinators).await else { return };
    let mut version = String::new();
    for round in 1..=kills() {
        for (number, moment) in
            [Moment::Decided, Moment::LaidOut, Moment::Indexed, Moment::Signed].into_iter().enumerate()
        {
            version = format!("{round}.{number}");
            trial.publishing(&version, moment).await;
        }
    }
    trial.judge().await;
    trial.judge_repository(&version).await;
}

#[tokio::test]
async fn a_pinned_coordinator_keeps_its_promises() {
    builds(1).await;
}

#[tokio::test]
async fn a_pinned_coordinator_publishes_once() {
    publications(1).await;
}

#[tokio::test]
async fn elected_coordinators_keep_each_others_promises() {
    builds(3).await;
}

#[tokio::test]
async fn elected_coordinators_publish_once() {
    publications(3).await;
}
