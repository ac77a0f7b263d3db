//! The steps of a run: each prepares, signs and submits one job, or reads what one made.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use futures::StreamExt;
use protocol::{
    Arch, JobId, PackageName,
    job::{BuildLimits, FetchJob, JobKind, JobRequest, Schedule},
    limits,
    recipe::{Plan, Product, Recipe, Revision},
    release::Manifest,
    words::{DebVersion, RelativePath},
};
use tokio::io::AsyncWriteExt;
use web::{
    Backend,
    api::{FileView, JobState},
    backend::ByteRange,
};

use crate::{
    cli::{
        Context,
        job::{evidence, mapping},
    },
    clock,
    config::Home,
    keys,
    publish::apt,
    recipe::{
        decide,
        source::{self, Fetched},
    },
    resolve::{
        archive::{self, Archive, Refresh},
        lock,
        source::{SourcePackage, read_source, rpm},
    },
    submit::{self, Prepared, Wish},
};

/// How long each job may take, waiting included.
const LIFETIME: Duration = Duration::from_secs(72 * 3600);
/// The largest record of a commit, in bytes.
const RECORD_MAX: usize = 4096;

/// What the steps need of this node.
pub(super) struct Steps {
    home: Home,
    recipe: Recipe,
    key: keys::Signer,
    client: web::Client,
    /// A folder of this run, with what was brought.
    folder: tempfile::TempDir,
}

/// A source package that a job made.
pub(super) enum MadeSource {
    /// For Debian packages.
    Deb(SourcePackage),
    /// For RPMs, with epoch, version and release.
    Rpm(rpm::RpmSourcePackage, DebVersion),
}

impl MadeSource {
    /// Gives the version that decides.
    pub(super) fn version(&self) -> &DebVersion {
        match self {
            MadeSource::Deb(source) => &source.version,
            MadeSource::Rpm(_, evr) => evr,
        }
    }

    fn name(&self) -> &PackageName {
        match self {
            MadeSource::Deb(source) => &source.name,
            MadeSource::Rpm(source, _) => &source.name,
        }
    }
}

