//! Man pages: those of the commands, and that of the configuration file.

use std::fs;
use std::io;
use std::path::Path;

use roff::{Inline, Roff, bold, italic, roman};
use serde_json::Value;

use crate::config::{KeyDefault, KeyDescription, keys};

/// Writes the pages of a program into a directory: one for each command (section 1), and one for the
/// file that `schema` describes (section 5).
pub fn write(command: clap::Command, schema: &str, directory: &Path) -> io::Result<()> {
    let name = command.get_name().to_owned();
    clap_mangen::generate_to(command, directory)?;
    let schema = serde_json::from_str(schema).map_err(io::Error::other)?;
    let page = configuration(&name, &schema);
    fs::write(directory.join(format!("{name}.yaml.5")), page)
}

/// The page of the configuration file.
fn configuration(program: &str, schema: &Value) -> String {
    let mut page = Roff::new();
    let file = format!("{program}.yaml");
    page.control("TH", [file.as_str(), "5"]);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{file} - the configuration of {program}"))]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([
        roman("A YAML file, or several, that "),
        bold(format!("{program} --config")),
        roman(
            " reads. A flag counts before an environment variable, and that before a file; of two \
             files that set one key, the later counts. In the names of keys, ",
        ),
        bold("a.b"),
        roman(" is the key "),
        bold("b"),
        roman(" in the section "),
        bold("a"),
        roman(", and "),
        bold("[]"),
        roman(" stands for each entry of a list."),
    ]);
    page.control("SH", ["KEYS"]);
    for key in keys(schema) {
        page.control("TP", []);
        page.text([bold(key.key.clone()), roman(" ("), kind(&key), roman(")")]);
        page.text([roman(key.meaning.replace('`', ""))]);
        page.control("br", []);
        page.text(facts(&key));
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([bold(program), roman("(1)")]);
    page.render()
}

fn kind(key: &KeyDescription) -> Inline {
    italic(key.kind.replace('`', ""))
}

/// The default of a key, its variable, and when a change of it takes effect.
fn facts(key: &KeyDescription) -> Vec<Inline> {
    let mut facts = match &key.default {
        KeyDefault::Required => vec![roman("Required. ")],
        KeyDefault::Open => Vec::new(),
        KeyDefault::Empty => vec![roman("Default: none. ")],
        KeyDefault::Is(value) => vec![roman("Default: "), bold(value.clone()), roman(". ")],
    };
    if let Some(variable) = &key.variable {
        facts.extend([roman("Variable: "), bold(variable.clone()), roman(". ")]);
    }
    facts.push(roman(if key.is_reloaded {
        "Changed by a reload."
    } else {
        "Changed by a restart."
    }));
    facts
}
