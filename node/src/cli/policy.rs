//! `artel policy`: show, compare, sign and publish the network's policy.
//!
//! ```text
//!  show > next.toml, edit --sign (one root after the other, offline)--> next.signed --publish--> in force, logged
//!  admit, revoke: the same in one step, where one root is enough
//! ```

mod change;
mod look;
mod sign;

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use protocol::{
    NetworkId, Verified,
    envelope::Signed,
    policy::{Policy as Record, Roots},
};
use web::{
    Backend,
    api::{ApiError, PolicyHistory, PolicyView},
};

use super::{
    Context, exit,
    output::{self, Format},
};
use crate::{config::Config, daemon::Policies, store::Store};

/// How long `publish` waits until this node has the policy.
const IN_FORCE_WAIT: std::time::Duration = std::time::Duration::from_secs(60);
/// How often it looks.
const IN_FORCE_LOOK: std::time::Duration = std::time::Duration::from_millis(250);

/// Show, sign and publish the network's policy
#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Print the policy in force, as the file that can be edited
    Show {
        /// Another version
        #[arg(long, value_name = "NUMBER")]
        number: Option<u64>,
    },
    /// Say in words what a policy changes, and what of it is dangerous
    Diff(look::Diff),
    /// Sign a policy file, or add a signature to one that others signed
    Sign(sign::Sign),
    /// Have the network adopt a signed policy, and wait until it is in force
    Publish {
        /// The signed policy, as `policy sign` wrote it
        file: PathBuf,
    },
    /// List every version: its place in the log, who signed it, and when
    History,
    /// Write the file by which others check packages offline, or a signed version
    Export(look::Export),
    /// Add a node to an operator (made when new) or to the mirrors, sign and publish, in one step
    Admit(change::Admit),
    /// Revoke the key of a node, a maintainer or a root, or all nodes of an operator; sign and publish, in one step
    Revoke(change::Revoke),
}

impl Policy {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        match self {
            Policy::Show { number } => look::show(context, number).await,
            Policy::Diff(diff) => diff.run(context).await,
            Policy::Sign(sign) => sign.run(context).await,
            Policy::Publish { file } => {
                let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
                publish(context, bytes).await
            }
            Policy::History => look::history(context).await,
            Policy::Export(export) => export.run(context).await,
            Policy::Admit(admit) => admit.run(context).await,
            Policy::Revoke(revoke) => revoke.run(context).await,
        }
    }
}

/// Reads the policy in force from the daemon; where it does not run, the newest that the node keeps.
pub(super) async fn in_force(context: &Context) -> anyhow::Result<Verified<Record>> {
    let network = Config::load(&context.home)?.network.id;
    match context.client().policy().await {
        Ok(bytes) => read(&bytes, &network),
        Err(error @ ApiError::Unreachable { .. }) => kept(context, &network).with_context(|| not_known(&error)),
        Err(error) => Err(error.into()),
    }
}

fn not_known(error: &ApiError) -> exit::Failure {
    exit::failure(exit::UNREACHABLE, format!("the policy in force is not known here: {error}"))
        .hint("start the node (`artel node run`), or, where a signed policy can be named, give it: `artel policy sign --current FILE`, \
               `artel policy diff NEW --from FILE`")
}

/// Gives the newest policy that this node keeps. The genesis beside the configuration is it only before the node ran at all: later it
/// would hide who was added or revoked since.
fn kept(context: &Context, network: &NetworkId) -> anyhow::Result<Verified<Record>> {
    let path = context.home.database();
    let kept = if path.exists() { Store::policies_at(&path)? } else { Vec::new() };
    let envelopes: Vec<Vec<u8>> = kept.into_iter().map(|(_, bytes)| bytes).collect();
    if envelopes.is_empty() {
        return read(&fs::read(context.home.genesis())?, network);
    }
    let policies = Policies::verify(network, &envelopes)?;
    let newest = policies.chain().last().context("the node keeps no policy")?;
    anstream::eprintln!("the node does not run; policy {} is the newest that it keeps", newest.get().number);
    Ok(Verified::clone(newest))
}

fn read(bytes: &[u8], network: &NetworkId) -> anyhow::Result<Verified<Record>> {
    let signed = Signed::<Record>::read(bytes)?;
    let first = NetworkId::from(signed.id()) == *network;
    Ok(signed.verify(if first { None } else { Some(network) })?)
}

/// Gives every version, from the daemon.
async fn versions(context: &Context) -> anyhow::Result<(PolicyHistory, Vec<Verified<Record>>)> {
    let network = Config::load(&context.home)?.network.id;
    let history = context.client().policies().await?;
    let policies =
        history.policies.iter().map(|record| read(&record.envelope.0, &network)).collect::<Result<_, _>>()?;
    Ok((history, policies))
}

/// Gives how many of the roots that must allow a policy signed it.
fn signed_by(roots: &Roots, policy: &Verified<Record>) -> usize {
    policy.signers().iter().filter(|key| roots.keys.contains(key)).count()
}

async fn publish(context: &Context, bytes: Vec<u8>) -> anyhow::Result<u8> {
    let number = read(&bytes, &Config::load(&context.home)?.network.id)?.get().number;
    let view = context.client().adopt_policy(bytes.into()).await?;
    let view = until_in_force(context, number, view).await?;
    match context.format {
        Format::Json => output::json(&view)?,
        Format::People => output::line(&format!("policy {} is in force", view.number))?,
    }
    Ok(exit::DONE)
}

/// Waits until this node has a policy that the coordinators adopted.
async fn until_in_force(context: &Context, number: u64, mut view: PolicyView) -> anyhow::Result<PolicyView> {
    let wait = async {
        while view.number < number {
            tokio::time::sleep(IN_FORCE_LOOK).await;
            view = context.client().status().await?.policy;
        }
        Ok::<_, ApiError>(view)
    };
    match tokio::time::timeout(IN_FORCE_WAIT, wait).await {
        Ok(view) => Ok(view?),
        Err(_) => Err(exit::failure(exit::TIMED_OUT, format!("policy {number} is adopted and not yet known here"))
            .hint("`artel policy history` shows it once this node has heard of it")
            .into()),
    }
}
