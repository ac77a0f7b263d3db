//! A network of a test's own: one coordinator, builders of operators, perhaps a mirror, and the keys of its people.

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, UdpSocket},
    path::Path,
    time::Duration,
};

use artel::{
    charter::{ChannelEntry, Charter, CoordinatorsEntry, MaintainerEntry, RootsEntry},
    clock,
    config::{self, Builder, Config, Mirror, Reach, Storage},
    keys,
    resolve::archive,
    submit::{self, Prepared, Wish},
};
use ed25519_dalek::SigningKey;
use protocol::{
    Arch, ChannelName, JobId, MaintainerName, NetworkId, NodeId, OperatorName,
    envelope::Signed,
    job::{BuildLimits, Schedule},
    words::NetworkName,
};
use web::{
    Backend,
    api::{JobDetail, PolicyView},
};

use crate::{ground::Ground, node::Node, place::Place, scratch::Scratch, wait::until};

/// How long the daemons may take to find each other.
const MEET_WITHIN: Duration = Duration::from_secs(30);
/// Lines of each daemon's log that are printed when a test fails.
const TAIL: usize = 25;
/// Set to see everything that the daemons logged, also when the test passed.
const LOGS: &str = "ARTEL_TESTS_LOGS";

/// Whether a builder signs what it built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Honesty {
    /// It does.
    Honest,
    /// It signs something else.
    Liar,
}

/// Where a builder's environments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environments {
    /// In the folder that all builders of this machine share; the product locks them by file.
    Shared,
    /// In its own folder, empty at first.
    Own,
}

/// One builder of a plan.
#[derive(Debug, Clone)]
pub struct BuilderPlan {
    /// The node's name.
    pub name: String,
    /// Who answers for it; nobody when the policy is not to name it.
    pub operator: Option<String>,
    /// Whether it lies.
    pub honesty: Honesty,
    /// Where its environments are.
    pub environments: Environments,
}

impl BuilderPlan {
    /// Plans an honest builder of an operator.
    pub fn of(name: &str, operator: &str) -> Self {
        let (name, operator) = (name.to_owned(), Some(operator.to_owned()));
        Self { name, operator, honesty: Honesty::Honest, environments: Environments::Shared }
    }

    /// Makes it lie.
    #[must_use]
    pub fn lying(mut self) -> Self {
        self.honesty = Honesty::Liar;
        self
    }

    /// Gives it environments of its own.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.environments = Environments::Own;
        self
    }
}

/// A network to be made.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The builders.
    pub builders: Vec<BuilderPlan>,
    /// Mirrors, by name.
    pub mirrors: Vec<String>,
    /// Operators that must agree.
    pub agree: u8,
    /// Operators that are asked first.
    pub ask: u8,
    /// Operators that are asked at most.
    pub ask_max: u8,
}

impl Plan {
    /// Plans so many builders `b1`, `b2`.. of operators `o1`, `o2`.., of which two must agree.
    pub fn builders(count: u8) -> Self {
        let builders = (1..=count).map(|n| BuilderPlan::of(&format!("b{n}"), &format!("o{n}"))).collect();
        Self { builders, mirrors: Vec::new(), agree: 2, ask: 2, ask_max: count.max(2) }
    }
}

/// A running network.
pub struct Network {
    /// The network's id.
    pub id: NetworkId,
    /// The channel of all jobs.
    pub channel: ChannelName,
    /// Who may sign jobs.
    pub maintainer: SigningKey,
    /// What the policy in force says.
    pub charter: Charter,
    nodes: BTreeMap<String, Node>,
    root: SigningKey,
    scratch: Scratch,
    _place: Place,
}

impl Network {
    /// Makes folders, keys, the policy and every configuration; starts nothing.
    ///
    /// # Panics
    /// When the machine refuses.
    pub fn found(ground: &Ground, plan: &Plan) -> Self {
        let place = Place::take(&ground.cache);
        let scratch = Scratch::make();
        let names = ["coordinator"].into_iter().chain(plan.builders.iter().map(|b| b.name.as_str()));
        let names = names.chain(plan.mirrors.iter().map(String::as_str));
        let nodes: BTreeMap<String, Node> =
            names.map(|name| (name.to_owned(), Node::make(&ground.artel, scratch.path(), name))).collect();
        let (root, maintainer) = (keys::generate().unwrap(), keys::generate().unwrap());
        let channel = ChannelName::new("main").unwrap();
        let charter = charter(plan, &nodes, &channel, (&root, &maintainer));
        let genesis = Signed::sign(&charter.to_policy().unwrap(), None, &[&root]);
        let id = NetworkId::from(genesis.id());
        let network = Self { id, channel, maintainer, charter, nodes, root, scratch, _place: place };
        network.configure(ground, plan, &genesis.to_bytes());
        network
    }

