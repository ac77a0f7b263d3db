//! Several jobs out of one wish: variants of a source or a recipe, and the same wish once more with fresh environments.

use std::{collections::BTreeMap, str::FromStr};

use protocol::{
    FileName, Hash, Sha256,
    environment::EnvironmentLock,
    job::{ImageJob, JobKind, JobRequest, SourceFile},
    words::RelativePath,
};
use web::api::FileView;

use super::{DebWords, Error, Prepared, image, locked_files};
use crate::resolve::{
    archive::Archive,
    further::{self, Repository},
    lock,
};

/// A variant as people name it: `nodoc=profile:nodoc+option:nocheck`, or only the name of a recipe's own variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Its name among the others.
    pub name: FileName,
    /// Words of `DEB_BUILD_OPTIONS` beside the job's.
    pub options: Vec<String>,
    /// Words of `DEB_BUILD_PROFILES` beside the job's.
    pub profiles: Vec<String>,
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, words) = text.split_once('=').unwrap_or((text, ""));
        let name = FileName::new(name).map_err(|error| format!("the variant's name {name:?}: {error}"))?;
        let mut variant = Self { name, options: Vec::new(), profiles: Vec::new() };
        for word in words.split('+').filter(|word| !word.is_empty()) {
            match word.split_once(':') {
                Some(("option", word)) => variant.options.push(word.to_owned()),
                Some(("profile", word)) => variant.profiles.push(word.to_owned()),
                Some(_) | None => return Err(format!("{word:?} is neither option:WORD nor profile:WORD")),
            }
        }
        Ok(variant)
    }
}

impl Variant {
    /// Adds the variant's words to those of all.
    pub fn words(&self, all: &DebWords) -> DebWords {
        let both = |all: &[String], own: &[String]| {
            let mut words: Vec<String> = all.iter().chain(own).cloned().collect();
            words.sort();
            words.dedup();
            words
        };
        DebWords { options: both(&all.options, &self.options), profiles: both(&all.profiles, &self.profiles) }
    }

    /// Says whether it has words that only a source package has.
    pub fn is_for_debs(&self) -> bool {
        !self.options.is_empty() || !self.profiles.is_empty()
    }
}

impl Prepared {
    /// Gives the job a further input: an output of another job, which lies on the node already.
    ///
    /// # Errors
    /// When the kind of job has no such inputs, or has one there.
    pub fn with_output_of(mut self, path: RelativePath, file: &FileView) -> Result<Self, Error> {
        let hash = file.hash.ok_or_else(|| Error::Request(format!("nobody knows where {} is", file.name)))?;
        let inputs = match &mut self.kind {
            JobKind::Command(command) => &mut command.inputs,
            JobKind::Image(image) => &mut image.files,
            JobKind::Deb(_) | JobKind::Rpm(_) | JobKind::Fetch(_) | JobKind::Server(_) => {
                let why = "only commands and images take outputs of other jobs as inputs";
                return Err(Error::Request(why.to_owned()));
            }
        };
        if inputs.iter().any(|input| input.path == path) {
            return Err(Error::Request(format!("there is another input at {path}")));
        }
        inputs.push(protocol::job::InputFile { hash, path, size: file.size, sha256: file.sha256 });
        inputs.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(self)
    }
}

/// What a job that is asked for again was built with.
#[derive(Debug, Clone)]
pub struct Earlier {
    /// What was asked for.
    pub request: JobRequest,
    /// Its environment.
    pub environment: EnvironmentLock,
    /// The packages of its image, where it makes one.
    pub system: Option<EnvironmentLock>,
}

/// Prepares a job as it was, with the newest packages of the same names. Its other inputs lie on the node. Blocking: runs apt.
///
/// # Errors
/// When the job has no environment, or the packages cannot be locked.
pub fn again(archive: &Archive, earlier: &Earlier, own: &[Repository]) -> Result<Prepared, Error> {
    let fresh = lock::lock_again(archive, &earlier.environment)?;
    let mut files: BTreeMap<Hash, _> = locked_files(&fresh).collect();
    let mut kind = earlier.request.kind.clone();
    match (&mut kind, &earlier.system) {
        (JobKind::Deb(_) | JobKind::Rpm(_) | JobKind::Command(_), _) => {}
        (JobKind::Image(job), Some(system)) => {
            let whole = further::with(archive, own)?;
            let packages = lock::lock_system_again(&whole, system)?;
            let bytes = packages.lock.to_bytes();
            let path = archive.debs().with_file_name(format!("system-{}.lock", packages.lock.id().short()));
            std::fs::write(&path, &bytes).map_err(|source| Error::Read { path: path.clone(), source })?;
            files.extend(locked_files(&packages));
            files.insert(Hash::of(&bytes), path);
            renew(job, &bytes, fresh.lock.epoch);
        }
        (JobKind::Image(_), None) => return Err(Error::Request("the packages of the image are unknown".to_owned())),
        (JobKind::Fetch(_) | JobKind::Server(_), _) => {
            return Err(Error::Request("it has no environment that could be renewed".to_owned()));
        }
    }
    Ok(Prepared { kind, lock: fresh.lock, files: files.into_iter().collect() })
}

/// Names the new packages, and the new date where the old one was its version.
fn renew(job: &mut ImageJob, lock: &[u8], epoch: u64) {
    let (hash, sha256, size) = (Hash::of(lock), Sha256::of(lock), lock.len() as u64);
    job.packages = SourceFile { hash, name: job.packages.name.clone(), size, sha256 };
    if job.version.as_str() == image::day(job.epoch)
        && let Ok(version) = FileName::new(image::day(epoch))
    {
        job.version = version;
    }
    job.epoch = job.epoch.max(epoch);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_has_a_name_and_words() {
        let variant: Variant = "nodoc=profile:nodoc+option:nocheck".parse().unwrap();
        let all = DebWords { options: vec!["terse".into(), "nocheck".into()], profiles: Vec::new() };
        let words = variant.words(&all);
        assert_eq!((words.options.join(" "), words.profiles.join(" ")), ("nocheck terse".into(), "nodoc".into()));
        assert!(!"kiosk".parse::<Variant>().unwrap().is_for_debs());
        assert!("x=nodoc".parse::<Variant>().unwrap_err().contains("neither option:WORD nor profile:WORD"));
        assert!("a/b".parse::<Variant>().is_err());
    }
}
