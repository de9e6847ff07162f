//! The keys as people write them, with their defaults.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use registry::config::{METRICS_PATH, StorageFields};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::admin::StatusPageFields;
use service::auth::BasicAuthFields;
use service::config::{self, ByteSize, Checker, ConfigError};
use service::control::ControlFields;
use service::limits::Limits;
use service::listen::{ListenAddr, ListenFields, one_or_many, one_or_many_schema};
use service::log::LogConfig;
use service::net::Network;
use service::tls::TlsClientFields;

use super::cors::CorsFields;
use super::credentials::CredentialsFields;
use super::matching::MatchFields;
use super::replica_fields::{HealthFields, QueueFields, ReplicaFields};
use super::repositories::RepositoryFields;
use crate::forwarded::ForwardHeaders;
use crate::upstream::{Balance, ReplicaRules};

/// Where clients are served by default.
pub(super) const DEFAULT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000));

const TIMEOUT: RangeInclusive<config::Duration> =
    config::Duration::from_secs(1)..=config::Duration::from_secs(5 * 60);
const MAX_BYTES: RangeInclusive<ByteSize> = ByteSize::bytes(1 << 10)..=ByteSize::gib(1);
const MAX_SAMPLES: RangeInclusive<usize> = 1..=10_000_000;

/// The configuration as a file has it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyFields {
    /// Where clients are served: an address, or a list of at most 64.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(schema_with = "one_or_many_schema::<ListenFields>")]
    pub listen: Vec<ListenFields>,
    /// Whether a certificate is made, for a try, for the listeners that have none; it is kept in
    /// `./octoserve-tls`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls_self_signed: bool,
    /// The registries to proxy, at most 64; a request goes to the first that it fits. None: the embedded
    /// registry, to and from which only a restart leads.
    pub upstreams: Vec<UpstreamFields>,
    /// The embedded registry, which is not started where there are upstreams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<StorageFields>,
    /// What is recorded, and who may scrape it.
    pub metrics: ProxyMetricsFields,
    /// The networks of proxies in front that are believed about their clients, at most 64.
    pub trust_forwarded_from: Vec<Network>,
    /// The networks of load balancers whose connections begin with a header of the PROXY protocol, at most
    /// 64.
    pub proxy_protocol_from: Vec<Network>,
    /// How upstreams are told who the client is.
    pub forward_headers: ForwardHeaders,
    /// Which user interfaces in browsers may read the registry's responses.
    pub cors: CorsFields,
    /// What one client may take.
    pub limits: Limits,
    /// What is logged.
    pub logging: LogConfig,
    /// The sockets for an operator.
    pub control: ControlFields,
}

/// One upstream.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamFields {
    /// The name that metrics and logs give it. At most 128 bytes.
    #[serde(default = "main_upstream")]
    pub name: String,
    /// Which requests it is for; by default all of them.
    #[serde(default, rename = "match")]
    pub matching: MatchFields,
    /// Where it is, at most 64 URLs or tables: all of them serve the same repositories.
    pub replicas: Vec<ReplicaFields>,
    /// The host that it is asked for: `keep` (the client's), `upstream` (its own), or a name.
    #[serde(default = "kept_host")]
    pub host: String,
    /// Whom to trust where it is `https`, and who the proxy is to it.
    #[serde(default)]
    pub tls: Option<TlsClientFields>,
    /// What it is told of who asks, where the client does not say so.
    #[serde(default)]
    pub credentials: Option<CredentialsFields>,
    /// How requests are spread over the replicas.
    #[serde(default)]
    pub balance: Balance,
    /// How the replicas are probed.
    #[serde(default)]
    pub health: HealthFields,
    /// The most requests in flight to one replica. From 1 to 1000000.
    #[serde(default = "max_connections")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: usize,
    /// How requests wait where all replicas have so many.
    #[serde(default)]
    pub queue: QueueFields,
    /// A file with the key that binds upload sessions to replicas, the same for all proxies in front of
    /// them. At least 32 bytes; null: a random key for each start.
    #[serde(default)]
    pub session_key_file: Option<PathBuf>,
    /// Whether pushes and deletes are refused, with 405.
    #[serde(default)]
    pub read_only: bool,
    /// Its metrics endpoints, which are merged into octoserve's own; at most 64 of all upstreams.
    #[serde(default)]
    pub metrics: Vec<SourceFields>,
}

