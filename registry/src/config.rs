//! The registry's configuration: the keys as people write them, and what they come to.
//!
//! A [`Config`] is valid: everything that can be checked without touching the system has been. Key
//! names are an API.

pub mod cli;
mod fields;
pub mod page;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use service::auth::BasicAuth;
use service::config::{self, Checker, ConfigError, Loaded, Origins, Sources};
use service::health::{Probe, READY};
use service::listen::{self, ListenAddr};
use service::tls::Tls;

pub use self::fields::{EmbeddedFields, Fields, MetricsFields, UploadFields};
pub use service::limits::{LimitFields, Limits};

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients are served; never empty.
    pub listen: Vec<ListenAddr>,
    /// The store's folder, durability, and what clients may do with it.
    pub storage: EmbeddedFields,
    /// Where the metrics page is; `None` records nothing.
    pub metrics: Option<MetricsConfig>,
    /// Whether the page tells of the process, too: not where another program's page does.
    pub process_metrics: bool,
    /// What one client may take.
    pub limits: Limits,
    /// Whether each request is an event in the log.
    pub access_log: bool,
}

/// Where the metrics page is, and who may read it.
#[derive(Clone, Debug)]
pub struct MetricsConfig {
    /// Where the page, `/livez` and `/readyz` are.
    pub listen: ListenAddr,
    /// The listener's certificate, if it speaks TLS.
    pub tls: Option<Tls>,
    /// The page's path.
    pub path: String,
    /// Who may read the page; none: whoever reaches it.
    pub auth: Option<BasicAuth>,
    /// What every sample carries beside its own labels.
    pub labels: BTreeMap<String, String>,
}

/// The page's path, unless something else is said.
pub const PAGE: &str = "/metrics";

/// Behind a proxy of our own: its limits protect it, and none of ours may come first.
const EMBEDDED_LIMITS: Limits = Limits {
    connections: usize::MAX,
    header_timeout: Duration::from_mins(1),
    idle_timeout: Duration::from_mins(1),
    body_stall: Duration::from_hours(1),
    drain: Duration::from_secs(30),
};

impl Config {
    /// Reads the configuration of the registry as a program of its own, and the fields it was made
    /// from, to print or to set up the log with.
    pub fn load(sources: Sources) -> Result<(Self, Fields), ConfigError> {
        let Loaded { fields, origins } = config::load_with_origins::<Fields>(sources)?;
        let config = Self::from_fields(fields.clone(), &origins)?;
        Ok((config, fields))
    }

    /// The registry inside another program, which dials it, and reads its metrics from a Unix
    /// socket; without one nothing is recorded. Every sample carries `labels`, too.
    pub fn embedded(
        fields: EmbeddedFields,
        metrics: impl Into<Option<PathBuf>>,
        labels: BTreeMap<String, String>,
    ) -> Self {
        let metrics = metrics.into().map(|socket| MetricsConfig {
            listen: ListenAddr::Unix(socket),
            tls: None,
            path: PAGE.to_owned(),
            auth: None,
            labels,
        });
        Self {
            listen: Vec::new(),
            storage: fields,
            metrics,
            process_metrics: false,
            limits: EMBEDDED_LIMITS,
            access_log: false,
        }
    }

    /// What to ask to know whether a registry with this configuration is ready: its metrics
    /// listener or, where there is none that speaks plainly, the API itself.
    pub fn probe(&self) -> Probe {
        let page = self.metrics.as_ref().filter(|page| page.tls.is_none());
        match (page, self.listen.first()) {
            (None, Some(api)) => Probe::new(api, "/v2/"),
            (page, _) => {
                let listen = page.map(|page| page.listen.clone());
                Probe::new(&listen.unwrap_or(loopback(5001)), READY)
            }
        }
    }

    fn from_fields(fields: Fields, origins: &Origins) -> Result<Self, ConfigError> {
        let checker = Checker::new(origins, "");
        let metrics = fields
            .metrics
            .enabled
            .then_some(&fields.metrics.listen.address);
        listen::check_addresses(&fields.listen, metrics, origins)?;
        let limits = fields.limits.resolve(&checker.section("limits"))?;
        fields.logging.check(&checker.section("logging"))?;
        let metrics = if fields.metrics.enabled {
            Some(fields.metrics.resolve(origins)?)
        } else {
            None
        };
        let storage = EmbeddedFields {
            data: fields.data,
            durability: fields.durability,
            read_only: fields.read_only,
            delete: fields.delete,
            manifest_limit: fields.manifest_limit,
            sparse_manifests: fields.sparse_manifests,
            reserve: fields.reserve,
            uploads: fields.uploads,
        };
        storage.check(&checker)?;
        Ok(Self {
            listen: fields.listen,
            storage,
            metrics,
            process_metrics: true,
            limits,
            access_log: fields.logging.access,
        })
    }
}

impl MetricsFields {
    fn resolve(self, origins: &Origins) -> Result<MetricsConfig, ConfigError> {
        page::check_path(&self.path, origins)?;
        page::check_labels(&self.labels, origins)?;
        let tls = self.listen.load_tls("metrics.listen", origins)?;
        let auth = self
            .basic_auth
            .map(|auth| auth.resolve("metrics.basic_auth", origins));
        Ok(MetricsConfig {
            listen: self.listen.address,
            tls,
            path: self.path,
            auth: auth.transpose()?,
            labels: self.labels,
        })
    }
}

fn loopback(port: u16) -> ListenAddr {
    ListenAddr::Tcp(([127, 0, 0, 1], port).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use service::config::Flag;

    fn load(flags: Vec<Flag>) -> Result<Config, String> {
        let sources = Sources {
            flags,
            ..Sources::default()
        };
        match Config::load(sources) {
            Ok((config, _)) => Ok(config),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_defaults_are_valid_and_stay_on_this_machine() {
        let config = load(vec![]).unwrap();
        assert_eq!(config.listen, [loopback(5000)]);
        assert_eq!(config.metrics.unwrap().listen, loopback(5001));
    }

    #[test]
    fn what_is_printed_loads_again() {
        let yaml = config::print(&Fields::default());
        let again: Fields = serde_yaml::from_str(&yaml).unwrap();
        assert_eq!(again, Fields::default());
    }

    #[test]
    fn one_address_needs_no_list() {
        let fields: Fields = serde_yaml::from_str("listen: '[::1]:7'").unwrap();
        assert_eq!(fields.listen, ["[::1]:7".parse().unwrap()]);
        let fields: Fields = serde_yaml::from_str("listen: ['[::1]:7', unix:x]").unwrap();
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
            ("metrics.listen", "127.0.0.1:5000"),
            ("metrics.listen", "0.0.0.0:5000"),
            ("metrics.path", "/token"),
            ("metrics.path", "/v2/metrics"),
            ("metrics.labels.operation", "x"),
            ("metrics.basic_auth", "{username: a}"),
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
