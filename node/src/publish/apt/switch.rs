//! From a recorded plan to the generation that is served. Everything that a plan needs lies staged before it is recorded, so a
//! full disk is noticed before anything that others see changes; what follows only renames.

use std::collections::BTreeSet;

use protocol::words::RelativePath;

use super::{
    Error, REMOVE_AFTER, Repository, dominate, index, staged,
    state::{Entering, Pooled, Retired, State},
};
use crate::publish::disk;

impl Repository {
    /// Plans what no index names any more, and gives the files of the new generation.
    pub(super) fn retire(&self, next: &mut State) -> Result<Vec<index::Output>, Error> {
        // A channel may have stopped to build an architecture since the last generation.
        let (listed, _) = dominate::split(std::mem::take(&mut next.packages), &next.settings.arches);
        next.packages = listed;
        next.packages.sort_by(|a, b| a.file.path.cmp(&b.file.path));
        let outputs = index::generate(next, &self.keys, &self.keyring)?;
        next.written = index::digests(&outputs);
        self.plan_removal(next);
        Ok(outputs)
    }

    /// Plans the removal of what the last generation named and the next one does not.
    pub(super) fn plan_removal(&self, next: &mut State) {
        let by_hash = next.written.iter().filter(|f| index::stage(&f.path) == index::Stage::ByHash);
        next.by_hash = by_hash.map(|f| f.path.clone()).collect();
        let named = |state: &State| -> BTreeSet<RelativePath> {
            let pool = state.packages.iter().flat_map(Pooled::files).map(|f| f.path.clone());
            pool.chain(state.by_hash.iter().cloned()).collect()
        };
        let (before, after) = (named(&self.state), named(next));
        next.retired.extend(before.difference(&after).map(|path| Retired { path: path.clone(), since: next.at }));
        next.retired.retain(|r| !after.contains(&r.path));
        next.retired.sort();
        next.retired.dedup_by(|a, b| a.path == b.path);
    }

    /// Writes generated files into the publisher's own folder.
    pub(super) fn stage(&self, next: &mut State, outputs: &[index::Output]) -> Result<(), Error> {
        let (root, private) = (self.root(), self.dir.join("state"));
        for output in outputs {
            let size = output.bytes.len() as u64;
            // What lies under its own hash was written whole; writing it again would only wear the disk.
            let there = index::stage(&output.path) == index::Stage::ByHash
                && disk::size_of(&root.join(output.path.as_str())) == Some(size);
            if !there {
                disk::write(&private, &private.join("incoming").join(staged(&output.path)), &output.bytes)?;
                next.entering.push(Entering { path: output.path.clone(), size });
                self.step()?;
            }
        }
        Ok(())
    }

    /// Carries out a recorded plan, if there is one, and empties the staging folder.
    pub(super) fn recover(&mut self) -> Result<(), Error> {
        let path = self.dir.join("state/next");
        if let Some(next) = State::read(&path)? {
            // A plan that names no files is of a version that staged none; its generation is asked for again.
            if next.comes_after(&self.state) && !next.written.is_empty() {
                self.switch(next)?;
            } else {
                disk::remove(&path)?;
            }
        }
        let incoming = self.dir.join("state/incoming");
        let entries = std::fs::read_dir(&incoming).map_err(disk::failed("list", &incoming))?;
        for entry in entries.flatten() {
            disk::remove(&entry.path())?;
        }
        Ok(())
    }

    /// Puts what is staged into its place, in the order of the plan, and records the generation.
    pub(super) fn switch(&mut self, mut next: State) -> Result<(), Error> {
        let (root, private) = (self.root(), self.dir.join("state"));
        for entering in &next.entering {
            let from = private.join("incoming").join(staged(&entering.path));
            let place = root.join(entering.path.as_str());
            if from.exists() {
                disk::rename(&from, &place)?;
            } else if disk::size_of(&place) != Some(entering.size) {
                return Err(Error::Damaged { path: entering.path.clone() });
            }
            self.step()?;
        }
        next.entering.clear();
        let at = next.at;
        for retired in next.retired.extract_if(.., |r| at.since(r.since) >= REMOVE_AFTER) {
            let path = root.join(retired.path.as_str());
            disk::remove(&path)?;
            disk::remove_empty_folders(&root, &path);
        }
        self.step()?;
        next.write(&private, &private.join("state"))?;
        self.step()?;
        disk::remove(&private.join("next"))?;
        tracing::info!(generation = next.generation, packages = next.packages.len(), "repository published");
        self.state = next;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn step(&self) -> Result<(), Error> {
        use std::sync::atomic::Ordering::Relaxed;
        let one_less = |left: usize| left.checked_sub(1);
        self.steps_left.fetch_update(Relaxed, Relaxed, one_less).map_err(|_| Error::Stopped)?;
        Ok(())
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests stop the publisher between any two steps")]
    pub(super) fn step(&self) -> Result<(), Error> {
        Ok(())
    }
}
