//! Patterns of names.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A glob pattern: `*` is any text without a slash, `**` any number of whole components, `?` one character,
/// `[a-z]` one of these, `[!a-z]` one that is none of these, and `{a,b}` one of two. It matches whole names.
/// Clones are cheap.
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
    /// A component is empty, `.` or `..`.
    #[error("no name has the component {0:?}")]
    Component(String),
    /// `**` is beside other text.
    #[error("`**` must be a whole component, and is not in {0:?}")]
    Stars(String),
    /// `!`, `^` or `,` stands for itself.
    #[error("no name has {0:?}: it means something only {where_}", where_ = meaning(*.0))]
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
        let syntax = |error: globset::Error| PatternError::Syntax(error.kind().to_string());
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        let mut set = GlobSetBuilder::new();
        set.add(glob.map_err(syntax)?);
        check_meaning(text)?;
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

/// Refuses what globs allow and no name can match, or what means less than it seems to.
fn check_meaning(text: &str) -> Result<(), PatternError> {
    let is_no_component = |one: &&str| matches!(*one, "" | "." | "..");
    if !text.contains('{')
        && let Some(component) = text.split('/').find(is_no_component)
    {
        return Err(PatternError::Component(component.to_owned()));
    }
    let (mut braces, mut component) = (0_u32, String::new());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        let literal = match c {
            // The character after it stands for itself.
            '\\' => characters.next(),
            '[' => {
                skip_class(&mut characters);
                None
            }
            ',' if braces > 0 => None,
            c => Some(c).filter(|_| "!^,".contains(c)),
        };
        if let Some(c) = literal.filter(|c| "!^,".contains(*c)) {
            return Err(PatternError::Literal(c));
        }
        match c {
            '{' => braces += 1,
            '}' => braces = braces.saturating_sub(1),
            _ => {}
        }
        if "/{,}".contains(c) {
            check_stars(&component)?;
            component.clear();
        } else {
            component.push(c);
        }
    }
    check_stars(&component)
}

/// Skips the rest of a class. A `]` that comes first is one of its characters.
fn skip_class(characters: &mut std::str::Chars<'_>) {
    let rest = characters.as_str();
    let begin = rest.strip_prefix(['!', '^']).unwrap_or(rest);
    let end = begin.char_indices().skip(1).find(|(_, c)| *c == ']');
    if let Some((end, _)) = end {
        *characters = begin[end + 1..].chars();
    }
}

fn check_stars(component: &str) -> Result<(), PatternError> {
    if component.contains("**") && component != "**" {
        return Err(PatternError::Stars(component.to_owned()));
    }
    Ok(())
}

/// Where a character of a pattern means something.
fn meaning(c: char) -> &'static str {
    match c {
        ',' => "between `{` and `}`",
        _ => "at the start of `[...]`",
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
            ("[a,b]", &["a", "b"], &["c", "ab"]),
            ("[]!a]x", &["ax"], &["bx"]),
            (
                "{team/**,cache/**}",
                &["team/a/b", "cache/x"],
                &["team", "other/a"],
            ),
            ("{**/app,b}", &["app", "a/b/app", "b"], &["c"]),
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
            (
                "team**",
                "`**` must be a whole component, and is not in \"team**\"",
            ),
            (
                "a/***",
                "`**` must be a whole component, and is not in \"***\"",
            ),
            (
                "{a/b**,c}",
                "`**` must be a whole component, and is not in \"b**\"",
            ),
            ("a//b", "no name has the component \"\""),
            ("a/../b", "no name has the component \"..\""),
            ("a/", "no name has the component \"\""),
            (
                "!latest",
                "no name has '!': it means something only at the start of `[...]`",
            ),
            ("a^", "no name has '^'"),
            ("\\!a", "no name has '!'"),
            ("{!a,b}", "no name has '!'"),
            (
                "a,b",
                "no name has ',': it means something only between `{` and `}`",
            ),
            ("[0-9],[a]", "no name has ','"),
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
