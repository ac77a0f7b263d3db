//! Where the policies stand in the network's log: that says which of them judges a package, and from where on a revoked key is
//! none.
//!
//! ```text
//!  a coordinator      knows it from its own ledger
//!  everybody else     asks a coordinator --place--> the log's entry there, proven by a checkpoint --> kept for good
//! ```
//! What a coordinator says is not believed before the log's entry at that place is the policy's, under a checkpoint that as many
//! operators have seen as any channel asks for. While a place is not known, that policy judges every package that none of a
//! later known place does: nobody gains by keeping it back.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use attest::{
    log::{
        checkpoint::Signed,
        entry::{self, Entry, Event},
        network,
        tile::Resource,
        tree::Head,
    },
    trust::{self, Demands, Trust},
};
use ledger::log::Enacted;
use protocol::{
    Hash, NodeId, Timestamp, Verified,
    message::{Octets, Request, Response},
    policy::Policy,
};
use tracing::debug;

use super::{Policies, Shared, chain, views};
use crate::{
    serve::Desk,
    tlog::{self, FetchError, Reader, Source},
};

/// The places of policies, as far as this node knows them.
#[derive(Debug, Default)]
pub struct Places(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By the hash of the policy's envelope.
    places: BTreeMap<Hash, u64>,
    /// What was made of so many policies and places.
    trust: Option<((usize, usize), Arc<Trust>)>,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, policy: Hash, place: u64) {
        self.lock().places.entry(policy).or_insert(place);
    }

    /// Gives the policies whose places are not known, but for the genesis, which every log begins with.
    fn unknown(&self, policies: &Policies) -> Vec<entry::Policy> {
        let known = self.lock();
        let logged = policies.chain().iter().skip(1).map(|policy| logged(policy));
        logged.filter(|policy| !known.places.contains_key(&policy.envelope)).collect()
    }
}

/// Gives what the log says of a policy.
fn logged(policy: &Verified<Policy>) -> entry::Policy {
    entry::Policy { number: policy.get().number, envelope: Hash::of(&policy.to_bytes()) }
}

impl Shared {
    /// Gives what this node judges packages by: the policies that it follows, each from its place in the log on. A policy that is
    /// over still judges.
    ///
    /// # Errors
    /// When the policies that this node follows name no log.
    pub fn trust(&self) -> Result<Arc<Trust>, trust::Error> {
        let policies = self.policies();
        let mut known = self.others.places.lock();
        let made_of = (policies.chain().len(), known.places.len());
        if let Some((_, trust)) = known.trust.as_ref().filter(|(of, _)| *of == made_of) {
            return Ok(Arc::clone(trust));
        }
        let place = |(at, policy): (usize, &Arc<Verified<Policy>>)| {
            let place = if at == 0 { Some(0) } else { known.places.get(&logged(policy).envelope).copied() };
            (policy.to_bytes(), place)
        };
        let chain: Vec<_> = policies.chain().iter().enumerate().map(place).collect();
        let trust = Arc::new(Trust::new(self.network, &chain, Demands::default(), Timestamp::ZERO)?);
        known.trust = Some((made_of, Arc::clone(&trust)));
        Ok(trust)
    }
}

impl Shared {
    /// Gives where a policy stands in the log, as far as this node knows it without asking anybody.
    pub fn place_of(&self, policy: &Verified<Policy>) -> Option<u64> {
        match policy.get().network {
            // Every log begins with the genesis.
            None => Some(0),
            Some(_) => self.others.places.lock().places.get(&logged(policy).envelope).copied(),
        }
    }

    /// Says whether the places of all policies that this node follows are known.
    pub fn knows_all_places(&self) -> bool {
        self.others.places.unknown(&self.policies()).is_empty()
    }
}

/// Learns the places of the policies that this node follows, where it does not know them; what cannot be learned now is asked
/// for at the next call.
pub async fn learn(shared: &Arc<Shared>, desk: &Desk) {
    let places = &shared.others.places;
    let unknown = places.unknown(&shared.policies());
    if unknown.is_empty() {
        return;
    }
    if let Some(decisions) = desk.decisions() {
        let enacted = decisions.view(|ledger| ledger.enacted().to_vec()).await.unwrap_or_default();
        for policy in unknown {
            if let Some(enacted) = enacted.iter().find(|enacted| enacted.number == policy.number) {
                places.note(policy.envelope, enacted.place);
            }
        }
        return;
    }
    for policy in &unknown {
        if let Some(place) = kept(shared, policy).await {
            places.note(policy.envelope, place);
        }
    }
    let unknown = places.unknown(&shared.policies());
    ask(shared, unknown).await;
}

