//! dnf with the plugin, from a repository that createrepo made, into a root of its own.

use std::{fs, path::PathBuf, process::Command};

use attest::{
    bundle::Bundle,
    compare::Output,
    testing::{
        attestation,
        staple::{BEFORE, Sample},
    },
    trust::Demands,
};
use protocol::{
    Hash, Sha256, Timestamp,
    message::Octets,
    policy::{Channel, Policy},
    testing::{samples, signing_key},
};

use super::{PROGRAM, as_root, is_there, said, server::Server, verifier, write};

const RPM: &[u8] = include_bytes!("../../../../fixtures/rpm/unsigned.rpm");
const NAME: &str = "Artel-answer-doc-1.2^git3-1.noarch.rpm";
const PACKAGE: &str = "Artel-answer-doc";
const INSTALLED: &str = "usr/share/doc/Artel-answer/answer.c";

struct Bench {
    folder: tempfile::TempDir,
    sample: Sample,
}

/// Covers the folders of this machine that the hook is written into: what is written there lies in the folder that is named first.
/// Then installs the hook with the second word, by the options in the third.
const COVER: &str = "set -e
    mkdir -p \"$0\" && mount -t tmpfs none \"$0\"
    for folder in usr/lib etc; do
        mkdir -p \"$0/$folder.new\" \"$0/$folder.work\"
        mount -t overlay -o \"lowerdir=/$folder,upperdir=$0/$folder.new,workdir=$0/$folder.work\" none \"/$folder\"
    done
    [ -z \"$2\" ] || \"$1\" dnf-hook install $2
    shift 2
    ";

impl Bench {
    fn new() -> Option<Self> {
        Self::of(|| sample(&Sample::policy(2), 2))
    }

    fn of(sample: impl FnOnce() -> Sample) -> Option<Self> {
        if !is_there("dnf") || !is_there("createrepo_c") {
            return None;
        }
        let bench = Self { folder: tempfile::tempdir().unwrap(), sample: sample() };
        write(bench.folder.path(), &format!("repository/{NAME}"), RPM);
        let (good, words) = said(&Command::new("createrepo_c").arg(bench.path("repository")).output().unwrap());
        assert!(good, "{words}");
        write(bench.folder.path(), "verify.policy", bench.sample.trust(Demands::default()).to_string());
        bench.staple();
        Some(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn staple(&self) {
        write(self.folder.path(), &format!("repository/{NAME}.intoto.jsonl"), self.sample.lines());
        write(self.folder.path(), &format!("repository/{NAME}.tlog-proof"), self.sample.proof(&[1, 2]));
    }

    fn hook(&self, words: &[&str]) {
        let (root, policy) =
            (self.folder.path().display().to_string(), self.path("verify.policy").display().to_string());
        verifier(
            &[&["dnf-hook", "install", "--root", &root, "--policy", &policy, "--plugins", "/plugins"], words].concat(),
        );
    }

    /// Tries to install the package into an empty root, and gives what dnf said where it did not.
    fn install(&self, base: &str) -> Result<String, String> {
        self.install_what(base, PACKAGE)
    }

    fn install_what(&self, base: &str, what: &str) -> Result<String, String> {
        self.install_from(&format!("{base}/repository"), what)
    }

    fn install_from(&self, address: &str, what: &str) -> Result<String, String> {
        let mut command = as_root("dnf");
        command.arg(format!("--setopt=pluginpath={}", self.path("plugins").display()));
        command.arg(format!("--setopt=pluginconfpath={}", self.path("etc/dnf/plugins").display()));
        Self::installed_by(command, (address, what))
    }

    /// As [`Bench::install`], with dnf's own folders: the hook is installed into this machine's root, over which lies a cover that
    /// is gone when dnf ends.
    fn install_by_default(&self, base: &str, words: &[&str]) -> Result<String, String> {
        let mut command = as_root("unshare");
        command.args(["--mount", "sh", "-c", &format!("{COVER}exec \"$@\"")]);
        command.arg(self.path("cover")).args([PROGRAM, words.join(" ").as_str(), "dnf"]);
        Self::installed_by(command, (&format!("{base}/repository"), PACKAGE))
    }

    fn installed_by(mut command: Command, (address, what): (&str, &str)) -> Result<String, String> {
        let into = tempfile::tempdir().unwrap();
        command.args(["-y", "--releasever=1", "--setopt=reposdir=/nonexistent", "--repo=artel"]);
        command.arg(format!("--installroot={}", into.path().display()));
        command.arg(format!("--setopt=cachedir={}", into.path().join("cache").display()));
        command.arg(format!("--repofrompath=artel,{address}"));
        command.args(["--setopt=artel.gpgcheck=0", "--setopt=artel.repo_gpgcheck=0", "--setopt=retries=1"]);
        command.env("LC_ALL", "C.UTF-8").args(["install", what]);
        let (good, words) = said(&command.output().unwrap());
        assert_eq!(good, into.path().join(INSTALLED).exists(), "{words}");
        if good { Ok(words) } else { Err(words) }
    }
}

/// Gives evidence that so many operators built the RPM.
fn sample(policy: &Policy, operators: u8) -> Sample {
    let (genesis, network) = samples::signed_genesis(policy);
    let request = samples::signed_request(&samples::rpm_request(network));
    let output =
        Output { hash: Hash::of(RPM), name: NAME.parse().unwrap(), size: RPM.len() as u64, sha256: Sha256::of(RPM) };
    let signed = |at: u8| {
        let mut attestation = attestation(&request, at, "");
        (attestation.outputs, attestation.byproducts) = (vec![output.clone()], vec![]);
        Octets(attestation.sign(&signing_key(10 + at)).unwrap())
    };
    let bundle = Bundle {
        lock: Octets(samples::lock().to_bytes()),
        course: None,
        request: Octets(request.to_bytes()),
        policies: vec![Octets(genesis.to_bytes())],
        promotions: vec![],
        attestations: (0..operators).map(signed).collect(),
    };
    Sample::of_bundle(bundle, network)
}

fn refused(result: Result<String, String>, why: &str) {
    let words = result.expect_err("it was installed");
    assert!(words.contains(why), "{words}");
    assert!(words.contains("nothing was installed"), "{words}");
}

#[test]
fn dnf_installs_what_is_proven_and_nothing_else() {
    let Some(bench) = Bench::new() else { return };
    let file = format!("file://{}", bench.folder.path().display());
    fs::create_dir_all(bench.path("plugins")).unwrap();
    bench.install(&file).unwrap();
    bench.hook(&[]);
    bench.install(&file).unwrap();
    let lines = format!("repository/{NAME}.intoto.jsonl");
    let good = String::from_utf8(bench.sample.lines()).unwrap();
    write(bench.folder.path(), &lines, good.replacen("\"sig\":\"", "\"sig\":\"A", 1));
    refused(bench.install(&file), "no maintainer of the network signed");
    fs::remove_file(bench.path(&lines)).unwrap();
    refused(bench.install(&file), "has no evidence beside it");
    bench.staple();
    let policy = fs::read_to_string(bench.path("verify.policy")).unwrap();
    write(bench.folder.path(), "verify.policy", policy.replace("log policy", "log policy\nagree 3"));
    refused(bench.install(&file), "2 operators agree, 3 are asked for here");
    fs::remove_file(bench.path("verify.policy")).unwrap();
    refused(bench.install(&file), "there is no policy file");
    bench.hook(&["--repository", "others-*"]);
    bench.install(&file).unwrap();
    bench.hook(&["--all"]);
    refused(bench.install(&file), "there is no policy file");
    write(bench.folder.path(), "etc/dnf/plugins/artel.conf", "[main]\n");
    refused_whole(bench.install(&file), "the hook's settings cannot be read");
    bench.hook(&[]);
    let root = bench.folder.path().display().to_string();
    verifier(&["dnf-hook", "uninstall", "--root", &root, "--plugins", "/plugins"]);
    bench.install(&file).unwrap();
}

/// A hook that cannot do its work lets nothing in.
fn refused_whole(result: Result<String, String>, why: &str) {
    let words = result.expect_err("it was installed");
    assert!(words.contains(why), "{words}");
}

#[test]
fn what_lies_beside_a_package_is_fetched_as_dnf_fetches_it() {
    let Some(bench) = Bench::new() else { return };
    let server = Server::of(bench.folder.path());
    bench.hook(&[]);
    bench.install(&server.address).unwrap();
    fs::remove_file(bench.path(&format!("repository/{NAME}.tlog-proof"))).unwrap();
    refused(bench.install(&server.address), "there is no proof that the verdict was logged");
    fs::remove_file(bench.path(&format!("repository/{NAME}.intoto.jsonl"))).unwrap();
    refused(bench.install(&server.address), "has no evidence beside it");
}

/// The folder that the hook finds by itself is the one in which dnf looks by itself.
#[test]
fn dnf_loads_the_plugin_from_where_it_is_put_by_default() {
    let Some(bench) = Bench::new() else { return };
    let base = format!("file://{}", bench.folder.path().display());
    let policy = bench.path("verify.policy").display().to_string();
    let hook = ["--policy", &policy];
    let words = bench.install_by_default(&base, &hook).unwrap();
    assert!(words.contains("dnf-plugins/artel.py"), "{words}");
    fs::remove_file(bench.path(&format!("repository/{NAME}.intoto.jsonl"))).unwrap();
    refused(bench.install_by_default(&base, &hook), "has no evidence beside it");
    bench.install_by_default(&base, &[]).unwrap();
}

/// Who names a file has chosen it; with `--all` a proof is asked for all the same.
#[test]
fn a_file_that_somebody_names_is_his_own_choice() {
    let Some(bench) = Bench::new() else { return };
    fs::remove_file(bench.path(&format!("repository/{NAME}.intoto.jsonl"))).unwrap();
    fs::create_dir_all(bench.path("loose")).unwrap();
    fs::write(bench.path(&format!("loose/{NAME}")), RPM).unwrap();
    let named = bench.path(&format!("loose/{NAME}")).display().to_string();
    let base = format!("file://{}", bench.folder.path().display());
    bench.hook(&[]);
    refused(bench.install(&base), "has no evidence beside it");
    bench.install_what(&base, &named).unwrap();
    bench.hook(&["--all"]);
    refused(bench.install_what(&base, &named), "has no evidence beside it");
}

#[test]
fn a_newer_checkpoint_is_fetched_where_the_package_comes_from() {
    let Some(bench) = Bench::new() else { return };
    let server = Server::of(bench.folder.path());
    let policy = fs::read_to_string(bench.path("verify.policy")).unwrap();
    let ago = |hours: u64| Timestamp::from_millis((verifier::now().as_secs() - hours * 3600) * 1000);
    let old = bench.sample.proof_of(&bench.sample.verdict, BEFORE, bench.sample.checkpoint(&[0, 1], ago(2)));
    write(bench.folder.path(), &format!("repository/{NAME}.tlog-proof"), old);
    bench.hook(&[]);
    bench.install(&server.address).unwrap();
    write(bench.folder.path(), "verify.policy", policy.replace("log policy", "log policy\nmax-age 1h"));
    refused(bench.install(&server.address), "none is to be had where it comes from");
    write(bench.folder.path(), "repository/log/checkpoint", bench.sample.checkpoint(&[0, 1], ago(0)).to_string());
    bench.install(&server.address).unwrap();
    write(bench.folder.path(), "repository/log/checkpoint", bench.sample.checkpoint(&[0, 1], ago(2)).to_string());
    refused(bench.install(&server.address), "at most 3600 s are allowed");
}

/// A package that was proven for a weak channel does not come in through the repository of a strong one.
#[test]
fn a_package_must_be_proven_for_the_channel_of_its_repository() {
    let channels = vec![samples::channel(1, 1), Channel { name: "strong".parse().unwrap(), ..samples::channel(2, 2) }];
    let mut policy = Policy { channels, ..Sample::policy(0) };
    policy.maintainers[0].channels.push("strong".parse().unwrap());
    let Some(bench) = Bench::of(|| sample(&policy, 1)) else { return };
    let root = bench.folder.path().display();
    let base = format!("file://{root}");
    bench.hook(&[]);
    refused(bench.install(&base), "nobody says for which channel packages from file://");
    bench.hook(&["--channel", "artel=stable"]);
    bench.install(&base).unwrap();
    bench.hook(&["--channel", "artel=strong", "--channel", "stable"]);
    refused(bench.install(&base), "it is a package of channel stable");
    // The address comes before what is named for all others.
    bench.hook(&["--channel", "strong", "--channel", "stable"]);
    for (channel, good) in [("strong", false), ("stable", true)] {
        let at = bench.path(&format!("{channel}/repo/{channel}"));
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::rename(bench.path("repository"), &at).unwrap();
        let result = bench.install_from(&format!("file://{}", at.display()), PACKAGE);
        if good {
            drop(result.unwrap())
        } else {
            refused(result, "only those of strong are accepted")
        }
        fs::rename(&at, bench.path("repository")).unwrap();
    }
}
