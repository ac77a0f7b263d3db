//! artel-ledger
