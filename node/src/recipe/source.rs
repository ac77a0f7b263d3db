//! From fetched trees to a source package: the command job that makes it, and what it leaves.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use protocol::{
    FileName, Hash, JobId, PackageName, Sha256,
    job::{
        CommandJob, CommitRecord, FetchJob, FetchSource, FileOrigin, GitOrigin, InputFile, Isolation, JobKind,
        JobRequest, NamedOrigin, Origin, Pointer,
    },
    recipe::{Flavour, Named, PACKAGING, Plan, Product, Revision, UPSTREAM, Upstream},
    words::{CommitId, RecipeName, RelativePath, Url},
};

use super::decide;
use crate::bounded;

/// Packages that a fetch needs beside the buildd set.
const FETCH_TOOLS: [&str; 4] = ["ca-certificates", "curl", "git", "socat"];
/// And to follow a watch file.
const WATCH_TOOLS: [&str; 4] =
    ["devscripts", "liblwp-protocol-https-perl", "liblwp-protocol-socks-perl", "libwww-perl"];
/// What the job leaves: a tar file of the source package's files.
pub const OUTPUT: &str = "source.tar";
/// The file in it that says an RPM's version.
const EVR: &str = "evr";
/// The most bytes of that file.
const EVR_MAX: u64 = 1024;
/// The most bytes of the name of a file, as tar keeps one that is long.
const NAME_MAX: u64 = 512;
/// The most bytes of a source package.
pub const SOURCE_MAX: u64 = 2 << 30;
/// The most files of a source package.
const FILES_MAX: usize = 512;

