//! The section `logging` of a configuration.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tracing::level_filters::LevelFilter;

use crate::config::{Checker, ConfigError, Duration};

/// What is logged, and how: the section `logging` of a configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The least important level that is logged.
    pub level: Level,
    /// How events are written: `auto` is text at a terminal, else JSON.
    pub format: LogFormat,
    /// Whether requests are logged: the access log.
    pub access: bool,
    /// How requests are written: as everything else, or in the Common Log Format.
    pub access_format: AccessFormat,
    /// Which requests are logged: those that one of the keys chooses, and those that were cut off. All by
    /// default.
    pub access_filter: AccessFilterFields,
    /// Which part of the requests is logged. Failures are logged in any case. From 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: f64,
    /// How much of a client's address is logged.
    pub address: LoggedAddress,
    /// Whether the names of users are logged.
    pub user: bool,
}

/// Which requests are logged: those that one of the keys chooses, and those that were cut off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessFilterFields {
    /// Requests with one of these statuses. If there are none, and a duration, every failure. From 100 to
    /// 599, or a class such as 5xx.
    pub status: Vec<StatusRange>,
    /// Requests that took at least so long; null: none.
    pub min_duration: Option<Duration>,
}

/// How requests are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessFormat {
    /// As everything else is.
    Same,
    /// In the Common Log Format, which has few of the fields.
    Clf,
}

/// How much of a client's address is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LoggedAddress {
    /// All of it.
    Full,
    /// The first 24 bits of an IPv4 address, the first 48 of an IPv6 address.
    Network,
    /// Nothing.
    Off,
}

/// One status, such as `404`, or all of a class, such as `5xx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    /// The lowest status.
    pub first: u16,
    /// The highest one.
    pub last: u16,
}

impl LogConfig {
    /// Checks the values against their ranges.
    pub fn check(&self, checker: &Checker<'_>) -> Result<(), ConfigError> {
        checker.range("sample", self.sample, &(0.0..=1.0))?;
        let filter = checker.section("access_filter");
        filter.entries("status", self.access_filter.status.len(), MAX_STATUSES)
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: Level::Info,
            format: LogFormat::Auto,
            access: true,
            access_format: AccessFormat::Same,
            access_filter: AccessFilterFields::default(),
            sample: 1.0,
            address: LoggedAddress::Full,
            // It is a hint, and personal data.
            user: false,
        }
    }
}

/// The most entries of a list of statuses: each status there is.
const MAX_STATUSES: usize = 500;

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}xx", self.first / 100)
        }
    }
}

impl FromStr for StatusRange {
    type Err = String;

    fn from_str(text: &str) -> Result<StatusRange, String> {
        let (first, last) = match text.strip_suffix("xx") {
            Some(class) if class.len() == 1 => {
                let class: u16 = class.parse().unwrap_or_default();
                (class * 100, class * 100 + 99)
            }
            _ => {
                let status = text.parse().unwrap_or_default();
                (status, status)
            }
        };
        if (100..600).contains(&first) {
            Ok(StatusRange { first, last })
        } else {
            Err(format!("`{text}` is no status such as 404 or 5xx"))
        }
    }
}

impl JsonSchema for StatusRange {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "status".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "status",
            "type": ["string", "integer"],
            "minimum": 100,
            "maximum": 599,
            "pattern": "^[1-5]([0-9][0-9]|xx)$",
        })
    }
}

impl Serialize for StatusRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StatusRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StatusRange, D::Error> {
        struct StatusVisitor;
        impl Visitor<'_> for StatusVisitor {
            type Value = StatusRange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status such as 404 or 5xx")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<StatusRange, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, status: u64) -> Result<StatusRange, E> {
                self.visit_str(&status.to_string())
            }
        }
        deserializer.deserialize_any(StatusVisitor)
    }
}

/// A level of importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_number_or_a_class() {
        for (text, first, last) in [("404", 404, 404), ("5xx", 500, 599), ("100", 100, 100)] {
            let range: StatusRange = text.parse().unwrap();
            assert_eq!((range.first, range.last), (first, last), "{text}");
            assert_eq!(range.to_string(), text);
        }
        for text in [
            "", "xx", "0xx", "6xx", "55xx", "99", "600", "4x", "-1", "5XX", "ok",
        ] {
            assert!(text.parse::<StatusRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_section_is_read_and_printed() {
        let text = "{access_format: clf, address: network, user: true, \
                    access_filter: {status: [4xx, 503, '499'], min_duration: 1s}}";
        let config: LogConfig = serde_yaml::from_str(text).unwrap();
        assert_eq!(config.access_filter.status.len(), 3);
        let printed = serde_yaml::to_string(&config).unwrap();
        assert_eq!(serde_yaml::from_str::<LogConfig>(&printed).unwrap(), config);
        for wrong in [
            "access_filter: {status: [700]}",
            "access_filter: {duration: 1s}",
            "address: some",
            "access_format: apache",
        ] {
            assert!(serde_yaml::from_str::<LogConfig>(wrong).is_err(), "{wrong}");
        }
    }
}
