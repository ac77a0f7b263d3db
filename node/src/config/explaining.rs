//! Whether and how this node explains differences, while it coordinates.

use std::{convert::Infallible, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::build::explain::Bounds;

/// `[explain]` of `artel.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Explain {
    /// Where diffoscope comes from: `archive` (this machine's), `off`, or the path of a lock that `artel env lock` wrote here.
    pub environment: Tools,
    /// Wall time of one comparison, in seconds.
    pub wall_secs: u32,
    /// Disk of one comparison, in MiB; both sets of outputs included.
    pub disk_mib: u32,
    /// Memory of one comparison, in MiB.
    pub memory_mib: u32,
}

impl Default for Explain {
    fn default() -> Self {
        Self { environment: Tools::Archive, wall_secs: 900, disk_mib: 4096, memory_mib: 2048 }
    }
}

impl Explain {
    /// Gives what one comparison may use.
    pub fn bounds(&self) -> Bounds {
        let at_least = |number: u32| number.max(1);
        Bounds {
            wall_secs: at_least(self.wall_secs),
            disk_mib: at_least(self.disk_mib),
            memory_mib: at_least(self.memory_mib),
        }
    }

    /// Says whether nothing was configured.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Where the tools of a comparison come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Tools {
    /// This machine's archive.
    Archive,
    /// Nowhere: differences are not explained here.
    Off,
    /// A lock that was made before.
    Lock(PathBuf),
}

impl From<String> for Tools {
    fn from(text: String) -> Self {
        let Ok(tools) = text.parse();
        tools
    }
}

impl FromStr for Tools {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "archive" => Tools::Archive,
            "off" => Tools::Off,
            path => Tools::Lock(path.into()),
        })
    }
}

impl From<Tools> for String {
    fn from(tools: Tools) -> Self {
        match tools {
            Tools::Archive => "archive".to_owned(),
            Tools::Off => "off".to_owned(),
            Tools::Lock(path) => path.to_string_lossy().into_owned(),
        }
    }
}
