//! The keys of the maintenance jobs.

use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::config::{self, ByteSize, Checker, ConfigError};

use crate::maintenance::Schedule;

const GRACE: RangeInclusive<config::Duration> =
    config::Duration::from_secs(0)..=config::Duration::YEAR;
const RATE: RangeInclusive<ByteSize> = ByteSize::bytes(64 << 10)..=ByteSize::gib(1 << 10);

/// The keys of the garbage collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GcFields {
    /// When it runs by itself: a length of time after the last run, from 1s to 1year, or a time of day in
    /// UTC, such as `"03:00"`; null: never.
    pub schedule: Option<Schedule>,
    /// For how long it keeps what a client pushed or was told of, though no manifest needs it. From 0s to
    /// 1year.
    pub grace: config::Duration,
    /// After how long it removes manifests that no tag leads to; null: never. From 0s to 1year.
    pub untagged: Option<config::Duration>,
}

/// The keys of the scrub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScrubFields {
    /// When it runs by itself: a length of time after the last run, from 1s to 1year, or a time of day in
    /// UTC, such as `"03:00"`; null: never.
    pub schedule: Option<Schedule>,
    /// The most bytes that it reads in a second while the registry serves. From 64KiB to 1TiB.
    pub rate: ByteSize,
}

impl Default for GcFields {
    fn default() -> Self {
        Self {
            schedule: None,
            grace: config::Duration::from_secs(24 * 60 * 60),
            untagged: None,
        }
    }
}

impl Default for ScrubFields {
    fn default() -> Self {
        Self {
            schedule: None,
            rate: ByteSize::mib(50),
        }
    }
}

impl GcFields {
    pub(super) fn check(&self, checker: &Checker<'_>) -> Result<(), ConfigError> {
        checker.range("grace", self.grace, &GRACE)?;
        match self.untagged {
            Some(time) => checker.range("untagged", time, &GRACE),
            None => Ok(()),
        }
    }
}

impl ScrubFields {
    pub(super) fn check(&self, checker: &Checker<'_>) -> Result<(), ConfigError> {
        checker.range("rate", self.rate, &RATE)
    }
}
