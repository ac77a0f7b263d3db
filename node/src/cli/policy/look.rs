//! `artel policy show|diff|history|export`: what is, what was and what would be.

use std::path::PathBuf;

use data_encoding::BASE64;
use protocol::{Verified, policy::Policy as Record};
use serde::Serialize;
use web::api::{PolicyHistory, PolicyRecord, Time};

use super::{
    Context, in_force,
    sign::{self, Draft},
    versions,
};
use crate::{
    charter::{
        Charter,
        changes::{Change, changes},
    },
    cli::{
        exit,
        output::{self, Format},
    },
    clock,
    config::Config,
};

/// Say in words what a policy changes, and what of it is dangerous
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Diff {
    /// The new one: a policy file, a signed policy, or the number of a version
    new: String,
    /// The old one, as the new one [default: the policy in force]
    #[arg(long, value_name = "OLD")]
    from: Option<String>,
}

/// Write the file by which others check packages offline, or a signed version
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Export {
    /// Where to write it [default: standard output, the signed version in base64]
    #[arg(long)]
    out: Option<PathBuf>,
    /// The signed policy alone, for a root that signs the next one on another machine
    #[arg(long)]
    signed: bool,
    /// Another version than the one in force
    #[arg(long, requires = "signed")]
    number: Option<u64>,
}

#[derive(Serialize)]
struct Difference {
    old: u64,
    new: u64,
    changes: Vec<Change>,
}

#[derive(Serialize)]
struct Version<'a> {
    number: u64,
    place: Option<u64>,
    since: Option<Time>,
    expires: Time,
    signers: &'a [protocol::PublicKey],
    /// What it changed.
    changes: Vec<Change>,
}

pub(super) async fn show(context: &Context, number: Option<u64>) -> anyhow::Result<u8> {
    let policy = match number {
        Some(number) => version(context, number).await?,
        None => in_force(context).await?,
    };
    match context.format {
        Format::Json => output::json(policy.get())?,
        Format::People => output::line(Charter::from_policy(policy.get()).to_toml().trim_end())?,
    }
    Ok(exit::DONE)
}

async fn version(context: &Context, number: u64) -> anyhow::Result<Verified<Record>> {
    let (_, policies) = versions(context).await?;
    policies.into_iter().find(|policy| policy.get().number == number).ok_or_else(|| {
        let what = format!("this node knows no policy {number}");
        exit::failure(exit::FAILED, what).hint("`artel policy history` lists those that it knows").into()
    })
}

/// Reads what a word names: a version by its number, else a file.
async fn named(context: &Context, word: &str) -> anyhow::Result<Record> {
    match word.parse() {
        Ok(number) => Ok(version(context, number).await?.get().clone()),
        Err(_) => Ok(Draft::read(word.as_ref())?.get().clone()),
    }
}

impl Diff {
    pub(in crate::cli) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let new = named(context, &self.new).await?;
        let old = match &self.from {
            Some(word) => named(context, word).await?,
            None => in_force(context).await?.get().clone(),
        };
        let changes = changes(&old, &new, clock::now());
        if context.format == Format::Json {
            output::json(&Difference { old: old.number, new: new.number, changes })?;
        } else if changes.is_empty() {
            output::line("nothing is different")?;
        } else {
            changes.iter().try_for_each(|change| output::line(&words(change)))?;
        }
        Ok(exit::DONE)
    }
}

/// Tells what a policy changes to whoever is about to sign it.
pub(super) fn tell(old: &Record, new: &Record) -> anyhow::Result<()> {
    for change in changes(old, new, clock::now()) {
        anstream::eprintln!("{}", words(&change));
    }
    Ok(())
}

/// Gives a change as a line; what is dangerous begins otherwise.
fn words(change: &Change) -> String {
    output::printable(&match &change.danger {
        Some(danger) => format!("! {}\n  warning: {danger}", change.what),
        None => format!("  {}", change.what),
    })
}

