//! Packages taken out of a repository. Their files stay for a day, as those of any older version: running clients still hold
//! the index that names them.

use std::collections::BTreeMap;

use protocol::{Arch, Hash, PackageName, Timestamp, job::Prune};

use super::{Error, Pooled, Published, Repository, dominate};
use crate::publish::kind::Kind;

impl Repository {
    /// Takes packages out as the next generation and names each one. `request` names what was asked for: repeating the
    /// generation with the same request gives it back as it was recorded.
    ///
    /// # Errors
    /// As [`Repository::publish`].
    pub fn prune(
        &mut self,
        prune: &Prune,
        request: Hash,
        (at, generation): (Timestamp, u64),
    ) -> Result<(Published, Vec<String>), Error> {
        let mut removed = Vec::new();
        let published = self.change(
            request,
            (at, generation),
            |_| false,
            |_, next| {
                let out = taken_out(&next.packages, prune);
                next.packages.retain(|p| !out.contains(&p.file.path));
                removed = out.iter().map(ToString::to_string).collect();
                Ok(())
            },
        )?;
        Ok((published, removed))
    }
}

/// Gives the paths of the packages to take out.
fn taken_out(packages: &[Pooled], prune: &Prune) -> Vec<protocol::words::RelativePath> {
    let mut versions: BTreeMap<(Kind, &PackageName, Arch), Vec<&Pooled>> = BTreeMap::new();
    for package in packages {
        versions.entry((package.kind(), &package.name, package.arch)).or_default().push(package);
    }
    let named = |p: &Pooled| prune.packages.is_empty() || prune.packages.binary_search(&p.name).is_ok();
    // What was published by a version that did not note when is not known to be old.
    let old = |p: &Pooled| prune.before.is_none_or(|before| p.since.is_some_and(|since| since < before));
    let mut out = Vec::new();
    for list in versions.values_mut() {
        list.sort_by(|a, b| dominate::order(b, a));
        let rest = list.iter().skip(usize::from(prune.keep));
        out.extend(rest.filter(|p| named(p) && old(p)).map(|p| p.file.path.clone()));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::publish::testing::{AT, addition, repository, tree};

    fn names(list: &[&str]) -> Vec<PackageName> {
        list.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn named_and_old_packages_go_and_their_files_a_day_later() {
        let (dir, debs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut repository = repository(dir.path());
        let hours = |count: u64| AT.after(Duration::from_secs(3600 * count));
        let add = |id| addition(debs.path(), id, "a");
        repository.publish(&[add(("tiny", "1", "amd64")), add(("doc", "1", "all"))], AT, 1).unwrap();
        repository.publish(&[add(("news", "1", "amd64"))], hours(1), 2).unwrap();
        let keep = Prune { keep: 1, before: None, packages: Vec::new() };
        let (_, removed) = repository.prune(&keep, Hash::of(b"1"), (hours(1), 3)).unwrap();
        assert!(removed.is_empty(), "the newest stays");
        let named = Prune { keep: 0, before: None, packages: names(&["doc"]) };
        let (published, removed) = repository.prune(&named, Hash::of(b"2"), (hours(1), 4)).unwrap();
        assert_eq!(removed, ["pool/main/d/doc/doc_1_all.deb"]);
        assert_eq!(published.manifest.packages.len(), 2);
        let again = repository.prune(&named, Hash::of(b"2"), (hours(2), 4)).unwrap();
        assert_eq!((again.0.manifest, again.1.len()), (published.manifest, 0), "a repetition gives it back");
        let old = Prune { keep: 0, before: Some(hours(1)), packages: Vec::new() };
        let (published, removed) = repository.prune(&old, Hash::of(b"3"), (hours(2), 5)).unwrap();
        assert_eq!(removed, ["pool/main/t/tiny/tiny_1_amd64.deb"]);
        assert_eq!(published.manifest.packages[0].name.as_str(), "news");
        assert!(repository.root().join("pool/main/d/doc/doc_1_all.deb").exists(), "clients may still fetch it");
        let published = repository.resign(hours(27), 6).unwrap();
        assert_eq!(tree(&repository.root()).len(), published.manifest.files.len(), "a day later it is gone");
        repository.publish(&[add(("doc", "1", "all"))], hours(27), 7).unwrap();
    }
}
