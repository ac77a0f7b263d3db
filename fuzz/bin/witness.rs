//! Requests to a witness, and what it decides.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::log::WITNESS);
