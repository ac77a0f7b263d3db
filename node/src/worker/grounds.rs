//! Whether a result may be shown, by the log: see [`attest::reveal`] for the rule. What the coordinator tells about the log is
//! remembered before anything is shown, so that another history would convict it.

use attest::reveal::{self, Doubt, Question};
use protocol::{
    Hash,
    lease::LeaseNumber,
    limits,
    message::{Grounds, Request, Response},
};
use tracing::{debug, error, info, warn};

use super::{Worker, reveal::Hidden};
use crate::{clock, daemon::chain};

impl Worker {
    /// Decides whether a result may be shown; `digest` is what it is bound to, none when its lease is over.
    pub(super) async fn may_show(&self, hidden: &Hidden, (lease, digest): (LeaseNumber, Option<Hash>)) -> bool {
        if self.shared.alarm().is_some() {
            warn!(%lease, "a result is not shown: the log of this network was forked");
            return false;
        }
        if hidden.waited(clock::now()) >= limits::REVEAL_WAIT {
            info!(%lease, "a result is shown because its time is up");
            return true;
        }
        // One after the other: what one is told is what the next one asks from.
        let _turn = self.showing.lock().await;
        self.shared.others.sight.load(&self.shared).await;
        let believed = self.shared.others.sight.believed();
        let known = believed.as_ref().map_or(0, |believed| believed.head().size);
        match self.desk.ask_coordinator(Request::Grounds(lease, known)).await {
            Ok(Response::Grounds(grounds)) => {
                let policies = self.shared.policies();
                let question = Question {
                    network: self.shared.network,
                    job: hidden.job,
                    own: digest.map(|digest| (self.shared.id, lease, digest)),
                    agree: hidden.agree(policies.current()),
                    policy: policies.current(),
                    believed: believed.as_ref(),
                };
                self.judge(&question, lease, &grounds).await
            }
            Ok(other) => {
                debug!(%lease, ?other, "no word why a result may be shown");
                false
            }
            Err(error) => {
                debug!(%lease, %error, "no word why a result may be shown");
                false
            }
        }
    }

    async fn judge(&self, question: &Question<'_>, lease: LeaseNumber, grounds: &Grounds) -> bool {
        let sight = &self.shared.others.sight;
        let from = self.shared.leader().unwrap_or(self.shared.id);
        match reveal::check(question, grounds) {
            Ok((checkpoint, reason)) => {
                // Nothing is shown before what allowed it is on the disk.
                let kept = sight.grow(&self.shared, from, (question.believed, checkpoint)).await;
                if let Err(doubt) = &reason {
                    info!(%lease, %doubt, "a result is not shown yet, though it was asked for");
                }
                kept && reason.is_ok() && self.shared.alarm().is_none()
            }
            Err(Doubt::Fork(conflict)) => {
                warn!(%lease, "a result is not shown: its coordinator tells another history of the log");
                if let Err(error) = self.shared.raise(&conflict).await {
                    error!(%error, "evidence against the log cannot be kept");
                }
                false
            }
            Err(doubt) => {
                warn!(%lease, doubt = %chain(&doubt), "a result is not shown, though it was asked for");
                // Whoever follows the log asks for its tiles, which convict where this answer does not.
                sight.show(from, grounds.checkpoint.0.clone());
                false
            }
        }
    }
}
