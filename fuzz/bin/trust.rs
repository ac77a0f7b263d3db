//! The verifier's policy file: whatever is read writes itself as a file that says the same.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::evidence::TRUSTED);
