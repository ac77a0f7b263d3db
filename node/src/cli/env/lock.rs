//! `artel env lock`: from which archive, for what.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use protocol::{
    Arch, ChannelName, Hash, PackageName, SuiteName, environment::EnvironmentLock, limits, release::Manifest,
};
use web::{Backend, backend::ByteRange};

use crate::{
    cli::{
        Context, exit,
        output::{self, Format},
    },
    clock,
    config::{Config, Mirror},
    resolve::{
        archive::{self, Archive, Refresh},
        buildinfo::{Absent, Buildinfo, Missing, lock_for_buildinfo},
        dnf,
        elsewhere::Elsewhere,
        lock,
        release::{Beside, Pinned},
        source,
    },
};

/// What `$releasever` stands for where nothing else is said.
const RELEASE: &str = "rpm";
/// The RPM that has rpmbuild, in every distribution of RPMs.
const RPMBUILD: &str = "rpm-build";

/// What to lock
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Words {
    /// A .dsc file, or the name of a source package of the archive; without it, the build essentials alone. With --dnf, a .spec
    /// or .src.rpm
    source: Option<String>,
    /// Further packages; with --dnf, the packages
    #[arg(long, visible_alias = "packages", value_delimiter = ',')]
    package: Vec<PackageName>,
    /// Further packages beside a source package's build dependencies, for instance lintian
    #[arg(long, value_delimiter = ',', value_name = "PACKAGE", requires = "source")]
    with: Vec<PackageName>,
    /// The archive's suite [default: this system's]; with --dnf, what $releasever in the address stands for [default: rpm]
    #[arg(long)]
    suite: Option<SuiteName>,
    /// Words of DEB_BUILD_PROFILES
    #[arg(long, value_delimiter = ',')]
    profile: Vec<String>,
    /// Another archive than this machine's, by its address; it needs --key
    #[arg(long, requires = "key", group = "elsewhere", value_name = "URL")]
    archive: Option<String>,
    /// RPMs instead of Debian packages, from a repository by its address (the folder of its repodata); it needs --key, which
    /// signs the repository and its packages, and the program dnf
    #[arg(
        long,
        requires = "key",
        group = "elsewhere",
        conflicts_with_all = ["profile", "release", "buildinfo"],
        value_name = "URL"
    )]
    dnf: Option<String>,
    /// The OpenPGP key that signs the other archive, in a file
    #[arg(long, requires = "elsewhere", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Components of the other archive
    #[arg(long, value_delimiter = ',', default_value = "main")]
    component: Vec<String>,
    /// Our own repository of a channel beside the archive, pinned at a generation [default: its newest]
    #[arg(long, value_name = "CHANNEL[@GENERATION]")]
    release: Option<String>,
    /// The packages that a .buildinfo names, to build again what somebody published
    #[arg(long, conflicts_with_all = ["source", "package", "profile"], value_name = "FILE")]
    buildinfo: Option<PathBuf>,
    /// Where the archive has other versions than the .buildinfo names, take what it has
    #[arg(long, requires = "buildinfo")]
    nearest: bool,
    /// Where to write the lock
    #[arg(long, short, default_value = "environment.lock")]
    out: PathBuf,
}

