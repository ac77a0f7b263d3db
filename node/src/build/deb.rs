//! Kind `deb`: binary packages from a Debian source package, with `dpkg-buildpackage -b`.
//!
//! The outputs are the packages that the resulting `.changes` names; `.buildinfo` and `.changes` are by-products, which
//! hold dates and paths and are never compared.

use std::{collections::BTreeSet, path::Path};

use protocol::{
    Arch, Sha256,
    job::{BuildLimits, DebJob},
    words::RelativePath,
};

use super::{
    lint,
    sandbox::outputs::{Leftovers, OutputError, OutputFile},
    vary::Variation,
};

/// The largest `.changes` file that is read, in bytes.
const CHANGES_MAX: u64 = 4 * 1024 * 1024;
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
    let changes_name = name(&format!("{}_{version}_{arch}.changes", job.source))?;
    let changes = leftovers.read_text(&changes_name, CHANGES_MAX)?;
    let listed = listed(&changes).map_err(|why| OutputError::List { file: changes_name.to_string(), why })?;
    let (mut packages, mut byproducts) = (Vec::new(), Vec::new());
    for (sha256, file) in listed {
        let name = name(&file)?;
        let taken = leftovers.take(&name, &into.join(&file))?;
        if taken.sha256 != sha256 {
            return Err(OutputError::Listed { name });
        }
        let is_package = file.ends_with(".deb") || file.ends_with(".udeb");
        if is_package { packages.push(taken) } else { byproducts.push(taken) }
    }
    if packages.is_empty() {
        return Err(OutputError::List { file: changes_name.to_string(), why: "it names no package".into() });
    }
    byproducts.push(leftovers.take(&changes_name, &into.join(changes_name.as_str()))?);
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((packages, byproducts))
}

fn name(file: &str) -> Result<RelativePath, OutputError> {
    match RelativePath::new(file) {
        Ok(name) if !file.contains('/') => Ok(name),
        Ok(_) | Err(_) => Err(OutputError::Name { name: file.chars().take(80).collect() }),
    }
}

/// Gives the files of a `.changes`, with their digests.
fn listed(changes: &str) -> Result<Vec<(Sha256, String)>, String> {
    let lines = changes.lines().skip_while(|line| *line != "Checksums-Sha256:").skip(1);
    let files: Result<Vec<_>, String> = lines
        .take_while(|line| line.starts_with(' '))
        .map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [digest, _, file] => Ok((digest.parse().map_err(|_| "a digest is malformed")?, file.to_owned())),
            _ => Err("a line of Checksums-Sha256 has not three words".to_owned()),
        })
        .collect();
    match files? {
        files if files.is_empty() => Err("it has no Checksums-Sha256".into()),
        files if files.len() > protocol::limits::OUTPUTS_MAX => Err("it names too many files".into()),
        files if files.iter().map(|(_, file)| file).collect::<BTreeSet<_>>().len() < files.len() => {
            Err("it names a file twice".into())
        }
        files => Ok(files),
    }
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

    #[test]
    fn a_changes_file_lists_files_and_refuses_nonsense() {
        let digest = Sha256::of(b"x");
        let text = format!("Format: 1.8\nChecksums-Sha256:\n {digest} 12 a_1_all.deb\nFiles:\n 00 12 x a_1_all.deb\n");
        assert_eq!(listed(&text), Ok(vec![(digest, "a_1_all.deb".to_owned())]));
        assert!(listed("Checksums-Sha256:\n zz 1 a.deb\n").is_err());
        assert!(listed("Format: 1.8\n").is_err());
        let twice = format!("Checksums-Sha256:\n {digest} 1 a.deb\n {digest} 1 a.deb\n");
        assert_eq!(listed(&twice), Err("it names a file twice".to_owned()));
        for hostile in ["../a.deb", "x/a.deb", "-rf", "a\n.deb", "\u{1b}[31ma.deb", "a\u{202e}bed.a", ".a.deb", ""] {
            let refused = name(hostile).unwrap_err().to_string();
            assert!(!refused.contains(|c: char| c.is_control() || c == '\u{202e}'), "{refused}");
        }
    }
}
