//! A network of network namespaces: every station has its own, and a cable to one switch. Links are cut in one direction or
//! both, silently, as a broken router cuts them: no error reaches the sender.
//!
//! ```text
//!   station 10.77.0.1 --veth--+
//!   station 10.77.0.2 --veth--+-- bridge, in a namespace of its own
//!   station 10.77.0.3 --veth--+
//! ```
//!
//! A cut is a neighbour entry with the address of nobody: what one station sends to the other then reaches no card. It needs
//! root and `iproute2`, and neither a packet filter nor netem.

use std::{
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

/// The address of nobody: frames to it reach no card.
const NOBODY: &str = "02:00:00:00:00:ff";
/// Every lab has the same addresses; they exist only in its own namespaces.
const PREFIX: &str = "10.77.0.";
/// The names of the namespaces begin so, followed by the process that made them.
const NAME: &str = "artel-it-";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A switch and stations, removed when dropped.
#[derive(Debug)]
pub struct Lab {
    name: String,
    stations: u8,
}

/// One station: a network namespace with one card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Station(u8);

impl Station {
    /// Its address.
    pub fn address(self) -> String {
        format!("{PREFIX}{}", self.0)
    }
}

impl Lab {
    /// Makes the switch.
    ///
    /// # Errors
    /// In words, when this machine cannot make network namespaces: without root, `ip` or kernel support.
    pub fn make() -> Result<Self, String> {
        remove_orphans();
        let name = format!("{NAME}{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let lab = Self { name, stations: 0 };
        let switch = lab.switch();
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add br0 type bridge"))?;
        ip(&format!("-n {switch} link set br0 up"))?;
        Ok(lab)
    }

    /// Adds a station with a cable to the switch.
    ///
    /// # Panics
    /// When the kernel refuses; the switch could be made.
    pub fn station(&mut self) -> Station {
        self.stations += 1;
        let station = Station(self.stations);
        let (switch, own, address) = (self.switch(), self.namespace(station), station.address());
        let number = station.0;
        for line in [
            format!("netns add {own}"),
            format!("-n {switch} link add p{number} type veth peer name eth0 netns {own}"),
            format!("-n {switch} link set p{number} master br0 up"),
            format!("-n {own} addr add {address}/24 dev eth0"),
            format!("-n {own} link set lo up"),
            format!("-n {own} link set eth0 up"),
        ] {
            ip(&line).unwrap();
        }
        station
    }

    /// The name of a station's namespace.
    pub fn namespace(&self, station: Station) -> String {
        format!("{}-{}", self.name, station.0)
    }

    /// Loses everything that one station sends to another from now on; the other direction stays.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn cut(&self, from: Station, to: Station) {
        let (own, address) = (self.namespace(from), to.address());
        ip(&format!("-n {own} neigh replace {address} lladdr {NOBODY} dev eth0 nud permanent")).unwrap();
    }

    /// Cuts both directions between every station of one side and every station of the other.
    pub fn part(&self, one: &[Station], other: &[Station]) {
        for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
            self.cut(a, b);
            self.cut(b, a);
        }
    }

    /// Mends every cut.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn heal(&self) {
        for number in 1..=self.stations {
            let own = self.namespace(Station(number));
            ip(&format!("-n {own} neigh flush dev eth0 nud permanent")).unwrap();
        }
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let stations = (1..=self.stations).map(|number| self.namespace(Station(number)));
        for namespace in stations.chain([self.switch()]) {
            if let Err(why) = ip(&format!("netns del {namespace}")) {
                eprintln!("namespace {namespace} stays: {why}");
            }
        }
    }
}

fn ip(line: &str) -> Result<(), String> {
    let output = Command::new("ip").args(line.split(' ')).output().map_err(|e| format!("`ip` cannot be run: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`ip {line}`: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Removes the namespaces of test processes that were killed.
fn remove_orphans() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(NAME).and_then(|rest| rest.split('-').next());
        let Some(owner) = owner.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if !std::path::Path::new(&format!("/proc/{owner}")).exists() {
            // Another test may be removing it, too.
            let _ = ip(&format!("netns del {name}"));
        }
    }
}
