//! Snapshots of the whole state.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::ledger::SNAPSHOT);
