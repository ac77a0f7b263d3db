//! RPMs at the publisher's door, and what dnf's metadata says of them: nothing of a header is more there than text.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::packages::RPM_ENTRY);
