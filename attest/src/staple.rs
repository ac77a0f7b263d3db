//! Staples: the evidence for a package in files beside it, so that whoever installs it asks nobody.
//!
//! ```text
//!  hello_2.10-3_amd64.deb
//!  hello_2.10-3_amd64.deb.intoto.jsonl    lines: the maintainer's request, a statement of each builder (of those without
//!                                         outputs, too), promotions, a summary
//!  hello_2.10-3_amd64.deb.tlog-proof      the job's verdict is in the log, and witnesses saw it
//! ```
//! Each line is a DSSE envelope in JSON (in-toto's bundle). Builders' lines stand as they were signed; requests and promotions
//! are the same payload, type and signatures as in our own envelopes, which sign the same encoding. Lines come in any order, and
//! a line that nobody knows or that does not verify is as if it were not there: by itself it turns no refusal into a proof.
//!
//! What a staple proves is asked in [`crate::verify`]; it leaves out the policies, which whoever checks has, and the environment's
//! lock, which the request names by hash.

use protocol::{
    NetworkId, PublicKey, Signed, Verified,
    codec::{self, DoorError},
    envelope::{Envelope as Record, Record as _, type_string},
    job::JobRequest,
    limits,
    message::Octets,
};

pub use crate::log::proof::SUFFIX as PROOF_SUFFIX;
use crate::{
    bundle::Bundle,
    dsse,
    negative::{self, Negative},
    statement::{self, VerifiedAttestation},
    summary,
};

/// What the name of the file with the lines adds to its package's.
pub const SUFFIX: &str = ".intoto.jsonl";
/// The largest file of lines, in bytes.
pub const FILE_MAX: usize = 32 * 1024 * 1024;
/// Lines that are looked at; who adds more has his own in front of them for nothing.
pub const LINES_MAX: usize = 256;

/// Why no staple can be made of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A request or promotion is no envelope.
    #[error("the bundle's request cannot be read")]
    Envelope(#[from] DoorError),
    /// An attestation or negative would be more than one line.
    #[error("statement {position} of the bundle is not one line")]
    Lines {
        /// Its place in the bundle, from 1.
        position: usize,
    },
}

/// Gives the lines for every package of a job, from its bundle; `summary` is what its publisher says of it, see
/// [`crate::summary`]. Equal arguments give equal bytes.
///
/// # Errors
/// When a part of the bundle has another form than any that is verified.
pub fn lines(bundle: &Bundle, summary: Option<&[u8]>) -> Result<Vec<u8>, Error> {
    let records = std::iter::once(&bundle.request).chain(&bundle.promotions);
    let mut lines = records.map(record).collect::<Result<Vec<_>, _>>()?;
    let negatives = bundle.course.iter().flat_map(|course| &course.negatives);
    for (at, statement) in bundle.attestations.iter().chain(negatives).enumerate() {
        if statement.0.contains(&b'\n') {
            return Err(Error::Lines { position: at + 1 });
        }
        lines.push(statement.0.clone());
    }
    lines.extend(summary.map(<[u8]>::to_vec));
    Ok(lines.into_iter().flat_map(|line| line.into_iter().chain([b'\n'])).collect())
}

fn record(octets: &Octets) -> Result<Vec<u8>, Error> {
    let record: Record = codec::decode(&octets.0, RECORD_MAX)?;
    Ok(dsse::Envelope::of_record(&record).to_bytes())
}

/// The largest envelope of a request or promotion, in bytes.
const RECORD_MAX: usize = limits::JOB_MAX + limits::ENVELOPE_ROOM;
/// The longest line, in bytes: the longer of an attestation, and a request in base64.
const LINE_MAX: usize = limits::ATTESTATION_MAX;

/// What stands in the lines of a staple.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// Requests and promotions whose signers are not asked yet.
    records: Vec<dsse::Envelope>,
    /// Statements of builders of this network, whose signatures were verified.
    pub(crate) attestations: Vec<VerifiedAttestation>,
    /// What builders of this network signed about attempts without outputs; by itself it proves nothing.
    pub(crate) negatives: Vec<Negative>,
    /// Why lines that claim to be one of the above are none, with their numbers from 1.
    pub(crate) broken: Vec<(usize, statement::Error)>,
}

impl Lines {
    /// Reads lines, none longer than any of ours; the order means nothing, nor does a line for the second time.
    pub(crate) fn read(bytes: &[u8], network: &NetworkId) -> Self {
        let (mut lines, job) = (Self::default(), type_string(JobRequest::KIND, Some(network)));
        for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate().take(LINES_MAX) {
            let Ok(envelope) = dsse::Envelope::read(line, LINE_MAX) else { continue };
            if envelope.payload_type() == job {
                lines.records.push(envelope);
            } else if envelope.payload_type() == dsse::IN_TOTO && negative::is_one(envelope.payload()) {
                lines.negatives.extend(Negative::read(line, network));
            } else if envelope.payload_type() == dsse::IN_TOTO && !summary::is_one(envelope.payload()) {
                match statement::read(line, network) {
                    Ok(known) if lines.attestations.iter().any(|a| a.id() == known.id()) => {}
                    Ok(attestation) => lines.attestations.push(attestation),
                    Err(error) => lines.broken.push((at + 1, error)),
                }
            }
        }
        lines
    }

    /// Gives the requests, promotions included, that one of these keys signed.
    pub(crate) fn requests(&self, network: &NetworkId, candidates: &[PublicKey]) -> Vec<Verified<JobRequest>> {
        let verified = |envelope: &dsse::Envelope| {
            let record = codec::encode(&envelope.to_record::<JobRequest>(candidates)?);
            let request = Signed::<JobRequest>::read(&record).and_then(|signed| signed.verify(Some(network))).ok()?;
            (request.get().network == *network).then_some(request)
        };
        self.records.iter().filter_map(verified).collect()
    }
}

#[cfg(test)]
mod tests;
