//! Kind `deb`: binary packages from a Debian source package, with `dpkg-buildpackage -b`.
//!
//! The outputs are the packages that the resulting `.changes` names; `.buildinfo` and `.changes` are by-products, which
//! hold dates and paths and are never compared.

use std::path::Path;

use protocol::{
    Arch,
    job::{BuildLimits, DebJob},
};

use super::{
    lint,
    listed::{self, Refused},
    sandbox::outputs::{Leftovers, OutputError, OutputFile},
    vary::Variation,
};

/// The source is unpacked before the date is moved: `dpkg-source` cannot set the times of files under a moved date.
const UNPACK: &str = "set -e\ndpkg-source --no-check -x \"$1\" \"$2\"\ncd \"$2\"\n";
const BUILD: &str = "dpkg-buildpackage -us -uc -b\n";
/// What looks over the packages, where the environment has it.
const LINT: &str = "artel_lint lintian --allow-root ../*.changes\n";

/// What the sandbox runs.
pub(in crate::build) fn script(variation: &Variation, limits: &BuildLimits) -> String {
    format!("{}{UNPACK}{}{BUILD}{LINT}", lint::begin(limits), variation.preload())
}

/// The script's arguments.
pub(in crate::build) fn arguments(job: &DebJob) -> Vec<String> {
    vec![job.dsc().name.to_string(), format!("{}-{}", job.source, upstream(job.version.as_str()))]
}

/// The build's own environment variables.
pub(in crate::build) fn variables(job: &DebJob, variation: &Variation) -> Vec<(String, String)> {
    let parallel = format!("parallel={}", variation.cpus);
    let options: Vec<_> = job.options.iter().map(String::as_str).chain([parallel.as_str()]).collect();
    let mut variables = vec![
        ("DEB_BUILD_OPTIONS".to_owned(), options.join(" ")),
        ("HOME".to_owned(), format!("/nonexistent/{}", variation.user)),
    ];
    if !job.profiles.is_empty() {
        variables.push(("DEB_BUILD_PROFILES".to_owned(), job.profiles.join(" ")));
    }
    variables
}

/// Takes what the build left: the packages, then the by-products.
pub(in crate::build) fn collect(
    job: &DebJob,
    arch: Arch,
    leftovers: &mut Leftovers,
    into: &Path,
) -> Result<(Vec<OutputFile>, Vec<OutputFile>), OutputError> {
    let version = job.version.as_str();
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let changes = format!("{}_{version}_{arch}.changes", job.source);
    let refused = |why| OutputError::listed(&changes, why);
    let changes_name = listed::plain(&changes).map_err(refused)?;
    let listed = listed::changes(&leftovers.read_text(&changes_name, listed::CHANGES_MAX)?).map_err(refused)?;
    let (mut packages, mut byproducts) = (Vec::new(), Vec::new());
    for (sha256, name) in listed {
        let taken = leftovers.take(&name, &into.join(name.as_str()))?;
        if taken.sha256 != sha256 {
            return Err(OutputError::Listed { name });
        }
        let is_package = [".deb", ".udeb"].iter().any(|ending| name.as_str().ends_with(ending));
        if is_package { packages.push(taken) } else { byproducts.push(taken) }
    }
    if packages.is_empty() {
        return Err(refused(Refused::Form("it names no package")));
    }
    byproducts.push(leftovers.take(&changes_name, &into.join(&changes))?);
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((packages, byproducts))
}

/// Gives the version without epoch and revision, as `dpkg-source` names the unpacked folder.
fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version.rsplit_once('-').map_or(version, |(upstream, _)| upstream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_lose_epoch_and_revision() {
        for (version, expect) in [("1:2.10-3", "2.10"), ("12.4+deb12u15", "12.4+deb12u15"), ("1.0-rc1-2", "1.0-rc1")] {
            assert_eq!(upstream(version), expect);
        }
    }
}
