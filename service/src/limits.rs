//! What one client may take of a server: the section `limits` of both programs.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::config::{self, Checker, ConfigError};

const CONNECTIONS: RangeInclusive<usize> = 1..=1_000_000;
/// pingora counts whole seconds, of which none would mean for ever.
const TIMEOUT: RangeInclusive<config::Duration> = seconds(1)..=seconds(60 * 60);
const IDLE: RangeInclusive<config::Duration> = seconds(1)..=seconds(24 * 60 * 60);
const DRAIN: RangeInclusive<config::Duration> = seconds(0)..=seconds(24 * 60 * 60);

/// The keys, with their defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitFields {
    /// Connections served at a time. For one more, the one that has been idle longest is closed; while
    /// each has a request in flight, the proxy closes the new one and the registry lets it wait.
    pub connections: usize,
    /// How long a request's headers may take, from the first byte; at the proxy also from the start
    /// of a connection.
    pub header_timeout: config::Duration,
    /// How long a connection without requests is kept.
    pub idle_timeout: config::Duration,
    /// How long a body may stand still, in either direction.
    pub body_stall: config::Duration,
    /// How long a shutdown waits for requests in flight.
    pub drain: config::Duration,
}

/// What one client may take, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections served at a time, over all listeners for clients.
    pub connections: usize,
    /// How long a request's headers may take.
    pub header_timeout: Duration,
    /// How long a connection without requests is kept.
    pub idle_timeout: Duration,
    /// How long a body may stand still, in either direction.
    pub body_stall: Duration,
    /// How long a shutdown waits for requests in flight.
    pub drain: Duration,
}

impl Default for LimitFields {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_timeout: seconds(15),
            idle_timeout: seconds(75),
            body_stall: seconds(60),
            drain: seconds(30),
        }
    }
}

impl LimitFields {
    /// Checks the values against their ranges.
    pub fn resolve(&self, checker: &Checker<'_>) -> Result<Limits, ConfigError> {
        checker.range("connections", self.connections, &CONNECTIONS)?;
        checker.range("header_timeout", self.header_timeout, &TIMEOUT)?;
        checker.range("idle_timeout", self.idle_timeout, &IDLE)?;
        checker.range("body_stall", self.body_stall, &TIMEOUT)?;
        checker.range("drain", self.drain, &DRAIN)?;
        Ok(Limits {
            connections: self.connections,
            header_timeout: self.header_timeout.get(),
            idle_timeout: self.idle_timeout.get(),
            body_stall: self.body_stall.get(),
            drain: self.drain.get(),
        })
    }
}

const fn seconds(seconds: u64) -> config::Duration {
    config::Duration::from_secs(seconds)
}
