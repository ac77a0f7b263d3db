//! A node's home folder and its `artel.toml`.
//!
//! The home folder holds everything that belongs to one node: configuration, key, database, blobs, builds, repositories
//! and the control socket. Its place is `--home`, else `ARTEL_HOME`, else `/var/lib/artel` for root, whose own folder the
//! build user could not enter, and `$XDG_STATE_HOME/artel` or `~/.local/state/artel` for everybody else.

mod explaining;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use protocol::{ChannelName, NetworkId, job::Isolation, limits::SLOTS_MAX, peer::HOSTS_MAX, words::HostRule};
use serde::{Deserialize, Serialize};

pub use explaining::{Explain, Tools};

/// Why the configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No home folder can be named.
    #[error("no home folder: set --home or ARTEL_HOME")]
    NoHome,
    /// There is no configuration there.
    #[error("{path} cannot be read; run `artel init` first, or name another folder by --home")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The file could not be written.
    #[error("{path} cannot be written")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML, or has words that we do not know.
    #[error("{path} is not a valid configuration")]
    Form {
        /// The file.
        path: PathBuf,
        /// The parser's words, with line and column.
        #[source]
        source: Box<toml::de::Error>,
    },
}

/// A node's home folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    /// Takes the folder that the user named, or finds the usual one.
    ///
    /// # Errors
    /// When neither the option nor the environment names one.
    pub fn find(named: Option<PathBuf>) -> Result<Self, Error> {
        let from = |variable: &str| std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
        let of_root = rustix::process::geteuid().is_root().then(|| PathBuf::from("/var/lib/artel"));
        named
            .or_else(|| from("ARTEL_HOME"))
            .or(of_root)
            .or_else(|| from("XDG_STATE_HOME").map(|dir| dir.join("artel")))
            .or_else(|| from("HOME").map(|dir| dir.join(".local/state/artel")))
            .map(|path| Self(std::path::absolute(&path).unwrap_or(path)))
            .ok_or(Error::NoHome)
    }

    /// Gives the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.0.join("artel.toml")
    }

    /// The node's secret key.
    pub fn node_key(&self) -> PathBuf {
        self.0.join("node.key")
    }

    /// Keys that belong to people: `keys/<name>.key`.
    pub fn key(&self, name: &str) -> PathBuf {
        self.0.join("keys").join(format!("{name}.key"))
    }

    /// The policy that the network began with, as `init` wrote it.
    pub fn genesis(&self) -> PathBuf {
        self.0.join("network.policy")
    }

    /// Says that this node has coordinated, outside of its database.
    pub fn coordinated(&self) -> PathBuf {
        self.0.join("coordinated")
    }

    /// How far `artel log verify` has read the transparency log.
    pub fn log_seen(&self) -> PathBuf {
        self.0.join("log.seen")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.0.join("artel.redb")
    }

    /// The blob store.
    pub fn blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }

    /// Present while the node drains; it holds the reason.
    pub fn drain(&self) -> PathBuf {
        self.0.join("drain")
    }

    /// Attempts and unpacked environments.
    pub fn build(&self) -> PathBuf {
        self.0.join("build")
    }

    /// Comparisons of outputs that differ.
    pub fn explain(&self) -> PathBuf {
        self.0.join("explain")
    }

    /// Uploads that are not whole yet.
    pub fn uploads(&self) -> PathBuf {
        self.0.join("uploads")
    }

    /// What the publisher lays out before it enters a repository.
    pub fn incoming(&self) -> PathBuf {
        self.0.join("incoming")
    }

    /// The private apt directory and downloaded packages.
    pub fn archive(&self) -> PathBuf {
        self.0.join("archive")
    }

    /// The repository that this node publishes for a channel.
    pub fn repository(&self, channel: &ChannelName) -> PathBuf {
        self.0.join("repositories").join(channel.as_str())
    }

    /// The copy of a repository that this node mirrors.
    pub fn mirror(&self, channel: &ChannelName) -> PathBuf {
        self.0.join("mirrors").join(channel.as_str())
    }

    /// Gives the root of the tree of a channel that this node serves, if it has one: of a node that may coordinate what it published,
    /// else what it mirrors, else what it published when it last coordinated. A tree without an index is none yet, or was none.
    pub fn served(&self, channel: &ChannelName, (coordinates, mirrors): (bool, bool)) -> Option<PathBuf> {
        let (published, mirrored) = (Some(self.repository(channel)), mirrors.then(|| self.mirror(channel)));
        let trees = if coordinates { [published, mirrored] } else { [mirrored, published] };
        let roots = trees.into_iter().flatten().map(|folder| folder.join("public"));
        roots.into_iter().find(|root| root.join("dists").is_dir())
    }

    /// The secret OpenPGP key that signs this node's repositories.
    pub fn repository_key(&self) -> PathBuf {
        self.0.join("repository-key.asc")
    }

    /// The control socket: whoever may open it owns the node.
    pub fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }
}

