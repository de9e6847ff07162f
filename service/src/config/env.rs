//! The environment's variables and the keys they set.

use serde_yaml::{Mapping, Value};

use super::error::ConfigError;
use super::explain::nearest;
use super::origin::Overlay;
use super::path_step::PathStep;

const PREFIX: &str = "OCTOSERVE_";

/// This process's variables that begin with `OCTOSERVE_`. What is not UTF-8 is replaced.
pub fn environment() -> Vec<(String, String)> {
    let all = std::env::vars_os();
    let all = all.map(|(name, value)| {
        (
            name.to_string_lossy().into_owned(),
            value.to_string_lossy().into_owned(),
        )
    });
    all.filter(|(name, _)| name.starts_with(PREFIX)).collect()
}

/// What the variables set, given the tree of defaults. Fails for a variable that sets nothing. An empty
/// one counts as unset: a container can empty the variables of its image, and not remove them.
pub(super) fn overlays(
    env: &[(String, String)],
    defaults: &Value,
) -> Result<Vec<Overlay>, ConfigError> {
    let ours = env
        .iter()
        .filter_map(|(name, raw)| Some((name, name.strip_prefix(PREFIX)?, raw)));
    let overlays = ours.filter_map(|(name, key, raw)| {
        let Some(path) = find(defaults, key) else {
            return Some(Err(ConfigError::UnknownVariable {
                name: name.clone(),
                similar: similar(defaults, key),
            }));
        };
        if raw.is_empty() {
            return None;
        }
        let (value, raw) = value(raw);
        let name = name.clone();
        Some(Ok(Overlay {
            name,
            path,
            value,
            raw,
        }))
    });
    let mut overlays = overlays.collect::<Result<Vec<_>, _>>()?;
    // A section before its keys, which say something more particular; else in any fixed order.
    overlays
        .sort_by(|left, right| (left.path.len(), &left.name).cmp(&(right.path.len(), &right.name)));
    Ok(overlays)
}

/// A value as YAML, and, where that makes more of it than a text, the text that it may have been
/// meant as.
pub(super) fn value(raw: &str) -> (Value, Option<String>) {
    let quoted = raw.starts_with(['"', '\'']);
    match serde_yaml::from_str(raw) {
        Ok(Value::String(text)) if quoted => (Value::String(text), None),
        // Nothing may be lost to YAML's comments and folding.
        Ok(Value::String(_)) | Err(_) => (Value::String(raw.to_owned()), None),
        Ok(Value::Null) if raw.starts_with('#') => (Value::String(raw.to_owned()), None),
        Ok(value) => (value, Some(raw.to_owned())),
    }
}

/// The key that a variable names: the path's names in upper case, joined by `_`, where names may
/// hold `_` themselves.
fn find(tree: &Value, name: &str) -> Option<Vec<PathStep>> {
    tree.as_mapping()?.iter().find_map(|(key, child)| {
        let key = key.as_str()?;
        let rest = name.strip_prefix(&key.to_uppercase())?;
        let mut path = vec![PathStep::Name(key.to_owned())];
        if rest.is_empty() {
            return Some(path);
        }
        let rest = rest.strip_prefix('_').filter(|rest| !rest.is_empty())?;
        let is_open = child.is_null() || child.as_mapping().is_some_and(Mapping::is_empty);
        if is_open {
            // The defaults don't tell what is in an optional section: the rest is one key of it.
            path.push(PathStep::Name(rest.to_lowercase()));
        } else {
            path.extend(find(child, rest)?);
        }
        Some(path)
    })
}

/// The variable that was probably meant by one that names no key.
fn similar(tree: &Value, name: &str) -> Option<String> {
    let mut known = Vec::new();
    variables(tree, "", &mut known);
    nearest(name, known.iter().map(String::as_str)).map(|known| format!("{PREFIX}{known}"))
}

fn variables(tree: &Value, section: &str, known: &mut Vec<String>) {
    for (key, child) in tree.as_mapping().into_iter().flatten() {
        let key = key.as_str().unwrap_or_default().to_uppercase();
        let name = match section {
            "" => key,
            section => format!("{section}_{key}"),
        };
        variables(child, &name, known);
        known.push(name);
    }
}
