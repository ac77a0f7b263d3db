//! A job's bundle: what the ledger keeps of it, its environment's lock, and the log's own word on every attempt.

use attest::{
    bundle::Bundle,
    course::{Course, Logged, NEGATIVES_MAX, Opened},
};
use ledger::{Evidence, Ledger, course::Place};
use protocol::{JobId, limits, message::Octets};
use tracing::debug;

use super::{Decisions, Shared, chain};

/// Makes the bundle of a job's evidence.
///
/// # Errors
/// Words, when the job or its environment lock is not here.
pub async fn bundle(shared: &Shared, decisions: &Decisions, job: JobId) -> Result<Vec<u8>, String> {
    let look = move |ledger: &Ledger| Some((ledger.evidence(job)?, ledger.request(job)?.get().environment));
    let (evidence, environment) =
        decisions.view(look).await.flatten().ok_or_else(|| {
            format!("the evidence of job {job} is no longer kept here; its bundle is in the repository")
        })?;
    if shared.blobs.size(&environment).await.map_err(|e| chain(&e))?.is_none() {
        let from: Vec<_> = shared.net.peers().into_iter().map(|p| p.node).collect();
        let limit = limits::LOCK_MAX as u64;
        let fetched = shared.blobs.fetch(&shared.net, &environment, &from, limit).await;
        fetched.map_err(|e| format!("the environment lock cannot be fetched: {}", chain(&e)))?;
    }
    let lock = shared.blobs.read(&environment, limits::LOCK_MAX as u64).await.map_err(|e| chain(&e))?;
    let Evidence { request, policies, attestations, negatives, salts, course, late: _ } = evidence;
    let course = Course {
        salts: salts.into_iter().map(|(lease, salt)| Opened { salt, lease }).collect(),
        logged: logged(decisions, course).await,
        negatives: negatives.into_iter().take(NEGATIVES_MAX).map(Octets).collect(),
    };
    let bundle = Bundle {
        lock: Octets(lock.to_vec()),
        course: (course != Course::default()).then_some(course),
        request: Octets(request),
        policies: policies.into_iter().map(Octets).collect(),
        promotions: Vec::new(),
        attestations: attestations.into_iter().map(Octets).collect(),
    };
    Ok(bundle.to_bytes())
}

/// Proves what the log says of the attempts, as far as it is written here; none where nothing can be proven.
async fn logged(decisions: &Decisions, course: Vec<Place>) -> Option<Logged> {
    let last = course.last()?.0;
    let book = decisions.book();
    // The ledger is ahead of the disk for a moment; what is not written by then is left out.
    let _ = book.written(last + 1).await;
    let checkpoint = book.checkpoint()?;
    let size = checkpoint.claims().head().size;
    let places: Vec<u64> = course.into_iter().map(|(place, _)| place).filter(|place| *place < size).collect();
    let signed = Octets(checkpoint.to_string().into_bytes());
    match book.placed(places, size).await {
        Ok(entries) if entries.is_empty() => None,
        Ok(entries) => Some(Logged { entries, checkpoint: signed }),
        Err(error) => {
            debug!(error = %chain(&error), "a bundle is made without what the log says");
            None
        }
    }
}
