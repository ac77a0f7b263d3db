//! Every status code of `add-checkpoint`, in the order in which the specification asks.

use protocol::testing::{public_key, signing_key};

use super::*;
use crate::{
    log::note::{Algorithm, Note, NoteError},
    testing::log::{Memory, ORIGIN, SEED, log_key, signed, witness_key},
};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_123);

/// A witness with its memory.
struct Witness {
    latest: Option<Signed>,
}

impl Witness {
    /// Takes a request as bytes, as HTTP would bring it, and answers with status and body.
    fn post(&mut self, body: &str) -> (u16, String) {
        match self.add(body.as_bytes()) {
            Ok(cosigned) => {
                let stored = cosigned.checkpoint().as_signed().to_string();
                self.latest = Some(Signed::read(stored.as_bytes()).unwrap());
                (200, cosigned.body())
            }
            Err(refusal) => (refusal.status(), refusal.body()),
        }
    }

    fn add(&self, body: &[u8]) -> Result<Cosigned, Refusal> {
        let request = Request::read(body)?;
        let log = if request.origin() == ORIGIN { vec![log_key(ORIGIN)] } else { vec![] };
        let accepted = decide(&request, &log, self.latest.as_ref())?;
        Ok(accepted.cosign(witness_key(5).name(), &signing_key(5), NOW))
    }

    fn refuse(&self, body: &str) -> Refusal {
        self.add(body.as_bytes()).unwrap_err()
    }
}

fn request(log: &Memory, old: u64, new: u64) -> String {
    let proof = if old <= new { tree::consistency(old, new, log).unwrap() } else { vec![] };
    Request::new(old, proof, &log.checkpoint(new)).to_string()
}

#[test]
fn a_log_grows_and_is_cosigned() {
    let log = Memory::sized(40);
    let mut witness = Witness { latest: None };
    for (old, new) in [(0, 0), (0, 0), (0, 1), (1, 1), (1, 8), (8, 21), (21, 40)] {
        let body = request(&log, old, new);
        assert_eq!(Request::read(body.as_bytes()).unwrap().to_string(), body);
        let (status, answer) = witness.post(&body);
        assert_eq!(status, 200, "{old} to {new}: {answer}");
        let seen = log.checkpoint(new).with_answer(&answer, &[witness_key(5)]).unwrap();
        let at = Timestamp::from_millis(1_700_000_000_000);
        assert_eq!(seen.cosigners(&[witness_key(5)]).unwrap()[0].at, at);
        assert_eq!(witness.latest.as_ref().unwrap(), seen.as_signed(), "monitors see both signatures");
    }
}

#[test]
fn each_status_code() {
    let log = Memory::sized(40);
    let mut witness = Witness { latest: None };
    assert_eq!(witness.post(&request(&log, 0, 21)).0, 200);
    let plain = "text/plain; charset=utf-8";
    let mut check = |body: &str, status: u16| {
        let refusal = witness.refuse(body);
        assert_eq!((refusal.status(), refusal.content_type()), (status, plain), "{refusal}");
        let before = witness.latest.clone();
        assert_eq!(witness.post(body).0, status);
        assert_eq!(witness.latest, before, "a refusal changes nothing");
    };
    check("", 400);
    check(&request(&log, 30, 22), 400);
    check(&Request::new(21, vec![], &signed("artel.example/unknown", log.head(30))).to_string(), 404);
    let other = VerifierKey::new(ORIGIN.parse().unwrap(), Algorithm::Ed25519, public_key(1));
    let stranger = Signed::sign(other.name(), log.head(30), &signing_key(1));
    let stranger = Request::new(21, vec![], &stranger.verify(&[other]).unwrap());
    check(&stranger.to_string(), 403);
    check(&request(&log, 21, 30).replace("\n30\n", "\n31\n"), 403);
    check(&Request::new(21, vec![], &log.checkpoint(30)).to_string(), 422);
    check(&request(&Memory::forked(40, 3), 21, 30), 422);
    check(&request(&Memory::forked(40, 3), 21, 21), 409);
    let longer = tree::consistency(21, 30, &log).unwrap().into_iter().chain([Sha256::of(b"")]).collect();
    check(&Request::new(21, longer, &log.checkpoint(30)).to_string(), 422);
    check(&Request::new(21, vec![Sha256::of(b"")], &log.checkpoint(21)).to_string(), 422);
}

#[test]
fn another_size_than_the_latest_is_named() {
    let log = Memory::sized(40);
    let mut witness = Witness { latest: None };
    let conflict = |witness: &Witness, old, new, latest| {
        let refusal = witness.refuse(&request(&log, old, new));
        assert_eq!(refusal, Refusal::Stale { latest });
        assert_eq!((refusal.status(), refusal.content_type()), (409, "text/x.tlog.size"));
        assert_eq!((refusal.body(), latest_size(&refusal.body())), (format!("{latest}\n"), Some(latest)));
    };
    conflict(&witness, 5, 9, 0);
    assert_eq!(witness.post(&request(&log, 0, 21)).0, 200);
    // The first request of a client that does not know the size, one that comes late, and one of a log rolled back.
    conflict(&witness, 0, 40, 21);
    conflict(&witness, 20, 21, 21);
    conflict(&witness, 15, 20, 21);
    assert_eq!([latest_size("21"), latest_size("021\n"), latest_size("21\n\n"), latest_size("")], [None; 4]);
}

