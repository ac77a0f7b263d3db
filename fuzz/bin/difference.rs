//! What diffoscope says of two builds.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::sources::DIFFERENCE);
