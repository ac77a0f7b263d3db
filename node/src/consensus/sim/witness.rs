//! What every run must keep to, watched from outside: each member's machine reports what it applies, each client what was
//! acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ledger::{Command, Ledger};
use protocol::{NodeId, lease::Term, testing::samples};

use super::dice::Counts;
use crate::consensus::{Frozen, Machine, Position};

/// What the whole run has seen. The first thing that is wrong is kept.
#[derive(Debug, Default)]
pub(in crate::consensus) struct Seen {
    /// The payload at each place, the same on all members.
    places: BTreeMap<(u64, u32), u64>,
    /// Who led in each term.
    leaders: BTreeMap<Term, NodeId>,
    /// What clients were promised: the payload, and where.
    acknowledged: BTreeMap<u64, (u64, u32)>,
    /// What a hasty leader promised, before it knew where.
    promised: BTreeSet<u64>,
    /// What a client was told was refused for sure.
    refused: BTreeSet<u64>,
    pub(in crate::consensus) counts: Counts,
    pub(in crate::consensus) wrong: Option<String>,
}

/// The witness, shared by machines and clients.
#[derive(Clone, Debug, Default)]
pub(in crate::consensus) struct Witness(Arc<Mutex<Seen>>);

impl Witness {
    pub(in crate::consensus) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    pub(in crate::consensus) fn accuse(&mut self, why: String) {
        self.wrong.get_or_insert(why);
    }

    /// Somebody leads in a term: nobody else may.
    pub(in crate::consensus) fn leads(&mut self, term: Term, leader: NodeId) {
        let first = *self.leaders.entry(term).or_insert(leader);
        if first != leader {
            self.accuse(format!("two leaders in term {term}: {first} and {leader}"));
        }
    }

    pub(in crate::consensus) fn terms(&self) -> usize {
        self.leaders.len()
    }

    pub(in crate::consensus) fn acknowledge(&mut self, id: u64, at: Position) {
        self.leads(at.term, at.leader);
        if self.acknowledged.insert(id, (at.index, at.part)).is_some() {
            self.accuse(format!("payload {id} was acknowledged twice"));
        }
        self.counts.hit("acknowledged");
    }

    pub(in crate::consensus) fn promise(&mut self, id: u64) {
        self.promised.insert(id);
    }

    pub(in crate::consensus) fn refuse(&mut self, id: u64) {
        self.refused.insert(id);
    }

    fn place(&mut self, at: Position, id: u64) {
        self.leads(at.term, at.leader);
        let first = *self.places.entry((at.index, at.part)).or_insert(id);
        if first != id {
            self.accuse(format!("place {}/{} holds {first} on one member and {id} on another", at.index, at.part));
        }
    }

    /// At the end: `list` is what each member holds.
    pub(in crate::consensus) fn judge(&mut self, list: &[Item]) {
        let held: BTreeMap<u64, (u64, u32)> = list.iter().map(|item| (item.id, (item.index, item.part))).collect();
        if held.len() != list.len() {
            self.accuse("a payload was applied twice".to_owned());
        }
        let acknowledged = std::mem::take(&mut self.acknowledged);
        for (id, place) in &acknowledged {
            match held.get(id) {
                Some(found) if found == place => {}
                Some(found) => self.accuse(format!("payload {id} was acknowledged at {place:?} and lies at {found:?}")),
                None => self.accuse(format!("payload {id}, acknowledged at {place:?}, is lost")),
            }
        }
        let promised = std::mem::take(&mut self.promised);
        if let Some(id) = promised.iter().find(|id| !held.contains_key(id)) {
            self.accuse(format!("payload {id}, acknowledged by a hasty leader, is lost"));
        }
        let refused = std::mem::take(&mut self.refused);
        if let Some(id) = refused.iter().find(|id| held.contains_key(id)) {
            self.accuse(format!("payload {id} was refused for sure and lies in the log"));
        }
    }
}

/// One applied payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::consensus) struct Item {
    pub(in crate::consensus) index: u64,
    pub(in crate::consensus) part: u32,
    pub(in crate::consensus) term: u64,
    pub(in crate::consensus) id: u64,
}

/// What the members keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consensus) enum Content {
    /// The list of what was applied.
    List,
    /// The list, and the real ledger: a payload is a submission or a step of time.
    Ledger,
}

/// What a member shows to the test.
type Shown = (Arc<Mutex<Vec<Item>>>, Arc<Mutex<Option<Ledger>>>);

