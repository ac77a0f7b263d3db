//! `sbuild`, and the chroot tarball that `mmdebstrap` makes for it of the packages of a lock. Both run as who builds in the
//! workshop: its user when this program is root, which `sbuild` refuses to be; otherwise this program's own.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, lchown},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use artel::build::{Account, Workshop};
use protocol::Sha256;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use super::{Lines, Measured, Subject};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A build and nothing else: no lintian, no tests, and nothing that would ask the archive.
const SWITCHES: [&str; 13] = [
    "--chroot-mode=unshare",
    "--arch-any",
    "--arch-all",
    "--no-source",
    "--no-clean-source",
    "--no-run-lintian",
    "--no-run-autopkgtest",
    "--no-run-piuparts",
    "--no-apt-update",
    "--no-apt-upgrade",
    "--no-apt-distupgrade",
    "--nolog",
    "--verbose",
];
/// How many of `sbuild`'s last lines an error quotes.
const LINES: usize = 30;

/// What `sbuild` needs.
pub(super) struct Peer {
    account: Account,
    folder: PathBuf,
    suite: String,
    dsc: PathBuf,
    build_options: String,
}

impl Peer {
    /// Makes the chroot tarball of the very files that the workshop installs.
    pub(super) async fn prepare(workshop: &Workshop, folder: &Path, subject: &Subject) -> anyhow::Result<Self> {
        let lock = &subject.locked.lock;
        let peer = Self {
            account: workshop.rig().account().clone(),
            folder: folder.to_owned(),
            suite: lock.suite.to_string(),
            dsc: subject.source.dsc.clone(),
            build_options: subject.build_options(),
        };
        for name in ["", "home", "out", "repository", "index"] {
            peer.make_folder(&folder.join(name))?;
        }
        // The root of a range of users, which removes the chroots, is not who made the folder.
        peer.make_folder(&peer.temporary())?;
        fs::set_permissions(peer.temporary(), fs::Permissions::from_mode(0o1777))?;
        let template = peer.temporary().join("sbuild.XXXXXXXXXX");
        fs::write(peer.config(), format!("$unshare_tmpdir_template = '{}';\n$mailto = '';\n1;\n", template.display()))?;
        for file in &subject.locked.files {
            fs::copy(file, folder.join("repository").join(file.file_name().context("a package has a name")?))?;
        }
        let index = "(cd repository && apt-ftparchive packages .) > index/Packages\n\
            apt-ftparchive -o APT::FTPArchive::Release::Codename=\"$1\" release index > Release\n\
            mv index/Packages Release repository/";
        peer.run(peer.command("sh").args(["-ec", index, "sh", &peer.suite])).await?;
        let names: Vec<_> = lock.packages.iter().map(|p| format!("{}={}", p.name, p.version)).collect();
        let mut command = peer.command("mmdebstrap");
        command.args(["--mode=unshare", "--variant=buildd", "--dpkgopt=force-unsafe-io"]);
        command.arg(format!("--include={}", names.join(","))).arg(&peer.suite).arg(peer.chroot());
        command.arg(format!("deb [trusted=yes] copy://{}/repository ./", folder.display()));
        peer.run(&mut command).await?;
        Ok(peer)
    }

    /// Builds once; also gives the time that `sbuild` says it took for build dependencies.
    pub(super) async fn build(&self) -> anyhow::Result<(Measured, Duration)> {
        let begun = Instant::now();
        let mut command = self.command("sbuild");
        command
            .args(SWITCHES)
            .arg(format!("--dist={}", self.suite))
            .arg(format!("--chroot={}", self.chroot().display()));
        command.arg(&self.dsc).current_dir(self.folder.join("out")).env("SBUILD_CONFIG", self.config());
        command.env("DEB_BUILD_OPTIONS", &self.build_options);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn()?;
        let mut output = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let (mut lines, mut install, mut said, mut line) = (Lines::default(), None, Vec::new(), Vec::new());
        while output.read_until(b'\n', &mut line).await? > 0 {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            lines.hear(&text);
            if let Some(seconds) = text.strip_prefix("Install-Time: ") {
                install = Some(Duration::from_secs(seconds.parse()?));
            }
            said.push(text);
        }
        let status = child.wait().await?;
        let whole = begun.elapsed();
        if !status.success() {
            bail!("sbuild failed ({status}):\n{}", said[said.len().saturating_sub(LINES)..].join("\n"));
        }
        let install = install.context("sbuild's summary has no Install-Time")?;
        Ok((Measured { whole, alone: lines.between()?, packages: self.take_packages()? }, install))
    }

    /// Hashes the packages and removes everything that was built.
    fn take_packages(&self) -> anyhow::Result<Vec<Sha256>> {
        let mut packages = Vec::new();
        for entry in fs::read_dir(self.folder.join("out"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb" || extension == "udeb") {
                packages.push(Sha256::of(&fs::read(&path)?));
            }
            fs::remove_file(path)?;
        }
        packages.sort();
        Ok(packages)
    }

    fn chroot(&self) -> PathBuf {
        self.folder.join("chroot.tar")
    }

    fn config(&self) -> PathBuf {
        self.folder.join("sbuild.pl")
    }

    fn temporary(&self) -> PathBuf {
        self.folder.join("temporary")
    }

    fn make_folder(&self, path: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(path)?;
        if let Account::Dedicated { uid, gid } = self.account {
            lchown(path, Some(uid), Some(gid))?;
        }
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
    }

    /// Gives a command of the build user in this folder.
    fn command(&self, program: &str) -> Command {
        let mut command = match self.account {
            Account::Own => Command::new(program),
            Account::Dedicated { uid, gid } => {
                let mut command = Command::new("setpriv");
                command.args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", program]);
                command
            }
        };
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8").env("HOME", self.folder.join("home"));
        command.env("TMPDIR", self.temporary()).current_dir(&self.folder).kill_on_drop(true);
        command
    }

    async fn run(&self, command: &mut Command) -> anyhow::Result<()> {
        let output = command.output().await?;
        if !output.status.success() {
            bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}
