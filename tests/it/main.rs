//! Whole networks.

mod tidy;
