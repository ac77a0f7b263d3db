//! Environments of RPMs: locked by dnf from a repository given by address and key, installed by two builders each for itself,
//! and built in; repositories that are wrong, and are refused in words that say why.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use harness::{BuilderPlan, Network, Plan, Scratch, run, until};
use protocol::environment::{EnvironmentLock, Family};
use web::{
    Backend,
    api::{JobDetail, JobState, VerdictWord},
    backend::ByteRange,
};

use super::Owner;
use crate::ground;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/it/environments/distribution.sh");
/// What makes and reads repositories of RPMs.
const PROGRAMS: [&str; 5] = ["dnf", "rpmbuild", "rpmsign", "createrepo_c", "gpg"];
const PACKAGES: &str = "rpm-build";
const COMMAND: &str = r#"
name = "answer"
argv = ["sh", "-c", "cat /etc/shell-installed > answer; rpm --dbpath /var/lib/rpm -qa --qf '%{NAME} %{INSTALLTID}\\n' | sort >> answer"]
outputs = ["answer"]
"#;
const SPEC: &str = "Name: artel-greeting\nVersion: 1.0\nRelease: 1%{?dist}\nSummary: A greeting\nLicense: Apache-2.0\n\
    Source0: greeting.txt\nBuildRequires: shell\nBuildArch: noarch\n%description\nA greeting.\n%install\n\
    mkdir -p %{buildroot}/usr/share\ncp %{SOURCE0} %{buildroot}/usr/share/greeting\n\
    %files\n/usr/share/greeting\n%changelog\n* Fri Jul 10 2026 A <a@example.invalid> - 1.0-1\n- First.\n";

/// Makes the small distribution below a folder, or says why this machine cannot.
fn distribution(folder: &Path) -> Option<PathBuf> {
    let here = |program: &&str| ["/usr/bin", "/usr/local/bin"].iter().any(|at| Path::new(at).join(program).exists());
    if let Some(missing) = PROGRAMS.iter().find(|program| !here(program)) {
        assert!(std::env::var("ARTEL_TESTS").as_deref() != Ok("required"), "{missing} is not installed");
        println!("SKIPPED: {missing} is not installed");
        return None;
    }
    let made = folder.join("distribution");
    let output = Command::new("bash").arg(SCRIPT).arg(&made).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    Some(made)
}

fn url(folder: &Path) -> String {
    format!("file://{}/", folder.display())
}

#[tokio::test]
async fn what_is_wrong_with_a_repository_is_said() {
    let folder = Scratch::make();
    let Some(made) = distribution(folder.path()) else { return };
    let (key, other) = (made.join("key.asc"), made.join("other.asc"));
    fs::write(folder.path().join("no.asc"), "no key").unwrap();
    let at = |name: &str| url(&made.join(name));
    let cases = [
        (at("unsigned"), &key, "shell", "is not signed: it has no repodata/repomd.xml.asc"),
        (at("changed"), &key, "shell", "does not verify with the key"),
        (at("good"), &other, "shell", "does not verify with the key"),
        (at("package-unsigned"), &key, "shell", "shell-1-1.noarch.rpm is not signed"),
        (at("package-foreign"), &key, "shell", "a package of file:"),
        (at("good"), &key, "shell,no-such-thing", "has no package no-such-thing"),
        (at("nowhere"), &key, "shell", "no repository was reached at"),
        ("http://127.0.0.1:9/".to_owned(), &key, "shell", "no repository was reached at http://127.0.0.1:9/"),
        ("ftp://127.0.0.1/".to_owned(), &key, "shell", "begins with http://"),
        (at("good"), &folder.path().join("no.asc"), "shell", "is no armored public key"),
    ];
    let artel = Path::new(crate::SITE.artel);
    let lock = folder.path().join("environment.lock");
    for (url, key, packages, words) in cases {
        let arguments = ["env", "lock", "--dnf", &url, "--key", key.to_str().unwrap(), "--packages", packages];
        let out = ["--out", lock.to_str().unwrap()];
        let said = run(artel, folder.path(), &[&arguments[..], &out[..]].concat()).await;
        println!("{}", said.talk.trim());
        assert!(said.code == 1 && said.talk.contains(words), "{words:?} is not in {said:?}");
        assert!(!lock.exists());
    }
    let said = run(artel, folder.path(), &["env", "lock", "--dnf", &at("good"), "--packages", "shell"]).await;
    assert!(said.code == 2 && said.talk.contains("--key"), "{said:?}");
}

