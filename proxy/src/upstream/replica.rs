//! One replica of an upstream: where it is, and its connections.
//!
//! Names are resolved in the background and again as time goes by, so that no request waits for a
//! resolver, and because a registry that moves must be found.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::HOST;
use http::{HeaderValue, StatusCode};
use service::health::{HealthError, Probe};
use service::net::{GetRequest, HttpUrl, Scheme, ServerAddress};
use service::tls::TlsClient;

use super::address::{Location, UpstreamAddress};
use super::asked_as::AskedAs;
use super::health::ReplicaHealth;
use super::in_flight::InFlightLimit;
use super::settings::{HealthRules, ReplicaRules, ReplicaSettings};
use super::target::Target;
use super::tls::ReplicaTls;

/// What every registry answers: the specification's end-1.
const BASE: &str = "/v2/";
/// How often a name is looked up again.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);
/// How soon it is tried again where it could not be resolved.
const RESOLVE_AGAIN: Duration = Duration::from_secs(1);
/// How often idle connections are looked for that are too old, or that the upstream has closed.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// One replica of an upstream.
pub struct Replica {
    /// The name of its upstream, for the log.
    upstream: String,
    name: String,
    target: Target,
    /// Whether it drains as the configuration says, and as an operator has said since.
    drain: AtomicBool,
    is_draining: AtomicBool,
    asked: AskedAs,
    rules: HealthRules,
    pub(super) health: ReplicaHealth,
    pub(super) in_flight: InFlightLimit,
    authority: HeaderValue,
    /// The host that it is asked for, whatever the client asks for; `None` if that is kept.
    host: Option<HeaderValue>,
    handshakes: Option<Arc<ReplicaTls>>,
    addresses: ArcSwap<Vec<Arc<UpstreamAddress>>>,
    next: AtomicUsize,
}

impl Replica {
    /// A replica of the upstream of this name. Its own name is resolved by [`Replica::maintain`]; no
    /// request can be served before that.
    pub(crate) fn new(
        upstream: String,
        settings: ReplicaSettings,
        rules: &ReplicaRules,
    ) -> Replica {
        let (target, asked) = (settings.target, &rules.asked);
        let known: Vec<Location> = match target.address() {
            ServerAddress::Tcp { host, port } => {
                let address = host.parse().map(|ip| SocketAddr::new(ip, *port));
                address.into_iter().map(Location::Tcp).collect()
            }
            ServerAddress::Unix(path) => vec![Location::Unix(path.clone())],
        };
        let handshakes = match (&asked.tls, target.address(), target.scheme()) {
            (Some(tls), ServerAddress::Tcp { host, .. }, Scheme::Https) => {
                let tls = ReplicaTls::new(tls.clone(), upstream.clone(), host.clone());
                Some(Arc::new(tls))
            }
            _ => None,
        };
        let address = |location| UpstreamAddress::new(location, handshakes.clone());
        let addresses: Vec<_> = known.into_iter().map(address).collect();
        Replica {
            upstream,
            name: settings.name,
            host: asked.host.of(&target.authority()),
            handshakes,
            authority: target.authority(),
            target,
            drain: AtomicBool::new(settings.is_draining),
            is_draining: AtomicBool::new(settings.is_draining),
            asked: asked.clone(),
            rules: rules.health.clone(),
            health: ReplicaHealth::new(&rules.health),
            in_flight: InFlightLimit::new(rules.max_connections),
            addresses: ArcSwap::from_pointee(addresses),
            next: AtomicUsize::new(0),
        }
    }

    /// Its URL as it is configured, for the log alone.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it gets only the requests of the upload sessions that it has.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Sets whether it gets only the requests of the upload sessions that it has.
    pub(super) fn set_draining(&self, is_draining: bool) {
        self.is_draining.store(is_draining, Ordering::Relaxed);
    }

    /// Whether it is the same replica, asked and probed in the same way.
    pub(super) fn is_same(&self, other: &Replica) -> bool {
        self.name == other.name
            && self.target == other.target
            && self.asked == other.asked
            && self.rules == other.rules
            && self.in_flight.max() == other.in_flight.max()
    }

