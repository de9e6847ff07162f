//! What one client may take of a server: the section `limits` of both programs.

use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::{self, Checker, ConfigError, duration};
use super::connection::ConnectionTimeouts;

const CONNECTIONS: RangeInclusive<usize> = 1..=1_000_000;
const TIMEOUT: RangeInclusive<u64> = 1..=60 * 60;
const IDLE: RangeInclusive<u64> = 1..=24 * 60 * 60;
const DRAIN: RangeInclusive<u64> = 0..=24 * 60 * 60;

/// The limits, with their defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The most connections of clients at a time, over all listeners. One more replaces the one that has
    /// been idle longest; if all have a request in flight, the proxy closes the new one, and the registry
    /// makes it wait. From 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: usize,
    /// The most HTTP/2 requests in flight at a time, over all connections. For one more, the proxy refuses
    /// the stream, which the client may send again, and the registry makes it wait. From 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub streams: usize,
    /// How long a request's headers may take, from the first byte; at the proxy also from the start
    /// of a connection. From 1s to 1h.
    #[serde(with = "duration")]
    #[schemars(with = "config::Duration")]
    pub header_timeout: Duration,
    /// How long a connection without requests is kept. From 1s to 1day.
    #[serde(with = "duration")]
    #[schemars(with = "config::Duration")]
    pub idle_timeout: Duration,
    /// How long a body may stall, in either direction. From 1s to 1h.
    #[serde(with = "duration")]
    #[schemars(with = "config::Duration")]
    pub body_stall: Duration,
    /// How long a shutdown waits for requests in flight. From 0s to 1day.
    #[serde(with = "duration")]
    #[schemars(with = "config::Duration")]
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            streams: 2_000,
            header_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            body_stall: Duration::from_mins(1),
            drain: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// Checks the values against their ranges.
    pub fn check(&self, checker: &Checker<'_>) -> Result<(), ConfigError> {
        checker.range("connections", self.connections, &CONNECTIONS)?;
        checker.range("streams", self.streams, &CONNECTIONS)?;
        let seconds = |key, value: Duration, range: &RangeInclusive<u64>| {
            let [start, end] =
                [range.start(), range.end()].map(|&s| config::Duration::from_secs(s));
            checker.range(key, config::Duration::from(value), &(start..=end))
        };
        seconds("header_timeout", self.header_timeout, &TIMEOUT)?;
        seconds("idle_timeout", self.idle_timeout, &IDLE)?;
        seconds("body_stall", self.body_stall, &TIMEOUT)?;
        seconds("drain", self.drain, &DRAIN)
    }

    /// The time limits of one connection.
    pub fn timeouts(&self) -> ConnectionTimeouts {
        ConnectionTimeouts {
            header: self.header_timeout,
            idle: self.idle_timeout,
            stall: self.body_stall,
        }
    }
}
