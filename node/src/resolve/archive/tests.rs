//! The real apt against a repository that our own publisher made, without a network.

use protocol::{PackageName, words::DebVersion};

use super::*;
use crate::{
    publish::{
        apt::{Addition, Repository, Settings},
        testing::{AT, addition_of, control, deb, key, settings},
    },
    resolve::{
        buildinfo::{Absent, Buildinfo, lock_for_buildinfo},
        elsewhere::Elsewhere,
        lock::{self, lock_for_source, lock_plain},
        origin,
        release::{self, Pinned},
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
    ("ofarch", ""),
    ("ofall", ""),
];

fn additions(debs: &Path, version: &str) -> Vec<Addition> {
    let make = |(name, fields): &(&str, &str)| {
        let text = control(name, version, "amd64")
            .replace("Maintainer", &format!("{}Maintainer", fields.replace("1:1", version)));
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
                    Build-Depends: helper (>= 1:1), tester <!nocheck>, absent [s390x]\nBuild-Conflicts: unwanted\n\
                    Build-Depends-Indep: ofall\nBuild-Depends-Arch: ofarch\n";
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
    assert_eq!(names(&locked), with(&["helper", "ofall", "ofarch", "tester"]));
    assert!(locked.lock.packages.iter().all(|p| p.version.as_str() == "1:1"), "the stranger's packages stay out");
    let from = |name: &str| locked.lock.package(name).unwrap().from.clone().unwrap().to_string();
    assert_eq!(from("helper"), "pool/main/h/helper/helper_1_amd64.deb");
    assert_eq!((locked.lock.suite.as_str(), locked.lock.epoch), ("main", AT.as_secs()));
    for (package, file) in locked.lock.packages.iter().zip(&locked.files) {
        let got = crate::resolve::digest::Digest::of_file(file).unwrap();
        assert_eq!((got.hash, got.sha256, got.size), (package.hash, package.sha256, package.size));
    }
    let nocheck = lock_for_source(&archive, &source, &["nocheck".into()]).unwrap();
    assert_eq!(names(&nocheck), with(&["helper", "ofall", "ofarch"]));
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

#[test]
fn another_archive_is_believed_by_its_key_alone() {
    let Some(machine) = Machine::new() else { return };
    let (root, suite) = (machine.dir.path().join("stranger/public"), SuiteName::new("main").unwrap());
    let (url, state) = (format!("file://{}", root.display()), machine.dir.path().join("state"));
    let key = root.join("archive-key.gpg");
    let open = |key: &Path| {
        let components = ["main".to_owned()];
        let other = Elsewhere { url: &url, key, components: &components, suite: &suite }.configure(&state).unwrap();
        Archive::open_configured(&other.join("etc"), &other, suite.clone(), Arch::Amd64).unwrap()
    };
    let archive = open(&key);
    archive.update(AT, Refresh::Always).unwrap();
    let locked = lock_plain(&archive, &[]).unwrap();
    assert!(locked.lock.packages.iter().all(|p| p.version.as_str() == "1:9"), "all are the other archive's");
    assert_eq!(lock::files_of(&locked.lock, &state).unwrap(), locked.files);
    let nowhere = lock::files_of(&locked.lock, &machine.dir.path().join("empty")).unwrap_err();
    assert!(nowhere.to_string().starts_with("adduser 1:9 of the lock is not on this machine"), "{nowhere}");
    let wrong = machine.dir.path().join("wrong.gpg");
    let other = crate::publish::sign::RepositoryKey::generate("other", AT).unwrap();
    fs::write(&wrong, other.public_binary().unwrap()).unwrap();
    let refused = open(&wrong).update(AT, Refresh::Always).unwrap_err();
    assert!(matches!(refused, Error::Unreachable { .. }), "{refused}");
}

#[test]
fn a_release_of_ours_is_pinned_and_comes_before_the_archive() {
    let Some(machine) = Machine::new() else { return };
    let home = machine.dir.path().join("home");
    let settings = Settings { arches: vec![Arch::Amd64], valid_secs: u32::MAX, ..settings() };
    let mut repository = Repository::open(&home, settings, key()).unwrap();
    let publish = |repository: &mut Repository, version: &str, generation| {
        let text = control("helper", version, "amd64");
        let addition = addition_of(&machine.dir.path().join("debs"), ("helper", version, "amd64"), &deb(&text, "b"));
        repository.publish(&[addition], AT, generation).unwrap().manifest
    };
    let first = publish(&mut repository, "0.5", 1);
    publish(&mut repository, "1:7", 2);
    let pinned = Pinned {
        channel: protocol::ChannelName::new("main").unwrap(),
        generation: 1,
        manifest: first,
        root: repository.root().to_owned(),
    };
    let (state, suite) = (machine.dir.path().join("state"), SuiteName::new("main").unwrap());
    let beside = pinned.lay_out(&state, Arch::Amd64).unwrap();
    let etc = machine.dir.path().join("etc");
    let archive = Archive::open_beside(&etc, &state, (suite, Arch::Amd64), beside).unwrap();
    archive.update(AT, Refresh::WhenStale).unwrap();
    let locked = lock_plain(&archive, &[PackageName::new("helper").unwrap()]).unwrap();
    let version = |name: &str| locked.lock.package(name).unwrap().version.as_str().to_owned();
    assert_eq!((version("helper"), version("base")), ("0.5".into(), "1:1".into()), "not the later generation's 1:7");
    let plain = machine.archive("state");
    plain.update(AT, Refresh::WhenStale).unwrap();
    let without = lock_plain(&plain, &[PackageName::new("helper").unwrap()]).unwrap();
    assert_eq!(without.lock.package("helper").unwrap().version.as_str(), "1:1", "another index");

    let pool = repository.root().join(pinned.manifest.packages[0].path.as_str());
    fs::write(&pool, "changed").unwrap();
    fs::remove_dir_all(state.join("releases")).unwrap();
    assert!(matches!(pinned.lay_out(&state, Arch::Amd64), Err(release::Error::Wrong { .. })));
    fs::remove_file(&pool).unwrap();
    assert!(matches!(pinned.lay_out(&state, Arch::Amd64), Err(release::Error::Gone { .. })));
}

#[test]
fn a_buildinfo_gives_its_versions_or_says_which_are_gone() {
    let Some(machine) = Machine::new() else { return };
    let archive = machine.archive("state");
    archive.update(AT, Refresh::WhenStale).unwrap();
    let write = |version: &str| {
        let path = machine.dir.path().join("helper.buildinfo");
        let text = format!(
            "Format: 1.0\nSource: helper\nVersion: 1\nBuild-Architecture: amd64\nInstalled-Build-Depends:\n \
             tester (= {version}),\n base (= 1:1)\n"
        );
        fs::write(&path, text).unwrap();
        Buildinfo::read(&path).unwrap()
    };
    let (locked, missing) = lock_for_buildinfo(&archive, &write("1:1"), Absent::Refuse).unwrap();
    assert!(missing.is_empty() && names(&locked).contains(&"tester"));
    let gone = lock_for_buildinfo(&archive, &write("0.9"), Absent::Refuse).unwrap_err().to_string();
    assert!(gone.starts_with("the archive no longer has 1 of 2 packages: tester 0.9 (it has 1:1)"), "{gone}");
    let (nearest, missing) = lock_for_buildinfo(&archive, &write("0.9"), Absent::Nearest).unwrap();
    assert_eq!((nearest.lock.id(), missing.len()), (locked.lock.id(), 1));
}

#[test]
fn packages_of_a_lock_come_again_from_the_archive_or_are_named() {
    let Some(machine) = Machine::new() else { return };
    let archive = machine.archive("state");
    archive.update(AT, Refresh::WhenStale).unwrap();
    let mut packages = lock_plain(&archive, &[]).unwrap().lock.packages;
    let into = machine.dir.path().join("into");
    let files = origin::fetch(&archive, &packages, &into).unwrap();
    assert_eq!(files.len(), packages.len());
    packages[0].hash = protocol::Hash::of(b"other");
    let wrong = origin::fetch(&archive, &packages[..1], &into).unwrap_err();
    assert!(matches!(wrong, origin::Error::Wrong { .. }), "{wrong}");
    packages[1].sha256 = protocol::Sha256::of(b"other");
    let gone = origin::fetch(&archive, &packages, &into).unwrap_err().to_string();
    assert_eq!(gone, "the archive has 1 of the lock's packages no more: apt");
}

#[test]
fn suites_that_share_a_beginning_have_folders_of_their_own() {
    let state = tempfile::tempdir().unwrap();
    let etc = state.path().join("etc");
    fs::create_dir_all(&etc).unwrap();
    let root = |suite: &str| {
        let beside = Beside { sources: "other".into(), ..Beside::default() };
        let suite = (SuiteName::new(suite).unwrap(), Arch::Amd64);
        Archive::open_beside(&etc, &state.path().join("state"), suite, beside).unwrap().root
    };
    assert_ne!(root("shop-1.0"), root("shop-1.1"));
}