/// Where a place lies among the records.
fn record_key(policy: &entry::Policy) -> Hash {
    Hash::of(format!("place of policy {} in the log", policy.envelope).as_bytes())
}

async fn kept(shared: &Shared, policy: &entry::Policy) -> Option<u64> {
    let key = record_key(policy);
    let record = shared.store.run(move |store| store.record(&key)).await.ok()??;
    Some(u64::from_be_bytes(record.try_into().ok()?))
}

/// What one coordinator serves of the log.
struct Told<'a> {
    shared: &'a Shared,
    node: NodeId,
}

impl Source for Told<'_> {
    async fn fetch(&self, resource: Resource) -> Result<Vec<u8>, FetchError> {
        Ok(tlog::served(self.shared.net.ask(self.node, tlog::question(resource))).await?)
    }
}

/// Asks one coordinator after the other, and keeps what the log proves; one that lies keeps nobody from asking the next.
async fn ask(shared: &Shared, mut unknown: Vec<entry::Policy>) {
    let policies = shared.policies();
    for node in policies.current().coordinators.candidates().iter().filter(|node| **node != shared.id) {
        if unknown.is_empty() {
            return;
        }
        if let Err(why) = ask_one(&Told { shared, node: *node }, &mut unknown).await {
            debug!(node = %node.short(), %why, "where policies stand in the log is not known from this coordinator");
        }
    }
}

async fn ask_one(told: &Told<'_>, unknown: &mut Vec<entry::Policy>) -> Result<(), String> {
    let shared = told.shared;
    let head = witnessed_head(told).await?;
    let mut reader = Reader::new(told, head);
    let mut claims = claims(told).await.into_iter().take(shared.policies().chain().len());
    while let Some((policy, place)) = proven(&mut reader, head, &mut claims, unknown).await? {
        let key = record_key(&policy);
        let put = shared.store.run(move |store| store.record_put(&key, &place.to_be_bytes())).await;
        put.map_err(|e| chain(&e))?;
        debug!(number = policy.number, place, "the log proves where a policy stands");
        shared.others.places.note(policy.envelope, place);
    }
    Ok(())
}

/// Takes the next of the unknown policies that stands where it is claimed to; claims of other policies, and of places that the log
/// does not have yet, are passed over.
async fn proven<S: Source>(
    reader: &mut Reader<'_, S>,
    head: Head,
    claims: &mut impl Iterator<Item = Enacted>,
    unknown: &mut Vec<entry::Policy>,
) -> Result<Option<(entry::Policy, u64)>, String> {
    for Enacted { place, number, .. } in claims {
        let of_number = |policy: &entry::Policy| policy.number == number && place < head.size;
        let Some(at) = unknown.iter().position(of_number) else { continue };
        if !stands_at(reader, &unknown[at], place).await? {
            return Err(format!("it says that entry {place} is policy {number}, and it is not"));
        }
        return Ok(Some((unknown.swap_remove(at), place)));
    }
    Ok(None)
}

/// Says whether the log's entry at a place is a policy.
async fn stands_at<S: Source>(reader: &mut Reader<'_, S>, policy: &entry::Policy, place: u64) -> Result<bool, String> {
    let (first, entries) = reader.bundle_with(place).await.map_err(|e| chain(&e))?;
    let at = place.checked_sub(first).and_then(|at| usize::try_from(at).ok());
    let entry = at.and_then(|at| Entry::from_bytes(entries.get(at)?).ok());
    Ok(entry.is_some_and(|entry| entry.event == Event::Policy(policy.clone())))
}

/// Gives the log's head, once as many operators have seen it as any channel asks for.
async fn witnessed_head(told: &Told<'_>) -> Result<Head, String> {
    let bytes = told.fetch(Resource::Checkpoint).await.map_err(|e| chain(&e))?;
    let policies = told.shared.policies();
    let quorum = policies.current().channels.iter().map(|channel| channel.witnesses).max().unwrap_or(0);
    let log = network::log_policy(&told.shared.network, policies.current(), quorum).map_err(|e| chain(&e))?;
    let checked = Signed::read(&bytes).map_err(|e| chain(&e)).and_then(|s| log.check(s).map_err(|e| chain(&e)));
    Ok(checked?.checkpoint.head())
}

