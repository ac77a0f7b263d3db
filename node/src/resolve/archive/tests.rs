//! The real apt against a repository that our own publisher made, without a network.

use protocol::{PackageName, words::DebVersion};

use super::*;
use crate::{
    publish::{
        apt::{Addition, Repository, Settings},
        testing::{AT, addition_of, control, deb, key, settings},
    },
    resolve::{
        lock::{self, lock_for_source, lock_plain},
        source::{Error as SourceError, archive_binaries, fetch_source, read_source},
    },
};

/// Packages of a system so small that only apt's solver takes it for one.
const SYSTEM: &[(&str, &str)] = &[
    ("base", "Priority: required\nEssential: yes\nDepends: libbase\n"),
    ("libbase", "Multi-Arch: same\n"),
    ("shell", "Priority: required\nRecommends: unwanted\n"),
    ("unwanted", ""),
    ("apt", "Depends: adduser\n"),
    ("adduser", ""),
    ("build-essential", ""),
    ("fakeroot", ""),
    ("faketime", "Depends: libfaketime (= 1:1)\n"),
    ("libfaketime", ""),
    ("helper", ""),
    ("tester", ""),
];

fn additions(debs: &Path, version: &str) -> Vec<Addition> {
    let make = |(name, fields): &(&str, &str)| {
        let text = control(name, version, "amd64").replace("Maintainer", &format!("{fields}Maintainer"));
        addition_of(debs, (name, version, "amd64"), &deb(&text, "a"))
    };
    SYSTEM.iter().map(make).collect()
}

struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    /// Publishes a distribution and a stranger's repository with the same suite, and configures both as apt sources.
    fn new() -> Option<Self> {
        if Command::new("apt-get").arg("--version").output().is_err() {
            eprintln!("skipped: apt-get is not installed");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("artel-machine").tempdir().unwrap();
        let own = os_release("ID").unwrap_or_else(|| "none".into());
        let mut sources = String::new();
        for (name, origin, version) in [("own", own.as_str(), "1:1"), ("stranger", "stranger", "1:9")] {
            let settings =
                Settings { origin: origin.into(), valid_secs: u32::MAX, arches: vec![Arch::Amd64], ..settings() };
            let mut repository = Repository::open(&dir.path().join(name), settings, key()).unwrap();
            fs::create_dir_all(dir.path().join("debs")).unwrap();
            repository.publish(&additions(&dir.path().join("debs"), version), AT, 1).unwrap();
            let root = repository.root();
            let signed_by = root.join("archive-key.gpg");
            sources +=
                &format!("deb [trusted=yes signed-by={}] file://{} main main\n", signed_by.display(), root.display());
        }
        fs::create_dir_all(dir.path().join("etc/sources.list.d")).unwrap();
        fs::write(dir.path().join("etc/sources.list"), sources).unwrap();
        Some(Self { dir })
    }

    fn archive(&self, state: &str) -> Archive {
        let suite = SuiteName::new("main").unwrap();
        let (etc, state) = (self.dir.path().join("etc"), self.dir.path().join(state));
        Archive::open_configured(&etc, &state, suite, Arch::Amd64).unwrap()
    }

    fn source(&self) -> crate::resolve::source::SourcePackage {
        let text = "Format: 3.0 (native)\nSource: helper\nVersion: 1:1\nBinary: helper\n\
                    Build-Depends: helper (>= 1:1), tester <!nocheck>, absent [s390x]\nBuild-Conflicts: unwanted\n";
        let (path, data) = (self.dir.path().join("helper_1.dsc"), self.dir.path().join("helper_1.tar.xz"));
        fs::write(data, "data").unwrap();
        let sums = format!("Checksums-Sha256:\n {} 4 helper_1.tar.xz\n", protocol::Sha256::of(b"data"));
        fs::write(&path, format!("{text}{sums}")).unwrap();
        read_source(&path).unwrap()
    }
}

