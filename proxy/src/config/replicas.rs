//! What the keys of an upstream's replicas mean, and which values they may have.

use std::ops::RangeInclusive;
use std::path::Path;

use service::config::{self, Checker, ConfigError};
use service::small_file;

use super::fields::UpstreamFields;
use super::reach;
use super::replica_fields::ReplicaFields;
use crate::upstream::{
    AskedAs, HealthRules, MAX_REPLICAS, QueueRules, ReplicaRules, ReplicaSettings, SHORTEST_KEY,
    SessionKey, Target, TargetError,
};

const INTERVAL: RangeInclusive<config::Duration> =
    config::Duration::from_secs(1)..=config::Duration::from_secs(60 * 60);
const PROBE_TIMEOUT: RangeInclusive<config::Duration> =
    config::Duration::from_secs(1)..=config::Duration::from_secs(5 * 60);
const CHECKS: RangeInclusive<u32> = 1..=100;
const MAX_CONNECTIONS: RangeInclusive<usize> = 1..=1_000_000;
/// Each request that waits holds its client's connection.
const QUEUE_LENGTH: RangeInclusive<usize> = 0..=100_000;
const QUEUE_TIMEOUT: RangeInclusive<config::Duration> =
    config::Duration::from_secs(1)..=config::Duration::from_secs(60 * 60);
const LONGEST_PATH: usize = 255;

/// The replicas of an upstream.
pub(super) fn resolve_replicas(
    replicas: &[ReplicaFields],
    checker: &Checker<'_>,
) -> Result<Vec<ReplicaSettings>, ConfigError> {
    if replicas.is_empty() {
        return Err(checker.error("replicas", "at least one replica is needed"));
    }
    checker.entries("replicas", replicas.len(), MAX_REPLICAS)?;
    let mut resolved: Vec<ReplicaSettings> = Vec::with_capacity(replicas.len());
    for (at, replica) in replicas.iter().enumerate() {
        let error = |message: &str| checker.error(&format!("replicas[{at}]"), message);
        let target: Target = replica
            .url
            .parse()
            .map_err(|why: TargetError| error(&why.to_string()))?;
        if let Some(same) = resolved.iter().position(|other| other.target == target) {
            return Err(error(&format!("is the same as replicas[{same}]")));
        }
        // A path in a response is that of any replica.
        let first = resolved.first().map_or(&target, |first| &first.target);
        if first.prefix() != target.prefix() {
            return Err(error("must have the same path as replicas[0]"));
        }
        resolved.push(ReplicaSettings {
            name: replica.url.clone(),
            target,
            is_draining: replica.drain,
        });
    }
    if resolved.iter().all(|replica| replica.is_draining) {
        let message = "all replicas drain: at least one must take new requests";
        return Err(checker.error("replicas", message));
    }
    Ok(resolved)
}

/// What the replicas of an upstream share.
pub(super) fn resolve_rules(
    upstream: &UpstreamFields,
    checker: &Checker<'_>,
) -> Result<ReplicaRules, ConfigError> {
    let (health, queue) = (&upstream.health, &upstream.queue);
    let section = checker.section("health");
    section.text("path", &health.path, LONGEST_PATH)?;
    let is_path = health.path.starts_with('/') && health.path.bytes().all(|c| c.is_ascii_graphic());
    if !is_path || health.path.contains('#') {
        return Err(section.error("path", "must be a path such as /v2/"));
    }
    section.range("interval", health.interval, &INTERVAL)?;
    section.range("timeout", health.timeout, &PROBE_TIMEOUT)?;
    section.range("rise", health.rise, &CHECKS)?;
    section.range("fall", health.fall, &CHECKS)?;
    checker.range(
        "max_connections",
        upstream.max_connections,
        &MAX_CONNECTIONS,
    )?;
    let section = checker.section("queue");
    section.range("length", queue.length, &QUEUE_LENGTH)?;
    section.range("timeout", queue.timeout, &QUEUE_TIMEOUT)?;
    Ok(ReplicaRules {
        asked: AskedAs {
            host: reach::host(&upstream.host, checker)?,
            // Loaded with those of the other servers.
            tls: None,
        },
        balance: upstream.balance,
        health: HealthRules {
            path: health.path.clone(),
            interval: health.interval.get(),
            timeout: health.timeout.get(),
            rise: health.rise,
            fall: health.fall,
        },
        max_connections: upstream.max_connections,
        queue: QueueRules {
            length: queue.length,
            timeout: queue.timeout.get(),
        },
        session_key: session_key(upstream.session_key_file.as_deref(), checker)?,
    })
}

/// The key in a file, without the white space around it. No message says what the file holds.
fn session_key(
    path: Option<&Path>,
    checker: &Checker<'_>,
) -> Result<Option<SessionKey>, ConfigError> {
    let Some(path) = path else {
        return Ok(None);
    };
    let error = |message: String| checker.error("session_key_file", &message);
    let file = path.display();
    let bytes = small_file::read(path).map_err(|why| {
        let mend = small_file::mend(&why);
        error(format!("cannot read {file}: {why}{mend}"))
    })?;
    let key = SessionKey::new(bytes.trim_ascii());
    let too_short = || {
        error(format!(
            "the key in {file} must be at least {SHORTEST_KEY} bytes long"
        ))
    };
    key.map(Some).ok_or_else(too_short)
}
