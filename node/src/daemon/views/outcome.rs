//! What the log says of attempts, for people.

use attest::log::entry::End;
use ledger::{Ledger, course::Ending};
use protocol::JobId;
use web::api::LoggedAttempt;

/// Shows what the log says of each attempt of a job.
pub(super) fn of(ledger: &Ledger, job: JobId) -> Vec<LoggedAttempt> {
    ledger.endings(job).into_iter().map(|ending| view(ledger, ending)).collect()
}

fn view(ledger: &Ledger, ending: Ending) -> LoggedAttempt {
    let Ending { lease, committed, end, place } = ending;
    let operator = ledger.policy().get().operator_of(&lease.node).cloned();
    let outcome = end.as_ref().map(|end| word(end).to_owned());
    let statement = end.as_ref().and_then(signed);
    LoggedAttempt { number: lease.lease, node: lease.node, operator, outcome, statement, committed, entry: place }
}

/// Gives the word for how an attempt ended.
pub fn word(end: &End) -> &'static str {
    match end {
        End::Built(_) => "built",
        End::Failed(_) => "failed",
        End::Stopped(_) | End::Interrupted => "interrupted",
        End::Lost => "nothing came",
        End::Withheld => "withheld",
        End::Declined => "declined",
        End::Revoked => "taken back",
    }
}

/// Gives the hash of what its builder signed.
fn signed(end: &End) -> Option<protocol::Hash> {
    match end {
        End::Built(hash) | End::Failed(hash) | End::Stopped(hash) => Some(*hash),
        End::Interrupted | End::Lost | End::Withheld | End::Declined | End::Revoked => None,
    }
}
