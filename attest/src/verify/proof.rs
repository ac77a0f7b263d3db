//! What a bundle proved, and how to say it.

use std::collections::BTreeMap;

use protocol::{
    Arch, ChannelName, JobId, MaintainerName, NetworkId, OperatorName, PackageName, Sha256,
    environment::EnvironmentLock,
    job::{JobKind, JobRequest},
    policy::Policy,
    words::{DebVersion, RelativePath},
};

use super::{Error, Promotion};
use crate::{
    compare::Output,
    independence::Vote,
    threshold::{Dissent, Rule},
};

/// A bundle's claim, checked link by link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The network that was trusted.
    pub network: NetworkId,
    /// The policy in force.
    pub policy: Policy,
    /// The job.
    pub job: JobId,
    /// The channel that it was proven for: the request's own, or the one that it was promoted to.
    pub channel: ChannelName,
    /// The steps into that channel, where it is not the request's own.
    pub promotions: Vec<Promotion>,
    /// What the maintainer asked for.
    pub request: JobRequest,
    /// Who asked.
    pub maintainer: MaintainerName,
    /// The environment that it was built in, where the evidence brings its lock along; it names it by hash in any case.
    pub lock: Option<EnvironmentLock>,
    /// How many operators had to agree.
    pub rule: Rule,
    /// The votes of those who agree.
    pub votes: Vec<Vote>,
    /// The operators that agree, sorted.
    pub agree: Vec<OperatorName>,
    /// Who signed something else.
    pub dissent: Vec<Dissent>,
    /// The files that were reproduced, sorted by name.
    pub outputs: Vec<Output>,
}

/// A binary package's file name, taken apart: `name_version_arch.deb`. The version has no epoch there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebName {
    /// The package.
    pub name: PackageName,
    /// The version, without its epoch.
    pub version: DebVersion,
    /// The architecture.
    pub arch: Arch,
}

impl DebName {
    /// Takes a file name apart, or gives nothing where it is not one of a binary package.
    pub fn parse(file: &str) -> Option<Self> {
        let stem = file.strip_suffix(".deb").or_else(|| file.strip_suffix(".udeb"))?;
        let mut parts = stem.split('_');
        let (name, version, arch) = (parts.next()?, parts.next()?, parts.next()?);
        match parts.next() {
            Some(_) => None,
            None => Some(Self { name: name.parse().ok()?, version: version.parse().ok()?, arch: arch.parse().ok()? }),
        }
    }
}

impl Proof {
    /// Checks that a file is one of those reproduced: the same name, the same bytes, for a package an
    /// architecture that the job was for, and that every promotion meant it. Of an RPM, the digest is that of [`crate::rpm::attested`], without its signature.
    ///
    /// # Errors
    /// The job made no such file, or another one under this name, or it was not promoted.
    pub fn file(&self, name: &str, sha256: &Sha256) -> Result<&Output, Error> {
        let same = |output: &&Output| basename(&output.name) == name || output.name.as_str() == name;
        let named: Vec<&Output> = self.outputs.iter().filter(same).collect();
        let first = named.first().ok_or_else(|| Error::NoSuchFile { job: self.job, name: cut(name) })?;
        let output = named.iter().find(|output| output.sha256 == *sha256).ok_or_else(|| Error::OtherContent {
            name: cut(name),
            got: *sha256,
            wanted: first.sha256,
        })?;
        let file = basename(&output.name);
        let package = DebName::parse(file).map(|deb| (deb.name, deb.arch)).or_else(|| rpm_package(file));
        let package = package.as_ref().map(|(name, arch)| (name, *arch));
        match package.map(|(_, arch)| arch).or_else(|| rpm_arch(file)) {
            Some(arch) if arch != Arch::All && arch != self.request.arch => {
                Err(Error::OtherArchitecture { name: cut(name), arch: self.request.arch })
            }
            _ => self.was_promoted(package, file).map(|()| *output),
        }
    }

