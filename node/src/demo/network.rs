//! The demonstration's network: folders, keys, policy and daemon processes on loopback.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use ed25519_dalek::SigningKey;
use protocol::{
    Arch, ChannelName, JobId, MaintainerName, NetworkId, NodeId, OperatorName, envelope::Signed, words::NetworkName,
};
use tokio::process::{Child, Command};
use web::Backend;

use super::{Plan, ports::free_port};
use crate::{
    charter::{ChannelEntry, Charter, CoordinatorsEntry, MaintainerEntry, RootsEntry},
    clock,
    config::{self, Builder, Config, Home, Mirror, Reach, Storage},
    keys,
    resolve::archive,
};

/// How long the daemons may take to come up and find each other.
const START_WAIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Which part a daemon plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Coordinator,
    Builder,
    Mirror,
}

struct Node {
    name: String,
    part: Part,
    home: Home,
    id: NodeId,
    web: String,
    child: Option<Child>,
}

/// What stays of a network that was made for the demonstration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// Nothing, unless its folder was named by whoever asked for it.
    Nothing,
    /// Its folder: the logs say why it failed.
    Logs,
}

/// The network.
pub(super) struct Network {
    folder: PathBuf,
    temporary: bool,
    nodes: Vec<Node>,
    channel: ChannelName,
    maintainer: SigningKey,
    first: usize,
}

impl Network {
    /// Makes folders, keys, the policy and every node's configuration.
    pub(super) fn found(plan: &Plan) -> anyhow::Result<Self> {
        let (folder, temporary) = match &plan.folder {
            Some(folder) => (folder.clone(), false),
            None => (temporary_folder()?, true),
        };
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // The build user, who owns nothing here, must be able to pass through.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))?;
        let folder = folder.canonicalize()?;
        let mut parts = vec![("coordinator".to_owned(), Part::Coordinator)];
        parts.extend((1..=plan.nodes).map(|n| (format!("builder{n}"), Part::Builder)));
        parts.push(("mirror".into(), Part::Mirror));
        let nodes =
            parts.into_iter().map(|(name, part)| Node::make(&folder, name, part)).collect::<Result<Vec<_>, _>>()?;
        let channel = ChannelName::new("main").expect("a valid word");
        let (root, maintainer) = (keys::generate()?, keys::create(&fresh_key(&nodes[0].home, "maintainer")?)?);
        // With liars, the builders that were asked first are the liars and one honest one; the others come later.
        let first = if plan.liars == 0 { usize::from(plan.nodes) } else { usize::from(plan.agree.max(plan.liars)) };
        let network = Self { folder, temporary, nodes, channel, maintainer, first };
        let genesis = Signed::sign(&network.charter(plan, &root)?.to_policy()?, None, &[&root]);
        network.configure(plan, NetworkId::from(genesis.id()), &genesis.to_bytes())?;
        Ok(network)
    }

    fn charter(&self, plan: &Plan, root: &SigningKey) -> anyhow::Result<Charter> {
        let arch = Arch::native().context("this machine's architecture has no name in dpkg")?;
        let operators: BTreeMap<OperatorName, Vec<NodeId>> = self
            .nodes
            .iter()
            .filter(|n| n.part == Part::Builder)
            .map(|n| Ok((OperatorName::new(n.name.replace("builder", "operator"))?, vec![n.id])))
            .collect::<anyhow::Result<_>>()?;
        Ok(Charter {
            name: NetworkName::new("demo")?,
            number: 1,
            expires: clock::rfc3339(clock::now().after(Duration::from_secs(30 * 86_400))),
            network: None,
            revoked: Vec::new(),
            mirrors: self.nodes.iter().filter(|n| n.part == Part::Mirror).map(|n| n.id).collect(),
            bootstrap: Vec::new(),
            roots: RootsEntry { threshold: 1, keys: vec![keys::public(root)] },
            coordinators: CoordinatorsEntry::Pinned(self.nodes[0].id),
            limits: Charter::usual_limits(),
            operators,
            maintainers: vec![MaintainerEntry {
                name: MaintainerName::new("maintainer")?,
                key: keys::public(&self.maintainer),
                channels: vec![self.channel.clone()],
            }],
            channels: vec![ChannelEntry {
                name: self.channel.clone(),
                suite: archive::system_suite()?,
                arches: vec![arch],
                agree: plan.agree,
                ask: plan.agree,
                ask_max: plan.nodes.max(plan.agree),
                fail_quorum: plan.agree.min(2),
                witnesses: 0,
                attested_environments: false,
                valid_days: 7,
            }],
        })
    }

