//! artel-attest
