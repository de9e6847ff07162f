//! Layered configuration: flags before `OCTOSERVE_…` variables before the YAML file before
//! defaults.
//!
//! The fields are a serde struct of the caller's, with `#[serde(default, deny_unknown_fields)]`
//! throughout. Its defaults, as a tree, tell which variables there are. Everything wrong is one
//! line for a person: where it was said, which key, what is wrong with it.
//!
//! Deliberately not here: what the keys mean. A caller that checks more than serde can says so
//! with [`Origins::error`], in the same words.

mod changes;
mod check;
mod env;
mod error;
mod origin;
mod settled;
mod units;

use std::fs;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_yaml::{Mapping, Value};

pub use changes::ChangedKeys;
pub use check::Checker;
pub use env::environment;
pub use error::ConfigError;
pub use origin::Origins;
pub use units::{ByteSize, Duration, Secret, duration};

use origin::{Overlay, PathStep};
pub(crate) use settled::wait_until_settled;

/// The exit code for a wrong command line or configuration (`EX_USAGE` of sysexits.h).
pub const EX_USAGE: u8 = 64;

/// The keys that are a listener's table, and the one in there that may stand for all of it.
const LISTENER: &str = "listen";
const ADDRESS: &str = "address";

/// Where a configuration comes from, beside the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The YAML file.
    pub file: Option<PathBuf>,
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
    F: Serialize + DeserializeOwned + Default,
{
    load_with_origins(sources).map(|loaded| loaded.fields)
}

/// Reads a configuration, to be checked further.
pub fn load_with_origins<F>(sources: Sources) -> Result<Loaded<F>, ConfigError>
where
    F: Serialize + DeserializeOwned + Default,
{
    let mut tree = serde_yaml::to_value(F::default()).unwrap_or_default();
    let mut overlays = env::overlays(&sources.env, &tree)?;
    // After the variables, because a later overlay wins.
    for Flag { name, key, value } in sources.flags {
        let value = if let Value::String(raw) = value {
            env::value(&raw)
        } else {
            (value, None)
        };
        overlays.push(Overlay {
            name,
            path: PathStep::parse(&key),
            value: value.0,
            raw: value.1,
        });
    }
    let mut origins = Origins::default();
    if let Some(path) = sources.file {
        let text = fs::read_to_string(&path).map_err(|source| ConfigError::Unreadable {
            path: path.clone(),
            source,
        })?;
        merge(
            &mut tree,
            parse(&text).map_err(|error| error.in_file(&path))?,
        );
        origins.file = Some((path, text));
    }
    origins.overlays = overlays;
    // What was wrong with a value before it was taken for a text.
    let mut retried: Vec<Option<ConfigError>> = origins.overlays.iter().map(|_| None).collect();
    // Each further round turns one more overlay into a text for good, so the loop ends.
    loop {
        let mut merged = tree.clone();
        for overlay in &mut origins.overlays {
            if moves_listener(overlay, &merged) {
                overlay.path.push(PathStep::Name(ADDRESS.to_owned()));
            }
            set(&mut merged, &overlay.path, overlay.value.clone());
        }
        let error = match serde_path_to_error::deserialize(merged) {
            Ok(fields) => return Ok(Loaded { fields, origins }),
            Err(error) => error,
        };
        let key = PathStep::of_path(error.path());
        let found = origins.invalid(&key, &error.into_inner().to_string());
        let Some(at) = origins.overlay_at(&key) else {
            return Err(found);
        };
        // `123` may be meant as a text, where a text is wanted.
        if let Some(raw) = origins.overlays[at].raw.take() {
            retried[at] = Some(found);
            origins.overlays[at].value = Value::String(raw);
            continue;
        }
        return Err(retried[at].take().unwrap_or(found));
    }
}

/// The whole configuration as a file that can be loaded again, with secrets masked.
pub fn print<F: Serialize>(fields: &F) -> String {
    serde_yaml::to_string(fields).unwrap_or_else(|error| format!("# {error}\n"))
}

/// A file's tree; an empty one says nothing.
fn parse(text: &str) -> Result<Value, error::SyntaxError> {
    match serde_yaml::from_str(text)? {
        Value::Null => Ok(Value::Mapping(Mapping::new())),
        mapping @ Value::Mapping(_) => Ok(mapping),
        _ => Err(error::SyntaxError::not_a_mapping()),
    }
}

/// Mappings are merged key by key; of everything else the later counts. A section that is left
/// empty says nothing.
fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Mapping(under), Value::Mapping(over)) => {
            for (key, value) in over {
                match under.get_mut(&key) {
                    Some(under) => merge(under, value),
                    None => {
                        under.insert(key, value);
                    }
                }
            }
        }
        (Value::Mapping(_), Value::Null) => {}
        (under, over) => *under = over,
    }
}

/// Whether a text is laid over a listener's table. The text replaces the address alone. The rest of
/// the table stays: a listener that moves must not lose its TLS.
fn moves_listener(overlay: &Overlay, tree: &Value) -> bool {
    let is_listener = matches!(overlay.path.last(), Some(PathStep::Name(name)) if name == LISTENER);
    let under = overlay.path.iter().try_fold(tree, |tree, key| match key {
        PathStep::Name(name) => tree.get(name),
        PathStep::Index(_) => None,
    });
    is_listener && overlay.value.is_string() && under.is_some_and(Value::is_mapping)
}

fn set(tree: &mut Value, path: &[PathStep], value: Value) {
    let Some((PathStep::Name(first), rest)) = path.split_first() else {
        merge(tree, value);
        return;
    };
    // An optional section is null in the defaults, until a key in it is set.
    if !tree.is_mapping() {
        *tree = Value::Mapping(Mapping::new());
    }
    if let Value::Mapping(mapping) = tree {
        set(
            mapping.entry(first.as_str().into()).or_insert(Value::Null),
            rest,
            value,
        );
    }
}

#[cfg(test)]
mod tests;
