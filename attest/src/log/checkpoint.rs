//! Checkpoints: a log's head, signed as a note (C2SP tlog-checkpoint v1.0.0).
//!
//! ```text
//!  bytes --Signed::read--> Signed --verify(log's keys)--> Verified --cosigners(witnesses' keys)--> who saw it, and when
//! ```
//! The first line is the log's *origin*, which is also the name of its key: a checkpoint signed under another name is
//! refused. Then come the size and the root; lines behind them are carried along and mean nothing here.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::SigningKey;
use protocol::{Sha256, Timestamp};

use super::{
    note::{Algorithm, KeyName, Line, Note, NoteError, VerifierKey},
    tree::{Head, SIZE_MAX},
};

/// Lines behind the root.
pub const EXTENSIONS_MAX: usize = 16;

/// Why a checkpoint was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// No note, or a signature that does not verify, or none by the log.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The note's text is no checkpoint.
    #[error("not a checkpoint: {0}")]
    Form(&'static str),
}

/// What a log says about itself at one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    head: Head,
    extensions: Vec<String>,
}

impl Checkpoint {
    /// Reads the text of a checkpoint's note.
    ///
    /// # Errors
    /// [`CheckpointError::Form`].
    pub fn read(text: &str) -> Result<Self, CheckpointError> {
        let lines = text.strip_suffix('\n').ok_or(CheckpointError::Form("it ends with a newline"))?;
        let mut lines = lines.split('\n');
        let mut next =
            || lines.next().filter(|line| !line.is_empty()).ok_or(CheckpointError::Form("it has three lines"));
        let (origin, size, root) = (next()?, next()?, next()?);
        let head = Head {
            size: decimal(size).ok_or(CheckpointError::Form("its size is a number without leading zeroes"))?,
            root: hash(root).ok_or(CheckpointError::Form("its root is 32 bytes in base64"))?,
        };
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if extensions.len() > EXTENSIONS_MAX || extensions.iter().any(String::is_empty) {
            return Err(CheckpointError::Form("the lines behind its root are few and not empty"));
        }
        Ok(Self { origin: origin.to_owned(), head, extensions })
    }

    /// Gives which log it is.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Gives size and root.
    pub fn head(&self) -> Head {
        self.head
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.head.size, base64(&self.head.root))?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Reads a number as these formats write it: decimal, without sign or leading zeroes, at most [`SIZE_MAX`].
pub(super) fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number <= SIZE_MAX && number.to_string() == text).then_some(number)
}

/// Reads a hash in its one spelling of base64.
pub(super) fn hash(text: &str) -> Option<Sha256> {
    Some(Sha256::from_bytes(STANDARD.decode(text).ok()?.try_into().ok()?))
}

/// Writes a hash.
pub(super) fn base64(hash: &Sha256) -> String {
    STANDARD.encode(hash.as_bytes())
}

/// A checkpoint from outside, with its signatures: believed by nobody yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    checkpoint: Checkpoint,
    note: Note,
}

impl Signed {
    /// Signs a head as the log of this name.
    ///
    /// # Panics
    /// Beyond [`SIZE_MAX`] entries.
    pub fn sign(origin: &KeyName, head: Head, key: &SigningKey) -> Self {
        assert!(head.size <= SIZE_MAX, "a log has at most {SIZE_MAX} entries");
        let checkpoint = Checkpoint { origin: origin.to_string(), head, extensions: Vec::new() };
        let line = Line::sign(origin, key, &checkpoint.to_string());
        let note = Note::new(checkpoint.to_string(), vec![line]).expect("three lines and a signature are a note");
        Self { checkpoint, note }
    }

    /// Reads a checkpoint with its signatures.
    ///
    /// # Errors
    /// [`CheckpointError`]; no signature is checked here.
    pub fn read(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let note = Note::read(bytes)?;
        Ok(Self { checkpoint: Checkpoint::read(note.text())?, note })
    }

    /// Gives what it says, for choosing the keys to verify it with.
    pub fn claims(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Gives the note.
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Checks the log's signature. Of the keys only those count that sign as logs and bear the origin's name.
    ///
    /// # Errors
    /// [`CheckpointError::Note`].
    pub fn verify(self, log: &[VerifierKey]) -> Result<Verified, CheckpointError> {
        let of_log =
            |key: &&VerifierKey| key.algorithm() == Algorithm::Ed25519 && key.name().as_str() == self.checkpoint.origin;
        let log: Vec<VerifierKey> = log.iter().filter(of_log).cloned().collect();
        if self.note.signers(&log)?.is_empty() {
            return Err(NoteError::Unsigned.into());
        }
        Ok(Verified { log, signed: self })
    }
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

/// A checkpoint that its log signed. Who else saw it is the policy's question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    log: Vec<VerifierKey>,
    signed: Signed,
}

/// A witness that saw a checkpoint, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The witness's key.
    pub witness: VerifierKey,
    /// When it cosigned, in whole seconds.
    pub at: Timestamp,
}

impl Verified {
    /// Gives what it says.
    pub fn get(&self) -> &Checkpoint {
        &self.signed.checkpoint
    }

    /// Gives size and root.
    pub fn head(&self) -> Head {
        self.signed.checkpoint.head
    }

    /// Gives the checkpoint as from outside again, to hand it on.
    pub fn as_signed(&self) -> &Signed {
        &self.signed
    }

    /// Gives which of these witnesses cosigned, in their order.
    ///
    /// # Errors
    /// [`NoteError::BadSignature`] where one of them did not sign what is said to be its cosignature.
    pub fn cosigners(&self, witnesses: &[VerifierKey]) -> Result<Vec<Seen>, NoteError> {
        let signers = self.signed.note.signers(witnesses)?;
        let seen = signers.into_iter().filter_map(|(key, at)| Some(Seen { witness: key.clone(), at: at? }));
        Ok(seen.collect())
    }

    /// Adds what a witness answered: its own cosignatures are kept where they verify, all other lines are left out.
    ///
    /// # Errors
    /// [`NoteError`] where the answer is not made of signature lines, or a cosignature of this witness does not verify.
    pub fn with_answer(&self, answer: &str, witness: &[VerifierKey]) -> Result<Self, NoteError> {
        let lines = Line::read_all(answer)?;
        let known = lines.into_iter().filter(|line| witness.iter().any(|key| line.is_by(key)));
        let signed = Signed { note: self.signed.note.with(known)?, ..self.signed.clone() };
        signed.note.signers(witness)?;
        Ok(Self { signed, ..self.clone() })
    }

    /// Gives the same checkpoint with one line more.
    pub(super) fn with_line(&self, line: Line) -> Self {
        let note = self.signed.note.with([line]).expect("a note that was made bare has room");
        Self { signed: Signed { note, ..self.signed.clone() }, ..self.clone() }
    }

    /// Gives the same checkpoint with the log's own signatures only, one by each key: what a witness keeps.
    pub(super) fn bare(&self) -> Self {
        let note = &self.signed.note;
        let own = self.log.iter().filter_map(|key| note.lines().iter().find(|line| line.is_by(key))).cloned();
        let note = Note::new(note.text().to_owned(), own.collect()).expect("a part of a note's lines is a note");
        Self { signed: Signed { note, ..self.signed.clone() }, ..self.clone() }
    }
}

#[cfg(test)]
mod tests;
