//! `artel node`: run the daemon, or ask who and where it is.

use clap::Subcommand;
use protocol::NodeId;
use web::{Backend, api::DutyView};

use super::{
    Context, exit,
    output::{self, Format},
};
use crate::{config::Config, daemon, keys, ticket::Ticket, trace};

/// Run the daemon, or ask who and where it is
#[derive(Debug, Subcommand)]
pub(super) enum Node {
    /// Run the daemon until it is told to stop
    Run(Run),
    /// Print this node's id
    Id,
    /// List the peers that the daemon knows
    Peers,
    /// Print the string that others paste to join the network
    Ticket,
    /// Take no new job, and finish what runs; a restart does not end it
    Drain {
        /// Why, for whoever waits for builders
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Take jobs again after a drain
    Resume,
    /// Ask the daemon to stop
    Stop,
}

/// Run the daemon until it is told to stop
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// Log as JSON lines instead of text
    #[arg(long)]
    log_json: bool,
}

impl Run {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<u8> {
        trace::start(if self.log_json { trace::Form::Json } else { trace::Form::Text });
        let config = Config::load(&context.home)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let stop = tokio_util::sync::CancellationToken::new();
            let signals = daemon::stop_on_signals(stop.clone())?;
            let result = daemon::run(context.home.clone(), config, stop).await;
            signals.abort();
            result
        })?;
        Ok(exit::DONE)
    }
}

impl Node {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        match self {
            Node::Run(run) => run.run(context),
            Node::Id => id(context),
            Node::Peers => peers(context).await,
            Node::Ticket => ticket(context).await,
            Node::Drain { reason } => duty(context, &context.client().drain(reason).await?),
            Node::Resume => duty(context, &context.client().resume().await?),
            Node::Stop => {
                context.client().shutdown().await?;
                Ok(exit::DONE)
            }
        }
    }
}

fn id(context: &Context) -> anyhow::Result<u8> {
    let id = keys::public(&keys::load(&context.home.node_key())?);
    match context.format {
        Format::Json => output::json(&serde_json::json!({ "node": id }))?,
        Format::People => output::line(&id.to_string())?,
    }
    Ok(exit::DONE)
}

fn duty(context: &Context, duty: &DutyView) -> anyhow::Result<u8> {
    match context.format {
        Format::Json => output::json(duty)?,
        Format::People => output::line(&in_words(duty))?,
    }
    Ok(exit::DONE)
}

fn in_words(duty: &DutyView) -> String {
    let attempts = if duty.running == 1 { "1 attempt".to_owned() } else { format!("{} attempts", duty.running) };
    match (duty.draining.as_deref(), duty.running) {
        (None, _) => "this node takes jobs again".to_owned(),
        (Some(reason), running) => {
            let why = output::because(reason);
            let rest =
                if running == 0 { "nothing runs here now".to_owned() } else { format!("{attempts} will end here") };
            format!("this node takes no new job{why}; {rest} (artel node resume ends the drain)")
        }
    }
}

async fn peers(context: &Context) -> anyhow::Result<u8> {
    let peers = context.client().peers().await?;
    match context.format {
        Format::Json => output::json(&peers)?,
        Format::People => {
            let row = |p: &web::api::PeerView| {
                vec![
                    p.node.short(),
                    p.operator.as_ref().map_or_else(|| "-".into(), ToString::to_string),
                    p.roles.join(","),
                    p.draining
                        .as_ref()
                        .map_or_else(|| "ready".into(), |why| format!("draining{}", output::because(why))),
                    p.rtt_us.map_or_else(|| "-".into(), |us| format!("{:.1} ms", us as f64 / 1000.0)),
                    p.address.clone(),
                ]
            };
            output::table(
                &["NODE", "OPERATOR", "ROLES", "DUTY", "ROUND TRIP", "ADDRESS"],
                peers.iter().map(row).collect(),
            )?;
        }
    }
    Ok(exit::DONE)
}

/// Gives addresses as whoever joins dials them: with the node that must answer there, which its own settings may leave out.
fn dialled(addresses: Vec<String>, node: NodeId) -> Vec<String> {
    let suffix = crate::net::address_suffix(node);
    let whole = |address: String| if address.contains("/p2p/") { address } else { format!("{address}{suffix}") };
    addresses.into_iter().map(whole).collect()
}

async fn ticket(context: &Context) -> anyhow::Result<u8> {
    let config = Config::load(&context.home)?;
    let bootstrap = if config.reach.announce.is_empty() {
        context.client().status().await?.addresses
    } else {
        let key = keys::load(&context.home.node_key())?;
        dialled(config.reach.announce, NodeId::from(keys::public(&key)))
    };
    let ticket = Ticket { network: config.network.id, bootstrap }.to_string();
    match context.format {
        Format::Json => output::json(&serde_json::json!({ "ticket": ticket }))?,
        Format::People => output::line(&ticket)?,
    }
    Ok(exit::DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_says_what_is_left() {
        let duty = |reason: Option<&str>, running| in_words(&DutyView { draining: reason.map(str::to_owned), running });
        assert_eq!(duty(None, 3), "this node takes jobs again");
        let words = "this node takes no new job: new disk; 1 attempt will end here (artel node resume ends the drain)";
        assert_eq!(duty(Some("new disk"), 1), words);
        assert!(duty(Some(""), 0).starts_with("this node takes no new job; nothing runs here now"));
    }
}
