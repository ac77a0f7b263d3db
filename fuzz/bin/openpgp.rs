//! OpenPGP: certificates, keyrings, and signatures in the three forms of repositories.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::packages::OPENPGP);