    fn configure(&self, ground: &Ground, plan: &Plan, genesis: &[u8]) {
        let coordinator = &self.nodes["coordinator"];
        let (port, peer) = (free_port(), artel::net::address_suffix(coordinator.id));
        let bootstrap =
            vec![format!("/ip4/127.0.0.1/udp/{port}/quic-v1{peer}"), format!("/ip4/127.0.0.1/tcp/{port}{peer}")];
        for (name, node) in &self.nodes {
            let builder = plan.builders.iter().find(|b| b.name == *name);
            let coordinates = name == "coordinator";
            let mirrors = plan.mirrors.contains(name);
            let own = if coordinates { port } else { 0 };
            let listen = vec![format!("/ip4/127.0.0.1/udp/{own}/quic-v1"), format!("/ip4/127.0.0.1/tcp/{own}")];
            let web = if builder.is_some() { "off".into() } else { format!("127.0.0.1:{}", free_port()) };
            let bootstrap = if coordinates { Vec::new() } else { bootstrap.clone() };
            let config = Config {
                network: config::Network { id: self.id, bootstrap },
                reach: Reach { listen, web, mdns: false, ..Reach::default() },
                builder: builder.map(|b| Builder { lie: b.honesty == Honesty::Liar, ..Builder::default() }),
                mirror: mirrors.then(|| Mirror { channels: vec![self.channel.clone()] }),
                storage: Storage::default(),
            };
            config.save(&node.home).unwrap();
            fs::write(node.home.genesis(), genesis).unwrap();
            if builder.is_some_and(|b| b.environments == Environments::Shared) {
                fs::create_dir_all(node.home.build()).unwrap();
                let link = node.home.build().join("environments");
                std::os::unix::fs::symlink(ground.environments(), link).unwrap();
            }
        }
    }

    /// Starts every node and waits until they found each other.
    pub async fn start(&mut self) {
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.start_some(&names).await;
    }

    /// Starts some nodes, the coordinator among them, and waits until all that run found each other.
    ///
    /// # Panics
    /// When they do not.
    pub async fn start_some(&mut self, names: &[&str]) {
        for name in names {
            self.node(name).start();
        }
        self.meet().await;
    }

    /// Waits until every running node answers and is connected with the coordinator.
    ///
    /// # Panics
    /// When they do not find each other in time.
    pub async fn meet(&mut self) {
        let mut running = Vec::new();
        for node in self.nodes.values_mut().filter(|node| node.runs()) {
            node.up().await;
            running.push(node.id);
        }
        let coordinator = self.nodes["coordinator"].id;
        let client = self.coordinator();
        until("all nodes are connected with the coordinator", MEET_WITHIN, async || {
            let peers = client.peers().await.ok()?;
            let here = |id: &NodeId| *id == coordinator || peers.iter().any(|p| p.node == *id && !p.address.is_empty());
            running.iter().all(here).then_some(())
        })
        .await;
    }

