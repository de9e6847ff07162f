//! The registry's configuration: the keys as people write them, and what they mean.
//!
//! A [`RegistryConfig`] is valid: everything that can be checked without touching the system has
//! been. Key names are an API.

pub mod endpoint;
mod fields;
mod maintenance;
mod retention;

use std::collections::BTreeMap;
use std::time::Duration;

use service::admin::StatusPageListeners;
use service::config::{Checker, ConfigError, Origins};
use service::control::ControlFields;
use service::health::{Probe, READY};
use service::limits::Limits;
use service::listen::{self, ListenAddr};
use service::log::LogConfig;
use service::program_config::Configuration;

pub use self::endpoint::METRICS_PATH;
use self::endpoint::{MetricsEndpoint, MetricsEndpointFields};
use self::fields::loopback;
pub use self::fields::{RegistryFields, RegistryMetricsFields, StorageFields, UploadFields};
pub use self::maintenance::{GcFields, ScrubFields};
pub use self::retention::{KeepFields, RetentionFields, RetentionRuleFields};

/// Why nobody takes over from a registry.
pub const HOLDS_LOCK: &str = "a registry locks its data directory as long as it runs, and two cannot serve \
     it: restart instead";

/// The certificates of the metrics listener, which are loaded anew where it has some before and after.
pub(crate) const METRICS_CERTIFICATES: &str = "metrics.listen.tls";

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// Where clients are served; empty only for the embedded registry.
    pub listen: Vec<ListenAddr>,
    /// The data directory, durability, and what clients may do with it.
    pub storage: StorageFields,
    /// Where the metrics are served; `None` records nothing.
    pub metrics: Option<MetricsEndpoint>,
    /// Whether `process_*` is exposed. False for the embedded registry: the proxy exposes it.
    pub process_metrics: bool,
    /// Whether the access log has its requests. False for the embedded registry: the proxy logs them.
    pub logs_requests: bool,
    /// What one client may take.
    pub limits: Limits,
    /// The log's format and level.
    pub logging: LogConfig,
    /// The sockets for an operator.
    pub control: ControlFields,
}

/// The limits of the embedded registry. The proxy's own limits must always apply first, so these are
/// looser.
const EMBEDDED_LIMITS: Limits = Limits {
    streams: 1,
    connections: usize::MAX,
    header_timeout: Duration::from_mins(1),
    idle_timeout: Duration::from_mins(1),
    body_stall: Duration::from_hours(1),
    drain: Duration::from_secs(30),
};

impl RegistryConfig {
    /// The configuration of the registry inside another program, which dials it, and gathers its
    /// families in process. Every sample carries `labels`, too; without them nothing is recorded.
    pub fn embedded(storage: StorageFields, labels: Option<BTreeMap<String, String>>) -> Self {
        let metrics = labels.map(|labels| MetricsEndpoint {
            labels,
            ..MetricsEndpoint::default()
        });
        Self {
            listen: Vec::new(),
            storage,
            metrics,
            process_metrics: false,
            logs_requests: false,
            limits: EMBEDDED_LIMITS,
            logging: LogConfig::default(),
            control: ControlFields::default(),
        }
    }
}

impl Configuration for RegistryConfig {
    type Fields = RegistryFields;

    // The rest is bound, allocated or counted by at the start: sockets, the store, the share of memory
    // that manifests have.
    const RELOADED: &'static [&'static str] = &[
        "delete",
        "logging",
        "metrics.basic_auth",
        METRICS_CERTIFICATES,
        "metrics.path",
        "metrics.status_page",
        "sparse_manifests",
    ];

    fn resolve(fields: RegistryFields, origins: &Origins) -> Result<Self, ConfigError> {
        let checker = Checker::new(origins, "");
        fields.limits.check(&checker.section("limits"))?;
        fields.logging.check(&checker.section("logging"))?;
        fields.control.check(&checker.section("control"))?;
        // Disabled metrics bind no socket, so that their address may equal another.
        let metrics = fields
            .metrics
            .enabled
            .then_some(&fields.metrics.listen.address);
        listen::check_addresses(&fields.listen, metrics, origins)?;
        let metrics = if fields.metrics.enabled {
            Some(fields.metrics.resolve(origins)?)
        } else {
            None
        };
        let storage = StorageFields {
            data: fields.data,
            durability: fields.durability,
            read_only: fields.read_only,
            delete: fields.delete,
            manifest_limit: fields.manifest_limit,
            sparse_manifests: fields.sparse_manifests,
            reserve: fields.reserve,
            uploads: fields.uploads,
            gc: fields.gc,
            scrub: fields.scrub,
            retention: fields.retention,
        };
        storage.check(&checker)?;
        Ok(Self {
            listen: fields.listen,
            storage,
            metrics,
            process_metrics: true,
            logs_requests: true,
            limits: fields.limits,
            logging: fields.logging,
            control: fields.control,
        })
    }

    fn with_listeners_of(mut fields: RegistryFields, running: &RegistryFields) -> RegistryFields {
        fields.listen.clone_from(&running.listen);
        let metrics = &running.metrics.listen;
        let next = std::slice::from_ref(&fields.metrics.listen);
        fields.metrics.listen = metrics.with_certificates_of(next, 0);
        fields
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
        Some(HOLDS_LOCK)
    }

    /// `/readyz` of the metrics listener if there is one without TLS, else the API's base.
    fn probe(&self) -> Probe {
        let metrics = self.metrics.as_ref();
        let plain = metrics.and_then(MetricsEndpoint::plain_listener);
        match (plain, self.listen.first()) {
            (None, Some(api)) => Probe::of_listener(api, "/v2/"),
            (Some(plain), _) => Probe::of_listener(plain, READY),
            // Only the embedded registry has neither, and the program around it has its own probe.
            (None, None) => Probe::of_listener(&loopback(5001), READY),
        }
    }
}

