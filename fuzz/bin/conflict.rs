//! Evidence against a log.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::log::CONVICTING);
