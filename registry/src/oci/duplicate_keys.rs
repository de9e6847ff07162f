//! Duplicate keys in JSON documents. `serde_json` accepts them and has no option to refuse them.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Checks that `bytes` is one JSON document in which no object, at any depth, has a key twice.
///
/// Parsers disagree on which of two values counts, so that a document with a duplicate key could be two
/// different manifests under one digest. The parser bounds the depth (at 128); the time is `n log n`.
pub(super) fn check(bytes: &[u8]) -> serde_json::Result<()> {
    serde_json::from_slice::<UniqueKeys>(bytes).map(|UniqueKeys| ())
}

/// Any JSON value without duplicate keys.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeysVisitor)
    }
}

struct UniqueKeysVisitor;

impl<'de> Visitor<'de> for UniqueKeysVisitor {
    type Value = UniqueKeys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueKeys, A::Error> {
        let mut keys = Vec::new();
        while let Some(ObjectKey(key)) = map.next_key::<ObjectKey<'de>>()? {
            // The parser has resolved the escapes: `"a"` and `"\u0061"` are one key.
            keys.push(key);
            map.next_value::<UniqueKeys>()?;
        }
        // Sorted rather than hashed: no choice of keys makes it slower than `n log n`.
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(A::Error::custom(format_args!(
                "duplicate key {:?}",
                pair[0]
            ))),
            None => Ok(UniqueKeys),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<UniqueKeys, A::Error> {
        while let Some(UniqueKeys) = seq.next_element()? {}
        Ok(UniqueKeys)
    }

    fn visit_bool<E>(self, _: bool) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_i64<E>(self, _: i64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_u64<E>(self, _: u64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_f64<E>(self, _: f64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_str<E>(self, _: &str) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_unit<E>(self) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }
}

/// An object's key. It borrows from the document unless it has escapes.
struct ObjectKey<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for ObjectKey<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ObjectKeyVisitor)
    }
}

struct ObjectKeyVisitor;

impl<'de> Visitor<'de> for ObjectKeyVisitor {
    type Value = ObjectKey<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<ObjectKey<'de>, E> {
        Ok(ObjectKey(Cow::Borrowed(key)))
    }

    fn visit_str<E>(self, key: &str) -> Result<ObjectKey<'de>, E> {
        // The parser reuses its buffer for the next text with escapes, so that this one is copied.
        Ok(ObjectKey(Cow::Owned(key.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::check;

    #[test]
    fn a_document_without_duplicates_is_accepted() {
        for document in [
            "{}",
            "null",
            "-1.5e3",
            r#"{"a":{"a":[{"a":true},{"a":"x"}]},"b":null}"#,
        ] {
            check(document.as_bytes()).unwrap();
        }
    }

    #[test]
    fn a_duplicate_key_is_rejected_at_any_depth() {
        for document in [
            r#"{"a":1,"a":1}"#,
            r#"{"x":[{"y":{"a":1,"b":2,"a":3}}]}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"":1,"":2}"#,
        ] {
            assert!(
                check(document.as_bytes())
                    .unwrap_err()
                    .to_string()
                    .contains("duplicate key")
            );
        }
        assert!(check(br#"{"a":1,"A":2}"#).is_ok());
    }

    #[test]
    fn anything_but_one_document_is_rejected() {
        for document in [
            &b""[..],
            b"{",
            b"{} {}",
            b"{}x",
            b"\xef\xbb\xbf{}",
            b"\"\xff\"",
            b"{\"a\":}",
            b"{'a':1}",
            b"[1,]",
        ] {
            assert!(check(document).is_err(), "{document:?}");
        }
        assert!(check(b" {} \n").is_ok());
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(check(nested(100).as_bytes()).is_ok());
        for depth in [129, 2_000_000] {
            assert!(check(nested(depth).as_bytes()).is_err());
            assert!(check(r#"{"a":"#.repeat(depth).as_bytes()).is_err());
        }
    }

    #[test]
    fn many_keys_take_no_quadratic_time() {
        let mut document = String::from("{");
        for key in 0..400_000 {
            write!(document, r#""{key}":0,"#).unwrap();
        }
        check(format!("{document}\"x\":0}}").as_bytes()).unwrap();
        check(format!("{document}\"7\":0}}").as_bytes()).unwrap_err();
    }
}
