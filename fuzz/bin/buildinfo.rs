//! Environments named by `.buildinfo` files.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::sources::BUILDINFO);
