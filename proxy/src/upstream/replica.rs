//! One replica of an upstream: where it is, and its connections.
//!
//! Names are resolved in the background and again as time goes by, so that no request waits for a
//! resolver, and because a registry that moves must be found.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderValue, StatusCode};
use service::health::{HealthError, Probe};
use service::net::ServerAddress;

use super::address::{Location, UpstreamAddress};
use super::target::Target;

/// What every registry answers: the specification's end-1.
const BASE: &str = "/v2/";
/// How often a name is looked up again.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);
/// How soon it is tried again where it could not be resolved.
const RESOLVE_AGAIN: Duration = Duration::from_secs(1);
/// How often idle connections are looked for that are too old, or that the upstream has closed.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// One replica of an upstream.
pub(crate) struct Replica {
    /// The name of its upstream, for the log.
    upstream: String,
    target: Target,
    authority: HeaderValue,
    addresses: ArcSwap<Vec<Arc<UpstreamAddress>>>,
    next: AtomicUsize,
}

impl Replica {
    /// A replica of the upstream of this name. Its own name is resolved by [`Replica::maintain`]; no
    /// request can be served before that.
    pub(super) fn new(upstream: String, target: Target) -> Replica {
        let known: Vec<Location> = match target.address() {
            ServerAddress::Tcp { host, port } => {
                let address = host.parse().map(|ip| SocketAddr::new(ip, *port));
                address.into_iter().map(Location::Tcp).collect()
            }
            ServerAddress::Unix(path) => vec![Location::Unix(path.clone())],
        };
        let addresses: Vec<_> = known.into_iter().map(UpstreamAddress::new).collect();
        Replica {
            upstream,
            authority: target.authority(),
            target,
            addresses: ArcSwap::from_pointee(addresses),
            next: AtomicUsize::new(0),
        }
    }

    /// The host that it is asked for where the client names none.
    pub(crate) fn authority(&self) -> &HeaderValue {
        &self.authority
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

    /// Asks the replica whether it speaks the protocol: it does if it responds 200, or 401 to a
    /// request without credentials.
    pub(super) async fn probe(&self) -> Result<(), HealthError> {
        let probe = Probe::new(self.target.address().clone(), BASE);
        match probe.check().await {
            Err(HealthError::Status(StatusCode::UNAUTHORIZED)) => Ok(()),
            result => result,
        }
    }

    /// What follows the address in an absolute URL, if it is the replica's own.
    pub(super) fn within<'a>(&self, url: &'a str) -> Option<&'a str> {
        // Most are relative.
        if url.starts_with('/') {
            return None;
        }
        let addresses = self.addresses.load();
        let known: Vec<SocketAddr> = addresses.iter().filter_map(|one| one.tcp()).collect();
        self.target.within(url, &known, None)
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

    fn new(target: &str) -> Replica {
        Replica::new("main".to_owned(), target.parse().unwrap())
    }

    #[test]
    fn a_url_by_the_address_of_a_named_target_is_within_it() {
        let replica = new("http://registry:5000");
        let url = "http://127.0.0.2:5000/v2/";
        assert_eq!(replica.within(url), None);
        replica.replace(&["127.0.0.2:5000".parse().unwrap()]);
        assert_eq!(replica.within(url), Some("/v2/"));
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
