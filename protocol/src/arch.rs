//! Debian's names of architectures.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A text that names no architecture that we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown architecture {0:?}; use one of dpkg's names, for instance amd64, arm64 or all")]
pub struct UnknownArch(String);

macro_rules! arches {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// An architecture by its dpkg name (`dpkg-architecture -L`); `all` is architecture-independent.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Arch {
            $(#[doc = concat!("`", $name, "`")] #[serde(rename = $name)] $variant),*
        }

        impl Arch {
            /// Every architecture, in the order of declaration.
            pub const EVERY: &'static [Arch] = &[$(Arch::$variant),*];

            /// Gives dpkg's name.
            pub const fn name(self) -> &'static str {
                match self { $(Arch::$variant => $name),* }
            }
        }

        impl FromStr for Arch {
            type Err = UnknownArch;

            fn from_str(text: &str) -> Result<Self, UnknownArch> {
                match text {
                    $($name => Ok(Arch::$variant),)*
                    other => Err(UnknownArch(other.chars().take(40).collect())),
                }
            }
        }
    };
}

arches! {
    All = "all", Amd64 = "amd64", Arm64 = "arm64", Armel = "armel", Armhf = "armhf", I386 = "i386", Loong64 = "loong64",
    Mips64el = "mips64el", Ppc64el = "ppc64el", Riscv64 = "riscv64", S390x = "s390x",
}

impl Arch {
    /// Gives RPM's name; `noarch` for [`Arch::All`].
    pub const fn rpm_name(self) -> &'static str {
        match self {
            Arch::All => "noarch",
            Arch::Amd64 => "x86_64",
            Arch::Arm64 => "aarch64",
            Arch::Armel => "armv5tel",
            Arch::Armhf => "armv7hl",
            Arch::I386 => "i686",
            Arch::Loong64 => "loongarch64",
            Arch::Mips64el => "mips64el",
            Arch::Ppc64el => "ppc64le",
            Arch::Riscv64 => "riscv64",
            Arch::S390x => "s390x",
        }
    }

    /// Finds an architecture by RPM's name.
    pub fn from_rpm_name(text: &str) -> Option<Self> {
        Self::EVERY.iter().copied().find(|arch| arch.rpm_name() == text)
    }

    /// Gives the architecture that this program was compiled for, where dpkg has a name for it.
    pub fn native() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Arch::Amd64),
            "aarch64" => Some(Arch::Arm64),
            "x86" => Some(Arch::I386),
            "arm" => Some(Arch::Armhf),
            "riscv64" => Some(Arch::Riscv64),
            "powerpc64" => Some(Arch::Ppc64el),
            "s390x" => Some(Arch::S390x),
            _ => None,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
