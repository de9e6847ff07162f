//! Where a configured value comes from: file and line, variable or flag.

use std::cell::Cell;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_yaml::Value;

use super::error::ConfigError;
use super::files::ConfigFile;
use super::path_step::PathStep;

/// Where the values of a configuration come from.
#[derive(Debug, Default)]
pub struct Origins {
    /// In ascending precedence, too.
    pub(super) files: Vec<ConfigFile>,
    /// In ascending precedence.
    pub(super) overlays: Vec<Overlay>,
}

/// A variable's or a flag's value.
#[derive(Debug)]
pub(super) struct Overlay {
    pub(super) name: String,
    pub(super) path: Vec<PathStep>,
    pub(super) value: Value,
    /// The text, if the value is something else by now.
    pub(super) raw: Option<String>,
    /// Why the text, if it is the value, is no YAML.
    pub(super) broken: Option<String>,
}

impl Overlay {
    /// What a text sets: a value as YAML, and, where that makes more of it than a text, the text that it
    /// may have been meant as.
    pub(super) fn read(name: String, path: Vec<PathStep>, raw: &str) -> Self {
        let quoted = raw.starts_with(['"', '\'']);
        let text = || Value::String(raw.to_owned());
        let (value, is_more, broken) = match serde_yaml::from_str(raw) {
            Ok(Value::String(text)) if quoted => (Value::String(text), false, None),
            // Nothing may be lost to YAML's comments and folding.
            Ok(Value::String(_)) => (text(), false, None),
            Ok(Value::Null) if raw.starts_with('#') => (text(), false, None),
            Ok(value) => (value, true, None),
            Err(error) => (text(), false, Some(error.to_string())),
        };
        Self {
            name,
            path,
            value,
            raw: is_more.then(|| raw.to_owned()),
            broken,
        }
    }
}

impl Origins {
    /// An error about the value at a key (`metrics.basic_auth`, `listen[1].address`), telling
    /// where it was said.
    pub fn error(&self, key: &str, message: &str) -> ConfigError {
        self.invalid(&PathStep::parse(key), message)
    }

    /// Whether anybody said anything at a key or below it; else it is as the defaults have it.
    pub fn said(&self, key: &str) -> bool {
        let key = PathStep::parse(key);
        let in_file = |file: &ConfigFile| line_of(&file.text, &key).is_some();
        self.overlay_at(&key).is_some()
            || self
                .overlays
                .iter()
                .any(|overlay| overlay.path.starts_with(&key))
            || self.files.iter().any(in_file)
    }

    pub(super) fn invalid(&self, key: &[PathStep], message: &str) -> ConfigError {
        let (origin, line) = self.find(key);
        ConfigError::invalid(origin, line, PathStep::join(key), message)
    }

    /// The variable or flag that set the value at a key, by its number.
    pub(super) fn overlay_at(&self, key: &[PathStep]) -> Option<usize> {
        self.overlays
            .iter()
            // From the end: of several overlays, the one with the highest precedence decided.
            .rposition(|overlay| key.starts_with(&overlay.path))
    }

    fn find(&self, key: &[PathStep]) -> (Option<String>, Option<usize>) {
        if let Some(at) = self.overlay_at(key) {
            return (Some(self.overlays[at].name.clone()), None);
        }
        let file = self.file_of(key);
        let line_of = |key: &[PathStep]| line_of(&file?.text, key);
        let line = line_of(key);
        // What is wrong with a section may come from a variable that set one of its keys.
        let below = self
            .overlays
            .iter()
            .rfind(|overlay| overlay.path.starts_with(key));
        match (file, below) {
            (_, Some(below)) if line.is_none() => (Some(below.name.clone()), None),
            (Some(file), _) => {
                // A key that is as the defaults have it is in the section that the file has.
                let above = || (1..key.len()).rev().find_map(|end| line_of(&key[..end]));
                (Some(file.path.display().to_string()), line.or_else(above))
            }
            (None, _) => (None, None),
        }
    }

    /// The file that said what is at a key, or else what is around it.
    fn file_of(&self, key: &[PathStep]) -> Option<&ConfigFile> {
        let decides = |end: usize| self.files.iter().rfind(|file| file.decides(&key[..end]));
        (1..=key.len()).rev().find_map(decides).or({
            // Of several that say nothing of it none is to blame.
            match &self.files[..] {
                [file] => Some(file),
                _ => None,
            }
        })
    }
}

/// The line of a file that holds a key, counted from 1.
///
/// `serde_yaml` keeps no positions, but it puts them on errors: so this reads the file with a
/// visitor that fails on purpose at the key.
fn line_of(text: &str, path: &[PathStep]) -> Option<usize> {
    let found = Cell::new(false);
    let locate = KeyLocator {
        path,
        found: &found,
    };
    let error = locate
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .err()?;
    // An error of syntax has a line as well, but not the line of the key.
    if !found.get() {
        return None;
    }
    error.location().map(|location| location.line())
}

struct KeyLocator<'a> {
    path: &'a [PathStep],
    /// Whether the failure was on purpose.
    found: &'a Cell<bool>,
}

impl<'a> KeyLocator<'a> {
    fn fail<E: Error>(&self) -> E {
        self.found.set(true);
        E::custom("found")
    }

    /// Fails where the path ends.
    fn end<E: Error>(&self) -> Result<(), E> {
        if self.path.is_empty() {
            return Err(self.fail());
        }
        Ok(())
    }

    fn into(self, path: &'a [PathStep]) -> Self {
        Self { path, ..self }
    }
}

impl<'de> DeserializeSeed<'de> for KeyLocator<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // Where the path ends the value itself fails: the parser then names the line of the value,
        // and not that of the list it is in.
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for KeyLocator<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("what the key is in")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.end()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.end()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.end()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.end()
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.end()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.end()
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.end()?;
        let Some((PathStep::Name(name), rest)) = self.path.split_first() else {
            return Ok(());
        };
        let rest = self.into(rest);
        while let Some(is_it) = map.next_key_seed(KeyMatcher { name, rest: &rest })? {
            if is_it {
                map.next_value_seed(KeyLocator { ..rest })?;
            } else {
                // serde demands that each value is read before the next key.
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.end()?;
        let Some((PathStep::Index(index), rest)) = self.path.split_first() else {
            return Ok(());
        };
        for _ in 0..*index {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        seq.next_element_seed(self.into(rest))?;
        // `serde_yaml` refuses a list that is not read to its end.
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// Whether a key is the one; fails on the last one of the path.
struct KeyMatcher<'a> {
    name: &'a str,
    rest: &'a KeyLocator<'a>,
}

impl<'de> DeserializeSeed<'de> for KeyMatcher<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyMatcher<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        let is_it = key == self.name;
        // Fails at the key, not at its value, which may begin on a later line.
        if is_it && self.rest.path.is_empty() {
            return Err(self.rest.fail());
        }
        Ok(is_it)
    }
}
