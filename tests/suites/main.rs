//! The suites: one module each, all in one binary, because linking costs more than running.
//!
//! They start the real programs and observe them from outside, through the [`harness`]. What a
//! crate can test alone is tested in the crate.

/// The access log: its fields, filters and formats, and no secret in any line.
mod access_log;
/// The metrics equal what many clients observed, to the last byte, also after a storm of aborts.
mod accounting;
/// Sources merged into the exposition, valid and hostile ones.
mod aggregation;
/// Which module may import which, read from the sources; no circles, and no two types of one name.
mod arrows;
/// Blobs of gigabytes in bounded memory.
mod big_blob;
/// Aborts, stalls and protocol errors of either side, and which side the metrics blame.
mod blame;
/// The programs connect to what their configuration names, and to nothing else.
mod calls_nobody;
/// The number of series after hostile requests: no more than promised.
mod cardinality;
/// Who the client is: what trusted peers say of it, and what others say; how responses name the proxy.
mod client_view;
/// docker-compose.yml, started by docker-compose with images built from the Dockerfile.
mod compose;
/// Sixteen concurrent clients, and what must hold afterwards.
mod concurrency;
/// Errors in a configuration are reported, and the examples are valid.
mod configuration;
/// The specification, clause by clause, for each way in which clients reach a registry.
#[path = "../conformance/mod.rs"]
mod conformance;
/// Pipelining, HTTP/1.0 and the connection limit.
mod connections;
/// containerd pulls, unpacks and pushes, one platform and all of them.
mod containerd;
/// Content that clients pull and push, and how it is counted.
mod content;
/// `ctl`: each command, reloads, strangers and bad clients.
mod control;
/// Browser user interfaces on other origins.
mod cors;
/// The cost of a small request in instructions, allocations and system calls does not grow.
mod costs;
/// The proxy's own credentials for its upstream: with which requests they go, and to whom.
mod credentials;
/// Listeners at their connection limit: which connections are closed for new ones.
mod crowded;
/// A truncated blob on disk is refused, and repaired by a push.
mod damaged;
/// The data directory is moved away while the registry runs.
mod data_directory;
/// A docker daemon pushes, pulls, mounts and deletes.
mod docker;
/// The documentation: links, configurations, queries, commands, and the tests that it names.
mod docs;
/// `doctor`: what it tries, what it says of it, and its exit codes.
mod doctor;
/// docs/metrics.md has exactly the exposed families, and the tests that docs/protocol.md names exist.
mod documented;
/// No inodes, a disk that becomes read-only, and a tree that others change.
mod failing_disks;
/// Responses and metrics of the proxy when its upstream or a source fails.
mod failures;
/// Each side aborts at every phase; upstreams die, freeze and send garbage; file descriptors run
/// out.
mod faults;
/// Foreign registries: with passwords, with tokens, and unusual ones.
mod foreign;
/// The forwarding loop: framing in both directions, clients that leave, HTTP/2, loops and signals.
mod forwarding;
/// Requests whose framing is ambiguous, stalls or never ends.
mod framing;
/// A full disk refuses pushes, and accepts them again once there is free space.
mod full_disk;
/// HTTP/2 without TLS: streams that stall, are reset or have the wrong length.
mod h2c;
/// Whatever a source sends, Prometheus, promtool and a strict OpenMetrics parser accept the merged
/// exposition: hundreds of generated ones, new in every run.
mod hostile_sources;
/// Upstreams behind TLS, below a path, and under other names.
mod https_upstream;
/// All clients through two replicas of an https registry with tokens, and one of them is killed.
mod in_front;
/// A registry is killed fifty times under load, with garbage collection, and loses nothing.
mod kills;
/// examples/kubernetes: rendered, validated, and read by the programs, without a cluster.
mod kubernetes;
/// Several listeners, IPv6, Unix sockets, and what each listener serves.
mod listeners;
/// What the log says about requests, and its size.
mod logs;
/// Scrubs and collections, on a running registry, on its directory alone, and by a schedule.
mod maintenance;
/// Stalled manifests, and listings of large ones, in bounded memory.
mod manifests;
/// Many open uploads and scrapes in bounded memory.
mod memory;
/// examples/mixin: dashboards, rules and alerts, against documents, promtool and a real Prometheus.
mod mixin;
/// The modes of files and directories.
mod modes;
/// An upstream's name resolves to another address, or to none.
mod names;
/// oras-py pushes artifacts and referrers.
mod oras;
/// The Debian package, installed in a Debian of its own, and the archives with an SBOM.
mod package;
/// One exposition for the proxy and its sources: formats, help, names, a golden scrape.
mod page;
/// podman pushes, pulls and makes indexes.
mod podman;
/// A real Prometheus scrapes, and PromQL returns the counts that follow from the traffic.
mod prometheus;
/// An upstream that is to be read only.
mod read_only;
/// `/readyz` and the health check report the state of the upstream.
mod readiness;
/// Malformed names, digests, bodies, sessions and whole requests.
mod refusals;
/// A configuration that is read again while requests are in flight.
mod reload;
/// Several replicas of an upstream: choice, failover, queue, draining, and upload sessions that stay.
mod replicas;
/// A registry that is killed and restarted keeps everything that it acknowledged.
mod restart;
/// The JSON Schemas of the configurations: current, valid for what is valid, and the reference made of them.
mod schema;
/// Access to the metrics endpoint, formats, compression and TLS.
mod serving;
/// Abandoned upload sessions block no push.
mod sessions;
/// A configuration in several files and directories.
mod several_files;
/// Several upstreams, chosen by host, repository and `?ns=`, and what each knows of names.
mod several_upstreams;
/// SIGTERM: no new requests, and requests in flight finish.
mod shutdown;
/// skopeo pushes, pulls, copies and deletes.
mod skopeo;
/// Silent, slow and idle clients are disconnected.
mod slow;
/// Each fault of `make soak` once: clients with books, replicas that fail, reloads and takeovers.
mod soak;
/// A thousand stalled clients use bounded memory, and leave nothing once they are gone.
mod stalls;
/// The registry's statistics compared with a walk of its directory, also after a crash.
mod statistics;
/// The status page in a real Chromium: figures, words, access, keyboard, phone, and bad metrics.
mod status_page;
/// Under systemd: sockets that it has bound, and what it is told.
mod systemd;
/// A new process takes the place of a running one: no client notices, or the running one goes on.
mod takeover;
/// A person at a terminal: the greeting, colours, a long end, typed passwords.
mod terminal;
/// TLS to clients: handshakes, certificates and their reload, bodies, and real clients.
mod tls;
/// `top`: in a terminal, under traffic, and over pages that cannot be read.
mod top;
/// What the upstream and the client receive, byte for byte.
mod transparency;
/// The systemd units, as systemd reads them.
mod units;
/// Metrics of the upstream and of connections, fault by fault.
mod upstream;

/// The proxy in front of a scripted upstream.
mod scene;

use anyhow::Result;
use harness::client::Client;
use harness::foreign::ForeignRegistry;
use harness::octoserve::{Launch, Server};

/// A server under test and a client for it.
struct Front {
    server: Server,
    client: Client,
    _behind: Option<ForeignRegistry>,
}

impl Front {
    /// octoserve with the embedded registry.
    async fn embedded() -> Result<Self> {
        Self::of(Launch::all_in_one().start().await?, None)
    }

    /// The registry alone, without a proxy.
    async fn registry() -> Result<Self> {
        Self::of(Launch::registry().start().await?, None)
    }

    /// octoserve in front of Debian's docker-registry.
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

    /// The name of an image at this server.
    fn image(&self, rest: &str) -> String {
        format!("{}/{rest}", self.server.host())
    }
}
