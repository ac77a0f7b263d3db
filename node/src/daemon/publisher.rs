//! Publishes what was reproduced: fetches the agreed outputs from the builders, bundles the evidence, writes the
//! repository, and signs and announces the release.
//!
//! One publication at a time. Each step may be done twice after a crash and gives the same again: content is named by
//! hash, and the repository accepts a generation once.

mod failure;
mod handover;
mod keep;
mod keys;
mod logged;
mod serve;
mod withdraw;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use attest::{bundle::Bundle, staple, summary};
use ledger::{
    Command, Doubt, Publication, Service, Withdrawal,
    service::{Account, publication_id},
};
use protocol::{
    ChannelName, FileName, Hash, JobId, Timestamp, Verified, job::JobKind, lease::Term, release::Release,
    words::RelativePath,
};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::{
    failure::Failure,
    keep::{Judge, Looks},
    serve::{Done, Ending},
};
use super::{
    Decisions, Shared, bundle, learn_places,
    runs::{Recorder, Runs},
};
use crate::{
    clock,
    cosign::Cosigner,
    mirror::intake::Intake,
    net::Topic,
    publish::{
        apt::{Addition, Order, Published, Repository, Settings, Staple},
        evidence::{self, Bar},
        rpm,
    },
    serve::Desk,
};

/// How often signatures are looked at: an index is signed anew when half of its validity is over.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// How often a coordinator looks for releases of others that it did not hear of, and makes its key known.
const FOLLOW_EVERY: Duration = Duration::from_secs(10);
/// How soon they are followed again when this node's ledger was not as far as they are.
const BEHIND_AGAIN: Duration = Duration::from_secs(1);

/// What the publisher does, one after the other.
#[derive(Debug)]
pub struct Work {
    /// The term in which it was decided. In a later one the leader says again what is still to be done.
    pub term: Term,
    /// What to do.
    pub task: Task,
}

impl Work {
    /// Says whether it is still to be done by this node, which leads in this term, if in any. A node that led, lost the office
    /// and has it again was told anew.
    pub fn stands(&self, leads: Option<Term>) -> bool {
        leads == Some(self.term)
    }
}

/// What there is to do.
#[derive(Debug)]
pub enum Task {
    /// Put a job's outputs into the repository.
    Publish(Publication),
    /// Run a server job.
    Serve(Service),
    /// Bring a channel to a generation that is known to have a job, or to be without it.
    Withdraw(Withdrawal),
    /// Sign a channel's index anew, as this generation.
    Resign(ChannelName, u64),
}

impl Task {
    /// Gives the job and the generation that the ledger waits to hear of; nothing comes back for an index that is signed anew.
    pub fn awaited(&self) -> Option<(JobId, u64)> {
        match self {
            Task::Publish(publication) => Some((publication.job, publication.generation)),
            Task::Serve(service) => Some((service.job, service.generation)),
            Task::Withdraw(withdrawal) => Some((withdrawal.job, withdrawal.generation)),
            Task::Resign(..) => None,
        }
    }
}

/// The publisher of every channel of this node.
pub(super) struct Publisher {
    shared: Arc<Shared>,
    desk: Desk,
    decisions: Decisions,
    cosigner: Arc<Cosigner>,
    intake: Intake,
    runs: Arc<Runs>,
    repositories: BTreeMap<ChannelName, Repository>,
    /// The term in which each channel was brought to the newest generation of all coordinators.
    caught_up: BTreeMap<ChannelName, Term>,
    looks: Looks,
    /// A release was heard of that this node's ledger does not know yet, or never will.
    behind: AtomicBool,
}

impl Publisher {
    /// Makes the publisher; repositories are opened when they are needed first.
    pub(super) fn new(shared: Arc<Shared>, (desk, decisions, cosigner): (Desk, Decisions, Arc<Cosigner>)) -> Self {
        let (intake, runs) = (Intake::new(Arc::clone(&shared), desk.clone()), Arc::clone(desk.runs()));
        Self {
            shared,
            desk,
            decisions,
            cosigner,
            intake,
            runs,
            repositories: BTreeMap::new(),
            caught_up: BTreeMap::new(),
            looks: Looks::default(),
            behind: AtomicBool::default(),
        }
    }

