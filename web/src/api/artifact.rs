//! Files that operators attest: found by digest or as a package, with who says what of them.

use protocol::{
    Arch, ChannelName, JobId, NodeId, OperatorName, PackageName, Sha256, SuiteName,
    words::{DebVersion, RelativePath},
};
use serde::{Deserialize, Serialize};

use super::{ApiError, VerdictWord, percent_encode};

/// Which files are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactQuery {
    /// The file with this digest, and what is attested of it.
    Digest(Sha256),
    /// The file with these numbers, see [`Numbers`], and what is attested of it.
    Numbers(Numbers),
    /// The files of a reproduced binary package; what is attested of them is asked for by digest.
    Package {
        /// Its name.
        name: PackageName,
        /// Its version.
        version: DebVersion,
        /// Its architecture.
        architecture: Arch,
    },
}

/// A file as clients of rebuilders name it, by two numbers: the first twelve bytes of its SHA-256. So they are the same at
/// every node, for as long as there is the file, and every JSON reader keeps them exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// The first six bytes.
    pub build: u64,
    /// The next six.
    pub artifact: u64,
}

impl Numbers {
    /// Bytes of a digest that the numbers hold.
    pub const BYTES: usize = 12;

    /// Gives the numbers of a file.
    pub fn of(sha256: &Sha256) -> Self {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let bytes = sha256.as_bytes();
        Self { build: number(&bytes[..6]), artifact: number(&bytes[6..Self::BYTES]) }
    }

    /// Gives what the digest begins with; none where a number has more than six bytes.
    pub fn prefix(self) -> Option<[u8; Self::BYTES]> {
        let (build, artifact) = (self.build.to_be_bytes(), self.artifact.to_be_bytes());
        let mut prefix = [0; Self::BYTES];
        prefix[..6].copy_from_slice(&build[2..]);
        prefix[6..].copy_from_slice(&artifact[2..]);
        (build[..2] == [0; 2] && artifact[..2] == [0; 2]).then_some(prefix)
    }
}

impl ArtifactQuery {
    /// Reads the words of a query: `sha256`, or `build` and `artifact`, or `name`, `version` and `architecture`.
    ///
    /// # Errors
    /// [`ApiError::Refused`] for another set of words, or a value that is not valid.
    pub fn from_words(words: &[(String, String)]) -> Result<Self, ApiError> {
        let value = |wanted: &str| words.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        match (value("sha256"), (value("build"), value("artifact")), words.len()) {
            (Some(digest), _, 1) => Ok(Self::Digest(parse(digest)?)),
            (None, (Some(build), Some(artifact)), 2) => {
                Ok(Self::Numbers(Numbers { build: parse(build)?, artifact: parse(artifact)? }))
            }
            (None, (None, None), 3) => Self::package((value("name"), value("version"), value("architecture"))),
            _ => Err(ApiError::Refused {
                reason: "ask for sha256, for build and artifact, or for name, version and architecture".to_owned(),
            }),
        }
    }

    /// Reads a package's name, version and architecture.
    ///
    /// # Errors
    /// [`ApiError::Refused`] when one of them is missing or not valid.
    pub fn package(words: (Option<&str>, Option<&str>, Option<&str>)) -> Result<Self, ApiError> {
        let (Some(name), Some(version), Some(architecture)) = words else {
            let reason = "a package is asked for by name, version and architecture".to_owned();
            return Err(ApiError::Refused { reason });
        };
        Ok(Self::Package { name: parse(name)?, version: parse(version)?, architecture: parse(architecture)? })
    }

    /// Gives the query that [`ArtifactQuery::from_words`] reads, without a question mark.
    pub fn to_query(&self) -> String {
        match self {
            ArtifactQuery::Digest(sha256) => format!("sha256={sha256}"),
            ArtifactQuery::Numbers(Numbers { build, artifact }) => format!("build={build}&artifact={artifact}"),
            ArtifactQuery::Package { name, version, architecture } => {
                let [name, version] = [name.as_str(), version.as_str()].map(percent_encode);
                format!("name={name}&version={version}&architecture={architecture}")
            }
        }
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error: T::Err| ApiError::Refused { reason: error.to_string() })
}

