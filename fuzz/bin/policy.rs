//! Policies of transparency logs.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::log::LOG_POLICY);