fn names(locked: &lock::Locked) -> Vec<&str> {
    locked.lock.packages.iter().map(|p| p.name.as_str()).collect()
}

#[test]
fn a_lock_has_the_system_and_the_build_dependencies_and_is_the_same_each_time() {
    let Some(machine) = Machine::new() else { return };
    let archive = machine.archive("state");
    archive.update(AT, Refresh::WhenStale).unwrap();
    let source = machine.source();
    let locked = lock_for_source(&archive, &source, &[]).unwrap();
    let base = ["adduser", "apt", "base", "build-essential", "fakeroot", "faketime", "libbase", "libfaketime", "shell"];
    let with = |more: &[&'static str]| {
        let mut all = [&base[..], more].concat();
        all.sort_unstable();
        all
    };
    assert_eq!(names(&locked), with(&["helper", "tester"]));
    assert!(locked.lock.packages.iter().all(|p| p.version.as_str() == "1:1"), "the stranger's packages stay out");
    assert_eq!((locked.lock.suite.as_str(), locked.lock.epoch), ("main", AT.as_secs()));
    for (package, file) in locked.lock.packages.iter().zip(&locked.files) {
        let got = crate::resolve::digest::Digest::of_file(file).unwrap();
        assert_eq!((got.hash, got.sha256, got.size), (package.hash, package.sha256, package.size));
    }
    let nocheck = lock_for_source(&archive, &source, &["nocheck".into()]).unwrap();
    assert_eq!(names(&nocheck), with(&["helper"]));
    let plain = lock_plain(&archive, &[PackageName::new("tester").unwrap()]).unwrap();
    assert_eq!(names(&plain), with(&["tester"]));
    let other = machine.archive("other-state");
    other.update(AT, Refresh::Always).unwrap();
    assert_eq!(lock_for_source(&other, &source, &[]).unwrap().lock.id(), locked.lock.id());

    fs::write(&locked.files[0], "torn by a crash").unwrap();
    assert_eq!(lock_for_source(&archive, &source, &[]).unwrap().lock.id(), locked.lock.id(), "fetched again");
    let own = archive_binaries(&archive, &source.name, &source.version).unwrap().unwrap();
    assert_eq!(own[0].file.as_str(), "helper_1_amd64.deb");
    assert_eq!(archive_binaries(&archive, &source.name, &DebVersion::new("7").unwrap()).unwrap(), None);
}

#[test]
fn what_cannot_be_had_is_said_with_what_to_do() {
    let Some(machine) = Machine::new() else { return };
    let archive = machine.archive("state");
    archive.update(AT, Refresh::WhenStale).unwrap();
    let missing = lock_plain(&archive, &[PackageName::new("no-such-package").unwrap()]).unwrap_err();
    assert!(matches!(&missing, lock::Error::Solve(said) if said.contains("no-such-package")), "{missing}");
    let into = machine.dir.path().join("sources");
    assert!(matches!(fetch_source(&archive, "-o=x", &into), Err(SourceError::Name { .. })));
    assert!(matches!(fetch_source(&archive, "helper", &into), Err(SourceError::NoSuchSource { .. })));
    let suite = SuiteName::new("other").unwrap();
    let other =
        Archive::open_configured(&machine.dir.path().join("etc"), machine.dir.path(), suite, Arch::Amd64).unwrap();
    let none = other.update(AT, Refresh::WhenStale).unwrap_err().to_string();
    assert!(none.contains("other") && none.contains("configured suites: main"), "{none}");
    let in_release = machine.dir.path().join("own/public/dists/main/InRelease");
    let text = fs::read_to_string(&in_release).unwrap();
    fs::write(&in_release, text.replace("Label: artel", "Label: other")).unwrap();
    archive.update(AT, Refresh::WhenStale).unwrap();
    let bad = archive.update(AT, Refresh::Always).unwrap_err();
    assert!(matches!(bad, Error::Unreachable { .. }), "{bad}");
}
