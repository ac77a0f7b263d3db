//! Tables: commands in, effects and states out, one rule of the ledger each.

mod admission;
mod fairness;
mod leases;
mod publication;
mod schedule;
mod story;
mod verdicts;
mod waiting;
