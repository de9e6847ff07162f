//! The registry behind the proxy: where it is, and how to reach it.
//!
//! Names are resolved in the background and again as time goes by, because the resolver that
//! pingora would call blocks a worker thread, and because a registry that moves must be found.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use parking_lot::RwLock;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora::{Error, ErrorType};
use registry::service::health::{HealthError, Probe};
use registry::service::listen::ListenAddr;
use registry::service::shutdown::Shutdown;

use crate::metrics::UpstreamMetrics;

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

/// The host of what has no name.
const LOCAL: HeaderValue = HeaderValue::from_static("localhost");

/// Where an upstream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A host, by name or address, and a port.
    Tcp {
        /// The host, an IPv6 address without its brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket's path.
    Unix(String),
}

/// Why a text names no upstream.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// It is not a URL at all.
    #[error("`{0}` is no URL: expected http://HOST[:PORT] or unix:/PATH")]
    NotAUrl(String),
    /// It is a URL of a kind that cannot be proxied to.
    #[error("`{0}`: only http:// and unix: upstreams can be reached")]
    Scheme(String),
    /// It says more than where the registry is.
    #[error("`{0}`: give scheme, host and port only; a registry's paths begin at /v2/")]
    Path(String),
    /// It carries a user or a password, which is not repeated here.
    #[error("a URL with a user or password: the proxy sends what the client sends")]
    Credentials,
}

impl Target {
    /// Its name as a `Host` header has it; a socket has none of its own.
    fn authority(&self) -> HeaderValue {
        let authority = match self {
            Target::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Target::Tcp { host, port } => format!("{host}:{port}"),
            Target::Unix(_) => return LOCAL,
        };
        HeaderValue::try_from(authority).unwrap_or(LOCAL)
    }

