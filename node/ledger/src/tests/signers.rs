//! The keys of those who may publish.

use protocol::{
    message::{Octets, Refusal, Response},
    testing::node,
};

use crate::{Command, testing::Bench};

#[test]
fn only_candidates_are_known_as_signers_and_only_as_long_as_they_are_candidates() {
    let mut bench = Bench::of(1, 1, 1, 1);
    let candidate = bench.ledger.policy().get().coordinators.candidates()[0];
    let signer = |node, bytes: &[u8]| Command::Signer { node, certificate: Octets(bytes.to_vec()) };
    assert_eq!(bench.apply(signer(candidate, b"first")), Some(Response::Done));
    assert_eq!(bench.apply(signer(candidate, b"first")), Some(Response::Done));
    assert_eq!(bench.apply(signer(candidate, b"second")), Some(Response::Done));
    let stranger = bench.apply(signer(node(99), b"other"));
    assert!(matches!(stranger, Some(Response::Refused(Refusal::NotAllowed(_)))), "{stranger:?}");
    for bad in [vec![], vec![0; 5000]] {
        let refused = bench.apply(signer(candidate, &bad));
        assert!(matches!(refused, Some(Response::Refused(Refusal::Invalid(_)))), "{refused:?}");
    }
    let known: Vec<_> = bench.ledger.signers().map(|(node, bytes)| (node, bytes.to_vec())).collect();
    assert_eq!(known, [(candidate, b"second".to_vec())]);
    bench.assert_replays();
    bench.adopt(|p| p.coordinators = protocol::policy::Coordinators::Pinned(node(98)));
    assert_eq!(bench.ledger.signers().count(), 0);
    bench.assert_replays();
}
