//! The rules that decide which repositories get a label, and which one.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use regex::Regex;
use registry::oci::Name;

/// How many names the cache of the grouping rules' results holds. They take a few megabytes.
const CACHED_NAMES: usize = 16_384;

/// The cap, the allow-list and the grouping rules.
///
/// A name on the allow-list is its own label, and a slot is reserved for it. For any other name the
/// first grouping rule that matches makes the label; if none matches, the name is the label. Labels
/// that are not on the allow-list take the free slots in the order in which they are admitted.
#[derive(Clone, Debug)]
pub struct Rules {
    limit: usize,
    allow: HashSet<String>,
    groups: Vec<GroupRule>,
    idle: Duration,
}

/// The rules, with a cache of their results.
pub(super) struct RepositoryLabels {
    rules: Rules,
    /// The labels of names that were admitted or could have been; `None` for a name that gets no
    /// label.
    cache: Cache<Box<str>, Option<Arc<str>>>,
}

/// Names that share a label.
#[derive(Clone, Debug)]
pub struct GroupRule {
    names: Regex,
    label: String,
}

/// What is wrong with the rules.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// An entry of the allow-list is not a name of a repository.
    #[error("no repository can have this name")]
    Name {
        /// Its index in the list.
        index: usize,
    },
    /// The allow-list is longer than the cap.
    #[error("{count} names are more than the {limit} that are shown at most")]
    TooMany {
        /// How many there are.
        count: usize,
        /// The cap.
        limit: usize,
    },
}

/// What is wrong with a grouping rule.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// `match` is not a regular expression.
    #[error("not a regular expression: {0}")]
    Regex(String),
    /// `name` refers to a group that `match` does not capture.
    #[error("`match` captures nothing as `{0}`: write ${{1}} where letters follow")]
    Reference(String),
    /// `name` is empty, or could be a label of the proxy's own, such as `_other`.
    #[error("must not be empty or begin with an underscore")]
    Label,
}

impl GroupRule {
    /// Names that match `names` get the label `label`, in which `$1` or `${name}` stands for a
    /// captured group. The error says whether it is about the label.
    pub fn new(names: &str, label: String) -> Result<GroupRule, GroupError> {
        let names = Regex::new(names).map_err(|error| {
            // The last line says what is wrong; the lines before point at it in a drawing.
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            GroupError::Regex(last.trim_start_matches("error: ").to_owned())
        })?;
        if label.is_empty() || label.starts_with('_') {
            return Err(GroupError::Label);
        }
        for reference in references(&label) {
            let is_known = match reference.parse::<usize>() {
                Ok(number) => number < names.captures_len(),
                Err(_) => names
                    .capture_names()
                    .flatten()
                    .any(|name| name == reference),
            };
            if !is_known {
                return Err(GroupError::Reference(reference.to_owned()));
            }
        }
        Ok(GroupRule { names, label })
    }
}

impl GroupError {
    /// Whether it is the label that is wrong, rather than the expression.
    pub fn is_about_label(&self) -> bool {
        !matches!(self, GroupError::Regex(_))
    }
}

impl Rules {
    /// Rules for at most `limit` labels. A label that counted nothing for `idle` may be evicted.
    pub fn new(
        limit: usize,
        allow: Vec<String>,
        groups: Vec<GroupRule>,
        idle: Duration,
    ) -> Result<Rules, RulesError> {
        if let Some(index) = allow.iter().position(|name| Name::parse(name).is_err()) {
            return Err(RulesError::Name { index });
        }
        let allow: HashSet<String> = allow.into_iter().collect();
        let count = allow.len();
        // Each of them has a reserved slot, and there would be too few.
        if count > limit {
            return Err(RulesError::TooMany { count, limit });
        }
        Ok(Rules {
            limit,
            allow,
            groups,
            idle,
        })
    }

    /// How many labels there may be, beside `_other`.
    pub fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn idle(&self) -> Duration {
        self.idle
    }

    /// How many slots there are for names that are not on the allow-list.
    pub(super) fn unreserved(&self) -> usize {
        // Never negative: `new` refuses a longer list.
        self.limit - self.allow.len()
    }

    /// Whether a slot is reserved for a label.
    pub(super) fn reserves(&self, label: &str) -> bool {
        self.allow.contains(label)
    }

    fn evaluate<'a>(&self, name: &'a str) -> Option<Cow<'a, str>> {
        if self.reserves(name) {
            return Some(Cow::Borrowed(name));
        }
        let matching = self
            .groups
            .iter()
            // The engine takes linear time: no name from a client can stall it by backtracking.
            .find_map(|group| Some((group, group.names.captures(name)?)));
        let Some((group, captures)) = matching else {
            return Some(Cow::Borrowed(name));
        };
        let mut label = String::new();
        captures.expand(&group.label, &mut label);
        // A captured group may be empty, long, or begin with an underscore.
        let is_fit =
            !label.is_empty() && !label.starts_with('_') && label.len() <= Name::MAX_LENGTH;
        is_fit.then_some(Cow::Owned(label))
    }
}

impl RepositoryLabels {
    pub(super) fn new(rules: Rules) -> RepositoryLabels {
        // Without groups a name is its own label, and the cache is not used.
        let capacity = if rules.groups.is_empty() {
            0
        } else {
            CACHED_NAMES
        };
        RepositoryLabels {
            rules,
            cache: Cache::new(capacity),
        }
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(super) fn are_names(&self) -> bool {
        self.rules.groups.is_empty()
    }

    /// The label of a name, if the cache has it.
    pub(super) fn cached(&self, name: &str) -> Option<Arc<str>> {
        self.cache.get(name).flatten()
    }

    /// The label of a name; `None` if it gets none.
    pub(super) fn of<'a>(&self, name: &'a str) -> Option<Cow<'a, str>> {
        if self.are_names() {
            return is_name(name).then_some(Cow::Borrowed(name));
        }
        if let Some(known) = self.cache.get(name) {
            return known.map(|label| Cow::Owned(label.to_string()));
        }
        // Before the cache is written: texts that are not names must not push names out of it.
        if !is_name(name) {
            return None;
        }
        let label = self.rules.evaluate(name);
        self.cache
            .insert(name.into(), label.as_deref().map(Arc::from));
        label
    }
}

/// Whether a text from a path can be the name of a repository. Only names become labels.
fn is_name(text: &str) -> bool {
    Name::parse(text).is_ok()
}

/// The groups that a label refers to, in the syntax of `Captures::expand`.
fn references(template: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(escaped) = rest.strip_prefix('$') {
            rest = escaped;
        } else if let Some((braced, after)) =
            rest.strip_prefix('{').and_then(|rest| rest.split_once('}'))
        {
            found.push(braced);
            rest = after;
        } else {
            let end = rest
                .find(|c: char| c != '_' && !c.is_ascii_alphanumeric())
                .unwrap_or(rest.len());
            if end > 0 {
                found.push(&rest[..end]);
            }
            rest = &rest[end..];
        }
    }
    found
}
