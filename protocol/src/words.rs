//! Names that people choose, parsed once at the edge: after that they are safe in paths, headers and pages.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::job::Endpoint;

/// A name that breaks the rules of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {got:?} is not valid: {rule}")]
pub struct WordError {
    kind: &'static str,
    got: String,
    rule: &'static str,
}

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:literal, $rule:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Parses a name.
            ///
            /// # Errors
            /// When the text is empty, too long or has a character that the kind does not allow.
            pub fn new(text: impl AsRef<str>) -> Result<Self, WordError> {
                let text = text.as_ref();
                let ok: fn(&str) -> bool = $ok;
                if text.is_empty() || text.len() > $max || !ok(text) {
                    return Err(WordError { kind: $kind, got: text.chars().take(80).collect(), rule: $rule });
                }
                Ok(Self(text.into()))
            }

            /// Gives the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = WordError;

            fn from_str(text: &str) -> Result<Self, WordError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    };
}

fn label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-+._".contains(c);
    text.chars().all(inner) && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
}

word! {
    /// A network's name, for people; its identity is the [`crate::NetworkId`].
    NetworkName, "network name", 64, "use up to 64 of a-z, 0-9, - + . _", label
}
word! {
    /// Who answers for one or more nodes and has one vote.
    OperatorName, "operator", 64, "use up to 64 of a-z, 0-9, - + . _", label
}
word! {
    /// Whose signature makes a job request valid.
    MaintainerName, "maintainer", 64, "use up to 64 of a-z, 0-9, - + . _", label
}
word! {
    /// A channel: which suite and architectures, and how many operators must agree.
    ChannelName, "channel", 64, "use up to 64 of a-z, 0-9, - + . _", label
}
word! {
    /// A suite or codename of an archive, for instance `bookworm`.
    SuiteName, "suite", 64, "use up to 64 of a-z, 0-9, - + . _", label
}
word! {
    /// A package's name: Debian's (policy 5.6.1) or an RPM's, which may also have capitals and `_`.
    PackageName, "package name", 128, "use A-Z a-z 0-9 + - . _, starting with a letter or digit, at least two", package
}
word! {
    /// A package's version, as written: Debian's (policy 5.6.12) or an RPM's `[epoch:]version-release`, which may also have
    /// `_` and `^`.
    DebVersion, "version", 128, "use [epoch:]upstream[-revision] of A-Z a-z 0-9 . + - ~ _ ^, starting with a letter or digit", version
}
word! {
    /// One file's name, without a folder: never `.`, `..`, `/`, control characters or a leading dash.
    FileName, "file name", 200, "use up to 200 of A-Z a-z 0-9 . _ + - ~ ^ : = , @ %, not starting with a dot or dash", file
}
word! {
    /// A relative path of [`FileName`] parts joined by `/`.
    RelativePath, "path", 400, "use file names joined by single slashes, without . or ..", path
}

word! {
    /// A recipe's name.
    RecipeName, "recipe", 64, "use up to 64 of a-z, 0-9, - + . _", label
}
word! {
    /// An address that sources are fetched from.
    Url, "address", 1024, "use http:// or https://, a host in small letters, perhaps a port, and a path; no user, space or quote", url
}
word! {
    /// Who may be reached by a fetch: `host`, or `*.domain` for everything below it, on ports 80 and 443, or on one
    /// `:port` alone.
    HostRule, "host rule", 256, "use a host's name or IPv4 address, or *.domain; perhaps with :port", host_rule
}
word! {
    /// A branch or tag of a git repository.
    RefName, "reference", 200, "use a branch or tag as git takes it, of A-Z a-z 0-9 . _ + - / and no ..", reference
}
word! {
    /// A git commit's full id.
    CommitId, "commit", 64, "use the full id: 40 or 64 of 0-9 a-f", commit
}

fn url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else { return false };
    let Some((place, path)) = rest.split_once('/') else { return false };
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-~+%=&?,:;@!$*()".contains(c);
    host_and_port(place).is_some() && path.chars().all(plain)
}

