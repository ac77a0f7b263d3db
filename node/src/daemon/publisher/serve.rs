//! Server jobs: what the publisher does for a channel beside publishing builds. Each is done once for its generation, however
//! often it is asked for: the repository gives a generation back that it has, and a release that is signed is not made again.
//! One that may be out under an earlier number is asked for everywhere first; what is found is continued as it is, since the
//! same work would make something else where the channel that it reads has moved.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use attest::{
    bundle::Bundle,
    staple,
    trust::{Demands, LogDemand, Trust},
};
use ledger::{Doubt, Service};
use protocol::{
    Arch, ChannelName, Hash, JobId, PackageName, Signed, Timestamp,
    job::{Derive, Diff, Promote, Prune, ServerJob, Side},
    limits,
    message::Octets,
    release::{Manifest, Release},
    words::RelativePath,
};
use serde::Serialize;

use super::{Failure, Publisher, chain, stopped};
use crate::{
    clock,
    daemon::runs::Recorder,
    publish::{
        apt::{
            Published, Repository,
            carry::{Fate, Stock, Takeover},
            diff::{self, Comparison},
        },
        evidence::{self, Bar, Staples},
    },
};

/// Generations whose manifests are kept for comparisons.
const MANIFESTS_MAX: usize = 64;

/// What came of a server job.
pub(super) struct Done {
    /// In one sentence.
    pub(super) summary: String,
    /// A result for programs, where there is one.
    pub(super) result: Option<Hash>,
    /// What the newest generation is now.
    pub(super) ending: Ending,
}

/// Whether the newest generation has what a job was to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It has, in this generation; zero where none was made.
    With(u64),
    /// It has not, in this generation.
    Without(u64),
}

/// A comparison for programs.
#[derive(Serialize)]
struct Report<'a> {
    left: Shown<'a>,
    right: Shown<'a>,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

#[derive(Serialize)]
struct Shown<'a> {
    channel: &'a ChannelName,
    generation: u64,
}

/// Which packages to take over, and what happens to the others.
struct Wanted<'a> {
    packages: &'a [PackageName],
    arches: &'a [Arch],
    others: Others,
}

/// What a package that does not qualify means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    /// Nothing is taken over: it was asked for by name.
    Refuse,
    /// It is left out, and the log says why.
    LeaveOut,
}

impl Publisher {
    /// Runs one server job.
    ///
    /// # Errors
    /// Words, when it could not be done.
    pub(super) async fn serve(&mut self, service: &Service, record: &Recorder) -> Result<Done, Failure> {
        self.prepare(service).await?;
        if service.work.changes_repository()
            && let Some(number) = self.released(&service.channel).await?
            && number >= service.generation
        {
            // Signed is not yet kept: whoever leads next must be able to continue from it.
            self.held_by_majority(&service.channel, number).await.map_err(Failure::begun)?;
            let summary = format!("generation {number} is signed already");
            return Ok(Done { summary, result: None, ending: Ending::With(service.generation) });
        }
        if let Doubt::Since(since) = service.doubt
            && let found = self.repository(&service.channel)?.generation()
            && found >= since
        {
            let generation = service.generation;
            self.continue_found(&service.channel, (found, generation), record).await?;
            let summary = format!("generation {found} was out already; generation {generation} continues it");
            return Ok(Done { summary, result: None, ending: Ending::With(generation) });
        }
        match &service.work {
            ServerJob::Promote(Promote { from, packages }) => {
                let others = if packages.is_empty() { Others::LeaveOut } else { Others::Refuse };
                self.take_over(service, from, Wanted { packages, arches: &[], others }, record).await
            }
            ServerJob::Derive(Derive { arches, parent, packages }) => {
                let wanted = Wanted { packages, arches, others: Others::LeaveOut };
                self.take_over(service, parent, wanted, record).await
            }
            ServerJob::Prune(prune) => self.prune(service, prune.clone(), record).await,
            ServerJob::Diff(diff) => self.compare(service.job, diff, record).await,
        }
    }

    /// Brings every channel that a job reads or changes to the newest generation.
    async fn prepare(&mut self, service: &Service) -> Result<(), Failure> {
        let read = match &service.work {
            ServerJob::Promote(promote) => Some(promote.from.clone()),
            ServerJob::Derive(derive) => Some(derive.parent.clone()),
            ServerJob::Prune(_) | ServerJob::Diff(_) => None,
        };
        if service.work.changes_repository() {
            for channel in read.iter().chain([&service.channel]) {
                self.catch_up(channel, service.doubt).await?;
                let signers = self.signers_of_others().await;
                self.repository(channel)?.trust(signers)?;
            }
        }
        Ok(())
    }