/// One file of a job that has a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactView {
    /// The file's name.
    pub name: String,
    /// The digest that operators attest. (That of an RPM in a repository is another one: its publisher signed it.)
    pub sha256: Sha256,
    /// What its job came to.
    pub verdict: VerdictWord,
    /// The channel that has it; absent where it lies in no repository of the asked node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelName>,
    /// What is signed as a link of in-toto's first format; absent for what is no Debian package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Who attests it; empty where it was asked for as a package.
    #[serde(default)]
    pub attestations: Vec<AttestationView>,
}

impl ArtifactView {
    /// Files that one question finds at most.
    pub const FOUND_MAX: usize = 16;
}

/// What one builder says of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestationView {
    /// The job that it built.
    pub job: JobId,
    /// The builder, which signed it.
    pub node: NodeId,
    /// Who answers for the builder by the newest policy that names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorName>,
    /// The DSSE envelope, as signed.
    pub envelope: String,
    /// Its signature on the file's link; absent where the builder made none that holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkSignature>,
}

/// A signature on a link, as in-toto writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSignature {
    /// The key's id as in-toto-rs computes it.
    pub keyid: String,
    /// The signature in hexadecimal.
    pub sig: String,
}

/// A binary package of Debian's format, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageView {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub architecture: Arch,
    /// What its job came to; pending while there is no verdict, and then of a source package of that name.
    pub verdict: VerdictWord,
    /// The channel of its job, or that has it.
    pub channel: ChannelName,
    /// That channel's suite; absent when the policy has no such channel any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<SuiteName>,
    /// Where it lies in the channel's repository; absent when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RelativePath>,
}

/// One page of the list of packages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagePage {
    /// Packages: those of the repositories by channel and name, then those that did not get there.
    pub packages: Vec<PackageView>,
    /// What to ask for as `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl PackagePage {
    /// Packages in one page at most.
    pub const PACKAGES_MAX: usize = 500;
    /// The longest `after`, in bytes.
    pub const AFTER_MAX: usize = 1024;
}

/// An operator as a rebuilder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuilderView {
    /// The operator.
    pub operator: OperatorName,
    /// Its nodes' keys as PEM files of the form that in-toto-rs reads; the asked node's own first, where it is one of them.
    pub keys: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_a_prefix_of_the_digest_and_exact_in_json() {
        let sha256 = Sha256::of(b"x");
        let numbers = Numbers::of(&sha256);
        assert_eq!(numbers.prefix().unwrap(), sha256.as_bytes()[..12]);
        assert!(numbers.build < 1 << 53 && numbers.artifact < 1 << 53);
        assert_eq!(Numbers { build: 1 << 48, artifact: 0 }.prefix(), None);
        assert_eq!(Numbers { build: 0, artifact: u64::MAX }.prefix(), None);
    }

    #[test]
    fn queries_are_read_and_others_refused() {
        let words = |text: &str| -> Vec<(String, String)> {
            let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        let sha256 = Sha256::of(b"x");
        let package = ArtifactQuery::package((Some("hello"), Some("2.10-3"), Some("amd64"))).unwrap();
        for query in [ArtifactQuery::Digest(sha256), ArtifactQuery::Numbers(Numbers::of(&sha256)), package] {
            assert_eq!(ArtifactQuery::from_words(&words(&query.to_query())), Ok(query));
        }
        let digest = format!("sha256={sha256}");
        let twice = format!("{digest}&{digest}");
        for bad in ["", "sha256=x", "build=1", "build=-1&artifact=2", "name=hello&version=1", twice.as_str()] {
            assert!(ArtifactQuery::from_words(&words(bad)).is_err(), "{bad}");
        }
        assert!(ArtifactQuery::package((Some("../hello"), Some("1"), Some("amd64"))).is_err());
    }
}
