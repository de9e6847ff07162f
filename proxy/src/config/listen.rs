//! The addresses to listen on, as people write them: one, or a list.

use std::fmt;

use registry::service::listen::{ListenAddr, ListenFields};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// An address, or a list of them.
pub(super) fn one_or_many<'de, D>(deserializer: D) -> Result<Vec<ListenFields>, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(Many)
}

struct Many;

impl<'de> Visitor<'de> for Many {
    type Value = Vec<ListenFields>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let address: ListenAddr = text.parse().map_err(E::custom)?;
        Ok(vec![address.into()])
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
