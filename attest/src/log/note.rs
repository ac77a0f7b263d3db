//! Signed notes: a text and who signed it, as lines that people can read (C2SP signed-note v1.0.0).
//!
//! ```text
//!  text, ending with a newline
//!
//!  — <key name> base64(4 bytes of key id, signature)
//! ```
//! Two of the assigned signature types are understood: Ed25519 over the text (`0x01`, a log's) and the timestamped Ed25519
//! cosignature (`0x04`, a witness's; tlog-cosignature v1.0.1). Lines of other types and of unknown keys are carried along.
//! A known key whose signature does not verify spoils the whole note.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use protocol::{PublicKey, Sha256, Timestamp, envelope::verify_ed25519};

/// The largest note, in bytes.
pub const NOTE_MAX: usize = 256 * 1024;
/// Signature lines of one note; the format asks for 16 at least.
pub const LINES_MAX: usize = 64;
/// The longest key name, in bytes.
pub const NAME_MAX: usize = 255;
/// How a signature line begins.
const DASH: &str = "\u{2014} ";
/// The latest second that a cosignature may name.
const SECOND_MAX: u64 = i64::MAX as u64;

/// Why a note, or a key for notes, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// More bytes than allowed.
    #[error("note of {got} bytes is over the limit of {NOTE_MAX}")]
    TooLarge {
        /// Bytes found.
        got: usize,
    },
    /// Not the form of a note.
    #[error("not a signed note: {0}")]
    Form(&'static str),
    /// A key name breaks the rules.
    #[error("key name {0:?} is not valid: it has no spaces, no plus, and up to {NAME_MAX} bytes")]
    Name(String),
    /// A verifier key cannot be read.
    #[error("not a verifier key: {0}")]
    Key(&'static str),
    /// A signature by a known key does not verify.
    #[error("the signature by {0} does not verify")]
    BadSignature(KeyName),
    /// Nobody whom we know signed.
    #[error("no known key signed the note")]
    Unsigned,
}

/// Who signs: by convention a URL without a scheme. With the key's id it finds the key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyName(Box<str>);

impl FromStr for KeyName {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let refused = |c: char| c.is_whitespace() || c.is_control() || c == '+';
        if text.is_empty() || text.len() > NAME_MAX || text.contains(refused) {
            return Err(NoteError::Name(text.chars().take(80).collect()));
        }
        Ok(Self(text.into()))
    }
}

impl KeyName {
    /// Gives the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a key's signatures say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// The text, by Ed25519: how a log signs.
    Ed25519,
    /// That a checkpoint was the newest that was seen at a time, by Ed25519: how a witness signs.
    Cosignature,
}

impl Algorithm {
    const fn byte(self) -> u8 {
        match self {
            Algorithm::Ed25519 => 0x01,
            Algorithm::Cosignature => 0x04,
        }
    }
}

/// A key that notes are checked with, written as a *vkey*: `name+hex(id)+base64(type, key)`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VerifierKey {
    name: KeyName,
    algorithm: Algorithm,
    key: PublicKey,
}

impl VerifierKey {
    /// Takes the parts of a key.
    pub fn new(name: KeyName, algorithm: Algorithm, key: PublicKey) -> Self {
        Self { name, algorithm, key }
    }

    /// Gives the name.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// Gives what its signatures say.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Gives the public key: two verifier keys with the same one are one signer.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Gives the key's id: the first four bytes of SHA-256 over name, newline, type and key.
    pub fn id(&self) -> [u8; 4] {
        let bytes = [self.name.0.as_bytes(), b"\n", &[self.algorithm.byte()], self.key.as_bytes()].concat();
        *Sha256::of(&bytes).as_bytes().first_chunk().expect("a digest has more than four bytes")
    }

    fn material(&self) -> Vec<u8> {
        [&[self.algorithm.byte()], &self.key.as_bytes()[..]].concat()
    }