impl RegistryMetricsFields {
    fn resolve(self, origins: &Origins) -> Result<MetricsEndpoint, ConfigError> {
        if self.status_page.listeners == StatusPageListeners::All {
            let message =
                "must be auto or none: the registry serves its metrics on metrics.listen only";
            return Err(origins.error("metrics.status_page.listeners", message));
        }
        let endpoint = MetricsEndpointFields {
            listen: Some(self.listen),
            path: self.path,
            final_file: self.final_file,
            basic_auth: self.basic_auth,
            status_page: self.status_page,
            labels: self.labels,
        };
        endpoint.resolve(origins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use service::config::{self, Flag, Sources};

    fn load(flags: Vec<Flag>) -> Result<RegistryConfig, String> {
        let sources = Sources {
            flags,
            ..Sources::default()
        };
        match RegistryConfig::load(sources) {
            Ok((config, _)) => Ok(config),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_defaults_are_valid_and_stay_on_this_machine() {
        let config = load(vec![]).unwrap();
        assert_eq!(config.listen, [loopback(5000)]);
        assert_eq!(config.metrics.unwrap().listen, Some(loopback(5001)));
    }

    #[test]
    fn what_is_printed_loads_again() {
        let yaml = config::print(&RegistryFields::default());
        let again: RegistryFields = serde_yaml::from_str(&yaml).unwrap();
        assert_eq!(again, RegistryFields::default());
    }

    #[test]
    fn one_address_needs_no_list() {
        let fields: RegistryFields = serde_yaml::from_str("listen: '[::1]:7'").unwrap();
        assert_eq!(fields.listen, ["[::1]:7".parse().unwrap()]);
        let fields: RegistryFields = serde_yaml::from_str("listen: ['[::1]:7', unix:x]").unwrap();
        assert_eq!(fields.listen.len(), 2);
    }

    #[test]
    fn what_can_t_be_is_refused_by_its_key() {
        for (key, value) in [
            ("listen", "[]"),
            ("data", "''"),
            ("manifest_limit", "0"),
            ("manifest_limit", "100TiB"),
            ("reserve", "2000TiB"),
            ("uploads.expire", "0s"),
            ("uploads.expire", "2years"),
            ("uploads.max_sessions", "0"),
            ("uploads.max_sessions", "18446744073709551615"),
            ("uploads.max_bytes", "0"),
            ("uploads.max_bytes", "2000TiB"),
            ("uploads.max_session", "5"),
            ("reserve", "much"),
            ("gc.schedule", "25:00"),
            ("gc.schedule", "500ms"),
            ("gc.schedule", "weekly"),
            ("gc.grace", "2years"),
            ("gc.untagged", "never"),
            ("gc.when", "24h"),
            ("scrub.schedule", "24"),
            ("scrub.rate", "1"),
            ("scrub.rate", "2000TiB"),
            ("metrics.listen", "127.0.0.1:5000"),
            ("metrics.listen", "0.0.0.0:5000"),
            ("metrics.path", "/token"),
            ("metrics.path", "/v2/metrics"),
            ("metrics.labels.operation", "x"),
            ("metrics.basic_auth", "{username: a}"),
            ("metrics.status_page.listeners", "all"),
            ("metrics.status_page.listeners", "some"),
            ("limits.connections", "0"),
            ("limits.connections", "18446744073709551615"),
            ("limits.header_timeout", "2h"),
            ("limits.idle_timeout", "0s"),
            ("limits.body_stall", "999ms"),
            ("limits.drain", "500years"),
            ("logging.sample", "1.5"),
            ("logging.sample", "-1"),
            ("logging.sample", ".nan"),
            ("metrics.pubic", "true"),
        ] {
            let error = load(vec![Flag::new("--flag", key, value)]).unwrap_err();
            assert!(error.starts_with(&format!("--flag: {key}: ")), "{error}");
        }
    }

    #[test]
    fn a_port_of_the_kernel_s_choice_is_no_clash() {
        let flags = ["listen", "metrics.listen"].map(|key| Flag::new("-", key, "127.0.0.1:0"));
        assert!(load(flags.into()).is_ok());
    }
}
