//! Making lines of a bundle, and reading them again.

use protocol::{
    message::Octets,
    testing::{public_key, samples},
};

use super::*;
use crate::testing::{bundle, staple::Sample};

#[test]
fn lines_carry_what_the_bundle_carries() {
    let sample = Sample::of(&samples::genesis(3), &["x", "x", "lie"]);
    let bytes = sample.lines();
    assert_eq!(bytes, sample.lines(), "equal evidence gives equal bytes");
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert_eq!(text.lines().count(), 1 + 3 + 1, "request, three statements, a summary");
    let lines = Lines::read(&bytes, &sample.network);
    let attestations: Vec<_> = lines.attestations.iter().map(|a| a.bytes().to_vec()).collect();
    let wanted: Vec<_> = sample.bundle.attestations.iter().map(|a| a.0.clone()).collect();
    assert_eq!(attestations, wanted);
    assert!(lines.broken.is_empty());
    let requests = lines.requests(&sample.network, &[public_key(1), public_key(2)]);
    assert_eq!(requests[0].to_bytes(), sample.bundle.request.0, "the envelope comes back byte for byte");
    assert!(lines.requests(&sample.network, &[public_key(1)]).is_empty(), "of unknown signers there is none");
}

/// Tools of others verify every line: each is a DSSE envelope over its own bytes.
#[test]
fn each_line_is_signed_by_itself() {
    let sample = Sample::of(&samples::genesis(2), &["x", "x"]);
    let keys: Vec<_> = [2, 10, 11].map(public_key).to_vec();
    for line in sample.lines().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let envelope = dsse::Envelope::read(line, LINE_MAX).unwrap();
        assert_eq!(envelope.signers(&keys).len(), 1, "{}", String::from_utf8_lossy(line));
    }
}

#[test]
fn what_cannot_stand_in_a_line_is_refused() {
    let (mut bundle, network) = bundle(&samples::genesis(3), &["x", "x"]);
    let good = bundle.attestations[0].0.clone();
    assert!(statement::read(&good, &network).is_ok());
    let broken = String::from_utf8(good).unwrap().replacen('{', "{\n", 1).into_bytes();
    assert!(matches!(statement::read(&broken, &network), Err(statement::Error::Form { .. })));
    bundle.attestations[0] = Octets(broken);
    assert_eq!(lines(&bundle, None), Err(Error::Lines { position: 1 }));
    bundle.request = Octets(b"x".to_vec());
    assert!(matches!(lines(&bundle, None), Err(Error::Envelope(_))));
}
