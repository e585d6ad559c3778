//! empath
fn main() {}
