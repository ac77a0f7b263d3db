//! The keys of one node's repositories: one, and beside it the next one while clients learn of that.
//!
//! ```text
//!  One --rotate--> Two: both sign, both are published --finish, or the end of the grace--> One: the new key
//! ```
//!
//! The next key lies beside the first one, and ends the change by taking its place: at any time there is one truth on the disk.
//! The header of an RPM has room for one signature: it is the old key's to the end, then every header is signed anew.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::Timestamp;

use super::{Error, Headers, RepositoryKey, clear, detached, keyring::Certificate};

/// How many keys one node has at once.
pub const KEYS_MAX: usize = 2;

/// The line of the next key's file that says when it signs alone, in seconds since 1970.
const ALONE_FROM: &str = "Alone-From";

/// What signs a node's repositories.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one for each channel")]
pub enum Keys {
    /// One key.
    One(RepositoryKey),
    /// A key that is being replaced, and the one that replaces it.
    Two {
        /// The key that clients know.
        old: RepositoryKey,
        /// The key that they are to learn.
        new: RepositoryKey,
        /// When the new key signs alone at the latest.
        until: Timestamp,
    },
}

impl From<RepositoryKey> for Keys {
    fn from(key: RepositoryKey) -> Self {
        Keys::One(key)
    }
}

impl Keys {
    /// Reads the key of a file, and the one that is to replace it.
    ///
    /// # Errors
    /// As [`RepositoryKey::load`].
    pub fn load(path: &Path) -> Result<Self, Error> {
        let next = next(path);
        if !next.try_exists().map_err(failed("read", &next))? {
            return Ok(Keys::One(RepositoryKey::load(path)?));
        }
        // In this order, for the change may end meanwhile.
        let (new, headers) = match RepositoryKey::load_with(&next) {
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Self::load(path),
            read => read?,
        };
        let key = RepositoryKey::load(path)?;
        if key.fingerprint() == new.fingerprint() {
            return Ok(Keys::One(key));
        }
        let until = headers.get(ALONE_FROM).and_then(|values| values.first()).and_then(|value| value.parse().ok());
        let until = until.map(|seconds: u32| Timestamp::from_millis(u64::from(seconds) * 1000));
        Ok(Keys::Two { old: key, new, until: until.ok_or(Error::NotOurs { path: next })? })
    }

