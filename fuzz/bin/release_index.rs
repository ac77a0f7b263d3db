//! Indexes for apt that a mirror is given.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::packages::RELEASE_INDEX);
