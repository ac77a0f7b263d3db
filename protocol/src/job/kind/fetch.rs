//! Kind `fetch`: the only builds with a network. They bring sources here by address, as files with hashes.
//!
//! A commit is named by its id, so a git source is the same for every operator or a failure; a file may be named by its
//! SHA-256. Whoever runs a fetch reaches only the hosts that its owner lists, see [`HostRule`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    FileName, Sha256,
    envelope::check_set,
    limits,
    words::{CommitId, HostRule, RefName, RelativePath, Url},
};

/// The most sources of one job: a host may be asked for each.
const SOURCES_MAX: usize = 64;
/// The most hosts, or macros, of files that a tree names.
const WORDS_MAX: usize = 64;

/// Sources to bring from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchJob {
    /// What the job is called.
    pub name: FileName,
    /// Sources, sorted by name.
    pub sources: Vec<FetchSource>,
}

/// One source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchSource {
    /// What its outputs are called.
    pub name: FileName,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a source comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// The tree of a commit, and a record of the commit.
    Git(GitOrigin),
    /// One file.
    File(FileOrigin),
    /// The files that another source's tree names.
    Named(NamedOrigin),
}

/// A commit of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitOrigin {
    /// The repository.
    pub url: Url,
    /// The commit.
    pub commit: CommitId,
    /// A branch or tag that has the commit, or is asked first for it.
    pub reference: RefName,
}

/// A file behind an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileOrigin {
    /// The address.
    pub url: Url,
    /// What it must be; without, whatever k operators got alike.
    pub sha256: Option<Sha256>,
}

/// Files that a tree names: its watch file or its spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedOrigin {
    /// What in the tree names them.
    pub by: Pointer,
    /// The source of the same job that is the tree, a commit.
    pub tree: FileName,
    /// Hosts that the files are expected at, sorted: only builders who reach them all are asked.
    pub hosts: Vec<HostRule>,
    /// Macros for the spec, each `NAME VALUE`, sorted; only for [`Pointer::Spec`].
    pub macros: Vec<String>,
}

/// What in a tree names files elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pointer {
    /// `debian/watch`: the newest release that uscan finds.
    Watch,
    /// `debian/watch`: the release that the changelog's version names.
    WatchPackaged,
    /// The sources and patches of a spec that are addresses.
    Spec,
}

impl Pointer {
    /// Gives the pointer's word.
    pub fn word(self) -> &'static str {
        match self {
            Pointer::Watch => "watch",
            Pointer::WatchPackaged => "watch-packaged",
            Pointer::Spec => "spec",
        }
    }
}

/// What the record beside a commit's tree says, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitRecord {
    /// The commit.
    pub commit: CommitId,
    /// When it was committed, in seconds since 1970.
    pub time: u64,
    /// Commits up to this one, itself included.
    pub ordinal: u64,
}

/// A host and a port that an address leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The host's name or address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FetchSource {
    /// Gives where it leads, as far as is known before.
    fn endpoints(&self) -> Vec<Endpoint> {
        match &self.origin {
            Origin::Git(git) => vec![git.url.endpoint()],
            Origin::File(file) => vec![file.url.endpoint()],
            Origin::Named(named) => named.hosts.iter().filter_map(HostRule::endpoint).collect(),
        }
    }

    /// Gives the names of its outputs: a tree's archive and its record, the file, or an archive of the files.
    pub fn outputs(&self) -> Vec<RelativePath> {
        let name = |ending: &str| RelativePath::new(format!("{}{ending}", self.name)).expect("check() leaves room");
        match &self.origin {
            Origin::Git(_) => vec![name(".json"), name(".tar")],
            Origin::File(_) => vec![name("")],
            Origin::Named(_) => vec![name(".files.tar")],
        }
    }
}

impl FetchJob {
    /// Gives the names of all outputs, sorted.
    pub fn outputs(&self) -> Vec<RelativePath> {
        let mut outputs: Vec<RelativePath> = self.sources.iter().flat_map(FetchSource::outputs).collect();
        outputs.sort();
        outputs
    }

    /// Gives where its addresses lead, sorted, each once.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let mut places: Vec<Endpoint> = self.sources.iter().flat_map(FetchSource::endpoints).collect();
        places.sort();
        places.dedup();
        places
    }

    pub(super) fn check(&self) -> Result<(), String> {
        check_set("sources", &self.sources.iter().map(|s| &s.name).collect::<Vec<_>>(), SOURCES_MAX)?;
        if self.sources.is_empty() {
            return Err("a fetch has at least one source".into());
        }
        if self.sources.iter().any(|source| source.name.as_str().len() > 160) {
            return Err("a source's name has at most 160 characters".into());
        }
        for source in &self.sources {
            if let Origin::Named(named) = &source.origin {
                named.check(&self.sources)?;
            }
        }
        check_set("outputs", &self.outputs(), limits::OUTPUTS_MAX)
    }
}

impl NamedOrigin {
    fn check(&self, sources: &[FetchSource]) -> Result<(), String> {
        let is_tree = |source: &FetchSource| source.name == self.tree && matches!(source.origin, Origin::Git(_));
        if !sources.iter().any(is_tree) {
            return Err(format!("{} names files, so it is a commit among the sources of the same job", self.tree));
        }
        check_hosts(&self.hosts)?;
        check_set("macros", &self.macros, WORDS_MAX)?;
        let plain =
            |word: &String| !word.is_empty() && word.len() <= limits::TEXT_MAX && !word.contains(char::is_control);
        if !self.macros.iter().all(plain) || !(self.macros.is_empty() || self.by == Pointer::Spec) {
            return Err("macros are one line each, and only for a spec".into());
        }
        Ok(())
    }
}

