//! octoserve-registry.
fn main() {}
