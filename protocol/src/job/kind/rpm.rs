//! RPM packages: from a source RPM, or from a spec and its sources.

use serde::{Deserialize, Serialize};

use super::{SourceFile, check_sources};
use crate::{PackageName, envelope::check_set, limits, words::DebVersion};

/// The most macros that a job may set.
const MACROS_MAX: usize = 64;

/// RPM packages to build with `rpmbuild`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RpmJob {
    /// The source package's name.
    pub name: PackageName,
    /// One `.src.rpm` and nothing else, or one `.spec` with its sources and patches; sorted by name.
    pub files: Vec<SourceFile>,
    /// Macros that `rpmbuild` is given, each `NAME VALUE`; sorted.
    pub macros: Vec<String>,
    /// The source package's version, without epoch and release.
    pub version: DebVersion,
}

/// What the build begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RpmSource<'a> {
    /// A source RPM.
    Srpm(&'a SourceFile),
    /// A spec, whose sources lie beside it.
    Spec(&'a SourceFile),
}

impl RpmJob {
    /// Gives what the build begins with.
    pub fn begins_with(&self) -> RpmSource<'_> {
        let ends = |ending: &str| self.files.iter().find(|f| f.name.as_str().ends_with(ending));
        match (ends(".src.rpm"), ends(".spec")) {
            (Some(srpm), _) => RpmSource::Srpm(srpm),
            (None, spec) => RpmSource::Spec(spec.expect("check() wants a .src.rpm or a .spec")),
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        check_sources(&self.files)?;
        let count = |ending: &str| self.files.iter().filter(|f| f.name.as_str().ends_with(ending)).count();
        match (count(".src.rpm"), count(".spec"), self.files.len()) {
            (1, 0, 1) | (0, 1, _) => {}
            _ => return Err("an rpm job has one .src.rpm and nothing else, or one .spec with its sources".into()),
        }
        check_set("macros", &self.macros, MACROS_MAX)?;
        match self.macros.iter().find(|text| !is_macro(text)) {
            Some(text) => Err(format!("macro {text:?} is not NAME VALUE on one line")),
            None => Ok(()),
        }
    }
}

fn is_macro(text: &str) -> bool {
    let Some((name, value)) = text.split_once(' ') else { return false };
    let word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    word && begins && !value.trim().is_empty() && text.len() <= limits::TEXT_MAX && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Hash, Sha256};

    fn job(files: &[&str], macros: &[&str]) -> RpmJob {
        let file = |name: &&str| SourceFile {
            hash: Hash::of(name.as_bytes()),
            name: name.parse().unwrap(),
            size: 1,
            sha256: Sha256::of(name.as_bytes()),
        };
        RpmJob {
            name: "ImageMagick".parse().unwrap(),
            files: files.iter().map(file).collect(),
            macros: macros.iter().map(ToString::to_string).collect(),
            version: "7.1".parse().unwrap(),
        }
    }

    #[test]
    fn a_job_begins_with_a_spec_or_a_source_rpm() {
        let spec = job(&["a.spec", "a.tar.gz"], &["dist .art1", "with_x 1"]);
        assert_eq!(spec.check(), Ok(()));
        assert!(matches!(spec.begins_with(), RpmSource::Spec(f) if f.name.as_str() == "a.spec"));
        let srpm = job(&["a-1-1.src.rpm"], &[]);
        assert_eq!(srpm.check(), Ok(()));
        assert!(matches!(srpm.begins_with(), RpmSource::Srpm(_)));
        for files in [&["a.spec", "b.spec"][..], &["a.tar.gz"], &["a-1.src.rpm", "a.spec"], &["a.src.rpm", "b"], &[]] {
            assert!(job(files, &[]).check().is_err(), "{files:?}");
        }
    }

    #[test]
    fn macros_are_a_name_and_a_value() {
        for bad in ["dist", "dist ", "1x y", "a-b c", "a b\nc d", " a b"] {
            assert!(job(&["a.spec"], &[bad]).check().is_err(), "{bad:?}");
        }
        assert!(job(&["a.spec"], &["b 1", "a 1"]).check().is_err(), "sorted");
    }
}