fn host_rule(text: &str) -> bool {
    host_and_port(text.strip_prefix("*.").unwrap_or(text)).is_some()
}

/// Splits and checks `host` or `host:port`.
fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port > 0)?)),
        None => (text, None),
    };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let part = |part: &str| !part.is_empty() && !part.starts_with('-') && part.chars().all(plain);
    (host.len() <= 253 && host.split('.').all(part)).then_some((host, port))
}

fn reference(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+-/".contains(c);
    let part = |part: &str| !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with(".lock");
    text.chars().all(plain) && !text.contains("..") && text.split('/').all(part)
}

fn commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
}

impl Url {
    /// Gives the host and the port that it leads to.
    pub fn endpoint(&self) -> Endpoint {
        let (scheme, rest) = self.0.split_once("://").expect("checked when it was made");
        let usual = if scheme == "https" { 443 } else { 80 };
        let place = rest.split_once('/').and_then(|(place, _)| host_and_port(place));
        let (host, port) = place.expect("checked when it was made");
        Endpoint { host: host.to_owned(), port: port.unwrap_or(usual) }
    }
}

impl HostRule {
    /// Gives the one place that it names, over TLS where it names no port; none for a whole domain.
    pub fn endpoint(&self) -> Option<Endpoint> {
        let (host, port) = host_and_port(&self.0)?;
        Some(Endpoint { host: host.to_owned(), port: port.unwrap_or(443) })
    }

    /// Says whether a place may be reached.
    pub fn covers(&self, place: &Endpoint) -> bool {
        let wild = self.0.strip_prefix("*.");
        let (host, port) = host_and_port(wild.unwrap_or(&self.0)).expect("checked when it was made");
        let below = |of: &str| place.host.strip_suffix(of).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'));
        let named = if wild.is_some() { below(host) } else { place.host == host };
        named && port.map_or(matches!(place.port, 80 | 443), |port| place.port == port)
    }
}

fn package(text: &str) -> bool {
    text.len() >= 2
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c))
}

fn version(text: &str) -> bool {
    let body = match text.split_once(':') {
        Some((epoch, rest)) if !epoch.is_empty() && epoch.bytes().all(|b| b.is_ascii_digit()) => rest,
        Some(_) => return false,
        None => text,
    };
    body.starts_with(|c: char| c.is_ascii_alphanumeric())
        && body.chars().all(|c| c.is_ascii_alphanumeric() || ".+-~:_^".contains(c))
}

impl PackageName {
    /// Says whether Debian could have a package of this name.
    pub fn is_debian(&self) -> bool {
        !self.0.contains(|c: char| c.is_ascii_uppercase() || c == '_')
    }
}

impl DebVersion {
    /// Says whether a Debian package could have this version.
    pub fn is_debian(&self) -> bool {
        !self.0.contains(['_', '^'])
    }
}

fn file(text: &str) -> bool {
    !text.starts_with(['.', '-']) && text.chars().all(|c| c.is_ascii_alphanumeric() || "._+-~^:=,@%".contains(c))
}

fn path(text: &str) -> bool {
    text.split('/').all(|part| !part.is_empty() && file(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        for bad in ["", ".", "..", "a/b", "-rf", "a\nb", "a\u{1b}[0m", ".hidden", "a b", "é"] {
            assert!(FileName::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["/etc/passwd", "a//b", "a/../b", "a/", "./a"] {
            assert!(RelativePath::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn real_names_are_accepted() {
        FileName::new("base-files_12.4+deb12u15_amd64.deb").unwrap();
        PackageName::new("libstdc++6").unwrap();
        assert!(DebVersion::new("1:2.3~rc1-4+b1").unwrap().is_debian());
        assert!(!PackageName::new("python3-PyYAML").unwrap().is_debian());
        assert!(!DebVersion::new("1.2^git1-3.fc40").unwrap().is_debian());
        RelativePath::new("pool/main/b/base-files/base-files_12.4_amd64.deb").unwrap();
    }
}
