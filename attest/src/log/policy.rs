//! Which logs and witnesses are believed, and how many witnesses must have seen a checkpoint (C2SP tlog-policy).
//!
//! ```text
//!  log <vkey> [<url>]
//!  witness <name> <vkey> [<url>]
//!  group <name> <k|any|all> <name>...
//!  quorum <name|none>
//! ```
//! Groups of groups give one operator one vote, however many witnesses it runs: [`Policy::of_operators`] writes such a
//! policy, a group `any` for each operator and a group of k over all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use protocol::{OperatorName, PublicKey};

use super::{
    checkpoint::{CheckpointError, Seen, Signed, Verified},
    note::{Algorithm, NoteError, VerifierKey},
};

/// The largest policy, in bytes.
pub const POLICY_MAX: usize = 512 * 1024;
/// Logs, witnesses and groups of one policy; the format asks for 32 of each at least.
pub const LINES_MAX: usize = 1024;

/// Why a policy was refused, or a checkpoint by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// More bytes than allowed.
    #[error("policy of {got} bytes is over the limit of {POLICY_MAX}")]
    TooLarge {
        /// Bytes found.
        got: usize,
    },
    /// A line breaks a rule.
    #[error("line {line} of the log policy: {why}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// The rule.
        why: LineError,
    },
    /// There is no quorum line.
    #[error("the log policy has no quorum line; write `quorum none` to ask for no witness")]
    NoQuorum,
    /// No log that the policy names signed the checkpoint.
    #[error("the checkpoint is of no log that the policy names")]
    Checkpoint(#[from] CheckpointError),
    /// Too few witnesses saw the checkpoint.
    #[error("the witnesses that cosigned the checkpoint ({seen} known) are no quorum")]
    Quorum {
        /// How many known witnesses cosigned.
        seen: usize,
    },
}

/// Which rule a line breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// A character that has no place in a policy.
    #[error("it has a control character")]
    Character,
    /// An unknown kind of line, or too few or too many words.
    #[error("expected `log VKEY [URL]`, `witness NAME VKEY [URL]`, `group NAME K|any|all NAME...` or `quorum NAME`")]
    Form,
    /// More lines than allowed.
    #[error("at most {LINES_MAX} logs, witnesses and groups are read")]
    TooMany,
    /// A key that cannot be read.
    #[error(transparent)]
    Key(#[from] NoteError),
    /// A witness's key for a log, or the other way round.
    #[error("a log's key is of type 1 and a witness's of type 4")]
    Algorithm,
    /// A key for the second time: one key has one vote.
    #[error("this public key stands in another line already")]
    DuplicateKey,
    /// A name for the second time.
    #[error("the name {0} is taken")]
    Taken(Name),
    /// A name that no line before defines.
    #[error("no line before defines {0}")]
    Unknown(Name),
    /// A name in two groups: it would have two votes.
    #[error("{0} is a member of a group already")]
    SecondGroup(Name),
    /// A number that is not between 1 and the members of its group.
    #[error("a group of {members} needs any, all, or 1 to {members} of them")]
    Threshold {
        /// How many members it has.
        members: usize,
    },
    /// A second quorum line.
    #[error("there is a quorum line already")]
    SecondQuorum,
}

/// The name of a witness or a group, within one policy only: bytes, since no character set is asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// A group's members, and how many of them must have seen a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: Name,
    threshold: usize,
    members: Vec<Name>,
}

/// Who must have seen a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Quorum {
    Nobody,
    Member(Name),
}

/// A log policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<VerifierKey>,
    witnesses: Vec<(Name, VerifierKey)>,
    /// Each only over names that come before it.
    groups: Vec<Group>,
    quorum: Quorum,
}

