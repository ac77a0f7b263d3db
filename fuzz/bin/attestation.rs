//! DSSE envelopes of attestations, as a stranger sends them.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::evidence::ATTESTATION);
