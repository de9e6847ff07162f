//! Which repositories the metrics show by name.

use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::config::{self, Checker, ConfigError, Origins};

use crate::metrics::{GroupRule, Rules, RulesError};

/// Each name shown is a dozen series.
const LIMIT: RangeInclusive<usize> = 0..=10_000;
const IDLE: RangeInclusive<config::Duration> =
    config::Duration::from_secs(0)..=config::Duration::YEAR;
/// A name that is new is put through all of them.
const MOST_GROUPS: usize = 100;
const LONGEST_RULE: usize = 1_000;

/// Where these fields are.
const KEY: &str = "metrics.repositories";

/// Which repositories the metrics show by name.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RepositoryFields {
    /// How many are shown at most; the rest is `_other`. From 0 to 10000.
    #[schemars(range(min = 0, max = 10_000))]
    pub limit: usize,
    /// Names for which a slot is reserved.
    pub allow: Vec<String>,
    /// Names that are shown as one, at most 100 rules; the first that matches counts.
    pub group: Vec<GroupFields>,
    /// The idle time after which a repository may be evicted when no slot is free. From 0s to 1year.
    pub idle: config::Duration,
}

/// Names that are shown as one.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupFields {
    /// A regular expression for the names. At most 1000 bytes.
    #[serde(rename = "match")]
    pub names: String,
    /// What they are shown as; `$1` is what the first parentheses captured. At most 1000 bytes.
    pub name: String,
}

impl Default for RepositoryFields {
    fn default() -> RepositoryFields {
        RepositoryFields {
            limit: 200,
            allow: Vec::new(),
            group: Vec::new(),
            idle: config::Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl RepositoryFields {
    pub(super) fn resolve(self, origins: &Origins) -> Result<Rules, ConfigError> {
        let checker = Checker::new(origins, KEY);
        checker.range("limit", self.limit, &LIMIT)?;
        checker.range("idle", self.idle, &IDLE)?;
        checker.entries("group", self.group.len(), MOST_GROUPS)?;
        let mut groups = Vec::with_capacity(self.group.len());
        for (index, group) in self.group.into_iter().enumerate() {
            let checker = checker.section(&format!("group[{index}]"));
            checker.text("match", &group.names, LONGEST_RULE)?;
            checker.text("name", &group.name, LONGEST_RULE)?;
            let rule = GroupRule::new(&group.names, group.name).map_err(|error| {
                // The error names the line that the operator has to change.
                let key = if error.is_about_label() {
                    "name"
                } else {
                    "match"
                };
                checker.error(key, &error.to_string())
            })?;
            groups.push(rule);
        }
        Rules::new(self.limit, self.allow, groups, self.idle.get()).map_err(|error| {
            let key = match error {
                RulesError::Name { index } => format!("allow[{index}]"),
                RulesError::TooMany { .. } => "allow".to_owned(),
            };
            checker.error(&key, &error.to_string())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::resolve;

    fn refusal(yaml: &str) -> String {
        let yaml = format!("metrics:\n  repositories:\n{yaml}");
        resolve(&yaml, Vec::new()).unwrap_err()
    }

    #[test]
    fn wrong_rules_are_refused_where_they_were_said() {
        for (yaml, message) in [
            (
                "    allow: [team/app, Team]\n",
                "FILE:3: metrics.repositories.allow[1]: no repository can have this name",
            ),
            (
                "    limit: 1\n    allow: [a, b]\n",
                "FILE:4: metrics.repositories.allow: 2 names are more than the 1",
            ),
            (
                "    group:\n      - {match: '(', name: a}\n",
                "FILE:4: metrics.repositories.group[0].match: not a regular expression: unclosed",
            ),
            (
                "    group:\n      - {match: a, name: b}\n      - match: '^(a)'\n        name: $1b\n",
                "FILE:6: metrics.repositories.group[1].name: `match` captures nothing as `1b`",
            ),
            (
                "    group: [{match: a, name: _other}]\n",
                "FILE:3: metrics.repositories.group[0].name: must not be empty",
            ),
            (
                "    group: [{match: a}]\n",
                "FILE:3: metrics.repositories.group[0]: the key name is missing",
            ),
            ("    idle: soon\n", "FILE:3: metrics.repositories.idle: "),
            ("    limit: -1\n", "FILE:3: metrics.repositories.limit: "),
            (
                "    cap: 1\n",
                "FILE:3: metrics.repositories.cap: unknown key",
            ),
        ] {
            let error = refusal(yaml);
            assert!(error.starts_with(message), "{error}\n{message}");
        }
    }

    #[test]
    fn rules_are_printed_as_they_can_be_read_again() {
        let yaml = "metrics: {repositories: {limit: 3, allow: [a], idle: 1h, group: \
                    [{match: '^(b)/', name: '${1}s'}]}}";
        let (config, printed) = resolve(yaml, Vec::new()).unwrap();
        assert_eq!(config.metrics.unwrap().repositories.limit(), 3);
        let (_, again) = resolve(&printed, Vec::new()).unwrap();
        assert_eq!(again, printed);
        assert!(printed.contains("${1}s"), "{printed}");
    }
}