    async fn take_over(
        &mut self,
        service: &Service,
        from: &ChannelName,
        wanted: Wanted<'_>,
        record: &Recorder,
    ) -> Result<Done, Failure> {
        record.step("choose");
        let trust = self.shared.trust().map_err(|e| chain(&e))?;
        let demands = Demands { log: LogDemand::Witnesses(0), ..trust.demands().clone() };
        let unseen = (*trust).clone().demanding(demands, Timestamp::ZERO).map_err(|e| chain(&e))?;
        let (source, target) = (self.have(from)?, self.have(&service.channel));
        let target = match target {
            Ok(target) => target,
            Err(why) => {
                self.repositories.insert(from.clone(), source);
                return Err(why);
            }
        };
        let chosen = choose(&source, &target, from, &wanted);
        let evidence = Evidence {
            trust,
            unseen,
            channel: service.channel.clone(),
            envelopes: self.shared.policies().envelopes(),
            promotion: service.request.clone(),
        };
        let named = wanted.others == Others::Refuse;
        let (request, generation) = (Hash::from_bytes(*service.job.as_bytes()), service.generation);
        record.step("check evidence");
        let work = tokio::task::spawn_blocking(move || {
            let done = chosen.and_then(|(stock, left_out)| {
                carry(&source, (stock, left_out), &evidence, named, |paths, evidence| {
                    let mut target = target;
                    let bundle = |path: &Path| evidence.bundle(path);
                    let takeover = Takeover { from: &source, paths, bundle: &bundle };
                    let at = later(&target);
                    let carried = target.carry(&takeover, request, (at, generation));
                    let carried = carried.map_err(|e| Failure::of_repository(e, &target, generation));
                    (target, carried)
                })
            });
            (source, done)
        });
        let (source, done) = work.await.map_err(stopped)?;
        self.repositories.insert(from.clone(), source);
        let (target, carried, lines) = done?;
        self.repositories.insert(service.channel.clone(), target);
        lines.iter().for_each(|line| record.say(line));
        let (published, titles, fates) = carried?;
        let count = |wanted: fn(&Fate) -> bool| fates.iter().filter(|fate| wanted(fate)).count();
        for (title, fate) in titles.iter().zip(&fates) {
            record.say(&format!("{title}: {}", fate.words()));
        }
        self.show(&service.channel, &published, record).await?;
        let (entered, there) = (count(|f| *f == Fate::Entered), count(|f| *f == Fate::There));
        let left_out = lines.len() + fates.len() - entered - there;
        let summary = format!(
            "{entered} packages taken over from {from}, {there} were there already, {left_out} left out; generation {}",
            published.generation
        );
        Ok(Done { summary, result: None, ending: Ending::With(published.generation) })
    }

    async fn prune(&mut self, service: &Service, prune: Prune, record: &Recorder) -> Result<Done, Failure> {
        record.step("write");
        let mut repository = self.have(&service.channel)?;
        let (request, generation) = (Hash::from_bytes(*service.job.as_bytes()), service.generation);
        let work = tokio::task::spawn_blocking(move || {
            let at = later(&repository);
            let pruned = repository.prune(&prune, request, (at, generation));
            let pruned = pruned.map_err(|e| Failure::of_repository(e, &repository, generation));
            (repository, pruned)
        });
        let (repository, pruned) = work.await.map_err(stopped)?;
        self.repositories.insert(service.channel.clone(), repository);
        let (published, removed) = pruned?;
        for path in &removed {
            record.say(&format!("{path}: taken out; its file stays for a day"));
        }
        self.show(&service.channel, &published, record).await?;
        let stay = published.manifest.packages.len();
        let summary = format!("{} packages taken out, {stay} stay; generation {}", removed.len(), published.generation);
        Ok(Done { summary, result: None, ending: Ending::With(published.generation) })
    }

    async fn compare(&mut self, job: JobId, diff: &Diff, record: &Recorder) -> Result<Done, Failure> {
        record.step("read");
        let (left_generation, left) = self.manifest(&diff.left).await?;
        let (right_generation, right) = self.manifest(&diff.right).await?;
        record.step("compare");
        let comparison = diff::compare(&left, &right);
        comparison.lines().iter().for_each(|line| record.say(line));
        let report = Report {
            left: Shown { channel: &diff.left.channel, generation: left_generation },
            right: Shown { channel: &diff.right.channel, generation: right_generation },
            comparison: &comparison,
        };
        let json = serde_json::to_vec_pretty(&report).expect("a comparison is plain data");
        let result = self.shared.blobs.add_bytes(json.into()).await.map_err(|e| chain(&e))?;
        self.shared.offer(&format!("job/{job}/result"), result).await.map_err(|e| chain(&e))?;
        Ok(Done { summary: comparison.summary(), result: Some(result), ending: Ending::With(0) })
    }

