//! Witnesses: who countersigns a log's checkpoints, and what makes it refuse (C2SP tlog-witness v1.0.0, `add-checkpoint`).
//!
//! ```text
//!  POST <prefix>/add-checkpoint: old <size>, up to 63 hashes, an empty line, the checkpoint
//!
//!  bytes --Request::read--> Request --decide(log's keys, latest)--> Accepted --cosign(time)--> Cosigned
//!              400                    400 403 404 409 422                        200, once it is durable
//! ```
//! The decision is a function; the memory is the caller's. *Reading the latest checkpoint, deciding and storing the new one
//! is one transaction*, or two requests at a time could roll the log back; and what is cosigned is stored before it is said.

use std::fmt;

use ed25519_dalek::SigningKey;
use protocol::{Sha256, Timestamp};

use super::{
    checkpoint::{self, CheckpointError, Signed, Verified},
    conflict::Conflict,
    note::{KeyName, Line, NOTE_MAX, VerifierKey},
    tree::{self, Head, PROOF_MAX, ProofError},
};

/// The largest request, in bytes.
pub const REQUEST_MAX: usize = NOTE_MAX + 64 * (PROOF_MAX + 1);
/// The content type of the answer that names the latest size, with status 409.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";

/// Why bytes are no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// More bytes than allowed.
    #[error("request of {got} bytes is over the limit of {REQUEST_MAX}")]
    TooLarge {
        /// Bytes found.
        got: usize,
    },
    /// Not the form of a request.
    #[error("not a request to add a checkpoint: {0}")]
    Form(&'static str),
    /// What follows the empty line is no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// A log's request to be cosigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    old: u64,
    proof: Vec<Sha256>,
    checkpoint: Signed,
}

impl Request {
    /// Asks for a cosignature, given the size that the witness saw last and the proof from there.
    pub fn new(old: u64, proof: Vec<Sha256>, checkpoint: &Verified) -> Self {
        Self { old, proof, checkpoint: checkpoint.as_signed().clone() }
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`RequestError`], which is answered with status 400.
    pub fn read(bytes: &[u8]) -> Result<Self, RequestError> {
        if bytes.len() > REQUEST_MAX {
            return Err(RequestError::TooLarge { got: bytes.len() });
        }
        let text = str::from_utf8(bytes).map_err(|_| RequestError::Form("it is not UTF-8"))?;
        let (head, note) = text.split_once("\n\n").ok_or(RequestError::Form("no empty line before its checkpoint"))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| checkpoint::decimal(line.strip_prefix("old ")?));
        let old = old.ok_or(RequestError::Form("its first line is `old` and a size"))?;
        let proof = lines.map(checkpoint::hash).collect::<Option<Vec<Sha256>>>();
        let proof = proof.ok_or(RequestError::Form("a line of its proof is not 32 bytes in base64"))?;
        if proof.len() > PROOF_MAX {
            return Err(RequestError::Form("its proof has more than 63 hashes"));
        }
        Ok(Self { old, proof, checkpoint: Signed::read(note.as_bytes())? })
    }

    /// Gives the log that the request says it is of, for looking its keys and its latest checkpoint up.
    pub fn origin(&self) -> &str {
        self.checkpoint.claims().origin()
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{}", checkpoint::base64(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// Why a witness does not cosign. [`Refusal::status`] and [`Refusal::body`] are its answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request cannot be read.
    #[error(transparent)]
    Malformed(#[from] RequestError),
    /// A log that this witness does not know.
    #[error("this witness does not know the log {0:?}")]
    UnknownLog(String),
    /// The log did not sign it.
    #[error("the log did not sign the checkpoint")]
    NotSigned(#[source] CheckpointError),
    /// The checkpoint is older than what the request says was seen.
    #[error("a checkpoint of {size} entries cannot follow one of {old}")]
    Backwards {
        /// The old size, as the request says it.
        old: u64,
        /// The checkpoint's size.
        size: u64,
    },
    /// The witness has seen another size last.
    #[error("the latest checkpoint that this witness cosigned has {latest} entries")]
    Stale {
        /// The size that it saw last.
        latest: u64,
    },
    /// The checkpoint does not continue what was seen. Nobody ever cosigns that.
    #[error("the checkpoint does not continue the one of {old} entries that this witness cosigned")]
    Inconsistent {
        /// The size that it saw last.
        old: u64,
        /// The checkpoint's size.
        size: u64,
        /// Why the proof proves nothing.
        #[source]
        why: ProofError,
        /// Evidence that the log forked, where the request brought it along.
        evidence: Option<Box<Conflict>>,
    },
}

impl Refusal {
    /// Gives the HTTP status code.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Malformed(_) | Refusal::Backwards { .. } => 400,
            Refusal::NotSigned(_) => 403,
            Refusal::UnknownLog(_) => 404,
            Refusal::Stale { .. } => 409,
            // Of one size there is one root; what else is wrong is the proof.
            Refusal::Inconsistent { why: ProofError::Root { .. }, old, size, .. } if old == size => 409,
            Refusal::Inconsistent { .. } => 422,
        }
    }

    /// Gives the content type of [`Refusal::body`].
    pub fn content_type(&self) -> &'static str {
        match self {
            Refusal::Stale { .. } => SIZE_CONTENT_TYPE,
            Refusal::Malformed(_)
            | Refusal::Backwards { .. }
            | Refusal::NotSigned(_)
            | Refusal::UnknownLog(_)
            | Refusal::Inconsistent { .. } => "text/plain; charset=utf-8",
        }
    }

    /// Gives the body: of 409 the latest size for programs, else a sentence for people.
    pub fn body(&self) -> String {
        match self {
            Refusal::Stale { latest } => format!("{latest}\n"),
            Refusal::Malformed(_)
            | Refusal::Backwards { .. }
            | Refusal::NotSigned(_)
            | Refusal::UnknownLog(_)
            | Refusal::Inconsistent { .. } => format!("{self}\n"),
        }
    }
}

