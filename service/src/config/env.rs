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
            let name = name.clone();
            return Some(Err(if is_service_link(key, raw) {
                ConfigError::ServiceLink { name }
            } else {
                let similar = similar(defaults, key);
                ConfigError::UnknownVariable { name, similar }
            }));
        };
        if raw.is_empty() {
            return None;
        }
        Some(Ok(Overlay::read(name.clone(), path, raw)))
    });
    let mut overlays = overlays.collect::<Result<Vec<_>, _>>()?;
    // A section before its keys, which say something more particular; else in any fixed order.
    overlays
        .sort_by(|left, right| (left.path.len(), &left.name).cmp(&(right.path.len(), &right.name)));
    Ok(overlays)
}

/// Whether a variable is one that Kubernetes sets in each pod for a Service whose name begins with
/// `octoserve`, as `OCTOSERVE_PORT=tcp://10.0.0.1:5000`.
fn is_service_link(key: &str, raw: &str) -> bool {
    let ends = |word: &str| {
        let above = key.strip_suffix(word);
        above.is_some_and(|above| above.is_empty() || above.ends_with('_'))
    };
    let is_of_port =
        key.contains("PORT_") && ["_TCP", "_UDP", "_SCTP"].iter().any(|p| key.contains(p));
    ends("SERVICE_HOST")
        || ends("SERVICE_PORT")
        || key.contains("SERVICE_PORT_")
        || is_of_port
        || (ends("PORT") && raw.contains("://"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_of_a_service_are_told_from_slips_of_the_hand() {
        for (key, raw) in [
            ("PORT", "tcp://10.0.0.1:5000"),
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "5000"),
            ("SERVICE_PORT_REGISTRY", "5000"),
            ("PORT_5000_TCP", "tcp://10.0.0.1:5000"),
            ("PORT_5000_TCP_ADDR", "10.0.0.1"),
            ("REGISTRY_PORT", "udp://10.0.0.1:5000"),
            ("REGISTRY_SERVICE_HOST", "10.0.0.1"),
        ] {
            assert!(is_service_link(key, raw), "{key}");
        }
        for (key, raw) in [
            ("PORT", "5000"),
            ("METRCS_PORT", "1"),
            ("SERVICE", "x"),
            ("REPORT", "tcp://x"),
        ] {
            assert!(!is_service_link(key, raw), "{key}");
        }
    }
}
