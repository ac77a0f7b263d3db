//! Proofs beside a file: an entry was logged, and witnesses saw the log, checked without asking anybody (C2SP tlog-proof).
//!
//! ```text
//!  c2sp.org/tlog-proof@v1
//!  extra <base64>              here the entry itself, which says what was logged
//!  index <place>
//!  <base64 hash>...            from the entry's sibling to the root's child
//!
//!  <checkpoint, with the signatures of log and witnesses>
//! ```
//! The file is named as what it proves, with `.tlog-proof` behind it. Whoever checks it holds a [`Policy`] and nothing else;
//! what the entry says about the file, for instance by the hash of an attestation, is checked by the caller.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use protocol::Sha256;

use super::{
    checkpoint::{self, CheckpointError, Signed},
    entry::{Entry, EntryError},
    note::NOTE_MAX,
    policy::{Policy, PolicyError, Witnessed},
    tree::{self, PROOF_MAX, ProofError},
};

/// The first line.
const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// The longest extra data, in bytes.
pub const EXTRA_MAX: usize = 64 * 1024;
/// The largest file, in bytes.
pub const FILE_MAX: usize = NOTE_MAX + 2 * EXTRA_MAX + 64 * (PROOF_MAX + 2);
/// How the file's name ends.
pub const SUFFIX: &str = ".tlog-proof";

/// A proof from outside: believed by nobody yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    extra: Option<Vec<u8>>,
    index: u64,
    path: Vec<Sha256>,
    checkpoint: Signed,
}

/// Why bytes are no proof, or prove nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More bytes than allowed.
    #[error("proof of {got} bytes is over the limit of {FILE_MAX}")]
    TooLarge {
        /// Bytes found.
        got: usize,
    },
    /// Not the form of a proof.
    #[error("not a transparency proof: {0}")]
    Form(&'static str),
    /// Its last part is no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The policy does not accept the checkpoint.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The entry is not in that log.
    #[error("the entry is not in the log that the checkpoint signs for")]
    Inclusion(#[from] ProofError),
    /// The extra data is no entry of ours.
    #[error("the proof brings no entry along that can be read")]
    Entry(#[source] EntryError),
    /// There is no extra data.
    #[error("the proof does not bring its entry along")]
    NoEntry,
}

/// That something was logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its place in the log, from 0.
    pub index: u64,
    /// The checkpoint that it is in, and who saw it.
    pub witnessed: Witnessed,
}

impl Proof {
    /// Makes a proof of an entry of ours, which it brings along.
    pub fn of_entry(entry: &Entry, index: u64, path: Vec<Sha256>, checkpoint: Signed) -> Self {
        Self { extra: Some(entry.to_bytes()), index, path, checkpoint }
    }

    /// Makes a proof of something that the checker knows.
    pub fn new(index: u64, path: Vec<Sha256>, checkpoint: Signed) -> Self {
        Self { extra: None, index, path, checkpoint }
    }

    /// Reads a proof.
    ///
    /// # Errors
    /// [`Error`]; nothing is checked here but its form.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > FILE_MAX {
            return Err(Error::TooLarge { got: bytes.len() });
        }
        let text = str::from_utf8(bytes).map_err(|_| Error::Form("it is not UTF-8"))?;
        let (head, note) = text.split_once("\n\n").ok_or(Error::Form("no empty line before its checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(Error::Form("its first line is another one"));
        }
        let extra = lines.next_if(|line| line.starts_with("extra ")).map(|line| STANDARD.decode(&line[6..]));
        let extra = extra.transpose().map_err(|_| Error::Form("its extra data is not base64"))?;
        if extra.as_ref().is_some_and(|extra| extra.len() > EXTRA_MAX) {
            return Err(Error::Form("its extra data is too long"));
        }
        let index = lines.next().and_then(|line| checkpoint::decimal(line.strip_prefix("index ")?));
        let index = index.ok_or(Error::Form("it names no place in the log"))?;
        let path = lines.map(checkpoint::hash).collect::<Option<Vec<Sha256>>>();
        let path = path.ok_or(Error::Form("a line of its path is not 32 bytes in base64"))?;
        if path.len() > PROOF_MAX {
            return Err(Error::Form("its path is too long"));
        }
        Ok(Self { extra, index, path, checkpoint: Signed::read(note.as_bytes())? })
    }

    /// Gives the place that it claims, which nobody has checked yet.
    pub fn claimed_index(&self) -> u64 {
        self.index
    }

    /// Gives how many entries the log had, by its checkpoint, which nobody has checked yet.
    pub fn claimed_size(&self) -> u64 {
        self.checkpoint.claims().head().size
    }

    /// Checks that these bytes were logged, in a log and before witnesses that the policy names.
    ///
    /// # Errors
    /// [`Error`].
    pub fn check(&self, entry: &[u8], policy: &Policy) -> Result<Logged, Error> {
        let witnessed = policy.check(self.checkpoint.clone())?;
        tree::check_inclusion(tree::leaf(entry), self.index, witnessed.checkpoint.head(), &self.path)?;
        Ok(Logged { index: self.index, witnessed })
    }

    /// Checks that the entry was logged which the proof brings along, and gives it: it may be believed then, not before.
    ///
    /// # Errors
    /// [`Error`].
    pub fn entry(&self, policy: &Policy) -> Result<(Entry, Logged), Error> {
        let bytes = self.extra.as_ref().ok_or(Error::NoEntry)?;
        let logged = self.check(bytes, policy)?;
        Ok((Entry::from_bytes(bytes).map_err(Error::Entry)?, logged))
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        self.extra.iter().try_for_each(|extra| writeln!(f, "extra {}", STANDARD.encode(extra)))?;
        writeln!(f, "index {}", self.index)?;
        self.path.iter().try_for_each(|hash| writeln!(f, "{}", checkpoint::base64(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests;