fn first_ledger() -> Ledger {
    let (genesis, network) = samples::signed_genesis(&samples::genesis(3));
    Ledger::new(network, genesis).expect("the sample policy is a genesis")
}

/// The command that a payload of this number stands for.
fn command(id: u64, network: protocol::NetworkId) -> Command {
    if id.is_multiple_of(3) {
        return Command::Woken;
    }
    let mut request = samples::command_request(network);
    request.nonce = [id.to_be_bytes(), id.to_be_bytes()].concat();
    Command::Submit(samples::signed_request(&request))
}

/// A list that grows, shown to the test as well.
pub(in crate::consensus) struct List {
    items: Arc<Mutex<Vec<Item>>>,
    /// The ledger, if this run keeps one, and its network.
    ledger: Arc<Mutex<Option<Ledger>>>,
    witness: Witness,
    /// Whether the member has been opened: a snapshot before that is its own.
    opened: Arc<AtomicBool>,
}

impl List {
    pub(in crate::consensus) fn new((items, ledger): Shown, content: Content, witness: Witness) -> List {
        items.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *ledger.lock().unwrap_or_else(PoisonError::into_inner) = match content {
            Content::List => None,
            Content::Ledger => Some(first_ledger()),
        };
        List { items, ledger, witness, opened: Arc::default() }
    }

    fn ledger(&self) -> MutexGuard<'_, Option<Ledger>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be set when the member has been opened.
    pub(in crate::consensus) fn opened(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.opened)
    }

    fn items(&self) -> MutexGuard<'_, Vec<Item>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of one item in a snapshot.
const ITEM: usize = 28;

impl Machine for List {
    fn apply(&mut self, position: Position, payload: &[u8]) {
        let id = payload.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let item = Item { index: position.index, part: position.part, term: position.term.0, id };
        let mut seen = self.witness.lock();
        seen.place(position, id);
        let mut items = self.items();
        if let Some(last) = items.last() {
            if (last.index, last.part) >= (item.index, item.part) {
                seen.accuse(format!("{item:?} applied after {last:?}"));
            }
            if last.term > item.term {
                seen.accuse(format!("terms went back: {item:?} after {last:?}"));
            }
        }
        items.push(item);
        drop((seen, items));
        let mut ledger = self.ledger();
        if let Some(ledger) = ledger.as_mut() {
            let at = samples::NOW.after(Duration::from_millis(position.index * 100));
            let effects = ledger.apply(at, command(id, samples::network()));
            if !effects.is_empty() {
                self.witness.lock().counts.hit("the ledger answered");
            }
        }
    }

    fn freeze(&self) -> Frozen {
        self.witness.lock().counts.hit("snapshot made");
        let (items, ledger) = (self.items().clone(), self.ledger().clone());
        Box::new(move || {
            let ledger = ledger.map(|ledger| ledger.to_bytes()).unwrap_or_default();
            let length = u32::try_from(ledger.len()).expect("a small ledger").to_be_bytes();
            let one = |item: &Item| {
                let mut bytes = [0; ITEM];
                bytes[..8].copy_from_slice(&item.index.to_be_bytes());
                bytes[8..12].copy_from_slice(&item.part.to_be_bytes());
                bytes[12..20].copy_from_slice(&item.term.to_be_bytes());
                bytes[20..].copy_from_slice(&item.id.to_be_bytes());
                bytes
            };
            let list: Vec<u8> = items.iter().flat_map(one).collect();
            Ok([length.as_slice(), &ledger, &list].concat())
        })
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let (length, rest) = snapshot.split_first_chunk::<4>().ok_or("no length")?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|e| e.to_string())?;
        let (ledger, snapshot) = rest.split_at_checked(length).ok_or("shorter than it says")?;
        if !ledger.is_empty() {
            *self.ledger() = Some(Ledger::from_bytes(ledger).map_err(|e| e.to_string())?);
        }
        if !snapshot.len().is_multiple_of(ITEM) {
            return Err(format!("{} bytes are no whole list", snapshot.len()));
        }
        let opened = self.opened.load(Ordering::Relaxed);
        let what = if opened { "snapshot received" } else { "restart from a snapshot" };
        self.witness.lock().counts.hit(what);
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        let one = |bytes: &[u8]| Item {
            index: number(&bytes[..8]),
            part: u32::try_from(number(&bytes[8..12])).unwrap_or(u32::MAX),
            term: number(&bytes[12..20]),
            id: number(&bytes[20..]),
        };
        let items: Vec<Item> = snapshot.chunks_exact(ITEM).map(one).collect();
        *self.items() = items;
        Ok(())
    }
}
