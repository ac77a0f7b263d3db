//! The journal of an artel that had no groups: its jobs are there after the upgrade, or it is refused and kept.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use ledger::{Command, Ledger};
use openraft::{Vote, storage::RaftLogStorage};
use protocol::{JobId, NetworkId, NodeId, Timestamp, Verified, job::job_id, policy::Policy, testing::samples};

use super::super::{
    Error, Log,
    record::Meta,
    upgrade::{Upgraded, from_journal},
};
use crate::{
    consensus::{Config, Durable, Frozen, Group, Machine, Member, Position, Snapshots, Timing, WireError, Wires},
    store::Store,
    tlog,
};

/// The database of a coordinator of schema 1 after six submissions, with a snapshot after the third; written by the program of then.
const FIXTURE: &[u8] = include_bytes!("journal-1.db.zst");
const JOBS: u8 = 6;

fn network() -> (Verified<Policy>, NetworkId) {
    samples::signed_genesis(&samples::genesis(3))
}

fn me() -> NodeId {
    NodeId::from_bytes([1; 32])
}

fn commands(network: NetworkId) -> Vec<(Timestamp, Command, JobId)> {
    let command = |number: u8| {
        let mut request = samples::command_request(network);
        request.nonce[0] = number;
        let request = samples::signed_request(&request);
        let job = job_id(&request);
        (samples::NOW.after(Duration::from_secs(number.into())), Command::Submit(request), job)
    };
    (0..JOBS).map(command).collect()
}

/// Writes what the daemon of schema 1 wrote for these commands.
fn write_journal(store: &Store) {
    let (genesis, network) = network();
    let (mut ledger, mut logged) = (Ledger::new(network, genesis).unwrap(), Vec::new());
    for (seq, (at, command, _)) in (1..).zip(commands(network)) {
        let mut bytes = at.as_millis().to_be_bytes().to_vec();
        bytes.extend(command.to_bytes());
        store.journal_append(&[(seq, bytes)]).unwrap();
        logged.extend(ledger.apply(at, command).into_iter().filter_map(tlog::placed));
        if seq == 3 {
            // The ledgers of then logged nothing; what this one has logged is beside its snapshot.
            tlog::keep(store, &logged).unwrap();
            store.snapshot_put(seq, &ledger.to_bytes()).unwrap();
        }
    }
}

/// Upgrades, and gives the ledger that the group's machine will get.
async fn upgraded(path: &Path) -> Ledger {
    let (genesis, network) = network();
    let store = Store::open(path).unwrap();
    assert_eq!(from_journal(&store, me(), network, &genesis).unwrap(), Upgraded::Journal(JOBS.into()));
    assert_eq!(from_journal(&store, me(), network, &genesis).unwrap(), Upgraded::Nothing, "once is enough");
    let mut log = Log::open(&store).unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(1, Member::from(me()))));
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_log_id.map(|last| last.index), Some(JOBS.into()));
    assert_eq!(state.last_log_id, state.last_purged_log_id);
    let (meta, bytes) = log.snapshots().get().await.unwrap().unwrap();
    let meta: Meta = postcard::from_bytes(&meta).unwrap();
    assert_eq!(meta.last_log_id, state.last_log_id);
    let voters: BTreeSet<_> = meta.last_membership.voter_ids().collect();
    assert_eq!(voters, BTreeSet::from([Member::from(me())]));
    let ledger = Ledger::from_bytes(&bytes).unwrap();
    let size = store.log_look(crate::store::Pages::size).unwrap();
    assert!(size > 0 && size == ledger.log_head().size, "what was logged is kept");
    ledger
}

fn check(ledger: &Ledger) {
    for (_, _, job) in commands(network().1) {
        assert!(ledger.job(job).is_some(), "{job} is lost");
    }
    assert_eq!(ledger.jobs().len(), usize::from(JOBS));
}

#[tokio::test]
async fn a_coordinator_keeps_its_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.db");
    write_journal(&Store::open(&path).unwrap());
    check(&upgraded(&path).await);
}

