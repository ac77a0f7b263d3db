//! repro-threshold and debian-repro-status as judges. `make judges` installs them and says where in `ARTEL_JUDGES`.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{ground, json, published};
use harness::{Network, Plan};
use tokio::io::AsyncBufReadExt as _;
use web::Backend;

/// Gives a judge's program; without it the test says that it is skipped.
fn judge(name: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("ARTEL_JUDGES") else {
        println!("SKIPPED: {name} is installed by `make judges`");
        return None;
    };
    let program = Path::new(&folder).join(name);
    assert!(program.is_file(), "{} is no program", program.display());
    Some(program)
}

/// A scratch root with apt, whose packages repro-threshold brings.
struct Client {
    folder: PathBuf,
}

impl Client {
    /// Makes a root whose one source is a channel at `mirror`, by its OpenPGP key.
    fn make(network: &Network, name: &str, judge: &Path, mirror: &str) -> Self {
        let folder = network.folder().join(name);
        let root = folder.join("root");
        for part in ["state/lists/partial", "cache/archives/partial", "etc", "log", "methods"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        for part in ["info", "updates", "triggers"] {
            fs::create_dir_all(root.join("var/lib/dpkg").join(part)).unwrap();
        }
        fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
        for method in fs::read_dir("/usr/lib/apt/methods").unwrap() {
            let method = method.unwrap();
            symlink(method.path(), folder.join("methods").join(method.file_name())).unwrap();
        }
        symlink(judge, folder.join("methods/reproduced+http")).unwrap();
        let key = network.repository_root("mirror").join("archive-key.gpg");
        fs::copy(key, folder.join("key.gpg")).unwrap();
        let (at, suite) = (folder.display(), &network.charter.channels[0].suite);
        let source = format!("deb [signed-by={at}/key.gpg] reproduced+http://{mirror}/repo/main {suite} main\n");
        fs::write(folder.join("etc/sources.list"), source).unwrap();
        let config = format!(
            "Dir::State \"{at}/state\";\nDir::State::status \"{at}/root/var/lib/dpkg/status\";\nDir::Cache \"{at}/cache\";\n\
             Dir::Etc \"{at}/etc\";\nDir::Etc::parts \"{at}/none\";\nDir::Etc::trustedparts \"{at}/none\";\n\
             Dir::Log \"{at}/log\";\nDir::Bin::Methods \"{at}/methods\";\nAPT::Architecture \"amd64\";\n\
             APT::Architectures {{ \"amd64\"; }};\nAPT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n\
             Acquire::Retries \"0\";\nAPT::Update::Error-Mode \"any\";\nDPkg::Options {{ \"--root={at}/root\"; }};\n\
             DPkg::Path \"/usr/sbin:/usr/bin:/sbin:/bin\";\n"
        );
        fs::write(folder.join("apt.conf"), config).unwrap();
        Self { folder }
    }

    /// Has the judge ask for signatures of so many, of operators with these addresses and keys.
    fn trust(&self, threshold: usize, rebuilders: &[(String, String)]) {
        let mut text = format!("[rules]\nrequired_threshold = {threshold}\n");
        for (url, key) in rebuilders {
            text += &format!(
                "[[trusted_rebuilder]]\nname = \"{url}\"\nurl = \"{url}\"\ndistributions = [\"debian\"]\n\
                 signing_keyring = \"\"\"\n{key}\"\"\"\n"
            );
        }
        fs::write(self.folder.join("repro-threshold.conf"), text).unwrap();
    }

    /// Runs apt-get as root of a namespace of its own.
    fn apt(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new("timeout");
        command.args(["60", "unshare", "--map-root-user", "apt-get", "-y"]).args(arguments);
        command
            .env("APT_CONFIG", self.folder.join("apt.conf"))
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command.env("REPRO_THRESHOLD_CONFIG", self.folder.join("repro-threshold.conf"));
        let out = command.output().unwrap();
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        (out.status.success(), said)
    }

    fn installed(&self) -> bool {
        let status = fs::read_to_string(self.folder.join("root/var/lib/dpkg/status")).unwrap();
        status.contains("Package: artel-tiny-doc\nStatus: install ok installed")
            && self.folder.join("root/usr/share/doc/artel-tiny-doc/copyright").is_file()
    }
}

/// Where the operators' nodes serve, with their keys: one host name each.
fn rebuilders(network: &Network, count: u8) -> Vec<(String, String)> {
    let keys = network.public_address("mirror");
    let one = |n: u8| {
        let key = json(&keys, &format!("/rebuilder/o{n}/api/v1/meta/public-keys"));
        let url = format!("http://{}", network.public_address(&format!("b{n}")));
        (url, key["current"][0].as_str().unwrap().to_owned())
    };
    (1..=count).map(one).collect()
}

#[tokio::test]
async fn repro_threshold_installs_what_enough_operators_reproduced() {
    let (Some(judge), Some(ground)) = (judge("repro-threshold"), ground().await) else { return };
    let (network, _) = published(&ground, 4).await;
    let mirror = network.public_address("mirror").replace("127.0.0.1", "localhost");
    let operators = rebuilders(&network, 4);
    let install = ["install", "--no-install-recommends", "artel-tiny-doc"];
    for (threshold, expect) in [(2, true), (3, true), (4, false)] {
        let client = Client::make(&network, &format!("client-{threshold}"), &judge, &mirror);
        client.trust(threshold, &operators);
        let (ok, said) = client.apt(&["update"]);
        assert!(ok, "{said}");
        let (ok, said) = client.apt(&install);
        assert_eq!((ok, client.installed()), (expect, expect), "threshold {threshold}: {said}");
        assert!(expect || said.contains("only 3/4 required signatures"), "{said}");
    }
    // One node answers for all, at one address below which each operator has its own; one host name is still one vote.
    let gateway = |host: &str, n: usize| format!("http://{}/rebuilder/o{n}", mirror.replace("localhost", host));
    let through = |hosts: [&str; 3]| -> Vec<_> {
        (1..=3).map(|n| (gateway(hosts[n - 1], n), operators[n - 1].1.clone())).collect()
    };
    for (name, rebuilders, expect) in [
        ("one-host", through(["localhost"; 3]), false),
        ("two-hosts", through(["localhost", "127.0.0.1", "127.0.0.1"]), true),
    ] {
        let client = Client::make(&network, name, &judge, &mirror);
        client.trust(2, &rebuilders);
        assert!(client.apt(&["update"]).0);
        let (ok, said) = client.apt(&install);
        assert_eq!((ok, client.installed()), (expect, expect), "{name}: {said}");
    }
    // A key that signed nothing counts for nothing.
    let client = Client::make(&network, "strangers", &judge, &mirror);
    client.trust(1, &operators[3..]);
    assert!(client.apt(&["update"]).0);
    let (ok, said) = client.apt(&install);
    assert!(!ok && !client.installed() && said.contains("only 0/1 required signatures"), "{said}");
}

#[tokio::test]
async fn repro_threshold_refuses_a_changed_package() {
    let (Some(judge), Some(ground)) = (judge("repro-threshold"), ground().await) else { return };
    let (network, _) = published(&ground, 3).await;
    let operators = rebuilders(&network, 3);
    let pool = network.repository_root("mirror").join("pool/main/a/artel-tiny");
    let (good, bad) = (pool.join("artel-tiny-doc_1.0_all.deb"), network.folder().join("artel-tiny-doc_1.0_all.deb"));
    let mut bytes = fs::read(&good).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&bad, bytes).unwrap();
    let keys: Vec<PathBuf> = (1..=3).map(|n| network.folder().join(format!("o{n}.pub"))).collect();
    for (file, (_, key)) in keys.iter().zip(&operators) {
        fs::write(file, key).unwrap();
    }
    // The judge alone, which reads no index of apt that would catch the change before.
    let verify = |file: &Path, threshold: &str| {
        let mut command = Command::new(&judge);
        command.args(["plumbing", "verify", "-t", threshold]);
        command.args(operators.iter().flat_map(|(url, _)| ["-R", url]));
        command.args(keys.iter().flat_map(|key| ["-S", key.to_str().unwrap()]));
        let out = command.arg(file).output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    assert!(verify(&good, "3").0, "{}", verify(&good, "3").1);
    let (ok, said) = verify(&bad, "1");
    assert!(!ok && said.contains("only 0/1 required signatures"), "{said}");
    assert!(!verify(&good, "4").0);
}

/// A repository of somebody who signs what he likes: apt finds nothing wrong with it, whatever is in its package.
struct Forged {
    folder: PathBuf,
    address: String,
    _served: tokio::process::Child,
}

impl Forged {
    /// Serves a package, its index made to fit.
    async fn serve(network: &Network, name: &str, package: &[u8]) -> Self {
        let folder = network.folder().join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("artel-tiny-doc_1.0_all.deb"), package).unwrap();
        for (file, arguments) in [("Packages", ["packages", "."]), ("Release", ["release", "."])] {
            let out = Command::new("apt-ftparchive").args(arguments).current_dir(&folder).output().unwrap();
            assert!(out.status.success(), "{out:?}");
            fs::write(folder.join(file), out.stdout).unwrap();
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/it/recipe/serve.py");
        let mut command = tokio::process::Command::new("python3");
        command.arg(script).arg(&folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut served = command.kill_on_drop(true).spawn().unwrap();
        let mut line = String::new();
        tokio::io::BufReader::new(served.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
        let port: u16 = line.trim().parse().unwrap();
        Self { folder, address: format!("localhost:{port}"), _served: served }
    }

    /// Makes an apt that trusts the repository without a signature, and asks for two operators' signatures.
    fn client(&self, network: &Network, name: &str, (judge, operators): (&Path, &[(String, String)])) -> Client {
        let client = Client::make(network, name, judge, &self.address);
        let source = format!("deb [trusted=yes] reproduced+http://{}/ ./\n", self.address);
        fs::write(client.folder.join("etc/sources.list"), source).unwrap();
        client.trust(2, operators);
        let (ok, said) = client.apt(&["update"]);
        assert!(ok, "{}: {said}", self.folder.display());
        client
    }
}

#[tokio::test]
async fn apt_refuses_a_changed_package_though_its_repository_vouches_for_it() {
    let (Some(judge), Some(ground)) = (judge("repro-threshold"), ground().await) else { return };
    let (network, _) = published(&ground, 3).await;
    let operators = rebuilders(&network, 3);
    let good = network.repository_root("mirror").join("pool/main/a/artel-tiny/artel-tiny-doc_1.0_all.deb");
    let good = fs::read(good).unwrap();
    let mut bad = good.clone();
    // The time of the archive's first member: dpkg does not look at it.
    bad[24] = if bad[24] == b'1' { b'2' } else { b'1' };
    for (name, package, expect) in [("as-it-was-built", &good, true), ("changed", &bad, false)] {
        let forged = Forged::serve(&network, name, package).await;
        let client = forged.client(&network, &format!("client-{name}"), (&judge, &operators));
        let (ok, said) = client.apt(&["install", "--no-install-recommends", "artel-tiny-doc"]);
        assert_eq!((ok, client.installed()), (expect, expect), "{name}: {said}");
        assert!(expect || said.contains("only 0/2 required signatures"), "{name}: {said}");
    }
}

#[tokio::test]
async fn debian_repro_status_tells_good_from_bad_and_unknown() {
    let (Some(judge), Some(ground)) = (judge("debian-repro-status"), ground().await) else { return };
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start().await;
    let within = super::WITHIN;
    for dsc in ["artel-tiny_1.0.dsc", "artel-dated_1.0.dsc"] {
        let job = network.submit(&ground.deb(dsc)).await;
        assert!(network.over(job, within).await.summary.state.is_over());
    }
    network.node("b2").stop().await;
    let waits = network.submit(&ground.tiny_version("9.0", network.folder())).await;
    assert!(!network.coordinator().job(waits).await.unwrap().summary.state.is_over());
    let installed = network.folder().join("dpkg-query");
    let packages = ["artel-tiny amd64 1.0", "artel-tiny-doc all 1.0", "artel-dated amd64 1.0", "artel-tiny amd64 9.0"];
    fs::write(&installed, packages.map(|package| format!("installed {package}\n")).concat()).unwrap();
    let out = Command::new(&judge)
        .args(["--rebuilderd", &format!("http://{}", network.public_address("coordinator"))])
        .arg("--dpkg-query-output")
        .arg(&installed)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    println!("{said}");
    assert!(out.status.success(), "{said}");
    let words = ["[+] artel-tiny amd64 1.0 GOOD", "[+] artel-tiny-doc all 1.0 GOOD", "[-] artel-dated amd64 1.0 BAD"];
    for line in words.iter().chain(&["[?] artel-tiny amd64 9.0 UNKWN", "has 50.00% been reproduced"]) {
        assert!(said.contains(line), "{line}: {said}");
    }
}
