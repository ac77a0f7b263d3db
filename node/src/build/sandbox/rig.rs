//! What the machine offers for sandboxes: tools, the account that builds run under, a mapped range of users, cgroups.
//!
//! A daemon that runs as root never builds as root: it uses a system user with a range of subordinate users and groups.
//! A daemon of an ordinary user builds as that user, with the range that the machine gave it.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::{cgroup::Cgroups, seccomp};

/// Users and groups that a sandbox needs: enough for `nobody` (65534).
const RANGE: u64 = 65_536;
const TOOLS: [(&str, &str); 12] = [
    ("bash", "bash"),
    ("bwrap", "bubblewrap"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("taskset", "util-linux"),
    ("setarch", "util-linux"),
    ("domainname", "hostname"),
    ("mount", "mount"),
    ("newuidmap", "uidmap"),
    ("newgidmap", "uidmap"),
    ("mmdebstrap", "mmdebstrap"),
    ("apt-ftparchive", "apt-utils"),
];
/// A tree with more levels is removed by `rm`, which needs no open folder for each.
const LEVELS_MAX: usize = 64;
/// What the helpers of a sandbox see as their `PATH`.
pub(in crate::build) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Run before any right is given up: closes what the daemon inherited and did not open itself, which a build could read or
/// write, and enters the cgroups, so that every later process is born in them. Only `bash` closes descriptors above 9.
const ENTER: &str = r#"
for open in /proc/$$/fd/*; do
  number=${open##*/}
  [ "$number" -le 2 ] || eval "exec $number<&-"
done
while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 125; shift; done
shift
echo 500 > /proc/self/oom_score_adj
exec "$@"
"#;

/// How to find the rig.
#[derive(Debug, Clone)]
pub struct RigConfig {
    /// The system user that builds run under when the daemon is root.
    pub user: String,
}

impl Default for RigConfig {
    fn default() -> Self {
        Self { user: "artel-builder".into() }
    }
}

/// Why this machine cannot build, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    /// Programs are missing.
    #[error("missing {}: install with `apt-get install {}`", programs.join(", "), packages.join(" "))]
    Missing {
        /// The programs.
        programs: Vec<&'static str>,
        /// The Debian packages that hold them.
        packages: Vec<&'static str>,
    },
    /// The daemon is root and there is no user to build as.
    #[error(
        "running as root, and there is no user {user:?} to build as: run {hint}, or `artel node run`, which does that by itself"
    )]
    NoUser {
        /// The user.
        user: String,
        /// The commands.
        hint: String,
    },
    /// The account has no range of subordinate ids.
    #[error(
        "user {user:?} has no range of 65536 ids in {file}: run `usermod --add-subuids 200000-265535 --add-subgids 200000-265535 {user}` as root (with a range that is free)"
    )]
    NoRange {
        /// The user.
        user: String,
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
    },
    /// The kernel refuses user namespaces with a mapped range.
    #[error(
        "user namespaces do not work here: {said}; allow them (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces > 0, kernel.apparmor_restrict_unprivileged_userns=0)"
    )]
    NoNamespaces {
        /// What the tool said.
        said: String,
    },
    /// There is no list of the system calls that builds may make here.
    #[error("no list of system calls is known for {arch}: builds run on x86_64, aarch64 and riscv64")]
    NoFilter {
        /// The architecture, as Rust names it.
        arch: &'static str,
        /// Why.
        #[source]
        source: seccompiler::Error,
    },
    /// A file or program of the system did not answer.
    #[error("cannot use {what}")]
    System {
        /// The file or program.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program that prepares the user failed.
    #[error("`{command}` failed: {said}")]
    Prepare {
        /// The command.
        command: String,
        /// What it said.
        said: String,
    },
}

/// Who owns the outside of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// The daemon's own, ordinary user.
    Own,
    /// The system user of a daemon that runs as root.
    Dedicated {
        /// The user's number.
        uid: u32,
        /// The user's group.
        gid: u32,
    },
}

/// The tools and rights with which sandboxes are made.
#[derive(Debug)]
pub struct Rig {
    account: Account,
    cgroups: Cgroups,
    /// The system calls that builds may make, and those that look unsupported, as bubblewrap takes them.
    filters: [Vec<u8>; 2],
}