impl Steps {
    pub(super) fn open(context: &Context, recipe: &Recipe, key: &keys::Signer) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let (home, recipe, key) = (context.home.clone(), recipe.clone(), key.clone());
        Ok(Self { home, recipe, key, client: context.client(), folder })
    }

    /// Asks for the sources.
    pub(super) async fn fetch(&self, plan: &Plan, revisions: &[Revision]) -> anyhow::Result<JobId> {
        let job = source::fetch(&self.recipe.name, plan, revisions)?;
        let prepared = self.plain(JobKind::Fetch(job), source::fetch_tools(plan)).await?;
        self.submit(&prepared, Vec::new()).await
    }

    /// Brings what a job made, and proves it by the attestations of those who made it: who coordinates is not believed, since
    /// what is signed next is made of it.
    async fn bring(&self, job: JobId) -> anyhow::Result<(Vec<FileView>, JobRequest)> {
        let (files, proof) = evidence::bring(&self.client, &self.recipe.network, job).await?;
        if proof.request.channel != self.recipe.channel {
            bail!("job {} is for channel {}, the recipe is not", job.short(), proof.request.channel);
        }
        Ok((files, proof.request))
    }

    /// Has the source package made of what was fetched.
    pub(super) async fn source(&self, plan: &Plan, revisions: &[Revision], fetch: JobId) -> anyhow::Result<JobId> {
        let (files, request) = self.bring(fetch).await?;
        if request.kind != JobKind::Fetch(source::fetch(&self.recipe.name, plan, revisions)?) {
            bail!("job {} fetched something else than the run's sources", fetch.short());
        }
        let mut fetched = Vec::new();
        let mut records = BTreeMap::new();
        for file in &files {
            let fetched_file = fetched_file(file)?;
            if source::is_record(&fetched_file.name) {
                let content = self.client.blob(fetched_file.hash, ByteRange::All).await?;
                records.insert(file.name.clone(), content.collect(RECORD_MAX).await?.to_vec());
            }
            fetched.push(fetched_file);
        }
        let job = source::make(&self.recipe.name, plan, revisions, &fetched, &records)?;
        let prepared = self.plain(JobKind::Command(job), source::tools(plan.kind)).await?;
        self.submit(&prepared, vec![fetch]).await
    }

    /// Brings and reads the source package that a job made.
    pub(super) async fn made(&self, plan: &Plan, fetch: JobId, job: JobId) -> anyhow::Result<MadeSource> {
        let (files, request) = self.bring(job).await?;
        if !source::makes(&self.recipe.name, fetch, &request) {
            bail!("job {} does not make the recipe's source package of job {}", job.short(), fetch.short());
        }
        let output = files.iter().find(|file| file.name == source::OUTPUT);
        let output = fetched_file(output.with_context(|| format!("job {} left no {}", job.short(), source::OUTPUT))?)?;
        if output.size > source::SOURCE_MAX {
            bail!("{} of job {} has {} bytes, which is too large", source::OUTPUT, job.short(), output.size);
        }
        let archive = self.folder.path().join(source::OUTPUT);
        let mut content = self.client.blob(output.hash, ByteRange::All).await?.bytes;
        let mut file = tokio::fs::File::create(&archive).await?;
        let mut left = output.size;
        while let Some(piece) = content.next().await {
            let piece = piece?;
            left = left.checked_sub(piece.len() as u64).context("the node sent more than the source package")?;
            file.write_all(&piece).await?;
        }
        file.flush().await?;
        let into = self.folder.path().join("source");
        let (kind, macros) = (plan.kind, plan.macros.clone());
        tokio::task::spawn_blocking(move || {
            // A run that goes on in this process unpacks once; the folder is its own.
            std::fs::create_dir(&into)?;
            let unpacked = source::unpack(&archive, &into)?;
            Ok(match kind {
                Product::Deb => MadeSource::Deb(read_source(&unpacked.begins_with)?),
                Product::Rpm => {
                    let evr = DebVersion::new(&unpacked.evr).context("the version of the source")?;
                    MadeSource::Rpm(rpm::read_rpm_source(&unpacked.begins_with, &macros)?, evr)
                }
            })
        })
        .await?
    }

    /// Gives the greatest version of a source in the recipe's channel, as this node serves it.
    pub(super) async fn published(&self, made: &MadeSource) -> anyhow::Result<Option<DebVersion>> {
        let views = self.client.repositories().await?;
        let view = views.into_iter().find(|view| view.channel == self.recipe.channel);
        let Some(manifest) = view.and_then(|view| view.manifest) else { return Ok(None) };
        let bytes = self.client.blob(manifest, ByteRange::All).await?.collect(limits::MANIFEST_MAX).await?;
        let manifest = Manifest::from_bytes(&bytes).context("the manifest of the channel's release")?;
        let product = match made {
            MadeSource::Deb(_) => Product::Deb,
            MadeSource::Rpm(..) => Product::Rpm,
        };
        let ours = manifest.packages.into_iter().filter(|package| {
            let file = package.path.as_str().rsplit('/').next().unwrap_or_default();
            let kind = if file.ends_with(".rpm") { Product::Rpm } else { Product::Deb };
            kind == product && apt::pool_path(made.name(), file).as_ref() == Some(&package.path)
        });
        Ok(ours
            .map(|package| package.version)
            .reduce(|a, b| if decide::compare(product, &a, &b) == std::cmp::Ordering::Less { b } else { a }))
    }

    /// Gives the architectures that jobs build for.
    pub(super) async fn arches(&self, jobs: &[JobId]) -> anyhow::Result<Vec<Arch>> {
        let mut arches = Vec::new();
        for job in jobs {
            arches.push(self.client.job(*job).await?.summary.arch);
        }
        Ok(arches)
    }

    /// Has packages built that [`Steps::build`] prepared.
    pub(super) async fn begin(&self, prepared: &Prepared, source: JobId) -> anyhow::Result<JobId> {
        self.submit(prepared, vec![source]).await
    }

    /// Prepares the build for an architecture.
    pub(super) async fn build(&self, arch: Arch, plan: &Plan, made: &MadeSource) -> anyhow::Result<Prepared> {
        match made {
            MadeSource::Deb(source) => {
                let source = source.clone();
                self.locked(arch, move |archive| Ok(submit::deb(archive, &source, &submit::DebWords::default())?)).await
            }
            MadeSource::Rpm(source, _) => {
                let requires = plan.requires.iter().map(|text| mapping(text)).collect::<anyhow::Result<_>>()?;
                let (source, macros) = (source.clone(), plan.macros.clone());
                self.locked(arch, move |archive| Ok(submit::rpm(archive, &source, &macros, &requires, &[])?)).await
            }
        }
    }

    /// Prepares a job in the buildd set and some packages.
    async fn plain(&self, kind: JobKind, packages: Vec<PackageName>) -> anyhow::Result<Prepared> {
        let arch = Arch::native().context("this machine's architecture has no name in dpkg")?;
        self.locked(arch, move |archive| {
            let locked = lock::lock_plain(archive, &packages)?;
            let files: Vec<(protocol::Hash, PathBuf)> =
                locked.lock.packages.iter().map(|p| p.hash).zip(locked.files.iter().cloned()).collect();
            Ok(Prepared { kind, lock: locked.lock, files })
        })
        .await
    }

    /// Runs apt in a thread of its own.
    async fn locked(
        &self,
        arch: Arch,
        prepare: impl FnOnce(&Archive) -> anyhow::Result<Prepared> + Send + 'static,
    ) -> anyhow::Result<Prepared> {
        let state = self.home.archive();
        tokio::task::spawn_blocking(move || {
            let archive = Archive::open(&state, archive::system_suite()?, arch)?;
            archive.update(clock::now(), Refresh::WhenStale)?;
            prepare(&archive)
        })
        .await?
    }

    async fn submit(&self, prepared: &Prepared, after: Vec<JobId>) -> anyhow::Result<JobId> {
        let limits = BuildLimits { memory_mib: 2048, ..BuildLimits::default() };
        let schedule = Schedule { after, ..Schedule::default() };
        let wish = Wish { channel: self.recipe.channel.clone(), limits, lifetime: LIFETIME, schedule };
        Ok(submit::submit(&self.client, prepared, &wish, clock::now(), &self.key).await?.job)
    }

    /// Says whether operators agree on what a job made, that is still known, and it was asked for just this.
    pub(super) async fn has_fetched(&self, job: JobId, wanted: &FetchJob) -> bool {
        let detail = self.client.job(job).await;
        let reproduced = detail.is_ok_and(|detail| detail.summary.state == JobState::Reproduced);
        let same = |request: &JobRequest| matches!(&request.kind, JobKind::Fetch(fetch) if fetch == wanted);
        reproduced && self.bring(job).await.is_ok_and(|(_, request)| same(&request))
    }
}

fn fetched_file(file: &FileView) -> anyhow::Result<Fetched> {
    let name = RelativePath::new(&file.name)?;
    let Some(hash) = file.hash else { bail!("output {name} has no hash") };
    Ok(Fetched { name, hash, size: file.size, sha256: file.sha256 })
}