    fn configure(&self, plan: &Plan, network: NetworkId, genesis: &[u8]) -> anyhow::Result<()> {
        let port = free_port()?;
        let coordinator = &self.nodes[0];
        let peer = crate::net::address_suffix(coordinator.id);
        let bootstrap =
            vec![format!("/ip4/127.0.0.1/udp/{port}/quic-v1{peer}"), format!("/ip4/127.0.0.1/tcp/{port}{peer}")];
        let mut builders = 0;
        for node in &self.nodes {
            let listen_port = if node.part == Part::Coordinator { port } else { 0 };
            let listen =
                vec![format!("/ip4/127.0.0.1/udp/{listen_port}/quic-v1"), format!("/ip4/127.0.0.1/tcp/{listen_port}")];
            builders += usize::from(node.part == Part::Builder);
            let lie = node.part == Part::Builder && builders <= usize::from(plan.liars);
            let bootstrap = if node.part == Part::Coordinator { Vec::new() } else { bootstrap.clone() };
            let config = Config {
                network: config::Network { id: network, bootstrap },
                reach: Reach { listen, web: node.web.clone(), mdns: false, ..Reach::default() },
                builder: (node.part == Part::Builder).then(|| Builder { lie, ..Builder::default() }),
                mirror: (node.part == Part::Mirror).then(|| Mirror { channels: vec![self.channel.clone()] }),
                storage: Storage::default(),
                explain: config::Explain { environment: config::Tools::Off, ..config::Explain::default() },
            };
            config.save(&node.home)?;
            fs::write(node.home.genesis(), genesis)?;
        }
        Ok(())
    }

