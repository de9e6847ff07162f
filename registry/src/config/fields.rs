//! The keys as people write them, with their defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{PAGE, loopback};
use crate::service::auth::BasicAuthFields;
use crate::service::config::{self, ByteSize};
use crate::service::listen::{ListenAddr, ListenFields, one_or_many};
use crate::service::log::LogConfig;
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
