//! What one client may take of a server: the section `limits` of both programs.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::config::{self, Checker, ConfigError, duration};
use super::connection::ConnectionTimeouts;

const CONNECTIONS: RangeInclusive<usize> = 1..=1_000_000;
const TIMEOUT: RangeInclusive<u64> = 1..=60 * 60;
const IDLE: RangeInclusive<u64> = 1..=24 * 60 * 60;
const DRAIN: RangeInclusive<u64> = 0..=24 * 60 * 60;

/// The limits, with their defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections served at a time, over all listeners for clients. For one more, the connection
    /// that has been idle longest is closed. While each has a request in flight, the proxy closes
    /// the new one and the registry lets it wait.
    pub connections: usize,
    /// HTTP/2 requests in flight at a time, over all connections, of which one may have many. For one
    /// more, the proxy refuses the stream, which the client may then send again, and the registry lets it
    /// wait.
    pub streams: usize,
    /// How long a request's headers may take, from the first byte; at the proxy also from the start
    /// of a connection.
    #[serde(with = "duration")]
    pub header_timeout: Duration,
    /// How long a connection without requests is kept.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// How long a body may stall, in either direction.
    #[serde(with = "duration")]
    pub body_stall: Duration,
    /// How long a shutdown waits for requests in flight.
    #[serde(with = "duration")]
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
