//! Looks into an environment's root folder as what runs in it would: a link there leads to no file of this machine.

use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2, readlinkat};

/// Says whether a regular file stands at a path in a root folder.
pub(in crate::build) fn is_file(root: &Path, path: &str) -> bool {
    let found = descriptor(root, path, OFlags::PATH).and_then(fstat);
    found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::RegularFile)
}

/// Gives where the link `name` in a folder of a root folder leads to.
pub(in crate::build) fn link(root: &Path, folder: &str, name: &str) -> Option<String> {
    let folder = descriptor(root, folder, OFlags::PATH | OFlags::DIRECTORY).ok()?;
    Some(readlinkat(folder, name, Vec::new()).ok()?.to_string_lossy().into_owned())
}

fn descriptor(root: &Path, path: &str, flags: OFlags) -> rustix::io::Result<std::os::fd::OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_link_leads_to_nothing_of_this_machine() {
        let root = tempfile::tempdir().unwrap();
        symlink("/usr/bin", root.path().join("bin")).unwrap();
        symlink("/etc", root.path().join("etc")).unwrap();
        assert_eq!(link(root.path(), "bin", "sh"), None, "this machine has one");
        assert!(!is_file(root.path(), "etc/passwd"));
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        fs::write(root.path().join("usr/bin/dash"), "").unwrap();
        symlink("dash", root.path().join("usr/bin/sh")).unwrap();
        assert_eq!(link(root.path(), "bin", "sh").as_deref(), Some("dash"), "as inside");
        assert!(is_file(root.path(), "bin/sh") && !is_file(root.path(), "bin"));
    }
}
