//! The words that every record is made of.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::records::WORDS);
