//! The proxy's configuration: the keys as people write them, and what they mean.
//!
//! A [`ProxyConfig`] is valid: everything that can be checked without touching the system has been.
//! Key names are an API. The keys of the embedded registry are the registry's own.

use std::net::IpAddr;

use registry::config::HOLDS_LOCK;
pub(crate) use registry::config::METRICS_PATH;
use registry::config::endpoint::{MetricsEndpoint, MetricsEndpointFields};
use service::admin::StatusPageListeners;
use service::config::{Checker, ConfigError, Origins};
use service::control::ControlFields;
use service::health::{Probe, READY};
use service::limits::Limits;
use service::listen::{self, ListenAddr, ListenFields};
use service::log::LogConfig;
use service::program_config::Configuration;
use service::tls::{ClientCertificates, Tls, TlsFields};

use crate::aggregate::{AggregateLimits, Source};
use crate::cors::CorsRules;
use crate::forwarded::ForwardedRules;
use crate::metrics::Rules;

mod cors;
mod credentials;
mod fields;
mod matching;
mod reach;
mod replica_fields;
mod replicas;
mod repositories;
mod upstreams;

pub use self::cors::CorsFields;
use self::credentials::ExposedListener;
pub use self::credentials::{AnonymousUse, CredentialsFields};
use self::fields::DEFAULT;
pub use self::fields::{
    AggregateFields, ProxyFields, ProxyMetricsFields, SourceFields, UpstreamFields,
};
pub use self::matching::MatchFields;
pub use self::replica_fields::{HealthFields, QueueFields, ReplicaFields};
pub use self::repositories::{GroupFields, RepositoryFields};
pub use self::upstreams::{RemoteConfig, UpstreamsConfig};

/// What may be spoken inside TLS, best first.
pub(crate) const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The most networks in a list.
const MOST_NETWORKS: usize = 64;

/// Keys that a reload applies where the process had some of the kind before: remote upstreams, and
/// listeners with TLS.
pub(crate) const UPSTREAMS: &str = "upstreams";
pub(crate) const CERTIFICATES: &str = "listen[].tls";
pub(crate) const METRICS_CERTIFICATES: &str = "metrics.listen.tls";

/// The name of the embedded registry, as an upstream and as a source.
pub(crate) const EMBEDDED: &str = "registry";

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Where clients are served; at least one address.
    pub listen: Vec<ClientListener>,
    /// Whether a certificate is made for the listeners that have none.
    pub tls_self_signed: bool,
    /// The upstreams.
    pub upstreams: UpstreamsConfig,
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
    /// The sockets for an operator.
    pub control: ControlFields,
}

/// Where clients are served.
#[derive(Clone, Debug)]
pub struct ClientListener {
    /// The address.
    pub address: ListenAddr,
    /// The certificates, where it speaks TLS.
    pub tls: Option<Tls>,
}

/// Where the metrics are served, and what they hold beside the proxy's own.
#[derive(Clone, Debug)]
pub struct ProxyMetricsConfig {
    /// Where they are served, and who may scrape them.
    pub endpoint: MetricsEndpoint,
    /// Whether the main listeners serve the metrics, too.
    pub on_main: bool,
    /// Which listeners serve the status page.
    pub page_on: StatusPageListeners,
    /// Which repositories are shown by name.
    pub repositories: Rules,
    /// The metrics endpoints of the remote upstreams.
    pub sources: Vec<Source>,
    /// The limits of their aggregation.
    pub limits: AggregateLimits,
}

impl Configuration for ProxyConfig {
    type Fields = ProxyFields;

    const RELOADED: &'static [&'static str] = &[
        "cors",
        "forward_headers",
        "limits",
        CERTIFICATES,
        "logging",
        "metrics.aggregate",
        "metrics.basic_auth",
        METRICS_CERTIFICATES,
        "metrics.path",
        "metrics.public",
        "metrics.repositories",
        "metrics.status_page",
        "proxy_protocol_from",
        "trust_forwarded_from",
        UPSTREAMS,
    ];

    fn resolve(fields: ProxyFields, origins: &Origins) -> Result<Self, ConfigError> {
        let checker = Checker::new(origins, "");
        fields.limits.check(&checker.section("limits"))?;
        fields.logging.check(&checker.section("logging"))?;
        fields.control.check(&checker.section("control"))?;
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
        // With the metrics listener: a source there would make each scrape start another one.
        let own = listen.iter().map(|listen| &listen.address);
        let clients = upstreams::OwnListeners {
            all: own.chain(&metrics).collect(),
            exposed: &exposed,
        };
        let (upstreams, sources) =
            upstreams::resolve(fields.upstreams, fields.registry, &clients, origins)?;
        let cors = fields.cors.resolve(&checker.section("cors"))?;
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
            upstreams,
            metrics,
            forwarded: ForwardedRules {
                trusted: fields.trust_forwarded_from,
                proxy_protocol: fields.proxy_protocol_from,
                added: fields.forward_headers,
            },
            cors,
            limits: fields.limits,
            logging: fields.logging,
            control: fields.control,
        })
    }

    fn with_listeners_of(mut fields: ProxyFields, running: &ProxyFields) -> ProxyFields {
        let listen = running.listen.iter().enumerate();
        let listen = listen.map(|(at, listen)| listen.with_certificates_of(&fields.listen, at));
        fields.listen = listen.collect();
        let metrics = running.metrics.listen.as_ref();
        fields.metrics.listen =
            metrics.map(|listen| listen.with_certificates_of(fields.metrics.listen.as_slice(), 0));
        fields
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

    fn control(&self) -> &ControlFields {
        &self.control
    }

    fn refuses_takeover(&self) -> Option<&'static str> {
        match self.upstreams {
            UpstreamsConfig::Embedded(_) => Some(HOLDS_LOCK),
            UpstreamsConfig::Remote(_) => None,
        }
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
        final_file: fields.final_file,
        basic_auth: fields.basic_auth,
        status_page: fields.status_page,
        labels: fields.labels,
    };
    let page_on = endpoint.status_page.listeners;
    let endpoint = endpoint.resolve(origins)?;
    // The exposition names private repositories. Without a password only clients on this
    // machine may read it, unless the operator says otherwise.
    let on_main = is_private || fields.public || endpoint.auth.is_some();
    if page_on == StatusPageListeners::All && !on_main {
        let message = "all: the main listeners do not serve the metrics, which the page reads; set \
                       metrics.basic_auth or metrics.public";
        return Err(checker.section("status_page").error("listeners", message));
    }
    Ok(ProxyMetricsConfig {
        on_main,
        page_on,
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

impl ProxyMetricsConfig {
    /// Whether the main listeners serve the status page, at `/`. In front of another registry `/` is that
    /// one's, and without a password nobody may read the metrics by accident: both only where it is said.
    pub(crate) fn has_page_on_main(&self, is_embedded: bool) -> bool {
        self.on_main
            && match self.page_on {
                StatusPageListeners::None => false,
                StatusPageListeners::Auto => is_embedded && self.endpoint.auth.is_some(),
                StatusPageListeners::All => true,
            }
    }
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
