//! What is asked of every package before a generation is written: whether it still proves itself. The roots may have revoked a
//! key since, or ask for more witnesses: then nobody would take a release that has the package as it is.
//!
//! ```text
//!  good                   stays
//!  seen by too few        gets a newer proof of the same entry of the log, beside it in the place of the old one
//!  proves nothing more    is taken out; its files stay for a day, as those of any older version
//! ```

use std::{path::PathBuf, sync::Arc};

use attest::staple;
use protocol::{Hash, JobId, words::RelativePath};
use tracing::warn;

use super::{
    Closed, Error, Repository, Staple,
    staple::beside,
    state::{Entering, Pooled, State},
};

/// A package of a repository, with its evidence where that lies now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Where it lies below the repository's root.
    pub path: RelativePath,
    /// The job that built it.
    pub job: JobId,
    /// The file with its bundle.
    pub bundle: PathBuf,
    /// The file with its proof from the log, where there is one.
    pub proof: Option<PathBuf>,
    /// Names what stands in both.
    pub content: (Hash, Option<Hash>),
}

/// What a package's evidence is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It proves the package.
    Good,
    /// It would, with a newer proof from the log.
    Unseen,
    /// It does not.
    Nothing {
        /// Why, for people.
        why: String,
    },
}

/// A newer proof from the log, or the reason why there is none that helps.
pub type Renewed = Result<Vec<u8>, String>;

/// Who knows what evidence is worth. It may block.
pub trait Keeper: Send + Sync {
    /// Judges a package by its evidence.
    ///
    /// # Errors
    /// When nobody can tell now: that takes no package out.
    fn judge(&self, held: &Held) -> Result<Standing, Closed>;

    /// Makes a newer proof from the log for a package that is [`Standing::Unseen`].
    ///
    /// # Errors
    /// When there is none yet.
    fn renew(&self, held: &Held) -> Result<Renewed, Closed>;
}

impl Repository {
    /// Keeps only packages that prove themselves, as this keeper says; without one, all.
    pub fn kept_by(&mut self, keeper: Arc<dyn Keeper>) {
        self.keeper = Some(keeper);
    }

    /// Says whether every published package still proves itself as it is.
    ///
    /// # Errors
    /// When the keeper cannot tell of one.
    pub fn stands(&self) -> Result<bool, Closed> {
        let Some(keeper) = &self.keeper else { return Ok(true) };
        for package in &self.state.packages {
            if keeper.judge(&self.held(package))? != Standing::Good {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives packages newer proofs, or takes them out, as the keeper says.
    pub(super) fn keep(&self, next: &mut State) -> Result<(), Error> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        let mut stay = Vec::with_capacity(next.packages.len());
        for mut package in std::mem::take(&mut next.packages) {
            let held = self.held(&package);
            let renewed = match keeper.judge(&held)? {
                Standing::Good => None,
                Standing::Unseen => Some(keeper.renew(&held)?),
                Standing::Nothing { why } => Some(Err(why)),
            };
            match renewed {
                None => {}
                Some(Ok(bytes)) => {
                    let file = self.put_staple(&mut package, &Staple { suffix: staple::PROOF_SUFFIX, bytes })?;
                    next.entering.retain(|entering| entering.path != file.path);
                    next.entering.push(Entering { path: file.path, size: file.size });
                    self.step()?;
                }
                Some(Err(why)) => {
                    warn!(package = %held.path, %why, "a package does not prove itself any more; it is taken out");
                    next.entering.retain(|entering| package.files().all(|file| file.path != entering.path));
                    continue;
                }
            }
            stay.push(package);
        }
        next.packages = stay;
        Ok(())
    }

    fn held(&self, package: &Pooled) -> Held {
        let place = |path: &RelativePath| {
            let waiting = self.waiting(path);
            if waiting.exists() { waiting } else { self.root().join(path.as_str()) }
        };
        let proof = beside(&package.file.path, staple::PROOF_SUFFIX);
        let proof = package.staples.iter().find(|staple| Some(&staple.path) == proof.as_ref());
        Held {
            path: package.file.path.clone(),
            job: package.job,
            bundle: place(&package.bundle.path),
            proof: proof.map(|staple| place(&staple.path)),
            content: (package.bundle.hash, proof.map(|staple| staple.hash)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::publish::testing::{AT, addition, repository, tree};

    /// Judges by words in the proofs.
    struct Words(Mutex<Option<&'static str>>);

    impl Keeper for Words {
        fn judge(&self, held: &Held) -> Result<Standing, Closed> {
            if held.path.as_str().contains("riddle") {
                return Err(Closed { why: "its evidence cannot be read".into() });
            }
            let proof = held.proof.as_ref().map(|path| std::fs::read(path).unwrap()).unwrap_or_default();
            let wanted = *self.0.lock().unwrap();
            Ok(match wanted {
                _ if held.path.as_str().contains("lost") => Standing::Nothing { why: "its builder was a thief".into() },
                Some(wanted) if proof == wanted.as_bytes() => Standing::Good,
                Some(_) | None => Standing::Unseen,
            })
        }

        fn renew(&self, held: &Held) -> Result<Renewed, Closed> {
            assert!(held.bundle.exists());
            let wanted = self.0.lock().unwrap().ok_or_else(|| Closed { why: "nobody has seen it".into() })?;
            Ok(Ok(wanted.into()))
        }
    }

    #[test]
    fn a_generation_has_what_still_proves_itself() {
        let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut repository = repository(dir.path());
        let add = ["tiny", "lost"].map(|name| addition(debs.path(), (name, "1", "amd64"), "a"));
        repository.publish(&add, AT, 1).unwrap();
        assert_eq!(repository.stands(), Ok(true), "nobody asks");
        let before = tree(&repository.root());
        let words = Arc::new(Words(Mutex::new(None)));
        repository.kept_by(words.clone());
        assert_eq!(repository.stands(), Ok(false));
        let error = repository.resign(AT, 2).unwrap_err();
        assert!(matches!(error, Error::Closed(Closed { .. })), "{error}");
        assert!(tree(&repository.root()) == before, "nothing was changed");
        for (generation, seen) in [(2, "by two"), (3, "by three")] {
            *words.0.lock().unwrap() = Some(seen);
            assert_eq!(repository.stands(), Ok(false));
            let published = repository.resign(AT, generation).unwrap();
            assert_eq!(repository.stands(), Ok(true));
            let files = tree(&published.root);
            assert_eq!(files["pool/main/t/tiny/tiny_1_amd64.deb.tlog-proof"], seen.as_bytes());
            let names: Vec<_> = published.manifest.packages.iter().map(|package| package.name.as_str()).collect();
            assert_eq!(names, ["tiny"]);
            assert!(published.manifest.files.iter().all(|file| !file.path.as_str().contains("lost")));
        }
        let riddle = [addition(debs.path(), ("riddle", "1", "amd64"), "a")];
        let error = repository.publish(&riddle, AT, 4).unwrap_err();
        assert!(matches!(error, Error::Closed(Closed { .. })), "what nobody can judge takes nothing out: {error}");
        assert_eq!((repository.generation(), repository.stands()), (3, Ok(true)));
    }
}
