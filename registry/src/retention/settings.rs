//! The rules.

use std::time::Duration;

use super::pattern::Pattern;
use crate::oci::Name;

/// What a run of the retention does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Whether a run that nobody asks for otherwise only tells what it would delete.
    pub dry_run: bool,
    /// The first rule that names a repository is the one for it. A repository without one is left as it is.
    pub rules: Vec<RetentionRule>,
}

/// What is kept in some repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionRule {
    /// The names of the repositories.
    pub repositories: Vec<Pattern>,
    /// Which tags are kept; `None`: all of them.
    pub keep: Option<Keep>,
    /// For how long manifests are kept that have no tag and that nothing keeps; `None`: for ever.
    pub untagged: Option<Duration>,
}

/// The tags that are kept. One that any of these keeps stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// So many tags, those that were pushed last.
    pub newest: Option<usize>,
    /// Tags that match any of these.
    pub tags: Vec<Pattern>,
    /// Tags that were pushed so long ago or less.
    pub pushed_within: Option<Duration>,
    /// Tags that were pulled so long ago or less.
    pub pulled_within: Option<Duration>,
}

impl RetentionSettings {
    /// The rule for a repository, and its number.
    pub fn rule(&self, name: &Name) -> Option<(usize, &RetentionRule)> {
        let mut rules = self.rules.iter().enumerate();
        rules.find(|(_, rule)| rule.is_for(name))
    }
}

impl RetentionRule {
    fn is_for(&self, name: &Name) -> bool {
        let name = name.as_str();
        self.repositories.iter().any(|one| one.matches(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_counts() {
        let rule = |patterns: &[&str]| RetentionRule {
            repositories: patterns
                .iter()
                .map(|p| Pattern::parse(p).unwrap())
                .collect(),
            keep: None,
            untagged: None,
        };
        let settings = RetentionSettings {
            dry_run: true,
            rules: vec![
                rule(&["team/prod"]),
                rule(&["team/**", "cache/*"]),
                rule(&["**"]),
            ],
        };
        for (name, number) in [
            ("team/prod", 0),
            ("team/prod/web", 1),
            ("cache/x", 1),
            ("cache/x/y", 2),
            ("team", 2),
        ] {
            let found = settings.rule(&Name::parse(name).unwrap());
            assert_eq!(found.map(|(number, _)| number), Some(number), "{name}");
        }
        let none = RetentionSettings {
            rules: Vec::new(),
            ..settings
        };
        assert_eq!(none.rule(&Name::parse("a").unwrap()), None);
    }
}