    /// Takes a channel's repository out of the ones that are open; the caller puts it back.
    fn have(&mut self, channel: &ChannelName) -> Result<Repository, Failure> {
        match self.repositories.remove(channel) {
            Some(repository) => Ok(repository),
            None => self.open(channel),
        }
    }

    async fn released(&self, channel: &ChannelName) -> Result<Option<u64>, String> {
        let of = channel.clone();
        let stored = self.shared.store.run(move |store| store.release(&of)).await.map_err(|e| chain(&e))?;
        Ok(stored.map(|release| release.number))
    }

    /// Gives a generation's number and manifest.
    async fn manifest(&self, side: &Side) -> Result<(u64, Manifest), Failure> {
        let of = side.channel.clone();
        let stored = self.shared.store.run(move |store| store.release(&of)).await.map_err(|e| chain(&e))?;
        let nothing = || Failure::permanent(format!("nothing is published in channel {} yet", side.channel));
        let stored = stored.ok_or_else(nothing)?;
        let number = side.generation.unwrap_or(stored.number);
        let bytes = if number == stored.number {
            let release = Signed::<Release>::read(&stored.bytes).and_then(|s| s.verify(Some(&self.shared.network)));
            let release = release.map_err(|e| chain(&e))?;
            let read = self.shared.blobs.read(&release.get().manifest, limits::MANIFEST_MAX as u64).await;
            read.map_err(|e| chain(&e))?.to_vec()
        } else {
            let path = self.manifests(&side.channel).join(number.to_string());
            std::fs::read(&path).map_err(|_| {
                let kept = self.kept(&side.channel);
                let kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
                let (channel, kept) = (&side.channel, kept.join(", "));
                Failure::permanent(format!("generation {number} of channel {channel} is not kept here; it has {kept}"))
            })?
        };
        Ok((number, Manifest::from_bytes(&bytes).map_err(|e| e.to_string())?))
    }

    /// Keeps a manifest for comparisons; one that cannot be kept is only missed there.
    pub(super) fn keep_manifest(&self, channel: &ChannelName, generation: u64, manifest: &[u8]) {
        let folder = self.manifests(channel);
        let kept = std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join("writing"), manifest))
            .and_then(|()| std::fs::rename(folder.join("writing"), folder.join(generation.to_string())));
        if let Err(error) = kept {
            tracing::warn!(%channel, generation, %error, "manifest not kept for comparisons");
        }
        let all = self.kept(channel);
        for old in all.iter().rev().skip(MANIFESTS_MAX) {
            // The next release tries again.
            let _ = std::fs::remove_file(folder.join(old.to_string()));
        }
    }

    fn manifests(&self, channel: &ChannelName) -> std::path::PathBuf {
        self.shared.home.repository(channel).join("state/manifests")
    }

    fn kept(&self, channel: &ChannelName) -> BTreeSet<u64> {
        let entries = std::fs::read_dir(self.manifests(channel)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }
}

/// The time of the next generation: a clock that was set back must not keep a repository from going on.
fn later(repository: &Repository) -> Timestamp {
    Timestamp::from_millis(clock::now().max(repository.at()).as_secs() * 1000)
}

/// Packages that may be taken over, and why others were left out.
type Chosen = (Vec<Stock>, Vec<String>);

/// Chooses by name, architecture and version.
fn choose(
    source: &Repository,
    target: &Repository,
    from: &ChannelName,
    wanted: &Wanted<'_>,
) -> Result<Chosen, Failure> {
    let all = source.stock();
    let missing = wanted.packages.iter().filter(|name| !all.iter().any(|s| s.name == **name));
    let missing: Vec<&str> = missing.map(PackageName::as_str).collect();
    if !missing.is_empty() {
        return Err(Failure::permanent(format!("channel {from} has no package {}", missing.join(", "))));
    }
    let there = target.stock();
    let named = |s: &Stock| wanted.packages.is_empty() || wanted.packages.binary_search(&s.name).is_ok();
    let arch = |s: &Stock| wanted.arches.is_empty() || s.arch == Arch::All || wanted.arches.contains(&s.arch);
    let (mut chosen, mut left_out) = (Vec::new(), Vec::new());
    for stock in all.into_iter().filter(|s| named(s) && arch(s)) {
        let newer = there.iter().find(|t| {
            (t.kind, &t.name, t.arch) == (stock.kind, &stock.name, stock.arch)
                && stock.kind.order(&t.version, &stock.version) == std::cmp::Ordering::Greater
        });
        match newer {
            Some(newer) => left_out.push(format!("{}: {} is published, which is newer", stock.title(), newer.version)),
            None => chosen.push(stock),
        }
    }
    match left_out.first() {
        Some(first) if wanted.others == Others::Refuse => Err(Failure::permanent(first)),
        Some(_) | None => Ok((chosen, left_out)),
    }
}

