//! Planted faults, so that the simulation's own watchfulness can be tested. Outside tests every question is answered no.

/// A fault that a test may plant.
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
