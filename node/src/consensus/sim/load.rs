//! Clients that propose all the time, and remember what they were told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use protocol::NodeId;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{cluster::Cluster, dice::Dice, net::Net, witness::Witness};
use crate::consensus::ProposeError;

/// Clients at work.
const CLIENTS: u64 = 3;

/// When the leader says that it has a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consensus) enum Acknowledging {
    /// When it is committed and applied.
    Committed,
    /// As soon as it takes it: the planted fault.
    Taken,
}

/// The load of one run.
pub(in crate::consensus) struct Load {
    clients: JoinSet<()>,
    done: CancellationToken,
}

impl Load {
    pub(in crate::consensus) fn start(cluster: &mut Cluster) -> Load {
        let (mut clients, done) = (JoinSet::new(), CancellationToken::new());
        let ids = Arc::new(AtomicU64::new(1));
        for number in 0..CLIENTS {
            let client = Client {
                net: cluster.net.clone(),
                witness: cluster.witness.clone(),
                ids: Arc::clone(&ids),
                dice: Dice::new(cluster.dice.next() ^ number),
                leader: None,
                acknowledging: cluster.acknowledging,
            };
            clients.spawn(client.run(done.clone()));
        }
        Load { clients, done }
    }

    /// Lets the clients finish what they have begun.
    pub(in crate::consensus) async fn stop(mut self) {
        self.done.cancel();
        while self.clients.join_next().await.is_some() {}
    }
}

struct Client {
    net: Net,
    witness: Witness,
    ids: Arc<AtomicU64>,
    dice: Dice,
    leader: Option<NodeId>,
    acknowledging: Acknowledging,
}

impl Client {
    async fn run(mut self, done: CancellationToken) {
        while !done.is_cancelled() {
            // Mostly one after the other, now and then many at once.
            let burst = if self.dice.percent(5) { 12 } else { 1 };
            let asked: Vec<_> = (0..burst).filter_map(|_| self.propose()).collect();
            for leader in futures::future::join_all(asked).await {
                self.leader = leader;
            }
            tokio::time::sleep(self.dice.millis(20..250)).await;
        }
    }

    /// Proposes to the member that is thought to lead, or to any; gives who leads, as it was told.
    fn propose(&mut self) -> Option<impl Future<Output = Option<NodeId>> + use<>> {
        let up = self.net.up();
        let to = self.leader.filter(|leader| up.contains(leader)).or_else(|| self.dice.pick(&up))?;
        let group = self.net.process_of(to)?;
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let mut payload = id.to_be_bytes().to_vec();
        payload.resize(8 + self.dice.index(200), 0);
        let witness = self.witness.clone();
        if self.acknowledging == Acknowledging::Taken && group.standing().borrow().leads() {
            witness.lock().promise(id);
        }
        Some(async move {
            match tokio::time::timeout(Duration::from_secs(30), group.propose(payload)).await {
                Ok(Ok(at)) => {
                    witness.lock().acknowledge(id, at);
                    Some(at.leader)
                }
                Ok(Err(ProposeError::NotLeader { leader })) => {
                    witness.lock().refuse(id);
                    leader
                }
                Ok(Err(ProposeError::NoMajority { .. })) => {
                    witness.lock().counts.hit("outcome unknown");
                    None
                }
                Ok(Err(ProposeError::Stopped { .. })) => None,
                Ok(Err(e @ ProposeError::TooLarge { .. })) => {
                    witness.lock().accuse(e.to_string());
                    None
                }
                Err(_) => {
                    witness.lock().accuse(format!("payload {id} got no answer"));
                    None
                }
            }
        })
    }
}
