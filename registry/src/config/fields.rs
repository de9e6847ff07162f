//! The keys as people write them, with their defaults.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::METRICS_PATH;
use super::maintenance::{GcFields, ScrubFields};
use super::retention::RetentionFields;
use crate::maintenance::JobSettings;
use crate::store::fs::{Durability, StoreOptions, UploadQuota};
use service::admin::StatusPageFields;
use service::auth::BasicAuthFields;
use service::config::{self, ByteSize, Checker, ConfigError};
use service::control::ControlFields;
use service::limits::Limits;
use service::listen::{ListenAddr, ListenFields, one_or_many, one_or_many_schema};
use service::log::LogConfig;

/// Clients refuse larger manifests than 4 MiB; what a registry holds in memory grows with it.
const MANIFEST_LIMIT: RangeInclusive<ByteSize> = ByteSize::bytes(1 << 10)..=ByteSize::mib(32);
const RESERVE: RangeInclusive<ByteSize> = ByteSize::bytes(0)..=PIB;
const EXPIRE: RangeInclusive<config::Duration> =
    config::Duration::from_secs(1)..=config::Duration::YEAR;
const MAX_SESSIONS: RangeInclusive<u64> = 1..=1_000_000;
const MAX_BYTES: RangeInclusive<ByteSize> = ByteSize::mib(1)..=PIB;

const PIB: ByteSize = ByteSize::gib(1 << 20);

/// The keys of the registry as a program of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryFields {
    /// Where clients are served: an address, or a list of at most 64.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(schema_with = "one_or_many_schema::<ListenAddr>")]
    pub listen: Vec<ListenAddr>,
    /// The data directory.
    pub data: PathBuf,
    /// What an acknowledgement promises: that bytes and names survive a crash of the machine, or one of
    /// the program.
    pub durability: Durability,
    /// Whether every request that would change something is refused.
    pub read_only: bool,
    /// Whether manifests, tags and blobs may be deleted.
    pub delete: bool,
    /// The most bytes of a manifest. From 1KiB to 32MiB.
    pub manifest_limit: ByteSize,
    /// Whether a manifest is accepted whose blobs or children the repository does not hold.
    pub sparse_manifests: bool,
    /// The free space that uploads leave for manifests and other programs: so many bytes, and the same
    /// share of the inodes. From 0B to 1024TiB.
    pub reserve: ByteSize,
    /// The quota of uploads.
    pub uploads: UploadFields,
    /// The garbage collection.
    pub gc: GcFields,
    /// The scrub, which compares content with its digests.
    pub scrub: ScrubFields,
    /// The retention, which deletes tags and manifests by rules.
    pub retention: RetentionFields,
    /// The metrics endpoint.
    pub metrics: RegistryMetricsFields,
    /// What one client may take.
    pub limits: Limits,
    /// The log.
    pub logging: LogConfig,
    /// The sockets for an operator.
    pub control: ControlFields,
}

/// The keys of the storage: all that the embedded registry has, since the proxy has the sockets,
/// limits and log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StorageFields {
    /// The data directory.
    pub data: PathBuf,
    /// What an acknowledgement promises: that bytes and names survive a crash of the machine, or one of
    /// the program.
    pub durability: Durability,
    /// Whether every request that would change something is refused.
    pub read_only: bool,
    /// Whether manifests, tags and blobs may be deleted.
    pub delete: bool,
    /// The most bytes of a manifest. From 1KiB to 32MiB.
    pub manifest_limit: ByteSize,
    /// Whether a manifest is accepted whose blobs or children the repository does not hold.
    pub sparse_manifests: bool,
    /// The free space that uploads leave for manifests and other programs: so many bytes, and the same
    /// share of the inodes. From 0B to 1024TiB.
    pub reserve: ByteSize,
    /// The quota of uploads.
    pub uploads: UploadFields,
    /// The garbage collection.
    pub gc: GcFields,
    /// The scrub, which compares content with its digests.
    pub scrub: ScrubFields,
    /// The retention, which deletes tags and manifests by rules.
    pub retention: RetentionFields,
}

/// The keys of the quota of all uploads together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UploadFields {
    /// How long an idle session is kept; after that its upload must start anew. From 1s to 1year.
    pub expire: config::Duration,
    /// The most sessions open at a time; idle ones are evicted for new ones. From 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_sessions: u64,
    /// The most bytes that open sessions hold; null: as many as fit. From 1MiB to 1024TiB.
    pub max_bytes: Option<ByteSize>,
}

