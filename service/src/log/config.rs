//! The section `logging` of a configuration.

use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;

use crate::config::{Checker, ConfigError};

/// What is logged, and how: the section `logging` of a configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The least important level that is logged.
    pub level: Level,
    /// How events are written.
    pub format: LogFormat,
    /// Whether requests are logged.
    pub access: bool,
    /// Which part of the requests is logged, from 0 to 1.
    pub sample: f64,
}

impl LogConfig {
    /// Checks the values against their ranges.
    pub fn check(&self, checker: &Checker<'_>) -> Result<(), ConfigError> {
        checker.range("sample", self.sample, &(0.0..=1.0))
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: Level::Info,
            format: LogFormat::Auto,
            access: true,
            sample: 1.0,
        }
    }
}

/// A level of importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing at all.
    Off,
    /// What somebody must look at.
    Error,
    /// What somebody should look at.
    Warn,
    /// What happens.
    Info,
    /// What is needed to find a mistake.
    Debug,
    /// Everything.
    Trace,
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// One line of text for each event.
    Text,
    /// One JSON object a line for each event.
    Json,
}

impl Level {
    pub(super) fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}
