//! Specs of RPMs, and source RPMs, each alone in a folder.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::sources::SPEC);
