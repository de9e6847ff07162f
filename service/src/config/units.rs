//! Values that are written with a unit, and values that are not written at all.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::time;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::printable::printable;

/// A length of time, such as `5s`, `24h` or `1m 30s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(time::Duration);

impl Duration {
    /// A year as it is printed: 365.25 days.
    pub const YEAR: Self = Self::from_secs(31_557_600);

    /// That many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }

    /// The standard library's type.
    pub const fn get(self) -> time::Duration {
        self.0
    }
}

impl From<time::Duration> for Duration {
    fn from(duration: time::Duration) -> Self {
        Self(duration)
    }
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map(Self).map_err(|_| {
            let text = printable(text);
            format!("`{text}` is not a length of time such as 500ms, 5s or 24h")
        })
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time with its unit, such as 5s")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// A number of seconds, days and so on, as far as a pattern can say it.
const DURATION: &str = "^(0|([0-9]+ *(nsec|ns|usec|us|msec|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|hr|h|\
                        days?|d|weeks?|w|months?|M|years?|y) *)+)$";

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"title": "duration", "type": "string", "pattern": DURATION, "examples": ["500ms", "5s", "1h 30m"]})
    }
}

/// A [`std::time::Duration`] as a field, for serde's `with`.
pub mod duration {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::Duration;

    /// Writes the duration with its unit.
    pub fn serialize<S: Serializer>(
        duration: &std::time::Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Duration::from(*duration).serialize(serializer)
    }

    /// Reads a duration with its unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<std::time::Duration, D::Error> {
        Duration::deserialize(deserializer).map(Duration::get)
    }
}

/// A number of bytes, such as `64MiB`, `1.5GB`, or `4096` alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

// The largest first: `Display` takes the first that fits.
const UNITS: [(u64, &str); 5] = [
    (1 << 40, "TiB"),
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
    (1, "B"),
];

impl ByteSize {
    /// That many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// That many times 2²⁰ bytes.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// That many times 2³⁰ bytes.
    pub const fn gib(gib: u64) -> Self {
        Self(gib << 30)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    /// Exactly, in the largest unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each unit divides 0, which would print as `0TiB`.
        let fitting = UNITS
            .iter()
            .find(|(unit, _)| self.0 != 0 && self.0.is_multiple_of(*unit));
        let (unit, name) = fitting.unwrap_or(&(1, "B"));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|_| format!("`{text}` is not a size such as 64MiB, 1.5GB or 4096"))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;
        impl Visitor<'_> for Size {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 64MiB")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }

            // In YAML, a size without a unit is a number and not a text.
            fn visit_u64<E: Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }
        }
        deserializer.deserialize_any(Size)
    }
}

impl JsonSchema for ByteSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "size",
            "type": ["string", "integer"],
            "minimum": 0,
            "pattern": "^[0-9]+(\\.[0-9]+)? *([kKmMgGtTpP][iI]?)?[bB]?$",
            "examples": ["64MiB", "1.5GB", 4096],
        })
    }
}

/// A text that is never shown: it prints, in every way, as a mask.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

const MASK: &str = "********";

thread_local! {
    /// Whether secrets are serialized as they are.
    static REVEALED: Cell<bool> = const { Cell::new(false) };
}

/// Calls a function in which secrets are serialized as they are, to compare them. What it returns must
/// not be shown to anybody.
pub(super) fn revealed<T>(compare: impl FnOnce() -> T) -> T {
    struct Mask;
    impl Drop for Mask {
        fn drop(&mut self) {
            REVEALED.set(false);
        }
    }
    // Masked again after a panic, too: a runtime catches it, and goes on with the same thread.
    let _mask = Mask;
    REVEALED.set(true);
    compare()
}

impl Secret {
    /// Hides a text.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

// By hand: a derived one would show the text in logs and panics.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"title": "secret", "type": "string", "writeOnly": true})
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A configuration that is printed must not reveal it.
        let text = if REVEALED.get() { &self.0 } else { MASK };
        serializer.serialize_str(text)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Text {
            /// serde's own error would show the value.
            fn refused<E: Error>() -> E {
                E::custom("expected a text; put it in quotes")
            }
        }
        impl Visitor<'_> for Text {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret(text.to_owned()))
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<Secret, E> {
                Err(Self::refused())
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<Secret, E> {
                Err(Self::refused())
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<Secret, E> {
                Err(Self::refused())
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Secret, E> {
                Err(Self::refused())
            }
        }
        // The tree keeps no spelling: `1e3` is the number 1000 there. So only a text is accepted.
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back() {
        for bytes in [0, 1, 1023, 1024, 1500, 64 << 20, 3 << 40, u64::MAX >> 11] {
            let printed = ByteSize(bytes).to_string();
            assert_eq!(printed.parse(), Ok(ByteSize(bytes)), "{printed}");
        }
        for millis in [0, 1, 1500, 90_000, 86_400_000] {
            let duration = Duration(time::Duration::from_millis(millis));
            assert_eq!(duration.to_string().parse(), Ok(duration));
        }
    }

    #[test]
    fn sizes_are_printed_as_people_write_them() {
        let sizes = [
            ByteSize::mib(64),
            ByteSize::gib(1),
            ByteSize(1536),
            ByteSize(1000),
        ];
        assert_eq!(
            sizes.map(|size| size.to_string()),
            ["64MiB", "1GiB", "1536B", "1000B"]
        );
    }

    #[test]
    fn a_length_of_time_needs_its_unit() {
        assert!("5".parse::<Duration>().is_err());
        assert!("5 parsecs".parse::<Duration>().is_err());
        assert_eq!("1m30s".parse(), Ok(Duration::from_secs(90)));
    }

    #[test]
    fn a_secret_is_shown_by_nothing() {
        let secret = Secret::new("hunter2");
        let yaml = serde_yaml::to_string(&secret).unwrap();
        for shown in [format!("{secret}"), format!("{secret:?}"), yaml] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let error = serde_yaml::from_str::<Secret>("81549300")
            .unwrap_err()
            .to_string();
        assert!(!error.contains("81549300"), "{error}");
    }
}
