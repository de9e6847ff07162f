//! What a configuration says of an upstream's replicas.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::asked_as::AskedAs;
use super::session_tag::SessionKey;
use super::target::Target;

/// How requests are spread over the replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// To the replica with the fewest requests in flight.
    #[default]
    LeastConnections,
    /// To each in turn.
    RoundRobin,
}

/// One replica.
#[derive(Clone, Debug)]
pub struct ReplicaSettings {
    /// Its URL as it is configured: what the log calls it, and what a session's tag is made of.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// Whether it gets only the requests of the upload sessions that it has.
    pub is_draining: bool,
}

/// What all replicas of an upstream share.
#[derive(Clone, Debug)]
pub struct ReplicaRules {
    /// How they are asked.
    pub asked: AskedAs,
    /// How requests are spread over them.
    pub balance: Balance,
    /// How it is found out which of them are healthy.
    pub health: HealthRules,
    /// The most requests in flight to one of them.
    pub max_connections: usize,
    /// How requests wait where all have so many.
    pub queue: QueueRules,
    /// What binds upload sessions to replicas; `None`: a random key.
    pub session_key: Option<SessionKey>,
}

/// How replicas are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthRules {
    /// The path that is asked for.
    pub path: String,
    /// How often.
    pub interval: Duration,
    /// How long the response may take.
    pub timeout: Duration,
    /// How many successes in a row make a replica healthy again.
    pub rise: u32,
    /// How many failures in a row make it unhealthy.
    pub fall: u32,
}

/// How requests wait for a replica.
#[derive(Clone, Copy, Debug)]
pub struct QueueRules {
    /// How many of them.
    pub length: usize,
    /// How long.
    pub timeout: Duration,
}

impl Default for ReplicaRules {
    fn default() -> ReplicaRules {
        ReplicaRules {
            asked: AskedAs::default(),
            balance: Balance::default(),
            health: HealthRules::default(),
            max_connections: 1024,
            queue: QueueRules::default(),
            session_key: None,
        }
    }
}

impl Default for HealthRules {
    fn default() -> HealthRules {
        HealthRules {
            // What every registry answers: the specification's end-1.
            path: "/v2/".to_owned(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
        }
    }
}

impl Default for QueueRules {
    fn default() -> QueueRules {
        QueueRules {
            length: 256,
            timeout: Duration::from_secs(10),
        }
    }
}
