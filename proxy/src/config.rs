//! From the configured fields to a [`Config`] that is valid as a whole.
//!
//! The fields' names are an API; `--print-config` prints them all. What the registry inside the
//! process needs is the registry's own configuration.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;

pub(crate) use registry::config::PAGE;
use registry::config::page;
use service::auth::BasicAuth;
use service::config::{Checker, ConfigError, Origins};
use service::health::{Probe, READY};
pub use service::limits::{LimitFields, Limits};
use service::listen::{self, ListenAddr};
use service::log::LogConfig;
use service::tls::Tls;

use crate::aggregate::fetch::{Location, LocationError};
use crate::aggregate::{Bounds, Source};
use crate::metrics::Rules;
use crate::upstream::{Target, TargetError};

mod fields;
mod repositories;

pub use self::fields::{AggregateFields, Fields, MetricsFields, SourceFields, UpstreamFields};
pub use self::repositories::{GroupFields, RepositoryFields};

/// The longest name of an upstream or a source, in bytes.
const LONGEST_NAME: usize = 128;

/// The most sources of one upstream.
const MOST_SOURCES: usize = 64;

/// The name under which the embedded registry is known, as an upstream and as a source.
const EMBEDDED: &str = "registry";

/// Where clients are served unless something else is said.
const DEFAULT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000));

/// A configuration that is valid as a whole.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients are served; at least one address.
    pub listen: Vec<ListenAddr>,
    /// The registry behind the proxy.
    pub upstream: UpstreamConfig,
    /// `None` records nothing.
    pub metrics: Option<MetricsConfig>,
    /// What one client may take.
    pub limits: Limits,
    /// What is logged.
    pub logging: LogConfig,
}

/// The registry behind the proxy.
#[derive(Clone, Debug)]
pub enum UpstreamConfig {
    /// In this process, on Unix sockets.
    Embedded(registry::config::EmbeddedFields),
    /// Any registry, anywhere.
    Remote {
        /// How metrics and logs name it.
        name: String,
        /// Where it is.
        target: Target,
    },
}

/// Where the metrics are served, and what is on the page beside the proxy's own.
#[derive(Clone, Debug)]
pub struct MetricsConfig {
    /// The page's path.
    pub path: String,
    /// A listener for the metrics and probes alone.
    pub listen: Option<ListenAddr>,
    /// That listener's certificate, if it speaks TLS.
    pub tls: Option<Tls>,
    /// Who may read the page; none: whoever reaches it.
    pub auth: Option<BasicAuth>,
    /// Whether the main listeners serve the page too.
    pub on_main: bool,
    /// Which repositories are shown by name.
    pub repositories: Rules,
    /// What every sample of ours carries beside its own labels.
    pub labels: BTreeMap<String, String>,
    /// The pages of the remote upstream.
    pub sources: Vec<Source>,
    /// What bounds their aggregation.
    pub bounds: Bounds,
}

impl Config {
    /// Checks what no single field can tell.
    pub fn resolve(fields: Fields, origins: &Origins) -> Result<Config, ConfigError> {
        let checker = Checker::new(origins, "");
        let limits = fields.limits.resolve(&checker.section("limits"))?;
        fields.logging.check(&checker.section("logging"))?;
        let page = fields.metrics.listen.as_ref();
        let page = page.filter(|_| fields.metrics.enabled);
        let page = page.map(|listen| listen.address.clone());
        let addresses = fields.listen.iter().map(|listen| &listen.address);
        listen::check_addresses(addresses, page.as_ref(), origins)?;
        if let Some(at) = fields.listen.iter().position(|listen| listen.tls.is_some()) {
            let message = "is not supported here: only metrics.listen speaks TLS";
            return Err(origins.error(&format!("listen[{at}].tls"), message));
        }
        let listen: Vec<_> = fields
            .listen
            .into_iter()
            .map(|listen| listen.address)
            .collect();
        let (upstream, sources) = resolve_upstream(fields.upstreams, fields.registry, origins)?;
        let own: Vec<_> = listen.iter().chain(&page).collect();
        check_loops(&upstream, &sources, &own, origins)?;
        let metrics = if fields.metrics.enabled {
            Some(resolve_metrics(fields.metrics, &listen, sources, origins)?)
        } else {
            None
        };
        Ok(Config {
            listen,
            upstream,
            metrics,
            limits,
            logging: fields.logging,
        })
    }
}

impl Config {
    /// What to ask to know whether a process with this configuration is ready.
    pub fn probe(&self) -> Probe {
        let page = self.metrics.as_ref().filter(|page| page.tls.is_none());
        let own = page.and_then(|page| page.listen.as_ref());
        let any = ListenAddr::Tcp(DEFAULT);
        Probe::new(own.or(self.listen.first()).unwrap_or(&any), READY)
    }
}

