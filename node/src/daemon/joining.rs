//! A node that does not know its network's policy yet: it asks every peer for it, and says so to whoever asks it for anything.

use std::time::Duration;

use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use web::{Access, Early, Listener};

use super::{Policies, inbox};
use crate::{config::Config, net::Net};

/// How often a node says in its log that it cannot begin.
const SAY_ALONE_EVERY: Duration = Duration::from_secs(10);
/// How often a node without a policy asks again.
const FIRST_POLICY_EVERY: Duration = Duration::from_millis(500);

/// Where the web interface listens, and for whom.
pub(super) type Web = Vec<(Listener, Access)>;

/// Asks until a peer gives a chain of policies that verifies; without one when it is stopped. Gives the listeners back, at which is
/// answered meanwhile; dropping the future closes them.
pub(super) async fn policies(
    net: &Net,
    config: &Config,
    web: Web,
    stop: &CancellationToken,
) -> (Option<Policies>, Web) {
    info!("waiting for a peer that knows the network's policy");
    let until = stop.child_token();
    let (seen, known) = (net.clone(), config.network.bootstrap.join(" "));
    let why = move |access| waits_for(access, seen.peers().len(), &known);
    let early = Early::new(config.reach.web_hosts.clone(), why, stop.clone());
    let mut answering = JoinSet::new();
    for (listener, access) in web {
        let (early, until) = (early.clone(), until.clone());
        answering.spawn(async move { (early.serve(listener, access, until).await, access) });
    }
    let found = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        found = ask(net, config) => Some(found),
    };
    until.cancel();
    (found, answering.join_all().await)
}

async fn ask(net: &Net, config: &Config) -> Policies {
    let mut told = Instant::now();
    loop {
        if told.elapsed() >= SAY_ALONE_EVERY {
            told = Instant::now();
            let known = config.network.bootstrap.join(" ");
            match net.peers().len() {
                0 => warn!(
                    %known,
                    "no node answers at the addresses of the ticket: is one of them up, does its firewall let this machine in, is the \
                     ticket old? It is tried again"
                ),
                peers => warn!(peers, "nobody who is connected gave the network's policy; it is asked for again"),
            }
        }
        for peer in net.peers() {
            match inbox::ask_policies(net, peer.node, config).await {
                Ok(policies) => return policies,
                Err(why) => warn!(node = %peer.node, %why, "no policy from this peer"),
            }
        }
        tokio::time::sleep(FIRST_POLICY_EVERY).await;
    }
}

/// What is waited for. Where the network's nodes are is not for strangers.
fn waits_for(access: Access, peers: usize, known: &str) -> String {
    let yet = "this node does not know its network's policy yet";
    match (access, peers) {
        (Access::Public, _) => yet.to_owned(),
        (Access::Owner, 0) => format!(
            "{yet}, and no node has answered at the addresses of the ticket ({known}): is one of them up, does its firewall let this \
             machine in, is the ticket old? It is tried again"
        ),
        (Access::Owner, peers) => {
            format!(
                "{yet}: none of the {peers} that are connected has given it, and the daemon's log says why; it is asked for again"
            )
        }
    }
}
