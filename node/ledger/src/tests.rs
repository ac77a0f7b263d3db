//! Tables: commands in, effects and states out, one rule of the ledger each.

mod admission;
mod commitments;
mod course;
mod environments;
mod explain;
mod fairness;
mod graph;
mod leases;
mod orders;
mod publication;
mod revocation;
mod schedule;
mod service;
mod signers;
mod story;
mod verdicts;
mod waiting;
