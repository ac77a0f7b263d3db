//! `artel log`: what the network's transparency log says, and whether it is one log.

mod conflict;
mod list;
mod verify;

use anyhow::Context as _;
use attest::log::{
    checkpoint::{Signed, Verified},
    network,
};
use clap::{Args, Subcommand};
use protocol::{NetworkId, NodeId, policy::Policy};
use web::{Address, Backend, Client};

use super::{Context, exit, output, output::Format, policy::in_force};
use crate::config::Config;

/// Read and check the network's transparency log
#[derive(Debug, Subcommand)]
pub(super) enum Log {
    /// Print the newest checkpoint: how long the log is, its root, and who signed that
    Checkpoint(Whose),
    /// List entries in words, the newest last
    Ls(list::List),
    /// Read what is new in the log, and check that it continues what was seen before and tells a whole story
    Verify(verify::Verify),
    /// Show the evidence that the log was forked, where there is any, and write it to a file
    Conflict(conflict::Conflict),
    /// Print the log policy (C2SP tlog-policy) that programs of others check this log with
    Policy {
        /// How many operators' witnesses must have seen a checkpoint
        #[arg(long, default_value_t = 0, value_name = "COUNT")]
        witnesses: u8,
    },
}

/// Whose copy of the log is read.
#[derive(Debug, Args)]
pub(super) struct Whose {
    /// A node that serves it: http://host:port, with or without /log behind it [default: the own one]
    #[arg(value_name = "URL")]
    url: Option<String>,
}

/// The log's keys are those of the policy in force.
pub(super) struct Known {
    network: NetworkId,
    policy: Policy,
}

impl Log {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let network = Config::load(&context.home)?.network.id;
        let known = Known { network, policy: in_force(context).await?.into_inner() };
        match self {
            Log::Checkpoint(whose) => checkpoint(context, &known, &whose).await,
            Log::Ls(list) => list.run(context, &known).await,
            Log::Verify(verify) => verify.run(context, &known).await,
            Log::Conflict(conflict) => conflict.run(context, &known).await,
            Log::Policy { witnesses } => {
                let text = network::log_policy_text(&known.network, &known.policy, witnesses);
                network::log_policy(&known.network, &known.policy, witnesses)
                    .with_context(|| exit::failure(exit::USAGE, format!("no policy with {witnesses} witnesses")))?;
                output::line(text.trim_end())?;
                Ok(exit::DONE)
            }
        }
    }
}

impl Whose {
    fn client(&self, context: &Context) -> anyhow::Result<Client> {
        let Some(url) = &self.url else { return Ok(context.client()) };
        let base = url.trim_end_matches('/');
        let address: Address = base.strip_suffix("/log").unwrap_or(base).parse()?;
        Ok(Client::new(address))
    }
}

impl Known {
    /// Asks for the newest checkpoint and verifies it.
    async fn newest(&self, client: &Client) -> anyhow::Result<Verified> {
        let bytes = client.log_file("checkpoint".parse().expect("one word is a path")).await?;
        let broken = || exit::failure(exit::BROKEN, "the checkpoint is not signed by a coordinator of this network");
        let signed = Signed::read(&bytes).with_context(broken)?;
        signed.verify(&network::log_keys(&self.network, &self.policy)).with_context(broken)
    }

    /// Gives the coordinators that signed a checkpoint.
    fn signers(&self, checkpoint: &Verified) -> Vec<NodeId> {
        let note = checkpoint.as_signed().note();
        let signed = |node: &&NodeId| {
            let key = network::log_key(&self.network, node);
            note.lines().iter().any(|line| line.is_by(&key))
        };
        self.policy.coordinators.candidates().iter().filter(signed).copied().collect()
    }
}

async fn checkpoint(context: &Context, known: &Known, whose: &Whose) -> anyhow::Result<u8> {
    let checkpoint = known.newest(&whose.client(context)?).await?;
    match context.format {
        Format::Json => output::json(&as_json(known, &checkpoint))?,
        // As it is: other programs read it so.
        Format::People => output::line(checkpoint.as_signed().to_string().trim_end())?,
    }
    Ok(exit::DONE)
}

fn as_json(known: &Known, checkpoint: &Verified) -> serde_json::Value {
    let head = checkpoint.head();
    serde_json::json!({
        "origin": checkpoint.get().origin(), "size": head.size, "root": head.root, "signed_by": known.signers(checkpoint),
    })
}