    /// Starts the coordinator, the mirror and the builders that are asked first, and waits until all are connected.
    pub(super) async fn start_first(&mut self) -> anyhow::Result<()> {
        let first = self.first;
        let mut builders = 0;
        for node in &mut self.nodes {
            builders += usize::from(node.part == Part::Builder);
            if node.part != Part::Builder || builders <= first {
                node.start()?;
            }
        }
        let wanted = self.nodes.iter().filter(|n| n.child.is_some()).count() as u64 - 1;
        let client = self.coordinator();
        let deadline = Instant::now() + START_WAIT;
        loop {
            self.check_running()?;
            if client.status().await.is_ok_and(|status| status.peers >= wanted) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the daemons did not find each other within {START_WAIT:?}; their logs are in {}",
                    self.folder.display()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts the builders that were held back, once the first ones hold leases.
    pub(super) async fn start_rest_when_leased(&mut self, client: &web::Client, job: JobId) -> anyhow::Result<()> {
        if self.nodes.iter().all(|n| n.child.is_some()) {
            return Ok(());
        }
        loop {
            self.check_running()?;
            let detail = client.job(job).await?;
            if detail.attempts.len() >= self.first || detail.summary.state.is_over() {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        self.nodes.iter_mut().filter(|n| n.child.is_none()).try_for_each(Node::start)
    }

    fn check_running(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child
                && let Some(status) = child.try_wait()?
            {
                let log = fs::read_to_string(node.log()).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(8).collect();
                let tail: Vec<_> = tail.into_iter().rev().collect();
                bail!("the daemon {} ended ({status}):\n{}", node.name, tail.join("\n"));
            }
        }
        Ok(())
    }

    /// Waits until the mirror serves a generation.
    pub(super) async fn mirrored(&mut self, generation: u64, wait: Duration) -> anyhow::Result<()> {
        let client = web::Client::at_socket(self.mirror_node().home.socket());
        let deadline = Instant::now() + wait;
        loop {
            self.check_running()?;
            let views = client.repositories().await.unwrap_or_default();
            if views.iter().any(|v| v.channel == self.channel && v.generation >= generation) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the mirror did not follow to generation {generation} within {wait:?}; see {}",
                    self.mirror_node().log().display()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn mirror_node(&self) -> &Node {
        self.nodes.iter().find(|n| n.part == Part::Mirror).expect("every demonstration has a mirror")
    }

    /// The mirror's repository, as apt's `URIs:` line names it.
    pub(super) fn mirror_url(&self) -> String {
        format!("http://{}/repo/{}/", self.mirror_node().web, self.channel)
    }

    /// The repository's public key, as the mirror has it.
    pub(super) fn mirror_key(&self) -> PathBuf {
        self.mirror_node().home.mirror(&self.channel).join("public").join("archive-key.gpg")
    }

    /// The folder of everything.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The builders' folders.
    pub(super) fn builder_homes(&self) -> impl Iterator<Item = &Home> {
        self.nodes.iter().filter(|n| n.part == Part::Builder).map(|n| &n.home)
    }

    pub(super) fn channel(&self) -> ChannelName {
        self.channel.clone()
    }

    pub(super) fn maintainer(&self) -> &SigningKey {
        &self.maintainer
    }

    pub(super) fn coordinator(&self) -> web::Client {
        web::Client::at_socket(self.nodes[0].home.socket())
    }

    pub(super) fn dashboard(&self) -> String {
        format!("http://{}/", self.nodes[0].web)
    }

    pub(super) fn pids(&self) -> Vec<String> {
        self.nodes.iter().filter_map(|n| n.child.as_ref()?.id()).map(|pid| pid.to_string()).collect()
    }

    /// Leaves the daemons running.
    pub(super) fn leave(&mut self) {
        self.temporary = false;
        for node in &mut self.nodes {
            // A child that is forgotten is not killed when the handle is dropped.
            std::mem::forget(node.child.take());
        }
    }

    /// Stops the daemons, politely first, and removes the folder when it was made here, unless it is to stay.
    pub(super) async fn stop(&mut self, leave: Leave) {
        for node in &mut self.nodes {
            if let Some(pid) = node.child.as_ref().and_then(|c| rustix::process::Pid::from_raw(c.id()?.cast_signed())) {
                // It may have ended by itself.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        for node in &mut self.nodes {
            let Some(child) = &mut node.child else { continue };
            if tokio::time::timeout(Duration::from_secs(10), child.wait()).await.is_err() {
                anstream::eprintln!("{} does not stop; killing it", node.name);
                // It may have ended just now.
                let _ = child.kill().await;
            }
        }
        if leave == Leave::Logs {
            anstream::eprintln!("what the daemons left, their logs too, is in {}", self.folder.display());
        } else if self.temporary {
            if fs::read_link(latest()).is_ok_and(|to| to == self.folder) {
                let _ = fs::remove_file(latest());
            }
            if let Err(error) = crate::build::remove_tree(&self.folder) {
                anstream::eprintln!("{} could not be removed: {error}", self.folder.display());
            }
        }
    }
}

impl Node {
    fn make(folder: &Path, name: String, part: Part) -> anyhow::Result<Self> {
        let path = folder.join(&name);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711))?;
        let home = Home::find(Some(path))?;
        let key =
            if home.node_key().exists() { keys::load(&home.node_key())? } else { keys::create(&home.node_key())? };
        let web = match part {
            Part::Coordinator | Part::Mirror => format!("127.0.0.1:{}", free_port()?),
            Part::Builder => "off".into(),
        };
        Ok(Self { name, part, home, id: NodeId::from(keys::public(&key)), web, child: None })
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("daemon.log")
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let child = Command::new(std::env::current_exe()?)
            .arg("--home")
            .arg(self.home.path())
            .args(["node", "run"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start the daemon {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }
}

fn fresh_key(home: &Home, name: &str) -> anyhow::Result<PathBuf> {
    let path = home.key(name);
    fs::create_dir_all(path.parent().context("a key lies in a folder")?)?;
    Ok(path)
}

fn temporary_folder() -> anyhow::Result<PathBuf> {
    let random = keys::random()?;
    let name = format!("artel-demo-{}", data_encoding::HEXLOWER.encode(&random[..4]));
    let folder = std::env::temp_dir().join(name);
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let folder = folder.canonicalize()?;
    // A link to the newest one is a convenience; nothing depends on it.
    let _ = fs::remove_file(latest());
    let _ = symlink(&folder, latest());
    Ok(folder)
}

fn latest() -> PathBuf {
    std::env::temp_dir().join("artel-demo")
}
