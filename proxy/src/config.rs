//! From the configured fields to a [`Config`] that is valid as a whole.
//!
//! The fields' names are an API; `--print-config` prints them all. What the registry inside the
//! process needs is the registry's own configuration.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

pub(crate) use registry::config::PAGE;
use registry::config::page;
use registry::service::auth::BasicAuth;
use registry::service::config::{ConfigError, Origins};
use registry::service::health::{Probe, READY};
use registry::service::listen::ListenAddr;
use registry::service::log::LogConfig;
use registry::service::tls::Tls;

use crate::aggregate::fetch::{Location, LocationError};
use crate::aggregate::{Bounds, Source};
use crate::metrics::Rules;
use crate::upstream::{Target, TargetError};

mod fields;
mod repositories;

pub use self::fields::{
    AggregateFields, Fields, LimitFields, MetricsFields, SourceFields, UpstreamFields,
};
pub use self::repositories::{GroupFields, RepositoryFields};

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

/// What one client, or all of them, may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections served at a time.
    pub connections: usize,
    /// How long a request's headers may take.
    pub header_timeout: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How long a body may stand still, in either direction.
    pub body_stall: Duration,
    /// How long a shutdown waits for transfers under way.
    pub drain: Duration,
}

impl Config {
    /// Checks what no single field can tell.
    pub fn resolve(fields: Fields, origins: &Origins) -> Result<Config, ConfigError> {
        if fields.listen.is_empty() {
            return Err(origins.error("listen", "at least one address is needed"));
        }
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
        let metrics = if fields.metrics.enabled {
            Some(resolve_metrics(fields.metrics, &listen, sources, origins)?)
        } else {
            None
        };
        // pingora counts whole seconds, of which none would mean for ever.
        let short = Duration::from_secs(1);
        for (key, limit) in [
            ("limits.header_timeout", fields.limits.header_timeout),
            ("limits.idle_timeout", fields.limits.idle_timeout),
            ("limits.body_stall", fields.limits.body_stall),
        ] {
            if limit.get() < short {
                return Err(origins.error(key, "must be at least 1s"));
            }
        }
        if fields.limits.connections == 0 {
            return Err(origins.error("limits.connections", "must not be 0"));
        }
        Ok(Config {
            listen,
            upstream,
            metrics,
            limits: Limits {
                connections: fields.limits.connections,
                header_timeout: fields.limits.header_timeout.get(),
                idle_timeout: fields.limits.idle_timeout.get(),
                body_stall: fields.limits.body_stall.get(),
                drain: fields.limits.drain.get(),
            },
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
        registry.check(|key, message| origins.error(&format!("registry.{key}"), message))?;
        return Ok((UpstreamConfig::Embedded(registry), Vec::new()));
    };
    if origins.said("registry") {
        let message = "there are upstreams: the registry in this process is not started";
        return Err(origins.error("registry", message));
    }
    if upstreams.next().is_some() {
        return Err(origins.error("upstreams", "more than one upstream is not supported"));
    }
    if upstream.name.is_empty() {
        return Err(origins.error("upstreams[0].name", "must not be empty"));
    }
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
        let key = format!("upstreams[0].metrics[{index}]");
        if source.source.is_empty() || !names.insert(source.source.clone()) {
            let message = "must be a name of its own";
            return Err(origins.error(&format!("{key}.source"), message));
        }
        let location: Location = source.url.parse().map_err(|error: LocationError| {
            origins.error(&format!("{key}.url"), &error.to_string())
        })?;
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

fn resolve_metrics(
    fields: MetricsFields,
    listen: &[ListenAddr],
    sources: Vec<Source>,
    origins: &Origins,
) -> Result<MetricsConfig, ConfigError> {
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
