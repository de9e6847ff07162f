//! The keys of the retention.

use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::maintenance::Schedule;
use crate::retention::{Keep, Pattern, RetentionRule, RetentionSettings};
use service::config::{self, Checker, ConfigError};

const MOST_RULES: usize = 100;
const MOST_PATTERNS: usize = 100;
const NEWEST: RangeInclusive<usize> = 1..=1_000_000;
const WITHIN: RangeInclusive<config::Duration> =
    config::Duration::from_secs(1)..=config::Duration::from_secs(100 * 31_557_600);

/// The keys of the retention: which tags and manifests are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionFields {
    /// When it runs by itself: a length of time after the last run, from 1s to 1year, or a time of day in
    /// UTC, such as `"03:00"`; null: never.
    pub schedule: Option<Schedule>,
    /// Whether a run only tells what it would delete.
    pub dry_run: bool,
    /// The rules, at most 100. The first that names a repository is the one for it, and a repository without
    /// one is left as it is.
    pub rules: Vec<RetentionRuleFields>,
}

/// What is kept in some repositories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionRuleFields {
    /// Patterns of the repositories' names, from 1 to 100: `*` is any text without a slash, `**` any number of
    /// components.
    pub repositories: Vec<Pattern>,
    /// Which tags are kept: those that any of these conditions keeps. Left out: all of them.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "KeepFields")]
    pub keep: Option<KeepFields>,
    /// For how long manifests without a tag are kept since they were last pushed or used, or lost a tag, unless
    /// something that stays needs them. Left out: for ever. From 1s to 100years.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "config::Duration")]
    pub untagged: Option<config::Duration>,
}

/// Which tags are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "newest, tags, pushed_within or pulled_within"
)]
pub struct KeepFields {
    /// So many tags, those that were pushed last. From 1 to 1000000.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "usize", range(min = 1, max = 1_000_000))]
    pub newest: Option<usize>,
    /// Tags that match one of these patterns, from 1 to 100: `*` is any text.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<Pattern>")]
    pub tags: Option<Vec<Pattern>>,
    /// Tags that were pushed so long ago or less. From 1s to 100years.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "config::Duration")]
    pub pushed_within: Option<config::Duration>,
    /// Tags that were pulled so long ago or less, by their name or by the digest of their manifest. From 1s to
    /// 100years.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "config::Duration")]
    pub pulled_within: Option<config::Duration>,
}

impl Default for RetentionFields {
    fn default() -> Self {
        Self {
            schedule: None,
            dry_run: true,
            rules: Vec::new(),
        }
    }
}

impl RetentionFields {
    /// Checks the values, of which the section is `retention`.
    pub(super) fn check(&self, checker: &Checker<'_>) -> Result<(), ConfigError> {
        checker.entries("rules", self.rules.len(), MOST_RULES)?;
        let mut all = None;
        for (number, rule) in self.rules.iter().enumerate() {
            if let Some(all) = all {
                let message = format!("no repository is left for it: rules[{all}] names all");
                return Err(checker.error(&format!("rules[{number}]"), &message));
            }
            rule.check(&checker.section(&format!("rules[{number}]")))?;
            let mut patterns = rule.repositories.iter();
            if patterns.any(|pattern| pattern.as_str() == "**") {
                all = Some(number);
            }
        }
        Ok(())
    }

    /// What they mean. No manifest goes within the grace of the garbage collection.
    pub(super) fn settings(&self, grace: Duration) -> RetentionSettings {
        RetentionSettings {
            dry_run: self.dry_run,
            rules: self.rules.iter().map(|rule| rule.rule(grace)).collect(),
        }
    }
}

impl RetentionRuleFields {
    fn check(&self, checker: &Checker<'_>) -> Result<(), ConfigError> {
        patterns(checker, "repositories", &self.repositories)?;
        let is_of_names =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
        only(checker, "repositories", &self.repositories, is_of_names)?;
        if let Some(keep) = &self.keep {
            keep.check(&checker.section("keep"))?;
        }
        within(checker, "untagged", self.untagged)
    }

    fn rule(&self, grace: Duration) -> RetentionRule {
        RetentionRule {
            repositories: self.repositories.clone(),
            keep: self.keep.as_ref().map(KeepFields::keep),
            untagged: self.untagged.map(|time| time.get().max(grace)),
        }
    }
}