    /// It drains as the configuration of another one says, if its own said something else. What an
    /// operator has said since then stays otherwise.
    pub(super) fn configure_draining(&self, other: &Replica) {
        let drain = other.drain.load(Ordering::Relaxed);
        if self.drain.swap(drain, Ordering::Relaxed) != drain {
            self.set_draining(drain);
        }
    }

    /// Whether it is healthy.
    pub(super) fn is_healthy(&self) -> bool {
        self.health.is_healthy()
    }

    /// How many requests are in flight to it, or wait for that.
    pub(super) fn load(&self) -> usize {
        self.in_flight.load()
    }

    /// Whether another request would have to wait.
    pub(super) fn is_full(&self) -> bool {
        self.in_flight.is_full()
    }

    /// The host that it is asked for by a client that asks for this one.
    pub(crate) fn host<'h>(&'h self, client: Option<&'h HeaderValue>) -> &'h HeaderValue {
        // HTTP/1.0 need not name a host.
        self.host.as_ref().or(client).unwrap_or(&self.authority)
    }

    /// What precedes each path that it is asked for.
    pub(crate) fn prefix(&self) -> &str {
        self.target.prefix()
    }

    /// An address to send a request to: each of those that are known in turn. `None` while the
    /// replica's name is not resolved.
    pub(crate) fn address(&self) -> Option<Arc<UpstreamAddress>> {
        let addresses = self.addresses.load();
        let turn = match addresses.len() {
            0 => return None,
            1 => 0,
            count => self.next.fetch_add(1, Ordering::Relaxed) % count,
        };
        addresses.get(turn).cloned()
    }

    /// The request that any registry responds to, without credentials.
    pub(crate) fn base_request(&self) -> GetRequest {
        self.request(BASE)
    }

    fn request(&self, path: &str) -> GetRequest {
        let request = GetRequest::from(self.target.url(path)).with_tls(self.asked.tls.clone());
        match &self.host {
            Some(host) => request.with_header(HOST, host.clone()),
            None => request,
        }
    }

    /// The address.
    pub(crate) fn server(&self) -> &ServerAddress {
        self.target.address()
    }

    /// Whether a URL is of the same server.
    pub(crate) fn is_at(&self, url: &HttpUrl) -> bool {
        self.target.is_at(url)
    }

    /// TLS towards it, if it is reached by that.
    pub(crate) fn tls(&self) -> Option<&TlsClient> {
        self.asked.tls.as_ref()
    }

    /// Asks the replica whether it speaks the protocol: it does if it responds 200, or 401 to a
    /// request without credentials.
    pub(crate) async fn probe(&self, rules: &HealthRules) -> Result<(), HealthError> {
        let probe = Probe::of(self.request(&rules.path));
        match probe.check_within(rules.timeout).await {
            Err(HealthError::Status(StatusCode::UNAUTHORIZED)) => Ok(()),
            result => result,
        }
    }

