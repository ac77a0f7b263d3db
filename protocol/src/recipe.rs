//! Recipes: where a package's sources come from and when they are built, and the record of each run.
//!
//! A recipe names repositories and a channel, never contents: what a run found is pinned by commit and hash in that run's
//! jobs and in its record. Recipe and records are signed by a maintainer of the channel; who removes a recipe signs the next
//! number without a plan.
//!
//! ```text
//!  recipe --run--> references are commits --fetch--> trees --source--> source package --decide--> build, publish
//!                                                                          |
//!  run record: revisions, version, decision in words, jobs                 `-> skip
//! ```

use serde::{Deserialize, Serialize};

use crate::{
    Arch, ChannelName, FileName, JobId, NetworkId, Sha256, Timestamp,
    envelope::{Record, Signers, check_set},
    job::{Pointer, check_hosts},
    limits,
    words::{DebVersion, HostRule, RecipeName, RefName, Url},
};

/// Bytes of a reason.
const REASON_MAX: usize = 1024;
/// The most jobs of one run that build.
const BUILDS_MAX: usize = 32;
/// The most macros, or mappings of requirements.
const WORDS_MAX: usize = 64;
/// The most sources of one recipe.
const REVISIONS_MAX: usize = 8;

/// A recipe, or the word that it is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// When the maintainer signed.
    pub at: Timestamp,
    /// The recipe's name.
    pub name: RecipeName,
    /// What to do; none removes the recipe.
    pub plan: Option<Plan>,
    /// The newest number counts; each is one more than the one before.
    pub number: u64,
    /// Where its packages go.
    pub channel: ChannelName,
    /// The network that it is for.
    pub network: NetworkId,
}

/// What a recipe does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What comes out.
    pub kind: Product,
    /// What is built for, sorted.
    pub arches: Vec<Arch>,
    /// Macros for rpmbuild, sorted; only for [`Product::Rpm`].
    pub macros: Vec<String>,
    /// When a version is built.
    pub flavour: Flavour,
    /// Which Debian packages give what an RPM requires, each `RPM=DEB[,DEB]`, sorted; only for [`Product::Rpm`].
    pub requires: Vec<String>,
    /// The program's source.
    pub upstream: Upstream,
    /// The packaging's repository, when it is not part of upstream.
    pub packaging: Option<GitSource>,
}

/// The kinds of packages that recipes make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Product {
    /// Debian packages.
    Deb,
    /// RPM packages.
    Rpm,
}

/// When a version is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    /// Each commit gets a version of its own, from its time; what is newer or equal is built, the same commit never twice.
    Ci,
    /// Versions are the packaging's; only what is greater is built.
    Release,
}

/// A branch or tag of a git repository, as people name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitSource {
    /// The repository.
    pub url: Url,
    /// The branch or tag.
    pub reference: RefName,
}

/// The program's source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upstream {
    /// A git repository.
    Git(GitSource),
    /// A release's tarball.
    Tarball(Tarball),
    /// What the packaging names.
    Named(Named),
}

/// Files that the packaging names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// What in the packaging names them.
    pub by: Pointer,
    /// Hosts that they are expected at, sorted.
    pub hosts: Vec<HostRule>,
}

/// A release's tarball.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tarball {
    /// Its address.
    pub url: Url,
    /// What it must be, when that is known.
    pub sha256: Option<Sha256>,
}

impl Record for Recipe {
    const KIND: &'static str = "recipe";
    const LIMIT: usize = 64 * 1024;
    const SIGNERS: Signers = Signers::People;

    fn check(&self) -> Result<(), String> {
        if self.number == 0 {
            return Err("the first recipe of a name has number 1".into());
        }
        self.plan.as_ref().map_or(Ok(()), Plan::check)
    }
}

impl Plan {
    fn check(&self) -> Result<(), String> {
        check_set("architectures", &self.arches, Arch::EVERY.len())?;
        if self.arches.is_empty() || self.arches.contains(&Arch::All) {
            return Err("a recipe builds for one or more real architectures".into());
        }
        check_set("macros", &self.macros, WORDS_MAX)?;
        check_set("requirements", &self.requires, WORDS_MAX)?;
        let mut words = self.macros.iter().chain(&self.requires);
        if words.any(|word| word.is_empty() || word.len() > limits::TEXT_MAX || word.contains(char::is_control)) {
            return Err("macros and requirements are one line each".into());
        }
        match (self.kind, &self.upstream, self.flavour) {
            (Product::Deb, ..) if !self.macros.is_empty() || !self.requires.is_empty() => {
                Err("only recipes of RPMs have macros and requirements".into())
            }
            (_, Upstream::Tarball(_) | Upstream::Named(_), Flavour::Ci) => {
                Err("a tarball has no commits: use flavour release, or a git repository".into())
            }
            (kind, Upstream::Named(named), Flavour::Release) => {
                check_hosts(&named.hosts)?;
                match (self.packaging.is_some(), kind == Product::Rpm, named.by) {
                    (false, ..) => Err("what names the sources is in the packaging's repository: name it".into()),
                    (true, true, Pointer::Spec) | (true, false, Pointer::Watch | Pointer::WatchPackaged) => Ok(()),
                    (true, ..) => Err("Debian packages have a watch file, RPMs a spec".into()),
                }
            }
            (..) => Ok(()),
        }
    }