    /// Checks one signature over a text and gives the time that it names; a signature without a time names none.
    fn check(&self, text: &str, signature: &[u8]) -> Option<Option<Timestamp>> {
        match self.algorithm {
            Algorithm::Ed25519 => verify_ed25519(&self.key, text.as_bytes(), signature).ok().map(|()| None),
            Algorithm::Cosignature => {
                let (seconds, signature) = signature.split_first_chunk()?;
                let seconds = u64::from_be_bytes(*seconds);
                verify_ed25519(&self.key, &cosigned_message(text, seconds), signature).ok()?;
                let at = Timestamp::from_millis(seconds.saturating_mul(1000));
                (seconds <= SECOND_MAX).then_some(Some(at))
            }
        }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}+{}", self.name, HEXLOWER.encode(&self.id()), STANDARD.encode(self.material()))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let parts: Vec<&str> = text.splitn(3, '+').collect();
        let [name, id, material] = parts[..] else { return Err(NoteError::Key("it has three parts joined by +")) };
        let name: KeyName = name.parse()?;
        let material = STANDARD.decode(material).map_err(|_| NoteError::Key("its last part is base64"))?;
        let (algorithm, key) = match material.split_first() {
            Some((0x01, key)) => (Algorithm::Ed25519, key),
            Some((0x04, key)) => (Algorithm::Cosignature, key),
            Some(_) => return Err(NoteError::Key("only the types 1 (Ed25519) and 4 (cosignature) are known here")),
            None => return Err(NoteError::Key("it holds no key")),
        };
        let key: [u8; 32] = key.try_into().map_err(|_| NoteError::Key("an Ed25519 key has 32 bytes"))?;
        VerifyingKey::from_bytes(&key).map_err(|_| NoteError::Key("these bytes are no Ed25519 key"))?;
        let key = Self { name, algorithm, key: PublicKey::from_bytes(key) };
        if HEXLOWER.encode(&key.id()) == id { Ok(key) } else { Err(NoteError::Key("its id is that of another key")) }
    }
}

/// What a cosigner signs: a header, the time, and the checkpoint's text.
fn cosigned_message(text: &str, seconds: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {seconds}\n{text}").into_bytes()
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    name: KeyName,
    id: [u8; 4],
    signature: Vec<u8>,
}

impl Line {
    /// Signs a text.
    pub fn sign(name: &KeyName, key: &SigningKey, text: &str) -> Self {
        Self::by(name, Algorithm::Ed25519, key, key.sign(text.as_bytes()).to_bytes().to_vec())
    }

    /// Cosigns a checkpoint's text: it is the newest that this cosigner has seen, at this time (whole seconds).
    pub fn cosign(name: &KeyName, key: &SigningKey, text: &str, at: Timestamp) -> Self {
        let signature = key.sign(&cosigned_message(text, at.as_secs())).to_bytes();
        Self::by(name, Algorithm::Cosignature, key, [&at.as_secs().to_be_bytes(), &signature[..]].concat())
    }

    fn by(name: &KeyName, algorithm: Algorithm, key: &SigningKey, signature: Vec<u8>) -> Self {
        let public = PublicKey::from_bytes(key.verifying_key().to_bytes());
        let id = VerifierKey::new(name.clone(), algorithm, public).id();
        Self { name: name.clone(), id, signature }
    }

    /// Reads a line, without its newline.
    fn read(line: &str) -> Result<Self, NoteError> {
        let rest = line.strip_prefix(DASH).ok_or(NoteError::Form("a signature line begins with a dash and a space"))?;
        let (name, signature) =
            rest.split_once(' ').ok_or(NoteError::Form("a signature line has a name and base64"))?;
        let bytes = STANDARD.decode(signature).map_err(|_| NoteError::Form("a signature is not base64"))?;
        match bytes.split_first_chunk() {
            Some((id, signature @ [_, ..])) => Ok(Self { name: name.parse()?, id: *id, signature: signature.to_vec() }),
            _ => Err(NoteError::Form("a signature has a key id of four bytes and a signature behind it")),
        }
    }

