//! Signed negatives: as a stranger sends them, and properly signed.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::evidence::NEGATIVE);
