//! Records that are named by hash and carry no signature of their own.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::records::RECORD);
