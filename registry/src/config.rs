//! The registry's configuration: the keys as people write them, and what they come to.
//!
//! A [`Config`] is valid: everything that can be checked without touching the system has been. Key
//! names are an API.

pub mod cli;
pub mod page;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::service::auth::{BasicAuth, BasicAuthFields};
use crate::service::config::{self, ByteSize, ConfigError, Loaded, Origins, Sources};
use crate::service::health::{Probe, READY};
use crate::service::listen::{ListenAddr, ListenFields};
use crate::service::log::LogConfig;
use crate::service::tls::Tls;
use crate::store::fs::{Bounds, Durability, Options};

/// The keys of the registry as a program of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fields {
    /// Where clients are served: an address, or a list of them.
    #[serde(deserialize_with = "one_or_many")]
    pub listen: Vec<ListenAddr>,
    /// The folder that holds everything.
    pub data: PathBuf,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Whether everything that would change something is refused.
    pub read_only: bool,
    /// Whether manifests, tags and blobs may be deleted.
    pub delete: bool,
    /// The most bytes of a manifest.
    pub manifest_limit: ByteSize,
    /// Whether a manifest is taken whose blobs or children the repository does not hold.
    pub sparse_manifests: bool,
    /// What of the disk uploads leave free.
    pub reserve: ByteSize,
    /// What uploads may take.
    pub uploads: UploadFields,
    /// The metrics page.
    pub metrics: MetricsFields,
    /// What one client may take.
    pub limits: LimitFields,
    /// The log.
    pub logging: LogConfig,
}

/// The keys of the registry inside the proxy, which has sockets, limits and a log of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedFields {
    /// The folder that holds everything.
    pub data: PathBuf,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Whether everything that would change something is refused.
    pub read_only: bool,
    /// Whether manifests, tags and blobs may be deleted.
    pub delete: bool,
    /// The most bytes of a manifest.
    pub manifest_limit: ByteSize,
    /// Whether a manifest is taken whose blobs or children the repository does not hold.
    pub sparse_manifests: bool,
    /// What of the disk uploads leave free.
    pub reserve: ByteSize,
    /// What uploads may take.
    pub uploads: UploadFields,
}

/// The keys of what uploads may take, all together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UploadFields {
    /// How long a session that receives nothing is kept.
    pub expire: config::Duration,
    /// The most sessions open at a time.
    pub max_sessions: u64,
    /// The most bytes that open sessions hold; none: as many as fit.
    pub max_bytes: Option<ByteSize>,
}

/// The keys of the metrics page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsFields {
    /// Whether anything is recorded, and served.
    pub enabled: bool,
    /// Where the page, `/livez` and `/readyz` are.
    pub listen: ListenFields,
    /// The page's path.
    pub path: String,
    /// Who may read the page; none: whoever reaches it.
    pub basic_auth: Option<BasicAuthFields>,
    /// What every sample carries beside its own labels.
    pub labels: BTreeMap<String, String>,
}

/// The keys of what one client may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitFields {
    /// Connections served at a time; others wait.
    pub connections: usize,
    /// From a request's first byte to the end of its headers.
    pub header_timeout: config::Duration,
    /// How long a connection without requests is kept.
    pub idle_timeout: config::Duration,
    /// How long a body may stand still, in either direction.
    pub body_stall: config::Duration,
    /// How long a shutdown waits for requests under way.
    pub drain: config::Duration,
}

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

/// What one client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections served at a time, over all listeners of the API.
    pub connections: usize,
    /// From a request's first byte to the end of its headers.
    pub header_timeout: Duration,
    /// How long a connection without requests is kept.
    pub idle_timeout: Duration,
    /// How long a body may stand still, in either direction.
    pub body_stall: Duration,
    /// How long a shutdown waits for requests under way.
    pub drain: Duration,
}

impl Limits {
    /// Behind a proxy of our own: its limits protect it, and none of ours may come first.
    const EMBEDDED: Self = Self {
        connections: usize::MAX,
        header_timeout: Duration::from_mins(1),
        idle_timeout: Duration::from_mins(1),
        body_stall: Duration::from_hours(1),
        drain: Duration::from_secs(30),
    };
}

impl Default for Fields {
    fn default() -> Self {
        let storage = EmbeddedFields::default();
        Self {
            listen: vec![loopback(5000)],
            data: storage.data,
            durability: storage.durability,
            read_only: storage.read_only,
            delete: storage.delete,
            manifest_limit: storage.manifest_limit,
            sparse_manifests: storage.sparse_manifests,
            reserve: storage.reserve,
            uploads: storage.uploads,
            metrics: MetricsFields::default(),
            limits: LimitFields::default(),
            logging: LogConfig::default(),
        }
    }
}

impl Default for EmbeddedFields {
    fn default() -> Self {
        Self {
            data: PathBuf::from("./data"),
            durability: Durability::default(),
            read_only: false,
            delete: true,
            manifest_limit: ByteSize::mib(4),
            sparse_manifests: false,
            reserve: ByteSize::gib(1),
            uploads: UploadFields::default(),
        }
    }
}