/// Where the network's first policy comes from and who is dialled first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The network's id.
    pub id: NetworkId,
    /// Addresses (multiaddrs ending in `/p2p/…`) dialled first, beside those of the policy.
    #[serde(default)]
    pub bootstrap: Vec<String>,
}

/// How the node is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reach {
    /// libp2p addresses to listen on.
    pub listen: Vec<String>,
    /// Addresses to tell others, when they are not those listened on.
    pub announce: Vec<String>,
    /// Where the web interface listens, or `off`.
    pub web: String,
    /// Host names that the web interface answers to, beside loopback.
    pub web_hosts: Vec<String>,
    /// Whether peers on the local network are looked for.
    pub mdns: bool,
    /// Connections at most.
    pub connections: u32,
}

impl Default for Reach {
    fn default() -> Self {
        Self {
            listen: vec!["/ip4/0.0.0.0/udp/4700/quic-v1".into(), "/ip4/0.0.0.0/tcp/4700".into()],
            announce: Vec::new(),
            web: "127.0.0.1:4780".into(),
            web_hosts: Vec::new(),
            mdns: true,
            connections: 64,
        }
    }
}

impl Reach {
    /// Where the web interface listens; none where it is off.
    ///
    /// # Errors
    /// What to write instead.
    pub fn web_address(&self) -> Result<Option<SocketAddr>, String> {
        web_address(&self.web)
    }
}

/// Reads where the web interface listens; none for `off`.
///
/// # Errors
/// What to write instead.
pub fn web_address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| format!("{text:?} is no address to listen on; write it as 127.0.0.1:4780, or off"))
}

/// What the node offers as a builder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Builder {
    /// Attempts at one time, at most [`SLOTS_MAX`].
    #[serde(deserialize_with = "slots")]
    pub slots: u16,
    /// Memory for builds, in MiB.
    pub memory_mib: u32,
    /// Disk for builds, in MiB.
    pub disk_mib: u32,
    /// Disk for unpacked environments, in MiB.
    pub environments_mib: u32,
    /// Whom fetches may reach: `host`, `*.domain`, perhaps with `:port`. Without any, this node takes no fetch.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "hosts")]
    pub fetch: Vec<HostRule>,
    /// The lightest isolation of commands: `rootfs`, or `light` to let them run this machine's own programs.
    #[serde(skip_serializing_if = "Isolation::is_rootfs")]
    pub isolation: Isolation,
    /// The system user that builds when the daemon runs as root.
    pub user: String,
    /// For demonstrations and tests only: sign changed outputs, to show that the network notices.
    #[serde(skip_serializing_if = "is_false")]
    pub lie: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

fn slots<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let slots = u16::deserialize(deserializer)?;
    if slots > SLOTS_MAX {
        return Err(serde::de::Error::custom(format!("a builder has at most {SLOTS_MAX} slots")));
    }
    Ok(slots)
}

/// Reads a list of hosts in any order, and keeps it as a card carries it.
fn hosts<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<HostRule>, D::Error> {
    let mut rules = Vec::<HostRule>::deserialize(deserializer)?;
    rules.sort();
    rules.dedup();
    if rules.len() > HOSTS_MAX {
        return Err(serde::de::Error::custom(format!("at most {HOSTS_MAX} hosts are listed: use *.domain")));
    }
    Ok(rules)
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            slots: 1,
            memory_mib: 4096,
            disk_mib: 16 * 1024,
            environments_mib: 8 * 1024,
            fetch: Vec::new(),
            isolation: Isolation::Rootfs,
            user: "artel-builder".into(),
            lie: false,
        }
    }
}

