//! What serde says of a wrong configuration, in a person's words, with the key that was meant.

use serde_yaml::Value;

use super::allowed::{Allowed, Json, allowed};
use super::path_step::PathStep;

/// Says in a person's words what serde says in a programmer's of the value at `key`. `defaults` are all
/// keys that have one, and `schema` tells what may be at each.
pub(super) fn explain(
    message: &str,
    key: &[PathStep],
    defaults: &Value,
    schema: &dyn Fn() -> Json,
) -> String {
    // serde does not promise these texts: one that changes passes through as it is.
    if let Some((name, expected)) = quoted(message, "unknown field `") {
        let known = names(expected);
        let here = nearest(name, known.iter().copied());
        let meant = here.map(str::to_owned).or_else(|| {
            let mut above = key.to_vec();
            above.pop();
            elsewhere(name, &above, defaults)
        });
        let expected = expected.trim_start_matches(", ").replace('`', "");
        return match meant {
            Some(meant) => format!("unknown key, did you mean {meant}? {}", capital(&expected)),
            None => format!("unknown key, {expected}"),
        };
    }
    if let Some((name, expected)) = quoted(message, "unknown variant `") {
        let known = names(expected);
        let expected = expected.trim_start_matches(", ").replace('`', "");
        return match nearest(name, known.iter().copied()) {
            Some(meant) => format!("{expected}, not {name}; did you mean {meant}?"),
            None => format!("{expected}, not {name}"),
        };
    }
    if let Some((name, _)) = quoted(message, "missing field `") {
        return format!("the key {name} is missing");
    }
    let found = message
        .strip_prefix("invalid type: ")
        .or(message.strip_prefix("invalid value: "));
    // From the right: the quoted value may contain the same words.
    if let Some((found, expected)) = found.and_then(|rest| rest.rsplit_once(", expected ")) {
        let wanted = wanted(expected, || allowed(&schema(), key));
        return format!("expected {wanted}, not {}", in_words(found));
    }
    message.to_owned()
}

/// What serde expects, without the names of Rust's types.
fn wanted(expected: &str, allowed: impl FnOnce() -> Allowed) -> String {
    const WHOLE: [&str; 10] = [
        "u8", "u16", "u32", "u64", "usize", "i8", "i16", "i32", "i64", "isize",
    ];
    let number = expected.trim_start_matches("a nonzero ");
    match expected {
        "a boolean" => "true or false".to_owned(),
        "a string" | "a borrowed string" | "path string" => "a text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "keys and values".to_owned(),
        "a Value::Tag enum" => allowed().word(),
        _ if expected.starts_with("struct ") => "keys and values".to_owned(),
        _ if WHOLE.contains(&number) => allowed().number("a whole number"),
        "f32" | "f64" => allowed().number("a number"),
        expected => expected.to_owned(),
    }
}

/// A value as serde names it, without its type.
fn in_words(found: &str) -> &str {
    let plain = ["integer `", "floating point `", "boolean `", "character `"];
    let mut plain = plain.iter().filter_map(|kind| found.strip_prefix(kind));
    match found {
        "unit value" => "nothing",
        "sequence" => "a list",
        "map" => "keys and values",
        _ => match (plain.next(), found.strip_prefix("string ")) {
            (Some(value), _) => value.trim_end_matches('`'),
            (None, Some(text)) => text,
            (None, None) => found,
        },
    }
}

/// The name that is most like another one, if any is enough like it for a slip of the hand.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let name = name.to_lowercase();
    // A third of the letters, as compilers allow: with more, the suggestion is another word.
    let most = name.chars().count().max(3) / 3;
    let distance = |known: &str| strsim::damerau_levenshtein(&name, &known.to_lowercase());
    let near = known.map(|known| (distance(known), known));
    let near = near.filter(|(distance, _)| *distance <= most);
    near.min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// The only key of this name in another section, as a path.
fn elsewhere(name: &str, section: &[PathStep], defaults: &Value) -> Option<String> {
    let mut found = Vec::new();
    collect(name, defaults, &mut Vec::new(), &mut found);
    found.retain(|path| !path.starts_with(section) || path.len() != section.len() + 1);
    match &found[..] {
        [one] => Some(PathStep::join(one)),
        _ => None,
    }
}

fn collect(name: &str, tree: &Value, path: &mut Vec<PathStep>, found: &mut Vec<Vec<PathStep>>) {
    for (key, child) in tree.as_mapping().into_iter().flatten() {
        let Some(key) = key.as_str() else { continue };
        path.push(PathStep::Name(key.to_owned()));
        if key == name {
            found.push(path.clone());
        }
        collect(name, child, path, found);
        path.pop();
    }
}