    /// Begins to replace the key of a file by a new one, which signs alone after the grace.
    ///
    /// # Errors
    /// When the key is being replaced already, or belongs to another user, or a file operation fails.
    pub fn rotate(path: &Path, at: Timestamp, grace: Duration) -> Result<Self, Error> {
        let Keys::One(old) = Self::load(path)? else { return Err(Error::Changing) };
        check_owner(path)?;
        let name = old.secret.details.users.first().and_then(|user| user.id.as_str()).unwrap_or("artel").to_owned();
        let begun = Timestamp::from_millis(at.as_secs() * 1000);
        let (new, until) = (RepositoryKey::generate(&name, begun)?, begun.after(grace));
        let headers = Headers::from([(ALONE_FROM.to_owned(), vec![super::seconds(until)?.as_secs().to_string()])]);
        let (next, half) = (next(path), path.with_extension("half.asc"));
        match fs::remove_file(&half) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &half)(error)),
            Ok(()) | Err(_) => {}
        }
        new.save_with(&half, Some(&headers))?;
        // A link never replaces a file: of two who do this at once one is refused.
        fs::hard_link(&half, &next).map_err(failed("create", &next))?;
        fs::remove_file(&half).map_err(failed("remove", &half))?;
        sync_folder(path)?;
        Ok(Keys::Two { old, new, until })
    }

    /// Ends the change: the new key takes the old one's place, which is gone.
    ///
    /// # Errors
    /// When the key is not being replaced, or a file operation fails.
    pub fn finish(path: &Path) -> Result<Self, Error> {
        let Keys::Two { new, .. } = Self::load(path)? else { return Err(Error::Settled) };
        check_owner(path)?;
        fs::rename(next(path), path).map_err(failed("replace", path))?;
        sync_folder(path)?;
        Ok(Keys::One(new))
    }

    /// Says whether a change has to end.
    pub fn is_over(&self, at: Timestamp) -> bool {
        match self {
            Keys::One(_) => false,
            Keys::Two { until, .. } => at >= *until,
        }
    }

    /// Gives every key that signs, the oldest first.
    pub fn all(&self) -> Vec<&RepositoryKey> {
        match self {
            Keys::One(key) => vec![key],
            Keys::Two { old, new, .. } => vec![old, new],
        }
    }

    /// Gives the key that stays.
    pub fn lasting(&self) -> &RepositoryKey {
        match self {
            Keys::One(key) | Keys::Two { new: key, .. } => key,
        }
    }

    /// Gives the key that signs the headers of RPMs: the one that every client knows.
    pub fn known(&self) -> &RepositoryKey {
        match self {
            Keys::One(key) | Keys::Two { old: key, .. } => key,
        }
    }

    /// Gives the public halves.
    ///
    /// # Errors
    /// When OpenPGP cannot write them.
    pub fn certificates(&self) -> Result<Vec<Certificate>, Error> {
        self.all().into_iter().map(RepositoryKey::certificate).collect()
    }

    /// As [`RepositoryKey::sign_clear`], with every key.
    ///
    /// # Errors
    /// When OpenPGP cannot sign.
    pub fn sign_clear(&self, text: &str, at: Timestamp) -> Result<String, Error> {
        clear(&self.all(), text, at)
    }

    /// As [`RepositoryKey::sign_detached`], with every key.
    ///
    /// # Errors
    /// When OpenPGP cannot sign.
    pub fn sign_detached(&self, bytes: &[u8], at: Timestamp) -> Result<String, Error> {
        detached(&self.all(), bytes, at)
    }
}

/// Where the key lies that is to replace another one.
fn next(path: &Path) -> PathBuf {
    path.with_extension("next.asc")
}

/// Refuses to leave a file that the daemon, another user, could not read.
fn check_owner(path: &Path) -> Result<(), Error> {
    let owner = fs::metadata(path).map_err(failed("read", path))?.uid();
    let same = owner == rustix::process::geteuid().as_raw();
    if same { Ok(()) } else { Err(Error::Owner { path: path.into(), owner }) }
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File { what, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::testing::{AT, key};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_change_is_on_the_disk_until_it_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("repository-key.asc");
        key().save(&path).unwrap();
        assert!(matches!(Keys::load(&path), Ok(Keys::One(_))));
        assert!(matches!(Keys::finish(&path), Err(Error::Settled)));
        let made = Keys::rotate(&path, AT, 3 * DAY).unwrap();
        let read = Keys::load(&path).unwrap();
        let fingerprints = |keys: &Keys| keys.all().into_iter().map(|key| key.fingerprint()).collect::<Vec<_>>();
        assert_eq!(fingerprints(&read), fingerprints(&made));
        assert_eq!((read.known().fingerprint(), read.certificates().unwrap().len()), (key().fingerprint(), 2));
        assert!(!read.is_over(AT.after(2 * DAY)) && read.is_over(AT.after(3 * DAY)));
        assert!(matches!(Keys::rotate(&path, AT, DAY), Err(Error::Changing)));
        let new = read.lasting().fingerprint();
        assert_eq!(Keys::finish(&path).unwrap().lasting().fingerprint(), new);
        let alone = Keys::load(&path).unwrap();
        assert_eq!(fingerprints(&alone), [new]);
        assert!(!alone.is_over(AT.after(9 * DAY)));
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["repository-key.asc"], "the old key is gone");
        assert!(matches!(Keys::rotate(&path, AT, DAY), Ok(Keys::Two { .. })), "and again");
    }
}