#[test]
fn an_empty_log_has_one_root() {
    let nothing = Head { size: 0, root: Sha256::of(b"something") };
    let mut witness = Witness { latest: None };
    assert_eq!(witness.post(&Request::new(0, vec![], &signed(ORIGIN, nothing)).to_string()).0, 409);
    let with_proof = Request::new(0, vec![Sha256::of(b"")], &Memory::sized(4).checkpoint(4));
    assert_eq!(witness.post(&with_proof.to_string()).0, 422);
    assert_eq!(witness.latest, None);
}

/// Two requests at the same time: whoever decides by what the other has replaced is refused by the same function.
#[test]
fn the_second_of_two_requests_cannot_roll_back() {
    let log = Memory::sized(40);
    let mut witness = Witness { latest: None };
    assert_eq!(witness.post(&request(&log, 0, 10)).0, 200);
    let (small, large) = (request(&log, 10, 12), request(&log, 10, 30));
    assert_eq!(witness.post(&large).0, 200);
    assert_eq!(witness.post(&small), (409, "30\n".into()));
    assert_eq!(witness.latest.unwrap().claims().head(), log.head(30));
}

#[test]
fn a_forks_request_is_evidence() {
    let (log, fork) = (Memory::sized(40), Memory::forked(40, 3));
    let mut witness = Witness { latest: None };
    assert_eq!(witness.post(&request(&log, 0, 21)).0, 200);
    for new in [21, 30] {
        let refusal = witness.refuse(&request(&fork, 21, new));
        // "If the old size matches the checkpoint size .. identical. If they don't match .. 409 Conflict."
        assert_eq!(refusal.status(), if new == 21 { 409 } else { 422 });
        let Refusal::Inconsistent { old: 21, why: ProofError::Root { .. }, evidence: Some(evidence), .. } = refusal
        else {
            panic!("a fork convicts itself at {new}")
        };
        assert_eq!(evidence.convicts(&[log_key(ORIGIN)]), Ok([log.head(21), fork.head(new)]));
    }
    let nonsense = Request::new(21, vec![Sha256::of(b"")], &fork.checkpoint(30)).to_string();
    let refusal = witness.refuse(&nonsense);
    assert!(matches!(refusal, Refusal::Inconsistent { evidence: None, .. }) && refusal.status() == 422);
}

/// A checkpoint may bring many signatures along; only the log's own is kept, so that nobody fills a witness's memory.
#[test]
fn foreign_signatures_are_not_kept() {
    let log = Memory::sized(4);
    let checkpoint = log.checkpoint(4);
    let text = checkpoint.as_signed().note().text();
    let others = (1..60).map(|seed| Line::cosign(witness_key(seed).name(), &signing_key(seed), text, NOW));
    let own = Line::sign(&ORIGIN.parse().unwrap(), &signing_key(SEED), text);
    let note = Note::new(text.into(), others.chain([own.clone(), own]).collect()).unwrap();
    let mut witness = Witness { latest: None };
    assert_eq!(witness.post(&format!("old 0\n\n{note}")).0, 200);
    assert_eq!(witness.latest.unwrap().note().lines().len(), 2);
}

#[test]
fn what_is_no_request() {
    let good = request(&Memory::sized(9), 3, 9);
    assert!(Request::read(good.as_bytes()).is_ok());
    let line = good.lines().nth(1).unwrap();
    for (from, to) in [
        ("old 3", "old 03"),
        ("old 3", "old -3"),
        ("old 3", "old"),
        ("old 3", "old  3"),
        ("old 3", "size 3"),
        ("old 3\n", ""),
        ("old 3\n", "old 3\r\n"),
        ("old 3\n", "old 3\n\n"),
        (line, "AAAA"),
        (line, "not base64"),
        ("=\n\n", "=\n"),
        ("\n9\n", "\nnine\n"),
    ] {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good);
        assert!(Request::read(changed.as_bytes()).is_err(), "{changed}");
    }
    let hashes = |count: usize| good.replacen(line, &[line].repeat(count).join("\n"), 1);
    let there = Request::read(good.as_bytes()).unwrap().proof.len() - 1;
    assert!(Request::read(hashes(PROOF_MAX - there).as_bytes()).is_ok());
    assert!(matches!(Request::read(hashes(PROOF_MAX + 1 - there).as_bytes()), Err(RequestError::Form(_))));
    assert!(matches!(Request::read(&vec![b'a'; REQUEST_MAX + 1]), Err(RequestError::TooLarge { .. })));
    assert!(matches!(Request::read(b"old 0\n\n\xff"), Err(RequestError::Form(_))));
    assert_eq!(monitor_path("example.com/behind-the-sofa").len(), 64 + "/checkpoint".len());
    let unsigned = CheckpointError::Note(NoteError::Unsigned);
    assert_eq!(Refusal::NotSigned(unsigned).body(), "the log did not sign the checkpoint\n");
}