pub(super) async fn history(context: &Context) -> anyhow::Result<u8> {
    let (history, policies) = versions(context).await?;
    let before = std::iter::once(None).chain(policies.iter().map(Some));
    let pairs = history.policies.iter().zip(policies.iter().zip(before));
    let versions: Vec<_> = pairs.map(|(record, (policy, before))| told(record, policy, before)).collect();
    if context.format == Format::Json {
        output::json(&versions)?;
        return Ok(exit::DONE);
    }
    let row = |version: &Version<'_>| {
        let signers: Vec<_> = version.signers.iter().map(protocol::PublicKey::short).collect();
        vec![
            version.number.to_string(),
            version.place.map_or_else(|| "-".to_owned(), |place| place.to_string()),
            version.since.map_or_else(|| "-".to_owned(), Time::minute),
            version.expires.minute(),
            signers.join(" "),
            version.changes.iter().skip(1).map(|change| change.what.as_str()).collect::<Vec<_>>().join("; "),
        ]
    };
    let rows = versions.iter().map(row).collect();
    output::table(&["NUMBER", "LOG ENTRY", "SINCE", "ENDS", "SIGNED BY", "CHANGES"], rows)?;
    Ok(exit::DONE)
}

/// Tells a version as it was then: what is soon over now was not.
fn told<'a>(record: &'a PolicyRecord, policy: &Verified<Record>, before: Option<&Verified<Record>>) -> Version<'a> {
    let then = record.since.map_or(protocol::Timestamp::ZERO, Time::timestamp);
    Version {
        number: record.number,
        place: record.place,
        since: record.since,
        expires: record.expires,
        signers: &record.signers,
        changes: before.map(|before| changes(before.get(), policy.get(), then)).unwrap_or_default(),
    }
}

impl Export {
    pub(in crate::cli) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let bytes = if self.signed {
            let policy = match self.number {
                Some(number) => version(context, number).await?,
                None => in_force(context).await?,
            };
            policy.to_bytes()
        } else {
            let (history, _) = versions(context).await?;
            for_verifiers(&Config::load(&context.home)?.network.id, &history)?.into_bytes()
        };
        match &self.out {
            Some(path) => {
                sign::write(path, &bytes)?;
                anstream::eprintln!("wrote {}", path.display());
            }
            None if self.signed => output::line(&BASE64.encode(&bytes))?,
            None => output::line(String::from_utf8_lossy(&bytes).trim_end())?,
        }
        Ok(exit::DONE)
    }
}

/// Writes what a verifier trusts: the network, and its policies with their places in the log.
///
/// # Errors
/// When a place is not known: a verifier would judge older packages by that policy, and refuse what was good in its time.
fn for_verifiers(network: &protocol::NetworkId, history: &PolicyHistory) -> anyhow::Result<String> {
    let line = |record: &PolicyRecord| {
        let place = record.place.ok_or_else(|| {
            let what = format!("nobody says where policy {} stands in the log", record.number);
            exit::failure(exit::UNREACHABLE, what)
                .hint("try again when a coordinator can be reached, or on another node: `artel policy history` shows what is known")
        })?;
        Ok(format!("policy {place} {}\n", BASE64.encode(&record.envelope.0)))
    };
    let policies = history.policies.iter().map(line).collect::<anyhow::Result<String>>()?;
    Ok(format!("artel verify policy 1\nnetwork {network}\nlog policy\n{policies}"))
}

#[cfg(test)]
mod tests {
    use protocol::{Hash, NetworkId, message::Octets};

    use super::*;

    #[test]
    fn a_verifiers_file_names_every_place_or_is_not_written() {
        let network = NetworkId::from(Hash::of(b"network"));
        let record = |number, place| PolicyRecord {
            number,
            place,
            since: None,
            expires: Time::from(clock::now()),
            signers: Vec::new(),
            envelope: Octets(b"signed".to_vec()),
        };
        let write = |places: [Option<u64>; 2]| {
            let policies = (1..).zip(places).map(|(number, place)| record(number, place)).collect();
            for_verifiers(&network, &PolicyHistory { log_size: None, policies })
        };
        assert!(write([Some(0), Some(812)]).unwrap().ends_with("\npolicy 0 c2lnbmVk\npolicy 812 c2lnbmVk\n"));
        let refused = write([Some(0), None]).unwrap_err();
        assert_eq!(exit::code_of(&refused), exit::UNREACHABLE);
        assert!(refused.to_string().contains("where policy 2 stands in the log"), "{refused}");
    }
}
