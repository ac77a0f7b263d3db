//! The course of the sample job: those who sign its attestations, one whose build failed, and one of whom nothing is logged yet.

use protocol::{
    Hash, NetworkId, Salt, Signed,
    blame::{Blame, Failure},
    job::{JobRequest, job_id},
    lease::{LeaseNumber, Profile},
    message::Octets,
    testing::{node, samples, signing_key},
};

use super::log::Memory;
use crate::{
    bundle::Bundle,
    commitment,
    course::{Course, Logged, Opened, Placed},
    log::{
        checkpoint,
        entry::{self, End, Entry, Event},
        network::origin,
        tree,
    },
    negative::Negative,
};

/// The words of the sample's failure.
pub const WHY: &str = "cc: internal error";

/// Gives the course that belongs to a bundle of [`super::bundle`]: the attestations' leases are those that they name; the operator
/// after those failed, and the one after that holds a lease.
///
/// # Panics
/// For a bundle of more than 16 attestations.
pub fn course(bundle: &Bundle, network: NetworkId) -> Course {
    let request = Signed::<JobRequest>::read(&bundle.request.0).and_then(|signed| signed.verify(Some(&network)));
    let job = job_id(&request.expect("a sample request is signed"));
    let built = u8::try_from(bundle.attestations.len()).expect("a sample has few attestations");
    let (number, salt) = (|at: u8| LeaseNumber(u64::from(at) + 1), |at: u8| Salt::from_bytes([at; 32]));
    let failure = Failure::new(Blame::Job, "build", WHY);
    let said = Negative { network, job, node: node(10 + built), lease: number(built), failure, log: None };
    let negative = Octets(said.sign(&signing_key(10 + built)).expect("the sample keeps its own rules"));

    let lease = |at: u8| {
        Event::Lease(entry::Lease { job, node: node(10 + at), lease: number(at), profile: Profile(u16::from(at)) })
    };
    let outcome = |at: u8, end| Event::Outcome(entry::Outcome { end, job, node: node(10 + at), lease: number(at) });
    let mut events: Vec<Event> = (0..built + 2).map(lease).collect();
    for (at, Octets(bytes)) in (0..built).zip(&bundle.attestations) {
        let digest = commitment::digest(&network, number(at), &salt(at), bytes);
        events.push(Event::Commitment(entry::Commitment {
            job,
            node: node(10 + at),
            lease: number(at),
            digest,
            signature: None,
        }));
        events.push(outcome(at, End::Built(Hash::of(bytes))));
    }
    events.push(outcome(built, End::Failed(Hash::of(&negative.0))));
    let salts = (0..built).map(|at| Opened { salt: salt(at), lease: number(at) }).collect();
    Course { salts, logged: Some(logged(network, events)), negatives: vec![negative] }
}

/// Logs these events behind some of others, and proves each.
pub fn logged(network: NetworkId, events: Vec<Event>) -> Logged {
    let entry = |event| Entry { at: samples::NOW, event }.to_bytes();
    let entries: Vec<Vec<u8>> = events.into_iter().map(entry).collect();
    let others = (0..5u64).map(|at| at.to_be_bytes().to_vec());
    let log = Memory::of(others.chain(entries.iter().cloned()));
    let size = log.entries().len() as u64;
    let signed = checkpoint::Signed::sign(&origin(&network), log.head(size), &signing_key(10));
    let placed = |(index, entry): (u64, Vec<u8>)| {
        let path = tree::inclusion(index, size, &log).expect("the log has that place");
        Placed { path, entry: Octets(entry), index }
    };
    Logged { entries: (5..).zip(entries).map(placed).collect(), checkpoint: Octets(signed.to_string().into_bytes()) }
}
