//! What a daemon costs while nothing happens: one that coordinates, builds and serves the web, with so many peers.

use std::{fs, path::Path, time::Duration};

use anyhow::Context as _;
use artel::{
    config::Builder,
    keys,
    net::{self, Event, Inbox, Mdns, Net, Topic},
};
use ed25519_dalek::SigningKey;
use protocol::NodeId;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    Options,
    network::{Duty, Network, Plan},
    table::{Row, Table},
};

const RSS_MIB_MAX: f64 = 40.0;
const CPU_PERCENT_MAX: f64 = 0.5;
const PEERS: usize = 20;
/// How long a daemon may take to calm down after peers came.
const CALM: Duration = Duration::from_secs(5);

/// Measures and adds the rows.
pub(crate) async fn measure(options: &Options, program: &Path, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let keys = (0..PEERS).map(|_| keys::generate()).collect::<Result<Vec<_>, _>>()?;
    let members: Vec<NodeId> = keys.iter().map(|key| NodeId::from(keys::public(key))).collect();
    let plan = Plan { name: "node".into(), duty: Duty::Candidate, builder: Some(Builder::default()) };
    let mut network = Network::found(folder, vec![plan], &members)?;
    network.start(program).await?;
    let mut guests = Guests::default();
    let pid = network.daemons[0].pid()?;
    guests.add(&network, &keys[..3]).await?;
    let few = resident(pid)?;
    table.add(Row::new("resident memory, idle, 3 peers", few.all, "MiB").at_most(RSS_MIB_MAX).beside("own", few.own));
    guests.add(&network, &keys[3..10]).await?;
    let percent = cpu(pid, options.amount(Duration::from_secs(30), Duration::from_secs(20))).await?;
    table.add(Row::new("CPU of one core, idle, 10 peers", percent, "%").at_most(CPU_PERCENT_MAX));
    guests.add(&network, &keys[10..]).await?;
    let many = resident(pid)?;
    let row = Row::new("resident memory, idle, 20 peers", many.all, "MiB").at_most(RSS_MIB_MAX);
    table.add(row.beside("own", many.own));
    guests.leave().await;
    network.stop().await;
    Ok(())
}

/// Members that only listen, in this process; their connections to the daemon are real.
#[derive(Default)]
struct Guests {
    tasks: JoinSet<()>,
    nets: Vec<Net>,
    stop: CancellationToken,
}

impl Guests {
    async fn add(&mut self, network: &Network, keys: &[SigningKey]) -> anyhow::Result<()> {
        for key in keys {
            let config = net::Config {
                key: key.clone(),
                network: network.id,
                listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into()],
                announce: Vec::new(),
                bootstrap: network.bootstrap.clone(),
                mdns: Mdns::Off,
                connections: 64,
            };
            let (net, inbox, task) = net::start(config, self.stop.clone()).await?;
            self.tasks.spawn(async move {
                if let Err(error) = task.run().await {
                    eprintln!("a guest ended: {error}");
                }
            });
            self.tasks.spawn(listen(inbox));
            net.set_members([network.daemons[0].node].into_iter().collect());
            for topic in [Topic::Facts, Topic::Nodes, Topic::Coordination] {
                net.subscribe(topic).await;
            }
            self.nets.push(net);
        }
        network.connected(self.nets.len() as u64).await?;
        tokio::time::sleep(CALM).await;
        Ok(())
    }

    async fn leave(mut self) {
        self.stop.cancel();
        self.nets.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn listen(mut inbox: Inbox) {
    while let Some(event) = inbox.next().await {
        match event {
            Event::Gossip { verdict, .. } => verdict.ignore(),
            Event::Request { .. } | Event::Stream { .. } | Event::Connected(_) | Event::Disconnected(_) => {}
        }
    }
}

/// Resident memory in MiB: all of it, and what is not shared with the program's file.
pub(crate) struct Resident {
    pub(crate) all: f64,
    pub(crate) own: f64,
}

/// Reads a process's resident memory.
pub(crate) fn resident(pid: u32) -> anyhow::Result<Resident> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |name: &str| -> anyhow::Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context("the kernel says it")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()?)
    };
    Ok(Resident { all: kib("VmRSS:")? / 1024.0, own: kib("RssAnon:")? / 1024.0 })
}

/// Measures how much of one core a process uses.
async fn cpu(pid: u32, window: Duration) -> anyhow::Result<f64> {
    let begin = nanoseconds(pid)?;
    let begun = std::time::Instant::now();
    tokio::time::sleep(window).await;
    let used = nanoseconds(pid)?.saturating_sub(begin);
    Ok(used as f64 / begun.elapsed().as_nanos() as f64 * 100.0)
}

/// CPU time of all threads that live; those of the blocking pool that end meanwhile are idle threads.
fn nanoseconds(pid: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        sum += text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}
