//! Real daemons on loopback: homes, keys, a policy, and processes that end with this one.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use artel::{
    charter::{ChannelEntry, Charter, CoordinatorsEntry, MaintainerEntry, RootsEntry},
    clock,
    config::{self, Builder, Config, Home, Reach, Storage},
    demo::free_port,
    keys,
    resolve::archive,
};
use ed25519_dalek::SigningKey;
use protocol::{
    Arch, ChannelName, MaintainerName, NetworkId, NodeId, OperatorName, envelope::Signed, words::NetworkName,
};
use tokio::process::{Child, Command};
use web::Backend;

const START_WAIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// A network whose channel wants one builder per job, so that a job's first attempt is its only one.
pub(crate) struct Network {
    pub(crate) id: NetworkId,
    pub(crate) channel: ChannelName,
    pub(crate) maintainer: SigningKey,
    /// Where others dial the coordinators.
    pub(crate) bootstrap: Vec<String>,
    /// The coordinators first.
    pub(crate) daemons: Vec<Daemon>,
}

/// One process.
pub(crate) struct Daemon {
    pub(crate) home: Home,
    pub(crate) node: NodeId,
    child: Option<Child>,
}

/// What a daemon is to be.
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) duty: Duty,
    /// What it builds with, where it builds.
    pub(crate) builder: Option<Builder>,
}

/// Whether the policy names a daemon as a coordinator: one is pinned, several are elected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// It coordinates, or may be elected.
    Candidate,
    /// It does not.
    Member,
}

impl Network {
    /// Makes homes and the policy. The candidates come first; `guests` are members that somebody else runs.
    pub(crate) fn found(folder: &Path, plans: Vec<Plan>, guests: &[NodeId]) -> anyhow::Result<Self> {
        Self::found_for(folder, plans, guests, 1)
    }

    /// As [`Network::found`], for a channel that wants `agree` builders per job.
    pub(crate) fn found_for(folder: &Path, plans: Vec<Plan>, guests: &[NodeId], agree: u8) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711))?;
        let daemons = plans.iter().map(|p| Daemon::make(&folder.join(&p.name))).collect::<Result<Vec<_>, _>>()?;
        let (root, maintainer) = (keys::generate()?, keys::generate()?);
        let channel = ChannelName::new("bench").context("a valid word")?;
        let nodes: Vec<NodeId> = daemons.iter().map(|d| d.node).chain(guests.iter().copied()).collect();
        let candidates = plans.iter().filter(|plan| plan.duty == Duty::Candidate).count();
        let mut charter = charter(&nodes, candidates, (&root, &maintainer), &channel)?;
        for entry in &mut charter.channels {
            (entry.agree, entry.ask, entry.ask_max) = (agree, agree, agree);
        }
        let genesis = Signed::sign(&charter.to_policy()?, None, &[&root]);
        let id = NetworkId::from(genesis.id());
        let ports = (0..candidates).map(|_| free_port()).collect::<Result<Vec<_>, _>>()?;
        let ways = |own: Option<usize>| {
            let known = ports.iter().zip(&daemons).enumerate().filter(|(index, _)| Some(*index) != own);
            let way = |port, node| format!("/ip4/127.0.0.1/udp/{port}/quic-v1{}", artel::net::address_suffix(node));
            known.map(|(_, (port, daemon))| way(*port, daemon.node)).collect::<Vec<_>>()
        };
        for (index, (daemon, plan)) in daemons.iter().zip(plans).enumerate() {
            let port = ports.get(index).copied().unwrap_or(0);
            let listen = vec![format!("/ip4/127.0.0.1/udp/{port}/quic-v1"), format!("/ip4/127.0.0.1/tcp/{port}")];
            let config = Config {
                network: config::Network { id, bootstrap: ways(Some(index)) },
                reach: Reach { listen, web: "127.0.0.1:0".into(), mdns: false, ..Reach::default() },
                builder: plan.builder,
                mirror: None,
                storage: Storage::default(),
                explain: config::Explain { environment: config::Tools::Off, ..config::Explain::default() },
            };
            config.save(&daemon.home)?;
            fs::write(daemon.home.genesis(), genesis.to_bytes())?;
        }
        let bootstrap = ways(None);
        Ok(Self { id, channel, maintainer, bootstrap, daemons })
    }

    /// Starts the coordinator alone.
    pub(crate) async fn start_coordinator(&mut self, program: &Path) -> anyhow::Result<()> {
        self.daemons[0].start(program)?;
        self.connected(0).await
    }

    /// Starts every daemon and waits until the others are connected to the coordinator.
    pub(crate) async fn start(&mut self, program: &Path) -> anyhow::Result<()> {
        for daemon in &mut self.daemons {
            daemon.start(program)?;
        }
        let wanted = self.daemons.len() as u64 - 1;
        self.connected(wanted).await
    }

    /// Waits until the coordinator has so many peers.
    pub(crate) async fn connected(&self, wanted: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_WAIT;
        while !self.client().status().await.is_ok_and(|status| status.peers >= wanted) {
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.daemons[0].log()).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(5).collect();
                bail!("the coordinator has not {wanted} peers after {START_WAIT:?}; it says:\n{}", tail.join("\n"));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// The first coordinator's control socket.
    pub(crate) fn client(&self) -> web::Client {
        self.daemons[0].client()
    }

    /// Stops every daemon, politely first.
    pub(crate) async fn stop(&mut self) {
        for daemon in &mut self.daemons {
            let Some(mut child) = daemon.child.take() else { continue };
            if let Some(pid) = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
                // It may have ended by itself.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            if tokio::time::timeout(Duration::from_secs(10), child.wait()).await.is_err() {
                // It may have ended just now.
                let _ = child.kill().await;
            }
        }
    }
}

