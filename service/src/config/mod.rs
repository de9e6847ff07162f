//! Layered configuration: flags before `OCTOSERVE_…` variables before the YAML files, of which the
//! later count, before defaults.
//!
//! The fields are a serde struct of the caller's, with `#[serde(default, deny_unknown_fields)]`
//! throughout. Its defaults, as a tree, tell which variables there are. Everything wrong is one
//! line for a person: where it was said, which key, what is wrong with it.
//!
//! Deliberately not here: what the keys mean. A caller that checks more than serde can says so
//! with [`Origins::error`], in the same words.

mod allowed;
mod changes;
mod check;
mod env;
mod error;
mod explain;
mod files;
mod keys;
mod merge;
mod origin;
mod path_step;
mod schema;
mod settled;
mod units;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_yaml::{Mapping, Value};

pub use changes::ChangedKeys;
pub use check::Checker;
pub use env::environment;
pub use error::ConfigError;
pub use keys::{KeyDefault, KeyDescription, keys};
pub use origin::Origins;
pub use schema::schema;
pub use units::{ByteSize, Duration, Secret, duration};

use files::ConfigFile;
use origin::Overlay;
use path_step::PathStep;
pub(crate) use settled::wait_until_settled;

/// The exit code for a wrong command line or configuration (`EX_USAGE` of sysexits.h).
pub const EX_USAGE: u8 = 64;

/// Where a configuration comes from, beside the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The YAML files, or directories of them; of two that set one key, the later counts.
    pub files: Vec<PathBuf>,
    /// The variables that begin with `OCTOSERVE_`; others may be among them. See [`environment`].
    pub env: Vec<(String, String)>,
    /// What flags set; of two that set one key, the later counts.
    pub flags: Vec<Flag>,
}

/// What a command line flag sets.
#[derive(Clone, Debug)]
pub struct Flag {
    name: String,
    key: String,
    value: Value,
}

impl Flag {
    /// The flag as it is written (`--listen`), the path of the key that it sets
    /// (`metrics.listen`), and the value, of which a text is read as the environment's are.
    pub fn new(name: &str, key: &str, value: impl Serialize) -> Self {
        // What cannot be YAML is refused as the null that it becomes.
        let value = serde_yaml::to_value(value).unwrap_or_default();
        Self {
            name: name.to_owned(),
            key: key.to_owned(),
            value,
        }
    }
}

/// A configuration, and where each of its values was said.
#[derive(Debug)]
pub struct Loaded<F> {
    /// The fields.
    pub fields: F,
    /// Where they come from.
    pub origins: Origins,
}

/// Reads a configuration.
pub fn load<F>(sources: Sources) -> Result<F, ConfigError>
where
    F: Serialize + DeserializeOwned + Default + JsonSchema,
{
    load_with_origins(sources).map(|loaded| loaded.fields)
}

/// Reads a configuration, to be checked further.
pub fn load_with_origins<F>(sources: Sources) -> Result<Loaded<F>, ConfigError>
where
    F: Serialize + DeserializeOwned + Default + JsonSchema,
{
    let defaults = serde_yaml::to_value(F::default()).unwrap_or_default();
    let mut overlays = env::overlays(&sources.env, &defaults)?;
    // After the variables, because a later overlay wins.
    for Flag { name, key, value } in sources.flags {
        let path = PathStep::parse(&key);
        overlays.push(match value {
            Value::String(raw) => Overlay::read(name, path, &raw),
            value => Overlay {
                name,
                path,
                value,
                raw: None,
                broken: None,
            },
        });
    }
    let mut origins = Origins {
        files: ConfigFile::read_all(&sources.files)?,
        overlays,
    };
    // One over the other first: a file says something about a listener of an earlier file, and
    // nothing about the default one.
    let mut said = Value::Mapping(Mapping::new());
    for file in &origins.files {
        merge::merge_file(&mut said, file.tree.clone());
    }
    let mut tree = defaults.clone();
    merge::merge(&mut tree, said);
    // What was wrong with a value before it was taken for a text.
    let mut retried: Vec<Option<ConfigError>> = origins.overlays.iter().map(|_| None).collect();
    // Each further round turns one more overlay into a text for good, so the loop ends.
    loop {
        let mut merged = tree.clone();
        for overlay in &mut origins.overlays {
            merge::lay(&mut merged, overlay);
        }
        let error = match serde_path_to_error::deserialize(merged) {
            Ok(fields) => return Ok(Loaded { fields, origins }),
            Err(error) => error,
        };
        let key = PathStep::of_path(error.path());
        let said = error.into_inner().to_string();
        let message = explain::explain(&said, &key, &defaults, &schema::tree::<F>);
        let found = origins.invalid(&key, &message);
        let Some(at) = origins.overlay_at(&key) else {
            return Err(found);
        };
        // `123` may be meant as a text, where a text is wanted.
        if let Some(raw) = origins.overlays[at].raw.take() {
            retried[at] = Some(found);
            origins.overlays[at].value = Value::String(raw);
            continue;
        }
        // More was wanted than the text that it was taken for.
        let broken = origins.overlays[at].broken.take();
        let broken = broken.filter(|_| said.starts_with("invalid type: string"));
        if let Some(broken) = broken.filter(|_| origins.overlays[at].path == key) {
            return Err(origins.invalid(&key, &format!("{message}: it is no YAML: {broken}")));
        }
        return Err(retried[at].take().unwrap_or(found));
    }
}

/// The whole configuration as a file that can be loaded again, with secrets masked.
pub fn print<F: Serialize>(fields: &F) -> String {
    serde_yaml::to_string(fields).unwrap_or_else(|error| format!("# {error}\n"))
}

#[cfg(test)]
mod tests;
