//! The upstream registry: where it is, how it is reached, and its idle connections.
//!
//! Names are resolved in the background and again as time goes by, so that no request waits for a
//! resolver, and because a registry that moves must be found.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderValue, StatusCode};
use registry::server::in_process::InProcess;
use service::health::{HealthError, Probe};
use service::net::ServerAddress;
use service::runtime::WorkerId;
use service::shutdown::Shutdown;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::metrics::UpstreamMetrics;

mod pool;
mod stream;
mod target;

use self::pool::IdleConnections;
pub(crate) use self::stream::UpstreamStream;
use self::target::LOCAL;
pub use self::target::{Target, TargetError};

/// What every registry answers: the specification's end-1.
const BASE: &str = "/v2/";
/// How often a name is looked up again.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);
/// How soon it is tried again where it could not be resolved.
const RESOLVE_AGAIN: Duration = Duration::from_secs(1);
/// How long it may take to make a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// How long the upstream may be silent. A registry may hash gigabytes before it responds to the PUT
/// that ends an upload.
const RESPONSE: Duration = Duration::from_mins(10);
/// How often idle connections are looked for that are too old, or that the upstream has closed.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How long an upstream may make its clients wait.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the head of its response.
    pub response: Duration,
    /// Until it takes the next piece of a request's body, or sends the next piece of a response's.
    pub stall: Duration,
}

impl Timeouts {
    /// Those that go with the limit for bodies that stall, in either direction. A client whose body
    /// stalls is found out before the upstream that waits for the rest of it.
    pub fn with_stall(body_stall: Duration) -> Timeouts {
        Timeouts {
            response: RESPONSE + body_stall,
            stall: body_stall,
        }
    }
}

/// An upstream registry.
pub struct Upstream {
    name: String,
    place: Place,
    authority: HeaderValue,
    metrics: Option<UpstreamMetrics>,
    is_read_only: bool,
    timeouts: Timeouts,
    addresses: ArcSwap<Vec<Arc<UpstreamAddress>>>,
    next: AtomicUsize,
}

/// Where an upstream is.
enum Place {
    Remote(Target),
    /// In this process.
    InProcess(InProcess),
}

/// One address of an upstream, and the idle connections to it.
pub(crate) struct UpstreamAddress {
    location: Location,
    idle: IdleConnections,
}

/// Where connections go.
enum Location {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Place {
    fn target(&self) -> Option<&Target> {
        match self {
            Place::Remote(target) => Some(target),
            Place::InProcess(_) => None,
        }
    }
}

impl UpstreamAddress {
    fn new(location: Location) -> Arc<UpstreamAddress> {
        Arc::new(UpstreamAddress {
            location,
            idle: IdleConnections::new(),
        })
    }

    fn tcp(&self) -> Option<SocketAddr> {
        match self.location {
            Location::Tcp(address) => Some(address),
            Location::Unix(_) => None,
        }
    }

    /// An idle connection for this worker, if there is one.
    pub(crate) fn take_idle(&self, worker: WorkerId) -> Option<UpstreamStream> {
        self.idle.take(worker)
    }

    /// Keeps a connection of this worker for the next request.
    pub(crate) fn keep(&self, stream: UpstreamStream, worker: WorkerId) {
        self.idle.put(stream, worker);
    }

    /// Makes a connection.
    pub(crate) async fn connect(&self) -> io::Result<UpstreamStream> {
        match &self.location {
            Location::Tcp(address) => {
                let stream = timeout(CONNECT, TcpStream::connect(address)).await??;
                stream.set_nodelay(true)?;
                Ok(UpstreamStream::Tcp(stream))
            }
            Location::Unix(path) => {
                let stream = timeout(CONNECT, UnixStream::connect(path)).await??;
                Ok(UpstreamStream::Unix(stream))
            }
        }
    }
}

impl Upstream {
    /// An upstream that is known under `name`, never under its address. A name is resolved by
    /// [`Upstream::maintain`]; no request can be served before that.
    pub fn new(name: String, target: Target, timeouts: Timeouts) -> Upstream {
        let known: Vec<Location> = match target.address() {
            ServerAddress::Tcp { host, port } => {
                let address = host.parse().map(|ip| SocketAddr::new(ip, *port));
                address.into_iter().map(Location::Tcp).collect()
            }
            ServerAddress::Unix(path) => vec![Location::Unix(path.clone())],
        };
        Upstream::with(name, Place::Remote(target), timeouts, known)
    }