/// Why a source package cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tarball's address has no file name at its end.
    #[error("the address {url} of the tarball does not end in a name such as shop-1.0.tar.gz")]
    Name {
        /// The address.
        url: Url,
    },
    /// The fetch did not leave what was agreed.
    #[error("the fetched sources have no {name}")]
    Missing {
        /// The file.
        name: String,
    },
    /// The record of a commit is not one.
    #[error("the record {name} of a commit is not valid")]
    Record {
        /// The file.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The record of a commit is of another one.
    #[error("the fetched {name} is not the commit that the run found")]
    OtherCommit {
        /// The source.
        name: String,
    },
    /// The tar file is not what the script makes.
    #[error("the source package of the job is not acceptable: {why}")]
    Archive {
        /// What is wrong.
        why: String,
    },
    /// A file cannot be written or read.
    #[error("{path} cannot be used")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Gives the packages that a fetch needs beside the buildd set.
pub fn fetch_tools(plan: &Plan) -> Vec<PackageName> {
    let more: &[&str] = match &plan.upstream {
        Upstream::Git(_) | Upstream::Tarball(_) => &[],
        Upstream::Named(Named { by: Pointer::Watch | Pointer::WatchPackaged, .. }) => &WATCH_TOOLS,
        Upstream::Named(Named { by: Pointer::Spec, .. }) => &["rpm"],
    };
    FETCH_TOOLS.iter().chain(more).map(|name| PackageName::new(name).expect("a valid name")).collect()
}

/// Says whether a plan's sources are the same whenever they are fetched, as far as its revisions name them.
pub fn is_pinned(plan: &Plan) -> bool {
    !matches!(plan.upstream, Upstream::Named(Named { by: Pointer::Watch, .. }))
}

/// Gives the packages that making the source needs beside the buildd set.
pub fn tools(product: Product) -> Vec<PackageName> {
    let names: &[&str] = match product {
        Product::Deb => &[],
        Product::Rpm => &["rpm"],
    };
    names.iter().map(|name| PackageName::new(name).expect("a valid name")).collect()
}

/// Gives the name of a release's tarball.
///
/// # Errors
/// When its address ends in none.
pub fn tarball_name(url: &Url) -> Result<FileName, Error> {
    let path = url.as_str().split(['?', '#']).next().unwrap_or_default();
    let name = path.rsplit('/').next().and_then(|name| FileName::new(name).ok());
    name.filter(|name| name.as_str().contains(".tar.")).ok_or_else(|| Error::Name { url: url.clone() })
}

/// Gives what a run's sources are, by the commits that the references lead to now.
///
/// # Errors
/// [`Error::Name`].
pub fn revisions(plan: &Plan, commits: &BTreeMap<&'static str, CommitId>) -> Result<Vec<Revision>, Error> {
    let revision = |name: &str, what: String| Revision { name: FileName::new(name).expect("a plain word"), what };
    let mut revisions: Vec<Revision> =
        commits.iter().map(|(name, commit)| revision(name, commit.to_string())).collect();
    if let Upstream::Tarball(tarball) = &plan.upstream {
        let sha256 = tarball.sha256.map(|sha256| format!(" {sha256}")).unwrap_or_default();
        revisions.push(Revision { name: tarball_name(&tarball.url)?, what: format!("{}{sha256}", tarball.url) });
    }
    revisions.sort();
    Ok(revisions)
}

/// Gives the job that brings a run's sources.
///
/// # Errors
/// [`Error::Name`], or a revision that is no commit.
pub fn fetch(name: &RecipeName, plan: &Plan, revisions: &[Revision]) -> Result<FetchJob, Error> {
    let mut sources = Vec::new();
    for (word, git) in plan.repositories() {
        let found = revisions.iter().find(|revision| revision.name.as_str() == word);
        let commit = found.and_then(|revision| CommitId::new(&revision.what).ok());
        let commit = commit.ok_or_else(|| Error::Missing { name: word.to_owned() })?;
        let origin = Origin::Git(GitOrigin { url: git.url.clone(), commit, reference: git.reference.clone() });
        sources.push(FetchSource { name: FileName::new(word).expect("a plain word"), origin });
    }
    if let Upstream::Tarball(tarball) = &plan.upstream {
        let origin = Origin::File(FileOrigin { url: tarball.url.clone(), sha256: tarball.sha256 });
        sources.push(FetchSource { name: tarball_name(&tarball.url)?, origin });
    }
    if let Upstream::Named(Named { by, hosts }) = &plan.upstream {
        let tree = FileName::new(PACKAGING).expect("a plain word");
        let named = NamedOrigin { by: *by, tree, hosts: hosts.clone(), macros: plan.macros.clone() };
        let name = FileName::new(UPSTREAM).expect("a plain word");
        sources.push(FetchSource { name, origin: Origin::Named(named) });
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(FetchJob { name: FileName::new(name).expect("a recipe's name is a file's name"), sources })
}

/// One agreed file of a fetch.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Its name.
    pub name: RelativePath,
    /// Its BLAKE3.
    pub hash: Hash,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Sha256,
}

/// Says whether a fetched file is the record of a commit, which the client reads itself.
pub fn is_record(name: &RelativePath) -> bool {
    [UPSTREAM, PACKAGING].iter().any(|word| name.as_str() == format!("{word}.json"))
}

/// Gives the job that makes the source package of a run's revisions. `records` are the commits' records, by file name.
///
/// # Errors
/// When the fetch left something else than was asked for.
pub fn make(
    name: &RecipeName,
    plan: &Plan,
    revisions: &[Revision],
    fetched: &[Fetched],
    records: &BTreeMap<String, Vec<u8>>,
) -> Result<CommandJob, Error> {
    let commits = commits(plan, revisions, records)?;
    let (suffix, time) = match plan.flavour {
        Flavour::Ci => {
            let time = commits.iter().map(|commit| commit.time).max().unwrap_or(0);
            let ordinal = commits.iter().map(|commit| commit.ordinal).fold(0, u64::saturating_add);
            (decide::suffix(plan.kind, time, ordinal), time)
        }
        Flavour::Release => (String::new(), 0),
    };
    let tarball = match &plan.upstream {
        Upstream::Git(_) | Upstream::Named(_) => String::new(),
        Upstream::Tarball(tarball) => tarball_name(&tarball.url)?.to_string(),
    };
    let of: Vec<String> = commits.iter().map(|commit| commit.commit.to_string()).collect();
    let script = match plan.kind {
        Product::Deb => include_str!("source/deb.sh"),
        Product::Rpm => include_str!("source/rpm.sh"),
    };
    let said = format!("Built from {}.", of.join(" and "));
    let argv = ["sh", "-c", script, "artel-source", &suffix, &time.to_string(), &tarball, &said];
    let inputs = fetched.iter().filter(|file| !is_record(&file.name)).map(|file| InputFile {
        hash: file.hash,
        path: file.name.clone(),
        size: file.size,
        sha256: file.sha256,
    });
    Ok(CommandJob {
        argv: argv.map(str::to_owned).into_iter().chain(plan.macros.iter().cloned()).collect(),
        name: FileName::new(format!("{name}-source")).expect("a recipe's name is a file's name"),
        inputs: inputs.collect(),
        outputs: vec![RelativePath::new(OUTPUT).expect("a plain word")],
        isolation: Isolation::Rootfs,
    })
}

/// Reads the record of each commit, which must be the one that the run found.
fn commits(
    plan: &Plan,
    revisions: &[Revision],
    records: &BTreeMap<String, Vec<u8>>,
) -> Result<Vec<CommitRecord>, Error> {
    let mut commits = Vec::new();
    for (name, _) in plan.repositories() {
        let file = format!("{name}.json");
        let bytes = records.get(&file).ok_or_else(|| Error::Missing { name: file.clone() })?;
        let commit: CommitRecord =
            serde_json::from_slice(bytes).map_err(|source| Error::Record { name: file, source })?;
        let found = revisions.iter().find(|revision| revision.name.as_str() == name);
        if found.is_none_or(|found| found.what != commit.commit.to_string()) {
            return Err(Error::OtherCommit { name: name.to_owned() });
        }
        commits.push(commit);
    }
    Ok(commits)
}

/// Says whether a job is the one that makes a recipe's source package of what a fetch brought.
pub fn makes(name: &RecipeName, fetch: JobId, request: &JobRequest) -> bool {
    let JobKind::Command(job) = &request.kind else { return false };
    let outputs = job.outputs.iter().map(RelativePath::as_str);
    job.name.as_str() == format!("{name}-source") && outputs.eq([OUTPUT]) && request.schedule.after.contains(&fetch)
}

/// What a source job made, on disk.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// The `.dsc` or `.spec`.
    pub begins_with: PathBuf,
    /// Epoch, version and release of an RPM; empty for Debian packages, whose `.dsc` says it.
    pub evr: String,
}

