//! The real apt as the judge.

use std::process::Command;

use super::*;

/// A private apt root with one source: the repository, by its key.
struct Client {
    dir: tempfile::TempDir,
}

impl Client {
    fn new(repository: &Repository) -> Option<Self> {
        if Command::new("apt-get").arg("--version").output().is_err() {
            eprintln!("skipped: apt-get is not installed");
            return None;
        }
        // apt fetches as its own user where it is root, which must be able to read what lies here.
        let dir = tempfile::Builder::new().prefix("artel-apt").tempdir().unwrap();
        for folder in ["state/lists/partial", "cache/archives/partial", "etc/sources.list.d", "log"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let root = dir.path().display();
        fs::write(dir.path().join("state/status"), "").unwrap();
        fs::copy(repository.root().join("archive-key.gpg"), dir.path().join("key.gpg")).unwrap();
        let public = repository.root();
        fs::write(
            dir.path().join("etc/sources.list"),
            format!("deb [signed-by={root}/key.gpg] file://{} main main\n", public.display()),
        )
        .unwrap();
        fs::write(
            dir.path().join("apt.conf"),
            format!(
                "Dir::State \"{root}/state\";\nDir::State::status \"{root}/state/status\";\nDir::Cache \"{root}/cache\";\n\
                 Dir::Etc \"{root}/etc\";\nDir::Log \"{root}/log\";\nDir::Etc::trustedparts \"{root}/none\";\n\
                 APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\nAPT::Sandbox::User \"root\";\n\
                 Acquire::Languages \"none\";\nDebug::NoLocking \"true\";\nAPT::Update::Error-Mode \"any\";\n"
            ),
        )
        .unwrap();
        Some(Self { dir })
    }

    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new("apt-get");
        command.env("APT_CONFIG", self.dir.path().join("apt.conf")).env("LC_ALL", "C").args(arguments);
        let out = command.output().unwrap();
        let said = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8_lossy(&said).into_owned())
    }
}

/// Signatures must be of now for a client that looks at its own clock; the test reads the time from a file it writes.
fn now() -> Timestamp {
    let file = tempfile::NamedTempFile::new().unwrap();
    let modified = fs::metadata(file.path()).unwrap().modified().unwrap();
    let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap())
}

#[test]
fn the_real_apt_installs_the_newest_version_and_refuses_what_was_changed() {
    let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut repository = repository(dir.path());
    let at = now();
    repository.publish(&[addition(debs.path(), ("tiny", "1", "amd64"), "a")], at, 1).unwrap();
    let newest = addition(debs.path(), ("tiny", "1:0.5", "amd64"), "a");
    repository.publish(std::slice::from_ref(&newest), at, 2).unwrap();
    let Some(client) = Client::new(&repository) else { return };
    let (ok, said) = client.run(&["update"]);
    assert!(ok, "{said}");
    let (ok, said) = client.run(&["-y", "install", "--download-only", "tiny"]);
    assert!(ok, "{said}");
    let (ok, said) = client.run(&["-y", "-q", "-q", "install", "--print-uris", "--reinstall", "tiny=1:0.5"]);
    assert!(ok && said.contains("tiny_0.5_amd64.deb"), "{said}");
    assert!(!client.run(&["-y", "install", "--download-only", "tiny=1"]).0, "the old version left the index");

    let in_release = repository.root().join("dists/main/InRelease");
    let good = fs::read_to_string(&in_release).unwrap();
    fs::write(&in_release, good.replace("Origin: artel test", "Origin: other test")).unwrap();
    let (ok, said) = Client::new(&repository).unwrap().run(&["update"]);
    assert!(!ok && (said.contains("BADSIG") || said.contains("invalid")), "{said}");

    fs::write(&in_release, &good).unwrap();
    let index = fs::read_dir(repository.root().join("dists/main/main/binary-amd64/by-hash/SHA256")).unwrap();
    for file in index {
        fs::write(file.unwrap().path(), "changed").unwrap();
    }
    for name in ["Packages", "Packages.gz", "Packages.xz"] {
        fs::write(repository.root().join("dists/main/main/binary-amd64").join(name), "changed").unwrap();
    }
    assert!(!Client::new(&repository).unwrap().run(&["update"]).0, "a changed index is refused");
}

#[test]
fn the_real_apt_refuses_an_expired_release_and_another_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut repository = repository(dir.path());
    let long_ago = Timestamp::from_millis(now().as_millis() - 30 * 24 * 3600 * 1000);
    repository.publish(&[], long_ago, 1).unwrap();
    let Some(client) = Client::new(&repository) else { return };
    let (ok, said) = client.run(&["update"]);
    assert!(!ok && said.contains("expired"), "{said}");
    repository.resign(now(), 2).unwrap();
    let (ok, said) = client.run(&["update"]);
    assert!(ok, "{said}");
    let other = crate::publish::sign::RepositoryKey::from_seed("other", Timestamp::ZERO, [8; 32]).unwrap();
    fs::write(client.dir.path().join("key.gpg"), other.public_binary().unwrap()).unwrap();
    fs::remove_dir_all(client.dir.path().join("state/lists")).unwrap();
    fs::create_dir_all(client.dir.path().join("state/lists/partial")).unwrap();
    let (ok, said) = client.run(&["update"]);
    assert!(!ok && said.contains("NO_PUBKEY"), "{said}");
}
