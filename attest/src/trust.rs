//! What a verifier trusts: the network's id, the policies that it follows, and what a package must have to be proven. One small
//! text file, by default `/etc/artel/verify.policy`.
//!
//! ```text
//!  artel verify policy 1                what this file is
//!  network <64 hex>                     the one thing that is believed; the policies below must lead there
//!  log policy | none | <witnesses>      proof from the log: with the witnesses of the channel's policy, never, or with so many
//!  max-age 30d                          how old the newest sign of life of the log may be (s, m, h, d); no line: any age
//!  agree 3                              operators that must agree, whatever the channel asks for; no line: as it asks
//!  channel main                         packages of these channels only, one line each; no line: of any
//!  policy 0 <base64>                    the genesis, signed by its roots, from entry 0 of the log on
//!  policy 812 <base64>                  each that follows; `-` where nobody knows from which entry on
//! ```
//! Empty lines and lines that begin with `#` mean nothing. Evidence is judged under the policy that was in force at its place in
//! the log; without a proof from the log, and where no place is known, under the newest.

use std::{borrow::Cow, collections::BTreeMap, fmt, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use protocol::{
    ChannelName, NetworkId, Timestamp, Verified,
    policy::{Policy, SuccessionError},
};

use crate::{
    bundle::POLICIES_MAX,
    log::{
        network::{log_keys, log_policy},
        note::VerifierKey,
        policy::{Policy as LogPolicy, PolicyError},
    },
    verify::{self, policy_chain},
};

/// The first line.
const HEADER: &str = "artel verify policy 1";
/// The largest file, in bytes.
pub const FILE_MAX: usize = 32 * 1024 * 1024;
/// The channels that one file may name.
const CHANNELS_MAX: usize = 1024;

/// Which proof from the log a package needs: that the verdict is in it, by which attestations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogDemand {
    /// One with the witnesses that its channel's policy names; where these are none, one that nobody need have seen.
    #[default]
    AsPolicySays,
    /// None, and none is looked at.
    Never,
    /// One, seen by so many operators' witnesses.
    Witnesses(u8),
}

/// What a package must have, beside what its channel's policy asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Demands {
    /// The proof from the log.
    pub log: LogDemand,
    /// How old the newest sign of life of the log may be.
    pub max_age: Option<Duration>,
    /// How many operators must agree at least.
    pub agree: Option<u8>,
    /// The channels whose packages are accepted; empty for all.
    pub channels: Vec<ChannelName>,
}

/// Why a verifier's policy file was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// More bytes than allowed.
    #[error("it has {got} bytes, at most {FILE_MAX} are read")]
    TooLarge {
        /// Bytes found.
        got: usize,
    },
    /// A line that cannot be read.
    #[error("line {line}: {why}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// A line that must be there is not.
    #[error("it has no line `{0}`; write the file with `artel policy export`")]
    Missing(&'static str),
    /// The policies do not lead from the network's id to one that is in force.
    #[error("its policies do not hold")]
    Chain(#[from] verify::Error),
    /// No log can be had under a policy.
    #[error("policy {number} names no log that can be checked")]
    Log {
        /// The policy's number.
        number: u64,
        /// Why.
        source: PolicyError,
    },
}

impl Error {
    /// Gives the exit code that programs see: 13 for a chain that does not hold, 3 for a file that is not as it must be or has
    /// expired.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Chain(verify::Error::Succession { source: SuccessionError::Expired, .. }) => 3,
            Error::Chain(error) => error.exit_code(),
            Error::TooLarge { .. } | Error::Line { .. } | Error::Missing(_) | Error::Log { .. } => 3,
        }
    }
}

/// A policy of the chain.
#[derive(Debug, Clone)]
struct Known {
    policy: Verified<Policy>,
    /// The place in the log from which on it was in force, where that is known.
    from: Option<u64>,
    /// What its log's checkpoints need, by the number of witnesses; none where it has fewer operators.
    logs: BTreeMap<u8, LogPolicy>,
}

/// What a verifier trusts.
#[derive(Debug, Clone)]
pub struct Trust {
    network: NetworkId,
    /// The genesis first; never empty.
    chain: Vec<Known>,
    demands: Demands,
}

