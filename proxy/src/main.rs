//! octoserve.
fn main() {}
