//! The registry behind the proxy: where it is, and how to reach it.
//!
//! Names are resolved in the background and again as time goes by, because the resolver that
//! pingora would call blocks a worker thread, and because a registry that moves must be found.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use parking_lot::RwLock;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora::{Error, ErrorType};
use service::health::{HealthError, Probe};
use service::net::ServerAddress;
use service::shutdown::Shutdown;

use crate::metrics::UpstreamMetrics;

mod target;

use self::target::LOCAL;
pub use self::target::{Target, TargetError};

/// What every registry answers: the specification's end-1.
const BASE: &str = "/v2/";
/// How often a name is looked up again.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);
/// Shorter than any registry keeps an idle connection: a POST on one that the registry has just
/// closed can't be retried.
const IDLE: Duration = Duration::from_secs(30);
/// How long the upstream may be silent. A registry may hash gigabytes before it answers the PUT that
/// ends an upload.
const ANSWER: Duration = Duration::from_mins(10);
/// How soon it is tried again where it could not be resolved.
const RESOLVE_AGAIN: Duration = Duration::from_secs(1);

/// How long an upstream may make its clients wait.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For its answer, and for each further piece of it.
    pub read: Duration,
    /// Until it takes a piece of a request's body.
    pub write: Duration,
}

impl Timeouts {
    /// Those that go with the limit for bodies that stand still, in either direction. A client whose
    /// body does is found out before the upstream that waits for the rest of it.
    pub fn beside(body_stall: Duration) -> Timeouts {
        Timeouts {
            read: ANSWER + body_stall,
            write: body_stall,
        }
    }
}

/// An upstream registry.
pub struct Upstream {
    name: String,
    /// `None` for the registry in this process.
    target: Option<Target>,
    authority: HeaderValue,
    metrics: Option<UpstreamMetrics>,
    timeouts: Timeouts,
    peers: RwLock<Arc<[HttpPeer]>>,
    next: AtomicUsize,
}

impl Upstream {
    /// An upstream that is known under `name`, never under its address. Its own addresses are
    /// resolved by [`Upstream::tend`], which serves no request before it did.
    pub fn new(name: String, target: Target, timeouts: Timeouts) -> Upstream {
        let known: Vec<HttpPeer> = match target.address() {
            ServerAddress::Tcp { host, port } => match host.parse() {
                Ok(address) => vec![tcp_peer(SocketAddr::new(address, *port), timeouts)],
                Err(_) => Vec::new(),
            },
            ServerAddress::Unix(path) => unix_peer(path, timeouts).into_iter().collect(),
        };
        Upstream::of(name, Some(target), timeouts, known)
    }

    /// The registry in this process, which `connector` connects to: a connection for each request.
    pub fn embedded(
        name: String,
        connector: Arc<dyn L4Connect + Send + Sync>,
        timeouts: Timeouts,
    ) -> Upstream {
        // pingora wants an address, and does nothing with it.
        let mut peer = unix_peer(Path::new("embedded"), timeouts);
        if let Some(peer) = &mut peer {
            peer.options.custom_l4 = Some(connector);
            // There is nothing to wait for, and each is a move of the future of a connection.
            peer.options.connection_timeout = None;
            peer.options.total_connection_timeout = None;
        }
        Upstream::of(name, None, timeouts, peer.into_iter().collect())
    }

    fn of(
        name: String,
        target: Option<Target>,
        timeouts: Timeouts,
        known: Vec<HttpPeer>,
    ) -> Upstream {
        Upstream {
            name,
            authority: target.as_ref().map_or(LOCAL, Target::authority),
            target,
            metrics: None,
            timeouts,
            peers: RwLock::new(known.into()),
            next: AtomicUsize::new(0),
        }
    }

    /// The same upstream, of which is recorded how it does.
    pub fn measured(mut self, metrics: UpstreamMetrics) -> Upstream {
        self.metrics = Some(metrics);
        self
    }

    /// Whether it is reached by connections that take time to make, and are used again.
    pub fn has_connections(&self) -> bool {
        self.target.is_some()
    }

    /// Where it is recorded how the upstream does, if it is.
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

    /// A peer to send a request to: each of the known addresses in turn.
    pub fn peer(&self) -> pingora::Result<Box<HttpPeer>> {
        let peers = Arc::clone(&self.peers.read());
        if peers.is_empty() {
            return Error::e_explain(
                ErrorType::ConnectNoRoute,
                "the upstream's name is not resolved yet",
            );
        }
        let turn = if peers.len() == 1 {
            0
        } else {
            self.next.fetch_add(1, Ordering::Relaxed)
        };
        Ok(Box::new(peers[turn % peers.len()].clone()))
    }

    /// Asks the upstream whether it speaks the protocol: it does if it answers 200, or 401 to
    /// whoever has no credentials.
    pub async fn look(&self) -> Result<(), HealthError> {
        let Some(target) = &self.target else {
            // The embedded registry responds for as long as this process does.
            return Ok(());
        };
        match Probe::new(target.address().clone(), BASE).check().await {
            Err(HealthError::Status(StatusCode::UNAUTHORIZED)) => Ok(()),
            looked => looked,
        }
    }

