//! Commits of a group of coordinators, alone and of three, with logs on the measured disk; beside the disk's own rate of synced
//! writes. The members are in one process and ask each other by function calls, so that only logs and engine are measured.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use artel::{
    consensus::{Config, Frozen, Group, Machine, Position, Standing, Timing, WireError, Wires, storage::Log},
    store::Store,
};
use protocol::NodeId;
use tokio::task::JoinSet;

use crate::{
    Options,
    table::{Row, Table},
};

/// Bytes of one proposal: about a command of the ledger.
const PAYLOAD: usize = 300;
/// How long the three may take to elect one of them.
const ELECTION_WITHIN: Duration = Duration::from_secs(30);

/// Counts what is committed; its state is the count.
struct Counter(u64);

impl Machine for Counter {
    fn apply(&mut self, _position: Position, _payload: &[u8]) {
        self.0 += 1;
    }

    fn freeze(&self) -> Frozen {
        let count = self.0;
        Box::new(move || Ok(count.to_be_bytes().to_vec()))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let count = snapshot.try_into().map_err(|_| "no count".to_owned())?;
        self.0 = u64::from_be_bytes(count);
        Ok(())
    }
}

/// The members by their keys.
type Members = Arc<RwLock<BTreeMap<NodeId, Group>>>;

/// Asks a member of the same process.
#[derive(Clone)]
struct Calls {
    me: NodeId,
    members: Members,
}

impl Wires for Calls {
    async fn ask(&self, to: NodeId, message: Vec<u8>, within: Duration) -> Result<Vec<u8>, WireError> {
        let member = self.members.read().unwrap_or_else(PoisonError::into_inner).get(&to).cloned();
        let member = member.ok_or_else(|| WireError::Unreachable { to, why: "not started yet".to_owned() })?;
        let answer = tokio::time::timeout(within, member.answer(self.me, &message)).await;
        answer.map_err(|_| WireError::TimedOut { to, within })
    }
}

/// Measures and adds the rows.
pub(crate) async fn measure(options: &Options, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let window = options.amount(Duration::from_secs(4), Duration::from_secs(1));
    let disk = synced_writes(&folder.join("synced"), window)?;
    table.add(Row::new("disk: 300 B appended and synced, per second", disk, "/s"));
    for members in [1_u8, 3] {
        let groups = start(&folder.join(format!("group-{members}")), members).await?;
        let leader = leader(&groups).await?;
        for in_flight in [1, 16, 128] {
            let rate = commits_per_second(&leader, in_flight, window).await?;
            let figure = format!("ledger commits, {members} member(s), {in_flight} in flight");
            table.add(Row::new(figure, rate, "/s").beside("the disk's synced writes", disk));
        }
        for group in &groups {
            group.stop().await;
        }
    }
    Ok(())
}

/// What the disk can do at most when each write is waited for.
pub(crate) fn synced_writes(path: &Path, window: Duration) -> anyhow::Result<f64> {
    let mut file = fs::File::create(path)?;
    let (begun, mut count) = (Instant::now(), 0_u32);
    while begun.elapsed() < window {
        file.write_all(&[7; PAYLOAD])?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

async fn start(folder: &Path, count: u8) -> anyhow::Result<Vec<Group>> {
    fs::create_dir_all(folder)?;
    let candidates: BTreeSet<NodeId> = (1..=count).map(|number| NodeId::from_bytes([number; 32])).collect();
    let members = Members::default();
    let mut groups = Vec::new();
    for (number, me) in candidates.iter().enumerate() {
        let store = Store::open(&folder.join(format!("{number}.db")))?;
        let mut config = Config::new(*me, candidates.clone());
        config.timing = Timing::lan();
        let wires = Calls { me: *me, members: Arc::clone(&members) };
        let group = Group::open(config, Log::open(&store)?, Counter(0), wires).await?;
        members.write().unwrap_or_else(PoisonError::into_inner).insert(*me, group.clone());
        groups.push(group);
    }
    groups[0].found(&candidates).await?;
    Ok(groups)
}

/// Waits until one of them leads.
async fn leader(groups: &[Group]) -> anyhow::Result<Group> {
    let mut waiting = JoinSet::new();
    for group in groups {
        let (group, mut standing) = (group.clone(), group.standing());
        waiting.spawn(async move { standing.wait_for(Standing::leads).await.is_ok().then_some(group) });
    }
    let first = tokio::time::timeout(ELECTION_WITHIN, waiting.join_next()).await.context("nobody was elected")?;
    first.context("there are members")??.context("a member stopped")
}

/// Proposes with so many tasks, each waiting for its own proposal before the next.
async fn commits_per_second(leader: &Group, in_flight: usize, window: Duration) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        let leader = leader.clone();
        tasks.spawn(async move {
            let mut count = 0_u32;
            while begun.elapsed() < window {
                leader.propose(vec![7; PAYLOAD]).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut all = 0;
    while let Some(count) = tasks.join_next().await {
        all += count??;
    }
    Ok(f64::from(all) / begun.elapsed().as_secs_f64())
}
