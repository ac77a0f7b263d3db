//! Images by two operators: a small root file system with a package that the network has just published, as tar, squashfs and
//! ext4; and a live system that starts.
//!
//! The live system takes minutes: `make boot` sets `ARTEL_BOOT`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use artel::keys;
use harness::{Ground, Network, Plan, run, until};
use protocol::{Arch, JobId, Sha256, lease::LeaseNumber};
use web::{
    Backend,
    api::{FileView, JobDetail, JobState, RequestView, Submitted, VerdictWord},
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

/// A network whose coordinator's owner submits jobs by the command line, as the network's maintainer.
struct Scene {
    ground: Ground,
    network: Network,
    home: PathBuf,
}

impl Scene {
    async fn begin(ground: Ground) -> Self {
        let mut network = Network::found(&ground, &Plan::builders(2));
        network.start().await;
        let home = network.node("coordinator").home.clone();
        fs::create_dir_all(home.path().join("keys")).unwrap();
        keys::save(&home.key("maintainer"), &network.maintainer).unwrap();
        std::os::unix::fs::symlink(ground.cache.join("archive"), home.archive()).unwrap();
        Self { ground, network, home: home.path().to_owned() }
    }

    /// Runs `artel job`, and gives the data that it prints.
    async fn job(&self, arguments: &[&str]) -> serde_json::Value {
        let mut command = tokio::process::Command::new("timeout");
        command.arg(SUBMIT_WITHIN).arg(&self.ground.artel).args(["--json", "job"]).args(arguments);
        command.args(["--public", "https://artel.example"]);
        let output = command.env("ARTEL_HOME", &self.home).kill_on_drop(true).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Submits what lies at a path, and gives its jobs.
    async fn queue(&self, what: &Path, more: &[&str]) -> Vec<JobId> {
        let limits = ["--memory", "2048", "--wall", "1700"];
        let said = self.job(&[&["queue", what.to_str().unwrap()], &limits[..], more].concat()).await;
        // One job says more of itself than one of a group.
        let one = serde_json::from_value::<Submitted>(said.clone()).map(|submitted| vec![submitted.job]);
        one.unwrap_or_else(|_| serde_json::from_value(said).unwrap())
    }

    /// Waits for a job that two operators reproduce under two profiles, and gives what they made.
    async fn reproduced(&self, job: JobId, within: Duration) -> (JobDetail, Vec<FileView>) {
        let detail = self.network.over(job, within).await;
        for attempt in &detail.attempts {
            let took = attempt.ended.as_ref().zip(attempt.started.as_ref());
            let took = took.map(|(ended, started)| ended.timestamp().since(started.timestamp()).as_secs());
            println!("figure: {}, profile {}: {took:?} s", detail.summary.title, attempt.profile);
            if attempt.failure.is_some() {
                self.show_log(job, attempt.number).await;
            }
        }
        assert_eq!(detail.summary.state, JobState::Reproduced, "{detail:#?}");
        let verdict = detail.verdict.as_ref().unwrap();
        assert_eq!((verdict.word, verdict.agree.len(), verdict.dissent.len()), (VerdictWord::Reproduced, 2, 0));
        let profiles: BTreeSet<u16> = detail.attempts.iter().map(|a| a.profile).collect();
        assert_eq!(profiles.len(), 2, "the two that agree span two profiles");
        let outputs = detail.attempts[0].outputs.clone();
        (detail, outputs)
    }

    async fn show_log(&self, job: JobId, attempt: LeaseNumber) {
        let words = ["job", "log", &job.to_string(), "--attempt", &attempt.to_string()];
        let said = run(&self.ground.artel, &self.home, &words).await;
        let lines: Vec<&str> = said.out.lines().collect();
        println!("the end of attempt {attempt}:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
    }

    /// Brings an output from the builder that made it.
    async fn bring(&self, output: &FileView) -> PathBuf {
        // The coordinator tells the builders after the verdict that everybody may have what they made.
        let client = self.network.client("b1");
        let look = async || client.blob(output.hash.unwrap(), ByteRange::All).await.ok();
        let content = until("the output of the builder", Duration::from_secs(20), look).await;
        let bytes = content.collect(1 << 30).await.unwrap();
        assert_eq!(Sha256::of(&bytes), output.sha256);
        let path = self.network.folder().join(&output.name);
        fs::write(&path, bytes).unwrap();
        path
    }
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
        "name = \"small\"\nversion = \"@DATE@.1\"\nformats = [\"tar\"]\n\
         base = \"required\"\npackages = [\"artel-tiny\"]\nhostname = \"@NAME@-host\"\nsetup = [{}]\n\
         repositories = [{{ channel = \"main\" }}]\n[files]\n\
         \"etc/artel-release\" = {{ text = \"@NAME@ @SUBPROJECT@ @CHANNEL@ @REPOSITORY@\\n\" }}\n\
         [variants.root]\nformats = [\"tar\", \"squashfs\", \"ext4\"]\n",
        quoted.join(", ")
    );
    let path = folder.join("small.toml");
    fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn an_image_with_the_networks_own_package_is_the_same_from_two_operators() {
    let Some(ground) = ground().await else { return };
    let scene = Scene::begin(ground).await;
    let package = scene.network.submit(&scene.ground.deb("artel-tiny_1.0.dsc")).await;
    let detail = scene.network.over(package, PACKAGE_WITHIN).await;
    assert_eq!(detail.summary.state, JobState::Published, "{detail:#?}");
    let job = scene.queue(&recipe(scene.network.folder()), &["--variant", "root"]).await[0];
    let (detail, outputs) = scene.reproduced(job, IMAGE_WITHIN).await;
    assert!(detail.summary.kind == "image" && detail.summary.title.starts_with("image small-root-2"), "{detail:#?}");
    let [ext4, squashfs, tar] = &outputs[..] else { panic!("{outputs:#?}") };

    let tar = scene.bring(tar).await;
    let read = |path: &str| said("tar", &["-xOf", tar.to_str().unwrap(), path]);
    assert_eq!(read("./etc/motd"), "made for small-host\n");
    assert_eq!(read("./etc/hostname"), "small-host\n");
    assert_eq!(read("./etc/artel-release"), "small root main https://artel.example/repo/main/\n");
    assert!(read("./etc/apt/sources.list.d/artel-0.sources").contains("URIs: https://artel.example/repo/main/\n"));
    assert!(read("./var/lib/dpkg/status").contains("Package: artel-tiny\nStatus: install ok installed\n"));
    let listed = said("tar", &["--numeric-owner", "-tvf", tar.to_str().unwrap()]);
    let line = listed.lines().find(|line| line.ends_with(" ./etc/artel-release")).unwrap();
    assert!(line.starts_with("-rws--x--x 7/7 "), "{line}");
    let served = |line: &&str| {
        line.contains("artel-date")
            || [" ./proc/", " ./dev/"].iter().any(|f| line.split(f).nth(1).is_some_and(|name| !name.is_empty()))
    };
    assert_eq!(listed.lines().find(served), None, "what served the installation is gone");

    let squashfs = fs::read(scene.bring(squashfs).await).unwrap();
    assert_eq!(squashfs[..4], *b"hsqs");
    let ext4 = scene.bring(ext4).await;
    let ext4 = ext4.to_str().unwrap();
    said("e2fsck", &["-fn", ext4]);
    assert_eq!(said("debugfs", &["-R", "cat /etc/motd", ext4]), "made for small-host\n");

    // The same once more: the variant of the same recipe, with the packages of the archive and of the network as they are now.
    let group = detail.summary.group.unwrap();
    assert_eq!(group.variant.to_string(), format!("{}-root", Arch::native().unwrap()));
    let again = scene.job(&["respin", &group.id.to_string(), "--queue"]).await;
    let [again]: [JobId; 1] = serde_json::from_value(again).unwrap();
    let new = scene.network.job(again).await;
    assert_eq!(new.summary.title, detail.summary.title);
    let (new, own) = (new.summary.group.unwrap(), new.request);
    assert!(new.variant == group.variant && new.id != group.id);
    let names =
        |request: &RequestView| -> BTreeSet<String> { request.inputs.iter().map(|input| input.name.clone()).collect() };
    assert_eq!(names(&own), names(&detail.request), "its files are those of the recipe");
}

#[tokio::test]
async fn a_live_system_of_two_operators_starts() {
    if std::env::var_os("ARTEL_BOOT").is_none() {
        println!("SKIPPED: it takes minutes; `make boot` runs it");
        return;
    }
    let Some(ground) = ground().await else { return };
    let scene = Scene::begin(ground).await;
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/image/live.toml");
    let job = scene.queue(&recipe, &[]).await[0];
    let (_, outputs) = scene.reproduced(job, BOOT_WITHIN).await;
    let [iso] = &outputs[..] else { panic!("{outputs:#?}") };
    println!("figure: {} has {} bytes, sha256 {}", iso.name, iso.size, iso.sha256);
    let iso = scene.bring(iso).await;

    let job = scene.queue(&iso, &[]).await[0];
    let (_, outputs) = scene.reproduced(job, BOOT_WITHIN).await;
    let statement = fs::read_to_string(scene.bring(&outputs[0]).await).unwrap();
    println!("figure: two operators attest {statement}");
    let statement: serde_json::Value = serde_json::from_str(&statement).unwrap();
    assert_eq!(statement["booted"], true);
    assert_eq!(statement["sha256"], Sha256::of(&fs::read(&iso).unwrap()).to_string());
    assert_eq!(statement["prompt"], "artel-live login:");
    assert!(statement["kernel"].as_str().unwrap().starts_with("Linux version 6."), "{statement}");
}
