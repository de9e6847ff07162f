//! The JSON Schema of a configuration, for editors and for those who generate files.
//!
//! It is made of the structs that serde reads: the keys, their types, defaults and descriptions are
//! those of the fields.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::changes::is_at_or_below;

/// The end of the description of a key that a reload applies.
pub(super) const AT_RELOAD: &str = "A change takes effect at a reload.";

/// The end of the description of any other key.
pub(super) const AFTER_RESTART: &str = "A change takes effect after a restart.";

/// The schema of the fields of a program, of that version, as indented JSON. `reloaded` are the keys that
/// a reload applies; each key says whether it is among them.
pub fn schema<F: JsonSchema>(program: &str, version: &str, reloaded: &[&str]) -> String {
    let mut root = tree::<F>();
    if let Value::Object(object) = &mut root {
        let id = format!("urn:octoserve:{program}:{version}:configuration");
        object.insert("$id".to_owned(), id.into());
        let title = format!("Configuration of {program}");
        object.insert("title".to_owned(), title.into());
    }
    complete(&mut root, "", reloaded, true);
    // Cannot fail: it is a tree of JSON.
    let mut text = serde_json::to_string_pretty(&root).unwrap_or_default();
    text.push('\n');
    text
}

/// The schema of the fields as they are.
pub(super) fn tree<F: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    // Old editors ignore what stands beside a reference, such as the description of a key.
    settings.inline_subschemas = true;
    settings
        .into_generator()
        .into_root_schema_for::<F>()
        .to_value()
}

/// Completes the schema of the value at `path`, in which `[]` stands for any entry of a list. `is_merged`:
/// the value is a section that is laid over its defaults.
fn complete(schema: &mut Value, path: &str, reloaded: &[&str], is_merged: bool) {
    let Value::Object(object) = schema else {
        return;
    };
    // Names of Rust's number types, which mean nothing in a schema.
    object.remove("format");
    if let Some(Value::String(description)) = object.get_mut("description") {
        // Comments are broken into lines of a source's width.
        *description = description.replace('\n', " ");
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        for (name, below) in properties {
            let path = match path {
                "" => name.clone(),
                section => format!("{section}.{name}"),
            };
            let is_table = is_merged && below.get("default").is_some_and(Value::is_object);
            complete(below, &path, reloaded, is_table);
            if let Value::Object(below) = below {
                say_when(below, &path, reloaded);
                if is_table || is_list(below) {
                    allow_nothing(below);
                }
            }
        }
    }
    if let Some(entry) = object.get_mut("items") {
        complete(entry, &format!("{path}[]"), reloaded, false);
    }
    for several in ["anyOf", "oneOf"] {
        if let Some(Value::Array(options)) = object.get_mut(several) {
            for option in options {
                complete(option, path, reloaded, false);
            }
        }
    }
}

/// Allows a table to be left empty, as in `metrics:` with nothing below it: its keys are as the defaults have
/// them.
fn allow_nothing(schema: &mut Map<String, Value>) {
    for kind in ["object", "array"] {
        if schema.get("type") == Some(&Value::from(kind)) {
            schema.insert("type".to_owned(), vec![kind, "null"].into());
        }
    }
}

/// A list that is left empty is one without entries, wherever it stands.
fn is_list(schema: &Map<String, Value>) -> bool {
    schema.get("type") == Some(&Value::from("array"))
}

/// Adds to a key's description when a change of it takes effect.
fn say_when(schema: &mut Map<String, Value>, path: &str, reloaded: &[&str]) {
    if schema.contains_key("properties") {
        // The defaults of a section are those of its keys, unless it is left out by default.
        if schema.get("default").is_some_and(Value::is_object) {
            schema.remove("default");
        }
        return;
    }
    let is_reloaded = reloaded.iter().any(|key| is_at_or_below(path, key));
    let when = if is_reloaded {
        AT_RELOAD
    } else {
        AFTER_RESTART
    };
    let description = match schema.get("description").and_then(Value::as_str) {
        Some(text) => format!("{text} {when}"),
        None => when.to_owned(),
    };
    schema.insert("description".to_owned(), description.into());
}