impl KeepFields {
    fn check(&self, checker: &Checker<'_>) -> Result<(), ConfigError> {
        // It would keep no tag at all.
        if *self == Self::default() {
            let message = "at least one of newest, tags, pushed_within and pulled_within is needed";
            return Err(checker.error("", message));
        }
        if let Some(newest) = self.newest {
            checker.range("newest", newest, &NEWEST)?;
        }
        if let Some(tags) = &self.tags {
            patterns(checker, "tags", tags)?;
            let is_of_tags = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
            only(checker, "tags", tags, is_of_tags)?;
            if let Some(number) = tags.iter().position(|tag| tag.as_str().contains('/')) {
                let message = "no tag matches it: no tag has a slash";
                return Err(checker.error(&format!("tags[{number}]"), message));
            }
        }
        within(checker, "pushed_within", self.pushed_within)?;
        within(checker, "pulled_within", self.pulled_within)
    }

    fn keep(&self) -> Keep {
        Keep {
            newest: self.newest,
            tags: self.tags.clone().unwrap_or_default(),
            pushed_within: self.pushed_within.map(config::Duration::get),
            pulled_within: self.pulled_within.map(config::Duration::get),
        }
    }
}

fn patterns(checker: &Checker<'_>, key: &str, patterns: &[Pattern]) -> Result<(), ConfigError> {
    if patterns.is_empty() {
        return Err(checker.error(key, "a pattern is needed"));
    }
    checker.entries(key, patterns.len(), MOST_PATTERNS)
}

/// Checks that the patterns have no characters that no name has: a rule that names nothing leaves what it was
/// to keep to the rules after it.
fn only(
    checker: &Checker<'_>,
    key: &str,
    patterns: &[Pattern],
    is_allowed: impl Fn(char) -> bool,
) -> Result<(), ConfigError> {
    for (number, pattern) in patterns.iter().enumerate() {
        let wrong = |c: &char| !is_allowed(*c) && !"*?[]{}!,\\^".contains(*c);
        if let Some(c) = pattern.as_str().chars().find(wrong) {
            let message = format!("nothing matches it: no name has {c:?}");
            return Err(checker.error(&format!("{key}[{number}]"), &message));
        }
    }
    Ok(())
}

fn within(
    checker: &Checker<'_>,
    key: &str,
    time: Option<config::Duration>,
) -> Result<(), ConfigError> {
    time.map_or(Ok(()), |time| checker.range(key, time, &WITHIN))
}

/// Reads a key that is there. Without a value it is an error: it was begun and not written to its end.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RegistryConfig;
    use service::config::Sources;
    use service::program_config::Configuration as _;

    const RULES: &str = "\
retention:
  dry_run: false
  rules:
  - repositories: ['team/**', 'cache/*']
    keep:
      newest: 10
      tags: ['v*', latest]
      pushed_within: 30d
      pulled_within: 90d
    untagged: 7d
  - repositories: [prod]
