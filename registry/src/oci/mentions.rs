//! The digests that a manifest mentions, wherever they are.
//!
//! What a manifest needs is more than what a registry checks when it is pushed: layers that are not
//! distributed may have been pushed all the same, and other programs know fields that this one does not.
//! So who asks what may be removed asks for all of them.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Digest;

/// Calls `visit` with each digest that a JSON document mentions, at any depth, but for those in its own
/// field `subject`: a manifest does not keep its subject.
///
/// # Errors
/// If it is no JSON document, or nested too deep (at 128).
pub fn mentioned_digests(bytes: &[u8], mut visit: impl FnMut(Digest)) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let mentions = Mentions {
        visit: &mut visit,
        is_top: true,
    };
    mentions.deserialize(&mut deserializer)?;
    deserializer.end()
}

struct Mentions<'v, V> {
    visit: &'v mut V,
    is_top: bool,
}

impl<V: FnMut(Digest)> Mentions<'_, V> {
    fn text(&mut self, text: &str) {
        if let Ok(digest) = Digest::parse(text) {
            (self.visit)(digest);
        }
    }

    fn below(&mut self) -> Mentions<'_, V> {
        Mentions {
            visit: self.visit,
            is_top: false,
        }
    }
}

impl<'de, V: FnMut(Digest)> DeserializeSeed<'de> for Mentions<'_, V> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, V: FnMut(Digest)> Visitor<'de> for Mentions<'_, V> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            self.text(&key);
            if self.is_top && key == "subject" {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(self.below())?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(()) = seq.next_element_seed(self.below())? {}
        Ok(())
    }

    fn visit_str<E>(mut self, text: &str) -> Result<(), E> {
        self.text(text);
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oci::Algorithm;

    fn mentioned(text: &str) -> Option<Vec<Digest>> {
        let mut found = Vec::new();
        mentioned_digests(text.as_bytes(), |digest| found.push(digest)).ok()?;
        Some(found)
    }

    #[test]
    fn all_are_found_but_those_of_the_subject() {
        let digest = |n: u8| Digest::of(Algorithm::Sha256, &[n]);
        let text = serde_json::json!({
            "config": {"digest": digest(0), "size": 1},
            "layers": [{"digest": digest(1), "subject": digest(2)}],
            "subject": {"digest": digest(9), "data": [digest(9)]},
            "annotations": {"x": digest(3), digest(4).as_str(): true},
            "n": [null, 1, -1, 1.5, "sha256:00"],
        });
        let mut found = mentioned(&text.to_string()).unwrap();
        let mut expected: Vec<_> = (0..5).map(digest).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_document_is_an_error() {
        for text in ["", "{", "{}x", "{}{}", "[1,", &"[".repeat(200)] {
            assert_eq!(mentioned(text), None, "{text}");
        }
        assert_eq!(mentioned("null"), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = mentioned_digests(&bytes, |_| ());
        }
    }
}
