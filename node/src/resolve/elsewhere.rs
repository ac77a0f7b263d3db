//! Another archive than the machine's: its address and its key, as a folder like `/etc/apt`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use protocol::{Hash, SuiteName};

use super::archive::{Error, file_error};
use crate::bounded;

/// The largest key, in bytes.
const KEY_MAX: u64 = 1 << 20;

/// An archive by address and key.
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere<'a> {
    /// The address, as in sources.list(5).
    pub url: &'a str,
    /// The file of the key that signs it, binary or armored.
    pub key: &'a Path,
    /// Components, for instance `main`.
    pub components: &'a [String],
    /// The suite.
    pub suite: &'a SuiteName,
}

impl Elsewhere<'_> {
    /// Writes the configuration below `state`, in a folder that address, key and suite name. Gives that folder: its `etc` is
    /// the configuration, the rest is for [`super::archive::Archive`].
    ///
    /// # Errors
    /// When the key cannot be read, or a word cannot stand in a configuration.
    pub fn configure(&self, state: &Path) -> Result<PathBuf, Error> {
        let key = read_key(self.key)?;
        let plain = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic());
        if !plain(self.url) || self.components.is_empty() || !self.components.iter().all(|c| plain(c)) {
            let why = "its address and components have no spaces".to_owned();
            return Err(Error::Elsewhere { url: self.url.chars().take(200).collect(), why });
        }
        let armored = key.starts_with(b"-----BEGIN PGP");
        let words = format!("{} {} {}\n", self.url, self.suite, self.components.join(" "));
        let digest = Hash::of(&[words.as_bytes(), &key[..]].concat()).short();
        let state = std::path::absolute(state).map_err(file_error("find", state))?;
        let folder = state.join("elsewhere").join(digest);
        let parts = folder.join("etc/sources.list.d");
        fs::create_dir_all(&parts).map_err(file_error("create", &parts))?;
        let key_file = folder.join(if armored { "etc/archive.asc" } else { "etc/archive.gpg" });
        fs::write(&key_file, key).map_err(file_error("write", &key_file))?;
        let stanza = format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\nSigned-By: {}\n",
            self.url,
            self.suite,
            self.components.join(" "),
            key_file.display()
        );
        let path = parts.join("archive.sources");
        fs::write(&path, stanza).map_err(file_error("write", &path))?;
        Ok(folder)
    }
}

/// Reads a key.
pub(super) fn read_key(path: &Path) -> Result<Vec<u8>, Error> {
    bounded::read(path, KEY_MAX).map_err(file_error("read", path))
}