    /// What follows the address in an absolute URL of this target, or of one of its `addresses`;
    /// `None` for every other text.
    fn within<'a>(&self, url: &'a str, addresses: &[SocketAddr]) -> Option<&'a str> {
        let Target::Tcp { host, port } = self else {
            return None;
        };
        let (scheme, rest) = url.split_at_checked("http://".len())?;
        if !scheme.eq_ignore_ascii_case("http://") {
            return None;
        }
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (named, port_text) = match authority.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']')?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let named_port = match port_text {
            "" | ":" => 80,
            _ => port_text.strip_prefix(':')?.parse().ok()?,
        };
        let is_own = match named.parse::<IpAddr>() {
            Ok(ip) => {
                (*port == named_port && host.parse() == Ok(ip))
                    || addresses.contains(&SocketAddr::new(ip, named_port))
            }
            Err(_) => *port == named_port && host.eq_ignore_ascii_case(named),
        };
        is_own.then_some(rest)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        if text.contains('@') {
            return Err(TargetError::Credentials);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let absolute = path.starts_with('/');
            return absolute
                .then(|| Target::Unix(path.to_owned()))
                .ok_or_else(|| TargetError::NotAUrl(text.to_owned()));
        }
        let uri: http::Uri = text
            .parse()
            .map_err(|_| TargetError::NotAUrl(text.to_owned()))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(TargetError::NotAUrl(text.to_owned()));
        };
        if scheme != "http" {
            return Err(TargetError::Scheme(text.to_owned()));
        }
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if !bare {
            return Err(TargetError::Path(text.to_owned()));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => 80,
            None => return Err(TargetError::NotAUrl(text.to_owned())),
        };
        Ok(Target::Tcp {
            host: host.to_owned(),
            port,
        })
    }
}

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
        let known: Vec<HttpPeer> = match &target {
            Target::Tcp { host, port } => match host.parse() {
                Ok(address) => vec![tcp_peer(SocketAddr::new(address, *port), timeouts)],
                Err(_) => Vec::new(),
            },
            Target::Unix(path) => unix_peer(path, timeouts).into_iter().collect(),
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
        let mut peer = unix_peer("embedded", timeouts);
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
            return Error::e_explain(ErrorType::ConnectNoRoute, "the upstream has no address");
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
        let probe = match &self.target {
            Some(Target::Tcp { host, port }) => Probe::of_host(host, *port, BASE),
            Some(Target::Unix(path)) => Probe::new(&ListenAddr::Unix(path.into()), BASE),
            // It answers for as long as this process does.
            None => return Ok(()),
        };
        match probe.check().await {
            Err(HealthError::Unready(StatusCode::UNAUTHORIZED)) => Ok(()),
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
    pub async fn tend(self: Arc<Self>, mut shutdown: Shutdown) {
        if let Some(Target::Tcp { host, port }) = &self.target
            && host.parse::<IpAddr>().is_err()
        {
            self.keep_resolved(host, *port, &mut shutdown).await;
        }
    }

    async fn keep_resolved(&self, host: &str, port: u16, shutdown: &mut Shutdown) {
        let mut failing = false;
        loop {
            let pause = match tokio::net::lookup_host((host, port)).await {
                Ok(addresses) => {
                    let mut addresses: Vec<SocketAddr> = addresses.collect();
                    addresses.sort_unstable();
                    addresses.dedup();
                    self.replace(&addresses);
                    failing = false;
                    RESOLVE_EVERY
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(upstream = self.name, %error, "cannot resolve the upstream");
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
                "resolved"
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

fn unix_peer(path: &str, timeouts: Timeouts) -> Option<HttpPeer> {
    match HttpPeer::new_uds(path, false, String::new()) {
        Ok(peer) => Some(with_options(peer, timeouts)),
        Err(error) => {
            tracing::error!(path, %error, "not a usable socket path");
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
    fn a_target_is_a_url_or_a_socket() {
        let tcp = |host: &str, port| {
            Ok(Target::Tcp {
                host: host.to_owned(),
                port,
            })
        };
        assert_eq!("http://registry:5000".parse(), tcp("registry", 5000));
        assert_eq!("http://registry/".parse(), tcp("registry", 80));
        assert_eq!("http://[::1]:5000".parse(), tcp("::1", 5000));
        assert_eq!(
            "unix:/run/r.sock".parse(),
            Ok(Target::Unix("/run/r.sock".to_owned()))
        );
    }

    #[test]
    fn only_a_url_of_the_targets_own_address_is_within_it() {
        let within = |target: &str, url: &str| {
            let target: Target = target.parse().unwrap();
            target.within(url, &[]).map(str::to_owned)
        };
        for (target, url, rest) in [
            (
                "http://registry:5000",
                "http://registry:5000/v2/?a=b",
                "/v2/?a=b",
            ),
            ("http://registry:5000", "HTTP://Registry:5000/v2/", "/v2/"),
            ("http://registry", "http://registry/v2/", "/v2/"),
            ("http://registry", "http://registry:80/v2/", "/v2/"),
            ("http://registry", "http://registry:/v2/", "/v2/"),
            ("http://registry:80", "http://registry?x", "?x"),
            ("http://registry:5000", "http://registry:5000", ""),
            ("http://[::1]:5000", "http://[0:0::1]:5000/x", "/x"),
            ("http://[::1]", "http://[::1]/x", "/x"),
            (
                "http://127.0.0.1:1",
                "http://127.0.0.1:1/%2F../x",
                "/%2F../x",
            ),
        ] {
            assert_eq!(within(target, url).as_deref(), Some(rest), "{url}");
        }
        for (target, url) in [
            ("http://registry:5000", "/v2/"),
            ("http://registry:5000", ""),
            ("http://registry:5000", "//registry:5000/v2/"),
            ("http://registry:5000", "https://registry:5000/v2/"),
            ("http://registry:5000", "http://registry/v2/"),
            ("http://registry:5000", "http://registry:5001/v2/"),
            ("http://registry:5000", "http://registry:50000/v2/"),
            ("http://registry:5000", "http://registry.example:5000/v2/"),
            ("http://registry:5000", "http://registry:5000@evil/v2/"),
            ("http://registry:5000", "http://user@registry:5000/v2/"),
            ("http://registry:5000", "http://registry:5000x/v2/"),
            ("http://[::1]:5000", "http://[::1]5000/v2/"),
            ("http://[::1]:5000", "http://::1:5000/v2/"),
            ("unix:/run/r.sock", "http://localhost/v2/"),
            ("unix:/run/r.sock", "http:///run/r.sock/v2/"),
        ] {
            assert_eq!(within(target, url), None, "{url}");
        }
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
    fn what_is_no_target_is_refused_with_its_reason() {
        let reason = |text: &str| text.parse::<Target>().unwrap_err();
        assert!(matches!(reason("registry:5000"), TargetError::NotAUrl(_)));
        assert!(matches!(reason(""), TargetError::NotAUrl(_)));
        assert!(matches!(reason("unix:r.sock"), TargetError::NotAUrl(_)));
        assert!(matches!(reason("http://a:99999"), TargetError::NotAUrl(_)));
        assert!(matches!(reason("https://registry"), TargetError::Scheme(_)));
        assert!(matches!(
            reason("http://registry/v2/"),
            TargetError::Path(_)
        ));
    }

    #[test]
    fn a_password_in_a_url_is_not_repeated() {
        let error = "http://user:secret@registry".parse::<Target>().unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn an_upstream_without_an_address_is_an_error_and_no_panic() {
        let target = Target::Tcp {
            host: "registry.invalid".to_owned(),
            port: 1,
        };
        let upstream = new(target);
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
            assert!(Timeouts::beside(body_stall).read > body_stall);
        }
    }

    #[test]
    fn addresses_take_turns_and_are_replaced() {
        let target = Target::Tcp {
            host: "registry".to_owned(),
            port: 5000,
        };
        let upstream = new(target);
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
