//! Tables: commands in, effects and states out, one rule of the ledger each.

mod admission;
mod graph;
mod leases;
mod publication;
mod schedule;
mod service;
mod signers;
mod story;
mod verdicts;
