//! What is kept of a job so that anybody can check its verdict offline: signed bytes, as received. It judges nothing.

use attest::statement::VerifiedAttestation;
use protocol::{Salt, Verified, job::JobRequest, lease::LeaseNumber, message::Octets};

use crate::course::{Noted, Place};

/// What is kept of a job for an offline check, as received.
#[derive(Debug, Clone)]
pub(crate) struct Dossier {
    /// The maintainer's signed request.
    pub(crate) request: Verified<JobRequest>,
    /// Attestations that came under live leases, in order of arrival: the votes.
    pub(crate) attestations: Vec<VerifiedAttestation>,
    /// Attestations that came too late to vote, or without the commitment that they need.
    pub(crate) late: Vec<VerifiedAttestation>,
    /// What builders signed about attempts without outputs, as the transparency log names it.
    pub(crate) negatives: Vec<Octets>,
    /// What the transparency log says of its attempts, in order.
    pub(crate) course: Vec<Noted>,
}

impl Dossier {
    pub(crate) fn new(request: Verified<JobRequest>) -> Self {
        Self { request, attestations: Vec::new(), late: Vec::new(), negatives: Vec::new(), course: Vec::new() }
    }
}

/// Everything for a bundle of one job but the environment lock, which is in the blob store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The signed request's envelope.
    pub request: Vec<u8>,
    /// The chain of policies, the genesis first.
    pub policies: Vec<Vec<u8>>,
    /// The DSSE JSON of every vote, dissent included.
    pub attestations: Vec<Vec<u8>>,
    /// The DSSE JSON of attestations that came too late to vote; they are no part of a bundle.
    pub late: Vec<Vec<u8>>,
    /// The DSSE JSON of what builders signed about attempts without outputs.
    pub negatives: Vec<Vec<u8>>,
    /// What hid the votes, by their leases.
    pub salts: Vec<(LeaseNumber, Salt)>,
    /// What the transparency log says of its attempts, in order.
    pub course: Vec<Place>,
}