    /// What follows the address in an absolute URL, if it is the upstream's own.
    pub fn within<'a>(&self, url: &'a str) -> Option<&'a str> {
        let target = self.target.as_ref()?;
        // Most are relative, and want no lock.
        if url.starts_with('/') {
            return None;
        }
        let known: Vec<SocketAddr> = self
            .peers
            .read()
            .iter()
            .filter_map(|peer| match &peer._address {
                PeerAddr::Inet(address) => Some(*address),
                PeerAddr::Unix(_) => None,
            })
            .collect();
        target.within(url, &known)
    }

    /// Looks the upstream's name up, and again and again, until the shutdown. A failed look-up
    /// keeps the addresses that are known.
    pub async fn tend(self: Arc<Self>, shutdown: Shutdown) {
        if let Some(ServerAddress::Tcp { host, port }) = self.target.as_ref().map(Target::address)
            && host.parse::<IpAddr>().is_err()
        {
            self.keep_resolved(host, *port, &shutdown).await;
        }
    }

    async fn keep_resolved(&self, host: &str, port: u16, shutdown: &Shutdown) {
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
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.recv() => return,
            }
        }
    }

    pub(crate) fn replace(&self, addresses: &[SocketAddr]) {
        let known = Arc::clone(&self.peers.read());
        let same = known.len() == addresses.len()
            && known.iter().zip(addresses).all(|(peer, address)| {
                matches!(&peer._address, PeerAddr::Inet(known) if known == address)
            });
        if !same && !addresses.is_empty() {
            tracing::info!(
                upstream = self.name,
                addresses = addresses.len(),
                "upstream addresses changed"
            );
            *self.peers.write() = addresses
                .iter()
                .map(|address| tcp_peer(*address, self.timeouts))
                .collect();
        }
    }
}

fn tcp_peer(address: SocketAddr, timeouts: Timeouts) -> HttpPeer {
    let peer = HttpPeer::new(address, false, String::new());
    with_options(peer, timeouts)
}

fn unix_peer(path: &Path, timeouts: Timeouts) -> Option<HttpPeer> {
    match HttpPeer::new_uds(&path.to_string_lossy(), false, String::new()) {
        Ok(peer) => Some(with_options(peer, timeouts)),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot use the Unix socket path");
            None
        }
    }
}

fn with_options(mut peer: HttpPeer, timeouts: Timeouts) -> HttpPeer {
    let options = &mut peer.options;
    options.connection_timeout = Some(Duration::from_secs(3));
    options.total_connection_timeout = Some(Duration::from_secs(10));
    options.read_timeout = Some(timeouts.read);
    options.write_timeout = Some(timeouts.write);
    options.idle_timeout = Some(IDLE);
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
    peer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(target: Target) -> Upstream {
        let timeouts = Timeouts::beside(Duration::from_mins(1));
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
        assert!(upstream.peer().is_err());
    }

    #[tokio::test]
    async fn a_name_is_looked_up_until_the_shutdown() {
        let upstream = Arc::new(new("http://localhost:5000".parse().unwrap()));
        assert!(upstream.peer().is_err(), "nobody has looked it up yet");
        let (trigger, shutdown) = Shutdown::new();
        let tending = tokio::spawn(Arc::clone(&upstream).tend(shutdown));
        while upstream.peer().is_err() {
            tokio::task::yield_now().await;
        }
        trigger.trigger();
        tending.await.unwrap();
    }

    #[test]
    fn a_client_that_stalls_is_found_out_before_its_upstream() {
        for body_stall in [1, 60, 3600].map(Duration::from_secs) {
            for target in ["http://127.0.0.1:5000", "unix:/run/registry.sock"] {
                let timeouts = Timeouts::beside(body_stall);
                let target = target.parse().unwrap();
                let upstream = Upstream::new("main".to_owned(), target, timeouts);
                let options = upstream.peer().unwrap().options;
                // The client's own limit is `body_stall`, and must be the first to pass.
                assert!(options.read_timeout > Some(body_stall));
                assert_eq!(options.write_timeout, Some(body_stall));
            }
        }
    }

    #[test]
    fn addresses_take_turns_and_are_replaced() {
        let upstream = new("http://registry:5000".parse().unwrap());
        let addresses: Vec<SocketAddr> = ["127.0.0.1:5000", "127.0.0.2:5000"]
            .map(|text| text.parse().unwrap())
            .into();
        upstream.replace(&addresses);
        let asked: Vec<_> = (0..4)
            .map(|_| upstream.peer().unwrap()._address.to_string())
            .collect();
        assert_eq!(asked[0], asked[2]);
        assert_ne!(asked[0], asked[1]);
        upstream.replace(&[]);
        assert!(
            upstream.peer().is_ok(),
            "an empty answer keeps what is known"
        );
    }
}
