//! Bundles of evidence, and what is checked of them offline.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::evidence::BUNDLE);
