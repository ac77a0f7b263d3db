//! Tar files of source packages.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::sources::SOURCE_TAR);