    /// The registry in this process, which is called.
    pub fn embedded(name: String, registry: InProcess, timeouts: Timeouts) -> Upstream {
        Upstream::with(name, Place::InProcess(registry), timeouts, Vec::new())
    }

    fn with(name: String, place: Place, timeouts: Timeouts, known: Vec<Location>) -> Upstream {
        let addresses: Vec<_> = known.into_iter().map(UpstreamAddress::new).collect();
        Upstream {
            name,
            authority: place.target().map_or(LOCAL, Target::authority),
            place,
            metrics: None,
            is_read_only: false,
            timeouts,
            addresses: ArcSwap::from_pointee(addresses),
            next: AtomicUsize::new(0),
        }
    }

    /// The same upstream, to which no change is forwarded if it is to be read only.
    pub fn read_only(mut self, is_read_only: bool) -> Upstream {
        self.is_read_only = is_read_only;
        self
    }

    /// Whether no change is forwarded to it.
    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// The same upstream, whose responses are recorded.
    pub fn with_metrics(mut self, metrics: UpstreamMetrics) -> Upstream {
        self.metrics = Some(metrics);
        self
    }

    /// The registry in this process, if it is that.
    pub(crate) fn in_process(&self) -> Option<&InProcess> {
        match &self.place {
            Place::Remote(_) => None,
            Place::InProcess(registry) => Some(registry),
        }
    }

    /// Where it is recorded how the upstream responds, if it is.
    pub fn metrics(&self) -> Option<&UpstreamMetrics> {
        self.metrics.as_ref()
    }

    /// The configured name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host that it is asked for where the client names none.
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// How long it may make its clients wait.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// An address to send a request to: each of those that are known in turn. `None` while the
    /// upstream's name is not resolved.
    pub(crate) fn address(&self) -> Option<Arc<UpstreamAddress>> {
        let addresses = self.addresses.load();
        let turn = match addresses.len() {
            0 => return None,
            1 => 0,
            count => self.next.fetch_add(1, Ordering::Relaxed) % count,
        };
        addresses.get(turn).cloned()
    }

    /// Asks the upstream whether it speaks the protocol: it does if it responds 200, or 401 to a
    /// request without credentials.
    pub async fn probe(&self) -> Result<(), HealthError> {
        let Some(target) = self.place.target() else {
            // The embedded registry responds for as long as this process does.
            return Ok(());
        };
        match Probe::new(target.address().clone(), BASE).check().await {
            Err(HealthError::Status(StatusCode::UNAUTHORIZED)) => Ok(()),
            result => result,
        }
    }

