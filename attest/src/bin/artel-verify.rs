//! artel-verify
fn main() {}
