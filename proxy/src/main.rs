//! `octoserve`.

use std::process::ExitCode;

use proxy::cli::Octoserve;
use service::program;

// Replaces the system's allocator. As Rust's global allocator it would be passed an alignment with
// every allocation, and would take a slower path for it.
use mimalloc as _;

fn main() -> ExitCode {
    program::run::<Octoserve>()
}