    /// Reads lines that each end with a newline: what stands below a note's text, or what a witness answers.
    ///
    /// # Errors
    /// [`NoteError`]; also for no line, and for more than [`LINES_MAX`].
    pub fn read_all(text: &str) -> Result<Vec<Self>, NoteError> {
        let lines = text.strip_suffix('\n').ok_or(NoteError::Form("a signature line ends with a newline"))?;
        if lines.split('\n').count() > LINES_MAX {
            return Err(NoteError::Form("it has too many signature lines"));
        }
        lines.split('\n').map(Self::read).collect()
    }

    /// Gives the name of the key that is said to have signed.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// Says whether the line is by this key, going by name and id; whether it verifies is another question.
    pub fn is_by(&self, key: &VerifierKey) -> bool {
        self.name == key.name && self.id == key.id()
    }
}

impl fmt::Display for Line {
    /// With its newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.id, &self.signature[..]].concat();
        writeln!(f, "{DASH}{} {}", self.name, STANDARD.encode(bytes))
    }
}

/// A text with signature lines, believed by nobody yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    lines: Vec<Line>,
}

impl Note {
    /// Puts a text and its lines together.
    ///
    /// # Errors
    /// [`NoteError`] where that is no note, for instance because the text does not end with a newline.
    pub fn new(text: String, lines: Vec<Line>) -> Result<Self, NoteError> {
        let note = Self { text, lines };
        if Self::read(note.to_string().as_bytes())? == note {
            Ok(note)
        } else {
            Err(NoteError::Form("its text cannot be told from its signatures"))
        }
    }

    /// Reads a note: size, characters and form.
    ///
    /// # Errors
    /// [`NoteError`]; no signature is checked here.
    pub fn read(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_MAX {
            return Err(NoteError::TooLarge { got: bytes.len() });
        }
        let note = str::from_utf8(bytes).map_err(|_| NoteError::Form("it is not UTF-8"))?;
        if note.contains(|c: char| c < ' ' && c != '\n') {
            return Err(NoteError::Form("it has control characters"));
        }
        let end = note.rfind("\n\n").ok_or(NoteError::Form("no empty line before its signatures"))?;
        let (text, lines) = (&note[..=end], &note[end + 2..]);
        Ok(Self { text: text.to_owned(), lines: Line::read_all(lines)? })
    }

    /// Gives the text, with its last newline. It says nothing until a key that is known has signed it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Gives the signature lines.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Gives those of the known keys that signed, each with the time that it names where it is a cosigner's, in the
    /// order of `known`. A key counts once, whatever it signed.
    ///
    /// # Errors
    /// [`NoteError::BadSignature`] where a known key's signature does not verify.
    pub fn signers<'a>(
        &self,
        known: &'a [VerifierKey],
    ) -> Result<Vec<(&'a VerifierKey, Option<Timestamp>)>, NoteError> {
        let mut signers = Vec::new();
        for key in known {
            let mut newest = None;
            for line in self.lines.iter().filter(|line| line.is_by(key)) {
                let at = key.check(&self.text, &line.signature);
                newest = newest.max(Some(at.ok_or_else(|| NoteError::BadSignature(key.name.clone()))?));
            }
            signers.extend(newest.map(|at| (key, at)));
        }
        Ok(signers)
    }

    /// Gives the same note with more lines; lines that are there already are left out.
    ///
    /// # Errors
    /// [`NoteError`] where there are too many.
    pub fn with(&self, lines: impl IntoIterator<Item = Line>) -> Result<Self, NoteError> {
        let mut all = self.lines.clone();
        for line in lines {
            if !all.contains(&line) {
                all.push(line);
            }
        }
        Self::new(self.text.clone(), all)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.lines.iter().try_for_each(|line| line.fmt(f))
    }
}

#[cfg(test)]
mod tests;
