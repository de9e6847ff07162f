//! `octoserve-registry`.

use std::process::ExitCode;

use registry::cli::OctoserveRegistry;
use service::program;

// Replaces the system's allocator. As Rust's global allocator it would be passed an alignment with
// every allocation, and would take a slower path for it.
use mimalloc as _;

fn main() -> ExitCode {
    program::run::<OctoserveRegistry>()
}
