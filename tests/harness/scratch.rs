//! A test's own folder, removed with everything in it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

const PREFIX: &str = "artel-it-";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A folder that the build user can pass through. Its name is short, since a socket's path has at most 107 bytes.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes a folder, and removes those of test processes that were killed.
    ///
    /// # Panics
    /// When the folder cannot be made.
    pub fn make() -> Self {
        remove_orphans();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{PREFIX}{}-{count}", process::id()));
        fs::create_dir(&path).expect("a folder of this process cannot be there yet");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711)).expect("a new folder is ours");
        Self(path.canonicalize().expect("a folder that was just made has a path"))
    }

    /// Gives the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = artel::build::remove_tree(&self.0) {
            eprintln!("{} could not be removed: {error}", self.0.display());
        }
    }
}

fn remove_orphans() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let Some(owner) = owner.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if !Path::new(&format!("/proc/{owner}")).exists() {
            // Another test may be removing it, too.
            let _ = artel::build::remove_tree(&entry.path());
        }
    }
}
