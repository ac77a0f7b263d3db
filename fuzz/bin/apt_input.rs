//! What apt says to its hook.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::packages::APT_INPUT);