    /// What follows the address in an absolute URL, if it is the upstream's own.
    pub fn within<'a>(&self, url: &'a str) -> Option<&'a str> {
        let target = self.place.target()?;
        // Most are relative.
        if url.starts_with('/') {
            return None;
        }
        let addresses = self.addresses.load();
        let known: Vec<SocketAddr> = addresses.iter().filter_map(|one| one.tcp()).collect();
        target.within(url, &known)
    }

    /// Resolves the upstream's name again and again, and closes idle connections before the upstream
    /// does, until the shutdown. A failed look-up keeps the addresses that are known.
    pub async fn maintain(self: Arc<Self>, shutdown: Shutdown) {
        let resolve = async {
            if let Some(ServerAddress::Tcp { host, port }) =
                self.place.target().map(Target::address)
                && host.parse::<IpAddr>().is_err()
            {
                self.keep_resolved(host, *port).await;
            }
        };
        let sweep = async {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                for address in self.addresses.load().iter() {
                    address.idle.sweep();
                }
            }
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(resolve, sweep) } => {}
            () = shutdown.recv() => {}
        }
    }

    async fn keep_resolved(&self, host: &str, port: u16) {
        let mut failing = false;
        loop {
            let pause = match tokio::net::lookup_host((host, port)).await {
                Ok(addresses) => {
                    let mut addresses: Vec<SocketAddr> = addresses.collect();
                    addresses.sort_unstable();
                    addresses.dedup();
                    self.replace(&addresses);
                    if std::mem::take(&mut failing) {
                        tracing::info!(upstream = self.name, "upstream name resolved again");
                    }
                    RESOLVE_EVERY
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(upstream = self.name, %error, "cannot resolve the upstream's name");
                    }
                    RESOLVE_AGAIN
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    pub(crate) fn replace(&self, addresses: &[SocketAddr]) {
        let known = self.addresses.load();
        let is_same = known.len() == addresses.len()
            && known
                .iter()
                .zip(addresses)
                .all(|(known, address)| known.tcp() == Some(*address));
        if !is_same && !addresses.is_empty() {
            tracing::info!(
                upstream = self.name,
                addresses = addresses.len(),
                "upstream addresses changed"
            );
            let addresses = addresses.iter().map(|address| {
                let same = known.iter().find(|known| known.tcp() == Some(*address));
                // An address that stays keeps its idle connections.
                same.cloned()
                    .unwrap_or_else(|| UpstreamAddress::new(Location::Tcp(*address)))
            });
            self.addresses.store(Arc::new(addresses.collect()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(target: Target) -> Upstream {
        let timeouts = Timeouts::with_stall(Duration::from_mins(1));
        Upstream::new("main".to_owned(), target, timeouts)
    }

    #[test]
    fn a_url_by_the_address_of_a_named_target_is_within_it() {
        let upstream = new("http://registry:5000".parse().unwrap());
        let url = "http://127.0.0.2:5000/v2/";
        assert_eq!(upstream.within(url), None);
        upstream.replace(&["127.0.0.2:5000".parse().unwrap()]);
        assert_eq!(upstream.within(url), Some("/v2/"));
    }

    #[test]
    fn an_upstream_without_an_address_is_an_error_and_no_panic() {
        let upstream = new("http://registry.invalid:1".parse().unwrap());
        assert!(upstream.address().is_none());
    }

    #[tokio::test]
    async fn a_name_is_looked_up_until_the_shutdown() {
        let upstream = Arc::new(new("http://localhost:5000".parse().unwrap()));
        assert!(upstream.address().is_none(), "it is not resolved yet");
        let (trigger, shutdown) = Shutdown::new();
        let tending = tokio::spawn(Arc::clone(&upstream).maintain(shutdown));
        while upstream.address().is_none() {
            tokio::task::yield_now().await;
        }
        trigger.trigger();
        tending.await.unwrap();
    }

    #[test]
    fn a_client_that_stalls_is_found_out_before_its_upstream() {
        for body_stall in [1, 60, 3600].map(Duration::from_secs) {
            let timeouts = Timeouts::with_stall(body_stall);
            assert!(timeouts.response > body_stall);
            assert_eq!(timeouts.stall, body_stall);
        }
    }

    #[test]
    fn addresses_take_turns_and_are_replaced() {
        let upstream = new("http://registry:5000".parse().unwrap());
        let addresses: Vec<SocketAddr> = ["127.0.0.1:5000", "127.0.0.2:5000"]
            .map(|text| text.parse().unwrap())
            .into();
        upstream.replace(&addresses);
        let asked: Vec<_> = (0..4).map(|_| upstream.address().unwrap().tcp()).collect();
        assert_eq!(asked[0], asked[2]);
        assert_ne!(asked[0], asked[1]);
        upstream.replace(&[]);
        assert!(
            upstream.address().is_some(),
            "an empty answer keeps what is known"
        );
    }
}
