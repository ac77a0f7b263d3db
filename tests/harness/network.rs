//! A network of a test's own: one coordinator, builders of operators, perhaps a mirror, and the keys of its people.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use artel::{
    charter::{ChannelEntry, Charter, CoordinatorsEntry, MaintainerEntry, RootsEntry},
    clock,
    config::{self, Builder, Config, Explain, Mirror, Reach, Storage, Tools},
    keys,
    resolve::archive,
    submit::{self, Prepared, Wish},
};
use ed25519_dalek::SigningKey;
use protocol::{
    Arch, ChannelName, JobId, MaintainerName, NetworkId, NodeId, OperatorName,
    envelope::Signed,
    job::{BuildLimits, JobKind, JobRequest, Schedule, ServerJob},
    words::NetworkName,
};
use web::{
    Backend,
    api::{JobDetail, Majority, PolicyView},
};

use crate::{
    ground::Ground,
    lab::{Lab, Station},
    node::Node,
    place::Place,
    plan::{Cables, Environments, FIRST, Honesty, Plan},
    scratch::Scratch,
    wait::until,
};

/// How long the daemons may take to find each other.
const MEET_WITHIN: Duration = Duration::from_secs(30);
/// Lines of each daemon's log that are printed when a test fails.
const TAIL: usize = 25;
/// Set to see everything that the daemons logged, also when the test passed.
const LOGS: &str = "ARTEL_TESTS_LOGS";

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
    /// The names of the coordinators.
    candidates: Vec<String>,
    /// The node that this test asks.
    asked: String,
    /// Where the nodes are, when each has a namespace.
    lab: Option<(Lab, BTreeMap<String, Station>)>,
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
        let candidates = plan.candidates();
        let names = candidates.iter().chain(plan.builders.iter().map(|b| &b.name)).chain(&plan.mirrors);
        // A coordinator may build as well.
        let names: BTreeSet<&String> = names.collect();
        let mut nodes: BTreeMap<String, Node> =
            names.into_iter().map(|name| (name.clone(), Node::make(&ground.artel, scratch.path(), name))).collect();
        let lab = (plan.cables == Cables::Namespaces).then(|| cable(&mut nodes));
        let (root, maintainer) = (keys::generate().unwrap(), keys::generate().unwrap());
        let channel = ChannelName::new("main").unwrap();
        let charter = charter(plan, &nodes, &channel, (&root, &maintainer));
        let genesis = Signed::sign(&charter.to_policy().unwrap(), None, &[&root]);
        let id = NetworkId::from(genesis.id());
        let asked = FIRST.to_owned();
        let network =
            Self { id, channel, maintainer, charter, nodes, candidates, asked, lab, root, scratch, _place: place };
        network.configure(ground, plan, &genesis.to_bytes());
        network
    }

    fn configure(&self, ground: &Ground, plan: &Plan, genesis: &[u8]) {
        let address = |name: &str| match &self.lab {
            None => "127.0.0.1".to_owned(),
            Some((_, stations)) => stations[name].address(),
        };
        let ports: BTreeMap<&String, u16> = self.candidates.iter().map(|name| (name, free_port())).collect();
        let known = |name: &String| {
            let (at, port, peer) =
                (address(name), ports[name], artel::net::address_suffix(self.nodes[name.as_str()].id));
            [format!("/ip4/{at}/udp/{port}/quic-v1{peer}"), format!("/ip4/{at}/tcp/{port}{peer}")]
        };
        for (name, node) in &self.nodes {
            let builder = plan.builders.iter().find(|b| b.name == *name);
            let mirrors = plan.mirrors.contains(name);
            let (at, own) = (address(name), ports.get(name).copied().unwrap_or(0));
            let listen = vec![format!("/ip4/{at}/udp/{own}/quic-v1"), format!("/ip4/{at}/tcp/{own}")];
            let web = if builder.is_some() { "off".into() } else { format!("127.0.0.1:{}", free_port()) };
            let bootstrap = self.candidates.iter().filter(|other| *other != name).flat_map(known).collect();
            let config = Config {
                network: config::Network { id: self.id, bootstrap },
                reach: Reach { listen, web, mdns: false, ..Reach::default() },
                builder: builder.map(|b| Builder {
                    lie: b.honesty == Honesty::Liar,
                    fetch: plan.fetch.clone(),
                    isolation: plan.isolation,
                    ..Builder::default()
                }),
                mirror: mirrors.then(|| Mirror { channels: vec![self.channel.clone()] }),
                storage: Storage::default(),
                explain: plan.explain.clone().unwrap_or(Explain { environment: Tools::Off, ..Explain::default() }),
            };
            config.save(&node.home).unwrap();
            fs::write(node.home.genesis(), genesis).unwrap();
            if plan.explain.is_some() || plan.lend {
                ground.lend(&node.home);
            }
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

    /// Waits until every running node answers and is connected with the node that this test asks.
    ///
    /// # Panics
    /// When they do not find each other in time.
    pub async fn meet(&mut self) {
        let mut running = Vec::new();
        for node in self.nodes.values_mut().filter(|node| node.runs()) {
            node.up().await;
            running.push(node.id);
        }
        let coordinator = self.nodes[&self.asked].id;
        let client = self.coordinator();
        until("all nodes are connected with the one that is asked", MEET_WITHIN, async || {
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

    /// Gives the ids of all nodes of the plan.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.values().map(|node| node.id)
    }

    /// Gives the name of a node.
    ///
    /// # Panics
    /// When it is none of this network.
    pub fn name_of(&self, id: &NodeId) -> String {
        let found = self.nodes.values().find(|node| node.id == *id);
        found.unwrap_or_else(|| panic!("{id} is no node of this network")).name.clone()
    }

    /// The way to the node that this test asks, as its owner has it: the first coordinator, unless the test chose another.
    pub fn coordinator(&self) -> web::Client {
        self.client(&self.asked)
    }

    /// Asks another node from now on.
    pub fn ask_at(&mut self, name: &str) {
        name.clone_into(&mut self.asked);
    }

    /// Names the coordinators anew, as a new policy does.
    pub fn choose_candidates(&mut self, names: &[String]) {
        self.candidates = names.to_vec();
    }

    /// The names of the coordinators.
    pub fn candidates(&self) -> &[String] {
        &self.candidates
    }

    /// The name of the coordinator that leads with a majority, by its own word; none when nobody does.
    pub async fn leader(&self) -> Option<String> {
        for name in self.candidates.iter().filter(|name| self.nodes[*name].runs()) {
            let Ok(view) = self.client(name).coordination().await else { continue };
            if view.leader == Some(self.id_of(name)) && view.majority == Majority::Reachable {
                return Some(name.clone());
            }
        }
        None
    }

    /// Waits until a coordinator leads that is none of these, and gives its name.
    ///
    /// # Panics
    /// When nobody does in time.
    pub async fn led(&self, within: Duration, not: &[&str]) -> String {
        let other = async || self.leader().await.filter(|name| !not.contains(&name.as_str()));
        until("a coordinator leads", within, other).await
    }

    /// The links between the nodes, and where each node is.
    ///
    /// # Panics
    /// When the plan did not ask for namespaces.
    pub fn lab(&self) -> (&Lab, &BTreeMap<String, Station>) {
        let (lab, stations) = self.lab.as_ref().expect("the plan asks for namespaces");
        (lab, stations)
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
        let address = format!("http://{}", self.public_address(name));
        web::Client::new(address.parse().unwrap())
    }

    /// Where a node's web interface listens.
    pub fn public_address(&self, name: &str) -> String {
        self.nodes[name].config().reach.web
    }

    /// The root of the channel's repository at a node that mirrors it.
    pub fn repository_root(&self, mirror: &str) -> PathBuf {
        self.nodes[mirror].home.mirror(&self.channel).join("public")
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

    /// Signs and submits a job that may be refused.
    ///
    /// # Errors
    /// The network's.
    pub async fn try_submit(&self, prepared: &Prepared) -> Result<JobId, submit::Error> {
        let submitted =
            submit::submit(&self.coordinator(), prepared, &self.wish(), clock::now(), &self.maintainer).await;
        Ok(submitted?.job)
    }

    /// Signs and submits a server job for a channel, to begin after others.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn serve(&self, channel: &ChannelName, server: ServerJob, after: &[JobId]) -> JobId {
        let now = clock::now();
        let request = JobRequest {
            arch: Arch::All,
            kind: JobKind::Server(server),
            nonce: keys::random().unwrap()[..16].to_vec(),
            limits: BuildLimits::default(),
            channel: channel.clone(),
            created: now,
            expires: now.after(Duration::from_secs(3600)),
            network: self.id,
            schedule: Schedule { after: after.to_vec(), ..Schedule::default() },
            environment: ServerJob::environment(),
        };
        let signed = Signed::sign(&request, Some(&self.id), &[&self.maintainer]);
        self.coordinator().submit(signed.to_bytes().into()).await.unwrap().job
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
        let signed = self.next_policy(change);
        self.coordinator().adopt_policy(signed.into()).await.unwrap()
    }

    /// Signs the next policy, which nobody knows yet.
    ///
    /// # Panics
    /// When it is none.
    pub fn next_policy(&mut self, change: impl FnOnce(&mut Charter)) -> Vec<u8> {
        self.charter.number += 1;
        self.charter.network = Some(self.id);
        change(&mut self.charter);
        let policy = self.charter.to_policy().unwrap();
        Signed::sign(&policy, Some(&self.id), &[&self.root]).to_bytes()
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

/// Gives each node a namespace of its own.
fn cable(nodes: &mut BTreeMap<String, Node>) -> (Lab, BTreeMap<String, Station>) {
    let mut lab = Lab::make().expect("the test looked whether this machine can");
    let mut stations = BTreeMap::new();
    for (name, node) in nodes {
        let station = lab.station();
        node.move_to(lab.namespace(station));
        stations.insert(name.clone(), station);
    }
    (lab, stations)
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
        coordinators: match plan.candidates().as_slice() {
            [one] => CoordinatorsEntry::Pinned(nodes[one].id),
            several => CoordinatorsEntry::Elected(several.iter().map(|name| nodes[name].id).collect()),
        },
        limits: Charter::usual_limits(),
        operators,
        revoked: Vec::new(),
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
            witnesses: 0,
            attested_environments: false,
            valid_days: 7,
        }],
    }
}

/// Finds a port that is free for TCP and UDP on loopback.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    artel::demo::free_port().unwrap()
}
