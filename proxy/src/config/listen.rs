//! The addresses to listen on, as people write them: one, or a list, each a text or a table.

use std::fmt;

use registry::service::listen::ListenAddr;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// One address to listen on: `HOST:PORT` or `unix:/PATH`, alone or as the key `address`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListenFields {
    /// `HOST:PORT` or `unix:/PATH`.
    pub address: ListenAddr,
}

/// The same with its keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    address: ListenAddr,
}

impl<'de> Deserialize<'de> for ListenFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(One)
    }
}

/// An address, or a list of them.
pub(super) fn one_or_many<'de, D>(deserializer: D) -> Result<Vec<ListenFields>, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(Many)
}

struct One;

impl<'de> Visitor<'de> for One {
    type Value = ListenFields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address such as 127.0.0.1:5000")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ListenFields, E> {
        let address = text.parse().map_err(E::custom)?;
        Ok(ListenFields { address })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ListenFields, A::Error> {
        let Table { address } = Table::deserialize(MapAccessDeserializer::new(map))?;
        Ok(ListenFields { address })
    }
}

struct Many;

impl<'de> Visitor<'de> for Many {
    type Value = Vec<ListenFields>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(vec![One.visit_str(text)?])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut addresses = Vec::new();
        while let Some(address) = list.next_element()? {
            addresses.push(address);
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use registry::service::config::{Sources, load};

    use crate::config::Fields;

    fn listen(value: &str) -> Result<Vec<String>, String> {
        let sources = Sources {
            env: vec![("OCTOSERVE_LISTEN".to_owned(), value.to_owned())],
            ..Sources::default()
        };
        let fields: Fields = load(sources).map_err(|error| error.to_string())?;
        let addresses = fields.listen.into_iter();
        Ok(addresses.map(|listen| listen.address.to_string()).collect())
    }

    #[test]
    fn an_address_is_written_alone_in_a_list_or_in_a_table() {
        for (text, addresses) in [
            ("1.2.3.4:5", &["1.2.3.4:5"][..]),
            ("[::1]:5", &["[::1]:5"]),
            ("['1.2.3.4:5', 'unix:/x']", &["1.2.3.4:5", "unix:/x"]),
            (
                "[{address: '1.2.3.4:5'}, '[::1]:6']",
                &["1.2.3.4:5", "[::1]:6"],
            ),
        ] {
            assert_eq!(listen(text).unwrap(), addresses, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_told_with_the_variable() {
        for (text, place) in [
            ("nowhere", "OCTOSERVE_LISTEN: listen: `nowhere`"),
            (
                "[{address: nowhere}]",
                "OCTOSERVE_LISTEN: listen[0].address: `nowhere`",
            ),
            ("[nowhere]", "OCTOSERVE_LISTEN: listen[0]: `nowhere`"),
            (
                "[{adress: x}]",
                "OCTOSERVE_LISTEN: listen[0].adress: unknown key",
            ),
        ] {
            let error = listen(text).unwrap_err();
            assert!(error.starts_with(place), "{text}: {error}");
        }
    }
}