impl Rig {
    /// Looks for everything that a sandbox needs, and tries a user namespace once.
    ///
    /// # Errors
    /// [`RigError`], which says what to install or run.
    pub fn find(config: &RigConfig) -> Result<Self, RigError> {
        find_tools()?;
        let (account, user, uid) = find_account(config)?;
        for file in ["/etc/subuid", "/etc/subgid"] {
            let text = read(file)?;
            if !has_range(&text, &user, uid) {
                return Err(RigError::NoRange { user, file });
            }
        }
        let arch = std::env::consts::ARCH;
        let filters = seccomp::filters(arch).map_err(|source| RigError::NoFilter { arch, source })?;
        let rig = Self { account, cgroups: Cgroups::find(), filters };
        rig.try_namespace()?;
        Ok(rig)
    }

    /// Creates the system user that builds run under, and its range of ids; does nothing where both exist. Needs root.
    ///
    /// # Errors
    /// When `useradd` or `usermod` fails.
    pub fn prepare_user(config: &RigConfig) -> Result<(), RigError> {
        let user = config.user.as_str();
        if passwd_entry(&read("/etc/passwd")?, user).is_none() {
            let fixed = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"];
            prepare(Command::new("useradd").args(fixed).args(["--shell", "/usr/sbin/nologin", user]))?;
        }
        let (uids, gids) = (read("/etc/subuid").unwrap_or_default(), read("/etc/subgid").unwrap_or_default());
        let uid = passwd_entry(&read("/etc/passwd")?, user).map_or(u32::MAX, |(uid, _)| uid);
        let start = range_ends(&uids).chain(range_ends(&gids)).max().unwrap_or(0).max(200_000);
        let range = format!("{start}-{}", start + RANGE - 1);
        if !has_range(&uids, user, uid) {
            prepare(Command::new("usermod").args(["--add-subuids", &range, user]))?;
        }
        if !has_range(&gids, user, uid) {
            prepare(Command::new("usermod").args(["--add-subgids", &range, user]))?;
        }
        Ok(())
    }

    /// Says what is weaker here than it could be, one sentence each.
    pub fn weaknesses(&self) -> Vec<String> {
        self.cgroups.weaknesses()
    }

    /// Gives the account that owns the outside of a sandbox.
    pub fn account(&self) -> &Account {
        &self.account
    }

    pub(in crate::build) fn filters(&self) -> &[Vec<u8>; 2] {
        &self.filters
    }

