//! Further repositories beside the machine's own, which a maintainer names by address and key: above all this network's.

use std::path::PathBuf;

use protocol::FileName;

use super::archive::{Archive, Error, file_error};

/// One repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Where it is, as in sources.list(5).
    pub uri: String,
    /// The suite, as the address has it.
    pub suite: String,
    /// Its components.
    pub components: Vec<String>,
    /// The name of the key's file: it ends in `.gpg`, or in `.asc` when it is text.
    pub key_name: FileName,
    /// The OpenPGP key that signs it.
    pub key: Vec<u8>,
}

impl Repository {
    /// Writes the repository as a stanza, with the key in the given folder.
    pub fn stanza(&self, keys: &str) -> String {
        let place = if self.suite.ends_with('/') {
            String::new()
        } else {
            format!("Components: {}\n", self.components.join(" "))
        };
        format!("Types: deb\nURIs: {}\nSuites: {}\n{place}Signed-By: {keys}/{}\n", self.uri, self.suite, self.key_name)
    }
}

/// Opens the archive together with further repositories; apt checks each against its own key. Without any it is the same.
///
/// # Errors
/// As [`Archive::open`].
pub fn with(archive: &Archive, repositories: &[Repository]) -> Result<Archive, Error> {
    if repositories.is_empty() {
        return Ok(archive.clone());
    }
    let keys: PathBuf = archive.path("keys");
    std::fs::create_dir_all(&keys).map_err(file_error("create", &keys))?;
    let mut stanzas = String::new();
    for repository in repositories {
        // Named after its content: two recipes may call two keys the same.
        let name = format!("{}-{}", protocol::Hash::of(&repository.key).short(), repository.key_name);
        let path = keys.join(&name);
        std::fs::write(&path, &repository.key).map_err(file_error("write", &path))?;
        let named = FileName::new(&name).map_err(|_| Error::Index(format!("{name} is too long for a key's file")))?;
        // From file: apt would use packages in place; from copy: it brings them to where the lock's files lie.
        let uri = repository.uri.strip_prefix("file:").map_or(repository.uri.clone(), |path| format!("copy:{path}"));
        let local = Repository { uri, key_name: named, ..repository.clone() };
        stanzas += &format!("\n{}", local.stanza(&keys.display().to_string()));
    }
    archive.together_with(&stanzas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_repository_has_no_components() {
        let repository = |suite: &str| Repository {
            uri: "https://a.example/d".into(),
            suite: suite.into(),
            components: vec!["main".into()],
            key_name: FileName::new("a.asc").unwrap(),
            key: Vec::new(),
        };
        let head = |suite: &str| format!("Types: deb\nURIs: https://a.example/d\nSuites: {suite}\n");
        assert_eq!(repository("s").stanza("/k"), head("s") + "Components: main\nSigned-By: /k/a.asc\n");
        assert_eq!(repository("./").stanza("/k"), head("./") + "Signed-By: /k/a.asc\n");
    }
}
