//! The proxy's configuration: the keys as people write them, and what they mean.
//!
//! A [`ProxyConfig`] is valid: everything that can be checked without touching the system has been.
//! Key names are an API. The keys of the embedded registry are the registry's own.

use std::collections::HashSet;
use std::net::IpAddr;

pub(crate) use registry::config::METRICS_PATH;
use registry::config::StorageFields;
use registry::config::endpoint::{MetricsEndpoint, MetricsEndpointFields};
use service::config::{Checker, ConfigError, Origins};
use service::health::{Probe, READY};
use service::limits::Limits;
use service::listen::{self, ListenAddr, ListenFields};
use service::log::LogConfig;
use service::net::{GetRequest, HttpUrl, UrlError};
use service::program_config::Configuration;
use service::tls::{ClientCertificates, Tls, TlsFields};

use crate::aggregate::{AggregateLimits, Origin, Source};
use crate::cors::CorsRules;
use crate::forwarded::ForwardedRules;
use crate::metrics::Rules;
use crate::upstream::{CredentialsConfig, ReplicaRules, ReplicaSettings, Target};

mod cors;
mod credentials;
mod fields;
mod reach;
mod replica_fields;
mod replicas;
mod repositories;

pub use self::cors::CorsFields;
use self::credentials::ExposedListener;
pub use self::credentials::{AnonymousUse, CredentialsFields};
use self::fields::DEFAULT;
pub use self::fields::{
    AggregateFields, ProxyFields, ProxyMetricsFields, SourceFields, UpstreamFields,
};
pub use self::replica_fields::{HealthFields, QueueFields, ReplicaFields};
pub use self::repositories::{GroupFields, RepositoryFields};

/// What may be spoken inside TLS, best first.
pub(crate) const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The longest name of an upstream or a source, in bytes.
const LONGEST_NAME: usize = 128;

/// The most sources of one upstream.
const MOST_SOURCES: usize = 64;

/// The most networks in a list.
const MOST_NETWORKS: usize = 64;

/// The name of the embedded registry, as an upstream and as a source.
pub(crate) const EMBEDDED: &str = "registry";

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Where clients are served; at least one address.
    pub listen: Vec<ClientListener>,
    /// Whether a certificate is made for the listeners that have none.
    pub tls_self_signed: bool,
    /// The upstream.
    pub upstream: UpstreamConfig,
    /// Where the metrics are served; `None` records nothing.
    pub metrics: Option<ProxyMetricsConfig>,
    /// Who is believed about a client, and what upstreams are told of it.
    pub forwarded: ForwardedRules,
    /// Which origins may read responses; `None` says nothing of it.
    pub cors: Option<CorsRules>,
    /// What one client may take.
    pub limits: Limits,
    /// The log's format and level, and the access log.
    pub logging: LogConfig,
}

/// Where clients are served.
#[derive(Clone, Debug)]
pub struct ClientListener {
    /// The address.
    pub address: ListenAddr,
    /// The certificates, where it speaks TLS.
    pub tls: Option<Tls>,
}

/// The upstream.
#[derive(Clone, Debug)]
pub enum UpstreamConfig {
    /// The registry in this process.
    Embedded(StorageFields),
    /// Any registry, anywhere.
    Remote {
        /// The name that metrics and logs give it.
        name: String,
        /// Where it is.
        replicas: Vec<ReplicaSettings>,
        /// What the replicas share.
        rules: Box<ReplicaRules>,
        /// What it is told of who asks, where clients do not say so.
        credentials: Option<CredentialsConfig>,
        /// Whether pushes and deletes are refused.
        read_only: bool,
    },
}

/// Where the metrics are served, and what they hold beside the proxy's own.
#[derive(Clone, Debug)]
pub struct ProxyMetricsConfig {
    /// Where they are served, and who may scrape them.
    pub endpoint: MetricsEndpoint,
    /// Whether the main listeners serve the metrics, too.
    pub on_main: bool,
    /// Which repositories are shown by name.
    pub repositories: Rules,
    /// The metrics endpoints of the remote upstream.
    pub sources: Vec<Source>,
    /// The limits of their aggregation.
    pub limits: AggregateLimits,
}

impl Configuration for ProxyConfig {
    type Fields = ProxyFields;