    /// Publishes until stopped. A publication that has begun is finished first.
    pub(super) async fn run(
        mut self,
        mut queue: mpsc::Receiver<Work>,
        mut heard: broadcast::Receiver<Verified<Release>>,
        stop: CancellationToken,
    ) {
        self.open_published().await;
        let (mut look, mut follow) = (tokio::time::interval(LOOK_EVERY), tokio::time::interval(FOLLOW_EVERY));
        // Whoever says such things all the time must not put it off each time.
        let mut is_soon = false;
        loop {
            if self.behind.swap(false, Relaxed) && !std::mem::replace(&mut is_soon, true) {
                follow.reset_after(BEHIND_AGAIN);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                next = queue.recv() => {
                    let Some(work) = next else { return };
                    self.work(work).await;
                }
                // One that lags looks by itself.
                Ok(release) = heard.recv() => self.follow(&release).await,
                _ = look.tick() => {
                    self.open_published().await;
                    self.ask_to_resign().await;
                }
                _ = follow.tick() => {
                    is_soon = false;
                    self.register().await;
                    self.renew_keyrings().await;
                    self.follow_all().await;
                    self.ask_to_keep().await;
                }
            }
        }
    }

    async fn work(&mut self, work: Work) {
        if !work.stands(self.shared.leads()) {
            debug!(?work, "work of a former office is left to the new leader");
            return;
        }
        learn_places(&self.shared, &self.desk).await;
        let Work { term, task } = work;
        let (job, record, done) = match task {
            Task::Publish(publication) => {
                let record = self.runs.begin(publication_id(&publication.job));
                let done = self.publish(&publication, &record).await;
                (publication.job, record, done.map_err(|failure| (publication.generation, failure)))
            }
            Task::Serve(service) => {
                let record = self.runs.begin(service.job);
                let done = self.serve(&service, &record).await;
                (service.job, record, done.map_err(|failure| (service.generation, failure)))
            }
            Task::Withdraw(withdrawal) => {
                let record = self.runs.begin(self.shown_as(withdrawal.job).await);
                let done = self.withdraw(&withdrawal, &record).await;
                (withdrawal.job, record, done.map_err(|failure| (withdrawal.generation, failure)))
            }
            Task::Resign(channel, generation) => {
                match self.resign(&channel, generation).await {
                    Ok(()) => info!(%channel, generation, "index signed anew"),
                    Err(Failure { why, .. }) => {
                        warn!(%channel, generation, %why, "index not signed anew; it is tried again");
                    }
                }
                return;
            }
        };
        let ended = match &done {
            Ok(done) => Ok((done.summary.clone(), done.result)),
            Err((_, failure)) => Err(failure.why.clone()),
        };
        self.tell_account(job, record, ended).await;
        match done {
            Ok(Done { ending: Ending::With(generation), .. }) => {
                self.decisions.tell(Command::Published { job, generation }).await;
            }
            Ok(Done { ending: Ending::Without(generation), .. }) => {
                self.decisions.tell(Command::Withdrawn { job, generation }).await;
            }
            Err((generation, failure)) => self.tell_failure(term, (job, generation), failure).await,
        }
    }

    /// Tells the ledger why a try failed. After another term began it says nothing of the try that was decided there.
    async fn tell_failure(&self, term: Term, (job, generation): (JobId, u64), failure: Failure) {
        let Failure { cause, left, why } = failure;
        warn!(%job, generation, ?cause, ?left, %why, "not published, or server job not done");
        if self.shared.leads() == Some(term) {
            let generation = Some(generation);
            self.decisions.tell(Command::PublishFailed { job, generation, cause, left, why }).await;
        }
    }

