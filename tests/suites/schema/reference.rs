//! docs/reference/configuration.md, made of the schemas.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

const HEAD: &str = "\
# Reference of the configuration

Every key of both programs. This page is made of the programs' own JSON Schemas
([octoserve](octoserve.schema.json), [octoserve-registry](octoserve-registry.schema.json)), which
`octoserve schema` and `octoserve-registry schema` print; a test keeps it current.
[docs/configuration.md](../configuration.md) explains what belongs together.

- **Key**: `a.b` is the key `b` in the section `a`; `[]` stands for each entry of a list.
- **Default**: what holds where nothing is said; *required* within a table that is there.
- **Variable**: the environment variable that sets the key. Lists are written as YAML: `[a, b]`.
- **Change**: whether a changed value takes effect at a *reload* (SIGHUP, `ctl reload`) or after a *restart*
  only. [More](../configuration.md#reload).
";

/// One key.
pub(crate) struct Row {
    key: String,
    kind: String,
    default: String,
    variable: Option<String>,
    change: &'static str,
    text: String,
}

impl Row {
    /// The variable that sets the key, if one can.
    pub(crate) fn variable(&self) -> Option<&str> {
        self.variable.as_deref()
    }
}

/// The page of these programs.
pub(crate) fn page(programs: &[(&str, Value)]) -> Result<String> {
    let mut page = HEAD.to_owned();
    for (name, schema) in programs {
        write!(page, "\n## {name}\n")?;
        let rows = rows(schema)?;
        ensure!(rows.len() > 30, "{name} has only {} keys", rows.len());
        let section = |row: &Row| match row.key.split_once(['.', '[']) {
            Some((section, _)) => section.to_owned(),
            None => String::new(),
        };
        let mut sections: Vec<_> = rows.iter().map(section).collect();
        sections.sort();
        sections.dedup();
        for wanted in sections {
            let heading = if wanted.is_empty() { "keys" } else { &wanted };
            write!(page, "\n### {name}: {heading}\n\n")?;
            page.push_str(
                "| Key | Type | Default | Variable | Change | |\n|---|---|---|---|---|---|\n",
            );
            for row in rows.iter().filter(|row| section(row) == wanted) {
                let variable = match &row.variable {
                    Some(variable) => format!("`{variable}`"),
                    None => String::new(),
                };
                writeln!(
                    page,
                    "| `{}` | {} | {} | {variable} | {} | {} |",
                    row.key, row.kind, row.default, row.change, row.text
                )?;
            }
        }
    }
    Ok(page)
}

/// The keys of a schema.
pub(crate) fn rows(schema: &Value) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let object = schema.as_object().context("a schema is an object")?;
    collect(object, "", Reach::All, &mut rows)?;
    Ok(rows)
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

fn collect(
    table: &Map<String, Value>,
    path: &str,
    reach: Reach,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let Some(Value::Object(properties)) = table.get("properties") else {
        return Ok(());
    };
    let required = table.get("required").and_then(Value::as_array);
    for (name, schema) in properties {
        let key = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        let schema = schema.as_object().with_context(|| key.clone())?;
        let is_required = required.is_some_and(|required| required.contains(&Value::from(&**name)));
        let is_section = schema.contains_key("properties");
        if !is_section {
            let is_reached = match reach {
                Reach::All | Reach::Direct => schema.contains_key("default"),
                Reach::Address => name == "address",
                Reach::None => false,
            };
            rows.push(row(&key, schema, is_required, is_reached)?);
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
            collect(table, &key, below, rows)?;
        }
    }
    Ok(())
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

fn row(key: &str, schema: &Map<String, Value>, is_required: bool, is_reached: bool) -> Result<Row> {
    let text = schema.get("description").and_then(Value::as_str);
    let text = text.with_context(|| format!("{key} has no description"))?;
    let (text, change) = [
        ("A change takes effect at a reload.", "reload"),
        ("A change takes effect after a restart.", "restart"),
    ]
    .into_iter()
    .find_map(|(sentence, change)| Some((text.strip_suffix(sentence)?.trim(), change)))
    .with_context(|| format!("{key} does not say when a change takes effect"))?;
    ensure!(text.ends_with('.'), "{key} has no sentence: {text}");
    let default = match schema.get("default") {
        _ if is_required => "*required*".to_owned(),
        // A switch is off where nothing is said.
        None if schema.get("type") == Some(&Value::from("boolean")) => "`false`".to_owned(),
        None => String::new(),
        Some(Value::Array(list)) if list.is_empty() => "none".to_owned(),
        Some(Value::Object(table)) if table.is_empty() => "none".to_owned(),
        Some(default) => format!("`{}`", plain(default)),
    };
    let variable = key.to_uppercase().replace('.', "_");
    Ok(Row {
        key: key.to_owned(),
        kind: kind(schema),
        default,
        variable: is_reached.then(|| format!("OCTOSERVE_{variable}")),
        change,
        text: text.replace('|', "\\|"),
    })
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
