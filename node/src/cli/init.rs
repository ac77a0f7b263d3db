//! `artel init`: a network, or a node that joins one.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use protocol::{Arch, ChannelName, MaintainerName, NetworkId, NodeId, OperatorName, SuiteName, words::NetworkName};

use super::{Context, exit, output};
use crate::{
    charter::{ChannelEntry, Charter, CoordinatorsEntry, MaintainerEntry, RootsEntry},
    clock,
    config::{self, Builder, Config, Explain, Home, Mirror, Network, Reach, Storage},
    keys::{self, Sign as _, Signer},
    net,
    ticket::Ticket,
};

/// Days that a policy is valid when nobody says otherwise.
const POLICY_DAYS: u64 = 365;

/// Make a network, or a node that joins one
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// Join the network of this ticket (from `artel node ticket` there)
    #[arg(long, value_name = "TICKET", conflicts_with_all = ["network", "suite", "agree", "ask", "ask_max"])]
    join: Option<Ticket>,
    /// Name of the new network
    #[arg(long, value_name = "NAME", default_value = "artel")]
    network: NetworkName,
    /// The first channel, or the one to mirror
    #[arg(long, default_value = "main")]
    channel: ChannelName,
    /// Suite of the first channel [default: this system's codename]
    #[arg(long)]
    suite: Option<SuiteName>,
    /// Operators that must agree bit for bit (k)
    #[arg(long, default_value_t = 2)]
    agree: u8,
    /// Operators that are asked first (n) [default: k]
    #[arg(long)]
    ask: Option<u8>,
    /// Operators that are asked at most [default: n + 1]
    #[arg(long)]
    ask_max: Option<u8>,
    /// Who answers for this node
    #[arg(long, default_value = "first")]
    operator: OperatorName,
    #[command(flatten)]
    people: People,
    /// Roles of this node: builder, mirror
    #[arg(long, value_delimiter = ',', default_value = "builder")]
    role: Vec<Role>,
    /// libp2p addresses to listen on [default: QUIC and TCP on port 4700]
    #[arg(long, value_name = "MULTIADDR", value_parser = multiaddr)]
    listen: Vec<String>,
    /// Where the web interface listens, or `off`
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4780", value_parser = web_address)]
    web: String,
    /// Make this node known by these addresses
    #[arg(long, value_name = "MULTIADDR", value_parser = multiaddr)]
    announce: Vec<String>,
}

/// Who signs in a new network
#[derive(Debug, clap::Args)]
struct People {
    /// Name of the maintainer, and of the key that is made
    #[arg(long, default_value = "maintainer")]
    maintainer: MaintainerName,
    /// Have the maintainer sign with this key of OpenSSH instead (`~/.ssh/id_ed25519.pub` for one that an agent has)
    #[arg(long, value_name = "FILE", conflicts_with = "join")]
    maintainer_key: Option<PathBuf>,
    /// Have the root sign with this key of OpenSSH instead of a new one
    #[arg(long, value_name = "FILE", conflicts_with = "join")]
    root_key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Builder,
    Mirror,
}

