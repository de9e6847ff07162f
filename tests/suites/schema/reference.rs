//! docs/reference/configuration.md, made of the schemas.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use serde_json::Value;
use service::config::{KeyDefault, KeyDescription, keys};

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

/// The page of these programs.
pub(crate) fn page(programs: &[(&str, Value)]) -> Result<String> {
    let mut page = HEAD.to_owned();
    for (name, schema) in programs {
        write!(page, "\n## {name}\n")?;
        let rows = keys(schema);
        ensure!(rows.len() > 30, "{name} has only {} keys", rows.len());
        let section = |row: &KeyDescription| match row.key.split_once(['.', '[']) {
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
                let default = match &row.default {
                    KeyDefault::Required => "*required*".to_owned(),
                    KeyDefault::Open => String::new(),
                    KeyDefault::Empty => "none".to_owned(),
                    KeyDefault::Is(value) => format!("`{value}`"),
                };
                let change = if row.is_reloaded { "reload" } else { "restart" };
                let meaning = row.meaning.replace('|', "\\|");
                ensure!(
                    meaning.ends_with('.'),
                    "{} has no sentence: {meaning}",
                    row.key
                );
                writeln!(
                    page,
                    "| `{}` | {} | {default} | {variable} | {change} | {meaning} |",
                    row.key, row.kind
                )?;
            }
        }
    }
    Ok(page)
}
