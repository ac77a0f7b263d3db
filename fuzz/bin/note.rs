//! Signed notes, and the keys that they are checked with.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::log::NOTE);