/// The name that a message quotes after its beginning, and the rest of the message.
fn quoted<'m>(message: &'m str, beginning: &str) -> Option<(&'m str, &'m str)> {
    message.strip_prefix(beginning)?.split_once('`')
}

/// The names that a message quotes.
fn names(expected: &str) -> Vec<&str> {
    expected.split('`').skip(1).step_by(2).collect()
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: &str, key: &str) -> String {
        let defaults =
            "{registry: {data: x, uploads: {expire: 1}}, limits: {drain: 1}, x: {drain: 1}}";
        let defaults = serde_yaml::from_str(defaults).unwrap();
        let schema = || {
            serde_json::json!({"properties": {
                "n": {"type": "integer", "minimum": 1, "maximum": 9},
                "list": {"items": {"anyOf": [{"type": "null"}, {"properties": {"n": {"minimum": 0}}}]}},
                "word": {"oneOf": [{"const": "a"}, {"const": "b"}]},
                "words": {"type": "string", "enum": ["c", "d"]},
            }})
        };
        explain(message, &PathStep::parse(key), &defaults, &schema)
    }

    #[test]
    fn a_wrong_type_is_told_without_the_names_of_rusts_types() {
        for (message, key, text) in [
            (
                "invalid value: integer `-1`, expected usize",
                "n",
                "expected a whole number from 1 to 9, not -1",
            ),
            (
                "invalid type: floating point `1.5`, expected u64",
                "list[3].n",
                "expected a whole number, 0 or more, not 1.5",
            ),
            (
                "invalid type: string \"a, expected b\", expected f64",
                "other",
                "expected a number, not \"a, expected b\"",
            ),
            (
                "invalid type: sequence, expected struct Limits",
                "limits",
                "expected keys and values, not a list",
            ),
            (
                "invalid type: unit value, expected a sequence",
                "list",
                "expected a list, not nothing",
            ),
            (
                "invalid type: boolean `true`, expected a Value::Tag enum",
                "word",
                "expected one of a, b, not true",
            ),
            (
                "invalid type: map, expected a Value::Tag enum",
                "words",
                "expected one of c, d, not keys and values",
            ),
            (
                "invalid type: integer `5`, expected a length of time",
                "x",
                "expected a length of time, not 5",
            ),
        ] {
            assert_eq!(said(message, key), text);
        }
    }

    #[test]
    fn an_unknown_name_suggests_the_nearest_known_one() {
        for (name, meant) in [
            ("levle", Some("level")),
            ("lebel", Some("level")),
            ("LEVEL", Some("level")),
            ("header-timeout", Some("header_timeout")),
            ("headerTimeout", Some("header_timeout")),
            ("timeout", None),
            ("l", None),
            ("", None),
            ("surprise", None),
        ] {
            let known = ["level", "header_timeout", "sample"];
            assert_eq!(nearest(name, known.into_iter()), meant, "{name}");
        }
    }

    #[test]
    fn the_nearest_of_several_is_meant() {
        let known = ["socket", "sockets", "pocket"];
        assert_eq!(nearest("sockets", known.into_iter()), Some("sockets"));
        assert_eq!(nearest("sokets", known.into_iter()), Some("sockets"));
    }

    #[test]
    fn a_key_of_another_section_is_named_where_it_belongs() {
        let unknown =
            |name: &str| format!("unknown field `{name}`, expected one of `listen`, `registry`");
        assert_eq!(
            said(&unknown("data"), "data"),
            "unknown key, did you mean registry.data? Expected one of listen, registry"
        );
        assert_eq!(
            said(&unknown("expire"), "registry.expire"),
            "unknown key, did you mean registry.uploads.expire? Expected one of listen, registry"
        );
        // Of two nobody knows which was meant.
        assert_eq!(
            said(&unknown("drain"), "drain"),
            "unknown key, expected one of listen, registry"
        );
    }

    #[test]
    fn an_unknown_value_is_told_with_those_that_are_known() {
        let message = "unknown variant `jsn`, expected one of `auto`, `text`, `json`";
        assert_eq!(
            said(message, "logging.format"),
            "expected one of auto, text, json, not jsn; did you mean json?"
        );
        let message = "unknown variant `paper`, expected `full` or `metadata`";
        assert_eq!(said(message, "x"), "expected full or metadata, not paper");
    }
}
