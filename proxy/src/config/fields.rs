//! The keys as people write them, with their defaults.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use service::auth::BasicAuthFields;
use service::config::{self, ByteSize, Checker, ConfigError};
use service::listen::{ListenAddr, ListenFields, one_or_many};
use service::log::LogConfig;

use super::{DEFAULT, LimitFields, PAGE, RepositoryFields};

const TIMEOUT: RangeInclusive<config::Duration> =
    config::Duration::from_secs(1)..=config::Duration::from_secs(5 * 60);
const MAX_BYTES: RangeInclusive<ByteSize> = ByteSize::bytes(1 << 10)..=ByteSize::gib(1);
const MAX_SAMPLES: RangeInclusive<usize> = 1..=10_000_000;

/// The configuration as a file has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fields {
    /// Where clients are served: an address, or a list of them.
    #[serde(deserialize_with = "one_or_many")]
    pub listen: Vec<ListenFields>,
    /// The registry in front of which the proxy stands; none: the embedded one.
    pub upstreams: Vec<UpstreamFields>,
    /// The embedded registry; there is none where there are upstreams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<registry::config::EmbeddedFields>,
    /// What is measured, and who may see it.
    pub metrics: MetricsFields,
    /// What one client may take.
    pub limits: LimitFields,
    /// What is logged.
    pub logging: LogConfig,
}

/// One upstream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamFields {
    /// How metrics and logs name it.
    #[serde(default = "main_upstream")]
    pub name: String,
    /// Where it is: `http://HOST[:PORT]` or `unix:/PATH`.
    pub replicas: Vec<String>,
    /// Its metrics pages.
    #[serde(default)]
    pub metrics: Vec<SourceFields>,
}

/// One metrics page of an upstream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFields {
    /// The value of its samples' `source` label.
    pub source: String,
    /// `http://HOST[:PORT]/PATH` or `unix:/PATH`.
    pub url: String,
}

/// What is measured, and who may see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsFields {
    /// Whether anything is recorded at all.
    pub enabled: bool,
    /// The page's path.
    pub path: String,
    /// A listener for the metrics and probes alone.
    pub listen: Option<ListenFields>,
    /// Whether a main listener that others can reach serves the metrics too without asking who they
    /// are: they name private repositories.
    pub public: bool,
    /// Which repositories are shown by name.
    pub repositories: RepositoryFields,
    /// Who may read the page; none: whoever reaches it.
    pub basic_auth: Option<BasicAuthFields>,
    /// What every sample of ours carries beside its own labels; the embedded registry's, too.
    pub labels: BTreeMap<String, String>,
    /// What bounds the aggregation of other pages.
    pub aggregate: AggregateFields,
}

/// What bounds the aggregation of other pages.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AggregateFields {
    /// How long a source may take.
    pub timeout: config::Duration,
    /// How large its page may be.
    pub max_bytes: ByteSize,
    /// How many samples are taken from it.
    pub max_samples: usize,
}

fn main_upstream() -> String {
    "main".to_owned()
}

impl Fields {
    /// The configuration as it takes effect, as a file that can be loaded again.
    pub fn print(&self) -> String {
        let mut fields = self.clone();
        if !fields.upstreams.is_empty() {
            fields.registry = None;
        }
        config::print(&fields)
    }
}

impl Default for Fields {
    fn default() -> Fields {
        Fields {
            listen: vec![ListenAddr::Tcp(DEFAULT).into()],
            upstreams: Vec::new(),
            registry: Some(registry::config::EmbeddedFields::default()),
            metrics: MetricsFields::default(),
            limits: LimitFields::default(),
            logging: LogConfig::default(),
        }
    }
}

impl Default for MetricsFields {
    fn default() -> MetricsFields {
        MetricsFields {
            enabled: true,
            path: PAGE.to_owned(),
            listen: None,
            public: false,
            repositories: RepositoryFields::default(),
            basic_auth: None,
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
