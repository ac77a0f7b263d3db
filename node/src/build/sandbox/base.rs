//! What lies below everything else in a sandbox's root file system: an environment, or this machine's own programs.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::rig::Rig;

/// Where programs and libraries lie beside `/usr`: links into it, on a system whose `/usr` is merged.
const BESIDE_USR: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Folders that programs expect to find.
const FOLDERS: [&str; 12] =
    ["usr", "etc", "mnt", "proc", "dev", "run", "sys", "root", "home", "var", "var/lib", "var/lib/dpkg"];
/// What else of the machine its programs need, where it is there: which program has which name, and where libraries lie.
const SETTINGS: [&str; 2] = ["/etc/alternatives", "/etc/ld.so.cache"];
/// What the owner put there is nobody's business, and no package's.
const OWN: [&str; 2] = ["/usr/local", "/usr/src"];
/// What stands in for the machine's lists of users and groups. Packages are installed with `_apt` as Debian numbers it, whatever
/// number this machine gave it: a folder of apt belongs to it.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n\
                      nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// What lies below everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::build) enum Base<'a> {
    /// An environment's root folder.
    Environment(&'a Path),
    /// The programs of this machine below `/usr`, read-only, without `/usr/local`; nothing else of it.
    Machine,
}

impl Base<'_> {
    /// Gives the folder that becomes the lowest layer, made below `attempt` where there is none.
    pub(super) fn lay_out(self, rig: &Rig, attempt: &Path) -> io::Result<PathBuf> {
        let Base::Environment(root) = self else { return machine(rig, attempt) };
        Ok(root.to_owned())
    }

    /// Gives the words for bubblewrap that mount what the folder alone does not hold.
    pub(super) fn mounts(self) -> Vec<String> {
        if let Base::Environment(_) = self {
            return Vec::new();
        }
        let beside = BESIDE_USR.map(|name| format!("/{name}"));
        let folders = beside.iter().map(String::as_str).filter(|path| is_folder(path));
        let read_only = ["/usr"].into_iter().chain(folders).chain(SETTINGS);
        let read_only = read_only.filter(|path| Path::new(path).exists());
        let shown = read_only.flat_map(|path| ["--ro-bind", path, path]);
        let hidden =
            OWN.into_iter().filter(|path| is_folder(path)).flat_map(|path| ["--ro-bind", "environment/mnt", path]);
        shown.chain(hidden).map(str::to_owned).collect()
    }
}

fn is_folder(path: &str) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

fn machine(rig: &Rig, attempt: &Path) -> io::Result<PathBuf> {
    let root = attempt.join("machine");
    rig.make_folder(&root)?;
    FOLDERS.iter().try_for_each(|name| rig.make_folder(&root.join(name)))?;
    for name in ["tmp", "var/tmp"] {
        rig.make_folder(&root.join(name))?;
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o1777))?;
    }
    for (name, text) in [("etc/passwd", PASSWD), ("etc/group", GROUP), ("var/lib/dpkg/status", "")] {
        fs::write(root.join(name), text)?;
        rig.give(&root.join(name))?;
    }
    for name in BESIDE_USR {
        if let Ok(target) = fs::read_link(Path::new("/").join(name)) {
            symlink(target, root.join(name))?;
        }
    }
    Ok(root)
}
