//! Responses of the exchange protocol.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::records::RESPONSE);
