//! Kind `fetch`: sources from elsewhere, the only builds that reach a network.
//!
//! The sandbox is every build's, without a network of its own. Our own script runs in it, with git, curl, uscan and rpmspec
//! of the job's environment, which read what the fetched tree says. All that it reaches goes through a [`gate::Gate`] of this
//! node: a socket in the attempt's folder behind which stand only hosts that the node's owner lists, whatever a tree, a
//! server or a redirect says. The date is not moved: certificates are judged by it.

mod gate;

use std::path::Path;

use protocol::{
    blame::{Blame, Fault},
    job::{FetchJob, FetchSource, Origin, reaches},
    words::HostRule,
};
use tokio_util::sync::CancellationToken;

use self::gate::Gate;
use super::{
    Error, LogSink, Rig,
    sandbox::{
        self, Plan, Ran,
        outputs::{Leftovers, OutputError, OutputFile},
    },
};

/// What the sandbox runs.
pub(in crate::build) const SCRIPT: &str = include_str!("fetch/fetch.sh");

/// The script's arguments. What a tree names comes after the trees.
pub(in crate::build) fn arguments(job: &FetchJob) -> Vec<String> {
    let words = |source: &FetchSource| match &source.origin {
        Origin::Git(git) => {
            let (url, commit, reference) = (git.url.to_string(), git.commit.to_string(), git.reference.to_string());
            vec!["git".to_owned(), source.name.to_string(), url, commit, reference]
        }
        Origin::File(file) => {
            let sha256 = file.sha256.map(|sha256| sha256.to_string()).unwrap_or_default();
            vec!["file".to_owned(), source.name.to_string(), file.url.to_string(), sha256]
        }
        Origin::Named(named) => {
            let words = [source.name.as_str(), named.tree.as_str(), &named.macros.join("\n")];
            [named.by.word()].into_iter().chain(words).map(str::to_owned).collect()
        }
    };
    let is_named = |source: &&FetchSource| matches!(source.origin, Origin::Named(_));
    let (named, plain): (Vec<_>, Vec<_>) = job.sources.iter().partition(is_named);
    plain.into_iter().chain(named).flat_map(words).collect()
}

/// Refuses what the node's owner does not list; the coordinator should not have asked.
pub(in crate::build) fn check(job: &FetchJob, rules: &[HostRule]) -> Result<(), Error> {
    match job.endpoints().into_iter().find(|endpoint| !reaches(rules, endpoint)) {
        None => Ok(()),
        Some(endpoint) => {
            let what = format!("it fetches from {endpoint}, which this node's owner does not list");
            Err(Error::Task { what, blame: Blame::Builder(Fault::Other) })
        }
    }
}

/// Runs a plan whose sandbox reaches the listed hosts.
pub(in crate::build) async fn run(
    rig: &Rig,
    plan: &Plan<'_>,
    rules: &[HostRule],
    log: &LogSink,
    stop: &CancellationToken,
) -> Result<Ran, Error> {
    let gate = Gate::open(rig, plan.folder, rules.to_vec(), log.clone());
    let gate = gate.map_err(|source| Error::Folder { folder: plan.folder.to_owned(), source })?;
    tokio::select! {
        biased;
        ran = sandbox::run(rig, plan, log, stop) => ran.map_err(Error::Sandbox),
        never = gate.serve() => match never {},
    }
}

/// Takes every source.
pub(in crate::build) fn collect(
    job: &FetchJob,
    leftovers: &mut Leftovers,
    into: &Path,
) -> Result<Vec<OutputFile>, OutputError> {
    job.outputs().iter().map(|name| leftovers.take(name, &into.join(name.as_str()))).collect()
}
