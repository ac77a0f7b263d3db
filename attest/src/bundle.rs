//! Bundles: everything that an offline check of one job needs, in one canonical record.
//!
//! A bundle proves nothing by itself and reading one checks only sizes and form; [`crate::verify`] checks what it says.

use protocol::{
    codec::{self, DoorError},
    limits,
    message::Octets,
};
use serde::{Deserialize, Serialize};

use crate::course::Course;

/// The largest bundle, in bytes.
pub const BUNDLE_MAX: usize = 32 * 1024 * 1024;
/// Policies in one chain.
pub const POLICIES_MAX: usize = 256;
/// Attestations of one job: as many as attempts that a job may get.
pub const ATTESTATIONS_MAX: usize = limits::ATTEMPTS_MAX as usize;
/// Channels that one package may pass through.
pub const PROMOTIONS_MAX: usize = 16;

/// The evidence of one job: opaque bytes, each part as it was received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The environment lock's canonical bytes.
    pub lock: Octets,
    /// How every attempt ended, those without outputs included; none in bundles of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub course: Option<Course>,
    /// The maintainer's signed job request.
    pub request: Octets,
    /// The policy chain, the genesis first.
    pub policies: Vec<Octets>,
    /// The signed server jobs that took the packages over into other channels, in order; empty in the channel that built them.
    pub promotions: Vec<Octets>,
    /// DSSE attestations of everybody who voted, those who differ included.
    pub attestations: Vec<Octets>,
}

/// Why bytes are no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes did not pass the door.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// A list is too long.
    #[error("a bundle has at most {limit} {part}, this one has {got}")]
    TooMany {
        /// What there is too much of.
        part: &'static str,
        /// How many there are.
        got: usize,
        /// How many may be.
        limit: usize,
    },
    /// A part is too large.
    #[error("{part} of {got} bytes in a bundle is over the limit of {limit}")]
    TooLarge {
        /// The part.
        part: &'static str,
        /// Its bytes.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

impl Bundle {
    /// Gives the canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a bundle: sizes and form only.
    ///
    /// # Errors
    /// [`Error`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let bundle: Self = codec::decode(bytes, BUNDLE_MAX)?;
        bundle.check()?;
        Ok(bundle)
    }

    /// Checks the sizes of all parts.
    ///
    /// # Errors
    /// [`Error`] with the first part that is too large.
    pub fn check(&self) -> Result<(), Error> {
        at_most("policies", self.policies.len(), POLICIES_MAX)?;
        at_most("promotions", self.promotions.len(), PROMOTIONS_MAX)?;
        self.promotions.iter().try_for_each(|p| fits("promotion", p, limits::JOB_MAX + limits::ENVELOPE_ROOM))?;
        at_most("attestations", self.attestations.len(), ATTESTATIONS_MAX)?;
        self.course.as_ref().map_or(Ok(()), Course::check)?;
        fits("lock", &self.lock, limits::LOCK_MAX)?;
        fits("request", &self.request, limits::JOB_MAX + limits::ENVELOPE_ROOM)?;
        self.policies.iter().try_for_each(|p| fits("policy", p, limits::POLICY_MAX + limits::ENVELOPE_ROOM))?;
        self.attestations.iter().try_for_each(|a| fits("attestation", a, limits::ATTESTATION_MAX))
    }
}

pub(crate) fn at_most(part: &'static str, got: usize, limit: usize) -> Result<(), Error> {
    if got > limit { Err(Error::TooMany { part, got, limit }) } else { Ok(()) }
}

pub(crate) fn fits(part: &'static str, octets: &Octets, limit: usize) -> Result<(), Error> {
    let got = octets.0.len();
    if got > limit { Err(Error::TooLarge { part, got, limit }) } else { Ok(()) }
}
