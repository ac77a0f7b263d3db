//! What is kept of a job so that anybody can check its verdict offline: signed bytes, as received. It judges nothing.

use attest::statement::VerifiedAttestation;
use protocol::{Verified, job::JobRequest};

/// What is kept of a job for an offline check, as received.
#[derive(Debug, Clone)]
pub(crate) struct Dossier {
    /// The maintainer's signed request.
    pub(crate) request: Verified<JobRequest>,
    /// Attestations in order of arrival, late ones too.
    pub(crate) attestations: Vec<VerifiedAttestation>,
}

/// Everything for a bundle of one job but the environment lock, which is in the blob store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The signed request's envelope.
    pub request: Vec<u8>,
    /// The chain of policies, the genesis first.
    pub policies: Vec<Vec<u8>>,
    /// The DSSE JSON of every attestation, late ones and dissent included.
    pub attestations: Vec<Vec<u8>>,
}