/// The keys of the metrics endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryMetricsFields {
    /// Whether anything is recorded, and served.
    pub enabled: bool,
    /// Where the metrics endpoint, `/livez` and `/readyz` are.
    pub listen: ListenFields,
    /// The path of the metrics endpoint: plain, and no endpoint of a registry or a probe. At most 255 bytes.
    pub path: String,
    /// Where the last exposition is written when the process ends, with the process's number for `%p`;
    /// null: nowhere.
    pub final_file: Option<PathBuf>,
    /// Who may scrape; null: everybody who reaches the listener.
    pub basic_auth: Option<BasicAuthFields>,
    /// The status page of the metrics listener.
    pub status_page: StatusPageFields,
    /// The labels that every sample carries beside its own, at most 32.
    pub labels: BTreeMap<String, String>,
}

impl Default for RegistryFields {
    fn default() -> Self {
        let storage = StorageFields::default();
        Self {
            // Loopback only: the registry asks its clients for no credentials.
            listen: vec![loopback(5000)],
            data: storage.data,
            durability: storage.durability,
            read_only: storage.read_only,
            delete: storage.delete,
            manifest_limit: storage.manifest_limit,
            sparse_manifests: storage.sparse_manifests,
            reserve: storage.reserve,
            uploads: storage.uploads,
            gc: storage.gc,
            scrub: storage.scrub,
            retention: storage.retention,
            metrics: RegistryMetricsFields::default(),
            limits: Limits::default(),
            logging: LogConfig::default(),
            control: ControlFields::default(),
        }
    }
}

impl Default for StorageFields {
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
            gc: GcFields::default(),
            scrub: ScrubFields::default(),
            retention: RetentionFields::default(),
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

impl StorageFields {
    /// Checks the values against their ranges.
    pub fn check(&self, checker: &Checker<'_>) -> Result<(), ConfigError> {
        // An empty path would put the store into the working directory, unnoticed.
        if self.data.as_os_str().is_empty() {
            return Err(checker.error("data", "a directory is needed"));
        }
        checker.range("manifest_limit", self.manifest_limit, &MANIFEST_LIMIT)?;
        checker.range("reserve", self.reserve, &RESERVE)?;
        self.uploads.check(&checker.section("uploads"))?;
        self.gc.check(&checker.section("gc"))?;
        self.scrub.check(&checker.section("scrub"))?;
        self.retention.check(&checker.section("retention"))
    }

    /// The options of the store.
    pub(crate) fn options(&self) -> StoreOptions {
        let max_bytes = self.uploads.max_bytes.map(ByteSize::get);
        StoreOptions {
            durability: self.durability,
            quota: UploadQuota {
                max_sessions: self.uploads.max_sessions,
                max_bytes: max_bytes.unwrap_or(u64::MAX),
                reserve: self.reserve.get(),
            },
            grace: self.gc.grace.get(),
        }
    }

    /// What the jobs are told.
    pub(crate) fn jobs(&self) -> JobSettings {
        JobSettings {
            gc_schedule: self.gc.schedule,
            grace: self.gc.grace.get(),
            untagged: self.gc.untagged.map(config::Duration::get),
            scrub_schedule: self.scrub.schedule,
            scrub_rate: self.scrub.rate.get(),
            retention_schedule: self.retention.schedule,
            retention: Arc::new(self.retention.settings(self.gc.grace.get())),
            read_only: self.read_only,
        }
    }
}

impl UploadFields {
    fn check(&self, checker: &Checker<'_>) -> Result<(), ConfigError> {
        checker.range("expire", self.expire, &EXPIRE)?;
        checker.range("max_sessions", self.max_sessions, &MAX_SESSIONS)?;
        match self.max_bytes {
            Some(bytes) => checker.range("max_bytes", bytes, &MAX_BYTES),
            None => Ok(()),
        }
    }
}

impl Default for RegistryMetricsFields {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: loopback(5001).into(),
            path: METRICS_PATH.to_owned(),
            final_file: None,
            basic_auth: None,
            status_page: StatusPageFields::default(),
            labels: BTreeMap::new(),
        }
    }
}

pub(super) fn loopback(port: u16) -> ListenAddr {
    ListenAddr::Tcp(([127, 0, 0, 1], port).into())
}