    /// Checks that every step into the channel meant a package, or a file that is none.
    fn was_promoted(&self, package: Option<(&PackageName, Arch)>, called: &str) -> Result<(), Error> {
        match self.promotions.iter().find(|step| !step.covers(package)) {
            Some(step) => Err(Error::NotPromoted { name: cut(called), channel: step.to.to_string() }),
            None => Ok(()),
        }
    }

    /// Checks that a package of an index is one of those reproduced: name, version (without epoch) and architecture as
    /// the builders signed them in the file's name, the digest, and that every promotion meant it.
    ///
    /// # Errors
    /// The job made no such package, or another one.
    pub fn package(
        &self,
        name: &PackageName,
        version: &DebVersion,
        arch: Arch,
        sha256: &Sha256,
    ) -> Result<&Output, Error> {
        self.was_promoted(Some((name, arch)), name.as_str())?;
        let plain = version.as_str().split_once(':').map_or(version.as_str(), |(_, rest)| rest);
        match &self.request.kind {
            JobKind::Rpm(_) => self.file(&format!("{name}-{plain}.{}.rpm", arch.rpm_name()), sha256),
            JobKind::Deb(_) | JobKind::Command(_) | JobKind::Image(_) | JobKind::Server(_) | JobKind::Fetch(_) => {
                self.file(&format!("{name}_{plain}_{arch}.deb"), sha256)
            }
        }
    }

    /// Gives the chain for people: one line for each thing that was proven, and by whom.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("network {} ({}), policy {}", self.network, self.policy.name, self.policy.number),
            format!("job {}: {}, signed by maintainer {}", self.job, self.request.title(), self.maintainer),
            self.environment(),
            format!("{} operators agree, {} needed by channel {}", self.agree.len(), self.rule.agree, self.channel),
        ];
        for step in &self.promotions {
            lines.push(format!("promoted to channel {}: {}", step.to, step.work.title(&step.to)));
        }
        if self.rule.agree < 2 {
            lines.push("note: this channel asks for one operator only, so nothing was reproduced independently".into());
        }
        lines.extend(self.signers().iter().map(|vote| {
            format!("  {} signed with node {} under profile {}", vote.operator, vote.node, vote.profile.0)
        }));
        for dissent in &self.dissent {
            let files: Vec<String> = dissent.differences.iter().map(ToString::to_string).collect();
            lines.push(format!(
                "  {} (node {}) signed something else: {}",
                dissent.operator,
                dissent.node,
                files.join("; ")
            ));
        }
        lines.extend(self.outputs.iter().map(|o| format!("file {} sha256 {} ({} bytes)", o.name, o.sha256, o.size)));
        lines
    }

    fn environment(&self) -> String {
        let id = self.request.environment;
        match &self.lock {
            Some(lock) => format!("environment {id}: {} packages of {} {}", lock.packages.len(), lock.suite, lock.arch),
            None => format!("environment {id}"),
        }
    }

    /// Gives each vote once, by operator and node.
    fn signers(&self) -> Vec<&Vote> {
        let votes: BTreeMap<_, &Vote> = self.votes.iter().map(|v| ((&v.operator, v.node, v.profile), v)).collect();
        votes.into_values().collect()
    }
}

/// Gives the architecture that an RPM's file name claims; none for a source RPM.
fn rpm_arch(file: &str) -> Option<Arch> {
    let (_, arch) = file.strip_suffix(".rpm")?.rsplit_once('.')?;
    Arch::from_rpm_name(arch)
}

/// Gives the package that an RPM's file name claims, `name-version-release.arch.rpm`; none for a source RPM.
pub fn rpm_package(file: &str) -> Option<(PackageName, Arch)> {
    let (stem, _) = file.strip_suffix(".rpm")?.rsplit_once('.')?;
    let (plain, _release) = stem.rsplit_once('-')?;
    let (name, _version) = plain.rsplit_once('-')?;
    Some((name.parse().ok()?, rpm_arch(file)?))
}

fn basename(path: &RelativePath) -> &str {
    path.as_str().rsplit('/').next().unwrap_or(path.as_str())
}

fn cut(text: &str) -> String {
    text.chars().take(200).collect()
}
