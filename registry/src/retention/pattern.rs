//! Patterns of names.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A glob pattern: `*` is any text without a slash, `**` any number of components, `?` one character, and
/// `{a,b}` one of two. It matches whole names. Clones are cheap.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    // A set of one: it knows quicker ways than a regular expression for most patterns.
    set: Arc<GlobSet>,
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is empty.
    #[error("a pattern must not be empty")]
    Empty,
    /// It has more than [`Pattern::MAX_LENGTH`] bytes.
    #[error("a pattern must not be longer than {max} bytes", max = Pattern::MAX_LENGTH)]
    TooLong,
    /// A component is empty, `.` or `..`, or has `**` beside other text.
    #[error("a pattern cannot have the component {0:?}: no name does, and `**` stands alone")]
    Component(String),
    /// `!`, `^` or `,` where it stands for itself, which no name has.
    #[error("nothing matches it: no name has {0:?}, which means something only {where_}", where_ = meaning(*.0))]
    Literal(char),
    /// Its syntax is wrong.
    #[error("not a pattern: {0}")]
    Syntax(String),
}

impl Pattern {
    /// The longest pattern, in bytes.
    pub const MAX_LENGTH: usize = 256;

    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > Self::MAX_LENGTH {
            return Err(PatternError::TooLong);
        }
        let components = text.split('/');
        let wrong =
            |one: &&str| ["", ".", ".."].contains(one) || one.contains("**") && *one != "**";
        if let Some(component) = components.clone().find(wrong) {
            return Err(PatternError::Component(component.to_owned()));
        }
        let syntax = |error: globset::Error| PatternError::Syntax(error.kind().to_string());
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        let mut set = GlobSetBuilder::new();
        set.add(glob.map_err(syntax)?);
        if let Some(literal) = literal(text) {
            return Err(PatternError::Literal(literal));
        }
        Ok(Self {
            text: text.into(),
            set: Arc::new(set.build().map_err(syntax)?),
        })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        self.set.is_match(name)
    }
}

/// The first `!`, `^` or `,` of a pattern that stands for itself.
fn literal(text: &str) -> Option<char> {
    let (mut in_class, mut braces, mut before) = (false, 0_usize, None);
    for c in text.chars() {
        match c {
            _ if before == Some('\\') => {
                before = None;
                if matches!(c, '!' | '^' | ',') {
                    return Some(c);
                }
                continue;
            }
            '[' if !in_class => in_class = true,
            ']' if in_class => in_class = false,
            '!' | '^' if !(in_class && before == Some('[')) => return Some(c),
            ',' if in_class || braces == 0 => return Some(c),
            '{' if !in_class => braces += 1,
            '}' if !in_class => braces = braces.saturating_sub(1),
            _ => {}
        }
        before = Some(c);
    }
    None
}

/// Where a character of a pattern means something.
fn meaning(c: char) -> &'static str {
    match c {
        ',' => "between `{` and `}`",
        _ => "after `[`",
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Pattern;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pattern in quotes, such as 'v*'")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Pattern, E> {
                Pattern::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl JsonSchema for Pattern {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "pattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "pattern",
            "type": "string",
            "minLength": 1,
            "maxLength": Self::MAX_LENGTH,
            "examples": ["v*", "team/**"],
        })
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stays_within_a_component_and_two_cross_them() {
        for (pattern, matches, differs) in [
            ("*", &["a", "web"][..], &["a/b"][..]),
            ("**", &["a", "a/b", "a/b/c"], &[]),
            ("team/*", &["team/a"], &["team", "team/a/b", "teams/a"]),
            ("team/**", &["team/a", "team/a/b"], &["team", "teams/a"]),
            ("**/web", &["web", "a/web", "a/b/web"], &["a/web2"]),
            ("a/**/z", &["a/z", "a/b/z", "a/b/c/z"], &["a/zz"]),
            ("v*", &["v", "v1.2.3", "v1_2-rc"], &["1", "nov1"]),
            ("v?.?", &["v1.2"], &["v1.20", "v1"]),
            ("{main,release-*}", &["main", "release-1"], &["mains"]),
            ("[0-9]*", &["1", "1.2.3"], &["v1"]),
            ("[!v]*", &["1", "latest"], &["v1"]),
            ("*.*", &["1.2", "a.b.c"], &["latest"]),
            ("*.sig", &["sha256-00.sig"], &["sig", ".sign"]),
            ("latest", &["latest"], &["latest2", "Latest"]),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(parsed.as_str(), pattern);
            for name in matches {
                assert!(parsed.matches(name), "{pattern} {name}");
            }
            for name in differs {
                assert!(!parsed.matches(name), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, message) in [
            ("", "a pattern must not be empty"),
            ("[a", "not a pattern: unclosed character class; missing ']'"),
            ("{a", "not a pattern: unclosed alternate group; missing '}'"),
            ("a}", "not a pattern: unopened alternate group; missing '{'"),
            ("a\\", "not a pattern: dangling '\\'"),
            ("[z-a]", "not a pattern: invalid range; 'z' > 'a'"),
            ("team**", "a pattern cannot have the component \"team**\""),
            ("a/***", "a pattern cannot have the component \"***\""),
            ("a//b", "a pattern cannot have the component \"\""),
            ("a/../b", "a pattern cannot have the component \"..\""),
            ("a/", "a pattern cannot have the component \"\""),
            (
                "!latest",
                "nothing matches it: no name has '!', which means something only after `[`",
            ),
            ("[a!]", "nothing matches it: no name has '!'"),
            ("a^", "nothing matches it: no name has '^'"),
            ("\\!a", "nothing matches it: no name has '!'"),
            (
                "a,b",
                "nothing matches it: no name has ',', which means something only between `{`",
            ),
        ] {
            let error = Pattern::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
        assert!(Pattern::parse(&"a".repeat(256)).is_ok());
        assert_eq!(Pattern::parse(&"a".repeat(257)), Err(PatternError::TooLong));
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "[a-c/*?{},\\[\\]!\\\\-]{0,256}", name in "[a-c/.]{0,20}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                pattern.matches(&name);
            }
        }

        #[test]
        fn a_name_matches_itself(name in "[a-z0-9][a-z0-9._-]{0,9}(/[a-z0-9][a-z0-9._-]{0,9}){0,3}") {
            prop_assert!(Pattern::parse(&name).unwrap().matches(&name));
        }
    }
}
