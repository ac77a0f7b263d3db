//! What builds say that they left: `.changes`, and lists of RPMs.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::sources::CHANGES);