    /// Tells the ledger what a try did, and keeps its log for as long as the job's other files.
    async fn tell_account(&self, job: JobId, record: Recorder, ended: Result<(String, Option<Hash>), String>) {
        let (line, summary, result) = match ended {
            Ok((summary, result)) => (format!("done: {summary}"), summary, result),
            Err(why) => (format!("failed: {why}"), why, None),
        };
        let (log, steps) = record.end(&line);
        let kept = async {
            let hash = self.shared.blobs.add_bytes(log.into_bytes().into()).await?;
            self.shared.offer(&format!("job/{job}/service-log"), hash).await?;
            Ok::<_, crate::blobs::Error>(hash)
        };
        let log = match kept.await {
            Ok(hash) => Some(hash),
            Err(error) => {
                warn!(%job, %error, "log not kept");
                None
            }
        };
        self.decisions.tell(Command::Ran { job, account: Account { log, steps, result, summary } }).await;
    }

    /// Opens the repositories that were published before, so that their signatures are kept fresh and their files offered; those, too,
    /// that a task had which failed.
    async fn open_published(&mut self) {
        let policies = self.shared.policies();
        for channel in policies.current().channels.iter().map(|c| &c.name) {
            if self.repositories.contains_key(channel) || !self.shared.home.repository(channel).join("public").is_dir()
            {
                continue;
            }
            match self.open(channel) {
                Ok(repository) => {
                    if let Err(why) = self.offer_again(channel, &repository).await {
                        warn!(%channel, %why, "the published files are not offered again");
                    }
                    self.repositories.insert(channel.clone(), repository);
                }
                Err(Failure { why, .. }) => warn!(%channel, %why, "repository not opened"),
            }
        }
    }

    /// Offers the files of the newest release again, should the blob store have lost some. A generation that was written but
    /// not released is the ledger's to repeat.
    async fn offer_again(&self, channel: &ChannelName, repository: &Repository) -> Result<(), String> {
        let of = channel.clone();
        let stored = self.shared.store.run(move |store| store.release(&of)).await.map_err(|e| chain(&e))?;
        if stored.is_none_or(|release| release.number != repository.generation()) {
            return Ok(());
        }
        let published = repository.published().map_err(|e| chain(&e))?;
        let place = |path: &RelativePath| published.root.join(path.as_str());
        self.notary(channel).offer(published.generation, &published.manifest, place).await
    }

    /// Asks the ledger for a generation for each index that is past half of its validity.
    async fn ask_to_resign(&self) {
        if Self::office(&self.shared, &self.decisions).is_err() {
            return;
        }
        let now = clock::now();
        for (channel, _) in self.repositories.iter().filter(|(_, repository)| repository.needs_signature(now)) {
            self.decisions.tell(Command::Resign { channel: channel.clone() }).await;
        }
    }

    async fn resign(&mut self, channel: &ChannelName, generation: u64) -> Result<(), Failure> {
        self.catch_up(channel, Doubt::Nothing).await?;
        let published = self.write(channel, Vec::new(), generation).await?;
        self.release(channel, &published).await
    }

    async fn publish(&mut self, publication: &Publication, record: &Recorder) -> Result<Done, Failure> {
        record.step("catch up");
        self.catch_up(&publication.channel, publication.doubt).await?;
        let job = publication.job;
        record.step("fetch");
        for output in &publication.outputs {
            let from: Vec<_> = publication.builders.iter().copied().filter(|n| *n != self.shared.id).collect();
            let fetched = self.shared.blobs.fetch(&self.shared.net, &output.hash, &from, output.size).await;
            fetched.map_err(|e| format!("{} cannot be fetched from its builders: {}", output.name, chain(&e)))?;
        }
        let hashes: Vec<Hash> = publication.outputs.iter().map(|o| o.hash).collect();
        let offered = self.shared.offer_all(&format!("job/{job}/agreed"), &hashes).await;
        offered.map_err(|e| chain(&e))?;
        let folder = self.shared.home.incoming().join(job.to_string());
        let published = self.enter(publication, &folder, record).await;
        // What is in the pool is no longer needed here; what is not will be laid out again.
        let _ = tokio::fs::remove_dir_all(&folder).await;
        let (published, summary) = published?;
        self.show(&publication.channel, &published, record).await?;
        Ok(Done { summary, result: None, ending: Ending::With(publication.generation) })
    }

