//! Headers of RPM files.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::packages::RPM);
