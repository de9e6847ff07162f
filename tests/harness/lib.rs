//! What the suites need to run the real programs: octoserve as child processes, the clients and
//! servers that people use with it, and expectations of metrics.
//!
//! | module | what it is |
//! |---|---|
//! | [`octoserve`] | our two programs, started on free ports, killed, restarted |
//! | [`memory`] | the registry over a store in memory, in the test's own process |
//! | [`foreign`] | Debian's docker-registry, a foreign upstream |
//! | [`docker`], [`skopeo`], [`podman`], [`containerd`], [`oras`] | the clients |
//! | [`compose`] | docker-compose.yml and Dockerfile unchanged, without a network |
//! | [`kubernetes`] | kustomize, Helm and the schemas of the API |
//! | [`prometheus`] | a real Prometheus, PromQL, promtool |
//! | [`scrape`] | a parsed exposition, and expectations of its samples |
//! | [`browser`] | a real Chromium, driven by WebDriver |
//! | [`client`] | a small distribution client that sends no request of its own accord |
//! | [`scripted`] | an upstream that responds, stalls and cuts as a test wants it |
//! | [`hostile`] | a generator of hostile expositions |
//! | [`tmux`] | a terminal that a test sees and types into |
//! | [`openmetrics`] | the strict OpenMetrics parser of Python's `prometheus_client` |
//! | [`source`] | a source, valid or not, for octoserve to aggregate |
//! | [`h2`] | HTTP/2 stream by stream, for misbehaving clients |
//! | [`frames`] | HTTP/2 frame by frame, for what no library sends |
//! | [`wire`] | HTTP/1.1 byte by byte, for malformed requests |
//! | [`token_server`] | a server of tokens that a foreign registry trusts |
//! | [`tls_front`], [`authority`] | TLS in front of a server, and who signs its certificate |
//! | [`certificate`] | a certificate in files that can be replaced |
//! | [`tls`] | clients inside TLS: what they offer, trust and get |
//! | [`terminator`] | nginx, which ends TLS in front of a server |
//! | [`cost`] | counts of a request's instructions, allocations and system calls |
//! | [`content`] | reproducible bytes of any length, and their digest |
//! | [`soak`] | everything at once for long: clients with books, faults at random, and what is left |
//! | [`kills`] | a registry that is killed again and again while it is used and collects garbage |
//! | [`maintenance`] | the jobs of a registry, over its control socket |
//! | [`chroot`] | a small Debian, to install packages in |
//! | [`terminal`] | a program at a pseudo terminal |
//! | [`small_disk`] | a file system in memory, to be filled and made read-only |
//! | [`tree`] | a listing of a registry's directory, to check that nothing changed |
//! | [`process`], [`tools`], [`poll`] | children, programs, deadlines |
//!
//! Everything uses loopback addresses and ports chosen by the kernel, every wait has a deadline,
//! and dropping a value stops its child process. The harness knows nothing of octoserve's
//! internals: the suites observe what a user can observe.

pub mod authority;
pub mod browser;
pub mod certificate;
pub mod chroot;
pub mod client;
pub mod compose;
pub mod containerd;
pub mod content;
pub mod cost;
pub mod docker;
pub mod examples;
pub mod foreign;
pub mod frames;
pub mod h2;
pub mod hostile;
pub mod images;
pub mod kills;
pub mod kubernetes;
pub mod maintenance;
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
pub mod small_disk;
pub mod soak;
pub mod source;
pub mod terminal;
pub mod terminator;
pub mod tls;
pub mod tls_front;
pub mod tmux;
pub mod token_server;
pub mod tools;
pub mod tree;
pub mod wire;

/// Prints a line also when the test passes: a figure, not a verdict.
pub fn report(line: &str) {
    // The test runner captures the output of the print macros and shows it only for failed tests.
    std::io::Write::write_all(&mut std::io::stderr(), format!("  {line}\n").as_bytes()).ok();
}
