//! What must happen between a generation that is written and one that is seen: whoever opens the repository may have it logged
//! and witnessed first.
//!
//! The fence is raised before the gate is asked, so a generation that somebody may have been told of is never given to other
//! content under the same record; and the plan is recorded after it, so a crash leaves either nothing that is seen, or what the
//! gate let pass.

use std::{path::PathBuf, sync::Arc};

use protocol::{lease::Term, words::RelativePath};

use super::{Error, Published, Repository, index, staged, state::State};

/// Lets a generation be seen, or keeps it back. It may block, and it may be asked for the same generation again.
pub type Gate = Arc<dyn Fn(&Staged) -> Result<(), Closed> + Send + Sync>;

/// A generation is kept back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nobody is shown the new generation yet: {why}")]
pub struct Closed {
    /// Why, for people.
    pub why: String,
}

/// A generation that is written and signed, and that nobody can see yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// What it will be.
    pub published: Published,
    incoming: PathBuf,
}

impl Staged {
    /// Gives the place of one of its files: where it waits, or where it has been since an earlier generation.
    pub fn place(&self, path: &RelativePath) -> PathBuf {
        let waiting = self.incoming.join(staged(path));
        if waiting.exists() { waiting } else { self.published.root.join(path.as_str()) }
    }
}

impl Repository {
    /// Lets nothing be seen from now on that did not pass this gate; without one, whatever is written is shown.
    pub fn gated_by(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }

    /// Asks the gate. It may take its time, so whoever leads is asked again behind it.
    pub(super) fn pass(&self, next: &State, term: Term) -> Result<(), Error> {
        let Some(gate) = &self.gate else { return Ok(()) };
        let manifest = index::manifest(next, &next.written);
        let State { generation, at, .. } = *next;
        let published = Published { manifest, root: self.root(), generation, term, at };
        gate(&Staged { published, incoming: self.dir.join("state/incoming") })?;
        self.still_leads(term)?;
        self.step()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        path::Path,
        sync::{
            Mutex,
            atomic::{
                AtomicBool, AtomicU64,
                Ordering::{Relaxed, SeqCst},
            },
        },
    };

    use protocol::Hash;

    use super::*;
    use crate::{
        daemon::chain,
        publish::{
            apt::{Addition, NotLeading},
            testing::{AT, addition, repository, tree},
        },
        resolve::digest::Digest,
    };

    const IN_RELEASE: &str = "dists/main/InRelease";

    fn versions(debs: &Path) -> [[Addition; 1]; 2] {
        ["1", "2"].map(|version| [addition(debs, ("tiny", version, "amd64"), "a")])
    }

    fn shown(repository: &Repository) -> Hash {
        Hash::of(&std::fs::read(repository.root().join(IN_RELEASE)).unwrap())
    }

    /// Which `InRelease` a generation will have.
    fn promised(staged: &Staged) -> Hash {
        staged.published.manifest.files.iter().find(|f| f.path.as_str() == IN_RELEASE).unwrap().hash
    }

    #[test]
    fn what_is_kept_back_can_be_read_by_the_gate_and_by_nobody_else() {
        let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ([one, two], open) = (versions(debs.path()), Arc::new(AtomicBool::new(false)));
        let mut repository = repository(dir.path());
        repository.publish(&one, AT, 1).unwrap();
        let (root, before, is_open) = (repository.root(), tree(&repository.root()), Arc::clone(&open));
        let seen = before.clone();
        repository.gated_by(Arc::new(move |staged| {
            let Published { manifest, generation, .. } = &staged.published;
            assert_eq!((*generation, manifest.packages.len()), (2, 1));
            for file in &manifest.files {
                let digest = Digest::of(&std::fs::read(staged.place(&file.path)).unwrap());
                assert_eq!((digest.hash, digest.size), (file.hash, file.size), "{}", file.path);
            }
            assert!(tree(&root) == seen, "nothing changed so far");
            if is_open.load(SeqCst) { Ok(()) } else { Err(Closed { why: "no witness has seen it".into() }) }
        }));
        for _ in 0..2 {
            let error = repository.publish(&two, AT, 2).unwrap_err();
            assert_eq!(chain(&error), "nobody is shown the new generation yet: no witness has seen it");
            assert!(tree(&repository.root()) == before);
            assert!(repository.may_have_begun(2), "somebody may have been told");
        }
        drop(repository);
        let mut repository = crate::publish::testing::repository(dir.path());
        assert!(repository.generation() == 1 && tree(&repository.root()) == before, "nor after another start");
        open.store(true, SeqCst);
        repository.publish(&two, AT, 3).unwrap();
        assert!(tree(&repository.root()) != before);
    }

    #[test]
    fn a_stop_between_any_two_steps_shows_nothing_that_did_not_pass() {
        let debs = tempfile::tempdir().unwrap();
        let [one, two] = versions(debs.path());
        let (mut steps, mut ended) = (0, false);
        while !ended {
            let dir = tempfile::tempdir().unwrap();
            let passed: Arc<Mutex<BTreeSet<Hash>>> = Arc::default();
            let gated = || {
                let (mut repository, passed) = (repository(dir.path()), Arc::clone(&passed));
                repository.gated_by(Arc::new(move |staged| {
                    passed.lock().unwrap().insert(promised(staged));
                    Ok(())
                }));
                repository
            };
            let mut stopped = gated();
            stopped.publish(&one, AT, 1).unwrap();
            stopped.steps_left.store(steps, Relaxed);
            ended = match stopped.publish(&two, AT, 2) {
                Ok(_) => true,
                Err(Error::Stopped) => false,
                Err(other) => panic!("{other}"),
            };
            assert!(passed.lock().unwrap().contains(&shown(&stopped)), "stopped before step {steps}");
            drop(stopped);
            let mut again = gated();
            assert!(passed.lock().unwrap().contains(&shown(&again)), "stopped before step {steps}");
            // A later clock makes other bytes; they pass, too.
            let later = AT.after(std::time::Duration::from_secs(60));
            again.publish(&two, later, 2).unwrap();
            assert!(passed.lock().unwrap().contains(&shown(&again)), "stopped before step {steps}");
            assert_eq!(again.generation(), 2);
            steps += 1;
        }
        assert!(steps > 20, "{steps} steps");
    }

    #[test]
    fn an_office_that_is_lost_at_the_gate_shows_nothing() {
        let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ([one, _], term) = (versions(debs.path()), Arc::new(AtomicU64::new(1)));
        let (mut repository, asked, elected) = (repository(dir.path()), Arc::clone(&term), Arc::clone(&term));
        repository.led_by(Arc::new(move || Ok(Term(asked.load(SeqCst)))));
        repository.gated_by(Arc::new(move |_| {
            elected.store(2, SeqCst);
            Ok(())
        }));
        let lost = repository.publish(&one, AT, 1);
        assert!(matches!(lost, Err(Error::NotLeading(NotLeading { .. }))), "{lost:?}");
        assert_eq!((repository.generation(), tree(&repository.root()).len()), (0, 0));
        assert_eq!(repository.publish(&one, AT, 1).unwrap().term, Term(2), "the same term again");
    }
}