impl Words {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let home = context.home.archive();
        let out = self.out.clone();
        let pinned = match &self.release {
            Some(text) => Some(pinned(context, text).await?),
            None => None,
        };
        let (lock, missing) = tokio::task::spawn_blocking(move || self.resolve(&home, pinned.as_ref())).await??;
        fs::write(&out, lock.to_bytes()).with_context(|| format!("cannot write {}", out.display()))?;
        anstream::eprintln!("wrote {} with {} packages", out.display(), lock.packages.len());
        for other in &missing {
            let has = if other.has.is_empty() { "nothing".to_owned() } else { other.has.join(", ") };
            anstream::eprintln!("  {} {} is gone; the archive has {has}", other.name, other.wanted);
        }
        match context.format {
            Format::Json => {
                output::json(&serde_json::json!({ "environment": lock.id(), "replaced": missing }))?;
            }
            Format::People => output::line(&lock.id().to_string())?,
        }
        Ok(exit::DONE)
    }

    fn resolve(self, state: &Path, pinned: Option<&Pinned>) -> anyhow::Result<(EnvironmentLock, Vec<Missing>)> {
        if let (Some(url), Some(key)) = (&self.dnf, &self.key) {
            return Ok((self.resolve_rpms(state, url, key)?, Vec::new()));
        }
        let archive = self.open(state, pinned)?;
        archive.update(clock::now(), Refresh::WhenStale)?;
        if let Some(path) = &self.buildinfo {
            let info = Buildinfo::read(path)?;
            anyhow::ensure!(
                info.arch == archive.arch().name(),
                "{} is of a build on {}, this machine is {}",
                path.display(),
                info.arch,
                archive.arch()
            );
            let absent = if self.nearest { Absent::Nearest } else { Absent::Refuse };
            let (locked, missing) = lock_for_buildinfo(&archive, &info, absent)?;
            return Ok((locked.lock, missing));
        }
        let Some(what) = &self.source else { return Ok((lock::lock_plain(&archive, &self.package)?.lock, Vec::new())) };
        if !self.package.is_empty() {
            return Err(exit::failure(exit::USAGE, "--package goes without a source package")
                .hint("a source package's environment is what its build dependencies say")
                .into());
        }
        let source = if what.ends_with(".dsc") {
            source::read_source(Path::new(what))?
        } else {
            source::fetch_source(&archive, what, &state.join("sources").join("lock"))?
        };
        let source = source.with_packages(&self.with);
        Ok((lock::lock_for_source(&archive, &source, &self.profile)?.lock, Vec::new()))
    }

    fn resolve_rpms(&self, state: &Path, url: &str, key: &Path) -> anyhow::Result<EnvironmentLock> {
        let release = self.suite.clone().map_or_else(|| SuiteName::new(RELEASE), Ok)?;
        let arch = native()?;
        let mut asked: Vec<String> = self.package.iter().chain(&self.with).map(ToString::to_string).collect();
        match self.source.as_deref() {
            Some(what) if what.ends_with(".spec") || what.ends_with(".src.rpm") => {
                asked.extend(source::rpm::read_rpm_source(Path::new(what), &[])?.requires);
                asked.push(RPMBUILD.to_owned());
            }
            Some(what) => {
                return Err(exit::failure(exit::USAGE, format!("{what} is no .spec and no .src.rpm"))
                    .hint("name packages of the repository with --packages")
                    .into());
            }
            None if asked.is_empty() => {
                return Err(exit::failure(exit::USAGE, "an environment of RPMs has no packages of its own accord")
                    .hint("name them with --packages, for instance bash,coreutils")
                    .into());
            }
            None => {}
        }
        Ok(dnf::lock(state, dnf::Repository { url, key, release: &release }, arch, &asked, clock::now())?.lock)
    }

    fn open(&self, state: &Path, pinned: Option<&Pinned>) -> anyhow::Result<Archive> {
        let suite = self.suite.clone().map_or_else(archive::system_suite, Ok)?;
        let arch = native()?;
        let beside = pinned.map_or_else(|| Ok(Beside::default()), |pinned| pinned.lay_out(state, arch))?;
        let (Some(url), Some(key)) = (&self.archive, &self.key) else {
            return Ok(Archive::open_beside(Path::new("/etc/apt"), state, (suite, arch), beside)?);
        };
        let other = Elsewhere { url, key, components: &self.component, suite: &suite }.configure(state)?;
        Ok(Archive::open_beside(&other.join("etc"), &other, (suite, arch), beside)?)
    }
}

fn native() -> anyhow::Result<Arch> {
    Arch::native().context("this machine's architecture has no name in dpkg")
}

/// Finds a release that this node has: the newest by its manifest, an older one among those that its publisher keeps.
async fn pinned(context: &Context, text: &str) -> anyhow::Result<Pinned> {
    let (channel, generation) = match text.split_once('@') {
        None => (text, None),
        Some((channel, number)) => {
            let number = number.parse::<u64>().with_context(|| format!("{text:?} is not CHANNEL[@GENERATION]"))?;
            (channel, Some(number))
        }
    };
    let channel = ChannelName::new(channel)?;
    let client = context.client();
    let newest = client.repositories().await?.into_iter().find(|view| view.channel == channel);
    let newest = newest.ok_or_else(|| {
        exit::failure(exit::FAILED, format!("this node has no repository of channel {channel}"))
            .hint("`artel repo ls` lists those that it has")
    })?;
    let coordinates = client.status().await?.roles.iter().any(|role| role == "coordinator");
    let mirrors = Mirror::follows(Config::load(&context.home)?.mirror.as_ref(), &channel);
    let root = context.home.served(&channel, (coordinates, mirrors));
    let root = root.context("the repository's files are not on this machine")?;
    let number = generation.unwrap_or(newest.generation);
    let bytes = match newest.manifest.filter(|_| number == newest.generation) {
        Some(hash) => client.blob(hash, ByteRange::All).await?.collect(limits::MANIFEST_MAX).await?.to_vec(),
        None => kept(context, &channel, number, &newest.manifest)?,
    };
    Ok(Pinned { channel, generation: number, manifest: Manifest::from_bytes(&bytes)?, root })
}

fn kept(context: &Context, channel: &ChannelName, number: u64, newest: &Option<Hash>) -> anyhow::Result<Vec<u8>> {
    let folder = context.home.repository(channel).join("state/manifests");
    fs::read(folder.join(number.to_string())).map_err(|_| {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut has: Vec<u64> = entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        has.sort_unstable();
        let has = has.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let hint = match (has.is_empty(), newest) {
            (false, _) => format!("it has {has}"),
            (true, Some(_)) => "it has only the newest: leave @GENERATION out".to_owned(),
            (true, None) => "nothing is published there yet".to_owned(),
        };
        exit::failure(exit::FAILED, format!("generation {number} of {channel} is not kept here")).hint(hint).into()
    })
}
