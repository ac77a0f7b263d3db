//! Records of commits, which fetches leave.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::sources::COMMIT);
