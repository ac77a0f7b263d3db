//! Images by two operators: a small root file system with a package that the network has just published, as tar, squashfs and
//! ext4; and a live system that starts.
//!
//! The live system takes minutes: `make boot` sets `ARTEL_BOOT`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use artel::keys;
use harness::{Ground, Network, Plan};
use protocol::{JobId, Sha256};
use web::{
    Backend,
    api::{FileView, JobDetail, JobState, VerdictWord},
    backend::ByteRange,
};

use crate::ground;

const PACKAGE_WITHIN: Duration = Duration::from_secs(120);
const IMAGE_WITHIN: Duration = Duration::from_secs(420);
const BOOT_WITHIN: Duration = Duration::from_secs(1800);
/// The first locking of an image's packages fetches them.
const SUBMIT_WITHIN: &str = "400";
/// The rights of an installation and nothing more: `chown`, `dac_override`, `fowner`, `fsetid`, `kill`, `setgid`, `setuid`,
/// `sys_chroot` and `setfcap`.
const RIGHTS: &str = "00000000800400fb";

/// Has the coordinator's owner submit jobs by the command line, as the network's maintainer.
fn prepare(ground: &Ground, network: &mut Network) -> PathBuf {
    let home = network.node("coordinator").home.clone();
    fs::create_dir_all(home.path().join("keys")).unwrap();
    keys::save(&home.key("maintainer"), &network.maintainer).unwrap();
    std::os::unix::fs::symlink(ground.cache.join("archive"), home.archive()).unwrap();
    home.path().to_owned()
}

/// Submits what lies at a path.
async fn queue(ground: &Ground, home: &Path, what: &Path) -> JobId {
    let mut command = tokio::process::Command::new("timeout");
    command.arg(SUBMIT_WITHIN).arg(&ground.artel).args(["--json", "job", "queue"]).arg(what);
    command.args(["--memory", "2048", "--wall", "1700", "--public", "https://artel.example"]);
    let output = command.env("ARTEL_HOME", home).kill_on_drop(true).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let submitted: web::api::Submitted = serde_json::from_slice(&output.stdout).unwrap();
    submitted.job
}

/// Waits for a job that two operators reproduce under two profiles, and gives what they made.
async fn reproduced(network: &Network, job: JobId, within: Duration) -> (JobDetail, Vec<FileView>) {
    let detail = network.over(job, within).await;
    assert_eq!(detail.summary.state, JobState::Reproduced, "{detail:#?}");
    let verdict = detail.verdict.as_ref().unwrap();
    assert_eq!((verdict.word, verdict.agree.len(), verdict.dissent.len()), (VerdictWord::Reproduced, 2, 0));
    let mut profiles: Vec<u16> = detail.attempts.iter().map(|a| a.profile).collect();
    profiles.sort_unstable();
    profiles.dedup();
    assert_eq!(profiles.len(), 2, "the two that agree span two profiles");
    for attempt in &detail.attempts {
        println!(
            "figure: {} took {:?} s",
            detail.summary.title,
            attempt
                .ended
                .as_ref()
                .zip(attempt.started.as_ref())
                .map(|(ended, started)| ended.timestamp().since(started.timestamp()).as_secs())
        );
    }
    let outputs = detail.attempts[0].outputs.clone();
    (detail, outputs)
}

