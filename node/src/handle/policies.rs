//! The network's policies, for who asks for them or brings a new one.

use bytes::Bytes;
use ledger::log::Enacted;
use protocol::message::{Octets, Request};
use web::api::{ApiError, PolicyHistory, PolicyRecord, PolicyView, Time};

use super::{Handle, internal};
use crate::daemon::{Shared, views::POLICIES};

/// Gives the signed policy in force.
pub(super) fn newest(shared: &Shared) -> Bytes {
    let policies = shared.policies();
    policies.chain().last().expect("a chain is never empty").to_bytes().into()
}

/// Gives every version that this node knows, with their places in the log: a coordinator knows them, and a node keeps those that the log
/// proved to it.
pub(super) async fn history(handle: &Handle) -> Result<PolicyHistory, ApiError> {
    let look = |ledger: &ledger::Ledger| (ledger.log_head().size, ledger.enacted().to_vec());
    let (log_size, enacted): (Option<u64>, Vec<Enacted>) = match handle.see(POLICIES.to_owned(), look).await {
        Ok((size, enacted)) => (Some(size), enacted),
        // What this node has is worth showing while nobody coordinates.
        Err(ApiError::Unavailable { .. } | ApiError::Unreachable { .. }) => (None, Vec::new()),
        Err(other) => return Err(other),
    };
    let policies = handle.shared.policies();
    let record = |policy: &std::sync::Arc<protocol::Verified<protocol::policy::Policy>>| {
        let number = policy.get().number;
        let known = enacted.iter().find(|enacted| enacted.number == number);
        PolicyRecord {
            number,
            place: known.map(|enacted| enacted.place).or_else(|| handle.shared.place_of(policy)),
            since: known.map(|enacted| Time::from(enacted.at)),
            expires: Time::from(policy.get().expires),
            signers: policy.signers().into_iter().collect(),
            envelope: Octets(policy.to_bytes()),
        }
    };
    Ok(PolicyHistory { log_size, policies: policies.chain().iter().map(record).collect() })
}

/// Has the coordinators adopt a policy.
pub(super) async fn adopt(handle: &Handle, policy: Bytes) -> Result<PolicyView, ApiError> {
    handle.hand_in(Request::AdoptPolicy(Octets(policy.to_vec()))).await?;
    // It is adopted there; this node need not wait until it hears of it.
    if let Ok(policies) = handle.shared.policies().followed_by(&policy) {
        handle.shared.adopt(policies).await.map_err(|e| internal("store", &e))?;
    }
    let policies = handle.shared.policies();
    let current = policies.current();
    Ok(PolicyView { number: current.number, expires: Time::from(current.expires) })
}
