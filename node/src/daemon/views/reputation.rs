//! What a builder has shown, from the ledger's view to the interface's.

use ledger::{
    Ledger,
    reputation::{Claim, Contradiction, Hindrance},
    view,
};
use protocol::{NodeId, Timestamp};
use web::api::{BreachDetail, ClassDetail, EvidenceView, PeerDetail, Time};

/// Gives what a node has shown; `None` when no operator of the policy answers for it.
pub fn peer(ledger: &Ledger, node: NodeId, at: Timestamp) -> Option<PeerDetail> {
    let view = ledger.peer(node, at)?;
    Some(PeerDetail {
        node: view.node,
        operator: view.operator,
        breach: view.breach.map(|b| BreachDetail { at: Time::from(b.at), job: b.job, lease: b.lease }),
        classes: view.classes.into_iter().map(class).collect(),
    })
}

fn class(view: view::ClassView) -> ClassDetail {
    let until = view.hindrance.and_then(|hindrance| match hindrance {
        Hindrance::Resting { until } | Hindrance::Quarantined { until } => Some(until),
        Hindrance::Disabled { canary } => Some(canary),
        Hindrance::Breached => None,
    });
    ClassDetail {
        class: view.class,
        state: view.hindrance.map_or("free", |hindrance| hindrance.word()).to_owned(),
        why: view.why,
        until: until.map(Time::from),
        proof: view.proof.map(Time::from),
        validated_milli: view.validated_milli,
        contradicted_milli: view.contradicted_milli,
        strikes: view.strikes,
        pending: view.pending,
        canary: view.canary,
        evidence: view.evidence.iter().map(evidence).collect(),
    }
}

fn evidence(contradiction: &Contradiction) -> EvidenceView {
    EvidenceView {
        at: Time::from(contradiction.at),
        job: contradiction.job,
        lease: contradiction.lease,
        claim: claim(&contradiction.claim),
        against: contradiction.against.clone(),
        attestations: contradiction.attestations.clone(),
    }
}

fn claim(claim: &Claim) -> String {
    match claim {
        Claim::Failed(failure) => failure.to_string(),
        Claim::Differed { got, agreed, .. } => {
            format!("built outputs {}, the others agree on {}", got.short(), agreed.short())
        }
        Claim::Canary(inner) => format!("of a job whose answer is known: {}", self::claim(inner)),
    }
}
