//! Tickets that people paste.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::records::TICKET);