impl Trust {
    /// Trusts a network under its signed policies, the genesis first, each with the place in the log from which on it was in
    /// force, where that is known.
    ///
    /// # Errors
    /// When the policies do not lead from the network's id to one that is in force `now`.
    pub fn new(
        network: NetworkId,
        policies: &[(Vec<u8>, Option<u64>)],
        demands: Demands,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let chain = policy_chain(policies.iter().map(|(bytes, _)| bytes.as_slice()), &network, now)?;
        if chain.is_empty() {
            return Err(verify::Error::NoPolicy.into());
        }
        let asked = chain.iter().flat_map(|policy| &policy.get().channels).map(|channel| channel.witnesses);
        let mut quorums: Vec<u8> = match demands.log {
            LogDemand::Never => Vec::new(),
            LogDemand::AsPolicySays => asked.chain([0]).collect(),
            LogDemand::Witnesses(number) => vec![number],
        };
        quorums.sort_unstable();
        quorums.dedup();
        let known = |(policy, (_, from)): (Verified<Policy>, &(Vec<u8>, Option<u64>))| {
            let mut logs = BTreeMap::new();
            for quorum in &quorums {
                match log_policy(&network, policy.get(), *quorum) {
                    Ok(log) => drop(logs.insert(*quorum, log)),
                    // With fewer operators than witnesses nothing can be seen by enough; another policy may have more.
                    Err(_) if usize::from(*quorum) > with_nodes(policy.get()) => {}
                    Err(source) => return Err(Error::Log { number: policy.get().number, source }),
                }
            }
            Ok(Known { policy, from: *from, logs })
        };
        let chain = chain.into_iter().zip(policies).map(known).collect::<Result<_, _>>()?;
        Ok(Self { network, chain, demands })
    }

    /// Reads a verifier's policy file.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read(bytes: &[u8], now: Timestamp) -> Result<Self, Error> {
        if bytes.len() > FILE_MAX {
            return Err(Error::TooLarge { got: bytes.len() });
        }
        let text = str::from_utf8(bytes).map_err(|_| Error::Line { line: 1, why: "it is not text".into() })?;
        let mut lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.starts_with('#'));
        if lines.next().is_none_or(|(_, line)| line != HEADER) {
            return Err(Error::Missing(HEADER));
        }
        let mut reader = Reader::default();
        for (line, text) in lines.filter(|(_, line)| !line.is_empty()) {
            reader.line(text).map_err(|why| Error::Line { line, why })?;
        }
        Self::new(reader.network.ok_or(Error::Missing("network HEX"))?, &reader.policies, reader.demands, now)
    }

    /// Changes what a package must have.
    ///
    /// # Errors
    /// As [`Trust::new`].
    pub fn demanding(self, demands: Demands, now: Timestamp) -> Result<Self, Error> {
        let policies: Vec<_> = self.chain.iter().map(|known| (known.policy.to_bytes(), known.from)).collect();
        Self::new(self.network, &policies, demands, now)
    }

    /// Gives the network.
    pub fn network(&self) -> &NetworkId {
        &self.network
    }

    /// Gives what a package must have.
    pub fn demands(&self) -> &Demands {
        &self.demands
    }

    /// Says whether these are the first policies of those that are followed, one at least.
    pub fn begins_with<'a>(&self, policies: impl ExactSizeIterator<Item = &'a [u8]>) -> bool {
        let count = policies.len();
        let mut pairs = policies.zip(&self.chain);
        (1..=self.chain.len()).contains(&count) && pairs.all(|(theirs, known)| *theirs == known.policy.to_bytes())
    }

    /// Gives the keys of the log, of every policy's time.
    pub fn log_keys(&self) -> Vec<VerifierKey> {
        let mut keys: Vec<_> =
            self.chain.iter().flat_map(|known| log_keys(&self.network, known.policy.get())).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Gives the newest policy.
    ///
    /// # Panics
    /// Never: a chain that leads nowhere is refused.
    pub fn newest(&self) -> &Policy {
        self.chain.last().expect("a chain of policies is not empty").policy.get()
    }

    /// Gives the policy that was in force at a place of the log, by its place in the chain; the newest where no place is given.
    /// Keys that the newest one revokes from there on or before have no part in it.
    pub(crate) fn in_force(&self, place: Option<u64>) -> (usize, Cow<'_, Policy>) {
        let began = |known: &Known| known.from.is_none_or(|from| place.is_none_or(|place| from <= place));
        let at = self.chain.iter().rposition(began).unwrap_or(0);
        (at, self.chain[at].policy.get().without_revoked(self.newest(), place.unwrap_or(u64::MAX)))
    }

    /// Gives the policies from this place of the chain on, without the parts of keys that are revoked from any place on: for what
    /// has no place in the log.
    pub(crate) fn since(&self, era: usize) -> impl Iterator<Item = Cow<'_, Policy>> {
        self.chain[era..].iter().map(|known| known.policy.get().without_revoked(self.newest(), u64::MAX))
    }

    /// Gives what a checkpoint of so many entries needs that was signed under the policy at this place of the chain or a later
    /// one, the newest first. Keys that are revoked from its last entry on or before cannot have signed or seen it.
    pub(crate) fn logs(
        &self,
        since: usize,
        (quorum, size): (u8, u64),
    ) -> impl Iterator<Item = (Cow<'_, Policy>, Cow<'_, LogPolicy>)> {
        self.chain[since..].iter().rev().filter_map(move |known| {
            let whole = known.logs.get(&quorum)?;
            match known.policy.get().without_revoked(self.newest(), size.saturating_sub(1)) {
                Cow::Borrowed(policy) => Some((Cow::Borrowed(policy), Cow::Borrowed(whole))),
                Cow::Owned(policy) => {
                    // None where too few are left.
                    let log = log_policy(&self.network, &policy, quorum).ok()?;
                    Some((Cow::Owned(policy), Cow::Owned(log)))
                }
            }
        })
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Demands { log, max_age, agree, channels } = &self.demands;
        writeln!(f, "{HEADER}\n# network {}, policy {}", self.newest().name, self.newest().number)?;
        writeln!(f, "network {}", self.network)?;
        match log {
            LogDemand::AsPolicySays => writeln!(f, "log policy")?,
            LogDemand::Never => writeln!(f, "log none")?,
            LogDemand::Witnesses(number) => writeln!(f, "log {number}")?,
        }
        max_age.iter().try_for_each(|age| writeln!(f, "max-age {}s", age.as_secs()))?;
        agree.iter().try_for_each(|agree| writeln!(f, "agree {agree}"))?;
        channels.iter().try_for_each(|channel| writeln!(f, "channel {channel}"))?;
        self.chain.iter().try_for_each(|known| {
            let from = known.from.map_or("-".to_owned(), |from| from.to_string());
            writeln!(f, "policy {from} {}", STANDARD.encode(known.policy.to_bytes()))
        })
    }
}

