//! Signing with OpenSSH's own program, which knows agents, passphrases and security keys, and asks their owner where it must.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use protocol::{
    PublicKey,
    ssh::{self, Algorithm, Signature},
};

use super::{Error, Sign};

const PROGRAM: &str = "ssh-keygen";

/// A key of OpenSSH: its file, and what can be known without its secret half.
#[derive(Debug, Clone)]
pub struct Key {
    path: PathBuf,
    key: ssh::Key,
}

impl Key {
    /// Reads the text of a key file; none when it is of no kind of OpenSSH's.
    ///
    /// # Errors
    /// When it is damaged, or of a type that cannot sign here.
    pub(super) fn read(path: &Path, text: &str) -> Result<Option<Self>, Error> {
        let key = if ssh::Key::is_secret(text) {
            ssh::Key::of_secret(text)
        } else if ssh::Key::is_line(text) {
            ssh::Key::parse(text)
        } else {
            return Ok(None);
        };
        let key = key.map_err(|source| Error::Ssh { path: path.to_owned(), source })?;
        // A link may have another name; `ssh-keygen` looks for the secret half beside a file that ends in `.pub`.
        let path = path.canonicalize().map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Ok(Some(Self { path, key }))
    }

    /// Gives the public half, as OpenSSH knows it.
    pub fn ssh(&self) -> &ssh::Key {
        &self.key
    }

    fn ask(&self, namespace: &str, message: &[u8]) -> io::Result<Output> {
        let mut command = Command::new(PROGRAM);
        // Of a plain key it needs to say nothing; that a security key waits for a finger must be seen.
        if self.key.algorithm == Algorithm::Plain {
            command.arg("-q");
        }
        command.args(["-Y", "sign", "-n", namespace, "-f"]).arg(&self.path);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        // Who does not read to the end does not sign either, and says why itself.
        let _ = tell(&mut child, message);
        child.wait_with_output()
    }
}

impl Sign for Key {
    fn public(&self) -> PublicKey {
        self.key.public
    }

    fn sign(&self, kind: &str, message: &[u8]) -> Result<Vec<u8>, Error> {
        let namespace = ssh::namespace(kind);
        let output = match self.ask(&namespace, message) {
            Ok(output) if output.status.success() => output,
            Ok(output) => return Err(Error::Unsigned { path: self.path.clone(), status: output.status }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Program),
            Err(source) => return Err(Error::Read { path: PROGRAM.into(), source }),
        };
        let signature = Signature::parse(&String::from_utf8_lossy(&output.stdout));
        let checked = signature.and_then(|signature| {
            signature.verify(&self.key.public, &namespace, message)?;
            Ok(signature.to_blob())
        });
        checked.map_err(|source| Error::Ssh { path: self.path.clone(), source })
    }
}

fn tell(child: &mut Child, message: &[u8]) -> io::Result<()> {
    // Taken, so that it is closed at the end: until then the message goes on.
    child.stdin.take().map_or(Ok(()), |mut input| input.write_all(message))
}
