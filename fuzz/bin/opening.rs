//! Openings of commitments: lease, salt and attestation, of which no other one opens the same commitment.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::evidence::OPENING);