    /// Gives the repositories that it follows, by the names of their sources.
    pub fn repositories(&self) -> Vec<(&'static str, &GitSource)> {
        let upstream = match &self.upstream {
            Upstream::Git(git) => Some((UPSTREAM, git)),
            Upstream::Tarball(_) | Upstream::Named(_) => None,
        };
        self.packaging.iter().map(|git| (PACKAGING, git)).chain(upstream).collect()
    }
}

/// The name of the program's source among the sources of a run.
pub const UPSTREAM: &str = "upstream";
/// The name of the packaging among the sources of a run.
pub const PACKAGING: &str = "packaging";

/// What one run of a recipe found, decided and began. It is signed again as it goes on; the newest
/// counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeRun {
    /// When this was signed.
    pub at: Timestamp,
    /// The run's number: one more than the one before.
    pub run: u64,
    /// Its jobs.
    pub jobs: RunJobs,
    /// How often it was signed before; who signs the same step twice, or at the same time as somebody else, is refused.
    pub step: u64,
    /// How far it is.
    pub state: RunState,
    /// The recipe's number.
    pub number: u64,
    /// The recipe.
    pub recipe: RecipeName,
    /// The network.
    pub network: NetworkId,
    /// The version that its sources make, once it is known.
    pub version: Option<DebVersion>,
    /// What was decided.
    pub decision: Option<Decision>,
    /// What its sources were at that time, sorted by name.
    pub revisions: Vec<Revision>,
}

/// The jobs of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunJobs {
    /// Brings the sources.
    pub fetch: Option<JobId>,
    /// Build the packages, one for each architecture, sorted.
    pub builds: Vec<JobId>,
    /// Makes the source package.
    pub source: Option<JobId>,
}

/// What one source was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// The source's name.
    pub name: FileName,
    /// The commit, or the tarball's address and hash.
    pub what: String,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunState {
    /// It goes on, or was interrupted.
    Open,
    /// It is done.
    Ended,
    /// It failed, in words.
    Failed(String),
}

/// What was decided, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// It is built.
    Build(String),
    /// It is not.
    Skip(String),
}

impl Decision {
    /// Gives the reason.
    pub fn reason(&self) -> &str {
        match self {
            Decision::Build(reason) | Decision::Skip(reason) => reason,
        }
    }
}

impl RecipeRun {
    /// Says whether it was decided to build and that ended well.
    pub fn has_built(&self) -> bool {
        matches!((&self.decision, &self.state), (Some(Decision::Build(_)), RunState::Ended))
    }
}

impl Record for RecipeRun {
    const KIND: &'static str = "recipe-run";
    const LIMIT: usize = 16 * 1024;
    const SIGNERS: Signers = Signers::People;

    fn check(&self) -> Result<(), String> {
        if self.run == 0 || self.number == 0 {
            return Err("runs and recipes are counted from 1".into());
        }
        check_set("builds", &self.jobs.builds, BUILDS_MAX)?;
        check_set("revisions", &self.revisions.iter().map(|r| &r.name).collect::<Vec<_>>(), REVISIONS_MAX)?;
        let failure = match &self.state {
            RunState::Failed(why) => why.as_str(),
            RunState::Open | RunState::Ended => "",
        };
        let reason = self.decision.as_ref().map_or("", Decision::reason);
        let mut texts = self.revisions.iter().map(|r| r.what.as_str()).chain([failure, reason]);
        if texts.clone().any(|text| text.contains(char::is_control)) {
            return Err("reasons and revisions are one line each, without control characters".into());
        }
        if reason.len() > REASON_MAX || texts.any(|text| text.len() > 2 * REASON_MAX) {
            return Err(format!("a reason has at most {REASON_MAX} bytes"));
        }
        if matches!((&self.state, &self.decision), (RunState::Ended, None)) {
            return Err("a run that ended has decided".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::samples;

    #[test]
    fn what_a_run_says_is_plain_text() {
        let run = samples::recipe_run(samples::network());
        assert_eq!(run.check(), Ok(()));
        let text = || "\u{1b}]0;title\u{7}".to_owned();
        let mut revisions = run.revisions.clone();
        revisions[0].what = text();
        let bad = [
            RecipeRun { decision: Some(Decision::Skip(text())), ..run.clone() },
            RecipeRun { state: RunState::Failed("two\nlines".to_owned()), ..run.clone() },
            RecipeRun { revisions, ..run },
        ];
        for run in bad {
            assert!(run.check().unwrap_err().contains("control characters"), "{run:?}");
        }
    }
}
