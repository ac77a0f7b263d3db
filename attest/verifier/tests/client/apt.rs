//! apt, dpkg and the hook in a scratch root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use attest::{
    testing::{
        DEB,
        deb::deb,
        staple::{BEFORE, Sample},
    },
    trust::Demands,
};
use protocol::{
    Sha256, Timestamp,
    policy::{Channel, Policy},
    testing::samples,
};

use super::{PROGRAM, as_root, is_there, said, server::Server, verifier, write};

const IDENTITY: (&str, &str, &str) = ("base-files", "12.4", "amd64");
const INSTALLED: &str = "root/usr/share/doc/base-files/salt";

/// When the next index is written: the server compares whole seconds, so what is written within one of them would not be new.
static WRITTEN: AtomicU64 = AtomicU64::new(1_700_000_000);

/// Gives an index a time of its own.
fn dated(file: &Path) {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(WRITTEN.fetch_add(60, Ordering::Relaxed));
    fs::File::options().write(true).open(file).unwrap().set_modified(at).unwrap();
}

struct Bench {
    folder: tempfile::TempDir,
    sample: Sample,
    /// Where the network's repository lies.
    ours: &'static str,
}

impl Bench {
    /// A repository of the sample network with one package and its staples, another one without, and an empty root.
    fn new() -> Option<Self> {
        let good = deb(IDENTITY, "a");
        Self::of("ours", || Sample::of(&Sample::policy(2), &[&good, &good, "lie"]))
    }

    /// As [`Bench::new`], of a network whose package one operator built, which is enough for channel `stable` and not for `strong`.
    fn of_two_channels(ours: &'static str) -> Option<Self> {
        let good = deb(IDENTITY, "a");
        let channels =
            vec![samples::channel(1, 1), Channel { name: "strong".parse().unwrap(), ..samples::channel(2, 2) }];
        let mut policy = Policy { channels, ..Sample::policy(0) };
        policy.maintainers[0].channels.push("strong".parse().unwrap());
        Self::of(ours, || Sample::of(&policy, &[&good]))
    }

