//! The ranges of configured values.
//!
//! Each value has a range, named beside its key; this is the one place that compares and complains,
//! for both programs. A message names the key, where it was said, and the range.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::error::ConfigError;
use super::origin::Origins;

/// Checks the values of one section.
#[derive(Clone, Debug)]
pub struct Checker<'a> {
    origins: &'a Origins,
    section: String,
}

impl<'a> Checker<'a> {
    /// For the keys of a section, such as `metrics.aggregate`; the empty one is the whole file.
    pub fn new(origins: &'a Origins, section: &str) -> Self {
        Self {
            origins,
            section: section.to_owned(),
        }
    }

    /// For the keys of a section within this one.
    #[must_use]
    pub fn section(&self, name: &str) -> Self {
        Self::new(self.origins, &self.path(name))
    }

    /// Fails unless a value lies in its range, both ends included.
    pub fn range<T>(
        &self,
        key: &str,
        value: T,
        range: &RangeInclusive<T>,
    ) -> Result<(), ConfigError>
    where
        T: Copy + PartialOrd + Display,
    {
        // NaN is in no range, so it fails here, too.
        if range.contains(&value) {
            return Ok(());
        }
        let message = format!(
            "must be from {} to {}, not {value}",
            range.start(),
            range.end()
        );
        Err(self.error(key, &message))
    }

    /// Fails unless a text has 1 to `most` bytes and no control character.
    pub fn text(&self, key: &str, text: &str, most: usize) -> Result<(), ConfigError> {
        if !(1..=most).contains(&text.len()) {
            let message = format!("must be from 1 to {most} bytes long, not {}", text.len());
            return Err(self.error(key, &message));
        }
        if text.contains(char::is_control) {
            return Err(self.error(key, "must not hold a control character"));
        }
        Ok(())
    }

    /// Fails if a list has more than `most` entries.
    pub fn entries(&self, key: &str, count: usize, most: usize) -> Result<(), ConfigError> {
        if count <= most {
            return Ok(());
        }
        let message = format!("must have at most {most} entries, not {count}");
        Err(self.error(key, &message))
    }

    /// An error about a key of the section.
    pub fn error(&self, key: &str, message: &str) -> ConfigError {
        self.origins.error(&self.path(key), message)
    }

    fn path(&self, key: &str) -> String {
        match (self.section.as_str(), key) {
            ("", key) => key.to_owned(),
            (section, "") => section.to_owned(),
            (section, key) => format!("{section}.{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ByteSize, Duration};

    fn message(result: Result<(), ConfigError>) -> String {
        result
            .err()
            .map_or(String::new(), |error| error.to_string())
    }

    #[test]
    fn a_value_outside_its_range_is_refused_with_its_key_and_the_range() {
        let origins = Origins::default();
        let limits = Checker::new(&origins, "limits");
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(3600));
        for inside in [least, most] {
            assert_eq!(message(limits.range("idle", inside, &(least..=most))), "");
        }
        let nothing = Duration::from_secs(0);
        assert_eq!(
            message(limits.range("idle", nothing, &(least..=most))),
            "limits.idle: must be from 1s to 1h, not 0s"
        );
        let sizes = ByteSize::mib(1)..=ByteSize::gib(1);
        assert_eq!(
            message(limits.section("a").range("b", ByteSize::gib(2), &sizes)),
            "limits.a.b: must be from 1MiB to 1GiB, not 2GiB"
        );
        let whole = Checker::new(&origins, "");
        for outside in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            let error = message(whole.range("sample", outside, &(0.0..=1.0)));
            assert!(error.starts_with("sample: must be from 0 to 1"), "{error}");
        }
    }

    #[test]
    fn a_text_is_neither_empty_nor_long_nor_full_of_control_characters() {
        let origins = Origins::default();
        let checker = Checker::new(&origins, "");
        assert_eq!(message(checker.text("name", "main", 4)), "");
        for (text, error) in [
            ("", "name: must be from 1 to 4 bytes long, not 0"),
            ("mains", "name: must be from 1 to 4 bytes long, not 5"),
            ("a\n", "name: must not hold a control character"),
        ] {
            assert_eq!(message(checker.text("name", text, 4)), error);
        }
        assert_eq!(
            message(checker.entries("listen", 5, 4)),
            "listen: must have at most 4 entries, not 5"
        );
    }
}