    /// Writes the generation that has what a job made, laid out in a folder of its own, and says what that is.
    async fn enter(
        &mut self,
        publication: &Publication,
        folder: &PathBuf,
        record: &Recorder,
    ) -> Result<(Published, String), Failure> {
        let job = publication.job;
        record.step("bundle evidence");
        let bundle = self.bundle(job).await?;
        let mut additions = self.lay_out(publication, &bundle, folder).await?;
        record.step("log");
        let logged = self.notary(&publication.channel).verdict_proof(job).await?;
        let lines = prove(&self.shared, publication, (&bundle, logged.as_ref()), &additions)?;
        let staples = [Some(lines), logged];
        additions.iter_mut().for_each(|addition| addition.staples.extend(staples.iter().flatten().cloned()));
        record.step("write");
        let names: Vec<&str> = additions.iter().map(|a| a.file.as_str()).collect();
        let summary =
            format!("{} in generation {} of {}", names.join(", "), publication.generation, publication.channel);
        Ok((self.write(&publication.channel, additions, publication.generation).await?, summary))
    }

    /// Everything that an offline check of a job needs.
    async fn bundle(&self, job: JobId) -> Result<Vec<u8>, String> {
        bundle(&self.shared, &self.decisions, job).await
    }

    async fn lay_out(
        &self,
        publication: &Publication,
        bundle: &[u8],
        folder: &PathBuf,
    ) -> Result<Vec<Addition>, String> {
        let failed = |e: std::io::Error| format!("{} cannot be written: {e}", folder.display());
        // What a crashed publication left is laid out again.
        let _ = tokio::fs::remove_dir_all(folder).await;
        tokio::fs::create_dir_all(folder).await.map_err(failed)?;
        let mut additions = Vec::new();
        for output in publication.outputs.iter().filter(|o| enters(o.name.as_str())) {
            let file = FileName::new(output.name.as_str()).map_err(|e| e.to_string())?;
            let path = folder.join(file.as_str());
            self.shared.blobs.export(&output.hash, &path).await.map_err(|e| chain(&e))?;
            additions.push(Addition {
                path,
                file,
                sha256: output.sha256,
                size: output.size,
                job: publication.job,
                bundle: bundle.to_vec(),
                staples: Vec::new(),
                order: Order::Upwards,
            });
        }
        Ok(additions)
    }

    async fn write(
        &mut self,
        channel: &ChannelName,
        additions: Vec<Addition>,
        generation: u64,
    ) -> Result<Published, Failure> {
        let signers = self.signers_of_others().await;
        self.repository(channel)?.trust(signers)?;
        let mut repository = self.repositories.remove(channel).ok_or_else(|| "it is not open".to_owned())?;
        // A clock that was set back must not keep a repository from going on.
        let at = Timestamp::from_millis(clock::now().max(repository.at()).as_secs() * 1000);
        let work = tokio::task::spawn_blocking(move || {
            let published = repository.publish(&additions, at, generation);
            let published = published.map_err(|e| Failure::of_repository(e, &repository, generation));
            (repository, published)
        });
        let (repository, published) = work.await.map_err(stopped)?;
        self.repositories.insert(channel.clone(), repository);
        published
    }

    /// Tells of what was written and logged, and waits until a majority of the coordinators holds it. From here on it may be
    /// out, whatever fails.
    async fn show(&self, channel: &ChannelName, published: &Published, record: &Recorder) -> Result<(), Failure> {
        record.step("release");
        self.release(channel, published).await.map_err(Failure::begun)?;
        self.held_by_majority(channel, published.generation).await.map_err(Failure::begun)
    }

