//! What a network is to consist of.

use artel::config::Explain;
use protocol::{job::Isolation, words::HostRule};

/// The first coordinator's name.
pub(crate) const FIRST: &str = "coordinator";

/// Whether a builder signs what it built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Honesty {
    /// It does.
    Honest,
    /// It signs something else.
    Liar,
}

/// Where a builder's environments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environments {
    /// In the folder that all builders of this machine share; the product locks them by file.
    Shared,
    /// In its own folder, empty at first.
    Own,
}

/// One builder of a plan.
#[derive(Debug, Clone)]
pub struct BuilderPlan {
    /// The node's name.
    pub name: String,
    /// Who answers for it; nobody when the policy is not to name it.
    pub operator: Option<String>,
    /// Whether it lies.
    pub honesty: Honesty,
    /// Where its environments are.
    pub environments: Environments,
}

impl BuilderPlan {
    /// Plans an honest builder of an operator.
    pub fn of(name: &str, operator: &str) -> Self {
        let (name, operator) = (name.to_owned(), Some(operator.to_owned()));
        Self { name, operator, honesty: Honesty::Honest, environments: Environments::Shared }
    }

    /// Makes it lie.
    #[must_use]
    pub fn lying(mut self) -> Self {
        self.honesty = Honesty::Liar;
        self
    }

    /// Gives it environments of its own.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.environments = Environments::Own;
        self
    }
}

/// What the nodes are connected by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cables {
    /// The loopback device of the test's own namespace.
    Loopback,
    /// A namespace for each node, and links that can be cut.
    Namespaces,
}

/// A network to be made.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Coordinators: one is pinned, several elect a leader. Their names are `coordinator`, `c2`, `c3`..
    pub coordinators: u8,
    /// What the nodes are connected by.
    pub cables: Cables,
    /// The builders.
    pub builders: Vec<BuilderPlan>,
    /// Whom the builders fetch from.
    pub fetch: Vec<HostRule>,
    /// The lightest isolation that the builders' owners allow.
    pub isolation: Isolation,
    /// Mirrors, by name.
    pub mirrors: Vec<String>,
    /// Operators that must agree.
    pub agree: u8,
    /// Operators that are asked first.
    pub ask: u8,
    /// Operators that are asked at most.
    pub ask_max: u8,
    /// How coordinators explain differences; none means that they do not.
    pub explain: Option<Explain>,
    /// Whether nodes may use the packages of this machine's tests, for locks of their own.
    pub lend: bool,
}

impl Plan {
    /// Plans so many builders `b1`, `b2`.. of operators `o1`, `o2`.., of which two must agree.
    pub fn builders(count: u8) -> Self {
        let builders = (1..=count).map(|n| BuilderPlan::of(&format!("b{n}"), &format!("o{n}"))).collect();
        Self {
            coordinators: 1,
            cables: Cables::Loopback,
            builders,
            fetch: Vec::new(),
            isolation: Isolation::Rootfs,
            mirrors: Vec::new(),
            agree: 2,
            ask: 2,
            ask_max: count.max(2),
            explain: None,
            lend: false,
        }
    }

    /// Gives the names of the coordinators.
    pub fn candidates(&self) -> Vec<String> {
        (1..=self.coordinators).map(|n| if n == 1 { FIRST.to_owned() } else { format!("c{n}") }).collect()
    }
}