/// Brings an output from the builder that made it.
async fn bring(network: &Network, output: &FileView, folder: &Path) -> PathBuf {
    let content = network.client("b1").blob(output.hash.unwrap(), ByteRange::All).await.unwrap();
    let bytes = content.collect(1 << 30).await.unwrap();
    assert_eq!(Sha256::of(&bytes), output.sha256);
    let path = folder.join(&output.name);
    fs::write(&path, bytes).unwrap();
    path
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A recipe that takes a package from the network's own repository, and whose commands fail where they have more rights than
/// an installation needs.
fn recipe(folder: &Path) -> PathBuf {
    let commands = [
        "printf '%s\\n' 'made for @HOSTNAME@' > /etc/motd".to_owned(),
        format!("grep -qx 'CapEff:\t{RIGHTS}' /proc/self/status && grep -qx 'CapBnd:\t{RIGHTS}' /proc/self/status"),
        "grep -qx 'NoNewPrivs:\t1' /proc/self/status".to_owned(),
        "! mount -t tmpfs none /mnt".to_owned(),
        "! mknod /mnt/disk b 8 0".to_owned(),
        "! unshare --user true && ! unshare --mount true".to_owned(),
        "grep -qx 'CapPrm:\t0000000000000000' /proc/1/status".to_owned(),
        "test \"$(cat /proc/net/dev | wc -l)\" = 3".to_owned(),
        "chown 7:7 /etc/artel-release && chmod 4711 /etc/artel-release".to_owned(),
    ];
    let quoted: Vec<String> = commands.iter().map(|c| format!("'''{c}'''")).collect();
    let text = format!(
        "name = \"small\"\nsubproject = \"root\"\nversion = \"@DATE@.1\"\nformats = [\"tar\", \"squashfs\", \"ext4\"]\n\
         base = \"required\"\npackages = [\"artel-tiny\"]\nhostname = \"@NAME@-host\"\nsetup = [{}]\n\
         repositories = [{{ channel = \"main\" }}]\n[files]\n\
         \"etc/artel-release\" = {{ text = \"@NAME@ @SUBPROJECT@ @CHANNEL@ @REPOSITORY@\\n\" }}\n",
        quoted.join(", ")
    );
    let path = folder.join("small.toml");
    fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn an_image_with_the_networks_own_package_is_the_same_from_two_operators() {
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start().await;
    let home = prepare(&ground, &mut network);
    let package = network.submit(&ground.deb("artel-tiny_1.0.dsc")).await;
    let detail = network.over(package, PACKAGE_WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    let job = queue(&ground, &home, &recipe(network.folder())).await;
    let (detail, outputs) = reproduced(&network, job, IMAGE_WITHIN).await;
    assert!(detail.summary.kind == "image" && detail.summary.title.starts_with("image small-root-2"), "{detail:#?}");
    let [ext4, squashfs, tar] = &outputs[..] else { panic!("{outputs:#?}") };
    let folder = network.folder().join("images");
    fs::create_dir(&folder).unwrap();

    let tar = bring(&network, tar, &folder).await;
    let read = |path: &str| said("tar", &["-xOf", tar.to_str().unwrap(), path]);
    assert_eq!(read("./etc/motd"), "made for small-host\n");
    assert_eq!(read("./etc/hostname"), "small-host\n");
    assert_eq!(read("./etc/artel-release"), "small root main https://artel.example/repo/main/\n");
    assert!(read("./etc/apt/sources.list.d/artel-0.sources").contains("URIs: https://artel.example/repo/main/\n"));
    assert!(read("./var/lib/dpkg/status").contains("Package: artel-tiny\nStatus: install ok installed\n"));
    let listed = said("tar", &["--numeric-owner", "-tvf", tar.to_str().unwrap()]);
    let line = listed.lines().find(|line| line.ends_with(" ./etc/artel-release")).unwrap();
    assert!(line.starts_with("-rws--x--x 7/7 "), "{line}");
    assert!(!listed.contains("artel-date") && !listed.contains(" ./proc/"), "what served the installation is gone");

    let squashfs = fs::read(bring(&network, squashfs, &folder).await).unwrap();
    assert_eq!(squashfs[..4], *b"hsqs");
    let ext4 = bring(&network, ext4, &folder).await;
    let ext4 = ext4.to_str().unwrap();
    said("e2fsck", &["-fn", ext4]);
    assert_eq!(said("debugfs", &["-R", "cat /etc/motd", ext4]), "made for small-host\n");
}

#[tokio::test]
async fn a_live_system_of_two_operators_starts() {
    if std::env::var_os("ARTEL_BOOT").is_none() {
        println!("SKIPPED: it takes minutes; `make boot` runs it");
        return;
    }
    let Some(ground) = ground().await else { return };
    let mut network = Network::found(&ground, &Plan::builders(2));
    network.start().await;
    let home = prepare(&ground, &mut network);
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/image/live.toml");
    let job = queue(&ground, &home, &recipe).await;
    let (_, outputs) = reproduced(&network, job, BOOT_WITHIN).await;
    let [iso] = &outputs[..] else { panic!("{outputs:#?}") };
    let iso = bring(&network, iso, network.folder()).await;
    println!("figure: {} has {} bytes", iso.display(), fs::metadata(&iso).unwrap().len());

    let job = queue(&ground, &home, &iso).await;
    let (_, outputs) = reproduced(&network, job, BOOT_WITHIN).await;
    let statement = fs::read_to_string(bring(&network, &outputs[0], network.folder()).await).unwrap();
    println!("figure: two operators attest {statement}");
    let statement: serde_json::Value = serde_json::from_str(&statement).unwrap();
    assert_eq!(statement["booted"], true);
    assert_eq!(statement["sha256"], Sha256::of(&fs::read(&iso).unwrap()).to_string());
    assert_eq!(statement["prompt"], "artel-live login:");
    assert!(statement["kernel"].as_str().unwrap().starts_with("Linux version 6."), "{statement}");
}
