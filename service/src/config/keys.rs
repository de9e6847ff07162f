//! The keys of a configuration, one by one, read out of its schema: for a man page, and for a reference.

use serde_json::{Map, Value};

use super::schema::{AFTER_RESTART, AT_RELOAD};

/// One key of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDescription {
    /// Its path: `a.b` is `b` in the section `a`, and `[]` stands for each entry of a list.
    pub key: String,
    /// The type of its value, in a word or two; values to choose among are in backquotes.
    pub kind: String,
    /// What holds where nothing is said.
    pub default: KeyDefault,
    /// The environment variable that sets it, if one can.
    pub variable: Option<String>,
    /// Whether a reload applies a change of it.
    pub is_reloaded: bool,
    /// What it means.
    pub meaning: String,
}

/// What holds where nothing is said of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyDefault {
    /// It must be said within a table that is there.
    Required,
    /// That depends on other keys.
    Open,
    /// An empty list or table.
    Empty,
    /// This value, as it is written in YAML.
    Is(String),
}

/// The keys of a schema that [`schema`](super::schema()) made, in the order of the alphabet.
pub fn keys(schema: &Value) -> Vec<KeyDescription> {
    let mut keys = Vec::new();
    if let Value::Object(table) = schema {
        collect(table, "", Reach::All, &mut keys);
    }
    keys
}

/// Which keys of a table a variable can set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    All,
    /// The keys themselves, and nothing below them: the defaults do not tell what is there.
    Direct,
    /// The key that stands for the whole table.
    Address,
    None,
}

fn collect(table: &Map<String, Value>, path: &str, reach: Reach, keys: &mut Vec<KeyDescription>) {
    let Some(Value::Object(properties)) = table.get("properties") else {
        return;
    };
    let required = table.get("required").and_then(Value::as_array);
    for (name, schema) in properties {
        let key = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        let Value::Object(schema) = schema else {
            continue;
        };
        let is_required = required.is_some_and(|required| required.contains(&Value::from(&**name)));
        let is_section = schema.contains_key("properties");
        if !is_section {
            let is_reached = match reach {
                Reach::All | Reach::Direct => schema.contains_key("default"),
                Reach::Address => name == "address",
                Reach::None => false,
            };
            keys.push(describe(&key, schema, is_required, is_reached));
        }
        let is_open = schema.get("default").is_some_and(Value::is_null);
        let below = match reach {
            Reach::All if !is_section => Reach::Address,
            Reach::All if is_open => Reach::Direct,
            Reach::All => Reach::All,
            _ => Reach::None,
        };
        for (table, is_entry) in tables(schema) {
            let (key, below) = if is_entry {
                (format!("{key}[]"), Reach::None)
            } else {
                (key.clone(), below)
            };
            collect(table, &key, below, keys);
        }
    }
}

/// The tables that a value may be, and whether they are entries of a list.
fn tables(schema: &Map<String, Value>) -> Vec<(&Map<String, Value>, bool)> {
    let mut found = Vec::new();
    if schema.contains_key("properties") {
        found.push((schema, false));
    }
    if let Some(Value::Object(entry)) = schema.get("items") {
        found.extend(tables(entry).into_iter().map(|(table, _)| (table, true)));
    }
    let options = schema.get("anyOf").and_then(Value::as_array);
    for option in options.into_iter().flatten().filter_map(Value::as_object) {
        found.extend(tables(option));
    }
    found
}

fn describe(
    key: &str,
    schema: &Map<String, Value>,
    is_required: bool,
    is_reached: bool,
) -> KeyDescription {
    let text = schema.get("description").and_then(Value::as_str);
    let text = text.unwrap_or_default();
    let when = [(AT_RELOAD, true), (AFTER_RESTART, false)].into_iter();
    let mut when = when.filter_map(|(words, is)| Some((text.strip_suffix(words)?.trim(), is)));
    let (meaning, is_reloaded) = when.next().unwrap_or((text, false));
    let default = match schema.get("default") {
        _ if is_required => KeyDefault::Required,
        // A switch is off where nothing is said.
        None if schema.get("type") == Some(&Value::from("boolean")) => {
            KeyDefault::Is("false".to_owned())
        }
        None => KeyDefault::Open,
        Some(Value::Array(list)) if list.is_empty() => KeyDefault::Empty,
        Some(Value::Object(table)) if table.is_empty() => KeyDefault::Empty,
        Some(default) => KeyDefault::Is(plain(default)),
    };
    let variable = key.to_uppercase().replace('.', "_");
    KeyDescription {
        key: key.to_owned(),
        kind: kind(schema),
        default,
        variable: is_reached.then(|| format!("OCTOSERVE_{variable}")),
        is_reloaded,
        meaning: meaning.to_owned(),
    }
}

/// A value as it is written in YAML.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(table) => {
            let keys = table
                .iter()
                .map(|(key, value)| format!("{key}: {}", plain(value)));
            keys.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// The type of a value, in a word or two.
fn kind(schema: &Map<String, Value>) -> String {
    if let Some(title) = schema.get("title").and_then(Value::as_str) {
        return title.to_owned();
    }
    let quoted = |values: &mut dyn Iterator<Item = &Value>| {
        let mut words: Vec<_> = values
            .filter(|value| !value.is_null())
            .map(|value| format!("`{}`", plain(value)))
            .collect();
        words.dedup();
        words.join(", ")
    };
    for several in ["anyOf", "oneOf"] {
        let Some(options) = schema.get(several).and_then(Value::as_array) else {
            continue;
        };
        if options.iter().all(|option| option.get("const").is_some()) {
            return quoted(&mut options.iter().filter_map(|option| option.get("const")));
        }
        let objects = options.iter().filter_map(Value::as_object);
        let mut kinds: Vec<_> = objects.map(kind).filter(|kind| kind != "null").collect();
        kinds.dedup();
        return kinds.join(" or ");
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return quoted(&mut values.iter().filter(|value| value.is_string()));
    }
    let kinds = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(kind)) => vec![kind.as_str()],
        _ => Vec::new(),
    };
    let kinds = kinds.into_iter().filter(|kind| *kind != "null");
    let kinds = kinds.map(|kind| match kind {
        "string" => "text".to_owned(),
        "array" => {
            let entry = schema.get("items").and_then(Value::as_object);
            format!(
                "list: {}",
                entry.map_or_else(|| "text".to_owned(), self::kind)
            )
        }
        "object" => "table".to_owned(),
        other => other.to_owned(),
    });
    let kinds: Vec<_> = kinds.collect();
    if kinds.is_empty() {
        "null".to_owned()
    } else {
        kinds.join(" or ")
    }
}