    fn resolve(fields: ProxyFields, origins: &Origins) -> Result<Self, ConfigError> {
        let checker = Checker::new(origins, "");
        fields.limits.check(&checker.section("limits"))?;
        fields.logging.check(&checker.section("logging"))?;
        checker.entries(
            "trust_forwarded_from",
            fields.trust_forwarded_from.len(),
            MOST_NETWORKS,
        )?;
        checker.entries(
            "proxy_protocol_from",
            fields.proxy_protocol_from.len(),
            MOST_NETWORKS,
        )?;
        let metrics = fields.metrics.listen.as_ref();
        // A listener that is never bound cannot collide with another one.
        let metrics = metrics.filter(|_| fields.metrics.enabled);
        let metrics = metrics.map(|listen| listen.address.clone());
        let addresses = fields.listen.iter().map(|listen| &listen.address);
        listen::check_addresses(addresses, metrics.as_ref(), origins)?;
        let exposed: Vec<_> = fields.listen.iter().filter_map(exposed).collect();
        let mut listen = Vec::with_capacity(fields.listen.len());
        for (at, fields) in fields.listen.into_iter().enumerate() {
            // Loaded here, so that a bad certificate stops the start and not the first client.
            let tls = fields.load_tls(&format!("listen[{at}]"), PROTOCOLS, origins)?;
            listen.push(ClientListener {
                address: fields.address,
                tls,
            });
        }
        let (upstream, sources) =
            resolve_upstream(fields.upstreams, fields.registry, &exposed, origins)?;
        let cors = fields.cors.resolve(&checker.section("cors"))?;
        // With the metrics listener: a source there would make each scrape start another one.
        let own = listen.iter().map(|listen| &listen.address);
        let own: Vec<_> = own.chain(&metrics).collect();
        check_loops(&upstream, &sources, &own, origins)?;
        let metrics = if fields.metrics.enabled {
            let is_private = exposed.is_empty();
            Some(resolve_metrics(
                fields.metrics,
                is_private,
                sources,
                origins,
            )?)
        } else {
            None
        };
        Ok(Self {
            listen,
            tls_self_signed: fields.tls_self_signed,
            upstream,
            metrics,
            forwarded: ForwardedRules {
                trusted: fields.trust_forwarded_from,
                proxy_protocol: fields.proxy_protocol_from,
                added: fields.forward_headers,
            },
            cors,
            limits: fields.limits,
            logging: fields.logging,
        })
    }

    /// Leaves out `registry` if there are upstreams: the embedded registry does not run then.
    fn print(fields: &ProxyFields) -> String {
        let mut fields = fields.clone();
        if !fields.upstreams.is_empty() {
            fields.registry = None;
        }
        service::config::print(&fields)
    }

    fn logging(&self) -> &LogConfig {
        &self.logging
    }

    fn limits(&mut self) -> &mut Limits {
        &mut self.limits
    }

    /// `/readyz` of the metrics listener if there is one without TLS, else of a main listener.
    fn probe(&self) -> Probe {
        let metrics = self.metrics.as_ref();
        let metrics = metrics.and_then(|metrics| metrics.endpoint.plain_listener());
        let plain = self.listen.iter().find(|listen| listen.tls.is_none());
        let plain = metrics.or(plain.map(|listen| &listen.address));
        match (plain, self.listen.first()) {
            (Some(address), _) => Probe::of_listener(address, READY),
            (
                None,
                Some(ClientListener {
                    address,
                    tls: Some(tls),
                }),
            ) => Probe::of_secured_listener(address, tls, READY),
            (None, _) => Probe::of_listener(&ListenAddr::Tcp(DEFAULT), READY),
        }
    }
}

fn resolve_upstream(
    upstreams: Vec<UpstreamFields>,
    registry: Option<StorageFields>,
    exposed: &[ExposedListener],
    origins: &Origins,
) -> Result<(UpstreamConfig, Vec<Source>), ConfigError> {
    let mut upstreams = upstreams.into_iter();
    let Some(upstream) = upstreams.next() else {
        let registry = registry.unwrap_or_default();
        registry.check(&Checker::new(origins, "registry"))?;
        return Ok((UpstreamConfig::Embedded(registry), Vec::new()));
    };
    // Only where the key was written: its defaults are always there, and contradict nothing.
    if origins.said("registry") {
        let message = "there are upstreams: the embedded registry is not started";
        return Err(origins.error("registry", message));
    }
    if upstreams.next().is_some() {
        return Err(origins.error("upstreams", "more than one upstream is not supported"));
    }
    let checker = Checker::new(origins, "upstreams[0]");
    checker.text("name", &upstream.name, LONGEST_NAME)?;
    // Each scrape fetches all of them at once, and holds all their expositions in memory.
    checker.entries("metrics", upstream.metrics.len(), MOST_SOURCES)?;
    let replicas = replicas::resolve_replicas(&upstream.replicas, &checker)?;
    let mut rules = replicas::resolve_rules(&upstream, &checker)?;
    let mut names = HashSet::new();
    let mut endpoints = Vec::with_capacity(upstream.metrics.len());
    for (index, source) in upstream.metrics.into_iter().enumerate() {
        let checker = checker.section(&format!("metrics[{index}]"));
        checker.text("source", &source.source, LONGEST_NAME)?;
        // The name becomes the `source` label, which alone keeps the samples of two sources apart.
        if !names.insert(source.source.clone()) {
            return Err(checker.error("source", "must be a name of its own"));
        }
        let url = source_url(&source.url).map_err(|message| checker.error("url", &message))?;
        endpoints.push((source.source, url));
    }
    let for_credentials = checker.section("credentials");
    let realm = match &upstream.credentials {
        Some(credentials) => credentials.realm(&for_credentials)?,
        None => None,
    };
    let targets: Vec<Target> = replicas.iter().map(|one| one.target.clone()).collect();
    let bases: Vec<_> = targets.iter().map(|target| target.url("")).collect();
    let urls = endpoints.iter().map(|(_, url)| url);
    let urls = urls.chain(&bases).chain(&realm);
    let tls = reach::tls(upstream.tls.as_ref(), urls, &checker)?;
    let credentials = match upstream.credentials {
        None => None,
        Some(credentials) => {
            credentials.check_use(&targets, exposed, &for_credentials)?;
            Some(credentials.resolve(realm, tls.others, &for_credentials)?)
        }
    };
    let sources = endpoints.into_iter().map(|(name, url)| {
        let request = GetRequest::from(url).with_tls(tls.upstream.clone());
        Source {
            name,
            origin: Origin::Endpoint(request),
        }
    });
    let sources = sources.collect();
    rules.asked.tls = tls.upstream;
    Ok((
        UpstreamConfig::Remote {
            name: upstream.name,
            replicas,
            rules: Box::new(rules),
            credentials,
            read_only: upstream.read_only,
        },
        sources,
    ))
}