fn resolve_upstream(
    upstreams: Vec<UpstreamFields>,
    registry: Option<registry::config::EmbeddedFields>,
    origins: &Origins,
) -> Result<(UpstreamConfig, Vec<Source>), ConfigError> {
    let mut upstreams = upstreams.into_iter();
    let Some(upstream) = upstreams.next() else {
        let registry = registry.unwrap_or_default();
        registry.check(&Checker::new(origins, "registry"))?;
        return Ok((UpstreamConfig::Embedded(registry), Vec::new()));
    };
    if origins.said("registry") {
        let message = "there are upstreams: the registry in this process is not started";
        return Err(origins.error("registry", message));
    }
    if upstreams.next().is_some() {
        return Err(origins.error("upstreams", "more than one upstream is not supported"));
    }
    let checker = Checker::new(origins, "upstreams[0]");
    checker.text("name", &upstream.name, LONGEST_NAME)?;
    checker.entries("metrics", upstream.metrics.len(), MOST_SOURCES)?;
    let [replica] = upstream.replicas.as_slice() else {
        let message = "exactly one replica is needed";
        return Err(origins.error("upstreams[0].replicas", message));
    };
    let target: Target = replica.parse().map_err(|error: TargetError| {
        origins.error("upstreams[0].replicas[0]", &error.to_string())
    })?;
    let mut names = HashSet::new();
    let mut sources = Vec::with_capacity(upstream.metrics.len());
    for (index, source) in upstream.metrics.into_iter().enumerate() {
        let checker = checker.section(&format!("metrics[{index}]"));
        checker.text("source", &source.source, LONGEST_NAME)?;
        if !names.insert(source.source.clone()) {
            return Err(checker.error("source", "must be a name of its own"));
        }
        let location: Location = source
            .url
            .parse()
            .map_err(|error: LocationError| checker.error("url", &error.to_string()))?;
        sources.push(Source {
            name: source.source,
            location,
        });
    }
    Ok((
        UpstreamConfig::Remote {
            name: upstream.name,
            target,
        },
        sources,
    ))
}

/// Refuses an upstream or a source that is this process itself: it would ask itself without an end.
fn check_loops(
    upstream: &UpstreamConfig,
    sources: &[Source],
    own: &[&ListenAddr],
    origins: &Origins,
) -> Result<(), ConfigError> {
    let is_own = |host: &str, port| own.iter().any(|own| own.is_reached_at(host, port));
    let is_own_socket = |path: &Path| own.iter().any(|own| own.is_socket(path));
    let message = "is an address of this process itself";
    if let UpstreamConfig::Remote { target, .. } = upstream
        && match target {
            Target::Tcp { host, port } => is_own(host, *port),
            Target::Unix(path) => is_own_socket(Path::new(path)),
        }
    {
        return Err(origins.error("upstreams[0].replicas[0]", message));
    }
    let at = sources.iter().position(|source| match &source.location {
        Location::Http { host, port, .. } => is_own(host, *port),
        Location::Unix(path) => is_own_socket(path),
    });
    match at {
        Some(at) => Err(origins.error(&format!("upstreams[0].metrics[{at}].url"), message)),
        None => Ok(()),
    }
}

fn resolve_metrics(
    fields: MetricsFields,
    listen: &[ListenAddr],
    sources: Vec<Source>,
    origins: &Origins,
) -> Result<MetricsConfig, ConfigError> {
    let checker = Checker::new(origins, "metrics");
    fields.aggregate.check(&checker.section("aggregate"))?;
    page::check_path(&fields.path, origins)?;
    page::check_labels(&fields.labels, origins)?;
    let tls = match &fields.listen {
        Some(listen) => listen.load_tls("metrics.listen", origins)?,
        None => None,
    };
    let auth = fields
        .basic_auth
        .map(|auth| auth.resolve("metrics.basic_auth", origins))
        .transpose()?;
    let private = listen.iter().all(|address| match address {
        ListenAddr::Tcp(address) => is_loopback(address.ip()),
        ListenAddr::Unix(_) => true,
    });
    Ok(MetricsConfig {
        path: fields.path,
        listen: fields.listen.map(|listen| listen.address),
        tls,
        on_main: private || fields.public || auth.is_some(),
        auth,
        repositories: fields.repositories.resolve(origins)?,
        labels: fields.labels,
        sources,
        bounds: Bounds {
            timeout: fields.aggregate.timeout.get(),
            max_bytes: usize::try_from(fields.aggregate.max_bytes.get()).unwrap_or(usize::MAX),
            max_samples: fields.aggregate.max_samples,
        },
    })
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// The source of the embedded registry's page.
pub(crate) fn embedded_source(socket: std::path::PathBuf) -> Source {
    Source {
        name: EMBEDDED.to_owned(),
        location: Location::Unix(socket),
    }
}

/// The name under which the embedded registry is known.
pub(crate) fn embedded_name() -> String {
    EMBEDDED.to_owned()
}

#[cfg(test)]
mod tests;