/// Unpacks what a source job made into an empty folder. Nothing in it is believed: plain files with plain names only.
///
/// # Errors
/// [`Error::Archive`] or [`Error::File`].
pub fn unpack(archive: &Path, into: &Path) -> Result<Unpacked, Error> {
    let refuse = |why: &str| Error::Archive { why: why.to_owned() };
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { path, source }
    };
    let file = fs::File::open(archive).map_err(failed(archive))?;
    let mut archive = tar::Archive::new(file);
    let (mut left, mut names) = (SOURCE_MAX, Vec::new());
    let mut long = None;
    // Raw entries: else whole long names are read, whatever they claim to have.
    for entry in archive.entries().map_err(failed(into))?.raw(true) {
        let mut entry = entry.map_err(failed(into))?;
        if entry.header().entry_type().is_gnu_longname() {
            let mut name = String::new();
            (&mut entry).take(NAME_MAX).read_to_string(&mut name).map_err(failed(into))?;
            long = Some(name.trim_end_matches('\0').to_owned());
            continue;
        }
        let name = long.take().or_else(|| Some(entry.path().ok()?.to_str()?.to_owned()));
        let name =
            name.and_then(|name| FileName::new(name).ok()).ok_or_else(|| refuse("it has a name that is not plain"))?;
        left = left.checked_sub(entry.size()).ok_or_else(|| refuse("it is too large"))?;
        if !entry.header().entry_type().is_file() || names.len() >= FILES_MAX {
            return Err(refuse("it has something else than a few files"));
        }
        let path = into.join(name.as_str());
        let mut out = fs::File::create_new(&path).map_err(failed(&path))?;
        io::copy(&mut entry, &mut out).map_err(failed(&path))?;
        names.push(name);
    }
    let begins = |name: &&FileName| name.as_str().ends_with(".dsc") || name.as_str().ends_with(".spec");
    let mut first = names.iter().filter(begins);
    let (Some(begins_with), None) = (first.next(), first.next()) else {
        return Err(refuse("it has not exactly one .dsc or .spec"));
    };
    let evr = if names.iter().any(|name| name.as_str() == EVR) {
        bounded::read_text(&into.join(EVR), EVR_MAX).map_err(failed(&into.join(EVR)))?
    } else {
        String::new()
    };
    Ok(Unpacked { begins_with: into.join(begins_with.as_str()), evr: evr.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use protocol::testing::samples;

    use super::*;

    #[test]
    fn a_source_package_is_unpacked_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let (archive, mut count) = (folder.path().join("source.tar"), 0);
        let mut unpacked = |files: &[(String, usize)]| {
            let mut tar = tar::Builder::new(fs::File::create(&archive).unwrap());
            for (name, size) in files {
                let mut header = tar::Header::new_gnu();
                header.set_size(*size as u64);
                header.set_mode(0o644);
                tar.append_data(&mut header, name, vec![b'1'; *size].as_slice()).unwrap();
            }
            tar.finish().unwrap();
            count += 1;
            let into = folder.path().join(count.to_string());
            fs::create_dir(&into).unwrap();
            unpack(&archive, &into)
                .map(|unpacked| (unpacked.begins_with.strip_prefix(&into).unwrap().to_owned(), unpacked.evr))
        };
        let file = |name: &str, size| (name.to_owned(), size);
        let long = format!("{}.spec", "long".repeat(30));
        let (begins_with, evr) = unpacked(&[file(&long, 10), file(EVR, 3)]).unwrap();
        assert_eq!((begins_with.to_str(), evr.as_str()), (Some(long.as_str()), "111"));
        assert!(matches!(unpacked(&[file("a.spec", 1), file(EVR, 2000)]), Err(Error::File { .. })));
        let endless = format!("{}.spec", "long/".repeat(200));
        assert!(matches!(unpacked(&[file(&endless, 1)]), Err(Error::Archive { .. })));
        assert!(matches!(unpacked(&[file("a.spec", 1), file("b.spec", 1)]), Err(Error::Archive { .. })));
    }

    #[test]
    fn a_record_of_another_commit_makes_no_source() {
        let recipe = samples::recipe(samples::network());
        let plan = recipe.plan.unwrap();
        let commit = |digit: &str| CommitId::new(digit.repeat(40)).unwrap();
        let found = BTreeMap::from([(PACKAGING, commit("a")), (UPSTREAM, commit("b"))]);
        let revisions = revisions(&plan, &found).unwrap();
        let record = |commit| serde_json::to_vec(&CommitRecord { commit, time: 1, ordinal: 2 }).unwrap();
        let made = |upstream: CommitId| {
            let records = [("packaging.json", record(commit("a"))), ("upstream.json", record(upstream))]
                .map(|(n, r)| (n.to_owned(), r));
            make(&recipe.name, &plan, &revisions, &[], &records.into())
        };
        let job = made(commit("b")).unwrap();
        assert!(job.argv.contains(&format!("Built from {} and {}.", commit("a"), commit("b"))));
        assert!(matches!(made(commit("c")), Err(Error::OtherCommit { name }) if name == "upstream"));
        let one = BTreeMap::from([("packaging.json".to_owned(), record(commit("a")))]);
        assert!(matches!(make(&recipe.name, &plan, &revisions, &[], &one), Err(Error::Missing { .. })));
    }
}