/// The metrics endpoint that a text names; `/metrics` where it names no path.
fn source_url(text: &str) -> Result<HttpUrl, String> {
    let url: HttpUrl = text.parse().map_err(|error: UrlError| error.to_string())?;
    Ok(url.with_default_path(METRICS_PATH))
}

/// Refuses an upstream or a source that is this process itself: it would send requests to itself
/// without an end.
fn check_loops(
    upstream: &UpstreamConfig,
    sources: &[Source],
    own: &[&ListenAddr],
    origins: &Origins,
) -> Result<(), ConfigError> {
    let message = "is an address of this process itself";
    if let UpstreamConfig::Remote { replicas, .. } = upstream {
        let is_own = |replica: &ReplicaSettings| {
            let address = replica.target.address();
            own.iter().any(|own| address.reaches(own))
        };
        if let Some(at) = replicas.iter().position(is_own) {
            return Err(origins.error(&format!("upstreams[0].replicas[{at}]"), message));
        }
    }
    let at = sources.iter().position(|source| match &source.origin {
        Origin::Endpoint(request) => {
            let address = request.url().address();
            own.iter().any(|own| address.reaches(own))
        }
        Origin::InProcess(_) => false,
    });
    match at {
        Some(at) => Err(origins.error(&format!("upstreams[0].metrics[{at}].url"), message)),
        None => Ok(()),
    }
}

fn resolve_metrics(
    fields: ProxyMetricsFields,
    is_private: bool,
    sources: Vec<Source>,
    origins: &Origins,
) -> Result<ProxyMetricsConfig, ConfigError> {
    let checker = Checker::new(origins, "metrics");
    fields.aggregate.check(&checker.section("aggregate"))?;
    let endpoint = MetricsEndpointFields {
        listen: fields.listen,
        path: fields.path,
        basic_auth: fields.basic_auth,
        labels: fields.labels,
    };
    let endpoint = endpoint.resolve(origins)?;
    // The exposition names private repositories. Without a password only clients on this
    // machine may read it, unless the operator says otherwise.
    Ok(ProxyMetricsConfig {
        on_main: is_private || fields.public || endpoint.auth.is_some(),
        endpoint,
        repositories: fields.repositories.resolve(origins)?,
        sources,
        limits: AggregateLimits {
            timeout: fields.aggregate.timeout.get(),
            max_bytes: usize::try_from(fields.aggregate.max_bytes.get()).unwrap_or(usize::MAX),
            max_samples: fields.aggregate.max_samples,
        },
    })
}

/// The listener, if others than this machine reach it.
fn exposed(listen: &ListenFields) -> Option<ExposedListener> {
    let is_exposed = match &listen.address {
        ListenAddr::Tcp(address) => !is_loopback(address.ip()),
        // The permissions of the file system say who reaches the socket.
        ListenAddr::Unix(_) => false,
    };
    let requires = |tls: &TlsFields| tls.asks_for() == Some(ClientCertificates::Required);
    is_exposed.then(|| ExposedListener {
        address: listen.address.clone(),
        requires_certificate: listen.tls.as_ref().is_some_and(requires),
    })
}

fn is_loopback(address: IpAddr) -> bool {
    // `::ffff:127.0.0.1` is the loopback address, too.
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests;
