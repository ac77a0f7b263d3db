//! Many packages at once: every one of a repository, or those of a name, on every core.

use std::{
    num::NonZero,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use crate::{
    Error, Verifier,
    archive::{Entry, entries},
    package::{Place, Proven},
};

/// What became of one package.
#[derive(Debug)]
pub struct Checked {
    /// The package's file.
    pub file: PathBuf,
    /// What was proven, or why not.
    pub result: Result<Proven, Error>,
}

impl Verifier {
    /// Checks every package of a folder, and that each is what its index says. They come in the order of their paths.
    ///
    /// # Errors
    /// When the folder or an index cannot be read.
    pub fn repository(&self, root: &Path) -> Result<Vec<Checked>, Error> {
        Ok(self.every(&entries(root)?))
    }

    /// As [`Verifier::repository`], for the packages of a name, and of a version where one is given as `name=version`.
    ///
    /// # Errors
    /// Likewise, and when there is none.
    pub fn named(&self, root: &Path, what: &str) -> Result<Vec<Checked>, Error> {
        let (name, version) = what.split_once('=').map_or((what, None), |(name, version)| (name, Some(version)));
        let meant = |entry: &Entry| match &entry.wanted {
            Some([of, version_of, _]) => of == name && version.is_none_or(|version| version == version_of),
            None => is_called(&entry.file, name, version),
        };
        let meant: Vec<Entry> = entries(root)?.into_iter().filter(meant).collect();
        if meant.is_empty() {
            return Err(Error::NoSuchPackage { name: what.chars().take(200).collect(), folder: root.into() });
        }
        let mut checked = self.every(&meant);
        // A file's name says nothing: what was proven must be what was asked for.
        for one in &mut checked {
            if let Ok(proven) = &one.result
                && let Err(other) = proven.is_called(name, version)
            {
                one.result = Err(other);
            }
        }
        Ok(checked)
    }

    fn every(&self, entries: &[Entry]) -> Vec<Checked> {
        let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(entries.len())));
        let cores = thread::available_parallelism().map_or(1, NonZero::get).min(entries.len());
        thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Relaxed);
                        let Some(entry) = entries.get(at) else { return };
                        let checked = Checked { file: entry.file.clone(), result: self.entry(entry) };
                        done.lock().expect("no check panics while it holds the list").push((at, checked));
                    }
                });
            }
        });
        let mut checked = done.into_inner().expect("no check panics while it holds the list");
        checked.sort_by_key(|(at, _)| *at);
        checked.into_iter().map(|(_, checked)| checked).collect()
    }

    fn entry(&self, entry: &Entry) -> Result<Proven, Error> {
        let wanted = entry.identity()?;
        let proven = self.file(&Place::beside(&entry.file))?;
        wanted.as_ref().map_or_else(|| proven.is_named_so(), |wanted| proven.is(wanted))?;
        Ok(proven)
    }
}

/// Says whether a file's name is that of a package, where no index says what it is.
fn is_called(file: &Path, name: &str, version: Option<&str>) -> bool {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let rest = stem.strip_prefix(name).and_then(|rest| rest.strip_prefix(['_', '-']));
    let plain = version.map(|version| version.split_once(':').map_or(version, |(_, plain)| plain));
    let follows = |rest: &str, plain: &str| rest.strip_prefix(plain).is_some_and(|rest| rest.starts_with(['_', '.']));
    rest.is_some_and(|rest| match plain {
        Some(plain) => follows(rest, plain),
        None => rest.starts_with(|c: char| c.is_ascii_digit()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        let called = |file: &str, name: &str, version: Option<&str>| is_called(Path::new(file), name, version);
        assert!(called("tiny_1.0_amd64.deb", "tiny", None));
        assert!(called("tiny_1.0_amd64.deb", "tiny", Some("3:1.0")));
        assert!(called("Answer-1.2-1.x86_64.rpm", "Answer", Some("1.2-1")));
        assert!(!called("Answer-doc-1.2-1.noarch.rpm", "Answer", None));
        assert!(!called("tiny_1.01_amd64.deb", "tiny", Some("1.0")));
        assert!(!called("tinyer_1.0_amd64.deb", "tiny", None));
    }
}
