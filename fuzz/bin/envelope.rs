//! Signed records: their envelopes, and their payloads properly signed, so that the fuzzer gets past the signature.

#![no_main]

artel_fuzz::program!(artel_fuzz::targets::records::ENVELOPE);