/// What proves a package in its new channel: its own evidence, the newest policies, and the request that moves it.
struct Evidence {
    trust: Arc<Trust>,
    /// The same, whoever has seen the log.
    unseen: Trust,
    channel: ChannelName,
    envelopes: Vec<Vec<u8>>,
    promotion: Vec<u8>,
}

impl Evidence {
    fn of(&self, path: &Path) -> Result<Bundle, String> {
        let bytes = std::fs::read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
        let mut bundle = Bundle::from_bytes(&bytes).map_err(|e| chain(&e))?;
        bundle.policies = self.envelopes.iter().cloned().map(Octets).collect();
        bundle.promotions.push(Octets(self.promotion.clone()));
        Ok(bundle)
    }

    fn bundle(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self.of(path).map(|bundle| bundle.to_bytes()).map_err(std::io::Error::other)
    }

    /// Checks that enough operators built a package for the channel that it is to come into.
    fn check(&self, root: &Path, stock: &Stock) -> Result<(), String> {
        let bundle = self.of(&root.join(stock.bundle.as_str()))?;
        let bar = Bar { trust: &self.trust, channel: &self.channel };
        let log = std::fs::read(root.join(format!("{}{}", stock.path, staple::PROOF_SUFFIX))).ok();
        let staples = Staples { lines: None, proof: log.as_deref() };
        let proven = match evidence::prove(&bar, &bundle, &staples, stock.job) {
            Err(error) if error.is_of_the_log() => {
                evidence::prove(&Bar { trust: &self.unseen, ..bar }, &bundle, &staples, stock.job)
            }
            proven => proven,
        };
        let proof = match proven {
            Ok(chain) => chain.proof,
            // It gets a newer proof on its way.
            Err(error) if error.is_of_the_log() => return Ok(()),
            Err(error) => return Err(chain(&error)),
        };
        // What is moved now is held to what the channel asks for now; under an earlier policy it may have asked for less.
        let wanted = self.trust.newest().channel(&self.channel).map_or(0, |channel| channel.agree);
        if proof.agree.len() < usize::from(wanted) {
            return Err(format!(
                "{} of {wanted} operators that channel {} asks for agree",
                proof.agree.len(),
                self.channel
            ));
        }
        proof.package(&stock.name, &stock.version, stock.arch, &stock.sha256).map(drop).map_err(|e| chain(&e))
    }
}

type Carried = Result<(Published, Vec<String>, Vec<Fate>), Failure>;

/// Checks the evidence of every chosen package, and takes over those that qualify.
fn carry(
    source: &Repository,
    (stock, mut lines): Chosen,
    evidence: &Evidence,
    named: bool,
    take: impl FnOnce(&[RelativePath], &Evidence) -> (Repository, Result<(Published, Vec<Fate>), Failure>),
) -> Result<(Repository, Carried, Vec<String>), Failure> {
    let (mut paths, mut titles) = (Vec::new(), Vec::new());
    for stock in stock {
        match evidence.check(&source.root(), &stock) {
            Ok(()) => {
                titles.push(stock.title());
                paths.push(stock.path);
            }
            Err(why) if named => return Err(Failure::permanent(format!("{}: {why}", stock.title()))),
            Err(why) => lines.push(format!("{}: {why}", stock.title())),
        }
    }
    let (target, carried) = take(&paths, evidence);
    Ok((target, carried.map(|(published, fates)| (published, titles, fates)), lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::testing::{AT, addition, repository, rpm};

    /// Debian's order puts `1.2^git3` above `1.2.1git`, rpm's below; and a `.deb` of that name has nothing to do with it.
    #[test]
    fn rpms_are_chosen_by_their_own_order_beside_debs_of_the_same_name() {
        let (a, b, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut source, mut target) = (repository(a.path()), repository(b.path()));
        source.publish(&[rpm(files.path(), "1.2.1git")], AT, 1).unwrap();
        let there = [rpm(files.path(), "1.2^git3"), addition(files.path(), ("artel-answer-doc", "9", "all"), "a")];
        target.publish(&there, AT, 1).unwrap();
        let wanted = Wanted { packages: &[], arches: &[], others: Others::Refuse };
        let from = "testing".parse().unwrap();
        let (chosen, left_out) = choose(&source, &target, &from, &wanted).unwrap();
        assert_eq!((chosen.len(), left_out), (1, vec![]));
        let (back, why) = (choose(&target, &source, &from, &Wanted { others: Others::LeaveOut, ..wanted })).unwrap();
        assert_eq!(back.iter().map(Stock::title).collect::<Vec<_>>(), ["artel-answer-doc 9 all"]);
        assert_eq!(why, ["artel-answer-doc 1.2^git3-1 all: 1.2.1git-1 is published, which is newer"]);
    }
}
