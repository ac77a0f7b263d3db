//! Takes in recipes and records of their runs. What nobody in the network signed costs no entry in the journal.

use ledger::Command;
use protocol::{
    Verified,
    envelope::{Record, Signed},
    message::{Octets, Refusal, Response},
};

use super::Desk;

impl Desk {
    /// Has a signed recipe kept.
    pub(super) async fn recipe(&self, record: &Octets) -> Result<Response, Refusal> {
        let recipe = self.of_maintainer(record)?;
        Ok(self.leader()?.decide(Command::Recipe(recipe)).await)
    }

    /// Has the signed record of a run kept.
    pub(super) async fn recipe_run(&self, record: &Octets) -> Result<Response, Refusal> {
        let run = self.of_maintainer(record)?;
        Ok(self.leader()?.decide(Command::RecipeRun(run)).await)
    }

    fn of_maintainer<T: Record>(&self, record: &Octets) -> Result<Verified<T>, Refusal> {
        let verified = Signed::<T>::read(&record.0).and_then(|s| s.verify(Some(&self.shared.network)));
        let verified = verified.map_err(|e| Refusal::Invalid(e.to_string()))?;
        let policies = self.shared.policies();
        if verified.signers().iter().any(|key| policies.current().maintainer(key).is_some()) {
            return Ok(verified);
        }
        Err(Refusal::NotAllowed(
            "no maintainer of this network signed it: its roots must add the key to the policy".into(),
        ))
    }
}