    fn of(ours: &'static str, sample: impl FnOnce() -> Sample) -> Option<Self> {
        if !is_there("apt-get") || !is_there("dpkg") {
            return None;
        }
        let good = deb(IDENTITY, "a");
        let bench = Self { folder: tempfile::tempdir().unwrap(), sample: sample(), ours };
        bench.repository(ours, "sample", &[(DEB, IDENTITY, &good)]);
        let other = ("other", "1:2", "all");
        bench.repository("theirs", "somebody", &[("other_2_all.deb", other, &deb(other, "b"))]);
        bench.staple();
        write(bench.folder.path(), "verify.policy", bench.sample.trust(Demands::default()).to_string());
        for folder in ["info", "updates", "triggers"] {
            fs::create_dir_all(bench.path("root/var/lib/dpkg").join(folder)).unwrap();
        }
        for folder in
            ["state/lists/partial", "cache/archives/partial", "etc/apt/apt.conf.d", "etc/apt/sources.list.d", "log"]
        {
            fs::create_dir_all(bench.path(folder)).unwrap();
        }
        write(bench.folder.path(), "root/var/lib/dpkg/status", "");
        Some(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn repository(&self, folder: &str, origin: &str, packages: &[(&str, (&str, &str, &str), &str)]) {
        let mut index = String::new();
        for (file, (name, version, arch), bytes) in packages {
            write(self.folder.path(), &format!("{folder}/pool/{file}"), bytes);
            index += &format!(
                "Package: {name}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: nobody\nDescription: a test\n\
                 Filename: pool/{file}\nSize: {}\nSHA256: {}\n\n",
                bytes.len(),
                Sha256::of(bytes.as_bytes())
            );
        }
        let path = "main/binary-amd64/Packages";
        write(self.folder.path(), &format!("{folder}/dists/stable/{path}"), &index);
        let release = format!(
            "Origin: {origin}\nLabel: {origin}\nSuite: stable\nCodename: stable\nDate: Sat, 21 Nov 2026 00:00:00 UTC\n\
             Architectures: amd64\nComponents: main\nSHA256:\n {} {} {path}\n",
            Sha256::of(index.as_bytes()),
            index.len()
        );
        let file = format!("{folder}/dists/stable/Release");
        write(self.folder.path(), &file, release);
        dated(&self.path(&file));
    }

    fn staple(&self) {
        let beside = |end: &str| format!("{}/pool/{DEB}.{end}", self.ours);
        write(self.folder.path(), &beside("intoto.jsonl"), self.sample.lines());
        write(self.folder.path(), &beside("tlog-proof"), self.sample.proof(&[0, 1]));
    }

    fn unstaple(&self) {
        for end in ["intoto.jsonl", "tlog-proof"] {
            fs::remove_file(self.path(&format!("ours/pool/{DEB}.{end}"))).unwrap();
        }
    }

    /// Has apt know both repositories by the beginning of their addresses, and reads their indexes.
    fn sources(&self, base: &str) {
        let source = |folder| format!("deb [trusted=yes] {base}/{folder} stable main\n");
        write(self.folder.path(), "etc/apt/sources.list", source(self.ours) + &source("theirs"));
        let root = self.folder.path().display();
        write(
            self.folder.path(),
            "apt.conf",
            format!(
                "Dir::State \"{root}/state\";\nDir::State::status \"{root}/root/var/lib/dpkg/status\";\nDir::Cache \"{root}/cache\";\n\
                 Dir::Etc \"{root}/etc/apt\";\nDir::Log \"{root}/log\";\nDir::Etc::trustedparts \"{root}/none\";\n\
                 APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\nAPT::Sandbox::User \"root\";\n\
                 Acquire::Languages \"none\";\nDebug::NoLocking \"true\";\nAPT::Update::Error-Mode \"any\";\n\
                 DPkg::Options {{ \"--root={root}/root\"; \"--force-architecture\"; \"--force-depends\"; }};\n"
            ),
        );
        let (good, words) = self.apt(&["update"]);
        assert!(good, "{words}");
    }

    fn apt(&self, words: &[&str]) -> (bool, String) {
        let mut command = as_root("apt-get");
        // What would be of this machine, a preconfiguration of packages for one, is no part of the scratch root.
        command.args(["-o", &format!("Dir::Etc::parts={}", self.path("etc/apt/apt.conf.d").display())]);
        command.env("APT_CONFIG", self.path("apt.conf")).env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        said(&command.args(words).output().unwrap())
    }

    /// Installs the hook, and gives its setting and what was said.
    fn hook(&self, words: &[&str]) -> (String, String) {
        let (root, policy) =
            (self.folder.path().display().to_string(), self.path("verify.policy").display().to_string());
        let cache = self.path("etc/apt/apt.conf.d/90artel");
        // The policy file as it is called in the root, and by apt, which here has no root of its own.
        write(self.folder.path(), policy.trim_start_matches('/'), fs::read(&policy).unwrap());
        let mut install = Command::new(PROGRAM);
        install.args(["apt-hook", "install", "--root", &root, "--policy", &policy]).args(words);
        let (good, words) = said(&install.env("APT_CONFIG", self.path("apt.conf")).output().unwrap());
        assert!(good, "{words}");
        // Only here the cache lies elsewhere than the hook's own.
        let conf = fs::read_to_string(&cache).unwrap();
        let run = format!("apt-hook run --cache {}", self.path("staples").display());
        fs::write(cache, conf.replace("apt-hook run", &run)).unwrap();
        assert!(conf.contains(PROGRAM));
        (conf, words)
    }

    /// Tries to install packages into the root as it was, and gives what apt said where it did not.
    fn install(&self, packages: &[&str]) -> Result<String, String> {
        let (good, words) = self.apt(&[&["-y", "install", "--reinstall"], packages].concat());
        let there = self.path(INSTALLED).exists() && packages.contains(&"base-files");
        let _ = fs::remove_file(self.path(INSTALLED));
        write(self.folder.path(), "root/var/lib/dpkg/status", "");
        if packages.contains(&"base-files") {
            assert_eq!(good, there, "{words}");
        }
        if good { Ok(words) } else { Err(words) }
    }
}

fn refused(result: Result<String, String>, why: &str) {
    let words = result.expect_err("it was installed");
    assert!(words.contains(why), "{words}");
    assert!(words.contains("nothing was installed"), "{words}");
}

#[test]
fn apt_installs_what_is_proven_and_nothing_else_of_the_network() {
    let Some(bench) = Bench::new() else { return };
    bench.sources(&format!("file:{}", bench.folder.path().display()));
    assert!(bench.install(&["base-files"]).is_ok(), "without a hook apt asks nobody");
    bench.hook(&["--origin", "sample"]);
    let words = bench.install(&["base-files", "other"]).unwrap();
    assert!(words.contains("base-files 12.4 amd64 is proven: op-a, op-b built the same"), "{words}");
    assert!(!words.contains("other 1:2"), "another repository's package is none of our business: {words}");

    let lines = format!("ours/pool/{DEB}.intoto.jsonl");
    let good = String::from_utf8(bench.sample.lines()).unwrap();
    write(bench.folder.path(), &lines, good.replacen("\"sig\":\"", "\"sig\":\"A", 1));
    refused(bench.install(&["base-files"]), "no maintainer of the network signed");
    let fewer: String = good.lines().take(2).map(|line| format!("{line}\n")).collect();
    write(bench.folder.path(), &lines, fewer);
    refused(bench.install(&["base-files"]), "1 of 2 operators attest");
    bench.staple();
    fs::remove_file(bench.path(&format!("ours/pool/{DEB}.tlog-proof"))).unwrap();
    refused(bench.install(&["base-files"]), "there is no proof that the verdict was logged");
    bench.staple();
    bench.unstaple();
    refused(bench.install(&["base-files"]), "there is no evidence for it");
    bench.staple();

    let policy = fs::read_to_string(bench.path("verify.policy")).unwrap();
    write(bench.folder.path(), "verify.policy", policy.replace("log policy", "log policy\nagree 3"));
    refused(bench.install(&["base-files"]), "2 operators agree, 3 are asked for here");
    fs::remove_file(bench.path("verify.policy")).unwrap();
    refused(bench.install(&["base-files"]), "there is no policy file");
    assert!(bench.install(&["other"]).is_ok(), "whose packages are refused was written down");
    write(bench.folder.path(), "verify.policy", policy);
    bench.install(&["base-files"]).unwrap();

    bench.hook(&["--all"]);
    refused(bench.install(&["base-files", "other"]), "other 1:2 all is REFUSED");
    bench.install(&["base-files"]).unwrap();
    let root = bench.folder.path().display().to_string();
    verifier(&["apt-hook", "uninstall", "--root", &root]);
    assert!(bench.install(&["other"]).is_ok());
}

#[test]
fn what_lies_beside_a_package_is_fetched_as_apt_fetches_it_and_kept() {
    let Some(bench) = Bench::new() else { return };
    let server = Server::of(bench.folder.path());
    bench.sources(&server.address);
    bench.hook(&[]);
    let words = bench.install(&["base-files", "other"]).unwrap();
    assert!(words.contains("base-files 12.4 amd64 is proven"), "{words}");
    bench.unstaple();
    assert!(bench.install(&["base-files"]).is_ok(), "it was kept");
    fs::remove_dir_all(bench.path("staples")).unwrap();
    refused(bench.install(&["base-files"]), "there is no evidence for it at http://127.0.0.1");
    bench.staple();
    bench.install(&["base-files"]).unwrap();
    // What was kept is believed no more than what is fetched.
    for file in fs::read_dir(bench.path("staples")).unwrap() {
        fs::write(file.unwrap().path(), "spoilt").unwrap();
    }
    bench.install(&["base-files"]).unwrap();
}

/// What a repository says of itself takes it out of nobody's care: its source is this machine's own word.
#[test]
fn a_repository_that_calls_itself_otherwise_is_known_by_its_source() {
    let Some(bench) = Bench::new() else { return };
    let server = Server::of(bench.folder.path());
    bench.sources(&server.address);
    bench.hook(&["--origin", "sample"]);
    let conf = fs::read_to_string(bench.path("etc/apt/apt.conf.d/90artel")).unwrap();
    let source = format!("--source {}/ours/", server.address);
    assert!(conf.contains(&source) && !conf.contains("/theirs"), "{conf}");
    bench.unstaple();
    let good = deb(IDENTITY, "a");
    for origin in ["somebody", ""] {
        bench.repository("ours", origin, &[(DEB, IDENTITY, &good)]);
        let (updated, words) = bench.apt(&["update", "--allow-releaseinfo-change"]);
        assert!(updated, "{words}");
        refused(bench.install(&["base-files"]), "there is no evidence for it at http://127.0.0.1");
        assert!(bench.install(&["other"]).is_ok(), "another repository stays out of it");
    }
    bench.staple();
    bench.install(&["base-files"]).unwrap();

    // As the hook was before sources were written down: nobody asks.
    fs::remove_dir_all(bench.path("staples")).unwrap();
    bench.unstaple();
    write(bench.folder.path(), "etc/apt/apt.conf.d/90artel", conf.replace(&source, ""));
    bench.install(&["base-files"]).unwrap();
    write(bench.folder.path(), "etc/apt/apt.conf.d/90artel", conf);
    refused(bench.install(&["base-files"]), "there is no evidence for it at http://127.0.0.1");
}

/// Another package under the name and version that apt was told of, with its own honest evidence: apt's index does not save it.
#[test]
fn evidence_of_another_package_proves_nothing() {
    let Some(bench) = Bench::new() else { return };
    let good = deb(IDENTITY, "a");
    bench.repository("ours", "sample", &[(DEB, ("base-files", "12.5", "amd64"), &good)]);
    bench.sources(&format!("file:{}", bench.folder.path().display()));
    bench.hook(&[]);
    refused(bench.install(&["base-files"]), "it is base-files 12.4 amd64, not base-files 12.5 amd64");
}

/// Who names a file has chosen it, and no repository stands for it, unless it lies in one of the network. With `--all` a proof is asked
/// for all the same.
#[test]
fn a_file_that_somebody_names_is_his_own_choice() {
    let Some(bench) = Bench::new() else { return };
    bench.sources(&format!("file:{}", bench.folder.path().display()));
    let loose = bench.path("loose/loose_1_all.deb").display().to_string();
    write(bench.folder.path(), "loose/loose_1_all.deb", deb(("loose", "1", "all"), "c"));
    bench.hook(&[]);
    bench.install(&[&loose]).unwrap();
    bench.unstaple();
    let in_repository = bench.path(&format!("ours/pool/{DEB}")).display().to_string();
    refused(bench.install(&[&in_repository]), "there is no evidence for it");
    bench.hook(&["--all"]);
    refused(bench.install(&[&loose]), "loose 1 all is REFUSED");
}

/// What was seen too long ago by its own proof is fresh by the log's newest checkpoint, which is fetched like all else.
#[test]
fn a_newer_checkpoint_is_fetched_where_the_package_comes_from() {
    let Some(bench) = Bench::new() else { return };
    let server = Server::of(bench.folder.path());
    let policy = fs::read_to_string(bench.path("verify.policy")).unwrap();
    let ago = |hours: u64| Timestamp::from_millis((verifier::now().as_secs() - hours * 3600) * 1000);
    let old = bench.sample.proof_of(&bench.sample.verdict, BEFORE, bench.sample.checkpoint(&[0, 1], ago(2)));
    write(bench.folder.path(), &format!("ours/pool/{DEB}.tlog-proof"), old);
    for base in [server.address.clone(), format!("file:{}", bench.folder.path().display())] {
        let _ = fs::remove_dir_all(bench.path("ours/log"));
        write(bench.folder.path(), "verify.policy", &policy);
        bench.sources(&base);
        bench.hook(&[]);
        bench.install(&["base-files"]).unwrap();
        write(bench.folder.path(), "verify.policy", policy.replace("log policy", "log policy\nmax-age 1h"));
        refused(bench.install(&["base-files"]), "none is to be had where it comes from");
        let shown = |witnesses: &[u8], hours: u64| {
            let checkpoint = bench.sample.checkpoint(witnesses, ago(hours)).to_string();
            write(bench.folder.path(), "ours/log/checkpoint", checkpoint);
        };
        shown(&[0, 1], 0);
        bench.install(&["base-files"]).unwrap();
        shown(&[0, 1], 2);
        refused(bench.install(&["base-files"]), "at most 3600 s are allowed");
        shown(&[0], 0);
        refused(bench.install(&["base-files"]), "the newer checkpoint does not hold");
    }
}

/// A package that was proven for a weak channel does not come in through the source of a strong one.
#[test]
fn a_package_must_be_proven_for_the_channel_of_its_source() {
    let Some(bench) = Bench::of_two_channels("repo/strong") else { return };
    let base = format!("file:{}", bench.folder.path().display());
    bench.sources(&base);
    let (conf, said) = bench.hook(&[]);
    assert!(conf.contains(&format!("--channel {base}/repo/strong/=strong")), "{conf}");
    assert!(said.contains("/repo/strong/ must be proven for channel strong"), "{said}");
    let words = "it is a package of channel stable, and where it comes from only those of strong are accepted";
    refused(bench.install(&["base-files"]), words);
    // A source that came later is judged by its address, too.
    let path = bench.path("etc/apt/apt.conf.d/90artel");
    let forgotten = fs::read_to_string(&path).unwrap().replace(&format!(" --channel {base}/repo/strong/=strong"), "");
    fs::write(&path, forgotten).unwrap();
    refused(bench.install(&["base-files"]), words);
    bench.hook(&["--all"]);
    refused(bench.install(&["base-files"]), words);
    bench.hook(&["--channel", &format!("{base}/repo/=stable")]);
    bench.install(&["base-files"]).unwrap();
}

/// Apt says of one source that a package comes from it, and may want it for the sake of another one that lists it, too.
#[test]
fn a_package_must_be_proven_for_the_channels_of_all_sources_that_list_it() {
    let Some(bench) = Bench::of_two_channels("repo/stable") else { return };
    let base = format!("file:{}", bench.folder.path().display());
    bench.sources(&base);
    bench.hook(&[]);
    bench.install(&["base-files"]).unwrap();
    let (list, good) = (bench.path("etc/apt/sources.list"), deb(IDENTITY, "a"));
    let listed = fs::read_to_string(&list).unwrap() + &format!("deb [trusted=yes] {base}/repo/strong stable main\n");
    fs::write(&list, listed).unwrap();
    for (version, wanted) in [("12.5", true), (IDENTITY.1, false)] {
        bench.repository("repo/strong", "sample", &[(DEB, (IDENTITY.0, version, IDENTITY.2), &good)]);
        let (updated, words) = bench.apt(&["update"]);
        assert!(updated, "{words}");
        // Who asks for a proof of everything asks for no less.
        for options in [&[][..], &["--all"]] {
            bench.hook(options);
            let result = bench.install(&[&format!("base-files={}", IDENTITY.1)]);
            match wanted {
                true => assert!(result.is_ok(), "another version is there: {result:?}"),
                false => refused(result, "where it comes from only those of strong are accepted"),
            }
        }
    }
}

#[test]
fn where_nobody_says_a_channel_and_rules_differ_packages_are_refused() {
    let Some(bench) = Bench::of_two_channels("ours") else { return };
    let server = Server::of(bench.folder.path());
    bench.sources(&server.address);
    let (_, said) = bench.hook(&[]);
    assert!(said.contains("/ours/ must be proven, AND ARE REFUSED"), "{said}");
    refused(bench.install(&["base-files"]), "nobody says for which channel packages from http://127.0.0.1");
    bench.hook(&["--channel", "stable"]);
    bench.install(&["base-files"]).unwrap();
    let (_, said) = bench.hook(&["--channel", &format!("{}/ours/=strong", server.address)]);
    assert!(said.contains("/ours/ must be proven for channel strong"), "{said}");
    refused(bench.install(&["base-files"]), "only those of strong are accepted");
    // What the repository calls itself says it when the hook is installed, and nothing any more later.
    let release = fs::read_to_string(bench.path("ours/dists/stable/Release")).unwrap();
    let called = |label: &str| {
        let text = release.replace("Label: sample", label);
        write(bench.folder.path(), "ours/dists/stable/Release", text);
        dated(&bench.path("ours/dists/stable/Release"));
        let (updated, words) = bench.apt(&["update", "--allow-releaseinfo-change"]);
        assert!(updated, "{words}");
    };
    called("Label: sample strong");
    let (conf, _) = bench.hook(&[]);
    assert!(conf.contains("/ours/=strong"), "{conf}");
    called("Label: sample stable");
    refused(bench.install(&["base-files"]), "only those of strong are accepted");
    bench.hook(&[]);
    bench.install(&["base-files"]).unwrap();
}
