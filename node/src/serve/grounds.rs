//! Why a builder may show its result: what the log says of its job, with proofs under one checkpoint.

use ledger::Grounds as Known;
use protocol::{
    NodeId,
    lease::LeaseNumber,
    message::{Commitment, Grounds, Octets, Refusal, Response},
};
use tracing::debug;

use super::{Desk, refused};
use crate::{
    daemon::chain,
    tlog::{self, Subject},
};

impl Desk {
    /// Answers a builder that was asked for its result, from the size of the log that it knows.
    pub(super) async fn grounds(&self, from: NodeId, (lease, known): (LeaseNumber, u64)) -> Result<Response, Refusal> {
        let decisions = self.leader()?;
        let look = move |ledger: &ledger::Ledger| (ledger.grounds(from, lease), ledger.log_head().size);
        let (grounds, size) = decisions.view(look).await.ok_or_else(|| busy("the coordinator is stopping".into()))?;
        let grounds = grounds.ok_or_else(|| {
            Refusal::Unknown(format!("lease {lease} of this node: it was never granted, or is long over"))
        })?;
        let book = decisions.book();
        book.written(size.max(known)).await.map_err(busy)?;
        let checkpoint = book.checkpoint().ok_or_else(|| busy("entries of the log are missing here".into()))?;
        let size = checkpoint.claims().head().size;
        let entries = book.logged(subjects(&grounds), size).await.map_err(|error| unread(&error))?;
        let consistency = book.consistency(known, size).await.map_err(|error| unread(&error))?;
        let checkpoint = Octets(checkpoint.to_string().into_bytes());
        Ok(Response::Grounds(Grounds { entries, negatives: grounds.negatives, checkpoint, consistency }))
    }

    /// Takes a builder's commitment, which it has signed. One that is known costs no entry in the journal, however often it is said.
    pub(super) async fn commit(&self, from: NodeId, commitment: Commitment) -> Response {
        let said = commitment.clone();
        let look = move |ledger: &ledger::Ledger| {
            let job = ledger.grounds(from, said.lease).map(|grounds| grounds.job);
            (job, ledger.commitment_stands(from, &said))
        };
        let Some(decisions) = self.leading() else { return refused(self.not_coordinator()) };
        let (job, known) = decisions.view(look).await.unwrap_or_default();
        if let Some(answer) = known {
            return answer;
        }
        // What nobody was granted is never written down: its signature could not be checked.
        let Some(job) = job else { return Response::Lost(vec![commitment.lease]) };
        if !attest::commitment::is_said_by(&self.shared.network, (from, job), &commitment) {
            return refused(Refusal::Invalid("the builder did not sign what it commits to: upgrade it".into()));
        }
        self.of_member(ledger::Command::Committed { node: from, commitment }, from).await
    }
}

fn subjects(grounds: &Known) -> Vec<Subject> {
    let bound = grounds.bound.iter().copied().map(Subject::Commitment);
    let failed = grounds.failed.iter().copied().map(Subject::Failure);
    bound.chain(failed).collect()
}

fn busy(why: String) -> Refusal {
    Refusal::Busy(why)
}

fn unread(error: &tlog::Error) -> Refusal {
    debug!(error = %chain(error), "a part of the transparency log is not read");
    busy("the database failed".into())
}