";

    fn load(yaml: &str) -> Result<RetentionSettings, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r.yaml");
        std::fs::write(&path, yaml).unwrap();
        let sources = Sources {
            files: vec![path.clone()],
            ..Sources::default()
        };
        let loaded = RegistryConfig::load(sources);
        let loaded = loaded.map_err(|e| e.to_string().replace(path.to_str().unwrap(), "FILE"));
        loaded.map(|(config, _)| config.storage.retention.settings(Duration::ZERO))
    }

    #[test]
    fn the_rules_are_read_in_their_order() {
        let settings = load(RULES).unwrap();
        let days = |days| Some(Duration::from_hours(24) * days);
        let pattern = |text| Pattern::parse(text).unwrap();
        let first = RetentionRule {
            repositories: vec![pattern("team/**"), pattern("cache/*")],
            keep: Some(Keep {
                newest: Some(10),
                tags: vec![pattern("v*"), pattern("latest")],
                pushed_within: days(30),
                pulled_within: days(90),
            }),
            untagged: days(7),
        };
        let second = RetentionRule {
            repositories: vec![pattern("prod")],
            keep: None,
            untagged: None,
        };
        assert!(!settings.dry_run);
        assert_eq!(settings.rules, [first, second]);
        let default = load("").unwrap();
        assert!(default.dry_run && default.rules.is_empty());
        let defaults = RetentionFields::default();
        assert!(defaults.schedule.is_none());
    }

    #[test]
    fn no_manifest_goes_within_the_grace() {
        let rule = |untagged| RetentionRuleFields {
            repositories: vec![Pattern::parse("**").unwrap()],
            keep: None,
            untagged: Some(config::Duration::from_secs(untagged)),
        };
        let untagged = |time| rule(time).rule(Duration::from_mins(1)).untagged;
        assert_eq!(untagged(59), Some(Duration::from_mins(1)));
        assert_eq!(untagged(61), Some(Duration::from_secs(61)));
    }

    #[test]
    fn what_is_printed_loads_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r.yaml");
        std::fs::write(&path, RULES).unwrap();
        let sources = Sources {
            files: vec![path],
            ..Sources::default()
        };
        let (_, printed) = RegistryConfig::load(sources).unwrap();
        let printed = config::print(&printed);
        assert_eq!(load(&printed).unwrap(), load(RULES).unwrap());
    }

    #[test]
    fn what_is_wrong_is_refused_by_file_line_and_key() {
        for (old, new, message) in [
            (
                "newest: 10",
                "newest: 0",
                "6: retention.rules[0].keep.newest: must be from 1 to 1000000, not 0",
            ),
            (
                "newest: 10",
                "newest: ten",
                "6: retention.rules[0].keep.newest: ",
            ),
            (
                "newest: 10",
                "newest:",
                "6: retention.rules[0].keep.newest: ",
            ),
            (
                "newest: 10",
                "newst: 10",
                "6: retention.rules[0].keep.newst: unknown key, did you mean newest?",
            ),
            (
                "['v*', latest]",
                "['v*', '[a']",
                "7: retention.rules[0].keep.tags[1]: not a pattern: unclosed character class",
            ),
            (
                "['v*', latest]",
                "[]",
                "7: retention.rules[0].keep.tags: a pattern is needed",
            ),
            ("['v*', latest]", "", "7: retention.rules[0].keep.tags: "),
            (
                "['v*', latest]",
                "['']",
                "7: retention.rules[0].keep.tags[0]: a pattern must not be empty",
            ),
            (
                "['v*', latest]",
                "[a/b]",
                "7: retention.rules[0].keep.tags[0]: no tag matches it",
            ),
            (
                "30d",
                "soon",
                "8: retention.rules[0].keep.pushed_within: `soon` is not a length of time",
            ),
            (
                "30d",
                "0s",
                "8: retention.rules[0].keep.pushed_within: must be from 1s to 100years",
            ),
            (
                "90d",
                "2000years",
                "9: retention.rules[0].keep.pulled_within: must be from",
            ),
            (
                "untagged: 7d",
                "untagged:",
                "10: retention.rules[0].untagged: ",
            ),
            (
                "untagged: 7d",
                "untagged: 0s",
                "10: retention.rules[0].untagged: must be from",
            ),
            (
                "untagged: 7d",
                "tagged: 7d",
                "10: retention.rules[0].tagged: unknown key, did you mean untagged?",
            ),
            (
                "[prod]",
                "['{a']",
                "11: retention.rules[1].repositories[0]: not a pattern: unclosed alternate group",
            ),
            (
                "[prod]",
                "[]",
                "11: retention.rules[1].repositories: a pattern is needed",
            ),
            (
                "[prod]",
                "[team/]",
                "11: retention.rules[1].repositories[0]: no name has the component \"\"",
            ),
            (
                "['team/**', 'cache/*']",
                "[**]",
                "4: did not find expected alphabetic or numeric character: a value that begins with `*`",
            ),
            (
                "['v*', latest]",
                "[*-rc]",
                "7: unknown anchor: a value that begins with `*` or `&` has to be in quotes",
            ),
            (
                "['v*', latest]",
                "['!latest']",
                "7: retention.rules[0].keep.tags[0]: no name has '!'",
            ),
            (
                "[prod]",
                "[a, Prod]",
                "11: retention.rules[1].repositories[1]: nothing matches it: no name has 'P'",
            ),
            (
                "['v*', latest]",
                "['v 1']",
                "7: retention.rules[0].keep.tags[0]: nothing matches it: no name has ' '",
            ),
            (
                "['team/**', 'cache/*']",
                "['team/**', '**']",
                "11: retention.rules[1]: no repository is left for it: rules[0] names all",
            ),
            (
                "repositories: [prod]",
                "untagged: 1d",
                "11: retention.rules[1]: the key repositories is missing",
            ),
            (
                "dry_run: false",
                "schedule: weekly",
                "2: retention.schedule: `weekly` is neither a length of time",
            ),
            ("dry_run: false", "dry_run: maybe", "2: retention.dry_run: "),
            (
                "  rules:",
                "  rule:",
                "3: retention.rule: unknown key, did you mean rules?",
            ),
        ] {
            let error = load(&RULES.replacen(old, new, 1)).unwrap_err();
            assert!(
                error.starts_with(&format!("FILE:{message}")),
                "{error}\n{message}"
            );
        }
        for keep in ["keep:", "keep: {}", "keep: []"] {
            let yaml = format!("retention:\n  rules:\n  - repositories: [a]\n    {keep}\n");
            let error = load(&yaml).unwrap_err();
            assert!(
                error.starts_with("FILE:4: retention.rules[0].keep: "),
                "{error}"
            );
            assert!(error.contains("pulled_within"), "{error}");
        }
    }
}
