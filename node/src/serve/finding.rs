//! Finding the coordinator: whatever this node asks of it reaches the one that leads, also while that changes.
//!
//! ```text
//!  the leader as known --asked--> answer
//!      ^                 '--> gone, "not me", or another one leads meanwhile
//!      '---- ask the candidates who leads <--- pause, doubled
//! ```
//! Every question may be asked twice: what it wants is idempotent. A node that does not lead refuses, it never forwards what
//! another node asks, so nothing goes in a ring.

use std::time::{Duration, Instant};

use futures::future::join_all;
use protocol::{
    NodeId,
    message::{Refusal, Request, Response},
};
use tracing::debug;

use super::Desk;
use crate::{consensus::Majority, daemon::decide::NO_MAJORITY, net::AskError};

/// How long a leader is looked for, from the first question on: longer than an election takes.
const FIND_WITHIN: Duration = Duration::from_secs(14);
/// How long it is looked for while a coordinator says that no majority is reachable: others may see one.
const NO_MAJORITY_WITHIN: Duration = Duration::from_secs(4);
/// The first pause between two rounds; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long one candidate may take to say who leads.
const SAY_WITHIN: Duration = Duration::from_secs(2);

/// How one round of asking ended.
enum Round {
    Answered(Result<Response, AskError>),
    /// Nothing for good; the words for the asker if it stays so, and how long it is tried.
    Again(Result<Response, AskError>, Duration),
}

impl Desk {
    /// Asks the coordinator: the one that leads, found if need be, asked again when it changes meanwhile.
    ///
    /// # Errors
    /// As [`Desk::ask`], of the last try.
    pub async fn ask_coordinator(&self, request: Request) -> Result<Response, AskError> {
        let (begun, mut pause) = (Instant::now(), PAUSE_FIRST);
        loop {
            let (last, within) = match self.round(request.clone()).await {
                Round::Answered(answer) => return answer,
                Round::Again(last, within) => (last, within),
            };
            if begun.elapsed() + pause >= within {
                return self.in_own_words(last);
            }
            self.find_leader().await;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn round(&self, request: Request) -> Round {
        let Some(leader) = self.shared.leader() else {
            let nobody = "no coordinator is known to lead; none of them answered yet".to_owned();
            return Round::Again(Ok(Response::Refused(Refusal::Busy(nobody))), FIND_WITHIN);
        };
        let mut known = self.shared.others.leading.watch();
        let replaced = known.wait_for(|known| known.leader.is_some_and(|(node, _)| node != leader));
        let answer = tokio::select! {
            biased;
            answer = tokio::time::timeout(self.patience(), self.ask(leader, request)) => {
                answer.unwrap_or(Err(AskError::Timeout(leader)))
            }
            // It will not answer any more, or its word is worth nothing.
            Ok(_) = replaced => Err(AskError::Interrupted(leader)),
        };
        match answer {
            Ok(Response::Refused(Refusal::NotCoordinator(other))) => {
                debug!(asked = %leader, ?other, "not the coordinator");
                if let Some(other) = other.filter(|other| self.shared.may_lead(other)) {
                    self.ask_who_leads(other).await;
                }
                let changing = "the coordinator is changing; ask again in a moment".to_owned();
                Round::Again(Ok(Response::Refused(Refusal::Busy(changing))), FIND_WITHIN)
            }
            Ok(Response::Refused(Refusal::Busy(why))) if why == NO_MAJORITY => {
                Round::Again(Ok(Response::Refused(Refusal::Busy(why))), NO_MAJORITY_WITHIN)
            }
            Err(
                error @ (AskError::Unreachable { .. }
                | AskError::Interrupted(_)
                | AskError::NoRoom(_)
                | AskError::Timeout(_)
                | AskError::Unsupported(_)),
            ) => {
                debug!(asked = %leader, %error, "the coordinator does not answer");
                Round::Again(Err(error), self.patience())
            }
            answer => Round::Answered(answer),
        }
    }

    /// How long a question waits. A coordinator that misses the majority itself hardly reaches the leader.
    fn patience(&self) -> Duration {
        if self.misses_majority() { NO_MAJORITY_WITHIN } else { FIND_WITHIN }
    }

    fn misses_majority(&self) -> bool {
        self.decisions().is_some_and(|decisions| decisions.standing().majority == Majority::Missing)
    }

    /// A coordinator knows better than its transport why nobody leads.
    fn in_own_words(&self, last: Result<Response, AskError>) -> Result<Response, AskError> {
        match last {
            Err(_) if self.misses_majority() => Ok(Response::Refused(Refusal::Busy(NO_MAJORITY.to_owned()))),
            last => last,
        }
    }

    /// Asks every other candidate who leads.
    async fn find_leader(&self) {
        let policies = self.shared.policies();
        let candidates = policies.current().coordinators.candidates();
        // A single one is known; whether it is back is found out by asking it again.
        if candidates.len() > 1 {
            join_all(candidates.iter().map(|node| self.ask_who_leads(*node))).await;
        }
    }

    /// Asks a candidate for its word that it leads, and believes it.
    pub async fn ask_who_leads(&self, node: NodeId) {
        if node == self.shared.id {
            return;
        }
        match tokio::time::timeout(SAY_WITHIN, self.shared.net.ask(node, Request::Leader)).await {
            Ok(Ok(Response::Record(record))) => {
                self.shared.believe_leader(&record.0).await;
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => debug!(%node, %error, "a candidate cannot be asked who leads"),
            Err(_) => debug!(%node, "a candidate did not say in time who leads"),
        }
    }
}
