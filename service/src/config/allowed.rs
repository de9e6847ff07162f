//! What a schema allows at a key, for messages.

pub(super) use serde_json::Value as Json;

use super::path_step::PathStep;

/// What is allowed at a key, as far as its schema says it.
#[derive(Debug, Default)]
pub(super) struct Allowed {
    least: Option<String>,
    most: Option<String>,
    words: Vec<String>,
}

impl Allowed {
    /// A number of this kind, with its range.
    pub(super) fn number(&self, kind: &str) -> String {
        match (&self.least, &self.most) {
            (Some(least), Some(most)) => format!("{kind} from {least} to {most}"),
            (Some(least), None) => format!("{kind}, {least} or more"),
            (None, Some(most)) => format!("{kind}, {most} or less"),
            (None, None) => kind.to_owned(),
        }
    }

    /// One of the words.
    pub(super) fn word(&self) -> String {
        match &self.words[..] {
            [] => "a text".to_owned(),
            words => format!("one of {}", words.join(", ")),
        }
    }
}

/// What the schema allows at a key.
pub(super) fn allowed(schema: &Json, key: &[PathStep]) -> Allowed {
    let Some(schema) = at(schema, key) else {
        return Allowed::default();
    };
    let number = |name: &str| schema.get(name).map(ToString::to_string);
    let text = |word: &Json| word.as_str().map(str::to_owned);
    let listed = schema.get("enum").and_then(Json::as_array);
    let options = options(schema).filter_map(|option| option.get("const"));
    Allowed {
        least: number("minimum"),
        most: number("maximum"),
        words: listed
            .into_iter()
            .flatten()
            .chain(options)
            .filter_map(text)
            .collect(),
    }
}

/// The schema of what is at a path.
fn at<'s>(schema: &'s Json, path: &[PathStep]) -> Option<&'s Json> {
    let Some((step, rest)) = path.split_first() else {
        return Some(schema);
    };
    let below = match step {
        PathStep::Name(name) => schema.get("properties").and_then(|all| all.get(name)),
        PathStep::Index(_) => schema.get("items"),
    };
    match below {
        Some(below) => at(below, rest),
        None => options(schema).find_map(|option| at(option, path)),
    }
}

/// The schemas of which one must hold.
fn options(schema: &Json) -> impl Iterator<Item = &Json> {
    let several = ["anyOf", "oneOf"].into_iter();
    several
        .filter_map(|several| schema.get(several)?.as_array())
        .flatten()
}
