//! Planted faults, so that the simulation's own watchfulness can be tested. Outside tests every question is answered no.

/// A fault that a test may plant: in the ledger, or in the simulated coordinators, publishers and mirrors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Each node of an operator gets a turn.
    OperatorTwice,
    /// A report under a dead lease counts.
    DeadLeaseCounts,
    /// One set of outputs is enough.
    OneIsEnough,
    /// A lost lease is never given to another builder.
    ForgetsLost,
    /// A restart forgets to publish again.
    ForgetsPublication,
    /// A request that is submitted again after its job is over begins the job anew.
    AcceptsReplay,
    /// Each try of a publication is a generation of its own, and success under any of them counts.
    NewGenerationEachTry,
    /// Two jobs become the same generation.
    SameGenerationAgain,
    /// What may be out is given up as if it were not.
    GivesUpInDoubt,
    /// What may be out and depends on another channel is made again under its number.
    SameGenerationInDoubt,
    /// The vote of an operator that the policy no longer names counts.
    StrangerVotes,
    /// A lease of a node that the policy no longer names lives on.
    StrangerKeepsLease,
    /// A key that the policy no longer names may submit.
    RevokedKeySubmits,
    /// A maintainer may have any number of open jobs.
    NoLimit,
    /// A restart gives lease numbers again.
    LeaseNumberAgain,
    /// A clock that was set back leaves deadlines far ahead.
    ForgetsClock,
    /// A restart asks for no timer.
    ForgetsTimer,
    /// What builders made is shown before the verdict.
    ShowsUndecided,
    /// An attestation counts without a commitment.
    CountsUnbound,
    /// An attestation counts whatever was committed to.
    OpensAnything,
    /// Who is bound first is asked at once.
    RevealsAtOnce,
    /// Who withheld a result has another turn.
    WithholdsAgain,
    /// Who renews its lease may hold a job for ever.
    ForgetsEndless,
    /// Submits and cancels are answered before they are committed.
    #[cfg(test)]
    AnswersBeforeCommit,
    /// A new leader does not begin with `Restarted`.
    #[cfg(test)]
    BeginsWithoutRestarted,
    /// A former leader performs what it proposed in its term.
    #[cfg(test)]
    PerformsOldTerm,
    /// A publisher does not ask whether it still leads.
    #[cfg(test)]
    PublishesWithoutOffice,
    /// A mirror takes what it is given.
    #[cfg(test)]
    MirrorWithoutFence,
    /// A member that catches up leaves out an entry.
    #[cfg(test)]
    SkipsEntry,
    /// A member applies entries at the time of its own clock.
    #[cfg(test)]
    OwnClock,
}

#[cfg(test)]
impl Fault {
    /// Every fault.
    pub(crate) const EVERY: [Fault; 30] = [
        Fault::OperatorTwice,
        Fault::DeadLeaseCounts,
        Fault::OneIsEnough,
        Fault::ForgetsLost,
        Fault::ForgetsPublication,
        Fault::AcceptsReplay,
        Fault::NewGenerationEachTry,
        Fault::SameGenerationAgain,
        Fault::GivesUpInDoubt,
        Fault::SameGenerationInDoubt,
        Fault::StrangerVotes,
        Fault::StrangerKeepsLease,
        Fault::RevokedKeySubmits,
        Fault::NoLimit,
        Fault::LeaseNumberAgain,
        Fault::ForgetsClock,
        Fault::ForgetsTimer,
        Fault::ShowsUndecided,
        Fault::CountsUnbound,
        Fault::OpensAnything,
        Fault::RevealsAtOnce,
        Fault::WithholdsAgain,
        Fault::ForgetsEndless,
        Fault::AnswersBeforeCommit,
        Fault::BeginsWithoutRestarted,
        Fault::PerformsOldTerm,
        Fault::PublishesWithoutOffice,
        Fault::MirrorWithoutFence,
        Fault::SkipsEntry,
        Fault::OwnClock,
    ];
}

#[cfg(test)]
std::thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Plants a fault in this thread, or removes it.
#[cfg(test)]
pub(crate) fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

/// Says whether a fault is planted.
#[cfg(test)]
pub(crate) fn is(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

/// Says whether a fault is planted: outside tests, never.
#[cfg(not(test))]
pub(crate) const fn is(_: Fault) -> bool {
    false
}