impl Default for UploadFields {
    fn default() -> Self {
        Self {
            expire: config::Duration::from_secs(24 * 60 * 60),
            max_sessions: 10_000,
            max_bytes: None,
        }
    }
}

impl EmbeddedFields {
    /// What serde can't check; `error` is given a key and what is wrong with it.
    pub fn check<E>(&self, error: impl Fn(&str, &str) -> E) -> Result<(), E> {
        if self.data.as_os_str().is_empty() {
            return Err(error("data", "a folder is needed"));
        }
        if self.manifest_limit.get() == 0 {
            return Err(error("manifest_limit", "must be at least one byte"));
        }
        if self.uploads.expire.get().is_zero() {
            return Err(error("uploads.expire", "must be longer than nothing"));
        }
        if self.uploads.max_sessions == 0 {
            return Err(error("uploads.max_sessions", "must be at least 1"));
        }
        if self.uploads.max_bytes.is_some_and(|bytes| bytes.get() == 0) {
            let message = "must be at least one byte, or null for as many as fit";
            return Err(error("uploads.max_bytes", message));
        }
        Ok(())
    }

    /// How the store is to use its folder.
    pub(crate) fn options(&self) -> Options {
        let max_bytes = self.uploads.max_bytes.map(ByteSize::get);
        Options {
            durability: self.durability,
            bounds: Bounds {
                max_sessions: self.uploads.max_sessions,
                max_bytes: max_bytes.unwrap_or(u64::MAX),
                reserve: self.reserve.get(),
            },
        }
    }
}

impl Default for MetricsFields {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: loopback(5001).into(),
            path: PAGE.to_owned(),
            basic_auth: None,
            labels: BTreeMap::new(),
        }
    }
}

impl Default for LimitFields {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_timeout: config::Duration::from_secs(15),
            idle_timeout: config::Duration::from_secs(75),
            body_stall: config::Duration::from_secs(60),
            drain: config::Duration::from_secs(30),
        }
    }
}

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
            limits: Limits::EMBEDDED,
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
        let error = |key: &str, message: &str| origins.error(key, message);
        check(&fields, error)?;
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
        storage.check(error)?;
        let limits = fields.limits;
        Ok(Self {
            listen: fields.listen,
            storage,
            metrics,
            process_metrics: true,
            limits: Limits {
                connections: limits.connections,
                header_timeout: limits.header_timeout.get(),
                idle_timeout: limits.idle_timeout.get(),
                body_stall: limits.body_stall.get(),
                drain: limits.drain.get(),
            },
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

/// What serde can't check of all that is not the storage.
fn check<E>(fields: &Fields, error: impl Fn(&str, &str) -> E) -> Result<(), E> {
    if fields.listen.is_empty() {
        return Err(error("listen", "at least one address is needed"));
    }
    if fields.metrics.enabled
        && fields.listen.contains(&fields.metrics.listen.address)
        && !chooses_port(&fields.metrics.listen.address)
    {
        let message = "must not be an address of the registry itself: the page is not for clients";
        return Err(error("metrics.listen", message));
    }
    let limits = &fields.limits;
    if limits.connections == 0 {
        return Err(error("limits.connections", "must be at least 1"));
    }
    for (key, duration) in [
        ("limits.header_timeout", limits.header_timeout),
        ("limits.idle_timeout", limits.idle_timeout),
        ("limits.body_stall", limits.body_stall),
    ] {
        if duration.get().is_zero() {
            return Err(error(key, "must be longer than nothing"));
        }
    }
    if !(0.0..=1.0).contains(&fields.logging.sample) {
        return Err(error("logging.sample", "must be from 0 to 1"));
    }
    Ok(())
}

fn chooses_port(address: &ListenAddr) -> bool {
    matches!(address, ListenAddr::Tcp(address) if address.port() == 0)
}

fn loopback(port: u16) -> ListenAddr {
    ListenAddr::Tcp(([127, 0, 0, 1], port).into())
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ListenAddr>, D::Error> {
    struct Addresses;

    impl<'de> serde::de::Visitor<'de> for Addresses {
        type Value = Vec<ListenAddr>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an address or a list of them")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(vec![text.parse().map_err(E::custom)?])
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut list: A,
        ) -> Result<Self::Value, A::Error> {
            let mut addresses = Vec::new();
            while let Some(address) = list.next_element()? {
                addresses.push(address);
            }
            Ok(addresses)
        }
    }

    deserializer.deserialize_any(Addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::config::Flag;

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
            ("uploads.expire", "0s"),
            ("uploads.max_sessions", "0"),
            ("uploads.max_bytes", "0"),
            ("uploads.max_session", "5"),
            ("reserve", "much"),
            ("metrics.listen", "127.0.0.1:5000"),
            ("metrics.path", "/v2/metrics"),
            ("metrics.labels.operation", "x"),
            ("metrics.basic_auth", "{username: a}"),
            ("limits.connections", "0"),
            ("limits.idle_timeout", "0s"),
            ("logging.sample", "1.5"),
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
