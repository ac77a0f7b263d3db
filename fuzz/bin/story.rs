//! Entries one after the other, each with its length before it, as a reader follows them; and where a reader was.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::log::STORY);
