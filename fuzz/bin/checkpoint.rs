//! Checkpoints.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::log::CHECKPOINT);
