//! The two kinds of packages that one repository holds. They never compete: each has its own names, order and indexes.

use std::cmp::Ordering;

use protocol::{release::PublishedPackage, words::DebVersion};
use serde::Serialize;

use super::{rpm, version};

/// What kind of package something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// For apt.
    Deb,
    /// For dnf.
    Rpm,
}

impl Kind {
    /// Gives the kind of a published package.
    pub fn of(package: &PublishedPackage) -> Self {
        if package.is_rpm() { Kind::Rpm } else { Kind::Deb }
    }

    /// Orders two versions as the package manager of this kind does.
    pub fn order(self, a: &DebVersion, b: &DebVersion) -> Ordering {
        match self {
            Kind::Deb => version::compare(a, b),
            Kind::Rpm => rpm::version::compare(a, b),
        }
    }
}