/// The snapshot of then holds bidders of single jobs, which became a fair queue of all: it is refused, and nothing is changed.
#[tokio::test]
async fn a_snapshot_in_the_form_of_schema_1_is_refused_in_words_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.db");
    std::fs::write(&path, zstd::decode_all(FIXTURE).unwrap()).unwrap();
    let (genesis, network) = network();
    let store = Store::open(&path).unwrap();
    let refused = from_journal(&store, me(), network, &genesis).unwrap_err().to_string();
    assert!(refused.contains("nothing was changed") && refused.contains("go on with that version"), "{refused}");
    assert_eq!(store.journal_last().unwrap(), u64::from(JOBS), "it is there as it was");
}

/// Nobody to ask: a group of one.
#[derive(Clone)]
struct Nobody;

impl Wires for Nobody {
    async fn ask(&self, to: NodeId, _message: Vec<u8>, _within: Duration) -> Result<Vec<u8>, WireError> {
        Err(WireError::Unreachable { to, why: "there is nobody else".to_owned() })
    }
}

/// The real engine takes up the upgraded state, leads, and commits after it; the next start finds both, and one after an orderly end
/// has nothing to apply again.
#[tokio::test]
async fn the_group_goes_on_after_the_upgrade() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.db");
    write_journal(&Store::open(&path).unwrap());
    drop(upgraded(&path).await);
    let voters = BTreeSet::from([me()]);
    for (start, orderly, applied) in [(1, false, 1), (2, true, 2), (3, false, 1)] {
        let log = Log::open(&Store::open(&path).unwrap()).unwrap();
        let mut config = Config::new(me(), voters.clone());
        config.timing = Timing::lan();
        let pile = Seen::default();
        let group = Group::open(config, log, pile.clone(), Nobody).await.unwrap();
        group.found(&voters).await.unwrap();
        group.caught_up().await;
        assert_eq!(
            pile.0.lock().unwrap().applied.len() + 1,
            applied,
            "what was applied before is again, without anybody's asking"
        );
        let mut standing = group.standing();
        standing.wait_for(crate::consensus::Standing::leads).await.unwrap();
        let position = group.propose(format!("after start {start}").into_bytes()).await.unwrap();
        assert!(position.index > u64::from(JOBS) && position.term.0 > start, "{position:?}");
        if orderly {
            group.write_snapshot(Duration::from_secs(20)).await;
        }
        group.stop().await;
        drop((group, standing));
        let seen = pile.0.lock().unwrap();
        check(&Ledger::from_bytes(&seen.restored).unwrap());
        assert_eq!(seen.applied.last().unwrap(), format!("after start {start}").as_bytes());
        assert_eq!(seen.applied.len(), applied, "what no snapshot has is applied again");
    }
}

#[derive(Default)]
struct Given {
    restored: Vec<u8>,
    applied: Vec<Vec<u8>>,
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Given>>);

impl Machine for Seen {
    fn apply(&mut self, _position: Position, payload: &[u8]) {
        self.0.lock().unwrap().applied.push(payload.to_vec());
    }

    fn freeze(&self) -> Frozen {
        let copy = self.0.lock().unwrap().restored.clone();
        Box::new(|| Ok(copy))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.0.lock().unwrap().restored = snapshot.to_vec();
        Ok(())
    }
}

#[test]
fn a_journal_that_cannot_be_read_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("node.db")).unwrap();
    let (genesis, network) = network();
    assert_eq!(from_journal(&store, me(), network, &genesis).unwrap(), Upgraded::Nothing);
    write_journal(&store);
    store.journal_append(&[(u64::from(JOBS) + 1, b"no command".to_vec())]).unwrap();
    for _ in 0..2 {
        let refused = from_journal(&store, me(), network, &genesis).unwrap_err();
        assert!(matches!(refused, Error::Journal { entry: 7, .. }), "{refused}");
    }
    assert_eq!(store.journal_last().unwrap(), 7);
}
