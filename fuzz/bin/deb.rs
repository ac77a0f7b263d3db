//! Debian packages at the publisher's door and in the verifier, which must agree on what they are called.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::packages::DEB);