/// A checkpoint that a policy accepts, and who saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witnessed {
    /// The checkpoint.
    pub checkpoint: Verified,
    /// The witnesses of the policy that cosigned it.
    pub seen: Vec<Seen>,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// [`PolicyError`] with the first line that breaks a rule.
    pub fn read(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > POLICY_MAX {
            return Err(PolicyError::TooLarge { got: bytes.len() });
        }
        let mut reader = Reader::default();
        for (line, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            reader.line(text).map_err(|why| PolicyError::Line { line, why })?;
        }
        let Reader { logs, witnesses, groups, quorum, .. } = reader;
        Ok(Self { logs, witnesses, groups, quorum: quorum.ok_or(PolicyError::NoQuorum)? })
    }

    /// Writes a policy in which each operator has one vote, however many witnesses it runs, and `agree` operators must have
    /// seen a checkpoint.
    ///
    /// # Errors
    /// As [`Policy::read`]: for a key that two operators claim, an operator without a witness, or more votes than operators.
    pub fn of_operators(
        logs: &[VerifierKey],
        operators: &BTreeMap<OperatorName, Vec<VerifierKey>>,
        agree: usize,
    ) -> Result<Self, PolicyError> {
        Self::read(Self::text_of_operators(logs, operators, agree).as_bytes())
    }

    /// Writes the file of [`Policy::of_operators`], which is not checked.
    pub fn text_of_operators(
        logs: &[VerifierKey],
        operators: &BTreeMap<OperatorName, Vec<VerifierKey>>,
        agree: usize,
    ) -> String {
        let mut text: String = logs.iter().map(|key| format!("log {key}\n")).collect();
        // An operator's name has no colon and no slash, so these names cannot collide.
        for (operator, keys) in operators {
            let names: Vec<String> = (1..=keys.len()).map(|number| format!("{operator}/{number}")).collect();
            let lines = names.iter().zip(keys).map(|(name, key)| format!("witness {name} {key}\n"));
            text.extend(lines);
            text += &format!("group operator:{operator} any {}\n", names.join(" "));
        }
        let members: Vec<String> = operators.keys().map(|operator| format!("operator:{operator}")).collect();
        text + &format!("group operators: {agree} {}\nquorum operators:\n", members.join(" "))
    }

    /// Checks a checkpoint: a log of this policy signed it, and the quorum cosigned it.
    ///
    /// # Errors
    /// [`PolicyError`]; also where a log or witness of the policy did not make what is said to be its signature.
    pub fn check(&self, checkpoint: Signed) -> Result<Witnessed, PolicyError> {
        let checkpoint = checkpoint.verify(&self.logs)?;
        let keys: Vec<VerifierKey> = self.witnesses.iter().map(|(_, key)| key.clone()).collect();
        let seen = checkpoint.cosigners(&keys).map_err(CheckpointError::Note)?;
        let cosigned: BTreeSet<&PublicKey> = seen.iter().map(|seen| seen.witness.key()).collect();
        if !self.is_quorum(&cosigned) {
            return Err(PolicyError::Quorum { seen: seen.len() });
        }
        Ok(Witnessed { checkpoint, seen })
    }

    fn is_quorum(&self, cosigned: &BTreeSet<&PublicKey>) -> bool {
        let Quorum::Member(wanted) = &self.quorum else { return true };
        let witnesses = self.witnesses.iter().filter(|(_, key)| cosigned.contains(key.key()));
        let mut saw: BTreeSet<&Name> = witnesses.map(|(name, _)| name).collect();
        for group in &self.groups {
            if group.members.iter().filter(|member| saw.contains(member)).count() >= group.threshold {
                saw.insert(&group.name);
            }
        }
        saw.contains(wanted)
    }
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    logs: Vec<VerifierKey>,
    witnesses: Vec<(Name, VerifierKey)>,
    groups: Vec<Group>,
    quorum: Option<Quorum>,
    /// Names that are defined, each with whether it may still become a member.
    free: BTreeMap<Name, bool>,
}

impl Reader {
    fn line(&mut self, line: &[u8]) -> Result<(), LineError> {
        let words: Vec<&[u8]> =
            line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty()).collect();
        if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(LineError::Character);
        }
        match words[..] {
            [] => Ok(()),
            [first, ..] if first.starts_with(b"#") => Ok(()),
            [b"log", key] | [b"log", key, _] => self.log(key),
            [b"witness", name, key] | [b"witness", name, key, _] => self.witness(name, key),
            [b"group", name, threshold, ref members @ ..] if !members.is_empty() => {
                self.group(name, threshold, members)
            }
            [b"quorum", name] => self.quorum(name),
            _ => Err(LineError::Form),
        }?;
        let count = self.logs.len() + self.witnesses.len() + self.groups.len();
        if count > LINES_MAX { Err(LineError::TooMany) } else { Ok(()) }
    }

    fn log(&mut self, key: &[u8]) -> Result<(), LineError> {
        let key = read_key(key, Algorithm::Ed25519)?;
        if self.logs.iter().any(|log| log.key() == key.key()) {
            return Err(LineError::DuplicateKey);
        }
        self.logs.push(key);
        Ok(())
    }

    fn witness(&mut self, name: &[u8], key: &[u8]) -> Result<(), LineError> {
        let key = read_key(key, Algorithm::Cosignature)?;
        if self.witnesses.iter().any(|(_, witness)| witness.key() == key.key()) {
            return Err(LineError::DuplicateKey);
        }
        let name = self.define(name)?;
        self.witnesses.push((name, key));
        Ok(())
    }

    fn group(&mut self, name: &[u8], threshold: &[u8], members: &[&[u8]]) -> Result<(), LineError> {
        let mut list = Vec::new();
        for member in members {
            let member = Name((*member).into());
            match self.free.get_mut(&member) {
                None => return Err(LineError::Unknown(member)),
                Some(free) if *free => *free = false,
                Some(_) => return Err(LineError::SecondGroup(member)),
            }
            list.push(member);
        }
        let threshold = match threshold {
            b"any" => 1,
            b"all" => list.len(),
            digits => {
                let number = str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit));
                let number = number.and_then(|number| number.parse().ok());
                number.filter(|k| (1..=list.len()).contains(k)).ok_or(LineError::Threshold { members: list.len() })?
            }
        };
        let name = self.define(name)?;
        self.groups.push(Group { name, threshold, members: list });
        Ok(())
    }

    fn quorum(&mut self, name: &[u8]) -> Result<(), LineError> {
        if self.quorum.is_some() {
            return Err(LineError::SecondQuorum);
        }
        let named = Name(name.into());
        self.quorum = Some(match name {
            b"none" => Quorum::Nobody,
            _ if self.free.contains_key(&named) => Quorum::Member(named),
            _ => return Err(LineError::Unknown(named)),
        });
        Ok(())
    }

    /// Takes a name, which is `none` never.
    fn define(&mut self, name: &[u8]) -> Result<Name, LineError> {
        let name = Name(name.into());
        if *name.0 == *b"none" || self.free.contains_key(&name) {
            return Err(LineError::Taken(name));
        }
        self.free.insert(name.clone(), true);
        Ok(name)
    }
}

fn read_key(word: &[u8], wanted: Algorithm) -> Result<VerifierKey, LineError> {
    let text = str::from_utf8(word).map_err(|_| NoteError::Key("its name is not UTF-8"))?;
    let key: VerifierKey = text.parse()?;
    if key.algorithm() == wanted { Ok(key) } else { Err(LineError::Algorithm) }
}

#[cfg(test)]
mod tests;