#[tokio::test]
async fn jobs_are_built_in_an_environment_of_rpms() {
    let Some(ground) = ground().await else { return };
    let plan = Plan::builders(2);
    let builders: Vec<BuilderPlan> = plan.builders.into_iter().map(BuilderPlan::alone).collect();
    let names: Vec<String> = builders.iter().map(|builder| builder.name.clone()).collect();
    let mut network = Network::found(&ground, &Plan { builders, ..Plan::builders(0) });
    let Some(made) = distribution(network.folder()) else { return };
    network.start().await;
    let owner = Owner::of(&ground, &mut network);
    let (lock, key, good) = (network.folder().join("rpms.lock"), made.join("key.asc"), url(&made.join("good")));
    let (path, key) = (lock.to_str().unwrap(), key.to_str().unwrap());
    let words = ["env", "lock", "--dnf", &good, "--key", key, "--packages", PACKAGES, "--suite", "40", "--out", path];
    let said = owner.say(&words).await;
    assert_eq!(said.code, 0, "{said:?}");
    let first = fs::read(&lock).unwrap();
    assert_eq!(owner.say(&words).await.code, 0);
    assert_eq!(fs::read(&lock).unwrap(), first, "one repository gives one lock");
    let locked = EnvironmentLock::from_bytes(&first).unwrap();
    let packages: Vec<_> = locked.packages.iter().map(|package| package.file.as_str()).collect();
    let all = ["filesystem", "libfaketime", "rpm-build", "shell"].map(|name| format!("{name}-1-1.noarch.rpm"));
    assert_eq!((locked.family, packages), (Family::Rpm, all.iter().map(String::as_str).collect()));
    let shown = owner.say(&["env", "show", path]).await;
    assert!(shown.out.contains("RPMs, release 40 on amd64, 4 packages"), "{shown:?}");

    let made_by = async |words: &[&str]| {
        let said = owner.say(&[&["--json", "job", "run"], words, &["--environment", path]].concat()).await;
        assert_eq!(said.code, 0, "{said:?}");
        serde_json::from_str::<JobDetail>(&said.out).unwrap()
    };
    let file = |name: &str, text: &str| {
        let path = network.folder().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let answered = made_by(&[&file("answer.toml", COMMAND)]).await;
    assert_eq!(answered.verdict.as_ref().unwrap().word, VerdictWord::Reproduced, "{answered:#?}");
    let output = answered.attempts[0].outputs[0].hash.unwrap();
    // The coordinator tells the builders after the verdict that everybody may have what they made.
    let builder = network.client(&names[0]);
    let look = async || builder.blob(output, ByteRange::All).await.ok();
    let output =
        until("the output of the builder", Duration::from_secs(20), look).await.collect(1 << 20).await.unwrap();
    let installed = locked.packages.iter().map(|package| format!("{} {}\n", package.name, locked.epoch));
    let expected: String = std::iter::once("installed as 0\n".to_owned()).chain(installed).collect();
    assert_eq!(String::from_utf8(output.to_vec()).unwrap(), expected, "the database knows no time but the lock's");

    file("greeting.txt", "Good morning.\n");
    let greeted = made_by(&[&file("greeting.spec", SPEC), "--macro", "dist .t1"]).await;
    assert_eq!(greeted.summary.state, JobState::Published, "{greeted:#?}");
    let outputs: Vec<_> = greeted.attempts[0].outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(outputs, ["artel-greeting-1.0-1.t1.noarch.rpm", "artel-greeting-1.0-1.t1.src.rpm"]);

    let trees = names.iter().map(|name| {
        let folder = network.node(name).home.build().join(format!("environments/{}", locked.id()));
        let root = folder.join("root");
        let logs: Vec<_> = fs::read_dir(root.join("var/log")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(logs.is_empty() && !root.join("var/cache/dnf").exists(), "{logs:?}");
        fs::read_to_string(folder.join("complete.json")).unwrap()
    });
    let trees: Vec<_> = trees.collect();
    println!("figure: {}", trees[0]);
    assert_eq!(trees[0], trees[1], "two builders installed it, each for itself, to the same bits");

    let said = owner.say(&["env", "build", path]).await;
    assert!(said.code != 0 && said.talk.contains("images are made of Debian packages"), "{said:?}");
}
