//! Kind `command`: any command with declared inputs and outputs. What is not declared is not kept.

use std::path::Path;

use protocol::{
    blame::{Blame, Fault},
    environment::EnvironmentLock,
    job::{CommandJob, Isolation},
};

use super::{
    Error,
    sandbox::outputs::{Leftovers, OutputError, OutputFile},
    vary::Variation,
};

/// Refuses to run a machine's own programs where its owner does not allow it; the coordinator should not have asked.
pub(in crate::build) fn check(wanted: Isolation, allowed: Isolation, lock: &EnvironmentLock) -> Result<(), Error> {
    let refuse = |blame, what: &str| Err(Error::Task { what: what.to_owned(), blame });
    if wanted > allowed {
        return refuse(Blame::Builder(Fault::Other), "its isolation is light, which this node's owner does not allow");
    }
    if !wanted.is_rootfs() && !lock.packages.is_empty() {
        return refuse(Blame::Job, "its isolation is light, and its environment has packages");
    }
    Ok(())
}

/// What the sandbox runs.
pub(in crate::build) fn script(variation: &Variation) -> String {
    format!("set -e\n{}exec \"$@\"\n", variation.preload())
}

/// The command's own environment variables.
pub(in crate::build) fn variables(epoch: u64) -> Vec<(String, String)> {
    vec![("HOME".into(), "/build/home".into()), ("SOURCE_DATE_EPOCH".into(), epoch.to_string())]
}

/// Takes every declared output.
pub(in crate::build) fn collect(
    job: &CommandJob,
    leftovers: &mut Leftovers,
    into: &Path,
) -> Result<Vec<OutputFile>, OutputError> {
    job.outputs.iter().map(|name| leftovers.take(name, &into.join(name.as_str()))).collect()
}