impl Init {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let home = &context.home;
        if home.config().exists() {
            let what = format!("{} exists already", home.config().display());
            return Err(exit::failure(exit::CONFIGURATION, what)
                .hint("choose another --home, or run `artel node run` with this one")
                .into());
        }
        fs::create_dir_all(home.path()).with_context(|| format!("cannot make {}", home.path().display()))?;
        let key =
            if home.node_key().exists() { keys::load(&home.node_key())? } else { keys::create(&home.node_key())? };
        let node = NodeId::from(keys::public(&key));
        let network = match &self.join {
            Some(ticket) => {
                if let Some(address) = ticket.bootstrap.iter().find(|address| !address.contains("/p2p/")) {
                    let what = format!("the ticket names {address} without the node that must answer there");
                    return Err(exit::failure(exit::CONFIGURATION, what)
                        .hint("ask for a new one: `artel node ticket` of this version, on a node of the network")
                        .into());
                }
                Network { id: ticket.network, bootstrap: ticket.bootstrap.clone() }
            }
            None => Network { id: self.found(home, node)?, bootstrap: Vec::new() },
        };
        let config = self.config(network);
        config.save(home)?;
        self.explain(context, &config, node)?;
        Ok(exit::DONE)
    }

    /// Founds a network: root and maintainer keys, and the genesis policy.
    fn found(&self, home: &Home, node: NodeId) -> anyhow::Result<NetworkId> {
        fs::create_dir_all(home.path().join("keys"))?;
        let root = key_of(home, "root", self.people.root_key.as_deref())?;
        let maintainer = key_of(home, self.people.maintainer.as_str(), self.people.maintainer_key.as_deref())?;
        let suite = match &self.suite {
            Some(suite) => suite.clone(),
            None => crate::resolve::archive::system_suite()?,
        };
        let ask = self.ask.unwrap_or(self.agree);
        let arch = Arch::native().context("this machine's architecture has no name in dpkg")?;
        let channel = ChannelEntry {
            name: self.channel.clone(),
            suite,
            arches: vec![arch],
            agree: self.agree,
            ask,
            ask_max: self.ask_max.unwrap_or(ask.saturating_add(1)),
            fail_quorum: self.agree.min(2),
            witnesses: 0,
            attested_environments: false,
            valid_days: 7,
        };
        let charter = Charter {
            name: self.network.clone(),
            number: 1,
            expires: clock::rfc3339(clock::now().after(Duration::from_secs(POLICY_DAYS * 86_400))),
            network: None,
            revoked: Vec::new(),
            mirrors: Vec::new(),
            bootstrap: Vec::new(),
            roots: RootsEntry { threshold: 1, keys: vec![root.public()] },
            coordinators: CoordinatorsEntry::Pinned(node),
            limits: Charter::usual_limits(),
            operators: [(self.operator.clone(), vec![node])].into(),
            maintainers: vec![MaintainerEntry {
                name: self.people.maintainer.clone(),
                key: maintainer.public(),
                channels: vec![self.channel.clone()],
            }],
            channels: vec![channel],
        };
        let genesis = keys::sign(&charter.to_policy()?, None, &[&root])?;
        fs::write(home.genesis(), genesis.to_bytes())?;
        Ok(NetworkId::from(genesis.id()))
    }

    fn config(&self, network: Network) -> Config {
        let usual = Reach::default();
        let listen = if self.listen.is_empty() { usual.listen.clone() } else { self.listen.clone() };
        Config {
            network,
            reach: Reach { listen, announce: self.announce.clone(), web: self.web.clone(), ..usual },
            builder: self.role.contains(&Role::Builder).then(Builder::default),
            mirror: self.role.contains(&Role::Mirror).then(|| Mirror { channels: vec![self.channel.clone()] }),
            storage: Storage::default(),
            explain: Explain::default(),
        }
    }

    fn explain(&self, context: &Context, config: &Config, node: NodeId) -> anyhow::Result<()> {
        if context.format == output::Format::Json {
            return output::json(&serde_json::json!({ "node": node, "network": config.network.id }));
        }
        output::line(&format!("node     {node}\nnetwork  {}", config.network.id))?;
        anstream::eprintln!("wrote {}", context.home.config().display());
        match self.join {
            Some(_) => anstream::eprintln!(
                "next: start it with `artel node run`, and have a root of the network admit it:\n  artel policy admit OPERATOR {node}"
            ),
            None => anstream::eprintln!(
                "next: start it with `artel node run`; `artel node ticket` prints what others paste to join.\n\
                 keep {} offline: it changes the policy",
                context.home.key("root").display()
            ),
        }
        Ok(())
    }
}

/// Takes what `artel node run` will take, as it is written.
fn multiaddr(text: &str) -> Result<String, net::AddressError> {
    net::check_address(text).map(|()| text.to_owned())
}

/// Takes what `artel node run` will take, as it is written.
fn web_address(text: &str) -> Result<String, String> {
    config::web_address(text).map(|_| text.to_owned())
}

fn key_of(home: &Home, name: &str, file: Option<&Path>) -> anyhow::Result<Signer> {
    let path = home.key(name);
    Ok(match file {
        Some(file) => keys::link(file, &path)?,
        None if path.exists() => Signer::open(&path)?,
        None => Signer::Own(keys::create(&path)?),
    })
}