fn with_nodes(policy: &Policy) -> usize {
    policy.operators.iter().filter(|operator| !operator.nodes.is_empty()).count()
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    network: Option<NetworkId>,
    policies: Vec<(Vec<u8>, Option<u64>)>,
    demands: Demands,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["network", id] if self.network.is_none() => {
                self.network = Some(id.parse().map_err(|_| "the network's id has 64 hexadecimal digits")?);
            }
            ["log", demand] => self.demands.log = log_demand(demand)?,
            ["max-age", age] => self.demands.max_age = Some(duration(age)?),
            ["agree", number] => {
                let agree = number.parse().ok().filter(|agree| *agree > 0);
                self.demands.agree = Some(agree.ok_or("the number of operators is 1 to 255")?);
            }
            ["channel", name] if self.demands.channels.len() < CHANNELS_MAX => {
                self.demands.channels.push(name.parse().map_err(|e: protocol::words::WordError| e.to_string())?);
            }
            ["policy", from, base64] if self.policies.len() < POLICIES_MAX => {
                let from = match *from {
                    "-" => None,
                    number => Some(number.parse().map_err(|_| "a place in the log is a number, or -")?),
                };
                let bytes = STANDARD.decode(base64).map_err(|_| "the policy is not base64")?;
                self.policies.push((bytes, from));
            }
            [word, ..] => return Err(format!("{:?} does not belong here", word.chars().take(40).collect::<String>())),
            [] => {}
        }
        Ok(())
    }
}

/// Reads the demand of a `log` line.
///
/// # Errors
/// What may stand there.
pub fn log_demand(text: &str) -> Result<LogDemand, String> {
    match text {
        "policy" => Ok(LogDemand::AsPolicySays),
        "none" => Ok(LogDemand::Never),
        number => number.parse().map(LogDemand::Witnesses).map_err(|_| "write policy, none, or a number".to_owned()),
    }
}

/// Reads a time span such as `90s`, `15m`, `12h` or `30d`.
///
/// # Errors
/// What may stand there.
pub fn duration(text: &str) -> Result<Duration, String> {
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    let read = units.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(*unit)?.parse().ok()?;
        number.checked_mul(*seconds).filter(|seconds| *seconds > 0)
    });
    read.map(Duration::from_secs).ok_or_else(|| "write a time span such as 90s, 15m, 12h or 30d".to_owned())
}

#[cfg(test)]
mod tests;
