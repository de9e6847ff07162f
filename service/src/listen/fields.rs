//! Addresses to listen on as people write them: one or a list, each a text or a table with its
//! keys.
//!
//! The visitors are written by hand: serde's untagged enums lose the path and the message of an
//! error.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::addr::ListenAddr;
use crate::config::{Checker, ConfigError, Origins};
use crate::tls::{Tls, TlsFields};

/// One address to listen on: `HOST:PORT` or `unix:/PATH`, alone or as the key
/// `address`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListenFields {
    /// `HOST:PORT` or `unix:/PATH`.
    pub address: ListenAddr,
    /// The certificate of a listener that speaks TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFields>,
}

/// The same with its keys.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListenTable {
    /// `HOST:PORT` or `unix:/PATH`.
    address: ListenAddr,
    /// The certificates of a listener that speaks TLS; null: plain HTTP. A reload applies them where it
    /// spoke TLS before.
    #[serde(default)]
    tls: Option<TlsFields>,
}

impl JsonSchema for ListenFields {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "listener".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let address = generator.subschema_for::<ListenAddr>();
        let table = generator.subschema_for::<ListenTable>();
        json_schema!({"anyOf": [address, table]})
    }
}

/// The schema of what [`one_or_many`] reads.
pub fn one_or_many_schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let address = generator.subschema_for::<ListenAddr>();
    let list = generator.subschema_for::<Vec<T>>();
    json_schema!({"anyOf": [address, list]})
}

impl ListenFields {
    /// This listener, which runs, with the certificates of another one at the same address. It stays as
    /// it is where there is none, or where one of the two has no TLS.
    #[must_use]
    pub fn with_certificates_of(&self, others: &[ListenFields], at: usize) -> ListenFields {
        let is_same = |other: &&ListenFields| {
            other.address == self.address && other.tls.is_some() == self.tls.is_some()
        };
        // Several may have port 0: then the place in the list tells them apart.
        let same = others.get(at).filter(is_same);
        same.or_else(|| others.iter().find(is_same))
            .unwrap_or(self)
            .clone()
    }

    /// The certificates, loaded, of the listener at `key`. `protocols` may be spoken inside TLS.
    pub fn load_tls(
        &self,
        key: &str,
        protocols: &'static [&'static [u8]],
        origins: &Origins,
    ) -> Result<Option<Tls>, ConfigError> {
        let Some(files) = &self.tls else {
            return Ok(None);
        };
        let loaded = Tls::load(files, protocols).map_err(|error| {
            // The key of the file that is wrong, so that the error names its line.
            let key = format!("{key}.tls.{}", error.key);
            origins.error(&key, &error.to_string())
        });
        loaded.map(Some)
    }
}

impl From<ListenAddr> for ListenFields {
    fn from(address: ListenAddr) -> Self {
        Self { address, tls: None }
    }
}

impl<'de> Deserialize<'de> for ListenFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListenFieldsVisitor)
    }
}

struct ListenFieldsVisitor;

impl<'de> Visitor<'de> for ListenFieldsVisitor {
    type Value = ListenFields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address such as 127.0.0.1:5000")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ListenFields, E> {
        let address: ListenAddr = text.parse().map_err(E::custom)?;
        Ok(address.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ListenFields, A::Error> {
        let ListenTable { address, tls } =
            // Derived: serde then refuses unknown keys, and names one that is missing.
            ListenTable::deserialize(MapAccessDeserializer::new(map))?;
        Ok(ListenFields { address, tls })
    }
}

/// The most listeners of a program.
const MOST: usize = 64;

/// Checks the addresses of `listen`, and that of `metrics.listen` where there is one: none hides
/// another.
pub fn check_addresses<'a>(
    listen: impl IntoIterator<Item = &'a ListenAddr>,
    metrics: Option<&'a ListenAddr>,
    origins: &Origins,
) -> Result<(), ConfigError> {
    let listen: Vec<_> = listen.into_iter().collect();
    let checker = Checker::new(origins, "");
    if listen.is_empty() {
        return Err(checker.error("listen", "at least one address is needed"));
    }
    // Before the comparison of each with each, whose cost is quadratic.
    checker.entries("listen", listen.len(), MOST)?;
    let keys = (0..listen.len()).map(|at| format!("listen[{at}]"));
    let mut named: Vec<_> = keys.zip(listen).collect();
    // Last: where it overlaps another address, the error names this key.
    named.extend(metrics.map(|address| ("metrics.listen".to_owned(), address)));
    for (at, (key, address)) in named.iter().enumerate() {
        if let Some((other, taken)) = named[..at].iter().find(|(_, one)| one.overlaps(address)) {
            let message = format!("{address} is taken by {other}, {taken}: choose another");
            return Err(checker.error(key, &message));
        }
    }
    Ok(())
}

/// An address, or a list of them, for serde's `deserialize_with`.
pub fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + From<ListenAddr>,
{
    deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + From<ListenAddr>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
        let address: ListenAddr = text.parse().map_err(E::custom)?;
        Ok(vec![address.into()])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut addresses = Vec::new();
        while let Some(address) = list.next_element()? {
            addresses.push(address);
        }
        Ok(addresses)
    }
}