/// One metrics endpoint of an upstream.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceFields {
    /// The value of its samples' `source` label. At most 128 bytes.
    pub source: String,
    /// `http[s]://HOST[:PORT]/PATH` or `unix:/PATH`; without a path `/metrics`.
    pub url: String,
}

/// What is recorded, and who may scrape it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyMetricsFields {
    /// Whether anything is recorded at all.
    pub enabled: bool,
    /// The path of the metrics endpoint: plain, and no endpoint of a registry or a probe. At most 255 bytes.
    pub path: String,
    /// A listener for metrics and probes alone; null: the listeners for clients serve them.
    pub listen: Option<ListenFields>,
    /// Whether a main listener that others can reach serves the metrics without a password, although they
    /// name private repositories.
    pub public: bool,
    /// Which repositories are shown by name.
    pub repositories: RepositoryFields,
    /// Where the last exposition is written when the process ends, with the process's number for `%p`;
    /// null: nowhere.
    pub final_file: Option<PathBuf>,
    /// Who may scrape; null: everybody who reaches the listener.
    pub basic_auth: Option<BasicAuthFields>,
    /// The status page, for those who may scrape.
    pub status_page: StatusPageFields,
    /// The labels that every sample of octoserve's own carries, at most 32; those of the embedded registry,
    /// too.
    pub labels: BTreeMap<String, String>,
    /// The limits of aggregation.
    pub aggregate: AggregateFields,
}

/// The limits of aggregation.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AggregateFields {
    /// How long a source may take. From 1s to 5m.
    pub timeout: config::Duration,
    /// How large the exposition of a source may be. From 1KiB to 1GiB.
    pub max_bytes: ByteSize,
    /// How many samples of a source are read. From 1 to 10000000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_samples: usize,
}

fn kept_host() -> String {
    "keep".to_owned()
}

fn max_connections() -> usize {
    ReplicaRules::default().max_connections
}

fn main_upstream() -> String {
    "main".to_owned()
}

impl Default for ProxyFields {
    fn default() -> ProxyFields {
        ProxyFields {
            listen: vec![ListenAddr::Tcp(DEFAULT).into()],
            tls_self_signed: false,
            upstreams: Vec::new(),
            registry: Some(StorageFields::default()),
            metrics: ProxyMetricsFields::default(),
            trust_forwarded_from: Vec::new(),
            proxy_protocol_from: Vec::new(),
            forward_headers: ForwardHeaders::default(),
            cors: CorsFields::default(),
            limits: Limits::default(),
            logging: LogConfig::default(),
            control: ControlFields::default(),
        }
    }
}

impl Default for ProxyMetricsFields {
    fn default() -> ProxyMetricsFields {
        ProxyMetricsFields {
            enabled: true,
            path: METRICS_PATH.to_owned(),
            listen: None,
            public: false,
            repositories: RepositoryFields::default(),
            final_file: None,
            basic_auth: None,
            status_page: StatusPageFields::default(),
            labels: BTreeMap::new(),
            aggregate: AggregateFields::default(),
        }
    }
}

impl Default for AggregateFields {
    fn default() -> AggregateFields {
        AggregateFields {
            timeout: config::Duration::from_secs(5),
            max_bytes: ByteSize::mib(64),
            max_samples: 500_000,
        }
    }
}

impl AggregateFields {
    /// Checks the values against their ranges.
    pub(super) fn check(&self, checker: &Checker<'_>) -> Result<(), ConfigError> {
        checker.range("timeout", self.timeout, &TIMEOUT)?;
        checker.range("max_bytes", self.max_bytes, &MAX_BYTES)?;
        checker.range("max_samples", self.max_samples, &MAX_SAMPLES)
    }
}
