//! What `artel job` takes for RPMs.

use std::path::Path;

use anyhow::Context as _;
use protocol::{
    PackageName,
    environment::{EnvironmentLock, Family},
};

use crate::{
    resolve::{archive::Archive, source::rpm},
    submit::{self, Prepared},
};

/// Words for RPMs
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RpmWords {
    /// A macro for rpmbuild, for instance 'dist .fc40'; may be repeated
    #[arg(long = "macro", value_name = "NAME VALUE")]
    macros: Vec<String>,
    /// The Debian packages that give what the source requires, for instance 'pkgconfig(zlib)=zlib1g-dev'; with nothing after
    /// the = for what is not needed; may be repeated
    #[arg(long = "requires", value_name = "RPM=DEB[,DEB]")]
    requires: Vec<String>,
}

impl RpmWords {
    /// Prepares a .spec or .src.rpm; gives nothing for anything else. Blocking: runs apt, unless its environment is of RPMs.
    pub(super) fn prepare(
        &self,
        archive: &Archive,
        what: &str,
        with: &[PackageName],
        environment: Option<&EnvironmentLock>,
    ) -> anyhow::Result<Option<Prepared>> {
        if !what.ends_with(".spec") && !what.ends_with(".src.rpm") {
            return Ok(None);
        }
        let requires = self.requires.iter().map(|text| mapping(text)).collect::<anyhow::Result<rpm::Requires>>()?;
        let source = rpm::read_rpm_source(Path::new(what), &self.macros)?;
        if let Some(lock) = environment.filter(|lock| lock.family == Family::Rpm) {
            anyhow::ensure!(requires.is_empty(), "--requires names Debian packages, and the environment is of RPMs");
            return Ok(Some(submit::rpm_in(lock, &source, &self.macros)));
        }
        Ok(Some(submit::rpm(archive, &source, &self.macros, &requires, with)?))
    }
}

/// Reads which Debian packages give what an RPM requires: `RPM=DEB[,DEB]`.
pub(in crate::cli) fn mapping(text: &str) -> anyhow::Result<(String, Vec<PackageName>)> {
    let (from, to) = text.split_once('=').with_context(|| format!("--requires {text:?} is not RPM=DEB"))?;
    let packages = to.split(',').filter(|name| !name.is_empty()).map(PackageName::new).collect::<Result<_, _>>();
    Ok((from.to_owned(), packages.with_context(|| format!("--requires {text:?}"))?))
}
