//! What a sandbox's script may do: most are a build user without any right, an installation is root of the namespace with
//! the few rights that unpacking packages and running their scripts need.
//!
//! Neither can mount, reach a device or a network, or make a namespace, whatever runs in it.

use std::{io, path::Path};

use super::rig::Rig;

/// Rights over files of the mapped range, over one's own processes, and over the root folder: what `dpkg` and package
/// scripts use: chown, dac_override, fowner, fsetid, kill, setgid, setuid, sys_chroot and setfcap, by their numbers.
/// `sys_admin`, `sys_ptrace`, `mknod`, `net_admin` and `sys_resource` are not among them.
const INSTALLER: [u32; 9] = [0, 1, 3, 4, 5, 6, 7, 18, 31];
/// What scripts of packages expect to find; none of it reaches hardware.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// The rights of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::build) enum Rights {
    /// The build user, without any capability.
    Builder,
    /// The namespace's root with few capabilities, and below the build directory a folder [`Rights::ROOT`] in which
    /// programs find `/proc` and `/dev` when they are started with it as their root.
    Installer,
}

impl Rights {
    /// The folder in the build directory that becomes the root of what is installed.
    pub(in crate::build) const ROOT: &'static str = "root";

    /// Lays out that folder in a build directory, on this side of the overlay.
    pub(in crate::build) fn lay_out_root(rig: &Rig, place: &Path) -> io::Result<()> {
        ["", "dev", "dev/shm"].iter().try_for_each(|name| rig.make_folder(&place.join(Self::ROOT).join(name)))
    }

    /// Gives the mounts that the script needs beside every sandbox's, as words for bubblewrap. `merged` is the sandbox's
    /// root as bubblewrap finds it, `place` the build directory in it.
    pub(in crate::build) fn mounts(self, merged: &Path, place: &str) -> Vec<String> {
        match self {
            Rights::Builder => Vec::new(),
            Rights::Installer => {
                let root = format!("{place}/{}", Self::ROOT);
                // One folder of shared memory: what moves the date meets its own memory again below the new root.
                let shared = format!("{}{root}/dev/shm", merged.display());
                let fixed = ["--bind", &shared, "/dev/shm", "--proc", &format!("{root}/proc")].map(str::to_owned);
                let devices = DEVICES
                    .iter()
                    .flat_map(|name| ["--dev-bind".to_owned(), format!("/dev/{name}"), format!("{root}/dev/{name}")]);
                fixed.into_iter().chain(devices).collect()
            }
        }
    }

    /// Gives where the script finds the processes of its sandbox.
    pub(in crate::build) fn processes(self, place: &str) -> Vec<String> {
        let own = "/proc".to_owned();
        match self {
            Rights::Builder => vec![own],
            Rights::Installer => vec![own, format!("{place}/{}/proc", Self::ROOT)],
        }
    }

    /// Gives what the last step into the sandbox needs to know: the user's number, and the rights that stay, as a mask.
    pub(in crate::build) fn keep(self, uid: u32) -> [String; 2] {
        let (user, rights) = match self {
            Rights::Builder => (uid, 0),
            Rights::Installer => (0, INSTALLER.iter().map(|number| 1_u64 << number).sum()),
        };
        [user.to_string(), format!("{rights:x}")]
    }
}
