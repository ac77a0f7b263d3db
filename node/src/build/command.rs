//! Kind `command`: any command with declared inputs and outputs. What is not declared is not kept.

use std::path::Path;

use protocol::job::CommandJob;

use super::{
    sandbox::outputs::{Leftovers, OutputError, OutputFile},
    vary::Variation,
};

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
