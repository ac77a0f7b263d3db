//! artel
fn main() {}