impl Daemon {
    fn make(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711))?;
        let home = Home::find(Some(folder.to_owned()))?;
        let key = keys::create(&home.node_key())?;
        Ok(Self { home, node: NodeId::from(keys::public(&key)), child: None })
    }

    /// The daemon's control socket.
    pub(crate) fn client(&self) -> web::Client {
        web::Client::at_socket(self.home.socket())
    }

    /// Ends the daemon as a power cut does.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.take().context("the daemon runs")?.kill().await.context("cannot kill a daemon")
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("daemon.log")
    }

    pub(crate) fn start(&mut self, program: &Path) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(program);
        command.arg("--home").arg(self.home.path()).args(["node", "run"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        self.child = Some(command.spawn().context("cannot start a daemon")?);
        Ok(())
    }

    /// Gives the process's number.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.child.as_ref().and_then(Child::id).context("the daemon runs")
    }
}

fn charter(
    nodes: &[NodeId],
    candidates: usize,
    (root, maintainer): (&SigningKey, &SigningKey),
    channel: &ChannelName,
) -> anyhow::Result<Charter> {
    let arch = Arch::native().context("this machine's architecture has no name in dpkg")?;
    // The coordinator too: in some measurements it builds.
    let operators = nodes.iter().enumerate();
    let operators = operators.map(|(at, node)| Ok((OperatorName::new(format!("operator{at}"))?, vec![*node])));
    Ok(Charter {
        name: NetworkName::new("bench")?,
        number: 1,
        expires: clock::rfc3339(clock::now().after(Duration::from_secs(86_400))),
        network: None,
        bootstrap: Vec::new(),
        roots: RootsEntry { threshold: 1, keys: vec![keys::public(root)] },
        coordinators: match &nodes[..candidates] {
            [one] => CoordinatorsEntry::Pinned(*one),
            several => CoordinatorsEntry::Elected(several.to_vec()),
        },
        limits: Charter::usual_limits(),
        operators: operators.collect::<anyhow::Result<BTreeMap<_, _>>>()?,
        revoked: Vec::new(),
        mirrors: Vec::new(),
        maintainers: vec![MaintainerEntry {
            name: MaintainerName::new("maintainer")?,
            key: keys::public(maintainer),
            channels: vec![channel.clone()],
        }],
        channels: vec![ChannelEntry {
            name: channel.clone(),
            suite: archive::system_suite()?,
            arches: vec![arch],
            agree: 1,
            ask: 1,
            ask_max: 1,
            fail_quorum: 1,
            witnesses: 0,
            attested_environments: false,
            valid_days: 7,
        }],
    })
}