    /// Gives a node by name.
    ///
    /// # Panics
    /// When the plan has no such node.
    pub fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(name).unwrap_or_else(|| panic!("the plan has no node {name}"))
    }

    /// Gives the id of a node.
    pub fn id_of(&self, name: &str) -> NodeId {
        self.nodes[name].id
    }

    /// Gives the name of a node.
    ///
    /// # Panics
    /// When it is none of this network.
    pub fn name_of(&self, id: &NodeId) -> String {
        let found = self.nodes.values().find(|node| node.id == *id);
        found.unwrap_or_else(|| panic!("{id} is no node of this network")).name.clone()
    }

    /// The way to the coordinator, as its owner has it.
    pub fn coordinator(&self) -> web::Client {
        self.client("coordinator")
    }

    /// The way to a node, as its owner has it.
    pub fn client(&self, name: &str) -> web::Client {
        self.nodes[name].client()
    }

    /// The way to a node as everybody has it, over its web interface.
    ///
    /// # Panics
    /// When the node has none.
    pub fn public(&self, name: &str) -> web::Client {
        let address = format!("http://{}", self.nodes[name].config().reach.web);
        web::Client::new(address.parse().unwrap())
    }

    /// The folder of the whole network.
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// What a job of a test may use.
    pub fn wish(&self) -> Wish {
        let limits = BuildLimits { memory_mib: 1024, wall_secs: 300, silence_secs: 200, ..BuildLimits::default() };
        Wish {
            channel: self.channel.clone(),
            limits,
            lifetime: Duration::from_secs(3600),
            schedule: Schedule::default(),
        }
    }

    /// Signs and submits a job through the coordinator.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn submit(&self, prepared: &Prepared) -> JobId {
        self.submit_as(prepared, &self.wish()).await
    }

    /// Signs and submits a job through the coordinator as a wish says.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn submit_as(&self, prepared: &Prepared, wish: &Wish) -> JobId {
        submit::submit(&self.coordinator(), prepared, wish, clock::now(), &self.maintainer).await.unwrap().job
    }

    /// Gives a job as the coordinator shows it.
    ///
    /// # Panics
    /// When there is none.
    pub async fn job(&self, job: JobId) -> JobDetail {
        self.coordinator().job(job).await.unwrap()
    }

    /// Waits until a job is as the test wants it.
    ///
    /// # Panics
    /// When it is not in time; the job is printed.
    pub async fn job_until(
        &self,
        (job, what): (JobId, &str),
        within: Duration,
        mut wanted: impl FnMut(&JobDetail) -> bool,
    ) -> JobDetail {
        let client = self.coordinator();
        let deadline = std::time::Instant::now() + within;
        until(what, within + Duration::from_secs(5), async || {
            let detail = client.job(job).await;
            let found = detail.as_ref().ok().filter(|detail| wanted(detail)).cloned();
            if found.is_none() && std::time::Instant::now() > deadline {
                panic!("not within {} s: {what}; the job is {detail:#?}", within.as_secs());
            }
            found
        })
        .await
    }

    /// Waits until nothing more will happen to a job.
    pub async fn over(&self, job: JobId, within: Duration) -> JobDetail {
        self.job_until((job, "the job is over"), within, |detail| detail.summary.state.is_over()).await
    }

    /// Changes the policy, signs it and has the network adopt it.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn change_policy(&mut self, change: impl FnOnce(&mut Charter)) -> PolicyView {
        self.charter.number += 1;
        self.charter.network = Some(self.id);
        change(&mut self.charter);
        let policy = self.charter.to_policy().unwrap();
        let signed = Signed::sign(&policy, Some(&self.id), &[&self.root]);
        self.coordinator().adopt_policy(signed.to_bytes().into()).await.unwrap()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let lines = match std::env::var(LOGS) {
            Ok(_) => usize::MAX,
            Err(_) if std::thread::panicking() => TAIL,
            Err(_) => 0,
        };
        for node in self.nodes.values().filter(|_| lines > 0) {
            eprintln!("---- the end of what {} logged\n{}", node.name, node.tail(lines));
        }
        self.nodes.values_mut().for_each(Node::end);
    }
}

fn charter(
    plan: &Plan,
    nodes: &BTreeMap<String, Node>,
    channel: &ChannelName,
    (root, maintainer): (&SigningKey, &SigningKey),
) -> Charter {
    let mut operators: BTreeMap<OperatorName, Vec<NodeId>> = BTreeMap::new();
    for builder in &plan.builders {
        let Some(operator) = &builder.operator else { continue };
        operators.entry(OperatorName::new(operator).unwrap()).or_default().push(nodes[&builder.name].id);
    }
    Charter {
        name: NetworkName::new("test").unwrap(),
        number: 1,
        expires: clock::rfc3339(clock::now().after(Duration::from_secs(30 * 86_400))),
        network: None,
        bootstrap: Vec::new(),
        roots: RootsEntry { threshold: 1, keys: vec![keys::public(root)] },
        coordinators: CoordinatorsEntry::Pinned(nodes["coordinator"].id),
        limits: Charter::usual_limits(),
        operators,
        mirrors: plan.mirrors.iter().map(|name| nodes[name].id).collect(),
        maintainers: vec![MaintainerEntry {
            name: MaintainerName::new("maintainer").unwrap(),
            key: keys::public(maintainer),
            channels: vec![channel.clone()],
        }],
        channels: vec![ChannelEntry {
            name: channel.clone(),
            suite: archive::system_suite().unwrap(),
            arches: vec![Arch::native().unwrap()],
            agree: plan.agree,
            ask: plan.ask,
            ask_max: plan.ask_max,
            fail_quorum: plan.agree.min(2),
            valid_days: 7,
        }],
    }
}

/// Finds a port that is free for TCP and UDP on loopback.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    let free = |_| {
        let tcp = TcpListener::bind("127.0.0.1:0").ok()?;
        let port = tcp.local_addr().ok()?.port();
        UdpSocket::bind(("127.0.0.1", port)).ok().map(|_| port)
    };
    (0..64).find_map(free).expect("a port on loopback is free for both TCP and UDP")
}
