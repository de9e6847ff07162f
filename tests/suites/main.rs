//! The suites: one module each, all in one binary, because linking costs more than running.
//!
//! They start the real programs and look at them from outside, through the [`harness`]. What a crate
//! can prove alone is proved in the crate.

/// What many clients saw, to the last byte, is what the exposition says, after a storm of aborts too.
mod accounting;
/// Metrics expositions of others on ours, right and wrong ones.
mod aggregation;
/// Which module may import which, read off the sources.
mod arrows;
/// Blobs of gigabytes, in a memory that does not grow.
mod big_blob;
/// Who broke off, stalled or spoke badly, on either side, and what is counted.
mod blame;
/// What the exposition holds after requests that mean harm: no more than was promised.
mod cardinality;
/// docker-compose.yml, brought up by docker-compose on images built by the Dockerfile.
mod compose;
/// Sixteen clients at once, and what must be true afterwards.
mod concurrency;
/// What is wrong with a configuration is told, and the examples are right.
mod configuration;
/// The specification, clause by clause, at every place where clients meet a registry of ours.
#[path = "../conformance/mod.rs"]
mod conformance;
/// What one connection carries, and how many there may be.
mod connections;
/// containerd pulls, unpacks and pushes, one platform and all of them.
mod containerd;
/// Content that clients pull and push, and what is counted of it.
mod content;
/// What a small request costs in instructions, allocations and system calls: no more than it did.
mod costs;
/// Listeners at the cap of their connections: who gives way, and who does not.
mod crowded;
/// A blob that was cut short on disk is refused and mended by a push.
mod damaged;
/// The data directory is moved away while it is served.
mod data_directory;
/// A docker daemon pushes, pulls, mounts and deletes.
mod docker;
/// docs/metrics.md names every family and no other, Prometheus takes every query in it, and the tests
/// that docs/transparency.md names are there.
mod documented;
/// What the proxy says and counts when what is behind it fails.
mod failures;
/// Each side breaks off at every phase, upstreams die, freeze and talk nonsense, descriptors run out.
mod faults;
/// Registries that are not ours: with passwords, with tokens, and odd ones.
mod foreign;
/// Requests whose framing lies, stalls or never ends.
mod framing;
/// A disk without room refuses pushes, and takes them again once there is some.
mod full_disk;
/// HTTP/2 without TLS: streams that stop, leave or lie.
mod h2c;
/// Whatever a source says, Prometheus, promtool and the strictest OpenMetrics parser read what we make
/// of it: hundreds of expositions, others in every run.
mod hostile_sources;
/// Several listeners, IPv6, Unix sockets, and which listener serves what.
mod listeners;
/// What is logged of requests, and how much at most.
mod logs;
/// Manifests that stall, and listings of large ones, in a memory that does not grow.
mod manifests;
/// Many clients in the midst of what they do, in a memory that does not grow.
mod memory;
/// The modes of files and directories.
mod modes;
/// An upstream's name comes to mean another address, or none.
mod names;
/// oras-py pushes artifacts and what refers to them.
mod oras;
/// One exposition for the proxy and its sources: formats, help, names, a golden scrape.
mod page;
/// podman pushes, pulls and makes indexes.
mod podman;
/// A real Prometheus scrapes, and PromQL gives the counts that the traffic implies.
mod prometheus;
/// `/readyz` and the health check tell of what is behind the proxy.
mod readiness;
/// Malformed names, digests, bodies, sessions and whole requests.
mod refusals;
/// A registry that is killed and started again has everything it acknowledged.
mod restart;
/// Who may read the exposition, in which format, compressed or inside TLS.
mod serving;
/// Upload sessions that nobody goes on with keep no push out.
mod sessions;
/// SIGTERM: no new work, all begun work finished.
mod shutdown;
/// skopeo pushes, pulls, copies and deletes.
mod skopeo;
/// Clients that are silent, drip or idle are let go.
mod slow;
/// Thousands that stall at once cost little, and nothing once they are gone.
mod stalls;
/// The registry's statistics beside a walk of its directory, over a crash and what follows it.
mod statistics;
/// What the upstream hears and the client gets, byte for byte.
mod transparency;
/// What the exposition says of the upstream and of connections, fault by fault.
mod upstream;

/// The proxy before an upstream that follows a script.
mod scene;

use anyhow::Result;
use harness::client::Client;
use harness::foreign::ForeignRegistry;
use harness::octoserve::{Launch, Server};

/// octoserve with something behind it.
struct Front {
    server: Server,
    client: Client,
    _behind: Option<ForeignRegistry>,
}

impl Front {
    /// With the registry that it brings along.
    async fn embedded() -> Result<Self> {
        Self::of(Launch::all_in_one().start().await?, None)
    }

    /// No proxy at all: the registry alone.
    async fn registry() -> Result<Self> {
        Self::of(Launch::registry().start().await?, None)
    }

    /// In front of Debian's docker-registry.
    async fn foreign() -> Result<Self> {
        let foreign = ForeignRegistry::start().await?;
        Self::of(
            Launch::in_front_of(&foreign.url()).start().await?,
            Some(foreign),
        )
    }

    fn of(server: Server, behind: Option<ForeignRegistry>) -> Result<Self> {
        let client = Client::new(&server.url(""))?;
        Ok(Self {
            server,
            client,
            _behind: behind,
        })
    }

    /// An image's name as clients spell it.
    fn image(&self, rest: &str) -> String {
        format!("{}/{rest}", self.server.host())
    }
}