/// Checks hosts that files are expected at.
pub(crate) fn check_hosts(hosts: &[HostRule]) -> Result<(), String> {
    check_set("hosts", hosts, WORDS_MAX)?;
    if hosts.iter().any(|host| host.endpoint().is_none()) {
        return Err("hosts are named one by one, not as *.domain".into());
    }
    Ok(())
}

/// Says whether one of the rules lets somebody reach a place.
pub fn reaches(rules: &[HostRule], place: &Endpoint) -> bool {
    rules.iter().any(|rule| rule.covers(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Endpoint {
        Url::new(url).unwrap().endpoint()
    }

    #[test]
    fn addresses_say_where_they_lead() {
        assert_eq!(place("https://github.com/a/b.git").to_string(), "github.com:443");
        assert_eq!(place("http://127.0.0.1:8080/a").to_string(), "127.0.0.1:8080");
        for bad in [
            "ftp://a.b/c",
            "https://",
            "https:///x",
            "http://user@host/x",
            "http://a:99999/",
            "http://a b/",
            "-u",
            "http://host/x\ny",
            "http://[::1]/x",
            "file:///etc/passwd",
            "http://.a/x",
            "http://a..b/x",
            "http://a:/x",
            "http://a.b",
            "http://-a/x",
            "HTTP://a/x",
            "http://a/x y",
            "http://A/x",
            "http://a/'x",
        ] {
            assert!(Url::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_rule_covers_its_host_and_the_usual_ports_unless_it_names_another() {
        let check = |rule: &str, url: &str| HostRule::new(rule).unwrap().covers(&place(url));
        assert!(check("github.com", "https://github.com/a") && check("github.com", "http://github.com/a"));
        assert!(!check("github.com", "https://evil-github.com/a") && !check("github.com", "https://a.github.com/a"));
        assert!(!check("github.com", "https://github.com.evil.example/a"));
        assert!(check("*.shop.example", "https://git.shop.example/a"));
        assert!(!check("*.shop.example", "https://shop.example/a"));
        assert!(!check("*.shop.example", "https://xshop.example/a"));
        assert!(!check("127.0.0.1", "http://127.0.0.1:8080/a") && check("127.0.0.1:8080", "http://127.0.0.1:8080/a"));
        assert!(!check("127.0.0.1:8080", "http://127.0.0.1/a"));
        for bad in ["", "*", "*.", "a*b", "https://a", "a/b", "a:0x", "*.*.org", "a:", "*.a:"] {
            assert!(HostRule::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn files_are_named_by_a_commit_of_the_same_job_at_hosts_with_names() {
        let git = GitOrigin {
            url: Url::new("https://git.example/a.git").unwrap(),
            commit: CommitId::new("0123456789abcdef0123456789abcdef01234567").unwrap(),
            reference: RefName::new("main").unwrap(),
        };
        let source = |name: &str, origin| FetchSource { name: FileName::new(name).unwrap(), origin };
        let check = |tree: &str, hosts: &[&str], by, macros: &[&str]| {
            let named = NamedOrigin {
                by,
                tree: FileName::new(tree).unwrap(),
                hosts: hosts.iter().map(|host| HostRule::new(host).unwrap()).collect(),
                macros: macros.iter().map(|&text| text.to_owned()).collect(),
            };
            let sources = vec![source("packaging", Origin::Git(git.clone())), source("upstream", Origin::Named(named))];
            let job = FetchJob { name: FileName::new("a").unwrap(), sources };
            job.check().map(|()| job.endpoints().iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let leads = ["127.0.0.1:8080", "example.org:443", "git.example:443"].map(str::to_owned).to_vec();
        assert_eq!(check("packaging", &["127.0.0.1:8080", "example.org"], Pointer::Watch, &[]), Ok(leads));
        assert!(check("packaging", &[], Pointer::Spec, &["dist .a"]).is_ok());
        assert!(check("packaging", &[], Pointer::Watch, &["dist .a"]).is_err());
        assert!(check("packaging", &["*.example.org"], Pointer::Watch, &[]).is_err());
        assert!(check("packaging", &["b.example", "a.example"], Pointer::Watch, &[]).is_err());
        assert!(check("upstream", &[], Pointer::Watch, &[]).is_err() && check("x", &[], Pointer::Watch, &[]).is_err());
    }

    #[test]
    fn references_and_commits_cannot_be_options() {
        RefName::new("refs/heads/debian/sid").unwrap();
        for bad in ["-x", "a..b", "a b", "a/", "/a", "a~1", "a^", "a:b", "a.lock", "@{u}", "a//b", ".a", "a/.b"] {
            assert!(RefName::new(bad).is_err(), "{bad:?}");
        }
        CommitId::new("0123456789abcdef0123456789abcdef01234567").unwrap();
        for bad in ["", "HEAD", "0123", "0123456789ABCDEF0123456789ABCDEF01234567"] {
            assert!(CommitId::new(bad).is_err(), "{bad:?}");
        }
    }
}
