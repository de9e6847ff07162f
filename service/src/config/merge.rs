//! Trees laid over each other.

use serde_yaml::{Mapping, Value};

use super::origin::Overlay;
use super::path_step::PathStep;

/// The keys that are a listener's table, and the one in there that may stand for all of it.
const LISTENER: &str = "listen";
const ADDRESS: &str = "address";

/// Mappings are merged key by key; of everything else the later counts. A section that is left
/// empty says nothing.
pub(super) fn merge(under: &mut Value, over: Value) {
    merge_with(under, over, &|_, _, _| false);
}

/// Lays a file over those before it. As [`merge`], and a text for a listener's table replaces the
/// address alone: a listener that moves must not lose its TLS.
pub(super) fn merge_file(under: &mut Value, over: Value) {
    merge_with(under, over, &|key, under, over| {
        let is_moved = key == LISTENER && over.is_string();
        match under {
            Value::Mapping(table) if is_moved => {
                table.insert(ADDRESS.into(), over.clone());
                true
            }
            _ => false,
        }
    });
}

/// Merges; `lays` may lay the value of a key over an earlier one itself.
fn merge_with(under: &mut Value, over: Value, lays: &impl Fn(&str, &mut Value, &Value) -> bool) {
    match (under, over) {
        (Value::Mapping(under), Value::Mapping(over)) => {
            for (key, value) in over {
                match under.get_mut(&key) {
                    Some(under) => {
                        if !lays(key.as_str().unwrap_or_default(), under, &value) {
                            merge_with(under, value, lays);
                        }
                    }
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

/// Lays a variable's or a flag's value over a tree.
pub(super) fn lay(tree: &mut Value, overlay: &mut Overlay) {
    if moves_listener(overlay, tree) {
        overlay.path.push(PathStep::Name(ADDRESS.to_owned()));
    }
    set(tree, &overlay.path, overlay.value.clone());
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
