//! The replicas of an upstream as people write them.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use service::config;

use crate::upstream::{HealthRules, QueueRules};

/// One replica: its URL alone, or a table with its keys.
#[derive(Clone, Debug)]
pub struct ReplicaFields {
    /// `http://HOST[:PORT]` or `unix:/PATH`.
    pub url: String,
    /// Whether it gets only the requests of the upload sessions that it has.
    pub drain: bool,
}

/// The same with its keys.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReplicaTable {
    /// `http[s]://HOST[:PORT]`, with a path where the registry is below one, or `unix:/PATH`.
    url: String,
    /// Whether it gets only the requests of the upload sessions that it has.
    #[serde(default)]
    drain: bool,
}

/// How replicas are probed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthFields {
    /// The path that is asked for. At most 255 bytes.
    pub path: String,
    /// How often a replica is probed. From 1s to 1h.
    pub interval: config::Duration,
    /// How long the response to a probe may take. From 1s to 5m.
    pub timeout: config::Duration,
    /// How many successes in a row make a replica healthy again. From 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub rise: u32,
    /// How many failures in a row make a replica unhealthy. From 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub fall: u32,
}

/// How requests wait for a replica.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueueFields {
    /// How many requests wait at most. From 0 to 100000.
    #[schemars(range(min = 0, max = 100_000))]
    pub length: usize,
    /// How long a request waits at most. From 1s to 1h.
    pub timeout: config::Duration,
}

impl Default for HealthFields {
    fn default() -> HealthFields {
        let rules = HealthRules::default();
        HealthFields {
            path: rules.path,
            interval: rules.interval.into(),
            timeout: rules.timeout.into(),
            rise: rules.rise,
            fall: rules.fall,
        }
    }
}

impl Default for QueueFields {
    fn default() -> QueueFields {
        let rules = QueueRules::default();
        QueueFields {
            length: rules.length,
            timeout: rules.timeout.into(),
        }
    }
}

impl JsonSchema for ReplicaFields {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "replica".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<ReplicaTable>();
        let url =
            json_schema!({"title": "URL", "type": "string", "examples": ["http://registry:5000"]});
        json_schema!({"anyOf": [url, table]})
    }
}

impl Serialize for ReplicaFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let table = ReplicaTable {
            url: self.url.clone(),
            drain: self.drain,
        };
        if self.drain {
            table.serialize(serializer)
        } else {
            self.url.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for ReplicaFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ReplicaFields, D::Error> {
        deserializer.deserialize_any(ReplicaFieldsVisitor)
    }
}

/// By hand: serde's untagged enums lose the path and the message of an error.
struct ReplicaFieldsVisitor;

impl<'de> Visitor<'de> for ReplicaFieldsVisitor {
    type Value = ReplicaFields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL such as http://registry:5000")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ReplicaFields, E> {
        Ok(ReplicaFields {
            url: text.to_owned(),
            drain: false,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ReplicaFields, A::Error> {
        let ReplicaTable { url, drain } =
            ReplicaTable::deserialize(MapAccessDeserializer::new(map))?;
        Ok(ReplicaFields { url, drain })
    }
}
