//! Which build this is.

/// The version, of both programs.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The revision of the sources, or `unknown`.
pub const REVISION: &str = env!("OCTOSERVE_REVISION");
/// The version of the compiler.
pub const RUSTC: &str = env!("OCTOSERVE_RUSTC");
/// All of it on one line, for `--version`.
pub const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("OCTOSERVE_REVISION"),
    ", rustc ",
    env!("OCTOSERVE_RUSTC"),
    ")"
);
