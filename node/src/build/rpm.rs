//! Kind `rpm`: RPM packages with `rpmbuild`, from a spec and its sources or from a source RPM.
//!
//! The binary packages are built below the attempt's own path, which varies; the source RPM that belongs to a spec is made
//! below one path that is the same everywhere, because its header holds the expanded spec, paths and all. Packages are
//! unsigned here: a signature would be another one on each node, so the publisher adds it after the comparison.

use std::path::Path;

use protocol::{
    job::{BuildLimits, RpmJob, RpmSource},
    words::RelativePath,
};

use super::{
    lint, listed,
    sandbox::outputs::{Leftovers, OutputError, OutputFile},
    vary::Variation,
};

/// Where the script lists what it built, below the build directory.
const LIST: &str = "artel-rpms.list";
/// Unpacks a source RPM before the date is moved: times of files must be the source's own.
const UNPACK: &str = include_str!("rpm/unpack.sh");
/// Builds, and moves the packages to where they are taken from.
const BUILD: &str = include_str!("rpm/build.sh");
/// What looks over the packages, where the environment has it.
const LINT: &str = "artel_lint rpmlint \"$place\"/*.rpm\n";

/// What the sandbox runs.
pub(in crate::build) fn script(variation: &Variation, limits: &BuildLimits) -> String {
    format!("{}{UNPACK}{}{BUILD}{LINT}", lint::begin(limits), variation.preload())
}

/// The script's arguments: what it begins with, the time for packages without a changelog, and the macros.
pub(in crate::build) fn arguments(job: &RpmJob, epoch: u64) -> Vec<String> {
    let (word, file) = match job.begins_with() {
        RpmSource::Srpm(file) => ("srpm", file),
        RpmSource::Spec(file) => ("spec", file),
    };
    let fixed = [word.to_owned(), file.name.to_string(), epoch.to_string(), LIST.to_owned()];
    fixed.into_iter().chain(job.macros.iter().cloned()).collect()
}

/// The build's own environment variables.
pub(in crate::build) fn variables(variation: &Variation) -> Vec<(String, String)> {
    vec![("HOME".into(), "/build/home".into()), ("RPM_BUILD_NCPUS".into(), variation.cpus.to_string())]
}

/// Takes the packages that the script listed.
pub(in crate::build) fn collect(leftovers: &mut Leftovers, into: &Path) -> Result<Vec<OutputFile>, OutputError> {
    let list = RelativePath::new(LIST).expect("a plain word");
    let text = leftovers.read_text(&list, listed::RPMS_MAX)?;
    let names = listed::rpms(&text).map_err(|why| OutputError::listed(LIST, why))?;
    let mut packages =
        names.iter().map(|n| leftovers.take(n, &into.join(n.as_str()))).collect::<Result<Vec<_>, _>>()?;
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packages)
}