/// Reads the size out of an answer of status 409.
pub fn latest_size(body: &str) -> Option<u64> {
    checkpoint::decimal(body.strip_suffix('\n')?)
}

/// Gives the path below the monitoring prefix at which a witness shows what it cosigned last of a log.
pub fn monitor_path(origin: &str) -> String {
    format!("{}/checkpoint", Sha256::of(origin.as_bytes()))
}

/// A checkpoint that may be cosigned, if nothing else was in the meantime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    checkpoint: Verified,
}

/// A cosigned checkpoint: store it, then answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    line: Line,
    checkpoint: Verified,
}

/// Decides whether a checkpoint may be cosigned: by the keys of the log that it names (none where the log is unknown), and
/// by the checkpoint that this witness cosigned last for that log, as it was stored.
///
/// # Errors
/// [`Refusal`], by the first rule that is broken, in the order of the specification.
pub fn decide(request: &Request, log: &[VerifierKey], latest: Option<&Signed>) -> Result<Accepted, Refusal> {
    if log.is_empty() {
        return Err(Refusal::UnknownLog(request.origin().chars().take(80).collect()));
    }
    let checkpoint = request.checkpoint.clone().verify(log).map_err(Refusal::NotSigned)?;
    let (old, size) = (request.old, checkpoint.head().size);
    if old > size {
        return Err(Refusal::Backwards { old, size });
    }
    let seen = latest.map_or(Head::empty(), |latest| latest.claims().head());
    if old != seen.size {
        return Err(Refusal::Stale { latest: seen.size });
    }
    match tree::check_consistency(seen, checkpoint.head(), &request.proof) {
        Ok(()) => Ok(Accepted { checkpoint }),
        Err(why) => {
            let older = latest.and_then(|latest| latest.clone().verify(log).ok());
            let evidence = older.and_then(|older| Conflict::find(&older, &checkpoint, &request.proof));
            Err(Refusal::Inconsistent { old, size, why, evidence: evidence.map(Box::new) })
        }
    }
}

impl Accepted {
    /// Gives the body of the answer that was given for the same checkpoint already, where this witness's cosignature in the
    /// stored one is of `since` or later.
    pub fn cosigned_since(
        &self,
        stored: Signed,
        log: &[VerifierKey],
        witness: &VerifierKey,
        since: Timestamp,
    ) -> Option<String> {
        let stored = stored.verify(log).ok().filter(|stored| stored.head() == self.checkpoint.head())?;
        let seen = stored.cosigners(std::slice::from_ref(witness)).ok()?;
        let lines = stored.as_signed().note().lines();
        let own = lines.iter().find(|line| line.is_by(witness));
        own.filter(|_| seen.iter().any(|seen| seen.at >= since)).map(Line::to_string)
    }

    /// Cosigns.
    ///
    /// # Panics
    /// In 1970: a cosignature names a time.
    pub fn cosign(&self, name: &KeyName, key: &SigningKey, at: Timestamp) -> Cosigned {
        assert!(at.as_secs() > 0, "a cosignature names a time");
        let bare = self.checkpoint.bare();
        let line = Line::cosign(name, key, bare.as_signed().note().text(), at);
        Cosigned { checkpoint: bare.with_line(line.clone()), line }
    }
}

impl Cosigned {
    /// Gives what to store as the latest, and to show to monitors: the checkpoint with the signatures of the log and of this
    /// witness.
    pub fn checkpoint(&self) -> &Verified {
        &self.checkpoint
    }

    /// Gives the body of the answer with status 200. It may be sent once the checkpoint is stored.
    pub fn body(&self) -> String {
        self.line.to_string()
    }
}

#[cfg(test)]
mod tests;