/// What the node mirrors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// Channels to follow.
    pub channels: Vec<ChannelName>,
}

impl Mirror {
    /// Says whether a channel is followed.
    pub fn follows(of: Option<&Self>, channel: &ChannelName) -> bool {
        of.is_some_and(|mirror| mirror.channels.contains(channel))
    }
}

/// Limits of the blob store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// Disk for blobs, in MiB.
    pub quota_mib: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self { quota_mib: 50 * 1024 }
    }
}

/// The whole of `artel.toml`. Whether the node coordinates is the policy's word, not the configuration's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The network.
    pub network: Network,
    /// Addresses.
    #[serde(default)]
    pub reach: Reach,
    /// Present when the node builds.
    pub builder: Option<Builder>,
    /// Present when the node mirrors.
    pub mirror: Option<Mirror>,
    /// Limits of the blob store.
    #[serde(default)]
    pub storage: Storage,
    /// How differences are explained, while the node coordinates.
    #[serde(default, skip_serializing_if = "Explain::is_usual")]
    pub explain: Explain,
}

impl Config {
    /// Reads `artel.toml`.
    ///
    /// # Errors
    /// When it is missing or not valid.
    pub fn load(home: &Home) -> Result<Self, Error> {
        let path = home.config();
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        toml::from_str(&text).map_err(|source| Error::Form { path, source: Box::new(source) })
    }

    /// Writes `artel.toml`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, home: &Home) -> Result<(), Error> {
        let path = home.config();
        let text = toml::to_string_pretty(self).expect("the configuration has nothing that TOML cannot write");
        // Replaced as a whole: a crash in between must not cost the configuration.
        let new = path.with_added_extension("new");
        let write = std::fs::write(&new, text).and_then(|()| std::fs::File::open(&new)?.sync_all());
        write.and_then(|()| std::fs::rename(&new, &path)).map_err(|source| Error::Write { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_that_is_served_is_the_one_that_is_kept_up() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::find(Some(dir.path().to_owned())).unwrap();
        let main: ChannelName = "main".parse().unwrap();
        let (published, mirrored) = (home.repository(&main).join("public"), home.mirror(&main).join("public"));
        std::fs::create_dir_all(&published).unwrap();
        std::fs::create_dir_all(mirrored.join("dists")).unwrap();
        assert_eq!(home.served(&main, (true, true)), Some(mirrored.clone()), "it has published nothing yet");
        assert_eq!(home.served(&main, (true, false)), None, "what is followed no more is not served");
        std::fs::create_dir_all(published.join("dists")).unwrap();
        assert_eq!(home.served(&main, (true, true)), Some(published.clone()));
        assert_eq!(home.served(&main, (false, true)), Some(mirrored), "it coordinates no more");
        assert_eq!(home.served(&main, (false, false)), Some(published));
        let mirror = Mirror { channels: vec![main.clone()] };
        assert!(Mirror::follows(Some(&mirror), &main) && !Mirror::follows(None, &main));
    }

    #[test]
    fn a_configuration_round_trips_and_refuses_unknown_words() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::find(Some(dir.path().to_owned())).unwrap();
        assert!(Config::load(&home).unwrap_err().to_string().contains("artel init"));
        let network = Network { id: NetworkId::from_bytes([7; 32]), bootstrap: Vec::new() };
        let config = Config {
            network,
            reach: Reach::default(),
            builder: Some(Builder::default()),
            mirror: None,
            storage: Storage::default(),
            explain: Explain { environment: Tools::Off, ..Explain::default() },
        };
        config.save(&home).unwrap();
        assert_eq!(Config::load(&home).unwrap(), config);
        let text = std::fs::read_to_string(home.config()).unwrap();
        std::fs::write(home.config(), format!("{text}\n[bulder]\nslots = 2\n")).unwrap();
        assert!(matches!(Config::load(&home), Err(Error::Form { .. })));
        std::fs::write(home.config(), text.replace("slots = 1\n", "slots = 1025\n")).unwrap();
        let refused = Config::load(&home).unwrap_err();
        let reason = std::error::Error::source(&refused).unwrap().to_string();
        assert!(reason.contains("at most 1024 slots"), "{reason}");
    }
}
