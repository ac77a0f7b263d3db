//! The daemon: brings the parts of one node up, keeps them running, and takes them down together.
//!
//! Sockets and files are opened first, so that an error is seen at once. Then every part is one named task of one set:
//! the first that ends stops the others, and all are joined. Which parts run is said by the configuration and the policy.

mod bundle;
mod candidate;
mod cards;
pub(crate) mod decide;
mod dial;
mod explain;
mod inbox;
mod inputs;
mod joining;
mod judge;
mod leadership;
mod offers;
mod places;
mod publisher;
mod replica;
mod retention;
mod runs;
mod shared;
pub mod views;
mod wires;

use std::{path::Path, sync::Arc, time::Duration};

use protocol::{NodeId, Verified, policy::Policy};
use tokio::{
    sync::{broadcast, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use web::server::{Access, Limits, Listener, Server};

pub use bundle::bundle;
pub use cards::Cards;
pub use decide::{Decider, Decisions};
pub use explain::Errand;
pub use judge::ReadError;
pub use leadership::{Known, Leading, Office};
pub use offers::Offers;
pub use places::{Places, learn as learn_places};
pub use publisher::{Task, Work, chain};
pub use runs::{Piece, Runs};
pub use shared::{Others, Policies, PolicyError, Shared};

use crate::{
    blobs::{self, Blobs},
    build::{self, Workshop},
    clock,
    config::{Config, Home},
    handle::Handle,
    keys,
    mirror::Mirror,
    net::{self, Mdns, Topic},
    serve::Desk,
    store::{self, Store},
    worker::Worker,
};

/// Releases that were heard of and wait for the mirror; it takes only the newest anyway.
const RELEASES: usize = 16;
/// News that a slow listener may lag behind.
const NEWS: usize = 256;
/// How long parts may take to end.
const GRACE: Duration = Duration::from_secs(8);

/// Why the daemon could not begin, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node's key.
    #[error(transparent)]
    Key(#[from] keys::Error),
    /// The database.
    #[error("the database failed")]
    Store(#[from] store::Error),
    /// The blob store.
    #[error("the blob store failed")]
    Blobs(#[from] blobs::Error),
    /// The network.
    #[error("the network failed")]
    Net(#[from] net::Error),
    /// The builder cannot work on this machine.
    #[error("this machine cannot build")]
    Build(#[from] build::WorkshopError),
    /// The policies on disk.
    #[error("the policies of this node are not valid")]
    Policy(#[from] PolicyError),
    /// The web interface's sockets.
    #[error("the web interface cannot listen")]
    Web(#[from] web::server::BindError),
    /// A file, folder or socket.
    #[error("{what} failed")]
    System {
        /// What was tried.
        what: String,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// A part ended by itself.
    #[error("{part} ended: {why}")]
    Ended {
        /// The part.
        part: &'static str,
        /// Its words.
        why: String,
    },
    /// Something in the configuration that cannot be.
    #[error("{0}")]
    Configuration(String),
}

/// What a part says at its end.
type Ending = (&'static str, Result<(), String>);

/// Cancels the token at SIGTERM or SIGINT.
///
/// # Errors
/// When signals cannot be listened to.
pub fn stop_on_signals(stop: CancellationToken) -> Result<Signals, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let error = |source| Error::System { what: "listening to signals".into(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(error)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(error)?;
    let mut set = JoinSet::new();
    set.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(Signals(set))
}

/// Listens to signals until it is dropped.
pub struct Signals(JoinSet<()>);

impl Signals {
    /// Listens no longer.
    pub fn abort(mut self) {
        self.0.abort_all();
    }
}

/// Runs a node until it is stopped.
///
/// # Errors
/// When it cannot begin, or a part of it ends by itself.
pub async fn run(home: Home, config: Config, stop: CancellationToken) -> Result<(), Error> {
    let mut web = bind_web(&home, &config).await?;
    let store = Store::open(&home.database())?;
    let quota = config.storage.quota_mib << 20;
    let blobs = Blobs::open(&home.blobs(), blobs::Options::new(quota)).await?;
    let key = keys::load(&home.node_key())?;
    let id = NodeId::from(keys::public(&key));
    let (net, inbox, net_task) = net::start(net_config(&config, &key), stop.clone()).await?;
    let mut parts: JoinSet<Ending> = JoinSet::new();
    parts.spawn(async move { ("network", net_task.run().await.map_err(|e| chain(&e))) });
    let policies = match stored_policies(&home, &config, &store).await? {
        Some(policies) => policies,
        None => {
            let (found, kept) = joining::policies(&net, &config, web, &stop).await;
            let Some(found) = found else {
                drop(kept);
                return end_early(parts, &blobs).await;
            };
            web = kept;
            found
        }
    };
    let network = config.network.id;
    let began = clock::now();
    let leading = Leading::load(&store, policies.current()).await?;
    let genesis = watch::Sender::new(Arc::new(policies));
    let offers = Offers::default();
    let others = Others {
        cards: Cards::default(),
        leading,
        alarms: crate::alarm::Alarms::load(&store).await?,
        sight: crate::audit::Sight::default(),
        places: Places::default(),
        adopting: tokio::sync::Mutex::default(),
    };
    let shared = Arc::new(Shared {
        home,
        config,
        key,
        id,
        network,
        net,
        blobs,
        store,
        policies: genesis,
        began,
        offers,
        others,
    });
    shared.load_offers().await?;
    // Uploads that a crash cut off, whose names nobody knows any more, and what was laid out for a publication, which is laid out again.
    for folder in [shared.home.uploads(), shared.home.incoming()] {
        let _ = std::fs::remove_dir_all(folder);
    }
    let result = parts_of(&shared, web, inbox, &mut parts, &stop).await;
    stop.cancel();
    let ended = join(parts).await;
    shared.blobs.shutdown().await;
    // The socket file is ours; a new start makes it again.
    let _ = std::fs::remove_file(shared.home.socket());
    result.and(ended)
}

/// Ends a node that was stopped before it knew its network.
async fn end_early(parts: JoinSet<Ending>, blobs: &Blobs) -> Result<(), Error> {
    let ended = join(parts).await;
    blobs.shutdown().await;
    ended
}

/// Starts every part and waits until the first ends or all are to stop.
async fn parts_of(
    shared: &Arc<Shared>,
    web: Vec<(Listener, Access)>,
    inbox: net::Inbox,
    parts: &mut JoinSet<Ending>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    store_policies(shared).await?;
    let policies = shared.policies();
    shared.net.set_members(shared::members(policies.current()));
    let desk = Desk::new(Arc::clone(shared));
    let (news, _) = broadcast::channel(NEWS);
    let (releases, heard) = broadcast::channel(RELEASES);
    let candidate = candidate::Candidate {
        shared: Arc::clone(shared),
        desk: desk.clone(),
        news: news.clone(),
        releases: releases.clone(),
    };
    let until = stop.clone();
    parts.spawn(async move { ("coordinator", candidate.run(until).await) });
    if let Some(settings) = shared.config.builder.clone() {
        build_here(shared, &desk, settings, parts, stop).await?;
    }
    if let Some(settings) = &shared.config.mirror {
        let mirror = Mirror::open(Arc::clone(shared), desk.clone(), &settings.channels);
        let mirror = mirror.map_err(Error::Configuration)?;
        let stop = stop.clone();
        parts.spawn(async move {
            ("mirror", {
                mirror.run(heard, stop).await;
                Ok(())
            })
        });
    }
    for topic in [Topic::Facts, Topic::Coordination, Topic::Nodes] {
        shared.net.subscribe(topic).await;
    }
    let handle = Handle::new(Arc::clone(shared), desk.clone(), news, stop.clone());
    let server = Server::new(handle.clone(), Limits::default(), shared.config.reach.web_hosts.clone());
    let public = server.before(handle.for_strangers());
    for (listener, access) in web {
        let server = match access {
            Access::Owner => server.clone(),
            Access::Public => public.clone(),
        };
        let stop = stop.clone();
        parts.spawn(async move {
            server.serve(listener, access, stop).await;
            ("web interface", Ok(()))
        });
    }
    look_after(shared, &desk, parts, stop);
    let desk_task = inbox::run(Arc::clone(shared), desk, inbox, releases, stop.clone());
    parts.spawn(async move {
        ("desk", {
            desk_task.await;
            Ok(())
        })
    });
    info!(node = %shared.id, network = %shared.network.short(), "node is up");
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        ended = parts.join_next() => match ended {
            Some(Ok((_, Ok(())))) if stop.is_cancelled() => Ok(()),
            Some(Ok((part, Ok(())))) => Err(Error::Ended { part, why: "without a word".into() }),
            Some(Ok((part, Err(why)))) => Err(Error::Ended { part, why }),
            Some(Err(error)) => Err(Error::Ended { part: "a part", why: error.to_string() }),
            None => Ok(()),
        },
    }
}

/// Starts what every node does beside its roles: it lets go of what is over, and follows the log.
fn look_after(shared: &Arc<Shared>, desk: &Desk, parts: &mut JoinSet<Ending>, stop: &CancellationToken) {
    let retention = retention::run(Arc::clone(shared), desk.clone(), stop.clone());
    parts.spawn(async move {
        ("retention", {
            retention.await;
            Ok(())
        })
    });
    let audit = crate::audit::run(Arc::clone(shared), desk.clone(), stop.clone());
    parts.spawn(async move {
        ("audit", {
            audit.await;
            Ok(())
        })
    });
}

async fn build_here(
    shared: &Arc<Shared>,
    desk: &Desk,
    settings: crate::config::Builder,
    parts: &mut JoinSet<Ending>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let folder = shared.home.build();
    std::fs::create_dir_all(&folder)
        .map_err(|source| Error::System { what: format!("making {}", folder.display()), source })?;
    let workshop = build::Config {
        state_dir: folder.clone(),
        cache_dir: folder.clone(),
        environment_bytes_max: u64::from(settings.environments_mib) << 20,
        rig: build::RigConfig { user: settings.user.clone() },
        now: clock::now,
    };
    let (below, reach, isolation) = (folder.clone(), settings.fetch.clone(), settings.isolation);
    let opened = tokio::task::spawn_blocking(move || {
        if rustix::process::geteuid().is_root() {
            build::Rig::prepare_user(&workshop.rig)?;
        }
        let workshop = Workshop::open(workshop)?.reaching(reach).allowing(isolation);
        let swept = workshop.sweep().and_then(|_| crate::worker::sweep(&below));
        Ok::<_, build::WorkshopError>((workshop, swept))
    });
    let system = |source| Error::System { what: format!("sweeping {}", folder.display()), source };
    let (workshop, swept) = opened.await.map_err(|e| system(e.into()))??;
    swept.map_err(system)?;
    for weakness in workshop.rig().weaknesses() {
        warn!(%weakness, "the sandbox is weaker than it could be");
    }
    if let Some(arch) = protocol::Arch::native() {
        shared.net.subscribe(Topic::Jobs(arch)).await;
    }
    let (worker, grants) = Worker::new(Arc::clone(shared), desk.clone(), workshop, settings);
    desk.build(Arc::clone(&worker));
    let stop = stop.clone();
    parts.spawn(async move {
        ("builder", {
            worker.run(grants, stop).await;
            Ok(())
        })
    });
    Ok(())
}

/// Waits for every part, no longer than the grace period.
async fn join(mut parts: JoinSet<Ending>) -> Result<(), Error> {
    let mut result = Ok(());
    let all = async {
        while let Some(ended) = parts.join_next().await {
            if let Ok((part, Err(why))) = ended {
                result = Err(Error::Ended { part, why });
            }
        }
    };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        warn!("parts did not end in time and are dropped");
        parts.shutdown().await;
    }
    result
}

fn net_config(config: &Config, key: &ed25519_dalek::SigningKey) -> net::Config {
    net::Config {
        key: key.clone(),
        network: config.network.id,
        listen: config.reach.listen.clone(),
        announce: config.reach.announce.clone(),
        bootstrap: config.network.bootstrap.clone(),
        mdns: if config.reach.mdns { Mdns::On } else { Mdns::Off },
        connections: config.reach.connections,
    }
}

async fn bind_web(home: &Home, config: &Config) -> Result<Vec<(Listener, Access)>, Error> {
    let mut listeners = vec![(owner_socket(&home.socket())?, Access::Owner)];
    if let Some(address) =
        config.reach.web_address().map_err(|why| Error::Configuration(format!("`web` in [reach]: {why}")))?
    {
        listeners.push((Listener::tcp(address).await?, Access::Public));
    }
    Ok(listeners)
}

/// Binds the control socket. A socket that nobody answers on is a leftover and is replaced.
fn owner_socket(path: &Path) -> Result<Listener, Error> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Error::Configuration(format!("a daemon answers on {} already; stop it first", path.display())));
    }
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::System { what: format!("replacing {}", path.display()), source });
        }
        Ok(()) | Err(_) => {}
    }
    Ok(Listener::unix(path)?)
}

/// Gives the policies that this node knows: those in the database, else the genesis beside the configuration.
async fn stored_policies(home: &Home, config: &Config, store: &Store) -> Result<Option<Policies>, Error> {
    let stored = store.run(|store| store.policies()).await?;
    let envelopes: Vec<Vec<u8>> = stored.into_iter().map(|(_, bytes)| bytes).collect();
    if !envelopes.is_empty() {
        return Ok(Some(Policies::verify(&config.network.id, &envelopes)?));
    }
    match std::fs::read(home.genesis()) {
        Ok(genesis) => Ok(Some(Policies::verify(&config.network.id, &[genesis])?)),
        Err(_) => Ok(None),
    }
}

async fn store_policies(shared: &Arc<Shared>) -> Result<(), Error> {
    let known = shared.store.run(|store| store.policies()).await?.len();
    let chain: Vec<Arc<Verified<Policy>>> =
        shared.policies().chain()[known.min(shared.policies().chain().len())..].to_vec();
    shared
        .store
        .run(move |store| chain.iter().try_for_each(|p| store.policy_append(p.get().number, &p.to_bytes())))
        .await?;
    Ok(())
}