    fn open(&self, channel: &ChannelName) -> Result<Repository, Failure> {
        let policies = self.shared.policies();
        let settings = policies.current().channel(channel).ok_or_else(|| format!("no channel {channel}"))?;
        let keys = keys::of(&self.shared)?;
        let settings = Settings {
            suite: settings.suite.clone(),
            codename: settings.suite.clone(),
            origin: policies.current().name.to_string(),
            label: format!("{} {channel}", policies.current().name),
            arches: settings.arches.clone(),
            valid_secs: settings.valid_secs,
        };
        let folder = self.shared.home.repository(channel);
        std::fs::create_dir_all(&folder).map_err(|e| format!("{} cannot be made: {e}", folder.display()))?;
        let mut repository = Repository::open(&folder, settings, keys)?;
        repository.led_by(self.authority());
        repository.gated_by(self.notary(channel).gate());
        repository.kept_by(Arc::new(Judge::new(self.notary(channel))));
        Ok(repository)
    }

    /// Signs and logs the release of what is in its place, unless that was done before it was put there, stores it and tells the
    /// network.
    async fn release(&self, channel: &ChannelName, published: &Published) -> Result<(), Failure> {
        let (shared, generation) = (&self.shared, published.generation);
        let (release, signed) = self.notary(channel).released(published).await?;
        self.keep_manifest(channel, generation, &published.manifest.to_bytes());
        let (term, stored, of) = (release.term, signed.clone(), channel.clone());
        let put = shared.store.run(move |store| store.release_put(&of, generation, term, &stored)).await;
        put.map_err(|e| chain(&e))?;
        self.withdraw_older(channel, generation).await;
        info!(%channel, generation, %term, files = published.manifest.files.len(), "release signed");
        if let Err(error) = shared.net.publish(Topic::Facts, signed).await {
            info!(%error, "release not gossiped; mirrors ask now and then");
        }
        Ok(())
    }

    /// Mirrors may still be fetching the generation before; older ones are withdrawn.
    async fn withdraw_older(&self, channel: &ChannelName, generation: u64) {
        if let Err(error) = self.shared.withdraw_releases(channel, generation.saturating_sub(1)).await {
            warn!(%error, "an old release is still offered");
        }
    }
}

/// Checks what every follower will check before it takes the packages: what they refuse must never be released, for they would
/// refuse every later release, too. Gives the lines that lie beside each package.
fn prove(
    shared: &Shared,
    publication: &Publication,
    (bundle, logged): (&[u8], Option<&Staple>),
    additions: &[Addition],
) -> Result<Staple, Failure> {
    let bundle = Bundle::from_bytes(bundle).map_err(|e| chain(&e))?;
    let trust = shared.trust().map_err(|e| chain(&e))?;
    let bar = Bar { trust: &trust, channel: &publication.channel };
    let staples = evidence::Staples { lines: None, proof: logged.map(|staple| staple.bytes.as_slice()) };
    let proof = evidence::prove(&bar, &bundle, &staples, publication.job).map_err(|e| chain(&e))?.proof;
    let is_rpm = matches!(proof.request.kind, JobKind::Rpm(_));
    for addition in additions {
        if addition.file.as_str().ends_with(rpm::SUFFIX) != is_rpm {
            let why = format!("{} cannot be published: a job of kind {}", addition.file, proof.request.kind.word());
            return Err(Failure::permanent(format!("{why} publishes the other kind of packages")));
        }
        proof.file(addition.file.as_str(), &addition.sha256).map_err(|e| Failure::permanent(chain(&e)))?;
    }
    let said = summary::sign(&proof, clock::now(), &shared.key);
    let lines = staple::lines(&bundle, Some(&said)).map_err(|e| chain(&e))?;
    Ok(Staple { suffix: staple::SUFFIX, bytes: lines })
}

/// Says whether an output enters the repository.
fn enters(name: &str) -> bool {
    name.ends_with(".deb") || name.ends_with(rpm::SUFFIX) && !rpm::is_source(name)
}

/// The thread that writes a repository ended before it said how far it came.
fn stopped(error: tokio::task::JoinError) -> Failure {
    Failure::from(format!("the publisher stopped: {error}")).begun()
}

/// Writes an error with all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_a_former_office_is_dropped_also_by_who_leads_again() {
        let work = Work { term: Term(3), task: Task::Resign("stable".parse().unwrap(), 7) };
        let stands: Vec<bool> = [Some(3), Some(5), None].map(|term| work.stands(term.map(Term))).to_vec();
        assert_eq!(stands, [true, false, false]);
    }
}
