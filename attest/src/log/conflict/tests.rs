//! Which pairs of checkpoints convict a log, and which do not.

use super::*;
use crate::{
    log::note::NoteError,
    testing::log::{Memory, ORIGIN, log_key, signed},
};

fn convicted(conflict: &Conflict) -> Result<[Head; 2], ConflictError> {
    Conflict::from_bytes(&conflict.to_bytes()).unwrap().convicts(&[log_key(ORIGIN)])
}

#[test]
fn a_fork_convicts() {
    let (honest, fork) = (Memory::sized(40), Memory::forked(40, 3));
    for (old, new) in [(6, 6), (6, 7), (8, 8), (8, 30), (7, 40), (39, 40)] {
        let (older, newer) = (honest.checkpoint(old), fork.checkpoint(new));
        let proof = tree::consistency(old, new, &fork).unwrap();
        let past = fork.head(old).root;
        let conflict = Conflict::new(&older, &newer, past, proof.clone()).unwrap();
        assert_eq!(convicted(&conflict), Ok([older.head(), newer.head()]), "{old} and {new}");
        // The proof that a forked log shows its witness convicts it, but where the old tree is complete and not in the proof.
        let shown = Conflict::find(&older, &newer, &proof);
        assert_eq!(shown, (old == new || !old.is_power_of_two()).then_some(conflict), "{old} and {new}");
    }
}

#[test]
fn an_honest_log_is_never_convicted() {
    let honest = Memory::sized(40);
    for (old, new) in [(0, 0), (0, 9), (6, 6), (6, 7), (8, 30), (40, 40)] {
        let (older, newer) = (honest.checkpoint(old), honest.checkpoint(new));
        let proof = tree::consistency(old, new, &honest).unwrap();
        assert_eq!(Conflict::find(&older, &newer, &proof), None);
        assert_eq!(Conflict::new(&older, &newer, Sha256::of(b"invented"), proof.clone()), None);
        let forged = Conflict {
            past: Sha256::of(b"invented"),
            proof,
            newer: Octets(newer.as_signed().to_string().into_bytes()),
            older: Octets(older.as_signed().to_string().into_bytes()),
        };
        assert!(matches!(convicted(&forged), Err(ConflictError::Proof(_))));
        let truth = Conflict { past: older.head().root, ..forged };
        assert_eq!(convicted(&truth), Err(ConflictError::None));
        let turned = Conflict { newer: truth.older.clone(), older: truth.newer.clone(), ..truth };
        assert!(convicted(&turned).is_err());
    }
}

#[test]
fn only_one_logs_signatures_convict() {
    let (honest, fork) = (Memory::sized(40), Memory::forked(40, 3));
    let (older, newer) = (honest.checkpoint(6), fork.checkpoint(6));
    let conflict = Conflict::find(&older, &newer, &[]).unwrap();
    assert_eq!(conflict.convicts(&[log_key("other")]), Err(CheckpointError::Note(NoteError::Unsigned).into()));
    let elsewhere = signed("other", newer.head());
    assert_eq!(Conflict::find(&older, &elsewhere, &[]), None);
    let nothing = Head { size: 0, root: Sha256::of(b"not nothing") };
    let conflict = Conflict::new(&signed(ORIGIN, nothing), &newer, newer.head().root, vec![]).unwrap();
    assert!(convicted(&conflict).is_ok(), "no log has another root without entries");
}

#[test]
fn evidence_has_one_form_and_a_size() {
    let conflict = Conflict::find(&Memory::sized(40).checkpoint(6), &Memory::forked(40, 3).checkpoint(6), &[]).unwrap();
    let mut bytes = conflict.to_bytes();
    bytes.push(0);
    assert!(matches!(Conflict::from_bytes(&bytes), Err(ConflictError::Door(_))));
    let long = Conflict { proof: vec![Sha256::of(b""); PROOF_MAX + 1], ..conflict };
    assert!(matches!(Conflict::from_bytes(&long.to_bytes()), Err(ConflictError::Proof(_))));
}