    pub(in crate::build) fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// Makes a command that starts `script` with `sh`, without any descriptor but the first three, as the first process of new user, mount and pid namespaces, as
    /// their root, in the given cgroups. When that process ends, everything in the namespaces ends.
    pub(crate) fn command(&self, cgroups: &[PathBuf], more: &[&str], script: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("bash");
        command.args(["-c", ENTER, "artel-enter"]).args(cgroups).arg("--");
        if let Account::Dedicated { uid, gid } = self.account {
            command.args(["setpriv", &format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups"]);
        }
        command.args(["unshare", "--user", "--map-root-user", "--map-auto", "--mount", "--pid"]).args(more);
        // Numbers of processes are the namespace's: bubblewrap must find its own under /proc.
        command.arg("--mount-proc");
        command.args(["--fork", "--kill-child=KILL", "sh", "-c", script, "artel-sandbox"]);
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8").current_dir("/").kill_on_drop(true);
        command
    }

    /// Gives a folder to the account, so that the namespace's root owns it.
    pub(crate) fn give(&self, path: &Path) -> io::Result<()> {
        match self.account {
            Account::Own => Ok(()),
            Account::Dedicated { uid, gid } => std::os::unix::fs::lchown(path, Some(uid), Some(gid)),
        }
    }

    /// Makes a folder that the account owns and everybody may enter.
    pub(crate) fn make_folder(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
        self.give(path)
    }

    /// Checks that the account can reach a folder, which a private folder further up would prevent.
    pub(in crate::build) fn can_reach(&self, path: &Path) -> bool {
        let Account::Dedicated { uid, gid } = self.account else { return true };
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", "test", "-x"]);
        command.arg(path).env_clear().env("PATH", PATH).status().is_ok_and(|status| status.success())
    }

    /// Removes a tree whose files belong to mapped users, whatever it holds.
    pub(in crate::build) fn remove_tree(&self, path: &Path) -> io::Result<()> {
        // The library's way opens a folder on each level, and there may be more levels than a process may have open.
        let mut levels = walkdir::WalkDir::new(path).min_depth(LEVELS_MAX).max_depth(LEVELS_MAX).into_iter();
        let is_deep = levels.any(|entry| entry.is_ok());
        let plain = if is_deep { Err(io::Error::other("too many levels")) } else { std::fs::remove_dir_all(path) };
        match plain {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if is_deep || error.kind() == io::ErrorKind::PermissionDenied => {
                let output = self.mapped("rm").args(["-rf", "--"]).arg(path).output()?;
                if output.status.success() { Ok(()) } else { Err(error) }
            }
            done => done,
        }
    }

    /// Says in words how much disk a tree uses whose files belong to mapped users.
    pub(in crate::build) fn disk_used(&self, path: &Path) -> io::Result<String> {
        let count = |options: &[&str]| {
            let output = self.mapped("du").args(options).arg(path).output()?;
            let text = String::from_utf8_lossy(&output.stdout);
            Ok::<_, io::Error>(text.split_whitespace().next().unwrap_or("?").to_owned())
        };
        Ok(format!("{} KiB in {} files", count(&["-sk"])?, count(&["-s", "--inodes"])?))
    }

    /// Makes a command that may read and remove what mapped users own: as root without more, else as the range's root.
    fn mapped(&self, program: &str) -> Command {
        let mut command = match self.account {
            Account::Own => {
                let mut command = Command::new("unshare");
                command.args(["--user", "--map-root-user", "--map-auto", program]);
                command
            }
            Account::Dedicated { .. } => Command::new(program),
        };
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8");
        command
    }

    /// Gives a rig that changes no owner and starts nothing, for tests of what only copies files.
    #[cfg(test)]
    pub(in crate::build) fn of_own_user() -> Self {
        Self { account: Account::Own, cgroups: Cgroups::None, filters: [Vec::new(), Vec::new()] }
    }

    fn try_namespace(&self) -> Result<(), RigError> {
        let mut command = self.command(&[], &[], "exit 0").into_std();
        let output = command.output().map_err(|source| RigError::System { what: "unshare".into(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().chars().take(400).collect();
        Err(RigError::NoNamespaces { said })
    }
}

fn find_tools() -> Result<(), RigError> {
    let found = |name: &str| PATH.split(':').any(|folder| Path::new(folder).join(name).is_file());
    let missing: Vec<_> = TOOLS.iter().filter(|(program, _)| !found(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    Err(RigError::Missing { programs: missing.iter().map(|(program, _)| *program).collect(), packages })
}

fn find_account(config: &RigConfig) -> Result<(Account, String, u32), RigError> {
    let passwd = read("/etc/passwd")?;
    let own = rustix::process::geteuid();
    if !own.is_root() {
        let uid = own.as_raw();
        let name = passwd_name(&passwd, uid).unwrap_or_else(|| uid.to_string());
        return Ok((Account::Own, name, uid));
    }
    match passwd_entry(&passwd, &config.user) {
        Some((uid, gid)) if uid != 0 => Ok((Account::Dedicated { uid, gid }, config.user.clone(), uid)),
        Some(_) | None => {
            let user = &config.user;
            let hint = format!(
                "`useradd --system --no-create-home --shell /usr/sbin/nologin {user} && \
                 usermod --add-subuids 200000-265535 --add-subgids 200000-265535 {user}`"
            );
            Err(RigError::NoUser { user: config.user.clone(), hint })
        }
    }
}

fn read(path: &str) -> Result<String, RigError> {
    std::fs::read_to_string(path).map_err(|source| RigError::System { what: path.into(), source })
}

fn prepare(command: &mut Command) -> Result<(), RigError> {
    let words = format!("{command:?}");
    let output = command.output().map_err(|source| RigError::System { what: words.clone(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().chars().take(400).collect();
    Err(RigError::Prepare { command: words, said })
}

fn passwd_entry(passwd: &str, user: &str) -> Option<(u32, u32)> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn passwd_name(passwd: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(uid.as_str()))?;
    line.split(':').next().map(str::to_owned)
}

fn has_range(text: &str, user: &str, uid: u32) -> bool {
    let uid = uid.to_string();
    text.lines().any(|line| {
        let fields: Vec<_> = line.trim().split(':').collect();
        let [owner, _, count] = fields[..] else { return false };
        (owner == user || owner == uid) && count.parse::<u64>().is_ok_and(|count| count >= RANGE)
    })
}

fn range_ends(text: &str) -> impl Iterator<Item = u64> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':').skip(1);
        let (start, count): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        start.checked_add(count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "alice:100000:65536\n1001:165536:65536\nbob:300000:100\n";
        assert!(has_range(text, "alice", 1000) && has_range(text, "x", 1001));
        assert!(!has_range(text, "bob", 1002), "too short");
        assert_eq!(range_ends(text).max(), Some(300_100));
    }

    #[test]
    fn errors_say_what_to_install() {
        let error = RigError::Missing { programs: vec!["bwrap"], packages: vec!["bubblewrap"] };
        assert_eq!(error.to_string(), "missing bwrap: install with `apt-get install bubblewrap`");
    }
}