    /// What follows the address and the prefix in an absolute URL, if it is the replica's own.
    /// So is one of the `client`'s host with the prefix, which the client does not know.
    pub(super) fn within<'a>(&self, url: &'a str, client: Option<&str>) -> Option<&'a str> {
        // Most are relative.
        if url.starts_with('/') {
            return None;
        }
        let addresses = self.addresses.load();
        let known: Vec<SocketAddr> = addresses.iter().filter_map(|one| one.tcp()).collect();
        let asked = self.host.as_ref().and_then(|host| host.to_str().ok());
        let client = client.filter(|_| !self.prefix().is_empty());
        self.target
            .within(url, &known, asked)
            .or_else(|| self.target.within(url, &[], Some(client?)))
    }

    /// What follows the prefix in a path of the replica, if there is a prefix.
    pub(super) fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        self.target.below(path)
    }

    /// Resolves the replica's name again and again, and closes idle connections before the replica
    /// does, without an end. A failed look-up keeps the addresses that are known.
    pub(super) async fn maintain(&self) {
        let resolve = async {
            if let ServerAddress::Tcp { host, port } = self.target.address()
                && host.parse::<IpAddr>().is_err()
            {
                self.keep_resolved(host, *port).await;
            }
        };
        let sweep = async {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                for address in self.addresses.load().iter() {
                    address.sweep();
                }
            }
        };
        tokio::join!(resolve, sweep);
    }

    /// Resolves the replica's name, if it has one that is not resolved yet. A failure is left to
    /// [`Replica::maintain`].
    pub(super) async fn resolve(&self) {
        if let ServerAddress::Tcp { host, port } = self.target.address()
            && self.addresses.load().is_empty()
        {
            let _ = self.look_up(host, *port).await;
        }
    }

    async fn look_up(&self, host: &str, port: u16) -> io::Result<()> {
        let addresses = tokio::net::lookup_host((host, port)).await?;
        let mut addresses: Vec<SocketAddr> = addresses.collect();
        addresses.sort_unstable();
        addresses.dedup();
        self.replace(&addresses);
        Ok(())
    }

    async fn keep_resolved(&self, host: &str, port: u16) {
        let mut failing = false;
        loop {
            let pause = match self.look_up(host, port).await {
                Ok(()) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!(upstream = self.upstream, "upstream name resolved again");
                    }
                    RESOLVE_EVERY
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(upstream = self.upstream, %error, "cannot resolve the upstream's name");
                    }
                    RESOLVE_AGAIN
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    pub(super) fn replace(&self, addresses: &[SocketAddr]) {
        let known = self.addresses.load();
        let is_same = known.len() == addresses.len()
            && known
                .iter()
                .zip(addresses)
                .all(|(known, address)| known.tcp() == Some(*address));
        if !is_same && !addresses.is_empty() {
            tracing::info!(
                upstream = self.upstream,
                addresses = addresses.len(),
                "upstream addresses changed"
            );
            let addresses = addresses.iter().map(|address| {
                let same = known.iter().find(|known| known.tcp() == Some(*address));
                // An address that stays keeps its idle connections.
                same.cloned().unwrap_or_else(|| {
                    UpstreamAddress::new(Location::Tcp(*address), self.handshakes.clone())
                })
            });
            self.addresses.store(Arc::new(addresses.collect()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(target: &str) -> Replica {
        let settings = ReplicaSettings {
            name: target.to_owned(),
            target: target.parse().unwrap(),
            is_draining: false,
        };
        Replica::new("main".to_owned(), settings, &ReplicaRules::default())
    }

    #[test]
    fn a_url_by_the_address_of_a_named_target_is_within_it() {
        let replica = new("http://registry:5000");
        let url = "http://127.0.0.2:5000/v2/";
        assert_eq!(replica.within(url, None), None);
        replica.replace(&["127.0.0.2:5000".parse().unwrap()]);
        assert_eq!(replica.within(url, None), Some("/v2/"));
    }

    #[test]
    fn a_url_of_the_clients_host_loses_the_prefix() {
        let url = "https://client.example/p/v2/";
        for (target, client, rest) in [
            ("http://registry/p", Some("client.example"), Some("/v2/")),
            ("http://registry/p", Some("other.example"), None),
            ("http://registry/p", None, None),
            ("http://registry", Some("client.example"), None),
        ] {
            assert_eq!(new(target).within(url, client), rest, "{target}");
        }
    }

    #[test]
    fn a_replica_without_an_address_is_an_error_and_no_panic() {
        assert!(new("http://registry.invalid:1").address().is_none());
    }

    #[test]
    fn addresses_take_turns_and_are_replaced() {
        let replica = new("http://registry:5000");
        let addresses: Vec<SocketAddr> = ["127.0.0.1:5000", "127.0.0.2:5000"]
            .map(|text| text.parse().unwrap())
            .into();
        replica.replace(&addresses);
        let asked: Vec<_> = (0..4).map(|_| replica.address().unwrap().tcp()).collect();
        assert_eq!(asked[0], asked[2]);
        assert_ne!(asked[0], asked[1]);
        replica.replace(&[]);
        assert!(
            replica.address().is_some(),
            "an empty answer keeps what is known"
        );
    }
}
