//! Everything the suites need to run the real thing: our programs as child processes, the clients
//! and servers that people really use with them, and a way to say what the metrics must show.
//!
//! | module | what it is |
//! |---|---|
//! | [`octoserve`] | our two programs, started on free ports, killed, restarted |
//! | [`memory`] | the registry over a store in memory, in the test's own process |
//! | [`foreign`] | Debian's docker-registry, an upstream that is not ours |
//! | [`docker`], [`skopeo`], [`podman`], [`containerd`], [`oras`] | the clients |
//! | [`compose`] | docker-compose.yml and Dockerfile as they are, without a network |
//! | [`prometheus`] | a server that really scrapes, PromQL, promtool |
//! | [`scrape`] | one metrics exposition, parsed, and what must be in it |
//! | [`client`] | a small distribution client whose every request is counted by the caller |
//! | [`scripted`] | an upstream that answers, stalls and cuts as a test wants it |
//! | [`hostile`] | metrics expositions that nobody would serve on purpose, as many as a test wants |
//! | [`openmetrics`] | the strict OpenMetrics parser of Python's `prometheus_client` |
//! | [`source`] | a metrics exposition, right or wrong, that octoserve is to aggregate |
//! | [`h2`] | HTTP/2 stream by stream, for what no client does on purpose |
//! | [`wire`] | HTTP/1.1 byte by byte, for what no client would send |
//! | [`certificate`] | a certificate in files, and the next one |
//! | [`cost`] | instructions, allocations and system calls of a request, counted |
//! | [`content`] | reproducible bytes of any length, and their digest |
//! | [`tree`] | a registry's directory, to see that nothing changed |
//! | [`process`], [`tools`], [`poll`] | children, programs, deadlines |
//!
//! Everything stays on loopback and on ports the kernel picked, every wait has a deadline, and every
//! child ends with the value that started it. What is deliberately not here: any expectation of how
//! octoserve works inside. The suites see what a user sees.

pub mod certificate;
pub mod client;
pub mod compose;
pub mod containerd;
pub mod content;
pub mod cost;
pub mod docker;
pub mod foreign;
pub mod h2;
pub mod hostile;
pub mod memory;
pub mod octoserve;
pub mod openmetrics;
pub mod oras;
pub mod podman;
pub mod poll;
pub mod process;
pub mod prometheus;
pub mod scrape;
pub mod scripted;
pub mod skopeo;
pub mod source;
pub mod tools;
pub mod tree;
pub mod wire;

/// Prints a line that is seen even where the test passes: a figure, not a verdict.
pub fn report(line: &str) {
    // Not by a macro: what those print is kept back until the test fails.
    std::io::Write::write_all(&mut std::io::stderr(), format!("  {line}\n").as_bytes()).ok();
}