/// Gives where a coordinator says that the policies stand; nothing when it does not answer.
async fn claims(told: &Told<'_>) -> Vec<Enacted> {
    let Ok(Response::View(Octets(json))) = told.shared.net.ask(told.node, Request::View(views::POLICIES.into())).await
    else {
        return Vec::new();
    };
    serde_json::from_slice::<(u64, Vec<Enacted>)>(&json).map_or_else(|_| Vec::new(), |(_, enacted)| enacted)
}

#[cfg(test)]
mod tests {
    use attest::testing::log::Memory;

    use super::*;

    /// What a coordinator serves, by path.
    struct Served(BTreeMap<String, Vec<u8>>);

    impl Source for Served {
        async fn fetch(&self, resource: Resource) -> Result<Vec<u8>, FetchError> {
            self.0.get(&resource.to_string()).cloned().ok_or_else(|| FetchError("not here".into()))
        }
    }

    fn policy(number: u64) -> entry::Policy {
        entry::Policy { number, envelope: Hash::of(&number.to_be_bytes()) }
    }

    /// A log with the second policy at 300 and the third at 310.
    fn log() -> Memory {
        let at = Timestamp::ZERO;
        let of_policy = |number| Entry { at, event: Event::Policy(policy(number)) }.to_bytes();
        Memory::of((0..400).map(|place: u64| match place {
            300 => of_policy(2),
            310 => of_policy(3),
            _ => format!("entry {place}").into_bytes(),
        }))
    }

    /// Gives what is proven of these claims (number, place), why one is refused, and which of two policies stay unknown.
    async fn heard(files: BTreeMap<String, Vec<u8>>, claims: &[(u64, u64)]) -> (Vec<(u64, u64)>, String, Vec<u64>) {
        let (served, head) = (Served(files), log().head(400));
        let mut reader = Reader::new(&served, head);
        let mut claims =
            claims.iter().map(|(number, place)| Enacted { at: Timestamp::ZERO, place: *place, number: *number });
        let (mut unknown, mut known) = (vec![policy(2), policy(3)], Vec::new());
        let refused = loop {
            match proven(&mut reader, head, &mut claims, &mut unknown).await {
                Ok(Some((policy, place))) => known.push((policy.number, place)),
                Ok(None) => break String::new(),
                Err(why) => break why,
            }
        };
        (known, refused, unknown.iter().map(|policy| policy.number).collect())
    }

    #[tokio::test]
    async fn a_place_is_known_once_the_log_proves_it_and_a_lie_leaves_it_to_the_next_coordinator() {
        let files = || log().files(400);
        let honest = heard(files(), &[(1, 0), (2, 300), (3, 310)]).await;
        assert_eq!(honest, (vec![(2, 300), (3, 310)], String::new(), vec![]));
        // What is true stays known, and the rest is unknown as before.
        let (known, why, unknown) = heard(files(), &[(2, 300), (3, 311)]).await;
        assert_eq!((known, unknown), (vec![(2, 300)], vec![3]));
        assert_eq!(why, "it says that entry 311 is policy 3, and it is not");
        // One policy's place is not another's.
        let (known, why, unknown) = heard(files(), &[(3, 300)]).await;
        assert_eq!((known, unknown), (vec![], vec![2, 3]));
        assert!(why.contains("entry 300 is policy 3"), "{why}");
        // Places beyond the head and policies that nobody follows are passed over; a second claim of the same is one of them.
        let odd = [(2, 400), (2, u64::MAX), (9, 300), (2, 300), (2, 310)];
        assert_eq!(heard(files(), &odd).await, (vec![(2, 300)], String::new(), vec![3]));
    }

    #[tokio::test]
    async fn a_coordinator_that_serves_another_log_than_was_witnessed_proves_nothing() {
        let mut forged = log().files(400);
        let bundle = forged.keys().find(|path| path.starts_with("tile/entries/001")).cloned().unwrap();
        forged.get_mut(&bundle).unwrap()[2] ^= 1;
        for files in [forged, BTreeMap::new()] {
            let (known, why, unknown) = heard(files, &[(2, 300)]).await;
            assert_eq!((known, unknown), (vec![], vec![2, 3]));
            assert!(!why.is_empty());
        }
    }
}
