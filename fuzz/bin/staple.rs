//! What is stapled to a package: lines of evidence and the log's proof, the first bytes of the input saying where one ends.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::evidence::STAPLE);
